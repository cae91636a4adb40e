"""Timing of readouts and windows against their defining laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

from sodium_prep.physics.readout import filter_window, readout_time


@pytest.mark.parametrize("trajectory", ["3DPR", "DA-3DPR", "TPI"])
@given(p=st.floats(0.05, 1.0), duration=st.floats(0.001, 0.05))
def test_time_rises_from_zero_to_the_duration(trajectory, p, duration):
    t = readout_time(np.linspace(0.0, 1.0, 400), trajectory, duration, p)
    assert t[0] == 0.0
    assert t[-1] == pytest.approx(duration)
    assert np.all(np.diff(t) > 0)


def test_density_adapted_readouts_keep_k_squared_times_speed_constant():
    p, duration = 0.2, 0.01
    k = np.linspace(0.0, 1.0, 20001)
    speed = 1.0 / np.gradient(readout_time(k, "DA-3DPR", duration, p), k)
    law = k**2 * speed
    late = (k > p + 0.001) & (k < 0.999)
    early = (k > 0.001) & (k < p - 0.001)
    assert np.ptp(law[late]) / law[late].mean() < 1e-5
    assert np.ptp(speed[early]) / speed[early].mean() < 1e-6
    # Speed does not jump where the adaption sets in.
    assert_allclose(law[late].mean() / p**2, speed[early].mean(), rtol=1e-5)


def test_inverse_matches_the_integrated_gradient():
    p, duration = 0.3, 0.012
    speed = (p + (1.0 - p**3) / (3.0 * p**2)) / duration
    path = solve_ivp(
        lambda _, k: speed if k[0] < p else speed * p**2 / k**2,
        (0, duration),
        [0.0],
        rtol=1e-10,
        max_step=duration / 500,
    )
    assert_allclose(readout_time(path.y[0], "DA-3DPR", duration, p), path.t, atol=2e-6 * duration + 1e-7)


def test_full_linear_fraction_is_plain_projection_and_cartesian_takes_no_time():
    k = np.linspace(0.0, 1.0, 11)
    assert_allclose(readout_time(k, "DA-3DPR", 0.01, 1.0), readout_time(k, "3DPR", 0.01))
    assert not readout_time(k, "Cartesian", 0.01).any()


def test_windows():
    k = np.linspace(0.0, 1.0, 5)
    assert_allclose(filter_window(k, "none"), 1.0)
    assert_allclose(filter_window([0.0, 0.5, 1.0], "hamming"), [1.0, 0.54, 0.08])
    assert_allclose(filter_window([0.0, 0.5, 1.0], "hann"), [1.0, 0.5, 0.0], atol=1e-15)
    fermi = filter_window([0.0, 0.7, 0.8, 0.9], "fermi", 0.8, 0.05)
    assert_allclose(fermi, [1.0, 1.0 / (1.0 + np.exp(-2.0)), 0.5, 1.0 / (1.0 + np.exp(2.0))], rtol=1e-6)
    # A Gaussian of 7 mm on an image of 4 mm nominal resolution: its transform, k in units of 1 / (2 x 4 mm).
    cutoff = 4.0 * np.log(2.0) / np.pi * 4.0 / 7.0
    transform = np.exp(-2.0 * (np.pi * 7.0 / np.sqrt(8.0 * np.log(2.0)) * k / 8.0) ** 2)
    assert_allclose(filter_window(k, "gaussian", cutoff), transform)
    with pytest.raises(ValueError, match="unknown"):
        filter_window(k, "unknown")
    with pytest.raises(ValueError, match="fermi"):
        filter_window(k, "fermi", 0.8)
