from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.errors import InputError
from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_kspace, ellipsoid_transform
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.motion import (
    STILL,
    Pose,
    correct_motion,
    move_samples,
    moved_maps,
    sampled_radius,
    solid_angles,
)
from sodium_prep.recon.trajectory import golden_directions, spoke_directions
from tests.recon.analytic import complex_noise, raw_data, small_trajectory

HEAD = [e for e in ANALYTIC_HEAD if not e.name.startswith("tube")]
TUBES = [e for e in ANALYTIC_HEAD if e.name.startswith("tube")]
N, VOXEL_MM, BLOCKS = 40, 6.0, 4
WHITE_MATTER_MM = 35.0


def _moved(head, pose):
    """The ellipsoids themselves turned and shifted: nothing of k-space is used."""
    turned = []
    for ellipsoid in head:
        rotation = Rotation.from_matrix(pose.rotation @ ellipsoid.matrix).as_euler("xyz", degrees=True)
        turned.append(replace(ellipsoid, centre_mm=tuple(pose(np.array(ellipsoid.centre_mm))), rotation_deg=rotation))
    return turned


def _step(rng, mm=5.0, degrees=5.0):
    turn, shift = rng.standard_normal((2, 3))
    return Pose.of(
        np.concatenate([np.deg2rad(degrees) * turn / np.linalg.norm(turn), mm * shift / np.linalg.norm(shift)])
    )


POSES = [STILL, *(_step(np.random.default_rng(seed)) for seed in range(BLOCKS - 1))]


@pytest.fixture(scope="module")
def trajectory():
    """Any quarter of the readouts covers the sphere."""
    even = small_trajectory(2400, 160)
    k = golden_directions(even.n_readouts)[:, None] * np.linalg.norm(even.k_per_mm[:1], axis=-1)[..., None]
    return replace(even, k_per_mm=k.astype(np.float32))


@pytest.fixture(scope="module")
def still(trajectory):
    return analytic_kspace(HEAD, trajectory)


@pytest.fixture(scope="module")
def stepped(trajectory):
    """k-space of a head that takes another pose in every block."""
    n = trajectory.n_readouts // BLOCKS
    blocks = [replace(trajectory, k_per_mm=trajectory.k_per_mm[b * n : (b + 1) * n]) for b in range(BLOCKS)]
    return np.concatenate([analytic_kspace(_moved(HEAD, p), b) for p, b in zip(POSES, blocks, strict=True)])


@pytest.fixture(scope="module")
def noise(trajectory):
    sigma = WHITE_MATTER_MM / 20.0 / gridding_noise_sd(1.0, trajectory)
    return sigma * complex_noise(np.random.default_rng(2), trajectory.k_per_mm.shape[:2])


def _scan(kspace, trajectory):
    return raw_data(np.atleast_3d(kspace[None]), trajectory, N, VOXEL_MM)


def _inside(name, grow_mm=0.0, of=HEAD):
    ellipsoid = next(e for e in of if e.name == name)
    points = (np.moveaxis(np.indices((N,) * 3), 0, -1) - N // 2) * VOXEL_MM - ellipsoid.centre_mm
    return np.sum((points @ ellipsoid.matrix / (np.array(ellipsoid.semi_axes_mm) + grow_mm)) ** 2, axis=-1) < 1.0


REGIONS = {
    "white matter": _inside("wm", -8.0) & ~_inside("ventricle-left", 4.0) & ~_inside("ventricle-right", 4.0),
    "cortex": _inside("gm") & ~_inside("wm"),
    "csf": _inside("csf") & ~_inside("gm"),
    "ventricles": _inside("ventricle-left") | _inside("ventricle-right"),
    "hippocampi": _inside("hippocampus-left") | _inside("hippocampus-right"),
}


def _means(raw):
    image = grid_image(raw.kspace, raw.trajectory, raw.shape, raw.voxel_mm)[0].real
    return np.array([image[region].mean() for region in REGIONS.values()])


def _off(block, pose):
    """What is left of an estimate against the true pose: degrees and mm."""
    left = block.pose.after(pose.inverse()).motion
    return np.rad2deg(np.linalg.norm(left[:3])), np.linalg.norm(left[3:])


def test_samples_of_a_moved_object_are_those_of_the_object_elsewhere():
    rng = np.random.default_rng(1)
    k, pose = rng.uniform(-0.1, 0.1, (5, 7, 3)), _step(rng, 12.0, 40.0)
    hippocampus = next(e for e in HEAD if e.name == "hippocampus-left")
    (moved,) = _moved([hippocampus], pose)
    where, values = move_samples(k, ellipsoid_transform(moved, k)[None], pose)
    np.testing.assert_allclose(values[0], ellipsoid_transform(hippocampus, where), rtol=1e-9, atol=1e-9)


def test_solid_angles():
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    np.testing.assert_allclose(solid_angles(octahedron), 4.0 * np.pi / 6.0)
    twice = np.concatenate([octahedron, octahedron[:2]])
    np.testing.assert_allclose(solid_angles(twice)[[0, 6, 2]], 4.0 * np.pi / np.array([12.0, 12.0, 6.0]))
    uneven = np.random.default_rng(0).standard_normal((50, 3)) + np.array([0.0, 0.0, 1.0])
    assert solid_angles(uneven / np.linalg.norm(uneven, axis=1)[:, None]).sum() == pytest.approx(4.0 * np.pi)
    with pytest.raises(ValueError, match="span"):
        solid_angles(np.eye(3))


def test_sampled_radius_is_that_of_nyquist_and_knows_a_hole():
    directions = spoke_directions(5000)
    # 4 pi k^2 D^2 spokes
    assert sampled_radius(directions, 200.0) == pytest.approx(np.sqrt(5000 / (4.0 * np.pi)) / 200.0, rel=0.01)
    assert sampled_radius(directions[:2500], 200.0) < 0.5 * sampled_radius(directions[::2], 200.0)


def test_steps_of_5_mm_and_5_degrees_are_found_and_taken_out(trajectory, still, stepped, noise):
    raw = _scan(stepped + noise, trajectory)
    corrected, report = correct_motion(raw, BLOCKS)
    assert report.reference == 0
    assert [block.applied for block in report.blocks] == [False, True, True, True]
    off = np.array([_off(block, pose) for block, pose in zip(report.blocks, POSES, strict=True)])
    assert off[:, 0].max() < 0.5  # degrees
    assert off[:, 1].max() < 0.1  # mm
    truth = _means(_scan(still + noise, trajectory))
    assert np.abs(_means(raw) / truth - 1.0).max() > 0.1
    assert np.abs(_means(corrected) / truth - 1.0).max() < 0.01
    weights = corrected.trajectory.weights_mm3
    assert weights.sum() == pytest.approx(trajectory.weights_mm3.sum() * trajectory.n_readouts)
    assert gridding_noise_sd(1.0, corrected.trajectory) < 1.06 * gridding_noise_sd(1.0, trajectory)


def test_a_still_head_is_left_alone_and_errors_are_those_stated(trajectory, still, noise):
    raw = _scan(still + noise, trajectory)
    corrected, report = correct_motion(raw, np.arange(trajectory.n_readouts) % BLOCKS)
    assert corrected is raw
    assert report.largest_mm == 0.0
    assert report.notes == ()
    moved = [block for number, block in enumerate(report.blocks) if number != report.reference]
    ratio = np.array([block.motion / block.standard_error for block in moved])
    assert 0.4 < np.sqrt(np.mean(ratio**2)) < 2.0


def test_vials_that_stay_and_a_block_that_is_spoilt(trajectory, stepped, noise):
    """Vials that do not move with the head do not hold it; a jump within a block is seen, and its readouts go."""
    kspace = stepped + analytic_kspace(TUBES, trajectory) + noise
    n = trajectory.n_readouts // BLOCKS
    jump = replace(trajectory, k_per_mm=trajectory.k_per_mm[2 * n : 5 * n // 2])
    kspace[2 * n : 5 * n // 2] += analytic_kspace(HEAD, jump) - stepped[2 * n : 5 * n // 2]
    corrected, report = correct_motion(
        replace(_scan(kspace, trajectory), block=np.repeat(np.arange(BLOCKS), n)), BLOCKS
    )
    assert [block.rejected for block in report.blocks] == [False, False, True, False]
    off = np.array([_off(block, pose) for block, pose in zip(report.blocks, POSES, strict=True)])
    assert off[[0, 1, 3], 1].max() < 0.2
    assert off[[0, 1, 3], 0].max() < 1.0
    assert corrected.kspace.shape[1] == corrected.trajectory.n_readouts == len(corrected.block) == 3 * n
    assert corrected.trajectory.weights_mm3.sum() == pytest.approx(trajectory.weights_mm3.sum() * trajectory.n_readouts)
    assert "blocks 2" in report.notes[-1]


@pytest.mark.parametrize("carried", [False, True], ids=["fixed to the coil", "fixed to the head"])
def test_vials_keep_their_signal(trajectory, still, stepped, noise, carried):
    """Whether or not they move with the head, and though the correction moves all k-space."""
    n = trajectory.n_readouts // BLOCKS
    vials = analytic_kspace(TUBES, trajectory)
    measured = vials
    if carried:
        parts = [replace(trajectory, k_per_mm=trajectory.k_per_mm[b * n : (b + 1) * n]) for b in range(BLOCKS)]
        measured = np.concatenate([analytic_kspace(_moved(TUBES, p), t) for p, t in zip(POSES, parts, strict=True)])
    corrected, report = correct_motion(_scan(stepped + measured + noise, trajectory), BLOCKS)
    truth = _scan(still + vials + noise, trajectory)
    inside = [_inside(tube.name, of=TUBES) for tube in TUBES]
    found, wanted = (
        [grid_image(r.kspace, r.trajectory, r.shape, r.voxel_mm)[0].real[i].mean() for i in inside]
        for r in (corrected, truth)
    )
    np.testing.assert_allclose(found, wanted, rtol=0.04)
    assert ("Objects beside" in " ".join(report.notes)) != carried
    assert np.abs(_means(corrected) / _means(truth) - 1.0).max() < 0.015


def test_sensitivities_stay_while_the_head_moves():
    pose, voxel_mm, shape = _step(np.random.default_rng(3), 7.0, 20.0), (5.0, 6.0, 7.0), (24, 20, 18)
    places = (np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) // 2) * voxel_mm
    slope = np.array([0.3, -0.2 + 0.1j, 0.5j])
    moved = moved_maps((places @ slope)[None], pose, voxel_mm)[0]
    inside = np.linalg.norm(places, axis=-1) < 40.0
    np.testing.assert_allclose(moved[inside], (pose(places) @ slope)[inside], atol=1e-9)


def test_steps_under_an_array_of_coils(trajectory, noise):
    """What the receive profile does to the image of a moved head must not pass for motion."""
    waves = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.6]]) / 300.0
    shares = np.array([[1.0, 0.9 * np.exp(0.6j)], [1.0, 0.9 * np.exp(1.4j)]])
    simple = [e for e in HEAD if e.name in ("scalp", "csf", "wm", "gm", "ventricle-left", "lesion-large")]
    n = trajectory.n_readouts // BLOCKS
    blocks = []
    for number, pose in enumerate(POSES):
        k = trajectory.k_per_mm[number * n : (number + 1) * n]
        parts = [analytic_kspace(_moved(simple, pose), replace(trajectory, k_per_mm=k - wave)) for wave in waves]
        blocks.append(np.tensordot(shares, np.array(parts), axes=1))
    kspace = np.concatenate(blocks, axis=1)
    kspace += np.std(noise) * complex_noise(np.random.default_rng(4), kspace.shape) / np.sqrt(2.0)
    _, report = correct_motion(raw_data(kspace, trajectory, N, VOXEL_MM), BLOCKS)
    off = np.array([_off(block, pose) for block, pose in zip(report.blocks, POSES, strict=True)])
    assert off[:, 0].max() < 0.6
    assert off[:, 1].max() < 0.1
    # Nor for a block that is spoilt.
    assert max(abs(block.misfit - 1.0) for block in report.blocks) < 0.08


@pytest.mark.parametrize(
    ("order", "blocks", "problem"),
    [("height", 4, "evenly"), ("time", 40, "too little to show motion")],
)
def test_blocks_that_make_no_image_are_refused(trajectory, still, order, blocks, problem):
    raw = _scan(still, trajectory)
    number = np.arange(trajectory.n_readouts) * blocks // trajectory.n_readouts
    if order == "height":
        number = number[np.argsort(np.argsort(trajectory.k_per_mm[:, -1, 2]))]
    with pytest.raises(InputError, match=problem):
        correct_motion(raw, number)
