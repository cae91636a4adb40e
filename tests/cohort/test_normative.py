"""Normative scores against explicit refits, and their distribution in new controls."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from statsmodels.regression.linear_model import OLS

from sodium_prep.cohort.normative import (
    LESION_COLUMNS,
    NORMATIVE_COLUMNS,
    lesion_ratios,
    normative_scores,
    normative_z,
)
from sodium_prep.cohort.values import STRATUM
from sodium_prep.errors import InputError


def refitted(y, x, norm, one):
    """z of one participant from a fit to the controls other than that one."""
    used = norm & np.isfinite(y)
    used[one] = False
    fit = OLS(y[used], x[used]).fit()
    predicted = fit.get_prediction(x[[one]])
    t = (y[one] - predicted.predicted_mean[0]) / predicted.se_obs[0]
    return stats.norm.isf(stats.t.sf(abs(t), fit.df_resid)) * np.sign(t), predicted.predicted_mean[0], used.sum()


def test_patients_and_controls_are_scored_as_by_explicit_refits():
    rng = np.random.default_rng(0)
    norm = np.arange(20) < 14
    x = np.column_stack([np.ones(20), rng.normal(size=20), rng.integers(0, 2, 20)])
    y = 40 + 3 * x[:, [1]] + rng.normal(0, 2, (20, 3))
    y[2, 1] = y[5, 1] = y[18, 2] = np.nan
    y[16, 0] += 30
    found = normative_z(y, x, norm)
    for j in range(3):
        for i in np.flatnonzero(np.isfinite(y[:, j])):
            z, expected, n = refitted(y[:, j], x, norm, i)
            assert_allclose([found.z[i, j], found.expected[i, j]], [z, expected], rtol=1e-7)
            assert found.n_controls[i, j] == n
    assert_array_equal(np.isnan(found.z), np.isnan(y))


@pytest.mark.parametrize("n", [5, 12])
def test_scores_of_controls_are_standard_normal_however_few_they_are(n):
    rng = np.random.default_rng(n)
    x = np.column_stack([np.ones(n + 1), rng.normal(size=n + 1)])
    y = rng.normal(0, 3, (n + 1, 40_000))
    z = normative_z(y, x, np.arange(n + 1) < n).z
    for new in (z[n], z[0]):  # nobody of the norm, and one of it
        assert abs(new.mean()) < 0.02
        assert abs(new.std() - 1) < 0.015
        assert abs((np.abs(new) >= 1.96).mean() - 0.05) < 0.005
    naive = (y[n] - y[:n].mean(axis=0)) / y[:n].std(axis=0, ddof=1)
    assert n > 5 or (np.abs(naive) >= 1.96).mean() > 0.10  # what plain z scores of 5 controls do


def test_what_the_controls_cannot_tell_has_no_score():
    rng = np.random.default_rng(1)
    site = np.array([0] * 8 + [1] + [0, 1, 2])
    norm = np.arange(12) < 9
    y = np.column_stack([rng.normal(40, 2, 12), np.full(12, 140.0)])
    y[:, 1] += np.where(np.arange(12) == 3, 1e-12, 0.0)
    found = normative_z(y, np.column_stack([np.ones(12), *(site == s for s in range(3))]), norm)
    assert_array_equal(np.isfinite(found.z[:, 0]), [True] * 8 + [False, True, True, False])
    assert np.isnan(found.z[:, 1]).all()
    assert_array_equal(found.n_controls[:, 0], [8] * 8 + [0, 9, 9, 0])
    two = normative_z(y[:3], np.ones((3, 1)), np.array([True, True, False]))
    assert_array_equal(np.isfinite(two.z[:, 0]), [False, False, True])


def cohort(n=30, seed=0):
    """Controls c00.. and two patients, with L, R and both of two regions, in the columns of a long table."""
    rng = np.random.default_rng(seed)
    rows = []
    for who in [*(f"c{i:02d}" for i in range(n)), "p1", "p2"]:
        age, sex = rng.integers(50, 80), rng.choice(["F", "M"])
        person = {
            "participant_id": who,
            "group": "CN" if who[0] == "c" else "EP",
            "age": str(age),
            "sex": sex,
            "site": "",
        }
        for region in ("Hippocampus", "Cortex"):
            left, right = 40 + 0.2 * (age - 65) + rng.normal(0, 1, 2)
            for side, tsc in (("L", left), ("R", right), ("both", (left + right) / 2)):
                rows.append(
                    {"session_id": "", "acquisition": "sodium", "reconstruction": "sense", "atlas": "dk",
                     "region": region, "hemisphere": side, "index": "", "estimator": "gtm",
                     "reference": "vials", "tsc": tsc,
                     "asymmetry": np.nan if side == "both" else 200 * (left - right) / (left + right),
                     "csf_fraction": rng.normal(0.1, 0.01), "csf_signal_fraction": rng.normal(0.2, 0.02)} | person
                )  # fmt: skip
    return pd.DataFrame(rows)


def at(table, who, region="Hippocampus", side="both", measure="tsc"):
    chosen = (table["participant_id"] == who) & (table["region"] == region) & (table["hemisphere"] == side)
    return table[chosen & (table["measure"] == measure)].iloc[0]


def test_the_long_table_holds_the_scores_of_the_regression_on_age_and_sex():
    values = cohort()
    found = normative_scores(values, control="CN")
    assert list(found.table.columns) == [
        "participant_id",
        *STRATUM,
        *[c for c in NORMATIVE_COLUMNS if c != "participant_id"],
    ]
    assert found.notes == ("There is no site: the scores are not adjusted for it.",)
    both = values[(values["region"] == "Cortex") & (values["hemisphere"] == "both")].reset_index(drop=True)
    x = np.column_stack([np.ones(len(both)), both["age"].astype(float), both["sex"] == "M"]).astype(float)
    for i in (0, 7, len(both) - 1):
        z, expected, n = refitted(both["tsc"].to_numpy(), x, (both["group"] == "CN").to_numpy(), i)
        row = at(found.table, both["participant_id"][i], "Cortex")
        assert_allclose([row["z"], row["expected"], row["n_controls"]], [z, expected, n], rtol=1e-6)


def test_csf_ages_and_gaps_are_told_apart():
    values = cohort()
    p1, p2, both = values["participant_id"] == "p1", values["participant_id"] == "p2", values["hemisphere"] == "both"
    hippocampus = values["region"] == "Hippocampus"
    values.loc[p1 & both & hippocampus, "csf_signal_fraction"] = 0.5
    values.loc[p1 & ~hippocampus, "csf_signal_fraction"] = 0.2
    values.loc[p1, "age"] = "93"
    values.loc[p2, "sex"] = ""
    values.loc[(values["participant_id"] == "c03") & both & hippocampus, "tsc"] = np.nan
    table = normative_scores(values, control="CN").table
    wet, dry = at(table, "p1"), at(table, "p1", "Cortex")
    assert wet["state"] == "excluded"
    assert wet["z_csf"] > 5
    assert "age 93 outside the controls'" in wet["reason"]
    assert "unusual share of CSF" in wet["reason"]
    assert (dry["state"], abs(dry["z_csf"]) < 1.96) == ("extrapolated", True)
    assert tuple(at(table, "p2")[["state", "reason", "n_controls"]]) == ("not scored", "sex is missing", 0)
    assert tuple(at(table, "c03")[["state", "reason"]]) == ("not scored", "no value")
    assert at(table, "c04")["n_controls"] == 28
    screened = table[table["participant_id"].str.startswith("c") & (table["state"] != "not scored")]
    assert_array_equal(screened["state"] == "excluded", np.abs(screened["z_csf"]) >= 1.96)
    fluid = normative_scores(values.replace({"region": {"Hippocampus": "CSF"}}), control="CN").table
    assert (at(fluid, "p1", "CSF")["state"], np.isnan(at(fluid, "p1", "CSF")["z_csf"])) == ("extrapolated", True)
    # the share of the volume stands in where that of the signal is not known
    values["csf_signal_fraction"] = np.nan
    values.loc[p1 & both & hippocampus, "csf_fraction"] = 0.05
    assert at(normative_scores(values, control="CN").table, "p1")["z_csf"] < -1.96


def test_an_asymmetry_is_lateralised_in_words_and_excluded_for_the_csf_of_either_side():
    values = cohort()
    hippocampus = values["region"] == "Hippocampus"
    for who, size in (("p1", -30.0), ("p2", 30.0)):
        values.loc[(values["participant_id"] == who) & hippocampus & (values["hemisphere"] != "both"), "asymmetry"] = (
            size
        )
        values.loc[(values["participant_id"] == who), "csf_signal_fraction"] = 0.2
    values.loc[
        (values["participant_id"] == "p2") & hippocampus & (values["hemisphere"] == "R"), "csf_signal_fraction"
    ] = 0.0
    table = normative_scores(values, control="CN").table
    right, left = (at(table, who, side="L", measure="asymmetry") for who in ("p1", "p2"))
    assert (right["lateralisation"], right["state"], right["value"]) == ("right", "scored", -30.0)
    assert right["z"] < -5
    assert (left["lateralisation"], left["state"], left["z_csf"] < -1.96) == ("", "excluded", True)
    assert set(table.loc[table["measure"] == "asymmetry", "hemisphere"]) == {"L"}
    assert (table.loc[table["measure"] == "tsc", "lateralisation"] == "").all()


def test_a_site_without_controls_few_controls_and_the_reference_are_told():
    values = cohort(8)
    values["site"] = np.where(values["participant_id"] == "p1", "B", "A")
    fluid = values[values["region"] == "Cortex"].assign(region="CSF", reference="CSF", tsc=140.0)
    found = normative_scores(pd.concat([values, fluid]), control="CN")
    assert at(found.table, "p1")["reason"] == "no control with site B"
    assert at(found.table, "p2", "CSF")["reason"] == "the reference itself"
    assert np.isfinite(at(found.table, "p2")["z"])
    assert any("8 controls, fewer than 10" in note for note in found.notes)
    with pytest.raises(InputError, match=r"no participant has group HC. The labels are: CN, EP."):
        normative_scores(values, control="HC")
    with pytest.raises(InputError, match="no column diagnosis"):
        normative_scores(values, control="CN", group="diagnosis")


def test_lesions_are_listed_by_the_time_since_onset():
    values = cohort(3)[["participant_id", *STRATUM, "region", "hemisphere", "estimator", "reference", "tsc"]]
    values["mirror_ratio"] = np.nan
    values["hours"] = values["participant_id"].map({"p1": "26.5", "p2": "4"}).fillna("")
    for who, ratio in (("p1", 1.36), ("p2", 1.08), ("c00", 1.0)):
        values.loc[
            (values["participant_id"] == who) & (values["region"] == "Cortex") & (values["hemisphere"] == "L"),
            "mirror_ratio",
        ] = ratio
    found = lesion_ratios(values, onset="hours")
    assert list(found["participant_id"]) == ["p2", "p1", "c00"]
    assert_allclose(found["excess_percent"], [8.0, 36.0, 0.0])
    assert_allclose(found["onset"], [4.0, 26.5, np.nan])
    assert set(found.columns) <= {*STRATUM, *LESION_COLUMNS}
    assert lesion_ratios(values.drop(columns="mirror_ratio")).empty
    with pytest.raises(InputError, match="no column onset_h"):
        lesion_ratios(values, onset="onset_h")
