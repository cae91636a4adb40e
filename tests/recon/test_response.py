from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.recon.encoding import Encoding, least_squares
from sodium_prep.recon.response import point_lattice, point_response
from tests.recon.analytic import Ellipsoid, small_trajectory

N, VOXEL_MM, REACH = 40, 6.0, 8
HEAD = Ellipsoid(40.0, (85.0, 72.0, 65.0), (6.0, -4.0, 3.0), 15.0)


@pytest.fixture(scope="module")
def scan():
    trajectory = small_trajectory(3000, 200)
    encoding = Encoding(trajectory.k_per_mm, (VOXEL_MM,) * 3, np.ones((1, N, N, N), np.complex64))
    kspace = HEAD.spectrum(trajectory.k_per_mm)[None].astype(np.complex64)
    return trajectory, encoding, least_squares(encoding, kspace, trajectory.weights_mm3)


def test_points_lie_in_the_object_and_their_images_apart(scan):
    points = point_lattice(scan[2].right, 4)
    assert len(points) > 4
    depth = HEAD.depth((N,) * 3, (VOXEL_MM,) * 3)
    assert depth[tuple(points.T)].max() < 1.1
    apart = np.abs(points[:, None] - points[None]).max(axis=-1) + 100 * np.eye(len(points), dtype=int)
    assert apart.min() >= 9


def test_response_of_gridding_is_the_transform_of_the_sampled_ball(scan):
    """3 (sin q - q cos q) / q^3 with q = 2 pi kmax r, as measured by points of any contrast."""
    trajectory, _, problem = scan
    response = point_response(
        lambda p: p.right, problem, problem.right, lambda x: problem.normal(x), contrast=40.0, reach=REACH
    )
    r = VOXEL_MM * np.linalg.norm(np.moveaxis(np.indices(response.shape), 0, -1) - REACH, axis=-1)
    q = np.maximum(2.0 * np.pi * trajectory.kmax_per_mm * r, 1e-3)
    ball = 4.0 / 3.0 * np.pi * (trajectory.kmax_per_mm * VOXEL_MM) ** 3 * 3.0 * (np.sin(q) - q * np.cos(q)) / q**3
    near = r < 20.0
    np.testing.assert_allclose(response[near], np.where(r == 0, ball.max(), ball)[near], atol=5e-3 * ball.max())


def test_decay_widens_and_a_shift_moves_the_response(scan):
    trajectory, encoding, problem = scan
    decay = np.exp(-trajectory.time_s / 0.005)
    seen = encoding.normal(trajectory.weights_mm3 * decay)

    def moved(p):
        return np.roll(p.right, 1, axis=2)

    shifted = replace(problem, right=problem.right)
    response = point_response(moved, shifted, moved(shifted), lambda x: seen(x).real, 40.0, REACH)
    assert np.unravel_index(response.argmax(), response.shape) == (REACH, REACH, REACH + 1)
    assert response.max() < 0.5 * 4.0 / 3.0 * np.pi * (trajectory.kmax_per_mm * VOXEL_MM) ** 3
