"""Statistics of groups against scipy, statsmodels' formulas, and the definition of coverage."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.regression.linear_model import OLS, WLS
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests

from sodium_prep.cohort.statistics import (
    between_variance,
    difference_of,
    false_discovery,
    fit_linear,
    fit_robust,
    group_design,
    hedges_g,
    noncentral_t_cdf,
    overall_test,
    welch,
)


def test_welch_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(40, 3, 9), rng.normal(45, 7, 23)
    oracle = stats.ttest_ind(b, a, equal_var=False)
    interval = oracle.confidence_interval()
    found = welch(a, b)
    assert_allclose(
        [found.value, found.p, found.dof, found.low, found.high],
        [b.mean() - a.mean(), oracle.pvalue, oracle.df, interval.low, interval.high],
        rtol=1e-12,
    )


@pytest.mark.parametrize("dof", [2, 8, 60])
def test_noncentral_t_agrees_with_scipy_where_scipy_is_finite(dof):
    for t in (-3.0, 0.0, 2.5, 6.0):
        for shift in (-2.0, 0.5, 5.0):
            assert_allclose(noncentral_t_cdf(t, dof, shift), stats.nct.cdf(t, dof, shift), atol=1e-9)


def test_hedges_g_interval_covers_the_truth():
    rng = np.random.default_rng(5)
    truth, hits, values = 0.9, 0, []
    for _ in range(200):
        g, low, high = hedges_g(rng.normal(0, 2, 8), rng.normal(0.9 * 2, 2, 12))
        hits += low <= truth <= high
        values.append(g)
    assert abs(np.mean(values) - truth) < 3 * np.std(values) / np.sqrt(200)  # unbiased
    assert 0.91 < hits / 200 < 0.985


def test_hedges_g_of_a_published_example():
    # Borenstein et al., Introduction to Meta-Analysis (2009), p. 27-28: d = 0.5970, J = 0.9924, g = 0.5924
    z = stats.zscore(np.random.default_rng(0).normal(size=50), ddof=1)
    g, low, high = hedges_g(100 + 4.5 * z, 103 + 5.5 * z)
    assert_allclose(g, 0.5924, atol=5e-4)  # they round J = 1 - 3 / (4 dof - 1)
    assert low < g < high


@pytest.fixture(scope="module")
def three_groups():
    """A table of 60 with planted effects of age, sex, site and the groups b and c."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": np.repeat(["a", "b", "c"], [15, 25, 20]), "sex": rng.choice(["F", "M"], 60)})
    frame["site"] = rng.choice(["X", "Y", "Z"], 60)
    frame["age"] = rng.uniform(50, 80, 60) + 6.0 * (frame["g"] == "b")
    frame["s"] = rng.uniform(0.5, 4.0, 60)
    effect = frame["g"].map({"a": 0.0, "b": 3.0, "c": 1.0}) + frame["site"].map({"X": 0.0, "Y": 4.0, "Z": -5.0})
    frame["y"] = 40 + effect + 0.4 * (frame["age"] - 65) + rng.normal(0, 1, 60) + frame["s"] * rng.normal(size=60)
    covariates = pd.get_dummies(frame[["age", "sex", "site"]], drop_first=True).to_numpy(dtype=float)
    design = group_design(np.repeat([0, 1, 2], [15, 25, 20]), 3, covariates)
    return frame, design, "y ~ C(g) + age + C(sex) + C(site)"


def assert_same(found, fit):
    name = "C(g)[T.b]"
    low, high = fit.conf_int().loc[name]
    assert_allclose(
        [found.value, found.stderr, found.p, found.low, found.high],
        [fit.params[name], fit.bse[name], fit.pvalues[name], low, high],
        rtol=1e-7,
    )


def test_models_of_all_groups_are_those_of_formulas(three_groups):
    frame, design, formula = three_groups
    contrast = design.contrast({0: -1.0, 1: 1.0})
    y = frame["y"].to_numpy()
    plain = fit_linear(y, design.matrix)
    oracle = smf.ols(formula, frame).fit(cov_type="HC3", use_t=True)
    assert_same(difference_of(plain, contrast), oracle)
    weights = 1.0 / (1.5 + frame["s"].to_numpy() ** 2)
    weighted = smf.wls(formula, frame, weights=weights).fit(cov_type="HC3", use_t=True)
    assert_same(difference_of(fit_linear(y, design.matrix, weights), contrast), weighted)
    robust = smf.rlm(formula, frame).fit()
    found = difference_of(fit_robust(y, design.matrix), contrast)
    assert_allclose([found.value, found.stderr], [robust.params["C(g)[T.b]"], robust.bse["C(g)[T.b]"]], rtol=1e-7)
    assert_allclose(found.p, 2 * stats.t.sf(found.value / found.stderr, 53), rtol=1e-9)
    both = np.array([contrast, design.contrast({0: -1.0, 2: 1.0})])
    wald = oracle.f_test("C(g)[T.b] = 0, C(g)[T.c] = 0")
    f, df_1, df_2, p = overall_test(plain, both)
    assert_allclose([f, df_1, df_2, p], [wald.fvalue, 2, 53, wald.pvalue], rtol=1e-7)
    # A group's coefficient is its adjusted mean: the model's value at the means of all covariates.
    at_means = frame.assign(g="a", age=frame["age"].mean())
    share = [oracle.predict(at_means.assign(sex=x, site=s)).iloc[0] * (frame["sex"] == x).mean()
             * (frame["site"] == s).mean() for x in "FM" for s in "XYZ"]  # fmt: skip
    assert_allclose(plain.params[0], sum(share), rtol=1e-9)


def test_wald_with_equal_variances_would_be_the_f_of_an_analysis_of_covariance(three_groups):
    frame, design, formula = three_groups
    contrasts = np.array([design.contrast({0: -1.0, i: 1.0}) for i in (1, 2)])
    found = overall_test(OLS(frame["y"].to_numpy(), design.matrix).fit(), contrasts)
    # By the definition: what the residuals gain by leaving out the groups, over what is left of them.
    full, none = (float(smf.ols(f, frame).fit().ssr) for f in (formula, formula.replace("C(g) + ", "")))
    assert_allclose(found[0], (none - full) / 2 / (full / 53), rtol=1e-9)
    assert_allclose(found[3], stats.f.sf(found[0], 2, 53), rtol=1e-9)


def test_the_only_one_of_a_site_is_left_out():
    group = np.repeat([0, 1], 10)
    site = np.zeros((20, 1))
    site[3] = 1.0
    y = np.random.default_rng(2).normal(40, 2, 20)
    design = group_design(group, 2, site)
    keep = np.arange(20) != 3
    assert (design.used == keep).all()
    found = difference_of(fit_linear(y[design.used], design.matrix), design.contrast({0: -1.0, 1: 1.0}))
    assert_allclose(found.value, y[10:].mean() - y[:10][keep[:10]].mean())
    assert np.isfinite(found.stderr)


def test_disjoint_sites_are_told_apart_by_a_third_group_only():
    sites = pd.get_dummies(pd.Series(list("XXXYYYXXXYYY"))).to_numpy(dtype=float)[:, 1:]
    group = np.repeat([0, 1, 2], [3, 3, 6])  # 0 at X, 1 at Y, 2 at both
    joint = group_design(group, 3, sites)
    contrast = joint.contrast({0: -1.0, 1: 1.0})
    assert joint.estimable(contrast)
    y = np.array([10.0, 5.0, 7.0])[group] + 3.0 * sites[:, 0] + np.tile([-0.1, 0.0, 0.1], 4)
    assert_allclose(difference_of(fit_linear(y, joint.matrix), contrast).value, 5.0 - 10.0)
    alone = group_design(group[:6], 3, sites[:6])
    assert not alone.estimable(alone.contrast({0: -1.0, 1: 1.0}))


def test_variance_between_participants_is_paule_and_mandels():
    rng = np.random.default_rng(6)
    s2 = rng.uniform(0.2, 3.0, 40)
    y = 5 + rng.normal(0, 1.5, 40) + np.sqrt(s2) * rng.normal(size=40)
    oracle = combine_effects(y, s2, method_re="iterated", atol=1e-10)
    assert_allclose(between_variance(y, s2, np.ones((40, 1))), oracle.tau2, rtol=1e-6)
    assert between_variance(y, 100.0 * s2, np.ones((40, 1))) == 0.0  # they scatter less than their errors
    # With a design: that which makes the weighted residuals as many as there are degrees of freedom.
    matrix = np.column_stack([np.ones(40), rng.normal(size=40)])
    weights = 1.0 / (between_variance(y, s2, matrix) + s2)
    assert_allclose(WLS(y, matrix, weights=weights).fit().ssr, 38.0, rtol=1e-6)


def test_nothing_to_tell_gives_nothing():
    group = np.repeat([0, 1], 4)
    same = group_design(group, 2, group[:, None].astype(float))
    assert not same.estimable(same.contrast({0: -1.0, 1: 1.0}))
    few = group_design(np.array([0, 1, 1]), 2, np.random.default_rng(0).normal(size=(3, 2)))
    assert few.dof == 0
    flat = group_design(group, 2, np.zeros((8, 0)))
    contrast = flat.contrast({0: -1.0, 1: 1.0})
    for exact in (np.full(8, 0.1), np.array([1.1, 2.3])[group]):  # rounding errors are none to judge by
        for fit in (fit_linear, fit_robust):
            assert difference_of(fit(exact, flat.matrix), contrast) is None
            assert overall_test(fit(exact, flat.matrix), contrast[None]) is None
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [1.0, 1.0]) is None
    assert hedges_g([1.0, 1.0], [2.0, 2.0]) is None


@pytest.mark.parametrize("balanced", [True, False])
def test_with_the_site_in_the_model_null_effects_are_found_as_often_as_they_should_be(balanced):
    """Three sites of 30 with offsets 0, +4, -5 mM and unequal noise; confounded: .8, .5, .2 of a site are patients."""
    rng = np.random.default_rng(7 + balanced)
    site = np.repeat([0, 1, 2], 30)
    share = np.array([0.5, 0.5, 0.5] if balanced else [0.8, 0.5, 0.2])[site]
    group = ((np.arange(90) % 30) < 30 * share).astype(int)
    design = group_design(group, 2, (site[:, None] == [1, 2]).astype(float))
    contrast = design.contrast({0: -1.0, 1: 1.0})
    truth, false, covered, naive, n = 2.0, 0, 0, 0, 600
    for _ in range(n):
        y = np.array([0.0, 4.0, -5.0])[site] + np.array([1.0, 1.3, 0.8])[site] * rng.normal(0, 2, 90)
        false += difference_of(fit_linear(y, design.matrix), contrast).p < 0.05
        naive += welch(y[group == 0], y[group == 1]).p < 0.05
        found = difference_of(fit_linear(y + truth * group, design.matrix), contrast)
        covered += found.low < truth < found.high
    # Three standard errors of 5 % of 600: 2.7 %.
    assert abs(false / n - 0.05) < 0.027
    assert abs(covered / n - 0.95) < 0.027
    # Without the site: blind where it scatters both groups alike, misled where it goes with the group.
    assert naive / n < 0.02 if balanced else naive / n > 0.3


def test_false_discovery_agrees_with_statsmodels_and_keeps_nan():
    p = np.random.default_rng(3).uniform(size=12) ** 3
    assert_allclose(false_discovery(p), multipletests(p, method="fdr_bh")[1])
    mixed = false_discovery([0.01, np.nan, 0.04])
    assert_allclose(mixed, [0.02, np.nan, 0.04])
    assert false_discovery([]).shape == (0,)
