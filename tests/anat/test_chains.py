"""Transforms mean to ANTs what they mean to us: points, images, and chains with a dense field."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from sodium_prep.anat.ants import apply_transforms
from sodium_prep.anat.jobs import job_folder, run_job
from sodium_prep.anat.transforms import apply_affine, compose, invert, rigid_exp, write_itk_affine

LPS = np.array([-1.0, -1.0, 1.0])
MOVE = rigid_exp([0.25, -0.1, 0.3, 12.0, -7.0, 5.0])
SHEARED = (
    MOVE @ np.diag([1.1, 0.95, 1.04, 1.0]) @ np.array([[1, 0.05, 0, 3], [0, 1, 0.02, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
)
TARGET = np.diag([3.0, 3.0, 3.0, 1.0])
TARGET[:3, 3] = -52
TARGET_SHAPE = (36, 36, 36)


def oriented(codes, turn=(0.0, 0.0, 0.0), voxel=(2.0, 2.5, 3.0), shape=(48, 44, 40)):
    """Affine of a grid with these axis codes, its centre near the origin."""
    axes = nib.orientations.axcodes2ornt(codes)
    directions = np.zeros((3, 3))
    for column, (row, sign) in enumerate(axes):
        directions[int(row), column] = sign
    affine = rigid_exp([*turn, 0, 0, 0])
    affine[:3, :3] = affine[:3, :3] @ directions @ np.diag(voxel)
    affine[:3, 3] = (3.0, -4.0, 2.0) - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def through_ants(points, transforms):
    """Points in RAS mm through antsApplyTransformsToPoints, which speaks LPS."""
    with job_folder() as folder:
        rows = [",".join(repr(float(x)) for x in LPS * point) + ",0" for point in points]
        (folder / "in.csv").write_text("\n".join(["x,y,z,t", *rows]) + "\n")
        args = ["-d", "3", "-p", "1", "-i", "in.csv", "-o", "out.csv"]
        for number, (matrix, inverted) in enumerate(transforms):
            write_itk_affine(folder / f"t{number}.txt", matrix)
            args += ["-t", f"[t{number}.txt,{int(inverted)}]"]
        run_job("points", "antsApplyTransformsToPoints", args, folder)
        return np.loadtxt(folder / "out.csv", delimiter=",", skiprows=1)[:, :3] * LPS


@pytest.mark.parametrize("a_to_b", [MOVE, SHEARED], ids=["rigid", "affine"])
def test_landmarks_go_to_b_and_come_back(a_to_b):
    points = np.random.default_rng(0).uniform(-90, 90, (20, 3))
    # The file resamples A onto B, hence carries points of B to A; inverted, points of A to B.
    in_b = through_ants(points, [(a_to_b, True)])
    assert np.abs(in_b - apply_affine(a_to_b, points)).max() < 0.01
    assert np.abs(through_ants(in_b, [(a_to_b, False)]) - points).max() < 0.01
    # The file of the other direction says the same.
    assert np.abs(through_ants(points, [(invert(a_to_b), False)]) - in_b).max() < 0.01
    assert np.abs(through_ants(points, [(a_to_b, False)]) - in_b).max() > 10


@pytest.mark.parametrize(
    ("codes", "turn"),
    [("RAS", (0.2, -0.1, 0.3)), ("LAS", (0, 0, 0)), ("LAS", (0.2, 0.3, -0.2)), ("LIA", (-0.1, 0.2, 0.1))],
)
def test_a_blob_goes_where_the_map_says_whatever_the_order_of_the_axes(tmp_path, codes, turn):
    affine = oriented(codes, turn)
    start = np.array([8.0, -11.0, 9.0])
    shape = (48, 44, 40)
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    blob = np.exp(-0.5 * ((world - start) ** 2).sum(axis=-1) / 6.0**2).astype(np.float32)
    write_itk_affine(tmp_path / "there.txt", MOVE)
    write_itk_affine(tmp_path / "back.txt", invert(MOVE))
    for transform, place in (("there.txt", apply_affine(MOVE, start)), ("back.txt", apply_affine(invert(MOVE), start))):
        out = apply_transforms(blob, affine, TARGET_SHAPE, TARGET, [tmp_path / transform]).astype(np.float64)
        centre = np.argwhere(np.ones(TARGET_SHAPE)).T @ out.ravel() / out.sum()
        assert np.linalg.norm(apply_affine(TARGET, centre) - place) < 0.05


def smooth_image(shape, seed):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 3.0)
    edge = np.all([abs(x - (n - 1) / 2) < n / 2 - 4 for x, n in zip(np.indices(shape), shape, strict=True)], axis=0)
    return ndimage.gaussian_filter(np.where(edge, noise / noise.std() + 3.0, 0.0), 1.0).astype(np.float32)


class Field:
    """A smooth displacement that carries points of B to points of A, and its ITK file."""

    def __init__(self, path, affine, shape):
        self.affine = affine
        waves = [np.sin(np.indices(shape)[axis] * 2 * np.pi / 30 + axis) for axis in (1, 2, 0)]
        self.ras_mm = np.stack(waves, axis=-1) * (6.0, 5.0, -7.0)
        self.path = path
        image = nib.Nifti1Image((self.ras_mm * LPS)[:, :, :, None, :].astype(np.float32), affine)
        image.header.set_intent("vector")
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        nib.save(image, path)

    def __call__(self, points):
        voxels = np.moveaxis(apply_affine(invert(self.affine), points), -1, 0)
        shift = [ndimage.map_coordinates(part, voxels, order=1) for part in np.moveaxis(self.ras_mm, -1, 0)]
        return points + np.stack(shift, axis=-1)


def sampled(image, affine, points):
    voxels = np.moveaxis(apply_affine(invert(affine), points), -1, 0)
    return ndimage.map_coordinates(image, voxels, order=1, mode="constant")


def alike(a, b):
    inner = (slice(5, -5),) * 3
    return np.corrcoef(a[inner].ravel(), b[inner].ravel())[0, 1]


def test_chains_are_the_composed_affines_and_the_order_matters():
    affine = oriented("LIA", (0.1, 0.1, 0.0))
    image = smooth_image((48, 44, 40), 1)
    first, second, third = MOVE, rigid_exp([0.0, 0.3, 0.0, -6, 4, 2]), invert(SHEARED)
    grid = apply_affine(TARGET, np.moveaxis(np.indices(TARGET_SHAPE), 0, -1))
    for steps in ([first, second], [first, second, third]):
        expected = sampled(image, affine, apply_affine(invert(compose(*steps)), grid))
        assert alike(apply_transforms(image, affine, TARGET_SHAPE, TARGET, steps), expected) > 0.9999
        swapped = apply_transforms(image, affine, TARGET_SHAPE, TARGET, [steps[1], steps[0], *steps[2:]])
        assert alike(swapped, expected) < 0.98


def test_a_chain_with_a_dense_field_is_its_parts_one_by_one(tmp_path):
    affine = oriented("LAS")
    image = smooth_image((48, 44, 40), 2)
    into_b, out_of_b = MOVE, rigid_exp([-0.2, 0.1, -0.25, -4, 6, -3])
    field_affine = np.diag([4.0, 4.0, 4.0, 1.0])
    field_affine[:3, 3] = -100
    field = Field(tmp_path / "warp.nii.gz", field_affine, (51, 51, 51))
    grid = apply_affine(TARGET, np.moveaxis(np.indices(TARGET_SHAPE), 0, -1))
    # From the target backwards: out of B, against the field, out of A.
    two = sampled(image, affine, apply_affine(invert(into_b), field(grid)))
    three = sampled(image, affine, apply_affine(invert(into_b), field(apply_affine(invert(out_of_b), grid))))

    def chain(*steps):
        return apply_transforms(image, affine, TARGET_SHAPE, TARGET, steps)

    assert alike(chain(into_b, field.path), two) > 0.9999
    assert alike(chain(into_b, field.path, out_of_b), three) > 0.9999
    for wrong in (
        chain(field.path, into_b, out_of_b),
        chain(into_b, out_of_b, field.path),
        chain(out_of_b, field.path, into_b),
        chain(invert(into_b), field.path, out_of_b),
    ):
        assert alike(wrong, three) < 0.98


def test_one_interpolation_of_a_chain_is_sharper_than_two():
    affine = oriented("RAS")
    noise = np.random.default_rng(3).standard_normal((48, 44, 40)).astype(np.float32)
    first, second = rigid_exp([0.1, 0, 0.1, 1.2, 0.7, 0.9]), rigid_exp([0, 0.1, -0.1, 0.6, 1.1, 0.4])
    once = apply_transforms(noise, affine, TARGET_SHAPE, TARGET, [first, second])
    half = apply_transforms(noise, affine, noise.shape, affine, [first])
    twice = apply_transforms(half, affine, TARGET_SHAPE, TARGET, [second])
    inner = (slice(10, -10),) * 3
    assert twice[inner].std() < 0.8 * once[inner].std()
