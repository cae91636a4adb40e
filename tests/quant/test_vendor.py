"""The cleaned image must have the mean of the true amplitude, and the noise that was put in."""

from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.errors import InputError
from sodium_prep.quant.vendor import clean_vendor_image, real_part
from tests.quant import complex_head as head

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
ROUGH = np.kron(np.random.default_rng(7).uniform(-np.pi, np.pi, (16, 16, 16)), np.ones((4, 4, 4)))


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


@pytest.mark.parametrize(("snr", "floor"), [(2.0, 0.13), (3.0, 0.05)])
def test_complex_data_have_no_floor_where_the_magnitude_has_one(snr: float, floor: float) -> None:
    image = head.complex_head(snr)
    magnitude = np.abs(image).astype(np.float32)
    plain = clean_vendor_image(magnitude, head.AFFINE, None, "test")
    found = real_part(image, head.AFFINE, head.RESOLUTION, "test")
    cleaned = clean_vendor_image(found.image, head.AFFINE, None, "test")
    bias, corrected, left = (one[head.HEAD].mean() / snr - 1.0 for one in (magnitude, plain.image, cleaned.image))
    assert bias > floor
    assert abs(left) < min(0.01, abs(corrected))
    # What a phase taken from the image itself does to the mean is less than half a percent, in the vial too.
    known = (image * np.exp(-1j * head.PHASE)).real
    for inside in (head.HEAD, head.VIAL):
        assert cleaned.image[inside].mean() == pytest.approx(known[inside].mean(), rel=0.005)
    assert cleaned.floor is not None
    assert (cleaned.floor.law, cleaned.corrected) == ("zero-mean", False)
    assert cleaned.noise_sd == pytest.approx(1.0, rel=0.03)


def test_an_interpolated_grid_has_the_same_phase_taken_off() -> None:
    image = head.complex_head(3.0)
    spectrum = np.fft.fftshift(np.fft.fftn(image[::2, ::2, ::2]))
    fine = np.fft.ifftn(np.fft.ifftshift(np.pad(spectrum, 16))) * 8.0
    coarse_affine, resolution = np.diag([6.0, 6.0, 6.0, 1.0]), (6.0, 6.0, 6.0)
    coarse = real_part(image[::2, ::2, ::2], coarse_affine, resolution, "test").image
    found = real_part(fine, head.AFFINE, resolution, "test").image
    difference = (found[::2, ::2, ::2] - coarse)[head.HEAD[::2, ::2, ::2]]
    assert abs(difference.mean()) < 0.01 * 3.0
    assert difference.std() < 0.025 * 3.0


def test_a_ramp_of_phase_is_none_to_speak_of() -> None:
    """What is left where k-space is not centred, up to a change of sign from voxel to voxel."""
    image = head.complex_head(3.0)
    plain = real_part(image, head.AFFINE, head.RESOLUTION, "test").image
    for turn in (np.pi, 0.6):
        ramp = np.exp(1j * turn * np.arange(64))[:, None]
        found = real_part(image * ramp, head.AFFINE, head.RESOLUTION, "test").image
        assert np.abs(found - plain).max() < 1e-3


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda image: np.abs(image) * np.exp(1j * np.angle(image) / (2.0 * np.pi)), "no part of complex data"),
        (lambda image: image + 40.0 + 40.0j, "no part of complex data"),
        (lambda image: image * np.exp(1j * ROUGH), "not smooth"),
        (lambda image: np.where(head.HEAD, image, np.abs(image)), "no part of complex data"),
        (lambda _: np.full((20, 20, 20), 30.0) + np.arange(20.0) + 0j, "voxels of air"),
    ],
    ids=["phase in turns", "parts with an offset", "rough phase", "masked phase", "no air"],
)
def test_what_is_no_complex_image_is_refused(spoil, words: str) -> None:
    with pytest.raises(InputError, match=f"{words}.*magnitude alone"):
        real_part(spoil(head.complex_head(10.0)), head.AFFINE, head.RESOLUTION, "test")
