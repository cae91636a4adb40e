"""Moving a band-limited image without interpolation error."""

from __future__ import annotations

from collections.abc import Sequence

import finufft
import numpy as np
import scipy.fft
from numpy.typing import NDArray

_TOLERANCE = 1e-6


def resample_bandlimited(
    image: NDArray[np.floating],
    affine: NDArray[np.float64],
    image_to_target: NDArray[np.float64],
    shape: Sequence[int],
    target_affine: NDArray[np.float64],
    margin: int = 4,
) -> NDArray[np.float32]:
    """Rigidly move an image onto another grid by its own Fourier series.

    A gridded image holds no frequency beyond its sampling limit, so its trigonometric polynomial is the image between
    the voxels too; linear or spline kernels would blur it.

    Parameters
    ----------
    image
        (X, Y, Z), real.
    affine, target_affine
        Voxel to world of both grids, RAS mm.
    image_to_target
        (4, 4) map of points of the image to points of the target space.
    shape
        Of the target grid.
    margin
        Voxels of zeros around the image, so that opposite faces do not meet.

    Returns
    -------
    Values on the target grid, 0 outside the image.
    """
    padded = np.pad(np.asarray(image, dtype=np.float32), margin)
    spectrum = scipy.fft.fftshift(scipy.fft.fftn(padded, workers=1)).astype(np.complex64)
    for axis, n in enumerate(padded.shape):
        if n % 2 == 0:  # the Nyquist frequency has no mirror image; left in, it would make the result complex
            spectrum[tuple(0 if a == axis else slice(None) for a in range(3))] = 0.0
    to_voxel = np.linalg.solve(affine, np.linalg.solve(image_to_target, target_affine))
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")).reshape(3, -1)
    voxel = to_voxel[:3, :3] @ index + to_voxel[:3, 3:]
    inside = np.all((voxel > -0.5) & (voxel < np.asarray(image.shape)[:, None] - 0.5), axis=0)
    angles = [
        (2.0 * np.pi * (v + margin) / n).astype(np.float32) for v, n in zip(voxel[:, inside], padded.shape, strict=True)
    ]
    values = finufft.nufft3d2(*angles, spectrum, eps=_TOLERANCE, isign=1, nthreads=1).real / padded.size
    out = np.zeros(int(np.prod(list(shape))), dtype=np.float32)
    out[inside] = values
    return out.reshape(tuple(shape))


def average_runs(
    images: Sequence[NDArray[np.floating]],
    affines: Sequence[NDArray[np.float64]],
    to_first: Sequence[NDArray[np.float64]],
    noise_sd: Sequence[float | NDArray[np.floating]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Average repeat scans on the grid of the first, each weighted by the inverse of its noise variance.

    Parameters
    ----------
    images, affines
        Images of the same object, (X, Y, Z) each.
    to_first
        (4, 4) maps of points of each image to points of the first; that of the first is the identity.
    noise_sd
        Of each image, on its own grid. Only means are used, so that the weights do not vary in space.

    Returns
    -------
    Average, and its noise standard deviation, on the grid of the first image. Voxels that a moved image does not reach
    are made of the others.
    """
    shape = images[0].shape
    total, weights = np.zeros(shape), np.zeros(shape)
    for number, (image, affine, matrix, sd) in enumerate(zip(images, affines, to_first, noise_sd, strict=True)):
        level = float(np.nanmean(sd))
        weight = 1.0 / level**2 if np.isfinite(level) and level > 0.0 else 1.0
        if number == 0:
            moved, seen = np.asarray(image, dtype=np.float64), np.ones(shape, dtype=bool)
        else:
            moved = resample_bandlimited(image, affine, matrix, shape, affines[0]).astype(np.float64)
            seen = moved != 0.0
        total += weight * np.where(seen, moved, 0.0)
        weights += weight * seen
    return (total / weights).astype(np.float32), (1.0 / np.sqrt(weights)).astype(np.float32)
