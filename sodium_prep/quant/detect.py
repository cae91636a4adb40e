"""Finding references whose place is not given: vials outside the head, and the eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sodium_prep.quant.calibration import match_by_order
from sodium_prep.quant.geometry import Array, Mtf, ReferenceGeometry, voxel_centres
from sodium_prep.quant.noise import background_mask, bright_objects, measured_voxels
from sodium_prep.quant.references import ReferenceSignal, measure_reference

_RADIUS_MM = (4.0, 30.0)
LEAST_FILL = 0.82
"""Share of a region that must lie in the ball or cylinder of its moments."""
_EYE_DISTANCE_MM = 20.0


@dataclass(frozen=True)
class DetectedObject:
    """A compact bright object outside the head.

    Attributes
    ----------
    geometry
        Ball or cylinder of the same moments.
    level
        Mean image value of its core above the air.
    volume_mm3
        Above half of its level.
    fill
        Share of that volume that lies within half a voxel of the fitted ball or cylinder.
    at_border
        Whether it touches the end of the data, so that its length is not known.
    """

    geometry: ReferenceGeometry
    level: float
    volume_mm3: float
    fill: float
    at_border: bool


@dataclass(frozen=True)
class Detection:
    """Objects found, by falling level, and how sure that they are the references."""

    objects: list[DetectedObject]
    confident: bool
    statement: str


def geometry_from_mask(mask: NDArray[np.bool_], affine: Array, label: str) -> ReferenceGeometry:
    """Ball or cylinder with the volume and second moments of a mask.

    A solid cylinder has variances L^2/12 along and R^2/4 across its axis, a ball R^2/5 everywhere. The object counts as
    a cylinder if its longest axis is more than 1.25 times the shortest.
    """
    points = voxel_centres(mask.shape, affine)[mask]
    if points.shape[0] < 8:
        raise ValueError("the mask is too small to have a shape")
    centre = points.mean(axis=0)
    voxel = affine[:3, :3] @ affine[:3, :3].T / 12.0
    variances, axes = np.linalg.eigh(np.cov(points.T, bias=True) + voxel)
    volume = points.shape[0] * abs(float(np.linalg.det(affine[:3, :3])))
    middle = (float(centre[0]), float(centre[1]), float(centre[2]))
    if variances[2] < 1.25**2 * variances[0]:
        return ReferenceGeometry(label, middle, float((3.0 * volume / (4.0 * np.pi)) ** (1.0 / 3.0)))
    # A flat cylinder has its axis along the odd one out, the shortest.
    odd = 2 if variances[2] / variances[1] >= variances[1] / variances[0] else 0
    axis = axes[:, odd] * (1.0 if axes[np.argmax(np.abs(axes[:, odd])), odd] > 0 else -1.0)
    length = float(np.sqrt(12.0 * variances[odd]))
    radius = float(np.sqrt(volume / (np.pi * length)))
    return ReferenceGeometry(label, middle, radius, length, (float(axis[0]), float(axis[1]), float(axis[2])))


def mask_fill(mask: NDArray[np.bool_], affine: Array) -> float:
    """Share of a mask within half a voxel of its ball or cylinder (:func:`geometry_from_mask`)."""
    return _fill(geometry_from_mask(mask, affine, "mask"), mask, affine)


def rough_head_mask(image: NDArray[np.floating], affine: Array, cut_mm: float = 20.0) -> NDArray[np.bool_]:
    """The head as the largest bright object, filled, without whatever a ball of ``cut_mm`` does not reach into."""
    from scipy import ndimage

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    bright = ndimage.binary_fill_holes(bright_objects(image, affine))
    # Opening by a ball wider than any vial with its blur: what a vial adds to the head goes, the head stays.
    core = ndimage.distance_transform_edt(np.pad(bright, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1]
    opened = ndimage.distance_transform_edt(core <= cut_mm, sampling=spacing) < cut_mm
    labels, count = ndimage.label(opened & bright)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(labels == int(np.argmax(sizes)), dtype=np.bool_)


def find_references(
    image: NDArray[np.floating],
    affine: Array,
    head_mask: NDArray[np.bool_] | None = None,
    n_expected: int | None = None,
    *,
    eyes_mm: Sequence[Sequence[float]] = (),
    minimum_volume_mm3: float = 500.0,
) -> Detection:
    """Bright compact objects outside the head.

    Each local maximum outside the head grows to the connected region above half of its own level over air. Regions that
    a ball or a cylinder of 4 to 30 mm radius fills are kept; skin and streaks are not of that shape.

    Parameters
    ----------
    image
        Shape (X, Y, Z).
    head_mask
        Head with skin; found from the image if not given.
    n_expected
        Number of references that the study has.
    eyes_mm
        World coordinates of the eyes, which are bright balls too where the head mask leaves them out.
    """
    from scipy import ndimage

    data = np.asarray(image, dtype=float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    head = rough_head_mask(data, affine) if head_mask is None else head_mask
    air = data[background_mask(data, affine, head)]
    floor, spread = float(air.mean()), float(air.std())
    valid = measured_voxels(data)
    smooth = ndimage.gaussian_filter(np.where(valid, data, floor), 4.0 / spacing / np.sqrt(8.0 * np.log(2.0)))
    outside = valid & ~head
    size = tuple(int(2 * round(5.0 / s) + 1) for s in spacing)
    peaks = outside & (smooth == ndimage.maximum_filter(smooth, size=size)) & (smooth > floor + 8.0 * spread)
    border = ndimage.binary_dilation(~valid) | ~ndimage.binary_erosion(np.ones(data.shape, dtype=np.bool_))
    taken = np.zeros(data.shape, dtype=np.bool_)
    found: list[DetectedObject] = []
    for seed in sorted(np.argwhere(peaks).tolist(), key=lambda s: -smooth[tuple(s)]):
        if taken[tuple(seed)]:
            continue
        labels, _ = ndimage.label(valid & (smooth > floor + 0.5 * (smooth[tuple(seed)] - floor)))
        region = labels == labels[tuple(seed)]
        taken |= region
        candidate = _as_object(region, data, floor, affine, border)
        if candidate is None or candidate.volume_mm3 < minimum_volume_mm3 or head[region].mean() > 0.5:
            continue
        centre = np.asarray(candidate.geometry.centre_mm)
        if all(np.linalg.norm(centre - np.asarray(eye)) > _EYE_DISTANCE_MM for eye in eyes_mm):
            found.append(candidate)
    found.sort(key=lambda o: -o.level)
    found = [replace(o, geometry=replace(o.geometry, label=f"object{n}")) for n, o in enumerate(found, start=1)]
    return _state(found, n_expected)


def _as_object(
    region: NDArray[np.bool_], data: Array, floor: float, affine: Array, border: NDArray[np.bool_]
) -> DetectedObject | None:
    """The region as a ball or cylinder, or None if it is not one."""
    from scipy import ndimage

    if region.sum() < 8:
        return None
    geometry = geometry_from_mask(region, affine, "object")
    volume = float(region.sum()) * abs(float(np.linalg.det(affine[:3, :3])))
    core = ndimage.binary_erosion(region)
    level = float(np.median(data[core if core.any() else region])) - floor
    fill = _fill(geometry, region, affine)
    if not (_RADIUS_MM[0] <= geometry.radius_mm <= _RADIUS_MM[1] and fill >= LEAST_FILL):
        return None
    return DetectedObject(geometry, level, volume, fill, bool((region & border).any()))


def _fill(geometry: ReferenceGeometry, region: NDArray[np.bool_], affine: Array) -> float:
    """Share of the region that lies in the fitted object of the same volume, or half a voxel from it."""
    from sodium_prep.quant.geometry import signed_distance

    points = voxel_centres(region.shape, affine)[region]
    spacing = abs(float(np.linalg.det(affine[:3, :3]))) ** (1.0 / 3.0)
    return float((signed_distance(geometry, points) < 0.5 * spacing).mean())


def _state(found: list[DetectedObject], n_expected: int | None) -> Detection:
    listed = ", ".join(
        f"({o.geometry.centre_mm[0]:.0f}, {o.geometry.centre_mm[1]:.0f}, {o.geometry.centre_mm[2]:.0f})" for o in found
    )
    statement = f"{len(found)} compact bright objects outside the head at {listed or 'no place'} mm"
    if n_expected is None:
        return Detection(found, False, f"{statement}; how many references to expect was not given")
    if len(found) == n_expected:
        return Detection(found, True, f"{statement}, as many as expected")
    return Detection(found, False, f"{statement}, but {n_expected} were expected")


def match_references(
    signals: Sequence[ReferenceSignal], known: Sequence[ReferenceGeometry]
) -> tuple[list[ReferenceSignal], bool, str]:
    """Give measured objects the identity of known references, by order of signal and concentration.

    Parameters
    ----------
    signals
        Of the detected objects.
    known
        References with concentration and relaxation; their own geometry is not used. As many as ``signals``.

    Returns
    -------
    The signals with label, concentration and relaxation of their reference, in the order of ``known``; whether the
    order is beyond doubt (every step in signal is more than three standard errors); and a sentence that says so.
    """
    values = [s.signal for s in signals]
    order = match_by_order(values, [k.concentration_mM or 0.0 for k in known])
    matched = []
    for reference, index in zip(known, order, strict=True):
        s = signals[index]
        geometry = replace(
            s.geometry,
            label=reference.label,
            concentration_mM=reference.concentration_mM,
            concentration_sd_mM=reference.concentration_sd_mM,
            relaxation=reference.relaxation,
        )
        matched.append(replace(s, label=reference.label, geometry=geometry))
    ranked = sorted(signals, key=lambda s: s.signal)
    steps = [(b.signal - a.signal) / np.hypot(a.signal_sd, b.signal_sd) for a, b in pairwise(ranked)]
    least = min(steps, default=np.inf)
    sure = bool(least > 3.0)
    text = f"matched to concentrations by order of signal; the smallest step is {least:.1f} standard errors"
    return matched, sure, text


def find_eyes(
    image: NDArray[np.floating],
    affine: Array,
    expected_centres_mm: Sequence[Sequence[float]],
    mtf: Mtf,
    noise_sd: float | NDArray[np.floating],
    *,
    search_mm: float = 15.0,
    radius_range_mm: tuple[float, float] = (8.0, 14.0),
    reference: ReferenceGeometry | None = None,
) -> list[ReferenceSignal]:
    """Vitreous bodies: bright balls of eye size near where they are expected.

    Parameters
    ----------
    expected_centres_mm
        World coordinates of the eyes in this image, e.g. from a template.
    mtf
        Transfer function for vitreous.
    search_mm
        Radius around the expected centre in which the start of the fit is sought.
    reference
        Concentration and relaxation to give the eyes.

    Returns
    -------
    One signal per expected centre, with fitted centre and radius; ``flag`` tells whether it is to be trusted.
    """
    from scipy import ndimage

    data = np.asarray(image, dtype=float)
    valid = measured_voxels(data)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # A ball of eye size answers best to a Gaussian of about its own extent.
    sigma = 14.0 / spacing / np.sqrt(8.0 * np.log(2.0))
    weight = ndimage.gaussian_filter(valid.astype(float), sigma)
    blob = ndimage.gaussian_filter(np.where(valid, data, 0.0), sigma) / np.maximum(weight, 0.2)
    points = voxel_centres(data.shape, affine)
    eyes = []
    for number, expected in enumerate(expected_centres_mm, start=1):
        near = np.linalg.norm(points - np.asarray(expected, dtype=float), axis=-1) <= search_mm
        centre = points[np.unravel_index(int(np.argmax(np.where(near, blob, -np.inf))), data.shape)]
        x, y, z = (float(c) for c in centre)
        base = reference or ReferenceGeometry("vitreous", (x, y, z), 11.0)
        start = replace(base, label=f"{base.label}{number}", centre_mm=(x, y, z), radius_mm=11.0, length_mm=None)
        eyes.append(
            measure_reference(
                data,
                affine,
                start,
                mtf,
                noise_sd,
                refine_mm=8.0,
                radius_range_mm=radius_range_mm,
                reach_mm=4.0,
                surroundings="tissue",
                maximum_residual=0.20,
            )
        )
    return eyes
