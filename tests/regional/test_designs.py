"""Divisions of a head into columns of a fit."""

from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.atlas.groups import PRESETS, groups_of
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.quant.calibration import CalibrationLine
from sodium_prep.recon.noise import noise_power_spectrum
from sodium_prep.regional.designs import build_designs
from sodium_prep.regional.signals import regional_signals
from sodium_prep.regional.table import regional_table
from tests.pvc import heads


def head_of_labels(*, lesion=False):
    """One voxel per label of the bundled atlas, as regions, and one nuisance compartment."""
    out = Compartments([], [], [], [], [], (200, 1, 1), np.eye(4))
    for row in load_atlas().table.to_dict("records"):
        out.append(
            row["name"], row["tissue"], "region", np.array([len(out.names)]), np.ones(1), index=row["index"],
            hemisphere=row["hemisphere"], structure=row["structure"],
        )  # fmt: skip
    if lesion:
        out.append("Lesion", "GM", "region", np.array([len(out.names)]), np.ones(1), structure="lesion")
    out.append("rest-1", "extracerebral", "nuisance", np.array([len(out.names)]), np.ones(1))
    return out


@pytest.mark.parametrize("presets", [(), ("lobes",), ("ad",), ("als", "deepgrey"), PRESETS])
def test_every_compartment_is_in_exactly_one_column_of_each_design(presets):
    head = head_of_labels()
    designs = build_designs(head, groups_of(presets))
    amounts = np.random.default_rng(1).uniform(1.0, 2.0, len(head.names))
    for design in designs:
        np.testing.assert_array_equal(design.membership.sum(axis=1), 1.0)
        for region, column in zip(design.regions, design.columns, strict=True):
            assert np.flatnonzero(design.membership[:, column]).tolist() == sorted(region.members)
            assert amounts @ design.membership[:, column] == pytest.approx(amounts[list(region.members)].sum())
    # Whatever else is merged beside a region, compartments outside the merged ones stand alone.
    for design in designs[1:]:
        merged = {i for region in design.regions for i in region.members}
        assert design.membership.shape[1] == len(design.regions) + len(head.names) - len(merged)
    names = [(r.name, r.hemisphere) for design in designs[1:] for r in design.regions]
    assert len(names) == len(set(names))


def test_as_few_designs_as_overlaps_allow():
    """A compartment can be in one group of each design: the most crowded compartment sets the number."""
    head = head_of_labels()
    for presets in [(preset,) for preset in PRESETS] + [PRESETS]:
        designs = build_designs(head, groups_of(presets))
        crowd = np.zeros(len(head.names), int)
        for design in designs[3:]:
            for region in design.regions:
                crowd[list(region.members)] += 1
        assert len(designs) - 3 == crowd.max()


def test_other_groups_leave_the_main_ones_alone():
    head = head_of_labels()
    alone, beside = build_designs(head), build_designs(head, groups_of(PRESETS))
    assert len(alone) == 3
    for one, other in zip(alone, beside[:3], strict=True):
        np.testing.assert_array_equal(one.membership, other.membership)
        assert one.regions == other.regions
    main = ("Cortex", "WhiteMatter", "Hippocampus", "CSF")
    assert [(r.name, r.hemisphere) for r in beside[1].regions] == [(name, side) for name in main for side in "LR"]
    assert [r.name for d in build_designs(head, groups_of(PRESETS)) for r in d.regions] == [
        r.name for d in beside for r in d.regions
    ]


def test_the_lesion_has_a_row_of_its_own_and_no_share_in_groups():
    head = head_of_labels(lesion=True)
    place = head.names.index("Lesion")
    designs = build_designs(head, groups_of(PRESETS))
    rows = [(r.name, r.hemisphere, r.tissue, r.index) for r in designs[0].regions if place in r.members]
    assert rows == [("Lesion", "both", "GM", None)]
    assert not any(place in r.members for design in designs[1:] for r in design.regions)


def test_a_region_without_volume_keeps_its_row_and_changes_no_other():
    acquisition = heads.ACQUISITION
    relaxations = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
    noise = Noise(np.full(heads.SHAPE, 2.0, np.float32), noise_power_spectrum(heads.SHAPE, (4.0,) * 3, acquisition))
    image = heads.analytic_image({name: heads.TRUTH_MM[name] for name in heads.PARTS}, sodium_to_t1w=np.eye(4))
    psf = PsfModel("acquisition", acquisition)

    def rows(head):
        found = regional_signals(image, heads.AFFINE, noise, head, np.eye(4), acquisition, relaxations, psf)
        return regional_table(found, {"vials": CalibrationLine(0.0, 1.0, np.zeros((2, 2)))})

    full = heads.analytic_compartments()
    lacking = heads.analytic_compartments()
    lacking.append("gone", "GM", "region", np.zeros(0, np.int64), np.zeros(0), index=99, structure="deep_gm")
    before, after = rows(full), rows(lacking)
    gone = [row for row in after if row["name"] == "gone"]
    assert [row["estimator"] for row in gone] == ["none", "gtm", "labbe"]
    for row in gone:
        assert (row["index"], row["flag"], row["n_voxels"], row["volume_mm3"]) == (99, "absent", 0, 0.0)
        assert not any(np.isfinite(row[key]) for key in ("tsc", "tsc_stderr", "tsc_ci_low", "tsc_ci_high", "coverage"))
    others = [row for row in after if row["name"] != "gone"]
    assert len(others) == len(before)
    for row, other in zip(before, others, strict=True):
        assert (row["name"], row["flag"]) == (other["name"], other["flag"])
        assert other["tsc"] == pytest.approx(row["tsc"], rel=1e-6, nan_ok=True)  # images are float32
