"""The surroundings of a lesion, and the place of the other side that corresponds to it, as regions of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.homologue import MirrorMap, mirrored_mask
from sodium_prep.physics.relaxation import Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.regional.designs import Region

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RIM_MM: Final = 5.0
"""Thickness of the rim."""
LEAST_MM3: Final = 200.0
"""Parts of rim and mirror image below this volume stay with their label: no sodium image resolves them."""
_SLIVER_MM3: Final = 30.0
_TISSUES: Final[tuple[Tissue, ...]] = ("GM", "WM")
_USABLE_SHARE: Final = 0.5
_GOOD_MM: Final = 5.0
"""Twice what is usual: 2.4 to 2.6 mm in phantom heads."""


def around_lesion(compartments: Compartments, lesion: Mask, mirror: MirrorMap | None) -> tuple[Compartments, list[str]]:
    """Give the rim of a lesion and its mirror image compartments of their own.

    The rim is the brain tissue within 5 mm of the lesion, grey and white matter each in one compartment, which their
    labels lose: it may be oedema. The mirror image stays part of its labels, each of which is divided there. Fluid is
    left where it is.

    Parameters
    ----------
    compartments
        Of the head with the lesion.
    lesion : (X, Y, Z) bool
        On the grid of the compartments, with at least one voxel; several lesions count as one.
    mirror
        Way to the other side (:func:`sodium_prep.anat.homologue.fit_mirror`), if there is one.

    Returns
    -------
    Compartments, and what the user should know, one line each.
    """
    rim = _shell(lesion, compartments.affine)
    out = _with_rim(compartments, rim)
    if mirror is None:
        return out, ["The lesion has no mirror image: the atlas has too few labels on both sides of the brain."]
    free = mirrored_mask(lesion, compartments.affine, mirror.matrix) & ~lesion & ~rim
    if free.sum() < _USABLE_SHARE * lesion.sum():
        return out, [
            "The lesion has no mirror image: most of what lies opposite is lesion, rim, or outside the image, as with "
            "lesions of the midline or of both sides."
        ]
    notes = []
    if mirror.residual_mm > _GOOD_MM:
        notes.append(
            f"The place of the lesion's mirror image is uncertain: the centres of left and right labels agree within "
            f"{mirror.residual_mm:.1f} mm only (median of {mirror.n_pairs} pairs)."
        )
    return _with_mirror(out, free), notes


def _shell(lesion: Mask, affine: Array) -> Mask:
    """What lies outside the lesion and within 5 mm of it."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    margin = np.ceil(RIM_MM / spacing).astype(int) + 1
    (inner,) = ndimage.find_objects(lesion.astype(np.int8))
    box = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(inner, margin, strict=True))
    distance = ndimage.distance_transform_edt(~lesion[box], sampling=spacing)
    # From the border of the mask, half a voxel before the first centre outside.
    width = float(np.cbrt(np.prod(spacing)))
    shell = np.zeros_like(lesion)
    shell[box] = (distance > 0.0) & (distance - width / 2.0 < RIM_MM)
    return shell


def _tissue_parts(c: Compartments, zone: Mask) -> dict[Tissue, list[tuple[int, Mask]]]:
    """Compartments of each tissue that reach into a zone with where they do, if the tissue has enough volume there."""
    flat, out = zone.reshape(-1), {}
    for tissue in _TISSUES:
        members = [i for i in c.regions if c.tissues[i] == tissue and c.structures[i] != "lesion"]
        parts = [(i, inside) for i in members if (inside := flat[c.voxels[i]]).any()]
        volume = sum(float(c.weights[i][inside].sum(dtype=np.float64)) for i, inside in parts) * c.voxel_volume_mm3
        if volume >= LEAST_MM3:
            out[tissue] = parts
    return out


def _copy(compartments: Compartments) -> Compartments:
    c = copy(compartments)
    for name, column in vars(compartments).items():
        if isinstance(column, list):
            setattr(c, name, list(column))
    return c


def _cut(c: Compartments, i: int, inside: Mask) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Take voxels out of a compartment."""
    taken = c.voxels[i][inside], c.weights[i][inside]
    c.voxels[i], c.weights[i] = c.voxels[i][~inside], c.weights[i][~inside]
    return taken


def _with_rim(compartments: Compartments, rim: Mask) -> Compartments:
    c = _copy(compartments)
    for tissue, parts in _tissue_parts(c, rim).items():
        taken = [_cut(c, i, inside) for i, inside in parts]
        voxels, place = np.unique(np.concatenate([v for v, _ in taken]), return_inverse=True)
        weights = np.bincount(place, np.concatenate([w for _, w in taken])).astype(np.float64)
        c.append(f"LesionRim{tissue}", tissue, "region", voxels, weights, structure="lesion_rim")
    return c


def _with_mirror(compartments: Compartments, mirror: Mask) -> Compartments:
    """Divide labels in two, but leave slivers, which nothing would determine, with the larger part."""
    c = _copy(compartments)
    for parts in _tissue_parts(c, mirror).values():
        for i, inside in parts:
            volume, rest = (float(c.weights[i][part].sum()) * c.voxel_volume_mm3 for part in (inside, ~inside))
            if volume < _SLIVER_MM3:
                continue
            if rest < _SLIVER_MM3:
                inside = np.ones_like(inside)
            c.append(
                c.names[i], c.tissues[i], "region", *_cut(c, i, inside), index=c.indices[i],
                hemisphere=c.hemispheres[i], structure=c.structures[i], in_mirror=True,
            )  # fmt: skip
    return c


def mirror_weights(regions: Sequence[Region], volumes_mm3: Array) -> Mapping[int, Array]:
    """What each row of a lesion is compared with: weights of rows whose sum is its counterpart.

    The counterpart of the lesion is the grey and white matter of its mirror image in their proportion of volume, that
    of the rim the same tissue of the mirror image.
    """
    merged = {region.name: row for row, region in enumerate(regions) if region.index is None}
    mirror = {tissue: merged[f"LesionMirror{tissue}"] for tissue in _TISSUES if f"LesionMirror{tissue}" in merged}
    compared = {f"LesionRim{tissue}": [row] for tissue, row in mirror.items()} | {"Lesion": list(mirror.values())}
    out = {}
    for name, rows in compared.items():
        if name in merged and rows:
            out[merged[name]] = np.zeros(len(regions))
            out[merged[name]][rows] = volumes_mm3[rows] / volumes_mm3[rows].sum()
    return out
