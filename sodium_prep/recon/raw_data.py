"""What a reconstruction needs of raw data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.trajectory import Trajectory

NUCLEUS = "23Na"
TRAJECTORY_UNITS = "1/m"
PER_MM = {TRAJECTORY_UNITS: 1e-3, "1/mm": 1.0}
"""What makes 1/mm of the units of a trajectory that a file may state."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
