"""Axis order changes, values and places do not."""

from __future__ import annotations

import numpy as np

from sodium_prep.anat.conform import mask_to_template, to_ras
from sodium_prep.atlas.bundled import Template


def test_every_value_keeps_its_place_in_the_world() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(5, 6, 7)).astype(np.float32)
    affine = np.array([[0, 0, 2.0, -7], [-1.5, 0, 0, 9], [0, -3.0, 0, 4], [0, 0, 0, 1]])
    out, new = to_ras(data, affine)
    assert np.all(np.diag(new)[:3] > 0)
    index = (3, 1, 4)
    world = affine @ [*index, 1]
    there = np.rint(np.linalg.solve(new, world))[:3].astype(int)
    assert out[tuple(there)] == data[index]


def test_a_scaled_and_shifted_brain_is_laid_on_the_template() -> None:
    grid = np.stack(np.meshgrid(*(np.arange(60.0) - 30.0,) * 3, indexing="ij"), axis=-1)
    affine = np.eye(4)
    affine[:3, 3] = -30.0
    template = Template(np.zeros((60, 60, 60), np.float32), np.linalg.norm(grid, axis=-1) < 20.0, affine)
    mask = np.linalg.norm(grid - [4.0, -3.0, 2.0], axis=-1) < 16.0
    found = mask_to_template(mask, affine, template)
    assert np.allclose(found @ [4.0, -3.0, 2.0, 1.0], [0, 0, 0, 1], atol=0.1)
    assert np.isclose(found[0, 0], 20.0 / 16.0, rtol=0.01)
