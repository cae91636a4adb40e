"""Raw data of a data set to an image by every method: what is planned, and what the step leaves."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.anat.transforms import write_itk_affine
from sodium_prep.bids.inputs import collect
from sodium_prep.errors import InputError
from sodium_prep.interfaces.base import save_image
from sodium_prep.interfaces.sodium import acquisition_from, load_noise
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import decay_factor, t2star_factor
from sodium_prep.recon.raw import RawData, write_exchange
from sodium_prep.settings import Settings
from sodium_prep.workflows.planning import plan_series
from sodium_prep.workflows.sodium import _joint_reconstructions, _quantification, _reconstructions
from tests.bids import study
from tests.bids.study import KSPACE, SIDECAR, SODIUM
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory

TIMES_S = (0.0005, 0.005)
TISSUE = Relaxation(0.035, 0.02, 0.003, 0.6, citation="test")
FLUID = Relaxation(0.06, 0.06, citation="test")
BLOCK = {"Trajectory": "DA-3DPR", "ReadoutDuration": 0.01, "NominalResolution": [8.0] * 3, "LinearFraction": 0.2}
BALL, N, VOXEL_MM = Ellipsoid(40.0, (70.0, 70.0, 70.0)), 24, 8.0


def _write(path, times_s, relaxation):
    """Raw data of a ball that decays before and during the readouts."""
    trajectory = small_trajectory(1200, 160, resolution_mm=VOXEL_MM, linear_fraction=0.2)
    rng, affine = np.random.default_rng(3), np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * (N // 2)
    spectrum, sigma = BALL.spectrum(trajectory.k_per_mm), 2e3
    echoes = []
    for time_s in times_s:
        samples = spectrum * t2star_factor(time_s + trajectory.time_s, relaxation)
        kspace = (samples + sigma * complex_noise(rng, samples.shape))[None].astype(np.complex64)
        noise = (sigma * complex_noise(rng, (1, 4000))).astype(np.complex64)
        raw = RawData(kspace, trajectory, (N, N, N), (VOXEL_MM,) * 3, affine, noise, "DA-3DPR", echo_time_s=time_s)
        echoes.append(raw)
    write_exchange(path, echoes)
    return affine


def _settings(root, method):
    folders = {"bids_dir": root, "output_dir": root / "out", "work_dir": root / "work"}
    return Settings(**folders, analysis_level="participant", version="0", recon=method)


def _guide(folder, affine):
    """Inputs of a step that is guided: the ball, where it is."""
    save_image(folder / "guide.nii", np.where(_radius(affine) < 70.0, 1.0, 0.0), affine)
    write_itk_affine(folder / "to_guide.txt", np.eye(4))
    return {"guide": str(folder / "guide.nii"), "transforms": [str(folder / "to_guide.txt")]}


def _radius(affine):
    where = np.moveaxis(np.indices((N,) * 3), 0, -1) * VOXEL_MM + affine[:3, 3]
    return np.linalg.norm(where, axis=-1)


def _brightness(path, affine):
    """Mean within the ball over its value."""
    return float(nib.load(path).get_fdata()[_radius(affine) < 50.0].mean()) / BALL.value


@pytest.mark.parametrize("method", ["sense", "wavelet", "tv", "agr", "bowsher"])
def test_raw_data_become_an_image_with_its_noise_and_points_by_every_method(tmp_path, monkeypatch, method):
    root = study.make_study(tmp_path / "study")
    path = study.put_kspace(root)
    study.put_json(path.with_suffix(".json"), SIDECAR | {"EchoTime": TIMES_S[0], "SodiumAcquisition": BLOCK})
    affine = _write(path, TIMES_S[:1], FLUID)
    inputs = collect(root, "01", "01", source="kspace")
    plan = plan_series(inputs.sodium[0], inputs, _settings(root, method))
    assert (plan.rec, plan.guided) == (method, method in ("agr", "bowsher"))
    (node,) = _reconstructions(plan, "recon", method=method, kspace_filter="none", seed=42, n_threads=1)
    monkeypatch.chdir(tmp_path)
    node.interface.inputs.trait_set(**_guide(tmp_path, affine) if plan.guided else {})
    found = node.interface.run().outputs
    assert _brightness(found.out_file, affine) == pytest.approx(float(t2star_factor(TIMES_S[0], FLUID)), rel=0.01)
    assert found.psf_tissues == ["GM", "WM", "CSF"]
    noise = load_noise(found.noise_file)
    assert np.all(noise.sd > 0.0)
    assert noise.spectrum.mean() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("files", [1, 2])
def test_echoes_become_an_image_at_the_centre_of_the_excitation(tmp_path, monkeypatch, files):
    root = study.make_study(tmp_path / "study")
    (root / SODIUM).unlink()
    for number in range(files):
        name = KSPACE if files == 1 else KSPACE.replace("_kspace", f"_echo-{number + 1}_kspace")
        path = study.put_kspace(root, name)
        times = TIMES_S if files == 1 else TIMES_S[number : number + 1]
        study.put_json(path.with_suffix(".json"), SIDECAR | {"EchoTime": list(times), "SodiumAcquisition": BLOCK})
        affine = _write(path, times, TISSUE)
    inputs = collect(root, "01", "01")
    plan = plan_series(inputs.sodium[0], inputs, _settings(root, "agrdm"))
    assert (plan.rec, plan.first_method, plan.guided, len(plan.sources)) == ("agrdm", "gridding", True, files)
    quantified = _quantification(plan, (), ("none",), ()).inputs.acquisition
    assert (quantified["echo_time_s"], quantified["fitted_echo_times_s"]) == (0.0, TIMES_S)
    assert not any("is not used for TSC" in text for text in plan.warnings)

    (node,) = _joint_reconstructions(plan, 42, 1)
    step = node.interface
    monkeypatch.chdir(tmp_path)
    step.inputs.trait_set(**_guide(tmp_path, affine))
    found = step.run().outputs
    expected = decay_factor(acquisition_from(quantified), 0.003, 0.02, 0.6)
    assert _brightness(found.out_file, affine) == pytest.approx(float(expected), rel=0.01)
    inside = _radius(affine) < 50.0
    t2star, error = (nib.load(path).get_fdata() for path in found.maps)
    apparent = (TIMES_S[1] - TIMES_S[0]) / np.log(np.divide(*t2star_factor(TIMES_S, TISSUE)))
    assert np.median(t2star[inside]) == pytest.approx(apparent, rel=0.05)
    assert np.all(error[inside] > 0.0)
    assert load_noise(found.noise_file).sd.shape == (N, N, N)
    assert found.psf_tissues == ["GM", "WM", "CSF"]


def test_one_echo_is_refused_and_a_weighted_image_is_gridded(tmp_path):
    root = study.make_study(tmp_path / "study")
    path = study.put_kspace(root)
    inputs = collect(root, "01", "01")
    with pytest.raises(InputError, match="has one echo, and --recon agrdm needs two or more"):
        plan_series(inputs.sodium[0], inputs, _settings(root, "agrdm"))
    study.put_json(path.with_suffix(".json"), SIDECAR | {"InversionTime": 0.03})
    inputs = collect(root, "01", "01", source="kspace")
    plan = plan_series(inputs.sodium[0], inputs, _settings(root, "agrdm"))
    assert (plan.rec, plan.quantified) == ("gridding", plan.acquisition)
    assert any("not for weighted images" in text for text in plan.warnings)
