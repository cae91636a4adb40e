import numpy as np
import pytest

from sodium_prep.recon.nufft import Nufft
from tests.recon.analytic import complex_noise

SHAPE = (9, 12, 7)
VOXEL_MM = (3.0, 2.5, 4.0)
ORIGIN_MM = (4.0, -7.0, 1.5)


@pytest.fixture
def k_per_mm():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (300, 3)) / np.array(VOXEL_MM)


def _plane_waves(k, origin_mm):
    index = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij"), axis=-1)
    r = index * np.array(VOXEL_MM) + np.array(origin_mm)
    return np.exp(-2j * np.pi * r.reshape(-1, 3) @ k.T)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.complex64, 3e-5), (np.complex128, 1e-11)])
@pytest.mark.parametrize("origin_mm", [(0.0, 0.0, 0.0), ORIGIN_MM])
def test_operators_equal_the_direct_sums(k_per_mm, dtype, tolerance, origin_mm):
    rng = np.random.default_rng(1)
    x, y = complex_noise(rng, SHAPE), complex_noise(rng, len(k_per_mm))
    operator = Nufft(k_per_mm, SHAPE, VOXEL_MM, dtype, origin_mm)
    waves = _plane_waves(k_per_mm, origin_mm)
    forward = waves.T @ x.ravel() * np.prod(VOXEL_MM)
    adjoint = (waves.conj() @ y).reshape(SHAPE)
    assert operator.forward(x).dtype == dtype
    assert np.linalg.norm(operator.forward(x) - forward) < tolerance * np.linalg.norm(forward)
    assert np.linalg.norm(operator.adjoint(y) - adjoint) < tolerance * np.linalg.norm(adjoint)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.complex64, 1e-5), (np.complex128, 1e-12)])
def test_adjointness_and_linearity(k_per_mm, dtype, tolerance):
    rng = np.random.default_rng(2)
    x, z = complex_noise(rng, (2, *SHAPE)).astype(dtype)
    y = complex_noise(rng, len(k_per_mm)).astype(dtype)
    operator = Nufft(k_per_mm, SHAPE, VOXEL_MM, dtype, ORIGIN_MM)
    ax = operator.forward(x) / np.prod(VOXEL_MM)
    difference = np.vdot(y, ax) - np.vdot(operator.adjoint(y), x)
    assert abs(difference) < tolerance * np.linalg.norm(ax) * np.linalg.norm(y)
    combined = operator.forward(2.0 * x - 3j * z)
    parts = 2.0 * operator.forward(x) - 3j * operator.forward(z)
    assert np.linalg.norm(combined - parts) < tolerance * np.linalg.norm(parts)


def test_other_precisions_are_refused(k_per_mm):
    with pytest.raises(ValueError, match="complex64"):
        Nufft(k_per_mm, SHAPE, VOXEL_MM, np.float32)
