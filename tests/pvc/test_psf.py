"""The PSF against closed forms and tabulated widths."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, tissue_relaxation
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel, mtf, psf_fwhm_mm, psf_profile
from sodium_prep.recon.noise import noise_power_spectrum
from tests.shared import shared_path

STATIC = Relaxation(t1_s=0.06, t2star_slow_s=1e6)
TISSUES = {
    "CSF(56)": Relaxation(0.064, 0.056),
    "GM(3.9/26.3)": Relaxation(0.038, 0.0263, 0.0039, 0.6),
    "WM(3.4/23.5)": Relaxation(0.036, 0.0235, 0.0034, 0.6),
    "vial_agar(5/25)": Relaxation(0.03, 0.025, 0.005, 0.6),
}


def acquire(trajectory="3DPR", readout_s=0.01, p=0.2, window="none", dx=(1.0, 1.0, 1.0), te_s=0.0):
    return Acquisition(te_s, 0.12, 90.0, 3.0, trajectory, readout_s, dx, p, window)


@pytest.mark.parametrize(
    ("trajectory", "window", "fwhm"),
    [("3DPR", "none", 1.5904388), ("DA-3DPR", "hamming", 1.9896970), ("Cartesian", "none", 1.2067091)],
)
def test_widths_without_decay_are_the_closed_forms(trajectory, window, fwhm):
    assert psf_fwhm_mm(acquire(trajectory, window=window), STATIC) == pytest.approx(fwhm, rel=1e-6)


def test_sphere_has_its_first_zero_and_sidelobe():
    r = np.linspace(0.01, 4.0, 4000)
    profile = psf_profile(r, acquire(), STATIC) / psf_profile(0.0, acquire(), STATIC)
    assert r[np.argmax(profile < 0)] == pytest.approx(1.4303, abs=2e-3)
    assert profile.min() == pytest.approx(-0.0862, abs=1e-4)
    assert psf_profile(0.0, acquire(), STATIC) == pytest.approx(4.0 / 3.0 * np.pi / 8.0, rel=1e-6)


def gaussian_fit(acquisition, relaxation):
    """Width of the Gaussian whose transfer function is nearest over k-space (least squares with k^2 dk)."""
    k = (np.arange(600) + 0.5) / 200.0
    target = mtf(k, acquisition, relaxation)

    def miss(width):
        return np.sum(k**2 * (np.exp(-0.5 * (np.pi * width / FWHM_PER_SD * k) ** 2) - target) ** 2)

    return minimize_scalar(miss, bounds=(0.8, 6.0), method="bounded").x


def test_widths_gaussians_and_peaks_of_160_protocols():
    rows = json.loads(shared_path("reference/psf_tables.json").read_text())["rows"]
    assert len(rows) == 160
    for row in rows:
        name = "3DPR" if row["traj"] == "3dpr" else "DA-3DPR"
        acquisition = acquire(name, row["TRO"] * 1e-3, row["p"], row["filt"] or "none")
        relaxation = TISSUES[row["tissue"]]
        assert psf_fwhm_mm(acquisition, relaxation) == pytest.approx(row["fwhm_dx"], rel=1e-3)
        assert gaussian_fit(acquisition, relaxation) == pytest.approx(row["gauss_fit_dx"], rel=1e-2)
        peak = psf_profile(0.0, acquisition, relaxation) / (4.0 / 3.0 * np.pi / 8.0)
        assert peak == pytest.approx(row["peak_rel"], rel=2e-3)


def test_transfer_function_starts_at_one_whatever_the_echo_time_and_ends_at_kmax():
    for te_s in (0.0, 0.0005, 0.005):
        values = mtf([0.0, 0.5, 1.0, 1.0001], acquire("DA-3DPR", te_s=te_s), TISSUES["GM(3.9/26.3)"])
        assert values[0] == 1.0
        assert values[0] > values[1] > values[2] > 0.0
        assert values[3] == 0.0


def test_profile_scales_with_resolution_of_its_own_axis():
    gm = tissue_relaxation("GM", 3.0)
    iso, flat = acquire("DA-3DPR"), acquire("DA-3DPR", dx=(2.0, 3.0, 4.0))
    for axis, dx in enumerate((2.0, 3.0, 4.0)):
        assert psf_fwhm_mm(flat, gm, axis) == pytest.approx(dx * psf_fwhm_mm(iso, gm), rel=1e-9)
    assert psf_profile(0.0, flat, gm) == pytest.approx(psf_profile(0.0, iso, gm) / 24.0)


def test_model_evaluates_vectors_by_ellipsoid_or_box():
    k = np.array([[0.2, 0.0, 0.0], [0.0, 0.1, 0.1], [0.3, 0.2, 0.0], [0.24, 0.15, 0.1]])
    gm = tissue_relaxation("GM", 3.0)
    centre_out = acquire("DA-3DPR", dx=(2.0, 3.0, 4.0))
    radius = np.linalg.norm(k * 2.0 * np.array([2.0, 3.0, 4.0]), axis=1)
    np.testing.assert_allclose(PsfModel("acquisition", centre_out).mtf(k, gm), mtf(radius, centre_out, gm))
    box = PsfModel("acquisition", acquire("Cartesian", dx=(2.0, 3.0, 4.0))).mtf(k, gm)
    np.testing.assert_array_equal(box, [1.0, 1.0, 0.0, 1.0])


def test_noise_of_a_cartesian_image_goes_through_the_window_of_its_signal():
    acquisition = acquire("Cartesian", window="hamming", dx=(2.0, 3.0, 4.0))
    shape, voxel_mm = (12, 10, 8), (2.0, 2.0, 3.0)
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(n, v) for n, v in zip(shape, voxel_mm, strict=True)), indexing="ij"), -1)
    power = PsfModel("acquisition", acquisition).mtf(k, STATIC) ** 2
    np.testing.assert_allclose(noise_power_spectrum(shape, voxel_mm, acquisition), power / power.mean(), atol=1e-5)


def test_gaussian_halves_at_its_half_width():
    model = PsfModel("gaussian", fwhm_mm=6.0)
    k = np.fft.fftfreq(2400, 0.1)
    line = np.fft.ifft(model.mtf(np.stack([k, 0 * k, 0 * k], axis=-1), STATIC)).real
    assert line[30] == pytest.approx(line[0] / 2.0, rel=1e-6)
    assert model.mtf([0.0, 0.0, FWHM_PER_SD / 6.0 / (2 * np.pi)], STATIC) == pytest.approx(np.exp(-0.5))


def test_no_model_without_its_parameters():
    with pytest.raises(ValueError, match="fwhm_mm"):
        PsfModel("gaussian")
    with pytest.raises(ValueError, match="needs the acquisition"):
        PsfModel("acquisition")
    with pytest.raises(ValueError, match="unknown"):
        PsfModel("acquisition", acquire(window="unknown"))
