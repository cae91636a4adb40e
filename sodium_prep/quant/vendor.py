"""A scanner's image made ready for quantification: its noise, and its floor where the law of it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.quant.noise import NoiseFloor, background_mask, estimate_noise_sd, measure_floor
from sodium_prep.recon.noise import noise_power_spectrum

_RAYLEIGH_SD = float(np.sqrt(2.0 - np.pi / 2.0))


@dataclass(frozen=True)
class CleanedImage:
    """An image with zero-mean noise as far as that can be had.

    Attributes
    ----------
    image
        (X, Y, Z) float32.
    noise_sd
        Of each voxel where signal is; NaN where there is too little air to measure it in.
    noise_psd
        (X, Y, Z) float32, mean 1, order of ``numpy.fft.fftn``; white where the acquisition is not known.
    floor
        What the air looks like; None if there is too little of it.
    corrected
        Whether a Rician floor was taken off.
    """

    image: NDArray[np.float32]
    noise_sd: float
    noise_psd: NDArray[np.float32]
    floor: NoiseFloor | None
    corrected: bool


def clean_vendor_image(
    image: NDArray[np.float32], affine: NDArray[np.float64], acquisition: Acquisition | None, where: str
) -> CleanedImage:
    """Measure the noise in air and take off a Rician floor.

    Only Rayleigh-distributed air is corrected, by ``sign(q) sqrt(|q|)`` with ``q = M^2 - sigma^2``: its mean over
    voxels is right to first order in sigma^2 / A^2 for signals above the noise, which sums over regions need (the
    power-domain estimate ``M^2 - 2 sigma^2`` of Gudbjartsson and Patz, MRM 1995, is right for squares only). The air
    of arrays and of compressed sensing follows no known law, and is left as it is.

    Parameters
    ----------
    image
        Magnitude or real part, (X, Y, Z).
    acquisition
        For the colour of the noise; None if trajectory or filter are not known.
    where
        The file, for messages.
    """
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    psd = np.ones(image.shape, dtype=np.float32)
    if acquisition is not None:
        x, y, z = image.shape
        vx, vy, vz = (float(v) for v in voxel_mm)
        psd = noise_power_spectrum((x, y, z), (vx, vy, vz), acquisition)
    try:
        air = background_mask(image, affine, where=where)
    except InputError:
        return CleanedImage(image, float("nan"), psd, None, corrected=False)
    floor = measure_floor(image, air)
    if floor.law == "zero-mean":
        return CleanedImage(image, estimate_noise_sd(image, air, "real"), psd, floor, corrected=False)
    if floor.law == "rayleigh":
        sigma = estimate_noise_sd(image, air, "magnitude")
        q = image.astype(np.float64) ** 2 - sigma**2
        cleaned = np.where(image == 0, 0.0, np.sign(q) * np.sqrt(np.abs(q)))
        return CleanedImage(cleaned.astype(np.float32), sigma, psd, floor, corrected=True)
    return CleanedImage(image, floor.sd / _RAYLEIGH_SD, psd, floor, corrected=False)
