"""Estimators against PETPVC, Monte Carlo, closed-form images and their own algebra."""

import numpy as np
import pytest
from scipy import sparse
from scipy.ndimage import correlate1d
from scipy.special import ive

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.estimators import RegionalSystem, fit_mask, gtm, labbe, regional_means
from sodium_prep.pvc.forward import push_compartments, region_fractions
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel
from sodium_prep.recon.noise import noise_power_spectrum
from tests.pvc import heads
from tests.shared import shared_path

RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}


def coloured(noise, rng):
    white = rng.standard_normal(noise.sd.shape)
    return np.fft.ifftn(np.fft.fftn(white) * np.sqrt(noise.spectrum)).real * noise.sd


@pytest.fixture(scope="module")
def scan():
    """Compartments, blurred maps, fractions, mask, noise, and a noise-free image made without any of them."""
    head, motion = heads.analytic_compartments(), heads.rigid()
    psf = PsfModel("acquisition", heads.ACQUISITION)
    blurred = push_compartments(head, motion, heads.SHAPE, heads.AFFINE, psf, RELAXATIONS, voxel_kernel="mean")
    fractions = region_fractions(head, motion, heads.SHAPE, heads.AFFINE)
    mask = fit_mask(blurred, head.names, head.kinds, np.ones(heads.SHAPE, bool))
    sd = np.full(heads.SHAPE, 3.0, np.float32)
    sd[:, :, 30:] = 4.5
    noise = Noise(sd, noise_power_spectrum(heads.SHAPE, (heads.VOXEL_MM,) * 3, heads.ACQUISITION))
    image = heads.analytic_image(heads.TRUTH_MM, sodium_to_t1w=motion)
    return head, blurred, fractions, mask, noise, image


def itk_kernel(fwhm_mm, voxel_mm):
    """ITK's DiscreteGaussian: exp(-t) I_n(t) until 99 % of its mass, renormalised."""
    t = (fwhm_mm / FWHM_PER_SD / voxel_mm) ** 2
    half = [ive(0, t)]
    while half[0] + 2 * sum(half[1:]) < 0.99:
        half.append(ive(len(half), t))
    kernel = np.array(half[:0:-1] + half)
    return kernel / kernel.sum()


@pytest.mark.parametrize("name", ["sim", "noisy"])
def test_region_vectors_of_petpvc(name):
    data = np.load(shared_path("reference/petpvc_small.npz"))
    fractions = np.moveaxis(data["fractions"], -1, 0).astype(np.float64)
    kernel = itk_kernel(float(data["fwhm_mm"]), 4.0)
    blurred, adjoint = fractions, fractions
    for axis in (1, 2, 3):
        blur = correlate1d(np.eye(fractions.shape[axis]), kernel, axis=0, mode="nearest")
        blurred = np.moveaxis(np.tensordot(blur, blurred, (1, axis)), 0, axis)
        # PETPVC's matrix is sum b_i p_j; where edges are repeated this is the adjoint of our sum p_i b_j.
        adjoint = np.moveaxis(np.tensordot(blur.T, adjoint, (1, axis)), 0, axis)
    image = data[f"image_{name}"].astype(np.float64)
    everywhere, noise = np.ones(image.shape, bool), Noise(np.ones(image.shape, np.float32))
    flat = [m.reshape(len(m), -1).astype(np.float32) for m in (blurred, adjoint, fractions)]
    least = labbe(flat[0], image, everywhere, noise).fit()
    np.testing.assert_allclose(least.values, data[f"{name}_LABBE"], atol=1e-3)
    transfer = gtm(flat[1], sparse.csr_matrix(flat[2]), image, everywhere, noise).fit()
    np.testing.assert_allclose(transfer.values, data[f"{name}_GTM"], atol=1e-3)


def test_regions_of_an_analytic_head_are_recovered(scan):
    head, blurred, fractions, mask, noise, image = scan
    truth = np.array([heads.TRUTH_MM[name] for name in head.names])
    regions = head.regions
    fit = labbe(blurred, image, mask, noise, head.kinds).fit()
    np.testing.assert_allclose(fit.values[regions], truth[regions], rtol=2e-3)
    assert fit.residual_sd < 0.5
    transfer = gtm(blurred, fractions, image, mask, noise, head.kinds).fit()
    np.testing.assert_allclose(transfer.values[regions], truth[regions], rtol=2e-3)
    plain = regional_means(fractions, image, np.ones(heads.SHAPE, bool), noise, head.volumes_mm3 / 64.0)
    assert np.all(plain.values[4:6] < 0.92 * truth[4:6])  # uncorrected ventricles lose to their surroundings


def test_covariance_and_intervals_hold_over_realisations(scan):
    head, blurred, fractions, mask, noise, image = scan
    rng = np.random.default_rng(3)
    systems = [labbe(blurred, image, mask, noise, head.kinds), gtm(blurred, fractions, image, mask, noise, head.kinds)]
    everywhere = np.ones(heads.SHAPE, bool)
    plain = regional_means(fractions, image, everywhere, noise, head.volumes_mm3 / 64.0)
    clean = [system.fit().values for system in systems]
    values, covered, misfits = [[], [], []], [], []
    for _ in range(200):
        noisy = image + coloured(noise, rng)
        fits = [system.with_image(noisy[mask]).fit() for system in systems]
        for kept, fit in zip(values, fits, strict=False):
            kept.append(fit.values)
        values[2].append(plain.weights @ noisy.ravel())
        misfits.append(fits[0].misfit)
        covered.append(np.abs(fits[0].values - clean[0]) < 1.96 * fits[0].standard_errors)
    expected = [system.fit().covariance for system in systems] + [plain.covariance]
    for drawn, covariance in zip(values, expected, strict=True):
        sample = np.cov(np.stack(drawn).T)[: len(head.regions), : len(head.regions)]
        covariance = covariance[: len(head.regions), : len(head.regions)]
        ratio = np.sqrt(np.diag(sample) / np.diag(covariance))
        assert np.abs(ratio - 1.0).max() < 0.15  # a single sd from 200 draws has 5 %
        assert np.mean(ratio) == pytest.approx(1.0, abs=0.06)
        sds = np.sqrt(np.diag(covariance))
        assert np.abs((sample - covariance) / np.outer(sds, sds)).max() < 0.25
    assert 0.92 < np.mean(np.array(covered)[:, head.regions]) < 0.98
    assert np.mean(misfits) == pytest.approx(1.0, abs=0.03)


def test_merging_columns_equals_adding_maps(scan):
    head, blurred, fractions, mask, noise, image = scan
    membership = np.zeros((len(head.names), 8))
    groups = [[2, 3], [4, 5], [0], [1], [6], [7], [8], [9]]
    for column, members in enumerate(groups):
        membership[members, column] = 1.0
    added = (membership.T @ blurred).astype(np.float32)
    kinds = [head.kinds[members[0]] for members in groups]
    for merged, explicit in (
        (labbe(blurred, image, mask, noise, head.kinds), labbe(added, image, mask, noise, kinds)),
        (
            gtm(blurred, fractions, image, mask, noise, head.kinds),
            gtm(added, sparse.csr_matrix(membership.T @ fractions), image, mask, noise, kinds),
        ),
    ):
        one, other = merged.fit(membership), explicit.fit()
        np.testing.assert_allclose(one.values, other.values, rtol=1e-5)
        np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-3, atol=1e-7)
        assert one.misfit == pytest.approx(other.misfit, rel=1e-4)


def test_scaling_and_response(scan):
    head, blurred, _, mask, noise, image = scan
    system = labbe(blurred, image, mask, noise, head.kinds)
    fit = system.fit()
    louder = labbe(blurred, 7.0 * image, mask, Noise(7.0 * noise.sd, noise.spectrum), head.kinds).fit()
    np.testing.assert_allclose(louder.values, 7.0 * fit.values, rtol=1e-9)
    np.testing.assert_allclose(louder.covariance, 49.0 * fit.covariance, rtol=1e-4, atol=1e-7)
    assert louder.misfit == pytest.approx(fit.misfit)
    change = blurred[0].reshape(heads.SHAPE) * 2.0
    moved = system.with_image((image + change)[mask]).fit()
    np.testing.assert_allclose(moved.values - fit.values, fit.response(change[mask])[:, 0], atol=1e-9)
    np.testing.assert_allclose((moved.values - fit.values)[:2], [2.0, 0.0], atol=1e-6)


def test_ill_determined_and_absent_regions_leave_the_others_alone(scan):
    head, blurred, _, mask, noise, image = scan
    fit = labbe(blurred, image, mask, noise, head.kinds).fit()
    twin = blurred[2] * 0.1 + 1e-3 * np.roll(blurred[2], 1)  # a small region hardly to be told from the hippocampus
    absent = np.zeros_like(twin)
    more = labbe(np.vstack([blurred, twin, absent]), image, mask, noise, [*head.kinds, "region", "region"]).fit()
    assert np.isnan(more.values[-1])
    assert np.isnan(more.standard_errors[-1])
    assert more.inflation[-2] > 30.0
    others = [i for i in head.regions if i != 2]
    np.testing.assert_allclose(more.values[others], fit.values[others], rtol=2e-3)
    assert fit.inflation[head.regions].max() < 10.0


def test_noise_form_equals_its_definition():
    rng = np.random.default_rng(0)
    shape = (5, 4, 6)
    power = np.abs(np.fft.fftn(rng.standard_normal(shape))) ** 2
    noise = Noise(rng.uniform(1.0, 2.0, shape), power / power.mean())
    kernel = np.fft.ifftn(noise.spectrum).real
    index = np.stack(np.unravel_index(np.arange(120), shape))
    lag = (index[:, :, None] - index[:, None, :]) % np.array(shape)[:, None, None]
    covariance = kernel[tuple(lag)] * np.outer(noise.sd, noise.sd)
    mask = rng.random(shape) > 0.3
    rows = rng.standard_normal((3, int(mask.sum())))
    full = np.zeros((3, 120))
    full[:, mask.ravel()] = rows
    np.testing.assert_allclose(noise.quadratic_form(rows, mask), full @ covariance @ full.T, rtol=1e-4)
    np.testing.assert_allclose(
        Noise(noise.sd).quadratic_form(rows, mask), (rows * noise.sd[mask] ** 2) @ rows.T, rtol=1e-5, atol=1e-5
    )


def test_uncorrected_means_of_a_half_covered_region():
    fractions = sparse.csr_matrix(np.array([[1.0, 1.0, 0.5, 0.1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0.2, 0.1]]))
    image = np.array([10.0, 20.0, 40.0, 1000.0, 0, 0, 7.0, 9.0]).reshape(2, 2, 2)
    usable = np.ones((2, 2, 2), bool)
    means = regional_means(fractions, image, usable, Noise(np.ones((2, 2, 2))), np.array([5.2, 0.3]))
    np.testing.assert_array_equal(means.n_voxels, [3, 2])
    assert means.values[0] == pytest.approx(20.0)
    assert means.median[0] == 20.0
    assert means.coverage[0] == pytest.approx(0.5)
    assert means.values[1] == pytest.approx((1.4 + 0.9) / 0.3)
    assert means.covariance[0, 0] == pytest.approx(0.16 + 0.16 + 0.04)
    usable.ravel()[6:] = False
    gone = regional_means(fractions, image, usable, Noise(np.ones((2, 2, 2))), np.array([5.2, 0.3]))
    assert np.isnan(gone.values[1])
    assert gone.coverage[1] == 0.0


def test_general_instruments_need_not_be_scaled(scan):
    _, blurred, _, mask, noise, image = scan
    inside = blurred[:, mask.ravel()]
    scale = np.linspace(0.1, 10.0, len(inside)).astype(np.float32)[:, None]
    one = RegionalSystem(inside, inside, image[mask], mask, noise).fit()
    other = RegionalSystem(inside * scale, inside, image[mask], mask, noise).fit()
    np.testing.assert_allclose(one.values, other.values, rtol=1e-5)
