import json

import numpy as np
import pytest

from sodium_prep.recon.gridding import filtered_weights, grid_image, gridding_noise_sd
from sodium_prep.recon.noise import noise_power_spectrum, trajectory_noise_spectrum
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.trajectory import radial_trajectory
from tests.recon.analytic import Ellipsoid, acquisition, complex_noise, small_trajectory
from tests.recon.designs import design
from tests.shared import shared_path

ELLIPSOID = Ellipsoid(37.0, (85.0, 70.0, 60.0), (9.0, -14.0, 5.0), 25.0)


def _grid(kspace, trajectory, n, voxel_mm, kspace_filter="none"):
    return grid_image(kspace[None], trajectory, (n,) * 3, (voxel_mm,) * 3, kspace_filter)[0]


@pytest.mark.parametrize("name", ["DA-3DPR", "3DPR"])
@pytest.mark.parametrize("kspace_filter", ["none", "hamming"])
def test_large_ellipsoid_keeps_its_value(name, kspace_filter):
    trajectory = small_trajectory(trajectory=name)
    image = _grid(ELLIPSOID.spectrum(trajectory.k_per_mm), trajectory, 40, 6.0, kspace_filter)
    inside = ELLIPSOID.depth((40,) * 3, (6.0,) * 3) < 0.8
    assert image.real[inside].mean() == pytest.approx(37.0, rel=5e-3)
    assert abs(image.imag[inside].mean()) < 0.05


def test_value_does_not_depend_on_the_grid_or_the_number_of_samples():
    means = []
    for n_spokes, n_samples, n, voxel_mm in ((2500, 220, 40, 6.0), (4000, 300, 40, 6.0), (2500, 220, 41, 5.0)):
        trajectory = small_trajectory(n_spokes, n_samples)
        image = _grid(ELLIPSOID.spectrum(trajectory.k_per_mm), trajectory, n, voxel_mm).real
        means.append(image[ELLIPSOID.depth(image.shape, (voxel_mm,) * 3) < 0.7].mean())
    np.testing.assert_allclose(means, means[0], rtol=3e-3)


def test_object_lies_where_it_is():
    ball = Ellipsoid(1.0, (20.0, 20.0, 20.0), (18.0, -30.0, 6.0))
    trajectory = small_trajectory(kspace_filter="hamming")
    image = _grid(ball.spectrum(trajectory.k_per_mm), trajectory, 40, 6.0, "hamming").real
    near = ball.depth(image.shape, (6.0,) * 3) < 2.0
    index = np.argwhere(near) - 20
    centre = 6.0 * np.average(index, axis=0, weights=image[near])
    np.testing.assert_allclose(centre, ball.centre_mm, atol=0.1)


def _full_widths(samples, trajectory, kspace_filter):
    """Full width at half maximum of a point at the origin along the three axes, in units of 1 / (2 kmax)."""
    fine_mm, n = 0.25, 48
    psf = _grid(samples, trajectory, n, fine_mm, kspace_filter).real
    widths = []
    for profile in (psf[n // 2 :, n // 2, n // 2], psf[n // 2, n // 2 :, n // 2], psf[n // 2, n // 2, n // 2 :]):
        after = int(np.argmax(profile < profile[0] / 2.0))
        high, low = profile[after - 1], profile[after]
        widths.append(2.0 * fine_mm * (after - 1 + (high - profile[0] / 2.0) / (high - low)))
    return np.array(widths) * 2.0 * trajectory.kmax_per_mm


@pytest.mark.parametrize(("kspace_filter", "expected"), [("none", 1.590), ("hamming", 1.990)])
def test_point_spread_without_decay(kspace_filter, expected):
    trajectory = small_trajectory(3000, 220, resolution_mm=3.0)
    widths = _full_widths(np.ones(trajectory.k_per_mm.shape[:2]), trajectory, kspace_filter)
    np.testing.assert_allclose(widths, expected, rtol=0.01)


@pytest.mark.parametrize("kspace_filter", ["none", "hamming"])
@pytest.mark.parametrize(("name", "row_name", "fraction"), [("DA-3DPR", "da/tpi", 0.2), ("3DPR", "3dpr", 1.0)])
def test_decay_during_the_readout_widens_the_point_spread(name, row_name, fraction, kspace_filter):
    rows = json.loads(shared_path("reference/psf_tables.json").read_text())["rows"]
    key = ("WM(3.4/23.5)", row_name, fraction, 10.0, None if kspace_filter == "none" else kspace_filter)
    row = next(r for r in rows if (r["tissue"], r["traj"], r["p"], r["TRO"], r["filt"]) == key)
    trajectory = small_trajectory(3000, 400, trajectory=name, resolution_mm=3.0)
    decay = 0.6 * np.exp(-trajectory.time_s / 0.0034) + 0.4 * np.exp(-trajectory.time_s / 0.0235)
    widths = _full_widths(np.broadcast_to(decay, (3000, 400)), trajectory, kspace_filter)
    np.testing.assert_allclose(widths, row["fwhm_dx"], rtol=0.01)


KINDS = [("DA-3DPR", "none", 0.2), ("3DPR", "none", 1.0), ("DA-3DPR", "hamming", 0.3)]


@pytest.mark.parametrize(("name", "kspace_filter", "fraction"), KINDS)
def test_noise_level_and_spectrum_against_monte_carlo(name, kspace_filter, fraction):
    n, voxel_mm = 24, 6.0
    kind = acquisition(name, voxel_mm, fraction, kspace_filter)
    trajectory = radial_trajectory(kind, 1900, 100)
    rng = np.random.default_rng(3)
    kspace = 1.7 * complex_noise(rng, (12, 1900, 100))
    images = grid_image(kspace, trajectory, (n,) * 3, (voxel_mm,) * 3, kspace_filter)
    parts = np.concatenate([images.real, images.imag]).astype(float)
    expected = gridding_noise_sd(1.7, trajectory, kspace_filter)
    assert np.sqrt(np.mean(parts**2)) == pytest.approx(expected, rel=0.03)
    model = noise_power_spectrum((n,) * 3, (voxel_mm,) * 3, kind)
    k_rel = np.linalg.norm(np.stack(np.meshgrid(*[np.fft.fftfreq(n) * 2.0] * 3, indexing="ij")), axis=0)
    assert not model[k_rel > 1.0].any()
    # A Hann taper in space keeps the edges of the grid from leaking power between shells.
    hann = np.hanning(n + 1)[:n]
    taper = hann[:, None, None] * hann[:, None] * hann
    measured = np.mean(np.abs(np.fft.fftn(parts * taper, axes=(1, 2, 3))) ** 2, axis=0) / expected**2
    kernel = np.abs(np.fft.fftn(taper)) ** 2 / n**3
    blurred = np.fft.ifftn(np.fft.fftn(model) * np.fft.fftn(kernel)).real
    for low in np.arange(0.3, 0.9, 0.1):
        shell = (k_rel >= low) & (k_rel < low + 0.1)
        assert measured[shell].mean() == pytest.approx(blurred[shell].mean(), rel=0.05)


@pytest.mark.parametrize(("name", "kspace_filter", "fraction"), KINDS)
@pytest.mark.parametrize("radius", [1.5, 3.0, 6.0])
def test_noise_of_a_regional_mean_against_the_exact_sum(name, kspace_filter, fraction, radius):
    # Exact: the variance of b . x is sigma^2 sum_j w_j^2 |B(k_j)|^2. White noise is off by a factor of up to 2.
    n, voxel_mm = 24, 6.0
    kind = acquisition(name, voxel_mm, fraction, kspace_filter)
    trajectory = radial_trajectory(kind, 2000, 200)
    index = np.indices((n,) * 3) - n // 2
    region = (np.sum(index**2, axis=0) <= radius**2).astype(float)
    region /= region.sum()
    spectrum = Nufft(trajectory.k_per_mm.reshape(-1, 3), (n,) * 3, (voxel_mm,) * 3).forward(region) / voxel_mm**3
    window = 0.54 + 0.46 * np.cos(np.pi * trajectory.k_relative) if kspace_filter == "hamming" else 1.0
    weights = (trajectory.weights_mm3 * window * np.ones((2000, 1))).ravel()
    exact = np.sqrt(np.sum(weights**2 * np.abs(spectrum) ** 2))
    sd = gridding_noise_sd(1.0, trajectory, kspace_filter)
    power = np.abs(np.fft.fftn(region)) ** 2 / n**3
    for model in (
        noise_power_spectrum((n,) * 3, (voxel_mm,) * 3, kind),
        trajectory_noise_spectrum((n,) * 3, (voxel_mm,) * 3, trajectory, kspace_filter),
    ):
        assert sd * np.sqrt(np.sum(power * model)) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("kind", ["TPI", "Cones", "FLORET", "SpiralStack"])
@pytest.mark.parametrize("kspace_filter", ["none", "hamming"])
def test_noise_of_a_regional_mean_for_readouts_that_turn(kind, kspace_filter):
    n, voxel_mm = 24, 8.0
    trajectory = design(kind).trajectory
    model = trajectory_noise_spectrum((n,) * 3, (voxel_mm,) * 3, trajectory, kspace_filter)
    operator = Nufft(trajectory.k_per_mm.reshape(-1, 3), (n,) * 3, (voxel_mm,) * 3)
    weights = filtered_weights(trajectory, kspace_filter) * np.ones((trajectory.n_readouts, 1))
    assert model.mean() == pytest.approx(1.0, rel=1e-5)
    for radius in (1.5, 5.0):
        region = (np.sum((np.indices((n,) * 3) - n // 2) ** 2, axis=0) <= radius**2).astype(float)
        spectrum = np.abs(operator.forward(region) / voxel_mm**3) ** 2
        exact = np.sum(weights.ravel() ** 2 * spectrum)
        sd = gridding_noise_sd(1.0, trajectory, kspace_filter)
        assert sd**2 * np.sum(np.abs(np.fft.fftn(region)) ** 2 / n**3 * model) == pytest.approx(exact, rel=0.03)


def test_noise_of_cartesian_images_is_white_within_its_box():
    model = noise_power_spectrum((16,) * 3, (3.0,) * 3, acquisition("Cartesian", 6.0))
    box = np.abs(np.fft.fftfreq(16, 3.0)) <= 1.0 / 12.0
    inside = box[:, None, None] & box[:, None] & box
    assert not model[~inside].any()
    np.testing.assert_allclose(model[inside], 16**3 / inside.sum(), rtol=1e-6)
