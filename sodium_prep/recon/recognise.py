"""What a measured trajectory is, and the density compensation that follows from it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.trajectory import FloatArray, Trajectory, radial_weights, recognise_law

_SAME_END: Final = 0.01
"""Spread of the ends of the readouts, relative to kmax, within which they lie on one surface."""
_SAME_RADIUS: Final = 1e-4
_EVEN_DIRECTIONS: Final = 0.05


def measured_trajectory(k_per_mm: NDArray[np.floating[Any]], time_s: FloatArray) -> Trajectory:
    """Trajectory of readouts whose places in k-space are given, with its density compensation.

    Parameters
    ----------
    k_per_mm : (n_readouts, n_samples, 3)
        1/mm, along the axes of the image grid.
    time_s : (n_samples,)
        Seconds since the first sample.

    Raises
    ------
    ValueError
        If the readouts do not sample a region of k-space that can be gridded.
    """
    k = np.asarray(k_per_mm, dtype=np.float64)
    radius = np.sqrt(np.einsum("...i,...i", k, k))
    ends = radius[:, -1]
    kmax = float(ends.mean())
    if kmax <= 0.0 or np.ptp(ends) > _SAME_END * kmax:
        raise ValueError("its readouts do not all end on the same sphere of k-space")
    direction = k[:, -1] / ends[:, None]
    spread = direction.T @ direction / len(k) - np.eye(3) / 3.0
    if max(np.abs(direction.mean(axis=0)).max(), np.abs(spread).max()) > _EVEN_DIRECTIONS:
        raise ValueError("its readouts do not cover the sphere of k-space evenly")
    mean = radius.mean(axis=0)
    shared = np.abs(radius - mean).max() < _SAME_RADIUS * kmax
    fraction = recognise_law(mean / mean[-1]) if shared else None
    weights = radial_weights(mean if shared else radius, len(k), fraction)
    return Trajectory(k.astype(np.float32), time_s, weights, kmax, fraction)
