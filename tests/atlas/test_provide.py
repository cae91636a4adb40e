"""Atlases of every kind through the one door, and what becomes of faulty ones."""

from __future__ import annotations

import json
import sys
import types

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.atlas.groups import GROUPS
from sodium_prep.atlas.overlay import merge_atlases
from sodium_prep.atlas.provide import atlas_files, atlas_record, find_atlas, lost_note, lost_regions
from sodium_prep.errors import InputError, UsageError
from tests.anat.colin import mricron_path

SHAPE, MM = (46, 55, 46), 4.0
"""FSL's field of view at 4 mm, stored with x from right to left as FSL does."""
STORED = np.diag([-MM, MM, MM, 1.0])
STORED[:3, 3] = [90.0, -126.0, -72.0]
ROWS = {"index": [1, 2], "name": ["left thing", "right thing"], "structure": ["deep_gm", "deep_gm"]}
BOXES = {1: (-40.0, -10.0), 2: (10.0, 50.0)}  # mm of x


def boxes(places=BOXES, y=(-40.0, 20.0), z=(-10.0, 30.0)):
    """Labels that fill boxes given in millimetres of MNI space, on the stored grid."""
    points = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1) @ STORED[:3, :3] + STORED[:3, 3]
    out = np.zeros(SHAPE, np.uint8)
    for label, x in places.items():
        inside = [(points[..., i] >= low) & (points[..., i] < high) for i, (low, high) in enumerate((x, y, z))]
        out[np.all(inside, axis=0)] = label
    return out


def write(folder, data, table=ROWS, *, name="mine_dseg", affine=STORED, record=None):
    path = folder / f"{name}.nii.gz"
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    pd.DataFrame(table).to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    if record:
        (folder / f"{name}.json").write_text(json.dumps(record))
    return str(path)


def test_labels_keep_their_place_and_volume(tmp_path):
    spec = write(tmp_path, boxes())
    atlas = find_atlas(spec)
    assert nib.aff2axcodes(atlas.affine) == ("R", "A", "S")
    for label, (low, high) in BOXES.items():
        assert np.count_nonzero(atlas.labels == label) == np.count_nonzero(boxes() == label)
        x = np.argwhere(atlas.labels == label)[:, 0] * MM + atlas.affine[0, 3]
        assert low <= x.min() < x.max() < high
    assert atlas.table["hemisphere"].tolist() == ["L", "R"]
    assert (atlas.name, atlas.space, atlas.notes) == ("mine_dseg", "MNI152NLin6Asym", ())
    assert atlas_files(spec) == (tmp_path / "mine_dseg.nii.gz", tmp_path / "mine_dseg.tsv")
    assert atlas_files("destrieux") == ()


def test_what_is_said_of_an_atlas_travels(tmp_path):
    said = {
        "Name": "Things", "Version": "2.1", "License": "CC0", "ReferencesAndLinks": ["Doe 2020", "https://example.org"],
        "Structure": "deep_gm",
    }  # fmt: skip
    atlas = find_atlas(write(tmp_path, boxes(), {k: v for k, v in ROWS.items() if k != "structure"}, record=said))
    assert atlas.table["structure"].tolist() == ["deep_gm", "deep_gm"]
    assert atlas_record(atlas) == {
        "Name": "Things", "Space": "MNI152NLin6Asym", "Version": "2.1", "License": "CC0",
        "Citation": "Doe 2020; https://example.org",
    }  # fmt: skip
    bundled = atlas_record(load_atlas())
    assert {"Version", "License", "Citation"} <= set(bundled)


@pytest.mark.parametrize(
    ("name", "record", "space"),
    [
        ("space-MNI152NLin2009cAsym_atlas-x_dseg", None, "MNI152NLin2009cAsym"),
        ("tpl-MNIInfant_cohort-2_atlas-x_dseg", None, "MNIInfant:cohort-2"),
        ("mine", {"Space": "MNI152NLin2009cSym"}, "MNI152NLin2009cSym"),
        ("mine", {"SpatialReference": "https://host/tpl-MNI305/tpl-MNI305_T1w.nii.gz"}, "MNI305"),
    ],
)
def test_space_comes_from_name_or_record(tmp_path, name, record, space):
    assert find_atlas(write(tmp_path, boxes(), name=name, record=record)).space == space


def test_an_unknown_space_is_asked_for_and_a_contradiction_refused(tmp_path):
    elsewhere = STORED.copy()
    elsewhere[1, 3] += 1.0
    with pytest.raises(UsageError, match=r"space of the atlas is not known.*46x55x46.*space-MNI152NLin6Asym"):
        find_atlas(write(tmp_path, boxes(), affine=elsewhere))
    spec = write(tmp_path, boxes(), name="space-MNI305_dseg", record={"Space": "MNI152Lin"})
    with pytest.raises(InputError, match="tells the space MNI305, its JSON file MNI152Lin"):
        find_atlas(spec)
    with pytest.raises(InputError, match="Space is"):
        find_atlas(write(tmp_path, boxes(), name="other", record={"Space": "in the head"}))


def test_an_atlas_outside_the_brain_is_refused_with_the_figure(tmp_path):
    with pytest.raises(InputError, match=r"\d+ % of its labels lie more than 4 mm outside the brain"):
        find_atlas(write(tmp_path, boxes(z=(70.0, 100.0))))
    loose = find_atlas(write(tmp_path, boxes({1: (-72.0, 0.0), 2: (0.0, 72.0)}, z=(-10.0, 10.0))))
    assert any("outside the brain of MNI152NLin6Asym" in note for note in loose.notes)


def test_a_mirrored_atlas_is_refused(tmp_path):
    with pytest.raises(InputError, match="100 % of the voxels of left and right labels lie on the other side"):
        find_atlas(write(tmp_path, boxes()[::-1].copy()))


def test_rows_without_voxels_are_left_out_with_a_note(tmp_path):
    table = {"index": [1, 2, 3], "name": ["left a", "right b", "gone"], "structure": ["wm"] * 3}
    atlas = find_atlas(write(tmp_path, boxes(), table))
    assert atlas.table["index"].tolist() == [1, 2]
    assert atlas.notes == ("1 region(s) of mine_dseg.tsv have no voxel and are left out: gone.",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (boxes({1: (-40, 0), 7: (0, 40)}), r"mine_dseg.tsv: no row for label\(s\) 7 of mine_dseg.nii.gz"),
        (boxes() * np.float32(0.5), "not whole numbers from 0"),
        (-boxes().astype(np.int16), "not whole numbers from 0"),
        (np.where(boxes() > 0, np.float32(1), np.float32(np.nan)), "not whole numbers from 0"),
        (np.zeros(SHAPE, np.uint8), "no voxel has a label"),
        (boxes()[..., 0], "it has shape"),
    ],
)
def test_faulty_images_are_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        find_atlas(write(tmp_path, data))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"no atlas 'brodmann'.*destrieux"):
        find_atlas("brodmann")
    with pytest.raises(InputError, match=r"mine\.tsv: does not exist"):
        find_atlas(str(tmp_path / "mine.nii.gz"))
    spec = write(tmp_path, boxes())
    (tmp_path / "mine_dseg.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        find_atlas(spec)
    (tmp_path / "mine_dseg.json").write_text("{")
    with pytest.raises(InputError, match=r"mine_dseg.json: is not JSON"):
        find_atlas(spec)


@pytest.mark.parametrize("full", [1.0, 100.0])
def test_probabilities_become_the_likeliest_region_above_a_quarter(tmp_path, full):
    inside = boxes() > 0
    maps = np.zeros((*SHAPE, 2), np.float32)
    shares = np.random.default_rng(3).dirichlet([1.0, 1.0, 2.0], size=int(inside.sum()))
    maps[inside] = full * shares[:, :2]
    table = {"index": [1, 2], "name": ["a", "b"], "structure": ["cortex", "cortex"]}
    atlas = find_atlas(write(tmp_path, maps, table))
    truth = np.where(shares[:, :2].max(axis=1) > 0.25, shares[:, :2].argmax(axis=1) + 1, 0)
    stored = atlas.labels[::-1]  # back to the order of the file
    np.testing.assert_array_equal(stored[inside], truth)
    assert not stored[~inside].any()
    assert atlas_record(atlas)["ProbabilityThreshold"] == 0.25


@pytest.mark.parametrize(
    ("factor", "names", "message"),
    [
        (1.0, ["a", "b"], "has 3 volumes, and its table has 2 rows"),
        (200.0, ["a", "b", "c"], "volume 1 has values that are no probabilities"),
        (-1.0, ["a", "b", "c"], "volume 1 has values that are no probabilities"),
    ],
)
def test_faulty_probabilities_are_refused(tmp_path, factor, names, message):
    maps = np.repeat((boxes() > 0)[..., None].astype(np.float32) * np.float32(factor), 3, axis=3)
    table = {"index": range(1, len(names) + 1), "name": names, "structure": ["cortex"] * len(names)}
    with pytest.raises(InputError, match=message):
        find_atlas(write(tmp_path, maps, table))


def test_regions_that_warping_lost_are_told():
    table = load_atlas().table
    labels = np.array([[[0, 17, 9999]]], np.int32)
    lost = lost_regions(table, labels)
    assert len(lost) == len(table) - 1
    assert "Left-Hippocampus" not in lost
    assert lost_note(["a", "b"]) == "2 region(s) of the atlas have no voxel here: a, b."
    assert lost_note([]) == ""


def flow(home, name="MNI152NLin6Asym", atlas="Schaefer2018", desc="100Parcels7Networks"):
    """A folder of TemplateFlow with one atlas at two resolutions and one table for both."""
    folder = home / f"tpl-{name}"
    entities = f"atlas-{atlas}_desc-{desc}_dseg"
    coarse = boxes()
    table = pd.DataFrame({"index": [1, 2], "name": ["7Networks_LH_Vis_1", "7Networks_RH_Vis_1"], "color": "#123456"})
    write(folder, coarse, table, name=f"tpl-{name}_res-02_{entities}")
    fine = np.kron(coarse, np.ones((2, 2, 2), np.uint8))
    affine = STORED @ np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] -= affine[:3, :3] @ [0.5, 0.5, 0.5]
    write(folder, fine, table, name=f"tpl-{name}_res-01_{entities}", affine=affine)
    for path in folder.glob("*.tsv"):
        path.replace(folder / f"tpl-{name}_{entities}.tsv")
    about = {"Name": "a template", "License": "CC0", "TemplateFlowVersion": "1.0.0", "ReferencesAndLinks": ["Doe 2011"]}
    (folder / "template_description.json").write_text(json.dumps(about))
    return folder


def test_templateflow_atlases_are_found_by_their_entities(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    folder = flow(tmp_path)
    atlas = find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018")
    assert atlas.labels.shape == tuple(2 * n for n in SHAPE)  # the finest
    assert atlas.table["structure"].tolist() == ["cortex", "cortex"]
    assert atlas.table["hemisphere"].tolist() == ["L", "R"]
    assert atlas.licence == "CC0"
    assert atlas.citation == "Doe 2011"
    coarse = find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018:res-2")
    assert coarse.labels.shape == SHAPE
    # What a file says of the atlas itself goes before what is said of its template.
    own = folder / "tpl-MNI152NLin6Asym_atlas-Schaefer2018_dseg.json"
    own.write_text(json.dumps({"License": "MIT", "ReferencesAndLinks": ["Schaefer 2018"]}))
    told = find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018")
    assert (told.licence, told.citation, told.version) == ("MIT", "Schaefer 2018", "1.0.0")


def test_templateflow_specifications_that_cannot_be_met_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    flow(tmp_path)
    flow(tmp_path, desc="200Parcels7Networks")
    with pytest.raises(UsageError, match="fits several atlases"):
        find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018")
    found = find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018:desc-200Parcels7Networks")
    assert "200Parcels" in found.name
    for spec in ("templateflow:MNI152NLin6Asym", "templateflow::atlas-x", "templateflow:MNI305:atlas"):
        with pytest.raises(UsageError, match="templateflow:NAME:atlas-X"):
            find_atlas(spec)
    with pytest.raises(UsageError, match="no structure neocortex"):
        find_atlas("templateflow:MNI305:atlas-x:structure-neocortex")
    flow(tmp_path, name="MNI305", atlas="Other")
    with pytest.raises(InputError, match="structure of '7Networks_LH_Vis_1' is not known"):
        find_atlas("templateflow:MNI305:atlas-Other")
    told = find_atlas("templateflow:MNI305:atlas-Other:structure-deep_gm")
    assert (told.space, told.table["structure"].tolist()) == ("MNI305", ["deep_gm", "deep_gm"])


def test_an_absent_templateflow_atlas_tells_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "templateflow", None)  # not installed
    with pytest.raises(UsageError, match=r"is not in .*pip install templateflow.*TEMPLATEFLOW_HOME"):
        find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018")
    # TemplateFlow puts empty files in the place of those that it has not fetched.
    for path in flow(tmp_path).glob("*.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"is not in"):
        find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018")


def jhu_names():
    path = mricron_path("JHU-WhiteMatter-labels-2mm.nii.txt")
    return [line.split("\t") for line in path.read_text().splitlines() if line.strip()]


def test_the_jhu_map_of_debian_is_refused_for_its_sides():
    """Its left and right are swapped (Rohlfing 2013, Front Neurosci 7:4)."""
    image = mricron_path("JHU-WhiteMatter-labels-2mm.nii.gz")
    assert atlas_files(str(image))[1] == mricron_path("JHU-WhiteMatter-labels-2mm.nii.txt")
    with pytest.raises(InputError, match="lie on the other side"):
        find_atlas(str(image))


def test_a_jhu_map_gives_the_tracts_of_als(tmp_path):
    source = nib.load(mricron_path("JHU-WhiteMatter-labels-2mm.nii.gz"))
    data = np.asarray(source.dataobj)
    other = {"_L": "_R", "_R": "_L"}
    rows = [(int(i), name[:-2] + other[name[-2:]] if name[-2:] in other else name) for i, name in jhu_names()]
    atlas = find_atlas(write(tmp_path, data, pd.DataFrame(rows, columns=["index", "name"]), affine=source.affine))
    assert len(atlas.table) == 48
    assert np.array_equal(np.bincount(atlas.labels.ravel()), np.bincount(data.ravel()))

    base = load_atlas()
    coarse = base.labels[::2, ::2, ::2]  # the 2 mm grid lies on every second voxel, up to 1 mm in x
    labels, table = merge_atlases([coarse, atlas.labels], [base.table, atlas.table])
    columns = [table[column].tolist() for column in ("name", "hemisphere", "structure", "tissue")]
    corpus, tract = (group for group in GROUPS["als"] if group.tissue == "WM")
    for side, sign in (("L", -1), ("R", 1)):
        members = table["index"].to_numpy()[list(tract.members(*columns, side))]
        assert members.size == 3
        voxels = np.argwhere(np.isin(labels, members))
        assert np.all(sign * (voxels[:, 0] * 2.0 + atlas.affine[0, 3]) >= 0.0)
        # From the pons, z = -35 mm, to the internal capsule, z = 10 mm.
        z = voxels[:, 2] * 2.0 + atlas.affine[2, 3]
        assert z.min() < -35.0
        assert z.max() > 10.0
    assert len(corpus.members(*columns, "both")) == 5 + 3


def test_an_absent_templateflow_atlas_is_fetched_where_the_package_is(tmp_path, monkeypatch):
    """The client is a stand-in that puts files where the true one does; its keywords are those of templateflow 25.1."""
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    asked = []

    def get(template, **entities):
        asked.append((template, entities))
        flow(tmp_path)

    monkeypatch.setitem(sys.modules, "templateflow", types.ModuleType("templateflow"))
    monkeypatch.setitem(sys.modules, "templateflow.api", types.SimpleNamespace(get=get))
    atlas = find_atlas("templateflow:MNI152NLin6Asym:atlas-Schaefer2018:desc-100Parcels7Networks:res-02")
    assert atlas.labels.shape == SHAPE
    wanted = {"suffix": "dseg", "atlas": "Schaefer2018"}
    chosen = wanted | {"desc": "100Parcels7Networks"}
    assert asked == [
        ("MNI152NLin6Asym", chosen | {"resolution": 2, "extension": ".nii.gz"}),
        ("MNI152NLin6Asym", chosen | {"extension": ".tsv"}),
        ("MNI152NLin6Asym", wanted | {"extension": ".json"}),
    ]
    with pytest.raises(UsageError, match="TemplateFlow has no such atlas"):
        find_atlas("templateflow:MNI152NLin6Asym:atlas-Nowhere")
