from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.errors import InputError
from sodium_prep.interfaces.base import load_json
from sodium_prep.interfaces.sodium import RegisterSodium
from tests.anat.heads import make_head, rigid, sodium_image


def test_sodium_with_left_and_right_swapped_is_refused_unless_told_otherwise(tmp_path):
    head = make_head(2.0, noise=0.03, bias=0.1, seed=9)
    sodium, affine = sodium_image(rigid([3, -2, 4], [3, -4, 5]), noise=4.0)
    images = {"in_file": (sodium[::-1], affine)}
    images |= {name: (getattr(head, name), head.affine) for name in ("t1w", "gm", "wm", "csf")}
    images["brain_mask"] = (head.brain.astype(np.uint8), head.affine)
    files = {name: str(tmp_path / f"{name}.nii.gz") for name in images}
    for name, (data, grid) in images.items():
        nib.save(nib.Nifti1Image(np.ascontiguousarray(data), grid), files[name])
    with pytest.raises(InputError, match=r"raw/sodium\.nii\.gz.*left and right swapped.*% less.*--ignore sides"):
        RegisterSodium(source="raw/sodium.nii.gz", **files).run(cwd=tmp_path)
    going_on = RegisterSodium(source="raw/sodium.nii.gz", ignore_sides=True, **files).run(cwd=tmp_path)
    report = load_json(going_on.outputs.report_file)
    assert report["reg_flagged"]
    assert any("left and right swapped" in note for note in report["reg_notes"])
