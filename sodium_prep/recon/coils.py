"""Noise of receive channels, whitening, coil sensitivities and their combination."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

ComplexArray = NDArray[np.complexfloating[Any]]

PHASE_CUTOFF = 0.5
"""Where the low-pass for sensitivities and phase ends, relative to kmax: it blurs by four nominal resolutions."""
_FAR_SD_MM = 30.0
_FAR_WEIGHT = 0.01
"""Small enough to turn a sensitivity inside the object by less than 0.01 rad."""
_NOISE_LEVELS = 4.0
_PASSES = 3


def noise_covariance(noise: ComplexArray) -> NDArray[np.complex128]:
    """Covariance of the channels' noise, counted per real component.

    Parameters
    ----------
    noise
        (coils, n) samples without signal.

    Returns
    -------
    (coils, coils) ``E[n n^H] / 2``; its diagonal holds the variance of the real (and of the imaginary) part.
    """
    n = np.asarray(noise, dtype=np.complex128)
    return np.asarray(n @ n.conj().T / (2.0 * n.shape[1]))


def readout_tail_noise(kspace: ComplexArray) -> NDArray[np.complex64]:
    """Noise samples from the outer end of the readouts, for data without a noise scan.

    An object confined to the field of view makes a signal that varies slowly along a spoke against the dwell time. Its
    fourth difference vanishes there while white noise keeps its own, scaled here back to the noise of one sample. The
    noise must be white along the readout.

    Parameters
    ----------
    kspace
        (coils, spokes, samples); the last 5 % of the samples (at least 8) are used.

    Returns
    -------
    (coils, n)
    """
    tail = max(8, round(0.05 * kspace.shape[2]))
    if kspace.shape[2] < 2 * tail:
        raise ValueError(f"{kspace.shape[2]} samples per readout are too few to estimate noise from")
    difference = np.diff(kspace[..., -tail:], n=4, axis=-1) / np.sqrt(70.0)
    return np.asarray(difference.reshape(len(kspace), -1), dtype=np.complex64)


def whiten(data: ComplexArray, covariance: NDArray[np.complexfloating[Any]]) -> ComplexArray:
    """Channels recombined so that their noise is uncorrelated with unit variance per real component.

    ``L^-1 y`` with the Cholesky factor L of the covariance (Pruessmann et al., MRM 2001;46:638).

    Parameters
    ----------
    data
        (coils, ...)
    covariance
        From :func:`noise_covariance`.
    """
    inverse = np.linalg.inv(np.linalg.cholesky(covariance)).astype(data.dtype)
    return np.asarray((inverse @ data.reshape(len(data), -1)).reshape(data.shape))


def low_resolution_window(
    shape: tuple[int, int, int], voxel_mm: tuple[float, float, float], cutoff_per_mm: float
) -> NDArray[np.float32]:
    """Hamming window that ends at a cut-off frequency, on the frequencies of ``numpy.fft.fftn`` (X, Y, Z)."""
    x, y, z = np.meshgrid(
        *(np.fft.fftfreq(n, v) for n, v in zip(shape, voxel_mm, strict=True)), indexing="ij", sparse=True
    )
    k_rel = np.minimum(np.sqrt(x**2 + y**2 + z**2) / cutoff_per_mm, 1.0)
    return np.where(k_rel < 1.0, 0.54 + 0.46 * np.cos(np.pi * k_rel), 0.0).astype(np.float32)


def low_resolution(images: ComplexArray, window: NDArray[np.float32]) -> ComplexArray:
    """Images (coils, X, Y, Z) under a window (X, Y, Z) in the domain of frequencies."""
    return np.stack([fft.ifftn(fft.fftn(image) * window) for image in images])


def _spread(image: ComplexArray, box: int | tuple[int, ...], far: NDArray[np.float32]) -> ComplexArray:
    """Mean over a box; where that holds nothing, a wide Gaussian around it or the mean of the whole image."""
    near = ndimage.uniform_filter(image, box, mode="constant")
    wide = fft.ifftn(fft.fftn(image) * far)
    return np.asarray(near + _FAR_WEIGHT * wide + _FAR_WEIGHT**2 * image.mean())


def sensitivities(
    images: ComplexArray,
    box: int | tuple[int, ...] = 7,
    voxel_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    noise_sd: float = 0.0,
) -> ComplexArray:
    """Coil sensitivities of one object by alternating least squares in a moving box.

    As Inati et al. (ISMRM 2014, 4407; after Walsh et al., MRM 2000;43:682) alternates ``S_c = <x_c, rho> / <rho, rho>``
    over the box with ``rho = sum_c conj(S_c) x_c`` and ``sum_c |S_c|^2 = 1``, but with a real rho: sodium has no fine
    phase, so the sensitivities carry the whole phase and the combined image is real. One coil is the case of a pure
    phase map. Voxels at the level of noise do not take part: around the object the maps are continued from it, so they
    do not follow the noise there, and a combined image has noise of mean zero in air too.

    Parameters
    ----------
    images
        (coils, X, Y, Z), whitened, smoothed in space.
    box
        Edge of the box in voxels, one or along each axis.
    voxel_mm
        Edge lengths, mm.
    noise_sd
        Standard deviation of the real part of the noise in ``images``.

    Returns
    -------
    (coils, X, Y, Z) complex64 with unit norm over the coils in every voxel.
    """
    rho = np.sqrt(np.sum(np.abs(images) ** 2, axis=0))
    rho = np.where(rho > noise_sd * (np.sqrt(2.0 * len(images)) + _NOISE_LEVELS), rho, 0.0)
    frequencies = (np.fft.fftfreq(n, v) ** 2 for n, v in zip(images.shape[1:], voxel_mm, strict=True))
    x, y, z = np.meshgrid(*frequencies, indexing="ij", sparse=True)
    far = np.exp(-2.0 * (np.pi * _FAR_SD_MM) ** 2 * (x + y + z)).astype(np.float32)
    maps = np.empty(images.shape, dtype=np.complex64)
    for _ in range(_PASSES if len(images) > 1 else 1):
        for coil, image in enumerate(images):
            maps[coil] = _spread(image * rho, box, far)
        norm = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
        maps /= np.maximum(norm, np.finfo(np.float32).tiny)
        rho = combine(images, maps).real
        rho = np.where(rho > noise_sd * _NOISE_LEVELS, rho, 0.0)
    return maps


def combine(images: ComplexArray, maps: ComplexArray) -> ComplexArray:
    """Least-squares combination ``sum_c conj(S_c) x_c`` for whitened channels and maps of unit norm, (X, Y, Z).

    With true sensitivities C of the whitened channels the result is ``sqrt(sum_c |C_c|^2)`` times the object: that
    receive profile stays in the image.
    """
    return np.asarray(np.einsum("c...,c...->...", maps.conj(), images))
