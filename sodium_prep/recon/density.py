"""Density compensation: the volume of k-space that each sample stands for.

Where readouts turn about an axis, it follows from the change of variables; elsewhere by iteration. Both are in 1/mm^3,
with a total of the volume of the sampled region, so that images keep their scale whichever is used.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree
from scipy.special import j1

from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.trajectory import FloatArray, Region, radial_weights

_SAME_CONE: Final = 1e-3
"""Polar angles in rad within which readouts lie on one cone."""
_MAIN_LOBE: Final = 1.43
"""First zero of the kernel of a field of view, times that field of view."""
_PROBES: Final = 4000
_ITERATIONS: Final = 12
_WIDER: Final = (0.7, 0.5, 0.35, 0.25)
"""Fields of view of the last kernels, relative to the first."""


def groups(values: FloatArray, tolerance: float) -> NDArray[np.intp]:
    """Number of the group, in rising order, of each value (n,); groups lie further apart than a tolerance."""
    order = np.argsort(values)
    group = np.empty(len(values), dtype=np.intp)
    group[order] = np.cumsum(np.diff(values[order], prepend=values[order[0]]) > tolerance)
    return group


def cone_shares(polar_rad: FloatArray) -> FloatArray:
    """Share of the sphere that each readout stands for, of readouts spread evenly about the axis of their cones.

    The border between neighbouring cones lies in the middle between their angles.

    Parameters
    ----------
    polar_rad : (n,)
        Angle of each readout's cone with the axis.

    Returns
    -------
    (n,), with sum 1.
    """
    cone = groups(polar_rad, _SAME_CONE)
    counts = np.bincount(cone)
    middle = np.bincount(cone, polar_rad) / counts
    borders = np.cos(np.concatenate([[0.0], 0.5 * (middle[1:] + middle[:-1]), [np.pi]]))
    return np.asarray((-0.5 * np.diff(borders) / counts)[cone])


def shared_weights(radius_per_mm: FloatArray, shares: FloatArray, linear_fraction: float | None = None) -> FloatArray:
    """Weights of centre-out readouts that each stand for one share of every sphere: ``4 pi share k^2 dk/dt dt``.

    Parameters
    ----------
    radius_per_mm : (n or 1, samples)
        Increasing along the samples, equidistant in time.
    shares : (n,)
        With sum 1.
    linear_fraction
        As for :func:`~sodium_prep.recon.trajectory.radial_weights`.

    Returns
    -------
    (n, samples), 1/mm^3, with a total of 4/3 pi kmax^3.
    """
    n = len(shares)
    weights = radial_weights(radius_per_mm, n, linear_fraction) * (n * shares[:, None])
    kmax = radius_per_mm[:, -1].mean()
    return np.asarray(weights * (4.0 / 3.0 * np.pi * kmax**3 / weights.sum()))


def hub_weights(k_per_mm: FloatArray, radius_per_mm: FloatArray, latitude_rad: float) -> FloatArray:
    """Weights of FLORET, whose hubs overlap: each hub counts with a share that fades towards its largest latitude.

    Shares proportional to the density of readouts, ``1 / cos(latitude)``, would be those of least noise, but their jump
    where a hub ends is badly sampled; times ``sqrt(1 - sin^2 / sin^2(largest))`` they cost 3 % of noise.

    Parameters
    ----------
    k_per_mm : (n, samples, 3)
        Of three hubs about z, x and y, each a third of the readouts.
    radius_per_mm : (samples,)
        Shared by all readouts.
    latitude_rad
        Largest latitude of a hub.

    Returns
    -------
    (n, samples), 1/mm^3, with a total of 4/3 pi kmax^3.
    """
    sine = np.abs(k_per_mm) / np.maximum(radius_per_mm, 1e-12)[:, None]
    cosine = np.sqrt(np.maximum(1.0 - sine**2, 1e-12))
    fade = np.sqrt(np.maximum(1.0 - (sine / np.sin(latitude_rad)) ** 2, 0.0))
    own = np.concatenate([fade[hub, :, axis] for hub, axis in zip(_thirds(len(k_per_mm)), (2, 0, 1), strict=True)])
    weights = radial_weights(radius_per_mm, len(k_per_mm)) * own / np.sum(fade / cosine, axis=2)
    return np.asarray(weights * (4.0 / 3.0 * np.pi * radius_per_mm[-1] ** 3 / weights.sum()))


def _thirds(n: int) -> list[slice]:
    return [slice(i * n // 3, (i + 1) * n // 3) for i in range(3)]


def stack_weights(radius_per_mm: FloatArray, n_readouts: int, extents_per_mm: tuple[float, float, float]) -> FloatArray:
    """Weights ``k dk/dt dt`` of spirals that fill a cylinder evenly.

    Trapezoidal over the samples; where a spiral starts with speed, the Euler-Maclaurin term of its centre is added.

    Parameters
    ----------
    radius_per_mm : (samples,)
        In the plane, shared by all readouts.
    extents_per_mm
        Half extents of the cylinder.

    Returns
    -------
    (1, samples), 1/mm^3, with a total over all readouts of the cylinder's volume.
    """
    number = np.arange(len(radius_per_mm))
    speed = CubicSpline(number, radius_per_mm)(number, 1)
    weights = radius_per_mm * speed
    weights[-1] *= 0.5
    weights[0] += speed[0] ** 2 / 12.0
    volume = 2.0 * np.pi * np.prod(extents_per_mm)
    return np.asarray(weights[None] * (volume / (n_readouts * weights.sum())))


def _region_transform(
    places_mm: tuple[FloatArray, ...], extents: tuple[float, float, float], region: Region
) -> FloatArray:
    """Fourier transform of the sampled region at places in the image."""
    x, y, z = (2.0 * np.pi * e * p for e, p in zip(extents, places_mm, strict=True))
    if region == "ellipsoid":
        q = np.maximum(np.sqrt(x**2 + y**2 + z**2), 1e-3)
        return np.asarray(4.0 * np.pi * np.prod(extents) * (np.sin(q) - q * np.cos(q)) / q**3)
    q = np.maximum(np.sqrt(x**2 + y**2), 1e-6)
    return np.asarray(4.0 * np.pi * np.prod(extents) * j1(q) / q * np.sinc(z / np.pi))


def resolved_field_mm(
    k_per_mm: NDArray[np.floating[Any]],
    extents_per_mm: tuple[float, float, float],
    region: Region = "ellipsoid",
) -> float:
    """Field of view that the readouts sample: 1 over the spacing of a square lattice with holes of the same size.

    99 % of the places in the region have a sample nearer than 0.55 spacings.
    """
    extents = np.asarray(extents_per_mm)
    k = np.asarray(k_per_mm, dtype=np.float64)
    path = np.linalg.norm(np.diff(k, axis=1), axis=2)
    spacing = np.sqrt(8.0 * np.prod(extents) / path.sum())
    samples = k[:, :: max(1, int(0.25 * spacing / path.max()))].reshape(-1, 3)
    places = np.random.default_rng(0).uniform(-1.0, 1.0, (_PROBES, 3))
    radius = np.linalg.norm(places[:, : 3 if region == "ellipsoid" else 2], axis=1)
    distance, _ = cKDTree(samples).query(places[radius < 1.0] * extents)
    return float(0.55 / np.quantile(distance, 0.99))


class _Convolution:
    """Convolution of weights with the kernel of a field of view, relative to that of the filled region.

    The kernel is the squared transform of a ball of that diameter; in the image, its transform ends at the diameter.
    """

    def __init__(
        self, k_per_mm: FloatArray, extents_per_mm: tuple[float, float, float], region: Region, field_mm: float
    ) -> None:
        x, y, z = (2.0 * (e + _MAIN_LOBE / field_mm) for e in extents_per_mm)
        nx, ny, nz = (2 * int(np.ceil(field_mm * period)) for period in (x, y, z))
        axes = [(np.arange(n) - n // 2) / period for n, period in ((nx, x), (ny, y), (nz, z))]
        places = tuple(np.meshgrid(*axes, indexing="ij", sparse=True))
        far = np.minimum(np.sqrt(sum(p**2 for p in places)) / field_mm, 1.0)
        self._kernel = 1.0 - 1.5 * far + 0.5 * far**3
        self._operator = Nufft(k_per_mm, (nx, ny, nz), (1.0 / x, 1.0 / y, 1.0 / z))
        filled = self._operator.forward(self._kernel * _region_transform(places, extents_per_mm, region))
        self._filled = np.maximum(filled.real, 0.0).astype(np.float64)

    def improve(self, weights: FloatArray) -> None:
        now = self._operator.forward(self._kernel * self._operator.adjoint(weights)).real
        weights *= self._filled / np.maximum(now, 1e-3)


def iterated_weights(
    k_per_mm: NDArray[np.floating[Any]], extents_per_mm: tuple[float, float, float], region: Region = "ellipsoid"
) -> FloatArray:
    """Weights whose convolution with a compact kernel equals that of the uniformly filled region.

    Iteration of Pipe and Menon (MRM 1999;41:179), ``w <- w / (w * C)``, with the kernel of Johnson and Pipe (MRM
    2009;61:439) for the field of view that the readouts sample. ``C`` has integral 1, which puts the weights into
    1/mm^3, and the convolution of the region itself stands in the numerator, which keeps its border from being lifted.
    Last, a few wider kernels share out the volume of holes that the first one could not reach across.

    Parameters
    ----------
    k_per_mm : (n_readouts, n_samples, 3)
    extents_per_mm
        Half extents of the region.
    region
        Its shape.

    Returns
    -------
    (n_readouts, n_samples), 1/mm^3; the total is the region's volume.
    """
    field_mm = resolved_field_mm(k_per_mm, extents_per_mm, region)
    points = np.reshape(np.asarray(k_per_mm, dtype=np.float64), (-1, 3))
    volume = (4.0 / 3.0 if region == "ellipsoid" else 2.0) * np.pi * float(np.prod(extents_per_mm))
    weights = np.full(len(points), volume / len(points))
    for narrower, times in ((1.0, _ITERATIONS), *((part, 1) for part in _WIDER)):
        convolution = _Convolution(points, extents_per_mm, region, narrower * field_mm)
        for _ in range(times):
            convolution.improve(weights)
    return np.asarray((weights * (volume / weights.sum())).reshape(np.shape(k_per_mm)[:2]))
