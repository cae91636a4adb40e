"""Transmit field against known ones: from a noisy map, a double-angle pair, a phase-sensitive pair."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sodium_prep.errors import InputError
from sodium_prep.physics.signal import saturation_factor
from sodium_prep.quant.b1 import (
    double_angle_b1,
    double_angle_field,
    field_on_grid,
    phase_sensitive_b1,
    relative_b1_plus,
    smooth_transmit_field,
)
from sodium_prep.quant.geometry import ReferenceGeometry, voxel_centres
from tests.quant.fine_grid import shape_fraction

SHAPE = (32, 32, 32)
AFFINE = np.diag([7.0, 7.0, 7.0, 1.0])
AFFINE[:3, 3] = -7.0 * 15.5
POINTS = voxel_centres(SHAPE, AFFINE)
TRUTH = 1.05 - 0.25 * (POINTS**2).sum(axis=-1) / 100.0**2 + 0.05 * POINTS[..., 0] / 100.0
HEAD = shape_fraction(ReferenceGeometry("head", (0.0, 0.0, 0.0), 80.0), SHAPE, AFFINE)
VIAL = shape_fraction(ReferenceGeometry("vial", (94.0, 15.0, 0.0), 9.0, 60.0), SHAPE, AFFINE)


def test_transmit_map_units_are_not_guessed():
    percent = np.array([90.0, 100.0, 110.0, 0.0])
    expected = [0.9, 1.0, 1.1, np.nan]
    assert_allclose(relative_b1_plus(percent, "percent"), expected)
    assert_allclose(relative_b1_plus(percent * 0.9, "degree", nominal_flip_deg=90.0), expected)
    for units in (None, "arbitrary", "degree"):
        with pytest.raises(InputError, match="do not say"):
            relative_b1_plus(percent, units)
    with pytest.raises(InputError, match="100 is nominal"):
        relative_b1_plus(percent, "ratio")


@pytest.mark.parametrize("repetition_time_s", [10.0, 0.12, 0.05])
def test_double_angle_pair_gives_back_the_flip_angle(repetition_time_s):
    kappa = np.linspace(0.4, 1.3, 10)
    single, double = (saturation_factor(repetition_time_s, flip * kappa, 0.04) for flip in (60.0, 120.0))
    found, slope = double_angle_b1(double / single, 60.0, repetition_time_s, 0.04)
    assert_allclose(found, kappa, rtol=1e-5)
    steps = np.gradient(kappa, np.log(double / single))
    assert_allclose(slope[1:-1], steps[1:-1], rtol=0.05)
    # Taking a short repetition time for a long one is what the correction is for.
    assert (repetition_time_s > 1.0) == bool(np.allclose(double_angle_b1(double / single, 60.0)[0], kappa, rtol=0.01))
    assert np.isnan(double_angle_b1(2.5, 60.0)[0])


def test_phases_of_the_two_composite_pulses_give_the_flip_angle():
    """Bloch rotations: twice the angle about +x or -x, then the angle about y, from equilibrium along z."""
    kappa = np.linspace(0.5, 1.5, 11)

    def turned(axis, angle):
        c, s, one, zero = np.cos(angle), np.sin(angle), np.ones_like(angle), np.zeros_like(angle)
        rows = (
            [[one, zero, zero], [zero, c, -s], [zero, s, c]]
            if axis == "x"
            else [[c, zero, s], [zero, one, zero], [-s, zero, c]]
        )
        return np.moveaxis(np.array(rows), -1, 0)

    for nominal in (90.0, 80.0):
        flip = np.deg2rad(nominal * kappa)
        phases = []
        for sign in (-1.0, 1.0):
            spins = turned("y", flip) @ turned("x", 2.0 * sign * flip) @ np.array([0.0, 0.0, 1.0])
            # A coil's phase is in both images.
            phases.append(np.angle((spins[:, 0] + 1j * spins[:, 1]) * np.exp(0.7j)))
        assert_allclose(phase_sensitive_b1(*phases, nominal), kappa, rtol=1e-3)


def test_a_noisy_pair_gives_the_field_in_head_and_vial():
    rng = np.random.default_rng(4)

    def noisy(flip):
        signal = (60.0 * HEAD + 100.0 * VIAL) * saturation_factor(0.12, flip * TRUTH, 0.04)
        return np.hypot(*(signal * part + rng.normal(0.0, 4.0, SHAPE) for part in (1.0, 0.0)))

    found = double_angle_field(noisy(60.0), noisy(120.0), AFFINE, 60.0, 0.12, 0.04)
    error = found.values / TRUTH - 1.0
    assert np.sqrt(np.mean(error[HEAD > 0.5] ** 2)) < 0.02
    assert abs(error[VIAL > 0.5].mean()) < 0.04
    assert 0.003 < found.relative_sd < 0.05
    on_grid = field_on_grid(found, HEAD > 0.5, AFFINE)
    assert_allclose(on_grid, found.values, rtol=1e-5)


def test_a_map_is_smoothed_and_continued_beyond_what_was_measured():
    rng = np.random.default_rng(5)
    kappa = np.where(HEAD > 0.5, TRUTH * (1.0 + 0.1 * rng.standard_normal(SHAPE)), np.nan)
    kappa[16, 16, 14:18] = 8.0  # a few voxels that measured nothing
    found = smooth_transmit_field(kappa, AFFINE)
    inside = HEAD > 0.5
    assert np.sqrt(np.mean((found.values / TRUTH - 1.0)[inside] ** 2)) < 0.015
    assert found.values.min() > 0.6
    exact = smooth_transmit_field(TRUTH, AFFINE)
    # The field of this test falls to a sixth in the corners of the cube; in the head its smooth copy is right to 1.5 %.
    assert_allclose(exact.values[inside], TRUTH[inside], rtol=0.015)
    assert exact.relative_sd < 0.02


def test_what_is_no_transmit_field_is_refused():
    rng = np.random.default_rng(6)
    with pytest.raises(InputError, match="from one place to the next"):
        smooth_transmit_field(rng.uniform(0.4, 2.5, SHAPE) ** 2 / 1.5, AFFINE)
    with pytest.raises(InputError, match=r"0\.1 times nominal"):
        smooth_transmit_field(np.full(SHAPE, 0.1), AFFINE)
    with pytest.raises(InputError, match="hardly anywhere"):
        smooth_transmit_field(np.where(VIAL > 0.9, 1.0, np.nan), AFFINE)
    elsewhere = smooth_transmit_field(np.where(POINTS[..., 0] > 60.0, TRUTH, np.nan), AFFINE)
    with pytest.raises(InputError, match="of the head only"):
        field_on_grid(elsewhere, HEAD > 0.5, AFFINE)
