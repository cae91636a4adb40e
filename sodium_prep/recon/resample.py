"""Images brought onto other grids: averages of runs that moved against each other, anatomy on the sodium grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.transforms import resample_bandlimited


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
            moved = resample_bandlimited(image, affine, matrix, shape, affines[0], outside=np.nan).astype(np.float64)
            seen = np.isfinite(moved)
        total += weight * np.where(seen, moved, 0.0)
        weights += weight * seen
    return (total / weights).astype(np.float32), (1.0 / np.sqrt(weights)).astype(np.float32)


def guide_on_grid(
    guide: NDArray[np.floating],
    guide_affine: NDArray[np.float64],
    sodium_to_guide: NDArray[np.float64],
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
) -> NDArray[np.float32]:
    """An anatomical image on the coarser grid of a sodium image.

    It is smoothed by a Gaussian as wide as a sodium voxel before it is sampled, so that an edge lies between voxels
    where it lies in space.

    Parameters
    ----------
    guide, guide_affine
        (X, Y, Z) anatomical image and its map from voxels to world.
    sodium_to_guide
        (4, 4), points of the sodium image to points of the guide, mm.
    shape, affine
        Grid of the sodium image.

    Returns
    -------
    (X, Y, Z) float32, 0 where the guide does not reach.
    """
    to_guide = np.linalg.solve(guide_affine, sodium_to_guide @ affine)
    steps = np.linalg.norm(to_guide[:3, :3], axis=1)
    sd = 0.425 * np.sqrt(np.maximum(steps**2 - 1.0, 0.0))
    smooth = ndimage.gaussian_filter(np.asarray(guide, np.float32), sd)
    moved = ndimage.affine_transform(smooth, to_guide[:3, :3], to_guide[:3, 3], output_shape=shape, order=1)
    return np.asarray(moved, np.float32)
