"""A small head for tests: the template brain in a shell of skull and scalp, placed and shaded at will."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.atlas.bundled import load_template

MEANS = {"csf": 250.0, "gm": 600.0, "wm": 900.0}


@dataclass(frozen=True)
class Head:
    t1w: np.ndarray
    affine: np.ndarray
    brain: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    bias: np.ndarray


@lru_cache(maxsize=1)
def template_parts():
    """GM, WM, CSF, bone and scalp of a head around the template brain, 1 mm."""
    template = load_template()
    mask = template.brain_mask
    filled = np.where(template.t1w > 0, template.t1w, 2800.0)
    inside = mask.astype(np.float32)
    blur = ndimage.gaussian_filter(filled * inside, 2.0) / np.maximum(ndimage.gaussian_filter(inside, 2.0), 0.05)
    steep = filled + 1.5 * (filled - blur)
    wm = np.clip((steep - 6300.0) / 750.0, 0, 1)
    csf = np.clip((4800.0 - steep) / 1200.0, 0, 1)
    distance = ndimage.distance_transform_edt(~np.pad(mask, 20))
    bone, scalp = (distance > 0) & (distance <= 8), (distance > 8) & (distance <= 15)
    parts = [np.pad(np.where(mask, part, 0.0), 20) for part in (1.0 - wm - csf, wm, csf)]
    affine = template.affine.copy()
    affine[:3, 3] -= 20
    return np.stack([*parts, bone, scalp]).astype(np.float32), affine


@lru_cache(maxsize=4)
def averaged_parts(step):
    """The parts in voxels of a whole number of millimetres."""
    parts, affine = template_parts()
    n = [size // step for size in parts.shape[1:]]
    cut = parts[:, : n[0] * step, : n[1] * step, : n[2] * step]
    grid = affine.copy()
    grid[:3, :3] *= step
    grid[:3, 3] += (step - 1) / 2
    return cut.reshape(-1, n[0], step, n[1], step, n[2], step).mean(axis=(2, 4, 6)), grid


def smooth_bias(shape, peak, rng):
    """Cosines of at most second order, so that half a wave is no shorter than half the head; 1 +- peak."""
    axes = [np.cos(np.pi * np.outer(np.arange(n) / n, np.arange(3))) for n in shape]
    weights = rng.standard_normal((3, 3, 3))
    weights[np.add.outer(np.add.outer(range(3), range(3)), range(3)) > 2] = 0
    field = np.einsum("xi,yj,zk,ijk->xyz", *axes, weights)
    return (1 + peak * (2 * (field - field.min()) / np.ptp(field) - 1)).astype(np.float32)


def make_head(voxel_mm=1.0, *, turn_deg=0.0, shift_mm=(0, 0, 0), bias=0.0, noise=0.0, seed=0):
    """Area averages of the parts at the voxel size, mixed to a T1w with bias and Rician noise.

    The head is turned and shifted by its affine's inverse: the grid stays straight and the head moves within it.
    """
    rng = np.random.default_rng(seed)
    parts, affine = averaged_parts(round(voxel_mm))
    if turn_deg or any(shift_mm):
        move = np.eye(4)
        move[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn_deg) * np.array([1, 2, 2]) / 3).as_matrix()
        move[:3, 3] = shift_mm
        to_voxel = np.linalg.inv(affine) @ np.linalg.inv(move) @ affine
        parts = np.stack([ndimage.affine_transform(part, to_voxel, order=1) for part in parts])
    gm, wm, csf, bone, scalp = parts
    field = smooth_bias(gm.shape, bias, rng)
    clean = MEANS["gm"] * gm + MEANS["wm"] * wm + MEANS["csf"] * csf + 60 * bone + 750 * scalp
    real, imaginary = noise * MEANS["wm"] * rng.standard_normal((2, *gm.shape))
    t1w = np.hypot(clean * field + real, imaginary).astype(np.float32)
    return Head(t1w, affine, (gm + wm + csf) > 0.5, gm, wm, csf, field)


def dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def rigid(rotation_deg, shift_mm):
    """A turn about the middle of the template brain, and a shift."""
    centre = np.array([0.0, -18.0, 10.0])
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.deg2rad(rotation_deg)).as_matrix()
    move[:3, 3] = centre + shift_mm - move[:3, :3] @ centre
    return move


def sodium_image(to_sodium, *, seed=0, voxel_mm=4.0, noise=3.0, vials=True):
    """Sodium of the head: CSF bright inside and around the brain, weak scalp, shading, vials that keep their place."""
    rng = np.random.default_rng(seed)
    (gm, wm, csf, _, scalp), affine = averaged_parts(2)
    distance = ndimage.distance_transform_edt(gm + wm + csf == 0, sampling=2.0)
    rim = (distance > 0) & (distance < 3)
    image = ndimage.gaussian_filter(45 * gm + 38 * wm + 140 * csf + 80 * rim + 25 * scalp, 1.2)
    shape = (round(256 / voxel_mm),) * 3
    grid = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    grid[:3, 3] = np.array([0, -18, 10]) - voxel_mm * (shape[0] - 1) / 2
    to_voxel = np.linalg.inv(affine) @ np.linalg.inv(to_sodium) @ grid
    out = ndimage.affine_transform(image, to_voxel, output_shape=shape, order=1)
    if vials:
        out[2:6, 44:48, 25:40] += 110
        out[58:62, 44:48, 25:40] += 60
    out *= smooth_bias(shape, 0.3, rng)
    return np.hypot(out + noise * rng.standard_normal(shape), noise * rng.standard_normal(shape)).astype(
        np.float32
    ), grid
