"""Fractions of heads that are not textbook: strong bias, lesion, thick slices, wide ventricles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from sodium_prep.anat.fractions import tissue_fractions, ventricle_walls
from sodium_prep.phantom.proton import bias_field
from tests.anat.colin import colin27
from tests.anat.heads import MEANS, make_head

TABLE = pd.DataFrame({"index": [2, 4, 11], "structure": ["wm", "csf", "deep_gm"]})


def distance_to(head, point_mm):
    index = np.stack(np.meshgrid(*map(np.arange, head.brain.shape), indexing="ij"), axis=-1)
    return np.linalg.norm(index @ head.affine[:3, :3].T + head.affine[:3, 3] - point_mm, axis=-1)


def test_bias_on_a_real_head_is_found_to_one_percent():
    every = (slice(None, None, 2),) * 3
    t1w, affine = colin27()
    t1w, mask = t1w[every].astype(np.float32), ndimage.binary_fill_holes(colin27("ch2bet")[0] > 0)[every]
    affine = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    field = bias_field(t1w.shape, 0.4, np.random.default_rng(1))
    own = tissue_fractions(t1w, mask, affine)
    found = tissue_fractions(t1w * field, mask, affine)
    white = own.wm > 0.95
    # The head has a bias of its own, which nobody knows: it must come out the same.
    assert np.log(found.bias / (own.bias * field))[white].std() < 0.01
    for tissue in ("gm", "wm", "csf"):
        assert getattr(found, tissue).sum() == pytest.approx(getattr(own, tissue).sum(), rel=0.02), tissue


def test_lesion_takes_no_part():
    head = make_head(3.0, bias=0.3, noise=0.02, seed=6)
    lesion = (distance_to(head, (-25.0, -20.0, 25.0)) < 15.0) & head.brain
    t1w = np.where(lesion, 330.0 * head.bias, head.t1w).astype(np.float32)
    found = tissue_fractions(t1w, head.brain, head.affine, lesion=lesion)
    healthy = tissue_fractions(head.t1w, head.brain, head.affine)
    total = found.gm + found.wm + found.csf
    assert not total[lesion].any()
    assert np.allclose(total[head.brain & ~lesion], 1.0, atol=1e-5)
    assert not np.any(found.mask & lesion)
    far = head.brain & (distance_to(head, (-25.0, -20.0, 25.0)) > 21.0)
    assert np.abs(found.gm - healthy.gm)[far].mean() < 0.01
    blind = tissue_fractions(t1w, head.brain, head.affine)
    assert blind.csf[lesion].mean() > 0.5


def test_ventricle_wall_in_white_matter_holds_no_grey_matter():
    head = make_head(3.0, noise=0.02, seed=7)
    distance = distance_to(head, (-26.0, -30.0, 26.0))
    fluid = np.clip((9.0 - distance) / 3.0 + 0.5, 0.0, 1.0).astype(np.float32)
    pure = distance < 15.0  # a ventricle in the middle of nothing but white matter
    change = np.where(pure, MEANS["csf"] * fluid + MEANS["wm"] * (1 - fluid) - head.t1w, 0.0)
    noise = 18.0 * np.random.default_rng(1).standard_normal(fluid.shape)
    t1w = (head.t1w + change + np.where(pure, noise, 0.0)).astype(np.float32)
    labels = np.where(distance < 8.0, 4, np.where(pure, 2, 0))
    walls = ventricle_walls(labels, TABLE, head.affine)
    near = distance < 12.5
    plain = tissue_fractions(t1w, head.brain, head.affine)
    mended = tissue_fractions(t1w, head.brain, head.affine, walls=walls)
    volume = fluid[near].sum()
    assert plain.gm[near].sum() > 0.2 * volume
    assert mended.gm[near].sum() < 0.05 * volume
    assert mended.csf[near].sum() == pytest.approx(volume, rel=0.04)
    # A nucleus beside a ventricle keeps its grey matter, even where its label is too small.
    nucleus = pure & (np.abs(distance - 12.0) < 3.0)
    beside = np.where(nucleus, MEANS["gm"] + noise, t1w).astype(np.float32)
    thin = np.where(np.abs(distance - 12.0) < 1.5, 11, labels)
    kept = tissue_fractions(beside, head.brain, head.affine, deep_grey=np.where(thin == 11, 11, 0),
                            walls=ventricle_walls(thin, TABLE, head.affine))  # fmt: skip
    assert kept.gm[nucleus].mean() > 0.9


def test_thick_slices():
    head = make_head(1.0, bias=0.2, noise=0.02, seed=8)
    n = head.t1w.shape[2] // 3
    thick, gm, wm, csf = (
        part[..., : 3 * n].reshape(*part.shape[:2], n, 3).mean(axis=-1)[::2, ::2]
        for part in (head.t1w, head.gm, head.wm, head.csf)
    )
    affine = head.affine @ np.diag([2.0, 2.0, 3.0, 1.0])
    found = tissue_fractions(thick.astype(np.float32), (gm + wm + csf) > 0.5, affine)
    for name, part, truth in (("GM", found.gm, gm), ("WM", found.wm, wm), ("CSF", found.csf, csf)):
        assert part.sum() == pytest.approx(truth.sum(), rel=0.06), name
