"""The tables of a cohort: one row per participant, region, estimator and reference, gathered from the derivatives."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ENTITIES: Final[dict[str, str]] = {
    "sub": "participant_id",
    "ses": "session_id",
    "acq": "acquisition",
    "rec": "reconstruction",
    "run": "run",
    "seg": "atlas",
}
"""Entities of a table's file name and the columns that they become."""

NUMBERS: Final[tuple[str, ...]] = (
    "index", "n_voxels", "volume_mm3", "coverage", "tsc", "tsc_stderr_within", "tsc_stderr", "tsc_ci_low",
    "tsc_ci_high", "tsc_sd", "tsc_median", "gm_fraction", "wm_fraction", "csf_fraction", "spill_in_fraction",
    "csf_signal_fraction", "asymmetry", "asymmetry_stderr", "mirror_ratio", "mirror_ratio_stderr",
)  # fmt: skip
"""Columns of the regional table that hold numbers; all others stay the text they are."""

_KEY: Final = ("name", "hemisphere", "estimator", "reference")
_NEEDED: Final = (*_KEY, "tsc")
_RISKY: Final = re.compile(r"^[=+\-@\t\r]")

DESCRIPTIONS: Final[dict[str, dict[str, str]]] = {
    "participant_id": {"Description": "Participant"},
    "session_id": {"Description": "Session"},
    "acquisition": {"Description": "Entity acq of the sodium image"},
    "reconstruction": {"Description": "Entity rec of the sodium image"},
    "run": {"Description": "Entity run of the sodium image"},
    "atlas": {"Description": "Atlas that the regions belong to"},
    "index": {"Description": "Label of the region in the atlas"},
    "name": {"Description": "Name of the region"},
    "hemisphere": {"Description": "Side of the brain", "Levels": "L, R, both"},
    "tissue": {"Description": "Tissue that the region consists of"},
    "estimator": {
        "Description": "Partial volume correction",
        "Levels": "none, labbe, gtm, joint, kspace, mg, iy, mlts",
    },
    "reference": {"Description": "What the concentration was calibrated by"},
    "n_voxels": {"Description": "Voxels of the region"},
    "volume_mm3": {"Description": "Volume of the region", "Units": "mm^3"},
    "coverage": {"Description": "Fraction of the region inside the sodium image"},
    "tsc": {"Description": "Total sodium concentration", "Units": "mmol/L"},
    "tsc_stderr_within": {
        "Description": "Standard error without the calibration error that all regions share",
        "Units": "mmol/L",
    },
    "tsc_stderr": {"Description": "Standard error with all sources of error", "Units": "mmol/L"},
    "tsc_ci_low": {"Description": "Low end of the 95 % interval", "Units": "mmol/L"},
    "tsc_ci_high": {"Description": "High end of the 95 % interval", "Units": "mmol/L"},
    "tsc_sd": {"Description": "Standard deviation over the voxels of the region", "Units": "mmol/L"},
    "tsc_median": {"Description": "Median over the voxels of the region", "Units": "mmol/L"},
    "gm_fraction": {"Description": "Grey matter in the region"},
    "wm_fraction": {"Description": "White matter in the region"},
    "csf_fraction": {"Description": "CSF in the region"},
    "spill_in_fraction": {"Description": "Part of the region's signal that stems from other regions"},
    "csf_signal_fraction": {"Description": "Part of the region's signal that stems from CSF"},
    "asymmetry": {"Description": "200 (L - R) / (L + R), the same in the rows of both sides", "Units": "percent"},
    "asymmetry_stderr": {"Description": "Its standard error", "Units": "percent"},
    "mirror_ratio": {"Description": "Rows of a lesion: TSC over that of what lies opposite"},
    "mirror_ratio_stderr": {"Description": "Its standard error"},
    "flag": {"Description": "Why a value needs care"},
    "state": {"Description": "Whether the participant was processed", "Levels": "done, refused, failed, missing"},
    "reason": {"Description": "Why a participant failed or is missing"},
    "qc": {"Description": "Worst verdict of the quality metrics", "Levels": "pass, warn, fail, info"},
}


@dataclass(frozen=True)
class Cohort:
    """What the group level works on.

    Attributes
    ----------
    tsc
        Long table: entity columns, then the columns of the regional tables. Empty but with columns if there is none.
    participants
        One row per participant: ``participant_id``, the columns of participants.tsv as text, ``state`` (done,
        refused, failed, missing), ``reason``, ``qc``. Missing text is an empty string.
    sessions
        Rows of all sessions.tsv files, with ``participant_id`` and ``session_id``.
    notes
        What a reader of the tables must know.
    """

    tsc: pd.DataFrame
    participants: pd.DataFrame
    sessions: pd.DataFrame
    notes: tuple[str, ...] = ()


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


def parse_entities(name: str) -> dict[str, str]:
    """Columns of :data:`ENTITIES` from a file name; empty text where an entity is absent."""
    found = dict(part.split("-", 1) for part in name.split(".")[0].split("_") if "-" in part)
    return {column: found.get(key, "") for key, column in ENTITIES.items()}


def gather(out_dir: Path, bids_dir: Path | None = None) -> Cohort:
    """Read the regional tables of all participants, and who they are.

    Parameters
    ----------
    out_dir
        Derivatives: ``sub-*/[ses-*/]anat/*_tsc.tsv``, ``*_qc.json`` beside them, ``logs/status.json``.
    bids_dir
        Data set with participants.tsv and sessions.tsv; without it nobody is missing and there are no groups.

    Raises
    ------
    InputError
        If a table cannot be read, or participants.tsv lists somebody twice.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    columns: list[str] = [*ENTITIES.values()]
    seen: set[tuple[str, ...]] = set()
    for path in sorted(_anat_files(out_dir, "*_tsc.tsv")):
        entities = parse_entities(path.name)
        table = read_tsv(path)
        if table and (absent := [name for name in _NEEDED if name not in table[0]]):
            raise InputError(path, f"lacks the columns {', '.join(absent)}", "Process this participant again")
        _refuse_repeated_rows(entities, table, seen, path)
        rows += [entities | row | _numbers(row, path) for row in table]
        columns += [name for name in (table[0] if table else ()) if name not in columns]
    columns += [name for name in _NEEDED if name not in columns]
    frame = pd.DataFrame(rows, columns=columns)
    texts = [name for name in columns if name not in NUMBERS]
    frame[texts] = frame[texts].astype(object).fillna("")
    people, notes = _participants(out_dir, bids_dir, sorted(set(frame["participant_id"])))
    return Cohort(frame, people, _sessions(bids_dir), notes)


def _refuse_repeated_rows(
    entities: Mapping[str, str], table: Sequence[Mapping[str, str]], seen: set[tuple[str, ...]], path: Path
) -> None:
    for row in table:
        key = (*entities.values(), *(row[name] for name in _KEY))
        if key in seen:
            problem = (
                f"has the region {row['name']} ({row['hemisphere']}) twice by {row['estimator']}, {row['reference']}"
            )
            mend = "Give each label of the atlas a name of its own, and process this participant again"
            raise InputError(path, problem, mend)
        seen.add(key)


def _anat_files(out_dir: Path, pattern: str) -> list[Path]:
    return [*out_dir.glob(f"sub-*/anat/{pattern}"), *out_dir.glob(f"sub-*/ses-*/anat/{pattern}")]


def _numbers(row: Mapping[str, str], path: Path) -> dict[str, float]:
    """The cells of a row that are numbers; missing ones are nan."""
    values = {}
    for name in NUMBERS:
        if name in row:
            try:
                values[name] = float(row[name]) if row[name] else float("nan")
            except ValueError:
                raise InputError(path, f"column {name} holds {row[name]!r}", "Process this participant again") from None
    return values


def _participants(
    out_dir: Path, bids_dir: Path | None, measured: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    import pandas as pd

    path = bids_dir / "participants.tsv" if bids_dir else None
    listed: dict[str, dict[str, str]] = {}
    for row in read_tsv(path) if path and path.exists() else []:
        if "participant_id" not in row:
            raise InputError(path, "has no column participant_id", "Add it")
        label = row["participant_id"].removeprefix("sub-")
        if label in listed:
            raise InputError(path, f"lists participant {label} more than once", "Keep one row for each participant")
        listed[label] = row | {"participant_id": label}
    status = _status(out_dir)
    folders = {p.name[4:] for p in bids_dir.glob("sub-*") if p.is_dir()} if bids_dir else set()
    verdicts = _verdicts(out_dir)
    people = []
    for label in sorted({*listed, *measured, *status, *folders}):
        state, reason = status.get(label, ("", ""))
        if label in measured:
            state = "done"  # another session may have failed; the reason then says so
        elif not state or state == "done":
            state, reason = "missing", "has no regional table" if label in folders else "not in the data set"
        here = {"participant_id": label, "state": state, "reason": reason, "qc": verdicts.get(label, "info")}
        people.append(listed.get(label, {}) | here)
    columns = list(dict.fromkeys(["participant_id", *(k for row in listed.values() for k in row)]))
    columns += [name for name in ("state", "reason", "qc") if name not in columns]
    notes = []
    if bids_dir and listed and (unlisted := [label for label in measured if label not in listed]):
        notes.append(f"Not in participants.tsv, so in no group: {', '.join(unlisted)}.")
    if absent := [str(row["participant_id"]) for row in people if row["state"] != "done"]:
        notes.append(f"Without results: {', '.join(absent)}.")
    return pd.DataFrame(people, columns=columns, dtype=object).fillna(""), tuple(notes)


def _status(out_dir: Path) -> dict[str, tuple[str, str]]:
    """State and reason of every participant of ``logs/status.json``, the worst of the sessions; empty without the file.

    The messages of all sessions that did not end well are joined.
    """
    path = out_dir / "logs" / "status.json"
    if not path.exists():
        return {}
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        found: dict[str, tuple[str, str]] = {}
        for _, one in sorted(sessions.items()):
            label, state = str(one["participant"]), str(one["state"])
            earlier, reason = found.get(label, ("done", ""))
            where = f"ses-{one['session']}: " if one.get("session") else ""
            message = "" if state == "done" else f"{where}{one.get('message') or state}"
            worst = max(earlier, state, key=("done", "refused", "failed").index)
            found[label] = worst, " ".join(filter(None, (reason, message)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"does not hold the states of participants ({type(error).__name__}: {error})"
        raise InputError(path, problem, "Delete it and process the participants again") from error
    return found


def _verdicts(out_dir: Path) -> dict[str, str]:
    """Worst verdict of each participant's ``*_qc.json`` files."""
    order = ("info", "pass", "warn", "fail")
    worst: dict[str, str] = {}
    for path in sorted(_anat_files(out_dir, "*_qc.json")):
        try:
            verdict = str(json.loads(path.read_text(encoding="utf-8")).get("Verdict", "info"))
        except (ValueError, AttributeError) as error:
            raise InputError(path, f"is not a record of quality metrics ({error})", "Process it again") from error
        label = parse_entities(path.name)["participant_id"]
        if verdict in order:
            worst[label] = max(worst.get(label, "info"), verdict, key=order.index)
    return worst


def _sessions(bids_dir: Path | None) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for path in sorted(bids_dir.glob("sub-*/sub-*_sessions.tsv")) if bids_dir else []:
        label = parse_entities(path.name)["participant_id"]
        for row in read_tsv(path):
            if "session_id" not in row:
                raise InputError(path, "has no column session_id", "Add it")
            rows.append(row | {"participant_id": label, "session_id": row["session_id"].removeprefix("ses-")})
    columns = list(dict.fromkeys(["participant_id", "session_id", *(name for row in rows for name in row)]))
    return pd.DataFrame(rows, columns=columns, dtype=object).fillna("")


def wide_table(cohort: Cohort) -> pd.DataFrame:
    """One row per scan and one column per region, hemisphere, estimator and reference, values in mM.

    Columns are called ``<name>_<hemisphere>_<estimator>_<reference>``.
    """
    frame = cohort.tsc
    keys = list(ENTITIES.values())
    label = frame[_KEY[0]].astype(str)
    for part in _KEY[1:]:
        label = label + "_" + frame[part].astype(str)
    wide = frame.assign(column=label).pivot(index=keys, columns="column", values="tsc")
    return wide[list(dict.fromkeys(label))].reset_index().rename_axis(columns=None)


def to_tsv(frame: pd.DataFrame) -> str:
    """A table as BIDS text: ``n/a`` for missing values, numbers in full.

    Text that a spreadsheet would run as a formula gets a leading apostrophe, and tabs and line breaks become spaces.
    """
    lines = ["\t".join(_cell(str(name)) for name in frame.columns)]
    lines += ["\t".join(_cell(value) for value in row) for row in frame.itertuples(index=False, name=None)]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, str):
        text = " ".join(value.split("\t")).replace("\r", " ").replace("\n", " ")
        return ("'" + text if _RISKY.match(value) else text) or "n/a"
    if value is None or value != value:
        return "n/a"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.10g}"
    return str(value)


def data_dictionary(frame: pd.DataFrame, descriptions: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """JSON text that describes the columns of a table."""
    known = {**DESCRIPTIONS, **(descriptions or {})}
    record = {
        name: dict(known.get(name, {"Description": "As in participants.tsv"})) for name in map(str, frame.columns)
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
