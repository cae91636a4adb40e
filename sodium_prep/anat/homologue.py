"""The place on the other side of the brain that corresponds to a place, from the labels of an atlas in the head itself.

A head is no mirror image of itself, and its midsagittal plane is neither straight nor upright in the image. The labels
of both sides tell more than a plane: the map sought takes the centre of each left label to that of its right
counterpart and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.groups import parcel_name

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_PAIRS: Final = 8
_OUTLIER: Final = 3.0
_ROUNDS: Final = 3


@dataclass(frozen=True)
class MirrorMap:
    """Where points lie on the other side.

    Attributes
    ----------
    matrix : (4, 4)
        Affine map of points, RAS mm.
    n_pairs
        Pairs of labels that it agrees with.
    residual_mm
        Median distance between the mapped centre of a label and that of its counterpart.
    """

    matrix: Array
    n_pairs: int
    residual_mm: float


def fit_mirror(
    labels: NDArray[np.integer], affine: Array, table: pd.DataFrame, avoid: Mask | None = None
) -> MirrorMap | None:
    """Affine map that exchanges left and right labels, by least squares of their centres.

    Pairs that lie three times farther off than the median are left out, twice over.

    Parameters
    ----------
    labels : (X, Y, Z)
        Atlas labels in the head.
    affine : (4, 4)
        Voxel to RAS mm.
    table
        Columns ``index name hemisphere tissue``.
    avoid : (X, Y, Z) bool
        A lesion: labels that it touches, and their counterparts, do not count.

    Returns
    -------
    None where fewer than eight pairs of labels are there.
    """
    left, right = _pairs(labels, table, avoid)
    if len(left) < LEAST_PAIRS:
        return None
    centres = np.asarray(ndimage.center_of_mass(labels > 0, labels, np.concatenate([left, right])))
    points = apply_affine(affine, centres)
    here, there = points, np.roll(points, len(left), axis=0)
    kept = np.ones(len(left), bool)
    for _ in range(_ROUNDS):
        both = np.concatenate([kept, kept])
        columns = np.c_[here, np.ones(len(here))]
        solution = np.linalg.lstsq(columns[both], there[both], rcond=None)[0]
        distance = np.linalg.norm(columns @ solution - there, axis=1).reshape(2, -1).max(axis=0)
        typical = float(np.median(distance[kept]))
        closer = distance <= _OUTLIER * max(typical, 1e-6)
        if closer.sum() < LEAST_PAIRS or np.array_equal(closer, kept):
            break
        kept = closer
    matrix = np.eye(4)
    matrix[:3] = solution.T
    return MirrorMap(matrix, int(kept.sum()), typical)


def _pairs(
    labels: NDArray[np.integer], table: pd.DataFrame, avoid: Mask | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of the left side and their counterparts on the right."""
    counts = np.bincount(labels.ravel(), minlength=int(table["index"].max()) + 1)
    touched = set(np.unique(labels[avoid]).tolist()) if avoid is not None else set()
    sides: dict[tuple[str, str], dict[str, list[int]]] = {}
    for index, name, hemisphere, tissue in zip(
        table["index"], table["name"], table["hemisphere"], table["tissue"], strict=True
    ):
        if counts[int(index)]:
            sides.setdefault((parcel_name(name), tissue), {}).setdefault(hemisphere, []).append(int(index))
    found = [(side.get("L", []), side.get("R", [])) for side in sides.values()]
    pairs = [(a[0], b[0]) for a, b in found if len(a) == len(b) == 1 and not {a[0], b[0]} & touched]
    left, right = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    return left, right


def mirrored_mask(mask: Mask, affine: Array, mirror: Array) -> Mask:
    """A mask at the corresponding place of the other side.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        On the grid of ``affine``.
    mirror : (4, 4)
        From :func:`fit_mirror`, points to points.

    Returns
    -------
    (X, Y, Z) bool, of the volume that the map makes of it.
    """
    back = np.linalg.inv(affine) @ np.linalg.inv(mirror) @ affine
    moved = ndimage.affine_transform(mask.astype(np.float32), back[:3, :3], back[:3, 3], mask.shape, order=1)
    return np.asarray(moved >= 0.5)
