"""The group page and tables, built from a cohort."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sodium_prep import __version__
from sodium_prep.cohort.compare import COMPARISON_COLUMNS, STRATUM, Comparisons, compare_groups, main_values
from sodium_prep.cohort.qc import (
    QC_COLUMNS,
    VERDICT_COLUMNS,
    cohort_qc,
    failed_scans,
    final_verdicts,
    rater_verdicts,
    rating_file,
    read_metrics,
    scan_verdicts,
    without_scans,
)
from sodium_prep.cohort.tables import Cohort, data_dictionary, gather, to_tsv, wide_table
from sodium_prep.cohort.values import measured_values
from sodium_prep.report import group_effects, group_further, group_overview, group_quality
from sodium_prep.report.group_results import GroupResults
from sodium_prep.report.methods import build_methods
from sodium_prep.report.page import GroupReport, SummaryItem, render_group

if TYPE_CHECKING:
    import pandas as pd


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
    metrics = read_metrics(out_dir)
    path = rating_file(out_dir)
    verdicts, notes = final_verdicts(scan_verdicts(metrics, cohort.tsc), rater_verdicts(path) if path else None)
    excluded = failed_scans(verdicts)
    quality = cohort_qc(metrics, cohort)
    analysed = replace(cohort, tsc=without_scans(cohort.tsc, excluded), notes=(*cohort.notes, *notes))
    comparisons = compare_groups(measured_values(analysed))
    results = GroupResults(
        cohort=analysed,
        values=main_values(analysed),
        comparisons=comparisons.table,
        qc=quality,
        verdicts=verdicts,
        excluded=excluded,
        cautions=comparisons.refusals,
        methods=_methods(comparisons.table, excluded, rated=path is not None),
        pages=frozenset(page.stem.removeprefix("sub-") for page in out_dir.glob("sub-*.html")),
    )
    wide = wide_table(cohort)
    files = {
        **_described("tsc", cohort.tsc),
        **_described("desc-wide_tsc", wide, _wide_columns(wide)),
        **_described("participants", cohort.participants),
        **_described("comparisons", comparisons.table, COMPARISON_COLUMNS),
        **_described("qc", quality, QC_COLUMNS),
        **_described("scans", verdicts, VERDICT_COLUMNS),
        "group.html": render_group(group_report(results)),
    }
    return GroupOutputs(files, analysed, comparisons)


def _described(
    name: str, table: pd.DataFrame, columns: Mapping[str, str | Mapping[str, str]] | None = None
) -> dict[str, str]:
    """A table and its dictionary, as files."""
    known = {key: {"Description": value} if isinstance(value, str) else value for key, value in (columns or {}).items()}
    return {
        f"group/group_{name}.tsv": to_tsv(table),
        f"group/group_{name}.json": data_dictionary(table, known),
    }


def _wide_columns(wide: pd.DataFrame) -> dict[str, Mapping[str, str]]:
    """Descriptions of the columns that hold values."""
    text = "TSC of region, hemisphere, estimator and reference named by the column"
    return {
        name: {"Description": text, "Units": "mmol/L"}
        for name in map(str, wide.columns)
        if name not in ("participant_id", "run", *STRATUM)
    }


def _methods(table: pd.DataFrame, excluded: pd.DataFrame, rated: bool) -> dict[str, Mapping[str, Any] | None]:
    """The steps that ran."""
    compared = bool((table["state"] == "compared").any()) if len(table) else False
    covariates = sorted(
        {name for text in table.get("covariates", []) for name in str(text).split(", ")} & {"age", "sex", "site"}
    )
    software = {"sodium_prep": __version__} | ({"statsmodels": version("statsmodels")} if compared else {})
    return {
        "quality": {"raters": rated, "n_excluded": len(excluded)},
        "comparison": {"covariates": covariates} if compared else None,
        "software": software,
    }


def group_report(results: GroupResults) -> GroupReport:
    """The group page's content: the sections for which there are results, or a reason why there are none."""
    sections = [
        group_overview.overview(results),
        group_effects.findings(results),
        group_effects.regions(results),
        group_effects.effects(results),
        group_further.sites(results),
        group_further.age(results),
        group_further.scores_of_regions(results),
        group_further.change(results),
        group_further.clinical(results),
        group_further.lesions(results),
        group_further.repeatability(results),
        group_further.voxelwise(results),
        group_quality.quality(results),
        group_overview.participants(results),
    ]
    n = len(results.cohort.participants)
    return GroupReport(
        title="Sodium MRI: group",
        subtitle=f"{n} participant{'' if n == 1 else 's'}, regional total sodium concentration (TSC, mM).",
        sections=[section for section in sections if section],
        methods=build_methods(results.methods),
        model_toml=results.model_toml,
        versions=[SummaryItem("sodium_prep", __version__), SummaryItem("Python", platform.python_version())],
    )
