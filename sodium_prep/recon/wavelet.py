"""Sparse wavelets: noise is spread over all coefficients, the object sits in few."""

from __future__ import annotations

import numpy as np

from sodium_prep.recon.encoding import LeastSquares
from sodium_prep.recon.fista import Image, Progress, fista


def _split(image: Image, axis: int, step: int) -> tuple[Image, Image]:
    """Half sums and half differences of voxels ``step`` apart, periodic."""
    half = image * np.float32(0.5)
    other = np.roll(half, -step, axis)
    return half + other, np.subtract(half, other, out=half)


def _join(low: Image, high: Image, axis: int, step: int) -> Image:
    """Adjoint of :func:`_split`, and its inverse."""
    image = low + high
    low -= high
    image += np.roll(low, step, axis)
    image *= np.float32(0.5)
    return image


def shrink(image: Image, weight: float, levels: int = 3) -> Image:
    """Soft threshold of the Haar coefficients at every level, averaged over all shifts of the image.

    The average over shifts (Coifman and Donoho, Lect Notes Stat 1995;103:125) has no blocks at powers of two. It is
    the transform without decimation, whose adjoint is its inverse, with thresholds in proportion to the norm of its
    filters. As the gradient of a convex function that nowhere expands it is the proximal operator of a convex
    function (Moreau, Bull Soc Math France 1965;93:273).

    Parameters
    ----------
    image
        (X, Y, Z) of any size; its borders count as joined.
    weight
        Threshold of coefficients of unit norm, in the units of the image.
    levels
        The coarsest differences are between means over ``2^(levels - 1)`` voxels along each axis.

    Returns
    -------
    (X, Y, Z) float32.
    """
    return _shrink(image, weight, levels, 0)


def _shrink(image: Image, weight: float, levels: int, level: int) -> Image:
    if level == levels:
        return image
    bands = [image]
    for axis in range(3):
        bands = [part for band in bands for part in _split(band, axis, 2**level)]
    bands[0] = _shrink(bands[0], weight, levels, level + 1)
    threshold = np.float32(weight * 2.0 ** (-1.5 * (level + 1)))
    for band in bands[1:]:
        band -= np.clip(band, -threshold, threshold)
    for axis in (2, 1, 0):
        bands = [_join(low, high, axis, 2**level) for low, high in zip(bands[::2], bands[1::2], strict=True)]
    return bands[0]


def wavelet(
    problem: LeastSquares,
    weight: float,
    iterations: int = 100,
    tolerance: float = 5e-4,
    levels: int = 3,
    start: Image | None = None,
    progress: Progress | None = None,
) -> Image:
    """Least squares with sparse Haar coefficients, by :func:`shrink` as the proximal operator.

    Parameters
    ----------
    weight
        In the units of the image.
    iterations, tolerance, start, progress
        Of :func:`sodium_prep.recon.fista.fista`.
    levels
        Of :func:`shrink`.

    Returns
    -------
    (X, Y, Z) float32.
    """
    return fista(problem, lambda v, step: shrink(v, step * weight, levels), iterations, tolerance, start, progress)
