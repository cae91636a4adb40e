"""The participant level with its own anatomy, from a T1w with bias and noise that does not show the outer CSF."""

from __future__ import annotations

import re

import pytest

from sodium_prep.phantom.study import make_study
from tests.workflows.study import compare, process

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_own_segmentation_stays_within_six_percent(tmp_path):
    study = make_study(tmp_path / "study", participants=1, protocol="fast", t1w_bias=0.2, t1w_noise=0.03, seed=9)
    process(study, tmp_path / "out", "--fast-registration")
    for side in ("L", "R", "both"):
        found = compare(tmp_path / "out", tmp_path / "study-truth", "sub-01", side=side)
        assert {name: value.error for name, value in found.items() if abs(value.error) > 0.06} == {}
    (log,) = (tmp_path / "out" / "logs").glob("sodium-prep_*.log")
    peak = re.search(r"peak memory ([\d.]+) GB", log.read_text())
    assert peak is not None
    assert float(peak[1]) < 3.0
    template = tmp_path / "out/sub-01/anat/sub-01_acq-sodium_space-MNI152NLin6Asym_TSCmap.nii.gz"
    assert template.exists()
