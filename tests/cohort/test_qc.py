"""Quality control of a cohort: robust distances known by hand, and raters who go before the metrics."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sodium_prep.cohort import qc
from sodium_prep.cohort.tables import Cohort
from sodium_prep.errors import InputError


def test_robust_z_by_hand():
    x = [2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3]  # median 2.45, median absolute deviation 0.15
    z = qc.robust_z([*x, np.nan])
    assert_allclose(z[[8, 9]], 0.6745 * np.array([5.75, 5.85]) / 0.15)
    assert np.abs(z[:8]).max() < qc.OUTLIER_Z < z[8]
    assert np.isnan(z[10])


def test_robust_z_is_that_of_the_normal_distribution_and_knows_no_unit():
    x = np.random.default_rng(0).normal(50.0, 4.0, 100_000)
    z = qc.robust_z(x)
    assert_allclose(z, (x - 50.0) / 4.0, atol=0.05)
    assert_allclose(qc.robust_z(1e3 * x - 7.0), z, rtol=1e-9)


def test_robust_z_where_most_values_are_equal():
    # Mean absolute deviation 1/20, so z = 1 / (1.2533 / 20).
    z = qc.robust_z([4.0] * 19 + [3.0])
    assert_allclose(z[19], -20 / np.sqrt(np.pi / 2))
    assert (z[:19] == 0).all()
    assert (qc.robust_z([0.1 + 0.2, *[0.3] * 6]) == 0).all()  # not apart but by rounding
    assert np.isnan(qc.robust_z([1, 1, 1, 9])).all()


def write_qc(out, label, values, verdict="pass", session="", run=""):
    folder = out / f"sub-{label}" / (f"ses-{session}" if session else "") / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"sub-{label}", f"ses-{session}" if session else "", "acq-sodium", f"run-{run}" if run else "", "qc.json"]
    metrics = {name: {"value": v, "verdict": verdict, "label": name.upper()} for name, v in values.items()}
    (folder / "_".join(filter(None, parts))).write_text(json.dumps({"Metrics": metrics}))


def make_cohort(people, tsc=()):
    columns = [*qc.SCAN, "tsc"]
    return Cohort(pd.DataFrame(tsc, columns=columns), pd.DataFrame(people), pd.DataFrame(columns=["participant_id"]))


def test_peers_are_those_of_the_site_where_they_are_enough(tmp_path):
    """12 is far out among the ten scans of A, not among all; the six of B are judged among all."""
    snr = {f"a{i}": 10.0 + 0.1 * i for i in range(9)} | {"a9": 12.0} | {f"b{i}": 9.2 + 0.5 * i for i in range(6)}
    for label, value in snr.items():
        write_qc(tmp_path, label, {"snr": value, "odd": None})
    cohort = make_cohort({"participant_id": list(snr), "site": [label[0].upper() for label in snr]})
    table = qc.cohort_qc(qc.read_metrics(tmp_path), cohort).set_index(["metric", "participant_id"])
    here = table.loc["snr"]
    assert set(here.index[here["outlier"] == "yes"]) == {"a9"}
    assert (here.loc["a9", "peers"], here.loc["a9", "n_peers"]) == ("A", 10)
    assert (here.loc["b0", "peers"], here.loc["b0", "n_peers"]) == ("all", 16)
    among_all = qc.robust_z(list(snr.values()))
    assert abs(among_all[9]) < qc.OUTLIER_Z
    assert_allclose(here.loc["b0", "z"], among_all[10])
    assert set(table.loc["odd", "outlier"]) == {""}


def test_metrics_that_are_none_are_refused_by_name(tmp_path):
    write_qc(tmp_path, "01", {"snr": "high"})
    with pytest.raises(InputError, match=r"sub-01_acq-sodium_qc\.json: is not a record of quality metrics"):
        qc.read_metrics(tmp_path)
    write_qc(tmp_path, "01", {"snr": 1.0}, verdict="good")
    with pytest.raises(InputError, match="'good'"):
        qc.read_metrics(tmp_path)


@pytest.fixture
def scans(tmp_path):
    """001 fails, 002 has two runs that pass, 1 warns; 003 has a table and no metrics."""
    write_qc(tmp_path, "001", {"snr": 1.0}, "fail")
    for run in ("1", "2"):
        write_qc(tmp_path, "002", {"snr": 9.0}, run=run)
    write_qc(tmp_path, "1", {"snr": 5.0}, "warn")
    cohort = make_cohort({"participant_id": ["001", "002", "003"]}, [["003", "", "sodium", "", "", 40.0]])
    return qc.scan_verdicts(qc.read_metrics(tmp_path), cohort.tsc)


def rated(tmp_path, *lines):
    path = tmp_path / "qc.tsv"
    path.write_text("\n".join(("participant_id\trun\tverdict\trater\tcomment", *lines)) + "\n")
    return qc.rater_verdicts(path)


def finals(scans, ratings=None):
    table, notes = qc.final_verdicts(scans, ratings)
    assert list(table) == list(qc.VERDICT_COLUMNS)
    return {(row.participant_id, row.run): row for row in table.itertuples()}, notes


def test_without_raters_the_metrics_decide(scans):
    found, notes = finals(scans)
    assert {key: row.final for key, row in found.items()} == {
        ("001", ""): "fail", ("002", "1"): "pass", ("002", "2"): "pass", ("003", ""): "info", ("1", ""): "warn",
    }  # fmt: skip
    assert found["001", ""].reason == "SNR"
    assert notes == []


def test_raters_go_before_the_metrics(tmp_path, scans):
    ratings = rated(
        tmp_path, "sub-001\tn/a\tPass\tKB\tedge of the head only", "002\t2\twarn\tKB\tghost", "002\t2\tfail\tLM\tmoved",
        "003\tn/a\tfail\tKB\tn/a", "003\tn/a\tpass\tconsensus\tseen by all", "9\tn/a\tfail\tKB\tn/a",
    )  # fmt: skip
    found, notes = finals(scans, ratings)
    assert {key: (row.automatic, row.rated, row.final) for key, row in found.items()} == {
        ("001", ""): ("fail", "pass", "pass"), ("002", "1"): ("pass", "", "pass"),
        ("002", "2"): ("pass", "fail", "fail"), ("003", ""): ("info", "pass", "pass"), ("1", ""): ("warn", "", "warn"),
    }  # fmt: skip
    assert (found["002", "2"].reason, found["002", "2"].raters) == ("moved", "KB, LM")
    assert found["003", ""].raters == "consensus"
    assert notes == ["The rating of sub-9 fits no scan with results and has no effect."]


def test_a_failed_scan_takes_its_rows_and_no_others(tmp_path, scans):
    verdicts, _ = qc.final_verdicts(scans, rated(tmp_path, "002\t2\tfail\tKB\tmoved"))
    failed = qc.failed_scans(verdicts)
    assert set(zip(failed["participant_id"], failed["run"], strict=True)) == {("001", ""), ("002", "2")}
    rows = [[label, "", "sodium", "", run, 1.0] for label, run in (("001", ""), ("002", "1"), ("002", "2"), ("1", ""))]
    kept = qc.without_scans(pd.DataFrame(rows, columns=[*qc.SCAN, "tsc"]), failed)
    assert list(zip(kept["participant_id"], kept["run"], strict=True)) == [("002", "1"), ("1", "")]


def test_verdicts_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"qc\.tsv: has the verdict 'ok' in row 2"):
        rated(tmp_path, "001\tn/a\tok\tKB\tn/a")
    (tmp_path / "qc.tsv").write_text("participant\tverdict\n001\tpass\n")
    with pytest.raises(InputError, match="lacks the column participant_id"):
        qc.rater_verdicts(tmp_path / "qc.tsv")
    assert qc.rating_file(tmp_path) == tmp_path / "qc.tsv"
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "qc.tsv").write_text("x\n")
    with pytest.raises(InputError, match="second table of verdicts"):
        qc.rating_file(tmp_path)
