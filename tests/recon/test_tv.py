import numpy as np
import pytest
from scipy.optimize import minimize

from sodium_prep.recon.tv import Variation, gradient, tv
from tests.recon.priors import dense_gradient, dense_problem, directional, random_directions

SHAPE = (9, 6, 7)


@pytest.mark.parametrize("guided", [False, True])
def test_proximal_closes_the_duality_gap(guided):
    """The primal value of what comes out and the dual value of the vectors behind it bound the optimum."""
    rng = np.random.default_rng(0)
    xi = random_directions(rng, SHAPE) if guided else np.zeros((3, *SHAPE), np.float32)
    image = rng.standard_normal(SHAPE).astype(np.float32)
    prior = Variation(SHAPE, xi if guided else None)
    weight = 0.3
    x = prior.proximal(image, weight, 300).ravel().astype(float)
    d = dense_gradient(SHAPE)
    variation = np.linalg.norm(directional(xi, (d @ x).reshape(3, -1)), axis=0).sum()
    assert prior.value(x.reshape(SHAPE).astype(np.float32)) == pytest.approx(variation, rel=1e-5)
    primal = 0.5 * np.sum((x - image.ravel()) ** 2) + weight * variation
    p = prior.dual.reshape(3, -1).astype(float)
    assert np.linalg.norm(p, axis=0).max() <= weight * (1.0 + 1e-5)
    behind = image.ravel() - d.T @ directional(xi, p).ravel()
    dual = 0.5 * np.sum(image.ravel().astype(float) ** 2) - 0.5 * np.sum(behind**2)
    assert dual <= primal
    assert primal - dual < 2e-4 * primal
    np.testing.assert_allclose(x, behind, atol=1e-5)


def test_proximal_of_a_step_is_closed_form():
    """Each side of a step along one axis moves by the weight over its length, until they meet."""
    image = np.zeros((10, 4, 3), np.float32)
    image[3:] = 2.0
    found = Variation(image.shape).proximal(image, 0.6, 500)
    np.testing.assert_allclose(found[:3], 0.6 / 3.0, atol=1e-4)
    np.testing.assert_allclose(found[3:], 2.0 - 0.6 / 7.0, atol=1e-4)
    np.testing.assert_allclose(Variation(image.shape).proximal(image, 50.0, 2000), 1.4, atol=1e-3)


def test_change_along_the_directions_is_free():
    ramp = np.arange(12.0, dtype=np.float32)[:, None, None] * np.ones((1, 5, 6), np.float32)
    xi = np.zeros((3, 12, 5, 6), np.float32)
    xi[0] = 1.0
    assert Variation(ramp.shape, xi).value(ramp) == 0.0
    assert Variation(ramp.shape).value(ramp) == pytest.approx(11.0 * 30.0)
    np.testing.assert_array_equal(Variation(ramp.shape, xi).proximal(ramp, 1.0, 20), ramp)


def test_solution_is_that_of_another_solver():
    """Against quasi-Newton descent in double precision on lengths rounded off at 1e-4."""
    shape, weight = (8, 4, 5), 0.5
    problem, n, right = dense_problem(np.random.default_rng(1), shape)
    d = dense_gradient(shape)

    def objective(x, rounding=0.0):
        steps = (d @ x).reshape(3, -1)
        lengths = np.sqrt((steps**2).sum(0) + rounding**2)
        slope = n @ x - right
        if rounding:
            slope = slope + weight * d.T @ (steps / lengths).ravel()
        return 0.5 * x @ n @ x - right @ x + weight * lengths.sum(), slope

    other = minimize(
        objective, right, (1e-4,), jac=True, method="L-BFGS-B", options={"maxiter": 20000, "maxfun": 40000}
    )
    found = tv(problem, weight, 2000, 1e-6).ravel().astype(float)
    assert objective(found)[0] <= objective(other.x)[0] + 1e-3
    np.testing.assert_allclose(found, other.x, atol=0.02 * np.ptp(other.x))


def test_no_weight_is_least_squares_and_a_huge_one_a_constant():
    problem, n, right = dense_problem(np.random.default_rng(2), (6, 5, 4))
    np.testing.assert_allclose(tv(problem, 0.0, 2000, 1e-7).ravel(), np.linalg.solve(n, right), atol=2e-2)
    np.testing.assert_allclose(tv(problem, 1e4, 400, 1e-6), right.sum() / n.sum(), rtol=2e-2)


def test_progress_and_end():
    problem, _, _ = dense_problem(np.random.default_rng(3), (6, 5, 4))
    seen = []
    first = tv(problem, 0.3, 40, 1e-3, progress=lambda *step: seen.append(step))
    assert seen == [(i + 1, 40) for i in range(len(seen))]
    assert len(seen) < 40
    assert first.tobytes() == tv(problem, 0.3, 40, 1e-3).tobytes()


def test_gradient():
    image = np.random.default_rng(4).standard_normal(SHAPE).astype(np.float32)
    expected = (dense_gradient(SHAPE) @ image.ravel()).reshape(3, *SHAPE)
    np.testing.assert_allclose(gradient(image), expected, atol=1e-6)
