"""Lachner et al. 2020: an array of 32 channels makes outer fluid 1.71 times inner fluid; a volume coil mends it."""

from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.quant.receive import divide_profile, receive_profile
from sodium_prep.recon.reconstruct import reconstruct
from sodium_prep.recon.trajectory import spoke_directions
from tests.recon.analytic import Ellipsoid, raw_data, small_trajectory

N, VOXEL_MM, PERIOD_MM = 30, 6.0, 300.0
PLACES = ((44.0, 0.0, 0.0), (0.0, -44.0, 0.0))
FLUID = [Ellipsoid(100.0, (13.0,) * 3, place) for place in ((0.0, 0.0, 0.0), *PLACES)]
HEAD = Ellipsoid(40.0, (62.0, 62.0, 62.0))
STEEPNESS = 3.4


def _mean(image, ball):
    return image[ball.depth((N,) * 3, (VOXEL_MM,) * 3) < 0.7].mean()


def test_outer_and_inner_fluid_read_alike_after_correction():
    trajectory = small_trajectory(2000, 135)
    # Channel c is 1 + i STEEPNESS n_c . sin(2 pi r / P): strong where its direction n_c points, as a loop there.
    q = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]) / PERIOD_MM
    spectra = np.stack(
        [sum(one.spectrum(trajectory.k_per_mm - k) for one in (HEAD, *FLUID)) for k in q], dtype=np.complex64
    )
    steep = 0.5 * STEEPNESS * spoke_directions(32).astype(np.complex64)
    array = np.tensordot(np.concatenate([np.ones_like(steep[:, :1]), steep, -steep], axis=1), spectra, axes=1)

    def image(kspace, sigma, seed):
        rng = np.random.default_rng(seed)
        noise, scan = (
            (sigma * rng.standard_normal((*shape, 2), np.float32)).view(np.complex64)[..., 0]
            for shape in (kspace.shape, (len(kspace), 5000))
        )
        return reconstruct(raw_data(kspace + noise, trajectory, N, VOXEL_MM, noise=scan))

    scan, body = image(array, np.float32(4e6), 1), image(spectra[:1], np.float32(6e5), 2)
    profile = receive_profile(scan.magnitude, body.magnitude, scan.affine)
    corrected, _ = divide_profile(scan.image, scan.noise_sd, profile.values)

    def ratio(one):
        return np.mean([_mean(one, ball) for ball in FLUID[1:]]) / _mean(one, FLUID[0])

    assert ratio(scan.image) == pytest.approx(1.71, abs=0.05)
    assert ratio(corrected) == pytest.approx(1.0, abs=0.025)
