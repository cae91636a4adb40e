"""Receive arrays of 1, 8 and 32 channels on k-space in closed form: maps, compression, refusals."""

from __future__ import annotations

from functools import cache

import h5py
import numpy as np
import pytest
from scipy.special import jv

from sodium_prep.errors import InputError
from sodium_prep.recon import coils
from sodium_prep.recon.channels import whitened
from sodium_prep.recon.espirit import espirit_maps
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.raw import read_raw, write_ismrmrd
from sodium_prep.recon.reconstruct import reconstruct
from tests.recon.analytic import Ellipsoid, raw_data, small_trajectory

N, VOXEL_MM, PERIOD_MM = 30, 6.0, 175.0
GRID = (N,) * 3
R_MM = (np.moveaxis(np.indices(GRID), 0, -1) - N // 2) * VOXEL_MM
HEAD = Ellipsoid(40.0, (48.0, 48.0, 48.0))
VIAL = Ellipsoid(100.0, (9.0, 9.0, 9.0), (-62.0, 0.0, 0.0))
IN_HEAD, IN_VIAL = (one.depth(GRID, (VOXEL_MM,) * 3) < 0.85 for one in (HEAD, VIAL))
AIR = (HEAD.depth(GRID, (VOXEL_MM,) * 3) > 1.3) & (VIAL.depth(GRID, (VOXEL_MM,) * 3) > 3.5)
TURN, BEND = -0.03, 1.0
"""Phase exp(i (TURN x + BEND sin(2 pi x / PERIOD_MM))): from vial to the head 30 mm away it turns by 1.0 rad."""


@cache
def trajectory():
    return small_trajectory(2400, 150)


@cache
def _waves():
    """Plane waves: their k-space and their images; the first two axes are x and y."""
    q = np.zeros((7, 3, 3))
    q[..., 0] = np.arange(-3, 4)[:, None] / PERIOD_MM + TURN / (2.0 * np.pi)
    q[..., 1] = np.arange(-1, 2) / PERIOD_MM
    q = q.reshape(-1, 3)
    k = trajectory().k_per_mm
    spectra = np.stack([HEAD.spectrum(k - one) + VIAL.spectrum(k - one) for one in q]).astype(np.complex64)
    return spectra, np.exp(2j * np.pi * np.moveaxis(np.tensordot(R_MM, q, axes=(3, 1)), -1, 0))


@cache
def _array(n_coils):
    """k-space without noise and sensitivities of channels with (1 + 0.7 cos) (1 + 0.7 cos) profiles in x and y."""
    bend = jv(np.arange(-2, 3), BEND)  # Jacobi and Anger: exp(i b sin u) = sum_n J_n(b) exp(i n u)
    weights = []
    for angle in 2.0 * np.pi * np.arange(n_coils) / n_coils:
        x, y = (
            np.array([0.35 * np.exp(1j * (1.5 * at - 0.4)), 1.0, 0.35 * np.exp(1j * (0.4 - 1.5 * at))])
            for at in (np.cos(angle), np.sin(angle))
        )
        profile = np.outer(np.convolve(x, bend), y) * np.exp(1j * angle)
        weights.append(profile if n_coils > 1 else np.outer(np.pad(bend, 1), [0.0, 1.0, 0.0]))
    spectra, images = _waves()
    weights = np.reshape(weights, (n_coils, -1))
    return np.tensordot(weights.astype(np.complex64), spectra, axes=1), np.tensordot(weights, images, axes=1)


def _noise(seed, shape):
    return np.random.default_rng(seed).standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def _noisy(kspace, sigma, mixing=None):
    """With noise, and a noise scan of exactly its covariance."""
    noise, scan = sigma * _noise(3, kspace.shape), _noise(4, (len(kspace), 2000))
    scan = sigma * coils.whiten(scan, coils.noise_covariance(scan))
    if mixing is None:
        return kspace + noise, scan
    return kspace + np.tensordot(mixing, noise, axes=1), mixing @ scan


def _sigma(maps, snr):
    """Noise of a sample that gives the head this ratio of signal to noise."""
    return float(40.0 * np.linalg.norm(maps, axis=0)[IN_HEAD].mean() / gridding_noise_sd(snr, trajectory()))


def _gridded(kspace):
    return grid_image(np.asarray(kspace, np.complex64), trajectory(), GRID, (VOXEL_MM,) * 3)


def _known(images, maps):
    """Combination by true sensitivities."""
    return coils.combine(images, maps / np.linalg.norm(maps, axis=0)).real


@pytest.mark.parametrize("snr", [np.inf, 20.0])
@pytest.mark.parametrize("n_coils", [1, 8])
def test_vial_beside_a_head_keeps_its_mean(n_coils, snr):
    kspace, maps = _array(n_coils)
    noisy, scan = _noisy(kspace, _sigma(maps, snr))
    if np.isinf(snr):
        scan = _noisy(kspace, 1.0)[1]
    result = reconstruct(raw_data(noisy, trajectory(), N, VOXEL_MM, noise=scan))
    known = _known(_gridded(noisy), maps)
    assert result.image[IN_VIAL].mean() == pytest.approx(known[IN_VIAL].mean(), rel=0.015)
    assert result.image[IN_HEAD].mean() == pytest.approx(known[IN_HEAD].mean(), rel=0.002)
    if np.isfinite(snr):
        sd = result.noise_sd[0, 0, 0]
        assert known[IN_HEAD].mean() / sd == pytest.approx(snr, rel=0.03)
        assert abs(result.image[AIR].mean()) < 0.03 * sd
        assert result.image[AIR].std() < 1.03 * known[AIR].std()


def _compress(kspace, sigma, n=None, noise_samples=None):
    matrix = coils.compression(kspace, sigma, trajectory(), GRID, (VOXEL_MM,) * 3, n, noise_samples)
    return np.tensordot(matrix, kspace, axes=1).astype(np.complex64), matrix


def test_32_channels_compress_to_those_that_hold_signal():
    kspace, maps = _array(32)
    sigma = _sigma(maps, 15.0)
    virtual, matrix = _compress(_noisy(kspace, sigma)[0], sigma)
    # The profiles are sums of 3 x 3 waves, of which those that vary in x and y are far below the noise.
    assert len(virtual) == 5
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(5), atol=1e-6)
    images = _gridded(kspace)
    before = _known(images, maps)
    after = _known(np.tensordot(matrix, images, axes=1), np.tensordot(matrix, maps, axes=1))
    for inside in (IN_HEAD, IN_VIAL):
        # Noise is the same before and after, so this is the loss of signal to noise, too.
        assert after[inside].mean() == pytest.approx(before[inside].mean(), rel=0.005)
    assert (after / before)[IN_HEAD].min() > 0.99
    assert len(_compress(kspace, sigma, n=3)[0]) == 3
    with pytest.raises(ValueError, match="32 channels cannot be compressed to 33"):
        _compress(kspace, sigma, n=33)


def test_noise_makes_no_virtual_channels_however_little_is_known_of_it():
    one = HEAD.spectrum(trajectory().k_per_mm)
    noisy = _noise(0, (16, 1, 1)) * one + 3e6 * _noise(1, (16, *one.shape))
    assert len(_compress(noisy, 3e6)[0]) == 1
    white = coils.whiten(noisy, coils.noise_covariance(3e6 * _noise(2, (16, 100))))
    assert len(_compress(white, 1.0)[0]) > 1
    assert len(_compress(white, 1.0, noise_samples=100)[0]) == 1


def test_espirit_maps_are_closer_to_the_coils_and_as_real():
    kspace, maps = _array(8)
    noisy, scan = _noisy(kspace, _sigma(maps, 20.0))
    result = reconstruct(raw_data(noisy, trajectory(), N, VOXEL_MM, noise=scan))
    images = _gridded(noisy)
    found = espirit_maps(images, result.sensitivities, result.noise_sd[0, 0, 0], result.noise_psd)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1.0, rtol=1e-5)
    truth = maps / np.linalg.norm(maps, axis=0)
    off, off_before = (1.0 - np.abs(coils.combine(truth, one))[IN_HEAD].mean() for one in (found, result.sensitivities))
    assert off < 0.6 * off_before
    combined, known = coils.combine(images, found), _known(images, maps)
    assert combined.real[IN_HEAD].mean() == pytest.approx(known[IN_HEAD].mean(), rel=0.002)
    assert combined.real[IN_VIAL].mean() == pytest.approx(known[IN_VIAL].mean(), rel=0.015)
    assert abs(combined.real[AIR].mean()) < 0.05 * result.noise_sd[0, 0, 0]
    with pytest.raises(ValueError, match="do not fit"):
        espirit_maps(images, result.sensitivities, calibration=31)


def test_noise_scan_of_another_dwell_time_and_correlated_noise(tmp_path):
    kspace, maps = _array(8)
    noisy, scan = _noisy(kspace, _sigma(maps, 15.0), (np.eye(8) + 0.2 * _noise(1, (8, 8))).astype(np.complex64))
    path = tmp_path / "array.h5"
    write_ismrmrd(path, raw_data(noisy, trajectory(), N, VOXEL_MM, noise=0.5 * scan))
    with h5py.File(path, "r+") as file:
        # A noise scan at four times the dwell time has half the noise.
        records = file["dataset/data"][()]
        records["head"]["sample_time_us"][: -trajectory().n_readouts] *= 4.0
        file["dataset/data"][...] = records
    (raw,) = read_raw(path)
    np.testing.assert_allclose(raw.noise, scan, rtol=1e-5)
    result = reconstruct(raw)
    covariance = coils.noise_covariance(scan)
    level = np.sqrt(np.trace(covariance).real / 8)
    known = _known(level * coils.whiten(_gridded(noisy), covariance), coils.whiten(maps, covariance))
    assert result.image[IN_HEAD].mean() == pytest.approx(known[IN_HEAD].mean(), rel=0.003)
    assert result.image[AIR].std() == pytest.approx(result.noise_sd[0, 0, 0], rel=0.05)


def test_channels_that_cannot_be_whitened_are_named():
    noise, kspace = _noise(2, (8, 500)), np.ones((8, 100, 60))

    def refused(noise, match):
        with pytest.raises(InputError, match=f"{match}.*dead or duplicated channels"):
            whitened(raw_data(kspace, small_trajectory(100, 60), N, VOXEL_MM, noise=noise))

    whole = np.ones((8, 1), np.float32)
    whole[5] = 0.0
    refused(noise * whole, "channel 5 of 8 has no noise")
    refused(noise[[0, 1, 2, 3, 4, 5, 2, 7]] * np.arange(1, 9, dtype=np.float32)[:, None], "channels 2 and 6 of 8")
    refused(np.append(noise[:7], noise[:1] + noise[1:2], axis=0), "the noise of the 8 receive channels is linearly")
