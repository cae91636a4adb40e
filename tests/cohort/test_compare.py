"""Comparisons of groups on cohorts with planted differences."""

import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose
from scipy import stats

from sodium_prep.cohort.cautions import comparison_cautions
from sodium_prep.cohort.compare import COMPARISON_COLUMNS, compare_groups
from sodium_prep.cohort.model import GroupModel

STRATUM = {"session_id": "", "acquisition": "na", "reconstruction": "", "atlas": "dk"}


def cohort(rng, groups, site=None):
    """Participants with age, sex and site."""
    n = len(groups)
    site = rng.choice(["X", "Y"], n) if site is None else site
    return pd.DataFrame({
        "participant_id": [f"{i:03d}" for i in range(n)], "group": groups, "site": site,
        "age": [f"{a:.2f}" for a in rng.uniform(55, 80, n)], "sex": rng.choice(["F", "M"], n),
    })  # fmt: skip


def values_of(people, cells):
    """The values frame from columns by (region, estimator, reference), each a dictionary of arrays."""
    parts = [
        people.assign(**STRATUM, index="", hemisphere="both", region=region, estimator=estimator, reference=reference,
                      **{"tsc_stderr_within": 1.0, "volume_mm3": 1e4, "csf_fraction": 0.1} | columns)
        for (region, estimator, reference), columns in cells.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def three():
    """40 HC, 30 AD, 30 MCI: in AD, Cortex +3 mM, Cuneus by atrophy alone; Pons is a negative control."""
    rng = np.random.default_rng(11)
    people = cohort(rng, np.repeat(["AD", "HC", "MCI"], [30, 40, 30]))
    ad = (people["group"] == "AD").to_numpy(dtype=float)
    cells = {}
    for estimator in ("none", "labbe"):
        noise = {name: rng.normal(0, 2, 100) for name in ("Cortex", "WhiteMatter", "Cuneus", "Pons")}
        csf = 0.1 + 0.05 * ad + rng.normal(0, 0.02, 100)
        cells |= {
            ("Cortex", estimator, "vials"): {
                "tsc": 45 + 3 * ad + noise["Cortex"], "volume_mm3": rng.normal(6e5, 4e4, 100),
                "tsc_stderr_within": rng.uniform(0.5, 4, 100),
            },
            ("WhiteMatter", estimator, "vials"): {"tsc": 35 + noise["WhiteMatter"]},
            ("Cuneus", estimator, "vials"): {"tsc": 41 + 80 * (csf - 0.1) + noise["Cuneus"], "csf_fraction": csf},
            ("Pons", estimator, "vials"): {"tsc": 40 + 2 * ad * (estimator == "none") + noise["Pons"]},
        }  # fmt: skip
    cells["Cortex", "labbe", "vials"]["tsc"][[0, 50, 90]] = np.nan
    values = values_of(people, cells)
    return values[np.isfinite(values["tsc"])]


MODEL = GroupModel(
    regions=("Cortex", "WhiteMatter", "Cuneus"), negative_controls=("Pons",), robust=True, weights=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def table(three):
    return compare_groups(three, MODEL).table


def row_of(table, region, second="AD", estimator="labbe"):
    here = (table["region"] == region) & (table["group_2"] == second) & (table["estimator"] == estimator)
    return table[here].iloc[0]


def test_rows_are_those_of_formulas(three, table):
    row = row_of(table, "Cortex")
    here = three[(three["region"] == "Cortex") & (three["estimator"] == "labbe")].rename(columns={"tsc": "y"})
    here["years"] = here["age"].astype(float)
    base = "y ~ C(group, Treatment('HC')) + years + C(sex) + C(site)"
    name = "C(group, Treatment('HC'))[T.AD]"
    fits = {
        "adjusted": smf.ols(base, here).fit(cov_type="HC3", use_t=True),
        "tissue_adjusted": smf.ols(base + " + volume_mm3", here).fit(cov_type="HC3", use_t=True),
    }
    weights = 1 / (row["weighted_sd"] ** 2 + here["tsc_stderr_within"] ** 2)
    fits["weighted"] = smf.wls(base, here, weights=weights).fit(cov_type="HC3", use_t=True)
    for model, fit in fits.items():
        low, high = fit.conf_int().loc[name]
        found = row[[model, f"{model}_ci_low", f"{model}_ci_high", f"{model}_p"]].astype(float)
        assert_allclose(found, [fit.params[name], low, high, fit.pvalues[name]], rtol=1e-5)
    assert_allclose(row["robust"], smf.rlm(base, here).fit().params[name], rtol=1e-6)
    assert (row["n_1"], row["n_2"], row["n_adjusted"], row["n_adjusted_1"]) == (39, 29, 97, 39)
    assert (row["covariates"], row["tissue_covariates"]) == ("age, sex, site", "volume_mm3")
    assert row["adjusted_ci_low"] < 3 < row["adjusted_ci_high"]
    # Percent of what the model says of everybody, were they all controls.
    controls = fits["adjusted"].predict(here.assign(group="HC")).mean()
    assert_allclose(row["adjusted_percent"], 100 * row["adjusted"] / controls, rtol=1e-7)
    oracle = fits["adjusted"].f_test(f"{name} = 0, C(group, Treatment('HC'))[T.MCI] = 0")
    assert_allclose([row["overall_f"], row["overall_p"]], [oracle.fvalue, oracle.pvalue], rtol=1e-6)
    assert (row["overall_df_1"], row["overall_df_2"]) == (2, 91)


def test_families_are_the_tested_regions_of_one_estimator_reference_pair_and_model(table):
    assert set(zip(table["group_1"], table["group_2"], strict=True)) == {("HC", "AD"), ("HC", "MCI")}
    for _, family in table.groupby(["estimator", "group_2"]):
        tested = family[family["role"] == "tested"]
        assert list(tested["region"]) == ["Cortex", "WhiteMatter", "Cuneus"]
        for name in ("p", "adjusted_p", "robust_p", "weighted_p", "overall_p"):
            assert_allclose(tested[f"{name}_fdr"], stats.false_discovery_control(tested[name]))
        control = family[family["role"] == "negative_control"].iloc[0]
        assert control["region"] == "Pons"
        assert np.isfinite(control["adjusted_p"])
        assert np.isnan(control["adjusted_p_fdr"])
        # Missing p values are of no family: two regions have no tissue covariate that varies.
        told = tested["tissue_adjusted_p"].notna()
        assert list(told) == [True, False, True]
        expected = stats.false_discovery_control(tested.loc[told, "tissue_adjusted_p"])
        assert_allclose(tested.loc[told, "tissue_adjusted_p_fdr"], expected)


def test_readings_say_what_the_models_say_together(table):
    assert row_of(table, "Cortex")["reading"] == "higher, at equal volume too"
    assert row_of(table, "WhiteMatter")["reading"] == "no difference shown"
    assert row_of(table, "Cuneus")["reading"] == "higher, but not shown at equal share of CSF: may be atrophy or CSF"
    assert row_of(table, "Cortex", "MCI")["reading"] == "no difference shown"
    words = row_of(table, "Pons", estimator="none")["reading"]
    assert "negative control" in words
    assert "only without partial volume correction" in words


def test_the_trap_of_the_csf_reference_is_told(three):
    """+12.9 % in the hippocampus and +20.6 % in CSF: by the CSF reference, the hippocampus seems 6.4 % lower."""
    rng = np.random.default_rng(4)
    people = cohort(rng, np.repeat(["AD", "control"], 14))
    ad = np.repeat([1.0, 0.0], 14)
    fluid = 140 * (1 + 0.206 * ad) * (1 + 0.03 * rng.normal(size=28))
    tissue = 50 * (1 + 0.129 * ad) * (1 + 0.03 * rng.normal(size=28))
    cells = {
        ("Hippocampus", "labbe", "vials"): {"tsc": tissue}, ("CSF", "labbe", "vials"): {"tsc": fluid},
        ("Hippocampus", "labbe", "CSF"): {"tsc": 140 * tissue / fluid}, ("CSF", "labbe", "CSF"): {"tsc": 140.0},
    }  # fmt: skip
    model = GroupModel(regions=("Cortex", "WhiteMatter", "Hippocampus", "CSF"))
    found = compare_groups(values_of(people, cells), model)
    by = found.table.set_index(["region", "reference"])
    assert by.loc[("Hippocampus", "vials"), "adjusted_percent"] == pytest.approx(12.9, abs=4)
    assert by.loc[("Hippocampus", "CSF"), "adjusted_percent"] == pytest.approx(-6.4, abs=4)
    assert by.loc[("Hippocampus", "vials"), "reading"].endswith("the sign depends on the reference")
    assert by.loc[("CSF", "CSF"), "state"].startswith("not compared")
    told = " ".join(comparison_cautions(found.table, estimator="labbe"))
    assert "CSF itself differs" in told
    assert re.search("references disagree.*Hippocampus", told)
    assert found.refusals == ("The tables have no values of Cortex, WhiteMatter: not compared.",)


def test_designs_that_cannot_tell_groups_from_sites_give_words(three):
    sites = three["group"].map({"AD": "X", "HC": "X", "MCI": "Z"})
    found = compare_groups(three.assign(site=sites), MODEL)
    lost = found.table[found.table["group_2"] == "MCI"]
    assert set(lost["state"]) == {"group and site are confounded"}
    assert lost[["p", "adjusted", "mean_1"]].isna().all(axis=None)
    assert found.refusals == (
        "Group and site are confounded for HC and MCI (HC at X: 40, MCI at Z: 30): not compared.",
    )
    assert np.isfinite(row_of(found.table, "Cortex")["adjusted"])
    free = compare_groups(three.assign(site=sites), MODEL.model_copy(update={"harmonisation": "none"}))
    assert set(free.table["state"]) == {"compared"}
    assert row_of(free.table, "Cortex")["covariates"] == "age, sex"


def test_every_column_is_described_and_without_groups_there_are_no_rows(three, table):
    assert set(COMPARISON_COLUMNS) == set(table.columns) - {*STRATUM, "estimator", "reference"}
    assert list(compare_groups(three.drop(columns="group")).table.columns) == list(table.columns)


def test_regions_sides_estimators_and_pairs_are_those_asked_for(three):
    left = three[three["region"] == "Cuneus"].assign(hemisphere="L", index="7")
    named = three[three["region"] == "Cuneus"].assign(region="Cortex", index="24")  # a label that bears the name
    model = GroupModel(regions=("*",), hemispheres=("both", "L"), estimators=("labbe",), contrasts=(("AD", "MCI"),))
    found = compare_groups(pd.concat([three, left, named]), model).table
    assert sorted(zip(found["region"], found["hemisphere"], strict=True)) == [
        ("Cortex", "both"), ("Cuneus", "L"), ("Cuneus", "both"), ("Pons", "both"), ("WhiteMatter", "both"),
    ]  # fmt: skip
    assert set(found["estimator"]) == {"labbe"}
    assert set(zip(found["group_1"], found["group_2"], strict=True)) == {("AD", "MCI")}
    cortex = found[found["region"] == "Cortex"].iloc[0]
    assert (cortex["n_1"], cortex["n_2"]) == (29, 29)
