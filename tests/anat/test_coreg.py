from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from sodium_prep.anat import coreg
from sodium_prep.anat.contrast import ContrastFit, synthetic_maps
from sodium_prep.anat.coreg import register_runs, register_sodium
from sodium_prep.anat.greedy import greedy_rigid
from sodium_prep.anat.jobs import JobSettings, Volume
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.errors import ResourceError
from tests.anat.heads import make_head, rigid, sodium_image


@lru_cache(maxsize=1)
def head():
    return make_head(2.0, noise=0.03, bias=0.1, seed=9)


def error_mm(found, t1w_to_sodium):
    """Mean displacement over the brain."""
    points = apply_affine(head().affine, np.argwhere(head().brain)[::500])
    return np.linalg.norm(apply_affine(found @ t1w_to_sodium, points) - points, axis=1).mean()


def register(sodium, affine, **options):
    return register_sodium(sodium, affine, head().t1w, head().affine, head().brain, **options)


def test_sodium_is_found_on_the_t1w():
    move = rigid([3, -2, 4], [3, -4, 5])
    found = register(*sodium_image(move))
    error = error_mm(found.sodium_to_t1w, move)
    assert error < 0.3
    assert 0.15 <= found.sd_mm < 0.5
    assert error < 2 * found.sd_mm
    assert not found.flagged
    assert found.notes == ()
    assert found.mirrored is False
    assert [opinion.name for opinion in found.opinions] == ["ants", "greedy", "contrast"]
    assert all(error_mm(opinion.matrix, move) < 0.5 for opinion in found.opinions)
    assert found.disagreement_mm < 0.5
    assert found.nmi > found.nmi_header
    assert np.allclose(found.sodium_to_t1w[:3, :3] @ found.sodium_to_t1w[:3, :3].T, np.eye(3), atol=1e-5)
    assert found.shift_mm == pytest.approx(np.sqrt(50), abs=0.5)
    assert found.turn_deg == pytest.approx(np.sqrt(29), abs=0.5)


def test_a_far_start_with_the_crown_cut_off_is_found():
    move = rigid([25, -15, 20], [20, -15, 12])
    sodium, affine = sodium_image(move, noise=5.0)
    top = apply_affine(np.linalg.inv(affine) @ move, apply_affine(head().affine, np.argwhere(head().brain)))[:, 2].max()
    found = register(sodium[:, :, : int(top - 6)], affine)
    assert not found.flagged
    assert error_mm(found.sodium_to_t1w, move) < 0.5
    assert found.n_starts > 50


@pytest.mark.parametrize(("turn", "shift"), [([-40, 0, 0], [0, 30, -20]), ([20, 25, -20], [-20, 10, 30])])
def test_the_contrast_finds_a_head_anywhere(turn, shift):
    move = rigid(turn, shift)
    sodium, affine = sodium_image(move, noise=5.0)
    brain, maps = coreg._prepare(Volume(head().t1w, head().affine), head().brain, None)
    fit = ContrastFit(maps, brain.fixed.affine, brain.inside, Volume(sodium, affine), 6.0)
    matrix, _, _ = coreg._search(fit, Volume(sodium, affine))
    assert error_mm(matrix, move) < 0.3
    assert fit(matrix) > fit(np.eye(4)) + 0.1


def test_a_swapped_header_shows():
    move = rigid([3, -2, 4], [3, -4, 5])
    sodium, affine = sodium_image(move, noise=4.0)
    brain, maps = coreg._prepare(Volume(head().t1w, head().affine), head().brain, None)
    swapped = np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine
    for grid, sign in ((affine, 1), (swapped, -1)):
        fit = ContrastFit(maps, brain.fixed.affine, brain.inside, Volume(sodium, grid), 6.0)
        matrix, _, _ = coreg._search(fit, Volume(sodium, grid))
        assert sign * fit.mirror_margin(matrix) > 0.4


def test_noise_alone_is_flagged():
    rng = np.random.default_rng(4)
    sodium = np.hypot(*rng.standard_normal((2, 30, 30, 30))).astype(np.float32)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = -116 + np.array([0, -18, 10])
    found = register(sodium, affine)
    assert found.flagged
    assert found.mirrored is None
    assert "hardly looks like this head" in " ".join(found.notes)


def displaced(*_, initial, **__):
    out = np.array(initial)
    out[0, 3] += 6.0
    return out


def broken(*_, **__):
    raise ResourceError("greedy", "greedy ended with code 1", "Look at the image")


def test_a_program_gone_astray_is_outvoted_and_flagged(monkeypatch):
    move = rigid([3, -2, 4], [3, -4, 5])
    monkeypatch.setattr(coreg, "register_linear", displaced)
    found = register(*sodium_image(move))
    assert found.flagged
    assert found.disagreement_mm > 3.0
    assert found.chosen != "ants"
    assert error_mm(found.sodium_to_t1w, move) < 0.5
    assert error_mm(found.sodium_to_t1w, move) < 2 * found.sd_mm


@pytest.mark.parametrize(("score", "chosen"), [(0.79, "ants"), (0.90, "contrast")])
def test_the_contrast_judges_but_is_taken_only_where_it_is_clearly_better(score, chosen):
    brain, _ = coreg._prepare(Volume(head().t1w, head().affine), head().brain, None)
    opinions = []
    for name, shift_mm, correlation in (("ants", 0.0, 0.76), ("greedy", 1.3, 0.75), ("contrast", 3.2, score)):
        matrix = np.eye(4)
        matrix[2, 3] = shift_mm
        opinions.append(coreg.Opinion(name, matrix, correlation, shift_mm, 0.0))
    notes = []
    verdict = coreg._judge(opinions, brain, 0.1, notes)
    assert verdict.chosen == chosen
    assert len(notes) == 2
    assert verdict.sd_mm > 1.0


def test_a_program_that_fails_is_done_without(monkeypatch):
    move = rigid([3, -2, 4], [3, -4, 5])
    monkeypatch.setattr(coreg, "greedy_rigid", broken)
    image = sodium_image(move)
    found = register(*image)
    assert found.flagged
    assert "greedy ended with code 1" in found.notes[0]
    assert found.opinions[1].matrix is None
    assert np.isnan(found.opinions[1].score)
    assert np.isnan(found.disagreement_mm)
    assert error_mm(found.sodium_to_t1w, move) < 0.5
    monkeypatch.setattr(coreg, "register_linear", broken)
    with pytest.raises(ResourceError, match="greedy ended with code 1"):
        register(*image)


def test_a_proton_image_of_the_coil_is_a_stepping_stone():
    move = rigid([4, 3, -6], [8, 6, -5])
    # Noise at the level of the tissue: the sodium image is a blur in which only the outline stands out.
    sodium, affine = sodium_image(move, noise=120.0)
    shown = make_head(2.0, noise=0.05, seed=3)
    moved = ndimage.affine_transform(
        shown.t1w, np.linalg.inv(shown.affine) @ np.linalg.inv(move) @ shown.affine, order=1
    )
    proton = Volume(np.sqrt(moved).astype(np.float32), shown.affine)
    alone, helped = register(sodium, affine), register(sodium, affine, proton=proton)
    assert alone.flagged
    assert error_mm(alone.sodium_to_t1w, move) > 1.0
    assert helped.chosen == "proton"
    assert error_mm(helped.sodium_to_t1w, move) < 0.5


def test_greedy_gives_the_same_bytes_twice():
    sodium, affine = sodium_image(rigid([3, -2, 4], [3, -4, 5]), voxel_mm=8.0, vials=False)
    fixed = make_head(4.0)
    volume = Volume(np.where(fixed.brain, fixed.t1w, 0).astype(np.float32), fixed.affine)
    one, two = (
        greedy_rigid("test", volume, Volume(sodium, affine), initial=np.eye(4), settings=JobSettings())
        for _ in range(2)
    )
    assert one.tobytes() == two.tobytes()


def test_fractions_make_the_contrast_that_they_describe():
    parts = make_head(4.0)
    t1w = Volume(parts.t1w, parts.affine)
    fractions = (parts.gm, parts.wm, parts.csf)
    tissue, fluid, rim, scalp = synthetic_maps(t1w, parts.brain, fractions)
    assert np.array_equal(fluid, parts.csf)
    assert np.allclose(tissue, 1.2 * parts.gm + parts.wm, atol=1e-6)
    assert not np.any((rim > 0) & parts.brain)
    assert not np.any((scalp > 0) & (parts.brain | (rim > 0)))
    guessed = synthetic_maps(t1w, parts.brain)[1]
    assert np.corrcoef(guessed[parts.brain], parts.csf[parts.brain])[0, 1] > 0.9


def test_runs_are_laid_on_the_first():
    move = rigid([2, 3, -2], [2, -3, 1])
    first, affine = sodium_image(np.eye(4), seed=1, vials=False)
    second, _ = sodium_image(move, seed=2, vials=False)
    still, moved = register_runs([first, second], [affine, affine], settings=JobSettings(seed=1))
    assert np.array_equal(still, np.eye(4))
    assert error_mm(moved, move) < 0.5
