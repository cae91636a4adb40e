import numpy as np
import pytest

from sodium_prep.errors import InputError
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.options import Options
from sodium_prep.recon.reconstruct import reconstruct
from tests.recon.analytic import Ellipsoid, complex_noise, raw_data, small_trajectory

HEAD = Ellipsoid(40.0, (85.0, 72.0, 65.0), (6.0, -4.0, 3.0), 15.0)
N, VOXEL_MM = 40, 6.0
DEPTH = HEAD.depth((N,) * 3, (VOXEL_MM,) * 3)
INSIDE, AIR = DEPTH < 0.8, DEPTH > 1.4
PERIOD_MM = 480.0


@pytest.fixture(scope="module")
def trajectory():
    return small_trajectory(3000, 200)


def _coil_terms(n_coils):
    """Sensitivities as sums of plane waves exp(2 pi i q . r): their k-space is a sum of shifted spectra."""
    rng = np.random.default_rng(5)
    q = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]) / PERIOD_MM
    weights = 0.12 * complex_noise(rng, (n_coils, 7))
    weights[:, 0] = 0.5 * np.exp(2j * np.pi * np.arange(n_coils) / n_coils)
    return q, weights


def _coil_kspace(trajectory, n_coils):
    q, weights = _coil_terms(n_coils)
    shifted = np.stack([HEAD.spectrum(trajectory.k_per_mm - shift) for shift in q])
    return np.tensordot(weights, shifted, axes=1)


def _profile(n_coils, covariance=None):
    """sqrt(s^2 C^H Psi^-1 C) on the grid."""
    q, weights = _coil_terms(n_coils)
    r = (np.moveaxis(np.indices((N,) * 3), 0, -1) - N // 2) * VOXEL_MM
    maps = np.tensordot(weights, np.exp(2j * np.pi * np.tensordot(q, r, axes=(1, 3))), axes=1)
    covariance = np.eye(n_coils) if covariance is None else covariance
    inverse = np.linalg.inv(covariance) * np.trace(covariance).real / n_coils
    return np.sqrt(np.einsum("cxyz,cd,dxyz->xyz", maps.conj(), inverse, maps).real)


def _with_noise(kspace, sigma, covariance=None):
    kspace = np.atleast_3d(kspace) if np.ndim(kspace) == 3 else kspace[None]
    mixing = sigma * np.linalg.cholesky(np.eye(len(kspace)) if covariance is None else covariance)
    noise = np.tensordot(mixing, complex_noise(np.random.default_rng(11), kspace.shape), axes=1)
    scan = mixing @ complex_noise(np.random.default_rng(12), (len(kspace), 50_000))
    return (kspace + noise).astype(np.complex64), scan.astype(np.complex64)


@pytest.mark.parametrize("kspace_filter", ["none", "hamming"])
@pytest.mark.parametrize("with_scan", [True, False])
def test_one_coil_keeps_value_and_states_its_noise(trajectory, kspace_filter, with_scan):
    truth = HEAD.spectrum(trajectory.k_per_mm)
    receive_phase = np.exp(2.1j)
    kspace, scan = _with_noise(truth * receive_phase, 2e6)
    noisy = reconstruct(
        raw_data(kspace, trajectory, N, VOXEL_MM, noise=scan if with_scan else None),
        Options(kspace_filter=kspace_filter),
    )
    clean = reconstruct(
        raw_data((truth * receive_phase)[None], trajectory, N, VOXEL_MM), Options(kspace_filter=kspace_filter)
    )
    assert clean.image[INSIDE].mean() == pytest.approx(40.0, rel=5e-3)
    assert noisy.noise_from_scan is with_scan
    error = (noisy.image - clean.image)[INSIDE]
    assert error.std() == pytest.approx(noisy.noise_sd[0, 0, 0], rel=0.03)
    assert noisy.noise_sd[0, 0, 0] == pytest.approx(gridding_noise_sd(2e6, trajectory, kspace_filter), rel=0.03)
    assert abs(error.mean()) < 0.15


@pytest.mark.parametrize("n_coils", [1, 8])
def test_air_has_no_rician_floor(trajectory, n_coils):
    kspace = _coil_kspace(trajectory, n_coils)
    noisy, scan = _with_noise(kspace, 2e6)
    result = reconstruct(raw_data(noisy, trajectory, N, VOXEL_MM, noise=scan))
    sd = result.noise_sd[0, 0, 0]
    assert abs(result.image[AIR].mean()) < 0.03 * sd
    assert result.image[AIR].std() == pytest.approx(sd, rel=0.05)
    assert result.magnitude[AIR].mean() > 1.1 * sd


@pytest.mark.parametrize(
    "covariance", [None, np.diag(np.linspace(0.5, 2.0, 8)) + 0.2 * np.ones((8, 8))], ids=["equal", "correlated"]
)
def test_eight_channels_hold_the_stated_receive_profile(trajectory, covariance):
    noisy, scan = _with_noise(_coil_kspace(trajectory, 8), 4e5, covariance)
    result = reconstruct(raw_data(noisy, trajectory, N, VOXEL_MM, noise=scan), Options(kspace_filter="hamming"))
    single = reconstruct(
        raw_data(HEAD.spectrum(trajectory.k_per_mm)[None], trajectory, N, VOXEL_MM), Options(kspace_filter="hamming")
    )
    ratio = result.image[INSIDE] / (_profile(8, covariance)[INSIDE] * single.image[INSIDE])
    assert result.n_coils == 8
    assert ratio.mean() == pytest.approx(1.0, abs=5e-3)
    assert ratio.std() < 0.02 + result.noise_sd[0, 0, 0] / result.image[INSIDE].mean()


def test_smooth_phase_of_an_image_is_removed(trajectory):
    # exp(2 pi i q . r) in space shifts k-space: a phase ramp of 2 rad over the head.
    shifted = HEAD.spectrum(trajectory.k_per_mm - np.array([1.0, 0.5, -0.5]) / PERIOD_MM)
    result = reconstruct(raw_data(shifted[None], trajectory, N, VOXEL_MM))
    assert result.image[INSIDE].mean() == pytest.approx(40.0, rel=5e-3)
    np.testing.assert_allclose(result.image[INSIDE], result.magnitude[INSIDE], rtol=0.01)


def test_same_bytes_every_time(trajectory):
    kspace, _ = _with_noise(_coil_kspace(trajectory, 2), 1e5)
    first, second = (reconstruct(raw_data(kspace, trajectory, N, VOXEL_MM)) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()


def test_refusals(trajectory):
    for samples in (60, 150):
        with pytest.raises(InputError, match="too far for a field of view of 240 mm"):
            reconstruct(raw_data(np.ones((1, 100, samples)), small_trajectory(100, samples), N, VOXEL_MM))
    kspace, scan = _with_noise(_coil_kspace(trajectory, 2), 1.0)
    with pytest.raises(InputError, match="duplicated channels"):
        reconstruct(raw_data(kspace[[0, 0]], trajectory, N, VOXEL_MM, noise=scan[[0, 0]]))


def test_a_map_of_off_resonance_undoes_it():
    """Two bodies of 25 and -40 Hz, each with its own turning signal in closed form."""
    n, voxel = 40, 6.0
    trajectory = small_trajectory(3000, 200)
    bodies = {
        25.0: Ellipsoid(40.0, (50.0, 50.0, 50.0), (-52.0, 0.0, 0.0)),
        -40.0: Ellipsoid(60.0, (40.0, 40.0, 40.0), (48.0, 10.0, 0.0)),
    }
    still = sum(b.spectrum(trajectory.k_per_mm) for b in bodies.values())
    turned = sum(
        b.spectrum(trajectory.k_per_mm) * np.exp(2j * np.pi * hertz * trajectory.time_s) for hertz, b in bodies.items()
    )
    x = (np.indices((n,) * 3)[0] - n // 2) * voxel
    hertz_map = np.where(x < 2.0, 25.0, -40.0).astype(np.float32)
    inside = np.any([b.depth((n,) * 3, (voxel,) * 3) < 0.9 for b in bodies.values()], axis=0)
    for method in ("gridding", "sense"):
        truth, blurred, mended = (
            reconstruct(raw_data(data[None], trajectory, n, voxel), Options(method=method, off_resonance_hz=field))
            for data, field in ((still, None), (turned, None), (turned, hertz_map))
        )
        error, before = (np.linalg.norm((one.image - truth.image)[inside]) for one in (mended, blurred))
        assert error < 0.15 * before
