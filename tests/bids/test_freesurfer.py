"""FreeSurfer's folders are found, read with all checks, carried to the T1w, and refused for another head."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from sodium_prep.anat.segmentation import freesurfer_table, labels_on_grid
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.bids.freesurfer import (
    check_head,
    find_subject,
    first_file,
    load_image,
    load_segmentation,
    load_segmentation_mask,
)
from sodium_prep.bids.inputs import collect
from sodium_prep.errors import InputError
from tests.bids import study, subjects

NATIVE = "sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz"


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A study whose T1w is a head on an oblique grid."""
    root = study.make_study(tmp_path_factory.mktemp("scan"))
    study.put_image(root / NATIVE, subjects.images()["T1w"], subjects.oblique_grid()[0])
    return root


def use(root, folder):
    return collect(root, "01", "01", derivatives={"freesurfer": folder})


def test_labels_come_to_the_oblique_t1w(scan, tmp_path):
    subjects.put_subject(tmp_path / "sub-01_ses-01")
    found = use(scan, tmp_path).precomputed
    mri = tmp_path / "sub-01_ses-01/mri"
    files = (found.segmentation, found.segmentation_mask, found.segmentation_t1w)
    assert files == (mri / "aparc+aseg.mgz", mri / "brainmask.mgz", mri / "orig.mgz")
    assert found.aparcaseg is None
    assert set(found.origin[path] for path in files) == {"freesurfer"}
    labels, affine = load_segmentation(files[0])
    np.testing.assert_allclose(affine, subjects.CONFORMED)
    grid, shape = subjects.oblique_grid()
    out = labels_on_grid(labels, affine, shape, grid)
    for label in (17, 53, 10, 16, 2028):
        before, after = (
            apply_affine(matrix, np.argwhere(image == label)).mean(axis=0)
            for image, matrix in ((labels, affine), (out, grid))
        )
        # A quarter of the slice thickness.
        assert np.linalg.norm(after - before) < 1.0
    # World x of the left hippocampus is negative, whatever the handedness of either grid.
    assert apply_affine(grid, np.argwhere(out == 17)).mean(axis=0)[0] < -15
    assert len(freesurfer_table(np.unique(out))) > 100


@pytest.mark.parametrize("fault", [{"shift_mm": 10.0}, {"shift_mm": 2.0}, {"flip": True}])
def test_another_place_or_side_is_refused(scan, tmp_path, fault):
    subjects.put_subject(tmp_path / "sub-01", **fault)
    with pytest.raises(InputError, match=rf"orig\.mgz: .*{NATIVE.rpartition('/')[2]} ") as refusal:
        use(scan, tmp_path)
    words = {"{'shift_mm': 10.0}": "correlation", "{'shift_mm': 2.0}": "mm, at most 1", "{'flip': True}": "mirrored"}
    assert words[str(fault)] in refusal.value.problem


def test_synthseg_has_no_image_of_its_own(scan, tmp_path):
    grid, labels = subjects.CONFORMED, subjects.images()["labels"]
    path = study.put_image(tmp_path / "sub-01_ses-01_T1w_synthseg.nii.gz", labels.astype(np.int16), grid)
    study.put_image(tmp_path / "sub-01_ses-02_T1w_synthseg.nii.gz", labels.astype(np.int16), grid)
    found = use(scan, tmp_path).precomputed
    assert (found.segmentation, found.segmentation_mask, found.segmentation_t1w) == (path, None, None)
    elsewhere = grid.copy()
    elsewhere[2, 3] += 8
    study.put_image(path, labels.astype(np.int16), elsewhere)
    with pytest.raises(InputError, match=r"synthseg\.nii\.gz: does not show the head of .* \(correlation 0\.\d"):
        use(scan, tmp_path)


@pytest.mark.parametrize(
    ("folders", "session", "expected"),
    [
        (["sub-01_ses-02", "sub-01"], "02", "sub-01_ses-02"),
        (["sub-01_ses-01", "sub-01"], "02", "sub-01"),
        (["sub-01", "sub-010"], None, "sub-01"),
        (["sourcedata/freesurfer/sub-01"], "02", "sourcedata/freesurfer/sub-01"),
        (["sub-01_ses-02.long.sub-01"], "02", None),
        (["sub-02"], "02", None),
    ],
)
def test_folders_of_a_session(tmp_path, folders, session, expected):
    for name in folders:
        path = tmp_path / name / "mri/aseg.mgz"
        path.parent.mkdir(parents=True)
        path.touch()
    warnings = []
    found = find_subject(tmp_path, "01", session, warnings)
    assert found == (tmp_path / expected if expected else None)
    assert len(warnings) == (".long." in folders[0])


def test_unfinished_and_longitudinal_base_folders_are_named(tmp_path):
    (tmp_path / "sub-01_ses-01/mri").mkdir(parents=True)
    (tmp_path / "sub-01/mri").mkdir(parents=True)
    (tmp_path / "sub-01/mri/aseg.mgz").touch()
    (tmp_path / "sub-01/base-tps").touch()
    warnings = []
    assert find_subject(tmp_path, "01", "01", warnings) is None
    assert "no segmentation" in warnings[0]
    assert "base of FreeSurfer's longitudinal stream" in warnings[1]


def test_fastsurfer_files_in_order(tmp_path):
    names = ("aparc+aseg.mgz", "aparc.DKTatlas+aseg.deep.mgz", "aseg.mgz")
    for name in names[1:]:
        (tmp_path / "mri").mkdir(exist_ok=True)
        (tmp_path / "mri" / name).touch()
    assert first_file(tmp_path, names).name == names[1]
    assert first_file(tmp_path, ("mask.mgz",)) is None


def test_masks(tmp_path):
    data = np.zeros((4, 4, 4), np.uint8)
    data[1], data[2] = 1, 110
    mask, _ = load_segmentation_mask(subjects.put_mgz(tmp_path / "brainmask.mgz", data))
    np.testing.assert_array_equal(mask, data == 110)
    mask, _ = load_segmentation_mask(subjects.put_mgz(tmp_path / "mask.mgz", np.minimum(data, 1)))
    np.testing.assert_array_equal(mask, data > 0)


def test_unknown_labels(tmp_path):
    labels = np.full((20, 20, 20), 17, np.int32)
    labels[0, 0, :2] = 999
    warnings = []
    kept, _ = load_segmentation(subjects.put_mgz(tmp_path / "a.mgz", labels), warnings)
    assert set(np.unique(kept)) == {0, 17}
    assert "999" in warnings[0]
    labels[0] = 4999
    with pytest.raises(InputError, match=r"5 % .*\(4999\)"):
        load_segmentation(subjects.put_mgz(tmp_path / "b.mgz", labels))
    with pytest.raises(InputError, match="whole numbers"):
        load_segmentation(subjects.put_mgz(tmp_path / "c.mgz", (labels / 2).astype(np.float32)))


def put(raw, offset, layout, *values):
    """The file with other values at a byte of its header."""
    new = struct.pack(f">{layout}", *values)
    return gzip.compress(raw[:offset] + new + raw[offset + len(new) :])


SPOILT = {
    "truncated stream": (lambda raw: gzip.compress(raw)[:-200], "ends too early"),
    "flipped bit": (lambda raw: gzip.compress(raw)[:-6] + b"\0\0\0\0\0\0", "is damaged"),
    "missing voxels": (lambda raw: gzip.compress(raw[:-100]), r"holds \d+ of the \d+ bytes"),
    "bomb": (lambda raw: gzip.compress(raw + bytes(2**25)), "far more than"),
    "huge": (lambda raw: put(raw, 4, "4i", 30000, 30000, 30000, 1), "above the limit"),
    "negative": (lambda raw: put(raw, 4, "4i", -4, 8, 8, 1), "not one three-dimensional"),
    "several frames": (lambda raw: put(raw, 4, "4i", 8, 8, 4, 2), "not one three-dimensional"),
    "unknown type": (lambda raw: put(raw, 20, "i", 77), "cannot be used"),
    "no place": (lambda raw: put(raw, 28, "h", 0), "nothing of its place"),
    "no size": (lambda raw: put(raw, 30, "f", 0.0), "singular affine"),
    "not gzip": (lambda raw: raw, "is damaged"),
    "web page": (lambda _: gzip.compress(b"<html>" * 100), "no MGH header"),
    "empty": (lambda _: b"", "is empty"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_damaged_files_are_refused(tmp_path, name):
    spoil, message = SPOILT[name]
    data = np.random.default_rng(0).integers(0, 90, (8, 8, 8)).astype(np.float32)
    path = subjects.put_mgz(tmp_path / "orig.mgz", data)
    np.testing.assert_array_equal(load_image(path)[0], data)
    path.write_bytes(spoil(gzip.decompress(path.read_bytes())))
    with pytest.raises(InputError, match=rf"orig\.mgz: .*{message}"):
        load_image(path)


def test_a_link_whose_content_is_not_here(scan, tmp_path):
    subject = subjects.put_subject(tmp_path / "sub-01")
    (subject / "mri/orig.mgz").unlink()
    (subject / "mri/orig.mgz").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"orig\.mgz: is a link whose content is not here"):
        use(scan, tmp_path)


def test_a_head_is_compared_with_its_own_image(scan, tmp_path):
    subject = subjects.put_subject(tmp_path / "sub-01")
    labels, orig = subject / "mri/aparc+aseg.mgz", subject / "mri/orig.mgz"
    assert check_head(labels, orig, scan / NATIVE) == []
    rolled = np.roll(subjects.images()["orig"], 20, axis=2)
    with pytest.raises(InputError, match=r"orig\.mgz: does not show the head"):
        check_head(labels, subjects.put_mgz(orig, rolled), scan / NATIVE)
