"""Does the group level find what was planted, and nothing else? ``python -m benchmarks.cohort [COHORTS]``.

Cohorts of phantom tables (:mod:`sodium_prep.phantom.cohort`), each analysed as ``sodium-prep ... group`` does:

- Alzheimer's disease: 14 v 12 with the effects of Mohamed et al. 2021 (hippocampus +12.9 %, white matter +13.6 %), once
  with stable CSF and once with CSF that rises by 20.6 % (Kerl et al. 2024), under every reference, uncorrected and
  corrected, with atrophy;
- amyotrophic lateral sclerosis: motor cortex and corticospinal tract +12 % at three sites with offsets, the patients
  not spread over them as the controls are;
- null cohorts of the same design: how often a test finds what is not there, and whether 95 % intervals cover.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd

from sodium_prep.cohort.cautions import comparison_cautions
from sodium_prep.cohort.compare import compare_groups
from sodium_prep.cohort.model import GroupModel
from sodium_prep.cohort.values import measured_values
from sodium_prep.phantom.cohort import COHORT_REGIONS, CohortDesign, CohortSite, draw_cohort

SITES = (CohortSite("A"), CohortSite("B", 4.0, noise_factor=1.3), CohortSite("C", -5.0, noise_factor=0.8))
SHARES = {"control": (0.34, 0.33, 0.33), "AD": (0.5, 0.3, 0.2), "ALS": (0.5, 0.3, 0.2)}
MOHAMED = {"Hippocampus": 0.129, "WhiteMatter": 0.136}
KERL = {"CSF": 0.206}
MOTOR = {"MotorCortex": 0.12, "CorticospinalTract": 0.12}


def analysed(design: CohortDesign, regions: tuple[str, ...], control: str, seed: int) -> pd.DataFrame:
    """The table of comparisons of one cohort, main values only."""
    values = measured_values(draw_cohort(design, seed))
    model = GroupModel(regions=regions, negative_controls=(control,))
    return compare_groups(values[values["hemisphere"] == "both"], model).table


def recovered(
    title: str,
    design: CohortDesign,
    patients: str,
    effects: Mapping[str, float],
    regions: tuple[str, ...],
    cohorts: int,
) -> None:
    """Print the mean of the adjusted effect in percent, and how often its interval holds the truth."""
    tables = [analysed(design, regions, "OccipitalLobe", seed) for seed in range(cohorts)]
    every = pd.concat(tables, ignore_index=True)
    print(f"\n{title}: {cohorts} cohorts, {design.groups['control']} controls, {design.groups[patients]} {patients}")
    print(f"{'region':18} {'planted':>8}   " + "".join(f"{r:>34}" for r in ("vials", "CSF", "vitreous")))
    print(f"{'':18} {'%':>8}   " + 3 * f"{'uncorrected':>17}{'corrected':>17}")
    for region in (*regions, "OccipitalLobe"):
        truth = 100 * effects.get(region, 0.0)
        cells = []
        for reference in ("vials", "CSF", "vitreous"):
            for estimator in ("none", "labbe"):
                chosen = every["region"].eq(region) & every["estimator"].eq(estimator) & every["state"].eq("compared")
                rows = every[chosen & every["reference"].eq(reference)]
                if rows.empty:
                    cells.append(f"{'-':>17}")
                    continue
                share = 100 * rows["adjusted"] / rows["mean_1"]
                low, high = (100 * rows[f"adjusted_ci_{end}"] / rows["mean_1"] for end in ("low", "high"))
                cells.append(f"{share.mean():+9.1f} ({100 * ((low < truth) & (truth < high)).mean():3.0f} %)")
        print(f"{region:18} {truth:+8.1f}   " + "".join(cells))
    warned = [comparison_cautions(table, estimator="labbe") for table in tables]
    for start in ("CSF itself differs", "The references disagree", "Different before"):
        n = sum(any(line.startswith(start) for line in lines) for lines in warned)
        print(f"  the page warns '{start} ...' in {n} of {cohorts}")


def null(cohorts: int) -> None:
    """Print false positives and coverage where nothing differs; the patients are not spread over sites as controls."""
    design = CohortDesign({"control": 30, "AD": 30}, sites=SITES, site_shares={**SHARES, "AD": (0.6, 0.25, 0.15)})
    tables = [analysed(design, tuple(COHORT_REGIONS)[:3], "OccipitalLobe", 10_000 + seed) for seed in range(cohorts)]
    every = pd.concat(tables, ignore_index=True)
    rows = every[(every["state"] == "compared") & (every["reference"] == "vials") & (every["estimator"] == "labbe")]
    print(f"\n{cohorts} null cohorts of 30 v 30 at three sites, corrected values by vials, {len(rows)} tests")
    for name, p in (
        ("no covariates", "p"),
        ("age, sex, site", "adjusted_p"),
        ("with volume and CSF", "tissue_adjusted_p"),
    ):
        found = rows[p].dropna()
        spread = np.sqrt(found.lt(0.05).groupby(rows["region"]).mean().var() / 4) if len(found) else np.nan
        print(
            f"  p below 0.05, {name:20} {100 * found.lt(0.05).mean():5.1f} %  (between regions +- {100 * spread:.1f})"
        )
    covered = rows["adjusted_ci_low"].lt(0) & rows["adjusted_ci_high"].gt(0)
    print(f"  95 % intervals that hold zero: {100 * covered.mean():.1f} %")
    family = rows[rows["role"] == "tested"].groupby(rows.groupby("region").cumcount())["adjusted_p_fdr"].min()
    print(f"  cohorts with any region below 0.05 after correction: {100 * family.lt(0.05).mean():.1f} %")


def main() -> None:
    cohorts = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    few = max(20, cohorts // 5)
    groups = {"control": 12, "AD": 14}
    main_regions = ("Cortex", "WhiteMatter", "Hippocampus", "CSF")
    plain = CohortDesign(groups, {"AD": MOHAMED}, {"AD": 0.1})
    recovered("AD, CSF stable", plain, "AD", MOHAMED, main_regions, few)
    trap = CohortDesign(groups, {"AD": MOHAMED | KERL}, {"AD": 0.1})
    recovered("AD, CSF +20.6 %", trap, "AD", MOHAMED | KERL, main_regions, few)
    als = CohortDesign({"control": 27, "ALS": 30}, {"ALS": MOTOR}, sites=SITES, site_shares=SHARES)
    regions = ("MotorCortex", "CorticospinalTract", "FrontalLobe", "WhiteMatter")
    recovered("ALS, three sites", als, "ALS", MOTOR, regions, few)
    null(cohorts)


if __name__ == "__main__":
    main()
