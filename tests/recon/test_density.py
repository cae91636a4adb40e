from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.recon.density import cone_shares, iterated_weights, resolved_field_mm
from sodium_prep.recon.generators import Readout, density_adapted_radial
from sodium_prep.recon.gridding import grid_image
from tests.recon.analytic import Ellipsoid
from tests.recon.designs import FIELD_MM, LIMITS, design


def test_shares_of_cones_are_the_areas_of_their_zones():
    polar = np.repeat([0.3, 1.0, 1.2, 2.9], [2, 5, 1, 4])
    borders = np.array([0.0, 0.65, 1.1, 2.05, np.pi])
    zones = (np.cos(borders[:-1]) - np.cos(borders[1:])) / 2.0
    order = np.random.default_rng(0).permutation(len(polar))
    expected = np.repeat(zones / [2, 5, 1, 4], [2, 5, 1, 4])
    np.testing.assert_allclose(cone_shares(polar[order]), expected[order], rtol=1e-12)


def test_iterated_weights_of_spokes_are_those_of_the_closed_form():
    spokes = density_adapted_radial(12.0, 500, Readout(0.008, 1e-4, LIMITS), 0.3).trajectory
    found = iterated_weights(spokes.k_per_mm, spokes.half_extents_per_mm)
    closed = np.broadcast_to(spokes.weights_mm3, found.shape)
    inner = (spokes.k_relative[0] > 0.45) & (spokes.k_relative[0] < 0.9)
    assert found.sum() == pytest.approx(spokes.volume_per_mm3, rel=1e-9)
    np.testing.assert_allclose(found.sum(axis=0)[inner], closed.sum(axis=0)[inner], rtol=0.02)
    # So few directions are not spread quite evenly.
    assert np.linalg.norm((found - closed)[:, inner]) < 0.04 * np.linalg.norm(closed[:, inner])


def test_iterated_weights_of_a_cylinder_keep_the_value_of_a_large_ellipsoid():
    given = design("SpiralStack").trajectory
    weights = iterated_weights(given.k_per_mm, given.half_extents_per_mm, given.region)
    head = Ellipsoid(37.0, (60.0, 55.0, 50.0), (7.0, -6.0, 5.0), 25.0)
    kspace = head.spectrum(given.k_per_mm)[None].astype(np.complex64)
    image = grid_image(kspace, replace(given, weights_mm3=weights), (22,) * 3, (8.0,) * 3, "hamming")[0].real
    assert image[head.depth(image.shape, (8.0,) * 3) < 0.6].mean() == pytest.approx(37.0, rel=5e-3)


@pytest.mark.parametrize("kind", ["DA-3DPR", "TPI", "Cones", "SpiralStack"])
def test_resolved_field_is_near_the_one_designed_for(kind):
    trajectory = design(kind).trajectory
    found = resolved_field_mm(trajectory.k_per_mm, trajectory.half_extents_per_mm, trajectory.region)
    assert found == pytest.approx(FIELD_MM, rel=0.25)
