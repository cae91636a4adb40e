from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.phantom import grids
from sodium_prep.phantom.concentrations import draw_concentrations, sodium_sources, tissue_maps
from sodium_prep.phantom.head import CHANNELS, EYES_MM, template_head
from sodium_prep.phantom.individual import HEAD_CENTRE_MM, pose_head, random_anatomy, random_rigid
from sodium_prep.phantom.protocol import PROTOCOLS, Lesion
from sodium_prep.phantom.sodium import simulate_kspace
from sodium_prep.phantom.truth import region_table
from sodium_prep.physics.signal import signal_factor
from sodium_prep.recon.trajectory import radial_trajectory

LESION = Lesion((28.0, -20.0, 30.0), 7.0, 1.5)


@pytest.fixture(scope="module")
def pose():
    return random_rigid(np.random.default_rng(8), 5.0, 4.0)


@pytest.fixture(scope="module")
def anatomy():
    return random_anatomy(np.random.default_rng(7))


@pytest.fixture(scope="module")
def head(anatomy, pose):
    return pose_head(template_head(), anatomy, pose, (LESION,))


def test_template_has_the_volumes_of_an_adult_head():
    litres = {
        name: values.sum(dtype=float) / 1e6 for name, values in zip(CHANNELS, template_head().fractions, strict=True)
    }
    assert 0.65 < litres["gm"] < 0.95
    assert 0.55 < litres["wm"] < 0.80
    assert 0.20 < litres["csf"] < 0.35
    assert litres["vitreous"] * 1e3 == pytest.approx(2 * 4.0 / 3.0 * np.pi * 1.2**3, rel=0.02)


def test_fractions_fill_no_more_than_the_voxel(head):
    total = np.zeros(head.brain_mask.shape, np.float32)
    for name, values in head.fractions.items():
        assert values.min() >= -1e-5, name
        total += values
    assert total.max() < 1.0 + 1e-4
    assert total[head.brain_mask].min() > 0.999


@pytest.mark.parametrize("seed", range(5))
def test_warp_is_invertible(seed):
    anatomy = random_anatomy(np.random.default_rng(seed))
    gradient = np.stack([np.stack(np.gradient(u, 4.0)) for u in anatomy.displacement_mm.astype(float)])
    jacobian = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.diag(anatomy.scale)
    determinant = np.linalg.det(jacobian)
    assert determinant.min() > 0.3
    length = np.linalg.norm(anatomy.displacement_mm, axis=0)
    assert 2.9 < length.max() < 6.1


def test_eyes_lie_where_warp_and_pose_put_them(head, anatomy, pose):
    voxel = np.stack(np.nonzero(head.fractions["vitreous"] > 0.5))
    world = head.affine[:3, :3] @ voxel + head.affine[:3, 3:]
    in_head = np.linalg.inv(pose)[:3, :3] @ (world - pose[:3, 3:])
    control = np.linalg.inv(anatomy.affine)[:3, :3] @ (in_head - anatomy.affine[:3, 3:])
    nearest = tuple(np.rint(control).astype(int))
    template = (
        HEAD_CENTRE_MM[:, None] + anatomy.scale[:, None] * in_head + anatomy.displacement_mm[(slice(None), *nearest)]
    )
    for eye in EYES_MM:
        own = template[:, np.sign(template[0]) == np.sign(eye[0])]
        np.testing.assert_allclose(own.mean(axis=1), eye, atol=0.5)


def test_k_space_centre_and_region_table_hold_the_same_sodium(head):
    protocol = PROTOCOLS["fast"]
    concentrations = draw_concentrations(
        template_head().table, np.random.default_rng(1), effects={"hippocampus": 0.2}, subject_sd=0.05, region_sd=0.02
    )
    maps = tissue_maps(head, concentrations, (LESION,))
    trajectory = radial_trajectory(protocol.acquisition, 4, protocol.n_samples)
    sources = sodium_sources(maps, 3.0)
    pose = random_rigid(np.random.default_rng(3), 5.0, 5.0)
    kspace = simulate_kspace(sources, head.affine, pose, trajectory, protocol.acquisition)
    amount = sum(
        one.concentration_mM.sum(dtype=float) * signal_factor(protocol.acquisition, one.relaxation) for one in sources
    )
    np.testing.assert_allclose(kspace[0, :, 0], amount, rtol=1e-4)

    rows = region_table(head, maps, template_head().table)
    by_name = {(row["name"], row["hemisphere"]): row for row in rows}
    for tissue in ("GM", "WM"):
        regions = [row for row in rows if row["tissue"] == tissue and row["index"] is not None and row["tsc"]]
        assert sum(row["tsc"] * row["volume_mm3"] for row in regions) == pytest.approx(
            maps[tissue].sum(dtype=float), rel=1e-4
        )
    hippocampus = by_name["Hippocampus", "L"]
    assert hippocampus["tsc"] == pytest.approx(concentrations.by_label[17], rel=1e-5)
    assert by_name["Left-Hippocampus", "L"]["tsc"] == hippocampus["tsc"]
    # The lesion lies in right white matter and nowhere else.
    assert by_name["WhiteMatter", "R"]["tsc"] > concentrations.by_label[41] * 1.001
    assert by_name["WhiteMatter", "L"]["tsc"] == pytest.approx(concentrations.by_label[2], rel=1e-5)


def test_block_averages_keep_the_total_and_majorities_the_labels():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(12, 18, 6)).astype(np.float32)
    labels = np.kron(rng.integers(0, 5, (4, 6, 2)), np.ones((3, 3, 3), int))
    for ratio in (1.0, 1.5, 2.0):
        coarse = grids.block_average(values, ratio)
        assert coarse.shape == tuple(int(n / ratio) for n in values.shape)
        assert coarse.sum() * ratio**3 == pytest.approx(values.sum(), rel=1e-5)
    np.testing.assert_array_equal(
        grids.block_majority(labels, 1.5), np.kron(labels[::3, ::3, ::3], np.ones((2, 2, 2), int))
    )
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(grids.block_affine(affine, 2.0)[:3, 3], 0.5)
