"""Output names, writers, the derivative data set, the folders and the status file."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sodium_prep.bids import outputs, writers
from sodium_prep.bids.filters import parse_entities
from sodium_prep.bids.images import load_checked
from sodium_prep.bids.layout import check_directories
from sodium_prep.bids.outputs import OutputNames, bids_uri, build_path, dataset_description, derivative_sidecar
from sodium_prep.bids.status import SessionStatus, overall_exit_code, read_status, write_status
from sodium_prep.errors import ExitCode, InputError, ResourceError, UsageError
from tests.bids import study

NAMES = OutputNames(Path("/out"), "01", "01")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (NAMES.preproc_anat(), "anat/sub-01_ses-01_desc-preproc_T1w.nii.gz"),
        (NAMES.brain_mask(), "anat/sub-01_ses-01_desc-brain_mask.nii.gz"),
        (NAMES.dseg(), "anat/sub-01_ses-01_dseg.nii.gz"),
        (NAMES.probseg("GM"), "anat/sub-01_ses-01_label-GM_probseg.nii.gz"),
        (NAMES.template_xfm("T1w", "MNI"), "anat/sub-01_ses-01_from-T1w_to-MNI_mode-image_xfm.h5"),
        (NAMES.sodium_xfm("sodium"), "anat/sub-01_ses-01_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt"),
        (
            NAMES.sodium_image("sodium", "1", "sense"),
            "anat/sub-01_ses-01_acq-sodium_rec-sense_run-1_desc-preproc_PDw.nii.gz",
        ),
        (NAMES.tsc_map("sodium"), "anat/sub-01_ses-01_acq-sodium_TSCmap.nii.gz"),
        (NAMES.tsc_map("sodium", stat="stderr"), "anat/sub-01_ses-01_acq-sodium_stat-stderr_TSCmap.nii.gz"),
        (
            NAMES.tsc_map("sodium", "2", space="T1w", desc="gtm"),
            "anat/sub-01_ses-01_acq-sodium_run-2_space-T1w_desc-gtm_TSCmap.nii.gz",
        ),
        (NAMES.calibration("sodium"), "anat/sub-01_ses-01_acq-sodium_desc-references_calibration.tsv"),
        (NAMES.table("sodium", None, "dk", ".json"), "anat/sub-01_ses-01_acq-sodium_seg-dk_tsc.json"),
    ],
)
def test_names_are_those_of_the_design(path, expected):
    assert path == Path("/out/sub-01/ses-01") / expected


def test_names_without_session_and_of_another_anatomy():
    names = OutputNames(Path("/out"), "01", anat_entities={"acq": "gre"})
    assert names.preproc_anat("PDw") == Path("/out/sub-01/anat/sub-01_acq-gre_desc-preproc_PDw.nii.gz")
    assert names.report() == Path("/out/sub-01.html")
    assert NAMES.figure("registration", "PDw") == Path("/out/sub-01/figures/sub-01_ses-01_desc-registration_PDw.svg")
    assert outputs.json_beside(NAMES.tsc_map("sodium")).name == "sub-01_ses-01_acq-sodium_TSCmap.json"


_LABEL = st.from_regex(r"[A-Za-z0-9]{1,8}", fullmatch=True)


@settings(deadline=None)
@given(
    sub=_LABEL,
    ses=st.none() | _LABEL,
    entities=st.dictionaries(st.sampled_from(["acquisition", "reconstruction", "space", "desc", "label"]), _LABEL),
)
def test_names_read_back_as_they_were_built(sub, ses, entities):
    path = build_path(Path("/out"), sub, ses, "anat", "PDw", ".nii.gz", **entities)
    expected = entities | {"subject": sub, "suffix": "PDw", "extension": ".nii.gz", "datatype": "anat"}
    assert parse_entities(path, Path("/out")) == expected | ({"session": ses} if ses else {})


@pytest.mark.parametrize("entities", [{"acq": "a/b"}, {"acq": "a_b"}, {"desc": ".."}, {"unknown": "a"}, {"acq": ""}])
def test_names_that_are_not_bids_cannot_be_built(entities):
    with pytest.raises(ValueError, match=r"BIDS label|entities"):
        build_path(Path("/out"), "01", None, "anat", "PDw", ".nii.gz", **entities)


def test_image_round_trip_is_exact_and_repeats(tmp_path):
    data, matrix = study.noise(), study.affine(3.0)
    first = writers.write_nifti(tmp_path / "a/one.nii.gz", data, matrix)
    second = writers.write_nifti(tmp_path / "other name.nii.gz", data.astype(float), matrix)
    assert first.read_bytes() == second.read_bytes()
    loaded, affine = load_checked(first)
    np.testing.assert_array_equal(loaded, data)
    np.testing.assert_allclose(affine, matrix)
    header = nib.load(first).header
    assert (int(header["sform_code"]), int(header["qform_code"]), header.get_xyzt_units()[0]) == (1, 1, "mm")
    labels = writers.write_nifti(tmp_path / "l.nii.gz", np.full((4, 4, 4), 70000), matrix, writers.TEMPLATE_SPACE)
    assert nib.load(labels).get_data_dtype() == np.int32
    assert int(nib.load(labels).header["sform_code"]) == 4
    with pytest.raises(ValueError, match="32 bits"):
        writers.write_nifti(labels, np.full((4, 4, 4), 2**40), matrix)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(RuntimeError("bug"), RuntimeError), (OSError(errno.ENOSPC, "No space left on device"), ResourceError)],
)
def test_a_writer_that_fails_midway_leaves_nothing(error, expected, tmp_path):
    path = writers.write_text(tmp_path / "old.txt", "old")

    def write(stream):
        stream.write(b"half")
        raise error

    for target in (path, tmp_path / "new.txt"):
        with pytest.raises(expected):
            writers.write_bytes(target, write)
    assert [child.name for child in tmp_path.iterdir()] == ["old.txt"]
    assert path.read_text() == "old"


def test_table_cells(tmp_path):
    row = {"a": 1 / 3, "b": np.float32(np.nan), "c": None, "d": "=cmd()", "e": "-5.5", "f": "x\ty\n"}
    row |= {"g": np.int64(7), "h": np.bool_(True), "i": "<b>ü", "j": "", "k": -1234567.0, "l": "@a", "m": np.inf}
    text = writers.write_tsv(tmp_path / "t.tsv", [row], list(row)).read_text("utf-8")
    cells = ["0.333333", "n/a", "n/a", "'=cmd()", "-5.5", "x y", "7", "true", "<b>ü", "n/a", "-1.23457e+06", "'@a"]
    assert text.splitlines()[1].split("\t") == [*cells, "n/a"]
    with pytest.raises(ValueError, match="not announced"):
        writers.write_tsv(tmp_path / "t.tsv", [{"z": 1}], ["a"])


def test_json_is_plain(tmp_path):
    content = {"a": np.arange(2), "b": np.float64("nan"), "c": Path("x"), "d": (np.int32(1),), "e": {1: "ü"}}
    path = writers.write_json(tmp_path / "t.json", content)
    assert json.loads(path.read_text("utf-8")) == {"a": [0, 1], "b": None, "c": "x", "d": [1], "e": {"1": "ü"}}


def test_uris(tmp_path):
    datasets = {"": tmp_path / "raw/derivatives/out", "raw": tmp_path / "raw"}
    assert bids_uri(tmp_path / "raw/sub-01/a b.nii.gz", datasets) == "bids:raw:sub-01/a%20b.nii.gz"
    assert bids_uri(tmp_path / "raw/derivatives/out/sub-01/a.tsv", datasets) == "bids::sub-01/a.tsv"
    with pytest.raises(ValueError, match="none of the data sets"):
        bids_uri(Path("/elsewhere/x"), datasets)


def _whole_output(out: Path, raw: Path) -> None:
    """Every name of the design, with the sidecars that the helper makes."""
    dataset_description(out, raw, {"fmriprep": raw / "derivatives/fmriprep"}, {"Type": "apptainer", "Tag": "1"})
    names = OutputNames(out, "01", "01")
    source = [bids_uri(raw / study.SODIUM, {"raw": raw, "": out})]
    t1w = bids_uri(names.preproc_anat(), {"": out})
    head = [names.preproc_anat(), names.sodium_image("sodium", "1", "sense")]
    maps = [names.tsc_map("sodium"), names.tsc_map("sodium", stat="stderr"), names.tsc_map("sodium", space="T1w")]
    labels = [names.brain_mask(), names.dseg(), *(names.probseg(tissue) for tissue in ("GM", "WM", "CSF"))]
    echoes = [names.echo_map("sodium", "T2starmap", which, "cilow", "1") for which in ("all", "fast", "slow")]
    echoes += [names.echo_map("sodium", suffix, "fast", "value") for suffix in ("fractionmap", "fitflags", "T2starmap")]
    head += [names.echo_map("sodium", "T2starw", "difference", "value"), *echoes]
    for path in (*head, *maps, *labels, names.atlas_dseg("dk")):
        writers.write_nifti(path, np.zeros((8, 8, 8), np.int16 if "seg" in path.name else np.float32), study.affine())
        in_t1w = "space-T1w" in path.name
        sidecar = derivative_sidecar(
            description="A test",
            sources=source,
            units="mmol/L" if path in maps else None,
            space="T1w" if in_t1w else None,
            spatial_reference=t1w if in_t1w else None,
            skull_stripped=False if path in head else None,
            extra={"Type": "Brain"} if path.name.endswith("mask.nii.gz") else None,
        )
        writers.write_json(outputs.json_beside(path), sidecar)
    for extension in (".tsv", ".json"):
        relative = names.path("relative", extension, acq="sodium", seg="dk")
        for path in (
            relative,
            names.calibration("sodium", extension=extension),
            names.table("sodium", None, "dk", extension),
        ):
            if extension == ".tsv":
                writers.write_tsv(path, [{"index": 1}], ["index"])
            else:
                writers.write_json(path, {"index": {"Description": "Label"}})
    writers.write_text(names.sodium_xfm("sodium"), "#Insight Transform File V1.0\n")
    writers.write_text(names.template_xfm("T1w", "MNI152NLin6Asym"), "x")
    writers.write_text(names.figure("registration", "PDw"), "<svg/>")
    for name in ("sub-01.html", "group.html", "logs/CITATION.md", "group/group_tsc.tsv"):
        writers.write_text(out / name, "x")
    write_status(out, [SessionStatus("01", "01", "done", 0)])


def test_validator_accepts_the_output(tmp_path):
    validator = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    raw = study.make_study(tmp_path / "raw")
    out = tmp_path / "out"
    _whole_output(out, raw)
    done = subprocess.run([validator, "--json", out], capture_output=True, text=True, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_output_links_move_with_the_data(tmp_path):
    raw = study.make_study(tmp_path / "raw")
    out = raw / "derivatives/sodium_prep"
    description = json.loads(dataset_description(out, raw).read_text())
    assert description["DatasetLinks"] == {"raw": "../.."}
    assert description["GeneratedBy"][0]["Name"] == "sodium_prep"


def test_folders(tmp_path):
    raw = study.make_study(tmp_path / "raw")
    work = tmp_path / "work/nested"
    check_directories(raw, tmp_path / "out", work)
    check_directories(raw, raw / "derivatives/sodium_prep", work)
    assert work.stat().st_mode & 0o777 == 0o700
    work.chmod(0o777)
    with pytest.raises(UsageError, match="chmod o-w"):
        check_directories(raw, tmp_path / "out", work)


@pytest.mark.parametrize("name", [".", "sub-01", "sourcedata/out", "derivatives", "derivatives/../out", "link/x"])
def test_output_inside_input_is_refused_before_anything_is_made(name, tmp_path):
    raw = study.make_study(tmp_path / "raw")
    (tmp_path / "raw/link").symlink_to(raw / "sub-01")
    before = sorted(raw.rglob("*"))
    with pytest.raises(UsageError, match=r"input|derivatives"):
        check_directories(raw, raw / name)
    with pytest.raises(UsageError, match="inside the input"):
        check_directories(raw, tmp_path / "out", raw / name)
    assert sorted(raw.rglob("*")) == before


def test_folders_that_cannot_serve(tmp_path, monkeypatch):
    raw = study.make_study(tmp_path / "raw")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        check_directories(raw, tmp_path / "file/out")
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(UsageError, match="line break"):
        check_directories(raw, tmp_path / "a\nb")
    with pytest.raises(InputError, match="does not exist"):
        check_directories(tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="no dataset_description"):
        check_directories(raw / "sub-01", tmp_path / "out")
    (tmp_path / "work").mkdir(0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(UsageError, match="belongs to another user"):
        check_directories(raw, tmp_path / "out", tmp_path / "work")


def test_status_is_merged(tmp_path):
    bad = SessionStatus("02", None, "refused", 3, "sub-02: no sodium image. Add one.", warnings=("careful",))
    write_status(tmp_path, [SessionStatus("01", "01", "failed", 1), bad])
    write_status(tmp_path, [SessionStatus("01", "01", "done", 0, outputs=7)], settings={"nprocs": 2})
    content = json.loads((tmp_path / "logs/status.json").read_text())
    assert (content["exit_code"], content["settings"], list(content["sessions"])) == (
        0,
        {"nprocs": 2},
        ["sub-01_ses-01", "sub-02"],
    )
    assert read_status(tmp_path)["sub-02"] == bad
    assert read_status(tmp_path)["sub-01_ses-01"].outputs == 7
    (tmp_path / "logs/status.json").write_text("{")
    assert read_status(tmp_path) == {}


@pytest.mark.parametrize(
    ("states", "expected"),
    [(["done", "done"], 0), (["refused", "refused"], 3), (["done", "refused"], 4), (["refused", "failed"], 4)],
)
def test_exit_code_of_a_run(states, expected):
    assert overall_exit_code([SessionStatus("01", None, state, 0) for state in states]) == expected


def _write_one(out: Path, label: str) -> None:
    write_status(out, [SessionStatus(label, None, "done", 0)])


def test_parallel_runs_lose_no_status(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_one, args=(tmp_path, f"{number:02}")) for number in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(read_status(tmp_path)) == 12
