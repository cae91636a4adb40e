"""A scanner's image made ready for quantification: its phase, its noise, and its floor where the law of it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.quant.noise import (
    NoiseFloor,
    background_mask,
    bright_objects,
    correct_magnitude,
    estimate_noise_sd,
    measure_floor,
)
from sodium_prep.recon import coils
from sodium_prep.recon.noise import noise_power_spectrum

_BOX = 3.0
"""Edge of the box in which the phase counts as constant, in nominal resolutions: less than from head to vial."""
_MOST_LEFT = 0.1
_SURE_TO = 0.01
"""Standard error from white noise up to which the share of an object's power that is left counts."""
_ALONE = 'Use the magnitude alone: {"sodium": {"part": ["mag", null]}} in --bids-filter-file'


@dataclass(frozen=True)
class RealPart:
    """A complex image without its smooth phase.

    Attributes
    ----------
    image
        (X, Y, Z) float32, real part; its noise is Gaussian of mean zero.
    phase_left
        Share of the signal's power that is left in the imaginary part, in the object (head or vial) where it is most,
        weak ones left out; half of it is the share of the signal that the real part lacks.
    """

    image: NDArray[np.float32]
    phase_left: float


def real_part(
    image: NDArray[np.complex64],
    affine: NDArray[np.float64],
    resolution_mm: tuple[float, float, float],
    where: str,
) -> RealPart:
    """Take the phase of coil and off-resonance off a complex image as a reconstruction does, and keep the real part.

    A ramp, which a scanner leaves where k-space is not centred, goes first. The phase of the rest is that of
    :func:`~sodium_prep.recon.coils.sensitivities` of the image under a low-pass
    (:func:`~sodium_prep.recon.coils.low_resolution_window`). The widths of both are in nominal resolutions, so that an
    interpolated grid makes no difference. So wide a mean hardly follows the noise of a voxel, which would raise the
    real part as the magnitude is raised.

    Parameters
    ----------
    image
        (X, Y, Z), from magnitude and phase or from real and imaginary part.
    resolution_mm
        Nominal, along the axes of the image.
    where
        The file, for messages.

    Raises
    ------
    InputError
        If there is too little air to know signal from noise, if the real part of air is not of mean zero, as that of
        complex data is, or if more than a tenth of an object's power is left in the imaginary part.
    """
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    vx, vy, vz = (float(v) for v in voxel_mm)
    magnitude = np.abs(image)
    try:
        air = background_mask(magnitude, affine, where=where)
    except InputError as error:
        raise InputError(where, f"has a phase that cannot be used: {error.problem}", _ALONE) from None
    image = _without_ramp(image)
    window = coils.low_resolution_window(image.shape, (vx, vy, vz), coils.PHASE_CUTOFF * 0.5 / max(resolution_mm))
    smooth = coils.low_resolution(image[None], window)
    box = tuple(2 * int(0.5 * _BOX * r / v) + 1 for r, v in zip(resolution_mm, voxel_mm, strict=True))
    maps = coils.sensitivities(smooth, box, (vx, vy, vz), _part_sd(smooth[0], air))
    found = coils.combine(image[None], maps)
    floor = measure_floor(found.real, air)
    if floor.law != "zero-mean":
        raise InputError(where, "is no part of complex data: the real part of its air is not of mean zero", _ALONE)
    # What is bright in the magnitude of a weak signal is so for its noise, in the imaginary part too.
    left = _power_left(found, bright_objects(np.abs(found.real), affine), _part_sd(image, air))
    if left > _MOST_LEFT:
        text = f"has a phase that is not smooth: a smooth one leaves {100 * left:.0f} % of an object's power imaginary"
        raise InputError(where, text, _ALONE)
    return RealPart(np.ascontiguousarray(found.real, dtype=np.float32), left)


def _without_ramp(image: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Take off the mean turn of the phase from voxel to voxel along each axis, weighted by the signal's power."""
    for axis in range(3):
        along = np.moveaxis(image, axis, 0)
        turn = np.angle(np.vdot(along[:-1], along[1:]))
        ramp = np.exp(-1j * turn * np.arange(len(along))).astype(image.dtype)
        image = np.moveaxis(along * ramp[:, None, None], 0, axis)
    return image


def _part_sd(image: NDArray[np.complexfloating], air: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise of each part of a complex image."""
    return estimate_noise_sd(np.stack([image.real, image.imag]), np.stack([air, air]), "real")


def _power_left(image: NDArray[np.complexfloating], objects: NDArray[np.bool_], noise_sd: float) -> float:
    """Largest share of an object's power that is imaginary, among objects where noise leaves it sure."""
    from scipy import ndimage

    labels, n = ndimage.label(objects)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    real, imaginary = (
        np.bincount(labels.ravel(), part.astype(float).ravel() ** 2, n + 1) - sizes * noise_sd**2
        for part in (image.real, image.imag)
    )
    power = real + imaginary
    sure = np.sqrt(2.0 * sizes) * noise_sd**2 < _SURE_TO * power
    sure[0] = False
    return float(max(imaginary[sure] / power[sure], default=0.0))


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
