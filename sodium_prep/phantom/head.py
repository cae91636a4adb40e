"""The anatomical head in template space: tissue fractions on a 1 mm grid that reaches from neck to scalp.

Brain tissue comes from the intensity of the MNI T1w template, sharpened because it is an average of many brains, and
from the labels of the Desikan-Killiany atlas. What the template lacks (skull, scalp, face, eyes, CSF around the brain)
is built around its brain mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.atlas.bundled import load_atlas, load_template
from sodium_prep.atlas.labels import grow_labels

if TYPE_CHECKING:
    import pandas as pd

Volume = NDArray[np.float32]

SHAPE: Final = (204, 240, 222)
ORIGIN_MM: Final = (-102.0, -137.0, -117.0)
CHANNELS: Final = ("gm", "wm", "csf", "rim", "bone", "soft", "fat", "vitreous")
CSF_LABEL: Final = 24
EYES_MM: Final = ((-33.0, 62.0, -38.0), (33.0, 62.0, -38.0))
EYE_RADIUS_MM: Final = 12.0
ORBIT_RADIUS_MM: Final = 17.0
RIM_MM: Final = 3.0
BONE_MM: Final = 9.0
SCALP_MM: Final = 14.5
FAT_MM: Final = 2.5
REACH_MM: Final = 9
Point = tuple[float, float, float]
# Centres and semi-axes in template space.
_SOFT_PARTS: Final[tuple[tuple[Point, Point], ...]] = (
    ((0.0, 38.0, -62.0), (59.0, 52.0, 64.0)),  # face
    ((0.0, 8.0, -88.0), (58.0, 62.0, 56.0)),  # lower jaw and throat
    ((0.0, -42.0, -120.0), (60.0, 60.0, 90.0)),  # neck
)
_AIRWAYS: Final[tuple[tuple[Point, Point], ...]] = (
    ((0.0, 54.0, -62.0), (9.0, 28.0, 20.0)),  # nasal cavity
    ((-28.0, 55.0, -72.0), (12.0, 15.0, 14.0)),  # maxillary sinuses
    ((28.0, 55.0, -72.0), (12.0, 15.0, 14.0)),
    ((0.0, 18.0, -95.0), (9.0, 8.0, 40.0)),  # throat
)
_SLAB: Final = 34
_SHARPEN_VOXELS: Final = 2.0
_SHARPEN_AMOUNT: Final = 1.5
_EDGE_VOXELS: Final = 0.6


@dataclass(frozen=True)
class TemplateHead:
    """The head in MNI152NLin6Asym.

    Attributes
    ----------
    fractions : (8, X, Y, Z) float32
        Share of each of :data:`CHANNELS` in each voxel; what is missing to 1 is air. ``rim`` is the space within 3 mm
        outside the brain mask, which CSF and bone share.
    gm_label, wm_label : (X, Y, Z) int16
        Region that the grey and the white matter of a voxel belong to; 0 outside the brain mask and one voxel around.
    csf_label : (X, Y, Z) int16
        Ventricle label where the atlas has one, otherwise :data:`CSF_LABEL`.
    reach : (X, Y, Z) bool
        The head and what lies within :data:`REACH_MM` of it along each axis.
    affine : (4, 4)
        Voxel to RAS mm.
    table
        The atlas table.
    """

    fractions: Volume
    gm_label: NDArray[np.int16]
    wm_label: NDArray[np.int16]
    csf_label: NDArray[np.int16]
    reach: NDArray[np.bool_]
    affine: NDArray[np.float64]
    table: pd.DataFrame


@lru_cache(maxsize=1)
def template_head() -> TemplateHead:
    """Build the head; the result is kept, and must not be written to."""
    template, atlas = load_template(), load_atlas()
    mask, labels, table = template.brain_mask, atlas.labels, atlas.table
    brain = brain_fractions(template.t1w, mask, labels, table)
    # One voxel more than the mask, because resampling reaches there.
    wide = ndimage.binary_dilation(mask, iterations=2)
    csf_sources = table.loc[table["tissue"] == "CSF", "index"].to_numpy()
    box = ndimage.find_objects(wide.astype(np.uint8))[0]
    small = {name: np.zeros(mask.shape, np.int16) for name in ("gm", "wm", "csf")}
    small["gm"][box] = grow_labels(labels[box], wide[box], table, tissue="GM")
    small["wm"][box] = grow_labels(labels[box], wide[box], table, tissue="WM")
    small["csf"][:] = np.where(np.isin(labels, csf_sources), labels, np.where(wide, CSF_LABEL, 0))
    affine = np.eye(4)
    affine[:3, 3] = ORIGIN_MM
    target, source = _overlap(template.affine[:3, 3], mask.shape)
    fractions = np.zeros((len(CHANNELS), *SHAPE), np.float32)
    fractions[(slice(0, 3), *target)] = brain[(slice(None), *source)]
    head_mask = np.zeros(SHAPE, bool)
    head_mask[target] = mask[source]
    fractions[3:] = _outside_brain(head_mask)
    placed = {}
    for name, values in small.items():
        placed[name] = np.zeros(SHAPE, np.int16)
        placed[name][target] = values[source]
    reach = ndimage.maximum_filter(fractions.sum(axis=0) > 0.0, 2 * REACH_MM + 1)
    return TemplateHead(fractions, placed["gm"], placed["wm"], placed["csf"], reach, affine, table)


def brain_fractions(
    t1w: Volume, mask: NDArray[np.bool_], labels: NDArray[np.int32], table: pd.DataFrame
) -> NDArray[np.float32]:
    """Share of grey matter, white matter and CSF in each voxel of the template brain.

    A mixture of neighbouring tissues by intensity, overruled where the atlas knows better: deep grey matter,
    hippocampus, brainstem and ventricles.

    Returns
    -------
    (3, X, Y, Z) float32, summing to 1 within the mask and 0 outside.
    """
    inside = mask.astype(np.float32)
    filled = np.where(t1w > 0, t1w, np.where(mask, 2800.0, 0.0)).astype(np.float32)
    share = np.maximum(ndimage.gaussian_filter(inside, _SHARPEN_VOXELS), 0.05)
    sharp = filled + _SHARPEN_AMOUNT * (filled - ndimage.gaussian_filter(filled * inside, _SHARPEN_VOXELS) / share)
    structure = dict(zip(table["index"], table["structure"], strict=True))

    def where(*names: str) -> NDArray[np.bool_]:
        return np.isin(labels, [index for index, name in structure.items() if name in names])

    cerebellum = where("cerebellum_gm", "cerebellum_wm")
    # Template intensity: CSF about 3300, grey matter 5700, white matter 7450 (in the cerebellum 6700).
    low = np.where(cerebellum, np.float32(6100.0), np.float32(6300.0))
    high = np.where(cerebellum, np.float32(6800.0), np.float32(7050.0))
    white = np.clip((sharp - low) / (high - low), 0.0, 1.0)
    fluid = np.clip((4800.0 - sharp) / 1200.0, 0.0, 1.0)
    known = [_soften(where("hippocampus", "deep_gm")), _soften(where("brainstem")), _soften(where("csf"))]
    free = 1.0 - sum(known)
    out = np.stack([1.0 - white - fluid, white, fluid])
    out = out * free + np.stack(known)
    return np.asarray(out * inside, dtype=np.float32)


def _soften(mask: NDArray[np.bool_]) -> Volume:
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), _EDGE_VOXELS), dtype=np.float32)


def _overlap(origin_mm: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a 1 mm grid and the head grid overlap, in voxels of the head grid and of the other."""
    start = np.rint(origin_mm - ORIGIN_MM).astype(int)
    low = np.maximum(start, 0)
    high = np.minimum(start + shape, SHAPE)
    target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return target, tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))


def _outside_brain(mask: NDArray[np.bool_]) -> Volume:
    """Fractions of rim, bone, soft tissue, fat and vitreous around the brain, (5, X, Y, Z)."""
    distance = ndimage.distance_transform_edt(~mask).astype(np.float32)
    x, y, z = (np.arange(n, dtype=np.float32) + o for n, o in zip(SHAPE, ORIGIN_MM, strict=True))
    out = np.empty((5, *SHAPE), np.float32)
    for first in range(0, SHAPE[0], _SLAB):
        slab = slice(first, first + _SLAB)
        out[:, slab] = _layers(distance[slab], mask[slab], (x[slab, None, None], y[None, :, None], z[None, None, :]))
    return out


def _layers(distance: Volume, mask: NDArray[np.bool_], at: tuple[Volume, Volume, Volume]) -> Volume:
    """The same for some x-planes, from the distance to the brain (mm) and the position in template space."""
    depth = np.maximum(SCALP_MM - distance, _deepest(at, _SOFT_PARTS))
    to_eye = np.minimum(*(EYE_RADIUS_MM * _ellipsoid(at, eye, (EYE_RADIUS_MM,) * 3) for eye in EYES_MM))
    depth = np.maximum(depth, ORBIT_RADIUS_MM - to_eye)
    rim = _inside(RIM_MM + 0.5 - distance) * ~mask
    bone = _inside(BONE_MM + 0.5 - distance) * ~mask - rim
    vitreous = _inside(EYE_RADIUS_MM - to_eye) * (1.0 - rim - bone)
    head = _inside(depth) * ~mask
    rest = np.maximum(head - rim - bone - vitreous, 0.0) * (1.0 - _inside(_deepest(at, _AIRWAYS)))
    skin = _inside(FAT_MM - depth)
    return np.stack([rim, bone, rest * (1.0 - skin), rest * skin, vitreous])


def _deepest(at: tuple[Volume, Volume, Volume], parts: tuple[tuple[Point, Point], ...]) -> Volume:
    """Depth below the surface of the union of ellipsoids, about in mm."""
    depths = [min(axes) * (1.0 - _ellipsoid(at, centre, axes)) for centre, axes in parts]
    return np.asarray(np.maximum.reduce(depths), dtype=np.float32)


def _ellipsoid(at: tuple[Volume, Volume, Volume], centre: Point, axes: Point) -> Volume:
    """Distance from the centre in units of the semi-axes."""
    a, b, c = ((v - m) / s for v, m, s in zip(at, centre, axes, strict=True))
    return np.asarray(np.sqrt(a**2 + b**2 + c**2), dtype=np.float32)


def _inside(depth_mm: Volume) -> Volume:
    """Share of a 1 mm voxel that lies inside a surface, from the depth of its centre below the surface."""
    return np.asarray(np.clip(depth_mm + 0.5, 0.0, 1.0), dtype=np.float32)
