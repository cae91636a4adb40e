"""The calibration line, concentrations from it, and how sure they are.

The signal of a reference is ``S_k = intercept + slope * x_k`` with ``x_k = c_k f_k``: concentration times the signal
factor of the reference (saturation and decay, :func:`sodium_prep.physics.signal.signal_factor`). Tissue is then
``c = (S - intercept) / (slope * f)``. The intercept is what the image adds to every signal, whatever its relaxation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sodium_prep.errors import InputError

Array = NDArray[np.float64]
InterceptMode = Literal["auto", "free", "zero"]
LineMode = Literal["free", "zero", "internal"]
CovarianceScale = Literal["birge", "relative", "none"]


@dataclass(frozen=True)
class CalibrationLine:
    """``signal = intercept + slope * x`` with the covariance of its two numbers.

    Attributes
    ----------
    intercept, slope
        Signal, and signal per mmol/L at signal factor 1.
    covariance
        Of (intercept, slope), shape (2, 2); a fixed intercept has zero variance.
    chi2, dof
        Weighted sum of squared residuals and degrees of freedom.
    scaled
        Whether the covariance was multiplied by chi2 / dof.
    n_points
        Number of points of the fit, air included.
    mode
        ``free`` or ``zero`` intercept, or ``internal`` for a reference inside the head.
    r_squared
        Weighted coefficient of determination (about zero for a line through the origin).
    """

    intercept: float
    slope: float
    covariance: Array = field(repr=False, compare=False)
    chi2: float = 0.0
    dof: int = 0
    scaled: bool = False
    n_points: int = 1
    mode: LineMode = "internal"
    r_squared: float = 1.0

    @property
    def p_value(self) -> float:
        """Probability of a larger chi2 if line and standard deviations are right (NaN without freedom)."""
        return float(stats.chi2.sf(self.chi2, self.dof)) if self.dof > 0 else float("nan")

    @property
    def intercept_sd(self) -> float:
        """Standard error of the intercept."""
        return float(np.sqrt(self.covariance[0, 0]))

    @property
    def slope_sd(self) -> float:
        """Standard error of the slope."""
        return float(np.sqrt(self.covariance[1, 1]))


def fit_calibration(
    x: ArrayLike,
    signal: ArrayLike,
    signal_sd: ArrayLike,
    *,
    intercept: InterceptMode = "auto",
    air: tuple[float, float] | None = None,
    x_sd: ArrayLike | None = None,
    scale_covariance: CovarianceScale = "birge",
    minimum_r_squared: float = 0.95,
    where: str = "calibration references",
) -> CalibrationLine:
    """Weighted least-squares line through reference signals.

    Parameters
    ----------
    x
        Concentration (mmol/L) times signal factor of each reference, shape (n,).
    signal, signal_sd
        Signals and their standard deviations, shape (n,).
    intercept
        ``zero``: through the origin, which is what a zero-mean image obeys. ``free``: fitted. ``auto``: free when
        there are three or more points (air counted), otherwise zero. Two references without air define a line exactly
        and leave nothing to test it with, and every percent of receive error of the stronger one goes into the
        intercept; through the origin the same two references test each other.
    air
        Mean and standard error of the signal of air, which then is a point at x = 0. Give it only where the floor of
        air lies under the references too. In a Rician image it does not: there the floor vanishes above the noise,
        so correct it first (:mod:`sodium_prep.quant.noise`).
    x_sd
        Standard deviation of ``x``, shape (n,), entering by effective variance ``sd_k^2 + (slope * x_sd_k)^2``.
    scale_covariance
        ``birge`` multiplies the covariance by max(1, chi2 / dof), so that references which disagree by more than their
        noise widen the error and lucky ones do not narrow it; ``relative`` always multiplies (only the ratios of
        the standard deviations are known); ``none`` never.
    minimum_r_squared
        Refuse a line that explains less of the weighted variance than this.
    where
        Named in the message of a refusal.

    Raises
    ------
    InputError
        If fewer than two distinct concentrations are given (unless ``intercept="zero"`` asks for one), the slope is
        not positive, or the references do not lie on a line.
    """
    xs, ys, sds = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (x, signal, signal_sd))
    xsd = np.zeros_like(xs) if x_sd is None else np.broadcast_to(np.asarray(x_sd, dtype=float), xs.shape)
    if air is not None:
        xs, ys, sds, xsd = np.append(xs, 0.0), np.append(ys, air[0]), np.append(sds, air[1]), np.append(xsd, 0.0)
    if xs.ndim != 1 or not (xs.shape == ys.shape == sds.shape):
        raise ValueError("x, signal and signal_sd must be vectors of one length")
    if not (np.all(np.isfinite([xs, ys, sds])) and np.all(sds > 0)):
        raise ValueError("signals must be finite and their standard deviations positive")
    distinct = np.unique(xs).size
    if distinct < 2 and not (intercept == "zero" and xs[0] > 0):
        raise InputError(
            where,
            f"{distinct} distinct concentration is not enough for a calibration line",
            "Give at least two, or ask for a line through the origin (intercept zero)",
        )
    mode: LineMode = intercept if intercept != "auto" else ("free" if distinct >= 3 else "zero")
    beta, covariance, weights = _effective_variance_fit(xs, ys, sds, xsd, free=mode == "free")
    residual = ys - beta[0] - beta[1] * xs
    chi2 = float(weights @ residual**2)
    dof = xs.size - (2 if mode == "free" else 1)
    line_r2 = _r_squared(ys, weights, chi2, about_mean=mode == "free")
    _refuse_bad_line(where, float(beta[1]), line_r2, minimum_r_squared)
    factor = _covariance_factor(scale_covariance, chi2, dof)
    return CalibrationLine(
        float(beta[0]), float(beta[1]), covariance * factor, chi2, dof, factor != 1.0, xs.size, mode, line_r2
    )


def _effective_variance_fit(
    x: Array, y: Array, sd: Array, x_sd: Array, *, free: bool, tolerance: float = 1e-12, iterations: int = 50
) -> tuple[Array, Array, Array]:
    """Coefficients (2,), covariance (2, 2) and weights (n,) of the most likely line with errors in both variables.

    The equations of York et al. (Am J Phys 2004;72:367), written with the adjusted x as instrument; without errors in x
    they are weighted least squares.
    """

    def columns(v: Array) -> Array:
        return np.stack([np.ones_like(v), v] if free else [v], axis=1)

    slope, true_x = 0.0, x
    for _ in range(iterations):
        weights = 1.0 / (sd**2 + (slope * x_sd) ** 2)
        instrument = columns(true_x).T * weights
        beta = np.asarray(np.linalg.solve(instrument @ columns(x), instrument @ y), dtype=np.float64)
        if abs(beta[-1] - slope) <= tolerance * abs(beta[-1]):
            break
        slope = float(beta[-1])
        true_x = x + weights * slope * x_sd**2 * (y - columns(x) @ beta)
    covariance = np.asarray(np.linalg.inv(instrument @ columns(true_x)), dtype=np.float64)
    if free:
        return beta, covariance, weights
    return np.array([0.0, float(beta[0])]), np.array([[0.0, 0.0], [0.0, covariance[0, 0]]]), weights


def _r_squared(y: Array, weights: Array, chi2: float, *, about_mean: bool) -> float:
    centre = float(weights @ y / weights.sum()) if about_mean else 0.0
    return 1.0 - chi2 / float(weights @ (y - centre) ** 2)


def _covariance_factor(scale: CovarianceScale, chi2: float, dof: int) -> float:
    if scale == "none" or dof == 0:
        return 1.0
    return chi2 / dof if scale == "relative" else max(1.0, chi2 / dof)


def _refuse_bad_line(where: str, slope: float, r_squared: float, minimum: float) -> None:
    if not slope > 0:
        raise InputError(
            where,
            f"the signal does not rise with concentration (slope {slope:.4g})",
            "Check that each concentration belongs to its vial",
        )
    if r_squared < minimum:
        raise InputError(
            where,
            f"the references do not lie on a line (R2 {r_squared:.3f}, at least {minimum:g} is needed)",
            "Check concentrations and order of the vials, or leave out a clipped or leaking one",
        )


def internal_reference_line(
    signal: float, signal_sd: float, factor: float, concentration_mM: float, concentration_sd_mM: float
) -> CalibrationLine:
    """Line through the origin given by one tissue of assumed concentration, e.g. CSF.

    Signal and concentration errors add as relative variances. ``factor`` is the signal factor of the reference tissue;
    the signal must already be free of noise floor and partial volume.

    Raises
    ------
    InputError
        If signal, factor or concentration is not positive.
    """
    if not (signal > 0 and factor > 0 and concentration_mM > 0):
        raise InputError(
            "internal reference",
            f"signal {signal:.4g}, factor {factor:.4g} and concentration {concentration_mM:.4g} must all be positive",
            "Check the region of the reference and its relaxation times",
        )
    slope = signal / (factor * concentration_mM)
    variance = slope**2 * ((signal_sd / signal) ** 2 + (concentration_sd_mM / concentration_mM) ** 2)
    return CalibrationLine(0.0, slope, np.array([[0.0, 0.0], [0.0, variance]]))


def predict_concentration(
    signal: ArrayLike,
    signal_sd: ArrayLike,
    factor: ArrayLike,
    line: CalibrationLine,
    slope_covariance: ArrayLike = 0.0,
) -> tuple[Array, Array, Array, Array]:
    """Concentration from signal, with its error by the delta method.

    ``c = (S - a) / (b f)``; Var = (sd / (b f))^2 + J C J^T - 2 c cov(S, b) / (b^2 f), J = [-1 / (b f), -c / b].

    Parameters
    ----------
    signal, signal_sd, factor
        Signal, its standard deviation and the signal factor of the tissue; shapes broadcast.
    slope_covariance
        Covariance of the signal with the slope, where both come from one image.

    Returns
    -------
    Concentration, total standard error, the part from noise, and the part from the calibration, which all
    concentrations of one scan share: it does not average out over regions. NaN where the factor is zero.
    """
    s, sd, f = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (signal, signal_sd, factor)))
    gain = np.where(f > 0, line.slope * f, np.nan)
    c = (s - line.intercept) / gain
    noise = sd / gain
    variance = (
        line.covariance[0, 0] / gain**2
        + 2.0 * line.covariance[0, 1] * c / (gain * line.slope)
        + line.covariance[1, 1] * (c / line.slope) ** 2
    )
    calibration = np.sqrt(np.maximum(variance, 0.0))
    shared = 2.0 * c * np.asarray(slope_covariance, dtype=float) / (gain * line.slope)
    total = np.sqrt(np.maximum(noise**2 + variance - shared, 0.0))
    return c, total, noise, calibration


def disagreement(signal: float, one: CalibrationLine, other: CalibrationLine) -> tuple[float, float]:
    """Difference of one signal's concentration by two lines: relative to the other's, and in standard errors.

    The standard error is that of both lines, taken as independent; the error of the signal is common to both.
    """
    (a, _, _, sd_a), (b, _, _, sd_b) = (predict_concentration(signal, 0.0, 1.0, line) for line in (one, other))
    difference, sd = float(a - b), float(np.hypot(sd_a, sd_b))
    return difference / float(b), abs(difference) / sd if sd > 0.0 else (float("inf") if difference else 0.0)


def fieller_interval(
    signal: ArrayLike,
    signal_sd: ArrayLike,
    factor: ArrayLike,
    line: CalibrationLine,
    confidence: float = 0.95,
    slope_covariance: ArrayLike = 0.0,
) -> tuple[Array, Array]:
    """Fieller's interval of a concentration, right also where the slope is poorly known.

    Solves ``(S - a - b t)^2 = z^2 (sd^2 + C_aa + 2 t (C_ab - cov(S, b)) + t^2 C_bb)`` for t = c f (Fieller, J R Stat
    Soc B 1954;16:175). Unbounded (-inf, inf) where the slope is not distinguishable from zero.
    """
    s, sd, f = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (signal, signal_sd, factor)))
    z2 = stats.norm.ppf(0.5 + confidence / 2.0) ** 2
    (caa, cab), (_, cbb) = line.covariance
    rest = s - line.intercept
    qa = line.slope**2 - z2 * cbb
    qb = rest * line.slope + z2 * (cab - np.asarray(slope_covariance, dtype=float))
    qc = rest**2 - z2 * (sd**2 + caa)
    if qa <= 0:
        return np.full(s.shape, -np.inf), np.full(s.shape, np.inf)
    root = np.sqrt(np.maximum(qb**2 - qa * qc, 0.0))
    scale = qa * np.where(f > 0, f, np.nan)
    return (qb - root) / scale, (qb + root) / scale


def match_by_order(signals: Sequence[float], concentrations_mM: Sequence[float]) -> list[int]:
    """For each concentration the index of the signal of the same rank.

    Raises
    ------
    ValueError
        If the numbers differ, or two concentrations are equal (their order is then open).
    """
    if len(signals) != len(concentrations_mM):
        raise ValueError(f"{len(signals)} signals for {len(concentrations_mM)} concentrations")
    if len(set(concentrations_mM)) != len(concentrations_mM):
        raise ValueError("equal concentrations cannot be matched by order")
    ranked = np.argsort(np.asarray(signals, dtype=float), kind="stable")
    rank = np.argsort(np.argsort(np.asarray(concentrations_mM, dtype=float)))
    return [int(ranked[r]) for r in rank]
