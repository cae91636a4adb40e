from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.anat.ants import apply_transforms
from sodium_prep.anat.transforms import apply_affine, read_itk_affine, write_itk_affine
from sodium_prep.errors import InputError


def rigid(seed=0):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * 0.3).as_matrix()
    matrix[:3, 3] = rng.normal(size=3) * 10
    return matrix


def test_itk_text_round_trip_is_exact(tmp_path):
    matrix = rigid()
    write_itk_affine(tmp_path / "xfm.txt", matrix)
    assert np.allclose(read_itk_affine(tmp_path / "xfm.txt"), matrix, atol=1e-12)


def test_centre_of_rotation_of_a_file_is_honoured(tmp_path):
    # y = A (x - c) + c + t: with A a quarter turn about z at c = (10, 0, 0) LPS and t = 0, c stays where it is.
    (tmp_path / "xfm.txt").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_3_3\n"
        "Parameters: 0 -1 0 1 0 0 0 0 1 0 0 0\nFixedParameters: 10 0 0\n"
    )
    assert np.allclose(apply_affine(read_itk_affine(tmp_path / "xfm.txt"), (-10, 0, 0)), (-10, 0, 0))


@pytest.mark.parametrize("as_file", [False, True])
def test_ants_moves_a_blob_where_the_point_map_says(tmp_path, as_file):
    affine = np.diag([-2.0, 2.0, 2.5, 1.0])
    affine[:3, 3] = 40, -50, -30
    voxels = np.indices((40, 44, 30)).transpose(1, 2, 3, 0)
    start = np.array([15.0, 22.0, 14.0])
    blob = np.exp(-0.5 * (((voxels - start) * (2, 2, 2.5)) ** 2).sum(axis=-1) / 4.0**2).astype(np.float32)
    move = rigid(1)
    move[:3, 3] = 4, -3, 5
    transform = move
    if as_file:
        # Brackets are what ANTs' own parser would trip over.
        transform = tmp_path / "odd [name]_xfm.txt"
        write_itk_affine(transform, move)
    grid = np.diag([3.0, 3.0, 3.0, 1.0])
    grid[:3, 3] = -50, -60, -50
    out = apply_transforms(blob, affine, (36, 40, 36), grid, [transform])
    centre = np.argwhere(out > -1).T @ out.ravel() / out.sum()
    assert np.allclose(apply_affine(grid, centre), apply_affine(move @ affine, start), atol=0.1)


def test_chain_is_applied_from_the_image_to_the_target():
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -45
    blob = np.zeros((31, 31, 31), np.float32)
    blob[17:20, 15:18, 14:17] = 1
    first, second = rigid(2), rigid(3)
    first[:3, 3], second[:3, 3] = (3, 2, 1), (-2, 4, 0)
    chained = apply_transforms(blob, affine, blob.shape, affine, [first, second])
    at_once = apply_transforms(blob, affine, blob.shape, affine, [second @ first])
    assert np.abs(chained - at_once).max() < 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing here\n", "no transform"),
        ("Transform: BSplineTransform_double_3_3\nParameters: 1 2\nFixedParameters: 0 0 0\n", "BSpline"),
        ("Transform: AffineTransform_double_3_3\nParameters: 1 2\nFixedParameters: 0 0 0\n", "12 parameters"),
        (f"Transform: AffineTransform_double_3_3\nParameters:{' 0' * 12}\nFixedParameters: 0 0 0\n", "singular"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "xfm.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_itk_affine(tmp_path / "xfm.txt")
