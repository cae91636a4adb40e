"""Images of objects made the slow way: indicator on a fine grid, transfer function there, every third voxel kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sodium_prep.physics.readout import filter_window, readout_time
from sodium_prep.quant.geometry import BlurredObject, ReferenceGeometry, k_grid, signed_distance, voxel_centres

VOXEL_MM = 3.0
STEP = 3


def grid(n: int) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a cube of n voxels about the origin."""
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * (n - 1) / 2
    return (n, n, n), affine


def radial_mtf(resolution_mm: float = 3.6, t2star_s: float = 0.03, kspace_filter: str = "none") -> Callable:
    """Transfer function of a density-adapted radial acquisition of 10 ms, in k vectors."""

    def mtf(k_per_mm):
        k = np.linalg.norm(k_per_mm, axis=-1) * 2.0 * resolution_mm
        inside = np.minimum(k, 1.0)
        decay = np.exp(-readout_time(inside, "DA-3DPR", 0.01) / t2star_s) * filter_window(inside, kspace_filter)
        return np.where(k <= 1.0, decay, 0.0)

    return mtf


def image_of(objects: Sequence[tuple[ReferenceGeometry, float]], n: int, mtf: Callable) -> np.ndarray:
    """Sum of the blurred objects with their signals on the cube of n voxels."""
    _, affine = grid(n)
    fine = affine.copy()
    fine[:3, :3] /= STEP
    fine[:3, 3] -= VOXEL_MM * (STEP - 1) / (2 * STEP)
    shape = (n * STEP,) * 3
    truth = sum(signal * shape_fraction(geometry, shape, fine) for geometry, signal in objects)
    k = k_grid(shape, fine)
    box = np.prod(np.sinc(k * VOXEL_MM / STEP), axis=-1)
    blurred = np.fft.ifftn(np.fft.fftn(truth) * mtf(k) / box).real
    return blurred[1::STEP, 1::STEP, 1::STEP]


def shape_fraction(geometry: ReferenceGeometry, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Fraction of every voxel that lies in the object, by 5^3 points per voxel at its surface."""
    distance = signed_distance(geometry, voxel_centres(shape, affine))
    fraction = (distance < 0).astype(np.float32)
    boundary = np.argwhere(np.abs(distance) <= 0.5 * np.linalg.norm(affine[:3, :3], axis=0).sum())
    steps = (np.arange(5) + 0.5) / 5 - 0.5
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    points = (boundary[:, None, :] + offsets) @ affine[:3, :3].T + affine[:3, 3]
    fraction[tuple(boundary.T)] = (signed_distance(geometry, points) < 0).mean(axis=1)
    return fraction


def blurred_shape(geometry: ReferenceGeometry, shape, affine: np.ndarray, mtf) -> np.ndarray:
    """The object of unit signal in closed form."""
    return BlurredObject(shape, affine, mtf).image(geometry)
