"""Signals of reference objects: a fit of the blurred ball or cylinder, so that its edges cost nothing.

A mean over a hand-drawn region is too low where the region touches the blurred edge, and too high or low where Gibbs
ripples run through it; the amplitude of the fitted model is free of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.quant.calibration import CalibrationLine, InterceptMode, fit_calibration
from sodium_prep.quant.geometry import (
    Array,
    BlurredObject,
    Mtf,
    ReferenceGeometry,
    crop_around,
    signed_distance,
    voxel_centres,
)
from sodium_prep.quant.noise import measured_voxels
from sodium_prep.quant.relaxation_error import relaxation_sensitivity, widening

Flag = Literal["ok", "clipped", "poor fit", "weak", "moved", "cut"]

_WRAP_MM = 24.0
"""Distance kept between an object and the faces of its FFT box."""


_DOMINANT: Final = 0.5
"""Part of the blurred object's peak from which on a voxel counts for its signal."""

_RING_MM: Final = (4.0, 24.0)
"""Distances from the surface between which the surroundings tell what streaks and sidelobes do here."""
_HOLE_FWHM_MM: Final = 8.0
"""Smoothing that shows a bubble: it adds up what one object of this size leaves, and averages noise."""
_SURE: Final = 3.0
_FEWEST: Final = 50
_MAXIMUM_SIZE_CHANGE: Final = 0.06
"""Change of the signal that a free size may bring: less than a millimetre of radius of a usual vial."""
_CLIPPED_END: Final = 0.9
"""Distance from zero, relative to that of the other end, from which on an end of the values may be clipped."""


@dataclass(frozen=True)
class InternalReference:
    """Assumed concentration of a fluid inside the head."""

    concentration_mM: float  # noqa: N815 (the unit)
    concentration_sd_mM: float  # noqa: N815 (the unit)
    citation: str


INTERNAL_REFERENCES: Final[dict[str, InternalReference]] = {
    "CSF": InternalReference(
        140.0, 5.0, "physiological; Ouwerkerk et al., Radiology 2003 measured 135 +- 10 mmol/kg in ventricles"
    ),
    "vitreous": InternalReference(113.0, 14.0, "Ouwerkerk et al., Radiology 2003: 113 +- 14 mmol/kg"),
}
"""CSF keeps the physiological value, with which the measurement of 2003 agrees; its uncertainty is that between healthy
people. For the vitreous only the measurement is at hand, and its spread is carried."""


@dataclass(frozen=True)
class ReferenceSignal:
    """What was measured of one reference.

    Attributes
    ----------
    label
        Of its geometry.
    signal, signal_sd
        Image value of a large object of the same content, and its standard error from noise, widened where the model
        does not fit to within the noise.
    background
        Mean around the object of what the fit leaves.
    residual
        Root mean square residual of the fit relative to the signal.
    n_voxels
        Voxels of the fit.
    clipped
        Voxels of the object on the image's plateau of saturation.
    geometry
        With the centre (and radius, if that was free) as fitted.
    flag, reason
        ``ok``, or why the reference must not be used.
    """

    label: str
    signal: float
    signal_sd: float
    background: float
    residual: float
    n_voxels: int
    clipped: int
    geometry: ReferenceGeometry
    flag: Flag
    reason: str

    @property
    def usable(self) -> bool:
        """Whether the reference may enter the calibration."""
        return self.flag == "ok"


def clipped_voxels(image: ArrayLike, minimum: int = 2) -> NDArray[np.bool_]:
    """Voxels on a plateau at the image's maximum, i.e. at least ``minimum`` voxels that share it exactly.

    In signed images (parts of complex data) those at the minimum count too; an end that is clearly nearer to zero than
    the other is not clipped. To be asked of the image as stored: any later correction hides the plateau.
    """
    a = np.asarray(image)
    ends = float(np.nanmax(a)), float(np.nanmin(a))
    clipped = np.zeros(a.shape, dtype=np.bool_)
    for end in ends:
        plateau = a == end
        if abs(end) > _CLIPPED_END * max(map(abs, ends)) and plateau.sum() >= minimum:
            clipped |= plateau
    return clipped


def measure_reference(
    image: NDArray[np.floating],
    affine: Array,
    geometry: ReferenceGeometry,
    mtf: Mtf,
    noise_sd: float | NDArray[np.floating],
    *,
    noise_psd: NDArray[np.floating] | None = None,
    exclude: NDArray[np.bool_] | None = None,
    clipped: NDArray[np.bool_] | None = None,
    refine_mm: float = 2.0,
    radius_range_mm: tuple[float, float] | None = None,
    reach_mm: float = 8.0,
    surroundings: Literal["air", "tissue"] = "air",
    maximum_residual: float = 0.10,
    maximum_deviation: float = 0.20,
) -> ReferenceSignal:
    """Signal of one reference by least squares of the blurred object.

    Its place is found with a constant background beside it. In air the signal then comes from the voxels in which the
    object itself dominates, without background: what a magnitude image shows in air, noise floor and rectified
    sidelobes, is not there underneath the object. Tissue around an object does blur into it, and what the object fills
    it does not: there the signal is that of ``S h + b (1 - h)`` with the blurred object h.

    Parameters
    ----------
    image
        Shape (X, Y, Z).
    geometry
        Where the object is meant to be; the centre is refined within ``refine_mm`` along each world axis.
    mtf
        Transfer function of the acquisition for the object's relaxation times. A function is cheaper than an array,
        which has to live on the FFT grid of the whole image.
    noise_sd
        Of each voxel, one number or a map.
    noise_psd
        Power spectrum of the noise on the FFT grid of the image, any scale; white if not given. The standard error is
        ``(X'X)^-1 X' Sigma X (X'X)^-1`` with that covariance, the fit itself stays unweighted.
    exclude
        Voxels that belong to something else (the head); they are left out of the fit.
    clipped
        Result of :func:`clipped_voxels` on the image as stored; from ``image`` itself if not given.
    radius_range_mm
        Fit the radius too, within this range, and a cylinder's length between half and twice its own: for objects
        whose size is only known from the image.
    reach_mm
        Distance from the object's surface up to which voxels are fitted.
    surroundings
        What is around the object.
    maximum_residual
        Reject above this residual relative to the signal, with noise taken out: not the object at all. In air that is
        the noise of the surroundings where they have more than ``noise_sd`` says: streaks of undersampling are as
        strong within an object as beside it, and do not bias its signal.
    maximum_deviation
        Reject if the residual, smoothed by 8 mm, exceeds this part of the signal anywhere within, by three times its
        spread in the surroundings: an air bubble.

    Raises
    ------
    InputError
        If the object's centre lies outside the image.
    """
    box = crop_around(geometry, image.shape, affine, _WRAP_MM)
    fit_box = box if callable(mtf) else (slice(0, image.shape[0]), slice(0, image.shape[1]), slice(0, image.shape[2]))
    local = affine.copy()
    local[:3, 3] = affine[:3, :3] @ [s.start for s in fit_box] + affine[:3, 3]
    data = np.asarray(image[fit_box], dtype=float)
    use = measured_voxels(image)[fit_box]
    if exclude is not None:
        use = use & ~exclude[fit_box]
    centres = voxel_centres(data.shape, local)
    distance = signed_distance(geometry, centres)
    inside, region = distance < 0, use & (distance < reach_mm)
    plateau = (clipped_voxels(image) if clipped is None else clipped)[fit_box]
    n_clipped = int((plateau & (distance < 2.0)).sum())
    seen = float(region[inside].mean()) if inside.any() else float(region[distance < 2.0].mean())
    if seen < 0.5 or region.sum() < 20:
        reason = f"only {seen:.0%} of it lies in usable voxels"
        return ReferenceSignal(
            geometry.label, np.nan, np.nan, np.nan, np.nan, int(region.sum()), n_clipped, geometry, "cut", reason
        )
    model = _ObjectModel(BlurredObject(data.shape, local, mtf), geometry, region, data[region])
    fitted, at_bound = model.refine(refine_mm, radius_range_mm)
    n_size = 0 if radius_range_mm is None else (1 if geometry.length_mm is None else 2)
    n_free = 3 + n_size if refine_mm > 0 else 0
    noise = np.broadcast_to(np.asarray(noise_sd, dtype=float), image.shape)
    design, own = model.design(fitted, n_free)
    core = region.copy()
    core[region] = own
    if surroundings == "air":
        signal, variance, rms = _solve_with_error(design[own], model.values[own], core, fit_box, noise, noise_psd)
    else:
        design = np.insert(design, 1, 1.0 - design[:, 0], axis=1)
        signal, variance, rms = _solve_with_error(design, model.values, region, fit_box, noise, noise_psd, linear=2)
    left = data - signal * model.blurred.image(fitted)
    background = float(np.mean(left[region][~own])) if not own.all() else 0.0
    noise_rms = float(np.sqrt(np.mean(noise[fit_box][core] ** 2)))
    sd = float(np.sqrt(variance)) * max(1.0, rms / noise_rms if noise_rms > 0 else 1.0)
    measured = ReferenceSignal(
        geometry.label, signal, sd, background, rms / abs(signal), int(region.sum()), n_clipped, fitted, "ok", ""
    )
    doubts = _Doubts(rms, noise_rms, 0.0, 0.0, at_bound)
    if surroundings == "air":
        away = signed_distance(fitted, centres)
        ring = use & (away > _RING_MM[0]) & (away < _RING_MM[1])
        inside = use & (away < 0.0)
        hole = _deepest(left, inside, ring, np.linalg.norm(affine[:3, :3], axis=0), maximum_deviation * signal)
        usual = max(noise_rms, _spread(left[ring]))
        change = 0.0 if radius_range_mm else model.size_change(fitted, own, signal, usual)
        doubts = _Doubts(rms, usual, hole / signal, change, at_bound)
    flag, reason = _judge(measured, doubts, maximum_residual)
    return replace(measured, flag=flag, reason=reason)


def _spread(values: Array) -> float:
    """Standard deviation by the median absolute deviation; zero of too few values."""
    if values.size < _FEWEST:
        return 0.0
    return 1.482602218505602 * float(np.median(np.abs(values - np.median(values))))


def _deepest(left: Array, inside: NDArray[np.bool_], ring: NDArray[np.bool_], voxel_mm: Array, least: float) -> float:
    """Largest smoothed residual within the object; zero if that is no more than ``least`` or than chance.

    Object and ring are smoothed each by itself, so that nothing of head or other vials gets into them.
    """
    from scipy import ndimage

    def smooth(mask: NDArray[np.bool_]) -> Array:
        sigma = _HOLE_FWHM_MM / voxel_mm / np.sqrt(8.0 * np.log(2.0))
        weight = ndimage.gaussian_filter(mask.astype(float), sigma)[mask]
        return np.asarray(ndimage.gaussian_filter(np.where(mask, left, 0.0), sigma)[mask] / weight, dtype=np.float64)

    deepest = float(np.abs(smooth(inside)).max(initial=0.0))
    return deepest if deepest > max(least, _SURE * _spread(smooth(ring))) else 0.0


@dataclass(frozen=True)
class _Doubts:
    """What a fit leaves: its residual, what the surroundings would leave, and signs of a bubble or a wrong size.

    ``hole`` and ``size_change`` are relative to the signal, and zero unless they are beyond chance.
    """

    rms: float
    usual_rms: float
    hole: float
    size_change: float
    at_bound: bool


def _judge(measured: ReferenceSignal, doubts: _Doubts, maximum_residual: float) -> tuple[Flag, str]:
    """Whether a reference may be used, and the reason if not."""
    if measured.clipped:
        return "clipped", f"{measured.clipped} voxels are saturated"
    if measured.signal < 5.0 * measured.signal_sd:
        return "weak", f"its signal is only {measured.signal / measured.signal_sd:.1f} standard errors"
    if measured.background > _DOMINANT * measured.signal:
        return "weak", f"its surroundings have {measured.background / measured.signal:.0%} of its signal"
    misfit = float(np.sqrt(max(doubts.rms**2 - doubts.usual_rms**2, 0.0))) / abs(measured.signal)
    # Below 1.2 the residual cannot be told from noise whose correlation is not known.
    if misfit > maximum_residual and doubts.rms > 1.2 * doubts.usual_rms:
        return "poor fit", f"the fit leaves {misfit:.0%} of the signal (bubble, wrong size or wrong place)"
    if doubts.hole:
        return "poor fit", f"{doubts.hole:.0%} of the signal are missing or in excess at one place (bubble?)"
    if abs(doubts.size_change) > _MAXIMUM_SIZE_CHANGE:
        change = f"{doubts.size_change:+.0%}"
        return "poor fit", f"with its size free its signal changes by {change} (Radius and Length are of the inside)"
    if doubts.at_bound:
        return "moved", "its best position or radius lies on the limit of the search"
    return "ok", ""


def _moved(geometry: ReferenceGeometry, parameters: Array) -> ReferenceGeometry:
    """Geometry with its centre moved by parameters[:3], radius by parameters[3] and length by parameters[4]."""
    change = np.zeros(5)
    change[: parameters.size] = parameters
    x, y, z = (float(c + d) for c, d in zip(geometry.centre_mm, change[:3], strict=True))
    length = None if geometry.length_mm is None else geometry.length_mm + float(change[4])
    radius = geometry.radius_mm + float(change[3])
    return replace(geometry, centre_mm=(x, y, z), radius_mm=radius, length_mm=length)


@dataclass(frozen=True)
class _ObjectModel:
    """Least squares of one object in one region, linear in signal and background, non-linear in place and radius."""

    blurred: BlurredObject
    geometry: ReferenceGeometry
    region: NDArray[np.bool_]
    values: Array

    def profile(self, geometry: ReferenceGeometry) -> Array:
        return np.asarray(self.blurred.image(geometry)[self.region], dtype=np.float64)

    def residual(self, parameters: Array) -> Array:
        """Residual after the best signal and background (variable projection; Golub and Pereyra 1973)."""
        columns = np.stack([self.profile(_moved(self.geometry, parameters)), np.ones_like(self.values)], axis=1)
        best = np.linalg.lstsq(columns, self.values, rcond=None)[0]
        return np.asarray(self.values - columns @ best, dtype=np.float64)

    def refine(self, refine_mm: float, radius_range_mm: tuple[float, float] | None) -> tuple[ReferenceGeometry, bool]:
        """Best geometry within the bounds, and whether it lies on one of them."""
        from scipy.optimize import least_squares

        if refine_mm <= 0:
            return self.geometry, False
        low, high = [-refine_mm] * 3, [refine_mm] * 3
        if radius_range_mm is not None:
            low.append(radius_range_mm[0] - self.geometry.radius_mm)
            high.append(radius_range_mm[1] - self.geometry.radius_mm)
            if self.geometry.length_mm is not None:
                low.append(-0.5 * self.geometry.length_mm)
                high.append(self.geometry.length_mm)
        scale = float(np.std(self.values)) or 1.0
        found = least_squares(
            lambda p: self.residual(p) / scale, np.zeros(len(low)), bounds=(low, high), x_scale=1.0, xtol=1e-6
        )
        on_bound = (found.x - np.asarray(low) < 0.01) | (np.asarray(high) - found.x < 0.01)
        return _moved(self.geometry, found.x), bool(on_bound.any())

    def design(
        self, geometry: ReferenceGeometry, n_free: int, step_mm: float = 0.02
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Columns (profile, its derivatives), shape (n, 1 + n_free), and where the object dominates."""
        profile = self.profile(geometry)
        columns = [profile]
        for direction in np.eye(n_free) * step_mm:
            ahead, behind = (self.profile(_moved(geometry, sign * direction)) for sign in (1.0, -1.0))
            columns.append((ahead - behind) / (2.0 * step_mm))
        return np.stack(columns, axis=1), profile > _DOMINANT * profile.max()

    def size_change(
        self, geometry: ReferenceGeometry, own: NDArray[np.bool_], signal: float, noise: float, step_mm: float = 0.02
    ) -> float:
        """Relative change of the signal if radius and length were free (one step); zero unless beyond chance."""
        columns = [self.profile(geometry)[own]]
        for direction in np.eye(5)[3 : 4 + (geometry.length_mm is not None)] * step_mm:
            ahead, behind = (self.profile(_moved(geometry, sign * direction)) for sign in (1.0, -1.0))
            columns.append((ahead - behind)[own] / (2.0 * step_mm))
        free = np.stack(columns, axis=1)
        change = float(np.linalg.lstsq(free, self.values[own], rcond=None)[0][0]) - signal
        variance = noise**2 * (np.linalg.inv(free.T @ free)[0, 0] - 1.0 / float(columns[0] @ columns[0]))
        return change / signal if abs(change) > _SURE * np.sqrt(max(variance, 0.0)) else 0.0


def _solve_with_error(
    design: Array,
    values: Array,
    region: NDArray[np.bool_],
    box: tuple[slice, slice, slice],
    noise_sd: NDArray[np.floating],
    noise_psd: NDArray[np.floating] | None,
    linear: int = 1,
) -> tuple[float, float, float]:
    """Signal, variance of the signal (sandwich), root mean square residual.

    The first ``linear`` columns are fitted, the first of them is the signal's. Those of place and radius take no part
    in the solution (their coefficients are zero at the optimum), but their freedom widens the variance.
    """
    from scipy import fft

    fitted = np.linalg.lstsq(design[:, :linear], values, rcond=None)[0]
    signal = float(fitted[0])
    residual = values - design[:, :linear] @ fitted
    # Row of the pseudo-inverse that makes the signal out of the voxels, laid back into the image.
    weights = np.zeros(noise_sd.shape)
    weights[box][region] = np.linalg.pinv(design)[0]
    weights *= noise_sd
    if noise_psd is None:
        variance = float((weights**2).sum())
    else:
        power = np.asarray(noise_psd, dtype=float) / np.mean(noise_psd)
        variance = float((np.abs(fft.fftn(weights, workers=1)) ** 2 * power).sum() / weights.size)
    return signal, variance, float(np.sqrt(np.mean(residual**2)))


def calibrate_references(
    signals: Sequence[ReferenceSignal],
    acquisition: Acquisition,
    *,
    b1_plus: Sequence[float] | None = None,
    b1_plus_sd: float = 0.0,
    intercept: InterceptMode = "auto",
    air: tuple[float, float] | None = None,
    where: str = "calibration references",
) -> CalibrationLine:
    """Calibration line from all usable references.

    ``x_k = c_k f_k``; its error holds the concentration's, and that of the signal factor from relaxation and B1+.
    References of the same relaxation are of one batch: that error is common to them and moves the line, it does not
    scatter them about it. A single reference makes a line through the origin, which nothing checks.

    Parameters
    ----------
    signals
        As measured; those that are flagged are left out.
    b1_plus
        Transmit field at each reference relative to nominal, one number per signal; nominal if not given.

    Raises
    ------
    InputError
        If a usable reference has no concentration or relaxation, or too few are usable (with the reasons).
    """
    kappas = [1.0] * len(signals) if b1_plus is None else b1_plus
    usable = [(s, k) for s, k in zip(signals, kappas, strict=True) if s.usable]
    n = len(usable)
    x, own_sd, shared_sd = np.zeros(n), np.zeros(n), np.zeros(n)
    batches: dict[Relaxation, list[int]] = {}
    for i, (measured, kappa) in enumerate(usable):
        known = measured.geometry
        if known.concentration_mM is None or known.relaxation is None:
            raise InputError(
                where,
                f"concentration or relaxation of {measured.label} is not known",
                "Give Concentration, T1 and T2star of every reference in SodiumReferences",
            )
        batches.setdefault(known.relaxation, []).append(i)
        found = relaxation_sensitivity(acquisition, known.relaxation, b1_plus=kappa, b1_plus_sd=b1_plus_sd)
        x[i] = known.concentration_mM * found.factor
        shared_sd[i] = x[i] * found.dlnf * widening(acquisition, known.relaxation, b1_plus=kappa)
        own_sd[i] = x[i] * known.concentration_sd_mM / max(known.concentration_mM, 1e-12)
    for members in batches.values():
        if len(members) == 1:
            own_sd[members], shared_sd[members] = np.hypot(own_sd[members], shared_sd[members]), 0.0
    if not usable:
        told = "; ".join(f"{s.label}: {s.reason}" for s in signals) or "none was found"
        raise InputError(
            where, f"no reference is usable ({told})", "Check SodiumReferences, or use an internal reference"
        )
    if len(usable) == 1 and air is None:
        intercept = "zero"

    def fit(at: Array) -> CalibrationLine:
        values, sds = [s.signal for s, _ in usable], [s.signal_sd for s, _ in usable]
        return fit_calibration(at, values, sds, x_sd=own_sd, intercept=intercept, air=air, where=where)

    line = fit(x)
    covariance = line.covariance
    for members in batches.values():
        if shared_sd[members].any():
            step = np.where(np.isin(np.arange(n), members), shared_sd, 0.0)
            up, down = fit(x + step), fit(x - step)
            change = 0.5 * np.array([up.intercept - down.intercept, up.slope - down.slope])
            covariance = covariance + np.outer(change, change)
    return replace(line, covariance=covariance)
