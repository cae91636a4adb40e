from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.recon import agrdm as module
from sodium_prep.recon.agr import agr
from sodium_prep.recon.agrdm import DecayData, Echo, JointSolver
from sodium_prep.recon.encoding import Encoding, LeastSquares, least_squares
from sodium_prep.recon.gridding import gridding_noise_sd
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory

SHAPE = (6, 7, 5)
VOXEL_MM = (6.0, 7.0, 5.5)


@pytest.fixture(scope="module")
def small():
    """Three echoes of two coils, two with the same trajectory, and images x and r."""
    rng = np.random.default_rng(1)
    one = small_trajectory(60, 30)
    other = replace(small_trajectory(50, 40), time_s=np.linspace(0.0, 0.008, 40))
    echoes = []
    for time_s, line in ((0.0005, one), (0.012, other), (0.005, one)):
        maps = complex_noise(rng, (2, *SHAPE))
        kspace = 1e5 * complex_noise(rng, (2, line.n_readouts, line.n_samples))
        echoes.append(Echo(kspace.astype(np.complex64), line, time_s, maps.astype(np.complex64)))
    image, ratio = rng.uniform(20.0, 60.0, SHAPE), rng.uniform(0.2, 0.95, SHAPE)
    return echoes, image.astype(np.float32), ratio.astype(np.float32)


def _direct(echoes, image, ratio, scale_s, centre_s):
    """The sum over samples with the decay as it is."""
    where = (np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(SHAPE) // 2).reshape(-1, 3) * VOXEL_MM
    total = 0.0
    for echo in echoes:
        line = echo.trajectory
        time_s = np.broadcast_to(echo.echo_time_s - centre_s + line.time_s, line.k_per_mm.shape[:2]).ravel()
        waves = np.exp(-2j * np.pi * line.k_per_mm.reshape(-1, 3).astype(float) @ where.T)
        waves *= np.prod(VOXEL_MM) * ratio.ravel() ** (time_s[:, None] / scale_s)
        weights = np.broadcast_to(line.weights_mm3, line.k_per_mm.shape[:2]).ravel()
        for samples, maps in zip(echo.kspace, echo.sensitivities, strict=True):
            error = waves @ (maps * image).ravel() - samples.ravel()
            total += 0.5 * np.sum(weights * np.abs(error) ** 2)
    return total / np.prod(VOXEL_MM)


def test_data_term_is_the_sum_over_samples_and_its_gradients_its_slopes(small):
    echoes, image, ratio = small
    data = DecayData(echoes, VOXEL_MM, rank=6)
    value, residuals = data.residuals(image, ratio)
    near = data.near(image, ratio, residuals, 1.5)
    by_image = near.by_image(ratio).normal(image) - near.by_image(ratio).right
    by_ratio = near.by_ratio(image, ratio)[1]
    direct = _direct(echoes, image, ratio, data.scale_s, data.centre_s)
    constant = _direct(echoes, 0.0 * image, ratio, data.scale_s, data.centre_s)
    assert value == pytest.approx(direct - constant, rel=1e-3)
    step = np.random.default_rng(2).standard_normal(SHAPE)
    h = 1e-4
    for gradient, move_x, move_r in ((by_image, 30.0 * h, 0.0), (by_ratio, 0.0, h)):
        way = step + gradient / np.abs(gradient).mean()
        ahead, back = (
            _direct(echoes, image + s * move_x * way, ratio + s * move_r * way, data.scale_s, data.centre_s)
            for s in (1, -1)
        )
        slope = (ahead - back) / (2.0 * (move_x + move_r))
        assert np.vdot(gradient, way) == pytest.approx(slope, rel=1e-3)


N, GRID_MM, NOISE = 24, 10.0, 1.0


def _scan(bodies, waves=((0.0, 0.0, 0.0),)):
    """Echoes of bodies (ellipsoid, T2*) that add up, one coil for each plane wave, each echo with its own phase.

    The wave of a coil shifts its k-space, so that nothing is made on a grid.
    """
    line = small_trajectory(900, 120, resolution_mm=GRID_MM)
    where = (np.moveaxis(np.indices((N,) * 3), 0, -1) - N // 2) * GRID_MM
    rng = np.random.default_rng(3)
    sigma = NOISE / gridding_noise_sd(1.0, line)
    echoes = []
    for number, time_s in enumerate((0.0005, 0.005)):
        maps, kspace = [], []
        for shift in np.array(waves) + 0.0004 * number:
            factor = np.exp(0.5j * number) / np.sqrt(len(waves))
            maps.append(factor * np.exp(2j * np.pi * (where @ shift)))
            clean = sum(b.spectrum(line.k_per_mm - shift) * np.exp(-(time_s + line.time_s) / t) for b, t in bodies)
            kspace.append(factor * clean + sigma * complex_noise(rng, clean.shape))
        echoes.append(Echo(np.complex64(kspace), line, time_s, np.complex64(maps)))
    return echoes


def _solved(echoes, guide=None, rounds=8):
    data = DecayData(echoes, (GRID_MM,) * 3)
    solver = JointSolver(data, NOISE, NOISE, guide)
    return solver.images(*solver(data, solver.start(), rounds))


def _depth(body):
    return body.depth((N,) * 3, (GRID_MM,) * 3)


def _free_of_decay(echoes, guide, weight):
    """What the model gives where nothing decays, by the solver for images alone."""
    line, voxel_mm = echoes[0].trajectory, (GRID_MM,) * 3
    problems = [
        least_squares(Encoding(line.k_per_mm, voxel_mm, e.sensitivities), e.kspace, line.weights_mm3) for e in echoes
    ]
    both = LeastSquares(
        lambda x: sum(p.normal(x) for p in problems),
        sum(p.right for p in problems),
        lambda: sum(p.largest_eigenvalue() for p in problems),
    )
    return agr(both, guide, weight, iterations=40)


def test_image_is_free_of_decay_and_t2star_is_that_of_the_tissue():
    head, core = Ellipsoid(40.0, (95.0, 90.0, 85.0)), Ellipsoid(80.0, (45.0, 40.0, 42.0), (15.0, -5.0, 8.0))
    hole = replace(core, value=-40.0)
    waves = [(0.001, 0.0, 0.0), (0.0, -0.0015, 0.001)]
    echoes = _scan([(head, 0.018), (hole, 0.018), (core, 0.040)], waves)
    guide = (_depth(head) < 1.0) + 1.0 * (_depth(core) < 1.0)
    found = _solved(echoes, guide)
    free = _free_of_decay(_scan([(head, 1e6), (hole, 1e6), (core, 1e6)], waves), guide, 1.0)
    data = DecayData(echoes, (GRID_MM,) * 3)
    gridded = data.gridded_of(data.right)[0]
    inner, outer = _depth(core) < 0.7, (_depth(head) < 0.8) & (_depth(core) > 1.5)
    for where, t2star_s in ((inner, 0.040), (outer, 0.018)):
        assert found.image[where].mean() == pytest.approx(free[where].mean(), rel=0.01)
        assert gridded[where].mean() < 0.985 * free[where].mean()
        assert np.median(found.t2star_s[where]) == pytest.approx(t2star_s, rel=0.05)
    assert np.isnan(found.t2star_s[_depth(head) > 1.3]).all()


@pytest.mark.parametrize(("t2star_s", "flag"), [(0.0008, -1), (-0.030, 1)])
def test_decay_beyond_what_can_be_told_is_flagged_and_no_number(t2star_s, flag):
    body = Ellipsoid(100.0, (70.0, 70.0, 70.0))
    found = _solved(_scan([(body, t2star_s)]), rounds=2)
    within = _depth(body) < 0.7
    assert np.mean(found.clipped[within] == flag) > 0.95
    assert np.isnan(found.t2star_s[within & (found.clipped != 0)]).all()


def test_steps_that_go_too_far_are_taken_back(monkeypatch):
    """With an approximation far below the data term each round would end farther from the solution."""
    body = Ellipsoid(100.0, (70.0, 70.0, 70.0))
    echoes = _scan([(body, 0.020)])
    expected = _solved(echoes, rounds=3)
    build = module._path

    def flat(*arguments):
        path = build(*arguments)
        return replace(path, on_grid=0.3 * path.on_grid)

    monkeypatch.setattr(module, "_path", flat)
    found = _solved(echoes, rounds=7)
    within = _depth(body) < 0.7
    assert found.image[within].mean() == pytest.approx(expected.image[within].mean(), rel=0.01)
    assert found.t2star_s[within].mean() == pytest.approx(expected.t2star_s[within].mean(), rel=0.03)


def test_refusals(small):
    echoes, image, _ = small
    with pytest.raises(ValueError, match="two echo times or more"):
        DecayData(echoes[:1], VOXEL_MM)
    with pytest.raises(ValueError, match="two echo times or more"):
        DecayData([echoes[0], echoes[0]], VOXEL_MM)
    data = DecayData(echoes, VOXEL_MM)
    with pytest.raises(ValueError, match="grid"):
        JointSolver(data, 1.0, 1.0, image[:-1])
    with pytest.raises(ValueError, match="positive"):
        JointSolver(data, 1.0, 0.0)
