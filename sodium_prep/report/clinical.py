"""Left against right, a lesion against the other side, weighted signal: tables for the participant's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sodium_prep.quant.weighted import CAUTION

_LESION_ROWS: Final = {
    "Lesion": "Lesion",
    "LesionRimGM": "Rim, grey matter",
    "LesionRimWM": "Rim, white matter",
    "LesionMirrorGM": "Mirror image, grey matter",
    "LesionMirrorWM": "Mirror image, white matter",
}
_NOT_COMPARED: Final = "Sulcal-CSF"


def clinical_tables(table: Sequence[Mapping[str, Any]], primary: str | None) -> list[dict[str, Any]]:
    """Tables of what there is, as JSON: ``caption``, ``columns`` and ``rows`` of text.

    Parameters
    ----------
    table
        Rows of the regional table.
    primary
        The reference to show.
    """
    estimator = "labbe" if any(row["estimator"] == "labbe" for row in table) else "none"
    rows = {
        (str(row["name"]), str(row["hemisphere"])): row
        for row in table
        if not np.isfinite(_number(row["index"])) and (row["estimator"], row["reference"]) == (estimator, primary)
    }
    how = f"{'Corrected for' if estimator == 'labbe' else 'Not corrected for'} partial volume, calibrated by {primary}."
    return [found for found in (_lesion(rows, how), _sides(rows, how)) if found["rows"]]


def relative_tables(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of a weighted image, if it is one, in the form of :func:`clinical_tables`."""
    rows = facts.get("relative", ())
    if not rows:
        return []
    reference = f"{rows[0]['reference_region']} of both sides"
    caption = f"Mean signal over that of {reference}, ± standard error; not corrected for partial volume. {CAUTION}"
    printed = [
        [
            str(row["name"]) + ("" if row["hemisphere"] == "both" else f" {row['hemisphere']}"),
            _with_error(row["relative_signal"], row["relative_stderr"], 2),
            "" if row["flag"] == "ok" else str(row["flag"]),
        ]
        for row in rows
    ]
    return [{"caption": caption, "columns": ["Region", "Relative signal", "Flags"], "rows": printed}]


def _lesion(rows: Mapping[tuple[str, str], Mapping[str, Any]], how: str) -> dict[str, Any]:
    found = [(words, rows[name, "both"]) for name, words in _LESION_ROWS.items() if (name, "both") in rows]
    caption = (
        "Lesion, the brain tissue within 5 mm of it (rim), and what lies opposite (mirror image). Ratio of the lesion "
        "to both tissues of the mirror image by volume, of the rim to the same tissue; ± standard error, in which the "
        "calibration cancels. The relaxation of the lesion is taken to be that of grey matter. " + how
    )
    printed = [
        [
            words,
            f"{_number(row['volume_mm3']) / 1000.0:.1f} ml",
            _with_interval(row),
            "" if "Mirror" in row["name"] else _with_error(row["mirror_ratio"], row["mirror_ratio_stderr"], 2),
            "" if row["flag"] == "ok" else str(row["flag"]),
        ]
        for words, row in found
    ]
    columns = ["Lesion", "Volume", "TSC, mM, 95 % interval", "Ratio to the mirror image", "Flags"]
    return {"caption": caption, "columns": columns, "rows": printed}


def _sides(rows: Mapping[tuple[str, str], Mapping[str, Any]], how: str) -> dict[str, Any]:
    caption = (
        "Left against right: asymmetry index 200 (L - R) / (L + R) with its standard error, in which calibration and "
        "whatever else both sides share cancel. Errors of the labels are not in it, and healthy brains are "
        "not symmetric either. " + how
    )
    printed = [
        [name, _with_interval(left), _with_interval(right), _with_error(left["asymmetry"], left["asymmetry_stderr"], 1)]
        for (name, side), left in rows.items()
        if side == "L" and name != _NOT_COMPARED and (right := rows.get((name, "R"))) is not None
    ]
    return {"caption": caption, "columns": ["Region", "Left, mM", "Right, mM", "Asymmetry, %"], "rows": printed}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _with_interval(row: Mapping[str, Any]) -> str:
    tsc, low, high = (_number(row[key]) for key in ("tsc", "tsc_ci_low", "tsc_ci_high"))
    if not np.isfinite(tsc):
        return "n/a"
    return f"{tsc:.1f} [{low:.1f}, {high:.1f}]" if np.isfinite([low, high]).all() else f"{tsc:.1f} [n/a]"


def _with_error(value: Any, stderr: Any, digits: int) -> str:
    found, sd = _number(value), _number(stderr)
    return f"{found:.{digits}f} ± {sd:.{digits}f}" if np.isfinite([found, sd]).all() else "n/a"
