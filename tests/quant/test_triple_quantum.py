"""The filter of a phase cycle against the density matrix of spin 3/2."""

import numpy as np
import pytest

from sodium_prep.errors import InputError
from sodium_prep.quant.triple_quantum import PhaseCycle, triple_quantum_image, twelve_step_cycle
from tests.quant.spin import CLOSED_FORM, ECHO_S, TAU_S, received


def _steps(cycle, off_hz, flip_deg=90.0):
    """One image of a step for a row of off-resonance values, with a receiver's phase."""
    steps = [
        [received(phases, off, flip_deg) for off in off_hz]
        for phases in zip(cycle.first, cycle.second, cycle.third, strict=True)
    ]
    turned = np.asarray(steps) * np.exp(-1j * np.deg2rad(cycle.receiver))[:, None]
    return np.exp(0.7j) * turned[:, :, None, None]


OFF_HZ = np.array([0.0, 8.0, 25.0, 40.0, 50.0, -33.0, 110.0])


def test_the_signal_is_that_of_the_closed_form_at_any_off_resonance():
    cycle = twelve_step_cycle()
    steps = _steps(cycle, OFF_HZ)
    known = triple_quantum_image(steps, cycle, TAU_S, 1.0, OFF_HZ[:, None, None])
    np.testing.assert_allclose(np.abs(known.image[:, 0, 0]), CLOSED_FORM, rtol=2e-5)
    # With the phase of the receiver and of off-resonance up to the echo, the sign is known as well.
    phase = np.exp(0.7j) * np.exp(2j * np.pi * OFF_HZ * ECHO_S)
    np.testing.assert_allclose(known.image[:, 0, 0] / phase, CLOSED_FORM, rtol=2e-4)
    found = triple_quantum_image(steps, cycle, TAU_S, 1.0, smooth_voxels=1e-3).image[:, 0, 0]
    np.testing.assert_allclose(found / (phase * np.exp(-2j * np.pi * OFF_HZ * TAU_S)), CLOSED_FORM, rtol=2e-4)
    # The usual sum over six steps with alternating sign fades with the field, which is why there are two sets.
    usual = np.abs((steps[:6, :, 0, 0] * (-1.0) ** np.arange(6)[:, None]).mean(axis=0))
    np.testing.assert_allclose(usual, CLOSED_FORM * np.abs(np.cos(2 * np.pi * OFF_HZ * TAU_S)), atol=1e-5)


def test_other_orders_do_not_come_through():
    """Far above the filtered signal are magnetisation that recovers and the single quantum of pulses that are off."""
    cycle = twelve_step_cycle()
    steps = _steps(cycle, OFF_HZ[:3], flip_deg=75.0)
    assert np.abs(steps).mean() > 3 * CLOSED_FORM
    found = np.abs(triple_quantum_image(steps, cycle, TAU_S, 1.0, OFF_HZ[:3, None, None]).image[:, 0, 0])
    # d^1_10 d^3_{3,1} d^3_{1,3}, over both signs, at 75 degrees.
    half, flip = np.deg2rad(37.5), np.deg2rad(75.0)
    up = np.sqrt(15.0) * np.cos(half) ** 4 * np.sin(half) ** 2, np.sqrt(15.0) * np.cos(half) ** 2 * np.sin(half) ** 4
    lost = np.sin(flip) * np.mean([up[0] ** 2, up[1] ** 2, up[0] * up[1], up[1] * up[0]]) * 64.0 / 15.0
    np.testing.assert_allclose(found, CLOSED_FORM * lost, rtol=0.02)


def test_noise_is_that_of_the_combination():
    cycle, rng = twelve_step_cycle(), np.random.default_rng(0)
    shape = (12, 20, 20, 20)
    steps = 0.3 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    made = triple_quantum_image(steps, cycle, TAU_S, 0.3, np.full(shape[1:], 12.0))
    np.testing.assert_allclose(made.noise_sd, 0.3 / np.sqrt(6.0), rtol=1e-5)
    assert np.std(np.stack([made.image.real, made.image.imag])) == pytest.approx(0.3 / np.sqrt(6.0), rel=0.02)


def test_cycles_that_do_not_separate_are_refused():
    full = twelve_step_cycle()
    half = PhaseCycle(*(getattr(full, name)[:6] for name in ("first", "second", "third", "receiver")))
    with pytest.raises(InputError, match="does not separate"):
        triple_quantum_image(np.zeros((6, 2, 2, 2)), half, TAU_S, 1.0)
    with pytest.raises(InputError, match="12 steps"):
        triple_quantum_image(np.zeros((6, 2, 2, 2)), full, TAU_S, 1.0)
