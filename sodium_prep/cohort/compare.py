"""Comparisons of groups in the main regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.cohort.statistics import adjusted_difference, false_discovery, hedges_g, welch
from sodium_prep.cohort.tables import Cohort

if TYPE_CHECKING:
    import pandas as pd

MAIN_REGIONS: Final[tuple[str, ...]] = ("Cortex", "WhiteMatter", "Hippocampus", "CSF")
STRATUM: Final[tuple[str, ...]] = ("session_id", "acquisition", "reconstruction", "atlas")
"""Values of different sessions, acquisitions, reconstructions or atlases are never mixed; runs are averaged."""

COMPARISON_COLUMNS: Final[dict[str, str]] = {
    "region": "Region, both hemispheres",
    "group_1": "First group",
    "group_2": "Second group",
    "state": "Whether the comparison was made, or why not",
    "n_1": "Participants of the first group with a value",
    "n_2": "Participants of the second group with a value",
    "mean_1": "Mean of the first group, mmol/L",
    "sd_1": "Standard deviation of the first group, mmol/L",
    "mean_2": "Mean of the second group, mmol/L",
    "sd_2": "Standard deviation of the second group, mmol/L",
    "difference": "Second mean minus first, mmol/L",
    "difference_ci_low": "Low end of Welch's 95 % interval, mmol/L",
    "difference_ci_high": "High end of Welch's 95 % interval, mmol/L",
    "p": "Welch's test",
    "p_fdr": "p corrected for the false discovery rate within estimator and reference",
    "hedges_g": "Difference in pooled standard deviations, without small-sample bias",
    "hedges_g_ci_low": "Low end of its 95 % interval",
    "hedges_g_ci_high": "High end of its 95 % interval",
    "covariates": "What the adjusted difference holds constant",
    "n_adjusted": "Participants of the adjusted model",
    "adjusted": "Difference at equal covariates, mmol/L",
    "adjusted_ci_low": "Low end of its 95 % interval (HC3), mmol/L",
    "adjusted_ci_high": "High end of its 95 % interval (HC3), mmol/L",
    "adjusted_p": "Test of the adjusted difference (HC3)",
    "adjusted_p_fdr": "adjusted_p corrected for the false discovery rate within estimator and reference",
}
_NUMBERS: Final = tuple(
    c for c in COMPARISON_COLUMNS if c not in ("region", "group_1", "group_2", "state", "covariates")
)


@dataclass(frozen=True)
class Comparisons:
    """The table of comparisons, and what stands in the way of those that were refused."""

    table: pd.DataFrame
    refusals: tuple[str, ...] = ()


def main_values(cohort: Cohort) -> pd.DataFrame:
    """One value per participant, stratum, main region, estimator and reference, with the participant's own columns.

    Runs of one session are averaged; rows without a finite concentration are left out.
    """
    frame = cohort.tsc.assign(tsc=cohort.tsc["tsc"].astype(float))
    main = frame["name"].isin(MAIN_REGIONS) & (frame["hemisphere"] == "both")
    if "index" in frame:  # merged rows have none; a label of the atlas may bear the same name
        main &= frame["index"].isna()
    frame = frame[main & np.isfinite(frame["tsc"])]
    keys = ["participant_id", *STRATUM, "name", "estimator", "reference"]
    values = frame.groupby(keys, sort=False)["tsc"].mean().reset_index().rename(columns={"name": "region"})
    people = cohort.participants
    own = [name for name in people.columns if name == "participant_id" or name not in values.columns]
    merged: pd.DataFrame = values.merge(people[own], how="left", on="participant_id")
    return in_order(merged, cohort)


def in_order(frame: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Rows by stratum and reference, the references in the order of the regional tables: the primary one first."""
    rank = {name: i for i, name in enumerate(dict.fromkeys(cohort.tsc["reference"]))}
    by = [*STRATUM, "reference"]
    return frame.sort_values(
        by, key=lambda column: column.map(rank) if column.name == "reference" else column, kind="stable",
        ignore_index=True,
    )  # fmt: skip


def confounded_pairs(people: pd.DataFrame) -> list[str]:
    """Pairs of groups whose sites leave no way to tell a group effect from a site effect, each with its counts."""
    if "group" not in people or "site" not in people:
        return []
    known = [(g, s) for g, s in zip(people["group"], people["site"], strict=True) if g and s]
    found = []
    for first, second in combinations(sorted({group for group, _ in known}), 2):
        counts = Counter((group, site) for group, site in known if group in (first, second))
        sites = {site for _, site in counts}
        # A site that holds both groups tells the effect of the group from that of the site.
        if len(sites) > 1 and not any(counts[first, site] and counts[second, site] for site in sites):
            shown = ", ".join(f"{group} at {site}: {n}" for (group, site), n in sorted(counts.items()))
            found.append(f"Group and site are confounded for {first} and {second} ({shown}): not compared.")
    return found


def compare_groups(cohort: Cohort) -> Comparisons:
    """Compare every pair of groups in every main region, under every estimator and reference.

    Groups are those of the column ``group`` of participants.tsv; an empty one belongs to no group. The adjusted
    difference uses the columns ``age``, ``sex`` and ``site`` where they are there and vary.
    """
    import pandas as pd

    columns = [*STRATUM, "estimator", "reference", *COMPARISON_COLUMNS]
    values = main_values(cohort)
    if "group" not in values or values.empty:
        return Comparisons(pd.DataFrame(columns=columns))
    values = values[values["group"].fillna("") != ""]
    refusals = confounded_pairs(cohort.participants[cohort.participants["state"] == "done"])
    rows: list[dict[str, Any]] = []
    for keys, part in values.groupby([*STRATUM, "reference", "estimator"], sort=False):
        labels = dict(zip([*STRATUM, "reference", "estimator"], keys, strict=True))
        family = []
        for first, second in combinations(sorted(set(values["group"])), 2):
            for region in MAIN_REGIONS:
                here = part[(part["region"] == region) & part["group"].isin([first, second])]
                family.append(labels | _compare_pair(here, region, first, second))
        for name in ("p", "adjusted_p"):
            for row, q in zip(family, false_discovery([row[name] for row in family]), strict=True):
                row[f"{name}_fdr"] = float(q)
        rows += family
    return Comparisons(pd.DataFrame(rows, columns=columns), tuple(refusals))


def _compare_pair(here: pd.DataFrame, region: str, first: str, second: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_NUMBERS, float("nan"))
    row |= {"region": region, "group_1": first, "group_2": second, "covariates": ""}
    a, b = (here.loc[here["group"] == g, "tsc"].to_numpy(dtype=float) for g in (first, second))
    row |= {"n_1": a.size, "n_2": b.size, "n_adjusted": 0}
    if (here["reference"] == region).any():
        return row | {"state": "not compared: the reference itself, equal in all"}
    if confounded_pairs(here):
        return row | {"state": "group and site are confounded"}
    if min(a.size, b.size) < 2:
        return row | {"state": "too few participants (fewer than 2 in a group)"}
    row |= {"mean_1": a.mean(), "mean_2": b.mean(), "sd_1": a.std(ddof=1), "sd_2": b.std(ddof=1), "state": "compared"}
    if plain := welch(a, b):
        row |= {
            "difference": plain.value, "difference_ci_low": plain.low, "difference_ci_high": plain.high, "p": plain.p,
        }  # fmt: skip
    if size := hedges_g(a, b):
        row |= dict(zip(("hedges_g", "hedges_g_ci_low", "hedges_g_ci_high"), size, strict=True))
    return row | _adjusted(here, second)


def _adjusted(here: pd.DataFrame, second: str) -> dict[str, Any]:
    names, design, complete = covariate_columns(here)
    if not names:
        return {"covariates": "none available"}
    result = adjusted_difference(
        here["tsc"].to_numpy(dtype=float)[complete], (here["group"] == second).to_numpy()[complete], design[complete]
    )
    if result is None:
        return {"covariates": f"{', '.join(names)}: not estimable"}
    found, used = result
    return {
        "covariates": ", ".join(names), "n_adjusted": int(used.sum()), "adjusted": found.value,
        "adjusted_ci_low": found.low, "adjusted_ci_high": found.high, "adjusted_p": found.p,
    }  # fmt: skip


def covariate_columns(people: pd.DataFrame) -> tuple[list[str], NDArray[np.float64], NDArray[np.bool_]]:
    """Age (a number), sex and site (categories) as columns of a linear model.

    Returns
    -------
    Names of the covariates that are there and vary, their columns (n, k), and who has all of them, (n,).
    """
    n = len(people)
    names: list[str] = []
    blocks: list[NDArray[np.float64]] = []
    complete = np.ones(n, dtype=bool)
    for name in ("age", "sex", "site"):
        if name not in people:
            continue
        cells = ["" if cell != cell else str(cell) for cell in people[name]]
        there = np.array([cell != "" for cell in cells])
        if name == "age":
            ages = np.array([_number(cell) for cell in cells])
            there = np.isfinite(ages)
            block = np.where(there, ages - (ages[there].mean() if there.any() else 0.0), 0.0)[:, None]
        else:
            levels = sorted({cell for cell in cells if cell})[1:]
            block = np.array([[float(cell == level) for level in levels] for cell in cells]).reshape(n, len(levels))
        if there.any() and block.size and (np.ptp(block[there], axis=0) > 0).any():
            names.append(name)
            blocks.append(block)
            complete &= there
    kept = [i for i, block in enumerate(blocks) if complete.any() and (np.ptp(block[complete], axis=0) > 0).any()]
    columns = [blocks[i] for i in kept]
    return [names[i] for i in kept], np.concatenate(columns, axis=1) if columns else np.zeros((n, 0)), complete


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")  # such as 89+, BIDS' way to hide a high age
