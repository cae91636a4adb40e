"""Spatial correlation of the noise in a reconstructed image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import Acquisition, FilterName
from sodium_prep.physics.readout import acquisition_window, filter_window
from sodium_prep.recon.gridding import filtered_weights
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.trajectory import Trajectory, linear_fraction_of

FloatArray = NDArray[np.float64]


def _relative_frequencies(
    shape: tuple[int, int, int], voxel_mm: tuple[float, float, float], kmax_per_mm: tuple[float, float, float]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distance from zero of the discrete frequencies of each axis, relative to kmax, shaped to broadcast."""
    x, y, z = (
        np.abs(np.fft.fftfreq(n, v) / k).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v, k) in enumerate(zip(shape, voxel_mm, kmax_per_mm, strict=True))
    )
    return x, y, z


def noise_power_spectrum(
    shape: tuple[int, int, int], voxel_mm: tuple[float, float, float], acquisition: Acquisition
) -> NDArray[np.float32]:
    """Power spectrum of the noise in a gridded image, from the parameters of its acquisition.

    A gridded sample enters with weight w where the density of samples is 1 / w, so the noise power at k is
    proportional to ``w(k) window(k)^2``: with density-adapted readouts white from k0 on and falling as ``k^2`` below
    (Nagel et al., MRM 2009;62:1565), at constant speed ``k^2`` throughout, white for a Cartesian acquisition. The
    covariance of the noise in voxels r, s is ``sd(r) sd(s) C(r - s)`` where C is the inverse discrete Fourier transform
    (``numpy.fft.ifftn``) of this spectrum. The spectrum has zeros, so it cannot be inverted as it is.

    Parameters
    ----------
    shape, voxel_mm
        Grid of the image.
    acquisition
        Trajectory, resolution, linear fraction and filter are used. An unknown filter raises ValueError.

    Returns
    -------
    (X, Y, Z) float32 in the order of ``numpy.fft.fftn``, with mean 1.
    """
    axes = _relative_frequencies(shape, voxel_mm, acquisition.kmax_per_mm)
    if acquisition.trajectory == "Cartesian":
        x, y, z = (np.where(k <= 1.0, acquisition_window(np.minimum(k, 1.0), acquisition) ** 2, 0.0) for k in axes)
        power = x * y * z
    else:
        k_rel = np.sqrt(sum(k**2 for k in axes))
        window = acquisition_window(np.minimum(k_rel, 1.0), acquisition)
        fraction = linear_fraction_of(acquisition.trajectory, acquisition.linear_fraction)
        power = np.where(k_rel <= 1.0, (np.minimum(k_rel, fraction) * window) ** 2, 0.0)
    return np.asarray(power / power.mean(), dtype=np.float32)


def trajectory_noise_spectrum(
    shape: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
    trajectory: Trajectory,
    kspace_filter: FilterName = "none",
) -> NDArray[np.float32]:
    """Like :func:`noise_power_spectrum`, from the density compensation of a trajectory.

    Of evenly spread spokes, whose density depends on ``|k|`` alone, it is taken from their weights. Of other readouts
    it is the transform of the covariance ``sum_j w_j^2 exp(2 pi i k_j . d)`` of voxels the distance d apart, which is
    exact up to half the field of view.

    Parameters
    ----------
    shape, voxel_mm
        Grid of the image.
    trajectory
        With the density compensation w.
    kspace_filter
        ``none`` or ``hamming``.
    """
    if trajectory.linear_fraction is None and not trajectory.straight:
        weights = np.broadcast_to(filtered_weights(trajectory, kspace_filter), trajectory.k_per_mm.shape[:2])
        operator = Nufft(trajectory.k_per_mm.reshape(-1, 3), shape, voxel_mm)
        covariance = operator.adjoint(np.square(weights / weights.max()).ravel()).real
        power = np.maximum(np.fft.fftn(np.fft.ifftshift(covariance)).real, 0.0)
        return np.asarray(power / power.mean(), dtype=np.float32)
    axes = _relative_frequencies(shape, voxel_mm, trajectory.half_extents_per_mm)
    k_rel = np.sqrt(sum(k**2 for k in axes))
    if trajectory.linear_fraction is not None:
        root = np.minimum(k_rel, trajectory.linear_fraction)
    else:
        # The square root is linear in k near the centre; the last sample carries half of its cell only.
        weights = np.sqrt(np.maximum(trajectory.weights_mm3.mean(axis=0), 0.0))
        weights[-1] = weights[-2]
        root = np.interp(k_rel, trajectory.k_relative.mean(axis=0), weights)
    window = filter_window(np.minimum(k_rel, 1.0), kspace_filter)
    power = np.where(k_rel <= 1.0, (root * window) ** 2, 0.0)
    return np.asarray(power / power.mean(), dtype=np.float32)
