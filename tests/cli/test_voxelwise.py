"""The voxel-wise group level from files to files, on a small template of its own."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sodium_prep.anat.fields import write_composite
from sodium_prep.bids.outputs import json_beside, write_json, write_nifti
from sodium_prep.cli.voxelwise import compare_groups_by_voxel, z_maps_of_participants

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = (-22.0, -22.0, -22.0)
SHAPE = (12, 12, 12)
N = 17
STEM = "acq-sodium_space-Small_contrast-ADMinuscontrol"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Derivatives with 8 AD and 8 controls: atrophy on the right, a true effect on the left; the last in no group."""
    home = tmp_path_factory.mktemp("templates")
    brain = np.zeros(SHAPE, dtype=np.uint8)
    brain[1:11, 1:11, 1:11] = 1
    write_nifti(home / "tpl-Small/tpl-Small_res-01_T1w.nii.gz", brain * 100.0, AFFINE, 4)
    write_nifti(home / "tpl-Small/tpl-Small_res-01_desc-brain_mask.nii.gz", brain, AFFINE, 4)
    out = tmp_path_factory.mktemp("out")
    rng = np.random.default_rng(0)
    x = np.indices(SHAPE)[0]
    rows = []
    for number in range(1, N + 1):
        label, ill = f"{number:03d}", number <= 8
        age = 60 + number % 8
        # As wide as the image's blur, for the fraction is blurred again.
        grey = 0.8 - (0.2 * ill + 0.05 * rng.uniform()) * (x >= 8)
        tsc = 35 * grey + 140 * (1 - grey) + 8.0 * ill * (x <= 3) + 0.2 * (age - 63) + rng.standard_normal(SHAPE)
        tsc[:, :, 0] = 0.0
        if number == 16:
            tsc[:, :4] = 0.0  # a third of the brain is outside the image
        folder = out / f"sub-{label}" / "anat"
        path = write_nifti(folder / f"sub-{label}_acq-sodium_space-Small_TSCmap.nii.gz", tsc, AFFINE, 4)
        write_json(
            path.with_name(path.name.replace(".nii.gz", ".json")), {"PointSpreadFunction": {"fwhm_mm": {"GM": 0.1}}}
        )
        write_nifti(folder / f"sub-{label}_label-GM_probseg.nii.gz", grey, AFFINE)
        write_composite(folder / f"sub-{label}_from-T1w_to-Small_mode-image_xfm.h5", [np.eye(4)])
        group = "" if number == N else "AD" if ill else "control"
        rows.append({"participant_id": label, "group": group, "age": str(age), "sex": "FM"[number % 2]})
    return home, out, pd.DataFrame(rows, dtype=object)


def test_comparison_with_and_without_the_tissue(cohort, monkeypatch):
    home, out, people = cohort
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    analyses, notes = compare_groups_by_voxel(out, people, control="control", permutations=20, seed=3)
    assert [(one.tissue, one.groups, one.sizes) for one in analyses] == [
        ("", ("control", "AD"), (7, 8)),
        ("GM", ("control", "AD"), (7, 8)),
    ]
    assert len(notes) == 1
    assert notes[0].endswith("left out, covers too little of the brain: 016.")
    folder = out / "group" / "voxelwise"

    def read(model, stat):
        image = nib.load(folder / f"{STEM}_model-{model}_stat-{stat}_statmap.nii.gz")
        assert_allclose(image.affine, AFFINE)
        return image.get_fdata()

    inner = np.s_[2:-2, 2:-2]
    plain, held = read("plain", "effect"), read("GM", "effect")
    assert_allclose(plain[9:11][:, *inner].mean(), 105 * 0.2, atol=1.0)
    assert_allclose(plain[1:4][:, *inner].mean(), 8.0, atol=0.5)
    assert_allclose(held[1:4][:, *inner].mean(), 8.0, atol=0.5)
    assert np.isnan(plain[0]).all()
    assert np.isnan(plain[:, :, 0]).all()
    assert (read("plain", "logp")[1:4][:, *inner] > -np.log10(0.05)).all()
    assert (read("GM", "logp")[9:11][:, *inner] < -np.log10(0.05)).all()
    assert read("plain", "coverage").max() == 16
    assert read("plain", "coverage")[5, 2, 5] == 15
    record = json.loads((folder / f"{STEM}_model-GM_stat-t_statmap.json").read_text())
    assert record["Groups"] == {"control": 7, "AD": 8}
    assert record["Covariates"] == ["age", "sex"]
    assert (record["Seed"], record["Permutations"], record["TissueCovariate"]) == (3, 20, "GM")
    assert record["Sources"][0] == "bids::sub-001/anat/sub-001_acq-sodium_space-Small_TSCmap.nii.gz"
    assert "016" not in record["Participants"]
    for one in analyses:
        assert one.least_p == pytest.approx(1 / 21)
        assert set(one.figures) == {"slices", "glass"}
        assert all(path.read_text().startswith("<?xml") for path in one.figures.values())
        assert (one.clusters["higher_in"] == "AD").all()
        assert one.clusters.loc[0, "peak_x"] < 0 or not one.tissue
    table = (folder / f"{STEM}_model-GM_clusters.tsv").read_text().splitlines()
    assert len(table) == 1 + len(analyses[1].clusters)


def test_confounded_groups_are_told_and_not_compared(cohort, monkeypatch):
    home, out, people = cohort
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    apart = people.assign(site=people["group"].map({"AD": "A", "control": "B", "": "B"}))
    analyses, notes = compare_groups_by_voxel(out, apart, contrasts=(("control", "AD"),), tissue=None, permutations=1)
    assert analyses == []
    told = [note for note in notes if "the covariates tell the groups apart" in note]
    assert told
    assert all("AD against control" in note for note in told)


def test_z_maps_of_all_participants(cohort, monkeypatch):
    home, out, people = cohort
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    written, notes = z_maps_of_participants(out, people, control="control", covariates=["age"], voxel_mm=4.0)
    assert len(written) == N
    assert written[0] == out / "group/zmaps/sub-001_acq-sodium_space-Small_stat-z_TSCmap.nii.gz"
    assert notes == ["acq-sodium_space-Small: z-maps against 7 controls only; z is uncertain."]
    z = np.array([nib.load(path).get_fdata() for path in written])
    left = z[:, 2:4, 2:-2, 2:-2]
    assert left[:8].mean() > 2.5
    assert_allclose([left[8:15].mean(), left[8:15].std()], [0, 1], atol=0.15)
    assert np.isnan(z[15, :, :4]).all()  # scored where the image reaches, but no control
    records = [json.loads(json_beside(path).read_text()) for path in written]
    assert records[0]["Controls"] == [f"{number:03d}" for number in range(9, 16)]
    assert [one["LeaveOneOut"] for one in records] == [*[False] * 8, *[True] * 7, False, False]
