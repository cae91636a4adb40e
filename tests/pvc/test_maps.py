"""Voxel-wise correction against PETPVC, closed forms, and what each method is said to be."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import sparse
from scipy.ndimage import binary_erosion, correlate1d, gaussian_filter

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.deconvolve import common_blur, richardson_lucy, van_cittert
from sodium_prep.pvc.estimators import gtm, labbe
from sodium_prep.pvc.maps import iterative_yang, mueller_gaertner, multi_target, settled_yang, yang_map
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel, psf_profile
from tests.pvc import heads
from tests.pvc.test_estimators import itk_kernel
from tests.shared import shared_path


def itk_blur(fwhm_mm, voxel_mm):
    kernel = itk_kernel(fwhm_mm, voxel_mm)

    def blur(image):
        for axis in range(3):
            image = correlate1d(image, kernel, axis=axis, mode="nearest")
        return image

    return blur


@pytest.fixture(scope="module")
def small():
    """PETPVC's small head: its own arrays, unblurred and blurred fractions, blurring, and where the head is."""
    data = np.load(shared_path("reference/petpvc_small.npz"))
    fractions = np.moveaxis(data["fractions"], -1, 0).astype(np.float64)
    blur = itk_blur(float(data["fwhm_mm"]), 4.0)
    blurred = np.stack([blur(one) for one in fractions]).reshape(len(fractions), -1)
    return data, sparse.csr_matrix(fractions.reshape(len(fractions), -1)), blurred, blur, fractions[0] < 0.5


@pytest.mark.parametrize("name", ["sim", "noisy"])
def test_maps_of_petpvc(small, name):
    data, fractions, blurred, blur, head = small
    image = data[f"image_{name}"].astype(np.float64)
    given = (fractions, blurred)
    found = {
        "RBV": yang_map(image.ravel(), data[f"{name}_GTM"], *given),
        "LABBE-RBV": yang_map(image.ravel(), data[f"{name}_LABBE"], *given),
        "MTC": multi_target(image.ravel(), data[f"{name}_GTM"], *given),
        "RL": richardson_lucy(image, blur),
        "VC": van_cittert(image, blur),
    }
    for method, ours in found.items():
        theirs = data[f"{name}_{method}"]
        np.testing.assert_allclose(ours.reshape(image.shape)[head], theirs[head], atol=1e-3, err_msg=method)


def test_iterative_yang_of_petpvc(small):
    data, fractions, blurred, _, head = small
    image = data["image_sim"].astype(np.float64)
    values = iterative_yang(image.ravel(), fractions, blurred)
    ours = yang_map(image.ravel(), values, fractions, blurred).reshape(image.shape)
    np.testing.assert_allclose(ours[head], data["sim_IY"][head], atol=1e-2)


def test_yang_comes_to_rest_where_its_weighted_transfer_matrix_says(small):
    data, fractions, blurred, _, _ = small
    image = data["image_noisy"].astype(np.float64).ravel()
    values, instruments = settled_yang(image, fractions, blurred)
    many = iterative_yang(image, fractions, blurred, iterations=400)
    np.testing.assert_allclose(values, many, atol=1e-6)
    np.testing.assert_allclose(instruments @ (image - values @ blurred), 0.0, atol=1e-3)
    assert np.abs(iterative_yang(image, fractions, blurred) - many).max() > 0.01  # ten iterations are too few


@pytest.fixture(scope="module")
def colin():
    """PETPVC's 38 regions of Colin27 on 3 mm."""
    folder = shared_path("petpvc/manifest.json").parent
    truth = json.loads((folder / "manifest.json").read_text())

    def load(name):
        return np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj)

    return truth, load, np.moveaxis(load("masks_r36"), -1, 0).astype(np.float32)


def test_maps_of_petpvc_with_38_regions(colin):
    truth, load, masks = colin
    blur = itk_blur(6.0, 3.0)
    blurred = np.stack([blur(one) for one in masks]).reshape(len(masks), -1)
    fractions = sparse.csr_matrix(masks.reshape(len(masks), -1))
    image = load("image_noisy").astype(np.float64)
    head = masks[:-1].sum(axis=0) > 0.5
    values = iterative_yang(image.ravel(), fractions, blurred)
    means = np.array(truth["petpvc_means"]["noisy_GTM"])
    for method, ours, tolerance in (
        ("RBV", yang_map(image.ravel(), means, fractions, blurred), 1e-3),
        ("MTC", multi_target(image.ravel(), means, fractions, blurred), 1e-3),
        ("IY", yang_map(image.ravel(), values, fractions, blurred), 1e-2),
    ):
        theirs = load(f"noisy_{method}")[head]
        np.testing.assert_allclose(ours.reshape(image.shape)[head], theirs, atol=tolerance, err_msg=method)
    grey, white = np.moveaxis(load("masks_mg"), -1, 0).astype(np.float64)
    ball = np.sum((np.indices((7, 7, 7)) - 3) ** 2, axis=0) <= 3.5**2
    signal = image[binary_erosion(white == 1.0, ball)].mean()
    ours = grey * mueller_gaertner(image, signal * blur(white), blur(grey))
    ours[~((ours >= 0.0) & (ours <= 10.0 * signal))] = 0.0  # PETPVC clips to the mask of grey matter and to this range
    np.testing.assert_allclose(ours[head], load("noisy_MG")[head], atol=1e-3)


def test_regional_values_are_true_where_means_of_a_map_are_not(colin):
    """With the true, untruncated Gaussian; uncorrected grey matter is 22 % off."""
    truth, load, masks = colin
    sd = 6.0 / FWHM_PER_SD / 3.0
    blurred = np.stack([gaussian_filter(one, sd, truncate=6.0, mode="nearest") for one in masks])
    blurred = blurred.reshape(len(masks), -1)
    fractions = sparse.csr_matrix(masks.reshape(len(masks), -1))
    image, everywhere = load("image_sim").astype(np.float64), np.ones(masks.shape[1:], bool)
    noise = Noise(np.ones(image.shape, np.float32))
    grey = np.array([name not in ("WM", "CSF", "extracerebral", "air") for name in truth["regions"]])
    actual = np.array(truth["truth_mM"])[grey]
    fitted = labbe(blurred, image, everywhere, noise).solve()[1]
    matrix = gtm(blurred, fractions, image, everywhere, noise).solve()[1]
    air = np.where(np.array(truth["regions"]) == "air", fitted, np.nan)  # its mean is zero: nothing to divide by
    yang, _ = settled_yang(image.ravel(), fractions, blurred, fixed=air)
    error = {name: np.abs(values[grey] / actual - 1.0) for name, values in (("l", fitted), ("g", matrix), ("y", yang))}
    assert error["l"].mean() == pytest.approx(0.0028, abs=2e-4)  # reference/pvc.md
    assert error["g"].mean() == pytest.approx(0.0051, abs=2e-4)
    assert error["y"].mean() < 0.01
    averaged = fractions @ np.nan_to_num(yang_map(image.ravel(), fitted, fractions, blurred))
    averaged /= np.asarray(fractions.sum(axis=1)).ravel()
    assert np.mean(averaged[grey] / actual - 1.0) > 0.15


def _model(rng, n=5, m=300):
    """Compartments and an image that is exactly their mixture, blurred by some matrix."""
    shares = rng.dirichlet(np.full(n, 0.3), m).T
    mixing = np.eye(m) + rng.random((m, m)) * (rng.random((m, m)) < 0.02)
    blurred = shares @ (mixing / mixing.sum(axis=0))
    values = rng.uniform(20.0, 140.0, n)
    return sparse.csr_matrix(shares), blurred, values


def test_a_true_model_gives_the_unblurred_mixture():
    fractions, blurred, values = _model(np.random.default_rng(1))
    image, sharp = values @ blurred, fractions.T @ values
    np.testing.assert_allclose(yang_map(image, values, fractions, blurred), sharp)
    np.testing.assert_allclose(multi_target(image, values, fractions, blurred), sharp)
    np.testing.assert_allclose(settled_yang(image, fractions, blurred)[0], values, rtol=1e-6)
    held = np.where(np.arange(5) < 2, values, np.nan)
    np.testing.assert_allclose(settled_yang(image, fractions, blurred, fixed=held)[0], values, rtol=1e-6)
    np.testing.assert_allclose(mueller_gaertner(image, values[1:] @ blurred[1:], blurred[0]), values[0])


def test_nothing_is_divided_by_what_is_not_there():
    fractions, blurred, values = _model(np.random.default_rng(2))
    image = values @ blurred
    blurred[:, :3], image[3] = 0.0, image[3] + 10.0
    rbv = yang_map(image, values, fractions, blurred, least=1.0)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(rbv)), [0, 1, 2])
    np.testing.assert_array_equal(
        np.flatnonzero(np.isnan(mueller_gaertner(image, 0.0 * image, blurred.sum(axis=0), 0.1))), [0, 1, 2]
    )
    mtc = multi_target(image, values, fractions, blurred, least=0.01)
    np.testing.assert_allclose(mtc[:3], (fractions.T @ values)[:3])  # nothing can be said but the regions' own values
    assert mtc[3] > (fractions.T @ values)[3] + 9.0


def test_common_blurring_is_that_of_the_point_spread_function():
    relaxation = tissue_relaxation("GM", 3.0)
    psf = PsfModel("acquisition", heads.ACQUISITION)
    blur = common_blur((33, 30, 34), np.array([2.0, 4.0, 3.0]), psf, relaxation)
    point = np.zeros((33, 30, 34))
    point[16, 15, 17] = 1.0
    image = blur(point)
    for axis, voxel in enumerate((2.0, 4.0, 3.0)):
        line = np.moveaxis(image, axis, 0)[:, *[(16, 15, 17)[a] for a in range(3) if a != axis]]
        distance = voxel * (np.arange(line.size) - (16, 15, 17)[axis])
        expected = psf_profile(np.abs(distance), heads.ACQUISITION, relaxation) * 24.0
        np.testing.assert_allclose(line, expected, atol=4e-3 * expected.max())
    other = np.random.default_rng(0).random(point.shape)
    assert np.sum(blur(other) * point) == pytest.approx(np.sum(other * image))  # its own transpose
