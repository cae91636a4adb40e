"""Participants, sessions, runs, echoes, field maps, filters and derivatives are found as the design names them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sodium_prep.bids.filters import check_label, load_filters, matches
from sodium_prep.bids.inputs import (
    collect,
    find_participants,
    find_sessions,
    parse_derivatives,
    read_participants,
    table_warnings,
)
from sodium_prep.errors import InputError, UsageError
from tests.bids import study
from tests.bids.study import KSPACE, SODIUM, T1W
from tests.shared import shared_path


@pytest.fixture
def root(tmp_path):
    return study.make_study(tmp_path / "study")


def test_real_scan_is_understood():
    inputs = collect(shared_path("real"), "uhf01", None)
    (series,) = inputs.sodium
    assert inputs.anat.path.name == "sub-uhf01_acq-gre_PDw.nii.gz"
    assert inputs.anat.contrast == "PDw"
    assert [image.path.name for image in series.runs[0].images] == ["sub-uhf01_acq-sodium_PDw.nii.gz"]
    assert [path.name for path in series.receive_pair] == [
        f"sub-uhf01_acq-{coil}_RB1COR.nii.gz" for coil in ("body", "head")
    ]
    assert series.runs[0].sidecar.field_strength_t == 7


def test_participants_and_sessions(root):
    (root / "sub-10/ses-pre/anat").mkdir(parents=True)
    (root / "sub-10/ses-post/anat").mkdir(parents=True)
    (root / "sourcedata/sub-11/sodium").mkdir(parents=True)
    (root / "sub-no_label").mkdir()
    assert find_participants(root) == ["01", "10", "11"]
    assert find_participants(root, ["sub-10", "01"]) == ["01", "10"]
    assert find_sessions(root, "10") == ["post", "pre"]
    assert find_sessions(root, "10", ["ses-pre"]) == ["pre"]
    assert find_sessions(root, "11") == [None]
    with pytest.raises(InputError, match="no participant 02"):
        find_participants(root, ["01", "02"])
    with pytest.raises(InputError, match="Its sessions are: 01"):
        find_sessions(root, "01", ["02"])


@pytest.mark.parametrize("label", ["../etc", "0.1", "a b", "01\n", "", "sub-", ".*", "é"])
def test_labels_that_could_leave_the_folder_are_refused(root, label):
    with pytest.raises(UsageError, match="not a BIDS label"):
        find_participants(root, [label])


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z0-9]{1,12}", fullmatch=True))
def test_labels_are_bare_of_their_prefix(label):
    assert check_label(label) == check_label(f"sub-{label}") == label
    assert check_label(f"ses-{label}", "--session-label") == label


def test_participants_table_is_text(root):
    table = root / "participants.tsv"
    table.write_text("participant_id\tgroup\tcode\nsub-01\tNA\t001\n02\tNone\tn/a\n")
    rows = read_participants(root)
    assert rows[0] == {"participant_id": "01", "group": "NA", "code": "001"}
    assert rows[1]["group"] == "None"
    assert table_warnings(root, ["01"]) == [f"{table}: lists 02, who have no folder."]
    table.write_text("participant_id\nsub-01\n01\n")
    with pytest.raises(InputError, match="lists 01 more than once"):
        find_participants(root)
    table.write_text("participant_id\tage\nsub-01\n")
    with pytest.raises(InputError, match="1 cells in line 2"):
        find_participants(root)


def test_runs_and_echoes_are_sorted_into_series(root):
    for run in ("02", "01", "10"):
        study.put_sodium(root, SODIUM.replace("_PDw", f"_run-{run}_PDw"))
    for echo, time in ((2, 0.005), (1, 0.0005)):
        study.put_sodium(root, SODIUM.replace("sodium_PDw", f"dual_echo-{echo}_MEGRE"), EchoTime=time)
    (root / SODIUM).unlink()
    dual, single = collect(root, "01", "01").sodium
    assert (dual.acquisition, dual.suffix, single.suffix) == ("dual", "MEGRE", "PDw")
    assert [image.echo for image in dual.runs[0].files] == [1, 2]
    assert dual.runs[0].sidecar.echo_time_s == 0.0005
    assert [run.run for run in single.runs] == ["01", "02", "10"]
    study.put_sodium(root, SODIUM.replace("sodium_PDw", "dual_echo-2_MEGRE"), EchoTime=0.0005)
    with pytest.raises(InputError, match="not above that of"):
        collect(root, "01", "01")


def test_images_of_one_series_must_be_comparable(root):
    (root / SODIUM).unlink()
    names = [SODIUM.replace("sodium_PDw", f"dual_echo-{echo}_MEGRE") for echo in (1, 2)]
    for name, time in zip(names, (0.0005, 0.025), strict=True):
        study.put_sodium(root, name, EchoTime=time)
    study.put_image(root / names[1], matrix=study.affine(4.1))
    with pytest.raises(InputError, match="another grid than the echo"):
        collect(root, "01", "01")
    study.put_sodium(root, names[1], EchoTime=0.025, InversionTime=0.03)
    with pytest.raises(InputError, match=r"weighted otherwise \(IR\)"):
        collect(root, "01", "01")


def test_nucleus_may_be_in_the_name(root):
    for suffix in (".nii.gz", ".json"):
        (root / SODIUM.replace(".nii.gz", suffix)).unlink()
    study.put_sodium(root, SODIUM.replace("acq-sodium", "nuc-23Na"), ResonantNucleus=None)
    assert collect(root, "01", "01").sodium[0].acquisition is None


def test_images_that_are_not_used_are_named(root):
    study.put_sodium(root, SODIUM.replace("_PDw", "_flip-1_VFA"))
    study.put_sodium(root, SODIUM.replace("_PDw", "_part-phase_PDw"))
    first, second = collect(root, "01", "01").warnings
    assert "flip-1_VFA" in first
    assert "part-phase" in second


def _put_part(root, part, *, name=SODIUM, data=None, matrix=None, **changes):
    """One part of an image; a change to None takes a key of its sidecar away."""
    path = study.put_sodium(root, name.replace("_PDw", f"_part-{part}_PDw"), **changes)
    return study.put_image(path, data, matrix)


def _phase(seed=1):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (24, 24, 24)).astype(np.float32)


@pytest.mark.parametrize("order", [1, -1])
def test_the_parts_of_complex_data_are_paired_run_by_run(root, order):
    (root / SODIUM).unlink()
    for session in ("01", "02"):
        study.put_image(root / T1W.replace("ses-01", f"ses-{session}"))
        for run, parts in ((1, ("mag", "phase")), (2, ("real", "imag")), (3, ("mag",))):
            name = SODIUM.replace("ses-01", f"ses-{session}").replace("_PDw", f"_run-{run}_PDw")
            for part in parts[::order]:
                _put_part(root, part, name=name, data=_phase() if part == "phase" else None, Units="rad")
    for session in ("01", "02"):
        found = collect(root, "01", session)
        runs = [[run.images[0].path, *run.images[0].other_part.items()] for run in found.sodium[0].runs]
        anat = root / f"sub-01/ses-{session}/anat"

        def file(run, part, anat=anat, session=session):
            return anat / f"sub-01_ses-{session}_acq-sodium_run-{run}_part-{part}_PDw.nii.gz"

        assert runs[0] == [file(1, "mag"), ("phase", file(1, "phase"))]
        assert runs[1] == [file(2, "real"), ("imaginary", file(2, "imag"))]
        assert runs[2] == [file(3, "mag")]
        assert found.warnings == ()
    (unasked,) = collect(root, "01", "01", filters={"sodium": {"part": "mag", "run": 1}}).sodium[0].runs
    assert unasked.images[0].other_part == {}


@pytest.mark.parametrize("units", ["arbitrary", "degree", "radian", 1, None])
def test_a_phase_of_unknown_scale_is_left_aside_with_a_note(root, units):
    phase = _put_part(root, "phase", data=_phase(), Units=units)
    found = collect(root, "01", "01")
    (image,) = found.sodium[0].runs[0].images
    assert (image.path, image.other_part) == (root / SODIUM, {})
    (note,) = found.warnings
    assert note.startswith(f"{phase}: is not used, because its Units are {units!r}, not 'rad'")
    assert "set Units to rad" in note
    # Real and imaginary part need no scale, and go before a magnitude whose phase has none.
    real, imaginary = _put_part(root, "real"), _put_part(root, "imag")
    found = collect(root, "01", "01")
    (image,) = found.sodium[0].runs[0].images
    assert (image.path, image.other_part) == (real, {"imaginary": imaginary})
    assert [note.split(":")[0] for note in found.warnings] == [str(root / SODIUM), str(phase)]


def test_a_lonely_part_is_left_aside_with_a_note(root):
    imaginary = _put_part(root, "imag")
    found = collect(root, "01", "01")
    assert found.warnings == (f"{imaginary}: is not used, because there is no part-real to it.",)
    assert found.sodium[0].runs[0].images[0].path == root / SODIUM


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": 700.0 * _phase()}, "has Units rad and values up to 2199, beyond 2 pi"),
        ({"data": _phase()[1:]}, "lies on another grid than sub-01_ses-01_acq-sodium_PDw.nii.gz"),
        ({"data": _phase(), "matrix": study.affine(4.01)}, "lies on another grid"),
    ],
)
def test_a_phase_that_contradicts_itself_or_its_magnitude_is_refused(root, changes, words):
    _put_part(root, "phase", **({"Units": "rad"} | changes))
    with pytest.raises(InputError, match=f"part-phase_PDw.nii.gz: {words}"):
        collect(root, "01", "01")


def test_a_sum_of_squares_has_no_phase(root):
    _put_part(root, "phase", data=2.0 * _phase(), Units="rad")
    assert collect(root, "01", "01").sodium[0].runs[0].images[0].other_part
    study.put_sodium(root, SodiumAcquisition=study.SIDECAR["SodiumAcquisition"] | {"SumOfSquaresChannels": 8})
    with pytest.raises(InputError, match="a sum of squares has no phase"):
        collect(root, "01", "01")
    assert collect(root, "01", "01", filters={"sodium": {"part": ["mag", None]}}).warnings == ()


@pytest.mark.parametrize(("source", "expected"), [("auto", "kspace"), ("image", "image"), ("kspace", "kspace")])
def test_source_of_a_run_that_has_both(root, source, expected):
    study.put_kspace(root, KSPACE)
    (run,) = collect(root, "01", "01", source=source).sodium[0].runs
    assert run.source == expected
    assert len(run.images) == len(run.kspace) == 1


def test_runs_of_a_series_share_one_source(root):
    (root / SODIUM).unlink()
    for run in (1, 2):
        study.put_sodium(root, SODIUM.replace("_PDw", f"_run-{run}_PDw"))
    study.put_kspace(root, KSPACE.replace("_kspace", "_run-1_kspace"))
    with pytest.raises(InputError, match=r"run-2_PDw.nii.gz: has no k-space, which other runs"):
        collect(root, "01", "01")
    assert {run.source for run in collect(root, "01", "01", source="image").sodium[0].runs} == {"image"}


def test_kspace_alone_makes_a_series(root):
    (root / SODIUM).unlink()
    raw = study.put_kspace(root, KSPACE)
    study.put_kspace(root, KSPACE.replace(".h5", ".dat"))
    inputs = collect(root, "01", "01")
    assert [file.path for file in inputs.sodium[0].runs[0].files] == [raw]
    assert "kspace.dat: is not used" in inputs.warnings[0]
    with pytest.raises(InputError, match="no reconstructed image"):
        collect(root, "01", "01", source="image")
    raw.unlink()
    with pytest.raises(InputError, match=r"kspace\.dat: cannot be read: it is damaged, cut short or no twix file"):
        collect(root, "01", "01")
    raw.write_bytes(b"<html>")
    with pytest.raises(InputError, match="not an HDF5 file"):
        collect(root, "01", "01")


def test_the_first_of_several_echoes_of_raw_data_is_used_and_the_others_are_named(root):
    (root / SODIUM).unlink()
    first, second = (KSPACE.replace("_kspace.h5", f"_echo-{n}_kspace.npz") for n in (1, 2))
    for name, echo_time_s in ((second, 0.005), (first, 0.0005)):
        path = study.put_kspace(root, name)
        path.write_bytes(b"PK\x03\x04")
        study.put_json(path.with_suffix(".json"), study.SIDECAR | {"EchoTime": echo_time_s})
    inputs = collect(root, "01", "01")
    (run,) = inputs.sodium[0].runs
    assert [file.path.name for file in run.files] == [name.rpartition("/")[2] for name in (first, second)]
    assert run.sidecar.raw_description().echo_times_s == (0.0005,)


def test_one_file_of_raw_data_may_hold_all_echoes(root):
    (root / SODIUM).unlink()
    path = study.put_kspace(root)
    study.put_json(path.with_suffix(".json"), study.SIDECAR | {"EchoTime": [0.0005, 0.005]})
    (run,) = collect(root, "01", "01").sodium[0].runs
    assert [(file.path, file.echo, file.place, file.echo_time_s) for file in run.files] == [
        (path, 1, 0, 0.0005),
        (path, 2, 1, 0.005),
    ]
    assert run.sidecar.raw_description().echo_times_s == (0.0005, 0.005)
    for times, message in (
        ([0.005, 0.0005], "EchoTimes that do not rise"),
        ([0.0005, 5.0], r"EchoTime\[1\]"),
        ([0.0005, 0.15], "EchoTime 0.15 s not below RepetitionTime"),
        ([], "EchoTime"),
    ):
        study.put_json(path.with_suffix(".json"), study.SIDECAR | {"EchoTime": times})
        with pytest.raises(InputError, match=message):
            collect(root, "01", "01")


def test_an_image_has_one_echo_time(root):
    study.put_json(root / SODIUM.replace(".nii.gz", ".json"), study.SIDECAR | {"EchoTime": [0.0005, 0.005]})
    with pytest.raises(InputError, match="has 2 EchoTimes, but an image is of one echo"):
        collect(root, "01", "01")


def _fmap(root, name, **metadata):
    path = root / f"sub-01/ses-01/fmap/sub-01_ses-01_{name}.nii.gz"
    study.put_json(path.with_name(f"sub-01_ses-01_{name}.json"), metadata)
    return study.put_image(path)


def test_field_maps_go_to_the_series_they_are_intended_for(root):
    study.put_sodium(root, SODIUM.replace("acq-sodium", "acq-other"))
    intended = {"ResonantNucleus": "23Na", "IntendedFor": f"bids::{SODIUM}"}
    body, head = _fmap(root, "acq-body_RB1COR", **intended), _fmap(root, "acq-head_RB1COR", **intended)
    legacy = _fmap(root, "acq-other_TB1map", ResonantNucleus="23Na", IntendedFor=[SODIUM.replace("sub-01/", "", 1)])
    _fmap(root, "TB1map", ResonantNucleus="1H")
    facts = {"ResonantNucleus": "23Na", "RepetitionTime": 0.3}
    dam = [_fmap(root, f"flip-{flip}_TB1DAM", FlipAngle=60 * flip, **facts) for flip in (1, 2)]
    other, sodium = collect(root, "01", "01").sodium
    assert (sodium.receive_pair, sodium.tb1map, sodium.tb1dam) == ((body, head), legacy, None)
    assert (other.receive_pair, other.tb1map, other.tb1dam) == (None, None, tuple(dam))
    assert f"{legacy.name} gives the transmit field" in str(collect(root, "01", "01").warnings)
    # Which flip is the smaller one is what the sidecars say, whatever the names.
    swapped = [_fmap(root, f"flip-{flip}_TB1DAM", FlipAngle=180 / flip, **facts) for flip in (1, 2)]
    assert collect(root, "01", "01").sodium[0].tb1dam == (swapped[1], swapped[0])
    _fmap(root, "flip-2_TB1DAM", FlipAngle=100, **facts)
    with pytest.raises(InputError, match="100 and 180 degrees, not one twice the other"):
        collect(root, "01", "01")
    _fmap(root, "flip-2_TB1DAM", ResonantNucleus="23Na")
    with pytest.raises(InputError, match="no FlipAngle"):
        collect(root, "01", "01")


def test_raw_data_of_the_scanner_are_no_hindrance_where_images_are_wanted(root):
    study.put_kspace(root, KSPACE.replace(".h5", ".dat"))
    assert collect(root, "01", "01", source="image").sodium[0].runs[0].kspace == ()
    with pytest.raises(InputError, match="no twix file"):
        collect(root, "01", "01")


def test_half_a_receive_pair_is_not_used(root):
    _fmap(root, "acq-head_RB1COR", ResonantNucleus="23Na")
    inputs = collect(root, "01", "01")
    assert inputs.sodium[0].receive_pair is None
    assert "partner" in inputs.warnings[0]


@pytest.mark.parametrize("head", [{"matrix": study.affine() + 0.02 * np.eye(4, k=3)}, {"data": study.noise()[1:]}])
def test_a_receive_pair_on_two_grids_is_refused(root, head):
    _fmap(root, "acq-body_RB1COR", ResonantNucleus="23Na")
    path = _fmap(root, "acq-head_RB1COR", ResonantNucleus="23Na")
    assert collect(root, "01", "01").sodium[0].receive_pair
    study.put_image(path, **head)
    with pytest.raises(InputError, match=r"acq-head_RB1COR\.nii\.gz: lies on another grid than its partner .*acq-body"):
        collect(root, "01", "01")
    assert collect(root, "01", "01", filters={"receive": {"acquisition": "body"}}).sodium[0].receive_pair is None


def test_proton_image_by_preference(root):
    folder = root / "sub-01/ses-01/anat"
    for suffix in ("FLAIR", "T2starw", "PDw", "T2w", "UNIT1"):
        study.put_image(folder / f"sub-01_ses-01_{suffix}.nii.gz")
    assert collect(root, "01", "01", anat_contrast="T2w").anat.contrast == "T2w"
    for contrast in ("T1w", "UNIT1", "T2w", "PDw", "T2starw", "FLAIR"):
        inputs = collect(root, "01", "01")
        assert inputs.anat.contrast == contrast
        assert len(inputs.warnings) == (contrast != "T1w")
        inputs.anat.path.unlink()
    study.put_image(folder / "sub-01_ses-01_part-phase_T1w.nii.gz")
    study.put_image(folder / "sub-01_ses-01_acq-p_T1w.nii.gz")
    study.put_json(folder / "sub-01_ses-01_acq-p_T1w.json", {"ResonantNucleus": "31P"})
    with pytest.raises(InputError, match="no proton image"):
        collect(root, "01", "01")


def test_filter_file_chooses(root, tmp_path):
    study.put_sodium(root, SODIUM.replace("_PDw", "_rec-norm_PDw"))
    study.put_image(root / T1W.replace("_T1w", "_run-2_T1w"))
    (root / "sub-01/ses-02/anat").mkdir(parents=True)
    study.put_sodium(root, SODIUM.replace("ses-01", "ses-02"))
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"t1w": {"run": "*", "session": "01"}, "sodium": {"reconstruction": None}, "bold": {}}))
    filters = load_filters(path)
    for session in ("01", "02"):
        inputs = collect(root, "01", session, filters=filters)
        assert inputs.anat.path.name == "sub-01_ses-01_run-2_T1w.nii.gz"
        assert inputs.sodium[0].runs[0].files[0].path.name == f"sub-01_ses-{session}_acq-sodium_PDw.nii.gz"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "form"),
        ('{"T1": {}}', "'T1' is not a query"),
        ('{"t1w": {"acq": "a"}}', "not an entity"),
        ('{"t1w": {"run": {}}}', "value"),
    ],
)
def test_a_bad_filter_file_is_a_usage_error(content, problem, tmp_path):
    path = tmp_path / "filter.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=problem):
        load_filters(path)


@pytest.mark.parametrize(
    ("found", "value", "expected"),
    [
        ("01", 1, True),
        ("1", "01", True),
        ("a", "a", True),
        ("a", ["b", "a"], True),
        ("a", "A", False),
        ("a", None, False),
        (None, None, True),
        (None, "*", False),
        ("a", "*", True),
        (None, ["a", None], True),
        ("10", 1, False),
    ],
)
def test_filter_values(found, value, expected):
    assert matches({"run": found} if found else {}, {"run": value}) is expected


def _derivative(root, name, data=None, matrix=None):
    return study.put_image(root / f"sub-01/anat/sub-01_{name}.nii.gz", data, matrix)


def test_derivatives_are_used(root, tmp_path):
    first, second = tmp_path / "fmriprep", tmp_path / "other"
    t1w, mask = _derivative(first, "desc-preproc_T1w"), _derivative(first, "desc-brain_mask")
    tissues = {tissue: _derivative(first, f"label-{tissue}_probseg") for tissue in ("CSF", "GM", "WM")}
    parcels = np.where(study.noise() > 100, 1005, 17).astype(np.int32)
    labels, aparc = _derivative(first, "dseg"), _derivative(first, "desc-aparcaseg_dseg", parcels)
    _derivative(first, "space-MNI152NLin6Asym_desc-preproc_T1w", study.noise((9, 9, 9)))
    _derivative(second, "desc-brain_mask")
    xfm = second / "sub-01/ses-01/anat/sub-01_ses-01_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt"
    xfm.parent.mkdir(parents=True)
    xfm.write_text("#Insight Transform File V1.0\n")
    warp = first / "sub-01/anat/sub-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5"
    warp.write_bytes(b"x")
    derivatives = parse_derivatives([f"fmriprep={first}", str(second)])
    inputs = collect(root, "01", "01", derivatives=derivatives)
    found = inputs.precomputed
    assert list(derivatives) == ["fmriprep", "other"]
    assert (inputs.anat.path, inputs.anat.derivative) == (t1w, "fmriprep")
    assert (found.brain_mask, found.dseg, found.aparcaseg, found.probsegs) == (mask, labels, aparc, tissues)
    assert found.sodium_to_t1w == {"sodium": xfm}
    assert found.template_xfms == {("T1w", "MNI152NLin6Asym"): warp}
    assert found.origin[xfm] == "other"
    assert "was found first" in inputs.warnings[0]


def test_derivatives_on_another_grid_are_refused(root, tmp_path):
    moved = study.affine()
    moved[0, 3] += 0.1
    _derivative(tmp_path / "d", "desc-brain_mask", matrix=moved)
    with pytest.raises(InputError, match="does not lie on the grid"):
        collect(root, "01", "01", derivatives={"d": tmp_path / "d"})
    _derivative(tmp_path / "d", "desc-brain_mask", study.noise((9, 9, 9)))
    with pytest.raises(InputError, match="does not lie on the grid"):
        collect(root, "01", "01", derivatives={"d": tmp_path / "d"})


def test_only_the_participant_asked_for_is_opened(root):
    (root / "sub-02/anat").mkdir(parents=True)
    (root / "sub-02/anat/sub-02_T1w.json").write_text("{")
    (root / "sub-02/anat/sub-02_T1w.nii.gz").symlink_to("nowhere")
    (root / "derivatives/x").mkdir(parents=True)
    (root / "derivatives/x/dataset_description.json").write_text("{")
    inputs = collect(root, "01", "01")
    np.testing.assert_allclose(inputs.anat.image.affine, study.affine())


def test_a_mask_gives_a_vial_its_place_and_size(root):
    grid = np.moveaxis(np.indices((70, 70, 100)), 0, -1)
    tube = (np.hypot(*(grid[..., :2] - [40.0, 36.0]).T).T < 9.0) & (np.abs(grid[..., 2] - 60.0) < 30.0)
    vials = [
        vial | {"Mask": f"bids::sub-01/ses-01/anat/{vial['Label']}.nii.gz"}
        for vial in study.SIDECAR["SodiumReferences"]
    ]
    for vial in vials:
        vial.pop("CentreRAS", None), vial.pop("Radius", None)
        matrix = np.eye(4)
        matrix[:3, 3] = [-20.0, -10.0, -30.0]
        study.put_image(root / vial["Mask"].removeprefix("bids::"), tube.astype(np.uint8), matrix)
    study.put_sodium(root, SodiumReferences=vials)
    for reference in collect(root, "01", "01").sodium[0].runs[0].sidecar.references:
        assert reference.centre_ras_mm == pytest.approx((20.0, 26.0, 30.0), abs=0.3)
        assert reference.radius_mm == pytest.approx(9.0, abs=0.2)
        assert reference.length_mm == pytest.approx(60.0, abs=2.0)
        assert np.abs(reference.axis) == pytest.approx((0.0, 0.0, 1.0), abs=0.01)
    path = root / vials[0]["Mask"].removeprefix("bids::")
    study.put_image(path, (np.roll(tube, 30, axis=1) | tube).astype(np.uint8), matrix)
    with pytest.raises(InputError, match="ball or cylinder"):
        collect(root, "01", "01")
    study.put_image(path, 2 * tube.astype(np.uint8), matrix)
    with pytest.raises(InputError, match="0 and 1"):
        collect(root, "01", "01")
