"""What a reader of group comparisons must be told before using them, found in the comparisons themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FEW: Final = 10
"""Participants of a group below which an effect and a normal range are imprecise."""

_CASE: Final = ("group_1", "group_2", "session_id", "acquisition", "reconstruction", "atlas", "region", "hemisphere")


def comparison_cautions(comparisons: pd.DataFrame, *, estimator: str, alpha: float = 0.05) -> list[str]:
    """Sentences on disagreeing references, negative controls, tissue and size of the groups.

    Parameters
    ----------
    comparisons
        Columns of the table of comparisons: group_1, group_2, region, estimator, reference, state, n_1, n_2, adjusted or
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
    here = made[made["estimator"] == estimator]
    found = [
        *_csf_differs(here, alpha), *_references(here, alpha), *_controls(here, alpha), *_tissue(here, alpha),
        *_uncorrected(made, estimator, alpha), *_few(made),
    ]  # fmt: skip
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
    for row in _rows(here[(here["region"] == "CSF") & (here["reference"] != "CSF")]):
        if _effect(row)[1] < alpha:
            yield (
                f"CSF itself differs between the groups ({_pair(row)}: {_percent(row)} by {row['reference']}). Values "
                "calibrated by CSF take it to be equal in all, which biases them the other way: do not read "
                "a group effect from them."
            )


def _references(here: pd.DataFrame, alpha: float) -> Iterator[str]:
    keys = [name for name in _CASE if name in here]
    for _, part in here[~_is_control(here)].groupby(keys, sort=False, dropna=False):
        rows = [row for row in _rows(part) if np.isfinite(_effect(row)[0])]
        sure = [row for row in rows if _effect(row)[1] < alpha]
        if len(rows) < 2 or not sure or len(sure) == len(rows) and len({_effect(r)[0] > 0 for r in rows}) == 1:
            continue
        told = ", ".join(f"{_percent(row)} by {row['reference']} ({_certain(row, alpha)})" for row in rows)
        yield f"The references disagree on {rows[0]['region']} ({_pair(rows[0])}): {told}."


def _certain(row: Any, alpha: float) -> str:
    return "significant" if _effect(row)[1] < alpha else "not significant"


def _controls(here: pd.DataFrame, alpha: float) -> Iterator[str]:
    for row in _rows(here[_is_control(here)]):
        p = float(row.get("adjusted_p", row.get("p", np.nan)))
        if p < alpha:
            yield (
                f"The negative control {row['region']} differs ({_pair(row)}: {_percent(row)} by {row['reference']}, "
                f"p = {p:.2g}): suspect calibration, scanner or movement before biology."
            )


def _tissue(here: pd.DataFrame, alpha: float) -> Iterator[str]:
    if "tissue_adjusted_p_fdr" not in here:
        return
    for row in _rows(here[~_is_control(here)]):
        p = float(row["tissue_adjusted_p_fdr"])
        if _effect(row)[1] < alpha <= p:
            yield (
                f"{row['region']} ({_pair(row)}, by {row['reference']}) no longer differs at equal volume and CSF: "
                "the effect cannot be told from atrophy or CSF contamination."
            )


def _uncorrected(made: pd.DataFrame, estimator: str, alpha: float) -> Iterator[str]:
    keys = [name for name in (*_CASE, "reference") if name in made]
    for _, part in made[~_is_control(made)].groupby(keys, sort=False, dropna=False):
        by = {row["estimator"]: row for row in _rows(part)}
        if estimator == "none" or not {"none", estimator} <= set(by):
            continue
        if _effect(by["none"])[1] < alpha <= _effect(by[estimator])[1]:
            row = by[estimator]
            yield (
                f"{row['region']} ({_pair(row)}, by {row['reference']}) differs before the partial volume correction "
                "only: what differs may be the share of CSF, not the sodium of tissue."
            )


def _few(made: pd.DataFrame) -> Iterator[str]:
    for (first, second), part in made.groupby(["group_1", "group_2"], sort=False):
        n_1, n_2 = int(part["n_1"].max()), int(part["n_2"].max())
        if min(n_1, n_2) < FEW:
            yield (
                f"{second} minus {first} rests on {n_1} and {n_2} participants: effect sizes of so few are imprecise, and "
                "those that pass a test are too large on average."
            )
