"""One PNG picture of an image, to see at a glance whether it came out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sodium_prep.anat.conform import to_ras
from sodium_prep.report.layout import figure_width, place_slices
from sodium_prep.report.mosaic import annotate, draw_overlay, frame
from sodium_prep.report.svg import new_figure

_SLICES = 6
_NOTE_POINTS = 6.5
_PLAIN_POWERS = 2
"""Powers of ten that the numbers at the colour bar show in full."""


def quicklook(image: NDArray[np.float32], affine: NDArray[np.float64], title: str, label: str, note: str = "") -> bytes:
    """Axial, coronal and sagittal slices in colour, as a PNG file.

    Parameters
    ----------
    image : (X, Y, Z)
        Any orientation.
    affine : (4, 4)
        Voxel to RAS mm.
    title, label
        Printed above, and at the colour bar.
    note
        Printed below.
    """
    values, ras = to_ras(np.nan_to_num(image), affine)
    high = float(np.percentile(values, 99.5)) or 1.0
    power = int(np.floor(np.log10(abs(high))))
    if abs(power) > _PLAIN_POWERS:  # the bar has no room for an exponent of its own
        values, high = values / np.float32(10.0**power), high / 10.0**power
        label = f"{label}, in 1e{power}"
    layout = place_slices(values > 0.15 * high, np.linalg.norm(ras[:3, :3], axis=0), _SLICES)
    box: dict[str, Any] = {
        "origin": "lower",
        "extent": (0, layout.shape[1], 0, layout.shape[0]),
        "aspect": "auto",
        "zorder": 1,
    }
    with new_figure(figure_width(_SLICES, 9.0), 1.0) as figure:
        axes, side, foot = frame(figure, layout, title, bar=True, legend=bool(note))
        width = figure.get_size_inches()[0]
        figure.text(0.05 / width, foot, note, ha="left", va="bottom", fontsize=_NOTE_POINTS)
        if side is not None:
            draw_overlay(figure, axes, side, layout, values, (0.0, high), "inferno", label, 1.0, box)
        annotate(axes, layout, ras)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=140, metadata={"Software": None})
        return stream.getvalue()
