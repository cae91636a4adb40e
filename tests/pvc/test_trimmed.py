"""Trimmed regression: a published simulation, outliers, algebra, and its noise."""

import numpy as np
import pytest
from scipy import sparse
from scipy.ndimage import gaussian_filter

from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.trimmed import trimmed_regression

FINE, COARSE = 1.0, 4.0


def _balls(shape=(88, 88, 88)):
    """Ventricle, white and grey matter as nested balls on 1 mm, folded by a ripple; the radii set the bias."""
    place = np.indices(shape) - (np.asarray(shape)[:, None, None, None] - 1) / 2.0
    radius = np.sqrt(np.sum(place**2, axis=0))
    wave = 2.0 * np.sin(place[0] / 4.0) * np.sin(place[1] / 4.0) * np.sin(place[2] / 4.0)
    ventricle, white, brain = radius < 21.8, radius + wave < 28.0, radius + wave < 35.1
    return np.stack([brain & ~white, white & ~ventricle]).astype(np.float64)


def _to_coarse(image):
    n = int(COARSE / FINE)
    x, y, z = (s // n for s in image.shape)
    return image.reshape(x, n, y, n, z, n).mean(axis=(1, 3, 5))


@pytest.fixture(scope="module")
def nested():
    """Image and tissues at 4 mm, as blurred by 6 mm, with the unblurred fractions."""
    tissues = _balls()
    blurred = np.stack([_to_coarse(gaussian_filter(one, 6.0 / 2.3548 / FINE)) for one in tissues])
    fractions = np.stack([_to_coarse(one) for one in tissues])
    truth = np.array([45.0, 40.0])
    return truth, np.tensordot(truth, blurred, 1), blurred, fractions


def test_a_published_underestimation_is_undone(nested):
    """Kim et al. 2021: grey matter 20 % and white matter 11 % low without correction, below 1 % after it.

    Fluid and what lies outside count as nothing there: a voxel's value is that of the tissues in it.
    """
    truth, image, blurred, fractions = nested
    weights = fractions * (fractions > 0.5)
    raw = np.sum(weights * image, axis=(1, 2, 3)) / weights.sum(axis=(1, 2, 3)) / truth - 1.0
    np.testing.assert_allclose(raw, [-0.20, -0.11], atol=0.01)
    mask = blurred.sum(axis=0) > 0.05
    noisy = image + np.random.default_rng(0).normal(0.0, 1.0, image.shape)
    # The means that solve cubes without a tissue are wrong on purpose.
    found = trimmed_regression(noisy[mask], blurred[:, mask], mask, 0.7 * truth).values
    weights = weights[:, mask]
    corrected = np.sum(weights * found, axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(corrected, truth, rtol=0.01)


def test_outliers_do_not_count(nested):
    truth, image, blurred, _ = nested
    mask = blurred.sum(axis=0) > 0.05
    spoiled = image.copy()
    spoiled[11:13, 4:6, 10:12] += 60.0  # bright matter that no tissue explains
    found = trimmed_regression(spoiled[mask], blurred[:, mask], mask, truth).values
    own = np.full((2, *mask.shape), np.nan)
    own[:, mask] = found
    near = own[:, 8:16, 2:9, 7:15]
    share = blurred[:, 8:16, 2:9, 7:15]
    assert np.isfinite(near).any()
    for tissue in range(2):
        assert np.abs(near[tissue][share[tissue] > 0.3] - truth[tissue]).max() < 0.02 * truth[tissue]


def test_regional_means_are_linear_with_the_noise_that_their_weights_say(nested):
    truth, image, blurred, fractions = nested
    box = np.zeros(image.shape, bool)
    box[6:15, 2:9, 6:15] = True
    mask = box & (blurred.sum(axis=0) > 0.05)
    share = fractions[:, mask] * (blurred[:, mask] > 0.2)
    weights = sparse.csr_matrix(share / share.sum(axis=1, keepdims=True))
    sd, rng = 2.0, np.random.default_rng(4)
    drawn, expected = [], []
    for _ in range(60):
        data = (image + rng.normal(0.0, sd, image.shape))[mask]
        found = trimmed_regression(data, blurred[:, mask], mask, truth, weights, np.array([0, 1]))
        means = [weights[row] @ found.values[row] for row in range(2)]
        np.testing.assert_allclose(found.rows @ data + found.offsets, np.ravel(means), rtol=1e-5)
        drawn.append(np.ravel(means))
        expected.append(np.diag(Noise(np.full(image.shape, sd)).quadratic_form(found.rows, mask)))
    ratio = np.std(drawn, axis=0, ddof=1) / np.sqrt(np.mean(expected, axis=0))
    assert np.all((ratio > 0.8) & (ratio < 1.3))  # 60 draws have 9 %; the choice of voxels adds some 5 %
