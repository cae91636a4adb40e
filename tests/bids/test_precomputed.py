"""Derivatives of several programs together, lesion masks, and the proton image of the sodium coil."""

from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.bids.inputs import collect, parse_derivatives
from sodium_prep.errors import InputError, UsageError
from tests.bids import study, subjects
from tests.bids.study import SODIUM, T1W


@pytest.fixture
def root(tmp_path):
    return study.make_study(tmp_path / "study")


def test_derivatives_option(tmp_path):
    odd = tmp_path / "a=b" / "fmriprep"
    found = parse_derivatives([f"x={tmp_path}", str(odd), f"y.1={odd}"])
    assert found == {"x": tmp_path, "fmriprep": odd, "y.1": odd}
    assert parse_derivatives(["x=here"])["x"].is_absolute()
    with pytest.raises(UsageError, match="twice"):
        parse_derivatives([f"a={tmp_path}", f"a={tmp_path}"])


def test_a_missing_data_set_is_refused(root):
    with pytest.raises(UsageError, match=r"a=/no/such/folder: is not a folder"):
        collect(root, "01", "01", derivatives=parse_derivatives(["a=/no/such/folder"]))


def test_freesurfer_labels_with_fractions_and_transform_of_others(root, tmp_path):
    grid, shape = subjects.oblique_grid()
    t1w = subjects.images()["T1w"]
    study.put_image(root / T1W, t1w, grid)
    own, prep, surfer = tmp_path / "own", tmp_path / "prep", tmp_path / "surfer"
    share = np.linspace(0, 1, t1w.size, dtype=np.float32).reshape(shape)
    tissues = {
        tissue: study.put_image(own / f"sub-01/ses-01/anat/sub-01_ses-01_label-{tissue}_probseg.nii.gz", share, grid)
        for tissue in ("CSF", "GM", "WM")
    }
    warp = prep / "sub-01/anat/sub-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5"
    warp.parent.mkdir(parents=True)
    warp.write_bytes(b"x")
    inner = subjects.put_subject(prep / "sourcedata/freesurfer/sub-01", labels="aseg")
    subjects.put_subject(surfer / "sub-01_ses-01")
    inputs = collect(root, "01", "01", derivatives={"own": own, "prep": prep, "surfer": surfer})
    found = inputs.precomputed
    assert found.probsegs == tissues
    assert found.template_xfms == {("T1w", "MNI152NLin6Asym"): warp}
    assert found.segmentation == inner / "mri/aseg.mgz"
    assert inputs.anat.path == root / T1W
    (warning,) = inputs.warnings
    assert warning.startswith(str(surfer))
    assert str(found.segmentation) in warning


def test_labels_on_the_t1w_grid_go_before_the_folder_they_came_from(root, tmp_path):
    parcels = np.where(study.noise() > 100, 1005, 17).astype(np.int32)
    aseg = study.put_image(tmp_path / "prep/sub-01/anat/sub-01_desc-aseg_dseg.nii.gz", parcels)
    prep = {"prep": tmp_path / "prep"}
    assert collect(root, "01", "01", derivatives=prep).precomputed.aparcaseg == aseg
    aparc = study.put_image(tmp_path / "prep/sub-01/anat/sub-01_desc-aparcaseg_dseg.nii.gz", parcels)
    subjects.put_subject(tmp_path / "prep/sourcedata/freesurfer/sub-01")
    inputs = collect(root, "01", "01", derivatives=prep)
    assert (inputs.precomputed.aparcaseg, inputs.precomputed.segmentation) == (aparc, None)
    assert inputs.warnings == ()


def _lesion(path, matrix=None, data=None):
    mask = np.zeros((24, 24, 24), np.uint8)
    mask[3:6, 4:7, 5:9] = 1
    return study.put_image(path, mask if data is None else data, matrix)


@pytest.mark.parametrize(
    "name",
    [
        "study/sub-01/ses-01/anat/sub-01_ses-01_T1w_label-lesion_roi.nii.gz",
        "study/sub-01/ses-01/anat/sub-01_ses-01_acq-x_label-lesion_roi.nii.gz",
        "study/sub-01/ses-01/anat/sub-01_ses-01_label-lesion_desc-manual_mask.nii.gz",
        "given/sub-01/ses-01/anat/sub-01_ses-01_space-T1w_label-lesion_mask.nii.gz",
        "given/sub-01/anat/sub-01_label-lesion_roi.nii.gz",
    ],
)
def test_lesion_masks_are_found(root, tmp_path, name):
    (tmp_path / "given").mkdir()
    path = _lesion(tmp_path / name)
    _lesion(tmp_path / "study/sub-01/ses-01/anat/sub-01_ses-01_FLAIR_label-lesion_roi.nii.gz")
    _lesion(tmp_path / "given/sub-01/anat/sub-01_space-MNI152NLin6Asym_label-lesion_mask.nii.gz")
    inputs = collect(root, "01", "01", derivatives={"given": tmp_path / "given"})
    assert inputs.lesion == path
    assert inputs.anat.path == root / T1W
    (warning,) = inputs.warnings
    assert "FLAIR_label-lesion_roi.nii.gz: is not used" in warning


def test_no_lesion(root):
    assert collect(root, "01", "01").lesion is None


def test_lesion_masks_that_cannot_be_used_are_refused(root, tmp_path):
    path = root / "sub-01/ses-01/anat/sub-01_ses-01_label-lesion_mask.nii.gz"
    moved = study.affine()
    moved[0, 3] += 1
    for spoilt, message in (
        ({"matrix": moved}, "does not lie on the grid of"),
        ({"data": np.full((24, 24, 24), 0, np.uint8)}, "same value .* Remove the mask"),
        ({"data": np.arange(24**3, dtype=np.float32).reshape(24, 24, 24) / 24**3}, "holds the values 0, "),
        ({"data": np.where(study.noise() > 100, 2, 0).astype(np.uint8)}, "holds the values 0, 2"),
    ):
        _lesion(path, **spoilt)
        with pytest.raises(InputError, match=rf"label-lesion_mask\.nii\.gz: .*{message}"):
            collect(root, "01", "01")
    _lesion(path)
    _lesion(tmp_path / "given/sub-01/ses-01/anat/sub-01_ses-01_label-lesion_mask.nii.gz")
    given = {"given": tmp_path / "given"}
    assert collect(root, "01", "01", derivatives=given).lesion == path
    _lesion(
        root / "sub-01/ses-01/anat/sub-01_ses-01_label-lesion2_mask.nii.gz",
        data=np.eye(24, dtype=np.uint8)[:, :, None].repeat(24, axis=2),
    )
    with pytest.raises(InputError, match="different masks of lesions"):
        collect(root, "01", "01", derivatives=given)


def test_proton_image_of_the_sodium_coil(root):
    folder = root / "sub-01/ses-01/anat"
    study.put_sodium(root, ReceiveCoilName="dual")

    def put(name, coil="dual", **more):
        study.put_json(folder / f"sub-01_ses-01_{name}.json", {"ReceiveCoilName": coil, **more})
        return study.put_image(folder / f"sub-01_ses-01_{name}.nii.gz")

    put("acq-array_T2w", "array")
    put("acq-dual_part-phase_T1w")
    assert collect(root, "01", "01").sodium[0].proton is None
    plain = put("acq-dual_PDw", ResonantNucleus="1H")
    assert collect(root, "01", "01").sodium[0].proton == plain
    best = put("acq-zdual_T1w")
    inputs = collect(root, "01", "01")
    assert inputs.anat.path == root / T1W
    assert inputs.sodium[0].proton == best
    best.write_bytes(b"")
    inputs = collect(root, "01", "01")
    assert inputs.sodium[0].proton == plain
    assert "acq-zdual_T1w.nii.gz: is not used as a stepping stone" in str(inputs.warnings)
    best.unlink()
    (root / SODIUM.replace(".nii.gz", ".json")).unlink()
    study.put_sodium(root)
    assert collect(root, "01", "01").sodium[0].proton is None


def test_no_stepping_stone_where_the_t1w_has_the_coil(root):
    study.put_sodium(root, ReceiveCoilName="dual")
    for name in ("T1w", "T2w"):
        study.put_image(root / T1W.replace("T1w", name))
        study.put_json(root / T1W.replace("T1w.nii.gz", f"{name}.json"), {"ReceiveCoilName": "dual"})
    assert collect(root, "01", "01").sodium[0].proton is None
