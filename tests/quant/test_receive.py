"""Receive profile against a known one, and on a real pair."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from sodium_prep.errors import InputError
from sodium_prep.quant.detect import rough_head_mask
from sodium_prep.quant.geometry import ReferenceGeometry, voxel_centres
from sodium_prep.quant.noise import background_mask
from sodium_prep.quant.receive import divide_profile, receive_profile, resample_profile
from sodium_prep.quant.smooth import smooth_field
from tests.quant.fine_grid import shape_fraction
from tests.shared import shared_path

SHAPE = (38, 38, 38)
AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
AFFINE[:3, 3] = -6.0 * 18.5


def array_sensitivity(points_mm):
    """Root sum of squares of eight loops (their field on axis) on a cylinder of 130 mm radius."""
    angles = np.arange(8) * np.pi / 4
    power = 0.0
    for angle in angles:
        coil = 130.0 * np.array([np.cos(angle), np.sin(angle), 0.0])
        power = power + (60.0**2 + ((points_mm - coil) ** 2).sum(axis=-1)) ** -3.0
    return np.sqrt(power)


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(12)
    points = voxel_centres(SHAPE, AFFINE)
    head = shape_fraction(ReferenceGeometry("head", (0.0, 0.0, 0.0), 80.0), SHAPE, AFFINE)
    vial = shape_fraction(ReferenceGeometry("vial", (92.0, 15.0, 0.0), 9.0, 60.0), SHAPE, AFFINE)
    texture = 1.0 + 0.5 * np.sign(np.sin(points / 12.0).prod(axis=-1))
    truth = array_sensitivity(points)
    truth = truth / truth[head > 0.5].mean()

    def noisy(image, sigma):
        return np.hypot(image + sigma * rng.standard_normal(SHAPE), sigma * rng.standard_normal(SHAPE))

    objects = 80.0 * head * texture + 150.0 * vial
    return noisy(2.0 * truth * objects, 8.0), noisy(objects, 15.0), truth, head > 0.5, vial > 0.5


@pytest.fixture(scope="module")
def found(pair):
    head_image, body_image, _, head, _ = pair
    return receive_profile(head_image, body_image, AFFINE, head_mask=head)


def test_known_profile_is_recovered_in_head_and_vial(pair, found):
    head_image, body_image, truth, head, vial = pair
    error = found.values / truth - 1.0
    assert found.values[head].mean() == pytest.approx(1.0)
    assert np.abs(error[head]).mean() < 0.03
    assert np.sqrt(np.mean(error[head] ** 2)) < 0.04
    assert abs(error[vial].mean()) < 0.03
    # The array is twice as sensitive at the rim as in the middle here; a plain ratio of magnitudes would keep a bias.
    assert np.ptp(truth[head]) > 0.8
    biased = np.median(head_image[head] / body_image[head]) / 2.0
    assert abs(np.log(biased)) > 3.0 * abs(np.log(np.median(found.values[head] / truth[head])))


def test_correction_levels_outer_and_inner_fluid(pair, found):
    """Lachner et al. 2020: outer to inner CSF 1.71 uncorrected, 1.00 with a volume-coil reference."""
    _, _, truth, head, _ = pair
    depth = ndimage.distance_transform_edt(head, sampling=6.0)
    fluid = 100.0 * truth
    corrected, _ = divide_profile(fluid, 1.0, found.values)
    slab = head & (np.abs(voxel_centres(SHAPE, AFFINE)[..., 2]) < 20.0)
    outer, inner = slab & (depth < 15.0), slab & (depth > 55.0)
    assert fluid[outer].mean() / fluid[inner].mean() > 1.7
    assert corrected[outer].mean() / corrected[inner].mean() == pytest.approx(1.0, abs=0.05)


def test_resampling_is_linear_and_holds_the_edge():
    ramp = np.broadcast_to(np.arange(5.0)[:, None, None], (5, 5, 5))
    target = np.diag([0.5, 1.0, 1.0, 1.0])
    target[0, 3] = -1.0
    out = resample_profile(ramp, np.eye(4), (13, 5, 5), target)
    assert_allclose(out[:, 2, 2], np.clip(np.arange(13) * 0.5 - 1.0, 0.0, 4.0), atol=1e-6)


def test_smooth_field_keeps_constants_bears_outliers_and_bridges_gaps():
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 1.0, 16)
    truth = 1.0 + 0.5 * np.cos(np.pi * x)[:, None, None] * np.ones((16, 16, 16))
    values = truth + 0.05 * rng.standard_normal(truth.shape)
    values[rng.random(truth.shape) < 0.05] = 5.0
    weights = np.ones(truth.shape)
    weights[7:10] = 0.0
    found = smooth_field(values, weights, np.full(3, 12.0))
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.02
    assert np.abs(found - truth)[6:11].max() < 0.08
    flat = smooth_field(np.full(truth.shape, 3.0), weights, np.full(3, 12.0))
    assert_allclose(flat, 3.0, rtol=1e-6)


def test_unequal_or_empty_pairs_are_refused(pair):
    head_image, body_image, *_ = pair
    with pytest.raises(InputError, match="shapes"):
        receive_profile(head_image, body_image[1:], AFFINE)
    rng = np.random.default_rng(1)
    with pytest.raises(InputError, match="signal in both"):
        receive_profile(head_image, np.hypot(*rng.normal(0.0, 5.0, (2, *SHAPE))), AFFINE)


def test_real_pair_levels_the_real_scan():
    import nibabel as nib

    folder = shared_path("real/sub-uhf01")
    images = {
        name: nib.load(folder / f"{name}.nii.gz")
        for name in (
            "anat/sub-uhf01_acq-sodium_PDw",
            "fmap/sub-uhf01_acq-head_RB1COR",
            "fmap/sub-uhf01_acq-body_RB1COR",
        )
    }
    sodium, head, body = images.values()
    scan = sodium.get_fdata()
    mask = rough_head_mask(scan, sodium.affine)
    found = receive_profile(head.get_fdata(), body.get_fdata(), head.affine)
    assert found.relative_residual < 0.06
    profile = resample_profile(found.values, found.affine, scan.shape, sodium.affine)
    air = background_mask(scan, sodium.affine, mask)
    plain = np.sqrt(np.maximum(scan**2 - np.mean(scan[air] ** 2), 0.0))
    corrected, _ = divide_profile(plain, 1.0, profile)
    z = voxel_centres(scan.shape, sodium.affine)[..., 2]
    depth = ndimage.distance_transform_edt(mask, sampling=np.diag(sodium.affine)[:3])
    brain = mask & (z > -10.0) & (z < 60.0)
    outer, inner = brain & (depth > 18.0) & (depth < 30.0), brain & (depth > 45.0)
    before = np.median(plain[outer]) / np.median(plain[inner])
    after = np.median(corrected[outer]) / np.median(corrected[inner])
    assert before > 1.35
    assert after < 1.20
