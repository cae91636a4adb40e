"""Figures of voxel-wise results: sides and colours as they are, and the same bytes every time."""

import base64
import io
import re

import numpy as np
from PIL import Image

from sodium_prep.report.voxelwise import glass_brain, map_slices

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = (-50.0, -60.0, -40.0)


def pictures(svg):
    found = re.findall(r"data:image/png;base64,([^\"]+)", svg)
    images = [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in found]
    return [np.asarray(one, dtype=int) for one in sorted(images, key=lambda one: one.size[0] * one.size[1])]


def test_slices_show_the_left_on_the_left():
    values = np.full((26, 30, 24), np.nan)
    x = np.indices(values.shape)[0]
    values[x < 13], values[x >= 13] = 5.0, -5.0  # red on the left, blue on the right
    template, fine = np.zeros((52, 60, 48)), AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])
    template[4:-4, 4:-4, 4:-4] = 100.0
    svg = map_slices(values, AFFINE, template, fine, label="mmol/L", significant=values > 0, outline="p < 0.05")
    assert svg == map_slices(values, AFFINE, template, fine, label="mmol/L", significant=values > 0, outline="p < 0.05")
    picture = pictures(svg)[-1]  # stored upside down
    first = picture[2 * picture.shape[0] // 3 :, : picture.shape[1] // 6]  # an axial slice
    red, blue = ((first[..., a] > first[..., b] + 40).nonzero()[1] for a, b in ((0, 2), (2, 0)))
    assert red.size > 100
    assert red.max() < blue.min()


def test_glass_brain_shows_what_is_significant_only():
    values = np.zeros((26, 30, 24))
    values[4:7, 15:18, 10:13] = 6.0
    values[18:21, 15:18, 10:13] = -6.0  # not significant
    svg = glass_brain(values, AFFINE, values > 0, label="mmol/L", title="a")
    assert len(svg) < 250_000
    views = [one for one in pictures(svg) if one.shape[1] > 40]
    red, blue = (sum((one[..., a] > one[..., b] + 60).sum() for one in views) for a, b in ((0, 2), (2, 0)))
    assert red > 100
    assert blue == 0
    # From behind and from above the left is on the left; the right hemisphere's own view shows nothing.
    assert sum((one[..., 0] > one[..., 2] + 60).any() for one in views) == 3
    for one in views:
        across = (one[..., 0] > one[..., 2] + 60).nonzero()[1]
        if across.size and one.shape[1] < 190:  # the views across the brain
            assert across.max() < one.shape[1] / 2
