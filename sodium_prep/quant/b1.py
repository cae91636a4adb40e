"""Transmit field (B1+) from a map, a double-angle pair or a phase-sensitive pair, smoothed to what a transmit field is.

Sodium wavelengths are metres, so a transmit field of sodium varies over the head and not from voxel to voxel: what a
measured map has of finer structure is noise, and is averaged away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.errors import InputError
from sodium_prep.quant.noise import bright_objects
from sodium_prep.quant.receive import local_ratio, resample_profile
from sodium_prep.quant.smooth import smooth_field

Array = NDArray[np.float64]

_PLAUSIBLE = (0.3, 2.0)
_SCALE_MM = 80.0
"""Shortest features of a transmit field."""
_BLOCK_MM = 9.0
"""Voxels are averaged to about this size before the fit."""
_FEWEST = 30
_LEAST_SEEN = 1.0 / 3.0
_ROUGHEST = 0.15
_MODEL_SD = 0.02
"""Relative deviation of a true local value from a smooth field; bounds the weight of a voxel."""


@dataclass(frozen=True)
class TransmitField:
    """Transmit field relative to nominal on the grid of its measurement.

    Attributes
    ----------
    values : (X, Y, Z) float32
        Smooth and everywhere; away from the measured voxels a continuation.
    affine : (4, 4)
        Voxel to world, RAS mm.
    support : (X, Y, Z) bool
        Measured voxels.
    relative_sd
        Robust relative spread of local means of some 9 mm about the smooth field.
    """

    values: NDArray[np.float32]
    affine: Array
    support: NDArray[np.bool_]
    relative_sd: float


def smooth_transmit_field(
    kappa: NDArray[np.floating], affine: Array, weights: NDArray[np.floating] | None = None, *, where: str = "TB1map"
) -> TransmitField:
    """Smooth field through a measured one.

    Parameters
    ----------
    kappa : (X, Y, Z)
        Relative to nominal; NaN where it was not measured.
    weights : (X, Y, Z)
        Inverse variances; equal if not given.
    where
        The file, for messages.

    Raises
    ------
    InputError
        If hardly anything was measured, its median is not that of a transmit field, or it varies from place to place
        as no transmit field does.
    """
    known = np.isfinite(kappa) & (kappa > 0.0)
    centre = float(np.median(kappa[known])) if known.any() else float("nan")
    if not _PLAUSIBLE[0] <= centre <= _PLAUSIBLE[1]:
        raise InputError(
            where,
            f"the median of the transmit field is {centre:.3g} times nominal",
            "Check units and flip angles of the measurement, or take it out of the data set",
        )
    # Voxels with hardly any signal, or beside an edge, can be anything; the field itself cannot.
    known &= np.abs(np.log(np.where(known, kappa, 1.0) / centre)) < np.log(3.0)
    weight = np.where(known, 1.0 if weights is None else weights, 0.0)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    steps = np.maximum(np.round(_BLOCK_MM / spacing), 1).astype(int)
    summed = _blocks(weight, steps)
    means = _blocks(weight * np.where(known, kappa, 0.0), steps) / np.where(summed > 0.0, summed, 1.0)
    if (summed > 0.0).sum() < _FEWEST:
        raise InputError(where, "the transmit field was measured hardly anywhere", "Check the images")
    coarse = smooth_field(means, summed, spacing * steps, scale_mm=_SCALE_MM, stiffness=0.1)
    inside = summed > 0.0
    spread = 1.482602218505602 * float(np.median(np.abs(means / coarse - 1.0)[inside]))
    if spread > _ROUGHEST:
        raise InputError(
            where,
            f"varies by {spread:.0%} from one place to the next, as no transmit field of sodium does",
            "Check the measurement (noise, phase wraps, wrong images), or take it out of the data set",
        )
    coarse = np.clip(coarse, coarse[inside].min(), coarse[inside].max())
    return TransmitField(_refined(coarse, steps, kappa.shape), np.asarray(affine, np.float64), known, spread)


def field_on_grid(
    field: TransmitField, head: NDArray[np.bool_], affine: Array, *, where: str = "sodium image"
) -> NDArray[np.float32]:
    """The field on the grid of a sodium image, (X, Y, Z).

    Parameters
    ----------
    head : (X, Y, Z) bool
        The head in that image, which the measurement must have covered.

    Raises
    ------
    InputError
        If a third of the head or less lies near measured voxels.
    """
    from scipy import ndimage

    spacing = np.linalg.norm(field.affine[:3, :3], axis=0)
    near = ndimage.distance_transform_edt(~field.support, sampling=spacing) < 2.0 * _BLOCK_MM
    seen = resample_profile(near.astype(np.float32), field.affine, head.shape, affine, outside=0.0) > 0.5
    share = float(seen[head].mean()) if head.any() else 0.0
    if share <= _LEAST_SEEN:
        raise InputError(
            where,
            f"the transmit field was measured in {share:.0%} of the head only",
            "Check that the field map is of this session and in the same position, or take it out of the data set",
        )
    return resample_profile(field.values, field.affine, head.shape, affine)


def _blocks(values: NDArray[np.floating], steps: NDArray[np.int_]) -> Array:
    """Sums over blocks of voxels; the last block may be short."""
    padded = np.pad(values, [(0, -n % s) for n, s in zip(values.shape, steps.tolist(), strict=True)])
    shape = [size for n, s in zip(padded.shape, steps.tolist(), strict=True) for size in (n // s, s)]
    return np.asarray(padded.reshape(shape).sum(axis=(1, 3, 5)), dtype=np.float64)


def _refined(coarse: Array, steps: NDArray[np.int_], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Linear interpolation from block centres to voxels."""
    from scipy import ndimage

    grids = np.meshgrid(
        *((np.arange(n) - 0.5 * (s - 1)) / s for n, s in zip(shape, steps.tolist(), strict=True)), indexing="ij"
    )
    return np.asarray(ndimage.map_coordinates(coarse, grids, order=1, mode="nearest"), dtype=np.float32)


def double_angle_field(
    single: NDArray[np.floating],
    double: NDArray[np.floating],
    affine: Array,
    nominal_flip_deg: float,
    repetition_time_s: float,
    t1_s: float,
    *,
    where: str = "TB1DAM pair",
) -> TransmitField:
    """Transmit field from magnitudes at a flip angle and at twice it.

    The noise floor is taken off in the power domain and the ratio is that of local sums, as for a receive profile.

    Parameters
    ----------
    single, double : (X, Y, Z)
        Images at the smaller flip angle and at twice it.
    nominal_flip_deg
        The smaller angle.
    repetition_time_s, t1_s
        Of the pair, and of what fills most of the head.
    """
    found = local_ratio(double, single, affine, where=where)
    kappa, slope = double_angle_b1(np.exp(found.log_ratio), nominal_flip_deg, repetition_time_s, t1_s)
    usable = found.support & np.isfinite(kappa)
    variance = found.variance * np.where(usable, slope, 1.0) ** 2 + _MODEL_SD**2
    return smooth_transmit_field(np.where(usable, kappa, np.nan), affine, 1.0 / variance, where=where)


def double_angle_b1(
    ratio: ArrayLike, nominal_flip_deg: float, repetition_time_s: float = np.inf, t1_s: float = 0.04
) -> tuple[Array, Array]:
    """Transmit field relative to nominal from the ratio of the signals at twice a flip angle and at it.

    ``flip = acos(ratio / 2)`` for TR well above T1 (Insko and Bolinger, J Magn Reson A 1993;103:82); for any TR the
    ratio of the two steady states (:func:`~sodium_prep.physics.signal.saturation_factor`) is inverted.

    Parameters
    ----------
    ratio
        Signed where twice the flip exceeds 180 degrees; any shape.
    nominal_flip_deg
        The smaller of the two nominal flip angles.

    Returns
    -------
    The field, NaN where no flip angle explains the ratio, and its change per unit of the logarithm of the ratio.
    """
    wanted = np.asarray(ratio, dtype=float)
    e1 = np.exp(-repetition_time_s / t1_s)
    flips = np.linspace(0.01, 179.99, 4000)
    known = 2.0 * np.cos(np.deg2rad(flips)) * (1.0 - e1 * np.cos(np.deg2rad(flips)))
    known = known / (1.0 - e1 * np.cos(np.deg2rad(2.0 * flips)))
    # Beyond its turning point the ratio of a short TR has a second solution, at angles that nobody sets.
    turn = int(np.argmin(known))
    flips, known = flips[: turn + 1], known[: turn + 1]
    flip = np.interp(wanted, known[::-1], flips[::-1], left=np.nan, right=np.nan)
    slope = np.interp(flip, flips, np.gradient(flips, known)) * wanted / nominal_flip_deg
    return flip / nominal_flip_deg, slope


def phase_sensitive_b1(phase_plus: ArrayLike, phase_minus: ArrayLike, nominal_flip_deg: float) -> Array:
    """Transmit field relative to nominal from two phase images (Morrell, MRM 2008;60:889; for 23Na Allen et al. 2011).

    A pulse of twice the flip angle about +x or -x is followed by one of the flip angle about y. On resonance
    the transverse phase is then ``+-atan2(sin 2a, cos 2a sin a)``, whatever T1, TR, coil and concentration, so that
    half the difference of the two phases gives the angle a.

    Parameters
    ----------
    phase_plus, phase_minus
        Radians, any one shape, from the pulses with +x and -x.
    nominal_flip_deg
        a as set, e.g. 90.

    Returns
    -------
    NaN where no angle between 0 and 180 degrees explains the phases.
    """
    half = np.mod(0.5 * np.mod(np.asarray(phase_plus, float) - np.asarray(phase_minus, float), 2.0 * np.pi), np.pi)
    flips = np.linspace(0.5, 179.5, 3581)
    a = np.deg2rad(flips)
    # Continuous from 60 to 120 degrees and beyond; half a difference is known up to a half turn.
    course = np.unwrap(np.arctan2(np.sin(2.0 * a), np.cos(2.0 * a) * np.sin(a)))
    middle = float(np.interp(nominal_flip_deg, flips, course))
    nearest = half + np.pi * np.round((middle - half) / np.pi)
    rising = course if course[-1] > course[0] else -course
    sign = 1.0 if course[-1] > course[0] else -1.0
    return np.asarray(np.interp(sign * nearest, rising, flips, left=np.nan, right=np.nan) / nominal_flip_deg)


def smooth_phase_sensitive_field(
    phase_plus: NDArray[np.floating],
    phase_minus: NDArray[np.floating],
    magnitude: NDArray[np.floating],
    affine: Array,
    nominal_flip_deg: float,
    *,
    where: str = "phase-sensitive pair",
) -> TransmitField:
    """Smooth field from :func:`phase_sensitive_b1` where the magnitude stands above the air, weighted by its square.

    Raises
    ------
    InputError
        If the phases are not in radians.
    """
    largest = float(np.nanmax(np.abs([phase_plus, phase_minus])))
    if not 0.1 < largest <= 2.0 * np.pi + 0.01:
        raise InputError(where, f"its phases reach {largest:.4g}, so they are not radians", "Convert them to radians")
    kappa = phase_sensitive_b1(phase_plus, phase_minus, nominal_flip_deg)
    usable = bright_objects(magnitude, affine) & np.isfinite(kappa)
    return smooth_transmit_field(
        np.where(usable, kappa, np.nan), affine, np.asarray(magnitude, float) ** 2, where=where
    )


def relative_b1_plus(
    values: ArrayLike, units: str | None, *, nominal_flip_deg: float | None = None, where: str = "TB1map"
) -> Array:
    """Transmit field relative to nominal from a TB1map in its own units.

    Parameters
    ----------
    values
        The map, any shape; values that are not positive are no measurement and become NaN.
    units
        Of the sidecar: ``percent`` or ``%`` (as BIDS recommends), ``ratio`` or ``1``, ``degree``. BIDS allows
        "arbitrary", which does not say what 1 means, so it is refused.
    nominal_flip_deg
        Needed for maps in degrees.

    Raises
    ------
    InputError
        If the units are not known, or the median of the map is not that of a transmit field in these units.
    """
    name = (units or "").strip().lower()
    divisor = {"percent": 100.0, "%": 100.0, "ratio": 1.0, "1": 1.0}.get(name)
    if name in {"degree", "degrees", "deg"} and nominal_flip_deg is not None:
        divisor = nominal_flip_deg
    if divisor is None:
        raise InputError(
            where,
            f"units {units!r} do not say how the map relates to the nominal flip angle",
            'Set "Units" in its sidecar to "percent" (100 = nominal), "ratio" (1 = nominal) or "degree"',
        )
    map_ = np.asarray(values, dtype=float)
    kappa = np.where(np.isfinite(map_) & (map_ > 0), map_ / divisor, np.nan)
    measured = kappa[np.isfinite(kappa)]
    centre = float(np.median(measured)) if measured.size else float("nan")
    if not _PLAUSIBLE[0] <= centre <= _PLAUSIBLE[1]:
        raise InputError(
            where,
            f"the median is {centre:.3g} times nominal if the units are {units!r}",
            'Check "Units" in its sidecar: 100 is nominal for "percent", 1 for "ratio"',
        )
    return kappa
