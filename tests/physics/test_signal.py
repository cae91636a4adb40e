"""Saturation and decay against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import TISSUES, Relaxation, tissue_relaxation
from sodium_prep.physics.signal import decay_factor, saturation_factor, signal_factor, t2star_factor

positive = st.floats(0.002, 0.2)


def test_published_saturation_and_decay_values():
    # FA 90: TR 120 ms with T1 35 / 50 / 60 ms; residual at TE 0.3 and 5 ms of grey matter at 3 T.
    assert_allclose(saturation_factor(0.12, 90.0, [0.035, 0.050, 0.060]), [0.968, 0.909, 0.865], atol=5e-4)
    grey = tissue_relaxation("GM", 3.0)
    assert_allclose(t2star_factor([0.0003, 0.0005, 0.002, 0.005], grey), [0.951, 0.920, 0.730, 0.497], atol=1e-3)


@given(positive, positive)
def test_the_ernst_angle_is_the_maximum(repetition_time_s, t1_s):
    e1 = np.exp(-repetition_time_s / t1_s)
    ernst = np.rad2deg(np.arccos(e1))
    flips = np.linspace(0.5, 180.0, 719)
    peak = saturation_factor(repetition_time_s, ernst, t1_s)
    assert np.all(saturation_factor(repetition_time_s, flips, t1_s) <= peak + 1e-12)
    assert_allclose(peak, np.sqrt((1.0 - e1) / (1.0 + e1)), rtol=1e-9)


def test_saturation_is_the_steady_state_of_the_bloch_recursion():
    tr, t1, flip = 0.05, 0.04, 55.0
    mz = 1.0
    for _ in range(200):
        signal = mz * np.sin(np.deg2rad(flip))
        mz = 1.0 + (mz * np.cos(np.deg2rad(flip)) - 1.0) * np.exp(-tr / t1)
    assert_allclose(saturation_factor(tr, flip, t1), signal, rtol=1e-12)


@given(st.floats(0.0, 1.0), st.floats(0.0005, 0.005), st.floats(0.01, 0.06))
def test_decay_starts_at_one_and_falls_between_its_components(fraction, fast, slow):
    relaxation = Relaxation(0.04, slow, fast, fraction)
    t = np.linspace(0.0, 0.05, 101)
    decay = t2star_factor(t, relaxation)
    assert decay[0] == pytest.approx(1.0)
    assert np.all(np.diff(decay) < 0)
    assert np.all((decay >= np.exp(-t / fast) - 1e-12) & (decay <= np.exp(-t / slow) + 1e-12))


def _fitted(*times_s):
    return replace(Acquisition(0.0, 0.1, 80.0, 3.0, "DA-3DPR", 0.01, (3.0, 3.0, 3.0)), fitted_echo_times_s=times_s)


def test_one_exponential_through_echoes_at_the_centre_of_the_excitation():
    # By hand for 60 % of 3 ms and 40 % of 20 ms: signals 0.898 and 0.425, T2* 6.0 ms.
    assert_allclose(decay_factor(_fitted(0.0005, 0.005), 0.003, 0.02, 0.6), 0.976, atol=5e-4)
    for times in ((0.0005, 0.005), (0.0003, 0.002, 0.01)):
        assert_allclose(decay_factor(_fitted(*times), [0.004, 0.05], [0.02, 0.05], [0.0, 0.5]), 1.0, rtol=1e-12)
    # Of three echoes it lies within the two lines through neighbours.
    three = decay_factor(_fitted(0.0005, 0.005, 0.012), 0.003, 0.02, 0.6)
    ends = [decay_factor(_fitted(*pair), 0.003, 0.02, 0.6) for pair in ((0.0005, 0.005), (0.005, 0.012))]
    assert ends[1] < three < ends[0]


def test_signal_factor_is_the_product_and_keeps_the_shape_of_b1():
    acquisition = Acquisition(0.0005, 0.1, 80.0, 3.0, "DA-3DPR", 0.01, (3.0, 3.0, 3.0))
    relaxation = tissue_relaxation("WM", 3.0)
    b1 = np.array([[0.8, 1.0, 1.2]])
    expected = saturation_factor(0.1, 80.0 * b1, relaxation.t1_s) * t2star_factor(0.0005, relaxation)
    assert_allclose(signal_factor(acquisition, relaxation, b1), expected)
    assert acquisition.kmax_per_mm == pytest.approx((1 / 6,) * 3)


def test_every_tissue_has_uncertain_relaxation_times_at_both_fields():
    for field in (1.5, 3.0, 7.0, 9.4):
        for tissue in TISSUES:
            values = tissue_relaxation(tissue, field)
            assert 0 < values.t1_sd_s < values.t1_s
            assert 0 < values.t2star_slow_sd_s < values.t2star_slow_s
            assert values.citation
