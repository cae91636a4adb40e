"""Sidecars: inheritance, the protocol file, and what may be said of the PSF."""

from __future__ import annotations

import math
import re

import pytest

from sodium_prep.bids.images import check_image
from sodium_prep.bids.sidecar import check_references, load_protocol, load_sidecar, merged_metadata
from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation
from tests.bids import study
from tests.bids.study import SODIUM

JSON = SODIUM.replace(".nii.gz", ".json")


def test_acquisition_holds_the_sidecar_values(tmp_path):
    sidecar = load_sidecar(study.make_study(tmp_path) / SODIUM)
    facts = sidecar.acquisition()
    assert facts.acquisition == Acquisition(0.0005, 0.12, 90, 3, "DA-3DPR", 0.01, (4, 4, 4), 0.2, "hamming")
    assert (facts.psf_known, facts.missing, facts.assumed) == (True, (), ())
    assert sidecar.acquisition(kspace_filter="none").acquisition.kspace_filter == "none"


def test_nothing_of_the_psf_is_guessed(tmp_path):
    root = study.make_study(tmp_path)
    study.put_sodium(root, SodiumAcquisition=None, PulseSequenceType="UTE")
    facts = load_sidecar(root / SODIUM).acquisition()
    assert not facts.psf_known
    assert facts.missing == ("Trajectory", "ReadoutDuration", "NominalResolution", "KSpaceFilter")
    assert math.isnan(facts.acquisition.readout_duration_s)
    assert facts.acquisition.echo_time_s == 0.0005


@pytest.mark.parametrize(
    ("block", "note"),
    [
        ({"Trajectory": "3DPR", "ReadoutDuration": 0.01, "KSpaceFilter": "none"}, "voxel size 4 x 4 x 4 mm"),
        ({"ReadoutDuration": 0.01, "KSpaceFilter": "none", "LinearFraction": 0.3}, "PulseSequenceType DA-3DPR"),
        ({"Trajectory": "TPI", "ReadoutDuration": 0.01, "KSpaceFilter": "none"}, "LinearFraction is lacking; 0.2"),
    ],
)
def test_what_is_assumed_is_said(block, note, tmp_path):
    root = study.make_study(tmp_path)
    study.put_sodium(root, SodiumAcquisition=block)
    facts = load_sidecar(root / SODIUM).acquisition(voxel_mm=(4.0, 4.0, 4.0))
    assert facts.psf_known
    assert note in " ".join(facts.assumed)


def with_block(root, **changes):
    study.put_sodium(root, SodiumAcquisition=study.SIDECAR["SodiumAcquisition"] | changes)
    return root / SODIUM


def test_a_window_has_all_of_its_parameters_and_no_others(tmp_path):
    root = study.make_study(tmp_path)
    for name in ("fermi", "gaussian"):
        with pytest.raises(InputError, match=f"KSpaceFilter {name} without FilterCutoff.* or write unknown"):
            load_sidecar(with_block(root, KSpaceFilter=name))
    with pytest.raises(InputError, match="has FilterWidth, which KSpaceFilter hamming does not have"):
        load_sidecar(with_block(root, KSpaceFilter="hamming", FilterWidth=0.1))
    found = load_sidecar(with_block(root, KSpaceFilter="fermi", FilterCutoff=0.9, FilterWidth=0.1)).acquisition()
    assert found.psf_known
    assert (found.acquisition.filter_cutoff, found.acquisition.filter_width) == (0.9, 0.1)
    assert load_sidecar(with_block(root, KSpaceFilter="unknown")).acquisition().missing == ("KSpaceFilter",)


def test_parameters_of_a_window_come_from_the_protocol_with_that_window_only(tmp_path):
    root, protocol = study.make_study(tmp_path / "study"), tmp_path / "protocol.toml"
    protocol.write_text('[SodiumAcquisition]\nKSpaceFilter = "fermi"\nFilterCutoff = 0.8\nFilterWidth = 0.05\n')
    same = load_sidecar(with_block(root, KSpaceFilter="fermi"), protocol).acquisition().acquisition
    assert (same.filter_cutoff, same.filter_width) == (0.8, 0.05)
    other = load_sidecar(with_block(root, KSpaceFilter="hamming"), protocol).acquisition().acquisition
    assert (other.kspace_filter, other.filter_cutoff, other.filter_width) == ("hamming", None, None)


def test_what_no_psf_can_be_computed_of(tmp_path):
    root = study.make_study(tmp_path)
    with pytest.raises(InputError, match=r"Trajectory is 'rosette', which is not known .*\(PointSpreadFunction"):
        load_sidecar(with_block(root, Trajectory="rosette"))
    assert load_sidecar(with_block(root, Trajectory="FLORET")).acquisition().missing == ("PointSpreadFunction",)
    sidecar = load_sidecar(with_block(root, NonlinearReconstruction=True))
    assert sidecar.acquisition().missing == ("PointSpreadFunction",)
    assert sidecar.acquisition(kspace_filter="none").psf_known, "of our own image of the same data"


def test_an_image_of_a_point_is_found_from_where_it_is_named(tmp_path):
    root, protocol = study.make_study(tmp_path / "study"), tmp_path / "lab" / "protocol.toml"
    block = {"PointSpreadFunction": {"GM": "bids::psf/gm.nii.gz", "CSF": "psf/csf.nii.gz"}}
    named = load_sidecar(with_block(root, **block)).sodium_acquisition.psf_files
    assert named == {"GM": root / "psf/gm.nii.gz", "CSF": root / "psf/csf.nii.gz"}
    with pytest.raises(InputError, match="not in the data set"):
        load_sidecar(with_block(root, PointSpreadFunction="../../etc/psf.nii.gz"))
    with pytest.raises(InputError, match="PointSpreadFunction is not an image of a point, nor one by tissue"):
        load_sidecar(with_block(root, PointSpreadFunction={"all": "a.nii.gz", "GM": "b.nii.gz"}))
    protocol.parent.mkdir()
    protocol.write_text('[SodiumAcquisition]\nPointSpreadFunction = "psf.nii.gz"\n')
    named = load_sidecar(with_block(root), protocol).sodium_acquisition.psf_files
    assert named == {"all": tmp_path / "lab" / "psf.nii.gz"}


def test_the_nearest_sidecar_wins(tmp_path):
    root = study.make_study(tmp_path)
    study.put_json(root / "PDw.json", {"EchoTime": 0.1, "FlipAngle": 10, "Manufacturer": "far"})
    study.put_json(root / "acq-sodium_PDw.json", {"FlipAngle": 20})
    study.put_json(root / "acq-other_PDw.json", {"Manufacturer": "not mine"})
    study.put_json(root / "sub-01/sub-01_acq-sodium_PDw.json", {"FlipAngle": 30})
    study.put_json(root / "sub-01/ses-01/sub-01_ses-01_T1w.json", {"Manufacturer": "not mine"})
    merged = merged_metadata(root / SODIUM)
    assert (merged["EchoTime"], merged["FlipAngle"], merged["Manufacturer"]) == (0.0005, 90, "far")
    (root / JSON).unlink()
    merged = merged_metadata(root / SODIUM)
    assert (merged["EchoTime"], merged["FlipAngle"], merged["Manufacturer"]) == (0.1, 30, "far")


def test_a_fault_is_laid_at_the_file_it_came_from(tmp_path):
    root = study.make_study(tmp_path)
    study.put_sodium(root, RepetitionTime=None)
    far = study.put_json(root / "acq-sodium_PDw.json", {"RepetitionTime": 120})
    with pytest.raises(InputError, match="RepetitionTime is 120") as caught:
        load_sidecar(root / SODIUM)
    assert caught.value.where == str(far)


PROTOCOL = """
EchoTime = 0.001
RepetitionTimeExcitation = 0.2
FlipAngle = 55

[SodiumAcquisition]
ReadoutDuration = 0.02
KSpaceFilter = "none"

[[SodiumReferences]]
Label = "vial50"
Concentration = 50.0
Matrix = "PAG"

[[SodiumReferences]]
Label = "vial150"
Concentration = 150.0
Matrix = "PAG"
"""


def test_protocol_fills_only_what_is_lacking(tmp_path):
    root = study.make_study(tmp_path / "study")
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(PROTOCOL)
    study.put_sodium(root, FlipAngle=None, SodiumAcquisition={"KSpaceFilter": "hamming"}, SodiumReferences=None)
    sidecar = load_sidecar(root / SODIUM, protocol)
    assert (sidecar.echo_time_s, sidecar.repetition_time_s, sidecar.flip_angle_deg) == (0.0005, 0.12, 55)
    assert sidecar.sodium_acquisition.readout_duration_s == 0.02
    assert sidecar.sodium_acquisition.kspace_filter == "hamming"
    assert [reference.label for reference in sidecar.references] == ["vial50", "vial150"]


def test_a_scan_says_itself_which_references_it_had(tmp_path):
    root = study.make_study(tmp_path / "study")
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(PROTOCOL)
    study.put_sodium(root, SodiumReferences=[{"Label": "vial150", "CentreRAS": [1, 2, 3], "Radius": 8}])
    (reference,) = load_sidecar(root / SODIUM, protocol).references
    assert (reference.concentration_mM, reference.matrix, reference.centre_ras_mm) == (150, "PAG", (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("EchoTimes = 1", "EchoTimes is not a known key"),
        ("[SodiumAcquisition]\nTE = 1", "SodiumAcquisition.TE is not a known key"),
        ("[[SodiumReferences]]\nlabel = 'a'", "SodiumReferences[0].label is not a known key"),
        ("SodiumReferences = 3", "SodiumReferences is 3"),
        ("RepetitionTime = 120", "RepetitionTime is 120, outside"),
        ("[SodiumAcquisition]\nReadoutDuration = 10", "SodiumAcquisition.ReadoutDuration is 10"),
        ("EchoTime = ", "not valid TOML"),
    ],
)
def test_a_bad_protocol_is_refused(text, problem, tmp_path):
    path = tmp_path / "protocol.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        load_protocol(path)
    assert "protocol.toml" in caught.value.where


def test_references_become_relaxation(tmp_path):
    root = study.make_study(tmp_path)
    two = {"T1": 0.03, "T2starFast": 0.004, "T2starSlow": 0.02, "FractionFast": 0.6}
    both = [
        {"Label": "a", "Concentration": 50, "Matrix": "agar"} | two,
        {"Label": "b", "Concentration": 90, "Matrix": "saline"},
    ]
    both[1] |= {"T1": 0.05, "T2starSlow": 0.05, "CentreRAS": [9, 9, 9], "Radius": 5, "Length": 20, "Axis": [0, 3, 4]}
    study.put_sodium(root, SodiumReferences=both)
    agar, saline = load_sidecar(root / SODIUM).references
    assert agar.relaxation == Relaxation(0.03, 0.02, 0.004, 0.6)
    assert saline.relaxation == Relaxation(0.05, 0.05)


def test_internal_references_need_no_second_concentration(tmp_path):
    root = study.make_study(tmp_path)
    study.put_sodium(root, SodiumReferences=[{"Label": "csf", "Concentration": 145, "Matrix": "CSF"}])
    references = load_sidecar(root / SODIUM).references
    check_references(references, root / SODIUM, check_image(root / SODIUM))


@pytest.mark.parametrize(
    ("changes", "weighting"),
    [
        ({}, "SQ"),
        ({"InversionTime": 0.03}, "IR"),
        ({"PulseSequenceType": "TQF"}, "TQ"),
        ({"SodiumAcquisition": study.SIDECAR["SodiumAcquisition"] | {"Weighting": "TQ"}}, "TQ"),
    ],
)
def test_weighted_images_are_known_as_such(changes, weighting, tmp_path):
    root = study.make_study(tmp_path)
    study.put_sodium(root, **changes)
    assert load_sidecar(root / SODIUM).weighting == weighting
    study.put_sodium(root, InversionTime=0.03, SodiumAcquisition={"Weighting": "SQ"})
    with pytest.raises(InputError, match="Weighting SQ beside InversionTime"):
        load_sidecar(root / SODIUM)


def test_a_study_gives_its_own_relaxation(tmp_path):
    root = study.make_study(tmp_path)
    protocol = tmp_path / "own.toml"
    protocol.write_text('[Relaxation.GM]\nT1 = 0.0405\nT1Error = 0.002\nCitation = "our inversion recovery"\n')
    given = load_sidecar(root / SODIUM, protocol).relaxation_given()
    assert given == {"GM": {"t1_s": 0.0405, "t1_sd_s": 0.002, "t1_citation": "our inversion recovery"}}
    for text, problem in (
        ("[Relaxation.GM]\nT1 = 40.5\nCitation = 'own'\n", "outside"),
        ("[Relaxation.GM]\nT1 = 0.04\n", "Citation is missing"),
        ("[Relaxation.Bone]\nT1 = 0.04\nCitation = 'own'\n", "Bone"),
        ("[Relaxation.GM]\nT2star = 0.04\nCitation = 'own'\n", "not a known key"),
        ("[Relaxation.GM]\nT2starSlow = 0.001\nCitation = 'own'\n", "above T2starSlow"),
    ):
        protocol.write_text(text)
        with pytest.raises(InputError, match=problem):
            load_sidecar(root / SODIUM, protocol)


def test_errors_of_a_vials_relaxation_are_read(tmp_path):
    vial = study.SIDECAR["SodiumReferences"][0] | {"T1Error": 0.001, "T2starSlowError": 0.002}
    study.put_sodium(study.make_study(tmp_path), SodiumReferences=[vial])
    relaxation = load_sidecar(tmp_path / SODIUM).references[0].relaxation
    assert (relaxation.t1_sd_s, relaxation.t2star_slow_sd_s) == (0.001, 0.002)
