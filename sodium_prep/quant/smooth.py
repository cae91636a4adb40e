"""A smooth field through scattered, unequally certain values: penalised cosine fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def smooth_field(
    values: NDArray[np.floating],
    weights: NDArray[np.floating],
    spacing_mm: Array,
    *,
    scale_mm: float = 60.0,
    stiffness: float = 1.0,
    robust_iterations: int = 8,
) -> Array:
    """Smooth field over a whole grid from values that are known on a part of it.

    Least squares on a basis of cosines with half-wavelengths down to ``scale_mm / 2``, with a bending penalty
    (square of the Laplacian) that a feature of ``scale_mm`` feels as much as the data; Huber weights bear outliers.
    Where there are no data the field continues with least bending, level at the faces of the grid.

    Parameters
    ----------
    values
        Shape (X, Y, Z); ignored where the weight is zero.
    weights
        Inverse variances, any scale, shape (X, Y, Z).
    spacing_mm
        Voxel size, shape (3,).
    stiffness
        Multiplies the penalty.

    Returns
    -------
    Field, float64, shape (X, Y, Z).
    """
    shape = values.shape
    known = weights > 0
    if not known.any():
        raise ValueError("no voxel has a weight")
    extent = np.asarray(shape) * spacing_mm
    orders = np.maximum(np.ceil(2.0 * extent / scale_mm).astype(int) + 1, 2)
    bases = [
        np.cos(np.pi * (np.arange(n)[:, None] + 0.5) * np.arange(m) / n)
        for n, m in zip(shape, np.minimum(orders, shape), strict=True)
    ]
    waves = [np.pi * np.arange(b.shape[1]) / length for b, length in zip(bases, extent, strict=True)]
    laplacian = sum(np.meshgrid(*(w**2 for w in waves), indexing="ij"))
    powers = [np.where(np.arange(b.shape[1]) == 0, 1.0, 0.5) for b in bases]
    mean_square = np.einsum("a,b,c->abc", *powers).ravel()
    bending = mean_square * (np.asarray(laplacian) * (scale_mm / (2.0 * np.pi)) ** 2).ravel() ** 2
    x, y, z = np.nonzero(known)
    design = np.einsum("na,nb,nc->nabc", bases[0][x], bases[1][y], bases[2][z]).reshape(x.size, -1)
    target = np.asarray(values, dtype=float)[known]
    base = np.asarray(weights, dtype=float)[known]
    base = base / base.mean()
    huber = np.ones_like(base)
    for _ in range(robust_iterations):
        w = base * huber
        normal = design.T @ (w[:, None] * design)
        # Mean square bending over the grid times the weight of all data: independent of voxel size and units.
        normal[np.diag_indices_from(normal)] += w.sum() * (stiffness * bending + 1e-9)
        coefficients = np.linalg.solve(normal, design.T @ (w * target))
        error = np.sqrt(base) * (target - design @ coefficients)
        limit = 1.345 * 1.4826 * np.median(np.abs(error)) + 1e-12
        huber = np.minimum(1.0, limit / np.maximum(np.abs(error), 1e-12))
    cube = coefficients.reshape([b.shape[1] for b in bases])
    return np.asarray(np.einsum("xa,yb,zc,abc->xyz", *bases, cube, optimize=True), dtype=np.float64)
