"""The difference of two echoes: what it leaves of fluid, tissue and noise."""

import numpy as np
import pytest

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.quant.weighted import choose_echo_pair, weighted_difference


def test_fluid_vanishes_and_tissue_stays():
    times = np.array([0.0003, 0.005, 0.025])
    fluid, tissue = tissue_relaxation("CSF", 3.0), tissue_relaxation("GM", 3.0)
    pair = choose_echo_pair(times, fluid)
    assert (pair.first, pair.second) == (0, 2)
    echoes = np.stack([140.0 * t2star_factor(times, fluid), 45.0 * t2star_factor(times, tissue)])[:, :, None, None]
    rng = np.random.default_rng(0)
    noisy = echoes[..., None, :] * np.ones((1, 1, 20, 20, 20)) + rng.standard_normal((2, 3, 20, 20, 20))
    image, sd = weighted_difference(noisy[:, 0], noisy[:, 2], pair.weight, 1.0, 1.0)
    assert abs(image[0].mean()) < 0.1
    assert image[1].mean() == pytest.approx(
        45.0 * (t2star_factor(times[0], tissue) - pair.weight * t2star_factor(times[2], tissue)), rel=0.01
    )
    assert image[1].mean() > 20.0
    np.testing.assert_allclose(sd, image[0].std(), rtol=0.03)


@pytest.mark.parametrize("times_ms", [[0.3], [0.3, 5.0], [5.0, 25.0], [0.3, 60.0]])
def test_echoes_that_do_not_suit_give_none(times_ms):
    assert choose_echo_pair(np.array(times_ms) / 1e3, tissue_relaxation("CSF", 3.0)) is None


def test_echoes_on_other_grids_are_refused():
    with pytest.raises(ValueError, match="not on one grid"):
        weighted_difference(np.ones((4, 4, 4)), np.ones((1, 4, 4)), 1.0, 1.0, 1.0)
