"""Noise laws against drawn noise, and air found where air is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sodium_prep.errors import InputError
from sodium_prep.quant.geometry import ReferenceGeometry
from sodium_prep.quant.noise import (
    background_mask,
    bright_objects,
    correct_magnitude,
    estimate_noise_sd,
    measure_floor,
    measured_voxels,
    nc_chi_mean,
    nc_chi_sd,
)
from tests.quant.fine_grid import grid, shape_fraction

SHAPE, AFFINE = grid(64)


def magnitude(amplitude, sigma, n_coils, rng, n):
    parts = sigma * rng.standard_normal((2 * n_coils, n))
    parts[0] += amplitude
    return np.sqrt((parts**2).sum(axis=0))


@pytest.mark.parametrize("n_coils", [1, 4, 32])
@pytest.mark.parametrize("amplitude", [0.0, 2.0, 9.0])
def test_moments_match_drawn_noise(n_coils, amplitude):
    drawn = magnitude(amplitude, 2.0, n_coils, np.random.default_rng(1), 200_000)
    assert_allclose(nc_chi_mean(amplitude, 2.0, n_coils), drawn.mean(), rtol=3e-3)
    assert_allclose(nc_chi_sd(amplitude, 2.0, n_coils), drawn.std(), rtol=1e-2)


def test_the_mean_is_smooth_into_strong_signals():
    amplitude = np.geomspace(0.1, 1e6, 400)
    mean = nc_chi_mean(amplitude, 1.0)
    assert np.all(np.diff(mean) > 0)
    assert_allclose(mean[amplitude > 100.0], amplitude[amplitude > 100.0], rtol=1e-4)


def test_corrected_magnitudes_are_nearly_unbiased_from_air_to_tissue():
    rng = np.random.default_rng(4)
    for n_coils in (1, 8):
        for snr, limit in ((3.0 * n_coils**0.5, 0.03), (10.0 * n_coils**0.5, 0.01)):
            raw = magnitude(snr, 1.0, n_coils, rng, 400_000)
            bias = float(correct_magnitude(raw, 1.0, n_coils).astype(float).mean()) - snr
            assert abs(bias) < limit
            assert raw.mean() - snr > 4.0 * abs(bias)
    air = magnitude(0.0, 1.0, 1, rng, 400_000)
    assert correct_magnitude(air, 1.0).mean() == pytest.approx(0.484, abs=0.01)


@pytest.mark.parametrize("statistic", ["median", "mean"])
@pytest.mark.parametrize("n_coils", [1, 8])
def test_noise_sd_from_air(statistic, n_coils):
    air = magnitude(0.0, 3.0, n_coils, np.random.default_rng(2), 50_000)
    sd = estimate_noise_sd(air, np.ones(air.shape, bool), n_coils=n_coils, statistic=statistic)
    assert sd == pytest.approx(3.0, rel=0.01)


def test_noise_sd_of_real_images_bears_outliers():
    rng = np.random.default_rng(2)
    air = rng.normal(0.5, 3.0, 50_000)
    air[:500] += 100.0
    assert estimate_noise_sd(air, np.ones(air.shape, bool), "real") == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize(
    ("kind", "law"), [("real", "zero-mean"), ("single", "rayleigh"), ("sum of squares", "unknown")]
)
def test_law_of_the_floor(kind, law):
    rng = np.random.default_rng(6)
    air = rng.normal(0, 5.0, 9000) if kind == "real" else magnitude(0, 5.0, 1 if kind == "single" else 16, rng, 9000)
    floor = measure_floor(air, np.ones(air.shape, bool))
    assert floor.law == law
    assert floor.noise_sd == pytest.approx(5.0, rel=0.05)


@pytest.fixture(scope="module")
def scene():
    head = ReferenceGeometry("head", (0.0, 0.0, 0.0), 65.0)
    vial = ReferenceGeometry("vial", (78.0, 20.0, 0.0), 8.0, 50.0)
    truth = 300.0 * shape_fraction(head, SHAPE, AFFINE) + 500.0 * shape_fraction(vial, SHAPE, AFFINE)
    rng = np.random.default_rng(8)
    image = np.hypot(truth + 20.0 * rng.standard_normal(SHAPE), 20.0 * rng.standard_normal(SHAPE))
    return truth, np.round(image)


def test_background_is_air_only_and_tells_the_noise(scene):
    truth, image = scene
    air = background_mask(image, AFFINE)
    assert not (air & (truth > 0)).any()
    assert air.sum() > 0.3 * (truth == 0).sum()
    assert estimate_noise_sd(image, air) == pytest.approx(20.0, rel=0.02)
    objects = bright_objects(image, AFFINE)
    assert objects[truth > 250].mean() > 0.99


def test_defaced_voxels_are_no_air_but_single_zeros_are_data(scene):
    _, image = scene
    defaced = image.copy()
    defaced[:, 40:, :25] = 0.0
    defaced[2, 2, 2] = 0.0
    assert measured_voxels(defaced)[2, 2, 2]
    assert not measured_voxels(defaced)[30, 50, 10]
    air = background_mask(defaced, AFFINE)
    assert not air[:, 40:, :25].any()
    assert estimate_noise_sd(defaced, air) == pytest.approx(20.0, rel=0.02)


def test_an_image_without_air_is_refused(scene):
    with pytest.raises(InputError, match="voxels of air"):
        background_mask(scene[1], AFFINE, np.ones(SHAPE, bool))
