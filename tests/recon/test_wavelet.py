import itertools

import numpy as np

from sodium_prep.recon.wavelet import shrink, wavelet
from tests.recon.priors import dense_problem


def haar(n):
    """Rows of means and of differences of an orthonormal Haar transform of one axis."""
    return [np.kron(np.eye(n // 2), [1.0, sign]) / np.sqrt(2.0) for sign in (1.0, -1.0)]


def thresholded(image, weight, levels):
    """Decimated three-dimensional Haar transform, soft threshold of all but the coarsest means, and back."""
    if levels == 0:
        return image
    filters = [haar(n) for n in image.shape]
    out = np.zeros(image.shape)
    for kind in itertools.product((0, 1), repeat=3):
        a, b, c = (filters[axis][k] for axis, k in enumerate(kind))
        band = np.einsum("ax,by,cz,xyz->abc", a, b, c, image)
        if kind == (0, 0, 0):
            band = thresholded(band, weight, levels - 1)
        else:
            band = np.sign(band) * np.maximum(np.abs(band) - weight, 0.0)
        out += np.einsum("ax,by,cz,abc->xyz", a, b, c, band)
    return out


def test_shrink_is_the_mean_over_all_shifts_of_a_plain_transform():
    image = np.random.default_rng(0).standard_normal((8, 4, 12))
    expected = np.zeros(image.shape)
    for shift in itertools.product(range(4), repeat=3):
        moved = thresholded(np.roll(image, shift, (0, 1, 2)), 0.7, 2)
        expected += np.roll(moved, [-s for s in shift], (0, 1, 2)) / 64.0
    np.testing.assert_allclose(shrink(image.astype(np.float32), 0.7, 2), expected, atol=1e-5)


def test_shrink_of_any_size_is_exact_without_weight_and_nowhere_expands():
    a, b = np.random.default_rng(1).standard_normal((2, 9, 7, 11)).astype(np.float32)
    np.testing.assert_allclose(shrink(a, 0.0), a, atol=1e-5)
    x, y = shrink(a, 0.5), shrink(b, 0.5)
    assert np.sum((x - y) ** 2) <= np.sum((x - y) * (a - b))


def test_solution_stays_where_it_is():
    problem, n, right = dense_problem(np.random.default_rng(2), (6, 5, 4))
    step = 1.0 / np.linalg.eigvalsh(n)[-1]
    x = wavelet(problem, 0.4, 2000, 1e-7)
    again = shrink(x - np.float32(step) * (problem.normal(x) - problem.right), 0.4 * step)
    np.testing.assert_allclose(again, x, atol=2e-3)
    assert np.abs(x - np.linalg.solve(n, right).reshape(x.shape)).max() > 0.1
