"""Columns of the values frame: text as numbers and as columns of a linear model, pairs of groups, families of tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.cohort.statistics import false_discovery
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCAN: Final[tuple[str, ...]] = ("acquisition", "reconstruction", "atlas")
REGION: Final[tuple[str, ...]] = ("index", "region", "hemisphere")
MEASURE: Final[tuple[str, ...]] = ("estimator", "reference")
CATEGORIES: Final[tuple[str, ...]] = ("sex", "site")
"""Covariates that are categories unless others are named; their labels are never numbers, even where they look so."""
_HIDDEN: Final = re.compile(r"\d+\+")
"""BIDS' way to hide a high age, such as 89+: missing."""


@dataclass(frozen=True)
class Covariates:
    """Columns to hold constant.

    Attributes
    ----------
    names
        Covariates that are there and vary.
    matrix
        Their columns (n, k), without an intercept; numbers centred, categories as one column per further level.
    complete
        Who has all of them, (n,).
    """

    names: tuple[str, ...]
    matrix: NDArray[np.float64]
    complete: NDArray[np.bool_]


def numbers(
    frame: pd.DataFrame,
    name: str,
    where: str = "participants.tsv",
    mend: str = "Write numbers, and n/a for missing ones",
) -> NDArray[np.float64]:
    """A column of text as numbers (n,); empty cells and hidden ages (89+) are nan.

    Raises
    ------
    InputError
        If the column is missing or holds other text.
    """
    if name not in frame:
        raise InputError(where, f"has no column {name}", "Add it, or ask for a column that is there")
    cells = {cell: _number(cell) for cell in frame[name].unique()}
    for cell, value in cells.items():
        if value is None:
            raise InputError(where, f"holds {cell!r} in column {name}", mend)
    return frame[name].map(cells).to_numpy(dtype=float)


def covariates(frame: pd.DataFrame, names: Sequence[str], categories: Sequence[str] = CATEGORIES) -> Covariates:
    """Covariates of a linear model; those that are absent or the same in all are left out.

    Parameters
    ----------
    frame
        Rows of the values frame.
    names
        Columns to use, in order.
    categories
        Those that are categories; all others are numbers.

    Raises
    ------
    InputError
        If a covariate that is no category holds text.
    """
    blocks: dict[str, NDArray[np.float64]] = {}
    complete = np.ones(len(frame), dtype=bool)
    for name in dict.fromkeys(names):
        if name not in frame:
            continue
        if name in categories:
            column = frame[name].to_numpy(dtype=object)
            there = column != ""
            block = np.array([column == level for level in sorted(set(column[there]))[1:]], dtype=float).T
        else:
            mend = "Write numbers, and n/a for missing ones, or name it among the categories"
            block = numbers(frame, name, mend=mend)[:, None]
            there = np.isfinite(block[:, 0])
        if block.size and (np.ptp(block[there], axis=0) > 0).any():
            blocks[name] = block
            complete &= there
    kept = {name: block for name, block in blocks.items() if complete.any() and np.ptp(block[complete], axis=0).any()}
    if not kept:
        return Covariates((), np.zeros((len(frame), 0)), complete)
    matrix = np.concatenate(list(kept.values()), axis=1)
    matrix = matrix[:, np.ptp(matrix[complete], axis=0) > 0]
    return Covariates(tuple(kept), matrix - matrix[complete].mean(axis=0), complete)


def group_pairs(labels: Iterable[str], control: str | None) -> list[tuple[str, str]]:
    """Pairs of groups to compare: the control with every other one, all pairs if there is no such group."""
    ordered = sorted(set(labels), key=lambda label: (label != control, label))
    return [(a, b) for a, b in combinations(ordered, 2) if a == control or control not in ordered]


def correct_for_tests(table: pd.DataFrame, family: Sequence[str]) -> pd.DataFrame:
    """The table with ``p_fdr``, which is ``p`` corrected for the false discovery rate within each family of rows."""
    for _, part in table.groupby(list(family), sort=False, dropna=False):
        table.loc[part.index, "p_fdr"] = false_discovery(part["p"].astype(float))
    return table


def _number(cell: object) -> float | None:
    """A cell as a number, nan where it is missing, None where it is text."""
    if cell == "" or (isinstance(cell, str) and _HIDDEN.fullmatch(cell)):
        return float("nan")
    try:
        value = float(cell)  # type: ignore[arg-type]
    except ValueError:
        return None
    return value if np.isfinite(value) or not isinstance(cell, str) else None
