"""The way to the other side of the brain, on heads in which it is known."""

from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from sodium_prep.anat.homologue import fit_mirror, mirrored_mask
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.phantom.individual import HEAD_CENTRE_MM, random_anatomy, random_rigid
from tests.pvc.heads import rigid

ACROSS = np.diag([-1.0, 1.0, 1.0, 1.0])


@lru_cache
def symmetric_labels():
    """The left labels of the atlas, and the same again on the right."""
    atlas = load_atlas()
    table = atlas.table
    left, right = (table[table["hemisphere"] == side].sort_values("name") for side in "LR")
    counterpart = np.zeros(int(table["index"].max()) + 1, np.int32)
    names = {
        n.replace("ctx-rh", "ctx-lh").replace("Right", "Left"): i
        for n, i in zip(right["name"], right["index"], strict=True)
    }
    for name, index in zip(left["name"], left["index"], strict=True):
        counterpart[index] = names[name]
    n = 2 * round(-atlas.affine[0, 3]) + 1  # voxels of 1 mm, x = 0 in the middle
    assert atlas.affine[0, 0] == 1.0
    half = np.where(np.isin(atlas.labels, left["index"]), atlas.labels, 0)[: n // 2]
    labels = np.zeros((n, *half.shape[1:]), np.int32)
    labels[: n // 2], labels[n // 2 + 1 :] = half, counterpart[half[::-1]]
    return labels[::2, ::3, ::3], atlas.affine @ np.diag([2.0, 3.0, 3.0, 1.0]), table


def test_exact_where_the_head_is_symmetric_however_it_lies():
    labels, affine, table = symmetric_labels()
    pose = rigid((15.0, -20.0, 30.0), (12.0, -5.0, 8.0))
    found = fit_mirror(labels, pose @ affine, table)
    assert found.n_pairs > 30
    points = apply_affine(pose @ affine, np.argwhere(labels > 0)[::50])
    true = apply_affine(pose @ ACROSS @ np.linalg.inv(pose), points)
    np.testing.assert_allclose(apply_affine(found.matrix, points), true, atol=0.05)
    # A lesion that swallows a part of some labels shifts their centres, and nothing else.
    lesion = np.linalg.norm(np.argwhere(np.ones(labels.shape)) - [27, 50, 40], axis=1).reshape(labels.shape) < 7.0
    torn = np.where(lesion, 0, labels)
    spared = fit_mirror(torn, pose @ affine, table, avoid=ndimage.binary_dilation(lesion))
    assert 8 < spared.n_pairs < found.n_pairs
    np.testing.assert_allclose(apply_affine(spared.matrix, points), true, atol=0.05)


def test_within_a_few_millimetres_in_a_deformed_head():
    """Against the way through the template, mirrored at x = 0, which is itself not quite symmetric."""
    atlas, rng = load_atlas(), np.random.default_rng(0)
    anatomy, pose = random_anatomy(rng), random_rigid(rng, 12.0, 6.0)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -99.0

    def shift(head):
        control = np.linalg.inv(anatomy.affine)
        return np.stack(
            [ndimage.map_coordinates(f, apply_affine(control, head).T, order=1) for f in anatomy.displacement_mm], -1
        )

    head = apply_affine(np.linalg.inv(pose) @ affine, np.argwhere(np.ones((67, 67, 67))))
    place = HEAD_CENTRE_MM + anatomy.scale * head + shift(head)
    voxels = apply_affine(np.linalg.inv(atlas.affine), place)
    labels = ndimage.map_coordinates(atlas.labels, voxels.T, order=0).reshape(67, 67, 67)
    across = place[labels.ravel() > 0] * [-1.0, 1.0, 1.0]
    there = across
    for _ in range(8):
        there = (across - HEAD_CENTRE_MM - shift(there)) / anatomy.scale
    found = fit_mirror(labels, affine, atlas.table)
    error = np.linalg.norm(
        apply_affine(found.matrix, apply_affine(affine, np.argwhere(labels))) - apply_affine(pose, there), axis=1
    )
    assert np.median(error) < 3.5
    assert np.percentile(error, 95) < 6.0
    assert found.residual_mm < 3.5


def test_too_few_labels_tell_nothing():
    labels, affine, table = symmetric_labels()
    assert fit_mirror(np.where(np.isin(labels, [2, 41, 17, 53]), labels, 0), affine, table) is None


def test_a_mask_goes_to_the_other_side():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-59.0, -39.0, -39.0]
    mask = np.zeros((60, 40, 40), bool)
    mask[5:12, 10:18, 20:25] = True
    mirror = ACROSS.copy()
    mirror[0, 3], mirror[1, 3] = 4.0, -6.0
    moved = mirrored_mask(mask, affine, mirror)
    assert moved.sum() == pytest.approx(mask.sum(), rel=0.01)
    expected = apply_affine(mirror @ affine, np.argwhere(mask).mean(axis=0)[None])[0]
    np.testing.assert_allclose(apply_affine(affine, np.argwhere(moved).mean(axis=0)[None])[0], expected, atol=0.05)
