"""What a trajectory asks of the gradients, and the fastest way along a given path that they allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline

from sodium_prep.physics.constants import GAMMA_BAR_23NA_HZ_PER_T

FloatArray = NDArray[np.float64]

SPEED_PER_GRADIENT: Final = 1e-6 * GAMMA_BAR_23NA_HZ_PER_T
"""Speed through k-space in 1/(mm s) per mT/m."""
_MARGIN: Final = 0.97
"""Share of the slew rate that a design uses: the rest is for the raster of the samples."""
_HALVINGS: Final = 30


@dataclass(frozen=True)
class Gradients:
    """Limits of a gradient system, or what a trajectory reaches: magnitudes of the vector over all axes.

    An oblique readout loads each axis with at most its magnitude, so a design within these limits may be turned.
    """

    amplitude_mt_per_m: float
    slew_t_per_m_per_s: float


def gradients_of(k_per_mm: ArrayLike, dwell_s: float) -> Gradients:
    """Largest gradient and slew rate of readouts that start from rest, by differences of neighbouring samples.

    Parameters
    ----------
    k_per_mm : (..., samples, 3)
        In double precision: the second difference of single-precision samples is mostly rounding.
    dwell_s
        Time between samples.
    """
    gradient = np.diff(np.asarray(k_per_mm, dtype=np.float64), axis=-2) / (dwell_s * SPEED_PER_GRADIENT)
    start = 2.0 * np.linalg.norm(gradient[..., 0, :], axis=-1).max()
    change = np.linalg.norm(np.diff(gradient, axis=-2), axis=-1).max(initial=start)
    return Gradients(float(np.linalg.norm(gradient, axis=-1).max()), float(1e-3 * change / dwell_s))


def require(reached: Gradients, limits: Gradients) -> None:
    """Raise ValueError where a trajectory exceeds the limits."""
    for what, have, most, unit in (
        ("gradient", reached.amplitude_mt_per_m, limits.amplitude_mt_per_m, "mT/m"),
        ("slew rate", reached.slew_t_per_m_per_s, limits.slew_t_per_m_per_s, "T/m/s"),
    ):
        if have > most * (1.0 + 1e-6):
            raise ValueError(f"the {what} reaches {have:.4g} {unit}, more than the {most:g} {unit} allowed")


@dataclass(frozen=True)
class Paths:
    """Spirals from the centre of k-space along cones: the azimuth turns as ``a r + b r^2``.

    Attributes
    ----------
    kmax_per_mm
        Where they end.
    sine : (m,)
        Of the polar angle of each cone; 1 in a plane.
    turn, turn_squared : (m,)
        a in rad mm and b in rad mm^2.
    """

    kmax_per_mm: float
    sine: FloatArray
    turn: FloatArray
    turn_squared: FloatArray

    def azimuth(self, radius_per_mm: FloatArray) -> FloatArray:
        """Angle in rad of (m, n) radii."""
        return self.turn[:, None] * radius_per_mm + self.turn_squared[:, None] * radius_per_mm**2

    def arc(self, radius_per_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Path length per radius, and curvature in mm; both (m, n)."""
        u, r = self.sine[:, None], radius_per_mm
        first = self.turn[:, None] + 2.0 * self.turn_squared[:, None] * r
        # Derivatives by the radius, along the radial, azimuthal and axial unit vectors.
        velocity = np.stack(np.broadcast_arrays(u, u * r * first, np.sqrt(1.0 - u**2)), axis=-1)
        sideways = u * (2.0 * first + 2.0 * self.turn_squared[:, None] * r)
        bend = np.stack(np.broadcast_arrays(-u * r * first**2, sideways, 0.0), axis=-1)
        length = np.linalg.norm(velocity, axis=-1)
        return length, np.linalg.norm(np.cross(velocity, bend), axis=-1) / length**3


def _accelerate(squared_speed: FloatArray, arc: FloatArray, curvature: FloatArray, acceleration: float) -> None:
    """Bound squared speeds (n, m) by those of the node before and what acceleration is left along the path."""
    for i in range(1, len(squared_speed)):
        before = squared_speed[i - 1]
        spare = np.sqrt(np.maximum(acceleration**2 - (curvature[i - 1] * before) ** 2, 0.0))
        squared_speed[i] = np.minimum(squared_speed[i], before + 2.0 * arc[i - 1] * spare)


def shortest_times(paths: Paths, limits: Gradients, amplitude_mt_per_m: ArrayLike | None = None) -> FloatArray:
    """Seconds that the gradients need for each path, (m,); see :func:`_timing`."""
    return _timing(paths, limits, amplitude_mt_per_m)[0][:, -1]


def _timing(
    paths: Paths, limits: Gradients, amplitude_mt_per_m: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Times at nodes along each path, the radii there, and their speed.

    The fastest way along a given curve keeps either the speed or the acceleration at its limit (Lustig, Kim and Pauly,
    IEEE Trans Med Imaging 2008;27:866): the speed is bounded by the gradient and by curvature, and a sweep forwards
    and one backwards bound its change.
    """
    amplitude = limits.amplitude_mt_per_m if amplitude_mt_per_m is None else np.asarray(amplitude_mt_per_m)
    turns = float(paths.azimuth(np.full((len(paths.sine), 1), paths.kmax_per_mm)).max()) / (2.0 * np.pi)
    nodes = 300 + int(30.0 * turns)
    r = np.broadcast_to(np.linspace(0.0, paths.kmax_per_mm, nodes), (len(paths.sine), nodes))
    per_radius, curvature = paths.arc(r)
    arc = 0.5 * (per_radius[:, 1:] + per_radius[:, :-1]) * np.diff(r)
    acceleration = 1e3 * _MARGIN * limits.slew_t_per_m_per_s * SPEED_PER_GRADIENT
    squared = np.minimum((SPEED_PER_GRADIENT * amplitude) ** 2, acceleration / np.maximum(curvature.T, 1e-12))
    squared[0] = 0.0
    _accelerate(squared, arc.T, curvature.T, acceleration)
    _accelerate(squared[::-1], arc.T[::-1], curvature.T[::-1], acceleration)
    speed = np.sqrt(squared.T)
    steps = 2.0 * arc / (speed[:, 1:] + speed[:, :-1])
    time = np.concatenate([np.zeros((len(r), 1)), np.cumsum(steps, axis=1)], axis=1)
    return time, r, speed / per_radius


def radii_in_time(paths: Paths, limits: Gradients, time_s: FloatArray) -> FloatArray:
    """Radii (m, n) at given times along paths that all end at the last of them.

    Each path is run with the lowest gradient that is in time.

    Raises
    ------
    ValueError
        If the limits do not allow it; the message states the shortest duration.
    """
    duration = float(time_s[-1])
    shortest = float(shortest_times(paths, limits).max())
    if shortest > duration:
        raise ValueError(
            f"a readout of {1e3 * duration:.4g} ms is too short: {limits.amplitude_mt_per_m:g} mT/m and"
            f" {limits.slew_t_per_m_per_s:g} T/m/s need {1e3 * shortest:.4g} ms"
        )
    low, high = np.zeros(len(paths.sine)), np.full(len(paths.sine), limits.amplitude_mt_per_m)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        late = shortest_times(paths, limits, middle) > duration
        low, high = np.where(late, middle, low), np.where(late, high, middle)
    time, r, speed = _timing(paths, limits, high)
    stretch = duration / time[:, -1:]
    out = [CubicHermiteSpline(*one)(time_s) for one in zip(time * stretch, r, speed / stretch, strict=True)]
    return np.asarray(np.clip(out, 0.0, paths.kmax_per_mm), dtype=np.float64)
