"""How well two images fit, without a registration program."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from sodium_prep.anat.jobs import Volume
from sodium_prep.anat.transforms import apply_affine

Matrix = NDArray[np.float64]

_BINS = 32


class Similarity:
    """Normalised mutual information of two images under a rigid map (Studholme et al., Pattern Recognit 1999)."""

    def __init__(self, fixed: Volume, mask: NDArray[np.bool_], moving: Volume) -> None:
        picked = mask.copy()
        coarse = np.zeros_like(mask)
        coarse[::2, ::2, ::2] = True
        picked &= coarse
        self._points = apply_affine(fixed.affine, np.argwhere(picked))
        self._bins = _to_bins(fixed.data[picked])
        self._moving = ndimage.gaussian_filter(moving.data, 0.5)
        self._to_voxel = np.linalg.inv(moving.affine)

    def __call__(self, moving_to_fixed: Matrix) -> float:
        """Normalised mutual information under a 4x4 map of points of moving to points of fixed."""
        voxels = apply_affine(self._to_voxel @ np.linalg.inv(moving_to_fixed), self._points)
        values = ndimage.map_coordinates(self._moving, voxels.T, order=1, mode="constant", cval=0.0)
        joint = np.bincount(self._bins * _BINS + _to_bins(values), minlength=_BINS**2).reshape(_BINS, _BINS)
        p = joint / joint.sum()
        both = _entropy(p)
        return (_entropy(p.sum(axis=0)) + _entropy(p.sum(axis=1))) / both if both > 0 else 1.0


def _entropy(p: Matrix) -> float:
    used = p[p > 0]
    return -float(np.sum(used * np.log(used)))


def _to_bins(values: ArrayLike) -> NDArray[np.intp]:
    v = np.asarray(values, dtype=np.float64)
    low, high = v.min(), v.max()
    return np.asarray(np.minimum((v - low) / max(high - low, 1e-12) * _BINS, _BINS - 1), dtype=np.intp)
