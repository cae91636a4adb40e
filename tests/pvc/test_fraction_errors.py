"""Errors of the tissue fractions: their derivative images, and what a fit that knows of them gains."""

from functools import partial

import numpy as np
import pytest

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.fraction_errors import BORDER_SD, FLUID, FLUID_SD, Slopes, fraction_errors, with_borders_moved
from sodium_prep.pvc.joint import joint_model
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.recon.noise import noise_power_spectrum
from tests.pvc import heads

RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
NOISE_SD = 1.5


@pytest.fixture(scope="module")
def model():
    """Compartments, their true signals and images, the errors and the noise."""
    head = heads.analytic_compartments()
    psf = PsfModel("acquisition", heads.ACQUISITION)
    push = partial(
        push_compartments, sodium_to_t1w=heads.rigid(), sodium_shape=heads.SHAPE, sodium_affine=heads.AFFINE, psf=psf,
        relaxations=RELAXATIONS, voxel_kernel="mean",
    )  # fmt: skip
    blurred = push(head)
    values = np.array([heads.TRUTH_MM[name] for name in head.names])
    mask = fit_mask(blurred, head.names, head.kinds, np.ones(heads.SHAPE, bool))
    spectrum = noise_power_spectrum(heads.SHAPE, (heads.VOXEL_MM,) * 3, heads.ACQUISITION)
    noise = Noise(np.full(heads.SHAPE, NOISE_SD, np.float32), spectrum)
    return head, values, push, blurred, mask, noise, fraction_errors(head, values, mask, push)


def moved(head, lower, upper, amount):
    """The head with a part of every voxel that holds two tissues given from one to the other, by plain loops."""
    volumes = [np.zeros(int(np.prod(head.shape))) for _ in head.names]
    for volume, voxels, weights in zip(volumes, head.voxels, head.weights, strict=True):
        volume[voxels] = weights
    share = {t: sum(v for v, tissue in zip(volumes, head.tissues, strict=True) if tissue == t) for t in (lower, upper)}
    both = (share[lower] > 0.02) & (share[upper] > 0.02)
    out = Compartments([], [], [], [], [], head.shape, head.affine)
    for name, tissue, kind, volume in zip(head.names, head.tissues, head.kinds, volumes, strict=True):
        if tissue in share:
            sign = 1.0 if tissue == upper else -1.0
            with np.errstate(invalid="ignore", divide="ignore"):
                volume = volume + np.where(both, sign * amount * volume / share[tissue], 0.0)
        voxels = np.flatnonzero(volume)
        out.append(name, tissue, kind, voxels, volume[voxels])
    return out


@pytest.mark.parametrize(("lower", "upper"), [("GM", "WM"), ("CSF", "GM")])
def test_a_border_that_moves_changes_the_image_as_foretold(model, lower, upper):
    head, values, push, blurred, _, _, errors = model
    changed = values @ push(moved(head, lower, upper, 0.01)) - values @ blurred
    foretold = 0.01 * errors.images[errors.names.index(f"{lower}-{upper} border")]
    assert np.abs(changed).max() > 0.02
    np.testing.assert_allclose(changed, foretold, atol=0.01 * np.abs(changed).max())


def test_slopes_are_odd_and_fluid_is_all_of_the_cortex(model):
    head, values, _, _, mask, _, errors = model
    even, slope = (errors.images[errors.names.index(f"GM-WM border{way}")] for way in ("", ", slope along axis 1"))
    inside = np.argwhere(mask)[:, 0]
    x = 2 * (np.indices(heads.SHAPE)[0] - inside.min()) / np.ptp(inside) - 1
    np.testing.assert_allclose(slope[mask.ravel()], (even * x.ravel())[mask.ravel()], atol=1e-4)
    # In the middle of the cortex all of its volume takes part; grey matter goes, fluid of 140 mM comes.
    fluid = errors.images[errors.names.index(FLUID)].reshape(heads.SHAPE)
    total = fluid.sum() * heads.VOXEL_MM**3
    solid = [i for i, s in enumerate(head.structures) if s in ("cortex", "hippocampus")]
    csf = [i for i, t in enumerate(head.tissues) if t == "CSF"]
    mean = head.volumes_mm3[csf] @ values[csf] / head.volumes_mm3[csf].sum()
    assert total == pytest.approx(head.volumes_mm3[solid] @ (mean - values[solid]), rel=0.02)
    np.testing.assert_allclose(errors.sds[:-1], BORDER_SD)
    assert errors.sds[-1] == pytest.approx(4 * FLUID_SD)  # T1w voxels of 2 mm hide four times as much


def test_joint_fit_gains_what_its_covariance_says(model):
    """Scans of heads whose fractions are wrong as foretold: errors of both estimators are as large as they state."""
    head, values, _, blurred, mask, noise, errors = model
    errors = errors.at_borders
    rng = np.random.default_rng(4)
    clean, regions = values @ blurred, head.regions
    plain = labbe(blurred, clean.reshape(heads.SHAPE), mask, noise, head.kinds)
    joint = labbe(blurred, clean.reshape(heads.SHAPE), mask, noise, head.kinds, errors=errors)
    found = {"plain": [], "joint": []}
    for _ in range(100):
        theta = errors.sds * rng.standard_normal(errors.sds.size)
        white = np.fft.fftn(rng.standard_normal(heads.SHAPE)) * np.sqrt(noise.spectrum)
        image = clean + theta @ errors.images + NOISE_SD * np.fft.ifftn(white).real.ravel()
        for name, system in (("plain", plain), ("joint", joint)):
            fit = system.with_image(image[mask.ravel()]).fit()
            assert fit.values.size == len(head.names)
            found[name].append((fit.values - values)[regions])
    moved_by = plain.fit().response(errors.images[:, mask.ravel()])[regions]
    stated = {
        "plain": np.sqrt(np.diag(plain.fit().covariance)[regions] + moved_by**2 @ errors.sds**2),
        "joint": np.sqrt(np.diag(joint.fit().covariance)[regions]),
    }
    seen = {name: np.sqrt(np.mean(np.square(drawn), axis=0)) for name, drawn in found.items()}
    for name, sd in stated.items():
        np.testing.assert_allclose(seen[name] / sd, 1.0, atol=0.25)  # an sd of 100 draws has 7 %
    cortex = head.names.index("cortex")
    assert seen["joint"][cortex] < 0.6 * seen["plain"][cortex]


TO_NATIVE = np.linalg.solve(heads.AFFINE, np.linalg.solve(heads.rigid(), heads.T1W_AFFINE))


def volumes(head):
    """Each compartment on the whole grid."""
    out = np.zeros((len(head.names), int(np.prod(head.shape))))
    for row, voxels, weights in zip(out, head.voxels, head.weights, strict=True):
        row[voxels] = weights
    return out


@pytest.mark.parametrize(("pair", "lower", "upper"), [(0, "GM", "WM"), (1, "CSF", "GM")])
def test_borders_move_by_the_amount_and_no_further_than_there_is_tissue(model, pair, lower, upper):
    head, mask = model[0], model[4]
    amounts = np.zeros((2, 4))
    amounts[pair, 0] = 0.01
    few = volumes(with_borders_moved(head, amounts, Slopes.over(mask), TO_NATIVE))
    np.testing.assert_allclose(few, volumes(moved(head, lower, upper, 0.01)), atol=1e-6)
    amounts[:] = [[0.5, 0.3, 0.0, 0.0], [-0.6, 0.0, 0.0, 0.2]]
    many = volumes(with_borders_moved(head, amounts, Slopes.over(mask), TO_NATIVE))
    assert many.min() >= 0.0
    np.testing.assert_allclose(many.sum(axis=0), volumes(head).sum(axis=0), atol=1e-5)


def test_joint_model_finds_borders_that_are_far_off(model):
    """Fractions ten standard deviations off, which one linear step overshoots."""
    _, values, push, _, mask, noise, _ = model
    head = heads.thin_cortex()
    wrong = np.array([[0.05, 0.0, 0.03, 0.0], [-0.6, 0.1, 0.0, 0.0]])
    true = with_borders_moved(head, wrong, Slopes.over(mask), TO_NATIVE)
    image, blurred = (values @ push(true)).reshape(heads.SHAPE), push(head)
    plain = labbe(blurred, image, mask, noise, head.kinds).fit()
    derivatives = fraction_errors(head, plain.values, mask, push)
    found = joint_model(head, blurred, derivatives, image, mask, noise, np.eye(len(head.names)), push, TO_NATIVE)
    once = labbe(blurred, image, mask, noise, head.kinds, errors=derivatives.at_borders).fit()
    cortex = head.names.index("cortex")
    error = [abs(fit.values[cortex] / values[cortex] - 1.0) for fit in (plain, once, found.system.fit())]
    assert error[0] > 0.1
    assert error[2] < 0.01
    assert error[2] < 0.3 * error[1]
    assert np.all(np.diff(found.objective) < 0.0)


def test_joint_fit_of_a_right_model_changes_nothing(model):
    head, values, _, blurred, mask, noise, errors = model
    clean = (values @ blurred).reshape(heads.SHAPE)
    fit = labbe(blurred, clean, mask, noise, head.kinds, errors=errors.at_borders).fit()
    np.testing.assert_allclose(fit.values[head.regions], values[head.regions], rtol=2e-4)
