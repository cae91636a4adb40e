"""The voxel-wise part of the group level: maps compared, z-maps written, and the figures of the group page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sodium_prep.cohort.analysis import Analysis
from sodium_prep.cohort.design import people_of
from sodium_prep.report.page import ReportFigure
from sodium_prep.settings import Settings

if TYPE_CHECKING:
    from sodium_prep.cli.voxelwise import VoxelwiseAnalysis

_MAPS: Final = {"": "not corrected for partial volume"}


@dataclass(frozen=True)
class MapResults:
    """What came of the maps: figures of the page by heading, facts for the methods text, and notes."""

    figures: Mapping[str, Sequence[ReportFigure]]
    facts: Mapping[str, Any]
    notes: tuple[str, ...]


def compare_maps(settings: Settings, analysis: Analysis) -> MapResults:
    """Compare groups voxel by voxel and write everybody's z-map, as the model asks."""
    from sodium_prep.cli.voxelwise import compare_groups_by_voxel, z_maps_of_participants

    model, people = analysis.model, people_of(analysis.values)
    how: dict[str, Any] = {
        "group": model.group, "covariates": model.held_constant, "categories": model.categories,
        "coverage": model.map_coverage, "smoothing_mm": model.map_smoothing_mm,
    }  # fmt: skip
    print(f"sodium-prep: comparing maps, {model.permutations} permutations each; this takes minutes.", file=sys.stderr)
    found, notes = compare_groups_by_voxel(
        settings.output_dir, people, control=model.control, contrasts=model.contrasts, statistic=model.map_statistic,
        tissue=None if model.map_tissue == "none" else model.map_tissue, permutations=model.permutations,
        alpha=model.alpha, seed=model.seed, n_jobs=settings.nprocs, **how,
    )  # fmt: skip
    if model.control is not None:
        notes += z_maps_of_participants(settings.output_dir, people, control=model.control, **how)[1]
    figures: dict[str, list[ReportFigure]] = {}
    for one in found:
        figures.setdefault(_heading(one), []).extend(_figures(one, model.alpha))
    statistic = {"tfce": "tfce", "mass": "cluster"}[model.map_statistic]
    facts = {"permutations": model.permutations, "covariates": list(model.held_constant), "statistic": statistic}
    return MapResults(figures, facts, tuple(notes))


def _heading(one: VoxelwiseAnalysis) -> str:
    first, second = one.groups
    kind = _MAPS.get(one.stratum["desc"], f"corrected by {one.stratum['desc']}")
    held = f", share of {one.tissue} held constant" if one.tissue else ""
    return f"{second} minus {first}, {kind}{held}"


def _figures(one: VoxelwiseAnalysis, alpha: float) -> list[ReportFigure]:
    n = len(one.clusters)
    told = f"{n} cluster{'' if n == 1 else 's'}" if n else "No cluster"
    caption = (
        f"{told} with a corrected p below {alpha:g} (n = {one.sizes[0]} and {one.sizes[1]}; smallest p "
        f"{one.least_p:.3g}). Table: group/voxelwise."
    )
    heading = _heading(one)
    return [
        ReportFigure("voxelwise", heading, caption, path.read_text(encoding="utf-8"), f"{heading}: {name}", wide=True)
        for name, path in one.figures.items()
    ]
