"""A second run does what is needed and nothing else, and says so."""

from __future__ import annotations

import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from sodium_prep import __version__
from sodium_prep.atlas.bundled import load_template
from sodium_prep.cli.parser import parse_args
from sodium_prep.cli.participant import collect_sessions
from sodium_prep.interfaces.base import Step
from sodium_prep.workflows.participant import init_participants_wf
from tests.cli import study
from tests.cli.study import SIDECAR, SODIUM, T1W, TABLE

ANATOMY = {"anatomy_wf.conform", "anatomy_wf.head", "anatomy_wf.labels", "save_anatomy"}
QUANTITATIVE = {"sodium_PDw_wf.quantify", "sodium_PDw_wf.report", "save_sodium_PDw_wf"}


def _bare(steps):
    """Steps that do something, without the name of the participant; the others only pass values on."""
    return {step.partition(".")[2] for step in steps if not step.endswith(("_chain", ".reports"))}


def _again(root, *extra):
    return study.run_here(study.options(root, root / "out", "--participant-label", "01", *extra))


@pytest.fixture
def finished(root):
    """The study, when the last run with its work folder was that of participant 01 into ``out``."""
    assert _again(root).code == 0
    return root


def _times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_second_run_has_nothing_to_do(finished):
    root = finished
    before = _times(root / "out" / "sub-01")
    for name in (SODIUM, SIDECAR, T1W):  # a new time alone is no change
        os.utime(root / "raw" / name.format("01"))
    left_by_a_kill = root / "out" / "sub-01" / "anat" / ".sub-01_dseg.nii.gz.123.tmp"
    left_by_a_kill.write_text("half")
    logs = len(list((root / "out" / "logs").glob("*.log")))
    outcome = _again(root, "--nprocs", "1", "--mem", "3G")
    assert outcome.code == 0
    assert outcome.executed == []
    assert (
        f"1 of 1 session(s) finished (nothing to do: all {len(outcome.unchanged)} steps are up to date)." in outcome.out
    )
    assert _times(root / "out" / "sub-01") == before
    assert len(list((root / "out" / "logs").glob("*.log"))) == logs + 1, "each run has a log of its own"
    assert study.read_status(root / "out")["sessions"]["sub-01"]["state"] == "done"


@pytest.mark.parametrize(
    ("lose", "saved"),
    [
        (lambda out: shutil.rmtree(out), {"save_anatomy", "save_sodium_PDw_wf"}),
        (lambda out: (out / TABLE.format("01")).unlink(), {"save_sodium_PDw_wf"}),
        (lambda out: os.truncate(out / TABLE.format("01"), 100), {"save_sodium_PDw_wf"}),
    ],
    ids=["all", "a table", "a part of a table"],
)
def test_lost_outputs_are_written_again(lose, saved, finished):
    root = finished
    before = study.files_below(root / "out" / "sub-01")
    lose(root / "out")
    outcome = _again(root)
    assert outcome.code == 0
    assert set(outcome.executed) == {f"sub_01_wf.{name}" for name in saved}
    assert study.files_below(root / "out" / "sub-01") == before
    assert _again(root).executed == []


def test_change_redoes_what_depends_on_it(root, tmp_path):
    def go_on(*extra):
        return study.run_here(study.options(root, tmp_path, "--participant-label", "03", *extra))

    first = go_on()
    assert first.code == 0, first.err
    tables = [(tmp_path / TABLE.format("03")).read_text()]

    option = go_on("--pvc", "none")
    assert _bare(option.executed) >= QUANTITATIVE
    assert not _bare(option.executed) & (ANATOMY | {"sodium_PDw_wf.image1", "sodium_PDw_wf.sodium_t1w"})
    assert "labbe" in tables[0]
    assert "labbe" not in (tmp_path / TABLE.format("03")).read_text()

    path = root / "raw" / SODIUM.format("03")
    with study.changed(path):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(1.1 * np.asarray(image.dataobj), image.affine), path)
        changed = go_on("--pvc", "none")
    assert QUANTITATIVE | {"sodium_PDw_wf.image1", "sodium_PDw_wf.sodium_t1w"} <= _bare(changed.executed)
    assert not _bare(changed.executed) & ANATOMY


def _hashes(workflow):
    nodes = [workflow.get_node(name) for name in workflow.list_node_names()]
    return {
        node.name: node.inputs.get_hashval(hash_method="content")[1]
        for node in nodes
        if isinstance(node.interface, Step)
    }


def _workflow(root, *extra):
    settings, _ = parse_args(study.options(root, root / "out", "--participant-label", "01", *extra))
    return init_participants_wf(settings=settings, sessions=collect_sessions(settings).accepted)


def test_version_belongs_to_every_step(root):
    workflow = _workflow(root)
    before = _hashes(workflow)
    for name in workflow.list_node_names():
        inputs = workflow.get_node(name).inputs
        if hasattr(inputs, "app_version"):
            assert inputs.app_version == __version__
            inputs.app_version = "0.0.0"
    after = _hashes(workflow)
    assert len(before) >= 9
    assert all(before[name] != after[name] for name in before)


@pytest.mark.parametrize("suffix", [".nii", ".tsv"])
def test_content_of_a_users_atlas_belongs_to_its_steps(suffix, root, tmp_path):
    image, table = tmp_path / "mine_space-MNI152NLin6Asym_dseg.nii", tmp_path / "mine_space-MNI152NLin6Asym_dseg.tsv"
    template = load_template()
    nib.save(nib.Nifti1Image(template.brain_mask.astype(np.uint8), template.affine), image)
    table.write_text("index\tname\ttissue\tstructure\n1\tmine\tGM\tcortex\n")
    before = _hashes(_workflow(root, "--atlas", str(image)))
    path = image.with_suffix(suffix)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"mine", b"ours") if suffix == ".tsv" else content[:-1] + b"\1")
    after = _hashes(_workflow(root, "--atlas", str(image)))
    changed = {name for name in before if before[name] != after[name]}
    assert "labels" in changed  # what follows sees it in the labels and their table
    assert not changed & {"conform", "head", "image1"}


def test_pages_can_be_written_anew_without_any_step(finished):
    root = finished
    page = root / "out" / "sub-01.html"
    before = page.read_bytes()
    page.unlink()
    outcome = _again(root, "--reports-only")
    assert outcome.code == 0
    assert outcome.executed == []
    assert page.exists()
    assert b"Errors</h2>" in page.read_bytes()
    assert abs(len(page.read_bytes()) - len(before)) < 200, "only the printed settings of the run differ"


def test_pages_of_no_results_are_refused(root, tmp_path):
    outcome = study.run_here(study.options(root, tmp_path / "none", "--reports-only"))
    assert outcome.code == 3
    assert "Run without --reports-only first" in outcome.err


def test_the_work_folder_is_emptied_when_asked(root, tmp_path):
    arguments = study.options(root, tmp_path / "out", "--participant-label", "01", "--clean-workdir")
    work = tmp_path / "work"
    arguments[arguments.index("-w") + 1] = str(work)
    outcome = study.run_here(arguments)
    assert outcome.code == 0, outcome.err
    assert not list(work.iterdir())
    assert (tmp_path / "out" / TABLE.format("01")).exists()


def test_without_any_reference_nothing_is_given_in_mM(root, tmp_path):
    # The study has no eyes.
    outcome = study.run_here(
        study.options(root, tmp_path / "out", "--participant-label", "01", "--reference", "vitreous")
    )
    assert outcome.code == 0, outcome.err
    anat = tmp_path / "out" / "sub-01" / "anat"
    assert not list(anat.glob("*TSCmap*"))
    assert len((tmp_path / "out" / TABLE.format("01")).read_text().splitlines()) == 1, "only the heading"
    assert "There is no reference, so nothing is given in mmol/L." in (tmp_path / "out" / "sub-01.html").read_text()
