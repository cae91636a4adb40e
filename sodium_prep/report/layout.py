"""Where the slices of a mosaic stand: on its canvas, in voxels of the image, and in the figure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PLANES: Final = (("axial", 2, "z"), ("coronal", 1, "y"), ("sagittal", 0, "x"))
"""Name, axis and letter of each plane, from the top of the figure."""
_GAP_MM: Final = 5.0
MARGIN_IN: Final = 0.05
BAR_IN: Final = 0.75
FOOT_IN: Final = 0.30
"""Margin, room for a colour bar, and room for a legend, in inches."""


@dataclass(frozen=True)
class Layout:
    """Where every slice lies on the canvas: rows of one plane each, ``pixel_mm`` per pixel, row 0 at the bottom."""

    pixel_mm: float
    shape: tuple[int, int]
    cells: tuple[tuple[int, int, int, int], ...]  # plane axis, voxel index, bottom row, left column
    low_mm: NDArray[np.float64]
    size_px: NDArray[np.int64]
    voxel_mm: NDArray[np.float64]

    def canvas(self, volume: NDArray[Any], fill: float, order: int) -> NDArray[Any]:
        """Slices of a volume put in their places; linear (1) or nearest (0) interpolation within the slice."""
        from scipy.ndimage import map_coordinates

        out = np.full(self.shape, fill, dtype=volume.dtype)
        for axis, index, bottom, left in self.cells:
            first, second = (a for a in range(3) if a != axis)
            grid = [
                (self.low_mm[a] + (np.arange(self.size_px[a]) + 0.5) * self.pixel_mm) / self.voxel_mm[a] - 0.5
                for a in (first, second)
            ]
            at = np.meshgrid(*grid, indexing="ij")
            plane = np.take(volume, index, axis=axis)
            tile = map_coordinates(plane, at, order=order, mode="constant", cval=fill)
            out[bottom : bottom + tile.shape[1], left : left + tile.shape[0]] = tile.T
        return out


def box_of(inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and one past the last index of a mask along each axis; everything if the mask is empty."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append((int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, inside.shape[axis]))
    return box


def place_slices(
    inside: NDArray[np.bool_], voxel_mm: NDArray[np.float64], n_slices: int, through: NDArray[np.bool_] | None = None
) -> Layout:
    """Slices spread over a mask, in rows of one plane each; see :func:`sodium_prep.report.mosaic.mosaic`."""
    box = box_of(inside)
    margin = 4.0
    low = np.array([max(a * v - margin, 0.0) for (a, _), v in zip(box, voxel_mm, strict=True)])
    end = zip(box, voxel_mm, inside.shape, strict=True)
    high = np.array([min(b * v + margin, n * v) for (_, b), v, n in end])
    pixel = float(np.clip(voxel_mm.min(), 0.8, 1.5))
    size = np.maximum(np.ceil((high - low) / pixel).astype(np.int64), 1)
    gap = round(_GAP_MM / pixel)
    width = int(max(size[0], size[1])) + gap
    cells = []
    line = round(0.0145 * n_slices * width)  # room for the position printed below each slice
    bottom = line
    for _, axis, _ in reversed(PLANES):
        first, second = (a for a in range(3) if a != axis)
        a, b = box[axis]
        positions = a + (b - a) * (np.linspace(0.20, 0.82, n_slices) if n_slices > 1 else np.array([0.5]))
        if through is not None and through.any():
            middle = float(np.flatnonzero(through.any(axis=(first, second))).mean())
            positions[np.abs(positions - middle).argmin()] = middle
        pad = (width - gap - int(size[first])) // 2
        cells += [
            (axis, int(min(max(p, 0), inside.shape[axis] - 1)), bottom, gap + i * width + pad)
            for i, p in enumerate(positions)
        ]
        bottom += int(size[second]) + line
    return Layout(pixel, (bottom - line + gap, gap + n_slices * width), tuple(cells), low, size, voxel_mm)


@dataclass(frozen=True)
class SliceColumns:
    """Where the slices of a mosaic stand; all fractions are of its width.

    Attributes
    ----------
    ends
        Left and right end of every column.
    above, below
        Height of what lies above and below the slices: title and legend.
    """

    ends: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    above: float = 0.0
    below: float = 0.0


def slice_columns(n_slices: int, width_in: float = 9.0) -> SliceColumns:
    """Columns of a mosaic with a legend, and with neither title nor overlay.

    They depend on nothing but the arguments, so that two mosaics of one extent can be compared column by column.

    Parameters
    ----------
    n_slices, width_in
        As given to :func:`mosaic`.
    """
    width = figure_width(n_slices, width_in)
    ends = (MARGIN_IN + (width - 2 * MARGIN_IN) * np.arange(n_slices + 1) / n_slices) / width
    return SliceColumns(tuple((float(a), float(b)) for a, b in pairwise(ends)), MARGIN_IN / width, FOOT_IN / width)


def figure_width(n_slices: int, width_in: float) -> float:
    """Width of a mosaic in inches."""
    return min(width_in, 1.0 + 2.5 * n_slices)
