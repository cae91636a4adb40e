from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from sodium_prep.atlas.bundled import BUNDLED, load_atlas, load_template
from sodium_prep.atlas.labels import grow_labels
from sodium_prep.atlas.provide import check_sides, outside_fractions
from sodium_prep.atlas.tables import RESERVED_NAMES
from sodium_prep.errors import UsageError


@pytest.fixture(scope="module")
def template():
    return load_template()


@pytest.fixture(scope="module")
def atlas():
    return load_atlas()


def world(affine, mask):
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def test_template_is_the_icbm_brain_in_ras(template):
    assert nib.aff2axcodes(template.affine) == ("R", "A", "S")
    assert 1.80e6 < template.brain_mask.sum() < 1.86e6  # 1827 ml and the zeros in its ventricles
    # The lateral ventricles beside the midline belong to the mask, and are dark.
    assert template.brain_mask[91 - 6, 126 + 10, 72 + 15]
    assert template.t1w[91 - 6, 126 + 10, 72 + 15] < 4000


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_atlases_lie_on_the_template(template, name):
    atlas = load_atlas(name)
    assert atlas.labels.shape == template.t1w.shape
    labelled = atlas.labels > 0
    assert (labelled & ~template.brain_mask).sum() < 0.002 * labelled.sum()
    outside, strays = outside_fractions(atlas, template)
    assert outside < 0.005
    assert strays < 0.0005
    check_sides(atlas, name)
    # Published centroid of the left hippocampus in MNI: about (-25, -23, -14) mm.
    left = world(atlas.affine, atlas.labels == 17).mean(axis=0)
    assert np.allclose(left, (-25, -23, -14), atol=3)
    # The atlas explains template intensity (eta squared 0.637 for this pair; 0.43 for the wrong space).
    values = template.t1w[labelled].astype(float)
    codes = atlas.labels[labelled]
    n = np.bincount(codes)
    means = np.bincount(codes, values) / np.maximum(n, 1)
    assert np.sum(n * (means - values.mean()) ** 2) / np.sum((values - values.mean()) ** 2) > 0.6


def test_both_bundled_atlases_share_the_subcortical_structures(atlas):
    other = load_atlas("destrieux")
    subcortical = (atlas.labels > 0) & (atlas.labels < 1000)
    assert np.array_equal(subcortical, (other.labels > 0) & (other.labels < 1000))
    assert np.array_equal(other.labels[subcortical], atlas.labels[subcortical])
    # 74 parcels per hemisphere (Destrieux et al. 2010), and the medial wall.
    cortical = other.table[other.table["structure"] == "cortex"]
    assert cortical["hemisphere"].value_counts().to_dict() == {"L": 75, "R": 75}
    assert "Destrieux" in other.citation
    assert "Desikan" in atlas.citation


def test_atlas_table_is_complete_and_sided(atlas):
    table = atlas.table.set_index("index")
    assert set(np.unique(atlas.labels)) == {0, *table.index}
    assert table.loc[28, "structure"] == "deep_gm"  # VentralDC is no ventricle
    assert table.loc[4, "structure"] == "csf"
    assert table.loc[24, ["name", "structure"]].tolist() == ["Other-CSF", "csf"]
    assert not set(table["name"]) & set(RESERVED_NAMES)
    assert not table.reset_index().duplicated(["name", "hemisphere"]).any()
    assert table.loc[17, ["name", "hemisphere", "tissue", "structure"]].tolist() == [
        "Left-Hippocampus", "L", "GM", "hippocampus",
    ]  # fmt: skip
    for side, sign in (("L", -1), ("R", 1)):
        voxels = np.isin(atlas.labels, table.index[table["hemisphere"] == side])
        x = world(atlas.affine, voxels)[:, 0]
        assert np.mean(np.sign(x) == sign) > 0.99
    assert (table["structure"] == "cortex").sum() == 70


def test_grow_labels_covers_the_brain(template, atlas):
    grown = grow_labels(atlas.labels, template.brain_mask, atlas.table)
    assert np.all((grown > 0) == template.brain_mask)
    kept = (atlas.labels > 0) & template.brain_mask
    assert np.array_equal(grown[kept], atlas.labels[kept])
    grey = grow_labels(atlas.labels, template.brain_mask, atlas.table, tissue="GM")
    assert set(np.unique(grey)) - {0} == set(atlas.table.loc[atlas.table["tissue"] == "GM", "index"])


def test_grow_labels_takes_the_nearest_in_millimetres():
    labels = np.zeros((1, 9, 9), np.int32)
    labels[0, 4, 0], labels[0, 0, 4] = 1, 2
    table = pd.DataFrame({"index": [1, 2], "tissue": ["GM", "GM"]})
    grown = grow_labels(labels, np.ones_like(labels, bool), table, spacing_mm=(1, 3, 1))
    assert grown[0, 4, 4] == 1  # 4 mm to label 1, 12 mm to label 2


def test_unknown_bundled_atlas_is_refused():
    with pytest.raises(UsageError, match="desikan-killiany"):
        load_atlas("brodmann")
