"""The 24 worked examples of calibration_examples.json, to their printed digits."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, sparse, stats

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import saturation_factor, signal_factor, t2star_factor
from sodium_prep.pvc.estimators import gtm
from sodium_prep.pvc.noise import Noise
from sodium_prep.quant.b1 import double_angle_b1
from sodium_prep.quant.calibration import (
    CalibrationLine,
    fieller_interval,
    fit_calibration,
    internal_reference_line,
    predict_concentration,
)
from sodium_prep.quant.noise import estimate_noise_sd, nc_chi_mean, nc_chi_sd
from sodium_prep.quant.receive import divide_profile
from sodium_prep.quant.relaxation_error import draw_factors, relaxation_sensitivity, widening
from tests.shared import shared_path

DIGITS = 6e-6  # the examples are printed with six significant digits

ACQUISITION = Acquisition(0.0003, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (3.0, 3.0, 3.0))
TISSUE = Relaxation(0.038, 0.022, 0.003, 0.6, 0.002, 0.002, 0.0005, 0.03)
VIAL = Relaxation(0.032, 0.020, 0.0025, 0.6)


@cache
def _examples() -> dict[str, Any]:
    return json.loads(shared_path("reference/calibration_examples.json").read_text())


def case(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    example = _examples()[name]
    return example["inputs"], example["outputs"]


def close(value: Any, printed: Any) -> None:
    assert_allclose(value, printed, rtol=DIGITS)


def four_vials(**kwargs: Any) -> CalibrationLine:
    given, _ = case("wls_4vials")
    return fit_calibration(given["c_mM"], given["S"], given["sigma"], **kwargs)


def test_every_example_has_its_test():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(_examples()) <= tested


def test_saturation_spoiled():
    given, printed = case("saturation_spoiled")
    close(saturation_factor(given["TR"], given["flip"], given["T1"]), printed["fsat"])


def test_saturation_spoiled_ernst():
    given, printed = case("saturation_spoiled_ernst")
    close(saturation_factor(given["TR"], given["flip"], given["T1"]), printed["fsat"])
    best = [
        optimize.minimize_scalar(
            lambda flip, t1=t1: -float(saturation_factor(given["TR"], flip, t1)),
            bounds=(1, 90),
            options={"xatol": 1e-9},
        ).x
        for t1 in given["T1"]
    ]
    close(best, printed["ernst_deg"])


def test_t2star_biexp():
    given, printed = case("t2star_biexp")
    values = [
        t2star_factor(given["TE"], Relaxation(1.0, slow, fast, given["a_fast"]))
        for fast, slow in zip(given["T2f"], given["T2s"], strict=True)
    ]
    close(values, printed["ft2"])


def test_t2star_mono_csf():
    given, printed = case("t2star_mono_csf")
    close(t2star_factor(given["TE"], Relaxation(1.0, given["T2"])), printed["ft2"])


def test_rect_pulse_TE():
    given, printed = case("rect_pulse_TE")
    # What a rectangular pulse excites at its beginning has decayed longer: on average as from its centre, which is
    # where the echo time of a sidecar counts from.
    slow = Relaxation(1.0, 200.0)
    since = given["TE_from_pulse_end"] + given["tau_rf"] * (np.arange(1000) + 0.5) / 1000
    close(t2star_factor(since, slow).mean(), t2star_factor(printed["TE_from_centre"], slow))


def test_b1plus():
    given, printed = case("b1plus")
    flips = given["flip_nominal"] * np.asarray(given["kappa"])
    factors = saturation_factor(given["TR"], flips, given["T1"])
    close(factors, printed["fsat"])
    close(factors / factors[2], printed["fsat_rel_to_nominal"])
    ratio = signal_factor(ACQUISITION, TISSUE, given["kappa"]) / signal_factor(ACQUISITION, TISSUE)
    close(ratio, printed["fsat_rel_to_nominal"])


def test_dam_b1():
    given, printed = case("dam_b1")
    kappa, _ = double_angle_b1(given["S2"] / given["S1"], given["alpha1"])
    close(kappa * given["alpha1"], printed["alpha_true_deg"])
    close(kappa, printed["kappa"])


def test_wls_4vials():
    _, printed = case("wls_4vials")
    line = four_vials()
    close([line.intercept, line.slope], printed["beta[a,b]"])
    close(line.covariance, printed["cov"])
    close([line.intercept_sd, line.slope_sd], printed["se"])
    close(line.covariance[0, 1] / (line.intercept_sd * line.slope_sd), printed["corr"])
    close([line.chi2, line.dof, line.p_value], [printed["chi2"], printed["dof"], printed["p"]])
    assert line.mode == "free"
    assert not line.scaled


def test_wls_4vials_scaled_cov():
    _, printed = case("wls_4vials_scaled_cov")
    line = four_vials(scale_covariance="relative")
    close(line.chi2 / line.dof, printed["s2"])
    close(line.covariance, printed["cov_scaled"])
    assert line.scaled


def test_wls_2vials():
    given, printed = case("wls_2vials")
    line = fit_calibration(given["c_mM"], given["S"], given["sigma"], intercept="free")
    close([line.intercept, line.slope], printed["beta"])
    close(line.covariance, printed["cov"])
    assert line.dof == 0


def test_wls_noise_plus_2vials():
    given, printed = case("wls_noise_plus_2vials")
    air = (given["S"][0], given["sigma"][0])
    line = fit_calibration(given["c_mM"][1:], given["S"][1:], given["sigma"][1:], air=air)
    close([line.intercept, line.slope], printed["beta"])
    close(line.covariance, printed["cov"])
    close(line.chi2, printed["chi2"])


def test_wls_origin():
    _, printed = case("wls_origin")
    line = four_vials(intercept="zero", scale_covariance="none")
    close([line.slope, line.slope_sd], [printed["b"], printed["se_b"]])
    # Forced through the origin these vials disagree a little, which our own choice of covariance shows.
    assert four_vials(intercept="zero").slope_sd == pytest.approx(line.slope_sd * np.sqrt(line.chi2 / 3))
    assert line.intercept == line.intercept_sd == 0.0


def tissue_signal() -> tuple[float, float, float]:
    """Signal and its sd as if the tissue had the vials' signal factor, the form the examples use, and the ratio."""
    given, _ = case("tissue_inverse_prediction")
    ratio = float(signal_factor(ACQUISITION, VIAL) / signal_factor(ACQUISITION, TISSUE))
    return given["S_roi"] * ratio, given["sigma_roi"] * ratio, ratio


def test_tissue_inverse_prediction():
    _, printed = case("tissue_inverse_prediction")
    close(signal_factor(ACQUISITION, VIAL), printed["f_vial"])
    close(signal_factor(ACQUISITION, TISSUE), printed["f_tissue"])
    signal, sd, ratio = tissue_signal()
    close(ratio, printed["ratio"])
    c, se, noise, calibration = predict_concentration(signal, sd, 1.0, four_vials())
    close([c, se], [printed["TSC"], printed["se"]])
    close([calibration**2, noise**2], [printed["var_cal"], printed["var_noise"]])
    z = stats.norm.ppf(0.975)
    close([c - z * se, c + z * se], printed["ci95"])


def test_fieller():
    _, printed = case("fieller")
    signal, sd, _ = tissue_signal()
    close(fieller_interval(signal, sd, 1.0, four_vials()), printed["ci95"])
    line = four_vials()
    close(stats.norm.ppf(0.975) ** 2 * line.covariance[1, 1] / line.slope**2, printed["g"])


def test_budget():
    given, printed = case("budget")
    line = four_vials()
    signal, sd, _ = tissue_signal()
    _, se, _, _ = predict_concentration(signal, sd, 1.0, line)
    found = relaxation_sensitivity(ACQUISITION, TISSUE, b1_plus_sd=given["sigma"]["kappa"])
    derivatives = np.array([found.derivatives[n] for n in ("t1_s", "t2star_fast_s", "t2star_slow_s")]) * 1e-3
    derivatives = np.append(derivatives, [found.derivatives["fraction_fast"], found.derivatives["b1_plus"]])
    sensitivity = -signal / line.slope
    close(sensitivity * derivatives, printed["dTSC/d[T1,T2f,T2s,af,kappa]"])
    relaxation_se = abs(sensitivity) * found.dlnf
    close(relaxation_se, printed["se_relax"])
    close(np.hypot(se, relaxation_se), printed["se_total_delta"])

    # What the derivative does not see of T2* fast: the spread about the stated value, shift included.
    wide = widening(ACQUISITION, TISSUE)
    monte_carlo = np.hypot(printed["se_total_mc(4e5,seed1)"], printed["mc_mean"] - 40.0858)
    assert_allclose(np.hypot(se, wide * relaxation_se), monte_carlo, rtol=0.01)
    assert widening(ACQUISITION, replace(TISSUE, t2star_fast_sd_s=1e-5)) == 1.0

    n = 400_000
    rng = np.random.default_rng(7)
    intercept, slope = rng.multivariate_normal([line.intercept, line.slope], line.covariance, n).T
    factors = draw_factors(ACQUISITION, TISSUE, n, seed=8, b1_plus_sd=given["sigma"]["kappa"])
    drawn = ((signal + sd * rng.standard_normal(n)) * found.factor / factors - intercept) / slope
    assert_allclose(drawn.std(), printed["se_total_mc(4e5,seed1)"], rtol=0.01)
    assert_allclose(drawn.mean(), printed["mc_mean"], rtol=1e-3)
    assert_allclose(np.percentile(drawn, [2.5, 97.5]), printed["mc_pct_2.5_97.5"], rtol=1e-3)


def test_rician_mean():
    given, printed = case("rician_mean")
    mean = nc_chi_mean(given["A_over_sigma"], given["sigma"])
    close(mean, printed["E[M]"])
    close(mean - given["A_over_sigma"], printed["bias"])
    close(nc_chi_sd(given["A_over_sigma"], given["sigma"]), printed["std"])


def test_ncchi_mean():
    given, printed = case("ncchi_mean")
    close([nc_chi_mean(given["A"], given["sigma"], coils) for coils in given["L"]], printed["E[M] rows L"])


def test_moment_correction():
    given, printed = case("moment_correction")
    # The mean square magnitude of that amplitude is the one given.
    sigma, coils = given["sigma"], given["L"]
    moments = [law(printed["A"], sigma, coils) for law in (nc_chi_mean, nc_chi_sd)]
    close(sum(moment**2 for moment in moments), given["M_rms2"])


def test_rice_invert_mean():
    given, printed = case("rice_invert_mean")
    below, *above = printed["A (0 if M<=1.2533 sigma)"]
    assert below == 0.0
    assert given["M"][0] <= nc_chi_mean(0.0, given["sigma"])
    close(nc_chi_mean(above, given["sigma"]), given["M"][1:])


def test_background_sigma():
    given, printed = case("background_sigma")
    air = np.full((4, 4, 4), given["mean_bg"])
    close(estimate_noise_sd(air, np.ones(air.shape, bool), n_coils=given["L"], statistic="mean"), printed["sigma"])


def test_internal_reference_csf():
    given, printed = case("internal_reference_csf")
    csf = Relaxation(given["T1_csf"] * 1e-3, given["T2_csf"] * 1e-3)
    f_csf, f_tissue = signal_factor(ACQUISITION, csf), signal_factor(ACQUISITION, TISSUE)
    close([f_csf, f_tissue], [printed["f_csf"], printed["f_tissue"]])
    sd = given["sigma"]
    line = internal_reference_line(given["S_csf"], sd["S_csf"], float(f_csf), given["c_csf"], sd["c_csf"])
    c, se, _, _ = predict_concentration(given["S_tissue"], sd["S_tissue"], f_tissue, line)
    close([c, se], [printed["TSC"], printed["se"]])


def test_b1minus():
    given, printed = case("b1minus")
    corrected, noise = divide_profile(np.asarray(given["S"]), 8.5, np.asarray(given["R"]))
    close(corrected, printed["S_corr"])
    close(noise, [8.5, 10.0])


def test_roi_se_correlated():
    given, printed = case("roi_se_correlated")
    volume, n = given["vox_mm"] ** 3, 24
    s = given["noise_fwhm_mm"] / np.sqrt(8.0 * np.log(2.0))
    # Sampled noise that a Gaussian has smoothed; frequencies beyond the grid's fold back.
    k = (np.fft.fftfreq(n)[:, None] + np.arange(-3, 4)) / given["vox_mm"]
    line = np.exp(-4.0 * np.pi**2 * s**2 * k**2).sum(axis=1)
    spectrum = np.einsum("i,j,k->ijk", line, line, line)
    every = np.ones((n, n, n), bool)
    weights = np.full((1, every.size), 1.0 / every.size, np.float32)
    for colour, printed_se in ((spectrum / spectrum.mean(), "se_corr_large_roi"), (np.ones(every.shape), "se_white")):
        noise = Noise(np.full(every.shape, given["sigma_vox"], np.float32), colour.astype(np.float32))
        variance = float(noise.quadratic_form(weights, every)[0, 0])
        # A whole grid has no edge, so its mean obeys the limit; the printed region is smaller by this many voxels.
        close(np.sqrt(variance * every.size / given["n_vox"]), printed[printed_se])
    close(line.max() ** 3 / spectrum.mean() * volume, printed["V_noise_mm3"])
    close(given["n_vox"] * volume / printed["V_noise_mm3"], printed["n_eff"])


def test_gtm_3regions():
    given, printed = case("gtm_3regions")
    # Three regions of one voxel each: row i of W is what voxel i receives from the regions.
    transfer = np.asarray(given["W"], dtype=np.float32)
    observed = np.asarray(given["obs"])[:, None, None]
    noise = Noise(np.asarray(given["sd_obs"])[:, None, None])
    fit = gtm(transfer.T, sparse.csr_matrix(np.eye(3)), observed, np.ones((3, 1, 1), bool), noise).fit()
    close(fit.values, printed["t"])
    close(np.sqrt(np.diag(fit.covariance)), printed["sd_t"])
    close(fit.covariance, printed["cov_t"])
