"""Who the cohort is: numbers, design, exclusions, and the table of participants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sodium_prep.cohort.qc import SCAN, VERDICTS
from sodium_prep.report.group_results import GroupResults, groups_of, references_of, some
from sodium_prep.report.group_tables import words
from sodium_prep.report.page import (
    Block,
    Cell,
    DataTable,
    Facts,
    GroupSection,
    Heading,
    Notes,
    SummaryItem,
)

if TYPE_CHECKING:
    import pandas as pd


def overview(results: GroupResults) -> GroupSection:
    """Numbers of participants, the design, and who is left out and why."""
    people = results.cohort.participants
    done = people[people["state"] == "done"]
    blocks: list[Block] = [Facts(_facts(results))]
    if notes := [*results.cohort.notes]:
        blocks.append(Notes(notes))
    counts = results.group_site if some(results.group_site) else counts_by_site(done, results.group)
    if counts is not None:
        blocks.append(_counts(counts))
    if results.design_checks:
        blocks += [Heading("Checks of the design"), Notes(list(results.design_checks), "info")]
    if left_out := _left_out(results):
        caption = "Processing that failed, participants without data, and scans that failed the quality control."
        blocks.append(DataTable(caption, ["Participant", "Scan", "State", "Reason"], left_out, "Not in the analysis"))
    return GroupSection("overview", "The cohort at a glance", blocks, "Cohort")


def _facts(results: GroupResults) -> list[SummaryItem]:
    people = results.cohort.participants
    done = people[people["state"] == "done"]
    facts = [SummaryItem("Participants with results", f"{len(done)} of {len(people)}")]
    if some(results.values):
        facts.append(SummaryItem("Participants analysed", str(results.values["participant_id"].nunique())))
    if results.excluded is not None:
        facts.append(SummaryItem("Scans left out by quality control", str(len(results.excluded))))
    if results.qc is not None:
        outlying = results.qc[results.qc["outlier"] == "yes"][list(SCAN)].drop_duplicates()
        facts.append(SummaryItem("Scans with outlying metrics", str(len(outlying))))
    if groups := groups_of(results):
        facts.append(SummaryItem("Groups", ", ".join(groups)))
    if "site" in people and (sites := sorted(set(people["site"]) - {""})):
        facts.append(SummaryItem("Sites", ", ".join(sites)))
    if some(results.values):
        sessions = sorted(set(results.values["session_id"]) - {""}) if "session_id" in results.values else []
        facts += [SummaryItem("Sessions", ", ".join(sessions))] if len(sessions) > 1 else []
        facts.append(SummaryItem("References", ", ".join(references_of(results.values))))
        facts.append(SummaryItem("Regions", str(results.values["region"].nunique())))
    return facts


def counts_by_site(people: pd.DataFrame, group: str) -> pd.DataFrame | None:
    """Participants by group and site, with sums; None without groups and sites."""
    import pandas as pd

    if group not in people or people.empty:
        return None
    label = people[group].replace("", "no group")
    site = people["site"].replace("", "no site") if "site" in people else pd.Series("all", index=people.index)
    counts = pd.crosstab(label, site)
    return counts.rename_axis(index="group", columns=None)


def _counts(counts: pd.DataFrame) -> DataTable:
    table = counts.reset_index() if counts.index.name else counts
    names = list(map(str, table.columns))
    rows = [[words(row[0]), *(Cell(str(n), float(n)) for n in row[1:])] for row in table.itertuples(index=False)]
    sums = [sum(int(row[i].order or 0) for row in rows) for i in range(1, len(names))]
    if len(names) > 2 and "all" not in names:
        names.append("all")
        rows = [[*row, Cell(str(n := sum(int(c.order or 0) for c in row[1:])), float(n))] for row in rows]
        sums.append(sum(sums))
    rows.append([Cell("all"), *(Cell(str(n), float(n)) for n in sums)])
    return DataTable("Participants with results by group and site.", names, rows, "Group by site")


def _left_out(results: GroupResults) -> list[list[Cell]]:
    people = results.cohort.participants
    rows = [
        [_person(row["participant_id"], results), Cell("all"), Cell(row["state"]), Cell(row["reason"])]
        for row in people[people["state"] != "done"].to_dict("records")
    ]
    for row in results.excluded.to_dict("records") if results.excluded is not None else ():
        state = "excluded by a rater" if row["rated"] else "excluded by its metrics"
        rows.append([_person(row["participant_id"], results), Cell(scan_name(row)), Cell(state), Cell(row["reason"])])
    return rows


def scan_name(row: Mapping[Any, Any]) -> str:
    """The scan of a row in print, without its participant."""
    prefixes = ("ses-", "acq-", "rec-", "run-")
    return " ".join(p + str(row[name]) for p, name in zip(prefixes, SCAN[1:], strict=True) if row[name]) or "scan"


def _person(label: str, results: GroupResults) -> Cell:
    return Cell(label, page=label if label in results.pages else "")


def participants(results: GroupResults) -> GroupSection:
    """Everybody, with the columns of participants.tsv, the state and the verdict."""
    people = results.cohort.participants
    own = [str(name) for name in people.columns if name not in ("state", "reason", "qc")]
    final = _final(results)
    rows = []
    for row in people.to_dict("records"):
        label = str(row["participant_id"])
        cells = [_person(label, results), *(words(row[name]) for name in own if name != "participant_id")]
        rows.append([*cells, Cell(row["state"]), Cell("", verdict=final.get(label, row["qc"])), Cell(row["reason"])])
    names = ["participant_id", *(name for name in own if name != "participant_id"), "State", "Quality", "Reason"]
    caption = "State of each participant and worst verdict of the quality control; a rater's goes before the metrics'."
    return GroupSection("participants", "Participants", [DataTable(caption, names, rows)])


def _final(results: GroupResults) -> dict[str, str]:
    worst: dict[str, str] = {}
    if results.verdicts is not None:
        for label, verdict in zip(results.verdicts["participant_id"], results.verdicts["final"], strict=True):
            worst[label] = max(worst.get(label, "info"), verdict, key=VERDICTS.index)
    return worst
