"""What a reconstruction needs of raw data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import TrajectoryName
from sodium_prep.recon.trajectory import Trajectory

NUCLEUS = "23Na"
TRAJECTORY_UNITS = "1/m"
PER_MM = {TRAJECTORY_UNITS: 1e-3, "1/mm": 1.0}
"""What makes 1/mm of the units of a trajectory that a file may state."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class RawDescription:
    """What is known of raw data from beside the file, as from its sidecar; None where nothing is.

    Attributes
    ----------
    trajectory, linear_fraction, readout_duration_s
        Law of the readout, see :class:`sodium_prep.physics.acquisition.Acquisition`.
    trajectory_file
        HDF5 file with the trajectory, see :func:`sodium_prep.recon.hdf5.read_trajectory`.
    n_spokes
        Readouts with trajectories of their own.
    dwell_time_s
        From sample to sample.
    nominal_resolution_mm, field_of_view_mm
        Of the image, along read, phase and slice.
    echo_time_s
        Of the first echo; goes before the file's.
    n_channels
        Receive channels.
    """

    trajectory: TrajectoryName | None = None
    trajectory_file: Path | None = None
    n_spokes: int | None = None
    linear_fraction: float | None = None
    dwell_time_s: float | None = None
    readout_duration_s: float | None = None
    nominal_resolution_mm: tuple[float, float, float] | None = None
    field_of_view_mm: tuple[float, float, float] | None = None
    echo_time_s: float | None = None
    n_channels: int | None = None


@dataclass(frozen=True)
class RawData:
    """Samples of k-space with all that is needed to make an image of them.

    Attributes
    ----------
    kspace
        (coils, spokes, samples) complex64.
    trajectory
        Where and when each sample was taken, along the axes of the grid.
    shape, voxel_mm
        Grid of the image.
    affine
        (4, 4) voxel to world, RAS+ mm. The phase of every k is zero at voxel ``N // 2``.
    noise
        (coils, n) complex64 samples without signal with the noise level of ``kspace``; None where none were recorded.
    trajectory_name
        ``DA-3DPR``, ``3DPR`` or ``TPI`` where the file says so.
    echo_time_s
        From the centre of the excitation pulse to the first sample.
    n_averages
        Readouts averaged into each spoke.
    block
        (spokes,) average or repetition that each readout belongs to, counted from 0, where readouts were kept apart;
        they are then in the order in which they were taken. None where they were averaged.
    source
        File the data came from, for messages.
    """

    kspace: NDArray[np.complex64]
    trajectory: Trajectory
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    noise: NDArray[np.complex64] | None = None
    trajectory_name: str | None = None
    field_strength_t: float | None = None
    echo_time_s: float | None = None
    repetition_time_s: float | None = None
    flip_angle_deg: float | None = None
    n_averages: int = 1
    block: NDArray[np.int32] | None = None
    source: str = "raw data"

    @property
    def field_of_view_mm(self) -> tuple[float, float, float]:
        """Extent of the grid along its axes, mm."""
        x, y, z = (n * v for n, v in zip(self.shape, self.voxel_mm, strict=True))
        return (x, y, z)
