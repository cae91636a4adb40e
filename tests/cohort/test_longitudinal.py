"""Mixed models against closed forms of balanced data."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sodium_prep.cohort.longitudinal import CHANGE_COLUMNS, SITE_COLUMNS, change_per_year, site_differences
from sodium_prep.errors import InputError
from tests.cohort.frames import values_frame


def followed(n=24, times=(0.0, 1.0, 2.5), slope_sd=0.8, seed=0, **columns):
    """n participants, every second a patient whose TSC rises by 1.5 mM more a year; years count from an age."""
    rng = np.random.default_rng(seed)
    k = len(times)
    person, t = np.repeat(np.arange(n), k), np.tile(times, n)
    patient = person % 2 == 1
    start, slope = rng.normal(44, 3, n), 0.5 + rng.normal(0, slope_sd, n)
    tsc = start[person] + (slope[person] + 1.5 * patient) * t + rng.normal(0, 0.6, n * k)
    age = 60 + person % 7 + t
    columns = {"session_id": [f"{x:g}" for x in t], "years": [f"{x:g}" for x in t], "tsc": tsc} | columns
    groups = np.where(patient, "ALS", "control")
    return values_frame(person, group=groups, age=[f"{x:g}" for x in age], **columns), tsc.reshape(n, k)


def test_random_slopes_of_balanced_data_are_the_t_test_of_each_participants_own_slope():
    frame, tsc = followed()
    t = np.array([0.0, 1.0, 2.5])
    slopes = tsc @ (t - t.mean()) / ((t - t.mean()) ** 2).sum()
    table = change_per_year(frame, time="years", control="control", covariates=()).set_index(["term", "group_2"])
    assert [*table.columns[-(len(CHANGE_COLUMNS) - 2) :]] == [c for c in CHANGE_COLUMNS if c not in ("term", "group_2")]
    difference = table.loc[("difference in change", "ALS")]
    oracle = stats.ttest_ind(slopes[1::2], slopes[::2])
    interval = oracle.confidence_interval()
    assert_allclose(difference["estimate"], slopes[1::2].mean() - slopes[::2].mean(), rtol=1e-6)
    assert_allclose(difference[["ci_low", "ci_high"]].astype(float), interval, rtol=2e-3)
    assert_allclose(difference["p"], oracle.pvalue, rtol=0.02)
    assert (difference["dof"], difference["group_1"]) == (22, "control")
    assert (difference["n_participants"], difference["n_followed"], difference["n_sessions"]) == (24, 24, 72)
    assert (difference["model"], difference["state"]) == ("random intercept and slope of participants", "estimated")
    assert_allclose(table.loc[("change", "control"), "estimate"], slopes[::2].mean(), rtol=1e-6)
    assert table.loc[("change", "control"), "n_participants"] == 12
    # the two changes are one family, the difference another
    p = table.loc["change"]["p"].astype(float)
    assert_allclose(table.loc["change"]["p_fdr"].astype(float), stats.false_discovery_control(p))
    assert_allclose(difference["p_fdr"], difference["p"])


def test_two_sessions_are_the_t_test_of_differences_and_say_so():
    frame, tsc = followed(times=(0.0, 2.0))
    change = (tsc[:, 1] - tsc[:, 0]) / 2.0
    row = change_per_year(frame, time="years", covariates=("age", "sex")).query("term != 'change'").iloc[0]
    oracle = stats.ttest_ind(change[::2], change[1::2])
    assert (row["group_1"], row["group_2"]) == ("ALS", "control")  # no control named: in order of their labels
    assert_allclose(row["p"], oracle.pvalue, rtol=1e-3)
    assert row["dof"] == 22
    assert row["covariates"] == "age"
    assert row["state"] == "estimated; no random slope: fewer than half have three sessions"


def test_differences_between_participants_do_not_pass_for_change():
    # Older participants have 1 mM less per year of age, while everybody rises by 0.5 mM a year.
    frame, _ = followed(slope_sd=0.0)
    frame["tsc"] -= 1.5 * frame["age"].astype(float).groupby(frame["participant_id"]).transform("min")
    row = change_per_year(frame, time="age", group=None, covariates=()).iloc[0]
    assert (row["term"], row["group_2"]) == ("change", "all")
    assert row["ci_low"] < 0.5 + 0.75 < row["ci_high"]  # half of them rise by 1.5 more


def test_missing_cells_are_counted_and_small_groups_told():
    frame, _ = followed(times=(0.0, 1.0))
    frame.loc[0, "years"] = ""
    frame.loc[frame["participant_id"] == "004", "group"] = ""
    frame.loc[5, "group"] = "rare"  # at the second session: 002 stays a control
    few = frame["participant_id"].isin(["001", "003"])
    frame.loc[few, "group"] = "rare"
    table = change_per_year(frame, time="years", control="control", covariates=()).set_index(["term", "group_2"])
    assert len(table) == 5
    rare = table.loc[("difference in change", "rare")]
    assert rare["state"] == "not estimated: fewer than 3 participants of rare with two sessions"
    assert np.isnan(rare["estimate"])
    control = table.loc[("change", "control")]
    assert (control["left_out"], control["n_participants"], control["n_followed"], control["n_sessions"]) == (
        3, 11, 10, 21,
    )  # fmt: skip
    itself = change_per_year(frame.assign(reference="Cortex"), time="years", covariates=())
    assert set(itself["state"]) >= {"not estimated: the reference itself, equal in all"}
    untold = change_per_year(frame.assign(sex=frame["group"]), time="years", covariates=("sex",))
    assert "not estimated: groups, time and covariates cannot be told apart" in set(untold["state"])


def test_time_that_is_not_in_years_is_refused():
    frame, _ = followed()
    with pytest.raises(InputError, match=r"sessions\.tsv: has sessions 912\.5 apart in column days\. Give the time in"):
        change_per_year(frame.assign(days=(frame["years"].astype(float) * 365).astype(str)), time="days")
    with pytest.raises(InputError, match=r"sessions\.tsv: holds '1 y' in column years"):
        change_per_year(frame.assign(years="1 y"), time="years")
    with pytest.raises(InputError, match=r"sessions\.tsv: has no column t\."):
        change_per_year(frame, time="t")


def multisite(sites, per_group=4, seed=1):
    """The same number of both groups at every site, patients 2 mM higher, sites 3 mM apart."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), 2 * per_group)
    patient = np.tile(np.repeat([0, 1], per_group), sites)
    tsc = 40 + 2.0 * patient + rng.normal(0, 3, sites)[site] + rng.normal(0, 1.5, site.size)
    frame = values_frame(np.arange(site.size), group=np.where(patient, "AD", "HC"), site=site.astype(str), tsc=tsc)
    return frame, tsc.reshape(sites, 2, per_group)


def test_balanced_sites_give_the_analysis_of_variance_random_or_fixed():
    for sites, model in ((6, "site random"), (3, "site fixed")):
        frame, tsc = multisite(sites)
        row = site_differences(frame, control="HC").iloc[0]
        n, m = tsc.size, tsc[0].size
        effect = tsc[:, 1].mean() - tsc[:, 0].mean()
        residual = tsc - tsc.mean(axis=(1, 2), keepdims=True) - np.array([-effect / 2, effect / 2])[:, None]
        variance = (residual**2).sum() / (n - sites - 1)
        assert row["model"] == model
        assert (row["n_1"], row["n_2"], row["n_sites"], row["dof"]) == (n / 2, n / 2, sites, n - sites - 1)
        assert_allclose(row["estimate"], effect, rtol=1e-6)
        assert_allclose(row["stderr"], np.sqrt(variance * 4 / n), rtol=1e-4)
        between = m * tsc.mean(axis=(1, 2)).var(ddof=1)
        if sites == 6:
            assert_allclose(row["site_sd"], np.sqrt((between - variance) / m), rtol=1e-3)
        else:
            assert row["state"] == "estimated; site fixed: fewer than 5 sites"
    assert [*site_differences(frame).columns[-len(SITE_COLUMNS) :]] == [*SITE_COLUMNS]
    apart = frame.assign(site=np.where(frame["group"] == "AD", "A", "B"))
    assert site_differences(apart).iloc[0]["state"].endswith("group, site and covariates cannot be told apart")


def test_a_site_as_random_intercept_leaves_the_change_as_it_is():
    frame, tsc = followed(n=20, times=(0.0, 2.0), site=np.repeat(np.arange(20) // 4, 2).astype(str))
    frame["tsc"] += 4.0 * frame["site"].astype(float)
    change = (tsc[:, 1] - tsc[:, 0]) / 2.0
    row = change_per_year(frame, time="years", covariates=(), sites="random").query("term != 'change'").iloc[0]
    assert row["model"] == "random intercept of participants, random intercept of sites"
    assert_allclose(row["estimate"], change[::2].mean() - change[1::2].mean(), rtol=1e-6)
    assert_allclose(row["stderr"], np.sqrt((change[::2].var(ddof=1) + change[1::2].var(ddof=1)) / 10), rtol=2e-3)
    fewer = change_per_year(frame[frame["site"] < "4"], time="years", covariates=(), sites="random")
    assert (fewer["covariates"] == "site").all()
    assert fewer["state"].str.endswith("site fixed: fewer than 5 sites").all()
    merged = pd.concat([frame, frame.assign(site="9", years="5", session_id="5")])
    moved = change_per_year(merged, time="years", covariates=(), sites="random")
    assert moved["state"].str.endswith("some participants were at several").all()
