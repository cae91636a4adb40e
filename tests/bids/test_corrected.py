"""Images whose intensity was corrected before are told, others are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sodium_prep.bids.corrected import intensity_correction
from sodium_prep.bids.inputs import collect
from tests.bids.study import make_study, put_sodium

NAME = Path("sub-01_acq-sodium_PDw.nii.gz")


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        (NAME, {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS3D"]}),
        (NAME, {"ImageTypeText": ["ORIGINAL", "PRIMARY", "M", "NORM"]}),
        (NAME, {"PrescanNormalize": True}),
        (NAME, {"BiasFieldCorrection": "by the scanner"}),
        (NAME, {"Preprocessing": ["gridding", "N4 bias correction"]}),
        (Path("sub-01_acq-sodium_rec-norm_PDw.nii.gz"), {}),
        (Path("sub-01_acq-sodium_desc-N4_PDw.nii.gz"), {}),
        (Path("sub-01_acq-sodium_desc-biascorr_PDw.nii.gz"), {}),
    ],
)
def test_signs_of_a_correction(name, metadata):
    assert intensity_correction(name, metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "NonlinearGradientCorrection": True},
        {"PrescanNormalize": False, "BiasFieldCorrection": "none", "Preprocessing": ["gridding"]},
        {"ImageType": "NORMAL"},
    ],
)
def test_no_sign(metadata):
    assert intensity_correction(NAME, metadata) is None
    assert intensity_correction(Path("sub-norm01_acq-biased_rec-gridding_PDw.nii.gz"), metadata) is None


def test_it_is_a_warning_of_the_session(tmp_path):
    make_study(tmp_path)
    put_sodium(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"])
    (text,) = [w for w in collect(tmp_path, "01", "01").warnings if "corrected for intensity" in w]
    assert "ImageType holds NORM" in text
