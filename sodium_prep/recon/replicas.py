"""Noise of any reconstruction, measured by reconstructing again with noise added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

ComplexArray = NDArray[np.complexfloating[Any]]
Image = NDArray[np.float32]

SMOOTHING = 1.5
"""Standard deviation, in voxels, of the Gaussian that variances are averaged with."""


@dataclass(frozen=True)
class ReplicaNoise:
    """Noise of an image in the form that :class:`sodium_prep.pvc.noise.Noise` takes.

    Attributes
    ----------
    sd
        (X, Y, Z) float32, standard deviation of each voxel.
    psd
        (X, Y, Z) float32, power spectrum with mean 1 in the order of ``numpy.fft.fftn``: the covariance of voxels r, s
        is ``sd(r) sd(s) C(r - s)`` with C the inverse transform of ``psd``.
    """

    sd: NDArray[np.float32]
    psd: NDArray[np.float32]


def noise_from_replicas(
    reconstruct: Callable[[ComplexArray], NDArray[np.floating[Any]]],
    kspace: ComplexArray,
    noise_sd: float,
    *,
    replicas: int = 20,
    smoothing_voxels: float = SMOOTHING,
    seed: int = 0,
) -> ReplicaNoise:
    """Standard deviation and correlation of the noise of a reconstruction by pseudo replicas.

    White noise of the level of the data is added to these, and the reconstruction repeated (Robson et al., MRM
    2008;60:895). The scatter about the mean of the replicas is the noise of the image, also of nonlinear methods, as
    far as the noise that is in the data already leaves them as they are. Whatever the reconstruction takes from the
    data (sensitivities, penalty weights) should be as fixed as it is in the image whose noise is asked.

    The variance of a voxel from n replicas is uncertain by ``sqrt(2 / (n - 1))``, so it is averaged in space. The power
    spectrum is that of the replicas over the standard deviation; that the correlation of neighbours is the same
    everywhere is what the form of the result supposes. It is not smoothed, which would fill its gap at low
    frequencies: the variance of the mean of a large region hangs on few of them and is the least certain.

    Parameters
    ----------
    reconstruct
        From (coils, readouts, samples) to a real image (X, Y, Z). A linear one may be given ``kspace`` of zeros.
    kspace
        Whitened samples.
    noise_sd
        Standard deviation of the real (and of the imaginary) part of their noise, the same for all channels.
    replicas
        Number of repetitions, at least 3.
    smoothing_voxels
        Standard deviation of the Gaussian that the variance is averaged with.
    seed
        Of the noise.

    Returns
    -------
    ReplicaNoise
        A reconstruction that answers to no noise raises ValueError, as do too few replicas.
    """
    if replicas < 3:
        raise ValueError(f"{replicas} replicas are too few to measure noise from")
    rng = np.random.default_rng(seed)
    parts = (*kspace.shape, 2)
    images = []
    for _ in range(replicas):
        noise = (noise_sd * rng.standard_normal(parts, dtype=np.float32)).view(np.complex64)[..., 0]
        images.append(np.asarray(reconstruct(kspace + noise), dtype=np.float32))
    scatter = np.stack(images)
    scatter -= scatter.mean(axis=0)
    variance = np.sum(scatter.astype(np.float64) ** 2, axis=0) / (replicas - 1)
    variance = ndimage.gaussian_filter(variance, smoothing_voxels, mode="nearest")
    if not variance.max() > 0.0:
        raise ValueError("the reconstruction is the same whatever the noise")
    sd = np.sqrt(variance)
    power = sum(np.abs(fft.fftn(one / np.where(sd > 0.0, sd, np.inf))) ** 2 for one in scatter)
    return ReplicaNoise(sd.astype(np.float32), (power / power.mean()).astype(np.float32))


def passed_noise(
    before: Sequence[Image],
    after: Sequence[Image],
    noise_sd: NDArray[np.floating[Any]],
    noise_psd: NDArray[np.floating[Any]],
    voxel_mm: tuple[float, float, float],
) -> ReplicaNoise:
    """Noise after a step that few samples of noise went through, where that before it is known.

    What the samples lost or gained around each voxel and at each frequency is laid on the known law, so their own
    chance cancels as far as the step is linear: two samples are enough.

    Parameters
    ----------
    before, after
        (X, Y, Z) each: samples of noise, and what the step made of them.
    noise_sd, noise_psd
        Of the noise before, as in :class:`ReplicaNoise`.
    voxel_mm
        Edge lengths, mm.
    """

    def energy(samples: Sequence[Image]) -> NDArray[np.floating[Any]]:
        return np.asarray(np.mean([ndimage.gaussian_filter(s**2, SMOOTHING, mode="nearest") for s in samples], axis=0))

    sd = noise_sd * np.sqrt(energy(after) / np.maximum(energy(before), np.finfo(np.float32).tiny))
    frequencies = (fft.fftfreq(n, v) for n, v in zip(sd.shape, voxel_mm, strict=True))
    x, y, z = np.meshgrid(*frequencies, indexing="ij", sparse=True)
    width = 1.0 / min(n * v for n, v in zip(sd.shape, voxel_mm, strict=True))
    shell = np.rint(np.sqrt(x**2 + y**2 + z**2) / width).astype(np.intp).ravel()

    def spectrum(samples: Sequence[Image]) -> NDArray[np.float64]:
        # Not over the local deviation: that follows the samples themselves, and would take from their low frequencies.
        power = np.sum([np.abs(fft.fftn(s)) ** 2 for s in samples], axis=0)
        return np.asarray(np.bincount(shell, power.ravel()), np.float64)

    gain = spectrum(after) / np.maximum(spectrum(before), np.finfo(np.float32).tiny)
    psd = noise_psd * gain[shell].reshape(sd.shape)
    return ReplicaNoise(np.asarray(sd, np.float32), np.asarray(psd / psd.mean(), np.float32))


def g_factor(
    noise_sd: NDArray[np.floating[Any]], full_sd: float | NDArray[np.floating[Any]], acceleration: float
) -> NDArray[np.float32]:
    """Noise amplification by undersampling, ``sd / (sd_full sqrt(R))`` (Pruessmann et al., MRM 1999;42:952).

    Parameters
    ----------
    noise_sd
        (X, Y, Z) of the image from a part of the samples.
    full_sd
        Of the image from all samples of a complete acquisition, by the least-squares combination.
    acceleration
        R, how many times fewer samples.
    """
    return np.asarray(noise_sd / (full_sd * np.sqrt(acceleration)), dtype=np.float32)
