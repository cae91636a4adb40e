"""Whole studies, written to disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from sodium_prep.anat.transforms import apply_affine, read_itk_affine
from sodium_prep.bids.inputs import collect
from sodium_prep.errors import UsageError
from sodium_prep.phantom.protocol import PROTOCOLS, Lesion, Site
from sodium_prep.phantom.study import make_study
from sodium_prep.recon.raw import read_raw
from sodium_prep.recon.reconstruct import reconstruct

PROTOCOL = replace(PROTOCOLS["fast"], further_echo_times_s=(0.005,))
OPTIONS: dict[str, Any] = {
    "protocol": PROTOCOL,
    "groups": ("AD", "control"),
    "effects": {"AD": {"hippocampus": 0.2}},
    "image_part": "real",
    "t1w_voxel_mm": 2.0,
    "runs": 2,
    "seed": 11,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "study"
    return make_study(root, participants=2, kspace=True, **OPTIONS)


@pytest.fixture(scope="module")
def truth(study) -> Path:
    return study.with_name("study-truth")


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asarray(image.dataobj, dtype=np.float32), image.affine


def bids_errors(folder: Path) -> list[str]:
    found = shutil.which("bids-validator-deno") or str(Path(sys.executable).with_name("bids-validator-deno"))
    if not Path(found).exists():
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run([found, str(folder), "--json"], capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [f"{one['code']} {one.get('location', '')}" for one in issues if one["severity"] == "error"]


def regions(truth: Path, participant: str) -> dict[tuple[str, str], tuple[float, float]]:
    lines = (truth / f"sub-{participant}" / f"sub-{participant}_regions.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    return {(r["name"], r["hemisphere"]): (float(r["tsc"]), float(r["volume_mm3"])) for r in rows}


def test_study_is_valid_bids(study):
    assert bids_errors(study) == []


def test_precomputed_anatomy_is_valid_bids(truth):
    assert bids_errors(truth / "derivatives") == []


def test_app_reads_the_study_and_its_precomputed_anatomy(study, truth):
    session = collect(study, "01", None, derivatives={"phantom": truth / "derivatives"})
    (series,) = session.sodium
    assert len(series.runs) == 2
    assert len(series.runs[0].images) == 2
    assert series.runs[0].source == "kspace"
    assert session.anat.derivative == "phantom"
    assert set(session.precomputed.probsegs) == {"GM", "WM", "CSF"}
    assert session.precomputed.aparcaseg is not None
    assert "sodium" in session.precomputed.sodium_to_t1w


def test_images_lie_where_the_transform_says(study, truth):
    tsc, affine = load(truth / "sub-01" / "sub-01_space-T1w_TSCmap.nii.gz")
    image, sodium_affine = load(study / "sub-01/anat/sub-01_acq-sodium_run-1_echo-1_MEGRE.nii.gz")
    to_t1w = read_itk_affine(truth / "sub-01/sub-01_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt")
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), axis=-1)
    voxel = apply_affine(np.linalg.inv(affine) @ to_t1w @ sodium_affine, index)
    smooth = ndimage.gaussian_filter(tsc, 1.0)
    there = ndimage.map_coordinates(smooth, np.moveaxis(voxel, -1, 0), order=1)
    head = there > 5.0

    def agreement(shift):
        return np.corrcoef(np.roll(image, shift, (0, 1, 2))[head], there[head])[0, 1]

    here = agreement((0, 0, 0))
    assert here > 0.93
    for axis in range(3):
        for step in (-1, 1):
            assert agreement(tuple(step * np.eye(3, dtype=int)[axis])) < here - 0.05


def test_truth_map_agrees_with_the_region_table(study, truth):
    tsc, affine = load(truth / "sub-01/sub-01_space-T1w_TSCmap.nii.gz")
    folder = truth / "derivatives/sub-01/anat"
    white, _ = load(folder / "sub-01_label-WM_probseg.nii.gz")
    labels, _ = load(folder / "sub-01_desc-aparcaseg_dseg.nii.gz")
    table = regions(truth, "01")
    for name, label in (("Left-Cerebral-White-Matter", 2), ("Right-Cerebral-White-Matter", 41)):
        pure = (white > 0.999) & (labels == label)
        assert tsc[pure].mean() == pytest.approx(table[name, name[0]][0], rel=0.002)
    grey, _ = load(folder / "sub-01_label-GM_probseg.nii.gz")
    hippocampus = (grey > 0.999) & ndimage.binary_erosion(labels == 17)
    assert hippocampus.sum() > 50
    assert tsc[hippocampus].mean() == pytest.approx(table["Hippocampus", "L"][0], rel=0.002)
    volume = abs(np.linalg.det(affine))
    total = sum(table[name, side][1] for name, side in table if name.startswith("ctx-"))
    assert total == pytest.approx(table["Cortex", "both"][1], rel=1e-4)
    native, native_affine = load(truth / "sub-01/sub-01_acq-sodium_TSCmap.nii.gz")
    vials = (20 + 50 + 80 + 110) * np.pi * 81 * 60
    amount = native.sum(dtype=float) * abs(np.linalg.det(native_affine)) - vials
    assert amount == pytest.approx(tsc.sum(dtype=float) * volume, rel=0.005)


def test_group_effect_is_in_the_truth(truth):
    ratio = {
        p: regions(truth, p)["Hippocampus", "both"][0] / regions(truth, p)["Cortex", "both"][0] for p in ("01", "02")
    }
    assert ratio["01"] / ratio["02"] == pytest.approx(1.2, abs=0.1)


def test_white_matter_has_the_snr_asked_for(study, truth):
    first, sodium_affine = load(study / "sub-01/anat/sub-01_acq-sodium_run-1_echo-1_MEGRE.nii.gz")
    second, _ = load(study / "sub-01/anat/sub-01_acq-sodium_run-2_echo-1_MEGRE.nii.gz")
    white, affine = load(truth / "derivatives/sub-01/anat/sub-01_label-WM_probseg.nii.gz")
    to_t1w = read_itk_affine(truth / "sub-01/sub-01_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt")
    index = np.stack(np.meshgrid(*(np.arange(n) for n in first.shape), indexing="ij"), axis=-1)
    voxel = apply_affine(np.linalg.inv(affine) @ to_t1w @ sodium_affine, index)
    deep = ndimage.map_coordinates(ndimage.uniform_filter(white, 5), np.moveaxis(voxel, -1, 0), order=1) > 0.99
    assert deep.sum() > 100
    noise = np.std((first - second)[deep]) / np.sqrt(2.0)
    assert 0.5 * (first + second)[deep].mean() / noise == pytest.approx(20.0, rel=0.1)


def test_image_and_k_space_are_one_scan(study):
    image, affine = load(study / "sub-01/anat/sub-01_acq-sodium_run-1_echo-1_MEGRE.nii.gz")
    (raw,) = read_raw(study / "sourcedata/sub-01/sodium/sub-01_acq-sodium_run-1_echo-1_kspace.h5")
    np.testing.assert_allclose(raw.affine, affine, atol=1e-3)
    made = reconstruct(raw)
    # Where there is little signal the phase, and with it the real part, hangs on noise.
    head = made.magnitude > 0.3 * made.magnitude.max()
    np.testing.assert_allclose(made.image[head], image[head], atol=1e-3 * image.max())


def test_same_seed_gives_the_same_bytes_and_participants_differ(study, tmp_path):
    again = make_study(tmp_path / "again", participants=1, **OPTIONS)

    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    names = [p.relative_to(again) for p in sorted((again / "sub-01").rglob("*.*"))]
    assert len(names) == 10
    for name in names:
        assert digest(again / name) == digest(study / name), name
        if name.suffix == ".gz":
            assert digest(again / name) != digest(study / str(name).replace("sub-01", "sub-02")), name


@pytest.mark.thorough
def test_full_options_make_valid_bids(tmp_path):
    root = make_study(
        tmp_path / "full",
        participants=1,
        protocol=replace(PROTOCOLS["fast"], n_spokes=600),
        sessions=2,
        coils=2,
        transmit_peak=0.1,
        lesions=(Lesion((28.0, -20.0, 30.0), 7.0, 1.5, 0.8),),
        sites=(Site("A", gain=3.0, flip_factor=0.95),),
        t1w_voxel_mm=1.5,
        vials=(),
    )
    assert bids_errors(root) == []
    names = {path.name for path in root.rglob("sub-01_ses-02_*")}
    for wanted in ("acq-sodium_PDw.nii.gz", "acq-head_RB1COR.nii.gz", "acq-sodium_TB1map.nii.gz"):
        assert f"sub-01_ses-02_{wanted}" in names
    first, _ = load(root / "sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz")
    second, _ = load(root / "sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz")
    assert not np.array_equal(first, second)
    true = root.with_name("full-truth") / "derivatives/sub-01/ses-01/anat"
    mask, affine = load(true / "sub-01_ses-01_label-lesion_mask.nii.gz")
    volume_mm3 = mask.sum() * abs(np.linalg.det(affine[:3, :3]))
    assert volume_mm3 == pytest.approx(4.0 / 3.0 * np.pi * 7.0**3, rel=0.25)  # the head is scaled and warped
    series = collect(root, "01", "01").sodium[0]
    assert series.receive_pair is not None
    assert series.tb1map is not None


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"participants": 0}, "--participants"),
        ({"t1w_voxel_mm": 3.0}, "--t1w-voxel"),
        ({"protocol": "quick"}, "--protocol"),
        ({"effects": {"AD": {"hippocampus": 0.1}}}, "--effect"),
        ({"effects": {"control": {"hipocampus": 0.1}}}, "--effect"),
    ],
)
def test_impossible_plans_are_refused_before_anything_is_written(tmp_path, options, where):
    with pytest.raises(UsageError, match=where):
        make_study(tmp_path / "study", **options)
    assert not list(tmp_path.iterdir())
