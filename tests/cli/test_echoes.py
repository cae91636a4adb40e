"""A series of several echoes and a prepared one, from files to the page."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, tissue_relaxation
from sodium_prep.physics.signal import signal_factor
from sodium_prep.quant.weighted import CAUTION
from tests.cli import study
from tests.cli.study import SIDECAR, SODIUM

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

ECHOES_S = (0.0005, 0.002, 0.008, 0.024)
T2STAR_S = 0.018
RATIO = 0.4


@pytest.fixture(scope="module")
def anat(tmp_path_factory):
    """Derivatives of a participant with four echoes and an inversion-prepared image of uniformly weaker signal."""
    root = study.make_study(tmp_path_factory.mktemp("echoes"), ("01",))
    raw, head, rng = root / "raw", study.head_maps(), np.random.default_rng(7)
    for path in (raw / SODIUM.format("01"), raw / SIDECAR.format("01")):
        path.unlink()

    def put(name: str, decay: float, **changes: object) -> None:
        path = raw / SODIUM.format("01").replace("sodium_PDw", name)
        study.save(path, study.sodium_image(head, rng, decay), 8.0)
        study.put_json(path.with_name(path.name.replace(".nii.gz", ".json")), study.sidecar() | changes)

    for number, time in enumerate(ECHOES_S, start=1):
        put(f"sodium_echo-{number}_MEGRE", np.exp(-time / T2STAR_S), EchoTime=time)
    put("prepared_PDw", RATIO, InversionTime=0.034)
    given = root / "derivatives/sub-01/anat"
    transform = next(given.glob("*_xfm.txt"))
    transform.with_name(transform.name.replace("acq-sodium", "acq-prepared")).write_bytes(transform.read_bytes())
    outcome = study.run_here(study.options(root, root / "out"))
    assert outcome.code == 0, outcome.err
    return root / "out/sub-01/anat"


def _rows(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def _load(anat, name):
    return nib.load(anat / f"sub-01_acq-sodium_{name}.nii.gz").get_fdata()


def test_t2star_maps_hold_the_decay_of_the_echoes(anat):
    first = nib.load(anat / "sub-01_acq-sodium_rec-vendor_desc-preproc_MEGRE.nii.gz").get_fdata()
    bright = first > 25.0
    found, error = _load(anat, "T2starmap")[bright], _load(anat, "stat-stderr_T2starmap")[bright]
    assert np.median(found) == pytest.approx(T2STAR_S, rel=0.02)
    low, high = (_load(anat, f"stat-{end}_T2starmap")[bright] for end in ("cilow", "cihigh"))
    assert 0.92 < np.mean((low <= T2STAR_S) & (high >= T2STAR_S)) < 0.98
    assert np.median(np.abs(found - T2STAR_S) / error) == pytest.approx(0.67, abs=0.1)
    assert np.isnan(_load(anat, "T2starmap")[:3, :3, :3]).mean() > 0.9
    about = json.loads((anat / "sub-01_acq-sodium_T2starmap.json").read_text())
    assert (about["Units"], about["EchoTimes"], about["NoiseLaw"]) == ("s", list(ECHOES_S), "rician")
    assert len(about["Sources"]) == len(ECHOES_S)
    difference = _load(anat, "desc-difference_T2starw")
    weight = json.loads((anat / "sub-01_acq-sodium_desc-difference_T2starw.json").read_text())["Weight"]
    expected = 1.0 - weight * np.exp(-(ECHOES_S[3] - ECHOES_S[0]) / T2STAR_S)
    assert np.median(difference[bright] / first[bright]) == pytest.approx(expected, abs=0.02)


def test_concentrations_are_those_of_the_first_echo(anat):
    (row,) = [
        row
        for row in _rows(anat / "sub-01_acq-sodium_seg-DesikanKilliany_tsc.tsv")
        if (row["name"], row["hemisphere"], row["estimator"], row["reference"], row["index"])
        == ("WhiteMatter", "both", "labbe", "vials", "n/a")
    ]
    # In the image vials and tissue relax alike, so what is corrected for makes the difference.
    sequence = Acquisition(ECHOES_S[0], 0.3, 90.0, 3.0, "Cartesian", 0.0, (8.0, 8.0, 8.0))
    vial, tissue = (signal_factor(sequence, r) for r in (Relaxation(0.05, 0.05), tissue_relaxation("WM", 3.0)))
    assert float(row["tsc"]) == pytest.approx(35.0 * vial / tissue, rel=0.03)


def test_a_prepared_image_has_relative_signal_and_no_concentration(anat):
    names = {path.name for path in anat.glob("*acq-prepared*")}
    assert not any(word in name for name in names for word in ("TSCmap", "_tsc.", "calibration", "T2star"))
    rows = _rows(anat / "sub-01_acq-prepared_seg-DesikanKilliany_relative.tsv")
    found = {row["name"]: row for row in rows if row["index"] == "n/a" and row["hemisphere"] == "both"}
    assert float(found["WhiteMatter"]["relative_signal"]) == 1.0
    assert float(found["WhiteMatter"]["relative_stderr"]) == pytest.approx(0.0, abs=1e-6)
    assert 1.1 < float(found["Cortex"]["relative_signal"]) < 2.0
    assert {row["caution"] for row in rows} == {CAUTION}
    about = json.loads((anat / "sub-01_acq-prepared_seg-DesikanKilliany_relative.json").read_text())
    assert about["Caution"] == CAUTION
    assert "mmol" not in json.dumps(about)
    page = (anat.parents[1] / "sub-01.html").read_text(encoding="utf-8")
    assert page.count(CAUTION) >= 2
    assert "T2* was fitted to 4 echoes" in page
