"""Noise from pseudo replicas against closed forms, and in the form that regional estimates use."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sodium_prep.pvc.noise import Noise
from sodium_prep.recon.replicas import g_factor, noise_from_replicas, passed_noise
from tests.recon.analytic import complex_noise

SHAPE = (20, 22, 24)
X, Y, Z = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in SHAPE), indexing="ij")
SIGMA = 3.0


def _reconstruction(kspace):
    """A filtered Fourier transform with a profile taken off: noise that is coloured and differs in space."""
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, SHAPE), indexing="ij")))
    root = np.minimum(k, 0.15) * np.where(k < 0.4, np.cos(np.pi * k), 0.0)
    image = np.fft.ifftn(kspace.reshape(SHAPE) * root).real
    return image / np.exp(-(X**2) - 0.5 * Y)


def test_variance_of_regional_means_is_predicted():
    found = noise_from_replicas(_reconstruction, np.zeros((1, *SHAPE), np.complex64), SIGMA, replicas=30)
    assert found.psd.mean() == pytest.approx(1.0, rel=1e-5)
    radius = np.sqrt(X**2 + Y**2 + Z**2)
    labels = (X > 0) + 2 * (Y > 0) + 4 * (Z > 0)
    regions = [radius < 0.9, radius < 0.4, X < -0.7, X > 0.7, *((labels == n) & (radius < 1.0) for n in range(8))]
    rows = np.stack([region / region.sum() for region in regions]).reshape(len(regions), -1)
    predicted = np.diag(Noise(found.sd, found.psd).quadratic_form(rows, np.ones(SHAPE, bool)))
    rng = np.random.default_rng(99)
    means = np.stack([rows @ _reconstruction(SIGMA * complex_noise(rng, SHAPE)).ravel() for _ in range(800)])
    ratio = predicted / means.var(axis=0)
    # 800 replicas know a variance to 5 %.
    assert np.abs(ratio - 1.0).max() < 0.25
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)
    # What it is against: white noise of one level would be off by factors.
    naive = np.diag(Noise(np.full(SHAPE, found.sd.mean())).quadratic_form(rows, np.ones(SHAPE, bool)))
    assert np.abs(np.log(naive / means.var(axis=0))).max() > np.log(3.0)


def test_g_factor_of_cartesian_sense_is_the_analytic_one():
    """Pruessmann et al. 1999: sqrt((S^H S)^-1_ii (S^H S)_ii) for the voxels that fold onto each other."""
    n_coils, reduction = 4, 2
    angle = 2.0 * np.pi * np.arange(n_coils)[:, None, None, None] / n_coils
    maps = np.exp(-((X - np.cos(angle)) ** 2) - (Y - np.sin(angle)) ** 2 + 1j * (angle + X * np.cos(angle)))
    half = SHAPE[0] // reduction
    folded = np.stack([maps[:, :half], maps[:, half:]], axis=-1)  # (coils, x, y, z, 2)
    gram = np.einsum("cxyzi,cxyzj->xyzij", folded.conj(), folded)
    inverse = np.linalg.inv(gram)
    g = np.sqrt(np.einsum("xyzii,xyzii->ixyz", inverse, gram).real).reshape(SHAPE)

    def sense(kspace):
        aliased = np.fft.ifftn(kspace.reshape(n_coils, half, *SHAPE[1:]), axes=(1, 2, 3), norm="ortho")
        right = np.einsum("cxyzi,cxyz->xyzi", folded.conj(), aliased)
        return np.moveaxis(np.einsum("xyzij,xyzj->xyzi", inverse, right), -1, 0).reshape(SHAPE).real

    zeros = np.zeros((n_coils, half * SHAPE[1], SHAPE[2]), np.complex64)
    found = noise_from_replicas(sense, zeros, SIGMA, replicas=60, smoothing_voxels=1.0)
    full_sd = SIGMA / np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    # The unitary transform of half the samples spreads their noise over half the voxels: R is in its norm.
    measured = g_factor(found.sd * np.sqrt(reduction), full_sd, reduction)
    assert g.max() > 1.5
    np.testing.assert_allclose(measured.mean(), g.mean(), rtol=0.02)
    assert np.corrcoef(measured.ravel(), g.ravel())[0, 1] > 0.95


def test_a_nonlinear_reconstruction_shows_where_it_holds_noise_back():
    edge = np.where(X > 0, 100.0, 0.0)

    def median(kspace):
        image = np.fft.ifftn(kspace.reshape(SHAPE), norm="ortho").real
        return np.where(image > 50.0, image, ndimage.median_filter(image, 3))

    kspace = np.fft.fftn(edge, norm="ortho")[None]
    found = noise_from_replicas(median, kspace, SIGMA, smoothing_voxels=0.7)
    assert found.sd[X > 0.2].mean() == pytest.approx(SIGMA, rel=0.05)
    assert found.sd[X < -0.2].mean() < 0.4 * SIGMA


def test_same_seed_same_noise_and_refusals():
    zeros = np.zeros((1, *SHAPE), np.complex64)
    first, second = (noise_from_replicas(_reconstruction, zeros, SIGMA, replicas=3, seed=7) for _ in range(2))
    assert first.sd.tobytes() == second.sd.tobytes()
    assert first.psd.tobytes() == second.psd.tobytes()
    with pytest.raises(ValueError, match="too few"):
        noise_from_replicas(_reconstruction, zeros, SIGMA, replicas=2)
    with pytest.raises(ValueError, match="whatever the noise"):
        noise_from_replicas(lambda _: np.ones(SHAPE), zeros, SIGMA)


def test_two_samples_tell_what_a_filter_does_to_known_noise():
    """White noise through a Gaussian filter and a profile: both are known, so is the variance of a region's mean."""
    shape, voxel_mm = (24, 20, 28), (3.0, 4.0, 3.0)
    axes = np.meshgrid(*(np.fft.fftfreq(n, v) for n, v in zip(shape, voxel_mm, strict=True)), indexing="ij")
    gain = np.exp(-sum(k**2 for k in axes) / (2.0 * 0.06**2))
    profile = 1.0 + 0.5 * np.sin(2.0 * np.pi * np.arange(28) / 28.0)
    expected = 2.0 * np.sqrt(np.mean(gain**2)) * np.broadcast_to(profile, shape)
    region = np.zeros(shape)
    region[4:16, 4:14, 6:20] = 1.0 / (12 * 10 * 14)

    def variance(sd, psd):
        return np.mean(np.abs(np.fft.fftn(region * sd)) ** 2 * psd)

    exact = variance(expected, gain**2 / np.mean(gain**2))
    ratios = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        before = [(2.0 * rng.standard_normal(shape)).astype(np.float32) for _ in range(2)]
        after = [(profile * np.fft.ifftn(gain * np.fft.fftn(one)).real).astype(np.float32) for one in before]
        found = passed_noise(before, after, np.full(shape, 2.0), np.ones(shape), voxel_mm)
        assert np.sqrt(np.mean((found.sd / expected - 1.0) ** 2)) < 0.15
        ratios.append(variance(found.sd, found.psd) / exact)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)
    assert np.std(ratios) < 0.2
