from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sodium_prep.anat.brain import extract_brain, head_mask
from sodium_prep.anat.coreg import register_runs, register_sodium
from sodium_prep.anat.jobs import JobSettings
from sodium_prep.anat.register import (
    register_to_template,
    template_priors,
    warp_labels_to_t1w,
    warp_priors_to_t1w,
)
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import load_atlas, load_template
from tests.anat.heads import dice, make_head, template_parts
from tests.anat.test_transforms import rigid

WORK_MM = 3.0


@pytest.fixture(scope="module")
def displaced():
    return make_head(3.0, turn_deg=15, shift_mm=(12, -12, 10), bias=0.3, noise=0.03, seed=7)


@pytest.fixture(scope="module")
def extracted(displaced):
    return extract_brain(displaced.t1w, displaced.affine, load_template(), work_mm=WORK_MM)


def test_brain_of_a_displaced_head(displaced, extracted):
    assert dice(extracted.brain_mask, displaced.brain) > 0.95
    tissue = displaced.gm + displaced.wm
    assert tissue[extracted.brain_mask].sum() > 0.98 * tissue.sum()
    assert not np.any(extracted.brain_mask & ~extracted.head_mask)


def test_head_mask_is_filled_and_leaves_vials_out():
    head = make_head(3.0, noise=0.03, seed=8)
    parts, _ = template_parts()
    truth_ml = parts.sum() / 1000
    image = head.t1w.copy()
    image[2:5, 30:33, 20:40] = 900.0
    mask = head_mask(image, head.affine)
    assert mask.sum() * 27 / 1000 == pytest.approx(truth_ml, rel=0.05)
    assert mask[head.brain].all()
    assert not mask[2:5, 30:33, 20:40].any()


def test_head_mask_of_a_sodium_image_stands_above_its_noise_floor():
    clean, affine = sodium_image(np.eye(4))
    rng = np.random.default_rng(3)
    # A floor at 0.35 of the brain's level, as a multi-channel magnitude image has it.
    image = np.hypot(clean, 18.0 + 3.0 * rng.standard_normal(clean.shape)).astype(np.float32)
    parts, _ = template_parts()
    mask = head_mask(image, affine)
    # Some of the scalp drowns in such a floor, but the brain is held and the air is not.
    assert parts[:3].sum() < mask.sum() * 64 < 1.05 * parts.sum()
    assert mask[clean > 35].mean() > 0.98


def test_template_labels_reach_the_subject(tmp_path, displaced, extracted):
    template, atlas = load_template(), load_atlas()
    found = register_to_template(
        displaced.t1w, displaced.affine, extracted.brain_mask, template, tmp_path,
        initial=extracted.t1w_to_template, work_mm=WORK_MM, fast=True,
    )  # fmt: skip
    assert found.forward.is_file()
    labels = warp_labels_to_t1w(atlas, displaced.t1w.shape, displaced.affine, found.inverse)
    # The head is the template moved by a known rigid map, so the labels' place is known.
    move = rigid_of(15, (12, -12, 10))
    for index in (17, 53, 10, 50):
        truth = apply_affine(move, centroid(atlas.labels == index, atlas.affine))
        assert np.linalg.norm(centroid(labels == index, displaced.affine) - truth) < 1.5
    priors = template_priors(template, atlas)
    assert np.allclose(priors.sum(axis=0)[template.brain_mask], 1, atol=1e-5)
    warped = warp_priors_to_t1w(priors[1:2], template.affine, displaced.t1w.shape, displaced.affine, found.inverse)
    assert np.corrcoef(warped[0][displaced.brain], displaced.wm[displaced.brain])[0, 1] > 0.8


def centroid(mask, affine):
    return apply_affine(affine, np.argwhere(mask).mean(axis=0))


def rigid_of(turn_deg, shift_mm):
    from scipy.spatial.transform import Rotation

    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn_deg) * np.array([1, 2, 2]) / 3).as_matrix()
    move[:3, 3] = shift_mm
    return move


def sodium_image(to_sodium, seed=0, voxel_mm=4.0):
    """A low-resolution sodium image of the head: CSF bright, a bright rim around the brain, scalp, and two vials."""
    rng = np.random.default_rng(seed)
    (gm, wm, csf, _, scalp), affine = template_parts()
    distance = ndimage.distance_transform_edt(gm + wm + csf == 0)
    rim = (distance > 0) & (distance < 3)
    image = ndimage.gaussian_filter(45 * gm + 38 * wm + 140 * csf + 80 * rim + 25 * scalp, 3.0)
    shape = (64, 64, 64)
    grid = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    grid[:3, 3] = -voxel_mm * 31.5
    grid[:3, 3] += (0, -18, 10)
    to_voxel = np.linalg.inv(affine) @ np.linalg.inv(to_sodium) @ grid
    out = ndimage.affine_transform(image, to_voxel, output_shape=shape, order=1)
    # Vials stay with the coil when the head moves.
    out[4:8, 44:48, 25:40] += 110
    out[56:60, 44:48, 25:40] += 60
    return np.hypot(out + 3 * rng.standard_normal(shape), 3 * rng.standard_normal(shape)).astype(np.float32), grid


def target_error(found, truth):
    lattice = np.argwhere(np.ones((5, 5, 5))) * 30.0 - np.array([60, 78, 50])
    return np.linalg.norm(apply_affine(found @ truth, lattice) - lattice, axis=1).mean()


@pytest.mark.parametrize(("angle", "shift", "starts"), [(0.08, (3, -4, 5), 1), (0.35, (15, -10, 12), 4)])
def test_sodium_is_found_on_the_t1w(angle, shift, starts):
    head = make_head(2.0, noise=0.03, seed=9)
    move = np.eye(4)
    move[:3, :3] = rigid_of(np.rad2deg(angle), (0, 0, 0))[:3, :3]
    move[:3, 3] = shift
    sodium, affine = sodium_image(move)
    found = register_sodium(sodium, affine, head.t1w, head.affine, head.brain)
    assert target_error(found.sodium_to_t1w, move) < 0.5
    assert np.allclose(found.sodium_to_t1w[:3, :3] @ found.sodium_to_t1w[:3, :3].T, np.eye(3), atol=1e-5)
    assert found.nmi > found.nmi_header
    assert found.n_starts == starts


def test_runs_are_laid_on_the_first():
    move = rigid(4)
    move[:3, :3] = rigid_of(4, (0, 0, 0))[:3, :3]
    move[:3, 3] = 2, -3, 1
    first, affine = sodium_image(np.eye(4), seed=1)
    second, _ = sodium_image(move, seed=2)
    still, moved = register_runs([first, second], [affine, affine], settings=JobSettings(seed=1))
    assert np.array_equal(still, np.eye(4))
    assert target_error(moved, move) < 0.5
