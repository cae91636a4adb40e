"""Moving an image must not change it."""

from __future__ import annotations

import numpy as np

from sodium_prep.recon.resample import average_runs, resample_bandlimited


def _blob(points: np.ndarray) -> np.ndarray:
    """Band-limited for all purposes: a Gaussian of 2.5 voxels (10 mm) width, off centre."""
    return np.exp(-0.5 * np.sum((points - np.array([6.0, -9.0, 4.0])) ** 2, axis=-1) / 10.0**2)


def _grid(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def test_a_rotated_image_is_the_function_itself_at_the_rotated_points() -> None:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -60.0
    target = np.diag([-3.5, 4.0, 4.5, 1.0])
    target[:3, 3] = [55.0, -62.0, -66.0]
    angle = np.deg2rad(12.0)
    move = np.eye(4)
    move[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    move[:3, 3] = [2.3, -1.7, 3.1]
    shape, target_shape = (31, 30, 32), (30, 32, 29)
    moved = resample_bandlimited(_blob(_grid(shape, affine)), affine, move, target_shape, target)
    back = np.linalg.inv(move)
    expected = _blob(_grid(target_shape, target) @ back[:3, :3].T + back[:3, 3])
    inner = (slice(4, -4),) * 3
    assert np.abs(moved - expected)[inner].max() < 1e-4


def test_outside_the_image_there_is_nothing() -> None:
    affine = np.eye(4)
    move = np.eye(4)
    move[0, 3] = 100.0
    assert not resample_bandlimited(np.ones((8, 8, 8)), affine, move, (8, 8, 8), affine).any()


def test_an_average_of_moved_runs_has_the_mean_of_the_object_and_the_noise_of_its_weights() -> None:
    rng = np.random.default_rng(1)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -60.0
    shape = (30, 30, 30)
    move = np.eye(4)
    move[:3, 3] = [3.0, -2.0, 1.0]
    truth = _blob(_grid(shape, affine))
    first = truth + 0.02 * rng.normal(size=shape)
    # A point p of the second run lies at move @ p in the first.
    second = _blob(_grid(shape, affine) + move[:3, 3]) + 0.04 * rng.normal(size=shape)
    mean, sd = average_runs([first, second], [affine] * 2, [np.eye(4), move], [0.02, 0.04])
    inner = (slice(3, -3),) * 3
    expected = 1.0 / np.sqrt(0.02**-2 + 0.04**-2)
    assert np.allclose(sd[inner], expected)
    assert np.std((mean - truth)[inner]) < 1.05 * expected
    assert np.std((mean - truth)[inner]) > 0.8 * expected
