"""Tables of results as the group page prints them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from sodium_prep.cohort.compare import STRATUM
from sodium_prep.report.group_results import estimator_name, heading
from sodium_prep.report.page import Cell, DataTable

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS: Final = 400
"""Rows of a table on the page; the file of the same table holds all."""

NOT_TO_BE_HAD: Final = "n/a"
_UNNAMED: Final = ("index", "n_left_out")


def words(value: Any) -> Cell:
    """Text as it is; missing text is left empty."""
    return Cell("" if value is None or value != value else str(value))


def number(value: Any, digits: int, sign: bool = False) -> Cell:
    """A number with so many decimal places."""
    value = _float(value)
    return (
        Cell(f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\u2212"), value)
        if math.isfinite(value)
        else Cell(NOT_TO_BE_HAD)
    )


def interval(row: Mapping[Any, Any], name: str, digits: int, sign: bool = True) -> Cell:
    """The value of a column with its interval, such as ``+5.2 [1.1, 9.3]``; sorted by the value."""
    value, low, high = (_float(row.get(key)) for key in (name, f"{name}_ci_low", f"{name}_ci_high"))
    if not math.isfinite(value):
        return Cell(NOT_TO_BE_HAD)
    ends = f" [{low:.{digits}f}, {high:.{digits}f}]" if math.isfinite(low) and math.isfinite(high) else ""
    return Cell(f"{value:{'+' if sign else ''}.{digits}f}{ends}".replace("-", "\u2212"), value)


def p_value(value: Any) -> Cell:
    """A p value in print."""
    value = _float(value)
    if not math.isfinite(value):
        return Cell(NOT_TO_BE_HAD)
    return Cell("<\u00a00.001" if value < 0.001 else f"{value:.3f}", value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def frame_table(
    frame: pd.DataFrame,
    *,
    heading: str = "",
    caption: str = "",
    skip: Collection[str] = (),
    names: Mapping[str, str] | None = None,
) -> DataTable:
    """A table of results in print.

    Intervals stand behind their value, p values as such, other numbers with three digits. Columns without content are
    left out, and so are those of the stratum if there is only one. Of more than :data:`MAX_ROWS` rows the first stand
    here, and the caption says so.
    """
    columns = [str(name) for name in frame.columns if _shown(frame, str(name)) and name not in skip]
    shown = frame.head(MAX_ROWS)
    if len(frame) > MAX_ROWS:
        caption = f"{caption} The first {MAX_ROWS} of {len(frame)} rows; the file holds all.".strip()
    rows = [[_cell(row, name) for name in columns] for row in shown.to_dict("records")]
    titles = [(names or {}).get(name, name.replace("_", " ").replace("hedges g", "Hedges' g")) for name in columns]
    return DataTable(caption, titles, rows, heading)


def _shown(frame: pd.DataFrame, name: str) -> bool:
    column = frame[name]
    if name.endswith(("_ci_low", "_ci_high")) or name in _UNNAMED:
        return False
    if name in STRATUM and column.nunique() < 2:
        return False
    return bool((column.notna() & (column.astype(str) != "")).any())


def _cell(row: Mapping[Any, Any], name: str) -> Cell:
    value = row[name]
    if name == "estimator":
        return Cell(estimator_name(str(value)))
    if isinstance(value, str) or value is None:
        return words(value)
    if name == "p" or name.startswith("p_") or "_p_" in name or name.endswith("_p"):
        return p_value(value)
    if f"{name}_ci_low" in row:
        return interval(row, name, _digits(value), sign=False)
    value = _float(value)
    if not math.isfinite(value):
        return Cell(NOT_TO_BE_HAD)
    return number(value, 0 if value.is_integer() and abs(value) < 1e6 else _digits(value))


def _digits(value: Any) -> int:
    """Decimal places that leave three digits."""
    value = abs(_float(value))
    return 2 if not value or not math.isfinite(value) else min(max(2 - math.floor(math.log10(value)), 0), 4)


def stratum_of(row: Mapping[Any, Any]) -> str:
    """The stratum of a row in print."""
    return heading(row)
