"""Coarser grids and mask operations in millimetres."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from sodium_prep.anat.jobs import Volume


def coarsen(volume: Volume, spacing_mm: float) -> Volume:
    """Resample a volume along its own axes to a coarser voxel size, smoothed against aliasing.

    Axes that are coarser already keep their voxels. The field of view stays the same.
    """
    factor = np.maximum(spacing_mm / volume.voxel_mm, 1.0)
    if np.allclose(factor, 1.0, atol=0.05):
        return Volume(np.asarray(volume.data, np.float32), volume.affine)
    shape = np.maximum(np.ceil(np.array(volume.data.shape) / factor).astype(int), 1)
    # The box of a coarse voxel, less the box that a fine voxel is already, as a Gaussian of the same variance.
    sigma = np.sqrt(np.maximum(factor**2 - 1.0, 0.0) / 12.0)
    smooth = ndimage.gaussian_filter(np.asarray(volume.data, np.float32), sigma)
    offset = (factor - 1.0) / 2.0
    data = ndimage.affine_transform(smooth, np.diag(factor), offset, tuple(shape), order=1, mode="nearest")
    affine = np.array(volume.affine, dtype=np.float64)
    affine[:3, 3] += affine[:3, :3] @ offset
    affine[:3, :3] *= factor
    return Volume(data.astype(np.float32), affine)


def crop(volume: Volume, mask: NDArray[np.bool_], margin_mm: float) -> tuple[Volume, tuple[slice, slice, slice]]:
    """Cut a volume to the bounding box of a mask with a margin; also returns the box."""
    margin = np.ceil(margin_mm / volume.voxel_mm).astype(int)
    box = []
    for axis, extra in enumerate(margin):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(int(used[0] - extra), 0), min(int(used[-1] + extra + 1), mask.shape[axis])))
    corner = np.array([part.start for part in box])
    affine = np.array(volume.affine, dtype=np.float64)
    affine[:3, 3] += affine[:3, :3] @ corner
    slices = (box[0], box[1], box[2])
    return Volume(volume.data[slices], affine), slices


def dilate(mask: NDArray[np.bool_], distance_mm: float, voxel_mm: ArrayLike) -> NDArray[np.bool_]:
    """Voxels within a distance of a mask."""
    return _distance(~mask, voxel_mm) <= distance_mm if mask.any() else mask.copy()


def erode(mask: NDArray[np.bool_], distance_mm: float, voxel_mm: ArrayLike) -> NDArray[np.bool_]:
    """Voxels of a mask that are farther than a distance from its outside."""
    return _distance(mask, voxel_mm) > distance_mm


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest connected part (6 neighbours)."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def winsorise(data: NDArray[Any], low: float = 0.1, high: float = 99.9) -> NDArray[np.float32]:
    """Clip to percentiles, against hot voxels that would squeeze a histogram."""
    a, b = np.percentile(data, [low, high])
    return np.clip(data, a, b).astype(np.float32)


def _distance(mask: NDArray[np.bool_], voxel_mm: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=np.asarray(voxel_mm, float)))
