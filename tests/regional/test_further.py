"""Estimators and maps that build on the least-squares fit, on an image of an analytic head made without any of them."""

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.errors import InputError
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import push_compartments, region_fractions
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.quant.calibration import CalibrationLine
from sodium_prep.recon.noise import noise_power_spectrum
from sodium_prep.regional.designs import build_designs
from sodium_prep.regional.further import LEAST_TISSUE, Corrector
from sodium_prep.regional.signals import regional_signals
from sodium_prep.regional.table import regional_table
from tests.pvc import heads
from tests.pvc.test_estimators import RELAXATIONS, coloured

PSF = PsfModel("acquisition", heads.ACQUISITION)
NOISE = Noise(
    np.full(heads.SHAPE, 2.0, np.float32), noise_power_spectrum(heads.SHAPE, (heads.VOXEL_MM,) * 3, heads.ACQUISITION)
)


@pytest.fixture(scope="module")
def start():
    """Corrector of the noise-free image."""
    head, motion = heads.analytic_compartments(), heads.rigid()
    blurred = push_compartments(head, motion, heads.SHAPE, heads.AFFINE, PSF, RELAXATIONS, voxel_kernel="mean")
    mask = fit_mask(blurred, head.names, head.kinds, np.ones(heads.SHAPE, bool))
    designs = build_designs(head)
    image = heads.analytic_image(heads.TRUTH_MM, sodium_to_t1w=motion)
    return Corrector(
        image, mask, head, tuple(region for design in designs for region in design.regions), designs, blurred,
        region_fractions(head, motion, heads.SHAPE, heads.AFFINE),
        labbe(blurred, image, mask, NOISE, head.kinds).fit(designs[0].membership),
        np.full(3, heads.VOXEL_MM), PSF, RELAXATIONS,
    )  # fmt: skip


def with_image(corrector, image):
    system = labbe(corrector.blurred, image, corrector.mask, NOISE, corrector.compartments.kinds)
    return replace(corrector, image=image, fit=system.fit(corrector.designs[0].membership))


def values(corrector, name):
    found = corrector.weights(name)
    return found.response(corrector.image[corrector.mask])[:, 0] + found.offsets


def in_brain(corrector):
    share = corrector.fractions[corrector.compartments.regions].sum(axis=0)
    return np.asarray(share).reshape(heads.SHAPE) > 0.5


@pytest.mark.parametrize("name", ["mg", "iy", "mlts"])
def test_regional_values_are_true_and_linear_in_the_noise(start, name):
    truth = np.array([heads.TRUTH_MM.get(region.name, np.nan) for region in start.regions])
    weights, found = start.weights(name), values(start, name)
    tissues = np.array([region.tissue for region in start.regions])
    np.testing.assert_array_equal(weights.estimated, (tissues == "GM") | (name != "mg"))
    np.testing.assert_array_equal(np.isfinite(found), weights.estimated)
    known = np.isfinite(truth) & weights.estimated
    np.testing.assert_allclose(found[known], truth[known], rtol=3e-3)
    both = [i for i, r in enumerate(start.regions) if r.name == "Hippocampus" and r.hemisphere == "both"]
    assert found[both] == pytest.approx(51.5, rel=3e-3)
    assert np.all(weights.inflation[known] < 10.0)
    if name != "mlts":  # which voxels it leaves out depends on the noise: its errors are counted in its own test
        draw = coloured(NOISE, np.random.default_rng(6))
        moved = values(with_image(start, start.image + draw), name) - found
        sd = np.sqrt(np.diag(NOISE.quadratic_form(weights.rows, start.mask)))
        foretold = weights.response(draw[start.mask])[:, 0]
        assert np.max(np.abs(moved - foretold)[known] / sd[known]) < 0.02
        assert np.max(np.abs(moved)[known] / sd[known]) < 4.0


def test_maps_show_the_mixture_of_each_voxel_without_blurring(start):
    truth = np.array([heads.TRUTH_MM[name] for name in start.compartments.names])
    sharp, brain = (start.fractions.T @ truth).reshape(heads.SHAPE), in_brain(start)

    def rms(image):
        return np.sqrt(np.mean((image - sharp)[brain] ** 2))

    assert rms(start.image) > 4.0
    for name in ("rbv", "mtc", "iy"):
        (found,) = start.maps(name).values()
        assert np.isfinite(found[brain]).all()
        assert rms(found) < 0.4, name
        ventricle = start.fractions[start.compartments.names.index("ventricle-L")].toarray().reshape(heads.SHAPE)
        mean = np.sum((ventricle * np.nan_to_num(found))[brain]) / ventricle[brain].sum()
        assert mean < 0.8 * 140.0  # the mixture is still there: such a mean is no regional value
    (crisp,) = start.maps("vc").values()
    assert np.isfinite(crisp[brain]).all()
    assert rms(crisp) > rms(start.image)  # deconvolution of an unfiltered image adds ringing


def test_maps_of_one_tissue_hold_its_concentration_where_there_is_enough_of_it(start):
    names = start.compartments.names
    grey = start.blurred[[i for i, t in enumerate(start.compartments.tissues) if t == "GM"]].sum(axis=0)
    enough = (grey.reshape(heads.SHAPE) > LEAST_TISSUE) & start.mask
    cortex = enough & (start.blurred[names.index("cortex")].reshape(heads.SHAPE) > 0.9 * grey.reshape(heads.SHAPE))
    for found in (start.maps("mg")["GM"], start.maps("mlts")["GM"]):
        np.testing.assert_array_equal(np.isfinite(found), enough)
        assert np.median(found[cortex]) == pytest.approx(45.0, rel=3e-3)
        assert np.std(found[cortex]) < 1.0
    trimmed = start.maps("mlts")
    assert np.nanmedian(trimmed["WM"]) == pytest.approx(35.0, rel=3e-3)
    assert np.nanmedian(trimmed["CSF"]) == pytest.approx(140.0, rel=5e-3)


def test_what_cannot_be_had_is_refused(start):
    with pytest.raises(InputError, match="lobes"):
        start.maps("rl")
    smooth = replace(heads.ACQUISITION, kspace_filter="hamming")
    (found,) = replace(start, psf=PsfModel("acquisition", smooth)).maps("rl").values()
    assert np.isfinite(found[in_brain(start)]).all()
    c = start.compartments
    without = replace(start, compartments=replace(c, tissues=["WM" if t == "GM" else t for t in c.tissues]))
    for refused in (without.maps, without.weights):
        with pytest.raises(InputError, match="tissue"):
            refused("mg")
    silent = replace(start, image=0.0 * start.image, fit=replace(start.fit, values=0.0 * start.fit.values))
    with pytest.raises(InputError, match="no signal"):
        silent.maps("rbv")


def test_a_lesion_is_not_taken_for_its_tissue(start):
    c = start.compartments
    number = c.names.index("hippocampus-L")
    structures = ["lesion" if i == number else s for i, s in enumerate(c.structures)]
    marked = replace(start, compartments=replace(c, structures=structures))
    (row,) = [i for i, r in enumerate(start.regions) if r.members == (number,) and r.index is not None]
    for name in ("mg", "mlts"):
        weights = marked.weights(name)
        assert not weights.estimated[row]
        others = values(marked, name)
        cortex = [r.name for r in start.regions].index("cortex")
        assert others[cortex] == pytest.approx(45.0, rel=3e-3)


def test_rows_maps_and_notes_of_a_scan(start):
    found = regional_signals(
        start.image, heads.AFFINE, NOISE, start.compartments, heads.rigid(), heads.ACQUISITION, RELAXATIONS, PSF,
        voxel_kernel="mean", estimators=("none", "labbe", "mg", "iy", "mlts"), maps=("mg", "rl", "mlts"),
    )  # fmt: skip
    assert set(found.maps) == {("mg", "GM"), ("mlts", "GM"), ("mlts", "WM"), ("mlts", "CSF")}
    assert [note for note in found.notes if "no map by rl" in note]
    rows = regional_table(found, {"vials": CalibrationLine(0.0, 1.0, np.zeros((2, 2)))})
    assert {row["tissue"] for row in rows if row["estimator"] == "mg"} == {"GM"}
    assert {row["tissue"] for row in rows if row["estimator"] == "mlts"} == {"GM", "WM", "CSF"}
    by = {(r["name"], r["hemisphere"], r["estimator"]): r for r in rows}
    for name, side in (("cortex", "both"), ("hippocampus-L", "L"), ("ventricle-R", "R")):
        least = by[name, side, "labbe"]
        for estimator in ("mg", "iy", "mlts"):
            if (name, side, estimator) in by:
                row = by[name, side, estimator]
                assert row["tsc_ci_low"] < row["tsc"] < row["tsc_ci_high"]
                # The same sources of error, of about the same size as those of least squares.
                assert 0.8 < row["tsc_stderr_within"] / least["tsc_stderr_within"] < 2.0
                assert 0.9 < row["tsc_stderr"] / least["tsc_stderr"] < 1.3
