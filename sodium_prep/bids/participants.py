"""Who is in a data set: participants, sessions, and the participants table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sodium_prep.bids.filters import check_label
from sodium_prep.errors import InputError


def find_participants(bids_dir: Path, labels: Sequence[str] | None = None) -> list[str]:
    """Labels of the participants of a data set, without ``sub-``, sorted.

    Participants with k-space only, under ``sourcedata``, count as well. Nothing below the participants' folders is
    read.

    Parameters
    ----------
    labels
        The participants asked for, with or without ``sub-``; all by default.

    Raises
    ------
    UsageError
        If a label has other signs than letters and digits.
    InputError
        If there is no participant, one asked for is not there, or participants.tsv lists one twice.
    """
    present = set(_folders(bids_dir, "sub-")) | set(_folders(bids_dir / "sourcedata", "sub-"))
    read_participants(bids_dir)
    if not present:
        raise InputError(bids_dir, "has no participant (no folder sub-*)", "Give the folder of a BIDS data set")
    if labels is None:
        return sorted(present)
    wanted = sorted({check_label(label) for label in labels})
    absent = [label for label in wanted if label not in present]
    if absent:
        shown = ", ".join(sorted(present)[:10]) + (", ..." if len(present) > 10 else "")
        raise InputError(bids_dir, f"has no participant {', '.join(absent)}", f"Choose among: {shown}")
    return wanted


def find_sessions(bids_dir: Path, participant: str, labels: Sequence[str] | None = None) -> list[str | None]:
    """Sessions of a participant, without ``ses-``, sorted; ``[None]`` for a participant without sessions.

    A session asked for that this participant lacks is left out; see :func:`find_participants` for the faults.
    """
    folders = [bids_dir / f"sub-{participant}", bids_dir / "sourcedata" / f"sub-{participant}"]
    sessions: list[str | None] = list(sorted({label for folder in folders for label in _folders(folder, "ses-")}))
    if not sessions or any((folder / "anat").is_dir() for folder in folders):
        sessions.insert(0, None)
    if labels is None:
        return sessions
    wanted = {check_label(label, "--session-label") for label in labels}
    chosen: list[str | None] = [session for session in sessions if session in wanted]
    if not chosen:
        there = ", ".join(session or "none" for session in sessions)
        problem = f"has no session {', '.join(sorted(wanted))}"
        raise InputError(folders[0], problem, f"Its sessions are: {there}")
    return chosen


def read_participants(bids_dir: Path) -> list[dict[str, str]]:
    """Rows of participants.tsv as text, with ``participant_id`` bare of ``sub-``; empty without the file.

    Every cell stays the text it is: ``001`` keeps its zeros, and a group called ``NA`` or ``None`` is not missing
    (only ``n/a`` is, for whoever reads the cell).
    """
    path = bids_dir / "participants.tsv"
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read as UTF-8 text ({error})", "Save the table as UTF-8") from None
    lines = [line for line in csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE) if line]
    if not lines or "participant_id" not in lines[0]:
        raise InputError(path, "has no column participant_id", "Add it, as tab-separated text")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(lines[0]):
            problem = f"has {len(cells)} cells in line {number} where the header has {len(lines[0])}"
            raise InputError(path, problem, "Separate the cells by tabs and write n/a for missing ones")
        row = dict(zip(lines[0], (cell.strip() for cell in cells), strict=True))
        rows.append(row | {"participant_id": row["participant_id"].removeprefix("sub-")})
    labels = [row["participant_id"] for row in rows]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(path, f"lists {', '.join(twice)} more than once", "Keep one row for each participant")
    return rows


def table_warnings(bids_dir: Path, labels: Sequence[str]) -> list[str]:
    """One line for the participants that are only in participants.tsv, one for those that are only on disk."""
    rows = read_participants(bids_dir)
    if not rows:
        return []
    listed = {row["participant_id"] for row in rows}
    on_disk = set(_folders(bids_dir, "sub-")) | set(_folders(bids_dir / "sourcedata", "sub-"))
    path = bids_dir / "participants.tsv"
    warnings = []
    if unlisted := sorted(set(labels) - listed):
        warnings.append(f"{path}: does not list {', '.join(unlisted)}.")
    if absent := sorted(listed - on_disk):
        warnings.append(f"{path}: lists {', '.join(absent)}, who have no folder.")
    return warnings


def _folders(parent: Path, prefix: str) -> list[str]:
    """Labels of the folders with a prefix; names that are no BIDS label are not folders of the standard."""
    if not parent.is_dir():
        return []
    labels = (child.name.removeprefix(prefix) for child in parent.glob(f"{prefix}*") if child.is_dir())
    return [label for label in labels if label.isascii() and label.isalnum()]
