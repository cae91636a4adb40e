"""Lesion, rim and mirror image in a head where the concentration of every place is known."""

from dataclasses import replace

import numpy as np
import pytest

from sodium_prep.anat.homologue import MirrorMap
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation
from sodium_prep.physics.signal import signal_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.quant.calibration import CalibrationLine
from sodium_prep.regional.lesion import around_lesion
from sodium_prep.regional.signals import regional_signals
from sodium_prep.regional.table import regional_table
from tests.pvc.test_compartments import GRID, GRID_AFFINE, build, dense, make_head, named

ACQUISITION = Acquisition(5e-4, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (3.0, 3.0, 3.0))
PSF = PsfModel("acquisition", ACQUISITION)
RELAXATIONS = {tissue: tissue_relaxation(tissue, 3.0) for tissue in TISSUES}
MIRROR = MirrorMap(np.diag([-1.0, 1.0, 1.0, 1.0]), 20, 0.0)
CENTRE, RADIUS = (-25.0, 0.0, 8.0), 9.0
HEALTHY = {"GM": 45.0, "WM": 35.0, "CSF": 140.0, "extracerebral": 15.0}
RIM = {"GM": 54.0, "WM": 56.0}
LINE = CalibrationLine(0.0, 2.0, np.zeros((2, 2)))


def distance(centre):
    at = np.stack(np.meshgrid(*(np.arange(60) * 2.0 - 59.0,) * 3, indexing="ij"), axis=-1)
    return np.linalg.norm(at - centre, axis=-1)


@pytest.fixture(scope="module")
def head():
    return make_head()


@pytest.fixture(scope="module")
def lesion():
    return distance(CENTRE) < RADIUS


@pytest.fixture(scope="module")
def bare(head, lesion):
    return build(head, lesion=lesion)


@pytest.fixture(scope="module")
def image(bare):
    """From what the head holds, place by place, not from how it is divided."""
    rim = (distance(CENTRE) < RADIUS + 5.0).reshape(-1)
    held = Compartments([], [], [], [], [], bare.shape, bare.affine)
    for i, tissue in enumerate(bare.tissues):
        tsc_mM = np.full(bare.voxels[i].size, 80.0 if bare.names[i] == "Lesion" else HEALTHY[tissue])
        if tissue in RIM and bare.kinds[i] == "region" and bare.names[i] != "Lesion":
            tsc_mM[rim[bare.voxels[i]]] = RIM[tissue]
        factor = float(signal_factor(ACQUISITION, RELAXATIONS[tissue]))
        held.append(str(i), tissue, "region", bare.voxels[i], bare.weights[i] * tsc_mM * LINE.slope * factor)
    return push_compartments(held, np.eye(4), GRID, GRID_AFFINE, PSF, RELAXATIONS).sum(axis=0).reshape(GRID)


def rows(compartments, image):
    found = regional_signals(
        image, GRID_AFFINE, Noise(np.full(GRID, 1.0, np.float32)), compartments, np.eye(4), ACQUISITION, RELAXATIONS,
        PSF, estimators=("none", "labbe"),
    )  # fmt: skip
    table = regional_table(found, {"vials": LINE})
    return {
        (row["name"], row["estimator"]): row for row in table if row["index"] is None or row["hemisphere"] != "both"
    }


def test_lesion_rim_mirror_and_their_ratios_are_recovered(bare, lesion, image):
    divided, notes = around_lesion(bare, lesion, MIRROR)
    assert notes == []
    (doubt,) = around_lesion(bare, lesion, replace(MIRROR, residual_mm=8.0))[1]
    assert "8.0 mm" in doubt
    found = rows(divided, image)
    volume = {t: found[f"LesionMirror{t}", "labbe"]["volume_mm3"] for t in RIM}
    opposite = (45.0 * volume["GM"] + 35.0 * volume["WM"]) / sum(volume.values())
    assert 35.5 < opposite < 44.5
    truth = {
        "Lesion": (80.0, 80.0 / opposite),
        "LesionRimGM": (54.0, 54.0 / 45.0),
        "LesionRimWM": (56.0, 56.0 / 35.0),
        "LesionMirrorGM": (45.0, None),
        "LesionMirrorWM": (35.0, None),
    }
    for name, (tsc_mM, over) in truth.items():
        row = found[name, "labbe"]
        assert row["tsc"] == pytest.approx(tsc_mM, rel=0.03), name
        assert row["volume_mm3"] > 200.0
        if over is None:
            assert row["mirror_ratio"] is None
        else:
            assert row["mirror_ratio"] == pytest.approx(over, rel=0.03), name
            # Fluid at the surface is free, and hard to tell from the thin grey matter beside it.
            assert 0.0 < row["mirror_ratio_stderr"] < (0.5 if name == "LesionRimGM" else 0.05) * over
    # The surroundings shine into an uncorrected lesion, and the lesion into its rim.
    assert found["Lesion", "none"]["mirror_ratio"] < 0.93 * truth["Lesion"][1]
    assert found["Left-WM", "labbe"]["tsc"] == pytest.approx(35.0, rel=0.02)
    # A rim that passed for healthy tissue would raise it.
    assert rows(bare, image)["Left-WM", "labbe"]["tsc"] > 1.03 * 35.0


def test_the_mirror_image_leaves_its_labels_as_they_are(bare, lesion, image):
    without, notes = around_lesion(bare, lesion, None)
    assert "too few labels" in notes[0]
    alone, divided = rows(without, image), rows(around_lesion(bare, lesion, MIRROR)[0], image)
    assert set(divided) - set(alone) == {(f"LesionMirror{t}", e) for t in RIM for e in ("none", "labbe")}
    for key, row in alone.items():
        for column in ("tsc", "tsc_stderr", "volume_mm3", "csf_fraction"):
            assert divided[key][column] == pytest.approx(row[column], rel=1e-5, nan_ok=True), (key, column)
        assert row["mirror_ratio"] is None


def test_every_voxel_stays_filled_as_it_was(bare, lesion):
    divided, _ = around_lesion(bare, lesion, MIRROR)
    np.testing.assert_allclose(dense(divided, divided.regions), dense(bare, bare.regions), atol=1e-6)
    for tissue in RIM:
        before, after = (dense(c, [i for i in c.regions if c.tissues[i] == tissue]) for c in (bare, divided))
        np.testing.assert_allclose(after, before, atol=1e-6)
        rim = dense(divided, named(divided, f"LesionRim{tissue}")) > 0
        assert distance(CENTRE)[rim].min() > RADIUS - 1.0
        assert distance(CENTRE)[rim].max() < RADIUS + 5.0 + 2.0
    opposite = dense(divided, [i for i in divided.regions if divided.in_mirror[i]]) > 0
    assert distance((25.0, 0.0, 8.0))[opposite].max() < RADIUS + 1.0


@pytest.mark.parametrize("centre", [(0.0, 0.0, 8.0), (-4.0, -10.0, 12.0)])
def test_a_lesion_of_the_midline_has_no_mirror_image(head, centre):
    lesion = distance(centre) < 8.0
    divided, notes = around_lesion(build(head, lesion=lesion), lesion, MIRROR)
    assert "midline" in notes[0]
    assert not any(divided.in_mirror)
    assert named(divided, "LesionRimWM")


def test_what_no_sodium_image_resolves_stays_with_its_label(head):
    lesion = distance((-20.0, 0.0, 8.0)) < 2.0
    divided, _ = around_lesion(build(head, lesion=lesion), lesion, MIRROR)
    assert not any(divided.in_mirror)
    assert not named(divided, "LesionRimGM")
