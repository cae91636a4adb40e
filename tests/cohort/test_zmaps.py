"""z-maps against a fit without the control in question, and by what they must look like among controls."""

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy import stats

from sodium_prep.cohort.zmaps import normal_deviate, z_maps
from sodium_prep.errors import InputError


def cohort(rng, n, voxels):
    covariates = np.column_stack([rng.uniform(50, 80, n), rng.integers(0, 2, n)])
    values = 30 + 0.2 * covariates[:, :1] + 3 * covariates[:, 1:] + 4 * rng.standard_normal((n, voxels))
    return values, covariates


def test_prediction_of_everybody_is_that_of_a_fit_without_them():
    rng = np.random.default_rng(0)
    values, covariates = cohort(rng, 20, 3)
    controls = np.arange(20) < 14
    found = z_maps(values, controls, covariates)
    for person in (2, 13, 17):
        others = controls & (np.arange(20) != person)
        design = np.column_stack([np.ones(20), covariates])
        fit = sm.OLS(values[others, 1], design[others]).fit()
        told = fit.get_prediction(design[person : person + 1])
        t = (values[person, 1] - told.predicted_mean[0]) / told.se_obs[0]
        assert_allclose(found[person, 1], stats.norm.ppf(stats.t.cdf(t, fit.df_resid)), rtol=1e-5)


def test_z_is_standard_normal_among_controls_and_new_healthy_people():
    values, covariates = cohort(np.random.default_rng(1), 24, 20_000)
    controls = np.arange(24) < 12  # so few that t for z would have an SD of 1.15
    z = z_maps(values, controls, covariates)
    for who in (controls, ~controls):
        assert abs(z[who].mean()) < 0.01
        assert_allclose(z[who].std(), 1.0, atol=0.01)
        assert_allclose(np.mean(np.abs(z[who]) > 1.96), 0.05, atol=0.003)


def test_what_is_missing_stays_missing():
    rng = np.random.default_rng(2)
    values, covariates = cohort(rng, 16, 4)
    sex = np.where(np.arange(16) == 15, 1.0, 0.0)  # a patient of a sex that no control has
    only = np.where(np.arange(16) == 3, 1.0, 0.0)  # a control who is alone at a site
    controls = np.arange(16) < 12
    values[5, 0], values[13, 1], values[:, 2] = np.nan, np.nan, 41.0
    z = z_maps(values, controls, np.column_stack([covariates[:, 0], sex, only]))
    expected = np.isnan(np.zeros((16, 4)))
    expected[:, [0, 2]] = expected[13, 1] = expected[15] = expected[3] = True
    assert (np.isnan(z) == expected).all()
    with pytest.raises(InputError, match="4 controls leave 2 degrees"):
        z_maps(values, np.arange(16) < 4, covariates[:, :1])


def test_deviates_in_the_far_tail():
    t = np.array([-60.0, -5.0, 0.0, 5.0, 60.0])
    found = normal_deviate(t, np.array(30))
    assert_allclose(found[1:4], stats.norm.isf(stats.t.sf(t[1:4], 30)), atol=1e-9)
    assert_allclose(found[4], stats.norm.isf(stats.t.sf(60.0, 30)))
    assert np.isfinite(normal_deviate(np.array([1e9]), np.array(1000))).all()
