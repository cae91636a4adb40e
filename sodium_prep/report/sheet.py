"""A contact sheet: many heads on one page, one row each, to be looked over at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.report.layout import Layout, box_of
from sodium_prep.report.mosaic import Contour, display_window
from sodium_prep.report.svg import new_figure, to_svg

Case = tuple[str, ArrayLike, ArrayLike, Sequence[Contour]]
"""Title, image (X, Y, Z) in RAS orientation, affine (4, 4), and contours on its grid, the first of the brain."""

_SLICES = ((2, (0.35, 0.62)), (1, (0.45, 0.62)), (0, (0.35, 0.53)))
_CELL_MM = (190.0, 200.0)  # width and height of a slice: an adult brain and its rim, along any axis


def contact_sheet(cases: Sequence[Case], *, title: str = "", width_in: float = 9.0) -> str:
    """Six slices of each head in a row (axial, coronal, sagittal, two each), with its contours, as SVG text.

    Parameters
    ----------
    cases
        Title, image, affine and contours of each head; the slices are placed in the box of the first contour, and all
        heads have one scale. The legend is that of the first head.
    title
        Printed above.

    Raises
    ------
    ValueError
        Without a case, or if a case has no contour.
    """
    if not cases or any(not contours for _, _, _, contours in cases):
        raise ValueError("a contact sheet needs at least one case, and each case a contour to place its slices by")
    from matplotlib import patheffects

    rows = [_row(image, affine, contours) for _, image, affine, contours in cases]
    height = (width_in - 0.1) * rows[0][0].shape[0] / rows[0][0].shape[1]
    head, foot = (0.30 if title else 0.05), 0.30
    total = head + foot + len(rows) * height
    with new_figure(width_in, total) as figure:
        for number, ((grey, lines), (name, _, _, contours)) in enumerate(zip(rows, cases, strict=True)):
            place = (0.05 / width_in, 1 - (head + (number + 1) * height) / total, 1 - 0.1 / width_in, height / total)
            axes = figure.add_axes(place, facecolor="black")
            axes.set(xticks=[], yticks=[], xlim=(0, grey.shape[1]), ylim=(0, grey.shape[0]))
            axes.set_rasterization_zorder(5)
            axes.grid(False)
            box = (0, grey.shape[1], 0, grey.shape[0])
            axes.imshow(grey, cmap="gray", vmin=0, vmax=1, origin="lower", extent=box, aspect="auto", zorder=1)
            at = [np.arange(n) + 0.5 for n in grey.shape]
            for line, (_, colour, *_) in zip(lines, contours, strict=True):
                if line.max() > 0.5 > line.min():
                    axes.contour(at[1], at[0], line, levels=[0.5], colors=[colour], linewidths=0.7, zorder=3)
            axes.text(3, grey.shape[0] - 4, name, color="white", fontsize=8.5, va="top", zorder=6,
                      path_effects=[patheffects.withStroke(linewidth=2.0, foreground="black")])  # fmt: skip
        for number, (_, colour, label, *_) in enumerate(cases[0][3]):
            figure.text(0.01 + 0.2 * number, 0.1 / total, f"\N{EM DASH} {label}", color=colour, fontweight="bold")
        if title:
            figure.text(0.05 / width_in, 1 - 0.09 / total, title, va="top", fontsize=10.5, fontweight="bold")
        return to_svg(figure, 150.0)


def _row(
    image: ArrayLike, affine: ArrayLike, contours: Sequence[Contour]
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Grey picture, 0 to 1, and contour maps of one head's slices, side by side."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    voxel_mm = np.sqrt((np.asarray(affine, dtype=float)[:3, :3] ** 2).sum(axis=0))
    inside = np.asarray(contours[0][0]) > 0.5
    box = np.array(box_of(inside))
    middle = box.mean(axis=1) * voxel_mm
    size = np.array([_CELL_MM[0], _CELL_MM[1], _CELL_MM[1]])
    width, height = int(_CELL_MM[1]), int(_CELL_MM[1])
    cells: list[tuple[int, int, int, int]] = []
    for axis, shares in _SLICES:
        first = 1 if axis == 0 else 0
        for share in shares:
            index = int(np.clip(box[axis, 0] + share * (box[axis, 1] - box[axis, 0]), 0, values.shape[axis] - 1))
            cells.append((axis, index, 0, len(cells) * width + (width - int(size[first])) // 2))
    layout = Layout(1.0, (height, width * len(cells)), tuple(cells), middle - size / 2, size.astype(np.int64), voxel_mm)
    low, high = display_window(values[inside] if inside.any() else values, 0.0, None)
    grey = np.clip((layout.canvas(values, 0.0, 1) - low) / (1.25 * (high - low)), 0, 1)
    lines = [layout.canvas(np.asarray(contour[0], dtype=np.float32), 0.0, 1) for contour in contours]
    return grey.astype(np.float32), lines
