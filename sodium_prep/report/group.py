"""The group page and tables, built from a cohort."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sodium_prep import __version__
from sodium_prep.cohort.compare import (
    COMPARISON_COLUMNS,
    MAIN_REGIONS,
    STRATUM,
    Comparisons,
    compare_groups,
    main_values,
)
from sodium_prep.cohort.tables import Cohort, data_dictionary, gather, to_tsv, wide_table
from sodium_prep.report.methods import build_methods
from sodium_prep.report.page import (
    GroupReport,
    ParticipantRow,
    PrintedTable,
    ReportFigure,
    SummaryItem,
    render_group,
)
from sodium_prep.report.plots import ESTIMATOR_NAMES, group_dots

if TYPE_CHECKING:
    import pandas as pd

_NO_GROUPS = (
    "There are no groups to compare: participants.tsv has no column group, or no two groups among the participants "
    "with results."
)


@dataclass(frozen=True)
class GroupOutputs:
    """What the group level writes: path below the output folder to text; and what it came from."""

    files: Mapping[str, str]
    cohort: Cohort
    comparisons: Comparisons


def group_outputs(bids_dir: Path | None, out_dir: Path) -> GroupOutputs:
    """Read the derivatives of all participants and make the group's tables and page.

    Parameters
    ----------
    bids_dir
        Data set with participants.tsv, or None.
    out_dir
        Derivatives. Nothing is written: the caller writes ``files``.

    Raises
    ------
    InputError
        If a table cannot be read, or participants.tsv lists somebody twice.
    """
    cohort = gather(out_dir, bids_dir)
    comparisons = compare_groups(cohort)
    wide = wide_table(cohort)
    names = {name: {"Description": text} for name, text in COMPARISON_COLUMNS.items()}
    regions = {
        name: {
            "Description": "TSC of region, hemisphere, estimator and reference named by the column",
            "Units": "mmol/L",
        }
        for name in map(str, wide.columns)
        if name not in ("participant_id", "run", *STRATUM)
    }
    files = {
        "group/group_tsc.tsv": to_tsv(cohort.tsc),
        "group/group_tsc.json": data_dictionary(cohort.tsc),
        "group/group_desc-wide_tsc.tsv": to_tsv(wide),
        "group/group_desc-wide_tsc.json": data_dictionary(wide, regions),
        "group/group_participants.tsv": to_tsv(cohort.participants),
        "group/group_participants.json": data_dictionary(cohort.participants),
        "group/group_comparisons.tsv": to_tsv(comparisons.table),
        "group/group_comparisons.json": data_dictionary(comparisons.table, names),
        "group.html": render_group(group_report(cohort, comparisons)),
    }
    return GroupOutputs(files, cohort, comparisons)


def group_report(cohort: Cohort, comparisons: Comparisons) -> GroupReport:
    """The group page's content."""
    people = cohort.participants
    own = [str(name) for name in people.columns if name not in ("state", "reason", "qc")]
    rows = [
        ParticipantRow([str(row[name]) or "n/a" for name in own], row["state"], row["qc"], row["reason"])
        for row in people.to_dict("records")
    ]
    counts = people["state"].value_counts()
    covariates = sorted({
        name
        for text in comparisons.table.get("covariates", [])
        for name in str(text).split(", ")
        if name in ("age", "sex", "site")
    })  # fmt: skip
    compared = bool((comparisons.table["state"] == "compared").any()) if len(comparisons.table) else False
    return GroupReport(
        title="Sodium MRI: group",
        participant_columns=own,
        participants=rows,
        methods=build_methods(
            {
                "comparison": {"covariates": covariates} if compared else None,
                "software": {"sodium_prep": __version__}
                | ({"statsmodels": _version("statsmodels")} if compared else {}),
            }
        ),
        figures=_figures(main_values(cohort)),
        comparisons=_tables(comparisons.table),
        no_comparison=_NO_GROUPS,
        summary=[SummaryItem(f"Participants {state}", str(n)) for state, n in sorted(counts.items())],
        notes=[*cohort.notes, *comparisons.refusals],
        versions=[SummaryItem("sodium_prep", __version__), SummaryItem("Python", platform.python_version())],
    )


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def _heading(labels: Mapping[str, Any]) -> str:
    prefixes = {"session_id": "ses-", "acquisition": "acq-", "reconstruction": "rec-", "atlas": "seg-"}
    shown = [prefixes[name] + str(labels[name]) for name in STRATUM if labels[name]]
    return ", ".join([*([" ".join(shown)] if shown else []), f"reference: {labels['reference']}"])


def _figures(values: pd.DataFrame) -> list[ReportFigure]:
    """One figure of dots for each stratum and reference."""
    figures = []
    for keys, part in values.groupby([*STRATUM, "reference"], sort=False):
        labels = dict(zip([*STRATUM, "reference"], keys, strict=True))
        group = part["group"].fillna("").replace("", "no group") if "group" in part else "all"
        part = part.assign(shown=group)
        # Every estimator and group has its place in every panel, so that panels can be compared.
        estimators = [e for e in (*ESTIMATOR_NAMES, *sorted(set(part["estimator"]))) if e in set(part["estimator"])]
        estimators = list(dict.fromkeys(estimators))
        groups = sorted(set(part["shown"]))
        tree = {
            region: {
                e: {
                    g: part.loc[
                        (part["region"] == region) & (part["estimator"] == e) & (part["shown"] == g), "tsc"
                    ].tolist()
                    for g in groups
                }
                for e in estimators
            }
            for region in MAIN_REGIONS
            if region in set(part["region"])
        }
        title = _heading(labels)
        caption = (
            "One dot per participant; bar: mean with 95 % interval. Rows share their scale, so that the shift by "
            "partial volume correction shows."
        )
        alt = f"Dot plots of TSC in {', '.join(tree)} by group ({', '.join(groups)}), {title}."
        figures.append(ReportFigure("group", title, caption, group_dots(tree, title=title), alt))
    return figures


def _tables(table: pd.DataFrame) -> list[PrintedTable]:
    """One table per stratum, reference and pair of groups; rows are regions and estimators."""
    tables = []
    keys = [*STRATUM, "reference", "group_1", "group_2"]
    columns = ["Region", "Estimator", "n", "Means (SD), mM", "Difference, mM", "p (FDR)", "Hedges' g",
               "Adjusted difference, mM", "p (FDR), adjusted"]  # fmt: skip
    for values, part in table.groupby(keys, sort=False):
        labels = dict(zip(keys, values, strict=True))
        covariates = sorted({str(c) for c in part["covariates"] if c})
        tables.append(
            PrintedTable(
                heading=f"{labels['group_2']} minus {labels['group_1']}, {_heading(labels)}",
                caption=f"Adjusted for: {'; '.join(covariates) or 'nothing'}. Brackets: 95 % intervals.",
                columns=columns,
                rows=[_row(row) for row in sorted(part.to_dict("records"), key=_before_and_after)],
            )
        )
    return tables


def _before_and_after(row: Mapping[Any, Any]) -> tuple[int, int]:
    """Sorting key: a region's uncorrected value next to its corrected ones."""
    order = list(ESTIMATOR_NAMES)
    estimator = row["estimator"]
    return MAIN_REGIONS.index(row["region"]), order.index(estimator) if estimator in order else len(order)


def _row(row: Mapping[Any, Any]) -> list[str]:
    start = [
        row["region"],
        ESTIMATOR_NAMES.get(row["estimator"], row["estimator"]),
        f"{row['n_1']}\u00a0/\u00a0{row['n_2']}",
    ]
    if row["state"] != "compared":
        return [*start, row["state"], "", "", "", "", ""]
    return [
        *start,
        f"{row['mean_1']:.1f} ({row['sd_1']:.1f}) and {row['mean_2']:.1f} ({row['sd_2']:.1f})",
        _interval(row, "difference", 1),
        _p(row["p_fdr"]),
        _interval(row, "hedges_g", 2),
        _interval(row, "adjusted", 1),
        _p(row["adjusted_p_fdr"]),
    ]


def _interval(row: Mapping[Any, Any], name: str, digits: int) -> str:
    value, low, high = row[name], row[f"{name}_ci_low"], row[f"{name}_ci_high"]
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if math.isfinite(value) else "n/a"


def _p(value: float) -> str:
    return "n/a" if not math.isfinite(value) else "<\u00a00.001" if value < 0.001 else f"{value:.3f}"
