"""The window that noise tells, on gridded noise and objects whose k-space is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.phantom.protocol import Vial
from sodium_prep.phantom.sodium import add_noise, vial_kspace
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.readout import acquisition_window
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.pvc.psf import RELATIVE_WIDTH_SD, psf_fwhm_mm
from sodium_prep.pvc.window import air_spectrum, expected_spectrum, read_window
from sodium_prep.recon.gridding import grid_image
from sodium_prep.recon.trajectory import radial_trajectory

N, DX_MM = 36, 6.0
AFFINE = np.diag([DX_MM, DX_MM, DX_MM, 1.0])
BARE = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (DX_MM, DX_MM, DX_MM))
ASKED = replace(BARE, kspace_filter="unknown")
WINDOWS = {
    "none": BARE,
    "hamming": replace(BARE, kspace_filter="hamming"),
    "hann": replace(BARE, kspace_filter="hann"),
    "fermi": replace(BARE, kspace_filter="fermi", filter_cutoff=0.83, filter_width=0.08),
}
HEAD = Vial("head", 40.0, (0.0, 0.0, 0.0), radius_mm=60.0, length_mm=120.0)
TUBE = Vial("tube", 100.0, (80.0, 40.0, 0.0))


class Scanner:
    """Grids a head and a tube with noise, through any window, on any voxels."""

    def __init__(self, n_spokes=1500, n_samples=240):
        self.trajectory = radial_trajectory(BARE, n_spokes, n_samples)
        k = self.trajectory.k_per_mm.reshape(-1, 3)
        solids = sum(solid.concentration_mM * vial_kspace(solid, k) for solid in (HEAD, TUBE))
        self.clean = solids.reshape(1, n_spokes, n_samples).astype(np.complex64)

    def image(self, acquisition, rng, sigma=6e5, n=N, voxel_mm=DX_MM):
        window = acquisition_window(self.trajectory.k_relative, acquisition)
        samples = add_noise(self.clean, sigma, rng) * window.astype(np.float32)
        return grid_image(samples, self.trajectory, (n,) * 3, (voxel_mm,) * 3)[0]


@pytest.fixture(scope="module")
def scanner():
    return Scanner()


def width(acquisition):
    return psf_fwhm_mm(acquisition, Relaxation(0.05, 1e6))


@pytest.mark.parametrize("name", WINDOWS)
def test_the_window_is_told_from_every_noise(scanner, name):
    rng = np.random.default_rng(7)
    for part in (np.abs, np.abs, np.abs, np.abs, np.real):
        found = read_window([part(scanner.image(WINDOWS[name], rng))], AFFINE, ASKED)
        assert found.acquisition.kspace_filter == name
        assert width(found.acquisition) == pytest.approx(width(WINDOWS[name]), rel=0.03)
        assert RELATIVE_WIDTH_SD <= found.relative_width_sd < 0.08
        assert "noise of the image shows" in found.statement


def test_expected_spectrum_is_that_of_pure_noise_in_the_same_air(scanner):
    rng, air = np.random.default_rng(3), np.zeros((N, N, N), bool)
    air[3:-3, 3:-3, 3:-3] = True
    air[10:-8, 9:-9, 6:-6] = False
    for name in ("none", "hamming"):
        images = [scanner.image(WINDOWS[name], rng) - scanner.image(WINDOWS[name], rng, 0.0) for _ in range(4)]
        found = air_spectrum([np.abs(image) for image in images], air, (DX_MM,) * 3, (DX_MM,) * 3)
        ratio = found.power / expected_spectrum(found, WINDOWS[name])
        np.testing.assert_allclose(ratio[found.fitted], 1.0, atol=0.05)


def test_a_right_statement_passes_and_a_wrong_one_is_told(scanner):
    rng = np.random.default_rng(5)
    plain, hamming = (np.abs(scanner.image(WINDOWS[name], rng)) for name in ("none", "hamming"))
    assert read_window([plain], AFFINE, BARE).statement == ""
    assert read_window([hamming], AFFINE, WINDOWS["hamming"]).statement == ""
    other = read_window([plain], AFFINE, WINDOWS["hamming"])
    assert other.acquisition == WINDOWS["hamming"], "what is stated is kept"
    assert "6 x 6 x 6 mm with a Hamming window, but" in other.statement
    assert "with no window" in other.statement
    assert other.relative_width_sd > 0.15


@pytest.mark.parametrize("stated", [5.0, 7.2])
def test_a_wrong_nominal_resolution_is_told_whatever_the_voxels(scanner, stated):
    rng = np.random.default_rng(11)
    claim = replace(BARE, nominal_resolution_mm=(stated,) * 3)
    for n, voxel_mm in ((N, DX_MM), (52, 4.0)):  # as measured, and zero-filled
        image = np.abs(scanner.image(BARE, rng, n=n, voxel_mm=voxel_mm))
        found = read_window([image], np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0]), claim)
        assert stated * found.resolution_factor == pytest.approx(DX_MM, rel=0.05)
        assert "but that of" in found.statement
        assert found.relative_width_sd > 0.1


def test_streaks_and_too_little_air_tell_nothing():
    rng = np.random.default_rng(2)
    # Steps along the spokes that are wider than 1 / field of view: rings of the head lie in the air.
    ringing = np.abs(Scanner(1500, 110).image(BARE, rng, 3e5))
    assert read_window([ringing], AFFINE, ASKED).acquisition is None
    # Nor do they make a right statement look wrong.
    assert read_window([ringing], AFFINE, BARE).statement == ""
    crowded = np.abs(rng.standard_normal((14, 14, 14)))
    found = read_window([crowded], AFFINE, ASKED)
    assert found.acquisition is None
    assert "voxels of air are too few" in found.statement
