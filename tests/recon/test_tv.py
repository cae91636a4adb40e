import numpy as np
import pytest
from scipy import sparse

from sodium_prep.recon.encoding import LeastSquares
from sodium_prep.recon.tv import Variation

SHAPE = (9, 6, 7)


def dense_gradient(shape):
    """(3, voxels, voxels) matrices of differences to the next voxel, zero at the far faces."""

    def one(n):
        difference = sparse.diags([-np.ones(n), np.ones(n - 1)], [0, 1]).tolil()
        difference[n - 1] = 0.0
        return difference

    eye = [sparse.identity(n) for n in shape]
    return [
        sparse.csr_matrix(sparse.kron(sparse.kron(*[one(n) if i == axis else eye[i] for i in (0, 1)]), last))
        for axis, n in enumerate(shape)
        for last in [one(n) if axis == 2 else eye[2]]
    ]


def directions(rng, shape):
    g = rng.standard_normal((3, *shape)).astype(np.float32)
    return g / np.sqrt((g * g).sum(0) + 0.5)


def dense_problem(rng, shape):
    """A smooth blur as N, its square root as A, noise in b: the matrix of N too."""
    size = int(np.prod(shape))
    a = rng.standard_normal((size, size)) / np.sqrt(2.0 * size) + 0.5 * np.eye(size)
    n = (a.T @ a).astype(np.float32)
    right = (n @ (rng.standard_normal(size) + np.repeat([0.0, 4.0], size // 2))).astype(np.float32)
    return LeastSquares(lambda x: (n @ x.ravel()).reshape(shape), right.reshape(shape)), n


@pytest.mark.parametrize("guided", [False, True])
def test_proximal_closes_the_duality_gap(guided):
    """The primal value of what comes out and the dual value of the vectors behind it bound the optimum."""
    rng = np.random.default_rng(0)
    xi = directions(rng, SHAPE) if guided else np.zeros((3, *SHAPE), np.float32)
    image = rng.standard_normal(SHAPE).astype(np.float32)
    prior = Variation(SHAPE, xi if guided else None)
    weight = 0.3
    x = prior.proximal(image, weight, 300).ravel().astype(float)
    gradients = dense_gradient(SHAPE)
    g = np.stack([d @ x for d in gradients])
    d = g - xi.reshape(3, -1) * (xi.reshape(3, -1) * g).sum(0)
    primal = 0.5 * np.sum((x - image.ravel()) ** 2) + weight * np.linalg.norm(d, axis=0).sum()
    assert prior.value(x.reshape(SHAPE).astype(np.float32)) == pytest.approx(np.linalg.norm(d, axis=0).sum(), rel=1e-5)
    p = prior._dual.reshape(3, -1).astype(float)
    assert np.linalg.norm(p, axis=0).max() <= weight * (1.0 + 1e-5)
    p -= xi.reshape(3, -1) * (xi.reshape(3, -1) * p).sum(0)
    behind = sum(d.T @ q for d, q in zip(gradients, p, strict=True))
    dual = 0.5 * np.sum(image.ravel() ** 2) - 0.5 * np.sum((image.ravel() - behind) ** 2)
    assert dual <= primal
    assert primal - dual < 2e-4 * primal
    np.testing.assert_allclose(x, image.ravel() - behind, atol=1e-5)
