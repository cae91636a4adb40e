"""Trajectories from a protocol: resolution, field of view, readout, and what the gradients can do.

All start at rest at the centre of k-space (or of a plane of it) when their first sample is read. Each has its density
compensation in closed form: a readout that stands for the solid angle Omega on every sphere that it crosses stands for
the volume ``Omega k^2 dk/dt dt`` at each sample, however it turns about its axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from sodium_prep.recon.density import cone_shares, hub_weights, shared_weights, stack_weights
from sodium_prep.recon.gradients import (
    SPEED_PER_GRADIENT,
    Gradients,
    Paths,
    gradients_of,
    radii_in_time,
    require,
    shortest_times,
)
from sodium_prep.recon.trajectory import FloatArray, Trajectory, golden_directions, radial_weights, spoke_directions

_GOLDEN_ANGLE: Final = np.pi * (3.0 - np.sqrt(5.0))
_ONSET: Final = 0.9
_SUBSTEPS: Final = 8
HUB_LATITUDE: Final = np.pi / 4.0
"""Latitude up to which a hub of FLORET has cones: with three hubs every direction is covered."""


@dataclass(frozen=True)
class Design:
    """A trajectory, and the largest gradient and slew rate that it reaches."""

    trajectory: Trajectory
    gradients: Gradients


@dataclass(frozen=True)
class Readout:
    """How one readout is sampled, and with which gradients.

    Attributes
    ----------
    duration_s
        From the first to the last sample.
    dwell_s
        Time between samples.
    limits
        Of the gradient system.
    """

    duration_s: float
    dwell_s: float
    limits: Gradients

    @property
    def time_s(self) -> FloatArray:
        """Of the samples; the last is at ``duration_s``, rounded to the dwell time."""
        return self.dwell_s * np.arange(round(self.duration_s / self.dwell_s) + 1, dtype=np.float64)


def density_adapted_radial(
    resolution_mm: float,
    n_spokes: int,
    readout: Readout,
    linear_fraction: float = 0.2,
    directions: Literal["spiral", "golden"] = "spiral",
) -> Design:
    """Spokes that slow down with ``k^2 dk/dt`` constant from k0 on (Nagel et al., MRM 2009;62:1565), with a ramp.

    Parameters
    ----------
    resolution_mm
        1 / (2 kmax).
    n_spokes
        Nyquist needs ``4 pi (kmax FOV)^2``.
    linear_fraction
        k0 / kmax; 1 is 3DPR, at constant speed after the ramp.
    directions
        ``spiral``: evenly by :func:`~sodium_prep.recon.trajectory.spoke_directions`; ``golden``: any contiguous part
        of the scan is spread evenly, by :func:`~sodium_prep.recon.trajectory.golden_directions`.

    Raises
    ------
    ValueError
        If a limit is exceeded; the message has the duration that would keep it.
    """
    kmax = 0.5 / resolution_mm
    radius, _, _ = _adapted_radius(kmax, linear_fraction, readout)
    spokes = (golden_directions if directions == "golden" else spoke_directions)(n_spokes)
    return _design(
        spokes[:, None, :] * radius[:, None], radial_weights(radius, n_spokes), kmax, readout, base=radius[:, None]
    )


def twisted_projections(
    resolution_mm: float, field_of_view_mm: float, readout: Readout, linear_fraction: float = 0.2
) -> Design:
    """Twisted projection imaging (Boada, Gillen, Shen, Chang and Thulborn, MRM 1997;37:706).

    On each of ``pi kmax FOV`` cones readouts run straight to k0 and then twist at constant speed while ``k^2 dk/dt``
    stays constant, so that ``4 k0 kmax FOV^2`` readouts fill the sphere. The twist sets in at the slew rate; where a
    narrow cone would bend it too much, it is slower.

    Parameters
    ----------
    linear_fraction
        k0 / kmax; the number of readouts falls with it.
    """
    kmax = 0.5 / resolution_mm
    radius, speed, onset_s = _adapted_radius(kmax, linear_fraction, readout)
    top = speed.max()
    polar = _cone_angles(kmax, field_of_view_mm)
    counts = np.maximum(1, np.ceil(2.0 * np.pi * linear_fraction * kmax * field_of_view_mm * np.sin(polar))).astype(int)
    fine = np.linspace(0.0, readout.time_s[-1], _SUBSTEPS * (len(radius) - 1) + 1)
    fine_radius, fine_speed, _ = _adapted_radius(kmax, linear_fraction, readout, fine)
    slew = 1e3 * SPEED_PER_GRADIENT * readout.limits.slew_t_per_m_per_s
    reach = np.sin(polar)[:, None] * np.maximum(fine_radius, 1e-9 * kmax)
    across = np.minimum(
        np.sqrt(np.maximum(top**2 - fine_speed**2, 0.0)), _ONSET * slew * np.maximum(fine - onset_s, 0.0)
    )
    rate = np.minimum(across, np.sqrt(0.5 * slew * reach)) / reach
    azimuth = np.zeros_like(rate)
    azimuth[:, 1:] = np.cumsum(0.5 * (rate[:, 1:] + rate[:, :-1]) * (fine[1] - fine[0]), axis=1)
    return _on_cones(radius[None], azimuth[:, ::_SUBSTEPS], polar, counts, readout, field_of_view_mm)


def cones(resolution_mm: float, field_of_view_mm: float, readout: Readout) -> Design:
    """3D cones (Gurney, Hargreaves and Nishimura, MRM 2006;55:575) with as few readouts as the duration allows.

    Archimedean spirals on ``pi kmax FOV`` cones; neighbouring arms are 1 / FOV apart. Each runs at the lowest gradient
    that brings it to kmax in time.
    """
    kmax = 0.5 / resolution_mm
    polar = _cone_angles(kmax, field_of_view_mm)

    def paths(counts: FloatArray) -> Paths:
        return Paths(kmax, np.sin(polar), 2.0 * np.pi * field_of_view_mm / counts, np.zeros(len(polar)))

    # From many arms on, each is a straight line in all but name.
    counts = _fewest(paths, readout, 1.0 + 20.0 * kmax * field_of_view_mm)
    radius = radii_in_time(paths(counts), readout.limits, readout.time_s)
    return _on_cones(radius, paths(counts).azimuth(radius), polar, counts.astype(int), readout, field_of_view_mm)


def floret(resolution_mm: float, field_of_view_mm: float, readout: Readout) -> Design:
    """FLORET (Pipe et al., MRM 2011;66:1303) with as few readouts as the duration allows.

    Three orthogonal hubs of Fermat spirals on cones within 45 degrees of each equator. The azimuth ``b k^2`` with
    ``b = 2 pi alpha0 FOV^2 / n`` has n arms pass through every area 1 / FOV^2 of a hub once.
    """
    kmax = 0.5 / resolution_mm
    one = np.ones(1)

    def paths(counts: FloatArray) -> Paths:
        return Paths(kmax, one, 0.0 * one, 2.0 * np.pi * HUB_LATITUDE * field_of_view_mm**2 / counts)

    counts = _fewest(paths, readout, 1.0 + 100.0 * (kmax * field_of_view_mm) ** 2)
    n = int(counts[0])
    radius = radii_in_time(paths(counts), readout.limits, readout.time_s)[0]
    latitude = HUB_LATITUDE * (2.0 * (np.arange(n) + 0.5) / n - 1.0)
    azimuth = paths(counts).azimuth(radius[None]) + _GOLDEN_ANGLE * np.arange(n)[:, None]
    hub = _spirals(radius[None], azimuth, np.pi / 2.0 - latitude)
    k = np.concatenate([np.roll(hub, axis, axis=2) for axis in range(3)])
    weights = hub_weights(k, radius, HUB_LATITUDE)
    return _design(k, weights, kmax, readout, base=hub, field_of_view_mm=field_of_view_mm)


def spiral_stack(resolution_mm: tuple[float, float], field_of_view_mm: tuple[float, float], readout: Readout) -> Design:
    """Stack of Archimedean spirals with as few interleaves as the duration allows; it fills a cylinder.

    Parameters
    ----------
    resolution_mm, field_of_view_mm
        In the plane of the spirals, and across it. The number of planes is odd.
    """
    kmax, height = 0.5 / np.asarray(resolution_mm, dtype=np.float64)
    one = np.ones(1)

    def paths(counts: FloatArray) -> Paths:
        return Paths(kmax, one, 2.0 * np.pi * field_of_view_mm[0] / counts, 0.0 * one)

    counts = _fewest(paths, readout, 1.0 + 20.0 * kmax * field_of_view_mm[0])
    n = int(counts[0])
    radius = radii_in_time(paths(counts), readout.limits, readout.time_s)[0]
    azimuth = paths(counts).azimuth(radius[None]) + 2.0 * np.pi * np.arange(n)[:, None] / n
    plane = _spirals(radius[None], azimuth, np.full(n, np.pi / 2.0))
    half = int(np.ceil(height * field_of_view_mm[1] - 0.5))
    step = 2.0 * height / (2 * half + 1)
    k = np.tile(plane, (2 * half + 1, 1, 1))
    k[..., 2] = np.repeat(step * np.arange(-half, half + 1), n)[:, None]
    extents = (float(kmax), float(kmax), float(height))
    weights = stack_weights(radius, len(k), extents)
    return _design(k, weights, extents, readout, base=plane, field_of_view_mm=field_of_view_mm[0])


def _adapted_radius(
    kmax: float, linear_fraction: float, readout: Readout, time_s: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, float]:
    """Radius and speed in time of Nagel's law with a ramp, and when the density adaption sets in.

    The gradient rises to G0 at the slew rate, stays there up to k0 and falls as ``1 / k^2``.
    """
    if not 0.0 < linear_fraction <= 1.0:
        raise ValueError(f"the linear fraction must lie in (0, 1], got {linear_fraction:g}")
    t = readout.time_s if time_s is None else time_s
    duration, limits = float(readout.time_s[-1]), readout.limits
    k0 = linear_fraction * kmax
    area = (k0 + (kmax**3 - k0**3) / (3.0 * k0**2)) / SPEED_PER_GRADIENT  # mT/m s; T = area / G0 + G0 / (2 slew)
    slew = 1e3 * limits.slew_t_per_m_per_s
    rest = duration**2 - 2.0 * area / slew
    amplitude = slew * (duration - np.sqrt(max(rest, 0.0)))
    if rest < 0.0 or amplitude > limits.amplitude_mt_per_m:
        least = min(limits.amplitude_mt_per_m, np.sqrt(2.0 * area * slew))
        raise ValueError(
            f"a readout of {1e3 * duration:.4g} ms is too short: {limits.amplitude_mt_per_m:g} mT/m and"
            f" {limits.slew_t_per_m_per_s:g} T/m/s need {1e3 * (area / least + least / (2.0 * slew)):.4g} ms"
        )
    top, ramp = SPEED_PER_GRADIENT * amplitude, amplitude / slew
    if top * ramp > 2.0 * k0:
        raise ValueError(f"the gradient still rises at {linear_fraction:g} kmax; choose a larger linear fraction")
    onset = k0 / top + 0.5 * ramp
    rising = 0.5 * top / ramp * t**2
    late = np.cbrt(3.0 * top * k0**2 * np.maximum(t - onset, 0.0) + k0**3)
    radius = np.where(t < ramp, rising, np.where(t < onset, top * (t - 0.5 * ramp), late))
    speed = np.where(t < ramp, top * t / ramp, top * np.where(t < onset, 1.0, (k0 / late) ** 2))
    return radius, speed, onset


def _cone_angles(kmax: float, field_of_view_mm: float) -> FloatArray:
    """Polar angles of cones that are 1 / FOV apart at kmax."""
    n = int(np.ceil(np.pi * kmax * field_of_view_mm))
    return np.pi * (np.arange(n) + 0.5) / n


def _spirals(radius: FloatArray, azimuth: FloatArray, polar: FloatArray) -> FloatArray:
    """Positions (n, samples, 3) at radius (n or 1, samples), azimuth (n, samples) and polar angle (n,)."""
    across = radius * np.sin(polar)[:, None]
    along = radius * np.cos(polar)[:, None]
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), along], axis=-1)


def _on_cones(
    radius: FloatArray,
    azimuth: FloatArray,
    polar: FloatArray,
    counts: np.ndarray[tuple[int], np.dtype[np.int_]],
    readout: Readout,
    field_of_view_mm: float,
) -> Design:
    """Readouts spread about the axis of each cone; radius (cones or 1, samples), azimuth (cones, samples)."""
    cone = np.repeat(np.arange(len(polar)), counts)
    place = np.arange(len(cone)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = 2.0 * np.pi * place / counts[cone] + _GOLDEN_ANGLE * cone
    shared = len(radius) == 1
    k = _spirals(radius if shared else radius[cone], azimuth[cone] + first[:, None], polar[cone])
    weights = shared_weights(radius if shared else radius[cone], cone_shares(polar[cone]))
    base = _spirals(radius, azimuth, polar)
    return _design(k, weights, float(radius[0, -1]), readout, base=base, field_of_view_mm=field_of_view_mm)


def _fewest(paths: Callable[[FloatArray], Paths], readout: Readout, most: float) -> FloatArray:
    """Smallest numbers of arms that reach the end in time; at least 1, and at most ``most``."""
    duration = float(readout.time_s[-1])
    low = np.zeros_like(paths(np.ones(1)).sine)
    high = np.full_like(low, np.ceil(most))
    while (high - low > 1.0).any():
        middle = np.floor(0.5 * (low + high))
        late = shortest_times(paths(np.maximum(middle, 1.0)), readout.limits) > duration
        low, high = np.where(late, middle, low), np.where(late, high, middle)
    return np.maximum(high, 1.0)


def _design(
    k: FloatArray,
    weights: FloatArray,
    extents_per_mm: float | tuple[float, float, float],
    readout: Readout,
    *,
    base: FloatArray,
    field_of_view_mm: float | None = None,
) -> Design:
    """Check the gradients of ``base``, which holds one readout of each kind, and the distance of samples."""
    reached = gradients_of(base, readout.dwell_s)
    require(reached, readout.limits)
    if isinstance(extents_per_mm, tuple):
        trajectory = Trajectory(
            k.astype(np.float32),
            readout.time_s,
            weights,
            min(extents_per_mm),
            extents_per_mm=extents_per_mm,
            region="cylinder",
        )
    else:
        trajectory = Trajectory(k.astype(np.float32), readout.time_s, weights, extents_per_mm)
    if field_of_view_mm is not None and trajectory.alias_free_mm < field_of_view_mm:
        dwell = readout.dwell_s * trajectory.alias_free_mm / field_of_view_mm
        raise ValueError(
            f"samples {1e6 * readout.dwell_s:g} us apart alias within {field_of_view_mm:g} mm; the dwell time may be"
            f" {1e6 * dwell:.3g} us at most"
        )
    return Design(trajectory, reached)
