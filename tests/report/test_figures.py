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
from sodium_prep.report.group_plots import Strip, strips
from sodium_prep.report.layout import place_slices, slice_columns
from sodium_prep.report.mosaic import mosaic
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
        "fit": figures.fit(t1w, AFFINE, figures.fit_contours(AFFINE, mask, tissues["WM"], tissues["GM"]), extent=mask),
        "tissues": figures.tissue_maps(t1w, AFFINE, tissues, brain_mask=mask),
        "atlas": figures.atlas_outlines(t1w, labels, AFFINE),
        "residual": figures.residual(t1w, np.random.default_rng(1).normal(size=t1w.shape), AFFINE),
        "calibration": figures.calibration(
            [20, 40, 80], [212, 405, 798], [6, 6, 8], labels=["a", "b", "<c>"], intercept=15.2, slope=9.8,
            covariance=[[60, -1.1], [-1.1, 0.025]], brain_range=(300, 500), used=[True, True, False],
        ),
        "psf": figures.psf_profiles(radius, {"GM": np.exp(-((radius / 3) ** 2))}, nominal_mm=3.0),
        "bars": figures.regional_bars(["Cortex", "CSF"], {"none": line, "labbe": line}),
        "strips": strips([[Strip("Cortex", {"NA": [("1", 40.0, "NA"), ("2", 41.0, "NA")], "AD": []})]], title="<t>",
                         groups=["NA", "AD"]).svg,
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
    layout = place_slices(mask, voxel, 5)
    ramp = np.broadcast_to(np.arange(mask.shape[2], dtype=float), mask.shape).copy()
    canvas = layout.canvas(ramp, -1.0, 1)
    for axis, index, bottom, left in layout.cells:
        if axis == 2:
            assert canvas[bottom + 10, left + 10] == index


def test_figures_of_one_extent_line_up_and_columns_hold_one_slice_each(head):
    """Pictures that a slider lays on one another differ in nothing but the image between the lines."""
    t1w, tissues, mask = head
    lines = figures.fit_contours(AFFINE, mask, tissues["WM"], tissues["GM"])
    shifted = np.roll(t1w, 3, axis=1) * 7.0
    # An image of zeros under the same lines shows what is common to both: here all but the ball itself.
    first, second, empty = (figures.fit(image, AFFINE, lines, extent=mask) for image in (t1w, shifted, 0 * t1w))
    # Nothing differs but the picture and its name.
    assert len({re.sub(r"base64,[^\"]+|image[0-9a-f]{10}", "", svg) for svg in (first, second)}) == 1
    (a,), (b,), (none,) = (_pictures(svg) for svg in (first, second, empty))
    assert a.shape == b.shape == none.shape
    coloured = np.ptp(none.astype(int), axis=-1) > 150  # bright lines, the same pixels in all
    assert coloured.sum() > 1000
    for picture in (a, b):
        assert (np.ptp(picture.astype(int), axis=-1)[coloured] > 60).mean() > 0.98

    columns = slice_columns(figures.FIT_SLICES)
    width = a.shape[1]  # the picture spans the slices alone, from the first column's left to the last one's right
    low, high = columns.ends[0][0], columns.ends[-1][1]
    for left, _ in columns.ends[1:]:
        at = round((left - low) / (high - low) * width)
        assert none[:, at - 2 : at + 3].max() < 40, "a slice reaches over the border of its column"


def test_a_small_lesion_is_met_and_keeps_its_colour():
    """It lies between the usual slices; and pictures are reduced to few colours, among which it must not be lost."""
    at = np.indices((90, 100, 90))
    image = np.random.default_rng(3).uniform(50, 100, at.shape[1:])
    brain = sum((axis - n / 2) ** 2 for axis, n in zip(at, image.shape, strict=True)) < 42**2
    lesion = sum((axis - c) ** 2 for axis, c in zip(at, (45, 50, 46), strict=True)) < 5**2
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    lines = figures.fit_contours(affine, brain, brain, 0 * image, lesion=lesion)
    met, missed = (
        _magenta(figures.fit(image, affine, lines, extent=brain, through=through)) for through in (lesion, None)
    )
    assert missed == 0
    assert met > 150


def _magenta(svg):
    (picture,) = _pictures(svg)
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return int(((red - green > 80) & (blue - green > 80)).sum())


def test_ventricles_are_the_deep_and_large_csf():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    i, j, k = np.indices((80, 80, 80)) * 2.0
    brain = (i - 80) ** 2 + (j - 80) ** 2 + (k - 80) ** 2 < 70**2
    ventricle = (np.abs(i - 80) < 8) & (np.abs(j - 80) < 16) & (np.abs(k - 80) < 8)
    speck = (np.abs(i - 50) < 2) & (np.abs(j - 80) < 2) & (np.abs(k - 80) < 2)
    rim = brain & ((i - 80) ** 2 + (j - 80) ** 2 + (k - 80) ** 2 > 60**2)
    found = figures.ventricles((ventricle | speck | rim).astype(float), brain, affine)
    np.testing.assert_array_equal(found > 0.5, ventricle)


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
