"""What a reader of group comparisons must be told before using them, found in the comparisons themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sodium_prep.cohort.values import STRATUM

if TYPE_CHECKING:
    import pandas as pd

FEW: Final = 10
"""Participants of a group below which an effect and a normal range are imprecise."""

_CASE: Final = (*STRATUM, "region", "hemisphere")


def comparison_cautions(comparisons: pd.DataFrame, *, estimator: str, alpha: float = 0.05) -> list[str]:
    """Sentences on disagreeing references, negative controls, tissue and size of the groups.

    Parameters
    ----------
    comparisons
        The table of comparisons: group_1, group_2, region, estimator, reference, state, n_1, n_2, adjusted or
        difference with ``p_fdr``, and if they are there role and ``tissue_adjusted_p_fdr``.
    estimator
        The corrected values that are reported.
    alpha
        Level of the tests.

    Returns
    -------
    Sentences, each once; empty where there is nothing to say.
    """
    made = comparisons[comparisons["state"] == "compared"]
    found: list[str] = []
    for _, pair in made.groupby(["group_1", "group_2"], sort=False):
        here = pair[pair["estimator"] == estimator]
        trap = list(_csf_differs(here, alpha))
        found += trap
        # What the CSF does to values calibrated by it has been said, and is not said again of each region.
        rest = here[here["reference"] != "CSF"] if trap else here
        found += [*_references(here, alpha), *_controls(rest, alpha), *_tissue(rest, alpha)]
        found += [*_uncorrected(pair[pair["reference"].isin(set(rest["reference"]))], estimator, alpha), *_few(pair)]
    return list(dict.fromkeys(found))


def _effect(row: Any) -> tuple[float, float]:
    """The adjusted difference, else the plain one, and its corrected p."""
    adjusted = float(row.get("adjusted", np.nan))
    if np.isfinite(adjusted):
        return adjusted, float(row.get("adjusted_p_fdr", np.nan))
    return float(row.get("difference", np.nan)), float(row.get("p_fdr", np.nan))


def _percent(row: Any) -> str:
    return f"{100 * _effect(row)[0] / float(row['mean_1']):+.1f} %".replace("-", "\N{MINUS SIGN}")


def _pair(row: Any) -> str:
    return f"{row['group_2']} minus {row['group_1']}"


def _is_control(table: pd.DataFrame) -> pd.Series[bool]:
    return table["role"] == "negative_control" if "role" in table else table["region"].isna()


def _rows(table: pd.DataFrame) -> Iterator[dict[Any, Any]]:
    yield from table.to_dict("records")


def _csf_differs(here: pd.DataFrame, alpha: float) -> Iterator[str]:
    if "CSF" not in set(here["reference"]):
        return
    told = [
        f"{_percent(row)} by {row['reference']}{_scan(row, here)}"
        for row in _rows(here[(here["region"] == "CSF") & (here["reference"] != "CSF")])
        if _effect(row)[1] < alpha
    ]
    if told:
        yield (
            f"CSF itself differs between the groups ({_pair(here.iloc[0])}: {', '.join(told)}). Values calibrated by "
            "CSF take it to be equal in all, which biases them the other way: do not read a group effect from them."
        )


def _references(here: pd.DataFrame, alpha: float) -> Iterator[str]:
    keys = [name for name in _CASE if name in here]
    told = []
    for _, part in here[~_is_control(here)].groupby(keys, sort=False, dropna=False):
        rows = [row for row in _rows(part) if np.isfinite(_effect(row)[0])]
        sure = [row for row in rows if _effect(row)[1] < alpha]
        one_way = len({_effect(row)[0] > 0 for row in rows}) == 1
        if len(rows) > 1 and sure and not (one_way and len(sure) == len(rows)):
            each = ", ".join(f"{_percent(row)}{_mark(row, alpha)} by {row['reference']}" for row in rows)
            told.append(f"{_region(rows[0], here)} {each}")
    if told:
        yield f"The references disagree ({_pair(here.iloc[0])}; * significant): {'; '.join(told)}."


def _mark(row: Any, alpha: float) -> str:
    return "*" if _effect(row)[1] < alpha else ""


def _region(row: Any, table: pd.DataFrame) -> str:
    """The region of a row, with its side and scan where there are several."""
    side = f" {row['hemisphere']}" if row.get("hemisphere", "both") != "both" else ""
    return f"{row['region']}{side}{_scan(row, table)}"


def _scan(row: Any, table: pd.DataFrame) -> str:
    """What tells the scan of a row from others in the table, such as `` (02)``."""
    told = [str(row[name]) for name in STRATUM if name in table and table[name].nunique() > 1 and row[name]]
    return f" ({', '.join(told)})" if told else ""


def _controls(here: pd.DataFrame, alpha: float) -> Iterator[str]:
    told = []
    for row in _rows(here[_is_control(here)]):
        p = float(row["adjusted_p"] if np.isfinite(row.get("adjusted_p", np.nan)) else row["p"])
        if p < alpha:
            told.append(f"{_region(row, here)} {_percent(row)} by {row['reference']} (p = {p:.2g})")
    if told:
        yield (
            f"Negative controls differ ({_pair(here.iloc[0])}): {', '.join(told)}. Suspect calibration, scanner or "
            "movement before biology."
        )


def _tissue(here: pd.DataFrame, alpha: float) -> Iterator[str]:
    if "tissue_adjusted_p_fdr" not in here:
        return
    told = [
        f"{_region(row, here)} by {row['reference']}"
        for row in _rows(here[~_is_control(here)])
        if _effect(row)[1] < alpha <= float(row["tissue_adjusted_p_fdr"])
    ]
    if told:
        yield (
            f"No longer different at equal tissue ({_pair(here.iloc[0])}): {', '.join(told)}. The effect cannot be "
            "told from atrophy or CSF contamination."
        )


def _uncorrected(made: pd.DataFrame, estimator: str, alpha: float) -> Iterator[str]:
    keys = [name for name in (*_CASE, "reference") if name in made]
    told = []
    for _, part in made[~_is_control(made)].groupby(keys, sort=False, dropna=False):
        by = {row["estimator"]: row for row in _rows(part)}
        if estimator != "none" and {"none", estimator} <= set(by):
            row = by[estimator]
            if _effect(by["none"])[1] < alpha <= _effect(row)[1]:
                told.append(f"{_region(row, made)} by {row['reference']}")
    if told:
        yield (
            f"Different before the partial volume correction only ({_pair(made.iloc[0])}): {', '.join(told)}. What "
            "differs may be the share of CSF, not the sodium of tissue."
        )


def _few(made: pd.DataFrame) -> Iterator[str]:
    n_1, n_2 = int(made["n_1"].max()), int(made["n_2"].max())
    if min(n_1, n_2) < FEW:
        yield (
            f"{_pair(made.iloc[0])} rests on {n_2} and {n_1} participants: effect sizes of so few are imprecise, and "
            "those that pass a test are too large on average."
        )
