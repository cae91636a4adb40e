"""The group page, filled from an analysis."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sodium_prep import __version__
from sodium_prep.cli.group_maps import MapResults
from sodium_prep.cohort.analysis import Analysis
from sodium_prep.cohort.model import TISSUE_COLUMNS
from sodium_prep.cohort.qc import Quality
from sodium_prep.cohort.tables import Cohort
from sodium_prep.report.group import group_report
from sodium_prep.report.group_results import GroupResults
from sodium_prep.report.page import render_group


def group_page(
    out_dir: Path,
    cohort: Cohort,
    quality: Quality,
    analysis: Analysis,
    maps: MapResults | None,
) -> str:
    """The page as HTML text.

    Parameters
    ----------
    out_dir
        Derivatives: participants with a page there are linked.
    cohort, quality, analysis
        What was found.
    maps
        Of the voxel-wise comparison, where there was one.
    """
    model, checks = analysis.model, analysis.checks
    results = GroupResults(
        cohort=cohort,
        values=analysis.values,
        comparisons=analysis.comparisons,
        design_checks=[
            f"{row['check']}: {row['text']}." for row in checks.table.to_dict("records") if row["state"] != "ok"
        ],
        group_site=checks.group_site,
        zscores=analysis.zscores,
        harmonised=analysis.combat[0] if analysis.combat else None,
        longitudinal=analysis.change,
        correlations=analysis.correlations,
        roc=analysis.roc,
        reliability=analysis.repeatability,
        between_sites=analysis.between_sites,
        lesions=analysis.lesions,
        hazards=analysis.hazards,
        site_factors=analysis.site_factors,
        qc=quality.metrics,
        verdicts=quality.verdicts,
        excluded=quality.excluded,
        figures=maps.figures if maps else {},
        cautions=(*analysis.cautions, *(maps.notes if maps else ())),
        missing=analysis.missing,
        alpha=model.alpha,
        group=model.group,
        control=model.control,
        time=model.time,
        onset=model.onset,
        scores=model.scores,
        methods=_methods(quality, analysis) | {"voxelwise": maps.facts if maps else None},
        model_toml=model.to_toml(),
        pages=frozenset(page.stem.removeprefix("sub-") for page in out_dir.glob("sub-*.html")),
    )
    return render_group(group_report(results))


def _methods(quality: Quality, analysis: Analysis) -> dict[str, Mapping[str, Any] | None]:
    """The steps that ran, for the methods text."""
    model, comparisons, zscores = analysis.model, analysis.comparisons, analysis.zscores
    compared = comparisons is not None and bool((comparisons["state"] == "compared").any())
    covariates = list(model.held_constant)
    steps: dict[str, Mapping[str, Any] | None] = {
        "quality": {"raters": quality.rated, "n_excluded": len(quality.excluded)},
        "software": {"sodium_prep": __version__} | ({"statsmodels": version("statsmodels")} if compared else {}),
    }
    if compared:
        steps["comparison"] = {
            "covariates": covariates,
            "tissue_covariates": [TISSUE_COLUMNS[name] for name in model.tissue_covariates],
            "robust": model.robust,
            "weights": model.weights,
            "negative_controls": model.negative_controls,
        }
        if "site" in covariates:
            steps["harmonisation"] = {"method": model.harmonisation, "shown": analysis.combat is not None}
    if zscores is not None and len(zscores):
        steps["normative"] = {"covariates": covariates, "n_controls": int(zscores["n_controls"].max())}
    if analysis.change is not None:
        steps["longitudinal_change"] = {"covariates": covariates}
    if analysis.correlations is not None:
        steps["correlation"] = {"scores": model.scores, "methods": ("pearson", "spearman"), "covariates": covariates}
    if analysis.roc is not None:
        steps["classification"] = {"folds": 5, "bootstraps": 2000}
    if analysis.hazards is not None:
        steps["survival"] = {"covariates": covariates}
    if analysis.repeatability is not None:
        steps["reliability"] = {}
    return steps
