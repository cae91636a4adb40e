from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.atlas.bundled import load_template
from sodium_prep.atlas.templates import find_template
from sodium_prep.errors import InputError, UsageError

SHAPE = (24, 28, 22)
LAS = np.diag([-3.0, 3.0, 3.0, 1.0])


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "flow"))
    monkeypatch.setitem(__import__("sys").modules, "templateflow.api", None)
    return tmp_path / "flow"


def head_and_mask():
    grid = np.stack(np.meshgrid(*(np.arange(n) - n / 2 + 2 for n in SHAPE), indexing="ij"))
    mask = np.linalg.norm(grid, axis=0) < 8
    return np.where(mask, 100.0 + grid[0], 20.0).astype(np.float32), mask


def save(path, data, affine=LAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def store(folder, stem):
    head, mask = head_and_mask()
    save(folder / f"{stem}_T1w.nii.gz", head)
    save(folder / f"{stem}_desc-brain_mask.nii.gz", mask.astype(np.uint8))


def test_the_bundled_template_needs_no_folder(home):
    found = find_template("MNI152NLin6Asym")
    assert np.array_equal(found.t1w, load_template().t1w)


def test_templateflow_by_name_cohort_and_resolution(home):
    folder = home / "tpl-Kids"
    store(folder / "cohort-2", "tpl-Kids_cohort-2_res-01")
    store(folder, "tpl-Kids_res-2")
    about = {"Name": "Kids", "License": "CC0", "ReferencesAndLinks": ["doi:1", "doi:2"]}
    (folder / "template_description.json").write_text(json.dumps(about))
    found = find_template("Kids:cohort-2")
    assert (found.name, found.licence, found.citation) == ("Kidscohort2", "CC0", "doi:1; doi:2")
    assert [path.name for path in found.files] == [
        "tpl-Kids_cohort-2_res-01_T1w.nii.gz",
        "tpl-Kids_cohort-2_res-01_desc-brain_mask.nii.gz",
    ]
    head, mask = head_and_mask()
    # Radiological order in the file, RAS in memory; the head outside the brain is gone.
    assert np.array_equal(found.brain_mask, mask[::-1])
    assert np.array_equal(found.t1w, np.where(mask, head, 0)[::-1])
    assert np.allclose(found.affine[:, 3], [-69, 0, 0, 1])
    assert find_template("Kids:res-02").name == "Kids"
    for spec in ("Kids", "Kids:cohort-1", "Kids:res-3"):
        with pytest.raises(UsageError, match="pip install templateflow"):
            find_template(spec)


def test_stub_files_of_templateflow_are_not_read(home):
    store(home / "tpl-Kids", "tpl-Kids_res-01")
    (home / "tpl-Kids" / "tpl-Kids_res-01_T1w.nii.gz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"only tpl-Kids_res-01_desc-brain_mask.nii.gz is in .*api.get\('Kids'"):
        find_template("Kids")


def test_templateflow_is_asked_only_for_what_is_absent(home, monkeypatch):
    asked = []

    class Api:
        @staticmethod
        def get(name, **keywords):
            asked.append((name, keywords["suffix"], keywords["desc"], keywords["resolution"], keywords["cohort"]))
            store(home / "tpl-Kids" / "cohort-1", "tpl-Kids_cohort-1_res-1")

    monkeypatch.setitem(__import__("sys").modules, "templateflow.api", Api)
    first = find_template("Kids:cohort-1")
    assert asked == [("Kids", "T1w", None, 1, "1"), ("Kids", "mask", "brain", 1, "1")]
    assert np.array_equal(find_template("Kids:cohort-1").t1w, first.t1w)
    assert len(asked) == 2


@pytest.mark.parametrize("spec", ["", "../x:res-1", "Kids:size-1", "Kids:res-1:res-2", "a b", "Kids;rm"])
def test_what_is_no_name_is_refused(home, spec):
    with pytest.raises(UsageError, match="--output-spaces"):
        find_template(spec)


@pytest.mark.parametrize("mask_name", ["tpl-My_Lab_T1w_mask", "tpl-My_Lab_desc-brain_mask"])
def test_own_file_with_mask_beside_it(tmp_path, mask_name):
    head, mask = head_and_mask()
    path = save(tmp_path / "tpl-My_Lab_T1w.nii.gz", head)
    save(tmp_path / f"{mask_name}.nii.gz", mask.astype(np.uint8))
    found = find_template(path)
    assert found.name == "My"
    assert np.array_equal(found.t1w > 0, mask[::-1])
    assert len(found.files) == 2


def test_own_file_of_a_brain_alone(tmp_path):
    head, mask = head_and_mask()
    brain = np.where(mask, head, 0)
    brain[12, 14, 11] = 0
    found = find_template(str(save(tmp_path / "pig-brain_2.nii", brain)))
    assert found.name == "pigbrain2"
    assert np.array_equal(found.brain_mask, mask[::-1])


def faulty(tmp_path, kind):
    head, mask = head_and_mask()
    path = tmp_path / "x.nii.gz"
    if kind == "two volumes":
        head = np.stack([head, head], axis=-1)
    if kind == "not finite":
        head[0, 0, 0] = np.nan
    if kind == "text":
        path.write_text("no image")
    elif kind != "absent":
        save(path, head)
    if kind == "zero bytes":
        path.write_bytes(b"")
    if kind == "other grid":
        save(tmp_path / "x_mask.nii.gz", mask[1:].astype(np.uint8))
    if kind == "empty mask":
        save(tmp_path / "x_mask.nii.gz", np.zeros(SHAPE, np.uint8))
    return path


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("no mask", UsageError, "x_desc-brain_mask.nii.gz"),
        ("absent", UsageError, "no such file"),
        ("zero bytes", UsageError, "is empty"),
        ("text", InputError, "cannot be read"),
        ("two volumes", InputError, "3-D"),
        ("not finite", InputError, "NaN"),
        ("other grid", InputError, "grid is not that of"),
        ("empty mask", InputError, "it is empty"),
    ],
)
def test_faulty_files_are_refused(tmp_path, kind, error, words):
    with pytest.raises(error, match=words):
        find_template(faulty(tmp_path, kind))


def test_another_file_cannot_pass_for_the_bundled_template(tmp_path):
    head, mask = head_and_mask()
    with pytest.raises(UsageError, match="another name"):
        find_template(save(tmp_path / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz", np.where(mask, head, 0)))
