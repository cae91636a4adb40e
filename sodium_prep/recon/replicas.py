"""Noise of any reconstruction from samples of it (pseudo replicas: Robson et al., MRM 2008;60:895)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]

_SMOOTHING_VOXELS: Final = 3.0


def noise_from_replicas(replicas: Sequence[Image], voxel_mm: tuple[float, float, float]) -> tuple[Image, Image]:
    """Standard deviation in every voxel, and the power spectrum that all share.

    Few samples are enough, as the variance is averaged over a neighbourhood (a Gaussian of 3 voxels) and the spectrum
    over shells of frequency.

    Parameters
    ----------
    replicas
        (X, Y, Z) each: the reconstruction of data with added noise, minus that without.
    voxel_mm
        Edge lengths, mm.

    Returns
    -------
    Standard deviation, and power spectrum with mean 1 in the order of ``numpy.fft.fftn``; both (X, Y, Z) float32.
    """
    variance = np.mean([ndimage.gaussian_filter(replica**2, _SMOOTHING_VOXELS) for replica in replicas], axis=0)
    sd = np.sqrt(np.maximum(variance, np.finfo(np.float32).tiny)).astype(np.float32)
    power = np.mean([np.abs(np.fft.fftn(replica / sd)) ** 2 for replica in replicas], axis=0)
    frequencies = (np.fft.fftfreq(n, v) for n, v in zip(sd.shape, voxel_mm, strict=True))
    x, y, z = np.meshgrid(*frequencies, indexing="ij", sparse=True)
    width = 1.0 / max(n * v for n, v in zip(sd.shape, voxel_mm, strict=True))
    shell = np.rint(np.sqrt(x**2 + y**2 + z**2) / width).astype(np.intp)
    mean = np.bincount(shell.ravel(), power.ravel()) / np.maximum(np.bincount(shell.ravel()), 1)
    spectrum = mean[shell]
    return sd, (spectrum / spectrum.mean()).astype(np.float32)
