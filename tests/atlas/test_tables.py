from __future__ import annotations

import pandas as pd
import pytest

from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.atlas.groups import parcel_name
from sodium_prep.atlas.tables import (
    COLUMNS,
    complete_table,
    hemisphere_of,
    known_structure,
    read_table,
    table_text,
)
from sodium_prep.errors import InputError

ROWS = {"index": [1, 2], "name": ["a", "b"], "structure": ["cortex", "wm"]}


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        ("Left-VentralDC", "deep_gm"),
        ("Left-Lateral-Ventricle", "csf"),
        ("Left Cerebral White Matter", "wm"),
        ("ctx_rh_G_precuneus", "cortex"),
        ("Corticospinal_tract_L", "brainstem"),
        ("Posterior_limb_of_internal_capsule_R", "wm"),
        # Parts of names prove nothing.
        ("Ventral_striatum", None),
        ("CSF-like", None),
        ("Left-Hippocampus-CA1", None),
    ],
)
def test_only_whole_published_names_tell_a_structure(name, structure):
    assert known_structure(name) == structure


@pytest.mark.parametrize(
    ("name", "side", "bare"),
    [
        ("Left-Thalamus-Proper", "L", "thalamus-proper"),
        ("ctx-rh-insula", "R", "insula"),
        ("ctx_lh_G_cuneus", "L", "g_cuneus"),
        ("Uncinate_fasciculus_R", "R", "uncinate_fasciculus"),
        ("7Networks_LH_Vis_1", "L", "7networks_lh_vis_1"),
        ("R_V1_ROI", "R", "v1_roi"),
        ("HIP-lh", "L", "hip"),
        ("Brain-Stem", "both", "brain-stem"),
        ("Lingual", "both", "lingual"),
        ("area l of three", "both", "area l of three"),
    ],
)
def test_names_tell_their_side(name, side, bare):
    assert hemisphere_of(name) == side
    assert parcel_name(name) == bare


def test_a_table_is_completed_from_what_is_there():
    names = pd.DataFrame(
        {
            "index": [5, 0, 3, 2, 1],
            "name": ["left_tract ", "Background", "Right-Putamen", "fluid", "x"],
            "tissue": ["WM", "", "", "CSF", ""],
            "hemisphere": ["", "", "", "both", "R"],
        }
    )
    table = complete_table(names, "t.tsv", structure="cortex")
    assert [tuple(row) for row in table.to_numpy()] == [
        (1, "x", "R", "GM", "cortex"),
        (2, "fluid", "both", "CSF", "csf"),
        (3, "Right-Putamen", "R", "GM", "deep_gm"),
        (5, "left_tract", "L", "WM", "wm"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structure": ["cortex", "cortex"], "tissue": ["GM", "WM"]}, "not of tissue WM"),
        ({"structure": ["cortex", "neocortex"]}, "structure holds neocortex.*Use one of cortex"),
        ({"structure": ["cortex", ""]}, "structure of 'b' is not known.*column structure"),
        ({"structure": ["", ""], "tissue": ["GM", "WM"]}, "structure of 'a' is not known"),
        ({"tissue": ["GM", "Gray"]}, "tissue holds Gray"),
        ({"hemisphere": ["L", "left"]}, "hemisphere holds left"),
        ({"index": [1, 1]}, "each once"),
        ({"index": [1.5, 2.0]}, "whole number"),
        ({"index": [-1, 2]}, "whole number"),
        ({"name": ["a", "Hippocampus"]}, "holds Hippocampus, .* other names"),
        ({"name": ["a", "Lesion"]}, "holds Lesion"),
        ({"name": ["a", "CorticospinalTract"]}, "holds CorticospinalTract"),
        ({"name": ["a", "a"]}, "several labels have the name a"),
        ({"name": ["a", ""]}, "no name"),
        ({"name": ["a", "left_right_b"]}, "tells both sides.*column hemisphere"),
    ],
)
def test_faults_are_named(tmp_path, change, message):
    path = tmp_path / "mine.tsv"
    pd.DataFrame(ROWS | change).to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert caught.value.where == str(path)


def test_missing_columns_and_files_are_named(tmp_path):
    path = tmp_path / "mine.tsv"
    with pytest.raises(InputError, match="does not exist"):
        read_table(path)
    path.write_text("label\tname\n1\ta\n")
    with pytest.raises(InputError, match=r"column\(s\) index are missing"):
        read_table(path)


def test_a_list_of_labels_without_header_is_read(tmp_path):
    path = tmp_path / "list.nii.txt"
    path.write_text("0\tUnclassified\n1\tGenu_of_corpus_callosum\n\n12 Left Thalamus 2002\n")
    table = read_table(path)
    assert table["name"].tolist() == ["Genu_of_corpus_callosum", "Left Thalamus"]
    assert table["structure"].tolist() == ["wm", "deep_gm"]
    path.write_text("one two\n")
    with pytest.raises(InputError, match="a line is not a number and a name"):
        read_table(path)


def test_tables_survive_their_file(tmp_path):
    table = load_atlas().table
    path = tmp_path / "labels.tsv"
    path.write_text(table_text(table))
    pd.testing.assert_frame_equal(read_table(path), table)
    assert path.read_text().splitlines()[0] == "\t".join(COLUMNS)
