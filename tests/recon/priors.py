"""Small problems with known solutions for the tests of reconstruction with priors."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sodium_prep.recon.encoding import LeastSquares


def dense_gradient(shape):
    """(3 voxels, voxels) matrix of differences to the next voxel, zero at the far faces."""

    def along(axis):
        parts = [sparse.identity(n) for n in shape]
        difference = sparse.diags([-np.ones(shape[axis]), np.ones(shape[axis] - 1)], [0, 1]).tolil()
        difference[-1] = 0.0
        parts[axis] = difference
        return sparse.kron(sparse.kron(parts[0], parts[1]), parts[2])

    return sparse.vstack([along(axis) for axis in range(3)]).tocsr()


def random_directions(rng, shape):
    g = rng.standard_normal((3, *shape)).astype(np.float32)
    return g / np.sqrt((g * g).sum(0) + 0.5)


def directional(xi, vectors):
    """``v - xi (xi . v)`` of (3, voxels)."""
    xi = xi.reshape(3, -1)
    return vectors - xi * (xi * vectors).sum(0)


def dense_problem(rng, shape):
    """A random well-conditioned N, a step with noise behind b, and N and b as a matrix and a vector."""
    size = int(np.prod(shape))
    a = rng.standard_normal((size, size)) / np.sqrt(2.0 * size) + 0.7 * np.eye(size)
    n = (a.T @ a).astype(np.float32).astype(float)
    right = n @ (rng.standard_normal(size) + np.repeat([0.0, 4.0], size // 2))

    def normal(image):
        return (n @ image.ravel()).reshape(shape).astype(np.float32)

    return LeastSquares(normal, right.reshape(shape).astype(np.float32)), n, right
