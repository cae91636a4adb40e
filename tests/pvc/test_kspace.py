"""Regional signals from k-space against the signal equation summed sample by sample and voxel by voxel."""

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.kspace import KspaceSystem, Spokes
from sodium_prep.recon.trajectory import radial_trajectory
from tests.pvc.heads import rigid

ACQUISITION = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (8.0, 8.0, 8.0), 0.3)
TRAJECTORY = radial_trajectory(ACQUISITION, 240, 72)
SHAPE, VOXEL_MM = (26, 25, 24), 8.0
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
AFFINE[:3, 3] = -VOXEL_MM * (np.array(SHAPE) // 2)
T1W_AFFINE = np.diag([3.5, 3.5, 3.5, 1.0])
T1W_SHAPE = (34, 36, 32)
T1W_AFFINE[:3, 3] = [-58.0, -61.0, -57.0]
RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
TRUTH = np.array([45.0, 35.0, 55.0, 140.0, 25.0])


def head():
    """Nested shells, a part of the outer one, and scalp."""
    grid = np.stack(np.indices(T1W_SHAPE), axis=-1) @ T1W_AFFINE[:3, :3] + T1W_AFFINE[:3, 3]
    radius = np.linalg.norm(grid / [50.0, 55.0, 48.0], axis=-1)
    soft = [np.clip((edge - radius) / 0.12 + 0.5, 0.0, 1.0) for edge in (0.35, 0.65, 0.85, 1.0)]
    front = 1.0 / (1.0 + np.exp(-grid[..., 1] / 6.0))
    layers = [front * (soft[2] - soft[1]), soft[1] - soft[0], (1.0 - front) * (soft[2] - soft[1])]
    out = Compartments([], [], [], [], [], T1W_SHAPE, T1W_AFFINE)
    for name, tissue, weights in zip(
        ["front", "white", "back", "ventricle", "scalp"], ["GM", "WM", "GM", "CSF", "extracerebral"],
        [*layers, soft[0], soft[3] - soft[2]], strict=True,
    ):  # fmt: skip
        voxels = np.flatnonzero(weights.ravel() > 1e-4)
        kind = "nuisance" if name == "scalp" else "region"
        out.append(name, tissue, kind, voxels, weights.ravel()[voxels])
    return out


def sensitivity(points_mm, n_coils):
    """Smooth complex profiles of unit norm over the coils, (coils, ...)."""
    if n_coils == 1:
        return np.exp(1j * points_mm[..., 0] / 90.0)[None]
    angles = 2.0 * np.pi * np.arange(n_coils) / n_coils
    profiles = np.stack(
        [
            np.exp((points_mm[..., 0] * np.cos(a) + points_mm[..., 1] * np.sin(a)) / 110.0)
            * np.exp(1j * (a + points_mm[..., 2] * np.sin(a) / 120.0))
            for a in angles
        ]
    )
    return profiles / np.sqrt(np.sum(np.abs(profiles) ** 2, axis=0))


def brute_columns(compartments, n_coils, relaxations=RELAXATIONS):
    """Signal of each compartment, (n, coils, spokes, samples), by the sum over all voxels."""
    k = TRAJECTORY.k_per_mm.reshape(-1, 3).astype(np.float64)
    used = np.unique(np.concatenate(compartments.voxels))
    in_t1w = np.stack(np.unravel_index(used, T1W_SHAPE), axis=1) @ T1W_AFFINE[:3, :3] + T1W_AFFINE[:3, 3]
    points = (in_t1w - rigid()[:3, 3]) @ rigid()[:3, :3]
    profiles = sensitivity(points, n_coils)
    weights = np.zeros((len(compartments.names), used.size))
    for row, voxels, values in zip(weights, compartments.voxels, compartments.weights, strict=True):
        row[np.searchsorted(used, voxels)] = values * compartments.voxel_volume_mm3
    both = (weights[:, None] * profiles).reshape(-1, used.size).T
    out = np.concatenate([np.exp(-2j * np.pi * part @ points.T) @ both for part in np.array_split(k, 12)])
    out = out.T.reshape(len(weights), n_coils, TRAJECTORY.n_spokes, TRAJECTORY.n_samples)
    for column, tissue in zip(out, compartments.tissues, strict=True):
        decay = t2star_factor(ACQUISITION.echo_time_s + TRAJECTORY.time_s, relaxations[tissue])
        column *= decay / t2star_factor(ACQUISITION.echo_time_s, relaxations[tissue])
    return out


def system(compartments, samples, sigma=1.0, **options):
    grid = np.stack(np.indices(SHAPE), axis=-1) @ AFFINE[:3, :3] + AFFINE[:3, 3]
    maps = sensitivity(grid, len(samples)).astype(np.complex64)
    spokes = Spokes(samples.astype(np.complex64), sigma, TRAJECTORY, maps, AFFINE)
    assert spokes.alike
    return KspaceSystem(spokes, compartments, rigid(), ACQUISITION, RELAXATIONS, **options)


@pytest.fixture(scope="module")
def case():
    compartments = head()
    return compartments, brute_columns(compartments, 3)


def products(left, right):
    return np.real(left.reshape(len(left), -1).conj() @ right.reshape(len(right), -1).T)


def test_normal_equations_are_the_sums_over_all_samples(case):
    compartments, columns = case
    rng = np.random.default_rng(1)
    samples = rng.standard_normal(columns.shape[1:]) + 1j * rng.standard_normal(columns.shape[1:])
    found = system(compartments, samples)
    matrix = products(columns, columns)
    scale = np.sqrt(np.diag(matrix))
    print(np.abs(found.matrix - matrix)/np.outer(scale, scale))
    # Data of noise alone: the right side is the adjoint of the model.
    right = products(columns, samples[None])[:, 0]
    print((found.right - right)/ scale / np.linalg.norm(samples)*np.sqrt(samples.size), right/scale)
    np.testing.assert_allclose(found.matrix / np.outer(scale, scale), matrix / np.outer(scale, scale), atol=1e-4)
