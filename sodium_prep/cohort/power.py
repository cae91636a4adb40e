"""How many participants a study needs, from the variance of one that there is."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from sodium_prep.cohort.columns import CATEGORIES, MEASURE, REGION
from sodium_prep.cohort.columns import covariates as covariate_columns
from sodium_prep.cohort.statistics import noncentral_t_cdf
from sodium_prep.cohort.values import STRATUM

if TYPE_CHECKING:
    import pandas as pd

VARIANCE_COLUMNS: Final[dict[str, str]] = {
    "covariates": "What the standard deviation is free of, besides the group",
    "n": "Participants",
    "mean": "Mean of the controls, or of all without a control group, mmol/L",
    "sd": "Standard deviation between participants of one group at equal covariates, mmol/L",
    "sd_ci_low": "Low end of its 95 % interval, mmol/L",
    "sd_ci_high": "High end of its 95 % interval, mmol/L",
}
POWER_COLUMNS: Final[dict[str, str]] = {
    "effect": "Effect as it was given",
    "scans": "Scans of each participant, averaged",
    "d": "Effect in standard deviations of such averages",
    "n_1": "Participants needed in the first group",
    "n_2": "Participants needed in the second group",
    "power": "Power for this effect with the numbers given",
    "detectable_d": "Smallest effect with the power asked for and the numbers given, standard deviations",
    "detectable": "The same, mmol/L",
    "detectable_percent": "The same, percent of the mean",
}


class Effect(NamedTuple):
    """A group difference: percent of the mean, mmol/L, or standard deviations between participants."""

    value: float
    unit: Literal["percent", "mM", "d"]

    def __str__(self) -> str:
        """As a user writes it."""
        return {"percent": "{:g} %", "mM": "{:g} mM", "d": "d = {:g}"}[self.unit].format(self.value)


def t_test_power(d: float, n_1: int, n_2: int, alpha: float = 0.05) -> float:
    """Power of the two-sided t test of two groups (Cohen, Statistical power analysis, 1988, chapter 2).

    Parameters
    ----------
    d
        Difference in standard deviations.
    n_1, n_2
        Participants of the groups.
    alpha
        Level of the test.
    """
    from scipy.stats import t

    dof = n_1 + n_2 - 2
    limit = float(t.ppf(1.0 - alpha / 2.0, dof))
    shift = abs(d) * float(np.sqrt(n_1 * n_2 / (n_1 + n_2)))
    # The quadrature of noncentral_t_cdf: statsmodels and scipy return nan for some shifts of 7 and more.
    return 1.0 - noncentral_t_cdf(limit, dof, shift) + noncentral_t_cdf(-limit, dof, shift)


def sample_size(
    d: float, *, alpha: float = 0.05, power: float = 0.8, tests: int = 1, ratio: float = 1.0
) -> tuple[int, int]:
    """Smallest groups in which a difference is found with the power asked for.

    Parameters
    ----------
    d
        Difference in standard deviations, not zero.
    alpha, power
        Level of the family of tests, and chance of finding the effect.
    tests
        Tests of the family (Bonferroni: each at ``alpha / tests``).
    ratio
        Second group over first.

    Returns
    -------
    Participants of the first and second group, at least two each.
    """
    from scipy.stats import norm

    def sizes(n: int) -> tuple[int, int]:
        return n, max(2, ceil(ratio * n - 1e-9))

    def enough(n: int) -> bool:
        return t_test_power(d, *sizes(n), alpha / tests) >= power

    # The normal distribution's answer is a little too small; from there it is a few steps.
    start = (norm.ppf(1.0 - alpha / tests / 2.0) + norm.ppf(power)) ** 2 * (1.0 + 1.0 / ratio) / d**2
    n = max(2, floor(start))
    while not enough(n):
        n += 1
    while n > 2 and enough(n - 1):
        n -= 1
    return sizes(n)


def detectable_effect(n_1: int, n_2: int, *, alpha: float = 0.05, power: float = 0.8, tests: int = 1) -> float:
    """Smallest difference, in standard deviations, that groups of these sizes find with the power asked for."""
    from scipy.optimize import brentq

    def excess(d: float) -> float:
        return t_test_power(d, n_1, n_2, alpha / tests) - power

    high = 1.0
    while excess(high) < 0:
        high *= 2.0
    return float(brentq(excess, 0.0, high))


def repeated_sd_factor(error_share: float, scans: int) -> float:
    """By how much the standard deviation falls when scans of a participant are averaged.

    Parameters
    ----------
    error_share
        Part of the variance of one scan that another scan of the same participant would not share, 1 - ICC.
    scans
        Scans of each participant.
    """
    return float(np.sqrt(1.0 - error_share + error_share / scans))


def residual_sd(
    values: pd.DataFrame,
    *,
    group: str | None = "group",
    control: str | None = None,
    covariates: Sequence[str] = ("age", "sex", "site"),
    categories: Sequence[str] = CATEGORIES,
) -> pd.DataFrame:
    """Standard deviation between participants of one group at equal covariates, in every region.

    Parameters
    ----------
    values
        Values frame; sessions are analysed apart.
    group
        Column of the groups, where it is there.
    control
        Group that percentages refer to; None: all.
    covariates, categories
        Columns to hold constant, where they are there, and which of them are categories.

    Returns
    -------
    Columns of the stratum, the region, estimator, reference, and :data:`VARIANCE_COLUMNS`; rows without a degree of
    freedom, and the reference itself, are left out.
    """
    import pandas as pd
    from scipy.stats import chi2

    keys = [*STRATUM, *REGION, *MEASURE]
    frame = values[np.isfinite(values["tsc"])]
    groups = [group] if group else []
    names, of_labels = [*groups, *covariates], [*groups, *categories]
    rows: list[dict[str, Any]] = []
    for labels, part in frame.groupby(keys, sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(keys, labels, strict=True))
        used = part[covariate_columns(part, names, of_labels).complete]
        held = covariate_columns(used, names, of_labels)
        design = np.column_stack([np.ones(len(used)), held.matrix])
        y = used["tsc"].to_numpy(dtype=float)
        solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
        dof = len(y) - int(rank)
        if dof < 1 or row["region"] == row["reference"]:
            continue
        controls = used[used[group] == control] if group and group in used and control is not None else used
        variance = float(((y - design @ solution) ** 2).sum())
        rows.append(
            row
            | {
                "covariates": ", ".join(name for name in held.names if name != group),
                "n": len(y),
                "mean": float(controls["tsc"].mean()),
                "sd": float(np.sqrt(variance / dof)),
                "sd_ci_low": float(np.sqrt(variance / chi2.ppf(0.975, dof))),
                "sd_ci_high": float(np.sqrt(variance / chi2.ppf(0.025, dof))),
            }
        )
    return pd.DataFrame(rows, columns=[*keys, *VARIANCE_COLUMNS])


def power_table(
    variances: pd.DataFrame,
    effects: Sequence[Effect],
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    tests: int = 1,
    ratio: float = 1.0,
    sizes: tuple[int, int] | None = None,
    error_share: float = 0.0,
    scans: Sequence[int] = (1,),
) -> pd.DataFrame:
    """Participants needed for each effect, and what given numbers can find.

    Parameters
    ----------
    variances
        Rows with ``mean`` and ``sd`` in mmol/L, as from :func:`residual_sd`; nan where an effect needs none.
    effects
        Effects to find; may be empty if ``sizes`` is given.
    alpha, power, tests, ratio
        As in :func:`sample_size`.
    sizes
        Participants of both groups whose power and smallest effect are asked for.
    error_share, scans
        As in :func:`repeated_sd_factor`.

    Returns
    -------
    Columns of ``variances`` and :data:`POWER_COLUMNS`, one row for each of its rows, scans and effect.
    """
    import pandas as pd

    options: dict[str, Any] = {"alpha": alpha, "power": power, "tests": tests}
    rows: list[dict[str, Any]] = []
    smallest = detectable_effect(*sizes, **options) if sizes else np.nan
    for record in variances.to_dict("records"):
        for k in scans:
            factor = repeated_sd_factor(error_share, k)
            sd, mean = factor * record["sd"], record["mean"]
            least = {"detectable_d": smallest, "detectable": smallest * sd}
            row = {str(name): cell for name, cell in record.items()} | {"scans": k, **least}
            row["detectable_percent"] = 100.0 * smallest * sd / mean
            rows += [row | _needed(effect, mean, sd, factor, ratio, sizes, options) for effect in effects]
            if not effects:
                rows.append(row)
    return pd.DataFrame(rows, columns=[*variances.columns, *POWER_COLUMNS])


def _needed(
    effect: Effect,
    mean: float,
    sd: float,
    factor: float,
    ratio: float,
    sizes: tuple[int, int] | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Participants that one effect needs, and its power with the numbers given."""
    if effect.unit == "d":
        d = effect.value / factor
    else:
        d = (effect.value / 100.0 * mean if effect.unit == "percent" else effect.value) / sd
    n_1, n_2 = sample_size(d, ratio=ratio, **options)
    row: dict[str, Any] = {"effect": str(effect), "d": d, "n_1": n_1, "n_2": n_2}
    return row | ({"power": t_test_power(d, *sizes, options["alpha"] / options["tests"])} if sizes else {})
