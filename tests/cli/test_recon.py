"""``sodium-prep-tools recon`` on lone files: a head of two bodies whose k-space is closed form."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.cli import tools
from sodium_prep.recon.raw import read_raw, write_exchange
from tests.recon.analytic import Ellipsoid, complex_noise, raw_data, small_trajectory

N, VOXEL_MM = 30, 8.0
SHAPE, VOXELS_MM = (N,) * 3, (VOXEL_MM,) * 3
HEAD = Ellipsoid(40.0, (88.0, 76.0, 70.0), (4.0, -4.0, 3.0), 15.0)
FLUID = Ellipsoid(60.0, (30.0, 30.0, 30.0), (4.0, -4.0, 3.0))
DEEP = (HEAD.depth(SHAPE, VOXELS_MM) < 0.75) & (FLUID.depth(SHAPE, VOXELS_MM) > 1.6)
ECHO_TIMES_S, T2STAR_S = (0.0005, 0.005), 0.018


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scan without decay, and an anatomical image."""
    root = tmp_path_factory.mktemp("raw")
    ordered = small_trajectory(1600, 150, resolution_mm=VOXEL_MM)
    # Every block of consecutive readouts has to see the whole sphere.
    trajectory = replace(ordered, k_per_mm=ordered.k_per_mm[np.random.default_rng(1).permutation(1600)])
    sigma = 2.0 / np.sqrt(trajectory.n_readouts * np.sum(trajectory.weights_mm3**2))
    rng = np.random.default_rng(0)
    scan = sigma * complex_noise(rng, (1, 20_000))

    def raw(kspace, echo_time_s):
        made = raw_data(kspace[None] + sigma * complex_noise(rng, kspace[None].shape), trajectory, N, VOXEL_MM)
        noise = scan.astype(np.complex64)
        return replace(made, noise=noise, echo_time_s=echo_time_s, field_strength_t=3.0)

    still = HEAD.spectrum(trajectory.k_per_mm) + FLUID.spectrum(trajectory.k_per_mm)
    write_exchange(root / "still.npz", [raw(still, ECHO_TIMES_S[0])])
    guide = 100.0 * (HEAD.depth(SHAPE, VOXELS_MM) < 1.0) - 60.0 * (FLUID.depth(SHAPE, VOXELS_MM) < 1.0)
    nib.Nifti1Image(guide.astype(np.float32), np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])).to_filename(
        root / "t1w.nii.gz"
    )
    return root


def _tool(*words):
    with pytest.raises(SystemExit) as end:
        tools.main(["recon", *map(str, words)])
    return end.value.code


def _values(path):
    return nib.load(path).get_fdata()


def test_a_guided_image_comes_with_noise_blur_picture_and_sidecar(folder, tmp_path, capsys):
    out = tmp_path / "sodium.nii.gz"
    assert _tool(folder / "still.npz", out, "--method", "agr", "--t1w", folder / "t1w.nii.gz") == 0
    told = capsys.readouterr().out.split()
    names = ["sodium.nii.gz", "sodium_stat-stderr.nii.gz", "sodium.png", "sodium.json"]
    names += [f"sodium_label-{tissue}_psf.nii.gz" for tissue in ("GM", "WM", "CSF")]
    assert sorted(told) == sorted(str(tmp_path / name) for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert _values(out)[DEEP].mean() == pytest.approx(40.0, rel=0.01)
    assert 0.0 < _values(tmp_path / "sodium_stat-stderr.nii.gz")[DEEP].mean() < 2.0
    assert (tmp_path / "sodium.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "sodium.json").read_text())["Reconstruction"]
    assert (record["Method"], record["Strength"]) == ("agr", 0.5)
    assert set(record["PointSpreadFunctionFWHM"]) == {"GM", "WM", "CSF"}


def _two_echoes(folder, n=18, voxel_mm=13.0):
    """One file for each echo, of a coarse image."""
    line = small_trajectory(500, 80, resolution_mm=voxel_mm)
    rng, paths = np.random.default_rng(0), []
    sigma = 1.0 / np.sqrt(line.n_readouts * np.sum(line.weights_mm3**2))
    for number, echo_time_s in enumerate(ECHO_TIMES_S, start=1):
        kspace = HEAD.spectrum(line.k_per_mm) * np.exp(-(echo_time_s + line.time_s) / T2STAR_S)
        kspace = kspace + sigma * complex_noise(rng, kspace.shape)
        paths.append(folder / f"echo-{number}.npz")
        write_exchange(paths[-1], [raw_data(kspace[None], line, n, voxel_mm, echo_time_s=echo_time_s)])
    return paths, HEAD.depth((n,) * 3, (voxel_mm,) * 3) < 0.7


def test_one_file_for_each_echo_makes_an_image_without_decay_and_a_map_of_it(tmp_path, capsys):
    (first, second), within = _two_echoes(tmp_path)
    out = tmp_path / "out" / "sodium.nii.gz"
    out.parent.mkdir()
    assert _tool(second, first, out, "--method", "agrdm") == 0
    assert "no point spread function" in capsys.readouterr().err
    assert _values(out)[within].mean() == pytest.approx(40.0, rel=0.02)
    t2star = _values(out.with_name("sodium_T2starmap.nii.gz"))[within]
    assert np.nanmedian(t2star) == pytest.approx(T2STAR_S, rel=0.1)
    for name in ("sodium_stat-stderr", "sodium_stat-stderr_T2starmap"):
        assert np.nanmin(_values(out.with_name(f"{name}.nii.gz"))[within]) > 0.0
    record = json.loads(out.with_name("sodium.json").read_text())
    assert (record["EchoTime"], record["Sources"]) == (list(ECHO_TIMES_S), [second.name, first.name])
    assert record["Reconstruction"]["NoiseSD"] > 0.0
    assert json.loads(out.with_name("sodium_T2starmap.json").read_text())["Units"] == "s"


def test_a_still_head_has_no_motion_to_take_out(folder, tmp_path):
    found = []
    for blocks in (0, 3):
        out = tmp_path / f"{blocks}.nii.gz"
        assert _tool(folder / "still.npz", out, "--motion-blocks", blocks) == 0
        found.append(_values(out))
    np.testing.assert_array_equal(*found)
    record = json.loads((tmp_path / "3.json").read_text())["Reconstruction"]["MotionBlocks"]
    assert [block["Applied"] for block in record] == [False] * 3


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--method", "agr"), "needs an anatomical image"),
        (("--method", "sense", "--filter", "hamming"), "--filter: has no meaning for sense"),
        (("--method", "sense", "--strength", "1"), "--strength: has no meaning for sense"),
        (("--method", "tv", "--strength", "0"), "--strength: is 0"),
        (("--method", "agrdm", "--motion-blocks", "4"), "--motion-blocks: has no meaning for agrdm"),
        (("still.npz", "--method", "tv"), "is a second file, but tv takes one"),
        (("--threads", "0"), "--threads: is 0"),
    ],
)
def test_options_that_contradict_each_other_are_named(folder, tmp_path, capsys, words, what):
    files = [folder / "still.npz", *(folder / word for word in words if word == "still.npz")]
    rest = [word for word in words if word != "still.npz"]
    assert _tool(*files, tmp_path / "sodium.nii.gz", *rest) == 2
    assert what in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_one_echo_has_no_decay(folder, tmp_path, capsys):
    assert _tool(folder / "still.npz", tmp_path / "sodium.nii.gz", "--method", "agrdm") == 3
    assert "fewer than two echoes" in capsys.readouterr().err


def test_a_later_echo_has_the_time_of_its_own(tmp_path, capsys):
    files, _ = _two_echoes(tmp_path)
    write_exchange(tmp_path / "both.npz", [raw for file in files for raw in read_raw(file)])
    facts = {"ResonantNucleus": "23Na", "MagneticFieldStrength": 3.0, "RepetitionTime": 0.1, "FlipAngle": 90}
    (tmp_path / "both.json").write_text(json.dumps(facts | {"EchoTime": list(ECHO_TIMES_S)}))
    words = ("--echo", 2, "--sidecar", tmp_path / "both.json")
    assert _tool(tmp_path / "both.npz", tmp_path / "later.nii.gz", *words) == 0
    assert json.loads((tmp_path / "later.json").read_text())["EchoTime"] == ECHO_TIMES_S[1]
    # 500 readouts are so few that the image of a point is all streaks in its corners.
    assert "no point spread function of GM: it sums to -" in capsys.readouterr().err
    assert not list(tmp_path.glob("*_psf.nii.gz"))
