"""Statistics of groups on plain arrays: Welch's interval, Hedges' g, linear models, false discovery rate."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import exp, lgamma, log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Difference:
    """A difference ``second - first`` with its standard error, 95 % interval, degrees of freedom and p value."""

    value: float
    stderr: float
    low: float
    high: float
    dof: float
    p: float


def _as_difference(value: float, stderr: float, dof: float) -> Difference:
    from scipy.stats import t

    half = float(t.ppf(0.975, dof)) * stderr
    p = float(2.0 * t.sf(abs(value) / stderr, dof)) if stderr > 0 else float("nan")
    return Difference(value, stderr, value - half, value + half, dof, p)


def welch(first: ArrayLike, second: ArrayLike) -> Difference | None:
    """Difference of means with unequal variances (Welch, Biometrika 1947;34:28).

    Parameters
    ----------
    first, second
        Finite values, shapes (n,) and (m,).

    Returns
    -------
    None where a group has fewer than two values or nobody differs from anybody.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.size < 2 or b.size < 2:
        return None
    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    if va + vb <= 0:
        return None
    dof = (va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1))
    return _as_difference(float(b.mean() - a.mean()), float(np.sqrt(va + vb)), float(dof))


def hedges_g(first: ArrayLike, second: ArrayLike) -> tuple[float, float, float] | None:
    """Standardised difference without small-sample bias (Hedges, J Educ Stat 1981;6:107) with its 95 % interval.

    The interval inverts the noncentral t distribution, so it is exact for normal values of equal variance.

    Returns
    -------
    g, low, high; None where a group has fewer than two values or the pooled variance is zero.
    """
    from scipy.optimize import brentq

    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.size < 2 or b.size < 2:
        return None
    dof = a.size + b.size - 2
    pooled = np.sqrt(((a.size - 1) * a.var(ddof=1) + (b.size - 1) * b.var(ddof=1)) / dof)
    if pooled <= 0:
        return None
    unbias = exp(lgamma(dof / 2) - lgamma((dof - 1) / 2) - 0.5 * log(dof / 2)) if dof > 1 else float("nan")
    scale = float(np.sqrt(1 / a.size + 1 / b.size))
    t = float(b.mean() - a.mean()) / (pooled * scale)
    reach = 12.0 + 2.0 * abs(t)
    ends = [
        brentq(lambda shift, q=q: noncentral_t_cdf(t, dof, shift) - q, t - reach, t + reach) for q in (0.975, 0.025)
    ]
    low, high = (float(end) * scale * unbias for end in ends)
    return t * scale * unbias, low, high


def noncentral_t_cdf(t: float, dof: int, shift: float) -> float:
    """Distribution function of the noncentral t distribution.

    The mean of ``Phi(t s - shift)`` over ``s = chi / sqrt(dof)``, by Gauss-Legendre quadrature: scipy's own returns nan
    far from the centre, where a search for the ends of an interval passes.
    """
    from scipy.special import ndtr

    s, density = _chi_nodes(dof)
    return float(density @ ndtr(t * s / np.sqrt(dof) - shift))


@lru_cache(maxsize=64)
def _chi_nodes(dof: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Abscissae and weights of the mean over a chi-distributed number."""
    from scipy.stats import chi

    low, high = chi.ppf([1e-14, 1.0 - 1e-14], dof)
    nodes, weights = np.polynomial.legendre.leggauss(256)
    s = 0.5 * (high - low) * (nodes + 1.0) + low
    return s, chi.pdf(s, dof) * weights * 0.5 * (high - low)


@dataclass(frozen=True)
class GroupDesign:
    """Design of one linear model of all groups.

    Attributes
    ----------
    matrix
        Shape (n_used, n_groups + k): who belongs to which group, then the covariates that vary, each with mean zero.
        So the coefficient of a group is its mean at the covariates' means, its adjusted mean.
    used
        Shape (n,), who is in the model: somebody whom a parameter of his own fits exactly, such as the only one of a
        site, says nothing about the groups and is left out.
    n_groups
        Number of groups.
    """

    matrix: NDArray[np.float64]
    used: NDArray[np.bool_]
    n_groups: int

    def contrast(self, weights: Mapping[int, float]) -> NDArray[np.float64]:
        """The weights of groups, by number, as weights of the columns."""
        out = np.zeros(self.matrix.shape[1])
        out[list(weights)] = list(weights.values())
        return out

    def estimable(self, contrast: NDArray[np.float64]) -> bool:
        """Whether a contrast is of the row space of the design, so that every solution has the same value of it."""
        off: NDArray[np.float64] = contrast - contrast @ np.linalg.pinv(self.matrix) @ self.matrix
        return bool(np.abs(off).max() < 1e-8)

    @property
    def dof(self) -> int:
        """Degrees of freedom that are left for the error."""
        return int(self.matrix.shape[0]) - int(np.linalg.matrix_rank(self.matrix)) if self.matrix.size else 0


def group_design(groups: ArrayLike, n_groups: int, covariates: NDArray[np.float64]) -> GroupDesign:
    """The design of a linear model of all groups with the covariates held constant.

    Parameters
    ----------
    groups
        Number of each participant's group, (n,); a negative one leaves the participant out.
    n_groups
        Number of groups.
    covariates
        Columns to hold constant, (n, k), without an intercept. Who has one that is not finite is left out.
    """
    number = np.asarray(groups, dtype=int)
    used = (number >= 0) & np.isfinite(covariates).all(axis=1)
    while True:
        matrix = centred_design(number[used], n_groups, covariates[used])
        exact = np.einsum("ij,ji->i", matrix, np.linalg.pinv(matrix)) > 1.0 - 1e-8 if used.any() else np.zeros(0, bool)
        if not exact.any():
            return GroupDesign(matrix, used, n_groups)
        used = used.copy()
        used[np.flatnonzero(used)[exact]] = False


def centred_design(number: NDArray[np.int_], n_groups: int, covariates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Indicators of the groups, and those covariates that vary, with mean 0 and unit spread: (n, n_groups + k)."""
    members: NDArray[np.float64] = (number[:, None] == np.arange(n_groups)).astype(float)
    if not number.size:
        return members
    varying = covariates[:, np.ptp(covariates, axis=0) > 0]
    # Unit spread keeps volumes in mm3 and ages in years equally far from rounding errors.
    return np.column_stack([members, (varying - varying.mean(axis=0)) / varying.std(axis=0)])


def fit_linear(y: NDArray[np.float64], matrix: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> Any:
    """Least squares with HC3 errors (MacKinnon and White, J Econom 1985;29:305), by statsmodels.

    Parameters
    ----------
    y, matrix
        Values (n,) and design (n, k).
    weights
        Inverse variances (n,), for weighted least squares.
    """
    from statsmodels.regression.linear_model import OLS, WLS

    with _told_here():
        model = OLS(y, matrix) if weights is None else WLS(y, matrix, weights=weights)
        return model.fit(cov_type="HC3", use_t=True)


def fit_robust(y: NDArray[np.float64], matrix: NDArray[np.float64]) -> Any:
    """Huber's M estimator with the scale by the median deviation (Huber, Robust Statistics 1981), by statsmodels."""
    from statsmodels.robust.norms import HuberT
    from statsmodels.robust.robust_linear_model import RLM

    with _told_here():
        return RLM(y, matrix, M=HuberT()).fit()


@contextmanager
def _told_here() -> Iterator[None]:
    """Warnings of statsmodels that :meth:`GroupDesign.estimable` and :func:`difference_of` answer."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.filterwarnings("ignore", "The design matrix is rank-deficient")
        warnings.filterwarnings("ignore", "Estimated scale is 0")
        yield


def difference_of(fit: Any, contrast: NDArray[np.float64]) -> Difference | None:
    """A contrast of a fit, by the t distribution with the degrees of freedom of the error.

    That of a robust fit too, whose normal distribution of large samples would be too sure of itself in small ones. None
    where nobody differs from the fit, so that there is no error to judge by.
    """
    value, variance = float(contrast @ fit.params), float(contrast @ fit.cov_params() @ contrast)
    if _is_exact(fit) or not (np.isfinite(value) and variance > 0):
        return None
    return _as_difference(value, float(np.sqrt(variance)), float(fit.df_resid))


def _is_exact(fit: Any) -> bool:
    """Whether the residuals are but rounding errors."""
    return bool(np.abs(fit.resid).max() <= 1e-10 * np.abs(fit.model.endog).max())


def overall_test(fit: Any, contrasts: NDArray[np.float64]) -> tuple[float, int, int, float] | None:
    """Whether any of several independent contrasts differs from zero: Wald's F test with the errors of the fit.

    Returns
    -------
    F, both degrees of freedom, and p; None where nobody differs from the fit.
    """
    if _is_exact(fit):
        return None
    found = fit.f_test(contrasts)
    return float(found.fvalue), int(found.df_num), int(found.df_denom), float(found.pvalue)


def between_variance(y: NDArray[np.float64], variances: NDArray[np.float64], matrix: NDArray[np.float64]) -> float:
    """Variance between participants beyond their errors of measurement (Paule and Mandel, J Res NBS 1982;87:377).

    Solves ``sum_i r_i^2 / (tau^2 + s_i^2) = n - rank`` for ``tau^2``, with the residuals r of least squares by those
    weights; zero where the values scatter less than their errors. For designs: DerSimonian and Kacker, Contemp Clin
    Trials 2007;28:105.

    Parameters
    ----------
    y, variances, matrix
        Values (n,), their variances of measurement s^2 (n,), design (n, k).
    """
    from scipy.optimize import brentq

    dof = y.size - int(np.linalg.matrix_rank(matrix))

    def excess(tau2: float) -> float:
        root = 1.0 / np.sqrt(tau2 + variances)
        scaled = matrix * root[:, None]
        solution, *_ = np.linalg.lstsq(scaled, y * root, rcond=None)
        return float(np.sum((y * root - scaled @ solution) ** 2)) - dof

    floor = 1e-9 * float(np.var(y))  # errors of zero must not divide
    if dof < 1 or floor == 0.0 or excess(floor) <= 0:
        return 0.0
    high = float(np.var(y)) * y.size / dof
    return float(brentq(excess, floor, 2.0 * high, rtol=1e-10))


def false_discovery(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p values of one family (Benjamini and Hochberg, J R Stat Soc B 1995;57:289); nan stays nan."""
    from scipy.stats import false_discovery_control

    p = np.array(p_values, dtype=float)
    there = np.isfinite(p)
    if there.any():
        p[there] = false_discovery_control(p[there])
    return p
