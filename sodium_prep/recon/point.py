"""What a trajectory makes of a point: its point spread function as an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import FilterName
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.recon.gridding import filtered_weights
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.trajectory import Trajectory

FloatArray = NDArray[np.float64]

_PER_NOMINAL = 0.5
_HALF_WIDTH = 16


def point_grid(trajectory: Trajectory) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape and voxels (mm) of an image that holds a point spread function with its tails.

    Half of the nominal resolution, and 16 nominal voxels to each side.
    """
    x, y, z = (_PER_NOMINAL * 0.5 / k for k in trajectory.half_extents_per_mm)
    n = 2 * round(_HALF_WIDTH / _PER_NOMINAL) + 1
    return (n, n, n), (x, y, z)


def trajectory_psf(
    trajectory: Trajectory,
    shape: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
    *,
    relaxation: Relaxation | None = None,
    echo_time_s: float = 0.0,
    kspace_filter: FilterName = "none",
) -> FloatArray:
    """Gridded image of a point: ``Re sum_j w_j f_j d(t_j) exp(2 pi i k_j . r)`` with filter f and decay d.

    Since ``d = S(TE + t) / S(TE)`` and f are 1 at the centre of k-space and the weights are volumes, the function
    integrates to 1 over space, as :func:`sodium_prep.pvc.psf.psf_profile` does; without decay and filter its value at
    the point is the sampled volume. Undersampled readouts add streaks from their alias-free distance on.

    Parameters
    ----------
    shape, voxel_mm
        Grid of the image; the point lies at voxel ``N // 2``.
    relaxation
        T2* of the tissue; None for none.
    echo_time_s
        From the excitation to the first sample.

    Returns
    -------
    (X, Y, Z) in 1/mm^3. :func:`sodium_prep.pvc.measured.measured_psf` makes of it what the regional estimators take.
    """
    weights = np.broadcast_to(filtered_weights(trajectory, kspace_filter), trajectory.k_per_mm.shape[:2])
    if relaxation is not None:
        start = t2star_factor(echo_time_s, relaxation)
        weights = weights * (t2star_factor(echo_time_s + trajectory.time_s, relaxation) / start)
    operator = Nufft(trajectory.k_per_mm.reshape(-1, 3), shape, voxel_mm)
    return operator.adjoint(weights.ravel()).real.astype(np.float64)
