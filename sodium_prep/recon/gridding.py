"""Density-compensated gridding: samples of k-space to an image in signal per mm^3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import FilterName
from sodium_prep.physics.readout import filter_window
from sodium_prep.recon.readouts import Readouts
from sodium_prep.recon.threads import in_order
from sodium_prep.recon.trajectory import Trajectory


def filtered_weights(trajectory: Trajectory, kspace_filter: FilterName) -> NDArray[np.float64]:
    """Density compensation times filter window, (n_readouts or 1, n_samples).

    A cylinder has the window of its radius times that of its axis.
    """
    if kspace_filter == "none":
        return trajectory.weights_mm3
    if trajectory.region == "cylinder":
        k = np.abs(trajectory.k_per_mm / np.asarray(trajectory.half_extents_per_mm, np.float32)).astype(np.float64)
        flat, along = np.minimum(np.hypot(k[..., 0], k[..., 1]), 1.0), np.minimum(k[..., 2], 1.0)
        return trajectory.weights_mm3 * filter_window(flat, kspace_filter) * filter_window(along, kspace_filter)
    k_rel = trajectory.k_relative
    if trajectory.weights_mm3.shape[0] == 1:
        k_rel = k_rel.mean(axis=0, keepdims=True)
    return trajectory.weights_mm3 * filter_window(k_rel, kspace_filter)


def grid_image(
    kspace: Iterable[NDArray[np.complexfloating[Any]]],
    trajectory: Trajectory,
    shape: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
    kspace_filter: FilterName = "none",
    dtype: type[np.complex64] | type[np.complex128] = np.complex64,
    workers: int = 1,
) -> NDArray[np.complexfloating[Any]]:
    """Image of every coil, ``x(r) = sum_j w_j y_j exp(+2 pi i k_j . r)``.

    Parameters
    ----------
    kspace
        (readouts, samples) of every coil.
    trajectory
        With the density compensation w.
    shape, voxel_mm
        Grid of the image; the phase of every k is zero at voxel ``N // 2``.
    kspace_filter
        Window multiplied onto the samples.
    workers
        Threads; the result does not depend on them.

    Returns
    -------
    (coils, X, Y, Z); an object of spin density rho has the value rho (times decay), whatever the grid.
    """
    operator = Readouts(trajectory.k_per_mm, shape, voxel_mm, dtype)
    weights = filtered_weights(trajectory, kspace_filter).astype(np.empty(0, dtype).real.dtype)
    return np.stack(list(in_order(lambda samples: operator.adjoint(samples * weights), kspace, workers)))


def gridding_noise_sd(sigma: float, trajectory: Trajectory, kspace_filter: FilterName = "none") -> float:
    """Standard deviation of the gridded image's real part (and of its imaginary part), the same in every voxel.

    ``sigma sqrt(sum_j w_j^2)`` with the filter in w.

    Parameters
    ----------
    sigma
        Standard deviation of the real (and of the imaginary) part of one sample.
    """
    weights = filtered_weights(trajectory, kspace_filter)
    repeats = trajectory.n_readouts / weights.shape[0]
    return float(sigma * np.sqrt(repeats * np.sum(weights**2)))
