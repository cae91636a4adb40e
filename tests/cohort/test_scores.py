"""Correlations and ROC against scipy, statsmodels, scikit-learn, closed forms and simulated truth."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sodium_prep.cohort.columns import covariates
from sodium_prep.cohort.scores import (
    CORRELATION_COLUMNS,
    ROC_COLUMNS,
    correlations,
    discrimination,
    partial_correlation,
    roc,
)
from sodium_prep.errors import InputError
from tests.cohort.frames import values_frame

NONE = np.zeros((30, 0))


def test_plain_correlations_are_scipys():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = 0.5 * x + rng.normal(size=30)
    oracle = stats.pearsonr(x, y)
    assert_allclose(
        partial_correlation(x, y, NONE), [oracle.statistic, *oracle.confidence_interval(), oracle.pvalue], rtol=1e-9
    )
    ranks = stats.spearmanr(x, np.exp(y))
    r, _, _, p = partial_correlation(x, np.exp(y), NONE, method="spearman")
    assert_allclose([r, p], [ranks.statistic, ranks.pvalue], rtol=1e-9)
    assert np.isnan(partial_correlation(x, np.ones(30), NONE)).all()
    assert_allclose(partial_correlation(x, -2.0 * x, NONE), [-1, -1, -1, 0], atol=1e-6)


def test_partial_correlation_is_the_t_test_of_a_regression_with_categories():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"age": rng.integers(50, 80, 30).astype(str), "site": np.tile(["1", "2", "3"], 10)})
    frame.loc[3, "age"] = "89+"
    held = covariates(frame, ("age", "site", "absent"))
    assert held.names == ("age", "site")
    assert covariates(frame, ("site",), categories=()).matrix.shape == (30, 1)
    with pytest.raises(InputError, match=r"holds '6O' in column age\. .* or name it among the categories"):
        covariates(frame.replace({"age": {"89+": "6O"}}), ("age",))
    assert held.matrix.shape == (30, 3)  # sites are labels even where they look like numbers
    assert held.complete.tolist() == [i != 3 for i in range(30)]
    z = held.matrix[held.complete]
    x, y = rng.normal(size=(2, 29)) + 3 * z[:, 1]
    fit = sm.OLS(y, sm.add_constant(np.column_stack([x, z]))).fit()
    r, _, _, p = partial_correlation(x, y, z)
    assert_allclose(r, fit.tvalues[1] / np.sqrt(fit.tvalues[1] ** 2 + fit.df_resid))
    assert_allclose(p, fit.pvalues[1])
    # a column that follows from the others costs no degree of freedom
    assert_allclose(partial_correlation(x, y, np.column_stack([z, z[:, 0] - z[:, 1]])), partial_correlation(x, y, z))


def test_intervals_of_partial_correlations_cover_the_truth():
    rng = np.random.default_rng(2)
    truth, simulations, hits = 0.6, 500, np.zeros(2)
    of_ranks = 6 / np.pi * np.arcsin(truth / 2)
    for _ in range(simulations):
        z = rng.normal(size=(14, 3))
        x, e = rng.normal(size=(2, 14))
        y = truth * x + 0.8 * e
        held = z - z.mean(axis=0)
        _, low, high, _ = partial_correlation(x + z.sum(axis=1), y - z[:, 0], held)
        _, low_ranks, high_ranks, _ = partial_correlation(x, y, NONE[:14], method="spearman")
        hits += low < truth < high, low_ranks < of_ranks < high_ranks
    assert ((hits / simulations > 0.925) & (hits / simulations < 0.975)).all(), hits / simulations
    _, low, high, _ = partial_correlation(x, y, held, bootstrap=300)
    assert (low, high) == partial_correlation(x, y, held, bootstrap=300)[1:3]
    assert low < high


def cohort(n=40, seed=3):
    """MMSE is lower and TSC higher in AD; within a group they have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    group = np.where(np.arange(n) % 2, "AD", "HC")
    ill = group == "AD"
    frames = [
        values_frame(
            np.arange(n), region=region, group=group, age=rng.integers(60, 80, n).astype(str),
            MMSE=(28 - 6 * ill + rng.integers(-2, 3, n)).astype(str), tsc=45 + effect * ill + rng.normal(0, 2, n),
        )
        for region, effect in (("Cortex", 5.0), ("Hippocampus", 2.0), ("CSF", 0.0))
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def test_a_score_that_differs_between_groups_is_told_from_one_that_goes_with_sodium():
    frame = cohort()
    frame.loc[frame["participant_id"] == "007", "MMSE"] = ""
    table = correlations(frame, scores=["MMSE"], covariates=("age",))
    assert [*table.columns[-len(CORRELATION_COLUMNS) :]] == [*CORRELATION_COLUMNS]
    cortex = table.query("region == 'Cortex' and method == 'pearson' and covariates == ''").set_index("participants")
    assert [*cortex.index] == ["all", "within groups", "AD", "HC"]
    assert cortex.loc["all", "p_fdr"] < 1e-3
    assert (cortex["p"].drop("all") > 0.01).all()
    assert (cortex.loc["all", "n"], cortex.loc["all", "left_out"], cortex.loc["AD", "n"]) == (39, 1, 19)
    family = table.query("participants == 'all' and method == 'spearman' and covariates == 'age'")
    assert len(family) == 3
    assert_allclose(family["p_fdr"].astype(float), stats.false_discovery_control(family["p"].astype(float)))
    few = correlations(frame[frame["participant_id"] < "003"], scores=["MMSE"])
    assert few["state"].str.startswith("not estimated").all()
    assert few["r"].isna().all()
    with pytest.raises(InputError, match=r"participants\.tsv: holds '30/30' in column MMSE\. Write numbers"):
        correlations(frame.assign(MMSE="30/30"), scores=["MMSE"])


def test_cross_validated_auc_is_scikit_learns_mean_over_folds():
    rng = np.random.default_rng(4)
    case = np.arange(40) % 2 == 1
    x = rng.normal(size=(40, 3)) + 0.8 * case[:, None]
    from sklearn.model_selection import RepeatedStratifiedKFold

    model = make_pipeline(StandardScaler(), LogisticRegression())
    for columns in (x, x[:, :1]):  # one region takes a short way to the same ranks
        found = discrimination(columns, case, repeats=3, seed=5)
        folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=5)
        assert_allclose(found.auc, cross_val_score(model, columns, case, cv=folds, scoring="roc_auc").mean())
        fitted = model.fit(columns, case)
        assert_allclose(found.auc_in_sample, roc_auc_score(case, fitted.decision_function(columns)))
        assert found.auc_ci_low < found.auc < found.auc_ci_high


def test_nothing_to_find_is_half_and_in_sample_says_more():
    rng = np.random.default_rng(6)
    case = np.arange(24) % 2 == 1
    found = [discrimination(rng.normal(size=(24, 4)), case, repeats=1, bootstrap=1, seed=i) for i in range(80)]
    auc = np.array([one.auc for one in found])
    assert abs(auc.mean() - 0.5) < 3 * auc.std() / np.sqrt(80)
    assert np.mean([one.auc_in_sample for one in found]) > 0.7
    assert abs(np.mean([one.sensitivity + one.specificity for one in found]) - 1.0) < 0.1


def test_interval_and_threshold_of_a_known_effect():
    # normal values d apart: AUC = Phi(d / sqrt 2), best threshold half way, sensitivity = specificity = Phi(d / 2)
    rng = np.random.default_rng(7)
    d, hits, found = 1.5, 0, []
    case = np.arange(80) % 2 == 1
    truth = stats.norm.cdf(d / np.sqrt(2))
    for _ in range(120):
        one = discrimination(rng.normal(size=(80, 1)) + d * case[:, None], case, repeats=2, bootstrap=300)
        hits += one.auc_ci_low < truth < one.auc_ci_high
        found.append([one.auc, (one.sensitivity + one.specificity) / 2])
    assert hits / 120 > 0.89
    assert_allclose(np.mean(found, axis=0)[0], truth, atol=0.012)
    best = stats.norm.cdf(d / 2)
    assert best - 0.05 < np.mean(found, axis=0)[1] < best  # a threshold that is learnt is never the best one


def test_what_age_explains_tells_no_groups_apart_after_adjustment():
    rng = np.random.default_rng(8)
    case = np.arange(120) % 2 == 1
    age = (rng.normal(70, 6, 120) + 8 * case)[:, None]
    x = 40 + 0.5 * age + rng.normal(size=(120, 1))
    assert discrimination(x, case, repeats=4).auc > 0.75
    adjusted = discrimination(x, case, age - age.mean(), repeats=4)
    assert adjusted.auc_ci_low < 0.5 < adjusted.auc_ci_high


def test_table_of_regions_and_their_combination():
    frame = cohort()
    frame = frame[~((frame["participant_id"] == "000") & (frame["region"] == "CSF"))]
    table = roc(frame, control="HC", covariates=("age",), repeats=2, bootstrap=100).set_index(["region", "covariates"])
    assert [*table.columns[-(len(ROC_COLUMNS) - 1) :]] == [name for name in ROC_COLUMNS if name != "covariates"]
    assert len(table) == 8
    both = table.loc[("combination", "")]
    assert (both["regions"], both["n_1"], both["n_2"], both["left_out"]) == ("CSF + Cortex + Hippocampus", 19, 20, 1)
    assert both["auc_in_sample"] > both["auc"] > table.loc[("Hippocampus", ""), "auc"]
    assert table.loc[("Cortex", ""), ["group_1", "group_2", "folds"]].tolist() == ["HC", "AD", 5]
    few = roc(frame[frame["participant_id"] < "008"], control="HC")
    assert set(few["state"]) == {"not estimated: fewer than 5 participants in a group"}
    itself = roc(frame.assign(reference="CSF"), control="HC", repeats=1, bootstrap=10).set_index("region")
    assert itself.loc["CSF", "state"].startswith("not estimated: the reference itself")
    assert itself.loc["combination", "regions"] == "Cortex + Hippocampus"
