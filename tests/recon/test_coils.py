import numpy as np
import pytest

from sodium_prep.recon import coils
from sodium_prep.recon.trajectory import closed_law
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory

COVARIANCE = np.array([[2.0, 0.4 + 0.3j, 0.1j], [0.4 - 0.3j, 1.0, 0.2], [-0.1j, 0.2, 3.0]])


def test_whitened_noise_has_unit_covariance():
    mixing = np.linalg.cholesky(COVARIANCE)
    noise = mixing @ complex_noise(np.random.default_rng(0), (3, 200_000))
    np.testing.assert_allclose(coils.noise_covariance(noise), COVARIANCE, atol=0.03)
    white = coils.whiten(noise, coils.noise_covariance(noise))
    np.testing.assert_allclose(coils.noise_covariance(white), np.eye(3), atol=1e-10)
    assert np.std(white.real) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("name", ["DA-3DPR", "3DPR"])
def test_noise_is_found_in_the_ends_of_readouts_under_a_strong_signal(name):
    trajectory = small_trajectory(2000, 400, trajectory=name)
    signal = Ellipsoid(1.0, (100.0, 90.0, 80.0), (20.0, 0.0, 10.0)).spectrum(trajectory.k_per_mm)
    tail = np.sqrt(np.mean(np.abs(signal[:, -20:]) ** 2))
    mixing = np.linalg.cholesky(COVARIANCE) * tail
    noise = np.tensordot(mixing, complex_noise(np.random.default_rng(1), (3, *signal.shape)), axes=1)
    estimate = coils.noise_covariance(coils.readout_tail_noise(signal + noise)) / tail**2
    np.testing.assert_allclose(estimate, COVARIANCE, atol=0.05)
    with pytest.raises(ValueError, match="too few"):
        coils.readout_tail_noise(signal[None, :, :10])


def test_noise_estimate_is_blind_to_the_signal_of_an_object():
    k = closed_law(np.linspace(0, 1, 400), 0.2)[0] / 12.0
    signal = np.exp(-2j * np.pi * np.outer(np.linspace(-110.0, 110.0, 23), k))
    assert np.abs(coils.readout_tail_noise(signal[None])).max() < 1e-3


def _channels(shape):
    """Smooth complex sensitivities of four loops around a grid, and their object."""
    index = (np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), axis=-1)) * 6.0
    maps = []
    for angle in np.arange(4) * np.pi / 2.0:
        distance = np.linalg.norm(index - 150.0 * np.array([np.cos(angle), np.sin(angle), 0.0]), axis=-1)
        maps.append(np.exp(-distance / 120.0) * np.exp(1j * (angle + distance / 100.0)))
    return np.stack(maps), np.linalg.norm(index, axis=-1) < 80.0


def test_sensitivities_are_those_of_the_coils_up_to_their_norm():
    maps, ball = _channels((40, 40, 40))
    images = maps * np.where(ball, 20.0, 0.0)
    found = coils.sensitivities(images.astype(np.complex64), 7, (6.0, 6.0, 6.0))
    norm = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    np.testing.assert_allclose(np.sum(np.abs(found[:, ball]) ** 2, axis=0), 1.0, rtol=1e-5)
    agreement = np.abs(np.sum(found.conj() * maps, axis=0) / norm)[ball]
    assert agreement.min() > 0.98
    combined = coils.combine(images, found)[ball]
    expected = 20.0 * norm[ball]
    assert np.median(np.abs(combined.real / expected - 1.0)) < 2e-3
    assert np.max(np.abs(combined.real / expected - 1.0)) < 0.03


def test_one_coil_is_a_phase_map():
    maps, ball = _channels((30, 30, 30))
    found = coils.sensitivities((maps[:1] * ball).astype(np.complex64), 5, (6.0, 6.0, 6.0))
    np.testing.assert_allclose(np.abs(found[0][ball]), 1.0, rtol=1e-5)
    assert np.abs(np.angle(found[0] * maps[0].conj()))[ball].max() < 0.2
