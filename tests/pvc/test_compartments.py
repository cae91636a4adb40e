"""Compartments of a small synthetic head: every bit of every voxel has its place."""

import numpy as np
import pandas as pd
import pytest

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation
from sodium_prep.pvc.compartments import Compartments, build_compartments
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from tests.pvc import heads

TABLE = pd.DataFrame(
    [
        (1, "ctx-lh", "L", "GM", "cortex"),
        (2, "ctx-rh", "R", "GM", "cortex"),
        (3, "Left-WM", "L", "WM", "wm"),
        (4, "Right-WM", "R", "WM", "wm"),
        (5, "Left-Hippocampus", "L", "GM", "hippocampus"),
        (6, "Right-Hippocampus", "R", "GM", "hippocampus"),
        (7, "Third-Ventricle", "both", "CSF", "csf"),
        (8, "Brain-Stem", "both", "WM", "brainstem"),
        (9, "Speck", "both", "GM", "deep_gm"),
        (10, "Nowhere", "both", "GM", "deep_gm"),
    ],
    columns=["index", "name", "hemisphere", "tissue", "structure"],
)


def make_head(spacing=2.0):
    n = round(120 / spacing)
    shape = (n, n, n)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -(n - 1) / 2 * spacing

    def part(centre, axes):
        return heads.share(heads.Ellipsoid(centre, axes), shape, affine, 2)

    brain, white = part((0, 0, 0), (40, 40, 40)), part((0, 0, 0), (32, 32, 32))
    hippocampus = {s: part((x, 0, -12), (6, 9, 6)) for s, x in (("L", -16), ("R", 16))}
    ventricle, stem = part((0, 0, 10), (8, 10, 5)), part((0, 0, -26), (5, 5, 5))
    csf = np.clip(0.3 * (brain - white), 0, 1) + ventricle
    gm = brain - white - 0.3 * (brain - white) + hippocampus["L"] * 0.8 + hippocampus["R"] * 0.8
    wm = np.clip(brain - gm - csf, 0.0, 1.0)
    x = (np.arange(n) * spacing + affine[0, 3])[:, None, None] + np.zeros(shape)
    labels = np.where(brain > 0.5, np.where(x < 0, 1, 2), 0)
    labels = np.where(white > 0.5, np.where(x < 0, 3, 4), labels)
    for number, fraction in ((5, hippocampus["L"]), (6, hippocampus["R"]), (7, ventricle), (8, stem)):
        labels[fraction > 0.5] = number
    labels[n // 2, n // 2, n // 2] = 9
    head = part((0, 0, 0), (54, 54, 54))
    t1w = 1000.0 * (wm + 0.7 * gm + 0.2 * csf) + 600.0 * (head - part((0, 0, 0), (48, 48, 48)))
    return gm, wm, csf, brain >= 0.5, head > 0.5, t1w.astype(np.float32), labels.astype(np.int32), affine


def build(head, **options):
    gm, wm, csf, mask, head_mask, t1w, labels, affine = head
    return build_compartments(gm, wm, csf, mask, head_mask, t1w, labels, TABLE, affine, **options)


def dense(c: Compartments, chosen):
    out = np.zeros(c.shape)
    for i in chosen:
        np.add.at(out.reshape(-1), c.voxels[i], c.weights[i])
    return out


def named(c, *names):
    return [i for i, name in enumerate(c.names) if name in names]


@pytest.fixture(scope="module")
def head():
    return make_head()


@pytest.fixture(scope="module")
def built(head):
    return build(head)


def test_every_voxel_near_the_brain_is_filled_once(head, built):
    gm, wm, csf, mask, *_ = head
    total = dense(built, range(len(built.names)))
    distance = np.linalg.norm(np.stack(np.meshgrid(*(np.arange(60) * 2.0 - 59.0,) * 3, indexing="ij")), axis=0)
    np.testing.assert_allclose(total[distance < 58.0], 1.0, atol=0.02)
    # The fluid at the surface of the mask is free, like that outside.
    at_edge = dense(built, [i for i, name in enumerate(built.names) if name.startswith("outer-CSF-0")])
    np.testing.assert_allclose(dense(built, built.regions) + at_edge, gm + wm + csf, atol=0.01)
    outermost = mask & (distance > 38.8)
    assert outermost.sum() > 500
    np.testing.assert_allclose(at_edge[outermost], csf[outermost], rtol=1e-6)
    assert not at_edge[distance < 35.0].any()
    assert all(np.all(np.diff(v) > 0) for v in built.voxels)


def test_shares_go_to_the_structure_that_holds_them(head, built):
    gm, wm, csf, _, _, _, labels, _ = head
    left = labels == 5
    hippocampus = dense(built, named(built, "Left-Hippocampus"))
    np.testing.assert_allclose(hippocampus[left], (gm + wm)[left], atol=1e-3)
    cortex = dense(built, named(built, "ctx-lh"))
    np.testing.assert_allclose(cortex[labels == 1], gm[labels == 1], atol=1e-3)
    white = dense(built, named(built, "Left-WM"))
    np.testing.assert_allclose(white[labels == 1], wm[labels == 1], atol=2e-3)
    stem = dense(built, named(built, "Brain-Stem"))
    np.testing.assert_allclose(stem[labels == 8], (gm + wm)[labels == 8], atol=1e-3)
    sulcal = dense(built, [i for i in named(built, "Sulcal-CSF") if built.hemispheres[i] == "L"])
    inner = (labels == 1) & (dense(built, [i for i, n in enumerate(built.names) if n.startswith("outer-CSF-0")]) == 0)
    assert inner.sum() > 1000
    np.testing.assert_allclose(sulcal[inner], csf[inner], atol=1e-3)


def test_midline_ventricle_is_divided_and_keeps_its_label(head, built):
    members = named(built, "Third-Ventricle")
    assert [built.hemispheres[i] for i in members] == ["L", "R"]
    assert {built.indices[i] for i in members} == {7}
    volumes = built.volumes_mm3[members]
    np.testing.assert_allclose(volumes, volumes.mean(), rtol=0.05)


def test_specks_are_left_to_their_neighbours_and_absent_labels_stay_empty(head, built):
    for name in ("Speck", "Nowhere"):
        (i,) = named(built, name)
        assert built.voxels[i].size == 0
    assert {9, 10} <= set(built.indices)


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_outer_csf_is_three_shells_of_a_millimetre(spacing):
    c = build(make_head(spacing), shell_patches=4)
    found = {
        number: sum(v for n, v in zip(c.names, c.volumes_mm3, strict=True) if n.startswith(f"outer-CSF-{number}-"))
        for number in (1, 2, 3)
    }
    # The mask of half-filled voxels is ragged, and its outermost voxels leave a share to the first shell.
    for number, volume in found.items():
        assert volume == pytest.approx(4 / 3 * np.pi * ((40.0 + number) ** 3 - (39.0 + number) ** 3), rel=0.35)
    assert sum(found.values()) == pytest.approx(4 / 3 * np.pi * (43.0**3 - 40.0**3), rel=0.2)
    assert sum(n.startswith("outer-CSF") for n in c.names) == 4 * 4  # and the fluid at the surface of the mask


def test_soft_tissue_lies_in_the_scalp_and_the_rest_between(built):
    soft = dense(built, [i for i, n in enumerate(built.names) if n.startswith("soft-tissue")])
    rest = dense(built, [i for i, n in enumerate(built.names) if n.startswith("rest")])
    r = np.linalg.norm(np.stack(np.meshgrid(*(np.arange(60) * 2.0 - 59.0,) * 3, indexing="ij")), axis=0)
    assert soft[(r > 49.5) & (r < 52.5)].min() > 0.5
    assert soft[r < 46.0].max() == 0.0
    assert rest[(r > 45.5) & (r < 46.5)].min() == pytest.approx(1.0, abs=0.01)
    assert len([n for n in built.names if n.startswith("soft-tissue")]) == 16


def test_works_without_head_mask_and_without_skull(head):
    gm, wm, csf, mask, _, t1w, labels, affine = head
    blind = build_compartments(gm, wm, csf, mask, None, t1w, labels, TABLE, affine)
    assert any(n.startswith("soft-tissue") for n in blind.names)
    stripped = build_compartments(gm, wm, csf, mask, None, np.where(mask, t1w, 0.0), labels, TABLE, affine)
    assert any(n.startswith("rest") for n in stripped.names)


def test_atlas_without_white_matter_still_gets_both_sides(head):
    gm, wm, csf, mask, head_mask, t1w, labels, affine = head
    bare = np.where(np.isin(labels, (3, 4)), 0, labels)
    table = TABLE[~TABLE["index"].isin([3, 4])]
    c = build_compartments(gm, wm, csf, mask, head_mask, t1w, bare, table, affine)
    white = named(c, "White-Matter")
    assert sorted(c.hemispheres[i] for i in white) == ["L", "R"]
    fluid = [i for i, name in enumerate(c.names) if name.startswith("outer-CSF-0")]
    np.testing.assert_allclose(dense(c, c.regions + fluid), gm + wm + csf, atol=0.01)


def test_fractions_above_one_are_refused(head):
    gm, wm, csf, mask, head_mask, t1w, labels, affine = head
    with pytest.raises(ValueError, match="add up"):
        build_compartments(gm + 0.5, wm, csf, mask, head_mask, t1w, labels, TABLE, affine)


def sodium_fit(c, image, psf, relaxations):
    """Regional signals by least squares, with the white matter of each side apart."""
    blurred = push_compartments(c, np.eye(4), GRID, GRID_AFFINE, psf, relaxations)
    mask = fit_mask(blurred, c.names, c.kinds, np.ones(GRID, bool))
    fit = labbe(blurred, image, mask, Noise(np.full(GRID, 0.1, np.float32)), c.kinds).fit()
    return dict(zip(c.names, fit.values, strict=True))


GRID = (40, 40, 40)
GRID_AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
GRID_AFFINE[:3, 3] = -58.5


def test_lesion_of_its_own_leaves_white_matter_right(head):
    position = np.stack(np.meshgrid(*(np.arange(60) * 2.0 - 59.0,) * 3, indexing="ij"), axis=-1)
    lesion = np.linalg.norm(position - (-20.0, 0.0, 8.0), axis=-1) < 15.0
    psf = PsfModel("acquisition", Acquisition(5e-4, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (3.0, 3.0, 3.0)))
    relaxations = {tissue: tissue_relaxation(tissue, 3.0) for tissue in TISSUES}
    known = build(head, lesion=lesion)
    truth = {"GM": 45.0, "WM": 35.0, "CSF": 140.0, "extracerebral": 15.0}
    values = [80.0 if name == "Lesion" else truth[t] for name, t in zip(known.names, known.tissues, strict=True)]
    blurred = push_compartments(known, np.eye(4), GRID, GRID_AFFINE, psf, relaxations)
    image = (np.asarray(values) @ blurred).reshape(GRID).astype(np.float32)
    found = sodium_fit(known, image, psf, relaxations)
    assert found["Lesion"] == pytest.approx(80.0, rel=0.01)
    assert found["Left-WM"] == pytest.approx(35.0, rel=0.01)
    (i,) = named(known, "Lesion")
    assert (known.indices[i], known.hemispheres[i], known.structures[i]) == (-1, "both", "lesion")
    np.testing.assert_array_equal(dense(known, [i]) > 0, lesion)
    np.testing.assert_allclose(dense(known, known.regions)[lesion], 1.0)
    # Without the mask the lesion is taken for white matter (its T1w hardly differs), and raises its sodium.
    blind = sodium_fit(build(head), image, psf, relaxations)
    assert blind["Left-WM"] > 1.2 * 35.0
    assert blind["Right-WM"] == pytest.approx(35.0, rel=0.05)


def test_eyes_are_balls_of_vitreous_that_displace_soft_tissue(head):
    gm, wm, csf, mask, _, t1w, labels, affine = head
    wide = np.linalg.norm(np.stack(np.meshgrid(*(np.arange(60) * 2.0 - 59.0,) * 3, indexing="ij")), axis=0) < 58.0
    c = build_compartments(
        gm, wm, csf, mask, wide, np.where(wide & ~mask, 600.0, t1w).astype(np.float32), labels, TABLE, affine,
        eyes_mm=[(30.0, 30.0, -18.0), (-30.0, 30.0, -18.0)],
    )  # fmt: skip
    eyes = named(c, "eye-1", "eye-2")
    assert [c.tissues[i] for i in eyes] == ["vitreous"] * 2
    assert [c.kinds[i] for i in eyes] == ["nuisance"] * 2
    total = dense(c, range(len(c.names)))
    assert total.max() < 1.01
    centre = tuple(np.rint(np.linalg.solve(affine, [30.0, 30.0, -18.0, 1.0])[:3]).astype(int))
    assert dense(c, eyes)[centre] == pytest.approx(1.0, abs=0.01)
    assert not dense(c, eyes)[~wide].any()
