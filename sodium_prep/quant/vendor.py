"""A scanner's image made ready for quantification: its noise, and its floor where the law of it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.quant.noise import NoiseFloor, background_mask, correct_magnitude, estimate_noise_sd, measure_floor
from sodium_prep.recon.noise import noise_power_spectrum


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
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    acquisition: Acquisition | None,
    where: str,
    n_channels: int = 1,
) -> CleanedImage:
    """Measure the noise in air and take off a Rician floor, or that of a sum of squares over channels.

    Only air that obeys the law is corrected (:func:`~sodium_prep.quant.noise.correct_magnitude`). That of adaptive
    combinations and of compressed sensing follows no known law, and is left as it is.

    Parameters
    ----------
    image
        Magnitude or real part, (X, Y, Z).
    acquisition
        For the colour of the noise; None if trajectory or filter are not known.
    where
        The file, for messages.
    n_channels
        Channels of a sum of squares.
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
    floor = measure_floor(image, air, n_channels)
    if floor.law == "zero-mean":
        return CleanedImage(image, estimate_noise_sd(image, air, "real"), psd, floor, corrected=False)
    if floor.law == "unknown":
        return CleanedImage(image, floor.noise_sd, psd, floor, corrected=False)
    sigma = estimate_noise_sd(image, air, "magnitude", n_coils=n_channels)
    cleaned = np.where(image == 0, np.float32(0.0), correct_magnitude(image, sigma, n_channels))
    return CleanedImage(cleaned, sigma, psd, floor, corrected=True)
