import numpy as np
import pytest

from sodium_prep.recon.readouts import Readouts
from tests.recon.analytic import complex_noise, small_trajectory

SHAPE = (12, 9, 14)
VOXEL_MM = (6.0, 7.0, 5.5)


def _plane_waves(k):
    index = np.moveaxis(np.indices(SHAPE), 0, -1) - np.asarray(SHAPE) // 2
    return np.exp(-2j * np.pi * (index * np.array(VOXEL_MM)).reshape(-1, 3) @ k.reshape(-1, 3).T)


@pytest.mark.parametrize("shift", [0.0, 0.01], ids=["spokes", "beside the centre"])
def test_readouts_equal_the_direct_sums_and_are_adjoint(shift):
    k = small_trajectory(12, 160).k_per_mm + np.float32(shift)
    rng = np.random.default_rng(1)
    x, y = complex_noise(rng, SHAPE).astype(np.complex64), complex_noise(rng, k.shape[:2]).astype(np.complex64)
    operator, waves = Readouts(k, SHAPE, VOXEL_MM), _plane_waves(k)
    # Straight readouts through the centre are computed from fewer samples, others are not.
    assert (operator.n_transformed < 0.5 * k[..., 0].size) is (shift == 0.0)
    forward = (waves.T @ x.ravel() * np.prod(VOXEL_MM)).reshape(k.shape[:2])
    adjoint = (waves.conj() @ y.ravel()).reshape(SHAPE)
    ax, aty = operator.forward(x), operator.adjoint(y)
    assert np.linalg.norm(ax - forward) < 2e-5 * np.linalg.norm(forward)
    assert np.linalg.norm(aty - adjoint) < 2e-5 * np.linalg.norm(adjoint)
    ax = ax / np.prod(VOXEL_MM)
    assert abs(np.vdot(y, ax) - np.vdot(aty, x)) < 1e-5 * np.linalg.norm(ax) * np.linalg.norm(y)


def test_a_voxel_in_the_corner_is_held_by_the_fewer_samples():
    k = small_trajectory(12, 160).k_per_mm
    corner = np.zeros(SHAPE, np.complex64)
    corner[0, 0, 0] = 1.0
    exact = _plane_waves(k)[0].reshape(k.shape[:2]) * np.prod(VOXEL_MM)
    assert np.abs(Readouts(k, SHAPE, VOXEL_MM).forward(corner) - exact).max() < 1e-4 * np.abs(exact).max()
