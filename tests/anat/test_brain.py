"""The brain of every head: truth is the head that was built, or Colin27 with its published brain mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.bias_n4 import registration_bias
from sodium_prep.anat.brain import extract_brain, head_mask, stripped_brain
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import load_template
from sodium_prep.errors import InputError
from tests.anat.colin import colin27
from tests.anat.heads import dice, make_head, smooth_bias, template_parts

WORK_MM = 3.0


def assert_brain(found, brain, tissue, *, least_dice=0.95, least_tissue=0.99):
    assert dice(found.brain_mask, brain) > least_dice
    assert tissue[found.brain_mask].sum() > least_tissue * tissue.sum()
    assert not np.any(found.brain_mask & ~found.head_mask)


def test_known_bias_is_removed_for_registration():
    head = make_head(2.0, bias=0.4, noise=0.03, seed=6)
    bias = registration_bias(head.t1w, head.affine, head.brain)
    white = head.wm > 0.95
    before = np.log(head.bias[white])
    left = before - np.log(bias[white])
    assert np.std(before) > 0.06
    assert np.std(left) < 0.025
    assert np.percentile(np.abs(left - np.median(left)), 95) < 0.05
    assert bias.dtype == np.float32
    assert np.mean(np.log(bias[head.brain])) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("turn_deg", "shift_mm", "bias"),
    [
        (15, (12, -12, 10), 0.3),
        pytest.param(-40, (0, 0, 0), 0.4, marks=pytest.mark.thorough),
        pytest.param(30, (-15, 20, -10), 0.0, marks=pytest.mark.thorough),
    ],
)
def test_brain_of_a_displaced_head(turn_deg, shift_mm, bias):
    head = make_head(3.0, turn_deg=turn_deg, shift_mm=shift_mm, bias=bias, noise=0.03, seed=7)
    found = extract_brain(head.t1w, head.affine, load_template(), work_mm=WORK_MM)
    # Of 3 mm voxels, those that are less than half brain hold some tissue too.
    assert_brain(found, head.brain, head.gm + head.wm, least_tissue=0.98)
    # The head is the template moved by a known rigid map.
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn_deg) * np.array([1, 2, 2]) / 3).as_matrix()
    move[:3, 3] = shift_mm
    points = apply_affine(load_template().affine, np.argwhere(load_template().brain_mask)[::5000])
    errors = np.linalg.norm(apply_affine(found.t1w_to_template @ move, points) - points, axis=1)
    assert np.median(errors) < 2.0


@pytest.mark.thorough
def test_brain_whose_top_is_cut_off():
    head = make_head(3.0, noise=0.03, seed=3)
    last = int(np.flatnonzero(head.brain.any(axis=(0, 1)))[-1]) - 7
    found = extract_brain(head.t1w[..., :last], head.affine, load_template(), work_mm=WORK_MM)
    assert_brain(found, head.brain[..., :last], (head.gm + head.wm)[..., :last])
    assert any("% of the brain only" in note for note in found.notes)


@pytest.mark.thorough
def test_lesion_stays_part_of_the_brain():
    head = make_head(3.0, noise=0.03, seed=4)
    where = apply_affine(head.affine, np.argwhere(np.ones(head.t1w.shape)))
    lesion = (np.linalg.norm(where - (-50, -15, 30), axis=1) < 17).reshape(head.t1w.shape) & head.brain
    image = np.where(lesion, 2500.0, head.t1w).astype(np.float32)
    found = extract_brain(image, head.affine, load_template(), lesion=lesion, work_mm=WORK_MM)
    assert_brain(found, head.brain, (head.gm + head.wm) * ~lesion)
    assert found.brain_mask[lesion].mean() > 0.97


def test_brain_that_had_been_cut_out_keeps_its_outline():
    head = make_head(3.0, turn_deg=20, noise=0.03, seed=5)
    image = np.where(head.brain, head.t1w, 0).astype(np.float32)
    found = extract_brain(image, head.affine, load_template(), work_mm=WORK_MM)
    assert dice(found.brain_mask, head.brain) > 0.99
    assert any("had been cut out already" in note for note in found.notes)


def test_zero_background_alone_is_no_cut_out_brain():
    head = make_head(3.0, noise=0.0)
    assert stripped_brain(head.t1w, head.affine) is None
    brain = np.where(head.brain, head.t1w, 0).astype(np.float32)
    assert dice(stripped_brain(brain, head.affine), head.brain) > 0.99
    assert stripped_brain(brain + 1, head.affine) is None


def test_empty_image_is_refused():
    with pytest.raises(InputError, match="empty"):
        extract_brain(np.zeros((30, 30, 30), np.float32), np.diag([5.0, 5.0, 5.0, 1.0]), load_template(), work_mm=4.0)


@pytest.mark.thorough
def test_what_is_no_head_is_refused_with_the_evidence():
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.arange(-100.0, 101.0, 4.0),) * 3, indexing="ij")
    bottle = np.where((np.hypot(x, y) < 55) & (np.abs(z) < 90), 800.0, 0.0)
    image = np.hypot(bottle + 10 * rng.standard_normal(x.shape), 10 * rng.standard_normal(x.shape)).astype(np.float32)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -100
    with pytest.raises(InputError, match=r"nothing in the image looks like a brain .*dropped: .*air, not a skull"):
        extract_brain(image, affine, load_template(), work_mm=4.0)


def colin_brain():
    """Brain and its grey and white matter; the reference mask, made by BET, has holes at sulci."""
    brain, _ = colin27("ch2bet")
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(brain > 0, iterations=2))
    return filled, brain > 60


@pytest.mark.thorough
def test_brain_of_colin27():
    image, affine = colin27()
    brain, tissue = colin_brain()
    found = extract_brain(image.astype(np.float32), affine, load_template())
    assert_brain(found, brain, tissue, least_dice=0.955, least_tissue=0.995)
    assert found.notes == ()


@pytest.mark.thorough
def test_brain_of_colin27_tilted_shaded_noisy_in_thick_slices():
    image, affine = colin27()
    rng = np.random.default_rng(1)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", (25, -15, 20), degrees=True).as_matrix()
    move[:3, 3] = (20, -20, 20)
    grid = np.diag([1.5, 1.5, 3.0, 1.0])
    grid[:3, 3] = (-127, -143, -127)
    to_voxel = np.linalg.inv(affine) @ np.linalg.inv(move) @ grid
    head, brain, tissue = (
        ndimage.affine_transform(part.astype(np.float32), to_voxel, output_shape=(170, 170, 85), order=1)
        for part in (image, *colin_brain())
    )
    shaded = head * smooth_bias(head.shape, 0.4, rng)
    noisy = np.hypot(shaded + 8 * rng.standard_normal(head.shape), 8 * rng.standard_normal(head.shape))
    found = extract_brain(noisy.astype(np.float32), grid, load_template())
    assert_brain(found, brain > 0.5, tissue > 0.5, least_dice=0.94, least_tissue=0.98)


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


def test_head_mask_of_fine_voxels_is_as_large():
    head = make_head(1.0, noise=0.03, seed=8)
    parts, _ = template_parts()
    mask = head_mask(head.t1w, head.affine, head.brain)
    assert mask.sum() == pytest.approx(parts.sum(), rel=0.03)
    assert dice(mask, parts.sum(axis=0) > 0.5) > 0.98


def test_head_mask_of_a_sodium_image_stands_above_its_noise_floor():
    clean, affine = sodium_image()
    rng = np.random.default_rng(3)
    # A floor at 0.35 of the brain's level, as a multi-channel magnitude image has it.
    image = np.hypot(clean, 18.0 + 3.0 * rng.standard_normal(clean.shape)).astype(np.float32)
    parts, _ = template_parts()
    mask = head_mask(image, affine)
    # Some of the scalp drowns in such a floor, but the brain is held and the air is not.
    assert parts[:3].sum() < mask.sum() * 64 < 1.05 * parts.sum()
    assert mask[clean > 35].mean() > 0.98


def sodium_image(seed=0, voxel_mm=4.0):
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
    out = ndimage.affine_transform(image, np.linalg.inv(affine) @ grid, output_shape=shape, order=1)
    out[4:8, 44:48, 25:40] += 110
    out[56:60, 44:48, 25:40] += 60
    return np.hypot(out + 3 * rng.standard_normal(shape), 3 * rng.standard_normal(shape)).astype(np.float32), grid
