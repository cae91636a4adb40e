"""The record of a series: which facts reach the page and the methods text, and in which order."""

import json

import numpy as np
import pytest

from sodium_prep.report.methods import build_methods
from sodium_prep.report.scan import scan_record, scan_report

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
VIAL = {"reference": "vials", "flag": "ok"}
FACTS = {
    "primary": "vials",
    "psf": {"kind": "acquisition", "fwhm_mm": {"CSF": 4.4, "GM": 5.2, "WM": 5.3}},
    "metrics": {},
}
RAN = {
    "recon": {"method": "vendor", "kspace_filter": "hamming"},
    "fractions": {"method": "joint"},
    "registration": {"method": "ants"},
    "normalisation": None,
    "regional": {"estimators": ["none", "labbe"]},
}


def record(facts=(), ran=RAN):
    volume = (np.ones((4, 4, 4), np.float32), AFFINE)
    images = dict.fromkeys(("brain_mask", "gm", "wm", "csf"), volume)
    lines = {name: {"Mode": "free"} for name in ("CSF", "vials")}  # sorted, as after a file
    calibration = {"order": ["vials", "CSF"], "lines": lines, "references": [VIAL] * 3}
    table = [
        {"index": float("nan"), "name": name, "hemisphere": "both", "estimator": "labbe", "reference": reference,
         "tsc": 45.0, "tsc_ci_low": 40.0, "tsc_ci_high": 50.0, "flag": "ok"}
        for name in ("CSF", "Cortex") for reference in ("vials", "CSF")
    ]  # fmt: skip
    found = scan_record("acq-sodium", {}, images, table, calibration, FACTS | dict(facts), ran, [], 3.0)
    return json.loads(json.dumps(found, sort_keys=True))


def body(found):
    return " ".join(text for _, text in build_methods(found["report"]["ran"]).paragraphs)


def test_the_primary_reference_comes_first():
    found = record()
    page = scan_report(found, {})
    assert [(row.region, row.reference) for row in page.regions] == [
        ("Cortex", "vials"), ("Cortex", "CSF"), ("CSF", "vials"), ("CSF", "CSF"),
    ]  # fmt: skip
    assert {item.name: item.value for item in page.summary}["References"] == "vials, CSF"
    assert "by external reference vials and cerebrospinal fluid" in body(found)


@pytest.mark.parametrize(("widths", "expected"), [({"CSF": 4.4, "GM": 5.2, "WM": 5.3}, 5.2), ({"all": 7.0}, 7.0)])
def test_resolution_is_that_of_grey_matter(widths, expected):
    psf = {"kind": "gaussian", "fwhm_mm": widths}
    assert record({"psf": psf})["report"]["metrics"]["psf_fwhm_mm"] == expected


def test_only_what_was_found_is_told():
    plain = body(record())
    told = body(record({"floor_corrected": True, "registration_refined": True, "prior_driven": True, "n_runs": 2,
                        "coil_proton": True}))  # fmt: skip
    for words in ("Rician", "refined", "no T1 contrast", "2 repeat scans", "stepping stone"):
        assert words not in plain
        assert words in told
    assert "8 receive channels" in body(record({"n_coils": 8}, RAN | {"recon": {"method": "gridding"}}))
    tried = RAN | {"normalisation": {"method": "SyN", "template": "MNI152NLin6Asym"}}
    assert "symmetric diffeomorphic" in body(record({}, tried))
    assert "symmetric diffeomorphic" not in body(record({"template_method": "affine"}, tried))
    assert "atlas mine. Version: 3." in body(record({"atlas": {"name": "mine", "version": "3"}}))
    # A transform that was given is not registered, so nothing refines it.
    assert "registered" not in body(record({"registration_refined": True}, RAN | {"registration": None}))


def test_complex_data_are_told_beside_the_noise_floor():
    floor = {item.name: item.value for item in scan_report(record({"phase_left": 0.0123}), {}).summary}["Noise floor"]
    assert floor == "zero-mean, complex data (1.2 % of the power left imaginary)"
