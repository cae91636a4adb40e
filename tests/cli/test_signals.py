"""A run that is ended, or a step that is killed, leaves nothing half done and no process behind."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.cli import study

LIMIT_S = 60.0
STEP = "sodium_prep.sub_02_wf.sodium_PDw_wf.quantify"


def _processes() -> dict[int, int]:
    """Parents of all processes that still run."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    return parents


def _family(pid: int) -> set[int]:
    parents = _processes()
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _wait_for(find):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def _step_process(run, log_file):
    """Process of the run that prints into a file."""
    for pid in _family(run.pid):
        try:
            if Path(f"/proc/{pid}/fd/1").readlink() == log_file:
                return pid
        except OSError:
            continue
    return None


@pytest.fixture
def running(root, tmp_path):
    """A run of participants 01, who is done, and 02, whose quantification goes on; and the process of that step."""
    work = root / "work"
    shutil.rmtree(work / STEP.replace(".", "/"), ignore_errors=True)
    arguments = study.options(root, tmp_path, "--participant-label", "01", "02")
    with study.start(arguments) as run:
        try:
            yield run, _wait_for(lambda: _step_process(run, work / "log" / f"{STEP}.log"))
        finally:
            run.kill()


def _half_written(folder):
    return [path for path in folder.rglob(".*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize(("number", "said"), [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "interrupted")])
def test_signal_ends_the_run_and_all_its_processes(number, said, running, root, tmp_path):
    run, _ = running
    family = _family(run.pid)
    assert len(family) >= 3, "the run, its server and a step"
    run.send_signal(number)
    _, err = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 128 + number
    assert said in err
    assert "the same command goes on where it stopped" in err
    assert "Traceback" not in err
    _wait_for(lambda: not family & _processes().keys())
    assert _half_written(tmp_path) == []
    assert not list(tmp_path.rglob("sub-02*TSCmap*"))
    status = study.read_status(tmp_path)
    assert status["exit_code"] == 128 + number
    assert status["sessions"]["sub-02"].items() >= {"state": "failed", "exit_code": 128 + number}.items()


def test_killed_step_costs_its_participant_only(running, root, tmp_path):
    run, step = running
    os.kill(step, signal.SIGKILL)
    _, err = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 5
    assert f"worker running {STEP} was killed by SIGKILL (out of memory?)" in err
    assert "Give the run more memory" in err
    status = study.read_status(tmp_path)
    assert status["exit_code"] == 5
    assert status["sessions"]["sub-01"]["state"] == "done"
    assert status["sessions"]["sub-02"].items() >= {"state": "failed", "exit_code": 5}.items()
    assert study.files_below(tmp_path / "sub-01") == study.files_below(root / "out" / "sub-01")


def test_run_goes_on_after_a_kill(running, root, tmp_path):
    run, _ = running
    family = _family(run.pid)
    run.kill()
    run.wait()
    _wait_for(lambda: not family & _processes().keys())
    outcome = study.run_here(study.options(root, tmp_path, "--participant-label", "01", "02"))
    assert outcome.code == 0, outcome.err
    assert STEP.removeprefix("sodium_prep.") in outcome.executed
    assert not any("anatomy_wf" in step for step in outcome.executed), "what was done is not done again"
    assert _half_written(tmp_path) == []
    assert (tmp_path / study.TABLE.format("02")).is_file()


@pytest.mark.parametrize("work", ["work that is done", "work to do"])
def test_full_disk(work, root, tmp_path):
    """Files may not grow beyond a size that the log stays below and an image does not."""
    arguments = study.options(root, tmp_path / "out", "--participant-label", "01")
    arguments += ["-w", str(tmp_path / "work")] if work == "work to do" else []
    limit = (30_000, 30_000)
    with study.start(arguments, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)) as run:
        out, err = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 5
    assert "File too large" in err
    assert "Make room on the disk" in err
    assert "Traceback" not in err
    assert "0 of 1 session(s) finished" in out
    assert "nothing to do" not in out
    assert _half_written(tmp_path) == []
    assert not list(tmp_path.glob("out/sub-01/**/*.nii.gz"))
    status = study.read_status(tmp_path / "out")
    assert status["sessions"]["sub-01"].items() >= {"state": "failed", "exit_code": 5}.items()


def test_place_that_cannot_be_written(root, tmp_path):
    (tmp_path / "sub-01").write_text("in the way")
    outcome = study.run_here(study.options(root, tmp_path, "--participant-label", "01"))
    assert outcome.code == 5
    assert "cannot be written" in outcome.err
    assert study.read_status(tmp_path)["exit_code"] == 5
