"""The demonstration tells when what it recovers is not the truth."""

from __future__ import annotations

import csv

import pytest

from sodium_prep.atlas.groups import MAIN
from sodium_prep.cli.demo import print_comparison


def _write(path, rows):
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(("factor", "wrong"), [(0.96, []), (1.07, ["Hippocampus of sub-01"]), ("nan", None)])
def test_a_region_far_from_its_true_value_is_named(tmp_path, capsys, factor, wrong):
    names = [group.name for group in MAIN]
    _write(tmp_path / "truth/sub-01/sub-01_regions.tsv", [{"name": n, "hemisphere": "both", "tsc": 50} for n in names])
    common = {"hemisphere": "both", "reference": "vials", "index": "n/a", "tsc_ci_low": 0, "tsc_ci_high": 100}
    rows = []
    for name in names:
        tsc = 50.0 * float(factor) if name == "Hippocampus" else 50.0
        rows += [{"name": name, "estimator": estimator, "tsc": tsc, **common} for estimator in ("none", "labbe")]
    _write(tmp_path / "out/sub-01/anat/sub-01_seg-x_tsc.tsv", rows)
    found = print_comparison(tmp_path / "out", tmp_path / "truth")
    assert found == (["Hippocampus of sub-01"] if wrong is None else wrong)
    assert "Hippocampus" in capsys.readouterr().out
