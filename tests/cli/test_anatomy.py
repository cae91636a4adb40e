"""Anatomy that comes with the data or is asked for: each option against a run, or a truth, that it must agree with."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.anat.fields import apply_to_points
from sodium_prep.atlas.bundled import load_atlas, load_template
from tests.cli import study
from tests.cli.study import TABLE

ANAT = "sub-01/anat/sub-01"


def _copy(root, folder):
    """The study and its derivatives in a place of their own, to be changed."""
    for name in ("raw", "derivatives"):
        shutil.copytree(root / name, folder / name)
    return folder


def _run(root, *extra):
    outcome = study.run_here(study.options(root, root / "out", "--participant-label", "01", *extra))
    assert outcome.code == 0, outcome.err
    return root / "out"


def _rows(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def _values(path):
    """Corrected values by region, reference by vials."""
    rows = [row for row in _rows(path) if row["estimator"] == "labbe" and row["reference"] == "vials"]
    return {(row["name"], row["hemisphere"]): float(row["tsc"]) for row in rows if row["tsc"] != "n/a"}


def test_given_images_may_be_stored_in_any_order_of_axes(root, tmp_path):
    place = _copy(root, tmp_path)
    for path in [*place.glob("derivatives/sub-01/anat/*.nii.gz"), *place.glob("raw/sub-01/anat/*_T1w.nii.gz")]:
        image = nib.load(path)
        turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "S", "L")))
        nib.save(turned, path)
    out = _run(place)
    assert _values(out / TABLE.format("01")) == pytest.approx(_values(root / "out" / TABLE.format("01")), rel=1e-6)


def test_freesurfer_folder_gives_what_its_labels_on_the_grid_give(root, tmp_path):
    place = _copy(root, tmp_path)
    labels = place / f"derivatives/{ANAT}_desc-aparcaseg_dseg.nii.gz"
    mri = tmp_path / "subjects" / "sub-01" / "mri"
    mri.mkdir(parents=True)
    for source, name in ((labels, "aparc+aseg"), (place / f"raw/{ANAT}_T1w.nii.gz", "orig")):
        image = nib.load(source).as_reoriented(nib.orientations.axcodes2ornt(("L", "I", "A")))
        data = np.asarray(image.dataobj)
        kind = np.int32 if name == "aparc+aseg" else np.float32
        nib.save(nib.MGHImage(data.astype(kind), image.affine), mri / f"{name}.mgz")
    labels.unlink()
    given = f"given={place / 'derivatives'}"
    out = _run(place, "-d", given, f"freesurfer={tmp_path / 'subjects'}")
    ours, theirs = _values(out / TABLE.format("01")), _values(root / "out" / TABLE.format("01"))
    both = set(ours) & set(theirs)
    assert len(both) > 60
    assert {key: ours[key] for key in both} == pytest.approx({key: theirs[key] for key in both}, rel=1e-6)


def test_lesion_mask_is_found_and_has_a_row(root, tmp_path):
    place = _copy(root, tmp_path)
    t1w = nib.load(place / f"raw/{ANAT}_T1w.nii.gz")
    centres = np.indices(t1w.shape).reshape(3, -1).T @ t1w.affine[:3, :3].T + t1w.affine[:3, 3]
    ball = (np.linalg.norm(centres - (28.0, -20.0, 25.0), axis=1) < 15.0).reshape(t1w.shape)
    nib.save(nib.Nifti1Image(ball.astype(np.uint8), t1w.affine), place / f"raw/{ANAT}_label-lesion_roi.nii.gz")
    out = _run(place)
    values = _values(out / TABLE.format("01"))
    assert ("Lesion", "both") in values
    (volume,) = {float(row["volume_mm3"]) for row in _rows(out / TABLE.format("01")) if row["name"] == "Lesion"}
    assert volume == pytest.approx(ball.sum() * 64.0, rel=1e-6)
    saved = nib.load(out / f"{ANAT}_label-lesion_mask.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj) > 0, ball)
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "lesion" in page.lower()


def test_groups_and_an_atlas_laid_over_another(root, tmp_path):
    atlas = load_atlas()
    core = np.where(atlas.labels == 41, 1, 0).astype(np.int16)  # right white matter
    x = np.indices(core.shape)[1] * atlas.affine[1, 1] + atlas.affine[1, 3]
    core[x < 0] = 0
    image = tmp_path / "space-MNI152NLin6Asym_tracts.nii.gz"
    nib.save(nib.Nifti1Image(core, atlas.affine), image)
    image.with_name("space-MNI152NLin6Asym_tracts.tsv").write_text(
        "index\tname\themisphere\tstructure\n1\tFrontTract\tR\twm\n"
    )
    place = _copy(root, tmp_path / "place")
    # The first atlas comes as labels of the participant, the second by the way from the template: here the identity.
    anat = place / "derivatives" / "sub-01" / "anat"
    for ends in ("from-T1w_to-MNI152NLin6Asym", "from-MNI152NLin6Asym_to-T1w"):
        identity = place / f"derivatives/{ANAT}_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt"
        shutil.copy(identity, anat / f"sub-01_{ends}_mode-image_xfm.txt")
    out = _run(place, "--atlas", "desikan-killiany", str(image), "--regions", "ad", "als")
    (table,) = out.glob("sub-01/anat/*_tsc.tsv")
    values = _values(table)
    for name in ("FrontTract", "ADSignature", "MesialTemporal", "MotorCortex", "CorpusCallosum", "Cortex"):
        assert any(key[0] == name for key in values), name
    assert not any(key[0] == "ParietalLobe" for key in values)
    groups = {group["Name"]: group for group in json.loads(table.with_suffix(".json").read_text())["Groups"]}
    assert "precentral" in str(groups["MotorCortex"]["Parts"])
    assert "ParietalLobe" not in groups
    before = _values(root / "out" / TABLE.format("01"))
    same = [("Cortex", "both"), ("Hippocampus", "L"), ("CSF", "both"), ("ctx-lh-precentral", "L")]
    assert {key: values[key] for key in same} == pytest.approx({key: before[key] for key in same}, rel=0.01)


def test_corrected_maps_are_written_beside_the_others(root, tmp_path):
    place = _copy(root, tmp_path / "place")
    out = _run(place, "--pvc", "mg", "rbv", "rl")
    rows = _rows(out / TABLE.format("01"))
    assert {row["estimator"] for row in rows} == {"none", "mg"}
    (cortex,) = (
        float(row["tsc"]) for row in rows
        if (row["name"], row["hemisphere"], row["estimator"], row["reference"]) == ("Cortex", "both", "mg", "vials")
    )  # fmt: skip
    for space in ("", "_space-T1w"):
        plain = nib.load(out / f"{ANAT}_acq-sodium{space}_TSCmap.nii.gz")
        for name, label in (("mg", "_label-GM"), ("rbv", ""), ("rl", "")):
            path = out / f"{ANAT}_acq-sodium{space}{label}_desc-{name}_TSCmap.nii.gz"
            image = nib.load(path)
            assert image.shape == plain.shape
            found = np.asarray(image.dataobj)
            assert 0.02 < np.isfinite(found).mean() < 0.5
            if name == "mg":
                assert np.nanmedian(found) == pytest.approx(cortex, rel=0.1)  # gaps are no zeros, in any space
            sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
            assert (sidecar["Units"], sidecar["PartialVolumeCorrection"]["Name"]) == ("mmol/L", name)


@pytest.mark.slow
@pytest.mark.thorough
def test_map_in_a_template_of_ones_own_lies_where_the_template_lies(root, tmp_path):
    # The user's template is the bundled one, moved and stretched: what belongs where is known.
    template = load_template()
    stretch = np.diag([1.06, 0.95, 1.04, 1.0])
    stretch[:3, 3] = 4.0, -6.0, 5.0
    moved = stretch @ template.affine
    coarse = slice(None, None, 2)
    grid = moved @ np.diag([2.0, 2.0, 2.0, 1.0])
    image = tmp_path / "tpl-mine_T1w.nii.gz"
    nib.save(nib.Nifti1Image(template.t1w[coarse, coarse, coarse], grid), image)
    place = _copy(root, tmp_path / "place")
    out = _run(place, "--output-spaces", "MNI152NLin6Asym", str(image), "--sloppy", "--pvc", "labbe", "mg", "rbv")
    first, back = (out / f"{ANAT}_from-{ends}_mode-image_xfm.h5" for ends in ("T1w_to-MNI152NLin6Asym", "T1w_to-mine"))
    points = np.array([[0.0, -20.0, 10.0], [30.0, 20.0, 20.0], [-40.0, -40.0, 0.0], [20.0, -60.0, 40.0]])
    there = points @ stretch[:3, :3].T + stretch[:3, 3]
    assert np.abs(apply_to_points(points, [first]) - apply_to_points(there, [back])).max() < 1.5
    shape = nib.load(out / f"{ANAT}_acq-sodium_space-mine_TSCmap.nii.gz").shape
    for end in ("label-GM_desc-mg", "desc-rbv"):
        assert nib.load(out / f"{ANAT}_acq-sodium_space-mine_{end}_TSCmap.nii.gz").shape == shape


@pytest.mark.slow
@pytest.mark.thorough
def test_sessions_of_a_participant_have_the_same_regions(root, tmp_path):
    place = tmp_path / "place"
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(0.2), -np.sin(0.2), 0.0], [np.sin(0.2), np.cos(0.2), 0.0], [0.0, 0.0, 1.0]]
    turn[:3, 3] = 6.0, -5.0, 4.0
    for session, motion in (("1", np.eye(4)), ("2", turn)):
        for path in (root / "raw/sub-01/anat").iterdir():
            name = path.name.replace("sub-01_", f"sub-01_ses-{session}_")
            goal = place / "raw" / "sub-01" / f"ses-{session}" / "anat" / name
            goal.parent.mkdir(parents=True, exist_ok=True)
            if path.name.endswith(".nii.gz"):
                image = nib.load(path)
                nib.save(nib.Nifti1Image(np.asarray(image.dataobj), motion @ image.affine), goal)
            else:
                shutil.copy(path, goal)
    shutil.copy(root / "raw/dataset_description.json", place / "raw")
    arguments = [str(place / "raw"), str(place / "out"), "participant", "-w", str(place / "work")]
    arguments += [
        "--longitudinal",
        "--sloppy",
        "--reference",
        "CSF",
        "--output-spaces",
        "T1w",
        "--skip-bids-validation",
    ]
    outcome = study.run_here([*arguments, "--nprocs", "2"])
    assert outcome.code == 0, outcome.err
    centres = []
    for session in ("1", "2"):
        path = place / f"out/sub-01/ses-{session}/anat/sub-01_ses-{session}_seg-DesikanKilliany_dseg.nii.gz"
        image = nib.load(path)
        labels = np.asarray(image.dataobj)
        here = [np.argwhere(np.isin(labels, part)).mean(axis=0) for part in ([17], [53], [10], [49], [1024], [2024])]
        centres.append(np.array(here) @ image.affine[:3, :3].T + image.affine[:3, 3])
    moved = centres[0] @ turn[:3, :3].T + turn[:3, 3]
    assert np.linalg.norm(moved - centres[1], axis=1).max() < 0.5


@pytest.mark.slow
@pytest.mark.thorough
def test_head_with_left_and_right_swapped_is_refused_alone(root, tmp_path):
    place = tmp_path / "place"
    shutil.copytree(root / "raw", place / "raw")
    path = place / f"raw/{ANAT}_T1w.nii.gz"
    image = nib.load(path)
    mirrored = np.ascontiguousarray(np.asarray(image.dataobj)[::-1])
    nib.save(nib.Nifti1Image(mirrored, image.affine), path)
    arguments = [str(place / "raw"), str(place / "out"), "participant", "-w", str(place / "work"), "--sloppy"]
    outcome = study.run_here([*arguments, "--participant-label", "01", "--skip-bids-validation", "--nprocs", "2"])
    assert outcome.code == 4
    assert "left and right seem to be swapped" in outcome.err
    assert Path(path).name in outcome.err
    assert "--ignore sides" in outcome.err
    assert not list((place / "out").glob("sub-01/anat/*_tsc.tsv"))
