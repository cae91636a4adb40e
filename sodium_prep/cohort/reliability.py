"""Repeat scans: variation within a participant, agreement, the smallest change that counts, variation between sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.cohort.columns import MEASURE, REGION, SCAN
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

REPEATABILITY_COLUMNS: Final[dict[str, str]] = {
    "repeat": "What was repeated: run (within a session) or session_id",
    "state": "Whether it was estimated, or why not",
    "n": "Participants with all the repeats that are used",
    "repeats": "Repeats of each, the first ones in order of their labels",
    "left_out": "Participants with a value but fewer repeats",
    "mean": "Mean of all values used, mmol/L",
    "within_sd": "Standard deviation within a participant, the standard error of one measurement, mmol/L",
    "within_sd_ci_low": "Low end of its 95 % interval, mmol/L",
    "within_sd_ci_high": "High end of its 95 % interval, mmol/L",
    "cov": "Coefficient of variation within a participant, root mean square over participants, percent",
    "cov_ci_low": "Low end of its 95 % interval, percent",
    "cov_ci_high": "High end of its 95 % interval, percent",
    "icc_agreement": "ICC(2,1): agreement of single measurements, a shift between repeats counts as error",
    "icc_agreement_ci_low": "Low end of its 95 % interval",
    "icc_agreement_ci_high": "High end of its 95 % interval",
    "icc_consistency": "ICC(3,1): the same without a shift that all participants share",
    "icc_consistency_ci_low": "Low end of its 95 % interval",
    "icc_consistency_ci_high": "High end of its 95 % interval",
    "mdc": "Minimal detectable change of one participant, 1.96 sqrt(2) within_sd, mmol/L",
    "mdc_ci_low": "Low end of its 95 % interval, mmol/L",
    "mdc_ci_high": "High end of its 95 % interval, mmol/L",
    "mdc_percent": "Minimal detectable change from the coefficient of variation, percent",
    "bias": "Mean of second minus first (Bland and Altman), mmol/L",
    "bias_ci_low": "Low end of its 95 % interval, mmol/L",
    "bias_ci_high": "High end of its 95 % interval, mmol/L",
    "limit_low": "Lower limit of agreement, mmol/L",
    "limit_low_ci_low": "Low end of its 95 % interval, mmol/L",
    "limit_low_ci_high": "High end of its 95 % interval, mmol/L",
    "limit_high": "Upper limit of agreement, mmol/L",
    "limit_high_ci_low": "Low end of its 95 % interval, mmol/L",
    "limit_high_ci_high": "High end of its 95 % interval, mmol/L",
}
INTERSITE_COLUMNS: Final[dict[str, str]] = {
    "state": "Whether it was estimated, or why not",
    "sites": "Sites at which participants were scanned who were scanned at more than one",
    "n": "Participants scanned at all of them",
    "left_out": "Participants scanned at more than one, but not at all of them",
    "mean": "Mean of all values used, mmol/L",
    "cov": "Coefficient of variation between sites within a participant, root mean square over participants, percent",
    "cov_ci_low": "Low end of its 95 % interval, for these sites, percent",
    "cov_ci_high": "High end of its 95 % interval, percent",
    "offset": "Largest distance of a site's mean from the mean of all sites, percent",
    "offset_site": "The site that it belongs to",
}
_FEWEST: Final = 3
"""Participants below which an interval says nothing."""


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Bland and Altman's bias and limits of agreement."""

    bias: Interval
    limit_low: Interval
    limit_high: Interval


def _table(repeats: ArrayLike) -> NDArray[np.float64]:
    """Values as (n, k) with n and k of at least 2, all finite."""
    x = np.asarray(repeats, dtype=float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError("repeats must be finite and of shape (n >= 2, k >= 2)")
    return x


def _chi_interval(value: float, dof: int) -> Interval:
    """A standard deviation with the interval of the chi-square distribution."""
    from scipy.stats import chi2

    low, high = chi2.ppf([0.975, 0.025], dof)
    return Interval(value, value * float(np.sqrt(dof / low)), value * float(np.sqrt(dof / high)))


def within_sd(repeats: ArrayLike) -> Interval:
    """Standard deviation within a participant (one-way analysis of variance), with its chi-square interval.

    Parameters
    ----------
    repeats
        Values (n participants, k repeats), finite.
    """
    x = _table(repeats)
    return _chi_interval(float(np.sqrt(x.var(axis=1, ddof=1).mean())), x.shape[0] * (x.shape[1] - 1))


def within_cov(repeats: ArrayLike) -> Interval:
    """Coefficient of variation within a participant: root mean square of each one's SD over mean.

    The interval is that of a standard deviation with ``n (k - 1)`` degrees of freedom, since a coefficient of a few
    percent is the standard deviation of the logarithm.

    Parameters
    ----------
    repeats
        Values (n participants, k repeats), positive.
    """
    x = _table(repeats)
    if (x.mean(axis=1) <= 0).any():
        return Interval(np.nan, np.nan, np.nan)
    ratio = x.std(axis=1, ddof=1) / x.mean(axis=1)
    return _chi_interval(float(np.sqrt((ratio**2).mean())), x.shape[0] * (x.shape[1] - 1))


def intraclass(repeats: ArrayLike) -> tuple[Interval, Interval]:
    """ICC(2,1), absolute agreement, and ICC(3,1), consistency, of single measurements.

    Shrout and Fleiss, Psychol Bull 1979;86:420; intervals by the F distribution: McGraw and Wong, Psychol Methods
    1996;1:30, table 7 (exact for consistency, Satterthwaite's approximation for agreement).

    Parameters
    ----------
    repeats
        Values (n participants, k repeats), finite.

    Returns
    -------
    nan where nobody differs from anybody.
    """
    from scipy.stats import f

    x = _table(repeats)
    n, k = x.shape
    centre = x.mean()
    rows = k * ((x.mean(axis=1) - centre) ** 2).sum() / (n - 1)
    columns = n * ((x.mean(axis=0) - centre) ** 2).sum() / (k - 1)
    rest = ((x - x.mean(axis=1, keepdims=True) - x.mean(axis=0) + centre) ** 2).sum()
    error = rest / ((n - 1) * (k - 1))
    if rest <= 1e-12 * ((x - centre) ** 2).sum() or rows <= 0:
        nothing = Interval(np.nan, np.nan, np.nan)
        return nothing, nothing
    dof = (n - 1) * (k - 1)
    low, high = rows / error / f.ppf(0.975, n - 1, dof), rows / error * f.ppf(0.975, dof, n - 1)
    consistency = Interval(
        float((rows - error) / (rows + (k - 1) * error)),
        float((low - 1) / (low + k - 1)),
        float((high - 1) / (high + k - 1)),
    )
    icc = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    a, b = k * icc / (n * (1 - icc)), 1 + k * icc * (n - 1) / (n * (1 - icc))
    v = (a * columns + b * error) ** 2 / ((a * columns) ** 2 / (k - 1) + (b * error) ** 2 / dof)
    first, second = f.ppf(0.975, n - 1, v), f.ppf(0.975, v, n - 1)
    spread = k * columns + (k * n - k - n) * error
    agreement = Interval(
        float(icc),
        float(n * (rows - first * error) / (first * spread + n * rows)),
        float(n * (second * rows - error) / (spread + n * second * rows)),
    )
    return agreement, consistency


def bland_altman(first: ArrayLike, second: ArrayLike) -> Agreement:
    """Bias and 95 % limits of agreement of ``second - first`` (Bland and Altman, Stat Methods Med Res 1999;8:135).

    Parameters
    ----------
    first, second
        Paired values (n,), n >= 2, finite.
    """
    from scipy.stats import t

    difference = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    n = difference.size
    bias, sd, quantile = float(difference.mean()), float(difference.std(ddof=1)), float(t.ppf(0.975, n - 1))

    def interval(value: float, variance: float) -> Interval:
        half = quantile * sd * float(np.sqrt(variance))
        return Interval(value, value - half, value + half)

    of_limit = 1 / n + 1.96**2 / (2 * (n - 1))
    return Agreement(interval(bias, 1 / n), interval(bias - 1.96 * sd, of_limit), interval(bias + 1.96 * sd, of_limit))


def complete_repeats(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The table (n, k) of first repeats that keeps most degrees of freedom, ``n (k - 1)``, of unbalanced data.

    Parameters
    ----------
    rows
        Finite values of each participant in order of their repeats.

    Returns
    -------
    Shape (0, 0) if nobody has two repeats. Of equal choices the one with more participants.
    """
    lengths = np.array([len(row) for row in rows])
    choices = range(2, int(lengths.max(initial=0)) + 1)
    if not choices:
        return np.zeros((0, 0))
    k = max(choices, key=lambda k: (int((lengths >= k).sum()) * (k - 1), -k))
    return np.array([row[:k] for row in rows if len(row) >= k], dtype=float)


def repeatability(tsc: pd.DataFrame) -> pd.DataFrame:
    """Repeatability of every region under every estimator and reference, between runs and between sessions.

    Runs are compared within a session; sessions run by run, so that single scans are compared with single scans.

    Parameters
    ----------
    tsc
        Long table with one row per scan, as :attr:`sodium_prep.cohort.tables.Cohort.tsc`.

    Returns
    -------
    Columns of the stratum, the region, and :data:`REPEATABILITY_COLUMNS`; only what was scanned more than once.
    """
    import pandas as pd

    frame = tsc.rename(columns={"name": "region"})
    frame = frame[np.isfinite(frame["tsc"].astype(float))]
    if "index" not in frame:
        frame = frame.assign(index="")
    stratum = ["session_id", "run", *SCAN, *REGION, *MEASURE]
    rows: list[dict[str, Any]] = []
    for repeat in ("run", "session_id"):
        # Labels that are numbers go by their value: 10 comes after 9.
        order = frame[repeat].map(lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label))
        keys = [name for name in stratum if name != repeat]
        if not frame.duplicated(["participant_id", *keys]).any():
            continue
        for labels, part in frame.assign(order=order).groupby(keys, sort=False, dropna=False):
            people = [
                one.sort_values("order")["tsc"].astype(float).tolist() for _, one in part.groupby("participant_id")
            ]
            values = complete_repeats(people)
            if values.size:
                found = _repeatability(values) | {"repeat": repeat, "left_out": len(people) - len(values)}
                rows.append(dict(zip(keys, labels, strict=True)) | found)
    return pd.DataFrame(rows, columns=[*stratum, *REPEATABILITY_COLUMNS])


def _repeatability(values: NDArray[np.float64]) -> dict[str, Any]:
    row: dict[str, Any] = {"n": values.shape[0], "repeats": values.shape[1], "mean": float(values.mean())}
    if len(values) < _FEWEST:
        return row | {"state": f"too few participants with repeats (fewer than {_FEWEST})"}
    sd, cov = within_sd(values), within_cov(values)
    agreement, consistency = intraclass(values)
    limits = bland_altman(values[:, 0], values[:, 1])
    factor = 1.96 * float(np.sqrt(2.0))
    intervals = {
        "within_sd": sd,
        "cov": Interval(*(100.0 * end for end in cov)),
        "icc_agreement": agreement,
        "icc_consistency": consistency,
        "mdc": Interval(*(factor * end for end in sd)),
        "bias": limits.bias,
        "limit_low": limits.limit_low,
        "limit_high": limits.limit_high,
    }
    for name, (value, low, high) in intervals.items():
        row |= {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}
    return row | {"state": "estimated", "mdc_percent": 100.0 * factor * cov.value}


def intersite_cov(values: pd.DataFrame, *, site: str = "site") -> pd.DataFrame:
    """Variation between sites of the participants who were scanned at several.

    Parameters
    ----------
    values
        Values frame: one row per participant, session and region; several sessions at one site are averaged.
    site
        Column with the site of the session.

    Returns
    -------
    Columns of the scan, the region, and :data:`INTERSITE_COLUMNS`; empty if nobody was at two sites.

    Raises
    ------
    InputError
        If the column is missing.
    """
    import pandas as pd

    if site not in values:
        raise InputError("sessions.tsv", f"has no column {site}", "Add it: the site of every session")
    keys = [*SCAN, *REGION, *MEASURE]
    frame = values[np.isfinite(values["tsc"]) & (values[site] != "")]
    frame = frame[frame.groupby("participant_id")[site].transform("nunique") > 1]
    rows = []
    for labels, part in frame.groupby(keys, sort=False, dropna=False):
        wide = part.pivot_table(index="participant_id", columns=site, values="tsc", aggfunc="mean")
        wide = wide[wide.notna().sum(axis=1) >= 2].dropna(axis=1, how="all")
        if len(wide):
            rows.append(dict(zip(keys, labels, strict=True)) | _intersite(wide))
    return pd.DataFrame(rows, columns=[*keys, *INTERSITE_COLUMNS])


def _intersite(wide: pd.DataFrame) -> dict[str, Any]:
    complete = wide.dropna()
    row: dict[str, Any] = {
        "sites": ", ".join(map(str, wide.columns)), "n": len(complete), "left_out": len(wide) - len(complete),
    }  # fmt: skip
    if len(complete) < _FEWEST:
        return row | {"state": f"too few participants scanned at all sites (fewer than {_FEWEST})"}
    table = complete.to_numpy(dtype=float)
    cov = within_cov(table)
    offsets = 100.0 * (table.mean(axis=0) / table.mean() - 1.0)
    worst = int(np.abs(offsets).argmax())
    return row | {
        "state": "estimated", "mean": float(table.mean()), "cov": 100.0 * cov.value, "cov_ci_low": 100.0 * cov.low,
        "cov_ci_high": 100.0 * cov.high, "offset": float(offsets[worst]), "offset_site": str(complete.columns[worst]),
    }  # fmt: skip
