"""Tables of results as the group page prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sodium_prep.report.group_results import estimator_name, heading
from sodium_prep.report.page import Cell, DataTable

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS: Final = 400
"""Rows of a table on the page; the file of the same table holds all."""

NOT_TO_BE_HAD: Final = "n/a"


def words(value: Any) -> Cell:
    """Text as it is; missing text is left empty."""
    return Cell("" if value is None or value != value else str(value))


def number(value: Any, digits: int, sign: bool = False) -> Cell:
    """A number with so many decimal places."""
    value = _float(value)
    return Cell(_printed(value, digits, sign), value) if math.isfinite(value) else Cell(NOT_TO_BE_HAD)


def interval(row: Mapping[Any, Any], name: str, digits: int, sign: bool = True) -> Cell:
    """The value of a column with its interval, such as ``+5.2 [1.1, 9.3]``; sorted by the value."""
    value, low, high = (_float(row.get(key)) for key in (name, f"{name}_ci_low", f"{name}_ci_high"))
    if not math.isfinite(value):
        return Cell(NOT_TO_BE_HAD)
    ends = f" [{_printed(low, digits)}, {_printed(high, digits)}]" if math.isfinite(low) and math.isfinite(high) else ""
    return Cell(_printed(value, digits, sign) + ends, value)


def _printed(value: float, digits: int, sign: bool = False) -> str:
    """A finite number with a true minus sign, and none before a zero."""
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", "\u2212")


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


def frame_table(frame: pd.DataFrame, *, heading: str = "", caption: str = "") -> DataTable:
    """A table of results in print.

    Intervals stand behind their value, p values as such, other numbers with three digits. Columns without content are
    left out; texts that are the same in all rows stand in the caption. Of more than :data:`MAX_ROWS` rows the first
    stand here, and the caption says so.
    """
    frame = _named_ends(frame)
    shown = [str(name) for name in frame.columns if _shown(frame, str(name))]
    same = [name for name in shown[1:] if len(frame) > 1 and frame[name].nunique() == 1 and _is_text(frame, name)]
    if same:
        first = frame.iloc[0].to_dict()
        caption += f" In all rows: {', '.join(f'{_title(name)} {_cell(first, name).text}' for name in same)}."
    if len(frame) > MAX_ROWS:
        caption += f" The first {MAX_ROWS} of {len(frame)} rows; the file holds all."
    columns = [name for name in shown if name not in same]
    rows = [[_cell(row, name) for name in columns] for row in frame.head(MAX_ROWS).to_dict("records")]
    return DataTable(caption.strip(), [_title(name) for name in columns], rows, heading)


def _named_ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Plain ``ci_low`` and ``ci_high`` belong to the column before them."""
    names = list(map(str, frame.columns))
    if "ci_low" not in names[1:]:
        return frame
    value = names[names.index("ci_low") - 1]
    return frame.rename(columns={"ci_low": f"{value}_ci_low", "ci_high": f"{value}_ci_high"})


_ABBREVIATIONS: Final = {
    "icc": "ICC",
    "cov": "CoV",
    "mdc": "MDC",
    "auc": "AUC",
    "tsc": "TSC",
    "sd": "SD",
    "fdr": "(FDR)",
}


def _title(name: str) -> str:
    """A column's name in print."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in name.split("_"))


def _is_text(frame: pd.DataFrame, name: str) -> bool:
    return all(isinstance(value, str) for value in frame[name])


def _shown(frame: pd.DataFrame, name: str) -> bool:
    column = frame[name]
    if name.endswith(("_ci_low", "_ci_high")):
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
    return 2 if not 0 < value < math.inf or 0.1 <= value < 1 else min(max(2 - math.floor(math.log10(value)), 0), 4)


def stratum_of(row: Mapping[Any, Any]) -> str:
    """The stratum of a row in print."""
    return heading(row)
