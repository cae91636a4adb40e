"""k-space of maps and vials against the plain sum that defines it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.phantom import fields
from sodium_prep.phantom.individual import random_rigid
from sodium_prep.phantom.protocol import AGAR, PROTOCOLS, SALINE, Vial
from sodium_prep.phantom.scan import interleaved_order
from sodium_prep.phantom.sodium import ScannerFields, Source, simulate_kspace, vial_kspace
from sodium_prep.physics.signal import saturation_factor, signal_factor, t2star_factor
from sodium_prep.recon.gridding import grid_image
from sodium_prep.recon.motion import sampled_radius
from sodium_prep.recon.trajectory import radial_trajectory, spoke_directions

PROTOCOL = PROTOCOLS["fast"]
TRAJECTORY = radial_trajectory(PROTOCOL.acquisition, 12, PROTOCOL.n_samples)


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    rng = np.random.default_rng(5)
    coarse = rng.uniform(0.0, 100.0, (2, 10, 12, 11)).astype(np.float32)
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2).repeat(4, axis=3)
    return [Source(fine[0], AGAR), Source(fine[1], SALINE)]


AFFINE = np.eye(4)
AFFINE[:3, 3] = (-35.0, 12.0, -20.0)


def plain_sum(sources, sodium_to_t1w, scanner, samples):
    """Sum over all voxels, for some (spoke, sample) pairs of every coil."""
    acquisition, out = PROTOCOL.acquisition, []
    shape = sources[0].concentration_mM.shape
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    inverse = np.linalg.inv(sodium_to_t1w) @ AFFINE
    points = index @ inverse[:3, :3].T + inverse[:3, 3]
    profiles = fields.coil_profiles(points, scanner.n_coils)
    hertz = fields.off_resonance(points, scanner.off_resonance_hz).astype(float)
    flip = acquisition.flip_angle_deg * fields.transmit_profile(points, scanner.transmit_peak)
    for spoke, sample in samples:
        k = TRAJECTORY.k_per_mm[spoke, sample].astype(float)
        time = acquisition.echo_time_s + TRAJECTORY.time_s[sample]
        box = np.sinc(sodium_to_t1w[:3, :3] @ k).prod()
        wave = box * np.exp(2j * np.pi * (hertz * time - points @ k))
        value = np.zeros(scanner.n_coils, complex)
        for source in sources:
            steady = saturation_factor(acquisition.repetition_time_s, flip, source.relaxation.t1_s)
            density = source.concentration_mM.ravel() * steady * t2star_factor(time, source.relaxation)
            value += profiles @ (density * wave)
        out.append(value)
    return np.array(out).T


@pytest.mark.parametrize(
    ("scanner", "tolerance"),
    [
        (ScannerFields(), 1e-5),
        (ScannerFields(n_coils=4), 1e-5),
        (ScannerFields(transmit_peak=0.2, off_resonance_hz=30.0), 1e-4),
    ],
    ids=["uniform", "coils", "transmit-and-offresonance"],
)
def test_kspace_is_the_sum_over_the_posed_head(sources, scanner, tolerance):
    pose = random_rigid(np.random.default_rng(2), 20.0, 30.0)
    kspace = simulate_kspace(sources, AFFINE, pose, TRAJECTORY, PROTOCOL.acquisition, scanner=scanner)
    samples = [(0, 0), (1, 30), (4, 64), (7, 100), (11, 127)]
    got = np.stack([kspace[:, spoke, sample] for spoke, sample in samples], axis=1)
    scale = np.abs(kspace[:, 0, 0]).max()
    np.testing.assert_allclose(got / scale, plain_sum(sources, pose, scanner, samples) / scale, atol=tolerance)


def test_centre_is_signal_factor_times_amount(sources):
    vial = Vial("v", 80.0, (60.0, 0.0, 0.0))
    kspace = simulate_kspace(sources, AFFINE, np.eye(4), TRAJECTORY, PROTOCOL.acquisition, vials=[vial])
    expected = vial.concentration_mM * vial.volume_mm3 * signal_factor(PROTOCOL.acquisition, vial.relaxation)
    for source in sources:
        amount = source.concentration_mM.sum(dtype=float)
        expected += amount * signal_factor(PROTOCOL.acquisition, source.relaxation)
    np.testing.assert_allclose(kspace[0, :, 0], expected, rtol=1e-4)


def test_vial_transform_is_that_of_a_finely_sampled_cylinder():
    vial = Vial("v", 1.0, (6.0, -4.0, 3.0), radius_mm=9.0, length_mm=24.0, axis=(1.0, 2.0, -1.0))
    axis = np.arange(-24.0, 24.0, 0.4)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    direction = np.array(vial.axis) / np.sqrt(6.0)
    offset = points - vial.centre_mm
    along = offset @ direction
    inside = (np.abs(along) <= 12.0) & (np.linalg.norm(offset - along[:, None] * direction, axis=1) <= 9.0)
    k = np.random.default_rng(1).uniform(-0.08, 0.08, (10, 3))
    summed = 0.4**3 * np.exp(-2j * np.pi * (k @ points[inside].T)).sum(axis=1)
    np.testing.assert_allclose(vial_kspace(vial, k), summed, atol=0.004 * vial.volume_mm3)


def test_image_in_a_wide_vial_is_its_signal(sources):
    trajectory = radial_trajectory(PROTOCOL.acquisition, PROTOCOL.n_spokes, PROTOCOL.n_samples)
    wide = Vial("wide", 60.0, (0.0, 0.0, 0.0), radius_mm=70.0, length_mm=160.0)
    empty = [replace(sources[0], concentration_mM=np.zeros_like(sources[0].concentration_mM))]
    kspace = simulate_kspace(empty, AFFINE, np.eye(4), trajectory, PROTOCOL.acquisition, vials=[wide])
    image = grid_image(kspace, trajectory, (60, 60, 60), (4.0, 4.0, 4.0))[0]
    expected = 60.0 * float(signal_factor(PROTOCOL.acquisition, wide.relaxation))
    assert abs(image[27:34, 27:34, 25:36].mean() / expected - 1.0) < 0.01


def test_any_part_of_the_interleaved_spokes_covers_the_sphere():
    order = interleaved_order(5000)
    assert sorted(order) == list(range(5000))
    directions = spoke_directions(5000)
    even = sampled_radius(directions) * np.sqrt(700 / 5000)
    for first in (0, 333, 2100, 4300):
        assert sampled_radius(directions[order[first : first + 700]]) > 0.9 * even
