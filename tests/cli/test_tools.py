"""The tools beside the app."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.cli.tools import main
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.raw import write_ismrmrd
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.trajectory import radial_trajectory


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
