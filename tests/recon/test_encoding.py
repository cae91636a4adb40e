import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, eigsh

from sodium_prep.recon.encoding import Encoding, least_squares
from sodium_prep.recon.time_courses import TimeBasis, decay_basis, off_resonance_basis
from sodium_prep.recon.toeplitz import Toeplitz
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory

SHAPE = (12, 10, 14)
VOXEL_MM = (6.0, 7.0, 5.5)
PRECISIONS = [(np.complex64, 2e-5), (np.complex128, 1e-10)]


@pytest.fixture(scope="module")
def trajectory():
    return small_trajectory(150, 40)


def _encoding(trajectory, courses, dtype, workers=1):
    rng = np.random.default_rng(3)
    maps = complex_noise(rng, (3, *SHAPE)).astype(dtype)
    if courses == "none":
        return Encoding(trajectory.k_per_mm, VOXEL_MM, maps, dtype=dtype, workers=workers)
    if courses == "decay":
        basis = decay_basis(trajectory.time_s, 0.0045)
        values = rng.uniform(0.05, 1.0, SHAPE)
    else:
        basis = off_resonance_basis(trajectory.time_s, 30.0)
        values = rng.uniform(-30.0, 30.0, SHAPE)
    return Encoding(trajectory.k_per_mm, VOXEL_MM, maps, basis.courses, basis.at(values), dtype, workers)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("courses", ["none", "decay", "off-resonance"])
def test_adjoint_linear_and_normal(trajectory, courses, dtype, tolerance):
    encoding = _encoding(trajectory, courses, dtype)
    rng = np.random.default_rng(4)
    x, z = complex_noise(rng, (2, *SHAPE)).astype(dtype)
    y = complex_noise(rng, (3, *trajectory.k_per_mm.shape[:2])).astype(dtype)
    ax = encoding.forward(x) / np.prod(VOXEL_MM)
    bound = tolerance * np.linalg.norm(ax) * np.linalg.norm(y)
    assert abs(np.vdot(y, ax) - np.vdot(encoding.adjoint(y), x)) < bound
    sums = encoding.forward(2.0 * x - 3j * z) - (2.0 * encoding.forward(x) - 3j * encoding.forward(z))
    assert np.linalg.norm(sums) < tolerance * np.linalg.norm(ax) * np.prod(VOXEL_MM)
    weights = trajectory.weights_mm3
    expected = encoding.adjoint(weights * encoding.forward(x))
    assert np.linalg.norm(encoding.normal(weights)(x) - expected) < tolerance * np.linalg.norm(expected)


def test_threads_change_nothing(trajectory):
    x = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)
    y = complex_noise(np.random.default_rng(6), (3, *trajectory.k_per_mm.shape[:2])).astype(np.complex64)
    one, two = (_encoding(trajectory, "decay", np.complex64, n) for n in (1, 2))
    assert one.normal(trajectory.weights_mm3)(x).tobytes() == two.normal(trajectory.weights_mm3)(x).tobytes()
    assert one.adjoint(y).tobytes() == two.adjoint(iter(y)).tobytes()


def test_normal_operator_of_a_sampled_sphere_keeps_what_was_sampled():
    trajectory = small_trajectory(3000, 200)
    n, voxel = 40, 6.0
    operator = Toeplitz(trajectory.k_per_mm, trajectory.weights_mm3, (n,) * 3, (voxel,) * 3)
    radius = np.linalg.norm((np.moveaxis(np.indices((n,) * 3), 0, -1) - n // 2) * voxel, axis=-1)
    smooth = np.exp(-0.5 * (radius / 18.0) ** 2)
    assert np.abs(operator(smooth[None].astype(np.complex64))[0] - smooth).max() < 3e-3


def test_single_precision_is_enough_for_a_smooth_image():
    """All of its signal lies where errors of the point response add up."""
    trajectory = small_trajectory(400, 200)
    smooth = np.zeros((40, 40, 40), np.complex64)
    smooth[10:30, 10:30, 10:30] = 40.0
    maps, weights = np.ones((1, 40, 40, 40)), trajectory.weights_mm3
    exact = Encoding(trajectory.k_per_mm, (6.0,) * 3, maps, dtype=np.complex128)
    expected = exact.adjoint(weights * exact.forward(smooth))
    found = Encoding(trajectory.k_per_mm, (6.0,) * 3, maps.astype(np.complex64)).normal(weights)(smooth)
    assert np.linalg.norm(found - expected) < 3e-6 * np.linalg.norm(expected)


def test_four_courses_are_a_decay_to_half_a_thousandth():
    """Data of two tissues with decay, as exact sums over ellipsoids, against the short sum over the grid's courses."""
    trajectory = small_trajectory(300, 200)
    time_s = 0.0005 + trajectory.time_s
    basis = decay_basis(time_s, 0.0045)
    bodies = [Ellipsoid(40.0, (85.0, 72.0, 65.0)), Ellipsoid(60.0, (20.0, 30.0, 25.0), (10.0, 5.0, 0.0))]
    for mono in ([0.003, 0.018], [0.020, 0.050]):
        exact = sum(b.spectrum(trajectory.k_per_mm) * np.exp(-time_s / t) for b, t in zip(bodies, mono, strict=True))
        courses = [basis.at(np.exp(-0.0045 / np.array(t))) @ basis.courses for t in mono]
        short = sum(b.spectrum(trajectory.k_per_mm) * c for b, c in zip(bodies, courses, strict=True))
        assert np.linalg.norm(short - exact) < 5e-4 * np.linalg.norm(exact)
    basis = off_resonance_basis(time_s, 30.0)
    hertz = np.linspace(-30.0, 30.0, 31)
    error = basis.at(hertz).T @ basis.courses - np.exp(2j * np.pi * hertz[:, None] * time_s)
    assert np.linalg.norm(error) < 5e-4 * np.sqrt(error.size)


def test_slopes_of_a_basis_are_those_of_its_courses():
    time_s = np.linspace(0.0005, 0.0105, 200)
    basis = decay_basis(time_s, 0.0045, 6)
    ratio = np.array([0.1, 0.4, 0.9])
    exact = (time_s / 0.0045) * ratio[:, None] ** (time_s / 0.0045 - 1.0)
    assert isinstance(basis.slope(), TimeBasis)
    np.testing.assert_allclose(basis.slope().at(ratio).T @ basis.courses, exact, atol=5e-3 * exact.max())


def test_right_side_is_the_gridded_image():
    trajectory = small_trajectory(3000, 200)
    body = Ellipsoid(40.0, (85.0, 72.0, 65.0), (6.0, -4.0, 3.0), 15.0)
    n, voxel = 40, 6.0
    maps = np.ones((1, n, n, n), np.complex64)
    encoding = Encoding(trajectory.k_per_mm, (voxel,) * 3, maps)
    kspace = body.spectrum(trajectory.k_per_mm)[None].astype(np.complex64)
    problem = least_squares(encoding, kspace, trajectory.weights_mm3)
    inside = body.depth((n,) * 3, (voxel,) * 3) < 0.7
    assert problem.right[inside].mean() == pytest.approx(40.0, rel=5e-3)


@pytest.mark.parametrize("uniform", [True, False])
def test_largest_eigenvalue_is_a_bound_and_near_for_smooth_maps(trajectory, uniform):
    maps = np.ones((1, *SHAPE), np.complex64) if uniform else _encoding(trajectory, "none", np.complex64).sensitivities
    encoding = Encoding(trajectory.k_per_mm, VOXEL_MM, maps)
    kspace = np.zeros((len(maps), *trajectory.k_per_mm.shape[:2]), np.complex64)
    problem = least_squares(encoding, kspace, trajectory.weights_mm3)
    size = int(np.prod(SHAPE))
    operator = LinearOperator(
        (size, size), matvec=lambda x: problem.normal(x.reshape(SHAPE).astype(np.float32)).ravel(), dtype=np.float32
    )
    exact = float(eigsh(operator, 1, tol=1e-4, v0=np.ones(size, np.float32))[0][0])
    assert exact <= problem.largest_eigenvalue()
    if uniform:
        assert problem.largest_eigenvalue() <= 1.2 * exact
