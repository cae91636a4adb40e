from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.phantom.ellipsoids import (
    ANALYTIC_HEAD,
    Ellipsoid,
    analytic_image,
    analytic_kspace,
    ellipsoid_transform,
)
from sodium_prep.phantom.protocol import AGAR, PROTOCOLS, SALINE
from sodium_prep.phantom.scan import sodium_affine
from sodium_prep.physics.signal import signal_factor
from sodium_prep.recon.gridding import grid_image
from sodium_prep.recon.trajectory import radial_trajectory

TILTED = Ellipsoid("tilted", (5.0, -3.0, 8.0), (12.0, 20.0, 7.0), 50.0, AGAR, rotation_deg=(20.0, -35.0, 50.0))


def test_transform_is_that_of_a_finely_sampled_ellipsoid():
    step = 0.4
    axis = np.arange(-26.0, 30.0, step) + 0.5 * step
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = axis[0]
    density = analytic_image([TILTED], (axis.size,) * 3, affine, subsamples=2) / TILTED.concentration_mM
    k = np.random.default_rng(1).uniform(-0.1, 0.1, (20, 3))
    summed = [step**3 * np.sum(density * np.exp(-2j * np.pi * (points @ one))) for one in k]
    np.testing.assert_allclose(ellipsoid_transform(TILTED, k), summed, atol=3e-4 * TILTED.volume_mm3)


def test_centre_of_k_space_is_the_amount_of_sodium():
    protocol = PROTOCOLS["fast"]
    trajectory = radial_trajectory(protocol.acquisition, 50, protocol.n_samples)
    by_name = {one.name: one for one in ANALYTIC_HEAD}
    own = {
        name: one.volume_mm3 - sum(inner.volume_mm3 for inner in ANALYTIC_HEAD if inner.inside == name)
        for name, one in by_name.items()
    }
    amount = sum(own[name] * one.concentration_mM for name, one in by_name.items())
    np.testing.assert_allclose(analytic_kspace(ANALYTIC_HEAD, trajectory)[:, 0], amount, rtol=1e-5)
    signal = sum(
        own[name] * one.concentration_mM * signal_factor(protocol.acquisition, one.relaxation)
        for name, one in by_name.items()
    )
    decayed = analytic_kspace(ANALYTIC_HEAD, trajectory, protocol.acquisition)
    np.testing.assert_allclose(decayed[:, 0], signal, rtol=1e-5)


def test_ellipsoids_lie_within_or_beside_each_other():
    directions = np.random.default_rng(0).standard_normal((5000, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    for one in ANALYTIC_HEAD:
        surface = (directions * one.semi_axes_mm) @ one.matrix.T + one.centre_mm
        for other in ANALYTIC_HEAD:
            radius = np.linalg.norm(((surface - other.centre_mm) @ other.matrix) / other.semi_axes_mm, axis=1)
            if other.name == one.inside:
                assert radius.max() < 1.0, (one.name, other.name)
            elif other is not one and other.inside == one.inside:
                assert radius.min() > 1.0, (one.name, other.name)


@pytest.mark.parametrize("relaxation", [AGAR, SALINE])
def test_gridded_image_of_a_large_object_has_its_signal(relaxation):
    protocol = PROTOCOLS["fast"]
    trajectory = radial_trajectory(protocol.acquisition, protocol.n_spokes, protocol.n_samples)
    ball = Ellipsoid("ball", (0.0, 0.0, 0.0), (70.0, 70.0, 70.0), 60.0, relaxation)
    kspace = analytic_kspace([ball], trajectory, protocol.acquisition)
    image = grid_image(kspace[None], trajectory, (60, 60, 60), (4.0, 4.0, 4.0))[0]
    centre = image[26:35, 26:35, 26:35]
    expected = 60.0 * float(signal_factor(protocol.acquisition, relaxation))
    assert abs(centre.mean() / expected - 1.0) < 0.01
    grid = analytic_image([ball], (60, 60, 60), sodium_affine(60, 4.0), subsamples=1)
    assert image.real[grid == 0.0].mean() < 0.01 * expected
