"""The compartments of a head that a sodium image is explained by: regions of the brain, and what lies around them.

Each is a sparse map of fractions on the T1w grid. Together they fill the brain and its surroundings: whatever is left
out of the model ends up in the regions next to it (leaving out the CSF outside the brain mask costs 11-19 % in
cortex).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from sodium_prep.physics.relaxation import Tissue

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["region", "nuisance"]

SHELL_EDGES_MM: Final = (0.0, 1.0, 2.0, 3.0)
"""Distances from the brain mask between which the outer CSF is free."""
EDGE_MM: Final = 2.0
"""Depth below the surface of the brain mask up to which fluid is free as well. Bone is as dark as fluid in a T1w image,
and no mask tells where the one ends, so that the outermost fluid may be bone without sodium."""
EYE_RADIUS_MM: Final = 12.0
_LEAST_SHARE: Final = 1e-3
_GM_STRUCTURES: Final = ("cortex", "hippocampus", "deep_gm", "cerebellum_gm")
_WM_STRUCTURES: Final = ("wm", "cerebellum_wm")
_SOLID_STRUCTURES: Final = ("hippocampus", "deep_gm", "brainstem")


@dataclass
class Compartments:
    """Sparse fraction maps on the T1w grid, with what each of them is.

    Attributes
    ----------
    names, tissues, kinds
        One entry per compartment. The tissue decides relaxation and transfer function; ``nuisance`` compartments are
        fitted and not reported.
    voxels
        Flat (C order) int64 indices of the voxels of each.
    weights
        Fractions in these voxels, float32.
    shape, affine
        T1w grid.
    indices, hemispheres, structures
        From the atlas table; index -1 for compartments that no atlas label stands for.
    in_mirror
        Whether it is the part of a label that lies opposite a lesion.
    """

    names: list[str]
    tissues: list[Tissue]
    kinds: list[Kind]
    voxels: list[NDArray[np.int64]]
    weights: list[NDArray[np.float32]]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    indices: list[int] = field(default_factory=list)
    hemispheres: list[str] = field(default_factory=list)
    structures: list[str] = field(default_factory=list)
    in_mirror: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.names)
        self.indices = self.indices or [-1] * n
        self.hemispheres = self.hemispheres or ["both"] * n
        self.structures = self.structures or [""] * n
        self.in_mirror = self.in_mirror or [False] * n
        columns = (self.tissues, self.kinds, self.voxels, self.weights, self.indices, self.hemispheres, self.structures)
        if any(len(column) != n for column in (*columns, self.in_mirror)):
            raise ValueError("every list of a set of compartments must have one entry per compartment")

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a T1w voxel."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    @property
    def volumes_mm3(self) -> NDArray[np.float64]:
        """Volume of each compartment."""
        return np.array([w.sum(dtype=np.float64) for w in self.weights]) * self.voxel_volume_mm3

    @property
    def regions(self) -> list[int]:
        """Positions of the compartments that are reported."""
        return [i for i, kind in enumerate(self.kinds) if kind == "region"]

    def append(
        self,
        name: str,
        tissue: Tissue,
        kind: Kind,
        voxels: NDArray[np.int64],
        weights: NDArray[np.floating],
        *,
        index: int = -1,
        hemisphere: str = "both",
        structure: str = "",
        in_mirror: bool = False,
    ) -> None:
        """Add one compartment at the end."""
        self.names.append(name)
        self.tissues.append(tissue)
        self.kinds.append(kind)
        self.voxels.append(np.asarray(voxels, np.int64))
        self.weights.append(np.asarray(weights, np.float32))
        self.indices.append(index)
        self.hemispheres.append(hemisphere)
        self.structures.append(structure)
        self.in_mirror.append(in_mirror)


def build_compartments(
    gm: NDArray[np.float32],
    wm: NDArray[np.float32],
    csf: NDArray[np.float32],
    brain_mask: NDArray[np.bool_],
    head_mask: NDArray[np.bool_] | None,
    t1w: NDArray[np.float32],
    atlas_labels: NDArray[np.int32],
    atlas_table: pd.DataFrame,
    affine: NDArray[np.float64],
    *,
    shell_patches: int = 6,
    soft_patches: int = 16,
    rest_patches: int = 8,
    reach_mm: float = 20.0,
    smallest_mm3: float = 30.0,
    lesion: NDArray[np.bool_] | None = None,
    eyes_mm: Sequence[ArrayLike] = (),
) -> Compartments:
    """Divide a head into regions and nuisance compartments.

    Cortical and cerebellar labels hold grey matter; hippocampus, deep grey matter and brain stem everything that is not
    CSF; white matter labels white matter; ventricle labels CSF. A share that its label does not hold goes to the
    nearest label that does, CSF to the sulcal CSF of its side. The fluid at the surface of the mask is free. Around
    the brain come three shells of free CSF, soft tissue (by T1w intensity) and the rest (bone, air), all in angular
    patches.

    Parameters
    ----------
    gm, wm, csf : (X, Y, Z)
        Fractions; what they leave of a voxel is taken as surroundings.
    brain_mask, head_mask : (X, Y, Z) bool
        Without a head mask the intensities alone tell soft tissue.
    t1w : (X, Y, Z)
        Bias-corrected intensities, with the skull if there is one.
    atlas_labels : (X, Y, Z) int32
        0 where there is no label.
    atlas_table
        Columns ``index name hemisphere tissue structure``.
    affine : (4, 4)
        Of all these images.
    shell_patches, soft_patches, rest_patches
        Number of directions from the centre of the brain into which the surroundings are split.
    reach_mm
        Distance from the brain up to which bone and air are modelled.
    smallest_mm3
        Labels below this volume are left empty, their voxels go to their neighbours: no sodium image resolves them.
    lesion : (X, Y, Z) bool
        One more region, ``Lesion``, whatever the fractions and labels are there, so that its sodium does not pass for
        that of the tissue around it. What it consists of is not known: relaxation and transfer function are those of
        grey matter, so its concentration is right only as far as they hold.
    eyes_mm
        Centres of the eyes in the space of ``affine``. Each becomes a nuisance compartment of vitreous.

    Returns
    -------
    Regions (one per row of the atlas table, and sulcal CSF), then nuisance compartments.
    """
    shape = (int(gm.shape[0]), int(gm.shape[1]), int(gm.shape[2]))
    lesion = lesion if lesion is not None and lesion.any() else None
    if lesion is not None:
        gm, wm, csf = (np.where(lesion, np.float32(0.0), part) for part in (gm, wm, csf))
        brain_mask = brain_mask | lesion
    out = Compartments([], [], [], [], [], shape, np.asarray(affine, np.float64))
    labels = _without_specks(atlas_labels, smallest_mm3 / out.voxel_volume_mm3)
    box = _bounding_box((gm + wm + csf > _LEAST_SHARE) | brain_mask, 1)
    ventricles = atlas_table.loc[atlas_table["structure"] == "csf", "index"]
    at_edge = _edge(brain_mask, _voxel_mm(out.affine)) & ~np.isin(labels, ventricles)
    inner_csf = np.where(at_edge, np.float32(0.0), csf)
    _add_regions(out, [np.asarray(f[box], np.float32) for f in (gm, wm, inner_csf)], labels[box], atlas_table, box)
    brain = gm + wm + csf
    if float(brain.max()) > 1.01:
        raise ValueError(f"fractions of tissue add up to {brain.max():.3f} in a voxel")
    if lesion is not None:
        voxels = np.flatnonzero(lesion)
        out.append("Lesion", "GM", "region", voxels, np.ones(voxels.size), structure="lesion")
        brain = brain + lesion
    reference = float(np.median(t1w[gm + wm > 0.9])) if np.any(gm + wm > 0.9) else 0.0
    wide = _bounding_box(brain_mask, np.ceil(60.0 / _voxel_mm(out.affine)).astype(int))
    soft = np.clip(t1w[wide] / reference, 0.0, 1.0) if reference > 0.0 else np.zeros_like(t1w[wide])
    soft[soft < 0.1] = 0.0
    if head_mask is not None:
        soft[~head_mask[wide]] = 0.0
    eyes = [_ball(np.asarray(eye, np.float64), out.affine, brain_mask[wide].shape, wide) for eye in eyes_mm]
    if head_mask is not None:
        within = head_mask[wide].reshape(-1)
        eyes = [(voxels[within[voxels]], share[within[voxels]]) for voxels, share in eyes]
    edge = (csf - inner_csf)[wide]
    _add_surroundings(
        out,
        brain[wide],
        edge,
        brain_mask[wide],
        soft,
        eyes,
        wide,
        (shell_patches, soft_patches, rest_patches),
        reach_mm,
    )
    return out


def _edge(brain_mask: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """All but the voxels whose centres lie deeper in the mask than the edge."""
    depth = ndimage.distance_transform_edt(brain_mask, sampling=spacing_mm) - float(np.cbrt(np.prod(spacing_mm))) / 2.0
    return np.asarray(depth <= EDGE_MM)


def _ball(
    centre_mm: NDArray[np.float64],
    affine: NDArray[np.float64],
    shape: Sequence[int],
    box: tuple[slice, slice, slice],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Flat indices within a box of the voxels that an eye reaches, and its share in them."""
    spacing = _voxel_mm(affine)
    middle = np.linalg.solve(affine, [*centre_mm, 1.0])[:3] - [s.start for s in box]
    reach = np.ceil(EYE_RADIUS_MM / spacing).astype(int) + 1
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach)), axis=-1).reshape(-1, 3)
    near = np.rint(middle).astype(int) + steps
    near = near[np.all((near >= 0) & (near < shape), axis=1)]
    radius = np.linalg.norm((near - middle) @ affine[:3, :3].T, axis=1)
    share = np.clip((EYE_RADIUS_MM - radius) / float(np.cbrt(np.prod(spacing))) + 0.5, 0.0, 1.0)
    flat = np.ravel_multi_index(tuple(near[share > 0.0].T), tuple(shape))
    order = np.argsort(flat)
    return np.asarray(flat[order], np.int64), share[share > 0.0][order].astype(np.float32)


def _voxel_mm(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _bounding_box(mask: NDArray[np.bool_], margin: int | NDArray[np.int64]) -> tuple[slice, slice, slice]:
    """Smallest box around a mask, widened by some voxels."""
    found = ndimage.find_objects(mask.astype(np.int8))
    if not found:
        raise ValueError("the brain mask is empty")
    m = np.broadcast_to(margin, 3)
    low = [max(s.start - int(k), 0) for s, k in zip(found[0], m, strict=True)]
    high = [min(s.stop + int(k), n) for s, k, n in zip(found[0], m, mask.shape, strict=True)]
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))


def _flat(inside: NDArray[np.int64], box: tuple[slice, slice, slice], shape: Sequence[int]) -> NDArray[np.int64]:
    """Flat indices in a box to flat indices in the whole image."""
    box_shape = tuple(s.stop - s.start for s in box)
    index = [i + s.start for i, s in zip(np.unravel_index(inside, box_shape), box, strict=True)]
    return np.asarray(np.ravel_multi_index(index, tuple(shape)), np.int64)


def _without_specks(labels: NDArray[np.int32], least_voxels: float) -> NDArray[np.int32]:
    counts = np.bincount(labels.ravel(), minlength=1)
    small = (counts < least_voxels) & (counts > 0)
    small[0] = False
    return np.where(small[labels], 0, labels).astype(np.int32) if small.any() else labels


def _nearest(
    labels: NDArray[np.int32], wanted: NDArray[np.int64], voxels: NDArray[np.int64], spacing_mm: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Label of each voxel if it is wanted, otherwise the nearest one that is; 0 if none is there at all."""
    source = np.isin(labels, wanted)
    if not source.any():
        return np.zeros(voxels.size, np.int32)
    where = ndimage.distance_transform_edt(~source, sampling=spacing_mm, return_distances=False, return_indices=True)
    return np.asarray(labels[tuple(axis.reshape(-1)[voxels] for axis in where)], np.int32)


def _add_regions(
    out: Compartments,
    fractions: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int32],
    table: pd.DataFrame,
    box: tuple[slice, slice, slice],
) -> None:
    gm, wm, csf = (f.reshape(-1) for f in fractions)
    inside = np.flatnonzero(gm + wm + csf > _LEAST_SHARE)
    gm, wm, csf = gm[inside], wm[inside], csf[inside]
    spacing = _voxel_mm(out.affine)
    structure = table["structure"].to_numpy()
    index = table["index"].to_numpy(np.int64)

    def of(structures: Sequence[str]) -> NDArray[np.int64]:
        return np.asarray(index[np.isin(structure, structures)])

    here = labels.reshape(-1)[inside]
    solid = np.isin(here, of(_SOLID_STRUCTURES))
    gm, wm = np.where(solid, gm + wm, gm), np.where(solid, np.float32(0.0), wm)
    to_gm = np.where(solid, here, _nearest(labels, of(_GM_STRUCTURES), inside, spacing))
    to_wm = _nearest(labels, of(_WM_STRUCTURES), inside, spacing)
    sides = _sides(labels, table, inside, spacing)
    # Compartments that no label stands for get numbers beyond the labels: white matter and sulcal CSF of each side.
    beyond = int(max(index.max(initial=0), labels.max(initial=0))) + 1
    if not np.isin(structure, _WM_STRUCTURES).any():
        to_wm = (beyond + sides).astype(np.int32)
    # Midline labels of CSF are divided, so that CSF of one side can be one region.
    midline = index[(structure == "csf") & (table["hemisphere"].to_numpy() == "both")]
    divided = here.astype(np.int64) + np.where(np.isin(here, midline), (beyond + 6) * sides, 0)
    to_csf = np.where(np.isin(here, of(("csf",))), divided, beyond + 3 + sides)
    target = np.concatenate([to_gm, to_wm, to_csf])
    share = np.concatenate([gm, wm, csf])
    voxel = np.concatenate([inside] * 3)
    kept = np.flatnonzero((share > _LEAST_SHARE) & (target > 0))
    kept = kept[np.argsort(target[kept], kind="stable")]
    target, share, voxel = target[kept], share[kept], _flat(voxel[kept], box, out.shape)

    def add(number: int, name: str, tissue: Tissue, label: int, hemisphere: str, kind: str, optional: bool) -> None:
        part = slice(*np.searchsorted(target, (number, number + 1)))
        if part.stop > part.start or not optional:
            out.append(
                name, tissue, "region", voxel[part], share[part], index=label, hemisphere=hemisphere, structure=kind
            )

    for row in table.to_dict("records"):
        label = int(row["index"])
        side, kind = str(row["hemisphere"]), str(row["structure"])
        add(label, str(row["name"]), row["tissue"], label, side, kind, label in midline)
        for step, half in enumerate(("L", "R"), start=1):
            add(label + (beyond + 6) * step, str(row["name"]), row["tissue"], label, half, kind, True)
    for step, side in enumerate(("both", "L", "R")):
        add(beyond + step, "White-Matter", "WM", -1, side, "wm", True)
        add(beyond + 3 + step, "Sulcal-CSF", "CSF", -1, side, "csf", True)


def _sides(
    labels: NDArray[np.int32], table: pd.DataFrame, voxels: NDArray[np.int64], spacing_mm: NDArray[np.float64]
) -> NDArray[np.int64]:
    """1 where the nearest label with a side is left, 2 where it is right, 0 if no label has a side."""
    code = np.zeros(int(max(table["index"].max(), labels.max(initial=0))) + 1, np.int64)
    for number, hemisphere in enumerate(("L", "R"), start=1):
        code[table.loc[table["hemisphere"] == hemisphere, "index"].to_numpy(np.int64)] = number
    return code[_nearest(labels, np.flatnonzero(code), voxels, spacing_mm)]


def _add_surroundings(
    out: Compartments,
    brain: NDArray[np.float32],
    edge: NDArray[np.float32],
    brain_mask: NDArray[np.bool_],
    soft: NDArray[np.float32],
    eyes: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
    box: tuple[slice, slice, slice],
    patches: tuple[int, int, int],
    reach_mm: float,
) -> None:
    spacing = _voxel_mm(out.affine)
    width = float(np.cbrt(np.prod(spacing)))
    distance = ndimage.distance_transform_edt(~brain_mask, sampling=spacing).astype(np.float32).reshape(-1)
    distance -= width / 2.0  # from the border of the mask to the centre of the voxel
    outside = np.clip(1.0 - brain.reshape(-1), 0.0, 1.0)
    wanted = (distance < reach_mm) | (soft.reshape(-1) > 0.0)
    for at, _ in eyes:
        wanted[at] = True
    kept = np.flatnonzero(((outside > _LEAST_SHARE) & wanted) | (edge.reshape(-1) > _LEAST_SHARE))
    distance, outside, soft_share = distance[kept], outside[kept], soft.reshape(-1)[kept]
    voxel = _flat(kept, box, out.shape)
    centre = np.mean(np.argwhere(brain_mask), axis=0) + [s.start for s in box]
    toward = (np.stack(np.unravel_index(voxel, out.shape)) - centre[:, None]).astype(np.float32)
    toward = (out.affine[:3, :3].astype(np.float32) @ toward).T

    shell_patch, soft_patch, rest_patch = (np.argmax(toward @ _directions(n).T, axis=1) for n in patches)
    low = np.maximum(distance - width / 2.0, 0.0)
    high = np.maximum(distance + width / 2.0, 0.0)
    inner = distance < 0.0  # what the fractions leave open inside the mask
    remaining = np.where(inner, 0.0, 1.0).astype(np.float32)
    _add_patches(out, "outer-CSF-0", "CSF", voxel, edge.reshape(-1)[kept], shell_patch)
    for number, (start, end) in enumerate(pairwise(SHELL_EDGES_MM), start=1):
        share = np.clip(np.minimum(high, end) - np.maximum(low, start), 0.0, None) / width
        share = np.where(inner, float(number == 1), share).astype(np.float32)
        remaining -= np.where(inner, 0.0, share).astype(np.float32)
        _add_patches(out, f"outer-CSF-{number}", "CSF", voxel, outside * share, shell_patch)
    remaining = np.clip(remaining, 0.0, 1.0) * outside
    for number, (at, share) in enumerate(eyes, start=1):
        here, place, _ = np.intersect1d(kept, at, assume_unique=True, return_indices=True)
        eye = remaining[place] * share[np.searchsorted(at, here)]
        remaining[place] -= eye
        if eye.size:
            out.append(f"eye-{number}", "vitreous", "nuisance", voxel[place], eye)
    _add_patches(out, "soft-tissue", "extracerebral", voxel, remaining * soft_share, soft_patch)
    near = distance < reach_mm
    _add_patches(out, "rest", "extracerebral", voxel, np.where(near, remaining * (1.0 - soft_share), 0.0), rest_patch)


def _directions(n: int) -> NDArray[np.float32]:
    """Unit vectors spread evenly over the sphere (Fibonacci lattice); shape (n, 3)."""
    i = np.arange(n) + 0.5
    z, angle = 1.0 - 2.0 * i / n, np.pi * (1.0 + np.sqrt(5.0)) * i
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1).astype(np.float32)


def _add_patches(
    out: Compartments,
    name: str,
    tissue: Tissue,
    voxels: NDArray[np.int64],
    weights: NDArray[np.floating],
    patch: NDArray[np.int64],
) -> None:
    for number in np.unique(patch):
        part = (patch == number) & (weights > _LEAST_SHARE)
        if part.any():
            out.append(f"{name}-{number + 1}", tissue, "nuisance", voxels[part], weights[part])
