"""What a sodium acquisition is, as far as its physics needs to be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

TrajectoryName = Literal["DA-3DPR", "3DPR", "TPI", "Cartesian", "Cones", "FLORET", "SpiralStack"]
FilterName = Literal["none", "hamming", "hann", "fermi", "gaussian", "unknown"]

TRAJECTORIES: tuple[str, ...] = get_args(TrajectoryName)
WITHOUT_LAW: tuple[str, ...] = ("Cones", "FLORET", "SpiralStack")
"""When these read which part of k-space is a matter of their design, and is known from the readouts only."""


@dataclass(frozen=True)
class Acquisition:
    """Parameters of one sodium acquisition, in seconds, millimetres, degrees and tesla.

    Attributes
    ----------
    echo_time_s
        Time from the centre of the excitation pulse to the first sample (k = 0).
    repetition_time_s, flip_angle_deg, field_strength_t
        Of the steady-state spoiled sequence.
    trajectory
        Sampling of k-space; decides which k is read at which time.
    readout_duration_s
        From the first to the last sample of one readout.
    nominal_resolution_mm
        1 / (2 kmax) along x, y, z.
    linear_fraction
        For density-adapted readouts, k0 / kmax where the density adaption sets in.
    kspace_filter
        Window multiplied onto the k-space data before transformation.
    filter_cutoff, filter_width
        Its parameters, relative to kmax; see :func:`sodium_prep.physics.readout.filter_window`.
    fitted_echo_times_s
        Echo times of an image whose decay was fitted with one exponential, and which shows the signal at the centre of
        the excitation; empty for an image of one echo.
    """

    echo_time_s: float
    repetition_time_s: float
    flip_angle_deg: float
    field_strength_t: float
    trajectory: TrajectoryName
    readout_duration_s: float
    nominal_resolution_mm: tuple[float, float, float]
    linear_fraction: float = 0.2
    kspace_filter: FilterName = "none"
    filter_cutoff: float | None = None
    filter_width: float | None = None
    fitted_echo_times_s: tuple[float, ...] = ()

    @property
    def kmax_per_mm(self) -> tuple[float, float, float]:
        """Largest sampled spatial frequency along x, y, z, in 1/mm."""
        x, y, z = self.nominal_resolution_mm
        return (0.5 / x, 0.5 / y, 0.5 / z)
