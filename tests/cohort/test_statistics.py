"""Statistics of two groups against scipy, statsmodels, and the definition of coverage."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sodium_prep.cohort.statistics import adjusted_difference, false_discovery, hedges_g, noncentral_t_cdf, welch


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


def test_adjusted_difference_is_statsmodels_hc3_and_removes_a_planted_confounder():
    import pandas as pd
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(1)
    group = np.repeat([False, True], [20, 25])
    age = rng.uniform(50, 80, 45) + 6 * group
    y = 40 + 3.0 * group + 0.4 * (age - 65) + rng.normal(0, 1, 45)
    found, used = adjusted_difference(y, group, (age - age.mean())[:, None])
    fit = smf.ols("y ~ g + age", pd.DataFrame({"y": y, "g": group.astype(float), "age": age})).fit(
        cov_type="HC3", use_t=True
    )
    assert used.all()
    assert_allclose([found.value, found.stderr, found.p], [fit.params["g"], fit.bse["g"], fit.pvalues["g"]], rtol=1e-8)
    assert found.low < 3.0 < found.high
    plain = welch(y[~group], y[group])
    assert plain.low > 3.0  # without adjustment age counts as a group effect


def test_the_only_one_of_a_site_is_left_out_of_the_adjusted_model():
    rng = np.random.default_rng(2)
    group = np.repeat([False, True], 10)
    site = np.zeros((20, 1))
    site[3] = 1.0
    y = rng.normal(40, 2, 20)
    found, used = adjusted_difference(y, group, site)
    keep = np.arange(20) != 3
    assert (used == keep).all()
    assert_allclose(found.value, y[10:].mean() - y[:10][keep[:10]].mean())
    assert np.isfinite(found.stderr)


def test_models_that_cannot_be_estimated_give_nothing():
    group = np.repeat([False, True], 4)
    y = np.arange(8.0)
    assert adjusted_difference(y, group, group[:, None].astype(float)) is None
    assert adjusted_difference(y[:3], group[3:6], np.random.default_rng(0).normal(size=(3, 2))) is None
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [1.0, 1.0]) is None
    assert hedges_g([1.0, 1.0], [2.0, 2.0]) is None


def test_false_discovery_agrees_with_statsmodels_and_keeps_nan():
    p = np.random.default_rng(3).uniform(size=12) ** 3
    assert_allclose(false_discovery(p), multipletests(p, method="fdr_bh")[1])
    mixed = false_discovery([0.01, np.nan, 0.04])
    assert_allclose(mixed, [0.02, np.nan, 0.04])
    assert false_discovery([]).shape == (0,)
