import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sodium_prep.physics.readout import readout_time
from sodium_prep.recon.trajectory import (
    closed_law,
    golden_directions,
    radial_trajectory,
    radial_weights,
    recognise_law,
    spoke_directions,
)
from tests.recon.analytic import Ellipsoid, acquisition


@settings(max_examples=50, deadline=None)
@given(st.floats(0.02, 1.0))
def test_closed_law_inverts_readout_time(fraction):
    k = np.linspace(0.0, 1.0, 301)
    time = readout_time(k, "DA-3DPR", 1.0, fraction)
    radius, speed = closed_law(time, fraction)
    np.testing.assert_allclose(radius, k, atol=1e-12)
    smooth = (np.abs(k - fraction) > 1e-3) & (k > 0.0) & (k < 1.0)
    before, after = (closed_law(time[smooth] + d, fraction)[0] for d in (-1e-7, 1e-7))
    np.testing.assert_allclose((after - before) / 2e-7, speed[smooth], rtol=1e-3)


def test_constant_speed_is_the_law_of_3dpr():
    time = np.linspace(0.0, 1.0, 11)
    np.testing.assert_allclose(closed_law(readout_time(time, "3DPR", 1.0), 1.0)[0], time, atol=1e-14)


def test_directions_are_unit_vectors_spread_evenly():
    d = spoke_directions(2000)
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(d.mean(axis=0), 0.0, atol=2e-3)
    np.testing.assert_allclose(d.T @ d / len(d), np.eye(3) / 3.0, atol=2e-3)
    nearest = np.sort(np.arccos(np.clip(d[500:600] @ d.T, -1, 1)), axis=1)[:, 1]
    even = np.sqrt(4.0 * np.pi / len(d))
    assert nearest.min() > 0.7 * even
    assert nearest.max() < 1.2 * even


@pytest.mark.parametrize("part", [slice(0, 600), slice(700, 1300), slice(None)])
def test_any_part_of_golden_directions_is_spread_evenly(part):
    d = golden_directions(2000)[part]
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(d.mean(axis=0), 0.0, atol=6e-3)
    np.testing.assert_allclose(d.T @ d / len(d), np.eye(3) / 3.0, atol=6e-3)
    centres = np.random.default_rng(1).standard_normal((50, 3))
    within = d @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T > 0.8
    np.testing.assert_allclose(within.mean(axis=0), 0.1, atol=0.012)  # chance alone: 0.3 / sqrt(n), up to 3 of these


@pytest.mark.parametrize("name", ["DA-3DPR", "3DPR"])
def test_trajectory_of_an_acquisition(name):
    a = acquisition(name, 3.0)
    t = radial_trajectory(a, 500, 300)
    radius = np.linalg.norm(t.k_per_mm.astype(float), axis=2)
    np.testing.assert_allclose(radius[:, -1], 1.0 / 6.0, rtol=1e-6)
    assert not radius[:, 0].any()
    np.testing.assert_allclose(np.diff(t.time_s), 0.01 / 299, rtol=1e-9)
    np.testing.assert_allclose(readout_time(radius[7] * 6.0, name, 0.01, 0.2), t.time_s, atol=2e-8)
    assert t.weights_mm3.sum() * t.n_readouts == pytest.approx(4.0 / 3.0 * np.pi * t.kmax_per_mm**3, rel=1e-12)


def _sphere_on_radius(k, weights, sphere_mm, r_mm):
    """Gridding of a centred sphere with infinitely many spokes."""
    spectrum = Ellipsoid(1.0, (sphere_mm,) * 3).spectrum(k[:, None] * [0.0, 0.0, 1.0]).real
    return np.sinc(2.0 * np.outer(r_mm, k)) @ (weights * spectrum)


def _mean_error(k, weights, sphere_mm):
    """Mean error over the inner 90 % of a sphere against the exact Fourier integral up to the same kmax."""
    r = np.linspace(0.1, 0.9 * sphere_mm, 200)
    fine = np.linspace(0.0, k[-1], 20001)
    rule = 4.0 * np.pi * fine**2 * (fine[1] * np.r_[0.5, np.ones(19999), 0.5])
    exact = _sphere_on_radius(fine, rule, sphere_mm, r)
    return np.average(_sphere_on_radius(k, weights, sphere_mm, r) - exact, weights=r**2)


@pytest.mark.parametrize("sphere_mm", [20.0, 60.0, 90.0])
@pytest.mark.parametrize(("fraction", "n_samples"), [(0.2, 400), (0.3, 301), (1.0, 200)])
def test_weights_reproduce_the_radial_integral(fraction, n_samples, sphere_mm):
    k = closed_law(np.linspace(0, 1, n_samples), fraction)[0] / 6.0
    assert abs(_mean_error(k, radial_weights(k, 1, fraction)[0], sphere_mm)) < 1e-3
    assert abs(_mean_error(k, radial_weights(k, 1)[0], sphere_mm)) < 1e-3


def test_volumes_of_shells_would_be_biased():
    k = closed_law(np.linspace(0, 1, 400), 0.2)[0] / 6.0
    edges = np.concatenate([[0.0], (k[1:] + k[:-1]) / 2.0, k[-1:]])
    assert _mean_error(k, 4.0 / 3.0 * np.pi * np.diff(edges**3), 90.0) > 0.1


@pytest.mark.parametrize("offset", [0.0, 0.2, 0.5, 0.8])
def test_measured_weights_allow_a_first_sample_off_the_centre(offset):
    k = (np.arange(201) + offset) / (200 + offset) / 6.0
    assert abs(_mean_error(k, radial_weights(k, 1)[0], 60.0)) < 1e-3


def test_law_is_recognised_or_not():
    time = np.linspace(0.0, 1.0, 400)
    for fraction in (0.1, 0.2, 0.5, 1.0):
        k = closed_law(time, fraction)[0].astype(np.float32).astype(float)
        assert recognise_law(k) == pytest.approx(fraction, rel=1e-3)
    assert recognise_law(time**1.5) is None
    assert recognise_law(0.01 + 0.99 * time) is None


def test_refusals():
    with pytest.raises(ValueError, match="increase"):
        radial_weights(np.array([0.0, 1.0, 0.5, 2.0, 3.0]), 1)
    with pytest.raises(ValueError, match="centre"):
        radial_weights(np.linspace(0.5, 1.0, 50), 1)
    with pytest.raises(ValueError, match="Cartesian"):
        radial_trajectory(acquisition("Cartesian"), 10, 10)
