"""The participant level given the phantom's own anatomy: what is left is physics, calibration and estimation."""

from __future__ import annotations

import math

import pytest

from sodium_prep.phantom.protocol import VIALS
from sodium_prep.phantom.study import make_study
from tests.workflows.study import compare, process

pytestmark = pytest.mark.slow


def _given(study):
    return "-d", f"phantom={study}-truth/derivatives", "--output-spaces", "T1w"


def test_without_noise_regions_are_true_within_one_percent(tmp_path):
    study = make_study(tmp_path / "study", participants=1, protocol="fast", wm_snr=math.inf, region_sd=0.0, seed=5)
    process(study, tmp_path / "out", *_given(study))
    found = compare(tmp_path / "out", tmp_path / "study-truth", "sub-01")
    assert {name: value.error for name, value in found.items() if abs(value.error) > 0.01} == {}
    raw = compare(tmp_path / "out", tmp_path / "study-truth", "sub-01", estimator="none")
    assert raw["Cortex"].error > 0.10


@pytest.mark.thorough
def test_k_space_of_two_sessions_with_one_vial_and_noise(tmp_path):
    study = make_study(
        tmp_path / "study", participants=1, protocol="fast", sessions=2, kspace=True, images=False, vials=VIALS[2:3],
        seed=7,
    )  # fmt: skip
    process(study, tmp_path / "out", *_given(study))
    for session in ("ses-01", "ses-02"):
        found = compare(tmp_path / "out", tmp_path / "study-truth", f"sub-01/{session}")
        assert {name: value.error for name, value in found.items() if abs(value.error) > 0.03} == {}
        assert all(value.held for value in found.values()), found


@pytest.mark.thorough
def test_two_runs_of_magnitude_images_with_noise(tmp_path):
    study = make_study(tmp_path / "study", participants=1, protocol="fast", runs=2, seed=8)
    process(study, tmp_path / "out", *_given(study))
    found = compare(tmp_path / "out", tmp_path / "study-truth", "sub-01")
    assert {name: value.error for name, value in found.items() if abs(value.error) > 0.03} == {}
    assert all(value.held for value in found.values()), found
    assert len(list((tmp_path / "out" / "sub-01" / "anat").glob("*_space-T1w_TSCmap.nii.gz"))) == 1
