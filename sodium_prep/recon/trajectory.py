"""Trajectories through k-space; the density compensation of centre-out spokes.

Gridding replaces the inverse Fourier integral by a sum over samples. Along a spoke that integral is
``int k^2 k'(t) F(k(t)) dt`` with an integrand that is even about k = 0, so the trapezoidal rule in time is spectrally
accurate there (Trefethen and Weideman, SIAM Rev 2014;56:385): the sample at k = 0 gets no weight. Weights equal to the
volume of each sample's shell sum up as nicely, but exceed ``4 pi k^2 dk`` by ``pi dk^3 / 3`` each, which lifts a
sphere of 90 mm radius by 14 % at usual sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from sodium_prep.physics.acquisition import WITHOUT_LAW, Acquisition, TrajectoryName
from sodium_prep.physics.readout import readout_time

FloatArray = NDArray[np.float64]
Region = Literal["ellipsoid", "cylinder"]

_SAME_LAW = 1e-4
"""Largest departure from the closed law, relative to kmax, at which a measured trajectory counts as following it."""


def region_volume(extents: tuple[float, float, float], region: Region) -> float:
    """Volume of an ellipsoid or a cylinder of given half extents."""
    return float((4.0 / 3.0 if region == "ellipsoid" else 2.0) * np.pi * np.prod(extents))


@dataclass(frozen=True)
class Trajectory:
    """Sampling of a region of k-space by readouts of equal length.

    Attributes
    ----------
    k_per_mm
        (n_readouts, n_samples, 3) float32, 1/mm, along the axes of the image grid.
    time_s
        (n_samples,) seconds since the first sample.
    weights_mm3
        (n_readouts or 1, n_samples) density compensation, 1/mm^3; over all readouts and samples it sums to
        ``volume_per_mm3``.
    kmax_per_mm
        Radius of the sampled sphere, 1/mm; of another region the smallest of its half extents.
    linear_fraction
        k0 / kmax where the radius follows the closed law of :func:`sodium_prep.physics.readout.readout_time` (1 for
        constant speed); None for any other.
    extents_per_mm
        Half extents of the region along the axes of the image grid, 1/mm; None for a sphere.
    region
        Its shape. The axis of a cylinder is the third.
    """

    k_per_mm: NDArray[np.float32]
    time_s: FloatArray
    weights_mm3: FloatArray
    kmax_per_mm: float
    linear_fraction: float | None = None
    extents_per_mm: tuple[float, float, float] | None = None
    region: Region = "ellipsoid"

    @property
    def n_readouts(self) -> int:
        """Number of readouts."""
        return int(self.k_per_mm.shape[0])

    @property
    def n_samples(self) -> int:
        """Samples per readout."""
        return int(self.k_per_mm.shape[1])

    @property
    def readout_duration_s(self) -> float:
        """From the first to the last sample, seconds."""
        return float(self.time_s[-1])

    @property
    def half_extents_per_mm(self) -> tuple[float, float, float]:
        """Largest frequency along each axis of the image grid; nominal voxels measure ``0.5 / half_extents_per_mm``."""
        return self.extents_per_mm or (self.kmax_per_mm,) * 3

    @property
    def volume_per_mm3(self) -> float:
        """Volume of the sampled region, 1/mm^3."""
        return region_volume(self.half_extents_per_mm, self.region)

    @property
    def k_relative(self) -> FloatArray:
        """(n_readouts, n_samples) place between the centre (0) and the border (1) of the sampled region."""
        k = self.k_per_mm.astype(np.float64)
        if self.extents_per_mm is None:
            radius = np.sqrt(np.einsum("...i,...i", k, k)) / self.kmax_per_mm
        else:
            k /= self.extents_per_mm
            flat = k if self.region == "ellipsoid" else k[..., :2]
            radius = np.sqrt(np.einsum("...i,...i", flat, flat))
            if self.region == "cylinder":
                radius = np.maximum(radius, np.abs(k[..., 2]))
        return np.asarray(np.minimum(radius, 1.0), dtype=np.float64)

    @property
    def alias_free_mm(self) -> float:
        """Largest diameter of an object that the steps along the readouts sample without aliasing, mm."""
        steps = np.diff(self.k_per_mm, axis=1)
        return float(1.0 / np.sqrt(np.einsum("...i,...i", steps, steps).max()))

    @property
    def straight(self) -> bool:
        """Whether every readout runs straight from the centre of k-space to its last sample."""
        k, last = self.k_per_mm, self.k_per_mm[:, -1:]
        along = np.einsum("ijk,ilk->ij", k, last) / np.einsum("ilk,ilk->i", last, last)[:, None]
        return bool(np.abs(k - along[..., None] * last).max() < _SAME_LAW * self.kmax_per_mm)


def spoke_directions(n: int) -> FloatArray:
    """Unit vectors spread evenly over the sphere by a generalised spiral.

    Saff and Kuijlaars, Math Intelligencer 1997;19(1):5.

    Parameters
    ----------
    n
        Number of directions, at least 2.

    Returns
    -------
    (n, 3)
    """
    if n < 2:
        raise ValueError(f"a sphere needs at least 2 spokes, got {n}")
    z = np.linspace(-1.0, 1.0, n)
    radius = np.sqrt(1.0 - z**2)
    step = np.zeros(n)
    step[1:-1] = 3.6 / np.sqrt(n) / radius[1:-1]
    phi = np.cumsum(step)
    return np.stack([radius * np.cos(phi), radius * np.sin(phi), z], axis=1)


def golden_directions(n: int) -> FloatArray:
    """Unit vectors of which any contiguous part is spread evenly over the sphere.

    By the two-dimensional golden means 0.4656 and 0.6823 (Chan, Ramsay, Cunningham and Plewes, MRM 2009;61:354).

    Parameters
    ----------
    n
        Number of directions.

    Returns
    -------
    (n, 3)
    """
    golden = np.array([0.46557123187676802665, 0.68232780382801932737])
    height, turn = np.mod(np.arange(n)[:, None] * golden + [0.5, 0.0], 1.0).T
    z, phi = 2.0 * height - 1.0, 2.0 * np.pi * turn
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(phi), radius * np.sin(phi), z], axis=1)


def _relative_speed(linear_fraction: float) -> float:
    """Slope of k / kmax over t / T at the start of the closed law; falls from infinity to 1 as p goes from 0 to 1."""
    return 1.0 / float(readout_time(linear_fraction, "DA-3DPR", 1.0, linear_fraction)) * linear_fraction


def closed_law(time_rel: ArrayLike, linear_fraction: float) -> tuple[FloatArray, FloatArray]:
    """Radius and its speed over time of a centre-out readout: the inverse of ``physics.readout.readout_time``.

    Parameters
    ----------
    time_rel
        Time relative to the readout duration, any shape, in [0, 1].
    linear_fraction
        p = k0 / kmax in (0, 1]; 1 is a readout at constant speed (3DPR).

    Returns
    -------
    k_rel, speed
        k / kmax and its derivative by ``time_rel``, shapes of ``time_rel``.
    """
    p = linear_fraction
    start_speed = _relative_speed(p)
    path = start_speed * np.asarray(time_rel, dtype=float)
    late = np.cbrt(p**3 + 3.0 * p**2 * (np.maximum(path, p) - p))
    k_rel = np.minimum(np.where(path <= p, path, late), 1.0)
    speed = start_speed * np.where(path <= p, 1.0, (p / late) ** 2)
    return k_rel, speed


def linear_fraction_of(trajectory: TrajectoryName, linear_fraction: float) -> float:
    """The p of the closed law that a named radial trajectory follows."""
    if trajectory == "Cartesian" or trajectory in WITHOUT_LAW:
        raise ValueError(f"a {trajectory} acquisition has no centre-out law")
    return 1.0 if trajectory == "3DPR" else linear_fraction


def recognise_law(k_rel: FloatArray) -> float | None:
    """The linear fraction with which a readout follows the closed law, or None.

    Parameters
    ----------
    k_rel
        (n_samples,) radius relative to the last sample, sampled equidistantly in time.
    """
    n = k_rel.size
    start_speed = float(k_rel[1] - k_rel[0]) * (n - 1)
    if abs(k_rel[0]) > _SAME_LAW or not 1.0 - 1e-3 <= start_speed < _relative_speed(0.02):
        return None
    fraction = 1.0
    if start_speed > 1.0 + 1e-3:
        fraction = float(brentq(lambda p: _relative_speed(p) - start_speed, 0.02, 1.0))
    law, _ = closed_law(np.linspace(0.0, 1.0, n), fraction)
    return fraction if np.abs(law - k_rel).max() < _SAME_LAW else None


def _closed_law_quadrature(n_samples: int, linear_fraction: float) -> FloatArray:
    """Weights of ``int k^2 f dk`` over [0, 1] for samples that follow the closed law.

    Trapezoidal in time. Where the law turns from linear to density-adapted the derivative of ``k^2 k'`` jumps; the
    Euler-Maclaurin term of that jump is taken off the two samples around it.
    """
    k, speed = closed_law(np.linspace(0.0, 1.0, n_samples), linear_fraction)
    step = 1.0 / (n_samples - 1)
    weights = k**2 * speed * step
    weights[-1] *= 0.5
    if linear_fraction < 1.0:
        start_speed = _relative_speed(linear_fraction)
        position = linear_fraction / start_speed / step
        before = min(int(position), n_samples - 2)
        theta = position - before
        jump = -2.0 * linear_fraction * (start_speed * step) ** 2
        term = 0.5 * (theta**2 - theta + 1.0 / 6.0) * jump
        weights[before] += (1.0 - theta) * term
        weights[before + 1] += theta * term
    return weights


def _measured_quadrature(k: FloatArray) -> FloatArray:
    """Weights of ``int k^2 f dk`` for any smooth, increasing k (..., n_samples); trapezoidal over the sample number.

    A first sample off the centre leaves the Euler-Maclaurin term of an even function sampled at the fraction theta of
    a step: B3(theta) / 3 dk^3.
    """
    speed = CubicSpline(np.arange(k.shape[-1]), k, axis=-1)(np.arange(k.shape[-1]), 1)
    weights = np.asarray(k**2 * speed, dtype=np.float64)
    weights[..., -1] *= 0.5
    first_step = k[..., 1] - k[..., 0]
    theta = k[..., 0] / first_step
    weights[..., 0] += first_step**3 * (theta**3 - 1.5 * theta**2 + 0.5 * theta) / 3.0
    return weights


def radial_weights(k_radius_per_mm: FloatArray, n_spokes: int, linear_fraction: float | None = None) -> FloatArray:
    """Density compensation of evenly spread centre-out spokes.

    Parameters
    ----------
    k_radius_per_mm
        (n_samples,) shared by all spokes, or (n_spokes, n_samples); increasing along the samples, equidistant in time.
    n_spokes
        Number of spokes, each standing for the same solid angle.
    linear_fraction
        p where the readout follows the closed law; None takes the law from the radii themselves.

    Returns
    -------
    (1 or n_spokes, n_samples), 1/mm^3, with a total over all spokes of 4/3 pi kmax^3.

    Raises
    ------
    ValueError
        If the radii do not increase, or start more than one step away from the centre.
    """
    k = np.atleast_2d(np.asarray(k_radius_per_mm, dtype=np.float64))
    steps = np.diff(k, axis=1)
    if k.shape[1] < 4 or (steps <= 0).any():
        raise ValueError("k does not increase from sample to sample along each spoke")
    if (k[:, 0] > 1.001 * steps[:, 0]).any():
        raise ValueError("the spokes start more than one sample away from the centre of k-space")
    if linear_fraction is None:
        shape = _measured_quadrature(k)
    else:
        shape = _closed_law_quadrature(k.shape[1], linear_fraction)[None]
    kmax = k[:, -1:].mean()
    total = shape.sum() * (n_spokes / shape.shape[0])
    return np.asarray(shape * (4.0 / 3.0 * np.pi * kmax**3 / total), dtype=np.float64)


def radial_trajectory(acquisition: Acquisition, n_spokes: int, n_samples: int) -> Trajectory:
    """Trajectory of a 3DPR or DA-3DPR acquisition, samples equidistant in time from k = 0 to kmax.

    Parameters
    ----------
    acquisition
        Isotropic; its readout law decides k(t).
    n_spokes, n_samples
        Numbers of spokes and of samples per spoke.
    """
    if acquisition.trajectory not in ("3DPR", "DA-3DPR"):
        raise ValueError(f"no radial spokes are defined for a {acquisition.trajectory} acquisition")
    kmax = acquisition.kmax_per_mm
    if np.ptp(kmax) > 1e-6 * max(kmax):
        raise ValueError(f"the nominal resolution must be isotropic, got {acquisition.nominal_resolution_mm} mm")
    fraction = linear_fraction_of(acquisition.trajectory, acquisition.linear_fraction)
    time_rel = np.linspace(0.0, 1.0, n_samples)
    radius = kmax[0] * closed_law(time_rel, fraction)[0]
    k = spoke_directions(n_spokes)[:, None, :] * radius[None, :, None]
    weights = radial_weights(radius, n_spokes, fraction)
    return Trajectory(
        k.astype(np.float32), time_rel * acquisition.readout_duration_s, weights, float(kmax[0]), fraction
    )
