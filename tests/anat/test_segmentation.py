"""Labels keep their places on any grid, masks hold the sulci, and another head is told from the right one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.segmentation import (
    brain_mask_of_labels,
    freesurfer_table,
    labels_on_grid,
    same_head,
    tissue_image,
)
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import load_atlas, load_template
from tests.anat.colin import colin27
from tests.anat.heads import dice, make_head, smooth_bias

CONFORMED = np.array([[-2, 0, 0, 127], [0, 0, 2, -127], [0, -2, 0, 127], [0, 0, 0, 1.0]])


def moved(shift_mm=(0, 0, 0), turn_deg=0.0, scale=(1, 1, 1)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn_deg) * np.array([2, 1, 2]) / 3).as_matrix() @ np.diag(scale)
    matrix[:3, 3] = shift_mm
    return matrix


def ellipsoids(affine, shape):
    """Three ellipsoids whose centres and volumes in the world are known."""
    points = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    labels = np.zeros(shape, np.int32)
    for label, centre, radii in TRUTH:
        labels[(((points - centre) / radii) ** 2).sum(axis=-1) <= 1] = label
    return labels


TRUTH = [
    (2, np.array([-20.0, 5, 0]), np.array([12.0, 15, 9])),
    (17, np.array([14.0, -12, 7]), np.array([8.0, 8, 8])),
    (2035, np.array([10.0, 20, -9]), np.array([5.0, 9, 12])),
]
SOURCE = moved((45, -45, 45)) @ np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("grid", "shape", "within"),
    [
        (moved((-41.3, -44.8, -39.9), 12.0), (80, 84, 70), 0.03),
        (moved((-44.5, -44.5, -44.5)), (90, 90, 90), 0.03),
        (moved((-44.5, -44.2, -42), 8.0, (0.9, 0.9, 3.0)), (94, 94, 26), 0.03),
        # The ellipsoids lie symmetrically on this grid, so that voxels of 8 mm3 come and go in eights.
        (moved((44, -44, -40), 0.0, (-2.0, 2.0, 2.0)), (44, 44, 40), 0.05),
        (moved((-44, -44, -40), 30.0, (0.5, 1.0, 1.6)), (170, 84, 50), 0.03),
    ],
    ids=["oblique", "half a voxel apart", "thick slices", "coarse and mirrored", "fine and turned"],
)
def test_labels_keep_their_centres_and_volumes(grid, shape, within):
    grid = grid.copy()
    # The middle of the new grid comes to the middle of the ellipsoids, whatever its turn.
    grid[:3, 3] -= apply_affine(grid, (np.array(shape) - 1) / 2) - [0, 2, 0]
    labels = ellipsoids(SOURCE, (90, 90, 90))
    out = labels_on_grid(labels, SOURCE, shape, grid)
    voxel = abs(np.linalg.det(grid[:3, :3]))
    assert set(np.unique(out)) == {0, 2, 17, 2035}
    for label, centre, _ in TRUTH:
        found = apply_affine(grid, np.argwhere(out == label)).mean(axis=0)
        np.testing.assert_allclose(found, centre, atol=0.2)
        assert (out == label).sum() * voxel == pytest.approx((labels == label).sum(), rel=within)


def test_grids_of_the_same_voxels_lose_nothing():
    labels = np.random.default_rng(1).integers(0, 3000, (9, 11, 13)).astype(np.int32)
    affine = moved((3.3, -7.1, 12.9), 17.0, (1.1, 0.9, 2.3))
    np.testing.assert_array_equal(labels_on_grid(labels, affine, labels.shape, affine), labels)
    swapped = affine @ np.array([[0, 0, -1.0, 8], [1, 0, 0, 0], [0, -1, 0, 12], [0, 0, 0, 1]])
    np.testing.assert_array_equal(
        labels_on_grid(labels, affine, (11, 13, 9), swapped), labels.transpose(1, 2, 0)[:, ::-1, ::-1]
    )
    beyond = affine.copy()
    beyond[:3, 3] -= affine[:3, 0] * 4
    assert not labels_on_grid(labels, affine, (4, 11, 13), beyond).any()


def test_thick_voxels_take_the_most_frequent_label():
    labels = np.zeros((6, 2, 2), np.int32)
    labels[:3], labels[3:5], labels[5] = [[[7]], [[8]], [[9]]]
    labels[0] = 10
    grid = np.diag([3.0, 1, 1, 1])
    grid[0, 3] = 1.0
    np.testing.assert_array_equal(labels_on_grid(labels, np.eye(4), (2, 2, 2), grid)[:, 0, 0], [7, 8])


def test_mask_of_labels_holds_sulci_and_ventricles():
    atlas, template = load_atlas(), load_template()
    open_labels = np.where(np.isin(atlas.labels, [4, 43, 14, 15]), 0, atlas.labels)
    mask = brain_mask_of_labels(open_labels, atlas.affine)
    cavities = ndimage.binary_erosion(np.isin(atlas.labels, [4, 43]))
    assert mask[cavities].all()
    assert dice(mask, template.brain_mask) > 0.95
    assert dice(mask, template.brain_mask) > dice(atlas.labels > 0, template.brain_mask) + 0.02


def test_table_of_labels():
    table = freesurfer_table([0, 77, 3, 42, 24, 17, 2035, 5001, 251, 3, 12101]).set_index("index")
    assert list(table.index) == [3, 17, 24, 42, 77, 251, 2035, 5001, 12101]
    assert list(table["hemisphere"]) == ["L", "L", "both", "R", "both", "both", "R", "L", "R"]
    structures = ["cortex", "hippocampus", "csf", "cortex", "wm", "wm", "cortex", "wm", "cortex"]
    assert list(table["structure"]) == structures
    assert table.loc[24, "name"] == "Other-CSF"
    with pytest.raises(ValueError, match=r"\[999\]"):
        freesurfer_table([999, 17])


def conformed(t1w, affine, move=None, bias=0.4):
    """The head on a grid like FreeSurfer's in 8 bits, shaded, and moved in the world."""
    grid = CONFORMED.copy()
    grid[:3, 3] += [3.3, -10.2, 5.5]
    to_voxel = np.linalg.inv(affine) @ np.linalg.inv(np.eye(4) if move is None else move) @ grid
    data = ndimage.affine_transform(t1w.astype(np.float32), to_voxel, output_shape=(128,) * 3, order=1)
    data *= smooth_bias(data.shape, bias, np.random.default_rng(3))
    return np.clip(data / np.percentile(data[data > 0], 99.5) * 255, 0, 255).astype(np.uint8), grid


@pytest.fixture(scope="module")
def head():
    return make_head(2.0, bias=0.3, noise=0.03)


@pytest.mark.parametrize(
    ("shift_mm", "turn_deg"), [((0, 0, 0), 0), ((0.5, 0, 0), 0), ((0, 2, 0), 0), ((0, 0, 5), 0), ((0, 0, 0), 2)]
)
def test_displacement_is_measured(head, shift_mm, turn_deg):
    move = moved(shift_mm, turn_deg)
    found = same_head(*conformed(head.t1w, head.affine, move), head.t1w, head.affine, head.brain)
    points = apply_affine(head.affine, np.argwhere(head.brain))
    truth = np.linalg.norm(apply_affine(move, points) - points, axis=1).mean()
    assert found.displacement_mm == pytest.approx(truth, abs=0.35)
    assert found.correlation > (0.9 if truth < 1 else 0.5)


def test_other_contrast_and_missing_skull_are_the_same_head(head):
    for t1w in (head.t1w * head.brain, head.t1w.max() - head.t1w):
        found = same_head(*conformed(t1w, head.affine), head.t1w, head.affine, head.brain)
        assert found.correlation > 0.8
        assert found.displacement_mm < 0.5


def test_another_head_a_flip_and_a_shift_are_told(head):
    flip = np.diag([-1.0, 1, 1, 1])
    for move, expected in ((flip, True), (moved((3, 0, 0)) @ flip, True), (moved((3, 0, 0)), False)):
        found = same_head(*conformed(head.t1w, head.affine, move), head.t1w, head.affine, head.brain)
        assert found.mirrored is expected
        assert abs(found.mirrored_correlation - found.aligned_correlation) > 0.03
    apart = same_head(*conformed(head.t1w, head.affine, moved((0, 10, 0))), head.t1w, head.affine, head.brain)
    assert apart.correlation < 0.3
    other, affine = colin27()
    assert same_head(*conformed(other, affine), head.t1w, head.affine, head.brain).correlation < 0.68


def test_labels_stand_for_an_image(head):
    atlas = load_atlas()
    image = tissue_image(atlas.labels)
    right = same_head(image, atlas.affine, head.t1w, head.affine, atlas.labels > 0, atlas.affine)
    wrong = same_head(
        image, moved((0, 5, 0)) @ atlas.affine, head.t1w, head.affine, atlas.labels > 0, moved((0, 5, 0)) @ atlas.affine
    )
    assert right.correlation > 0.7
    assert right.displacement_mm < 0.5
    assert wrong.correlation < 0.6
