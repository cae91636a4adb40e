"""Slices of a brain in three planes, with overlay, contours and labels, as one SVG figure.

All arrays are in RAS orientation (first axis towards the right, second anterior, third superior) and on one grid.
Display is neurological: the left of the brain is on the left of the picture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.report.layout import BAR_IN, FOOT_IN, MARGIN_IN, PLANES, Layout, figure_width, place_slices
from sodium_prep.report.svg import new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Contour = tuple[ArrayLike, str, str] | tuple[ArrayLike, str, str, str]
"""A mask or fraction map (drawn at 0.5), its colour, label in the legend, and line style if not solid, or ``fill``."""

_GREY_LEVELS: Final = 48  # few levels keep the embedded picture small; finer ones are not seen under a contour


def _label_colours(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """One RGB colour per label: hues by the golden ratio and three lightnesses, so that neighbours differ."""
    return np.array([
        colorsys.hls_to_rgb((0.11 + 0.618034 * i) % 1.0, (0.50, 0.66, 0.80)[i % 3], 0.85) for i in range(labels.size)
    ])  # fmt: skip


def _outlines(labels: NDArray[Any]) -> NDArray[np.float64]:
    """RGBA picture of the borders between labels, each in the colour of the label that it encloses."""
    values = np.unique(labels[labels > 0])
    picture = np.zeros((*labels.shape, 4))
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        for step in (1, -1):
            edge |= labels != np.roll(labels, step, axis=axis)
    edge &= labels > 0
    if values.size:
        picture[edge, :3] = _label_colours(values)[np.searchsorted(values, labels[edge])]
        picture[edge, 3] = 1.0
    return picture


def annotate(axes: Axes, layout: Layout, affine: NDArray[np.float64]) -> None:
    """Position of every slice in mm, and the side on which left and right (or front and back) are."""
    from matplotlib import patheffects

    halo = [patheffects.withStroke(linewidth=2.0, foreground="black")]
    names = {axis: name for _, axis, name in PLANES}
    seen: set[int] = set()
    for axis, index, bottom, left in layout.cells:
        first, second = (a for a in range(3) if a != axis)
        width, height = int(layout.size_px[first]), int(layout.size_px[second])
        position = affine[axis, axis] * index + affine[axis, 3]
        text: dict[str, Any] = {"color": "white", "fontsize": 7.5, "path_effects": halo}
        axes.text(left + width / 2, bottom - 0.5, f"{names[axis]} = {position:+.0f} mm", ha="center", va="top", **text)
        if axis not in seen:
            seen.add(axis)
            sides = ("L", "R") if first == 0 else ("P", "A")
            middle = bottom + height / 2
            bold = text | {"fontsize": 10, "fontweight": "bold"}
            axes.text(left + 1, middle, sides[0], ha="left", va="center", **bold)
            axes.text(left + width - 2, middle, sides[1], ha="right", va="center", **bold)


def frame(figure: Figure, layout: Layout, title: str, bar: bool, legend: bool) -> tuple[Axes, Axes | None, float]:
    """Axes of the picture and of the colour bar; the figure's height is set from the shape of the canvas."""
    width = float(figure.get_size_inches()[0])
    right = BAR_IN if bar else MARGIN_IN
    picture = width - right - MARGIN_IN
    height = picture * layout.shape[0] / layout.shape[1]
    top = 0.30 if title else MARGIN_IN
    foot = FOOT_IN if legend else MARGIN_IN
    total = height + top + foot
    figure.set_size_inches(width, total)
    axes = figure.add_axes((MARGIN_IN / width, foot / total, picture / width, height / total), facecolor="black")
    axes.set(xticks=[], yticks=[], xlim=(0, layout.shape[1]), ylim=(0, layout.shape[0]))
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    side = figure.add_axes((1 - (right - 0.08) / width, (foot + 0.1) / total, 0.12 / width, (height - 0.2) / total))
    if not bar:
        side.remove()
    if title:
        figure.text(0.05 / width, 1 - 0.09 / total, title, ha="left", va="top", fontsize=10.5, fontweight="bold")
    return axes, side if bar else None, 0.04 / total


def display_window(values: NDArray[Any], low: float | None, high: float | None) -> tuple[float, float]:
    """Display window: as given, otherwise the 1st and 99.5th percentile; never empty."""
    finite = values[np.isfinite(values)]
    first = low if low is not None else (float(np.percentile(finite, 1)) if finite.size else 0.0)
    last = high if high is not None else (float(np.percentile(finite, 99.5)) if finite.size else 1.0)
    return first, last if last > first else first + 1.0


def mosaic(
    background: ArrayLike,
    affine: ArrayLike,
    *,
    title: str = "",
    overlay: ArrayLike | None = None,
    cmap: str = "inferno",
    vmin: float | None = None,
    vmax: float | None = None,
    overlay_label: str = "",
    overlay_alpha: float = 0.8,
    contours: Sequence[Contour] = (),
    labels: ArrayLike | None = None,
    extent: ArrayLike | None = None,
    through: ArrayLike | None = None,
    grey_max: float | None = None,
    n_slices: int = 6,
    width_in: float = 9.0,
    dpi: float = 140.0,
) -> str:
    """Axial, coronal and sagittal slices of an image as SVG text.

    Parameters
    ----------
    background
        Grey image, shape (X, Y, Z), RAS orientation.
    affine
        Voxel to world, millimetres, shape (4, 4); its axes must point right, anterior and superior.
    title
        Printed above the slices.
    overlay
        Image in colour over the background, (X, Y, Z); transparent where not finite.
    cmap, vmin, vmax, overlay_label, overlay_alpha
        Colour map, window, colour-bar label (with its unit) and opacity of the overlay.
    contours
        Masks or fraction maps drawn as lines at 0.5, each with colour and label.
    labels
        Integer atlas, (X, Y, Z); the borders of its regions are drawn, 0 is outside.
    extent
        Mask of what the slices must show; by default what is bright in the background. Figures with the same extent,
        affine and number of slices lie on one another exactly, if both or neither has a title, contours and overlay.
    through
        Mask of what is too small to be met by chance: in each plane, the nearest slice is moved to its middle.
    grey_max
        Background value shown in white, by default a little above the 99.5th percentile.
    n_slices
        Slices per plane.
    width_in, dpi
        Largest width of the figure, and resolution of its picture.

    Raises
    ------
    ValueError
        If shapes disagree or the affine does not point right, anterior, superior.
    """
    grey = np.asarray(background, dtype=np.float32)
    matrix = np.asarray(affine, dtype=float)
    _check(grey, matrix, [overlay, labels, extent, through, *(contour[0] for contour in contours)])
    grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
    voxel_mm = np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    low, high = display_window(grey[grey > 0] if (grey > 0).any() else grey, 0.0, None)
    high = grey_max if grey_max and grey_max > low else 1.15 * high  # a little dark, so that lines stand out
    inside = np.asarray(extent) > 0 if extent is not None else grey > low + 0.08 * (high - low)
    layout = place_slices(inside, voxel_mm, n_slices, None if through is None else np.asarray(through) > 0)
    over = None if overlay is None else np.asarray(overlay, dtype=np.float32)
    with new_figure(figure_width(n_slices, width_in), 1.0) as figure:
        axes, side, foot = frame(figure, layout, title, bar=over is not None, legend=bool(contours))
        axes.set_rasterization_zorder(5)
        box: dict[str, Any] = {
            "origin": "lower",
            "extent": (0, layout.shape[1], 0, layout.shape[0]),
            "aspect": "auto",
            "zorder": 1,
        }
        picture = np.clip((layout.canvas(grey, 0.0, 1) - low) / (high - low), 0, 1)
        picture = np.round(picture * (_GREY_LEVELS - 1)) / (_GREY_LEVELS - 1)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", **box)
        if over is not None and side is not None:
            draw_overlay(figure, axes, side, layout, over, (vmin, vmax), cmap, overlay_label, overlay_alpha, box)
        if labels is not None:
            regions = layout.canvas(np.asarray(labels).astype(np.int64), 0, 0)
            axes.imshow(_outlines(regions), interpolation="nearest", **box | {"zorder": 2})
        _draw_contours(figure, axes, layout, contours, foot, n_slices)
        annotate(axes, layout, matrix)
        return to_svg(figure, dpi)


def _check(grey: NDArray[Any], affine: NDArray[np.float64], others: Sequence[ArrayLike | None]) -> None:
    if grey.ndim != 3:
        raise ValueError(f"background must have three axes, not shape {grey.shape}")
    for other in others:
        if other is not None and np.shape(other) != grey.shape:
            raise ValueError(f"all images must have the background's shape {grey.shape}, not {np.shape(other)}")
    if affine.shape != (4, 4):
        raise ValueError(f"affine must have shape (4, 4), not {affine.shape}")
    main = np.abs(affine[:3, :3]).argmax(axis=0).tolist()
    if main != [0, 1, 2] or (np.diag(affine)[:3] <= 0).any():
        raise ValueError("images must be in RAS orientation: axes towards right, anterior, superior")


def draw_overlay(
    figure: Figure,
    axes: Axes,
    side: Axes,
    layout: Layout,
    overlay: NDArray[np.float32],
    window: tuple[float | None, float | None],
    cmap: str,
    label: str,
    alpha: float,
    box: dict[str, Any],
) -> None:
    """Colour over the slices, with its bar beside them; transparent where not finite."""
    low, high = display_window(overlay, *window)
    finite = np.isfinite(overlay)
    values = layout.canvas(np.where(finite, overlay, low).astype(np.float32), low, 1)
    shown = layout.canvas(finite.astype(np.float32), 0.0, 1) > 0.5
    step = (high - low) / 64
    values = low + np.round((values - low) / step) * step
    image = axes.imshow(
        np.where(shown, values, np.nan), cmap=cmap, vmin=low, vmax=high, alpha=alpha, interpolation="nearest", **box
    )
    bar = figure.colorbar(image, cax=side, label=label)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    side.grid(False)
    side.tick_params(labelsize=8)


def _draw_contours(
    figure: Figure, axes: Axes, layout: Layout, contours: Sequence[Contour], foot: float, n_slices: int
) -> None:
    from matplotlib import patheffects
    from matplotlib.lines import Line2D

    styled = [(*contour, "-")[:4] for contour in contours]
    for mask, colour, _, style in styled:
        lines = layout.canvas(np.asarray(mask, dtype=np.float32), 0.0, 1)
        if lines.max() > 0.5 > lines.min():
            rows, columns = (np.arange(n) + 0.5 for n in layout.shape)
            if style == "fill":
                axes.contourf(columns, rows, lines, levels=[0.5, np.inf], colors=[colour], alpha=0.45, zorder=2)
            else:
                width = max(0.9, 4.5 / n_slices)
                axes.contour(columns, rows, lines, levels=[0.5], colors=[colour], linewidths=width, linestyles=[style],
                             zorder=3)  # fmt: skip
    if contours:
        rim = [patheffects.withStroke(linewidth=4.5, foreground="#333333")]  # a white line needs it on white ground
        handles = [
            Line2D(
                [],
                [],
                color=colour,
                linestyle="-" if style == "fill" else style,
                linewidth=2.5,
                label=label,
                path_effects=rim,
            )
            for _, colour, label, style in styled
        ]
        legend = figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0.0, foot / 4), ncols=len(handles), borderaxespad=0.2
        )
        legend.set_in_layout(False)
