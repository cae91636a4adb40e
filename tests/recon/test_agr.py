import itertools

import numpy as np
import pytest

from sodium_prep.recon.agr import agr, bowsher, edge_directions, guide_noise, similarity_laplacian
from sodium_prep.recon.encoding import Encoding, least_squares
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.tv import tv
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory
from tests.recon.priors import dense_problem

SHAPE = (6, 5, 4)


def _guide():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def test_edges_all_below_notice_leave_total_variation():
    problem, _, _ = dense_problem(np.random.default_rng(1), SHAPE)
    found = agr(problem, _guide(), 0.5, 100, 1e-5, edge=1e6)
    np.testing.assert_allclose(found, tv(problem, 0.5, 100, 1e-5), atol=1e-4)


def test_directions_are_those_of_the_edges():
    guide = np.zeros((8, 8, 8))
    guide[:, 4:] = 500.0
    xi = edge_directions(guide, 0.05)
    np.testing.assert_allclose(xi[1, :, 3], 1.0 / np.sqrt(1.0 + 0.05**2), rtol=1e-5)
    xi[1, :, 3] = 0.0
    assert not xi.any()


def test_noise_of_a_guide_is_found_and_is_no_edge():
    guide = np.zeros((30, 30, 30))
    guide[3:-3, 3:-3, 3:-3] = 600.0
    guide[:, 15:] *= 1.6
    rng = np.random.default_rng(6)
    flat = (slice(5, 25), slice(5, 13), slice(5, 25))
    for noise in (10.0, 60.0):
        noisy = guide + noise * rng.standard_normal(guide.shape)
        assert guide_noise(noisy) == pytest.approx(noise, rel=0.1)
        lengths = np.linalg.norm(edge_directions(noisy), axis=0)
        assert np.median(lengths[flat]) < 0.75
        assert np.median(lengths[5:25, 14, 5:25]) > 0.85


@pytest.mark.parametrize(
    ("guide", "reason"),
    [
        (np.zeros((6, 5, 5)), r"grid \(6, 5, 5\), the sodium image \(6, 5, 4\)"),
        (np.full(SHAPE, 3.0), "constant"),
        (np.where(_guide() > 1.0, np.nan, _guide()), "not finite"),
        (np.where(_guide() > 1.0, 1e300, 0.0), "not finite"),
    ],
)
@pytest.mark.parametrize("method", [agr, bowsher])
def test_unusable_guides_are_refused(method, guide, reason):
    problem, _, _ = dense_problem(np.random.default_rng(1), SHAPE)
    with pytest.raises(ValueError, match=reason):
        method(problem, guide, 0.5)


def test_laplacian_is_that_of_the_most_similar_neighbours():
    guide = np.random.default_rng(2).uniform(size=(5, 4, 6)).astype(np.float32)
    guide[:2] = 0.5
    scale = 1e3 / np.ptp(np.percentile(guide, [0.1, 99.9]))
    points = list(itertools.product(*map(range, guide.shape)))
    expected = np.zeros((len(points),) * 2)
    for i, a in enumerate(points):
        near = []
        for j, b in enumerate(points):
            offset = np.subtract(b, a)
            if 0 < offset @ offset <= 6:
                near.append((round(scale * abs(guide[a] - guide[b])), offset @ offset, *offset, j))
        for *_, j in sorted(near)[:3]:
            expected[[i, j, i, j], [i, j, j, i]] += [1.0, 1.0, -1.0, -1.0]
    np.testing.assert_allclose(similarity_laplacian(guide, 3).toarray(), expected, atol=1e-6)


def test_more_neighbours_than_a_corner_has_are_refused():
    assert similarity_laplacian(_guide(), 19).shape == (120, 120)
    with pytest.raises(ValueError, match="fewer than 20 neighbours"):
        similarity_laplacian(_guide(), 20)


def test_bowsher_is_a_linear_system():
    problem, n, right = dense_problem(np.random.default_rng(3), SHAPE)
    guide = _guide()
    exact = np.linalg.solve(n + 0.8 / 4 * similarity_laplacian(guide, 4).toarray(), right)
    np.testing.assert_allclose(bowsher(problem, guide, 0.8, 4, 200, 1e-7).ravel(), exact, atol=1e-3)


@pytest.fixture(scope="module")
def head():
    """A head with a rod that the guide shows and a ball that it does not; noise of 4 in the gridded image."""
    n, voxel, noise = 36, 6.0, 4.0
    trajectory = small_trajectory(2000, 200)
    body = Ellipsoid(35.0, (85.0, 95.0, 80.0))
    rod = Ellipsoid(15.0, (12.0, 38.0, 12.0), (-38.0, -10.0, -20.0), 10.0)
    ball = Ellipsoid(45.0, (18.0, 18.0, 18.0), (36.0, 20.0, 25.0))
    sd = noise / gridding_noise_sd(1.0, trajectory, "none")
    kspace = sum(b.spectrum(trajectory.k_per_mm) for b in (body, rod, ball))
    kspace = kspace + sd * complex_noise(np.random.default_rng(4), kspace.shape)
    encoding = Encoding(trajectory.k_per_mm, (voxel,) * 3, np.ones((1, n, n, n), np.complex64))
    problem = least_squares(encoding, kspace[None], trajectory.weights_mm3)
    depths = [b.depth((n,) * 3, (voxel,) * 3) for b in (body, rod, ball)]
    guide = 1.0 * (depths[0] < 1.0) - 0.35 * (depths[1] < 1.0)
    guide += 0.01 * np.random.default_rng(5).standard_normal(guide.shape)
    regions = {
        "flat": (depths[0] < 0.75) & (depths[1] > 2.0) & (depths[2] > 2.0),
        "rod": depths[1] < 0.75,
        "ball": depths[2] < 0.8,
    }
    return problem, guide, noise, regions


def _means(image, regions):
    return {name: image[mask].mean() for name, mask in regions.items()}


def test_half_the_noise_keeps_what_only_sodium_shows(head):
    problem, guide, noise, regions = head
    guided, strong = (agr(problem, guide, strength * noise, tolerance=3e-3) for strength in (0.5, 8.0))
    found = _means(guided, regions)
    assert found["flat"] == pytest.approx(35.0, rel=0.01)
    assert found["rod"] == pytest.approx(50.0, rel=0.02)
    assert found["ball"] == pytest.approx(80.0, rel=0.04)
    assert guided[regions["flat"]].std() < 0.4 * problem.right[regions["flat"]].std()
    assert _means(strong, regions)["ball"] < 0.9 * 80.0
    unguided = _means(tv(problem, 0.5 * noise, tolerance=3e-3), regions)
    assert abs(found["rod"] - 50.0) < 0.5 * abs(unguided["rod"] - 50.0)
