from __future__ import annotations

from functools import lru_cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.ants import apply_transforms
from sodium_prep.anat.conform import mask_to_template
from sodium_prep.anat.fields import (
    Field,
    apply_to_points,
    invert_field,
    jacobian_determinants,
    map_points,
    read_transform,
    write_composite,
)
from sodium_prep.anat.register import (
    register_templates,
    register_to_template,
    template_priors,
    warp_labels_to_t1w,
    warp_priors_to_t1w,
)
from sodium_prep.anat.transforms import apply_affine, write_itk_affine
from sodium_prep.atlas.bundled import Atlas, Template, load_atlas, load_template
from tests.anat.heads import dice, make_head

WORK_MM = 3.0


def motion(turn_deg, shift_mm, axis=(1, 2, 2)):
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn_deg) * np.array(axis) / np.linalg.norm(axis)).as_matrix()
    out[:3, 3] = shift_mm
    return out


MOVE = motion(15, (12, -12, 10))


@lru_cache(maxsize=1)
def displaced():
    return make_head(3.0, turn_deg=15, shift_mm=(12, -12, 10), noise=0.03, seed=7)


def points_of_brain(template, step=211):
    return apply_affine(template.affine, np.argwhere(ndimage.binary_erosion(template.brain_mask, iterations=6))[::step])


def smooth_field(shape, grid, peak_mm, seed=0):
    """Displacements whose largest is about the peak, zero at the border."""
    rng = np.random.default_rng(seed)
    data = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), 5) for _ in range(3)], axis=-1)
    edges = [np.sin(np.pi * np.arange(n) / (n - 1)) for n in shape]
    data *= np.einsum("i,j,k->ijk", *edges)[..., None]
    return Field((data * peak_mm / np.abs(data).max()).astype(np.float32), grid)


def grid_of(step, n, origin=(-60, -70, -50), turn_deg=0.0):
    grid = motion(turn_deg, origin, (0, 0, 1)) @ np.diag([step, step, step, 1.0])
    return (n, n + 4, n - 3), grid


def linear_image(shape, grid):
    """Three images that are the coordinates themselves: what resampling makes of them is the map of points."""
    return np.moveaxis(apply_affine(grid, np.moveaxis(np.indices(shape), 0, -1)), -1, 0).astype(np.float32)


def test_files_mean_to_itk_what_they_mean_here(tmp_path):
    shape, grid = grid_of(3.0, 40, turn_deg=20)
    big, wide = grid_of(4.0, 60, (-150, -160, -120))
    target, place = grid_of(5.0, 9, (-40, -10, -20), turn_deg=-10)
    field, first, second = smooth_field(shape, grid, 6.0), motion(9, (4, -3, 2)), motion(-14, (5, 1, -6), (1, 0, 0))
    second[:3, :3] *= 1.1
    write_composite(tmp_path / "composite.h5", [field, first])
    write_itk_affine(tmp_path / "affine.txt", second)
    chain = [motion(5, (1, 2, 3)), tmp_path / "composite.h5", tmp_path / "affine.txt"]
    points = apply_affine(place, np.moveaxis(np.indices(target), 0, -1)).reshape(-1, 3)
    dense = apply_affine(np.linalg.inv(second), points)
    dense = apply_affine(first, field(dense))
    dense = apply_affine(np.linalg.inv(chain[0]), dense)
    assert np.abs(apply_to_points(points, chain) - dense).max() < 1e-4
    for axis, part in enumerate(linear_image(big, wide)):
        moved = apply_transforms(part, wide, target, place, chain)
        assert np.abs(moved.ravel() - dense[:, axis]).max() < 1e-2
    # Any other order of the chain is another map, by far.
    assert np.abs(apply_to_points(points, chain[::-1]) - dense).max() > 1.0
    steps = read_transform(tmp_path / "composite.h5")
    assert np.array_equal(steps[0].data, field.data)
    assert np.allclose(steps[0].grid, grid)
    assert np.allclose(steps[1], first, atol=1e-5)
    write_composite(tmp_path / "again.h5", [field, first])
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "composite.h5").read_bytes()


def test_labels_go_through_a_chain_of_templates(tmp_path):
    shape, grid = grid_of(3.0, 40)
    labels = np.zeros(shape, np.int32)
    labels[10:20, 12:30, 8:26] = 3
    labels[20:29, 12:30, 8:26] = 7
    atlas = Atlas(labels, grid, None, "boxes")
    other = smooth_field(shape, grid, 5.0, seed=1)
    write_composite(tmp_path / "x_to_bundled.h5", [other, motion(6, (3, 0, -2))])
    write_composite(tmp_path / "bundled_to_t1w.h5", [MOVE, smooth_field(shape, grid, 5.0, seed=2)])
    chain = [tmp_path / "x_to_bundled.h5", tmp_path / "bundled_to_t1w.h5"]
    t1w_shape, t1w_grid = grid_of(2.5, 40, (-70, -60, -40), turn_deg=12)
    found = warp_labels_to_t1w(atlas, t1w_shape, t1w_grid, chain)
    points = apply_affine(t1w_grid, np.moveaxis(np.indices(t1w_shape), 0, -1)).reshape(-1, 3)
    steps = [MOVE, smooth_field(shape, grid, 5.0, seed=2), other, motion(6, (3, 0, -2))]
    voxels = apply_affine(np.linalg.inv(grid), map_points(points, steps))
    truth = ndimage.map_coordinates(labels, voxels.T, order=0, mode="grid-constant").reshape(t1w_shape)
    assert (truth > 0).sum() > 5000
    # Voxels half way between two labels may go either way.
    assert np.mean((found == truth)[truth > 0]) > 0.999
    wrong = warp_labels_to_t1w(atlas, t1w_shape, t1w_grid, chain[::-1])
    assert np.mean((wrong == truth)[truth > 0]) < 0.9


def test_inverse_of_a_steep_field(tmp_path):
    shape, grid = grid_of(2.0, 48, turn_deg=8)
    field = smooth_field(shape, grid, 11.0, seed=3)
    everywhere = np.ones(shape, bool)
    assert 0.05 < jacobian_determinants(field, everywhere).min() < 0.4
    inverse, miss = invert_field(field)
    assert miss.max() < 2e-3
    nodes = apply_affine(grid, np.argwhere(everywhere))
    assert np.abs(field(inverse(nodes)) - nodes).max() < 2e-3
    # The volume that one map makes the other takes away.
    there = ndimage.map_coordinates(
        jacobian_determinants(field, everywhere).reshape(shape),
        apply_affine(np.linalg.inv(grid), inverse(nodes)).T,
        order=1,
    ).reshape(shape)
    inside = np.s_[6:-6, 6:-6, 6:-6]
    product = there[inside] * jacobian_determinants(inverse, everywhere).reshape(shape)[inside]
    assert np.median(np.abs(product - 1)) < 0.02


def test_jacobian_of_a_linear_field():
    shape, grid = grid_of(2.0, 10, turn_deg=30)
    matrix = np.array([[0.1, 0.3, 0.0], [0.0, -0.2, 0.1], [0.2, 0.0, 0.05]])
    points = apply_affine(grid, np.moveaxis(np.indices(shape), 0, -1))
    field = Field((points @ matrix.T).astype(np.float32), grid)
    assert np.allclose(jacobian_determinants(field, np.ones(shape, bool)), np.linalg.det(np.eye(3) + matrix), atol=1e-4)


@lru_cache(maxsize=2)
def found_by(method, folder):
    head, template = displaced(), load_template()
    start = mask_to_template(head.brain, head.affine, template)
    return register_to_template(
        head.t1w, head.affine, head.brain, template, folder, initial=start, method=method, fast=True, work_mm=WORK_MM
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return {method: tmp_path_factory.mktemp(method) for method in ("ants", "greedy")}


@pytest.mark.parametrize("method", ["ants", "greedy"])
def test_template_labels_reach_the_subject(folder, method):
    head, template, atlas = displaced(), load_template(), load_atlas()
    found = found_by(method, folder[method])
    assert (found.method, found.attempts) == (method, ())
    assert found.similarity > 0.7
    assert found.overlap > 0.95
    assert found.jacobian[0] > 0.1
    assert found.cost.peak_memory_gb < 1.2
    points = points_of_brain(template)
    # The head is the template moved by a known rigid map, so every place is known.
    truth = apply_affine(MOVE, points)
    assert np.linalg.norm(apply_affine(np.linalg.inv(found.affine), points) - truth, axis=1).mean() < 0.8
    there = apply_to_points(points, [found.forward])
    # In flat white matter there is nothing but noise to go by; half a voxel of the registration is its aim.
    assert np.linalg.norm(there - truth, axis=1).mean() < WORK_MM / 2
    back = np.linalg.norm(apply_to_points(there, [found.inverse]) - points, axis=1)
    # The stored inverse is interpolated between voxels of 3 mm; solved for, it is exact.
    assert back.mean() < 0.08
    solved = apply_to_points(there, [found.forward], inverse=True)
    assert np.linalg.norm(solved - points, axis=1).max() < 0.01
    labels = warp_labels_to_t1w(atlas, head.t1w.shape, head.affine, [found.inverse])
    for index in (17, 53, 10, 50):
        expected = apply_affine(MOVE, apply_affine(atlas.affine, np.argwhere(atlas.labels == index)).mean(axis=0))
        centre = apply_affine(head.affine, np.argwhere(labels == index)).mean(axis=0)
        assert np.linalg.norm(centre - expected) < 1.5


def test_template_priors_reach_the_subject(folder):
    head, template, atlas = displaced(), load_template(), load_atlas()
    found = found_by("greedy", folder["greedy"])
    priors = template_priors(template, atlas)
    assert np.allclose(priors.sum(axis=0)[template.brain_mask], 1, atol=1e-5)
    warped = warp_priors_to_t1w(priors[1:2], template.affine, head.t1w.shape, head.affine, found.inverse)
    assert np.corrcoef(warped[0][head.brain], head.wm[head.brain])[0, 1] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ants", "greedy"])
def test_same_bytes_on_every_run(tmp_path, folder, method):
    again = found_by.__wrapped__(method, tmp_path)
    before = found_by(method, folder[method])
    assert before.forward.read_bytes() == again.forward.read_bytes()
    assert before.inverse.read_bytes() == again.inverse.read_bytes()


@pytest.mark.parametrize(("angle", "noticed"), [(40, False), (100, True)])
def test_a_bad_start_is_survived(tmp_path, angle, noticed):
    head, template = displaced(), load_template()
    start = motion(angle, (30, 0, 20), (0, 1, 0.5)) @ np.linalg.inv(MOVE)
    found = register_to_template(
        head.t1w, head.affine, head.brain, template, tmp_path, initial=start, method="greedy", fast=True,
        work_mm=WORK_MM,
    )  # fmt: skip
    points = points_of_brain(template)
    error = np.linalg.norm(apply_to_points(points, [found.forward]) - apply_affine(MOVE, points), axis=1)
    assert error.mean() < 1.0
    assert found.method == "greedy"
    assert [attempt for attempt in found.attempts if "the given start" in attempt] == list(found.attempts)[:noticed]
    assert bool(found.attempts) == noticed


def test_a_head_cut_off_above_and_below(tmp_path):
    head, template = displaced(), load_template()
    kept = slice(24, 48)
    affine = head.affine.copy()
    affine[:3, 3] += affine[:3, 2] * kept.start
    brain = head.brain[:, :, kept]
    assert 0.5 < brain.sum() / head.brain.sum() < 0.85
    found = register_to_template(
        head.t1w[:, :, kept], affine, brain, template, tmp_path, initial=np.linalg.inv(MOVE @ motion(4, (3, -3, 2))),
        method="greedy", fast=True, work_mm=WORK_MM,
    )  # fmt: skip
    points = points_of_brain(template)
    truth = apply_affine(MOVE, points)
    height = apply_affine(np.linalg.inv(affine), truth)[:, 2]
    shown = (height > 2) & (height < brain.shape[2] - 3)
    error = np.linalg.norm(apply_to_points(points, [found.forward]) - truth, axis=1)
    assert error[shown].mean() < 1.0
    assert found.overlap > 0.9


@pytest.mark.parametrize("method", ["greedy", pytest.param("ants", marks=pytest.mark.thorough)])
def test_a_lesion_does_not_pull_the_template(tmp_path, method):
    head, template = displaced(), load_template()
    centre = apply_affine(MOVE, [-30.0, -20.0, 30.0])
    where = apply_affine(head.affine, np.moveaxis(np.indices(head.t1w.shape), 0, -1))
    lesion = np.linalg.norm(where - centre, axis=-1) < 15.0
    sick = np.where(lesion, 200.0, head.t1w).astype(np.float32)
    points = points_of_brain(template)
    truth = apply_affine(MOVE, points)
    near = np.linalg.norm(truth - centre, axis=1) < 25.0

    def error(t1w, mask=None):
        found = register_to_template(
            t1w, head.affine, head.brain, template, tmp_path, initial=np.linalg.inv(MOVE), lesion=mask, method=method,
            fast=True, work_mm=WORK_MM,
        )  # fmt: skip
        return np.linalg.norm(apply_to_points(points, [found.forward]) - truth, axis=1)[near].mean()

    masked = error(sick, lesion)
    assert masked < 1.1 * error(head.t1w)
    assert masked < 0.7 * error(sick)


@pytest.fixture(scope="module")
def other_template():
    """The ICBM 2009a symmetric template that comes with nilearn, with its maps of grey and white matter."""
    from nilearn.datasets import (
        load_mni152_brain_mask,
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )

    loaders = load_mni152_template, load_mni152_gm_template, load_mni152_wm_template, load_mni152_brain_mask
    images = [load(resolution=2) for load in loaders]
    t1w, gm, wm, mask = (np.asarray(nib.as_closest_canonical(image).dataobj, np.float32) for image in images)
    affine = nib.as_closest_canonical(images[0]).affine
    return Template(np.where(mask > 0, t1w, 0), mask > 0, affine, "MNI152NLin2009aSym"), gm, wm


def test_labels_reach_another_template_by_a_warp_and_not_by_the_header(tmp_path, other_template):
    target, gm, wm = other_template
    atlas = load_atlas()
    found = register_templates(load_template(), target, tmp_path, method="greedy", work_mm=WORK_MM)
    assert found.forward.name == "MNI152NLin6Asym_to_MNI152NLin2009aSym.h5"
    assert found.attempts == ()
    warped = warp_labels_to_t1w(atlas, target.t1w.shape, target.affine, [found.forward])
    laid = warp_labels_to_t1w(atlas, target.t1w.shape, target.affine, [np.eye(4)])
    cortex, white = (np.array(atlas.table.loc[atlas.table["structure"] == name, "index"]) for name in ("cortex", "wm"))
    # What both call the supratentorial brain, so that cerebellum and brainstem do not count.
    counted = ndimage.binary_dilation(np.isin(warped, [*cortex, *white]) | np.isin(laid, [*cortex, *white]))
    for labels, tissue, gain in ((cortex, (gm > 0.5) & counted, 0.03), (white, (wm > 0.5) & counted, 0.03)):
        before, after = (dice(np.isin(image, labels) & counted, tissue) for image in (laid, warped))
        assert after > before + gain
