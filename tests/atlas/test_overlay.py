from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.atlas.overlay import merge_atlases, merge_tables
from sodium_prep.atlas.tables import COLUMNS, read_table, table_text
from sodium_prep.errors import UsageError


def table(*rows):
    return pd.DataFrame([(i, name, "both", "WM", "wm") for i, name in rows], columns=list(COLUMNS))


BASE, TRACTS, NUCLEI = table((1, "a"), (2, "b"), (1500, "c")), table((1, "t"), (7, "u")), table((10, "n"))


def test_later_atlases_replace_voxels_where_they_have_a_label():
    first = np.array([[[1, 1, 2, 1500, 0, 0]]], np.int32)
    second = np.array([[[0, 7, 1, 0, 7, 0]]], np.int32)
    third = np.array([[[0, 10, 0, 0, 0, 10]]], np.int32)
    labels, merged = merge_atlases([first, second, third], [BASE, TRACTS, NUCLEI])
    # The tracts meet label 1, so they are raised by the next thousand; the nuclei meet nothing.
    assert labels.tolist() == [[[1, 10, 2001, 1500, 2007, 10]]]
    assert labels.dtype == np.int32
    assert dict(zip(merged["index"], merged["name"], strict=True)) == {
        1: "a", 2: "b", 10: "n", 1500: "c", 2001: "t", 2007: "u",
    }  # fmt: skip
    assert list(merged.columns) == list(COLUMNS)


def test_one_atlas_stays_as_it_is(tmp_path):
    atlas = load_atlas()
    labels, merged = merge_atlases([atlas.labels], [atlas.table])
    np.testing.assert_array_equal(labels, atlas.labels)
    pd.testing.assert_frame_equal(merged, atlas.table)


def test_labels_mean_the_same_in_every_participant(tmp_path):
    """What the tables are merged to depends on no image, and survives a file."""
    merged, shifts = merge_tables([BASE, TRACTS, NUCLEI])
    assert shifts == [0, 2000, 0]
    empty = [np.zeros((1, 1, 1), np.int32)] * 3
    pd.testing.assert_frame_equal(merge_atlases(empty, [BASE, TRACTS, NUCLEI])[1], merged)
    path = tmp_path / "labels.tsv"
    path.write_text(table_text(merged))
    pd.testing.assert_frame_equal(read_table(path), merged)


def test_regions_of_the_same_name_are_refused():
    with pytest.raises(UsageError, match="two atlases have regions called a"):
        merge_tables([BASE, table((9, "a"))])
    with pytest.raises(UsageError, match="two atlases have regions called Left-Cerebral-White-Matter"):
        merge_tables([load_atlas().table, load_atlas("destrieux").table])
    with pytest.raises(ValueError, match="as many"):
        merge_atlases([np.zeros((1, 1, 1), np.int32)], [BASE, TRACTS])
