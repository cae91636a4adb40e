"""What lies at rest beside a moving head: vials and pads that are fixed to the coil.

A correction of k-space moves all that is in the scanner, so it blurs what was at rest. Objects beside the head that
have more power in the image without correction than in the corrected one stayed where they were; their samples are
taken off before the correction and put back after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.brain import head_mask
from sodium_prep.anat.grids import dilate
from sodium_prep.recon import coils
from sodium_prep.recon.channels import whitened
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.readouts import Readouts

Mask = NDArray[np.bool_]

_AIR_MM = 6.0
"""Width around the head that belongs to it."""
_ABOVE_AIR = 4.0
"""Of an object, in robust standard deviations of the air."""
_LEAST_MM3 = 500.0
"""Volume of the part of an object that is brighter."""
_SHARPER = 1.05
"""Power of an object at rest over that of the same object corrected; streaks have 0.9 to 1.1, vials 1.4 to 1.7 where
the head moved by 6 mm."""
_EDGE_MM = 10.0
"""Around an object, for its blurred edge and for parts that are hardly brighter than air."""


def move_head(raw: RawData, move: Callable[[RawData], RawData]) -> tuple[RawData, bool]:
    """Move all but what is at rest.

    Parameters
    ----------
    raw
        As measured.
    move
        Takes the motion of the head out of raw data.

    Returns
    -------
    Raw data in which neither the head nor objects beside it move, and whether there are such objects.
    """
    moved = move(raw)
    fixed = _at_rest(raw, moved)
    if not fixed.any():
        return moved, False
    before, after = _operator(raw), _operator(moved)
    kspace, rest = raw.kspace.copy(), np.empty_like(moved.kspace)
    del moved  # as large as the raw data
    weights = raw.trajectory.weights_mm3.astype(np.float32)
    for samples, back in zip(kspace, rest, strict=True):
        image = fixed * before.adjoint(samples * weights)
        samples -= before.forward(image)
        back[...] = after.forward(image)
    moved = move(replace(raw, kspace=kspace))
    rest += moved.kspace
    return replace(moved, kspace=rest), True


def _operator(raw: RawData) -> Readouts:
    return Readouts(raw.trajectory.k_per_mm, raw.shape, raw.voxel_mm)


def _power(raw: RawData) -> NDArray[np.float32]:
    """Power of all channels (X, Y, Z) under a Hamming window."""
    window = coils.low_resolution_window(raw.shape, raw.voxel_mm, raw.trajectory.kmax_per_mm)
    operator, weights = _operator(raw), raw.trajectory.weights_mm3.astype(np.float32)
    total = np.zeros(raw.shape, np.float32)
    for samples in whitened(raw):
        image = operator.adjoint(samples * weights)
        total += np.abs(coils.low_resolution(image[None], window)[0]) ** 2
    return total


def _at_rest(raw: RawData, moved: RawData) -> Mask:
    """Objects beside the head that are sharper in the image of ``raw`` than in that of ``moved``."""
    still, corrected = _power(raw), _power(moved)
    beside = ~dilate(head_mask(np.sqrt(corrected), raw.affine), _AIR_MM, raw.voxel_mm)
    if not beside.any():
        return beside
    magnitude = np.sqrt(still)
    air = magnitude[beside]
    level = np.median(air) + _ABOVE_AIR * 1.4826 * np.median(np.abs(air - np.median(air)))
    parts, n = ndimage.label(beside & (magnitude > level))
    sizes, *powers = (np.bincount(parts.ravel(), values.ravel(), n + 1) for values in (parts > 0, still, corrected))
    kept = (sizes * np.prod(raw.voxel_mm) >= _LEAST_MM3) & (powers[0] > _SHARPER * powers[1])
    return beside & dilate(kept[parts], _EDGE_MM, raw.voxel_mm)
