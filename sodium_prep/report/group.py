"""The sections of the group page."""

from __future__ import annotations

import platform

from sodium_prep import __version__
from sodium_prep.report import group_effects, group_further, group_overview, group_quality
from sodium_prep.report.group_results import GroupResults
from sodium_prep.report.methods import build_methods
from sodium_prep.report.page import GroupReport, SummaryItem


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
