"""Every method through the one door: value, noise, point spread function, refusals."""

import numpy as np
import pytest

from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.pvc.measured import measured_psf
from sodium_prep.recon.options import Options
from sodium_prep.recon.reconstruct import reconstruct
from tests.recon.analytic import Ellipsoid, complex_noise, raw_data, small_trajectory

N, VOXEL_MM = 30, 8.0
SHAPE, VOXELS_MM = (N,) * 3, (VOXEL_MM,) * 3
HEAD = Ellipsoid(40.0, (88.0, 76.0, 70.0), (4.0, -4.0, 3.0), 15.0)
FLUID = Ellipsoid(60.0, (30.0, 30.0, 30.0), (4.0, -4.0, 3.0))
DEPTH = HEAD.depth(SHAPE, VOXELS_MM)
DEEP = (DEPTH < 0.75) & (FLUID.depth(SHAPE, VOXELS_MM) > 1.6)
INNER = FLUID.depth(SHAPE, VOXELS_MM) < 0.5
GUIDE = (100.0 * (DEPTH < 1.0) - 60.0 * (FLUID.depth(SHAPE, VOXELS_MM) < 1.0)).astype(np.float32)
NOISE = 4.0


@pytest.fixture(scope="module")
def trajectory():
    return small_trajectory(1600, 150, resolution_mm=VOXEL_MM)


@pytest.fixture(scope="module")
def scan(trajectory):
    truth = (HEAD.spectrum(trajectory.k_per_mm) + FLUID.spectrum(trajectory.k_per_mm))[None]
    sigma = NOISE / np.sqrt(trajectory.n_readouts * np.sum(trajectory.weights_mm3**2))

    def make(seed):
        rng = np.random.default_rng(seed)
        scan = sigma * complex_noise(rng, (1, 20_000))
        return raw_data(truth + sigma * complex_noise(rng, truth.shape), trajectory, N, VOXEL_MM, noise=scan)

    return make


def _options(method, **more):
    return Options(method=method, guide=GUIDE if method in ("agr", "bowsher") else None, **more)


@pytest.mark.parametrize("method", ["sense", "wavelet", "tv", "agr", "bowsher"])
def test_regions_keep_their_value_and_the_noise_is_as_stated(scan, method):
    made = [reconstruct(scan(seed), _options(method, seed=seed)) for seed in range(3)]
    gridded = [reconstruct(scan(seed)) for seed in range(3)]
    images, first = np.stack([one.image for one in made]), np.stack([one.image for one in gridded])
    assert images[:, DEEP].mean() == pytest.approx(40.0, rel=0.01)
    assert images[:, INNER].mean() == pytest.approx(100.0, rel=0.05)
    head = DEPTH < 1.2
    seen, before = (np.sqrt(np.mean(np.var(x, axis=0, ddof=1)[head])) for x in (images, first))
    stated = np.sqrt(np.mean([one.noise_sd[head] ** 2 for one in made]))
    assert seen < before
    assert stated == pytest.approx(seen, rel=0.06 if method == "sense" else 0.25)


def test_least_squares_blurs_like_gridding_and_a_prior_less(scan):
    decays = {"slow": Relaxation(0.04, 0.05, 0.05, 0.5), "fast": Relaxation(0.04, 0.02, 0.003, 0.6)}
    widths = {}
    for method in ("gridding", "sense", "tv"):
        made = reconstruct(scan(0), _options(method, relaxations=decays, echo_time_s=0.0003))
        for name, point in made.psf.items():
            assert point.sum() == pytest.approx(1.0, abs=0.05)
            found = measured_psf(point, made.psf_voxel_mm, own=method != "gridding")
            widths[method, name] = float(np.mean(found.fwhm_mm))
    assert widths["gridding", "slow"] == pytest.approx(1.61 * VOXEL_MM, rel=0.02)
    for name in decays:
        assert widths["sense", name] == pytest.approx(widths["gridding", name], rel=0.05)
        assert widths["tv", name] < 0.95 * widths["gridding", name]
    assert widths["sense", "fast"] > 1.05 * widths["sense", "slow"]


def test_what_does_not_belong_together_is_refused(scan):
    raw = scan(0)
    for options, reason in (
        (Options(method="sense", kspace_filter="hamming"), "a window on k-space belongs to gridding"),
        (Options(method="agr"), "agr needs an anatomical image"),
        (Options(method="tv", guide=GUIDE), "tv takes no anatomical image"),
        (Options(method="sense", strength=1.0), "sense has no prior"),
        (Options(method="agr", guide=GUIDE[1:]), "not finite on the grid"),
        (Options(method="sense", off_resonance_hz=np.full(SHAPE, np.nan, np.float32)), "not finite on the grid"),
    ):
        with pytest.raises(ValueError, match=reason):
            reconstruct(raw, options)


def test_same_bytes_every_time_and_on_two_threads(scan):
    raw = scan(0)
    first, second = (reconstruct(raw, _options("tv", workers=n)) for n in (1, 2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.noise_sd.tobytes() == second.noise_sd.tobytes()
