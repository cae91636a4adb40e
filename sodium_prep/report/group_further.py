"""What else is known of the cohort: sites, age, distances from the controls, change, scores, lesions, repeat scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sodium_prep.cohort.model import MAIN_REGIONS
from sodium_prep.cohort.values import measured_values
from sodium_prep.report.group_plots import Dot, Scatter, Strip, heat_map, roc_curves, scatters, strips
from sodium_prep.report.group_results import (
    MAX_REGIONS,
    GroupResults,
    estimator_name,
    groups_of,
    main_first,
    primary,
    reported,
    some,
    strata,
    with_groups,
)
from sodium_prep.report.group_tables import frame_table
from sodium_prep.report.page import Block, GroupSection, Heading, Paragraph, ReportFigure

if TYPE_CHECKING:
    import pandas as pd

_MAX_HOVER: Final = 12_000
_MAX_PEOPLE: Final = 1000


def _section(
    key: str, heading: str, blocks: Sequence[Block], results: GroupResults, label: str = ""
) -> GroupSection | None:
    """A section, or why it is empty; None where there is neither."""
    if blocks:
        return GroupSection(key, heading, blocks, label)
    if key in results.missing:
        return GroupSection(key, heading, [Paragraph(f"Not available: {results.missing[key]}.")], label)
    return None


def _main(results: GroupResults, values: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The main regions by the reported estimator and primary reference, stratum by stratum."""
    if not some(values):
        return []
    here = with_groups(primary(values), results)
    here = here[here["region"].isin(MAIN_REGIONS) & (here["region"] != here["reference"])]
    return strata(here)


def _told(values: pd.DataFrame, name: str) -> str:
    first = values.iloc[0]
    return ", ".join(filter(None, (name, f"{estimator_name(first['estimator'])}, reference: {first['reference']}")))


def _groups(results: GroupResults, values: pd.DataFrame) -> list[str]:
    groups = groups_of(results)
    return groups + sorted(set(values["shown"]) - set(groups))


def sites(results: GroupResults) -> GroupSection | None:
    """Values by site, before and after harmonisation."""
    blocks: list[Block] = []
    raw = dict(_main(results, results.values))
    after = dict(_main(results, results.harmonised)) if results.harmonised is not None else {}
    for name, part in raw.items():
        if "site" not in part or len(labels := sorted(set(part["site"]) - {""})) < 2:
            continue
        panels = []
        regions = [r for r in MAIN_REGIONS if r in set(part["region"])]
        for region in regions:
            panels.append(_by_site(part, region, labels, "as measured" if after else ""))
            if name in after:
                panels.append(_by_site(after[name], region, labels, "harmonised"))
        groups = _groups(results, part)
        title = _told(part, name)
        drawn = strips([panels], title=title, groups=groups)
        caption = "One dot per participant, coloured by group."
        if after:
            caption += _of_harmonised(results)
        alt = f"Values by site, {title}."
        blocks.append(ReportFigure("group", title, caption, drawn.svg, alt, True, "", drawn.points))
    if blocks and "combat" in results.missing:
        blocks.append(Paragraph(f"Values were not harmonised: {results.missing['combat']}."))
    blocks += _printed(results.site_factors, "Factors of the sites", "By which values were divided where applied.")
    return _section("sites", "Sites", blocks, results)


def _of_harmonised(results: GroupResults) -> str:
    """What the harmonised values were used for."""
    step = results.methods.get("harmonisation")
    if isinstance(step, Mapping) and step.get("method") == "combat":
        return " The models took the harmonised values, with the site in the model."
    return (
        " Harmonised values are for looking at: the models take the values as measured, with the site in the model, "
        "since tests of harmonised values without it find too many differences."
    )


def _by_site(values: pd.DataFrame, region: str, labels: Sequence[str], what: str) -> Strip:
    here = values[values["region"] == region]
    columns = {
        site: list(
            here.loc[here["site"] == site, ["participant_id", "tsc", "shown"]].itertuples(index=False, name=None)
        )
        for site in labels
    }
    return Strip("\n".join(filter(None, (region, what))), columns)


def age(results: GroupResults) -> GroupSection | None:
    """Values against age."""
    blocks: list[Block] = []
    for name, part in _main(results, results.values):
        if "age" not in part:
            continue
        figure = _against(part, "age", name, results, "age (years)", "A line is the least-squares fit of a group.")
        blocks += [figure] if figure else []
    return _section("age", "Age", blocks, results)


def _numbers(column: pd.Series[Any]) -> pd.Series[float]:
    import pandas as pd

    return pd.to_numeric(column, errors="coerce")


def _against(
    part: pd.DataFrame, column: str, name: str, results: GroupResults, axis: str, caption: str, joined: bool = False
) -> ReportFigure | None:
    """Main regions against a column, a panel for each."""
    part = part.assign(at=_numbers(part[column]))
    part = part[np.isfinite(part["at"]) & np.isfinite(part["tsc"])]
    if part["at"].nunique() < (2 if joined else 3):
        return None
    panels = [
        Scatter(region, _dots(part[part["region"] == region], "at", "tsc"), fitted=not joined, joined=joined)
        for region in MAIN_REGIONS
        if region in set(part["region"])
    ]
    title = _told(part, name)
    drawn = scatters(panels, title=title, groups=_groups(results, part), x=axis, y="TSC (mM)")
    caption = f"One dot per participant{' and session' if joined else ''}. {caption}"
    alt = f"Main regions against {column}, {title}."
    return ReportFigure("group", title, caption, drawn.svg, alt, len(panels) > 1, "", drawn.points)


def _dots(frame: pd.DataFrame, x: str, y: str) -> list[Dot]:
    columns = (frame[name] for name in (x, y, "shown", "participant_id"))
    return [Dot(float(a), float(b), str(g), str(w)) for a, b, g, w in zip(*columns, strict=True)]


def scores_of_regions(results: GroupResults) -> GroupSection | None:
    """Distances from the controls, participants by regions."""
    table = results.zscores
    blocks: list[Block] = []
    if table is not None and some(table):
        for name, part in strata(reported(table[table["measure"] == "tsc"])):
            blocks += _heat(part, name, results)
    return _section("zscores", "Distance from the controls", blocks, results, "z scores")


def _heat(part: pd.DataFrame, name: str, results: GroupResults) -> list[Block]:
    merged = part[part["hemisphere"] == "both"] if (part["hemisphere"] == "both").any() else part
    side = merged["hemisphere"].map({"both": "", "L": " L", "R": " R"}).fillna("")
    merged = merged.assign(label=merged["region"] + side, z=merged["z"].astype(float))
    regions = main_first(set(merged["label"]))
    wide = merged.drop_duplicates(["participant_id", "label"]).pivot(
        index="participant_id", columns="label", values="z"
    )
    wide = wide[regions[:MAX_REGIONS]]
    wide = wide.dropna(how="all")
    if wide.empty:
        return []
    people = results.cohort.participants
    own = dict(zip(people["participant_id"], people[results.group], strict=True)) if results.group in people else {}
    groups = groups_of(results)
    order = sorted(
        wide.index,
        key=lambda who: (groups.index(own[who]) if own.get(who) in groups else len(groups), -wide.loc[who].mean()),
    )
    caption = (
        "One row per participant, by group and within it by the mean of the row; controls are compared with the other "
        "controls. Grey: no value, or left out for unusual CSF."
    )
    if len(order) > _MAX_PEOPLE:
        caption += f" Of {len(order)} participants the first {_MAX_PEOPLE}; group/group_zscores.tsv holds all."
    if len(regions) > MAX_REGIONS:
        caption += f" Of {len(regions)} regions the first {MAX_REGIONS}."
    if (few := part["n_controls"].max() if "n_controls" in part else np.inf) < 10:
        caption += f" Only {few:.0f} controls: their range is imprecise."
    if len(order) <= 60:
        caption += " Numbers are printed from 1.96 on, which 5 % of controls exceed by chance in each region."
    order = order[:_MAX_PEOPLE]
    title = _told(part, name)
    drawn = heat_map(
        wide.loc[order].to_numpy(), people=order, groups=[str(own.get(who, "")) for who in order],
        regions=list(wide.columns), title=title,
    )  # fmt: skip
    points = drawn.points if len(drawn.points) <= _MAX_HOVER else ()
    return [
        ReportFigure("group", title, caption, drawn.svg, f"Heat map of z, {title}.", len(wide.columns) > 6, "", points)
    ]


def change(results: GroupResults) -> GroupSection | None:
    """Repeated sessions over time, and the change that the models find."""
    blocks: list[Block] = []
    if results.time and results.time in results.values:
        here = with_groups(primary(results.values), results)
        here = here[here["region"].isin(MAIN_REGIONS) & (here["region"] != here["reference"])]
        many = here.groupby("participant_id")["session_id"].nunique() > 1
        here = here[here["participant_id"].isin(many.index[many])]
        if some(here):
            figure = _against(here, results.time, "", results, results.time, "Sessions of a participant are joined.",
                              joined=True)  # fmt: skip
            blocks += [figure] if figure else []
    blocks += _printed(results.longitudinal, "Change", "Mixed models; brackets: 95 % intervals.")
    return _section("change", "Change over time", blocks, results, "Change")


def _printed(table: pd.DataFrame | None, heading: str, caption: str) -> list[Block]:
    """The reported rows of a table; nothing where there is none."""
    if table is None or table.empty:
        return []
    shown = reported(table)
    if len(shown) < len(table):
        caption += " Other corrections and references: see the file of this table."
    return [frame_table(shown, heading=heading, caption=caption)]


def clinical(results: GroupResults) -> GroupSection | None:
    """Correlations with scores, and how well values tell groups apart."""
    blocks: list[Block] = []
    for name, part in _main(results, results.values):
        for score in results.scores:
            if score in part:
                figure = _against(part, score, name, results, score, "A line is the least-squares fit of a group.")
                blocks += [figure] if figure else []
    blocks += _printed(results.correlations, "Correlations with scores", "Brackets: 95 % intervals.")
    if results.roc is not None and some(results.roc):
        blocks += _roc(results)
    caption = "AUC: area under the curve, cross-validated; in sample it is optimistic. Brackets: 95 % intervals."
    blocks += _printed(results.roc, "Telling groups apart", caption)
    blocks += _printed(results.hazards, "Time to event", "Hazard ratios of Cox models; brackets: 95 % intervals.")
    return _section("scores", "Scores and classification", blocks, results, "Scores")


def roc_points(values: Sequence[float], case: Sequence[bool]) -> tuple[list[float], list[float]]:
    """False positive rate and sensitivity over all thresholds, cases being those above.

    Ties move both at once (Fawcett, Pattern Recognit Lett 2006;27:861).
    """
    v, c = np.asarray(values, dtype=float), np.asarray(case, dtype=bool)
    steps = sorted(set(v.tolist()), reverse=True)
    fpr = [0.0, *(float((v[~c] >= t).mean()) for t in steps)]
    tpr = [0.0, *(float((v[c] >= t).mean()) for t in steps)]
    return fpr, tpr


def _roc(results: GroupResults) -> list[Block]:
    """Curves of the main regions for the first two groups."""
    groups = groups_of(results)
    parts = _main(results, results.values)
    if len(groups) < 2 or not parts:
        return []
    name, part = parts[0]
    curves = {}
    for region in [r for r in MAIN_REGIONS if r in set(part["region"])]:
        here = part[(part["region"] == region) & part["shown"].isin(groups[:2])]
        case = (here["shown"] == groups[1]).to_numpy()
        if case.any() and not case.all():
            fpr, tpr = roc_points(here["tsc"].tolist(), case.tolist())
            curves[f"{region} ({np.trapezoid(tpr, fpr):.2f})"] = (fpr, tpr)
    if not curves:
        return []
    title = f"{groups[1]} against {groups[0]}, {_told(part, name)}"
    caption = (
        "Curves of single regions, without cross-validation, area in brackets; one below the diagonal means lower "
        f"values in {groups[1]}."
    )
    return [ReportFigure("group", title, caption, roc_curves(curves, title=title).svg, f"ROC curves, {title}.")]


def lesions(results: GroupResults) -> GroupSection | None:
    """Lesion over its mirror region, against the time since onset."""
    table = results.lesions
    blocks: list[Block] = []
    if table is not None and some(table) and "onset" in table:
        here = reported(table)
        here = here.assign(shown=_group_of(here, results), at=_numbers(here["onset"]), ratio=here["mirror_ratio"])
        here = here[np.isfinite(here["at"]) & np.isfinite(here["ratio"])]
        if here["at"].nunique() > 1:
            blocks.append(_lesion_figure(here, results))
    blocks += _printed(table, "Lesions", "Concentration over that of what lies opposite.")
    return _section("lesions", "Lesions", blocks, results)


def _group_of(frame: pd.DataFrame, results: GroupResults) -> list[str]:
    people = results.cohort.participants
    own = dict(zip(people["participant_id"], people[results.group], strict=True)) if results.group in people else {}
    return [own.get(who) or ("no group" if own else "all") for who in frame["participant_id"]]


def _lesion_figure(here: pd.DataFrame, results: GroupResults) -> ReportFigure:
    panels = [Scatter(str(region), _dots(part, "at", "ratio")) for region, part in here.groupby("region", sort=False)]
    title = "Lesion over its mirror region"
    log = bool((here["at"] > 0).all() and here["at"].max() > 20 * here["at"].min())
    axis = results.onset or "time since onset"
    drawn = scatters(panels[:6], title=title, groups=_groups(results, here), x=axis, y="ratio", log_x=log)
    return ReportFigure("group", title, "One dot per lesion; 1 is no difference.", drawn.svg,
                        f"{title} against {axis}.", len(panels) > 1, "", drawn.points)  # fmt: skip


def repeatability(results: GroupResults) -> GroupSection | None:
    """Repeat scans: agreement of the first two, and the tables of reliability."""
    blocks: list[Block] = []
    if results.reliability is not None and some(results.reliability):
        blocks += _bland_altman(results)
    caption = (
        "CoV: coefficient of variation within a participant; MDC: minimal detectable change; ICC: intraclass "
        "correlation; bias and limits of agreement by Bland and Altman. Brackets: 95 % intervals."
    )
    blocks += _printed(results.reliability, "Repeat scans", caption)
    blocks += _printed(results.between_sites, "Between sites", "Participants scanned at several sites.")
    return _section("reliability", "Reliability", blocks, results)


def _bland_altman(results: GroupResults) -> list[Block]:
    """Second scan minus first against their mean, in the main regions."""
    assert results.reliability is not None
    repeat = str(results.reliability["repeat"].iloc[0]) if "repeat" in results.reliability else "run"
    pairs = _pairs(results, repeat)
    panels = []
    for region in [r for r in MAIN_REGIONS if (pairs["region"] == r).sum() >= 3]:
        part = pairs[pairs["region"] == region]
        bias, spread = float(part["change"].mean()), 1.96 * float(part["change"].std(ddof=1))
        if spread > 0:
            levels = {"+1.96 SD": bias + spread, "bias": bias, "\u22121.96 SD": bias - spread}
            panels.append(Scatter(region, _dots(part, "mean", "change"), levels=levels))
    if not panels:
        return []
    title = f"Second {repeat.removesuffix('_id')} minus first"
    drawn = scatters(panels, title=title, groups=_groups(results, pairs), x="mean of both (mM)", y="difference (mM)")
    caption = "One dot for each pair of repeat scans; dashed: bias and limits of agreement."
    alt = f"Bland-Altman plots, {title}."
    return [ReportFigure("group", title, caption, drawn.svg, alt, len(panels) > 1, "", drawn.points)]


def _pairs(results: GroupResults, repeat: str) -> pd.DataFrame:
    """The first two repeats of each participant and main region: region, mean, change, participant and group."""
    runs = measured_values(results.cohort, regions=MAIN_REGIONS, average_runs=False)
    here = primary(runs[runs["index"] == ""])
    scan = ("participant_id", "session_id", "acquisition", "reconstruction", "atlas", "region")
    keys = [name for name in scan if name != repeat]
    order = here.groupby(keys)[repeat].rank(method="dense")
    first, second = (here[order == n].groupby(keys)["tsc"].mean() for n in (1, 2))
    pairs = first.to_frame("first").join(second.to_frame("second"), how="inner").dropna().reset_index()
    mean, change = (pairs["first"] + pairs["second"]) / 2, pairs["second"] - pairs["first"]
    return pairs.assign(mean=mean, change=change, shown=_group_of(pairs, results))


def voxelwise(results: GroupResults) -> GroupSection | None:
    """Figures of maps, made elsewhere."""
    blocks: list[Block] = []
    for heading, figures in results.figures.items():
        blocks += [Heading(heading), *figures] if figures else []
    return _section("voxelwise", "Voxel by voxel", blocks, results, "Maps")
