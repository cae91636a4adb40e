"""Reference signals against objects made on a fine grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, tissue_relaxation
from sodium_prep.physics.signal import signal_factor
from sodium_prep.quant.calibration import predict_concentration
from sodium_prep.quant.geometry import ReferenceGeometry, k_grid
from sodium_prep.quant.references import calibrate_references, clipped_voxels, measure_reference
from tests.quant.fine_grid import blurred_shape, grid, image_of, radial_mtf, shape_fraction

N = 40
SHAPE, AFFINE = grid(N)
MTF = radial_mtf()
BALL = ReferenceGeometry("ball", (4.3, -7.1, 2.2), 11.0)
TUBE = ReferenceGeometry("tube", (-5.0, 6.2, 1.1), 8.0, 45.0, (0.2, -0.1, 1.0))


@pytest.fixture(scope="module")
def tube_image():
    return image_of([(TUBE, 500.0)], N, MTF)


@pytest.mark.parametrize("geometry", [BALL, TUBE], ids=lambda g: g.label)
def test_closed_form_equals_the_fine_grid(geometry):
    exact = blurred_shape(geometry, SHAPE, AFFINE, MTF)
    assert np.abs(exact - image_of([(geometry, 1.0)], N, MTF)).max() < 0.01
    # Transfer 1 at k = 0: the sum over voxels is the volume.
    assert exact.sum() * 27.0 == pytest.approx(geometry.volume_mm3, rel=1e-9)
    assert shape_fraction(geometry, SHAPE, AFFINE).sum() * 27.0 == pytest.approx(geometry.volume_mm3, rel=0.005)
    on_grid = MTF(k_grid(SHAPE, AFFINE))
    assert_allclose(blurred_shape(geometry, SHAPE, AFFINE, on_grid), exact)


def test_oblique_grid_gives_the_same_object():
    angle = np.deg2rad(20.0)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    moved = replace(BALL, centre_mm=tuple(turn[:3, :3] @ BALL.centre_mm))
    assert_allclose(blurred_shape(moved, SHAPE, turn @ AFFINE, MTF), blurred_shape(BALL, SHAPE, AFFINE, MTF), atol=1e-9)


@pytest.mark.parametrize("radius", [4.0, 6.0, 10.0])
def test_small_vials_keep_their_signal_where_a_mean_loses_it(radius):
    geometry = replace(TUBE, radius_mm=radius)
    # A magnitude: the floor and the rectified sidelobes around the object are not there underneath it.
    image = np.hypot(image_of([(geometry, 500.0)], N, MTF), 12.0)
    misplaced = replace(geometry, centre_mm=tuple(np.add(geometry.centre_mm, (1.2, -0.9, 0.7))))
    found = measure_reference(image, AFFINE, misplaced, MTF, 1.0)
    assert found.usable
    assert found.signal == pytest.approx(500.0, rel=0.01)
    assert 6.0 < found.background < 24.0
    assert_allclose(found.geometry.centre_mm, geometry.centre_mm, atol=0.4)
    region = shape_fraction(geometry, SHAPE, AFFINE) > 0.5
    assert abs(image[region].mean() - 500.0) > 0.05 * 500.0


@pytest.mark.parametrize("coloured", [False, True])
def test_standard_error_is_the_spread_over_noise(tube_image, coloured):
    rng = np.random.default_rng(5)
    k = np.linalg.norm(k_grid(SHAPE, AFFINE), axis=-1)
    psd = np.exp(-((k / 0.06) ** 2)) if coloured else np.ones(SHAPE)
    psd /= psd.mean()
    found = []
    for _ in range(30):
        white = np.fft.fftn(rng.standard_normal(SHAPE))
        noise = 20.0 * np.fft.ifftn(white * np.sqrt(psd)).real
        found.append(measure_reference(tube_image + noise, AFFINE, TUBE, MTF, 20.0, noise_psd=psd))
    signals = np.array([f.signal for f in found])
    stated = np.mean([f.signal_sd for f in found])
    # Thirty draws know a standard deviation to 13 %.
    assert signals.std(ddof=1) == pytest.approx(stated, rel=0.39)
    assert signals.mean() == pytest.approx(500.0, abs=4.0 * stated / np.sqrt(30) + 2.5)


def test_radius_and_length_can_be_found_too(tube_image):
    guess = replace(TUBE, radius_mm=9.5, length_mm=38.0)
    found = measure_reference(tube_image, AFFINE, guess, MTF, 1.0, radius_range_mm=(5.0, 15.0))
    assert found.geometry.radius_mm == pytest.approx(8.0, abs=0.1)
    assert found.geometry.length_mm == pytest.approx(45.0, abs=0.5)
    assert found.signal == pytest.approx(500.0, rel=0.01)


@pytest.mark.parametrize(
    ("part", "where"),
    [([7, 511, 511, -90, -90], [1, 2]), ([-512, 511, 7, 511, -512], [0, 1, 3, 4]), ([-512, -512, 80, 80], [0, 1])],
)
def test_parts_of_complex_data_are_clipped_at_either_end(part, where):
    assert list(np.flatnonzero(clipped_voxels(np.array(part)))) == where


def test_clipped_bubbled_absent_and_cut_references_are_not_used(tube_image):
    stored = np.round(np.minimum(tube_image, 480.0)).astype(np.int16)
    clipped = measure_reference(stored.astype(float), AFFINE, TUBE, MTF, 1.0, clipped=clipped_voxels(stored))
    assert (clipped.flag, clipped.usable) == ("clipped", False)
    assert clipped.clipped > 10
    bubble = ReferenceGeometry("bubble", (-3.0, 8.0, 12.0), 5.0)
    bubbled = measure_reference(image_of([(TUBE, 500.0), (bubble, -500.0)], N, MTF), AFFINE, TUBE, MTF, 1.0)
    assert bubbled.flag == "poor fit"

    rng = np.random.default_rng(0)
    absent = measure_reference(rng.normal(0.0, 20.0, SHAPE), AFFINE, TUBE, MTF, 20.0)
    assert absent.flag == "weak"

    defaced = tube_image + 1e-6
    defaced[:, :, 20:] = 0.0
    assert measure_reference(defaced, AFFINE, replace(TUBE, centre_mm=(-5.0, 6.2, 20.0)), MTF, 1.0).flag == "cut"

    with pytest.raises(InputError, match="outside the sodium image"):
        measure_reference(tube_image, AFFINE, replace(TUBE, centre_mm=(0.0, 0.0, 90.0)), MTF, 1.0)


@pytest.fixture(scope="module")
def streaks():
    """Twice the noise that the scan's noise measurement knows, as coarse as the image: undersampling."""
    rng = np.random.default_rng(3)
    k = np.linalg.norm(k_grid(SHAPE, AFFINE), axis=-1)
    pattern = np.fft.ifftn(np.fft.fftn(rng.standard_normal(SHAPE)) * MTF(k_grid(SHAPE, AFFINE)) * (k > 0.02)).real
    return 35.0 * pattern / pattern.std()


@pytest.mark.parametrize("signal", [200.0, 800.0])
def test_streaks_do_not_reject_a_good_vial_and_do_not_hide_a_bad_one(streaks, signal):
    vial = replace(TUBE, radius_mm=9.0)

    def measured(geometry, *others):
        image = streaks + sum(
            level * blurred_shape(one, SHAPE, AFFINE, MTF) for one, level in ((vial, signal), *others)
        )
        return measure_reference(image, AFFINE, geometry, MTF, 17.0)

    good = measured(vial)
    assert good.usable
    # In the weaker vial streaks leave more than the tenth of the signal that is refused where nothing explains it.
    assert (good.residual > 0.13) == (signal == 200.0)
    assert abs(good.signal - signal) < 3.0 * good.signal_sd
    bubble = ReferenceGeometry("bubble", (-3.0, 8.0, 12.0), 6.0)
    assert measured(vial, (bubble, -signal)).flag == "poor fit"
    for radius in (8.0, 10.0):
        wrong = measured(replace(vial, radius_mm=radius))
        assert (wrong.flag, "size" in wrong.reason) == ("poor fit", True)


def test_tissue_around_an_object_is_not_counted_as_its_signal():
    eye = replace(BALL, radius_mm=12.0)
    coarse = radial_mtf(5.0)
    image = 150.0 + 350.0 * blurred_shape(eye, SHAPE, AFFINE, coarse)
    found, counted = (
        measure_reference(image, AFFINE, eye, coarse, 1.0, reach_mm=4.0, surroundings=kind)
        for kind in ("tissue", "air")
    )
    assert found.signal == pytest.approx(500.0, rel=1e-3)
    assert counted.signal > 505.0


def test_three_vials_to_millimolar():
    acquisition = Acquisition(0.0004, 0.1, 90.0, 3.0, "DA-3DPR", 0.01, (3.6, 3.6, 3.6))
    gel = Relaxation(0.035, 0.025, 0.004, 0.6, 0.001, 0.001, 0.0003, 0.02)
    places = [(-30.0, -20.0, 0.0), (30.0, -20.0, 0.0), (0.0, 33.0, 0.0)]
    kappa = [0.9, 1.1, 1.0]
    vials = [
        ReferenceGeometry(f"vial{c:.0f}", place, 8.0, 50.0, (0.0, 0.0, 1.0), c, 0.01 * c, gel)
        for c, place in zip((30.0, 60.0, 90.0), places, strict=True)
    ]
    gain = 7.0
    truth = [
        (v, gain * v.concentration_mM * float(signal_factor(acquisition, gel, b1)))
        for v, b1 in zip(vials, kappa, strict=True)
    ]
    image = image_of(truth, N, MTF) + np.random.default_rng(2).normal(0.0, 4.0, SHAPE)
    signals = [measure_reference(image, AFFINE, v, MTF, 4.0) for v in vials]
    line = calibrate_references(signals, acquisition, b1_plus=kappa)
    grey = tissue_relaxation("GM", 3.0)
    f = float(signal_factor(acquisition, grey))
    c, _, _, se = predict_concentration(gain * 45.0 * f, 0.0, f, line)
    assert abs(c - 45.0) < 3.0 * se
    assert se < 2.0
    # One percent of concentration error in each vial cannot give less than about half a percent in tissue.
    assert se > 0.2

    with pytest.raises(InputError, match="no reference is usable"):
        calibrate_references([replace(s, flag="clipped", reason="saturated") for s in signals], acquisition)
    nameless = replace(signals[0], geometry=replace(vials[0], relaxation=None))
    with pytest.raises(InputError, match="not known"):
        calibrate_references([nameless, *signals[1:]], acquisition)


def test_the_relaxation_error_of_a_batch_is_common_to_its_vials(tube_image):
    """Four vials of one gel do not know its T1 twice as well as one: the line moves as a whole."""
    acquisition = Acquisition(0.0005, 0.05, 90.0, 3.0, "DA-3DPR", 0.01, (3.6, 3.6, 3.6))
    gel = Relaxation(0.04, 0.03, t1_sd_s=0.002)
    found = measure_reference(tube_image, AFFINE, TUBE, MTF, 0.01)
    levels = np.array([20.0, 40.0, 60.0, 80.0])

    def slope_error(relaxations):
        vials = [
            replace(
                found,
                signal=10.0 * c * float(signal_factor(acquisition, replace(r, t1_sd_s=0.0))),
                signal_sd=1e-3,
                geometry=replace(TUBE, concentration_mM=c, relaxation=r),
            )
            for c, r in zip(levels.tolist(), relaxations, strict=True)
        ]
        line = calibrate_references(vials, acquisition, intercept="zero")
        return line.slope_sd / line.slope

    ends = [float(signal_factor(acquisition, replace(gel, t1_s=t1))) for t1 in (0.038, 0.042)]
    one_gel = abs(np.log(ends[0] / ends[1])) / 2
    assert slope_error([gel] * 4) == pytest.approx(one_gel, rel=0.02)
    # Four gels that were measured one by one do average.
    apart = [replace(gel, t1_sd_s=0.002 + 1e-9 * i) for i in range(4)]
    assert slope_error(apart) == pytest.approx(one_gel / 2.0, rel=0.05)


def test_one_reference_makes_a_line_through_the_origin(tube_image):
    known = replace(TUBE, concentration_mM=50.0, concentration_sd_mM=0.5, relaxation=Relaxation(0.05, 0.05))
    acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (3.0, 3.0, 3.0))
    found = measure_reference(tube_image, AFFINE, known, MTF, 1.0)
    line = calibrate_references([found], acquisition)
    factor = float(signal_factor(acquisition, known.relaxation))
    assert line.intercept == 0.0
    assert line.slope == pytest.approx(found.signal / (50.0 * factor), rel=1e-6)
    assert line.slope_sd / line.slope > 0.01
