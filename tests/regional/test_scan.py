"""The parts of a scan's quantification that stand on their own; the whole is tested on phantom studies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.pvc.kspace import Spokes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.recon.trajectory import radial_trajectory
from sodium_prep.regional.inputs import Scan, mask_on_grid
from sodium_prep.regional.references import EYES_MM, expected_eyes, measure_air
from sodium_prep.regional.scan import allowed_estimators
from tests.pvc import heads


def test_eyes_are_found_through_the_centres_of_the_labels():
    rng = np.random.default_rng(0)
    shape = (40, 48, 40)
    template_affine = np.diag([4.0, 4.0, 4.0, 1.0])
    template_affine[:3, 3] = [-78.0, -94.0, -78.0]
    template = np.zeros(shape, np.int32)
    for label, corner in enumerate(rng.integers(6, 32, size=(20, 3)), start=1):
        template[tuple(slice(c, c + 3) for c in corner)] = label
    # The subject's image has the same voxels at other places: a turn, a stretch, a shift.
    move = np.array([[1.05, 0.1, 0.0, 3.0], [-0.1, 0.95, 0.05, -8.0], [0.0, -0.05, 1.0, 5.0], [0, 0, 0, 1]])
    found = expected_eyes(template, move @ template_affine, template, template_affine)
    for eye, there in zip(EYES_MM, found, strict=True):
        assert there == pytest.approx((move @ [*eye, 1.0])[:3], abs=1e-6)


def test_without_common_labels_no_place_is_guessed():
    labels = np.zeros((8, 8, 8), np.int32)
    assert expected_eyes(labels, np.eye(4), labels, np.eye(4)) == []


def test_a_mask_keeps_its_place_on_the_sodium_grid():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    mask = np.zeros((60, 60, 60), dtype=bool)
    mask[20:40, 10:30, 24:44] = True
    move = np.eye(4)
    move[:3, 3] = [4.0, -6.0, 2.0]  # sodium point + move = T1w point
    sodium_affine = np.diag([2.0, 2.0, 2.0, 1.0])
    found = mask_on_grid(mask, affine, move, (30, 30, 30), sodium_affine)
    centre = np.argwhere(found).mean(axis=0) * 2.0
    assert centre == pytest.approx(np.array([29.5, 19.5, 33.5]) - move[:3, 3], abs=1.1)
    assert found.sum() == pytest.approx(mask.sum() / 8, rel=0.1)


def test_estimates_from_k_space_are_made_where_they_can_be_and_otherwise_it_is_said_why():
    wanted = ("labbe", "kspace")
    acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (8.0, 8.0, 8.0))
    window = replace(acquisition, kspace_filter="hamming")
    trajectory = radial_trajectory(acquisition, 20, 24)
    empty, ones = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), np.float32)
    maps = np.ones((1, 4, 4, 4), np.complex64)
    spokes = Spokes(np.zeros((1, 20, 24), np.complex64), 1.0, trajectory, maps, np.eye(4))
    k = trajectory.k_per_mm.copy()
    k[3, 12] *= 1.1
    scan = Scan(
        ones, np.eye(4), np.eye(4), Noise(ones), acquisition, PsfModel("acquisition", acquisition), empty, empty,
        spokes=spokes,
    )  # fmt: skip
    notes: list[str] = []
    assert allowed_estimators(scan, wanted, notes) == ["none", "labbe", "kspace"]
    assert allowed_estimators(scan, ("labbe",), notes) == ["none", "labbe"]
    assert notes == []
    for other, reason in (
        (replace(scan, spokes=None), "raw data"),
        (replace(scan, psf=PsfModel("gaussian", fwhm_mm=5.0)), "--psf auto"),
        (replace(scan, psf=PsfModel("acquisition", window)), "--recon-filter none"),
        (replace(scan, spokes=replace(spokes, trajectory=replace(trajectory, k_per_mm=k))), "straight spokes"),
    ):
        notes = []
        assert allowed_estimators(other, wanted, notes) == ["none", "labbe"]
        (note,) = notes
        assert "--pvc" in note
        assert reason in note


def test_air_is_a_reference_in_real_images_only():
    shape, affine = (40, 40, 40), np.diag([4.0, 4.0, 4.0, 1.0])
    head = np.zeros(shape, bool)
    head[14:26, 14:26, 14:26] = True
    rng = np.random.default_rng(3)
    parts = [rng.normal(0.0, 2.0, shape) + 60.0 * head * phase for phase in (1.0, 0.0)]
    notes = []

    def air_of(image):
        noise = Noise(np.full(shape, 2.0, np.float32))
        scan = Scan(image.astype(np.float32), affine, np.eye(4), noise, heads.ACQUISITION, None, head, head & False)
        return measure_air(scan, (), notes)

    mean, sd = air_of(parts[0])
    assert sd == pytest.approx(2.0 / np.sqrt(3e4), rel=0.5)
    assert abs(mean) < 4.0 * sd
    assert air_of(np.hypot(*parts)) is None
    assert "not there underneath" in notes[-1]
