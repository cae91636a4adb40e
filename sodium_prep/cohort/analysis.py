"""The whole analysis of a cohort: every table that the group level writes, from one model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from sodium_prep.cohort.combat import ComBatModel, harmonise
from sodium_prep.cohort.compare import Comparisons, compare_groups, regions_asked
from sodium_prep.cohort.design import DesignChecks, check_design, people_of, resolve_model
from sodium_prep.cohort.events import event_table, hazard_ratios
from sodium_prep.cohort.longitudinal import FEWEST_SITES, change_per_year, site_differences
from sodium_prep.cohort.model import MAIN_REGIONS, GroupModel
from sodium_prep.cohort.normative import lesion_ratios, normative_scores
from sodium_prep.cohort.reliability import intersite_cov, repeatability
from sodium_prep.cohort.scores import correlations, roc
from sodium_prep.cohort.tables import Cohort
from sodium_prep.cohort.travelling import apply_factors, phantom_factors, read_phantom, travelling_factors
from sodium_prep.cohort.values import measured_values
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LESION_ROWS: Final = "Lesion"
"""Names of a lesion's rows begin with it; nobody else has such regions, so groups are not compared in them."""


@dataclass(frozen=True)
class Analysis:
    """Tables of results; None where the model does not ask for one or the data do not allow it.

    Attributes
    ----------
    model
        With what it came to for these data.
    values
        What was analysed.
    checks
        Of the design.
    comparisons, random_sites, zscores, change, correlations, roc, events, hazards, repeatability, lesions
        As their modules describe them.
    combat
        Values after ComBat, and the fitted models by stratum, estimator and reference.
    site_factors
        Of a travelling phantom or travelling participants.
    between_sites
        Variation between sites of who was at several, before and after scaling (column ``values``).
    cautions
        What a reader must know before the numbers are used.
    missing
        Name of a table to the reason why it is not there.
    """

    model: GroupModel
    values: pd.DataFrame
    checks: DesignChecks
    comparisons: pd.DataFrame | None = None
    random_sites: pd.DataFrame | None = None
    zscores: pd.DataFrame | None = None
    change: pd.DataFrame | None = None
    correlations: pd.DataFrame | None = None
    roc: pd.DataFrame | None = None
    events: pd.DataFrame | None = None
    hazards: pd.DataFrame | None = None
    repeatability: pd.DataFrame | None = None
    lesions: pd.DataFrame | None = None
    combat: tuple[pd.DataFrame, dict[tuple[str, ...], ComBatModel]] | None = None
    site_factors: pd.DataFrame | None = None
    between_sites: pd.DataFrame | None = None
    cautions: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


def analyse(cohort: Cohort, model: GroupModel) -> Analysis:
    """Analyse a cohort as a model asks.

    Where groups cannot be told from sites nothing is compared: ``checks`` says so, and the caller decides what that
    means.

    Parameters
    ----------
    cohort
        Without the scans that quality control leaves out.
    model
        What to fit.

    Raises
    ------
    InputError
        If the model names a group, covariate, score or other column that is not there.
    """
    cohort = _asked(cohort, model)
    everything = measured_values(cohort)
    lesions = everything["region"].str.startswith(LESION_ROWS)
    measured = everything[~lesions].reset_index(drop=True)
    factors = _site_factors(measured, model)
    values = measured if factors is None else apply_factors(measured, factors)
    people = people_of(values)
    model = resolve_model(model, people)
    checks = check_design(people, model)
    missing: dict[str, str] = {}
    combat = _combat(values, model, missing)
    compared = combat[0] if combat is not None and model.harmonisation == "combat" else values
    comparisons = None if checks.stops else compare_groups(compared, model)
    zscores, few = _zscores(compared, model, missing)
    tested = compared[compared["hemisphere"].isin(model.hemispheres)]
    events, hazards = _events(tested, model)
    return Analysis(
        model=model,
        values=values,
        checks=checks,
        comparisons=comparisons.table if comparisons else None,
        random_sites=None if checks.stops else _random_sites(tested, model),
        zscores=zscores,
        change=_change(tested, model),
        correlations=_correlations(tested, model),
        roc=None if checks.stops else _roc(tested, model),
        events=events,
        hazards=hazards,
        repeatability=_repeatability(cohort),
        lesions=lesion_ratios(everything[lesions], onset=model.onset) if lesions.any() else None,
        combat=combat,
        site_factors=factors,
        between_sites=_between_sites({"measured": measured} | ({} if factors is None else {"scaled": values})),
        cautions=(
            *checks.stops,
            *(comparisons.refusals if comparisons else ()),
            *_without_control(comparisons, model),
            *few,
        ),
        missing=missing,
    )


def _without_control(comparisons: Comparisons | None, model: GroupModel) -> tuple[str, ...]:
    if comparisons is None or model.negative_controls or not (comparisons.table["state"] == "compared").any():
        return ()
    return (
        "No region was named where no difference is expected (negative_controls of the model file): a difference of "
        "scanner or calibration would look like one of the groups.",
    )


def _asked(cohort: Cohort, model: GroupModel) -> Cohort:
    """The rows that the model asks for, and those of lesions: of thousands of participants only these become text."""
    long = cohort.tsc
    names = long["name"].astype(object)
    label = long["index"].notna() if "index" in long else np.zeros(len(long), dtype=bool)
    kept = regions_asked(names.to_frame("region").assign(index=np.where(label, "label", "")), model, also=MAIN_REGIONS)
    kept |= names.str.startswith(LESION_ROWS)
    for name, labels in (("estimator", model.estimators), ("reference", model.references)):
        if labels:
            kept &= long[name].isin(labels)
    return replace(cohort, tsc=long[kept].reset_index(drop=True))


def _repeatability(cohort: Cohort) -> pd.DataFrame | None:
    """Of those who were scanned more than once."""
    scans = cohort.tsc[["participant_id", "session_id", "run"]].drop_duplicates()
    if not scans["participant_id"].duplicated().any():
        return None
    runs = measured_values(cohort, average_runs=False)
    table = repeatability(runs[~runs["region"].str.startswith(LESION_ROWS)])
    return table if len(table) else None


def _site_factors(values: pd.DataFrame, model: GroupModel) -> pd.DataFrame | None:
    """The factor of every site, where the model asks for scaling."""
    if model.harmonisation != "travelling":
        return None
    if model.travelling is not None:
        return phantom_factors(read_phantom(model.travelling))
    return travelling_factors(values[values["region"].isin(MAIN_REGIONS) & (values["hemisphere"] == "both")])


def _combat(
    values: pd.DataFrame, model: GroupModel, missing: dict[str, str]
) -> tuple[pd.DataFrame, dict[tuple[str, ...], ComBatModel]] | None:
    if "site" not in values or values["site"].replace("", np.nan).nunique() < 2:
        return None
    try:
        numbers = [name for name in model.covariates if name not in model.categories]
        kept = [model.group, *(name for name in model.covariates if name != "site")]
        return harmonise(values, keep=kept, numbers=numbers)
    except InputError as error:
        if model.harmonisation == "combat":
            raise
        missing["combat"] = str(error)
        return None


def _random_sites(values: pd.DataFrame, model: GroupModel) -> pd.DataFrame | None:
    """Groups compared with the site as a random intercept, where there are sites enough."""
    held = [name for name in model.held_constant if name != "site"]
    sites = values["site"].replace("", np.nan).nunique() if "site" in model.held_constant and "site" in values else 0
    if sites < FEWEST_SITES or model.group not in values:
        return None
    return site_differences(
        values, group=model.group, control=model.control, covariates=held, categories=model.categories
    )


def _zscores(
    values: pd.DataFrame, model: GroupModel, missing: dict[str, str]
) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    if model.control is None:
        missing["zscores"] = "no group is known as that of the controls: name it in the model file (control)"
        return None, ()
    numbers = [name for name in model.covariates if name not in model.categories]
    covariates = [name for name in model.held_constant if name != "site" or model.harmonisation != "combat"]
    found = normative_scores(values, control=model.control, group=model.group, covariates=covariates, numbers=numbers)
    return found.table, found.notes


def _change(values: pd.DataFrame, model: GroupModel) -> pd.DataFrame | None:
    if model.time is None:
        return None
    group = model.group if model.group in values else None
    held = model.held_constant
    return change_per_year(
        values, time=model.time, group=group, control=model.control, covariates=held, categories=model.categories
    )


def _correlations(values: pd.DataFrame, model: GroupModel) -> pd.DataFrame | None:
    if not model.scores:
        return None
    group = model.group if model.group in values else None
    return correlations(
        values, scores=model.scores, group=group, covariates=model.held_constant, categories=model.categories,
        seed=model.seed,
    )  # fmt: skip


def _roc(values: pd.DataFrame, model: GroupModel) -> pd.DataFrame | None:
    if not model.roc:
        return None
    return roc(
        values, group=model.group, control=model.control, covariates=model.held_constant, categories=model.categories,
        seed=model.seed,
    )  # fmt: skip


def _events(values: pd.DataFrame, model: GroupModel) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    if model.event is None or model.event_time is None:
        return None, None
    time, event = model.event_time, model.event
    events = event_table(values, time=time, event=event, group=model.group, covariates=model.covariates)
    held = model.held_constant
    return events.table, hazard_ratios(values, time=time, event=event, covariates=held, categories=model.categories)


def _between_sites(by_name: dict[str, pd.DataFrame]) -> pd.DataFrame | None:
    """Variation between sites of those who were at several, one table below the other."""
    import pandas as pd

    if any("site" not in values for values in by_name.values()):
        return None
    tables = [intersite_cov(values).assign(values=name) for name, values in by_name.items()]
    table = pd.concat(tables, ignore_index=True)
    return table if len(table) else None
