"""What a fitted sodium image would look like if something assumed were slightly different.

Each function gives derivatives of the predicted image. Through :meth:`RegionFit.response` they become derivatives of
the regional values: a model that is off by ``dB`` shifts them by ``-(Q B^T)^-1 Q dB^T t``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel

HEAD_RADIUS_MM: Final = 60.0
"""Lever at which a rotation moves the cortex by its millimetre."""
T2STAR_PARAMETERS: Final = {
    "t2star_fast_s": "t2star_fast_sd_s",
    "t2star_slow_s": "t2star_slow_sd_s",
    "fraction_fast": "fraction_fast_sd",
}
RELATIVE_STEP: Final = 1e-3


def _frequencies(shape: tuple[int, ...], voxel_mm: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """Frequencies of rfftn along each axis in 1/mm, shaped to broadcast; those without a mirror image are zeroed."""
    axes = [np.fft.fftfreq(shape[0], voxel_mm[0]), np.fft.fftfreq(shape[1], voxel_mm[1])]
    axes.append(np.fft.rfftfreq(shape[2], voxel_mm[2]))
    for axis, n in zip(axes, shape, strict=True):
        if n % 2 == 0:
            axis[n // 2] = 0.0
    return [axis.reshape([-1 if a == i else 1 for a in range(3)]) for i, axis in enumerate(axes)]


def motion_derivatives(
    prediction: NDArray[np.floating], voxel_mm: NDArray[np.floating], centre: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """First and second derivative of an image by each of six rigid motions, per mm and mm^2.

    A model that is moved by ``s`` mm against the image changes the regional values by ``-s H D + s^2 / 2 H D^2``, with
    H the response and D these derivatives; where a head is symmetric the second term is the larger one.

    Parameters
    ----------
    prediction : (X, Y, Z)
        Image.
    voxel_mm : (3,)
        Voxel size.
    centre : (3,)
        Voxel about which to rotate.

    Returns
    -------
    Two of (6, X, Y, Z): three shifts along the image axes, and three rotations about them (right-handed in the
    coordinates of the grid) that move points at 60 mm by 1 mm.
    """
    shape = prediction.shape
    k = _frequencies(shape, voxel_mm)
    lever = [
        ((np.arange(n) - c) * v / HEAD_RADIUS_MM).astype(np.float32).reshape([-1 if a == i else 1 for a in range(3)])
        for i, (n, c, v) in enumerate(zip(shape, centre, voxel_mm, strict=True))
    ]

    def slope(spectrum: NDArray[np.complexfloating], axis: int, order: int = 1) -> NDArray[np.float32]:
        image = scipy.fft.irfftn(spectrum * ((2j * np.pi) * k[axis]).astype(np.complex64) ** order, shape)
        return np.asarray(image, np.float32)

    spectrum = scipy.fft.rfftn(np.asarray(prediction, np.float32))
    gradient = [slope(spectrum, axis) for axis in range(3)]
    first = [-g for g in gradient]
    second = [slope(spectrum, axis, 2) for axis in range(3)]
    for a, b in ((1, 2), (2, 0), (0, 1)):
        turned = lever[b] * gradient[a] - lever[a] * gradient[b]
        again = scipy.fft.rfftn(turned)
        first.append(turned)
        second.append(lever[b] * slope(again, a) - lever[a] * slope(again, b))
    return np.stack(first), np.stack(second)


def motion_covariance(change: NDArray[np.float64], sd_mm: float) -> NDArray[np.float64]:
    """Mean products of ``sum_i (l_i s_i + q_i s_i^2 / 2)`` over independent normal motions s.

    Products of two different motions are neglected.

    Parameters
    ----------
    change : (n, 12)
        Of the values by the first derivatives l, then by the second ones q, per mm and mm^2.
    sd_mm
        Of each motion.

    Returns
    -------
    (n, n)
    """
    linear, square = change[:, :6], 0.5 * change[:, 6:]
    total = square.sum(axis=1)
    return np.asarray(sd_mm**2 * linear @ linear.T + sd_mm**4 * (2.0 * square @ square.T + np.outer(total, total)))


def transfer_ratios(
    shape: tuple[int, int, int],
    voxel_mm: NDArray[np.floating],
    psf: PsfModel,
    relaxations: Mapping[Tissue, Relaxation],
) -> dict[tuple[Tissue, str], NDArray[np.float32]]:
    """Relative change of each tissue's transfer function per unit of its T2* parameters.

    Parameters
    ----------
    shape, voxel_mm
        Native grid.

    Returns
    -------
    By tissue and parameter, on the frequencies of ``rfftn``. Empty for a Gaussian or measured PSF; a parameter without
    uncertainty is left out.
    """
    out: dict[tuple[Tissue, str], NDArray[np.float32]] = {}
    if psf.kind != "acquisition":
        return out
    k = np.stack(np.broadcast_arrays(*_frequencies(shape, voxel_mm)), axis=-1)
    for tissue, relaxation in relaxations.items():
        centre = psf.mtf(k, relaxation)
        for name, step in uncertain_t2star(relaxation).items():
            high, low = (psf.mtf(k, changed(relaxation, name, sign * step)) for sign in (1.0, -1.0))
            ratio = (high - low) / (2.0 * step * np.where(centre > 0.0, centre, np.inf))
            out[tissue, name] = ratio.astype(np.float32)
    return out


def width_derivative(
    predictions: Mapping[Tissue, NDArray[np.floating]], fwhm_mm: Mapping[Tissue, float], voxel_mm: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Change of the image per relative change of the width of the PSF.

    Blur that is more or less than expected (gridding, residual motion, an unknown window) is taken as Gaussian:
    ``d ln M / d ln w = -4 pi^2 s^2 k^2`` with s the standard deviation of a Gaussian as wide as the PSF.

    Parameters
    ----------
    predictions
        Part of the predicted image that each tissue makes, (X, Y, Z).
    fwhm_mm
        Width of the PSF of each tissue.
    voxel_mm : (3,)
        Voxel size.

    Returns
    -------
    (X, Y, Z)
    """
    widened = np.sum([image * (fwhm_mm[tissue] / FWHM_PER_SD) ** 2 for tissue, image in predictions.items()], axis=0)
    squared = np.sum(np.broadcast_arrays(*(k**2 for k in _frequencies(widened.shape, voxel_mm))), axis=0)
    spectrum = scipy.fft.rfftn(widened.astype(np.float32)) * (-4.0 * np.pi**2 * squared).astype(np.float32)
    return np.asarray(scipy.fft.irfftn(spectrum, widened.shape), np.float32)


def uncertain_t2star(relaxation: Relaxation) -> dict[str, float]:
    """T2* parameters that have an uncertainty, each with a step for its numerical derivative."""
    return {
        name: RELATIVE_STEP * float(getattr(relaxation, name))
        for name, sd in T2STAR_PARAMETERS.items()
        if getattr(relaxation, sd) > 0.0 and getattr(relaxation, name) > 0.0
    }


def changed(relaxation: Relaxation, name: str, step: float) -> Relaxation:
    """Relaxation with one parameter moved by a step."""
    changes: dict[str, Any] = {name: float(getattr(relaxation, name)) + step}
    return replace(relaxation, **changes)


def transfer_derivatives(
    predictions: Mapping[Tissue, NDArray[np.floating]], ratios: Mapping[tuple[Tissue, str], NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    """Change of the image per unit of each T2* parameter, through the shape of the PSF alone.

    Parameters
    ----------
    predictions
        Part of the predicted image that each tissue makes, (X, Y, Z).
    ratios
        From :func:`transfer_ratios`.

    Yields
    ------
    One derivative image for each of the ratios, in their order.
    """
    spectra = {tissue: scipy.fft.rfftn(np.asarray(image, np.float32)) for tissue, image in predictions.items()}
    for (tissue, _), ratio in ratios.items():
        yield np.asarray(scipy.fft.irfftn(spectra[tissue] * ratio, predictions[tissue].shape), np.float32)
