"""The step that fits echoes, and where it stands in the graph of a series."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.bids.inputs import collect
from sodium_prep.interfaces.echoes import FitEchoes
from sodium_prep.interfaces.sodium import save_noise
from sodium_prep.quant.t2star import Flag
from sodium_prep.settings import Settings
from sodium_prep.workflows.planning import plan_series
from sodium_prep.workflows.sodium import init_series_wf
from tests.bids import study

ECHOES_S = [0.0003, 0.002, 0.008, 0.025, 0.045]
SHAPE, AFFINE = (24, 24, 24), np.diag([6.0, 6.0, 6.0, 1.0])
BALL = np.linalg.norm(np.indices(SHAPE) - 11.5, axis=0) < 6.0


def _signal(time):
    return 100.0 * BALL * (0.6 * np.exp(-time / 0.0035) + 0.4 * np.exp(-time / 0.024))


def _run(folder, monkeypatch, images, **inputs):
    monkeypatch.chdir(folder)
    files = []
    for number, image in enumerate(images, start=1):
        files.append(str(folder / f"echo-{number}.nii.gz"))
        nib.save(nib.Nifti1Image(np.asarray(image, np.float32), AFFINE), files[-1])
    out = FitEchoes(in_files=files, echo_times_s=ECHOES_S, field_strength_t=3.0, **inputs).run().outputs
    maps = {Path(path).stem: nib.load(path).get_fdata() for path in out.maps}
    return maps, json.loads(Path(out.report_file).read_text())


def _noise(n_parts):
    return np.random.default_rng(0).standard_normal((n_parts, len(ECHOES_S), *SHAPE))


def test_magnitudes_give_both_models_and_the_difference(tmp_path, monkeypatch):
    real, imaginary = _noise(2)
    images = [np.hypot(_signal(t) + a, b) for t, a, b in zip(ECHOES_S, real, imaginary, strict=True)]
    maps, report = _run(tmp_path, monkeypatch, images)
    facts = report["echoes"]
    assert facts["law"] == "rician"
    np.testing.assert_allclose(facts["noise_sd"], 1.0, rtol=0.06)
    assert np.nanmedian(maps["slow_T2starmap_value"][BALL]) == pytest.approx(0.024, rel=0.05)
    assert np.nanmedian(maps["fast_T2starmap_value"][BALL]) == pytest.approx(0.0035, rel=0.05)
    assert np.nanmedian(maps["fast_fractionmap_value"][BALL]) == pytest.approx(0.6, abs=0.02)
    flags = maps["mono_fitflags_value"].astype(int)
    assert (flags[~BALL] == Flag.BELOW_NOISE).mean() > 0.99
    assert (flags[BALL] & Flag.MISFIT > 0).mean() > 0.99
    assert np.isnan(maps["all_T2starmap_value"][~BALL]).mean() > 0.99
    expected = (_signal(ECHOES_S[0]) - facts["difference_weight"] * _signal(ECHOES_S[3]))[BALL].mean()
    assert maps["difference_T2starw_value"][BALL].mean() == pytest.approx(expected, rel=0.01)
    assert facts["difference_echoes"] == [1, 4]


def test_noise_of_no_known_law_gives_no_t2star(tmp_path, monkeypatch):
    """A sum of squares of eight channels that is not said to be one."""
    parts = _noise(16)
    parts[0] += [_signal(t) for t in ECHOES_S]
    images = np.sqrt((parts**2).sum(axis=0))
    maps, report = _run(tmp_path, monkeypatch, images)
    assert maps == {}
    assert "no known law" in report["echo_notes"][0]
    told, _ = _run(tmp_path, monkeypatch, images, n_channels=8)
    assert np.nanmedian(told["slow_T2starmap_value"][BALL]) == pytest.approx(0.024, rel=0.05)


def test_images_of_our_own_bring_their_noise(tmp_path, monkeypatch):
    save_noise(tmp_path / "noise.npz", 1.0, np.ones(SHAPE), SHAPE)
    noise = [str(tmp_path / "noise.npz")] * len(ECHOES_S)
    images = [_signal(t) + a for t, a in zip(ECHOES_S, _noise(1)[0], strict=True)]
    maps, report = _run(tmp_path, monkeypatch, images, noise_files=noise)
    assert report["echoes"]["law"] == "gaussian"
    assert np.nanmedian(maps["slow_T2starmap_value"][BALL]) == pytest.approx(0.024, rel=0.05)


def test_a_series_is_planned_and_wired_by_what_it_is(tmp_path):
    root = study.make_study(tmp_path / "study")
    (root / study.SODIUM).unlink()
    for number, time in enumerate((0.0005, 0.025), start=1):
        study.put_sodium(root, study.SODIUM.replace("sodium_PDw", f"sodium_echo-{number}_MEGRE"), EchoTime=time)
    study.put_sodium(root, study.SODIUM.replace("sodium_PDw", "prepared_PDw"), InversionTime=0.034)
    folders = {"bids_dir": root, "output_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    settings = Settings(**folders, analysis_level="participant", version="0")
    inputs = collect(root, "01", "01")
    prepared, several = (plan_series(series, inputs, settings) for series in inputs.sodium)
    assert (several.weighting, several.echo_times_s, len(several.echoes)) == ("SQ", (0.0005, 0.025), 2)
    assert several.files == several.echoes[:1]
    assert (prepared.weighting, prepared.echoes, prepared.psf.kind) == ("IR", (), "")
    options = {
        "references": (),
        "estimators": ("none",),
        "groups": (),
        "contrast": "T1w",
        "in_t1w": False,
        "spaces": (),
    }
    workflow = init_series_wf(plan=several, **options)
    edges = {(a.name, b.name) for a, b in workflow._graph.edges}
    assert {("echoes", "outputnode"), ("echoes", "reports")} <= edges
    for number, time in enumerate((0.0005, 0.025), start=1):
        raw = study.put_kspace(root, study.KSPACE.replace("_kspace", f"_echo-{number}_kspace"))
        study.put_json(raw.with_suffix(".json"), study.SIDECAR | {"EchoTime": time})
    raw_plan = plan_series(collect(root, "01", "01").sodium[1], inputs, settings)
    workflow = init_series_wf(plan=raw_plan, **options)
    edges = {(a.name, b.name) for a, b in workflow._graph.edges}
    assert {(node, f"echo_{what}") for node in ("recon1", "echo2") for what in ("images", "noises")} <= edges
    other = init_series_wf(plan=prepared, **options)
    assert other.get_node("echoes") is None
    assert other.get_node("quantify").inputs.weighting == "IR"
