from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.recon.encoding import Encoding, LeastSquares, least_squares
from sodium_prep.recon.sense import sense
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory

N, VOXEL_MM = 40, 6.0
HEAD = Ellipsoid(40.0, (85.0, 72.0, 65.0), (6.0, -4.0, 3.0), 15.0)


@pytest.fixture(scope="module")
def undersampled():
    """Least squares of a noisy head at four times fewer spokes than Nyquist's, noise, and the truth's mask."""
    trajectory = small_trajectory(1250, 200)
    maps = np.ones((1, N, N, N), np.complex64)
    encoding = Encoding(trajectory.k_per_mm, (VOXEL_MM,) * 3, maps)
    rng = np.random.default_rng(1)
    weights = trajectory.weights_mm3.astype(np.float32)
    shape = (1, *trajectory.k_per_mm.shape[:2])
    sigma = 4.0 / np.sqrt(1250 * np.sum(trajectory.weights_mm3**2))
    clean = HEAD.spectrum(trajectory.k_per_mm)[None]
    kspace = (clean + sigma * complex_noise(rng, shape)).astype(np.complex64)
    noise = encoding.adjoint((sigma * complex_noise(rng, shape) * weights).astype(np.complex64))
    return least_squares(encoding, kspace, weights), [noise.real.copy(), noise.imag.copy()]


def test_steps_of_conjugate_gradients_solve_a_small_system():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((27, 27))
    matrix = (matrix @ matrix.T + 27.0 * np.eye(27)).astype(np.float32)
    truth = rng.standard_normal(27).astype(np.float32)
    problem = LeastSquares(
        lambda x: (matrix @ x.ravel()).reshape(x.shape).astype(np.float32),
        (matrix @ truth).reshape(3, 3, 3),
        lambda: 1.0,
    )
    image, krylov, _ = sense(problem, [np.zeros((3, 3, 3), np.float32)], max_steps=27)
    np.testing.assert_allclose(image.ravel(), truth, atol=1e-3)
    np.testing.assert_allclose(krylov(problem), image, atol=1e-3)


def test_stops_before_noise_grows_and_is_better_than_gridding(undersampled):
    problem, noise = undersampled
    image, krylov, filtered = sense(problem, noise)
    truth = 40.0 * (HEAD.depth((N,) * 3, (VOXEL_MM,) * 3) < 1.0)
    deep = HEAD.depth((N,) * 3, (VOXEL_MM,) * 3) < 0.85
    error, before = ((x - truth)[deep].std() for x in (image, problem.right))
    assert 1 <= len(krylov.steps) <= 4
    assert error < 0.95 * before
    assert image[deep].mean() == pytest.approx(40.0, rel=5e-3)
    passed = krylov(replace(problem, right=noise[0]))
    np.testing.assert_allclose(filtered[0], passed, atol=1e-3 * passed.std())
    assert passed.std() < 1.02 * noise[0].std()


def test_filter_is_linear_in_the_data(undersampled):
    problem, noise = undersampled
    image, krylov, _ = sense(problem, noise)
    np.testing.assert_allclose(krylov(problem), image, atol=1e-3)
    both = krylov(replace(problem, right=problem.right + 2.0 * noise[0]))
    np.testing.assert_allclose(both, image + 2.0 * krylov(replace(problem, right=noise[0])), atol=1e-3)
