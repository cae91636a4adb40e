"""Raw data of two echoes to an image before decay: its noise against independent scans, its points, its refusals."""

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.errors import InputError
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.recon import decay
from sodium_prep.recon.agrdm import DecayData, JointSolver
from sodium_prep.recon.decay import reconstruct_decay
from sodium_prep.recon.options import Options
from tests.recon.analytic import Ellipsoid, complex_noise, raw_data, small_trajectory

N, VOXEL_MM, NOISE, T2STAR_S = 18, 12.0, (1.0, 1.3), 0.018
HEAD = Ellipsoid(40.0, (84.0, 78.0, 80.0))
LINE = small_trajectory(500, 80, resolution_mm=VOXEL_MM)
DEPTH = HEAD.depth((N,) * 3, (VOXEL_MM,) * 3)
GUIDE, WITHIN = (DEPTH < 1.0).astype(np.float32), DEPTH < 0.7
TISSUES = {"whole": Relaxation(0.05, T2STAR_S, 0.001, 0.0), "mixed": Relaxation(0.03, 0.02, 0.003, 0.6)}


def _scan(seed):
    rng, echoes = np.random.default_rng(seed), []
    unit = 1.0 / np.sqrt(LINE.n_readouts * np.sum(LINE.weights_mm3**2))
    for time_s, level in zip((0.0005, 0.005), NOISE, strict=True):
        kspace = HEAD.spectrum(LINE.k_per_mm) * np.exp(-(time_s + LINE.time_s) / T2STAR_S)
        kspace = kspace + level * unit * complex_noise(rng, kspace.shape)
        noise = (level * unit * complex_noise(rng, (1, 20_000))).astype(np.complex64)
        source = f"echo-{1e3 * time_s:g}ms.h5"
        echoes.append(raw_data(kspace[None], LINE, N, VOXEL_MM, noise=noise, echo_time_s=time_s, source=source))
    return echoes


@pytest.fixture(scope="module")
def found():
    # One file for each echo: their trajectories are equal, but not the same object.
    late = [replace(echo, trajectory=replace(LINE)) for echo in _scan(0)][::-1]
    return reconstruct_decay(late, Options(method="agrdm", guide=GUIDE, relaxations=TISSUES))


def test_noise_of_image_and_t2star_is_the_scatter_of_independent_scans(found):
    images, t2stars = [], []
    for seed in range(1, 5):
        gridded = decay._gridded(_scan(seed), 1, lambda *_: None)
        data = DecayData(gridded.echoes, (VOXEL_MM,) * 3)
        solver = JointSolver(data, NOISE[0], NOISE[0], GUIDE)
        result = solver.images(*solver(data, solver.start()))
        images.append(result.image)
        t2stars.append(result.t2star_s)
    for scans, stated in ((images, found.scan.noise_sd), (t2stars, found.t2star_sd_s)):
        scatter = np.sqrt(np.mean(np.var([scan[WITHIN] for scan in scans], axis=0, ddof=1)))
        assert np.sqrt(np.mean(stated[WITHIN] ** 2)) == pytest.approx(scatter, rel=0.2)
    assert found.scan.noise_psd.mean() == pytest.approx(1.0, rel=1e-4)


def test_image_is_that_of_the_excitation_and_a_point_is_what_one_exponential_makes_of_its_decay(found):
    assert found.scan.image[WITHIN].mean() == pytest.approx(HEAD.value, rel=0.01)
    assert np.median(found.t2star_s[WITHIN]) == pytest.approx(T2STAR_S, rel=0.05)
    whole, mixed = (found.scan.psf[tissue] for tissue in TISSUES)
    for point in (whole, mixed):
        assert np.unravel_index(point.argmax(), point.shape) == (8, 8, 8)
    assert whole.sum() == pytest.approx(1.0, abs=0.05)
    first, last = t2star_factor(np.array([0.0005, 0.005]), TISSUES["mixed"])
    # But for what the prior moves; the signal at the centre of the echoes would be 0.65.
    assert mixed.sum() == pytest.approx(first * (first / last) ** (0.0005 / 0.0045), abs=0.05)


def test_echoes_that_do_not_fit_together_are_named():
    first, second = _scan(0)
    moved = second.affine + np.eye(4)
    two = np.concatenate([second.kspace] * 2), np.concatenate([second.noise, second.noise[:, ::-1]])
    for other, what in (
        (replace(second, echo_time_s=None), "unknown time"),
        (replace(second, echo_time_s=first.echo_time_s), "echo time of another"),
        (replace(second, kspace=two[0], noise=two[1]), "2 channels"),
        (replace(second, affine=moved), "another grid"),
        (replace(second, noise=0.0 * second.noise), "no noise"),
    ):
        with pytest.raises(InputError, match=f"echo-5ms.h5.*{what}"):
            reconstruct_decay([first, other])
    with pytest.raises(InputError, match=r"echo-0.5ms.h5.*fewer than two echoes"):
        reconstruct_decay([first])
