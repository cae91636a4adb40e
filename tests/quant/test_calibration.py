"""The calibration line against simulation: which model is right, what the errors cover, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import odr

from sodium_prep.errors import InputError
from sodium_prep.quant.calibration import (
    CalibrationLine,
    disagreement,
    fieller_interval,
    fit_calibration,
    match_by_order,
    predict_concentration,
)
from sodium_prep.quant.tscmap import tsc_map

pytestmark = pytest.mark.filterwarnings("ignore:.*odr.*:DeprecationWarning")


def test_tissue_of_another_factor_is_recovered_through_an_additive_floor():
    gain, floor, f_vial, f_tissue = 9.0, 25.0, 0.90, 0.80
    vials = np.array([20.0, 50.0, 80.0])
    line = fit_calibration(vials * f_vial, gain * f_vial * vials + floor, np.ones(3))
    c, _, _, _ = predict_concentration(gain * f_tissue * 41.0 + floor, 1.0, f_tissue, line)
    assert_allclose(c, 41.0, rtol=1e-12)


def test_auto_frees_the_intercept_only_with_three_points():
    two = dict(x=[30.0, 90.0], signal=[303.0, 905.0], signal_sd=[5.0, 9.0])
    assert fit_calibration(**two).mode == "zero"
    assert fit_calibration(**two).dof == 1
    assert fit_calibration(**two, air=(1.0, 1.0)).mode == "free"
    # Two vials of one concentration are one point for the question whether an intercept can be told.
    assert fit_calibration([30.0, 30.0, 90.0], [303.0, 301.0, 905.0], [5.0, 5.0, 9.0]).mode == "zero"


def test_two_vials_through_the_origin_beat_the_exact_line_on_zero_mean_data():
    rng = np.random.default_rng(3)
    tissue, errors = 40.0, {"zero": [], "free": []}
    for _ in range(400):
        # One percent of receive error at each vial, the least that any scan has.
        signal = 10.0 * np.array([50.0, 100.0]) * (1.0 + 0.01 * rng.standard_normal(2))
        for mode in errors:
            line = fit_calibration([50.0, 100.0], signal, [5.0, 10.0], intercept=mode)
            errors[mode].append(float(predict_concentration(10.0 * tissue, 0.0, 1.0, line)[0]) - tissue)
    assert np.std(errors["zero"]) < 0.6 * np.std(errors["free"])


@pytest.mark.parametrize("slope_sd_share", [0.02, 0.15])
def test_intervals_cover_the_truth_as_often_as_they_say(slope_sd_share):
    rng = np.random.default_rng(11)
    x = np.array([20.0, 40.0, 60.0, 80.0])
    sd = np.full(4, slope_sd_share * 10.0 * 40.0)
    n, hits_delta, hits_fieller = 3000, 0, 0
    for _ in range(n):
        signal = 10.0 * x + 30.0 + sd * rng.standard_normal(4)
        tissue = 10.0 * 0.8 * 60.0 + 30.0 + 6.0 * rng.standard_normal()
        line = fit_calibration(x, signal, sd, scale_covariance="none", minimum_r_squared=-np.inf)
        c, se, _, _ = predict_concentration(tissue, 6.0, 0.8, line)
        low, high = fieller_interval(tissue, 6.0, 0.8, line)
        hits_delta += abs(c - 60.0) < 1.959964 * se
        hits_fieller += low < 60.0 < high
    three_se = 3.0 * np.sqrt(0.95 * 0.05 / n)
    assert abs(hits_fieller / n - 0.95) < three_se
    assert abs(hits_delta / n - 0.95) < (three_se if slope_sd_share < 0.1 else 0.03)


def test_errors_of_the_concentrations_agree_with_orthogonal_distance_regression():
    x, signal = np.array([21.0, 39.0, 63.0, 80.0]), np.array([212.0, 405.0, 607.0, 798.0])
    sd, x_sd = np.array([6.0, 6.0, 8.0, 8.0]), np.array([0.5, 1.0, 1.0, 2.0])
    line = fit_calibration(x, signal, sd, x_sd=x_sd, scale_covariance="none")
    fitted = odr.ODR(odr.RealData(x, signal, x_sd, sd), odr.unilinear, beta0=[10.0, 0.0]).run()
    assert_allclose([line.slope, line.intercept], fitted.beta, rtol=1e-4)
    assert_allclose(np.sqrt(np.diag(line.covariance)), fitted.sd_beta[::-1] / np.sqrt(fitted.res_var), rtol=0.02)


def test_disagreeing_references_widen_the_error_and_agreeing_ones_do_not_narrow_it():
    x = np.array([20.0, 40.0, 60.0, 80.0])
    off = 10.0 * x + np.array([20.0, -20.0, 20.0, -20.0])
    wide, plain = (fit_calibration(x, off, np.full(4, 5.0), scale_covariance=s) for s in ("birge", "none"))
    assert wide.scaled
    assert_allclose(wide.covariance, plain.covariance * wide.chi2 / wide.dof)
    assert not fit_calibration(x, 10.0 * x, np.full(4, 5.0)).scaled


@pytest.mark.parametrize(
    ("x", "signal", "problem"),
    [
        ([40.0], [400.0], "not enough"),
        ([40.0, 40.0], [400.0, 401.0], "not enough"),
        ([20.0, 40.0, 80.0], [800.0, 400.0, 200.0], "does not rise"),
        ([20.0, 40.0, 80.0], [400.0, 100.0, 600.0], "do not lie on a line"),
    ],
)
def test_unusable_references_are_refused(x, signal, problem):
    with pytest.raises(InputError, match=problem):
        fit_calibration(x, signal, np.full(len(x), 5.0))


def test_one_vial_is_enough_when_the_origin_is_asked_for():
    line = fit_calibration([40.0], [400.0], [4.0], intercept="zero")
    assert_allclose([line.slope, line.slope_sd], [10.0, 0.1])


def test_fieller_says_so_when_the_slope_is_not_known():
    line = CalibrationLine(0.0, 1.0, np.diag([0.0, 1.0]))
    low, high = fieller_interval([40.0], [1.0], [1.0], line)
    assert (low[0], high[0]) == (-np.inf, np.inf)


def test_map_holds_calibration_noise_and_relaxation_errors_and_marks_the_unknown():
    line = CalibrationLine(0.0, 10.0, np.diag([0.0, 0.2**2]))
    tsc, stderr = tsc_map(np.array([[[400.0, 400.0]]]), np.array([[[1.0, 0.0]]]), line, 5.0, factor_relative_sd=0.03)
    assert_allclose(tsc[0, 0, 0], 40.0)
    assert_allclose(stderr[0, 0, 0], np.sqrt(0.5**2 + 0.8**2 + 1.2**2), rtol=1e-6)
    assert np.isnan(tsc[0, 0, 1])
    assert np.isnan(stderr[0, 0, 1])


def test_matching_by_order():
    assert match_by_order([30.0, 10.0, 20.0], [100.0, 50.0, 150.0]) == [2, 1, 0]
    with pytest.raises(ValueError, match="equal"):
        match_by_order([1.0, 2.0], [50.0, 50.0])


def test_references_disagree_by_their_errors_and_not_by_percent():
    vials = CalibrationLine(0.0, 10.0, np.diag([0.0, 0.1**2]))
    loose, tight = (CalibrationLine(0.0, 11.2, np.diag([0.0, sd**2])) for sd in (1.4, 0.2))
    # Twelve percent are less than one standard error of a vitreous that varies by 12 % between people.
    relative, errors = disagreement(400.0, loose, vials)
    assert relative == pytest.approx(10.0 / 11.2 - 1.0)
    assert errors == pytest.approx((40.0 - 400.0 / 11.2) / np.hypot(0.4, 400.0 / 11.2 * 1.4 / 11.2))
    assert errors < 1.0
    assert disagreement(400.0, tight, vials)[1] > 5.0
    assert disagreement(400.0, vials, vials) == (0.0, 0.0)
