"""The tables of a cohort: one row per participant, region, estimator and reference, gathered from the derivatives."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.cohort.names import ENTITIES, anat_files, parse_entities
from sodium_prep.cohort.people import read_people, read_sessions
from sodium_prep.cohort.tsv import read_tsv
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NUMBERS: Final[tuple[str, ...]] = (
    "index", "n_voxels", "volume_mm3", "coverage", "tsc", "tsc_stderr_within", "tsc_stderr", "tsc_ci_low",
    "tsc_ci_high", "tsc_sd", "tsc_median", "gm_fraction", "wm_fraction", "csf_fraction", "spill_in_fraction",
    "csf_signal_fraction", "asymmetry", "asymmetry_stderr", "mirror_ratio", "mirror_ratio_stderr",
)  # fmt: skip
"""Columns of the regional table that hold numbers; all others stay the text they are."""

_KEY: Final = ("name", "hemisphere", "estimator", "reference")
_NEEDED: Final = (*_KEY, "tsc")

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


def gather(out_dir: Path, bids_dir: Path | None = None) -> Cohort:
    """Read the regional tables of all participants, and who they are.

    A participant with a table that cannot be read fails, with the reason, and the others are gathered.

    Parameters
    ----------
    out_dir
        Derivatives: ``sub-*/[ses-*/]anat/*_tsc.tsv``, ``*_qc.json`` beside them, ``logs/status.json``.
    bids_dir
        Data set with participants.tsv and sessions.tsv; without it nobody is missing and there are no groups.

    Raises
    ------
    InputError
        If participants.tsv, a sessions.tsv or status.json cannot be used.
    """
    stack = _Stack()
    problems: dict[str, str] = {}
    measured: list[str] = []
    paths = sorted(
        anat_files(out_dir, "*_tsc.tsv"), key=lambda path: (parse_entities(path.name)["participant_id"], path)
    )
    for label, own in groupby(paths, key=lambda path: parse_entities(path.name)["participant_id"]):
        try:
            for entities, table in _scans(own):
                stack.add(entities, table)
            measured.append(label)
        except InputError as error:
            problems[label] = str(error)
    people, notes = read_people(out_dir, bids_dir, measured, problems)
    return Cohort(stack.frame(), people, read_sessions(bids_dir), notes)


def _scans(paths: Iterable[Path]) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """All tables of one participant."""
    found: dict[tuple[str, ...], Path] = {}
    scans = []
    for path in paths:
        entities = parse_entities(path.name)
        if (other := found.setdefault(tuple(entities.values()), path)) != path:
            problem = f"is of the same scan and atlas as {other.name}"
            raise InputError(path, problem, "Remove the one that is not of this program's last run")
        scans.append((entities, _read_regions(path)))
    return scans


class _Stack:
    """Tables one below the other, numbers as arrays and texts as codes: thousands of tables fit into memory."""

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._parts: dict[str, list[tuple[int, NDArray[Any]]]] = {name: [] for name in ENTITIES.values()}
        self._codes: dict[str, dict[str, int]] = {}

    def add(self, entities: Mapping[str, str], table: pd.DataFrame) -> None:
        """Append a table; its scan's entities become columns."""
        number, n = len(self._lengths), len(table)
        self._lengths.append(n)
        for name, text in entities.items():
            self._parts[name].append((number, np.full(n, self._code(name, text), np.int32)))
        for name in map(str, table.columns):
            cells = table[name].to_numpy()
            if name not in NUMBERS:
                codes = {text: self._code(name, text) for text in dict.fromkeys(cells.tolist())}
                cells = np.array([codes[text] for text in cells.tolist()], np.int32)
            self._parts.setdefault(name, []).append((number, cells))

    def _code(self, name: str, text: str) -> int:
        known = self._codes.setdefault(name, {"": 0})
        return known.setdefault("" if text == "n/a" else text, len(known))

    def frame(self) -> pd.DataFrame:
        """All rows: numbers as float, texts as categories in the order met; what a table lacks is nan or empty."""
        import pandas as pd

        columns: dict[str, Any] = {}
        for name in dict.fromkeys((*self._parts, *_NEEDED)):
            given = dict(self._parts.get(name, ()))
            missing = np.nan if name in NUMBERS else 0
            dtype = np.float64 if name in NUMBERS else np.int32
            parts = [given.get(i, np.full(n, missing, dtype)) for i, n in enumerate(self._lengths)]
            values = np.concatenate(parts) if parts else np.zeros(0, dtype)
            if name not in NUMBERS:
                columns[name] = pd.Categorical.from_codes(
                    values.astype(np.int32), pd.Index(list(self._codes.get(name, {"": 0})))
                )
            else:
                columns[name] = values
        return pd.DataFrame(columns)


def _read_regions(path: Path) -> pd.DataFrame:
    """One regional table, its numbers as float and all else as text.

    Raises
    ------
    InputError
        If it is no table, a number is none, a column is missing or a region is there twice.
    """
    import pandas as pd

    types: dict[str, Any] = defaultdict(lambda: object, dict.fromkeys(NUMBERS, np.float64))
    missing: dict[str, list[str]] = {name: ["n/a", ""] for name in NUMBERS}
    try:
        content = path.read_bytes()
        lines = content.splitlines()
        # pandas fills short lines up without a word.
        even = all(line.count(b"\t") == lines[0].count(b"\t") for line in lines if line)
        table = pd.read_csv(
            BytesIO(content), sep="\t", dtype=types, keep_default_na=False, na_values=missing,
            quoting=csv.QUOTE_NONE, encoding="utf-8-sig",
        ) if even else _by_hand(path)  # fmt: skip
    except (ValueError, OSError):  # of pandas' parser too
        table = _by_hand(path)
    if absent := [name for name in _NEEDED if name not in table]:
        raise InputError(path, f"lacks the columns {', '.join(absent)}", "Process this participant again")
    twice = table.duplicated([*_KEY])
    if twice.any():
        row = table[twice].iloc[0]
        problem = f"has the region {row['name']} ({row['hemisphere']}) twice by {row['estimator']}, {row['reference']}"
        mend = "Give each label of the atlas a name of its own, and process this participant again"
        raise InputError(path, problem, mend)
    return table


def _by_hand(path: Path) -> pd.DataFrame:
    """The same, line by line: slow, but it knows where a table goes wrong."""
    import pandas as pd

    rows = [row | _numbers(row, path) for row in read_tsv(path)]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else [*_NEEDED])


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


def wide_table(cohort: Cohort) -> pd.DataFrame:
    """One row per scan and one column per region, hemisphere, estimator and reference, values in mM.

    Columns are called ``<name>_<hemisphere>_<estimator>_<reference>``; before them stands who was scanned, and after
    that, of participants.tsv and sessions.tsv.
    """
    import pandas as pd

    frame = cohort.tsc
    keys = list(ENTITIES.values())
    scans = frame.groupby(keys, sort=False, observed=True)
    regions = frame.groupby(list(_KEY), sort=False, observed=True)
    row, column = scans.ngroup().to_numpy(), regions.ngroup().to_numpy()
    values = np.full((scans.ngroups, regions.ngroups), np.nan)
    values[row, column] = frame["tsc"].to_numpy(dtype=float)
    first = np.unique(row, return_index=True)[1]
    entities = frame[keys].iloc[first].reset_index(drop=True)
    named = frame[list(_KEY)].iloc[np.unique(column, return_index=True)[1]]
    names = ["_".join(map(str, parts)) for parts in named.itertuples(index=False)]
    return pd.concat([joined(entities, cohort), pd.DataFrame(values, columns=names)], axis=1)


def joined(frame: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Rows with what participants.tsv and sessions.tsv say of their participant and session, as text.

    Where both have a column, the session's cell goes before the participant's unless it is empty; where the frame has a
    column of that name, the one from outside is called ``participants_<name>``.
    """
    import pandas as pd

    out = frame.copy(deep=False)
    people = pd.Index(frame["participant_id"].astype(object))
    visits = pd.MultiIndex.from_arrays([people, frame["session_id"].astype(object)])
    by_person = cohort.participants.set_index("participant_id").drop(columns=["state", "reason"])
    by_visit = cohort.sessions.set_index(["participant_id", "session_id"])
    for name in dict.fromkeys((*by_person.columns, *by_visit.columns)):
        cells = np.full(len(frame), "", dtype=object)
        sources: tuple[tuple[pd.DataFrame, pd.Index[Any]], ...] = ((by_person, people), (by_visit, visits))
        for source, keys in sources:
            if name in source:
                place = source.index.get_indexer(keys)
                found = np.where(place >= 0, source[name].to_numpy(dtype=object)[place], "") if len(source) else ""
                cells = np.where(found != "", found, cells)
        out[f"participants_{name}" if name in frame else name] = pd.Categorical(cells)
    return out


def data_dictionary(frame: pd.DataFrame, descriptions: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """JSON text that describes the columns of a table."""
    known = {**DESCRIPTIONS, **(descriptions or {})}
    record = {
        name: dict(known.get(name, {"Description": "As in participants.tsv"})) for name in map(str, frame.columns)
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
