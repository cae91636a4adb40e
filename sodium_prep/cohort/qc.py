"""Quality control across a cohort: every metric against those of its peers, and what raters decided.

A scan is told by :data:`SCAN`. A rater's verdict goes before that of the metrics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.cohort.names import parse_entities
from sodium_prep.cohort.tables import Cohort
from sodium_prep.cohort.tsv import read_tsv
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCAN: Final[tuple[str, ...]] = ("participant_id", "session_id", "acquisition", "reconstruction", "run")
"""Columns that tell one scan from another."""

QC_COLUMNS: Final[dict[str, str]] = {
    "participant_id": "Participant",
    "session_id": "Session",
    "acquisition": "Entity acq of the sodium image",
    "reconstruction": "Entity rec of the sodium image",
    "run": "Entity run of the sodium image",
    "site": "Site of the participant or session",
    "metric": "Name of the metric",
    "label": "The metric in words",
    "unit": "Unit of the value",
    "value": "Value of the metric",
    "verdict": "Verdict of its limits: pass, warn, fail, or info where there are none",
    "threshold": "The limits",
    "z": "Robust z among the peers: 0.6745 (value - median) / median absolute deviation",
    "peers": "What the value was compared with: the site, or all",
    "n_peers": "Number of peers with a value, this one included",
    "outlier": "yes where |z| exceeds 3.5, n/a where there are too few peers",
}
"""Columns of the long table of metrics."""

VERDICT_COLUMNS: Final[dict[str, str]] = {
    "participant_id": "Participant",
    "session_id": "Session",
    "acquisition": "Entity acq of the sodium image",
    "reconstruction": "Entity rec of the sodium image",
    "run": "Entity run of the sodium image",
    "automatic": "Worst verdict of the metrics",
    "rated": "Verdict of the raters, n/a where there is none",
    "raters": "Who rated",
    "final": "The verdict that holds: that of the raters, otherwise that of the metrics",
    "reason": "What the raters wrote, or the metrics that are not passed",
}
"""Columns of the table of scans."""

VERDICTS: Final[tuple[str, ...]] = ("info", "pass", "warn", "fail")
"""From the mildest to the worst; ``info`` judges nothing."""

OUTLIER_Z: Final = 3.5
MIN_PEERS: Final = 5
MIN_SITE: Final = 10
CONSENSUS: Final = "consensus"
_RATINGS: Final = ("participant_id", "session_id", "run", "verdict", "rater", "comment")


def robust_z(values: ArrayLike) -> NDArray[np.float64]:
    """Distance from the median in robust standard deviations (Iglewicz and Hoaglin, ASQC Basic References 16, 1993).

    ``0.6745 (x - median) / MAD``; where more than half of the values are equal, MAD is zero and the mean absolute
    deviation takes its place, times sqrt(pi/2), its ratio to the standard deviation of a normal distribution.

    Parameters
    ----------
    values
        Shape (n,); not finite where there is none.

    Returns
    -------
    Shape (n,): nan where the value is, and everywhere if there are fewer than :data:`MIN_PEERS` values; zero where all
    values are equal.
    """
    x = np.asarray(values, dtype=float)
    z = np.full(x.shape, np.nan)
    there = np.isfinite(x)
    if np.count_nonzero(there) < MIN_PEERS:
        return z
    centre = float(np.median(x[there]))
    distance = x[there] - centre
    rounding = 1e-9 * max(abs(centre), float(np.abs(x[there]).max()))
    scale = float(np.median(np.abs(distance))) / 0.6745
    if scale <= rounding:
        scale = float(np.abs(distance).mean()) * math.sqrt(math.pi / 2)
    z[there] = distance / scale if scale > rounding else 0.0
    return z


def read_metrics(out_dir: Path) -> pd.DataFrame:
    """The metrics of all ``*_qc.json`` files below a folder of derivatives.

    Returns
    -------
    One row per scan and metric: :data:`SCAN`, metric, label, unit, value (nan where there is none), verdict, threshold.

    Raises
    ------
    InputError
        If a file does not hold metrics.
    """
    import pandas as pd

    rows = []
    for path in sorted([*out_dir.glob("sub-*/anat/*_qc.json"), *out_dir.glob("sub-*/ses-*/anat/*_qc.json")]):
        entities = parse_entities(path.name)
        scan = {name: entities[name] for name in SCAN}
        rows += [scan | metric for metric in _metrics(path)]
    columns = [*SCAN, "metric", "label", "unit", "value", "verdict", "threshold"]
    return pd.DataFrame(rows, columns=columns).astype({"value": float})


def _metrics(path: Path) -> list[dict[str, Any]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))["Metrics"]
        return [_metric(str(name), entry) for name, entry in record.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        problem = f"is not a record of quality metrics ({type(error).__name__}: {error})"
        raise InputError(path, problem, "Process this participant again") from error


def _metric(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    verdict, value = entry["verdict"], entry["value"]
    if verdict not in VERDICTS:
        raise ValueError(f"{name} has the verdict {verdict!r}")
    return {
        "metric": name, "label": str(entry.get("label") or name), "unit": str(entry.get("unit") or ""),
        "value": math.nan if value is None else float(value), "verdict": verdict,
        "threshold": str(entry.get("threshold") or ""),
    }  # fmt: skip


def cohort_qc(metrics: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Every metric against those of the same acquisition and reconstruction.

    The peers are the scans of the same site where at least :data:`MIN_SITE` of them have the metric, otherwise all.

    Parameters
    ----------
    metrics
        From :func:`read_metrics`.
    cohort
        Whose participants or sessions may have a column ``site``.

    Returns
    -------
    Table of :data:`QC_COLUMNS`, rows as in ``metrics``.
    """
    site = _sites(metrics, cohort)
    table = metrics.assign(site=site, z=np.nan, peers="all", n_peers=0)
    for _, part in table.groupby(["metric", "acquisition", "reconstruction"], sort=False):
        there = part[np.isfinite(part["value"])]
        table.loc[part.index, "z"] = robust_z(part["value"])
        table.loc[part.index, "n_peers"] = len(there)
        for name, n in there["site"].value_counts().items():
            if name and n >= MIN_SITE:
                here = part.index[part["site"] == name]
                table.loc[here, "z"] = robust_z(part.loc[here, "value"])
                table.loc[here, "peers"] = name
                table.loc[here, "n_peers"] = n
    judged = np.isfinite(table["z"])
    table["outlier"] = np.where(judged, np.where(table["z"].abs() > OUTLIER_Z, "yes", "no"), "")
    return table[list(QC_COLUMNS)]


def _sites(metrics: pd.DataFrame, cohort: Cohort) -> list[str]:
    people, sessions = cohort.participants, cohort.sessions
    own = dict(zip(people["participant_id"], people["site"], strict=True)) if "site" in people else {}
    at = (
        dict(zip(zip(sessions["participant_id"], sessions["session_id"], strict=True), sessions["site"], strict=True))
        if "site" in sessions
        else {}
    )
    return [
        str(at.get((label, session)) or own.get(label, ""))
        for label, session in zip(metrics["participant_id"], metrics["session_id"], strict=True)
    ]


def scan_verdicts(metrics: pd.DataFrame, tsc: pd.DataFrame) -> pd.DataFrame:
    """The worst verdict of each scan's metrics.

    Parameters
    ----------
    metrics
        From :func:`read_metrics`.
    tsc
        The gathered regional tables; a scan in them without metrics is ``info``.

    Returns
    -------
    :data:`SCAN`, ``automatic``, and ``reason``: the metrics that fail, or otherwise those that warn.
    """
    import pandas as pd

    found: dict[tuple[str, ...], dict[str, list[str]]] = {
        tuple(map(str, scan)): {} for scan in tsc[list(SCAN)].drop_duplicates().itertuples(index=False)
    }
    for *scan, verdict, label in metrics[[*SCAN, "verdict", "label"]].itertuples(index=False):
        found.setdefault(tuple(scan), {}).setdefault(verdict, []).append(label)
    rows = []
    for key, verdicts in sorted(found.items()):
        worst = _worst(verdicts)
        rows.append([*key, worst, ", ".join(verdicts[worst]) if worst in ("warn", "fail") else ""])
    return pd.DataFrame(rows, columns=[*SCAN, "automatic", "reason"], dtype=object)


def _worst(verdicts: Iterable[str]) -> str:
    return max(verdicts, key=VERDICTS.index, default="info")


def rating_file(out_dir: Path) -> Path | None:
    """The raters' table: ``qc.tsv`` in the derivatives or in their folder ``group``.

    Raises
    ------
    InputError
        If there are both.
    """
    found = [path for path in (out_dir / "qc.tsv", out_dir / "group" / "qc.tsv") if path.exists()]
    if len(found) > 1:
        raise InputError(found[1], f"is a second table of verdicts beside {found[0]}", "Keep one of them")
    return found[0] if found else None


def rater_verdicts(path: Path) -> pd.DataFrame:
    """Verdicts of raters.

    Parameters
    ----------
    path
        Table with ``participant_id`` and ``verdict`` (pass, warn, fail), and if need be ``session_id``, ``run``,
        ``rater``, ``comment``. A row without session or run speaks of all of them.

    Returns
    -------
    These six columns as text, labels without prefix.

    Raises
    ------
    InputError
        If a column is missing or a verdict unknown.
    """
    import pandas as pd

    rows = read_tsv(path)
    if rows and (absent := [name for name in ("participant_id", "verdict") if name not in rows[0]]):
        raise InputError(path, f"lacks the column {' and '.join(absent)}", "Add it")
    for number, row in enumerate(rows, start=2):
        row["verdict"] = row["verdict"].lower()
        if row["verdict"] not in VERDICTS[1:]:
            problem = f"has the verdict {row['verdict']!r} in row {number}"
            raise InputError(path, problem, "Write pass, warn or fail")
        for name, prefix in (("participant_id", "sub-"), ("session_id", "ses-"), ("run", "run-")):
            row[name] = row.get(name, "").removeprefix(prefix)
    return pd.DataFrame([{name: row.get(name, "") for name in _RATINGS} for row in rows], columns=list(_RATINGS))


def final_verdicts(scans: pd.DataFrame, ratings: pd.DataFrame | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The verdict that holds for each scan.

    Of several ratings of a scan the worst counts, but where the rater ``consensus`` has spoken, nobody else does.

    Parameters
    ----------
    scans
        From :func:`scan_verdicts`.
    ratings
        From :func:`rater_verdicts`.

    Returns
    -------
    Table of :data:`VERDICT_COLUMNS`, and a note on every rating of no known scan.
    """
    import pandas as pd

    by_person: dict[str, list[dict[str, str]]] = {}
    used: set[int] = set()
    given = [] if ratings is None else [{str(k): str(v) for k, v in row.items()} for row in ratings.to_dict("records")]
    for number, row in enumerate(given):
        by_person.setdefault(row["participant_id"], []).append(row | {"number": str(number)})
    rows = []
    for scan in scans.to_dict("records"):
        here = [r for r in by_person.get(scan["participant_id"], ()) if _speaks_of(r, scan)]
        used |= {int(r["number"]) for r in here}
        rows.append(scan | _decided(here, scan["automatic"], scan["reason"]))
    notes = [
        f"The rating of {_name(row)} fits no scan with results and has no effect."
        for number, row in enumerate(given)
        if number not in used
    ]
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS), dtype=object), notes


def _speaks_of(rating: Mapping[str, str], scan: Mapping[Any, Any]) -> bool:
    return all(rating[name] in ("", scan[name]) for name in ("session_id", "run"))


def _decided(ratings: Sequence[Mapping[str, str]], automatic: str, reason: str) -> dict[str, str]:
    counted = [r for r in ratings if r["rater"].lower() == CONSENSUS] or list(ratings)
    if not counted:
        return {"rated": "", "raters": "", "final": automatic, "reason": reason}
    final = _worst(r["verdict"] for r in counted)
    said = list(dict.fromkeys(r["comment"] for r in counted if r["verdict"] == final and r["comment"]))
    raters = list(dict.fromkeys(r["rater"] for r in counted if r["rater"]))
    return {
        "rated": final, "raters": ", ".join(raters), "final": final,
        "reason": "; ".join(said) or ("" if final == "pass" else "rated so, without a comment"),
    }  # fmt: skip


def _name(row: Mapping[str, str]) -> str:
    parts = (("sub-", "participant_id"), ("ses-", "session_id"), ("run-", "run"))
    return " ".join(prefix + row[name] for prefix, name in parts if row[name])


def failed_scans(verdicts: pd.DataFrame, levels: Collection[str] = ("fail",)) -> pd.DataFrame:
    """Scans whose final verdict is one of ``levels``, with the reason; they enter no model."""
    return verdicts[verdicts["final"].isin(list(levels))].reset_index(drop=True)


def without_scans(tsc: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """The gathered regional tables without the rows of some scans."""
    import pandas as pd

    out = set(scans[list(SCAN)].itertuples(index=False, name=None))
    kept = [tuple(map(str, key)) not in out for key in tsc[list(SCAN)].itertuples(index=False, name=None)]
    return tsc[pd.Series(kept, index=tsc.index, dtype=bool)].reset_index(drop=True)


@dataclass(frozen=True)
class Quality:
    """Quality control of a cohort.

    Attributes
    ----------
    metrics, verdicts
        From :func:`cohort_qc` and :func:`final_verdicts`.
    excluded
        Rows of ``verdicts`` that enter no analysis.
    rated
        Whether somebody has looked at the scans and written it down.
    notes
        On ratings of scans that are not there.
    """

    metrics: pd.DataFrame
    verdicts: pd.DataFrame
    excluded: pd.DataFrame
    rated: bool
    notes: tuple[str, ...] = ()


def assess_quality(cohort: Cohort, out_dir: Path, levels: Collection[str] = ("fail",)) -> Quality:
    """Metrics and verdicts of all scans below a folder of derivatives, and which of them to leave out.

    Parameters
    ----------
    levels
        Verdicts that leave a scan out.

    Raises
    ------
    InputError
        If a record of metrics or the table of ratings cannot be used.
    """
    metrics = read_metrics(out_dir)
    path = rating_file(out_dir)
    verdicts, notes = final_verdicts(scan_verdicts(metrics, cohort.tsc), rater_verdicts(path) if path else None)
    excluded = failed_scans(verdicts, levels)
    return Quality(cohort_qc(metrics, cohort), verdicts, excluded, path is not None, tuple(notes))
