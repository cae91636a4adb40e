"""The cleaned image must have the mean of the true amplitude, and the noise that was put in."""

from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.quant.vendor import clean_vendor_image

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def _object(amplitude: float) -> np.ndarray:
    image = np.zeros((48, 48, 48))
    image[16:32, 16:32, 16:32] = amplitude
    return image


@pytest.mark.parametrize("snr", [5.0, 10.0, 20.0])
def test_a_rician_image_keeps_its_regional_mean(snr: float) -> None:
    rng = np.random.default_rng(3)
    truth = _object(snr)
    magnitude = np.abs(truth + rng.normal(size=truth.shape) + 1j * rng.normal(size=truth.shape)).astype(np.float32)
    cleaned = clean_vendor_image(magnitude, AFFINE, None, "test")
    inside = truth > 0
    standard_error = 1.0 / np.sqrt(inside.sum())
    assert cleaned.corrected
    assert cleaned.noise_sd == pytest.approx(1.0, rel=0.02)
    assert abs(cleaned.image[inside].mean() - snr) < 0.3 * abs(magnitude[inside].mean() - snr) + 4 * standard_error


def test_zero_mean_data_are_left_alone() -> None:
    rng = np.random.default_rng(4)
    image = (_object(20.0) + rng.normal(size=(48, 48, 48))).astype(np.float32)
    cleaned = clean_vendor_image(image, AFFINE, None, "test")
    assert not cleaned.corrected
    assert np.array_equal(cleaned.image, image)
    assert cleaned.noise_sd == pytest.approx(1.0, rel=0.02)


def test_an_unknown_law_is_not_corrected() -> None:
    rng = np.random.default_rng(5)
    channels = rng.normal(size=(16, 48, 48, 48))
    channels[0] += _object(20.0)  # eight channels of two parts each
    image = np.sqrt(np.sum(channels**2, axis=0)).astype(np.float32)
    cleaned = clean_vendor_image(image, AFFINE, None, "test")
    assert not cleaned.corrected
    assert cleaned.floor is not None
    assert cleaned.floor.law == "unknown"
    # The same image is safe to treat once it is known to be a plain sum of squares of so many channels, and only then.
    told = clean_vendor_image(image, AFFINE, None, "test", n_channels=8)
    assert told.corrected
    assert told.noise_sd == pytest.approx(1.0, rel=0.02)
    inside = _object(20.0) > 0
    assert told.image[inside].mean() == pytest.approx(20.0, abs=0.05)
    assert image[inside].mean() > 20.3
    assert not clean_vendor_image(image, AFFINE, None, "test", n_channels=4).corrected


def test_without_air_the_noise_is_said_to_be_unknown() -> None:
    image = np.full((20, 20, 20), 30.0, dtype=np.float32) + np.arange(20, dtype=np.float32)
    assert np.isnan(clean_vendor_image(image, AFFINE, None, "test").noise_sd)
