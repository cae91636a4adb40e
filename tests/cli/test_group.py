"""The group level from the command line, on cohorts whose truth is known."""

import csv
import json
import re
from hashlib import sha256

import pytest

from sodium_prep.cli.main import run
from sodium_prep.cohort.model import read_model
from sodium_prep.phantom.cohort import CohortDesign, CohortSite, draw_cohort, write_cohort

SITES = (CohortSite("A"), CohortSite("B", 4.0), CohortSite("C", -5.0))


def group(root, *options):
    return run([str(root / "bids"), str(root / "out"), "group", *map(str, options)])


def rows_of(root, name):
    with (root / "out" / "group" / f"group_{name}.tsv").open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def bytes_of(root):
    out = root / "out"
    paths = [*out.glob("group/*"), out / "group.html"]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Mohamed's effects (14 v 12), CSF that rises as Kerl saw it.

    One participant is not there, the table of another is cut off, a rater has failed one scan of a third, and a table
    of an earlier run with another model lies about.
    """
    root = tmp_path_factory.mktemp("cohort")
    effects = {"AD": {"Hippocampus": 0.129, "WhiteMatter": 0.136, "CSF": 0.206}}
    write_cohort(draw_cohort(CohortDesign(effects=effects, sites=SITES), seed=3), root / "bids", root / "out")
    people = root / "bids" / "participants.tsv"
    people.write_text(people.read_text() + "sub-099\tn/a\tF\t<img src=x>\tA\t=cmd|' /C calc'!A0\n")
    table = next((root / "out").glob("sub-003/anat/*_tsc.tsv"))
    table.write_text(table.read_text()[:-40])
    (root / "out" / "qc.tsv").write_text("participant_id\tverdict\trater\nsub-001\tfail\tAB\n")
    (root / "out" / "group").mkdir()
    (root / "out" / "group" / "group_roc.tsv").write_text("of another model\n")
    model = root / "model.toml"
    model.write_text(
        'regions = ["Hippocampus", "WhiteMatter", "CSF"]\nnegative_controls = ["OccipitalLobe"]\nscores = ["MMSE"]\n'
        'estimators = ["none", "labbe"]\nreferences = ["vials", "CSF"]\n'
    )
    assert group(root, "--model", model) == 4
    return root


def test_the_effects_are_found_and_the_reference_that_hides_them_is_named(cohort):
    root = cohort
    rows = rows_of(root, "comparisons")
    by = {(r["region"], r["estimator"], r["reference"]): r for r in rows}
    for region, percent in (("Hippocampus", 12.9), ("WhiteMatter", 13.6)):
        row = by[region, "labbe", "vials"]
        truth = percent / 100 * float(row["mean_1"])
        assert float(row["adjusted_ci_low"]) < truth < float(row["adjusted_ci_high"])
        assert float(row["adjusted_p_fdr"]) < 0.05
        assert float(by[region, "labbe", "CSF"]["adjusted"]) < 0
    assert by["OccipitalLobe", "labbe", "vials"]["role"] == "negative_control"
    assert by["OccipitalLobe", "labbe", "vials"]["adjusted_p_fdr"] == "n/a"
    page = (root / "out" / "group.html").read_text()
    assert "CSF itself differs between the groups" in page
    assert "The references disagree" in page


def test_every_table_is_described_and_every_text_harmless(cohort):
    root = cohort
    tables = sorted((root / "out" / "group").glob("group_*.tsv"))
    names = {path.stem.removeprefix("group_") for path in tables}
    assert {
        "tsc",
        "desc-wide_tsc",
        "participants",
        "qc",
        "scans",
        "design",
        "comparisons",
        "zscores",
    } <= names
    assert {"correlations", "desc-combat_tsc"} <= names
    for path in tables:
        header = path.read_text().splitlines()[0].split("\t")
        assert list(json.loads(path.with_suffix(".json").read_text())) == header
        assert "\t=cmd" not in path.read_text()
    assert "'=cmd|" in (root / "out" / "group" / "group_participants.tsv").read_text()
    page = (root / "out" / "group.html").read_text()
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//(?!doi\.org)", page)
    assert [row["reason"] for row in rows_of(root, "participants") if row["state"] == "missing"] == [
        "not in the data set"
    ]


def test_the_model_that_was_written_gives_the_same_bytes(cohort):
    root = cohort
    first = bytes_of(root)
    written = root / "again.toml"
    written.write_text((root / "out" / "group" / "group_model.toml").read_text())
    assert read_model(written).control == "control"
    assert group(root, "--model", written) == 4
    assert bytes_of(root) == first


def test_the_failed_the_rated_and_the_old_are_dealt_with(cohort):
    people = {row["participant_id"]: row for row in rows_of(cohort, "participants")}
    assert (people["003"]["state"], people["004"]["state"], people["099"]["state"]) == ("failed", "done", "missing")
    rows = [r for r in rows_of(cohort, "comparisons") if (r["region"], r["estimator"]) == ("Hippocampus", "labbe")]
    assert {(r["n_1"], r["n_2"]) for r in rows if r["state"] == "compared"} == {("10", "14")}
    assert not (cohort / "out" / "group" / "group_roc.tsv").exists()


def test_groups_that_are_sites_stop_with_the_table(tmp_path, capsys):
    design = CohortDesign(sites=SITES[:2], site_shares={"control": (1, 0), "AD": (0, 1)})
    write_cohort(draw_cohort(design, seed=5), tmp_path / "bids", tmp_path / "out")
    assert group(tmp_path) == 3
    told = capsys.readouterr().err
    assert "AD at B: 14" in told
    assert "control at A: 12" in told
    assert not (tmp_path / "out" / "group" / "group_comparisons.tsv").exists()
    assert len(rows_of(tmp_path, "tsc")) > 0


def test_a_model_that_cannot_be_used_is_one_line(cohort, tmp_path, capsys):
    root = cohort
    wrong = tmp_path / "model.toml"
    wrong.write_text('covariate = ["age"]\n')
    assert group(root, "--model", wrong) == 2
    assert "Did you mean covariates" in capsys.readouterr().err
    wrong.write_text('scores = ["ALSFRS"]\n')
    assert group(root, "--model", wrong) == 3
    assert capsys.readouterr().err.startswith("sodium-prep: participants.tsv: has no column ALSFRS.")
