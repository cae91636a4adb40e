"""Statistics of two groups on plain arrays: Welch's interval, Hedges' g, adjusted difference, false discovery rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, lgamma, log

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


def adjusted_difference(
    values: ArrayLike, in_second: ArrayLike, covariates: NDArray[np.float64]
) -> tuple[Difference, NDArray[np.bool_]] | None:
    """Group difference at equal covariates: linear model with HC3 errors (MacKinnon and White, J Econom 1985;29:305).

    Parameters
    ----------
    values
        Shape (n,), finite.
    in_second
        Whether a participant is of the second group, (n,).
    covariates
        Columns to hold constant, (n, k), without the intercept.

    Returns
    -------
    The difference and who was used, (n,): somebody whom a parameter of his own fits exactly, such as the only one of
    a site, says nothing about the group and is left out. None where the model cannot be estimated.
    """
    from statsmodels.regression.linear_model import OLS

    y = np.asarray(values, dtype=float)
    group = np.asarray(in_second, dtype=float)
    used = np.ones(y.size, dtype=bool)
    while True:
        design = np.column_stack([np.ones(int(used.sum())), group[used], covariates[used]])
        design = design[:, _varying(design)]
        if not _estimable(design, group[used]):
            return None
        leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
        exact = leverage > 1.0 - 1e-8
        if not exact.any():
            break
        used[np.flatnonzero(used)[exact]] = False
    fit = OLS(y[used], design).fit(cov_type="HC3", use_t=True)
    return _as_difference(float(fit.params[1]), float(fit.bse[1]), float(fit.df_resid)), used


def _varying(design: NDArray[np.float64]) -> list[int]:
    """Intercept, group, and the covariates that vary among those who are left."""
    return [0, 1, *(j for j in range(2, design.shape[1]) if np.ptp(design[:, j]) > 0)]


def _estimable(design: NDArray[np.float64], group: NDArray[np.float64]) -> bool:
    n, k = design.shape
    return bool(n > k and 0 < group.sum() < n and np.linalg.matrix_rank(design / np.abs(design).max(axis=0)) == k)


def false_discovery(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p values of one family (Benjamini and Hochberg, J R Stat Soc B 1995;57:289); nan stays nan."""
    p = np.asarray(p_values, dtype=float)
    out = np.full(p.shape, np.nan)
    good = np.flatnonzero(np.isfinite(p))
    order = good[np.argsort(p[good])][::-1]
    ranks = np.arange(order.size, 0, -1)
    out[order] = np.minimum.accumulate(p[order] * order.size / np.maximum(ranks, 1)).clip(max=1.0)
    return out
