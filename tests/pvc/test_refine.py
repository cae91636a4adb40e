"""A wrong registration is found again from the sodium image."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.refine import refine_rigid
from sodium_prep.pvc.sensitivity import HEAD_RADIUS_MM
from sodium_prep.recon.noise import noise_power_spectrum
from tests.pvc import heads

RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
PSF = PsfModel("acquisition", heads.ACQUISITION)
NOISE = Noise(
    np.full(heads.SHAPE, 3.0, np.float32), noise_power_spectrum(heads.SHAPE, (heads.VOXEL_MM,) * 3, heads.ACQUISITION)
)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(2)
    white = np.fft.fftn(rng.standard_normal(heads.SHAPE))
    noise = np.fft.ifftn(white * np.sqrt(NOISE.spectrum)).real * NOISE.sd
    return heads.analytic_image(heads.TRUTH_MM, sodium_to_t1w=heads.rigid()) + noise


def target_error_mm(found):
    """Mean displacement over a lattice of the brain."""
    points = np.stack(np.meshgrid(*[np.arange(-45.0, 46.0, 15.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    wrong = found @ np.linalg.inv(heads.rigid())
    return float(np.linalg.norm(points @ wrong[:3, :3].T + wrong[:3, 3] - points, axis=1).mean())


def refine(image, affine, start, **options):
    return refine_rigid(
        image, affine, options.pop("noise", NOISE), heads.analytic_compartments(), start, RELAXATIONS, PSF,
        voxel_kernel="mean", **options,
    )  # fmt: skip


def test_registration_error_of_a_millimetre_shrinks_to_what_noise_leaves(image):
    """The head is almost a body of revolution about y: that rotation is the least sure, and its error says so."""
    start = heads.rigid((0.5, 0.7, -0.6), (0.5, -0.6, 0.4)) @ heads.rigid()
    found = refine(image, heads.AFFINE, start)
    assert target_error_mm(start) > 0.9
    assert found.converged
    assert target_error_mm(found.sodium_to_t1w) < 0.15
    assert found.residual_sd[1] < 0.6 * found.residual_sd[0]
    sds = np.sqrt(np.diag(found.covariance))
    assert np.argmax(sds) == 4
    left = np.linalg.inv(found.sodium_to_t1w) @ heads.rigid()
    turned = Rotation.from_matrix(left[:3, :3]).as_rotvec() * HEAD_RADIUS_MM
    assert np.abs(turned / sds[3:]).max() < 4.0


def test_without_noise_only_the_model_is_left(image):
    clean = heads.analytic_image(heads.TRUTH_MM, sodium_to_t1w=heads.rigid())
    found = refine(clean, heads.AFFINE, heads.rigid((0.2, -0.1, 0.3), (0.3, 0.1, -0.2)) @ heads.rigid())
    assert target_error_mm(found.sodium_to_t1w) < 0.01


def test_orientation_of_the_grid_does_not_matter(image):
    """The same image stored with its first axis reversed."""
    start = heads.rigid((0.5, 0.7, -0.6), (0.5, -0.6, 0.4)) @ heads.rigid()
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = heads.SHAPE[0] - 1
    spectrum = noise_power_spectrum(heads.SHAPE, (heads.VOXEL_MM,) * 3, heads.ACQUISITION)
    found = refine(image[::-1], heads.AFFINE @ flip, start, noise=Noise(NOISE.sd, spectrum))
    assert found.converged
    assert target_error_mm(found.sodium_to_t1w) < 0.15


def test_what_is_too_far_to_be_believed_is_left_alone(image):
    start = heads.rigid((0.0, 0.0, 0.0), (0.0, 1.5, 0.0)) @ heads.rigid()
    found = refine(image, heads.AFFINE, start, most_mm=0.5)
    assert not found.converged
    np.testing.assert_array_equal(found.sodium_to_t1w, start)
