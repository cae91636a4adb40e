import re
from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.recon import generators
from sodium_prep.recon.generators import Readout
from sodium_prep.recon.gradients import SPEED_PER_GRADIENT, Gradients, Paths, shortest_times
from sodium_prep.recon.gridding import grid_image
from tests.recon.analytic import Ellipsoid
from tests.recon.designs import FAST, FIELD_MM, KINDS, LIMITS, RESOLUTION_MM, SLOW, design

HEAD = Ellipsoid(37.0, (72.0, 64.0, 56.0), (7.0, -6.0, 5.0), 25.0)
N = 26
DEPTH = HEAD.depth((N,) * 3, (RESOLUTION_MM,) * 3)
RADIUS_MM = Ellipsoid(1.0, (1.0,) * 3).depth((N,) * 3, (RESOLUTION_MM,) * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_the_volume_that_the_resolution_asks_for(kind):
    trajectory = design(kind).trajectory
    kmax = 0.5 / RESOLUTION_MM
    volume = np.pi * kmax**2 * 0.1 if kind == "SpiralStack" else 4.0 / 3.0 * np.pi * kmax**3
    repeats = trajectory.n_readouts / len(trajectory.weights_mm3)
    assert trajectory.volume_per_mm3 == pytest.approx(volume, rel=1e-12)
    assert trajectory.weights_mm3.sum() * repeats == pytest.approx(volume, rel=1e-4)
    assert trajectory.k_relative[:, -1].min() > 1.0 - 1e-6
    # Second moments: the mean of k^2 over a ball, over a disc and over a height.
    weights = trajectory.weights_mm3 * np.ones((trajectory.n_readouts, 1))
    mean_square = np.einsum("ij,ijk->k", weights, trajectory.k_per_mm.astype(float) ** 2) / volume
    expected = [kmax**2 / 4, kmax**2 / 4, 0.05**2 / 3] if kind == "SpiralStack" else [kmax**2 / 5] * 3
    np.testing.assert_allclose(mean_square, expected, rtol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_large_ellipsoid_keeps_its_value(kind):
    trajectory = design(kind).trajectory
    kspace = HEAD.spectrum(trajectory.k_per_mm)[None].astype(np.complex64)
    plain, smooth = (
        grid_image(kspace, trajectory, (N,) * 3, (RESOLUTION_MM,) * 3, window)[0] for window in ("none", "hamming")
    )
    inside, air = DEPTH < 0.6, (DEPTH > 1.4) & (RADIUS_MM < 0.5 * FIELD_MM)
    assert plain.real[inside].mean() == pytest.approx(37.0, rel=5e-3)
    assert smooth.real[inside].mean() == pytest.approx(37.0, rel=2e-3)
    assert smooth.real[inside].std() < 0.01 * 37.0
    assert np.abs(smooth[air]).mean() < 0.02 * 37.0


@pytest.mark.parametrize("kind", KINDS)
def test_reported_gradients_are_those_of_the_samples_and_within_the_limits(kind):
    k, time_s = design(kind).trajectory.k_per_mm.astype(float), design(kind).trajectory.time_s
    if kind == "SpiralStack":
        k[..., 2] = 0.0  # set before the readout
    gradient = np.diff(k, axis=1) / time_s[1] / SPEED_PER_GRADIENT
    slew = 1e-3 * np.diff(k, 2, axis=1) / time_s[1] ** 2 / SPEED_PER_GRADIENT
    start = 1e-3 * 2.0 * np.linalg.norm(gradient[:, 0], axis=-1).max() / time_s[1]
    reached = design(kind).gradients
    assert not k[:, 0].any()
    assert reached.amplitude_mt_per_m == pytest.approx(np.linalg.norm(gradient, axis=-1).max(), rel=1e-4)
    assert reached.slew_t_per_m_per_s == pytest.approx(max(start, np.linalg.norm(slew, axis=-1).max()), rel=1e-3)
    assert reached.amplitude_mt_per_m <= LIMITS.amplitude_mt_per_m
    assert reached.slew_t_per_m_per_s <= LIMITS.slew_t_per_m_per_s * (1.0 + 1e-6)


def test_nagels_protocol():
    # kmax at 3 mm, 10 ms, k0 = 0.0408/mm, ramp 0.15 ms: 8.53 mT/m.
    found = generators.density_adapted_radial(
        3.0, 4, Readout(0.010, 2.5e-5, Gradients(40.0, 8.53 / 0.15)), 0.0408 * 6.0
    )
    assert found.gradients.amplitude_mt_per_m == pytest.approx(8.53, rel=2e-3)
    radius = np.linalg.norm(found.trajectory.k_per_mm[0].astype(float), axis=1)
    flow = np.diff(radius**3)[radius[:-1] > 0.0408]
    np.testing.assert_allclose(flow / flow[-1], 1.0, rtol=1e-4)


def test_twist_keeps_the_flow_of_density_adapted_spokes_at_constant_speed():
    trajectory = design("TPI").trajectory
    k = trajectory.k_per_mm.astype(float)
    radius = np.linalg.norm(k, axis=2)
    spokes = np.linalg.norm(
        generators.density_adapted_radial(RESOLUTION_MM, 2, SLOW, 0.3).trajectory.k_per_mm[0].astype(float), axis=1
    )
    np.testing.assert_allclose(radius, np.broadcast_to(spokes, radius.shape), atol=1e-8)
    np.testing.assert_allclose(k[..., 2], radius * (k[:, -1:, 2] / radius[:, -1:]), atol=1e-7)
    equator = np.argmin(np.abs(k[:, -1, 2]))
    steps = np.linalg.norm(np.diff(k[equator], axis=0), axis=1)
    np.testing.assert_allclose(steps[len(steps) // 2 :] / steps[-1], 1.0, rtol=0.01)
    assert trajectory.n_readouts == pytest.approx(4.0 * np.pi * 0.3 * (0.5 / RESOLUTION_MM * FIELD_MM) ** 2, rel=0.1)


@pytest.mark.parametrize("amplitude", [10.0, 1000.0])
def test_shortest_time_along_a_line_is_the_closed_form(amplitude):
    # Constant acceleration, then constant speed where there is time for it.
    kmax, limits = 0.1, Gradients(amplitude, 100.0)
    speed, acceleration = SPEED_PER_GRADIENT * amplitude, 0.97 * 1e5 * SPEED_PER_GRADIENT
    ramp = min(speed / acceleration, np.sqrt(2.0 * kmax / acceleration))
    expected = ramp + (kmax - 0.5 * acceleration * ramp**2) / speed
    line = Paths(kmax, np.ones(1), np.zeros(1), np.zeros(1))
    assert shortest_times(line, limits)[0] == pytest.approx(expected, rel=2e-3)


MAKERS = {
    "DA-3DPR": lambda readout: generators.density_adapted_radial(RESOLUTION_MM, 50, readout),
    "Cones": lambda readout: generators.cones(RESOLUTION_MM, 80.0, readout),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("limits", [LIMITS, Gradients(4.0, 150.0)])
def test_a_readout_too_short_for_the_gradients_is_told_how_long_it_must_be(kind, limits):
    with pytest.raises(ValueError, match="too short") as refusal:
        MAKERS[kind](Readout(2e-4, 2e-6, limits))
    needed_s = 1e-3 * float(re.search(r"need ([\d.]+) ms", str(refusal.value))[1])
    reached = MAKERS[kind](Readout(1.01 * needed_s, 2e-6, limits)).gradients
    assert reached.amplitude_mt_per_m <= 1.001 * limits.amplitude_mt_per_m
    with pytest.raises(ValueError, match="too short"):
        MAKERS[kind](Readout(0.98 * needed_s, 2e-6, limits))


def test_samples_too_far_apart_for_the_field_of_view_are_refused():
    with pytest.raises(ValueError, match=r"the dwell time may be .* us at most") as refusal:
        generators.floret(RESOLUTION_MM, FIELD_MM, replace(FAST, dwell_s=5e-5))
    most_s = 1e-6 * float(re.search(r"may be ([\d.]+) us", str(refusal.value))[1])
    generators.floret(RESOLUTION_MM, FIELD_MM, replace(FAST, dwell_s=0.95 * most_s))


def test_longer_readouts_need_fewer_of_them():
    few, many = (generators.cones(RESOLUTION_MM, 100.0, replace(FAST, duration_s=t)) for t in (0.008, 0.002))
    assert few.trajectory.n_readouts < 0.5 * many.trajectory.n_readouts
