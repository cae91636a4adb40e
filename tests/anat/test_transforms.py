from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.anat.ants import apply_transforms
from sodium_prep.anat.transforms import (
    apply_affine,
    check_affine,
    check_rigid,
    compose,
    invert,
    nearest_rotation,
    read_itk_affine,
    resample_bandlimited,
    rigid_exp,
    rigid_log,
    rigid_mean,
    write_itk_affine,
)
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


def test_numbers_of_a_file_are_kept_to_the_last_bit(tmp_path):
    held = rigid(5)
    write_itk_affine(tmp_path / "xfm.txt", invert(held))
    numbers = (tmp_path / "xfm.txt").read_text().splitlines()[3].removeprefix("Parameters: ").split()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    expected = lps @ np.linalg.inv(invert(held)) @ lps
    assert [float(word) for word in numbers] == [*expected[:3, :3].ravel(), *expected[:3, 3]]


def test_files_of_both_directions_undo_each_other(tmp_path):
    write_itk_affine(tmp_path / "there.txt", rigid(6))
    write_itk_affine(tmp_path / "back.txt", invert(rigid(6)))
    both = compose(read_itk_affine(tmp_path / "there.txt"), read_itk_affine(tmp_path / "back.txt"))
    assert np.allclose(both, np.eye(4), atol=1e-12)


def test_compose_takes_the_first_step_first():
    a_to_b, b_to_c, point = rigid(7), rigid(8), np.array([10.0, 20.0, -30.0])
    assert np.allclose(
        apply_affine(compose(a_to_b, b_to_c), point), apply_affine(b_to_c, apply_affine(a_to_b, point)), atol=1e-12
    )


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 0.99e-4, 1.01e-4, 0.3, 3.1])
def test_exponential_undoes_the_logarithm_and_is_scipys(angle):
    from scipy.linalg import expm

    twist = np.array([2.0, -1.0, 2.0, 30.0, -80.0, 55.0])
    twist[:3] *= angle / 3.0
    x, y, z = twist[:3]
    generator = np.zeros((4, 4))
    generator[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    generator[:3, 3] = twist[3:]
    assert np.allclose(rigid_exp(twist), expm(generator), atol=1e-11)
    assert np.allclose(rigid_log(rigid_exp(twist)), twist, atol=1e-9)


def test_mean_of_rigid_maps_favours_none():
    maps = [rigid(seed) for seed in (10, 11, 12)]
    mean = rigid_mean(maps)
    left, right = rigid(13), rigid(14)
    assert np.abs(sum(rigid_log(invert(mean) @ one) for one in maps)).max() < 1e-9
    assert np.allclose(rigid_mean(maps[::-1]), mean, atol=1e-10)
    assert np.allclose(rigid_mean([invert(one) for one in maps]), invert(mean), atol=1e-9)
    # In other coordinates of either side it is the same mean.
    assert np.allclose(rigid_mean([left @ one @ right for one in maps]), left @ mean @ right, atol=1e-8)
    half = rigid_mean([np.eye(4), maps[0]])
    assert np.allclose(half @ half, maps[0], atol=1e-9)


def test_there_is_no_mean_of_opposite_turns():
    third = 2 * np.pi / 3
    with pytest.raises(ValueError, match="too far apart"):
        rigid_mean([rigid_exp([0, 0, k * third, 0, 0, 0]) for k in range(3)])
    with pytest.raises(ValueError, match="nothing"):
        rigid_mean([])


def test_nearest_rotation_keeps_rotations_and_never_mirrors():
    turn = rigid(15)[:3, :3]
    assert np.allclose(nearest_rotation(turn @ np.diag([1.1, 1.1, 1.1])), turn, atol=1e-12)
    assert np.linalg.det(nearest_rotation(turn @ np.diag([1.0, 1.0, -0.5]))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "4x4"),
        (np.full((4, 4), np.nan), "4x4"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [5, 0, 0, 1.0]]), "last row"),
    ],
)
def test_matrices_that_map_no_points_are_refused(tmp_path, matrix, message):
    with pytest.raises(ValueError, match=message):
        check_affine(matrix)
    with pytest.raises(ValueError, match=message):
        write_itk_affine(tmp_path / "xfm.txt", matrix)


@pytest.mark.parametrize("diagonal", [(1.01, 1, 1, 1), (-1, 1, 1, 1)])
def test_scale_and_mirror_are_not_rigid(diagonal):
    with pytest.raises(ValueError, match="not rigid"):
        check_rigid(np.diag(np.array(diagonal, float)))


def test_noise_keeps_its_level_wherever_the_voxels_fall():
    noise = np.random.default_rng(0).standard_normal((41, 43, 45)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -42
    inner = (slice(8, -8),) * 3
    moves = [
        np.eye(4),
        rigid_exp([0, 0, 0, 1, 1, 1]),
        rigid_exp([0, 0, 0, 0.5, 0.7, 0]),
        rigid_exp([0.1, 0.2, -0.1, 1, 2, 3]),
    ]
    levels = [resample_bandlimited(noise, affine, move, noise.shape, affine)[inner].std() for move in moves]
    # Linear interpolation half-way between voxels would leave 0.35.
    assert np.allclose(levels, 1.0, atol=0.03)
