"""Who is in a cohort: participants, sessions, what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sodium_prep.cohort.names import anat_files, parse_entities
from sodium_prep.cohort.tsv import read_tsv
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def read_people(
    out_dir: Path, bids_dir: Path | None, measured: Sequence[str], problems: Mapping[str, str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Everybody of participants.tsv, the data set's folders, the tables and the status file, with state and reason.

    Parameters
    ----------
    measured
        Those whose tables were read.
    problems
        Why those of others could not be.

    Returns
    -------
    One row per participant, and what a reader of the tables must know.
    """
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
    status = _status(out_dir) | {label: ("failed", problem) for label, problem in problems.items()}
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
    for path in sorted(anat_files(out_dir, "*_qc.json")):
        try:
            verdict = str(json.loads(path.read_text(encoding="utf-8")).get("Verdict", "info"))
        except (ValueError, AttributeError) as error:
            raise InputError(path, f"is not a record of quality metrics ({error})", "Process it again") from error
        label = parse_entities(path.name)["participant_id"]
        if verdict in order:
            worst[label] = max(worst.get(label, "info"), verdict, key=order.index)
    return worst


def read_sessions(bids_dir: Path | None) -> pd.DataFrame:
    """Rows of all sessions.tsv files as text, with ``participant_id`` and ``session_id``."""
    import pandas as pd

    rows: dict[tuple[str, str], dict[str, str]] = {}
    for path in sorted(bids_dir.glob("sub-*/sub-*_sessions.tsv")) if bids_dir else []:
        label = parse_entities(path.name)["participant_id"]
        for row in read_tsv(path):
            if "session_id" not in row:
                raise InputError(path, "has no column session_id", "Add it")
            session = row["session_id"].removeprefix("ses-")
            if (label, session) in rows:
                raise InputError(path, f"lists session {session} more than once", "Keep one row for each session")
            rows[label, session] = row | {"participant_id": label, "session_id": session}
    columns = list(dict.fromkeys(["participant_id", "session_id", *(name for row in rows.values() for name in row)]))
    return pd.DataFrame(list(rows.values()), columns=columns, dtype=object).fillna("")
