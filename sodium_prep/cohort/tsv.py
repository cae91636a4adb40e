"""BIDS tables as text: read without guessing, written so that no cell becomes a formula."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_RISKY: Final = re.compile(r"^[=+\-@\t\r]")


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Rows of a BIDS table as text: ``001`` keeps its zeros, ``NA`` is a label, and only ``n/a`` becomes empty.

    Raises
    ------
    InputError
        If the file is not UTF-8 text, or a line has too many or too few cells.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read as UTF-8 text ({error})", "Save the table as UTF-8") from error
    rows = [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    if not rows:
        return []
    header = [cell.strip() for cell in rows[0]]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(path, f"has the column {', '.join(repeated)} more than once", "Keep one of them")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            problem = f"has {len(row)} cells in line {number} where the header has {len(header)}"
            raise InputError(path, problem, "Separate the cells by tabs and write n/a for missing ones")
    cells = [[cell.strip() for cell in row] for row in rows[1:]]
    return [{k: "" if v == "n/a" else v for k, v in zip(header, row, strict=True)} for row in cells]


def to_tsv(frame: pd.DataFrame) -> str:
    """A table as BIDS text: ``n/a`` for missing values, numbers in full.

    Text that a spreadsheet would run as a formula gets a leading apostrophe, and tabs and line breaks become spaces.
    """
    return "".join(tsv_chunks(frame))


def tsv_chunks(frame: pd.DataFrame, rows: int = 50_000) -> Iterator[str]:
    """The text of :func:`to_tsv` in pieces, header first, so that a long table is never in memory as text."""
    yield "\t".join(_cell(str(name)) for name in frame.columns) + "\n"
    for start in range(0, len(frame), rows):
        part = frame.iloc[start : start + rows]
        columns = [_cells(part.iloc[:, i]) for i in range(part.shape[1])]
        yield "\n".join(map("\t".join, zip(*columns, strict=True))) + "\n"


def _cells(column: pd.Series[Any]) -> list[str]:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        texts = [_cell(text) for text in column.cat.categories]
        return [texts[code] if code >= 0 else "n/a" for code in column.cat.codes.tolist()]
    return [_cell(value) for value in column.tolist()]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.10g}" if value == value else "n/a"
    if isinstance(value, str):
        text = " ".join(value.split("\t")).replace("\r", " ").replace("\n", " ")
        return ("'" + text if _RISKY.match(value) else text) or "n/a"
    return "n/a" if value is None or value != value else str(value)
