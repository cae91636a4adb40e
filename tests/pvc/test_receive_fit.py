"""A planted receive profile is found from the image; what a real gradient of concentration does to it is known."""

import numpy as np
import pytest

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.receive_fit import fit_receive_profile
from tests.pvc import heads

RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
PSF = PsfModel("acquisition", heads.ACQUISITION)
NOISE = Noise(np.full(heads.SHAPE, 2.0, np.float32))
INDEX = np.indices(heads.SHAPE)
X, Y, Z = (INDEX[i] * heads.VOXEL_MM + heads.AFFINE[i, 3] for i in range(3))
BRAIN = (X / 50.0) ** 2 + (Y / 65.0) ** 2 + (Z / 50.0) ** 2 < 1.0


@pytest.fixture(scope="module")
def image():
    noise = NOISE.sd * np.random.default_rng(1).standard_normal(heads.SHAPE)
    return heads.analytic_image(heads.TRUTH_MM) + noise


def fitted(image):
    found = fit_receive_profile(
        image, heads.AFFINE, NOISE, heads.analytic_compartments(), np.eye(4), RELAXATIONS, PSF, voxel_kernel="mean"
    )
    assert found.converged
    return found


def test_a_planted_profile_is_found(image):
    # As of an array: twice as sensitive at the rim as in the middle, and more on one side.
    truth = np.exp(0.7 * (X**2 + Y**2) / 80.0**2 + 0.15 * X / 80.0)
    ratio = fitted(image * truth).values / truth
    ratio = ratio / ratio[BRAIN].mean()
    assert truth[BRAIN].max() / truth[BRAIN].min() > 1.5
    assert np.sqrt(np.mean((ratio[BRAIN] - 1.0) ** 2)) < 0.02


def test_without_a_profile_there_is_none(image):
    values = fitted(image).values
    assert np.abs(values[BRAIN] / values[BRAIN].mean() - 1.0).max() < 0.03


def test_a_gradient_of_concentration_is_taken_for_field(image):
    """The price of it: a rise of 10 % from back to front in all tissue is gone afterwards."""
    slope = 1.0 + 0.05 * Y / 65.0
    found = fitted(image * slope)
    front, back = (found.values[BRAIN & (side * Y > 50.0)].mean() for side in (1.0, -1.0))
    assert front / back == pytest.approx(1.05 / 0.95, abs=0.03)
    assert 0.0 < np.sqrt(found.covariance[1, 1]) < 0.02
