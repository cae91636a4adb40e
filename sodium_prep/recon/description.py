"""What is known of raw data before they are read; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sodium_prep.physics.acquisition import TrajectoryName

SUFFIXES = (".h5", ".mrd", ".npz", ".dat")
"""Of files that may hold raw data; where several lie side by side, the earlier goes before the later."""


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
    echo_times_s
        Of the echoes in the file, or of the first of them; go before the file's.
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
    echo_times_s: tuple[float, ...] = ()
    n_channels: int | None = None
