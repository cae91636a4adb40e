"""Every bad input is refused by name, with its fault and its mend; none passes, and none ends in a traceback."""

from __future__ import annotations

import contextlib
import gzip
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.bids.images import check_image, handedness_warning, load_checked
from sodium_prep.bids.inputs import collect
from sodium_prep.errors import ExitCode, InputError
from tests.bids import study
from tests.bids.study import SODIUM, T1W

JSON = SODIUM.replace(".nii.gz", ".json")


def _image(root: Path, data=None, matrix=None) -> None:
    study.put_image(root / SODIUM, data, matrix)


def _truncated(root: Path) -> None:
    path = root / SODIUM
    path.write_bytes(path.read_bytes()[:-2000])


def _edit_header(root: Path, edit) -> None:
    path = root / SODIUM
    content = bytearray(gzip.decompress(path.read_bytes()))
    edit(content)
    path.write_bytes(gzip.compress(bytes(content)))


def _huge(content: bytearray) -> None:
    struct.pack_into("<8h", content, 40, 3, 30000, 30000, 30000, 1, 1, 1, 1)


def _bomb(root: Path) -> None:
    path = root / SODIUM
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(200_000_000), 1))


def _no_codes(content: bytearray) -> None:
    struct.pack_into("<2h", content, 252, 0, 0)


def _forms_disagree(root: Path) -> None:
    image = nib.load(root / SODIUM)
    matrix = study.affine()
    matrix[0, 3] += 0.2
    image.set_qform(matrix, 1)
    image.set_sform(study.affine(), 1)
    nib.save(nib.Nifti1Image(study.noise(), None, image.header), root / SODIUM)


def _sform(rows: np.ndarray):
    def edit(content: bytearray) -> None:
        struct.pack_into("<2h", content, 252, 0, 1)
        struct.pack_into("<12f", content, 280, *rows[:3].ravel())

    return lambda root: _edit_header(root, edit)


def _sheared() -> np.ndarray:
    matrix = study.affine()
    matrix[0, 1] = 0.4
    return matrix


def _nan(root: Path) -> None:
    data = study.noise()
    data[:2] = np.nan
    _image(root, data)


def _annexed(root: Path) -> None:
    (root / SODIUM).unlink()
    (root / SODIUM).symlink_to(root / ".git/annex/objects/aa/bb/key")


def _pointer(root: Path) -> None:
    (root / SODIUM).write_text("/annex/objects/SHA256E-s100--abc.nii.gz\n")


def _sidecar(**changes):
    return lambda root: study.put_sodium(root, **changes)


def _references(*entries):
    return _sidecar(SodiumReferences=[{"Matrix": "agar", **entry} for entry in entries])


def _text(text: str):
    return lambda root: (root / JSON).write_text(text)


def _remove(*names: str):
    def spoil(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return spoil


VIAL = {"Label": "a", "Concentration": 50.0, "T1": 0.035, "T2starSlow": 0.025}
OTHER = VIAL | {"Label": "b", "Concentration": 100.0}

BAD = {
    # the file
    "truncated gzip": (_truncated, SODIUM, "ends too early", "Copy the file again"),
    "empty file": (lambda root: (root / SODIUM).write_bytes(b""), SODIUM, "0 bytes", "Copy the file again"),
    "HTML page": (lambda root: (root / SODIUM).write_text("<html>login</html>"), SODIUM, "HTML page", "Copy"),
    "not gzip": (lambda root: (root / SODIUM).write_bytes(b"\0" * 400), SODIUM, "not a gzip file", "Copy"),
    "not NIfTI": (lambda root: (root / SODIUM).write_bytes(gzip.compress(b"x" * 600)), SODIUM, "no NIfTI", "Convert"),
    "huge dimensions": (lambda root: _edit_header(root, _huge), SODIUM, "30000 x 30000 x 30000", "header"),
    "gzip bomb": (_bomb, SODIUM, "more than the", "Copy the file again"),
    "short data": (lambda root: _edit_header(root, lambda c: c.__delitem__(slice(-9, None))), SODIUM, "of the", "Copy"),
    "data over header": (
        lambda root: _edit_header(root, lambda c: struct.pack_into("<f", c, 108, 0.0)),
        SODIUM,
        "its data at byte 0",
        "Copy",
    ),
    "content not fetched": (_annexed, SODIUM, "content is not here", "datalad get"),
    "annex pointer": (_pointer, SODIUM, "placeholder", "datalad get"),
    # geometry
    "no codes": (lambda root: _edit_header(root, _no_codes), SODIUM, "codes are both 0", "DICOM"),
    "forms disagree": (_forms_disagree, SODIUM, "differ by 0.2 mm", "set both"),
    "singular affine": (_sform(np.diag([4.0, 4.0, 0.0, 1.0])), SODIUM, "singular", "DICOM"),
    "collapsed affine": (_sform(np.ones((4, 4))), SODIUM, "singular", "DICOM"),
    "sheared affine": (_sform(_sheared()), SODIUM, "sheared", "Resample"),
    "NaN affine": (_sform(np.full((4, 4), np.nan)), SODIUM, "singular", "DICOM"),
    "metres": (lambda root: _edit_header(root, lambda c: c.__setitem__(123, 1)), SODIUM, "meters", "millimetres"),
    # values
    "NaN": (_nan, SODIUM, "8.3 % of its voxels not finite", "Reconstruct"),
    "several volumes": (lambda root: _image(root, study.noise((8, 8, 8, 3))), SODIUM, "several volumes", "per echo"),
    "one slice": (lambda root: _image(root, study.noise((8, 8, 1))), SODIUM, "not three-dimensional", "3D image"),
    "complex": (lambda root: _image(root, study.noise().astype(np.complex64)), SODIUM, "complex", "magnitude"),
    "constant": (lambda root: _image(root, np.zeros((8, 8, 8), np.float32)), SODIUM, "same value (0)", "Copy"),
    # the sidecar
    "no sidecar": (_remove(JSON), SODIUM, "no JSON sidecar", "ResonantNucleus"),
    "no nucleus": (_sidecar(ResonantNucleus=None), SODIUM, "no ResonantNucleus", "23Na"),
    "wrong nucleus": (_sidecar(ResonantNucleus="1H"), SODIUM, "ResonantNucleus '1H'", "23Na"),
    "misspelt nucleus": (_sidecar(ResonantNucleus="Na23"), SODIUM, "'Na23'", "23Na"),
    "wrong frequency": (_sidecar(ImagingFrequency=123.2), JSON, "ImagingFrequency 123.2 MHz", "nucleus"),
    "missing key": (_sidecar(FlipAngle=None), JSON, "FlipAngle is missing", "Add FlipAngle"),
    "echo time in ms": (_sidecar(EchoTime=0.5), JSON, "EchoTime is 0.5, outside (0, 0.2] s", "milliseconds"),
    "repetition time in ms": (_sidecar(RepetitionTime=120), JSON, "RepetitionTime is 120", "milliseconds"),
    "echo time 0": (_sidecar(EchoTime=0), JSON, "EchoTime is 0", "seconds"),
    "echo after repetition": (_sidecar(EchoTime=0.15), JSON, "not below RepetitionTime", "milliseconds"),
    "readout in ms": (
        _sidecar(SodiumAcquisition={"ReadoutDuration": 10}),
        JSON,
        "SodiumAcquisition.ReadoutDuration is 10",
        "milliseconds",
    ),
    "flip angle": (_sidecar(FlipAngle=200), JSON, "FlipAngle is 200", "degrees"),
    "field": (_sidecar(MagneticFieldStrength=30000), JSON, "MagneticFieldStrength is 30000", "tesla"),
    "text for a number": (_sidecar(EchoTime="0.0005"), JSON, "EchoTime is '0.0005'", "documentation"),
    "truth for a number": (_sidecar(EchoTime=True), JSON, "EchoTime is True", "documentation"),
    "not a number": (_sidecar(EchoTime=float("nan")), JSON, "EchoTime is nan", "documentation"),
    "malformed JSON": (_text('{"EchoTime": 0.0005,'), JSON, "not valid JSON (line 1", "Correct"),
    "JSON list": (_text("[]"), JSON, "JSON object", "{ and }"),
    "deep JSON": (_text("[" * 100_000), JSON, "nested too deeply", "Correct"),
    "misspelt key": (_sidecar(SodiumAcquisition={"Trajectry": "TPI"}), JSON, "Trajectry", "Did you mean Trajectory"),
    # references
    "one concentration": (_references(VIAL, VIAL | {"Label": "b"}), SODIUM, "one distinct concentration", "two"),
    "no concentration": (_references({"Label": "a"}), JSON, "Concentration is missing", "Add"),
    "concentration in mol/L": (_references(VIAL | {"Concentration": 0.05}), JSON, "is 0.05", "mol/L"),
    "no relaxation": (
        _references(VIAL, {"Label": "b", "Concentration": 100.0, "T1": 0.04}),
        SODIUM,
        "the T1 or T2starSlow of b is missing",
        "in seconds",
    ),
    "mask": (_references(VIAL | {"Mask": "bids::vial.nii.gz"}), SODIUM, "bids::vial.nii.gz of a is not there", "URI"),
    "mask outside": (_references(VIAL | {"Mask": "bids::../vial.nii.gz"}), SODIUM, "is not there", "URI"),
    "same label": (_references(VIAL, OTHER | {"Label": "a"}), JSON, "same Label", "own Label"),
    "dangerous label": (_references(VIAL | {"Label": "=cmd()"}), JSON, "Label is '=cmd()'", "documentation"),
    "vial outside": (
        _references(VIAL | {"CentreRAS": [500, 0, 0], "Radius": 9}, OTHER),
        SODIUM,
        "outside the image",
        "CentreRAS",
    ),
    "half a cylinder": (_references(VIAL | {"Length": 60}), JSON, "only one of Length and Axis", "both"),
    # the session
    "no sodium image": (_remove(SODIUM, JSON), "ses-01", "no sodium image", "ResonantNucleus"),
    "no proton image": (_remove(T1W), "ses-01", "no proton image", "T1w"),
    "duplicate": (
        lambda root: study.put_sodium(root, SODIUM.replace("_PDw", "_rec-norm_PDw")),
        SODIUM,
        "same acquisition, run and echo",
        "--bids-filter-file",
    ),
    "two sidecars": (
        lambda root: [study.put_json(root / f"{name}_PDw.json", {}) for name in ("sub-01", "acq-sodium")],
        SODIUM,
        "several sidecars",
        "Keep one",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_refused_by_name(fault, tmp_path):
    root = study.make_study(tmp_path / "a study ü")
    spoil, name, problem, mend = BAD[fault]
    spoil(root)
    with pytest.raises(InputError) as caught:
        collect(root, "01", "01")
    message = str(caught.value)
    assert caught.value.exit_code == ExitCode.INPUT_REFUSED
    assert Path(name).name.split("_PDw")[0] in message.split(": ")[0]
    assert problem in message
    assert mend in caught.value.mend
    assert "\n" not in message


def test_good_study_has_no_warnings(tmp_path):
    inputs = collect(study.make_study(tmp_path), "01", "01")
    assert inputs.warnings == ()
    assert inputs.sodium[0].runs[0].sidecar.references[1].concentration_mM == 100


def test_no_bit_flip_passes_unseen(tmp_path):
    """nibabel alone loads most of these without a word."""
    good = study.put_image(tmp_path / "good.nii.gz")
    truth = load_checked(good)[0]
    content = good.read_bytes()
    rng = np.random.default_rng(1)
    silent = 0
    for position in rng.integers(10 + len("good.nii.gz"), len(content), 100):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        bad = tmp_path / "bad.nii.gz"
        bad.write_bytes(bytes(flipped))
        with contextlib.suppress(Exception):
            silent += not np.array_equal(np.asarray(nib.load(bad).dataobj), truth)
        with pytest.raises(InputError, match=r"bad\.nii\.gz"):
            check_image(bad)
    assert silent > 50


def test_tolerated_faults_are_warned_of(tmp_path):
    data = study.noise((10, 10, 10, 1))
    data[0, 0, 0] = np.inf
    path = study.put_image(tmp_path / "image.nii.gz", data)
    checked = check_image(path)
    loaded, matrix = load_checked(path)
    assert checked.shape == loaded.shape == (10, 10, 10)
    assert loaded.dtype == np.float32
    assert loaded[0, 0, 0] == 0
    np.testing.assert_array_equal(loaded[1:], data[1:, ..., 0])
    np.testing.assert_allclose(matrix, study.affine())
    assert ["one volume" in checked.warnings[0], "1 voxels were not finite" in checked.warnings[1]] == [True, True]


def test_slope_of_zero_is_warned_of(tmp_path):
    root = study.make_study(tmp_path)
    _edit_header(root, lambda content: struct.pack_into("<f", content, 112, 0.0))
    warnings = collect(root, "01", "01").warnings
    assert [SODIUM in warnings[0], "scl_slope is 0" in warnings[0]] == [True, True]


def test_scaled_integers_are_scaled(tmp_path):
    image = nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), study.affine())
    image.header.set_slope_inter(0.5, 3)
    path = tmp_path / "scaled.nii"
    path.write_bytes(image.to_bytes())
    np.testing.assert_array_equal(load_checked(path)[0].ravel()[:3], [3.0, 3.5, 4.0])


def test_mirrored_storage_is_warned_of(tmp_path):
    first = check_image(study.put_image(tmp_path / "first.nii.gz"))
    mirror = study.affine() @ np.diag([-1, 1, 1, 1])
    second = check_image(study.put_image(tmp_path / "second.nii.gz", matrix=mirror))
    assert handedness_warning(first, first) is None
    assert "left and right" in str(handedness_warning(second, first))


def test_fault_of_one_participant_leaves_the_others(tmp_path):
    root = study.make_study(tmp_path)
    for name in (T1W, SODIUM):
        study.put_image(root / name.replace("-01", "-02", 1).replace("sub-01", "sub-02"))
    study.put_json(root / JSON.replace("sub-01", "sub-02"), json.loads((root / JSON).read_text()))
    (root / JSON).write_text("{")
    (root / "task-rest_bold.json").write_text("{")
    assert collect(root, "02", "01").participant == "02"
    with pytest.raises(InputError, match="not valid JSON"):
        collect(root, "01", "01")
