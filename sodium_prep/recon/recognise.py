"""What a measured trajectory is, and the density compensation that follows from it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.density import (
    cone_shares,
    groups,
    iterated_weights,
    resolved_field_mm,
    shared_weights,
    stack_weights,
)
from sodium_prep.recon.trajectory import FloatArray, Region, Trajectory, radial_weights, recognise_law

_SAME_END: Final = 0.01
"""Spread of the ends of the readouts, relative to kmax, within which they lie on one surface."""
_SAME_RADIUS: Final = 1e-4
_SAME_PLACE: Final = 1e-3
_EVEN: Final = 0.05
_FEWEST_VOXELS: Final = 6.0
"""Field of view over nominal voxel below which readouts do not cover a region, but leave holes in it."""


def measured_trajectory(k_per_mm: NDArray[np.floating[Any]], time_s: FloatArray) -> Trajectory:
    """Trajectory of readouts whose places in k-space are given, with its density compensation.

    Weights in closed form for spokes, for readouts that turn on cones about a coordinate axis (TPI, 3D cones) and for
    stacks of spirals along the third axis, by iteration for any others (:func:`iterated_weights`: FLORET, rosettes).

    Parameters
    ----------
    k_per_mm : (n_readouts, n_samples, 3)
        1/mm, along the axes of the image grid; equidistant in time.
    time_s : (n_samples,)
        Seconds since the first sample.

    Returns
    -------
    Trajectory
        Its region is a sphere, an ellipsoid or a cylinder, as the ends of the readouts lie.

    Raises
    ------
    ValueError
        If the readouts do not fill such a region; the message starts with "its".
    """
    k = np.asarray(k_per_mm, dtype=np.float64)
    region, extents, sphere = _region(k)
    fraction = None
    weights = _stack_weights(k, extents) if region == "cylinder" else None
    if region == "ellipsoid":
        fraction, weights = _centre_out_weights(k / extents)
    if weights is None:
        weights = iterated_weights(k, extents, region)
    else:
        weights = weights * (np.prod(extents) if region == "ellipsoid" else 1.0)
    trajectory = Trajectory(
        k.astype(np.float32), time_s, weights, min(extents), fraction, None if sphere else extents, region
    )
    if not trajectory.straight:
        _check_filled(trajectory)
    return trajectory


def _region(k: FloatArray) -> tuple[Region, tuple[float, float, float], bool]:
    """Shape of the surface that the readouts end on, its half extents, and whether it is a sphere."""
    ends = k[:, -1]
    radius = np.sqrt(np.einsum("ij,ij->i", ends, ends))
    kmax = float(radius.mean())
    if kmax <= 0.0:
        raise ValueError("its readouts end at the centre of k-space")
    if np.ptp(radius) <= _SAME_END * kmax:
        return "ellipsoid", (kmax,) * 3, True
    across = np.hypot(ends[:, 0], ends[:, 1])
    planes = 1 + int(groups(ends[:, 2], _SAME_PLACE * kmax).max())
    if np.ptp(across) <= _SAME_END * across.mean() and planes > 1:
        height = float(np.abs(ends[:, 2]).max()) * planes / (planes - 1)
        return "cylinder", (float(across.mean()), float(across.mean()), height), False
    inverse, *_ = np.linalg.lstsq((ends / kmax) ** 2, np.ones(len(ends)))
    if (inverse > 0.0).all():
        x, y, z = (kmax / np.sqrt(inverse)).tolist()
        if np.abs(np.linalg.norm(ends / (x, y, z), axis=1) - 1.0).max() <= 0.5 * _SAME_END:
            return "ellipsoid", (x, y, z), False
    raise ValueError("its readouts do not all end on the same sphere, ellipsoid or cylinder of k-space")


def _centre_out_weights(scaled: FloatArray) -> tuple[float | None, FloatArray | None]:
    """Law and weights of readouts that end on the unit sphere; None where they have no closed form."""
    radius = np.sqrt(np.einsum("...i,...i", scaled, scaled))
    mean = radius.mean(axis=0)
    shared = bool(np.abs(radius - mean).max() < _SAME_RADIUS * mean[-1])
    fraction = recognise_law(mean / mean[-1]) if shared else None
    direction = scaled[:, -1] / radius[:, -1:]
    if np.abs(scaled - radius[..., None] * direction[:, None]).max() < _SAME_PLACE:
        spread = direction.T @ direction / len(direction) - np.eye(3) / 3.0
        if max(np.abs(direction.mean(axis=0)).max(), np.abs(spread).max()) > _EVEN:
            raise ValueError("its readouts do not cover the sphere of k-space evenly")
        return fraction, radial_weights(mean if shared else radius, len(scaled), fraction)
    outwards = (np.diff(radius, axis=1) > 0.0).all() and (radius[:, 0] <= 1.001 * (radius[:, 1] - radius[:, 0])).all()
    for axis in (2, 0, 1):
        if outwards and np.abs(scaled[..., axis] - radius * direction[:, None, axis]).max() < _SAME_PLACE:
            shares = cone_shares(np.arccos(np.clip(direction[:, axis], -1.0, 1.0)))
            return fraction, shared_weights(mean[None] if shared else radius, shares, fraction)
    return None, None


def _stack_weights(k: FloatArray, extents: tuple[float, float, float]) -> FloatArray | None:
    """Weights of spirals of the same radii in planes of the same distance, else None."""
    radius, height = np.hypot(k[..., 0], k[..., 1]), k[..., 2].mean(axis=1)
    mean, plane = radius.mean(axis=0), groups(height, _SAME_PLACE * extents[2])
    counts = np.bincount(plane)
    steps = np.diff(np.bincount(plane, height) / counts)
    regular = (
        np.abs(k[..., 2] - height[:, None]).max() < _SAME_PLACE * extents[2]
        and np.abs(radius - mean).max() < _SAME_PLACE * extents[0]
        and (np.diff(mean) > 0.0).all()
        and mean[0] <= 1.001 * (mean[1] - mean[0])
        and np.ptp(steps) < 2.0 * _SAME_PLACE * extents[2]
        and np.ptp(counts) == 0
    )
    return stack_weights(mean, len(k), extents) if regular else None


def _check_filled(trajectory: Trajectory) -> None:
    """Refuse readouts that leave part of the region out: its moments are known, and so is the size of its holes."""
    extents = np.asarray(trajectory.half_extents_per_mm)
    scaled = (trajectory.k_per_mm / extents).reshape(-1, 3)
    weights = np.broadcast_to(trajectory.weights_mm3, trajectory.k_per_mm.shape[:2]).reshape(-1, 1)
    weights = weights / weights.sum()
    expected = np.diag([0.2, 0.2, 0.2] if trajectory.region == "ellipsoid" else [0.25, 0.25, 1.0 / 3.0])
    uneven = max(np.abs((weights * scaled).sum(axis=0)).max(), np.abs((weights * scaled).T @ scaled - expected).max())
    field_mm = resolved_field_mm(trajectory.k_per_mm, trajectory.half_extents_per_mm, trajectory.region)
    if uneven > _EVEN or 2.0 * field_mm * extents.min() < _FEWEST_VOXELS:
        raise ValueError("its readouts do not cover k-space evenly")
