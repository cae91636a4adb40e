from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.recon.gridding import grid_image
from sodium_prep.recon.recognise import measured_trajectory
from sodium_prep.recon.trajectory import radial_weights
from tests.recon.analytic import Ellipsoid, small_trajectory
from tests.recon.designs import design


def _even_weights(trajectory):
    return np.broadcast_to(trajectory.weights_mm3, trajectory.k_per_mm.shape[:2])


@pytest.mark.parametrize("kind", ["DA-3DPR", "TPI", "Cones", "SpiralStack"])
def test_closed_forms_are_recognised_from_the_samples_in_any_order(kind):
    given = design(kind).trajectory
    order = np.random.default_rng(0).permutation(given.n_readouts)
    found = measured_trajectory(given.k_per_mm[order], given.time_s)
    assert found.region == given.region
    np.testing.assert_allclose(found.half_extents_per_mm, given.half_extents_per_mm, rtol=1e-6)
    assert (found.extents_per_mm is None) == (kind != "SpiralStack")
    expected = _even_weights(given)[order]
    np.testing.assert_allclose(_even_weights(found), expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_cones_about_another_axis_are_recognised():
    given = design("Cones").trajectory
    found = measured_trajectory(np.roll(given.k_per_mm, 1, axis=2), given.time_s)
    np.testing.assert_allclose(found.weights_mm3, given.weights_mm3, rtol=1e-3, atol=1e-3 * given.weights_mm3.max())


@pytest.mark.parametrize("kind", ["DA-3DPR", "3DPR"])
def test_the_closed_law_keeps_its_exact_weights(kind):
    given = small_trajectory(600, 200, trajectory=kind)
    found = measured_trajectory(given.k_per_mm, given.time_s)
    assert found.linear_fraction == pytest.approx(given.linear_fraction, abs=1e-4)
    np.testing.assert_allclose(found.weights_mm3, given.weights_mm3, rtol=1e-5, atol=1e-6 * given.weights_mm3.max())


def test_an_anisotropic_resolution_is_an_ellipsoid_of_k_space():
    given = small_trajectory(600, 200)
    found = measured_trajectory(given.k_per_mm * np.float32([1.0, 0.8, 0.5]), given.time_s)
    assert found.half_extents_per_mm == pytest.approx(given.kmax_per_mm * np.array([1.0, 0.8, 0.5]), rel=1e-5)
    assert found.kmax_per_mm == pytest.approx(0.5 * given.kmax_per_mm, rel=1e-5)
    np.testing.assert_allclose(
        found.weights_mm3, 0.4 * given.weights_mm3, rtol=1e-4, atol=1e-5 * given.weights_mm3.max()
    )
    np.testing.assert_allclose(found.k_relative, given.k_relative, atol=1e-5)


def test_readouts_without_a_closed_form_are_iterated_and_keep_the_value_of_a_large_ellipsoid():
    given = design("FLORET").trajectory
    found = measured_trajectory(given.k_per_mm, given.time_s)
    assert found.weights_mm3.sum() == pytest.approx(given.volume_per_mm3, rel=1e-6)
    head = Ellipsoid(37.0, (60.0, 55.0, 50.0), (7.0, -6.0, 5.0), 25.0)
    kspace = head.spectrum(given.k_per_mm)[None].astype(np.complex64)
    image = grid_image(kspace, found, (22,) * 3, (8.0,) * 3, "hamming")[0].real
    assert image[head.depth(image.shape, (8.0,) * 3) < 0.6].mean() == pytest.approx(37.0, rel=5e-3)


def _ends_in_a_box(k):
    return k / np.abs(k[:, -1:]).max(axis=2, keepdims=True)


REFUSED = {
    "half of the spokes": ("DA-3DPR", lambda k: k[k[:, -1, 2] > 0.0], "evenly"),
    "half of the cones": ("TPI", lambda k: k[k[:, -1, 2] > 0.0], "evenly"),
    "one hub": ("FLORET", lambda k: k[: len(k) // 3], "evenly"),
    "no planes above": ("SpiralStack", lambda k: k[k[:, 0, 2] > -0.01], "evenly"),
    "a box": ("DA-3DPR", _ends_in_a_box, "sphere, ellipsoid or cylinder"),
    "backwards": ("DA-3DPR", lambda k: k[:, ::-1], "centre"),
    "no centre": ("DA-3DPR", lambda k: k[:, 60:], "away from the centre"),
    "nothing": ("DA-3DPR", lambda k: 0.0 * k, "centre"),
}


@pytest.mark.parametrize(("kind", "change", "message"), REFUSED.values(), ids=REFUSED)
def test_readouts_that_do_not_fill_k_space_are_refused(kind, change, message):
    given = design(kind).trajectory
    k = change(given.k_per_mm)
    with pytest.raises(ValueError, match=message):
        measured_trajectory(k, given.time_s[: k.shape[1]])


def test_volume_and_place_in_the_region():
    given = design("SpiralStack").trajectory
    assert replace(given, region="ellipsoid").volume_per_mm3 == pytest.approx(given.volume_per_mm3 / 1.5)
    corner = replace(given, k_per_mm=np.float32([[[0.03125, 0.0, 0.05], [0.0, 0.0625, -0.025], [0.0, 0.05, 0.0]]]))
    np.testing.assert_allclose(corner.k_relative, [[1.0, 1.0, 0.8]], rtol=1e-6)


def test_spokes_bent_by_delays_of_the_gradients_stay_spokes():
    straight = small_trajectory(600, 200)
    step = straight.time_s[1]
    k = np.stack(
        [
            [np.interp(straight.time_s - delay * step, straight.time_s, one) for one in straight.k_per_mm[..., axis]]
            for axis, delay in enumerate((0.0, 0.3, 0.6))
        ],
        axis=-1,
    )
    found = measured_trajectory(k, straight.time_s)
    expected = radial_weights(np.linalg.norm(k, axis=2), 600)
    np.testing.assert_allclose(found.weights_mm3, expected, rtol=1e-6, atol=1e-9 * expected.max())
