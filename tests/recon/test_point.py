import json
from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.measured import measured_psf
from sodium_prep.pvc.psf import PsfModel, psf_of_readouts
from sodium_prep.recon.generators import Readout, spiral_stack, twisted_projections
from sodium_prep.recon.noise import noise_power_spectrum
from sodium_prep.recon.point import point_grid, trajectory_psf
from tests.recon.analytic import acquisition, small_trajectory
from tests.recon.designs import LIMITS, RESOLUTION_MM, design
from tests.shared import shared_path


def _measured(trajectory, **how):
    shape, voxel_mm = point_grid(trajectory)
    values = trajectory_psf(trajectory, shape, voxel_mm, **how)
    return values, measured_psf(values, voxel_mm)


@pytest.mark.parametrize("kind", ["DA-3DPR", "TPI", "Cones", "FLORET"])
@pytest.mark.parametrize(("kspace_filter", "expected"), [("none", 1.590), ("hamming", 1.990)])
def test_widths_without_decay_are_those_of_a_sphere_along_every_axis(kind, kspace_filter, expected):
    trajectory = design(kind).trajectory
    values, point = _measured(trajectory, kspace_filter=kspace_filter)
    np.testing.assert_allclose(point.fwhm_mm, expected * RESOLUTION_MM, rtol=0.01)
    if kspace_filter == "none":
        assert values[32, 32, 32] == pytest.approx(trajectory.volume_per_mm3, rel=1e-4)


def test_three_hubs_look_the_same_along_every_axis_and_cones_across_theirs():
    hubs = design("FLORET").trajectory
    values = trajectory_psf(hubs, (17,) * 3, (4.0,) * 3)
    np.testing.assert_allclose(values, values.transpose(1, 2, 0), atol=1e-4 * values.max())
    cones = design("Cones").trajectory
    values = trajectory_psf(cones, (17,) * 3, (4.0,) * 3)
    np.testing.assert_allclose(values, values.transpose(1, 0, 2), atol=0.02 * values.max())
    np.testing.assert_allclose(values, values[:, :, ::-1], atol=0.02 * values.max())


def test_widths_of_a_stack_are_those_of_a_disc_and_a_box():
    stack = spiral_stack((RESOLUTION_MM, 10.0), (300.0, 380.0), Readout(0.003, 1e-5, LIMITS)).trajectory
    _, point = _measured(stack)
    # 2 J1(x) / x and sin(x) / x are one half at 2.2149 and 1.8955.
    np.testing.assert_allclose(point.fwhm_mm, [1.4100 * 8.0, 1.4100 * 8.0, 1.2067 * 10.0], rtol=0.01)


@pytest.mark.parametrize("kspace_filter", ["none", "hamming"])
def test_decay_widens_twisted_projections_as_the_reference_says(kspace_filter):
    rows = json.loads(shared_path("reference/psf_tables.json").read_text())["rows"]
    key = ("WM(3.4/23.5)", "da/tpi", 0.3, 10.0, None if kspace_filter == "none" else kspace_filter)
    row = next(r for r in rows if (r["tissue"], r["traj"], r["p"], r["TRO"], r["filt"]) == key)
    trajectory = twisted_projections(6.0, 110.0, Readout(0.010, 5e-5, LIMITS), 0.3).trajectory
    white = replace(tissue_relaxation("WM", 3.0), t2star_fast_s=3.4e-3, t2star_slow_s=23.5e-3, fraction_fast=0.6)
    _, point = _measured(trajectory, relaxation=white, kspace_filter=kspace_filter)
    np.testing.assert_allclose(np.array(point.fwhm_mm) / 6.0, row["fwhm_dx"], rtol=0.01)


@pytest.mark.parametrize("kspace_filter", ["none", "hamming"])
def test_of_spokes_it_is_what_the_physics_says_of_each_tissue(kspace_filter):
    kind = acquisition("DA-3DPR", 6.0, 0.2, kspace_filter)
    relaxations = {tissue: tissue_relaxation(tissue, 3.0) for tissue in ("GM", "CSF")}
    found = psf_of_readouts(small_trajectory(2500, 200), kind, relaxations)
    physics = PsfModel("acquisition", kind)
    k = np.zeros((40, 3))
    k[:, 1] = np.linspace(0.0, 0.85 / 12.0, 40)
    for relaxation in relaxations.values():
        assert found.width_mm(relaxation) == pytest.approx(physics.width_mm(relaxation), rel=0.01)
        np.testing.assert_allclose(found.mtf(k, relaxation), physics.mtf(k, relaxation), atol=0.025)


@pytest.mark.parametrize("name", ["Cones", "FLORET", "SpiralStack"])
def test_no_physics_without_the_readouts(name):
    with pytest.raises(ValueError, match=f"no law says when a {name} readout"):
        PsfModel("acquisition", acquisition(name))
    with pytest.raises(ValueError, match=f"a {name} acquisition has no centre-out law"):
        noise_power_spectrum((8,) * 3, (6.0,) * 3, acquisition(name))
