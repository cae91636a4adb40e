"""Noise of receive channels, whitening, coil sensitivities and their combination."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.trajectory import Trajectory

ComplexArray = NDArray[np.complexfloating[Any]]

PHASE_CUTOFF = 0.5
"""Where the low-pass for sensitivities and phase ends, relative to kmax: it blurs by four nominal resolutions."""
_FAR_SD_MM = 30.0
_FAR_WEIGHT = 0.01
"""Small enough to turn a sensitivity inside the object by less than 0.01 rad."""
_NOISE_LEVELS = 4.0
_PASSES = 3
_DEPENDENT = 1e-9
"""Eigenvalue of the correlation of channels, or power relative to the strongest, that rounding alone may make."""


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


def dependent_channels(covariance: NDArray[np.complexfloating[Any]]) -> str:
    """What forbids whitening with a covariance (coils, coils), in words that name the channels; empty if nothing."""
    power = np.diag(covariance).real
    silent = np.flatnonzero(power <= _DEPENDENT * power.max())
    if silent.size:
        return f"channel {silent[0]} of {len(power)} has no noise, so it is dead"
    correlation = covariance / np.sqrt(np.outer(power, power))
    if np.linalg.eigvalsh(correlation)[0] > _DEPENDENT:
        return ""
    first, second = np.unravel_index(np.argmax(np.abs(np.triu(correlation, 1))), correlation.shape)
    if np.abs(correlation[first, second]) > 1.0 - _DEPENDENT:
        return f"channels {first} and {second} of {len(power)} hold the same noise, so one is a copy of the other"
    return f"the noise of the {len(power)} receive channels is linearly dependent"


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


def compression(
    channels: Iterable[ComplexArray],
    noise_sd: float,
    trajectory: Trajectory,
    shape: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
    n: int | None = None,
    noise_samples: int | None = None,
) -> NDArray[np.complex64]:
    """Fewer virtual channels that hold what is above noise in whitened ones.

    The virtual channels are principal components (Buehrer et al., MRM 2007;57:1131), here those of images of low
    resolution where these have signal. Over all of k-space, where most samples are noise, a small vial that only some
    channels see well would lose 2 % of its signal at a signal-to-noise ratio of 15; so it loses 0.2 %.

    Without a number given, those are kept whose power exceeds what noise makes. The largest eigenvalue of noise alone
    is that of two sample covariances over each other, that of the image and that of the noise it was whitened with
    (Wachter, Ann Stat 1980;8:937), ``((1 + sqrt(a + b - a b)) / (1 - b))^2`` times the power of noise with a and b the
    coils over the independent samples of image and noise; for b = 0 this is the edge of Marchenko and Pastur. One
    scale of its spread is added (Johnstone, Ann Stat 2001;29:295).

    What is left out is missing in the combined image as if the receive profile were lower there.

    Parameters
    ----------
    channels
        (readouts, samples) of every channel, with white noise.
    noise_sd
        Standard deviation of the real (and of the imaginary) part of the noise, the same for all channels.
    trajectory
        With its density compensation.
    shape, voxel_mm
        Grid of the final image, for the field of view.
    n
        Number of virtual channels to keep.
    noise_samples
        How many samples the noise covariance was estimated from; None if it is exact.

    Returns
    -------
    (n, coils) with orthonormal rows: virtual from whitened channels, strongest first, with noise as white and of the
    same standard deviation.

    Raises
    ------
    ValueError
        If ``n`` is not between 1 and the number of channels.
    """
    k_rel = trajectory.k_relative / PHASE_CUTOFF
    central = np.flatnonzero(k_rel.min(axis=0) < 1.0)
    window = np.where(k_rel < 1.0, 0.54 + 0.46 * np.cos(np.pi * np.minimum(k_rel, 1.0)), 0.0)[:, central]
    weights = trajectory.weights_mm3[:, central]
    x, y, z = (max(1, round(size * PHASE_CUTOFF)) for size in shape)
    voxel = tuple(v * size / small for v, size, small in zip(voxel_mm, shape, (x, y, z), strict=True))
    operator = Nufft(trajectory.k_per_mm[:, central].reshape(-1, 3), (x, y, z), (voxel[0], voxel[1], voxel[2]))
    images = np.stack([operator.adjoint((one[:, central] * weights * window).ravel()) for one in channels])
    coils = len(images)
    if n is not None and not 1 <= n <= coils:
        raise ValueError(f"{coils} channels cannot be compressed to {n}")

    spectrum = weights * window**2  # of the noise in the images, up to a factor
    total, squared = np.sum(weights * spectrum), np.sum(weights * spectrum**2)
    image_sd = noise_sd * np.sqrt(total)
    power = _power(images)
    signal = power > (image_sd * (np.sqrt(2.0 * coils) + _NOISE_LEVELS)) ** 2
    seen = images[:, signal if signal.any() else power >= 0.0]
    eigenvalues, vectors = np.linalg.eigh(seen @ seen.conj().T / seen.shape[1])
    if n is None:
        independent = seen.shape[1] * np.prod(voxel) * total**2 / squared
        edge = 2.0 * image_sd**2 * _noise_edge(coils, max(independent, 1.0), noise_samples)
        n = max(1, int(np.sum(eigenvalues > max(edge, np.finfo(np.float32).eps * eigenvalues[-1]))))
    return np.asarray(vectors[:, ::-1][:, :n].conj().T, dtype=np.complex64)


def _noise_edge(coils: int, samples: float, noise_samples: int | None) -> float:
    """Largest eigenvalue that white noise of unit power makes in a covariance over so many samples."""
    a, b = coils / samples, 0.0 if noise_samples is None else min(coils / noise_samples, 0.99)
    fewer = samples if noise_samples is None else min(samples, noise_samples)
    root = np.sqrt(coils / fewer)
    spread = (1.0 + root) * (1.0 + 1.0 / root) ** (1.0 / 3.0) * fewer ** (-2.0 / 3.0)
    return float(((1.0 + np.sqrt(a + b - a * b)) / (1.0 - b)) ** 2 + spread)


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
    box: int | tuple[int, ...] = 3,
    voxel_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    noise_sd: float = 0.0,
) -> ComplexArray:
    """Coil sensitivities of one object by alternating least squares in a moving box.

    As Inati et al. (ISMRM 2014, 4407; after Walsh et al., MRM 2000;43:682) alternates ``S_c = <x_c, rho> / <rho, rho>``
    over the box with ``rho = sum_c conj(S_c) x_c`` and ``sum_c |S_c|^2 = 1``, but with a real rho: sodium has no fine
    phase, so the sensitivities carry the whole phase and the combined image is real. One coil is the case of a pure
    phase map. Voxels at the level of noise do not take part: around the object the maps are continued from it, so they
    do not follow the noise there, and a combined image has noise of mean zero in air too.

    A mean over a box takes the maps of a small object from its brighter neighbour where phase or profile bend between
    them. What the maps leave of each channel, averaged in the same way, is added at the end ("twicing", Tukey 1977),
    less so where the box holds little but noise: a vial of 9 mm radius, 14 mm beside a head at a resolution of 6 mm,
    then keeps 99 % of its mean where the phase turns by 1 rad in between.

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
    rho = np.sqrt(_power(images))
    level = noise_sd * (np.sqrt(2.0 * len(images)) + _NOISE_LEVELS)
    # Not asked again of later combinations: maps that follow noise add it up to a multiple of its level.
    signal = rho > level
    rho = np.where(signal, rho, 0.0)
    frequencies = (np.fft.fftfreq(n, v) ** 2 for n, v in zip(images.shape[1:], voxel_mm, strict=True))
    x, y, z = np.meshgrid(*frequencies, indexing="ij", sparse=True)
    far = np.exp(-2.0 * (np.pi * _FAR_SD_MM) ** 2 * (x + y + z)).astype(np.float32)
    maps = np.empty(images.shape, dtype=np.complex64)
    for _ in range(_PASSES if len(images) > 1 else 1):
        for coil, image in enumerate(images):
            maps[coil] = _spread(image * rho, box, far)
        rho = np.where(signal, _combined_by(maps, images), 0.0)
    power = ndimage.uniform_filter(rho**2, box, mode="constant")
    power += level**2 + np.finfo(np.float32).eps * power.max() + np.finfo(np.float32).tiny
    for sensitivity, image in zip(maps, images, strict=True):
        sensitivity += ndimage.uniform_filter((image - sensitivity * rho) * rho, box, mode="constant") / power
    _combined_by(maps, images)
    return maps


def low_resolution_maps(
    images: ComplexArray,
    trajectory: Trajectory,
    voxel_mm: tuple[float, float, float],
    noise_sd: float,
    noise_psd: NDArray[np.floating[Any]],
) -> NDArray[np.complex64]:
    """:func:`sensitivities` of gridded images, from their low frequencies.

    Parameters
    ----------
    images
        (coils, X, Y, Z), whitened.
    noise_sd, noise_psd
        Standard deviation of the real part of their noise, and its power spectrum (X, Y, Z) with mean 1.
    """
    x, y, z = images.shape[1:]
    window = low_resolution_window((x, y, z), voxel_mm, PHASE_CUTOFF * trajectory.kmax_per_mm)
    smooth_sd = noise_sd * float(np.sqrt(np.mean(noise_psd * window**2)))
    found = sensitivities(low_resolution(images, window), voxel_mm=voxel_mm, noise_sd=smooth_sd)
    return np.asarray(found, dtype=np.complex64)


def _power(images: ComplexArray) -> NDArray[np.floating[Any]]:
    """Sum of squares over the coils, one after the other: no second copy of all images."""
    total = np.zeros(images.shape[1:], images.real.dtype)
    for image in images:
        total += np.abs(image) ** 2
    return total


def _combined_by(maps: ComplexArray, images: ComplexArray) -> NDArray[np.floating[Any]]:
    """Give the maps unit norm in place, and return the real part of the images combined by them."""
    norm = np.sqrt(_power(maps))
    maps /= np.maximum(norm, np.finfo(np.float32).tiny)
    return combine(images, maps).real


def combine(images: ComplexArray, maps: ComplexArray) -> ComplexArray:
    """Least-squares combination ``sum_c conj(S_c) x_c`` for whitened channels and maps of unit norm, (X, Y, Z).

    With true sensitivities C of the whitened channels the result is ``sqrt(sum_c |C_c|^2)`` times the object: that
    receive profile stays in the image.
    """
    combined = np.zeros(images.shape[1:], np.result_type(images, maps))
    for image, sensitivity in zip(images, maps, strict=True):
        combined += sensitivity.conj() * image
    return combined
