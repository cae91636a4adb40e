"""The participant level with a scan of the scanner's own reconstruction, a coil pair and no T1w."""

from __future__ import annotations

import pytest

from tests.shared import shared_path
from tests.workflows.study import process, rows

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_a_real_scan_without_t1w_and_known_vials(tmp_path):
    study = shared_path("real")
    process(study, tmp_path / "out", "--fast-registration")
    anat = tmp_path / "out" / "sub-uhf01" / "anat"
    (table,) = anat.glob("*_tsc.tsv")
    assert {row["reference"] for row in rows(table)} == {"CSF", "vitreous"}
    assert {row["estimator"] for row in rows(table)} == {"none"}, "nothing is corrected with an unknown PSF"
    main = {
        row["name"]: float(row["tsc"])
        for row in rows(table)
        if (row["index"], row["hemisphere"], row["reference"]) == ("n/a", "both", "CSF")
    }
    assert main["CSF"] > main["Cortex"] > main["WhiteMatter"]
    assert 30.0 < main["WhiteMatter"] < 60.0
    page = (tmp_path / "out" / "sub-uhf01.html").read_text()
    assert "corrected by the coil pair" in page
    assert "The point spread function is not known" in page
