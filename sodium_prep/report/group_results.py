"""What the group page is made from, and which of its values stand for the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sodium_prep.cohort.model import MAIN_REGIONS
from sodium_prep.cohort.tables import Cohort
from sodium_prep.cohort.values import STRATUM
from sodium_prep.report.page import ReportFigure
from sodium_prep.report.plots import ESTIMATOR_NAMES

if TYPE_CHECKING:
    import pandas as pd

MAX_STRATA: Final = 4
"""Sessions, acquisitions, reconstructions and atlases of which figures are drawn; the tables hold all."""

MAX_REGIONS: Final = 40
"""Regions of a figure."""

_PREFIXES: Final = {"session_id": "ses-", "acquisition": "acq-", "reconstruction": "rec-", "atlas": "seg-"}
_PREFERRED: Final = ("labbe", "gtm", "joint", "kspace")


@dataclass(frozen=True)
class GroupResults:
    """Tables of a cohort's results; the page leaves out what is None.

    Attributes
    ----------
    cohort
        Who was processed.
    values
        One row per participant, stratum, region, hemisphere, estimator and reference: ``tsc`` and the columns of
        participants.tsv; scans that failed the quality control are not among them.
    comparisons
        Table of group comparisons.
    design_checks, group_site
        Sentences on the design, and the counts of participants: a row for each group, a column for each site.
    zscores
        Distances from the controls: participant_id, region, hemisphere, estimator, reference, measure, value, z,
        n_controls, z_csf, state, reason.
    harmonised
        As ``values``, after harmonisation of the sites.
    longitudinal, correlations, roc, hazards, reliability, between_sites, site_factors, lesions
        Tables of results; of those with an estimator and a reference, the reported ones are printed.
    qc, verdicts
        From :mod:`sodium_prep.cohort.qc`.
    excluded
        Scans left out of all models, with the reason: rows of ``verdicts``.
    figures
        Further figures: heading to figures, such as those of the voxel-wise maps.
    cautions
        What a reader must know before the numbers are used.
    missing
        Key of a section to the reason why there is nothing in it.
    group, control, time, onset
        Column of the groups, label of the control group, columns of years since baseline and of time since onset.
    alpha
        Level of the tests.
    scores
        Columns that values are correlated with.
    methods
        Steps of the group level for :func:`sodium_prep.report.methods.build_methods`.
    model_toml
        The model with its defaults.
    pages
        Participants who have a page of their own.
    """

    cohort: Cohort
    values: pd.DataFrame
    comparisons: pd.DataFrame | None = None
    design_checks: Sequence[str] = ()
    group_site: pd.DataFrame | None = None
    zscores: pd.DataFrame | None = None
    harmonised: pd.DataFrame | None = None
    longitudinal: pd.DataFrame | None = None
    correlations: pd.DataFrame | None = None
    roc: pd.DataFrame | None = None
    hazards: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    between_sites: pd.DataFrame | None = None
    site_factors: pd.DataFrame | None = None
    lesions: pd.DataFrame | None = None
    qc: pd.DataFrame | None = None
    verdicts: pd.DataFrame | None = None
    excluded: pd.DataFrame | None = None
    figures: Mapping[str, Sequence[ReportFigure]] = field(default_factory=dict)
    cautions: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    group: str = "group"
    control: str | None = None
    alpha: float = 0.05
    time: str | None = None
    onset: str | None = None
    scores: Sequence[str] = ()
    methods: Mapping[str, Mapping[str, Any] | bool | None] = field(default_factory=dict)
    model_toml: str = ""
    pages: Collection[str] = ()


def some(frame: pd.DataFrame | None) -> bool:
    """Whether there is a table with rows."""
    return frame is not None and len(frame) > 0


def groups_of(results: GroupResults) -> list[str]:
    """Labels of the groups with values, the controls first."""
    if results.group not in results.values:
        return []
    found = sorted(set(results.values[results.group].fillna("")) - {""})
    return sorted(found, key=lambda label: label != results.control)


def with_groups(frame: pd.DataFrame, results: GroupResults) -> pd.DataFrame:
    """A table with the column ``shown``: the group of each participant in print."""
    label = frame[results.group].fillna("") if results.group in frame else ""
    return frame.assign(shown=label).replace({"shown": {"": "no group" if results.group in frame else "all"}})


def whole_regions(values: pd.DataFrame) -> pd.DataFrame:
    """Values of regions that span both sides."""
    return values[values["hemisphere"] == "both"] if "hemisphere" in values else values


def estimator_pair(values: pd.DataFrame) -> list[str]:
    """The uncorrected estimator and the corrected one that is reported, as far as they are there."""
    there = list(dict.fromkeys(values["estimator"]))
    corrected = [e for e in (*_PREFERRED, *sorted(there)) if e in there and e != "none"]
    return (["none"] if "none" in there else []) + corrected[:1]


def references_of(values: pd.DataFrame) -> list[str]:
    """References in the order of the tables: the primary one first."""
    return list(dict.fromkeys(values["reference"]))


def main_first(regions: Collection[str]) -> list[str]:
    """Names of regions, the main ones first."""
    return [r for r in MAIN_REGIONS if r in regions] + sorted(r for r in regions if r not in MAIN_REGIONS)


def strata(values: pd.DataFrame, limit: int = MAX_STRATA) -> list[tuple[str, pd.DataFrame]]:
    """The parts of a table that figures show: their name in print, empty for the only one, and the rows of each.

    Those with most participants, in the order of the table.
    """
    keys = [name for name in STRATUM if name in values]
    if not keys or values.empty:
        return [("", values)] if len(values) else []
    varied = [name for name in keys if values[name].nunique() > 1]
    parts = [(heading(dict(zip(keys, key, strict=True)), varied), part) for key, part in values.groupby(keys)]
    largest = sorted(parts, key=lambda part: -part[1]["participant_id"].nunique())[:limit]
    chosen = {name for name, _ in largest}
    return [part for part in parts if part[0] in chosen]


def heading(labels: Mapping[str, Any], names: Collection[str] = STRATUM) -> str:
    """Entities in print, such as ``ses-01 acq-sodium``."""
    return " ".join(_PREFIXES[name] + str(labels[name]) for name in STRATUM if name in names and labels.get(name))


def estimator_name(estimator: str) -> str:
    """An estimator in print."""
    return ESTIMATOR_NAMES.get(estimator, estimator)


def primary(values: pd.DataFrame) -> pd.DataFrame:
    """Values of both sides by the reported estimator and the primary reference."""
    return reported(whole_regions(values))


def reported(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the reported estimator and the primary reference, as far as the table tells them apart."""
    if "reference" in table and len(table):
        table = table[table["reference"] == references_of(table)[0]]
    if "estimator" in table and len(table):
        table = table[table["estimator"] == estimator_pair(table)[-1]]
    return table
