"""What cannot be used is refused by name, writes nothing, and leaves the others done."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest

from tests.cli import study
from tests.cli.study import SIDECAR, SODIUM, T1W

MASK = "derivatives/sub-{0}/anat/sub-{0}_desc-brain_mask.nii.gz"


def _json(**changes):
    """Change keys of the sidecar; None takes one away."""

    def spoil(path):
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return spoil


def _vials(change):
    def spoil(path):
        content = json.loads(path.read_text())
        for vial in content["SodiumReferences"]:
            change(vial)
        path.write_text(json.dumps(content))

    return spoil


def _remove(path):
    path.unlink()


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-4000])


def _flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _move_grid(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[292:296] = b"\0\0\x80?"  # the last cell of the first row of the sform
    path.write_bytes(gzip.compress(bytes(content)))


RAW_SODIUM, RAW_SIDECAR, RAW_T1W = (f"raw/{name}" for name in (SODIUM, SIDECAR, T1W))

FAULTS = {  # file to spoil, how, the file that the message names, what is wrong with it, how to mend it
    "no sodium image": (RAW_SODIUM, _remove, "raw/sub-02", "has no sodium image", "ResonantNucleus"),
    "no proton image": (RAW_T1W, _remove, "raw/sub-02", "has no proton image", "Add a T1w"),
    "no sidecar": (RAW_SIDECAR, _remove, RAW_SODIUM, "has no JSON sidecar", '"ResonantNucleus": "23Na"'),
    "wrong nucleus": (RAW_SIDECAR, _json(ResonantNucleus="1H"), RAW_SODIUM, "ResonantNucleus '1H'", "23Na"),
    "missing key": (RAW_SIDECAR, _json(FlipAngle=None), RAW_SIDECAR, "FlipAngle is missing", "--protocol"),
    "echo time in ms": (RAW_SIDECAR, _json(EchoTime=0.5), RAW_SIDECAR, "EchoTime is 0.5", "milliseconds?"),
    "repetition time in ms": (RAW_SIDECAR, _json(RepetitionTime=300), RAW_SIDECAR, "Time is 300", "milliseconds?"),
    "vial outside the image": (
        RAW_SIDECAR,
        _vials(lambda vial: vial.update(CentreRAS=[400.0, 0.0, 0.0])),
        RAW_SODIUM,
        "lies outside the image",
        "scanner millimetres",
    ),
    "one concentration": (
        RAW_SIDECAR,
        _vials(lambda vial: vial.update(Concentration=50.0)),
        RAW_SODIUM,
        "one distinct concentration only (50 mmol/L)",
        "at least two different vials",
    ),
    "unreadable gzip": (RAW_SODIUM, _truncate, RAW_SODIUM, "ends too early", "Copy the file again"),
    "flipped bit": (RAW_T1W, _flip_bit, RAW_T1W, "is damaged", "Copy the file again"),
    "malformed JSON": (RAW_SIDECAR, lambda path: path.write_text("{"), RAW_SIDECAR, "not valid JSON", "at that place"),
    "derivative of another grid": (MASK, _move_grid, MASK, "does not lie on the grid", "resample them"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_refuses_its_participant_only(fault, root, tmp_path):
    file, spoil, named, problem, mend = FAULTS[fault]
    path = root / file.format("02")
    with study.changed(path):
        spoil(path)
        outcome = study.run_here(study.options(root, tmp_path, "--participant-label", "01", "02"))

    assert outcome.code == 4
    line = next(line for line in outcome.err.splitlines() if "sub-02" in line and problem in line)
    assert line.startswith(f"sodium-prep: sub-02: {root / named.format('02')}")
    assert mend in line
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.glob("sub-02*"))
    assert study.files_below(tmp_path / "sub-01") == study.files_below(root / "out" / "sub-01")

    status = study.read_status(tmp_path)
    assert status["exit_code"] == 4
    assert status["sessions"]["sub-01"].items() >= {"state": "done", "exit_code": 0, "message": ""}.items()
    assert status["sessions"]["sub-01"]["outputs"] == len(study.files_below(tmp_path / "sub-01"))
    refusal = {"state": "refused", "exit_code": 3, "message": line.removeprefix("sodium-prep: sub-02: "), "outputs": 0}
    assert status["sessions"]["sub-02"].items() >= refusal.items()


def test_no_usable_participant_is_refused_before_work(root, tmp_path):
    path = root / RAW_SODIUM.format("02")
    with study.changed(path):
        _truncate(path)
        outcome = study.run_here(study.options(root, tmp_path, "--participant-label", "02"))
    assert outcome.code == 3
    assert outcome.executed == []
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}
    assert study.read_status(tmp_path)["exit_code"] == 3


def test_fault_met_in_a_step_fails_its_participant_only(root, tmp_path):
    """Vials labelled the wrong way round: nothing is wrong with any one file."""
    path = root / RAW_SIDECAR.format("02")
    with study.changed(path):
        _vials(lambda vial: vial.update(Concentration=130.0 - vial["Concentration"]))(path)
        outcome = study.run_here(
            study.options(root, tmp_path, "--participant-label", "01", "02", "--reference", "vials")
        )
    status = study.read_status(tmp_path)["sessions"]
    assert outcome.code == 4
    assert [status[key]["state"] for key in ("sub-01", "sub-02")] == ["done", "failed"]
    assert "slope" in status["sub-02"]["message"]
    assert status["sub-02"]["message"] in outcome.err
    assert not list(tmp_path.rglob("sub-02*TSCmap*")) + list(tmp_path.rglob("sub-02*_tsc.*"))
    assert "slope" in (tmp_path / "sub-02.html").read_text()


def _twice(raw):
    (raw / "participants.tsv").write_text("participant_id\nsub-01\nsub-01\n")


WHOLE_RUN = {  # how to spoil the data set, further options, exit code, what is said
    "no description": (lambda raw: (raw / "dataset_description.json").unlink(), [], 3, "no dataset_description.json"),
    "participants listed twice": (_twice, [], 3, "lists 01 more than once"),
    "no such participant": (None, ["--participant-label", "99"], 3, "has no participant 99"),
    "no such session": (None, ["--session-label", "9"], 3, "has no session 9"),
    "no such derivatives": (None, ["-d", "x=/no/such/folder"], 2, "x=/no/such/folder: is not a folder"),
    "no such atlas": (None, ["--atlas", "aal"], 2, "there is no atlas 'aal'"),
    "no such atlas file": (None, ["--atlas", "/no/aal.nii.gz"], 3, "/no/aal.nii.gz: does not exist"),
    "no such protocol": (None, ["--protocol", "/no/such.toml"], 3, "/no/such.toml: does not exist"),
    "no such filter": (None, ["--bids-filter-file", "/no/such.json"], 2, "/no/such.json: cannot be read"),
    "unknown option": (None, ["--denoise"], 2, "unrecognized arguments: --denoise"),
}


@pytest.fixture
def copy(root, tmp_path):
    """The study without results and without cached steps."""
    for name in ("raw", "derivatives"):
        shutil.copytree(root / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("fault", WHOLE_RUN)
def test_fault_of_the_whole_run(fault, copy):
    spoil, extra, code, problem = WHOLE_RUN[fault]
    if spoil:
        spoil(copy / "raw")
    outcome = study.run_here(study.options(copy, copy / "out", *extra))
    assert outcome.code == code
    assert problem in outcome.err
    assert outcome.executed == []
    assert not list(copy.glob("out/sub-*"))
    if (copy / "out" / "logs").exists():
        assert study.read_status(copy / "out")["exit_code"] == code


@pytest.mark.parametrize("place", ["raw/out", "raw", "raw/sub-01/out", "raw/derivatives"])
@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_output_inside_input(place, extra, copy):
    before = study.files_below(copy)
    outcome = study.run_here(study.options(copy, copy / place, *extra))
    assert outcome.code == 2
    assert f"sodium-prep: output_dir: {copy / place}" in outcome.err
    assert f"{copy / 'raw' / 'derivatives' / 'sodium_prep'}" in outcome.err
    assert study.files_below(copy) == before


def test_output_that_is_a_file(copy):
    (copy / "out").write_text("")
    outcome = study.run_here(study.options(copy, copy / "out"))
    assert outcome.code == 2
    assert "cannot be written (File exists). Choose a folder in which you may write." in outcome.err


def test_data_set_with_errors_is_refused(copy):
    (copy / "raw" / "sub-01" / "anat" / "notes.docx").write_text("")
    arguments = [text for text in study.options(copy, copy / "out") if text != "--skip-bids-validation"]
    outcome = study.run_here(arguments)
    assert outcome.code == 3
    assert "is not a valid BIDS data set: " in outcome.err
    assert "NOT_INCLUDED" in outcome.err
    assert "--skip-bids-validation" in outcome.err


def test_dry_run_writes_nothing(copy, monkeypatch):
    (copy / "here").mkdir()
    monkeypatch.chdir(copy / "here")
    (copy / "raw" / SIDECAR.format("03")).unlink()
    before = study.files_below(copy)
    outcome = study.run_here(study.options(copy, copy / "out", "--dry-run"))
    assert outcome.code == 0
    assert "2 session(s) would be processed, 1 refused." in outcome.out
    assert T1W.format("01") in outcome.out
    assert study.files_below(copy) == before
    assert not (copy / "out").exists()
    assert not (copy / "work").exists()
