"""Regional signals from k-space against the signal equation summed over all voxels at every sample."""

from dataclasses import replace

import finufft
import numpy as np
import pytest

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.kspace import KspaceSystem, Spokes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.trajectory import radial_trajectory
from sodium_prep.regional.estimates import PSF_WIDTH
from sodium_prep.regional.signals import regional_signals
from tests.pvc.heads import rigid

ACQUISITION = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (8.0, 8.0, 8.0), 0.3)
TRAJECTORY = radial_trajectory(ACQUISITION, 1400, 64)
SHAPE, VOXEL_MM = (26, 25, 24), 8.0
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
AFFINE[:3, 3] = -VOXEL_MM * (np.array(SHAPE) // 2)
T1W_SHAPE = (27, 29, 26)
T1W_AFFINE = np.diag([4.4, 4.4, 4.4, 1.0])
T1W_AFFINE[:3, 3] = [-58.0, -61.0, -57.0]
RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
TRUTH = np.array([45.0, 35.0, 55.0, 140.0, 25.0])
N_COILS = 3


def head():
    """Nested shells with soft edges: cortex in two parts, white matter, ventricle, scalp."""
    grid = np.stack(np.indices(T1W_SHAPE), axis=-1) @ T1W_AFFINE[:3, :3] + T1W_AFFINE[:3, 3]
    radius = np.linalg.norm(grid / [50.0, 55.0, 48.0], axis=-1)
    soft = [np.clip((edge - radius) / 0.12 + 0.5, 0.0, 1.0) for edge in (0.35, 0.65, 0.85, 1.0)]
    front = 1.0 / (1.0 + np.exp(-grid[..., 1] / 6.0))
    parts = {
        "front": ("GM", "cortex", front * (soft[2] - soft[1])),
        "white": ("WM", "wm", soft[1] - soft[0]),
        "back": ("GM", "hippocampus", (1.0 - front) * (soft[2] - soft[1])),
        "ventricle": ("CSF", "csf", soft[0]),
        "scalp": ("extracerebral", "", soft[3] - soft[2]),
    }
    out = Compartments([], [], [], [], [], T1W_SHAPE, T1W_AFFINE)
    for index, (name, (tissue, structure, weights)) in enumerate(parts.items()):
        voxels = np.flatnonzero(weights.ravel() > 1e-4)
        kind = "nuisance" if name == "scalp" else "region"
        out.append(name, tissue, kind, voxels, weights.ravel()[voxels], index=index, structure=structure)
    return out


def sensitivity(points_mm, n_coils=N_COILS):
    """Smooth complex profiles of unit norm over the coils, (coils, ...)."""
    if n_coils == 1:
        return np.ones((1, *points_mm.shape[:-1]), complex)
    angles = 2.0 * np.pi * np.arange(n_coils) / n_coils
    x, y, z = np.moveaxis(points_mm, -1, 0)
    profiles = [np.exp((x * np.cos(a) + y * np.sin(a)) / 110.0 + 1j * (a + z * np.sin(a) / 120.0)) for a in angles]
    return np.stack(profiles) / np.sqrt(np.sum(np.abs(profiles) ** 2, axis=0))


def course(tissue, relaxations=RELAXATIONS):
    decay = t2star_factor(ACQUISITION.echo_time_s + TRAJECTORY.time_s, relaxations[tissue])
    return decay / t2star_factor(ACQUISITION.echo_time_s, relaxations[tissue])


def still_columns(compartments, n_coils=N_COILS):
    """Signal of each compartment without decay, (n, coils, spokes, samples), by the sum over all voxels."""
    k = TRAJECTORY.k_per_mm.reshape(-1, 3).astype(np.float64)
    used = np.unique(np.concatenate(compartments.voxels))
    in_t1w = np.stack(np.unravel_index(used, T1W_SHAPE), axis=1) @ T1W_AFFINE[:3, :3] + T1W_AFFINE[:3, 3]
    points = (in_t1w - rigid()[:3, 3]) @ rigid()[:3, :3]
    weights = np.zeros((len(compartments.names), used.size))
    for row, voxels, values in zip(weights, compartments.voxels, compartments.weights, strict=True):
        row[np.searchsorted(used, voxels)] = values * compartments.voxel_volume_mm3
    strengths = (weights[:, None] * sensitivity(points, n_coils)).reshape(-1, used.size)
    angles = [*points.T.copy(), strengths, *(2.0 * np.pi * k.T.copy())]
    out = finufft.nufft3d3(*angles, eps=1e-8, isign=-1, nthreads=1)
    some = np.arange(0, len(k), 997)
    plain = strengths @ np.exp(-2j * np.pi * points @ k[some].T)
    np.testing.assert_allclose(out[:, some], plain, atol=1e-6 * np.abs(plain).max())
    return out.reshape(len(weights), n_coils, TRAJECTORY.n_readouts, TRAJECTORY.n_samples)


def spokes_of(samples, sigma=1.0, trajectory=TRAJECTORY):
    grid = np.stack(np.indices(SHAPE), axis=-1) @ AFFINE[:3, :3] + AFFINE[:3, 3]
    maps = sensitivity(grid, len(samples)).astype(np.complex64)
    return Spokes(samples.astype(np.complex64), sigma, trajectory, maps, AFFINE)


def system(compartments, samples, **options):
    return KspaceSystem(spokes_of(samples, **options), compartments, rigid(), ACQUISITION, RELAXATIONS)


def noise(rng, shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def products(left, right):
    """Real parts of all scalar products."""
    left, right = (np.ascontiguousarray(a).reshape(len(a), -1).view(np.float64) for a in (left, right))
    return left @ right.T


@pytest.fixture(scope="module")
def case():
    compartments = head()
    still = still_columns(compartments)
    columns = still * np.stack([course(t) for t in compartments.tissues])[:, None, None]
    weights = TRAJECTORY.weights_mm3[0] / TRAJECTORY.weights_mm3.max()
    return compartments, still, columns, columns * weights


def test_sums_are_those_over_all_samples(case):
    compartments, still, columns, weighted = case
    samples = noise(np.random.default_rng(1), columns.shape[1:])
    found = system(compartments, samples)
    scale = np.sqrt(np.diag(products(weighted, columns)))
    both = np.outer(scale, scale)
    np.testing.assert_allclose(found.matrix / both, products(weighted, columns) / both, atol=1e-4)
    np.testing.assert_allclose(found.noise_matrix / both, products(weighted, weighted) / both, atol=1e-4)
    # For data of noise alone the right side is the adjoint of the model.
    right = products(weighted, samples[None])[:, 0]
    sd = np.sqrt(np.diag(products(weighted, weighted)))
    np.testing.assert_allclose(found.right / sd, right / sd, atol=1e-3)
    moved = replace(RELAXATIONS["WM"], t2star_slow_s=RELAXATIONS["WM"].t2star_slow_s + 1e-6)
    slope = (course("WM", RELAXATIONS | {"WM": moved}) - course("WM")) / 1e-6
    expected = products(weighted, still[1:2] * slope)[:, 0]
    change = found.by_parameter["WM", "t2star_slow_s"]
    np.testing.assert_allclose(change[:, 1], expected, atol=1e-3 * np.abs(expected).max())
    assert not change[:, [0, 2, 3, 4]].any()


def test_concentrations_of_several_decays_come_back_through_several_coils(case):
    compartments, _, columns, _ = case
    samples = np.tensordot(TRUTH, columns, 1)
    fit = system(compartments, samples).fit()
    np.testing.assert_allclose(fit.values[:4], TRUTH[:4], rtol=1e-3)  # the scalp is pulled to zero
    one = np.zeros((5, 4))
    one[[0, 1, 2, 3, 4], [0, 1, 0, 2, 3]] = 1.0
    through_profile = 2.0 * np.tensordot([50.0, 35.0, 50.0, 140.0, 25.0], columns, 1)
    spokes = spokes_of(through_profile).without_profile(np.full(SHAPE, 2.0))
    merged = KspaceSystem(spokes, compartments, rigid(), ACQUISITION, RELAXATIONS).fit(one)
    np.testing.assert_allclose(merged.values[:3], [50.0, 35.0, 140.0], rtol=1e-3)


def test_covariance_is_that_of_repeated_noise(case):
    compartments, _, _, weighted = case
    few = replace(TRAJECTORY, k_per_mm=TRAJECTORY.k_per_mm[::10])
    weighted = weighted[:, :, ::10]
    fit = system(compartments, np.zeros(weighted.shape[1:]), sigma=3.0, trajectory=few).fit()
    rng = np.random.default_rng(2)
    rights = np.stack([products(weighted, 3.0 * noise(rng, (1, *weighted.shape[1:])))[:, 0] for _ in range(250)])
    drawn = rights @ fit.operator.T
    white = np.linalg.inv(np.linalg.cholesky(fit.covariance))
    found = np.cov((drawn @ white.T).T)
    np.testing.assert_allclose(found, np.eye(5), atol=4.5 * np.sqrt(2.0 / 250))


def test_what_is_left_out_of_the_model_far_away_does_not_reach_the_regions(case):
    compartments, _, columns, _ = case
    k = TRAJECTORY.k_per_mm.astype(np.float64)
    places = [np.array([a, 78.0, b]) for a in (-6.0, 0.0, 6.0) for b in (-12.0, -6.0, 0.0, 6.0, 12.0)]
    vial = (
        100.0 * 6.0**3 * np.sum([np.exp(-2j * np.pi * (k @ at)) * sensitivity(at)[:, None, None] for at in places], 0)
    )
    clean = np.tensordot(TRUTH, columns, 1)
    error = system(compartments, clean + vial).fit().values / TRUTH - 1.0
    plain = np.linalg.solve(products(columns, columns), products(columns, (clean + vial)[None])[:, 0]) / TRUTH - 1.0
    assert np.abs(error[:4]).max() < 0.02
    assert np.abs(plain[:4]).max() > 3.0 * np.abs(error[:4]).max()


def test_spokes_that_differ_are_told(case):
    spokes = spokes_of(np.zeros((1, TRAJECTORY.n_readouts, TRAJECTORY.n_samples)))
    bent = TRAJECTORY.k_per_mm.copy()
    bent[5, 30] *= 1.01
    assert spokes.alike
    assert not replace(spokes, trajectory=replace(TRAJECTORY, k_per_mm=bent)).alike


def test_agrees_with_the_gridded_image_within_its_errors(case):
    compartments, _, _, _ = case
    still = still_columns(compartments, 1)
    columns = still * np.stack([course(t) for t in compartments.tissues])[:, None, None]
    sigma = 3e6
    samples = np.tensordot(TRUTH, columns, 1) + sigma * noise(np.random.default_rng(3), columns.shape[1:])
    image = grid_image(samples.astype(np.complex64), TRAJECTORY, SHAPE, (VOXEL_MM,) * 3)[0].real
    sd = np.full(SHAPE, gridding_noise_sd(sigma, TRAJECTORY), np.float32)
    found = regional_signals(
        image, AFFINE, Noise(sd, trajectory_noise_spectrum(SHAPE, (VOXEL_MM,) * 3, TRAJECTORY)), compartments, rigid(),
        ACQUISITION, RELAXATIONS, PsfModel("acquisition", ACQUISITION), estimators=("labbe", "kspace"),
        spokes=spokes_of(samples, sigma),
    )  # fmt: skip
    gridded, direct = found.by_estimator["labbe"], found.by_estimator["kspace"]
    assert 0.01 < (np.sqrt(direct.noise_var) / direct.values).max() < 0.2
    assert (np.abs(direct.values - gridded.values) < 1.5 * np.sqrt(gridded.noise_var)).all()
    assert (direct.noise_var < 1.05 * gridded.noise_var).all()
    np.testing.assert_allclose(direct.registration_var, gridded.registration_var, rtol=0.3)
    np.testing.assert_allclose(direct.fraction_var, gridded.fraction_var, rtol=0.3)
    assert direct.slopes.keys() == gridded.slopes.keys() - {PSF_WIDTH}
    for parameter in (("GM", "t2star_slow_s"), ("WM", "t2star_fast_s")):
        np.testing.assert_allclose(direct.slopes[parameter], gridded.slopes[parameter], rtol=0.15)
