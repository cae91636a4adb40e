"""Voxel-wise results of a cohort: groups compared in template space, and every participant against the controls."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sodium_prep.bids.outputs import json_beside, write_text
from sodium_prep.bids.template_maps import (
    MAP_COLUMNS,
    CoarseGrid,
    coarse_grid,
    load_maps,
    template_maps,
    tissue_on_grid,
    write_group_map,
)
from sodium_prep.errors import InputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from sodium_prep.cohort.voxelwise import GroupTest, Statistic

logger = logging.getLogger("sodium_prep.cli")

Tissue = Literal["GM", "WM", "CSF"]

_STRATUM: Final = tuple(column for column in MAP_COLUMNS.values() if column not in ("participant_id", "run"))
_ENTITY: Final = {column: entity for entity, column in MAP_COLUMNS.items()}


@dataclass(frozen=True)
class VoxelwiseAnalysis:
    """Two groups compared in one kind of map.

    Attributes
    ----------
    stratum
        Session, acquisition, reconstruction, space, label and desc (the partial volume correction) of the maps.
    groups, sizes
        First and second group, and how many of each were analysed.
    tissue
        Tissue whose share was held constant in each voxel, or empty.
    clusters
        Rows of :data:`~sodium_prep.cohort.voxelwise.CLUSTER_COLUMNS`.
    least_p
        Smallest corrected p of all voxels.
    figures
        SVG files by name: ``slices`` and, where something is significant, ``glass``.
    """

    stratum: dict[str, str]
    groups: tuple[str, str]
    sizes: tuple[int, int]
    tissue: str
    clusters: pd.DataFrame
    least_p: float
    figures: dict[str, Path]


@dataclass(frozen=True)
class _Maps:
    """The maps of one stratum: a row of files per participant, in the order of ``people`` and ``values``."""

    stratum: dict[str, str]
    grid: CoarseGrid
    people: pd.DataFrame
    runs: list[list[dict[str, str]]]
    values: NDArray[np.float32]

    @property
    def stem(self) -> str:
        return "_".join(f"{_ENTITY[column]}-{value}" for column, value in self.stratum.items() if value)

    def paths(self, chosen: NDArray[np.bool_]) -> list[str]:
        return [one["path"] for runs, take in zip(self.runs, chosen, strict=True) if take for one in runs]


def compare_groups_by_voxel(
    out_dir: Path,
    people: pd.DataFrame,
    *,
    group: str = "group",
    control: str | None = None,
    contrasts: Sequence[tuple[str, str]] = (),
    covariates: Sequence[str] = ("age", "sex", "site"),
    categories: Sequence[str] = ("sex", "site"),
    tissue: Tissue | None = "GM",
    statistic: Statistic = "tfce",
    permutations: int = 1000,
    alpha: float = 0.05,
    coverage: float = 0.9,
    smoothing_mm: float = 0.0,
    voxel_mm: float = 4.0,
    seed: int = 42,
    n_jobs: int = 1,
) -> tuple[list[VoxelwiseAnalysis], list[str]]:
    """Compare groups in all template-space maps, and write ``group/voxelwise`` of the derivative data set.

    Parameters
    ----------
    out_dir
        Derivatives.
    people
        Those who are analysed, one row each, as text: ``participant_id``, the group and the covariates.
    group, control
        Column of the groups; the control group is compared with every other, without it every pair.
    contrasts
        Pairs of groups to compare in place of these, second minus first.
    covariates, categories
        Columns to hold constant where they are there and vary, and which of them are categories.
    tissue
        Besides the plain comparison, one with the share of this tissue held constant in each voxel.
    statistic, permutations, seed, n_jobs
        See :func:`sodium_prep.cohort.voxelwise.compare_voxels`.
    coverage
        See :func:`sodium_prep.cohort.voxelwise.cover`.
    smoothing_mm
        FWHM by which the maps are smoothed further; the sodium image is as smooth as its point spread function.
    voxel_mm
        Voxels of the comparison. Finer ones than the image was sampled with cost time and tell nothing more.

    Returns
    -------
    The analyses, and one line for each that was not made and each participant who was left out.
    """
    from sodium_prep.cohort.columns import group_pairs

    notes: list[str] = []
    analyses = []
    for maps in _strata(out_dir, people[people[group].fillna("") != ""], voxel_mm, smoothing_mm, notes):
        shares = None if tissue is None else _tissues(maps, tissue, smoothing_mm, notes)
        labels = sorted(set(maps.people[group]))
        pairs = list(contrasts) or group_pairs(labels, control)
        names = [_contrast(*pair) for pair in pairs]
        if len(set(names)) < len(names):
            raise InputError("participants.tsv", "has groups that differ only in signs", "Give them names of letters")
        for first, second in pairs:
            for model in (None, shares) if shares is not None else (None,):
                try:
                    found = _compare(
                        maps, (str(first), second), group, (covariates, categories), model, notes, statistic=statistic,
                        permutations=permutations, seed=seed, n_jobs=n_jobs, coverage=coverage,
                    )  # fmt: skip
                except InputError as error:
                    notes.append(f"{maps.stem}, {second} against {first}: {error}")
                    continue
                held = f", {tissue} held constant" if model is not None else ""
                logger.info("compared %s, %s with %s%s", maps.stem, second, first, held)
                extra = found.record | {"SmoothingFWHM": smoothing_mm, "Alpha": alpha, "Seed": seed}
                analyses.append(_written(out_dir, maps, found, tissue if model is not None else None, extra, alpha))
    return analyses, list(dict.fromkeys(notes))


def _strata(
    out_dir: Path, people: pd.DataFrame, voxel_mm: float, smoothing_mm: float, notes: list[str]
) -> Iterator[_Maps]:
    """The maps of each stratum that has a template, of the participants given."""
    from sodium_prep.atlas.templates import find_template

    listed = template_maps(out_dir)
    listed = listed[listed["participant_id"].isin(people["participant_id"])]
    for keys, part in listed.groupby(list(_STRATUM), sort=True):
        stratum = dict(zip(_STRATUM, map(str, keys), strict=True))
        try:
            grid = coarse_grid(find_template(stratum["space"]), voxel_mm)
        except UsageError as error:
            notes.append(f"Maps in {stratum['space']} were not analysed: {error}")
            continue
        runs = {str(label): rows.to_dict("records") for label, rows in part.groupby("participant_id", sort=True)}
        here = people[people["participant_id"].isin(runs)].sort_values("participant_id", ignore_index=True)
        files: list[list[dict[str, str]]] = [runs[label] for label in here["participant_id"]]  # type: ignore[misc]
        values = load_maps([[one["path"] for one in rows] for rows in files], grid, smoothing_mm)
        yield _Maps(stratum, grid, here, files, values)


def _tissues(maps: _Maps, tissue: Tissue, smoothing_mm: float, notes: list[str]) -> NDArray[np.float32]:
    """Share of a tissue of each participant, mean over runs; nan throughout where it cannot be had."""
    out = np.full(maps.values.shape, np.nan, dtype=np.float32)
    for row, runs in zip(out, maps.runs, strict=True):
        try:
            row[:] = np.mean([tissue_on_grid(one, tissue, maps.grid, smoothing_mm) for one in runs], axis=0)
        except InputError as error:
            notes.append(str(error))
    return out


@dataclass(frozen=True)
class _Found:
    test: GroupTest
    groups: tuple[str, str]
    sizes: tuple[int, int]
    mask: NDArray[np.bool_]
    count: NDArray[np.int32]
    used: NDArray[np.bool_]
    record: dict[str, Any]


def _compare(
    maps: _Maps,
    groups: tuple[str, str],
    group: str,
    columns: tuple[Sequence[str], Sequence[str]],
    shares: NDArray[np.float32] | None,
    notes: list[str],
    *,
    coverage: float,
    **how: Any,
) -> _Found:
    from sodium_prep.cohort.columns import covariates as columns_of
    from sodium_prep.cohort.voxelwise import compare_voxels, cover

    chosen = maps.people[group].isin(groups).to_numpy()
    here = maps.people[chosen].assign(group=maps.people[group])
    held = columns_of(here, *columns)
    design, complete = held.matrix, held.complete
    values = maps.values[chosen]
    if shares is not None:
        values = np.where(np.isfinite(shares[chosen]), values, np.nan)
    labels = here["group"].to_numpy()
    reach = cover(values[complete], labels[complete], coverage)
    kept = complete.copy()
    kept[complete] = reach.participants
    if not reach.voxels.any():
        problem = f"there is no voxel of {maps.stem} that all have"
        raise InputError("voxel-wise comparison", problem, "Look at the maps")
    why = (("lacks a covariate", ~complete), ("covers too little of the brain", complete & ~kept))
    for reason, who in why:
        if who.any():
            out = ", ".join(here["participant_id"][who])
            notes.append(f"{maps.stem}, {groups[1]} against {groups[0]}: left out, {reason}: {out}.")
    test = compare_voxels(
        values[kept][:, reach.voxels], labels[kept] == groups[1], design[kept], _inside(maps.grid, reach.voxels),
        tissue=None if shares is None else shares[chosen][kept][:, reach.voxels], **how,
    )  # fmt: skip
    used = chosen.copy()
    used[chosen] = kept
    sizes = tuple(int((labels[kept] == one).sum()) for one in groups)
    record = {
        "Contrast": f"{groups[1]} - {groups[0]}",
        "Groups": dict(zip(groups, sizes, strict=True)),
        "Participants": list(here["participant_id"][kept]),
        "Covariates": list(held.names),
        "Statistic": how["statistic"],
        "Permutations": how["permutations"],
        "DegreesOfFreedom": test.dof,
        "Coverage": coverage,
        "VoxelsDropped": reach.lost,
    }
    count = np.zeros(maps.grid.brain.shape, dtype=np.int32)
    count[maps.grid.brain] = np.isfinite(values).sum(axis=0)
    mask = _inside(maps.grid, reach.voxels)
    return _Found(test, groups, (sizes[0], sizes[1]), mask, count, used, record)


def _inside(grid: CoarseGrid, voxels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.zeros_like(grid.brain)
    mask[grid.brain] = voxels
    return mask


def _contrast(first: str | None, second: str) -> str:
    """BIDS label of second against first."""
    words = ("".join(sign for sign in str(one) if sign.isalnum() and sign.isascii()) for one in (second, first))
    return "Minus".join(words)


def _written(
    out_dir: Path, maps: _Maps, found: _Found, tissue: Tissue | None, extra: dict[str, Any], alpha: float
) -> VoxelwiseAnalysis:
    """Write the images, the table of clusters and the figures of one comparison."""
    from sodium_prep.atlas.bundled import TEMPLATE_NAME, load_atlas
    from sodium_prep.cohort.tables import data_dictionary
    from sodium_prep.cohort.tsv import to_tsv
    from sodium_prep.cohort.voxelwise import CLUSTER_COLUMNS, cluster_table, place
    from sodium_prep.report.voxelwise import glass_brain, map_slices

    grid, test, mask = maps.grid, found.test, found.mask
    stem = f"{maps.stem}_contrast-{_contrast(*found.groups)}_model-{tissue or 'plain'}"
    extra = extra | {"TissueCovariate": tissue, "Design": _DESIGN}
    effect, p = place(test.effect, mask), place(test.p, mask)
    name = {"tfce": "TFCE", "mass": "Mass of the cluster"}[extra["Statistic"]]
    images: tuple[tuple[str, NDArray[Any], str, str], ...] = (
        ("effect", effect, "mmol/L", f"Total sodium concentration, {extra['Contrast']}, at equal covariates"),
        ("t", place(test.t, mask), "1", f"t of {extra['Contrast']}"),
        (extra["Statistic"], place(test.enhanced, mask), "1", f"{name}, with the sign of t"),
        ("logp", -np.log10(p), "1", "-log10 of p, two-sided, corrected for all voxels (family-wise error)"),
        ("coverage", found.count, "1", "Participants of the two groups who have a value"),
    )
    folder = out_dir / "group" / "voxelwise"
    for stat, values, units, text in images:
        write_group_map(
            folder / f"{stem}_stat-{stat}_statmap.nii.gz", values, grid, description=text, units=units,
            sources=maps.paths(found.used), out_dir=out_dir, extra=extra,
        )  # fmt: skip
    atlas = load_atlas() if grid.template.name == TEMPLATE_NAME else None
    clusters = cluster_table(test, mask, grid.affine, found.groups, atlas=atlas, alpha=alpha)
    table = folder / f"{stem}_clusters.tsv"
    write_text(table, to_tsv(clusters))
    described = {column: {"Description": text} for column, text in CLUSTER_COLUMNS.items()}
    write_text(json_beside(table), data_dictionary(clusters, described))
    significant = np.nan_to_num(p, nan=1.0) < alpha
    label = f"{extra['Contrast']} / (mmol/L)"
    title = f"{maps.stratum['desc'] or 'not corrected for partial volume'}"
    title += f", share of {tissue} held constant" if tissue else ""
    drawn = {
        "slices": map_slices(
            effect, grid.affine, grid.template.t1w, grid.template.affine, label=label, title=title,
            significant=significant, outline=f"p < {alpha:g}, family-wise error",
        )
    }  # fmt: skip
    if significant.any():
        drawn["glass"] = glass_brain(effect, grid.affine, significant, label=label, title=title)
    figures = {kind: write_text(out_dir / "group" / "figures" / f"{stem}_{kind}.svg", s) for kind, s in drawn.items()}
    return VoxelwiseAnalysis(
        maps.stratum, found.groups, found.sizes, tissue or "", clusters, float(test.p.min()), figures
    )


_DESIGN: Final = (
    "Linear model with the group, an intercept, the covariates and, where there is one, the share of a tissue in the "
    "voxel; Freedman-Lane permutations; voxels neighbour by faces; the maximum over both signs and all voxels"
)


def z_maps_of_participants(
    out_dir: Path,
    people: pd.DataFrame,
    *,
    control: str,
    group: str = "group",
    covariates: Sequence[str] = ("age", "sex"),
    categories: Sequence[str] = ("sex", "site"),
    coverage: float = 0.9,
    smoothing_mm: float = 0.0,
    voxel_mm: float = 2.0,
) -> tuple[list[Path], list[str]]:
    """Write a map of z against the controls for every participant, under ``group/zmaps`` of the derivatives.

    The parameters are those of :func:`compare_groups_by_voxel`. Controls who cover too little of the brain are scored,
    but not used.

    Returns
    -------
    The maps, and one line for each that was not made and whatever their reader must know.
    """
    from sodium_prep.bids.outputs import ENTITY_ORDER
    from sodium_prep.cohort.columns import covariates as columns_of
    from sodium_prep.cohort.voxelwise import cover
    from sodium_prep.cohort.zmaps import LEAST_CONTROLS, z_maps

    notes: list[str] = []
    written = []
    for maps in _strata(out_dir, people, voxel_mm, smoothing_mm, notes):
        held = columns_of(maps.people, covariates, categories)
        design, complete = held.matrix, held.complete
        controls = (maps.people[group] == control).to_numpy() & complete
        reach = cover(maps.values[controls], np.zeros(int(controls.sum())), coverage) if controls.any() else None
        if reach is None or not reach.voxels.any():
            notes.append(f"{maps.stem}: no z-maps, there is no voxel that all of the group {control} have.")
            continue
        controls[controls] = reach.participants
        if controls.sum() < LEAST_CONTROLS:
            notes.append(f"{maps.stem}: z-maps against {controls.sum()} controls only; z is uncertain.")
        try:
            z = z_maps(maps.values, controls, design, out=maps.values)
        except InputError as error:
            notes.append(f"{maps.stem}: {error}")
            continue
        z[~complete] = z[:, ~reach.voxels] = np.nan
        if bad := [label for label, row in zip(maps.people["participant_id"], z, strict=True) if np.isnan(row).all()]:
            notes.append(f"{maps.stem}: no z-map, a covariate is missing or no control has it: {', '.join(bad)}.")
        own = list(maps.people["participant_id"][controls])
        for label, row, runs in zip(maps.people["participant_id"], z, maps.runs, strict=True):
            if label in bad:
                continue
            entities = {_ENTITY[column]: value for column, value in maps.stratum.items() if value} | {"stat": "z"}
            parts = [f"{name}-{entities[name]}" for name in ("ses", *ENTITY_ORDER) if name in entities]
            path = out_dir / "group" / "zmaps" / ("_".join([f"sub-{label}", *parts, "TSCmap"]) + ".nii.gz")
            image = np.full(maps.grid.brain.shape, np.nan, dtype=np.float32)
            image[maps.grid.brain] = row
            extra = {
                "Controls": own, "LeaveOneOut": label in own, "Covariates": list(held.names),
                "SmoothingFWHM": smoothing_mm, "Coverage": coverage,
            }  # fmt: skip
            text = "Deviate of equal probability from the concentration that the linear model of the controls predicts"
            sources = [one["path"] for one in runs]
            write_group_map(
                path, image, maps.grid, description=text, units="1", sources=sources, out_dir=out_dir, extra=extra
            )
            written.append(path)
    return written, notes
