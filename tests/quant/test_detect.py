"""References and eyes found without being told where they are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sodium_prep.quant.detect import find_eyes, find_references, geometry_from_mask, match_references, rough_head_mask
from sodium_prep.quant.geometry import ReferenceGeometry
from sodium_prep.quant.noise import background_mask, measure_floor
from sodium_prep.quant.references import clipped_voxels, measure_reference
from tests.quant.fine_grid import blurred_shape, grid, radial_mtf, shape_fraction
from tests.shared import shared_path

N = 80
SHAPE, AFFINE = grid(N)
MTF = radial_mtf()
VIALS = [
    ReferenceGeometry("vial40", (98.0, 10.0, 5.0), 9.0, 55.0, (0.0, 0.1, 1.0), 40.0),
    ReferenceGeometry("vial80", (-98.0, 20.0, 0.0), 8.0, 60.0, (0.0, 0.0, 1.0), 80.0),
]
EYES = [ReferenceGeometry("eye", (x, 66.0, -18.0), 12.0) for x in (-32.0, 32.0)]


@pytest.fixture(scope="module")
def scan():
    skin = ReferenceGeometry("skin", (0.0, 0.0, 0.0), 78.0)
    skull = ReferenceGeometry("skull", (0.0, 0.0, 0.0), 72.0)
    brain = ReferenceGeometry("brain", (0.0, 0.0, 0.0), 66.0)
    ventricle = ReferenceGeometry("ventricle", (0.0, 0.0, 10.0), 14.0)
    parts = [(skin, 35.0), (skull, -30.0), (brain, 37.0), (ventricle, 98.0)]
    parts += [(v, v.concentration_mM) for v in VIALS] + [(e, 105.0) for e in EYES]
    rng = np.random.default_rng(21)
    truth = sum(signal * blurred_shape(geometry, SHAPE, AFFINE, MTF) for geometry, signal in parts)
    return truth + rng.normal(0.0, 3.0, SHAPE)


@pytest.mark.parametrize("geometry", [*VIALS, EYES[0], ReferenceGeometry("dish", (0.0, 5.0, 0.0), 25.0, 12.0)])
def test_shape_from_a_mask(geometry):
    found = geometry_from_mask(shape_fraction(geometry, SHAPE, AFFINE) > 0.5, AFFINE, "found")
    assert_allclose(found.centre_mm, geometry.centre_mm, atol=0.5)
    assert found.radius_mm == pytest.approx(geometry.radius_mm, rel=0.06)
    if geometry.length_mm is None:
        assert found.length_mm is None
    else:
        assert found.length_mm == pytest.approx(geometry.length_mm, rel=0.06)
        assert abs(found.direction @ geometry.direction) > 0.99


def test_vials_are_found_measured_and_matched(scan):
    detection = find_references(scan, AFFINE, n_expected=2, eyes_mm=[e.centre_mm for e in EYES])
    assert detection.confident
    assert "as many as expected" in detection.statement
    signals = [
        measure_reference(scan, AFFINE, o.geometry, MTF, 3.0, radius_range_mm=(4.0, 20.0)) for o in detection.objects
    ]
    matched, sure, _ = match_references(signals, VIALS)
    assert sure
    for signal, truth in zip(matched, VIALS, strict=True):
        assert signal.label == truth.label
        assert_allclose(signal.geometry.centre_mm, truth.centre_mm, atol=1.0)
        assert signal.signal == pytest.approx(truth.concentration_mM, rel=0.05)


def test_a_wrong_number_of_references_is_told(scan):
    detection = find_references(scan, AFFINE, n_expected=3, eyes_mm=[e.centre_mm for e in EYES])
    assert not detection.confident
    assert "3 were expected" in detection.statement
    assert not find_references(scan, AFFINE, eyes_mm=[e.centre_mm for e in EYES]).confident


def test_eyes_are_found_from_a_rough_position(scan):
    expected = [(-28.0, 60.0, -12.0), (36.0, 72.0, -24.0)]
    for found, truth in zip(find_eyes(scan, AFFINE, expected, MTF, 3.0), EYES, strict=True):
        assert_allclose(found.geometry.centre_mm, truth.centre_mm, atol=1.5)
        assert found.geometry.radius_mm == pytest.approx(12.0, abs=1.0)


def test_no_eyes_where_there_are_none(scan):
    (nothing,) = find_eyes(scan, AFFINE, [(0.0, -45.0, 20.0)], MTF, 3.0)
    assert not nothing.usable


def test_real_scan():
    import nibabel as nib

    image = nib.load(shared_path("real/sub-uhf01/anat/sub-uhf01_acq-sodium_PDw.nii.gz"))
    scan, affine = image.get_fdata(), image.affine
    mtf = radial_mtf(3.49, 0.054, "hamming")
    noise_sd = measure_floor(scan, background_mask(scan, affine, rough_head_mask(scan, affine))).noise_sd
    eyes = find_eyes(scan, affine, [(42.0, 85.0, -18.0), (-42.0, 85.0, -18.0)], mtf, noise_sd)
    assert_allclose([e.geometry.centre_mm[2] for e in eyes], -17.0, atol=2.0)
    assert all(10.0 < e.geometry.radius_mm < 14.0 for e in eyes)

    detection = find_references(scan, affine, n_expected=4, eyes_mm=[e.geometry.centre_mm for e in eyes])
    assert detection.confident
    centres = np.array([o.geometry.centre_mm for o in detection.objects])
    for known in ((68.0, 80.0, 28.0), (-66.0, 82.0, 28.0), (-65.0, -46.0, -91.0)):
        assert np.linalg.norm(centres - known, axis=1).min() < 5.0
    # Nothing is known of the content, and the brightest is saturated: no millimolar from them.
    brightest = measure_reference(
        scan, affine, detection.objects[0].geometry, mtf, noise_sd, clipped=clipped_voxels(image.dataobj)
    )
    assert brightest.flag == "clipped"
    assert brightest.clipped >= 6
