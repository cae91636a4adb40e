"""Derivatives of the prediction against finite differences of the whole model."""

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.sensitivity import HEAD_RADIUS_MM, motion_derivatives, transfer_derivatives, transfer_ratios
from tests.pvc import heads

RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
PSF = PsfModel("acquisition", heads.ACQUISITION)


@pytest.fixture(scope="module")
def scan():
    head = heads.analytic_compartments()
    blurred = push_compartments(head, np.eye(4), heads.SHAPE, heads.AFFINE, PSF, RELAXATIONS)
    truth = np.array([heads.TRUTH_MM[name] for name in head.names])
    mask = fit_mask(blurred, head.names, head.kinds, np.ones(heads.SHAPE, bool))
    return head, blurred, truth, mask


def moved(head, truth, motion, psf=PSF):
    blurred = push_compartments(head, motion, heads.SHAPE, heads.AFFINE, psf, RELAXATIONS)
    return (truth.astype(np.float32) @ blurred).reshape(heads.SHAPE), blurred


def test_rigid_motions(scan):
    """With a Gaussian, which has no tails that the finite period could fold in differently after a motion."""
    head, _, truth, mask = scan
    psf = PsfModel("gaussian", fwhm_mm=9.0)
    prediction, _ = moved(head, truth, np.eye(4), psf)
    centre = np.array([24.0, 23.0, 22.0])
    point = heads.AFFINE[:3, :3] @ centre + heads.AFFINE[:3, 3]
    derivatives, second = motion_derivatives(prediction, np.full(3, heads.VOXEL_MM), centre)
    for number in range(6):
        plus, minus = (np.eye(4) for _ in range(2))
        for motion, sign in ((plus, 1.0), (minus, -1.0)):
            if number < 3:
                motion[number, 3] = sign * 0.8
            else:
                angles = np.zeros(3)
                angles[number - 3] = sign * np.rad2deg(0.8 / HEAD_RADIUS_MM)
                motion[:3, :3] = heads.rigid(angles, (0, 0, 0))[:3, :3]
                motion[:3, 3] = point - motion[:3, :3] @ point
        # The object moves by the motion where the frame moves by its inverse.
        ends = [moved(head, truth, np.linalg.inv(motion), psf)[0] for motion in (plus, minus)]
        difference, bend = (ends[0] - ends[1]) / 1.6, (ends[0] + ends[1] - 2.0 * prediction) / 0.64
        assert np.sqrt(np.mean((bend - second[number])[mask] ** 2)) < 0.1 * np.sqrt(np.mean(bend[mask] ** 2))
        error = (difference - derivatives[number])[mask]
        assert np.sqrt(np.mean(error**2)) < 0.03 * np.sqrt(np.mean(difference[mask] ** 2))


def test_t2star_of_each_tissue(scan):
    head, blurred, truth, mask = scan
    parts = {}
    for tissue in RELAXATIONS:
        chosen = np.array([t == tissue for t in head.tissues]) * truth
        parts[tissue] = (chosen.astype(np.float32) @ blurred).reshape(heads.SHAPE)
    ratios = transfer_ratios(heads.SHAPE, np.full(3, heads.VOXEL_MM), PSF, RELAXATIONS)
    assert ("CSF", "fraction_fast") not in ratios
    assert ("CSF", "t2star_slow_s") in ratios
    for (tissue, name), image in zip(ratios, transfer_derivatives(parts, ratios), strict=True):
        step = 0.02 * getattr(RELAXATIONS[tissue], name)
        images = []
        for sign in (1.0, -1.0):
            changed = replace(RELAXATIONS[tissue], **{name: getattr(RELAXATIONS[tissue], name) + sign * step})
            pushed = push_compartments(head, np.eye(4), heads.SHAPE, heads.AFFINE, PSF, RELAXATIONS | {tissue: changed})
            images.append((truth.astype(np.float32) @ pushed).reshape(heads.SHAPE))
        difference = (images[0] - images[1]) / (2.0 * step)
        error = (difference - image)[mask]
        # The native grid repeats itself, the model does not: the scalp close to its border feels that.
        assert np.sqrt(np.mean(error**2)) < 0.1 * np.sqrt(np.mean(difference[mask] ** 2))


def test_response_foretells_the_bias_of_a_shifted_model(scan):
    head, blurred, truth, mask = scan
    noise = Noise(np.ones(heads.SHAPE, np.float32))
    found = []
    for sign in (0.0, 0.4, -0.4):
        motion = np.eye(4)
        motion[0, 3] = sign
        found.append(labbe(blurred, moved(head, truth, motion)[0], mask, noise, head.kinds).fit())
    still, right, left = (fit.values[head.regions] for fit in found)
    prediction = (truth.astype(np.float32) @ blurred).reshape(heads.SHAPE)
    derivatives = motion_derivatives(prediction, np.full(3, heads.VOXEL_MM), np.full(3, 23.5))
    slope, bend = (found[0].response(images[0][mask])[head.regions, 0] for images in derivatives)
    odd, even = (right - left) / 2.0, (right + left) / 2.0 - still
    np.testing.assert_allclose(odd, -0.4 * slope, atol=0.1 * np.abs(odd).max())
    # The image moves here instead of the model: only the square term differs, by the projection that the model fits.
    assert np.abs(even).max() > 0.1
    np.testing.assert_allclose(even, 0.08 * bend, atol=0.15 * np.abs(even).max())
