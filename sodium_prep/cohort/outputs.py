"""The tables that the group level writes, each with the meaning of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sodium_prep.cohort.analysis import Analysis
from sodium_prep.cohort.compare import COMPARISON_COLUMNS
from sodium_prep.cohort.design import CHECK_COLUMNS
from sodium_prep.cohort.events import EVENT_COLUMNS, HAZARD_COLUMNS
from sodium_prep.cohort.longitudinal import CHANGE_COLUMNS
from sodium_prep.cohort.longitudinal import SITE_COLUMNS as RANDOM_SITE_COLUMNS
from sodium_prep.cohort.names import ENTITIES
from sodium_prep.cohort.normative import LESION_COLUMNS, NORMATIVE_COLUMNS
from sodium_prep.cohort.qc import QC_COLUMNS, VERDICT_COLUMNS, Quality
from sodium_prep.cohort.reliability import INTERSITE_COLUMNS, REPEATABILITY_COLUMNS
from sodium_prep.cohort.scores import CORRELATION_COLUMNS, ROC_COLUMNS
from sodium_prep.cohort.tables import Cohort, joined, wide_table
from sodium_prep.cohort.travelling import SITE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_WIDE: Final = "TSC of region, hemisphere, estimator and reference named by the column"
_OWN: Final = {
    "values": "measured: as in the regional tables; scaled: divided by the factors of the sites",
    "region": "Name of the region",
    "participants": "Participants",
}


class Table(NamedTuple):
    """A table and what its columns are, as far as that differs from the regional tables."""

    frame: pd.DataFrame
    columns: Mapping[str, Mapping[str, str]]


def gathered_tables(cohort: Cohort, quality: Quality) -> dict[str, Table]:
    """Tables that hold what was measured, by the name of their file."""
    wide = wide_table(cohort)
    known = {*ENTITIES.values(), *cohort.participants.columns, *cohort.sessions.columns}
    values = {name: {"Description": _WIDE, "Units": "mmol/L"} for name in map(str, wide.columns) if name not in known}
    return {
        "tsc": Table(joined(cohort.tsc, cohort), {}),
        "desc-wide_tsc": Table(wide, values),
        "participants": Table(cohort.participants, {}),
        "qc": _table(quality.metrics, QC_COLUMNS),
        "scans": _table(quality.verdicts, VERDICT_COLUMNS),
    }


def result_tables(analysis: Analysis) -> dict[str, Table]:
    """Tables of an analysis, by the name of their file; only those that there are."""
    given: dict[str, tuple[pd.DataFrame | None, Mapping[str, str]]] = {
        "design": (analysis.checks.table, CHECK_COLUMNS),
        "comparisons": (analysis.comparisons, COMPARISON_COLUMNS),
        "random_sites": (analysis.random_sites, RANDOM_SITE_COLUMNS),
        "zscores": (analysis.zscores, NORMATIVE_COLUMNS),
        "change": (analysis.change, CHANGE_COLUMNS),
        "correlations": (analysis.correlations, CORRELATION_COLUMNS),
        "roc": (analysis.roc, ROC_COLUMNS),
        "events": (analysis.events, EVENT_COLUMNS),
        "hazards": (analysis.hazards, HAZARD_COLUMNS),
        "repeatability": (analysis.repeatability, REPEATABILITY_COLUMNS),
        "lesions": (analysis.lesions, LESION_COLUMNS),
        "desc-combat_tsc": (analysis.combat[0] if analysis.combat else None, {}),
        "sites": (analysis.site_factors, SITE_COLUMNS),
        "between_sites": (analysis.between_sites, INTERSITE_COLUMNS),
    }
    return {name: _table(frame, columns) for name, (frame, columns) in given.items() if frame is not None}


def combat_record(analysis: Analysis) -> dict[str, Any] | None:
    """The fitted ComBat models, for a file that new participants can be harmonised with."""
    if analysis.combat is None:
        return None
    import json

    keys = ("session_id", "acquisition", "reconstruction", "atlas", "estimator", "reference")
    models = [
        {"Values": dict(zip(keys, key, strict=True)), "Model": json.loads(model.to_json())}
        for key, model in analysis.combat[1].items()
    ]
    return {"Method": "ComBat (Johnson et al., Biostatistics 2007;8:118)", "Models": models}


def _table(frame: pd.DataFrame, columns: Mapping[str, str]) -> Table:
    return Table(frame, {name: {"Description": text} for name, text in (_OWN | dict(columns)).items()})
