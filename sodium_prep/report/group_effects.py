"""Which groups differ, where and by how much: findings, main regions, effect sizes, comparisons, cautions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sodium_prep.cohort.cautions import comparison_cautions
from sodium_prep.cohort.model import MAIN_REGIONS, TISSUE_COLUMNS
from sodium_prep.cohort.values import STRATUM
from sodium_prep.report.group_plots import ForestRow, Interval, Strip, forest, strips
from sodium_prep.report.group_results import (
    MAX_REGIONS,
    GroupResults,
    estimator_name,
    estimator_pair,
    groups_of,
    main_first,
    references_of,
    reported,
    strata,
    whole_regions,
    with_groups,
)
from sodium_prep.report.group_tables import interval, number, p_value, stratum_of, words
from sodium_prep.report.page import (
    Block,
    Cell,
    DataTable,
    GroupSection,
    Heading,
    Notes,
    Paragraph,
    ReportFigure,
)

if TYPE_CHECKING:
    import pandas as pd

NO_GROUPS: Final = (
    "There are no groups to compare: participants.tsv has no such column, or no two groups among the participants with "
    "results."
)
_REFUSED: Final = "The groups were not compared, for the reasons below."


def findings(results: GroupResults) -> GroupSection:
    """What differs, in words and one table, and what stands against believing it."""
    blocks: list[Block] = []
    table = _reported(results)
    if table is None or not len(table):
        blocks.append(Paragraph(NO_GROUPS if len(groups_of(results)) < 2 else _REFUSED))
    else:
        blocks += [Notes(_sentences(table, results.alpha), "info"), _findings_table(table, results)]
    if lines := cautions(results):
        blocks += [Heading("Before you publish"), Notes(lines)]
    return GroupSection("findings", "What differs", blocks, "Findings")


def cautions(results: GroupResults) -> list[str]:
    """What a reader must know before the numbers are used."""
    lines = list(results.cautions)
    if results.comparisons is not None and len(results.comparisons):
        estimator = estimator_pair(results.comparisons)[-1]
        lines += comparison_cautions(results.comparisons, estimator=estimator, alpha=results.alpha)
    return list(dict.fromkeys(lines))


def _reported(results: GroupResults) -> pd.DataFrame | None:
    """Comparisons by the reported estimator and the primary reference."""
    table = results.comparisons
    if table is None or table.empty:
        return None
    return reported(table).reset_index(drop=True)


def effect_name(row: Mapping[Any, Any]) -> str:
    """The column of the difference that counts: the adjusted one, where there is one."""
    return "adjusted" if _finite(row.get("adjusted")) else "difference"


def _p_name(row: Mapping[Any, Any], effect: str = "") -> str:
    """The p value of an effect: the corrected one, and the plain one of a negative control, which is in no family."""
    name = effect or effect_name(row)
    plain = "p" if name == "difference" else f"{name}_p"
    return plain if _is_control(row) else f"{plain}_fdr"


def _is_control(row: Mapping[Any, Any]) -> bool:
    return row.get("role") == "negative_control"


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _tested(row: Mapping[Any, Any]) -> bool:
    return bool(row["state"] == "compared" and not _is_control(row))


def _sentences(table: pd.DataFrame, alpha: float) -> list[str]:
    """For every pair and stratum, which regions differ."""
    lines = []
    by = [name for name in STRATUM if name in table]
    many = [name for name in by if table[name].nunique() > 1]
    for key, part in table.groupby(["group_1", "group_2", *by], sort=False):
        rows = [row for row in part.to_dict("records") if _tested(row)]
        start = f"{key[1]} minus {key[0]}{' (' + stratum_of({n: part.iloc[0][n] for n in many}) + ')' if many else ''}"
        if not rows:
            lines.append(f"{start}: not compared ({', '.join(sorted(set(part['state'])))}).")
            continue
        n = f"n = {int(rows[0]['n_2'])} and {int(rows[0]['n_1'])}"
        sure = [row for row in rows if _finite(row[_p_name(row)]) and row[_p_name(row)] < alpha]
        how = f"{estimator_name(rows[0]['estimator'])} values, reference {rows[0]['reference']}, {n}"
        if not sure:
            lines.append(f"{start}: no difference shown in {_count(len(rows))} by p (FDR) ({how}).")
        else:
            told = ", ".join(f"{row['region']}{_side(row)} {_signed(row)}" for row in sure)
            lines.append(f"{start}: {len(sure)} of {_count(len(rows))} differ{'s' * (len(sure) == 1)}: {told} ({how}).")
    return lines


def _count(n: int) -> str:
    return f"{n} tested region{'' if n == 1 else 's'}"


def _label(row: Mapping[Any, Any]) -> str:
    return f"{row['region']}{_side(row)}" + (" (negative control)" if _is_control(row) else "")


def _side(row: Mapping[Any, Any]) -> str:
    return f" {row['hemisphere']}" if row.get("hemisphere", "both") != "both" else ""


def _signed(row: Mapping[Any, Any]) -> str:
    name = effect_name(row)
    percent = f", {100 * row[name] / row['mean_1']:+.1f} %" if row["mean_1"] else ""
    text = f"{row[name]:+.1f} mM [{row[f'{name}_ci_low']:.1f}, {row[f'{name}_ci_high']:.1f}]{percent}"
    return text.replace("-", "\u2212")


def _findings_table(table: pd.DataFrame, results: GroupResults) -> DataTable:
    """A row for each region: the effect as reported, uncorrected, at equal tissue and by the other references."""
    every, alpha = results.comparisons, results.alpha
    assert every is not None
    keys = [n for n in ("group_1", "group_2", *STRATUM, "region", "hemisphere", "estimator", "reference") if n in every]
    known = {tuple(row[n] for n in keys): row for row in every.to_dict("records")}

    def other(row: Mapping[Any, Any], **changed: str) -> Mapping[Any, Any] | None:
        """The same comparison by another estimator or reference."""
        return known.get(tuple({**row, **changed}[n] for n in keys))

    columns: list[tuple[str, Callable[[Mapping[Any, Any]], Cell]]] = [("Region", lambda row: Cell(_label(row)))]
    if len(table[["group_1", "group_2"]].drop_duplicates()) > 1:
        columns.append(("Groups", lambda row: Cell(f"{row['group_2']} minus {row['group_1']}")))
    if show := [name for name in STRATUM if name in table and table[name].nunique() > 1]:
        columns.append(("Scan", lambda row: Cell(stratum_of({n: row[n] for n in show}))))
    if table["estimator"].iloc[0] == "none":
        columns.append(("Uncorrected, mM", lambda row: interval(row, effect_name(row), 1)))
    else:
        columns.append(("Uncorrected, mM", lambda row: _starred(other(row, estimator="none"), alpha)))
        columns.append(("Corrected, mM", lambda row: interval(row, effect_name(row), 1)))
    columns += [("%", _percent), ("p (FDR)", lambda row: p_value(row[_p_name(row)]))]
    if "tissue_adjusted" in every and every["tissue_adjusted"].notna().any():
        columns.append(("At equal tissue, mM", lambda row: _starred(row, alpha, "tissue_adjusted")))
    for name in references_of(every)[1:]:
        columns.append((f"% by {name}", lambda row, name=name: _percent(other(row, reference=name), alpha)))  # type: ignore[misc]
    if "reading" in every and (every["reading"].fillna("") != "").any():
        columns.append(("Reading", lambda row: words(row["reading"] if row["state"] == "compared" else row["state"])))
    rows = [[cell(row) for _, cell in columns] for row in table.to_dict("records")]
    return DataTable(_findings_caption(table, alpha), [title for title, _ in columns], rows)


def _findings_caption(table: pd.DataFrame, alpha: float) -> str:
    covariates = sorted({str(c) for c in table.get("covariates", []) if c})
    caption = (
        f"Second group minus first by {table['reference'].iloc[0]}, adjusted for {'; '.join(covariates) or 'nothing'}; "
        f"percent of the first group's mean; brackets: 95 % intervals; * elsewhere: p (FDR) below {alpha:g}."
    )
    if held := sorted({str(c) for c in table.get("tissue_covariates", []) if c}):
        told = (" and ".join(TISSUE_COLUMNS.get(name, name) for name in one.split(", ")) for one in held)
        caption += f" At equal tissue: at equal {'; '.join(told)} besides."
    if "role" in table and (table["role"] == "negative_control").any():
        caption += " p of negative controls is not corrected."
    return caption


def _starred(row: Mapping[Any, Any] | None, alpha: float, name: str = "") -> Cell:
    """A difference, with a star where its p is below the level."""
    if not row:
        return Cell("n/a")
    cell = interval(row, name or effect_name(row), 1)
    return Cell(cell.text + _star(row, alpha, name), cell.order)


def _percent(row: Mapping[Any, Any] | None, alpha: float = 0.0) -> Cell:
    """The difference in percent of the first mean, with a star where its p is below a level."""
    if not row or not _finite(row[effect_name(row)]) or not row["mean_1"]:
        return Cell("n/a")
    cell = number(100 * row[effect_name(row)] / row["mean_1"], 1, sign=True)
    return Cell(cell.text + _star(row, alpha), cell.order)


def _star(row: Mapping[Any, Any], alpha: float, name: str = "") -> str:
    p = row.get(_p_name(row, name), math.nan)
    return "\u00a0*" if p < alpha else ""


def regions(results: GroupResults) -> GroupSection:
    """Values of each participant in the main regions, uncorrected beside corrected."""
    blocks: list[Block] = []
    groups = groups_of(results)
    for name, part in strata(with_groups(whole_regions(results.values), results)):
        for reference in references_of(part):
            here = part[part["reference"] == reference]
            shown = ", ".join(filter(None, (name, f"reference: {reference}")))
            blocks.append(_strips(here, results, groups, shown, explained=bool(blocks)))
    return GroupSection(
        "regions",
        "Main regions by group",
        blocks or [Paragraph("No participant has a regional table yet.")],
        "Main regions",
    )


def _strips(
    values: pd.DataFrame, results: GroupResults, groups: Sequence[str], title: str, explained: bool
) -> ReportFigure:
    estimators = estimator_pair(values)
    there = set(values["region"]) - set(values["reference"])  # the reference itself is equal in all
    names = [r for r in MAIN_REGIONS if r in there] or main_first(there)[:8]
    columns = list(groups) or sorted(set(values["shown"]))
    columns += ["no group"] if groups and "no group" in set(values["shown"]) else []
    rows = []
    for region in names:
        for estimator in estimators:
            here = values[(values["region"] == region) & (values["estimator"] == estimator)]
            cells = {
                g: [
                    (w, v, g)
                    for w, v in here.loc[here["shown"] == g, ["participant_id", "tsc"]].itertuples(index=False)
                ]
                for g in columns
            }
            base, model = model_values(here, results.comparisons, groups)
            rows.append(Strip(f"{region}\n{estimator_name(estimator)}", cells, model, base))
    drawn = strips([rows] if len(estimators) == 2 else [[r] for r in rows], title=title, groups=columns)
    caption = (
        "One dot per participant; shaded: their distribution, from ten on. Panels of a region share their scale, so "
        "that the shift by partial volume correction shows."
    )
    if any(panel.model for panel in rows):
        caption += (
            " Dashed: mean of the first group. Diamond: that mean plus the model's difference at equal covariates, "
            "with its 95 % interval; an interval that leaves out the dashed line is a difference."
        )
    if explained:
        caption = "As the figure above."
    alt = f"Dots of TSC in {', '.join(names)} by group ({', '.join(columns)}), {title}."
    return ReportFigure("group", title, caption, drawn.svg, alt, wide=len(estimators) == 2, points=drawn.points)


def model_values(
    here: pd.DataFrame, table: pd.DataFrame | None, groups: Sequence[str]
) -> tuple[float | None, dict[str, Interval]]:
    """What the model says of the groups in one panel.

    Parameters
    ----------
    here
        Values of one stratum, region, estimator and reference.
    table
        Comparisons, in either order of the groups.
    groups
        The first one is what the others are compared with.

    Returns
    -------
    Mean of the first group, and for every other one that mean plus the model's difference, with its interval.
    """
    if table is None or table.empty or here.empty or len(groups) < 2:
        return None, {}
    first = here.iloc[0]
    chosen = table[table["state"] == "compared"]
    for name in ("region", "estimator", "reference", *STRATUM):
        if name in chosen and name in here:
            chosen = chosen[chosen[name] == first[name]]
    if "hemisphere" in chosen:
        chosen = chosen[chosen["hemisphere"] == "both"]
    base, model = None, {}
    for row in chosen.to_dict("records"):
        pair = (row["group_1"], row["group_2"])
        if groups[0] not in pair:
            continue
        name, sign, own = effect_name(row), (1.0 if pair[0] == groups[0] else -1.0), pair[pair[0] == groups[0]]
        base = float(row["mean_1"] if sign > 0 else row["mean_2"])
        value, *ends = (base + sign * float(row[n]) for n in (name, f"{name}_ci_low", f"{name}_ci_high"))
        if math.isfinite(value):
            model[own] = (value, min(ends), max(ends))
    return base, model


def effects(results: GroupResults) -> GroupSection | None:
    """Effect sizes of all regions, and the table of comparisons."""
    table = results.comparisons
    if table is None or table.empty:
        return None
    blocks: list[Block] = []
    for (first, second), part in table.groupby(["group_1", "group_2"], sort=False):
        for name, here in strata(part.assign(participant_id="")):
            title = ", ".join(filter(None, (f"{second} minus {first}", name)))
            blocks += _forest(here, title)
            for reference in references_of(here):
                part_of = here[here["reference"] == reference]
                blocks.append(_comparison_table(part_of, f"{title}, reference: {reference}", str(first), str(second)))
    return GroupSection("effects", "Group comparisons", blocks, "Comparisons")


def _forest(part: pd.DataFrame, title: str) -> list[Block]:
    made = part[(part["state"] == "compared") & part["hedges_g"].notna()]
    if made.empty:
        return []
    estimators, references = estimator_pair(made), references_of(made)
    found: dict[str, tuple[dict[str, dict[str, Interval]], bool, float]] = {}
    for row in made[made["estimator"].isin(estimators)].to_dict("records"):
        label = f"{row['region']}{_side(row)}"
        effects, control, size = found.setdefault(label, ({}, _is_control(row), 0.0))
        value = tuple(float(row[n]) for n in ("hedges_g", "hedges_g_ci_low", "hedges_g_ci_high"))
        effects.setdefault(row["reference"], {})[estimator_name(row["estimator"])] = value  # type: ignore[assignment]
        found[label] = (effects, control, max(size, abs(value[0])))
    order = sorted(found, key=lambda label: (found[label][1], -found[label][2]))
    rows = [ForestRow(label, found[label][0], found[label][1]) for label in order[:MAX_REGIONS]]
    drawn = forest(rows, title=title, panels=references, series=[estimator_name(e) for e in estimators])
    caption = (
        "Difference in standard deviations, without adjustment, by region and reference; largest first, negative "
        "controls (grey squares) last."
    )
    if len(order) > MAX_REGIONS:
        caption += f" The {MAX_REGIONS} regions of largest effect of {len(order)}; the table holds all."
    alt = f"Effect sizes of {len(rows)} regions with 95 % intervals, {title}."
    return [ReportFigure("group", title, caption, drawn.svg, alt, wide=len(references) > 1, points=drawn.points)]


def _comparison_table(part: pd.DataFrame, title: str, first: str, second: str) -> DataTable:
    tissue = "tissue_adjusted" in part and part["tissue_adjusted"].notna().any()
    columns = ["Region", "Estimator", "n", f"{first}, mM (SD)", f"{second}, mM (SD)", "Difference, mM", "p (FDR)",
               "Hedges' g", *(["At equal tissue, mM", "p (FDR), equal tissue"] if tissue else [])]  # fmt: skip
    estimators = list(dict.fromkeys((*estimator_pair(part), *part["estimator"])))
    names = main_first(set(part["region"]))
    ordered = sorted(
        part[part["state"] == "compared"].to_dict("records"),
        key=lambda row: (_is_control(row), names.index(row["region"]), _side(row),
                         estimators.index(row["estimator"])),
    )  # fmt: skip
    return DataTable(_caption(part), columns, [_comparison_row(row, bool(tissue)) for row in ordered], title)


def _caption(part: pd.DataFrame) -> str:
    """What the differences are adjusted for, and what was not compared and why."""
    made = part["state"] == "compared"
    covariates = sorted({str(c) for c in part.get("covariates", []) if c})
    lines = [
        f"Difference adjusted for: {'; '.join(covariates) or 'nothing'}; Hedges' g is not. Brackets: 95 % intervals."
    ]
    for state, rest in part[~made].groupby("state", sort=False):
        lines.append(f"{', '.join(dict.fromkeys(rest['region']))}: {state}.")
    return " ".join(lines)


def _comparison_row(row: Mapping[Any, Any], tissue: bool) -> list[Cell]:
    cells = [
        Cell(_label(row)),
        Cell(estimator_name(row["estimator"])),
        Cell(f"{row['n_1']:.0f}\u00a0/\u00a0{row['n_2']:.0f}"),
        Cell(f"{row['mean_1']:.1f}\u00a0({row['sd_1']:.1f})", float(row["mean_1"])),
        Cell(f"{row['mean_2']:.1f}\u00a0({row['sd_2']:.1f})", float(row["mean_2"])),
        interval(row, effect_name(row), 1),
        p_value(row[_p_name(row)]),
        interval(row, "hedges_g", 2),
    ]
    return [*cells, *(_tissue_cells(row) if tissue else [])]


def _tissue_cells(row: Mapping[Any, Any]) -> list[Cell]:
    return [interval(row, "tissue_adjusted", 1), p_value(row.get(_p_name(row, "tissue_adjusted")))]
