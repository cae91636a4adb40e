"""Figures: deterministic, small, right way round, and quiet about odd input."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from sodium_prep.report import figures
from sodium_prep.report.mosaic import _layout, mosaic
from sodium_prep.report.plots import _fwhm

AFFINE = np.array([[3.0, 0, 0, -75], [0, 3.0, 0, -87], [0, 0, 3.0, -69], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def head():
    """A ball of 'brain' in a ball of 'head', with a bright spot on the right."""
    i, j, k = np.indices((50, 58, 46))
    r = np.sqrt((i - 24.5) ** 2 + (j - 28.5) ** 2 + (k - 22.5) ** 2)
    t1w = np.where(r < 21, 100.0, 0.0) + np.random.default_rng(0).normal(0, 3, r.shape) * (r < 21)
    gm = ((r > 14) & (r < 18)).astype(float)
    wm = (r <= 14).astype(float)
    return t1w, {"GM": gm, "WM": wm}, (r < 18)


def _pictures(svg):
    found = re.findall(r'data:image/png;base64,([^"]+)"', svg)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in found]


def _all_figures(head):
    t1w, tissues, mask = head
    radius = np.linspace(0, 12, 100)
    line = {"tsc": [45.0, float("nan")], "low": [43.0, float("nan")], "high": [47.0, float("nan")]}
    labels = np.where(mask, 1 + (np.indices(mask.shape)[0] > 24), 0)
    return {
        "tsc": figures.tsc_on_t1w(t1w, t1w / 2, AFFINE, tissues=tissues, brain_mask=mask),
        "coregistration": figures.coregistration(t1w, t1w, AFFINE, contours=[(mask, "#FFFFFF", "brain")]),
        "tissues": figures.tissue_maps(t1w, AFFINE, tissues, brain_mask=mask),
        "atlas": figures.atlas_outlines(t1w, labels, AFFINE),
        "residual": figures.residual(t1w, np.random.default_rng(1).normal(size=t1w.shape), AFFINE),
        "calibration": figures.calibration(
            [20, 40, 80], [212, 405, 798], [6, 6, 8], labels=["a", "b", "<c>"], intercept=15.2, slope=9.8,
            covariance=[[60, -1.1], [-1.1, 0.025]], brain_range=(300, 500), used=[True, True, False],
        ),
        "psf": figures.psf_profiles(radius, {"GM": np.exp(-((radius / 3) ** 2))}, nominal_mm=3.0),
        "bars": figures.regional_bars(["Cortex", "CSF"], {"none": line, "labbe": line}),
        "dots": figures.group_dots({"Cortex": {"none": {"NA": [40.0, 41.0], "AD": []}}}),
    }  # fmt: skip


def test_every_figure_is_small_valid_svg_and_the_same_bytes_twice(head):
    first, second = _all_figures(head), _all_figures(head)
    for name, svg in first.items():
        assert ElementTree.fromstring(svg).tag.endswith("svg"), name
        assert len(svg) < 400_000, name
        assert svg == second[name], name
        assert "<dc:date>" not in svg
        # Names of formats are no resources; nothing else may point out of the file.
        assert set(re.findall(r'(?:href|src)="(?!#|data:)[^"]*', svg)) == set(), name


def test_figures_do_not_depend_on_the_users_matplotlib_settings(head):
    import matplotlib

    t1w, tissues, _ = head
    plain = figures.tissue_maps(t1w, AFFINE, tissues)
    with matplotlib.rc_context({"font.size": 30, "image.cmap": "jet", "axes.facecolor": "red"}):
        assert figures.tissue_maps(t1w, AFFINE, tissues) == plain


def test_the_left_of_the_brain_is_on_the_left_of_the_picture(head):
    t1w, _, mask = head
    tsc = np.zeros_like(t1w)
    tsc[34:, :, :] = 150.0  # right side of the brain
    svg = mosaic(t1w, AFFINE, overlay=np.where(mask, tsc, np.nan), vmin=0, vmax=150, n_slices=1)
    picture = _pictures(svg)[0].astype(int)
    yellow = np.argwhere((picture[..., 0] > 200) & (picture[..., 2] < 190) & (picture[..., 1] > 190))
    assert len(yellow) > 1000
    assert yellow[:, 1].min() > picture.shape[1] / 2


def test_slices_lie_where_their_labels_say(head):
    _, _, mask = head
    voxel = np.array([3.0, 3.0, 3.0])
    layout = _layout(mask, voxel, 5)
    ramp = np.broadcast_to(np.arange(mask.shape[2], dtype=float), mask.shape).copy()
    canvas = layout.canvas(ramp, -1.0, 1)
    for axis, index, bottom, left in layout.cells:
        if axis == 2:
            assert canvas[bottom + 10, left + 10] == index


def test_images_of_other_shape_or_orientation_are_refused(head):
    t1w, _, _ = head
    with pytest.raises(ValueError, match="shape"):
        mosaic(t1w, AFFINE, overlay=t1w[1:])
    with pytest.raises(ValueError, match="RAS"):
        mosaic(t1w, np.diag([-2.0, 2, 2, 1]))


def test_empty_and_not_finite_images_are_drawn():
    empty = np.zeros((8, 9, 10))
    assert "svg" in mosaic(empty, np.eye(4), overlay=np.full(empty.shape, np.nan))
    assert "svg" in figures.residual(np.full(empty.shape, np.inf), np.full(empty.shape, np.nan), np.eye(4))


def test_full_width_at_half_maximum():
    radius = np.linspace(0, 20, 4001)
    assert_allclose(_fwhm(radius, np.exp(-4 * np.log(2) * (radius / 5.0) ** 2)), 5.0, rtol=1e-5)
    assert np.isnan(_fwhm(radius, np.ones_like(radius)))
