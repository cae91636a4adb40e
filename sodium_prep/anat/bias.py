"""Smooth intensity bias of a T1-weighted brain, estimated together with its tissue histogram.

The logarithm of the bias is a sum of products of cosines (as in Ashburner and Friston, NeuroImage 2005). Its
coefficients maximise the likelihood of the corrected intensities under the partial-volume histogram model of
:mod:`sodium_prep.anat.mixture`, with a penalty on curvature. N4, which has no model of tissue, leaves some 3.5 % in
white matter; that is a quarter of the contrast to grey matter, far too much for partial volume correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize

from sodium_prep.anat.mixture import Mixture, fit_mixture

Array = NDArray[np.float64]

_TABLE = np.linspace(0.0, 2.5, 2501)
_PAD_MM = 20.0
_TEMPER = 0.05
"""Neighbouring voxels tell nearly the same: the weight of one voxel's likelihood against the prior of the bias."""


@dataclass(frozen=True)
class CosineField:
    """A smooth field on a lattice: ``exp(sum_ijk c_ijk cos(pi i x / L_x) cos(..) cos(..))``."""

    axes: tuple[Array, Array, Array]
    prior_sd: Array

    @classmethod
    def on(cls, grid: tuple[Array, Array, Array], low: Array, high: Array, half_wave_mm: float) -> CosineField:
        """Build the basis.

        Parameters
        ----------
        grid
            Three arrays of positions in mm along the axes.
        low, high : (3,)
            Ends of the box that the cosines live on, mm.
        half_wave_mm
            Shortest half wavelength.
        """
        length = high - low
        orders = [np.arange(int(side / half_wave_mm) + 1) for side in length]
        axes = [
            np.cos(np.pi * np.outer((x - start) / side, order))
            for x, start, side, order in zip(grid, low, length, orders, strict=True)
        ]
        waves = np.stack(np.meshgrid(*[n / side for n, side in zip(orders, length, strict=True)], indexing="ij"))
        wave_number = np.sqrt((waves**2).sum(axis=0)) * half_wave_mm
        # A field of 30 % at 150 mm half wavelength, falling with the square of the wave number.
        relative = np.maximum(wave_number * 150.0 / half_wave_mm, 0.5)
        prior = np.where(wave_number <= 1.0, 0.3 / relative**2, 0.0)
        prior[0, 0, 0] = 0.0  # the mean level belongs to the tissue means
        return cls((axes[0], axes[1], axes[2]), prior)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cosines along each axis."""
        return self.prior_sd.shape

    def log_field(self, coefficients: Array) -> Array:
        """Logarithm of the field on the lattice, (nx, ny, nz), from coefficients in units of their prior sd."""
        c = coefficients.reshape(self.shape) * self.prior_sd
        return np.asarray(np.einsum("xi,yj,zk,ijk->xyz", *self.axes, c, optimize=True))

    def gradient(self, slope: Array) -> Array:
        """Adjoint of :meth:`log_field`."""
        return np.asarray(np.einsum("xi,yj,zk,xyz->ijk", *self.axes, slope, optimize=True) * self.prior_sd).ravel()


def estimate_bias(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_mm: Array,
    *,
    half_waves_mm: tuple[float, ...] = (90.0, 60.0, 45.0),
    step_mm: float = 2.5,
) -> tuple[NDArray[np.float32], Mixture, float]:
    """Estimate bias and tissue histogram.

    Parameters
    ----------
    image : (X, Y, Z)
        T1-weighted intensity.
    mask : (X, Y, Z) bool
        Voxels that take part: brain, without its rim and without deep grey matter.
    voxel_mm : (3,)
        Voxel size.
    half_waves_mm
        Shortest half wavelength of the bias in each round, coarse to fine.
    step_mm
        Spacing of the voxels that are looked at.

    Returns
    -------
    bias : (X, Y, Z) float32
        Positive, mean 1 in the mask.
    mixture
        Histogram model of ``image / bias / level``.
    level
        Intensity that the model's 1.0 stands for.
    """
    step = np.maximum(np.rint(step_mm / voxel_mm), 1).astype(int)
    lattice = tuple(slice(int(s) // 2, None, int(s)) for s in step)
    grid = [np.arange(n) * size for n, size in zip(image.shape, voxel_mm, strict=True)]
    coarse = (grid[0][lattice[0]], grid[1][lattice[1]], grid[2][lattice[2]])
    inside = np.argwhere(mask)
    low, high = inside.min(axis=0) * voxel_mm - _PAD_MM, inside.max(axis=0) * voxel_mm + _PAD_MM
    values, used = np.asarray(image[lattice], np.float64), mask[lattice]
    used &= values > 0

    rough = np.log(_white_matter_level(values, used, np.array([x[1] - x[0] for x in coarse])))
    field = CosineField.on(coarse, low, high, half_waves_mm[0])
    level, coefficients = _project(field, rough, used)
    mixture = None
    for number, half_wave in enumerate(half_waves_mm):
        field = CosineField.on(coarse, low, high, half_wave)
        coefficients = _extend(coefficients, field.shape)
        last = number == len(half_waves_mm) - 1
        for extra_sd in (0.04, 0.02, 0.0) if number == 0 else (0.0, 0.0):
            u = values[used] / level * np.exp(-field.log_field(coefficients)[used])
            mixture = fit_mixture(u, mixture)
            coefficients = _update(field, coefficients, values / level, used, mixture, extra_sd, 60 if last else 30)
    assert mixture is not None  # half_waves_mm is not empty
    u = values[used] / level * np.exp(-field.log_field(coefficients)[used])
    mixture = fit_mixture(u, mixture)
    fine = CosineField.on((grid[0], grid[1], grid[2]), low, high, half_waves_mm[-1])
    bias = np.exp(fine.log_field(coefficients))
    mean = float(bias[mask].mean())
    return (bias / mean).astype(np.float32), mixture, float(level * mean)


def _update(
    field: CosineField,
    start: Array,
    values: Array,
    used: NDArray[np.bool_],
    mixture: Mixture,
    extra_sd: float,
    iterations: int,
) -> Array:
    """Maximise the penalised likelihood over the coefficients, with the histogram model held."""
    table = mixture.log_density(_TABLE, extra_sd)
    slope = np.gradient(table, _TABLE)
    data = values[used]
    step = _TABLE[1]

    def cost(c: Array) -> tuple[float, Array]:
        log_bias = field.log_field(c)
        b = log_bias[used]
        u = np.clip(data * np.exp(-b), 0.0, _TABLE[-1] - 1e-6)
        index = (u / step).astype(np.intp)
        part = u / step - index
        value = table[index] * (1.0 - part) + table[index + 1] * part
        score = slope[index] * (1.0 - part) + slope[index + 1] * part
        total = _TEMPER * float(np.sum(value - b)) - 0.5 * float(c @ c)
        full = np.zeros(used.shape)
        full[used] = -score * u - 1.0
        return -total, -(_TEMPER * field.gradient(full) - c)

    result = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return np.asarray(result.x, dtype=np.float64).reshape(field.shape)


def _white_matter_level(values: Array, used: NDArray[np.bool_], spacing_mm: Array) -> Array:
    """Rough local brightness of white matter: a high percentile within 30 mm, on the lattice."""
    block = np.maximum(np.rint(10.0 / spacing_mm), 1).astype(int)
    nodes = np.stack(
        np.meshgrid(*[np.arange(0, n, s) for n, s in zip(values.shape, block, strict=True)], indexing="ij")
    )
    reach = np.ceil(30.0 / spacing_mm).astype(int)
    out = np.full(nodes.shape[1:], np.nan)
    for index in np.ndindex(*out.shape):
        centre = nodes[(slice(None), *index)]
        part = tuple(slice(max(c - r, 0), c + r + 1) for c, r in zip(centre, reach, strict=True))
        inside = values[part][used[part]]
        if inside.size > 100:
            out[index] = np.percentile(inside, 80)
    known = np.isfinite(out)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = ndimage.gaussian_filter(out[tuple(nearest)], 1.0)
    where = np.stack(np.meshgrid(*[np.arange(n) / s for n, s in zip(values.shape, block, strict=True)], indexing="ij"))
    return np.asarray(ndimage.map_coordinates(filled, where, order=1, mode="nearest"))


def _project(field: CosineField, log_level: Array, used: NDArray[np.bool_]) -> tuple[float, Array]:
    """Least-squares coefficients of a rough field, with its mean level split off."""
    level = float(np.exp(log_level[used].mean()))
    rest = np.where(used, log_level - np.log(level), 0.0)

    def cost(c: Array) -> tuple[float, Array]:
        difference = np.where(used, field.log_field(c) - rest, 0.0)
        return 0.5 * float(np.sum(difference**2)) + 0.5 * float(c @ c), field.gradient(difference) + c

    result = minimize(cost, np.zeros(field.prior_sd.size), jac=True, method="L-BFGS-B", options={"maxiter": 50})
    return level, np.asarray(result.x, dtype=np.float64).reshape(field.shape)


def _extend(coefficients: Array, shape: tuple[int, ...]) -> Array:
    """Coefficients of a larger basis; those of the smaller one keep their place.

    The prior of a cosine does not depend on the size of the basis, so that values carry over.
    """
    out = np.zeros(shape)
    out[tuple(slice(0, n) for n in coefficients.shape)] = coefficients
    return out
