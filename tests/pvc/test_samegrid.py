"""Regions and image on one grid, against plain dense blurring and against the estimators for two grids."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import gtm, labbe
from sodium_prep.pvc.forward import push_compartments, region_fractions
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel
from sodium_prep.pvc.samegrid import SameGrid, sparse_fractions
from sodium_prep.recon.noise import noise_power_spectrum

SHAPE, VOXEL = (30, 33, 26), (2.0, 2.0, 2.0)
TISSUES = ["GM", "GM", "WM", "CSF", "GM", "extracerebral", "extracerebral"]
RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
ACQUISITION = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (5.0, 6.0, 5.0))
CARTESIAN = Acquisition(0.0005, 0.12, 90.0, 3.0, "Cartesian", 0.0, (5.0, 6.0, 5.0), kspace_filter="hamming")
GAUSSIAN, FWHM_MM = PsfModel("gaussian", fwhm_mm=7.0), 7.0


def labels():
    """Seven regions, two of them small; the fifth is in no voxel, the last reaches all borders."""
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / n for n in SHAPE), indexing="ij", sparse=True)
    radius = np.sqrt(x**2 + y**2 + z**2) + 0 * (x + y + z)
    out = np.full(SHAPE, 7, np.int16)
    out[radius < 0.46] = 6
    out[(radius < 0.4) & (x + 0.3 * y < 0)] = 1
    out[(radius < 0.4) & (x + 0.3 * y >= 0)] = 2
    out[radius < 0.3] = 3
    out[radius < 0.12] = 4
    return out


def fractions():
    """The same with soft borders, adding up to 1."""
    return np.stack([gaussian_filter((labels() == i).astype(np.float32), 0.7) for i in range(1, 8)])


def mirrored(volume, psf, relaxation):
    """Blurring by the transform of the whole image and its mirror images."""
    for axis in range(3):
        volume = np.concatenate([volume, np.flip(volume, axis)], axis)
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 2.0) for n in volume.shape), indexing="ij"), axis=-1)
    cell = [0.25 / n for n in SHAPE]
    blurred = np.fft.ifftn(np.fft.fftn(volume) * psf.mtf(k, relaxation, cell)).real
    return blurred[: SHAPE[0], : SHAPE[1], : SHAPE[2]]


def dense(maps, psf):
    if psf is GAUSSIAN:
        return np.stack([gaussian_filter(m.astype(float), FWHM_MM / FWHM_PER_SD / 2.0, truncate=10.0) for m in maps])
    return np.stack([mirrored(m, psf, RELAXATIONS[t]) for m, t in zip(maps, TISSUES, strict=True)])


@pytest.mark.parametrize("psf", [GAUSSIAN, PsfModel("acquisition", ACQUISITION), PsfModel("acquisition", CARTESIAN)])
@pytest.mark.parametrize("soft", [False, True])
def test_dense_blurring_and_dense_algebra_give_the_same(psf, soft):
    hard = labels()
    maps = fractions() if soft else np.stack([hard == i for i in range(1, 8)]).astype(np.float32)
    grid = SameGrid(sparse_fractions(maps) if soft else hard, SHAPE, VOXEL, psf, TISSUES, RELAXATIONS)
    there = [0, 1, 2, 3, 5, 6]
    b, p = (m[there].reshape(6, -1) for m in (dense(maps, psf), maps.astype(float)))
    image = np.array([45.0, 55.0, 36.0, 140.0, 20.0, 1.0]) @ b + np.random.default_rng(0).normal(0.0, 2.0, b.shape[1])
    volume = image.reshape(SHAPE)
    least, transfer = grid.labbe(volume, 2.0), grid.gtm(volume, 2.0)
    np.testing.assert_allclose(least.values[there], np.linalg.solve(b @ b.T, b @ image), rtol=1e-4)
    np.testing.assert_allclose(transfer.values[there], np.linalg.solve(p @ b.T, p @ image), rtol=1e-4)
    np.testing.assert_allclose(grid.means(volume)[0][there], p @ image / p.sum(1), rtol=1e-5)
    for fit, instruments in ((least, b), (transfer, p)):
        assert np.isnan(fit.values[4])
        noise = 4.0 * instruments @ coloured(instruments, psf).T
        inverse = np.linalg.inv(instruments @ b.T)
        expected = inverse @ noise @ inverse.T
        sds = np.sqrt(np.diag(expected))
        found = fit.covariance[np.ix_(there, there)]
        np.testing.assert_allclose(np.sqrt(np.diag(found)), sds, rtol=1e-4)
        np.testing.assert_allclose(found / np.outer(sds, sds), expected / np.outer(sds, sds), atol=2e-4)


def coloured(rows, psf):
    """Rows times the covariance of the noise, on the mirrored grid."""
    if psf.acquisition is None:
        return rows
    power = noise_power_spectrum(tuple(2 * n for n in SHAPE), VOXEL, psf.acquisition).astype(float)
    out = []
    for volume in rows.reshape(-1, *SHAPE):
        for axis in range(3):
            volume = np.concatenate([volume, np.flip(volume, axis)], axis)
        out.append(np.fft.ifftn(np.fft.fftn(volume) * power).real[: SHAPE[0], : SHAPE[1], : SHAPE[2]].ravel())
    return np.stack(out)


@pytest.mark.parametrize(("psf", "rtol"), [(GAUSSIAN, 5e-5), (PsfModel("acquisition", ACQUISITION), 1e-3)])
def test_the_estimators_for_two_grids_agree(psf, rtol):
    """They let the tails end elsewhere: outside is nothing for one, and a mirror image for the other."""
    hard = labels()
    hard = np.pad(np.where(hard < 6, hard, 0), 8)
    here = Compartments([], [], [], [], [], hard.shape, np.diag([*VOXEL, 1.0]))
    for number in (1, 2, 3, 4):
        voxels = np.flatnonzero(hard == number)
        here.append(str(number), TISSUES[number - 1], "region", voxels, np.ones(voxels.size))
    blurred = push_compartments(here, np.eye(4), hard.shape, here.affine, psf, RELAXATIONS)
    image = (np.array([45.0, 55.0, 36.0, 140.0]) @ blurred).reshape(hard.shape)
    image += np.random.default_rng(1).normal(0.0, 0.5, hard.shape)
    every, noise = np.ones(hard.shape, bool), Noise(np.full(hard.shape, 0.5, np.float32))
    shares = region_fractions(here, np.eye(4), hard.shape, here.affine)
    grid = SameGrid(hard, hard.shape, VOXEL, psf, TISSUES[:4], RELAXATIONS)
    for one, other in (
        (grid.labbe(image), labbe(blurred, image, every, noise).fit()),
        (grid.gtm(image), gtm(blurred, shares, image, every, noise).fit()),
    ):
        np.testing.assert_allclose(one.values, other.values, rtol=rtol)
        np.testing.assert_allclose(one.inflation, other.inflation, rtol=2 * rtol)
        assert one.condition == pytest.approx(other.condition, rel=5 * rtol)


def test_noise_is_found_in_the_residual():
    grid = SameGrid(labels(), SHAPE, VOXEL, GAUSSIAN, TISSUES, RELAXATIONS)
    image = 100.0 + np.random.default_rng(2).normal(0.0, 3.0, SHAPE)
    found, given = grid.labbe(image), grid.labbe(image, 1.5)
    assert found.noise_sd == pytest.approx(3.0, rel=0.02)
    assert found.misfit == pytest.approx(1.0)
    assert given.misfit == pytest.approx(4.0, rel=0.04)
    # Where the noise was given too small, the residual says so.
    np.testing.assert_allclose(found.standard_errors, given.standard_errors, rtol=1e-6)
    assert found.residual_sd == pytest.approx(3.0, rel=0.02)
