"""One participant's head: the template head deformed, posed and resampled once onto the T1w scanner's 1 mm grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.phantom.head import CHANNELS, ORIGIN_MM, SHAPE, TemplateHead
from sodium_prep.phantom.protocol import Lesion

Volume = NDArray[np.float32]

HEAD_CENTRE_MM = np.array([0.0, -17.0, -2.0])
"""Point of template space that is brought to the isocentre."""
_CONTROL_MM = 4.0
_CONTROL_SHAPE = tuple(int(np.ceil(n / _CONTROL_MM)) + 9 for n in SHAPE)
_CONTROL_ORIGIN_MM = -0.5 * _CONTROL_MM * (np.array(_CONTROL_SHAPE) - 1)
_WARP_SMOOTH_MM = 20.0
_RIM_SMOOTH_MM = 15.0
_RIM, _BONE = CHANNELS.index("rim"), CHANNELS.index("bone")


@dataclass(frozen=True)
class Anatomy:
    """What makes one participant's head differ from the template.

    A point h of the head (mm, isocentre at 0) shows what the template has at
    ``HEAD_CENTRE_MM + scale * h + displacement(h)``.

    Attributes
    ----------
    scale : (3,)
        Factors along x, y, z.
    displacement_mm : (3, X, Y, Z) float32
        On a 4 mm grid around the isocentre, linear in between.
    rim_csf : (X, Y, Z) float32
        Share of CSF in the space outside the brain mask, on the same grid.
    """

    scale: NDArray[np.float64]
    displacement_mm: Volume
    rim_csf: Volume

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel to mm of the 4 mm grid."""
        affine = np.diag([_CONTROL_MM, _CONTROL_MM, _CONTROL_MM, 1.0])
        affine[:3, 3] = _CONTROL_ORIGIN_MM
        return affine


@dataclass(frozen=True)
class IndividualHead:
    """A head on the 1 mm grid of its T1w image.

    Attributes
    ----------
    fractions
        ``gm wm csf csf_outer bone soft fat vitreous``, each (X, Y, Z) float32.
    gm_label, wm_label, csf_label : (X, Y, Z) int16
        Region that each tissue of a voxel belongs to; 0 away from the brain.
    lesions : (X, Y, Z) int16
        0, or 1 + the index of the lesion.
    left : (X, Y, Z) bool
        Left half of the head.
    affine : (4, 4)
        Voxel to RAS mm of the T1w image.
    """

    fractions: dict[str, Volume]
    gm_label: NDArray[np.int16]
    wm_label: NDArray[np.int16]
    csf_label: NDArray[np.int16]
    lesions: NDArray[np.int16]
    left: NDArray[np.bool_]
    affine: NDArray[np.float64]

    @cached_property
    def brain_mask(self) -> NDArray[np.bool_]:
        """Voxels of which at least half is brain or CSF within it."""
        f = self.fractions
        return np.asarray(f["gm"] + f["wm"] + f["csf"] >= 0.5)


def random_anatomy(rng: np.random.Generator, *, scale_sd: float = 0.02, rim_csf_mean: float = 0.6) -> Anatomy:
    """Draw a head: scaling, a smooth warp with a peak of 3 to 6 mm, and the CSF around the brain."""
    scale = 1.0 + np.clip(rng.normal(0.0, scale_sd, 3), -0.04, 0.04)
    warp = np.stack([smooth_noise(_CONTROL_SHAPE, _WARP_SMOOTH_MM / _CONTROL_MM, rng) for _ in range(3)])
    peak = rng.uniform(3.0, 6.0)
    warp *= peak / np.sqrt((warp**2).sum(axis=0)).max()
    rim = rim_csf_mean + 0.15 * smooth_noise(_CONTROL_SHAPE, _RIM_SMOOTH_MM / _CONTROL_MM, rng)
    return Anatomy(scale, warp.astype(np.float32), np.clip(rim, 0.15, 1.0).astype(np.float32))


def smooth_noise(shape: tuple[int, ...], sigma_voxels: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian random field of mean 0 and standard deviation 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma_voxels, mode="reflect")
    return np.asarray((field - field.mean()) / field.std())


def random_rigid(rng: np.random.Generator, rotation_deg: float, translation_mm: float) -> NDArray[np.float64]:
    """Draw a rigid 4x4: rotation about a random axis and translation, each up to the amount given per axis."""
    rigid = np.eye(4)
    rigid[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-rotation_deg, rotation_deg, 3), degrees=True).as_matrix()
    rigid[:3, 3] = rng.uniform(-translation_mm, translation_mm, 3)
    return rigid


def pose_head(
    template: TemplateHead,
    anatomy: Anatomy,
    head_to_t1w: NDArray[np.float64],
    lesions: tuple[Lesion, ...] = (),
) -> IndividualHead:
    """Resample the template head, deformed and posed, onto a 1 mm T1w grid in one step.

    Parameters
    ----------
    head_to_t1w : (4, 4)
        Rigid, mm.
    lesions
        Balls in template space.
    """
    affine = np.eye(4)
    affine[:3, 3] = -0.5 * (np.array(SHAPE) - 1)
    fractions = np.zeros((len(CHANNELS), *SHAPE), np.float32)
    indices = {name: np.zeros(SHAPE, np.int16) for name in ("gm", "wm", "csf", "lesion")}
    left = np.zeros(SHAPE, bool)
    t1w_to_head = np.linalg.inv(head_to_t1w) @ affine
    for first in range(0, SHAPE[0], 17):
        slab = slice(first, min(first + 17, SHAPE[0]))
        inside, position, rim_csf = _template_positions(template, anatomy, t1w_to_head, slab)

        def put(target: NDArray[Any], values: NDArray[Any], slab: slice = slab, inside: NDArray[Any] = inside) -> None:
            target[slab].reshape(-1)[inside] = values

        voxel = position - np.array(ORIGIN_MM, np.float32)[:, None]
        sampled = [ndimage.map_coordinates(f, voxel, order=1, prefilter=False) for f in template.fractions]
        sampled[_BONE] += (1.0 - rim_csf) * sampled[_RIM]
        sampled[_RIM] *= rim_csf
        for target, values in zip(fractions, sampled, strict=True):
            put(target, values)
        nearest = [np.clip(np.rint(v).astype(np.int32), 0, n - 1) for v, n in zip(voxel, SHAPE, strict=True)]
        flat = np.ravel_multi_index(nearest, SHAPE)
        for name in ("gm", "wm", "csf"):
            put(indices[name], np.take(getattr(template, f"{name}_label"), flat))
        put(indices["lesion"], _lesion_numbers(lesions, position))
        put(left, position[0] < 0.0)
    names = ("gm", "wm", "csf", "csf_outer", *CHANNELS[4:])
    return IndividualHead(
        dict(zip(names, fractions, strict=True)),
        indices["gm"],
        indices["wm"],
        indices["csf"],
        indices["lesion"],
        left,
        affine,
    )


def _lesion_numbers(lesions: tuple[Lesion, ...], position_mm: NDArray[np.float32]) -> NDArray[np.int16]:
    numbers = np.zeros(position_mm.shape[1], np.int16)
    for number, lesion in enumerate(lesions, start=1):
        distance = np.linalg.norm(position_mm - np.array(lesion.centre_mm, np.float32)[:, None], axis=0)
        numbers[distance <= lesion.radius_mm] = number
    return numbers


def _template_positions(
    template: TemplateHead, anatomy: Anatomy, voxel_to_head: NDArray[np.float64], slab: slice
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Voxels of a slab of x-planes that may hold some of the head, their template position and rim CSF share.

    Returns
    -------
    Flat indices (n,) within the slab, position (3, n) in mm, share (n,).
    """
    centre = HEAD_CENTRE_MM.astype(np.float32)[:, None]
    scale = anatomy.scale.astype(np.float32)[:, None]
    grid = np.meshgrid(np.arange(slab.start, slab.stop), *(np.arange(n) for n in SHAPE[1:]), indexing="ij")
    index = np.stack([g.ravel() for g in grid]).astype(np.float32)
    matrix = voxel_to_head.astype(np.float32)
    head = matrix[:3, :3] @ index + matrix[:3, 3:]
    # The displacement is smaller than the margin of the template's reach, so it may be left out here.
    rough = np.rint(centre + scale * head - np.array(ORIGIN_MM, np.float32)[:, None]).astype(np.int32)
    rough = np.clip(rough, 0, np.array(SHAPE)[:, None] - 1)
    inside = np.flatnonzero(np.take(template.reach, np.ravel_multi_index(tuple(rough), SHAPE)))
    head = head[:, inside]
    control = (head - _CONTROL_ORIGIN_MM.astype(np.float32)[:, None]) / np.float32(_CONTROL_MM)

    def sample(field: Volume) -> NDArray[np.float32]:
        return np.asarray(ndimage.map_coordinates(field, control, order=1, mode="nearest", prefilter=False))

    moved = np.stack([sample(field) for field in anatomy.displacement_mm])
    return inside, centre + scale * head + moved, sample(anatomy.rim_csf)
