"""T2* fits against known decay, another optimiser, and the coverage that their intervals state."""

import numpy as np
import pytest
from scipy import optimize, stats

from sodium_prep.errors import InputError
from sodium_prep.quant.t2star import Flag, check_echo_times, fit_t2star

ECHOES_S = np.array([0.3, 1.0, 2.5, 5.0, 10.0, 18.0, 30.0, 45.0]) * 1e-3
FAST_S, SLOW_S, SHARE = 0.0035, 0.024, 0.6


def _decay(times, share=0.0):
    return share * np.exp(-times / FAST_S) + (1.0 - share) * np.exp(-times / SLOW_S)


def _magnitudes(n, snr, share=0.0, channels=1, times=ECHOES_S, seed=0):
    """Root sum of squares over channels of which one holds the signal; noise 1 / snr of the signal at time zero."""
    parts = np.random.default_rng(seed).standard_normal((2 * channels, n, len(times))) / snr
    parts[0] += _decay(times, share)
    return np.sqrt((parts**2).sum(axis=0))


def _held(fit, name, truth):
    known = np.isfinite(fit.values[name])
    return np.mean((fit.low[name][known] <= truth) & (truth <= fit.high[name][known]))


@pytest.mark.parametrize(("fast", "slow"), [(3.9e-3, 26.3e-3), (3.4e-3, 23.5e-3), (5.4e-3, 36.4e-3)])
def test_published_protocol_gives_its_times_back(fast, slow):
    """18 echoes from 0.17 ms; grey and white matter at 3 T (Riemer 2018), grey at 7 T (Niesporek 2017)."""
    times = np.geomspace(0.17e-3, 60e-3, 18)
    curve = 80.0 * (0.6 * np.exp(-times / fast) + 0.4 * np.exp(-times / slow))
    fit = fit_t2star(curve, times, 1e-4, model="biexponential", law="gaussian")
    found = [fit.values[name].item() for name in ("amplitude", "fraction_fast", "t2star_fast", "t2star_slow")]
    np.testing.assert_allclose(found, [80.0, 0.6, fast, slow], rtol=1e-4)
    assert fit.flags == 0


@pytest.mark.parametrize("channels", [1, 8])
def test_the_fit_and_its_interval_are_those_of_the_likelihood(channels):
    """The same maximum and profile by scipy's own distribution and simplex search."""
    snr = 12.0
    (data,) = _magnitudes(1, snr, channels=channels, seed=3)
    fit = fit_t2star(data, ECHOES_S, 1.0 / snr, n_channels=channels)

    def minus_log(amplitude, log_time):
        signal = amplitude * np.exp(-ECHOES_S / np.exp(log_time))
        # M^2 / s^2 is non-central chi square.
        return -stats.ncx2.logpdf((data * snr) ** 2, 2 * channels, (signal * snr) ** 2).sum()

    best = optimize.minimize(
        lambda p: minus_log(*p), [1.0, np.log(0.02)], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}
    )
    assert fit.values["amplitude"] == pytest.approx(best.x[0], rel=1e-3)
    assert fit.values["t2star"] == pytest.approx(np.exp(best.x[1]), rel=1e-3)
    for end in (fit.low, fit.high):
        log_time = np.log(end["t2star"])
        profile = optimize.minimize_scalar(minus_log, bounds=(0.1, 3.0), args=(log_time,), method="bounded").fun
        assert 2.0 * (profile - best.fun) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=0.06)


@pytest.mark.parametrize(("snr", "channels"), [(8.0, 1), (15.0, 8)])
def test_noise_floor_does_not_read_as_slow_decay(snr, channels):
    times = np.array([0.3, 5.0, 15.0, 30.0, 50.0, 70.0, 90.0]) * 1e-3
    data = _magnitudes(800, snr, channels=channels, times=times)
    fit = fit_t2star(data, times, 1.0 / snr, n_channels=channels)
    naive = fit_t2star(data, times, 1.0 / snr, law="gaussian", interval="wald")
    assert np.nanmedian(naive.values["t2star"]) > 1.25 * SLOW_S
    assert np.nanmedian(fit.values["t2star"]) == pytest.approx(SLOW_S, rel=0.02)
    assert 0.93 < _held(fit, "t2star", SLOW_S) < 0.97
    assert 0.93 < _held(fit, "amplitude", 1.0) < 0.97


def test_intervals_of_two_components_hold_their_truth():
    """At SNR 30 errors are so skew that standard errors alone say too little; profiles do not."""
    data = _magnitudes(600, 30.0, SHARE)
    fit = fit_t2star(data, ECHOES_S, 1.0 / 30.0, model="biexponential")
    truth = {"amplitude": 1.0, "fraction_fast": SHARE, "t2star_fast": FAST_S, "t2star_slow": SLOW_S}
    for name, value in truth.items():
        assert np.nanmedian(fit.values[name]) == pytest.approx(value, rel=0.05)
        assert 0.93 < _held(fit, name, value) < 0.97
    assert np.mean(fit.flags == 0) > 0.9
    known = fit_t2star(_magnitudes(600, 100.0, SHARE), ECHOES_S, 0.01, model="biexponential", interval="wald")
    for name, value in truth.items():
        assert np.std(known.values[name]) == pytest.approx(np.median(known.stderr[name]), rel=0.1)
        assert 0.93 < _held(known, name, value) < 0.97


def test_what_the_data_do_not_tell_has_no_value():
    curves = np.stack(
        [_decay(ECHOES_S), 0.04 * _decay(ECHOES_S), np.ones(8), _decay(ECHOES_S, SHARE), np.full(8, np.nan)]
    )
    fit = fit_t2star(curves.reshape(5, 1, 8), ECHOES_S, 0.01, law="gaussian")
    known, dark, level, bent, missing = fit.flags[:, 0]
    assert (known, dark, missing) == (0, Flag.BELOW_NOISE, Flag.BELOW_NOISE)
    assert level & Flag.AT_BOUND
    assert bent & Flag.MISFIT
    assert np.isnan(fit.values["t2star"][[1, 2, 4]]).all()
    assert np.isfinite(fit.values["t2star"][[0, 3]]).all()
    assert np.isnan(fit.values["amplitude"][1, 0])
    assert fit.values["t2star"].shape == (5, 1)


def test_two_components_are_not_read_into_one():
    """Times without a share have no value, and most intervals of the share hold nothing or all."""
    fit = fit_t2star(_magnitudes(600, 40.0), ECHOES_S, 1.0 / 40.0, model="biexponential")
    share = fit.values["fraction_fast"]
    assert np.isnan(fit.values["t2star_fast"][share == 0.0]).all()
    assert np.isnan(fit.values["t2star_slow"][share == 1.0]).all()
    single = (fit.low["fraction_fast"] <= 0.0) | (fit.high["fraction_fast"] >= 1.0)
    assert single.mean() > 0.93
    assert (fit.flags & Flag.NOT_CONVERGED == 0).all()


def test_two_echoes_are_fitted_but_not_tested():
    times = np.array([0.3e-3, 25e-3])
    fit = fit_t2star(_decay(times), times, 1e-3, law="gaussian")
    assert fit.values["t2star"] == pytest.approx(SLOW_S, rel=1e-4)
    assert fit.flags == Flag.UNTESTED
    assert np.isnan(fit.chi2)


@pytest.mark.parametrize(
    ("times_ms", "model", "problem"),
    [
        ([0.5], "mono", "needs at least 2"),
        ([5.0, 0.5], "mono", "do not rise"),
        ([0.5, 5.0, 20.0], "biexponential", "needs at least 4"),
        ([0.3, 1.0, 2.0, 4.0, 6.0], "biexponential", "span both components"),
        ([10.0, 20.0, 30.0, 40.0, 50.0], "biexponential", "span both components"),
    ],
)
def test_echoes_that_cannot_tell_are_refused(times_ms, model, problem):
    with pytest.raises(InputError, match=problem):
        fit_t2star(np.ones(len(times_ms)), np.array(times_ms) / 1e3, 0.01, model=model)
    check_echo_times(ECHOES_S, "biexponential")
