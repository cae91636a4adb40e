"""Maps in template space: found, put on a coarser grid, and the tissue looked up where the transform says."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from sodium_prep.anat.fields import Field, write_composite
from sodium_prep.atlas.bundled import Template
from sodium_prep.bids.outputs import write_nifti
from sodium_prep.bids.template_maps import coarse_grid, load_maps, template_maps, tissue_on_grid
from sodium_prep.errors import InputError

AFFINE = np.array([[2.0, 0, 0, -11], [0, 2.0, 0, -13], [0, 0, 2.0, -9], [0, 0, 0, 1]])
SHAPE = (12, 14, 11)


def template():
    t1w = np.ones(SHAPE, dtype=np.float32)
    t1w[:2] = 0.0
    return Template(t1w, t1w > 0, AFFINE, "Small")


def centres(grid):
    return np.argwhere(grid.brain) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def test_files_are_found_by_their_entities(tmp_path):
    names = (
        "sub-01/ses-a/anat/sub-01_ses-a_acq-na_space-Small_desc-mtc_TSCmap",
        "sub-01/ses-a/anat/sub-01_ses-a_acq-na_run-2_space-Small_TSCmap",
        "sub-02/anat/sub-02_space-Small_label-GM_desc-mg_TSCmap",
        "sub-02/anat/sub-02_space-Small_stat-stderr_TSCmap",
        "sub-02/anat/sub-02_space-T1w_TSCmap",
        "sub-02/anat/sub-02_TSCmap",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    way = tmp_path / "sub-02/anat/sub-02_from-T1w_to-Small_mode-image_xfm.h5"
    way.touch()
    found = template_maps(tmp_path)
    columns = ["participant_id", "session_id", "acquisition", "run", "space", "label", "desc", "transform"]
    assert found[columns].values.tolist() == [
        ["01", "a", "na", "2", "Small", "", "", ""],
        ["01", "a", "na", "", "Small", "", "mtc", ""],
        ["02", "", "", "", "Small", "GM", "mg", str(way)],
    ]


def test_blocks_keep_places_and_means_and_gaps(tmp_path):
    grid = coarse_grid(template(), 4.0)
    assert grid.factor == (2, 2, 2)
    x, y, z = (np.indices(SHAPE) * 2.0).astype(np.float32)
    data = 10 + 3 * (x - 11) - 2 * (y - 13) + 0.5 * (z - 9)  # linear in mm: its mean in a block is that at the centre
    data[4:6, 4:6, 4] = np.nan  # half of one block
    data[6:8, 6:8, 4:6] = 0.0  # all of the next: outside the image
    first = write_nifti(tmp_path / "a.nii.gz", data, AFFINE, 4)
    second = write_nifti(tmp_path / "b.nii.gz", data + np.where(data == 0, 0, 4).astype(np.float32), AFFINE, 4)
    found = load_maps([[first], [first, second]], grid)
    place = centres(grid)
    expected = 10 + place @ [3, -2, 0.5]
    half, gone = (np.flatnonzero((np.argwhere(grid.brain) == at).all(axis=1))[0] for at in ((2, 2, 2), (3, 3, 2)))
    assert np.isnan(found[0]).sum() == 1
    assert np.isnan(found[0, gone])
    expected[half] += 0.5  # the upper half of the block
    # The last plane of the odd axis is alone in its block.
    whole = (np.argwhere(grid.brain)[:, 2] < 5) & np.isfinite(found[0])
    assert_allclose(found[0, whole], expected[whole], rtol=1e-5)
    assert_allclose(found[1, whole], expected[whole] + 2, rtol=1e-5)
    assert_array_equal(np.isnan(found[1]), np.isnan(found[0]))


def test_smoothing_neither_fills_nor_spreads_a_gap(tmp_path):
    grid = coarse_grid(template(), 2.0)
    data = np.full(SHAPE, 40.0, dtype=np.float32)
    data[2, 2, 2], data[7, 7, 5] = np.nan, 41.0
    path = write_nifti(tmp_path / "a.nii.gz", data, AFFINE, 4)
    rough, smooth = load_maps([[path]], grid)[0], load_maps([[path]], grid, 6.0)[0]
    assert_array_equal(np.isnan(smooth), np.isnan(rough))
    assert_allclose(np.nanmin(smooth), 40.0, rtol=1e-6)
    sd = 6.0 / np.sqrt(8 * np.log(2)) / 2.0
    assert_allclose(np.nanmax(smooth) - 40.0, 1 / (sd * np.sqrt(2 * np.pi)) ** 3, rtol=0.02)


def test_tissue_is_looked_up_through_the_transform_as_blurred_as_the_image(tmp_path):
    grid = coarse_grid(template(), 4.0)
    # Points of the template to those of the anatomical image: a field, then a shift to the right by 3 mm.
    field = Field(np.zeros((*SHAPE, 3), dtype=np.float32), AFFINE)
    field.data[..., 1] = 1.5
    shift = np.eye(4)
    shift[0, 3] = 3.0
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    write_composite(folder / "sub-01_from-T1w_to-Small_mode-image_xfm.h5", [field, shift])
    fine = np.diag([1.0, 1.0, 1.0, 1.0])
    fine[:3, 3] = (-30, -30, -30)
    x = (np.indices((64, 64, 64))[0] - 30.0).astype(np.float32)
    write_nifti(folder / "sub-01_label-GM_probseg.nii.gz", (x > 2.5).astype(np.float32), fine)
    path = write_nifti(folder / "sub-01_space-Small_TSCmap.nii.gz", np.ones(SHAPE) * 40 + np.arange(11), AFFINE, 4)
    sidecar = path.with_name("sub-01_space-Small_TSCmap.json")
    sidecar.write_text(json.dumps({"PointSpreadFunction": {"fwhm_mm": {"GM": 7.0}}}))
    row = template_maps(tmp_path).iloc[0].to_dict()
    found = tissue_on_grid(row, "GM", grid)
    sd = np.sqrt(49 / (8 * np.log(2)) + 16 / 12)
    # An edge at x = 2.5 of the anatomical image (a voxel's face) lies at x = -0.5 of the template: left stays left.
    assert_allclose(found, norm.cdf((centres(grid)[:, 0] + 0.5) / sd), atol=0.01)
    assert found[np.argmax(centres(grid)[:, 0])] > 0.95
    sidecar.write_text("{}")
    with pytest.raises(InputError, match=r"fwhm_mm\.GM"):
        tissue_on_grid(row, "GM", grid)
    with pytest.raises(InputError, match="0 label-WM_probseg"):
        tissue_on_grid(row, "WM", grid)
    moved = Template(grid.template.t1w, grid.template.brain_mask, AFFINE + np.eye(4)[3] * 0.1, "Small")
    with pytest.raises(InputError, match="not that of the template Small"):
        load_maps([[path]], coarse_grid(moved, 4.0))
