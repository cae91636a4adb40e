"""The tools beside the app."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.cli.tools import main
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.recon.raw import write_ismrmrd
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.trajectory import radial_trajectory
from tests.shared import shared_path


def _tool(capsys, *args):
    with pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_psf_prints_the_published_widths(capsys):
    code, out, _ = _tool(capsys, "psf", "--resolution", 3, "--readout", 0.01, "--linear-fraction", 0.2)
    widths = {line.split()[0]: [float(word) for word in line.split()[1:]] for line in out.splitlines()[1:]}
    assert code == 0
    assert widths["GM"][1] == pytest.approx(1.735, abs=0.01)  # DA-3DPR, p = 0.2, 10 ms
    assert widths["WM"][1] == pytest.approx(1.748, abs=0.01)
    assert widths["GM"][0] == pytest.approx(3 * widths["GM"][1], abs=0.01)


def test_psf_knows_windows_with_parameters(capsys):
    given = ("psf", "--resolution", 3, "--readout", 0.01, "--filter", "fermi")
    code, out, _ = _tool(capsys, *given, "--filter-cutoff", 0.9, "--filter-width", 0.05)
    assert code == 0
    assert 1.735 < float(out.splitlines()[1].split()[-1]) < 2.2
    code, _, err = _tool(capsys, *given, "--filter-cutoff", 0.9)
    assert code == 2
    assert "--filter-width" in err


@pytest.mark.parametrize("wrong", [("--readout", 10), ("--resolution", 0), ("--readout", -1)])
def test_psf_refuses_other_units(capsys, wrong):
    given = {"--resolution": 3, "--readout": 0.01} | {wrong[0]: wrong[1]}
    code, _, err = _tool(capsys, "psf", *(word for pair in given.items() for word in pair))
    assert code == 2
    assert wrong[0] in err


def test_recon_writes_image_and_noise(capsys, tmp_path):
    acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (8.0, 8.0, 8.0), 0.5)
    trajectory = radial_trajectory(acquisition, 1200, 64)
    k = np.linalg.norm(trajectory.k_per_mm, axis=-1)
    q = np.maximum(2 * np.pi * 60.0 * k, 1e-6)  # a ball of 60 mm
    ball = (4 / 3 * np.pi * 60.0**3 * 3 * (np.sin(q) - q * np.cos(q)) / q**3)[None].astype(np.complex64)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = -8.0 * 12
    rng = np.random.default_rng(0)
    noise = 0.1 * (rng.normal(size=(1, 4096)) + 1j * rng.normal(size=(1, 4096)))
    raw = RawData(ball, trajectory, (24, 24, 24), (8.0, 8.0, 8.0), affine, noise.astype(np.complex64), "DA-3DPR", 3.0)
    write_ismrmrd(tmp_path / "raw.h5", raw)
    code, _, err = _tool(capsys, "recon", tmp_path / "raw.h5", tmp_path / "image.nii.gz")
    assert code == 0, err
    image = nib.load(tmp_path / "image.nii.gz")
    assert np.allclose(image.affine, affine, atol=1e-3)
    # Not the centre voxel: the Gibbs ripples of a ball's whole surface meet there.
    index = np.stack(np.meshgrid(*(np.arange(24),) * 3, indexing="ij"), axis=-1)
    distance = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3], axis=-1)
    assert image.get_fdata()[distance < 45.0].mean() == pytest.approx(1.0, abs=0.03)
    assert nib.load(tmp_path / "image_stat-stderr.nii.gz").get_fdata().min() > 0.0


def test_recon_refuses_a_wrong_name(capsys, tmp_path):
    code, _, err = _tool(capsys, "recon", tmp_path / "raw.h5", tmp_path / "image.png")
    assert code == 2
    assert ".nii.gz" in err


REGION_TISSUES = {0: "extracerebral", 3: "GM", 12: "WM", 7: "CSF"}
REGION_VALUES = {0: 0.0, 3: 50.0, 12: 35.0, 7: 140.0}


def _write(path, data, voxel=3.0):
    image = nib.Nifti1Image(data, np.diag([voxel, voxel, voxel, 1.0]))
    image.set_sform(image.affine, 1)
    image.to_filename(path)
    return path


@pytest.fixture
def lone(tmp_path):
    """A ball of three tissues in air as its acquisition shows it, by the transform of the whole grid."""
    n, relaxation = 36, {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
    axis = np.arange(n) - 17.2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    labels = np.select([radius < 4, radius < 8, radius < 12], [7, 12, 3], 0).astype(np.int16)
    acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (6.0, 6.0, 6.0))
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 3.0),) * 3, indexing="ij"), axis=-1)
    image = np.zeros(labels.shape)
    for index, tissue in REGION_TISSUES.items():
        transfer = PsfModel("acquisition", acquisition).mtf(k, relaxation[tissue], (1 / 216,) * 3)
        image += np.fft.ifftn(np.fft.fftn(REGION_VALUES[index] * (labels == index)) * transfer).real
    _write(tmp_path / "image.nii.gz", image.astype(np.float32))
    _write(tmp_path / "labels.nii.gz", labels)
    rows = "".join(f"{i}\tname {i}\t{t}\n" for i, t in REGION_TISSUES.items()) + "99\tnowhere\tGM\n"
    (tmp_path / "names.tsv").write_text("index\tname\ttissue\n" + rows)
    protocol = {"MagneticFieldStrength": 3.0, "EchoTime": 0.0005, "RepetitionTime": 0.12, "FlipAngle": 90}
    block = {"Trajectory": "DA-3DPR", "ReadoutDuration": 0.01, "NominalResolution": [6.0] * 3, "KSpaceFilter": "none"}
    sidecar = {"ResonantNucleus": "23Na", **protocol, "SodiumAcquisition": block}
    (tmp_path / "scan.json").write_text(json.dumps(sidecar))
    return tmp_path


def _rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_pvc_recovers_regions_through_the_physics(capsys, lone):
    files = [lone / "image.nii.gz", lone / "labels.nii.gz", "--table", lone / "names.tsv"]
    code, _, err = _tool(capsys, "pvc", *files, "--sidecar", lone / "scan.json", "-o", lone / "out" / "regions.tsv")
    assert code == 0, err
    rows = _rows(lone / "out" / "regions.tsv")
    assert [row["index"] for row in rows[:5]] == ["0", "3", "7", "12", "99"]
    assert {row["method"] for row in rows} == {"labbe", "gtm"}
    for row in rows:
        if row["index"] == "99":
            assert (row["value"], row["flag"]) == ("n/a", "absent")
        else:
            assert float(row["value"]) == pytest.approx(REGION_VALUES[int(row["index"])], abs=0.5)
    uncorrected = {row["index"]: float(row["uncorrected"]) for row in rows if row["index"] != "99"}
    assert uncorrected["7"] < 130.0  # its surroundings are darker
    assert float(rows[1]["volume_mm3"]) == 27 * np.count_nonzero(nib.load(files[1]).dataobj == np.int16(3))
    record = json.loads((lone / "out" / "regions.json").read_text())
    assert record["PointSpreadFunction"]["nominal_resolution_mm"] == [6.0] * 3
    assert set(record["PointSpreadFunction"]["relaxation"]) == set(REGION_TISSUES.values())
    assert set(record) >= set(rows[0])


def test_pvc_takes_the_relaxation_times_of_a_protocol(capsys, lone):
    """Fluid that is said to decay like tissue is imaged wider, so its estimated value rises."""
    (lone / "study.toml").write_text("[Relaxation.CSF]\nT2starSlow = 0.01\nCitation = 'made up'\n")
    values = []
    for more in ([], ["--protocol", lone / "study.toml"]):
        args = ["--table", lone / "names.tsv", "--sidecar", lone / "scan.json", *more, "--method", "labbe"]
        code, _, err = _tool(
            capsys, "pvc", lone / "image.nii.gz", lone / "labels.nii.gz", *args, "-o", lone / f"{len(more)}.tsv"
        )
        assert code == 0, err
        values.append(next(float(r["value"]) for r in _rows(lone / f"{len(more)}.tsv") if r["index"] == "7"))
    assert values[1] > values[0] + 5.0


def test_pvc_reaches_the_published_case(capsys, tmp_path):
    """Simulated from labels at 1 mm: a Gaussian of full length leaves 0.28 % (least squares) and at most 0.51 %."""
    names = json.loads(shared_path("petpvc/regions_r36.json").read_text())
    image, masks = (shared_path(f"petpvc/{name}.nii.gz") for name in ("image_sim", "masks_r36"))
    code, _, err = _tool(capsys, "pvc", image, masks, "--psf", 6, "-o", tmp_path / "out.tsv")
    assert code == 0, err
    truth = np.array(names["truth_mM"])
    grey = np.array([name not in ("WM", "CSF", "extracerebral", "air") for name in names["regions"]])
    error = {}
    for method in ("labbe", "gtm"):
        values = np.array([float(r["value"]) for r in _rows(tmp_path / "out.tsv") if r["method"] == method])
        error[method] = np.mean(np.abs(values / np.where(grey, truth, 1.0) - 1.0)[grey])
    assert error["labbe"] == pytest.approx(0.0028, abs=5e-5)
    assert error["gtm"] < 0.0051


def _spoilt(lone, fault):
    """Arguments with one fault, and the file or option that the message names."""
    image, regions, psf, more, named = "image.nii.gz", "labels.nii.gz", ["--psf", 6], [], "bad.nii.gz"
    data = nib.load(lone / image).get_fdata().astype(np.float32)
    labels = np.asarray(nib.load(lone / regions).dataobj)
    if fault == "nan":
        data[3, 3, 3], image = np.nan, named
        _write(lone / named, data)
    elif fault in ("shape", "affine", "half", "sum", "twins"):
        regions = named
        maps = np.stack([labels == i for i in REGION_VALUES], axis=-1).astype(np.float32)
        twins = np.concatenate([maps[..., :3], maps[..., 3:] / 2, maps[..., 3:] / 2], axis=-1)
        spoilt = {"shape": labels[1:], "affine": labels, "half": labels / 2, "sum": maps[..., 1:], "twins": twins}
        _write(lone / named, spoilt[fault].astype(np.float32), 2.9 if fault == "affine" else 3.0)
    elif fault == "row":
        (lone / "bad.tsv").write_text("index\tname\n3\tone\n12\ttwo\n")
        more, named = ["--table", lone / "bad.tsv"], "bad.tsv: has no row for 7"
    elif fault == "tissue":
        psf, named = ["--sidecar", lone / "scan.json"], "--table"
    elif fault == "readout":
        sidecar = (lone / "scan.json").read_text()
        (lone / "bad.json").write_text(sidecar.replace('"ReadoutDuration": 0.01', '"DwellTime": 1e-5'))
        psf, more, named = ["--sidecar", lone / "bad.json"], ["--table", lone / "names.tsv"], "ReadoutDuration"
    elif fault == "nonlinear":
        sidecar = (lone / "scan.json").read_text()
        (lone / "bad.json").write_text(
            sidecar.replace('"ReadoutDuration"', '"NonlinearReconstruction": true, "ReadoutDuration"')
        )
        psf, more, named = ["--sidecar", lone / "bad.json"], ["--table", lone / "names.tsv"], "NonlinearReconstruction"
    elif fault == "input":
        more, named = ["--table", lone / "out.tsv"], "out.tsv"
    else:
        psf, named = {"none": ([], "--psf"), "both": (["--psf", 6, "--sidecar", lone / "scan.json"], "--psf")}.get(
            fault, (["--psf", fault], "--psf")
        )
    return [lone / image, lone / regions, *psf, *more], named


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(f, 3) for f in ("nan", "shape", "affine", "half", "sum", "twins", "row", "tissue", "readout", "nonlinear")]
    + [(f, 2) for f in ("input", "none", "both", "0", "-6")],
)
def test_pvc_refuses_in_one_line_and_writes_nothing(capsys, lone, fault, expected):
    args, named = _spoilt(lone, fault)
    before = sorted(lone.iterdir())
    code, out, err = _tool(capsys, "pvc", *args, "-o", lone / "out.tsv")
    assert (code, out, err.count("\n")) == (expected, "", 1)
    assert named in err
    assert sorted(lone.iterdir()) == before


def test_b1map_makes_a_transmit_map_that_the_app_reads(capsys, tmp_path):
    from sodium_prep.bids.sidecar import read_json
    from tests.quant.test_b1 import AFFINE, HEAD, SHAPE, TRUTH

    rng = np.random.default_rng(2)
    flip = np.deg2rad(90.0 * TRUTH)
    files = []
    for sign in (1.0, -1.0):
        signal = 50.0 * HEAD * (np.cos(2 * flip) * np.sin(flip) + 1j * sign * np.sin(2 * flip)) * np.exp(0.4j)
        files.append(signal + rng.normal(0.0, 3.0, SHAPE) + 1j * rng.normal(0.0, 3.0, SHAPE))
    images = {"plus": np.angle(files[0]), "minus": np.angle(files[1]), "magnitude": np.abs(files[0])}
    paths = {name: tmp_path / f"{name}.nii.gz" for name in images}
    for name, data in images.items():
        nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), paths[name])
    out = tmp_path / "sub-01_acq-sodium_TB1map.nii.gz"
    code, text, _ = _tool(capsys, "b1map", *paths.values(), out, "--flip", 90)
    assert (code, "spread" in text) == (0, True)
    error = nib.load(out).get_fdata() / (100.0 * TRUTH) - 1.0
    assert np.sqrt(np.mean(error[HEAD > 0.5] ** 2)) < 0.02
    assert read_json(out.with_name("sub-01_acq-sodium_TB1map.json"))["Units"] == "percent"
    nib.save(nib.Nifti1Image((1300.0 * images["plus"]).astype(np.float32), AFFINE), paths["plus"])
    code, _, err = _tool(capsys, "b1map", *paths.values(), out, "--flip", 90)
    assert (code, "not radians" in err) == (3, True)
