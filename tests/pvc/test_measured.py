"""A measured PSF against the analytic one that its image was made from."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.bids.points import load_points
from sodium_prep.errors import InputError
from sodium_prep.physics.relaxation import Relaxation, tissue_relaxation
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.measured import measured_psf
from sodium_prep.pvc.psf import PsfModel, mtf, psf_fwhm_mm, psf_profile
from tests.pvc import heads

TISSUES = ("GM", "WM", "CSF", "extracerebral")
RELAXATIONS = {tissue: tissue_relaxation(tissue, 3.0) for tissue in TISSUES}


def point(acquisition, relaxation, voxel_mm=2.0, n=49, off=(0.0, 0.0, 0.0)):
    """Image of a point, from the radial integral in space."""
    axes = [(np.arange(n) - n // 2 - shift) * voxel_mm for shift in off]
    radius = np.sqrt(sum(x**2 for x in np.meshgrid(*axes, indexing="ij", sparse=True)))
    fine = np.linspace(0.0, radius.max(), 3000)
    return np.interp(radius, fine, psf_profile(fine, acquisition, relaxation))


@pytest.mark.parametrize("window", ["none", "hamming"])
def test_transfer_function_and_width_of_a_point_between_voxels(window):
    acquisition = replace(heads.ACQUISITION, kspace_filter=window)
    found = measured_psf(300.0 * point(acquisition, RELAXATIONS["GM"], off=(0.3, -0.2, 0.4)), (2.0, 2.0, 2.0))
    np.testing.assert_allclose(found.centre, [24.3, 23.8, 24.4], atol=0.002)
    assert found.values.sum() == pytest.approx(1.0)
    assert found.fwhm_mm == pytest.approx((psf_fwhm_mm(acquisition, RELAXATIONS["GM"]),) * 3, rel=2e-3)
    k = np.random.default_rng(0).uniform(-0.11, 0.11, (500, 3))
    radius = np.linalg.norm(k, axis=1) / 0.125
    inside = radius < 0.85  # its cut end blurs the edge at kmax
    np.testing.assert_allclose(found.mtf(k)[inside], mtf(radius, acquisition, RELAXATIONS["GM"])[inside], atol=0.02)
    beyond = found.mtf([[0.26, 0.0, 0.0], [0.0, 0.0, -0.3]])
    np.testing.assert_array_equal(beyond, 0.0)


def test_images_of_points_give_the_regional_values_of_the_analytic_psf(tmp_path):
    affine = np.array([[0.0, 2.0, 0, 9], [-2.0, 0, 0, 5], [0, 0, 2.0, 1], [0, 0, 0, 1]])  # turned: axes count as stored
    files = {tissue: tmp_path / f"{tissue}.nii.gz" for tissue in TISSUES}
    for tissue, path in files.items():
        image = nib.Nifti1Image(point(heads.ACQUISITION, RELAXATIONS[tissue]).astype(np.float32), affine)
        nib.save(image, path)
    head = heads.analytic_compartments()
    truth = np.array([heads.TRUTH_MM[name] for name in head.names])
    scan = (head, np.eye(4), heads.SHAPE, heads.AFFINE)
    exact = push_compartments(*scan, PsfModel("acquisition", heads.ACQUISITION), RELAXATIONS, voxel_kernel="mean")
    given = PsfModel("measured", measured=load_points(files))
    blurred = push_compartments(*scan, given, RELAXATIONS, voxel_kernel="mean")
    mask = exact.sum(axis=0) > 0.05
    found = np.linalg.lstsq(blurred[:, mask].T.astype(float), truth @ exact[:, mask], rcond=None)[0]
    brain = [i for i in range(len(truth)) if head.kinds[i] == "region"]
    np.testing.assert_allclose(found[brain], truth[brain], rtol=0.008)


def test_a_content_gets_the_point_that_decays_like_it():
    gm, csf = (measured_psf(point(heads.ACQUISITION, RELAXATIONS[t], n=41), (2.0,) * 3) for t in ("GM", "CSF"))
    model = PsfModel("measured", measured=((RELAXATIONS["GM"], gm), (RELAXATIONS["CSF"], csf)))
    agar, saline = Relaxation(0.035, 0.025, 0.004, 0.6), Relaxation(0.053, 0.053)
    chosen = [model.measured_for(one) for one in (RELAXATIONS["WM"], agar, saline)]
    assert [one is gm for one in chosen] == [True, True, False]
    assert model.width_mm(saline) == pytest.approx(np.mean(csf.fwhm_mm))
    exact = PsfModel("acquisition", heads.ACQUISITION).profile([0.0, 3.0, 9.0], RELAXATIONS["GM"])
    np.testing.assert_allclose(model.profile([0.0, 3.0, 9.0], agar), exact, atol=0.01)


def spoilt(name):
    image = point(replace(heads.ACQUISITION, kspace_filter="hamming"), RELAXATIONS["GM"])
    if name == "dark":
        return -image
    if name == "aside":
        return np.roll(image, 15, axis=1)
    if name == "short":
        return image[15:-15, 15:-15, 15:-15]
    if name == "coarse":
        return image[::5, ::5, ::5]
    if name == "skewed":
        return image + 0.4 * np.roll(image, 5, axis=0)
    return np.where(image == image.max(), np.nan, image)


@pytest.mark.parametrize(
    ("name", "words"),
    [("dark", "sums to"), ("aside", "far from the middle"), ("short", "ends .* mm from its peak"),
     ("coarse", "that its voxels can hold"), ("skewed", "not symmetric"), ("holed", "not finite")],
)  # fmt: skip
def test_what_is_no_whole_point_is_refused(name, words):
    with pytest.raises(InputError, match=words):
        measured_psf(spoilt(name), (10.0 if name == "coarse" else 2.0,) * 3, "psf.nii.gz")
