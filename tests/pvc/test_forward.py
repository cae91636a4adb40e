"""The forward model against closed forms and symmetries."""

import numpy as np
import pytest
from scipy.special import erf, spherical_jn

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.forward import push_compartments, region_fractions
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel, mtf
from tests.pvc import heads

RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
PSF = PsfModel("acquisition", heads.ACQUISITION)
RADIUS_MM = 20.0


def ball(spacing_mm, centre=(0.3, 0.2, -0.1), n=None, sub=8):
    n = n or int(np.ceil(2 * (RADIUS_MM + 3) / spacing_mm))
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = np.asarray(centre) - (n - 1) / 2 * spacing_mm
    fraction = heads.share(heads.Ellipsoid((0.0, 0.0, 0.0), (RADIUS_MM,) * 3), (n, n, n), affine, sub).ravel()
    voxels = np.flatnonzero(fraction)
    return Compartments(["ball"], ["GM"], ["region"], [voxels], [fraction[voxels]], (n, n, n), affine)


def grid(shape=(30, 31, 28), voxel=3.5):
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = 1.0 - np.asarray(shape) * voxel / 2.0
    return shape, affine


def radii(shape, affine):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3], axis=-1)


def blurred_ball(r):
    """``int 4 pi k^2 M(k) F(k) sinc(2 k r) dk`` with F the transform of a ball."""
    x, w = np.polynomial.legendre.leggauss(300)
    total = np.zeros(r.size)
    for low, high in ((0.0, 0.2), (0.2, 1.0)):
        k_rel, weight = low + (high - low) * (x + 1) / 2, w * (high - low) / 2 / 8.0
        q = 2 * np.pi * k_rel / 8.0 * RADIUS_MM
        form = 4 / 3 * np.pi * RADIUS_MM**3 * 3 * spherical_jn(1, q) / q
        kernel = 4 * np.pi * (k_rel / 8.0) ** 2 * mtf(k_rel, heads.ACQUISITION, RELAXATIONS["GM"]) * form * weight
        total += np.sinc(2 * np.outer(r.ravel(), k_rel / 8.0)) @ kernel
    return total.reshape(r.shape)


@pytest.mark.parametrize(
    ("spacing", "kernel", "rms", "largest"),
    [(1.0, "mean", 4e-4, 2e-3), (1.0, "point", 6e-4, 4e-3), (2.0, "mean", 6e-4, 8e-3)],
)
def test_ball_has_its_closed_form(spacing, kernel, rms, largest):
    """Of a sharp edge, 2 mm voxels alias more than 1 mm voxels do."""
    shape, affine = grid()
    image = push_compartments(
        ball(spacing), heads.rigid((0, 0, 17), (0, 0, 0)), shape, affine, PSF, RELAXATIONS, voxel_kernel=kernel
    )
    error = image.reshape(shape) - blurred_ball(radii(shape, affine))
    assert np.sqrt(np.mean(error**2)) < rms
    assert np.abs(error).max() < largest


def test_gaussian_slab_on_a_grid_coarser_than_its_band():
    """Frequencies beyond the grid's own are folded, so that values at voxel centres stay exact."""
    sd = 5.0 / FWHM_PER_SD
    shape, affine = grid((40, 11, 11), 4.0)
    n = (60, 80, 80)
    t1w = np.diag([1.0, 1.0, 1.0, 1.0])
    t1w[:3, 3] = -(np.asarray(n) - 1) / 2
    slab = np.zeros(n, np.float32)
    slab[20:40] = 1.0
    voxels = np.flatnonzero(slab)
    c = Compartments(["slab"], ["WM"], ["region"], [voxels], [np.ones(voxels.size, np.float32)], n, t1w)
    image = push_compartments(
        c, np.eye(4), shape, affine, PsfModel("gaussian", fwhm_mm=5.0), RELAXATIONS, voxel_kernel="box"
    ).reshape(shape)
    x = np.arange(shape[0]) * 4.0 + affine[0, 3]
    expected = 0.5 * (erf((x + 10.0) / sd / np.sqrt(2)) - erf((x - 10.0) / sd / np.sqrt(2)))
    np.testing.assert_allclose(image[:, 5, 5], expected, atol=1e-3)


def test_compartments_add_up_and_are_one_deep_inside():
    head = heads.analytic_compartments()
    images = push_compartments(
        head, heads.rigid(), heads.SHAPE, heads.AFFINE, PsfModel("gaussian", fwhm_mm=6.0), RELAXATIONS
    )
    total = images.sum(axis=0).reshape(heads.SHAPE)
    assert total[22:27, 18:30, 22:27] == pytest.approx(1.0, abs=2e-3)
    whole = heads.analytic_compartments({"head": ("GM", "region", "both", "", [heads.LAYERS[0]], [])})
    alone = push_compartments(
        whole, heads.rigid(), heads.SHAPE, heads.AFFINE, PsfModel("gaussian", fwhm_mm=6.0), RELAXATIONS
    )
    np.testing.assert_allclose(total.ravel(), alone[0], atol=1e-3)


def test_moving_object_and_frame_together_changes_nothing():
    shape, affine = grid()
    still = push_compartments(ball(2.0), np.eye(4), shape, affine, PSF, RELAXATIONS)
    moved = ball(2.0)
    motion = heads.rigid((20, -10, 35), (15.0, -8.0, 4.0))
    moved.affine = motion @ moved.affine
    again = push_compartments(moved, motion, shape, affine, PSF, RELAXATIONS)
    np.testing.assert_allclose(again, still, atol=2e-5)


@pytest.mark.parametrize("shape", [(26, 27, 24), (27, 26, 25)])
def test_even_and_odd_grids_agree_where_they_share_voxels(shape):
    """Also where the voxel is exactly the nominal resolution: kmax is then the grid's own last frequency."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -52.0
    large = push_compartments(ball(2.0), np.eye(4), (28, 28, 28), affine, PSF, RELAXATIONS).reshape(28, 28, 28)
    small = push_compartments(ball(2.0), np.eye(4), shape, affine, PSF, RELAXATIONS).reshape(shape)
    x, y, z = shape
    np.testing.assert_allclose(small, large[:x, :y, :z], atol=2.5e-3)


def test_nothing_comes_in_from_the_other_side():
    shape, affine = grid((24, 24, 24), 4.0)
    near_edge = ball(2.0)
    near_edge.affine = near_edge.affine.copy()
    near_edge.affine[0, 3] += 44.0
    image = push_compartments(near_edge, np.eye(4), shape, affine, PsfModel("gaussian", fwhm_mm=6.0), RELAXATIONS)
    assert np.abs(image.reshape(shape)[:10]).max() < 1e-3
    near_edge.affine[0, 3] += 60.0
    outside = push_compartments(near_edge, np.eye(4), shape, affine, PsfModel("gaussian", fwhm_mm=6.0), RELAXATIONS)
    assert np.abs(outside).max() < 1e-3


def test_box_voxels_are_a_sinc_more_than_points():
    """One voxel turned by 45 degrees, seen along its diagonal."""
    c = Compartments(
        ["v"], ["GM"], ["region"], [np.array([0])], [np.ones(1, np.float32)], (1, 1, 1), np.diag([6.0, 6.0, 6.0, 1.0])
    )
    turn = heads.rigid((0, 0, 45), (0, 0, 0))
    shape, affine = (40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -40.0
    psf = PsfModel("gaussian", fwhm_mm=6.0)
    box, point = (
        np.fft.fftn(push_compartments(c, turn, shape, affine, psf, RELAXATIONS, voxel_kernel=kernel).reshape(shape))
        for kernel in ("box", "point")
    )
    k = 3 / 80.0
    assert abs(box[3, 0, 0] / point[3, 0, 0]) == pytest.approx(np.sinc(6 * k / np.sqrt(2)) ** 2, abs=2e-3)
    assert abs(box[0, 0, 3] / point[0, 0, 3]) == pytest.approx(np.sinc(6 * k), abs=2e-3)


def test_fractions_keep_volume_and_are_exact_on_parallel_grids():
    head = heads.analytic_compartments()
    turned = region_fractions(head, heads.rigid(), heads.SHAPE, heads.AFFINE)
    np.testing.assert_allclose(np.asarray(turned.sum(axis=1)).ravel() * 64.0, head.volumes_mm3, rtol=1e-5)
    total = np.asarray(turned.sum(axis=0)).reshape(heads.SHAPE)
    assert total[22:27, 18:30, 22:27] == pytest.approx(1.0, abs=0.05)
    blocks = heads.T1W_AFFINE @ np.diag([2.0, 2.0, 2.0, 1.0])
    blocks[:3, 3] += 1.0
    parallel = region_fractions(head, np.eye(4), (40, 48, 40), blocks)
    dense = np.zeros(heads.T1W_SHAPE, np.float32)
    dense.ravel()[head.voxels[1]] = head.weights[1]
    expected = dense.reshape(40, 2, 48, 2, 40, 2).mean((1, 3, 5))
    np.testing.assert_allclose(parallel[1].toarray().reshape(expected.shape), expected, atol=1e-6)


def test_sheared_sodium_grid_is_refused():
    affine = np.eye(4)
    affine[0, 1] = 0.1
    with pytest.raises(ValueError, match="right angles"):
        push_compartments(ball(2.0), np.eye(4), (8, 8, 8), affine, PSF, RELAXATIONS)


def test_anisotropic_and_cartesian_acquisitions_run():
    for trajectory, dx in (("TPI", (3.0, 4.0, 5.0)), ("Cartesian", (4.0, 4.0, 6.0))):
        acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, trajectory, 0.01, dx)
        shape, affine = grid()
        image = push_compartments(
            ball(2.0), np.eye(4), shape, affine, PsfModel("acquisition", acquisition), RELAXATIONS
        )
        assert image.sum() * 3.5**3 == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.01)
