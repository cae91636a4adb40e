"""The figures of a participant's report: pure functions from arrays to SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sodium_prep.report.mosaic import Contour, mosaic
from sodium_prep.report.plots import calibration, group_dots, psf_profiles, regional_bars
from sodium_prep.report.svg import TISSUE_COLOURS, VERMILION

__all__ = [
    "atlas_outlines",
    "calibration",
    "coregistration",
    "group_dots",
    "mosaic",
    "psf_profiles",
    "regional_bars",
    "residual",
    "tissue_maps",
    "tsc_on_t1w",
]

# On dark pictures and black-red-yellow overlays alike. Drawn in this order: grey matter, the most wanted, on top.
_LINES: dict[str, str] = {"CSF": TISSUE_COLOURS["CSF"], "WM": "#FFFFFF", "GM": TISSUE_COLOURS["GM"]}
MASK_COLOUR = "#00FFFF"
"""Of the brain mask over the sodium image, whose colours hold no cyan."""
_NAMES: dict[str, str] = {"GM": "grey matter", "WM": "white matter", "CSF": "CSF"}


def _tissue_contours(tissues: Mapping[str, ArrayLike]) -> list[Contour]:
    order = [name for name in _LINES if name in tissues] + [name for name in tissues if name not in _LINES]
    return [(tissues[name], _LINES.get(name, VERMILION), _NAMES.get(name, name)) for name in order]


def tsc_on_t1w(
    t1w: ArrayLike,
    tsc_mM: ArrayLike,
    affine: ArrayLike,
    *,
    tissues: Mapping[str, ArrayLike] | None = None,
    brain_mask: ArrayLike | None = None,
    vmin_mM: float = 0.0,
    vmax_mM: float = 150.0,
    title: str = "Total sodium concentration on T1w",
    n_slices: int = 6,
) -> str:
    """Concentration over the T1w image, with the borders of the tissues.

    Parameters
    ----------
    t1w, tsc_mM
        T1w image and concentration on its grid, shape (X, Y, Z), RAS orientation.
    affine
        Voxel to world, millimetres, shape (4, 4).
    tissues
        ``GM``, ``WM``, ``CSF`` fractions, (X, Y, Z) each.
    brain_mask
        Where the concentration is shown; everywhere if left out.
    vmin_mM, vmax_mM
        Display window; the same in every report, so that participants can be compared by eye.
    """
    shown = np.asarray(tsc_mM, dtype=np.float32)
    if brain_mask is not None:
        shown = np.where(np.asarray(brain_mask) > 0, shown, np.nan)
    return mosaic(
        t1w, affine, title=title, overlay=shown, vmin=vmin_mM, vmax=vmax_mM, overlay_label="TSC (mM)",
        contours=_tissue_contours(tissues or {}), extent=brain_mask, n_slices=n_slices,
    )  # fmt: skip


def coregistration(
    t1w: ArrayLike,
    sodium: ArrayLike,
    affine: ArrayLike,
    *,
    contours: Sequence[Contour] = (),
    title: str = "Sodium image registered to T1w",
    n_slices: int = 6,
) -> str:
    """Sodium image, resampled once, over the T1w image; contours come from the T1w image and must fit the sodium.

    Parameters
    ----------
    t1w, sodium
        On one grid, shape (X, Y, Z), RAS orientation; sodium in any unit, not finite outside its field of view.
    affine
        Voxel to world, millimetres, shape (4, 4).
    contours
        Mask, colour and label each; see :func:`mosaic`.
    """
    return mosaic(
        t1w, affine, title=title, overlay=sodium, overlay_label="sodium signal (a.u.)", overlay_alpha=0.6, vmin=0.0,
        contours=contours, n_slices=n_slices,
    )  # fmt: skip


def tissue_maps(
    t1w: ArrayLike,
    affine: ArrayLike,
    tissues: Mapping[str, ArrayLike],
    *,
    brain_mask: ArrayLike | None = None,
    title: str = "Tissue fractions and brain mask on T1w",
    n_slices: int = 6,
) -> str:
    """Borders of the tissue fractions (at one half) and of the brain mask on the T1w image.

    Parameters
    ----------
    t1w
        Shape (X, Y, Z), RAS orientation.
    affine
        Voxel to world, millimetres, shape (4, 4).
    tissues
        ``GM``, ``WM``, ``CSF`` fractions, (X, Y, Z) each.
    """
    # Lines of tissues that touch coincide: grey matter goes below its neighbours, or it would hide both.
    lines = _tissue_contours(tissues)[::-1]
    if brain_mask is not None:
        lines.append((brain_mask, VERMILION, "brain mask"))
    return mosaic(t1w, affine, title=title, contours=lines, n_slices=n_slices)


def atlas_outlines(
    t1w: ArrayLike,
    labels: ArrayLike,
    affine: ArrayLike,
    *,
    title: str = "Atlas regions on T1w",
    n_slices: int = 6,
) -> str:
    """Borders of all atlas regions on the T1w image; the colours only separate neighbours.

    Parameters
    ----------
    t1w, labels
        Image and integer labels, shape (X, Y, Z), RAS orientation.
    affine
        Voxel to world, millimetres, shape (4, 4).
    """
    return mosaic(t1w, affine, title=title, labels=labels, extent=np.asarray(labels) > 0, n_slices=n_slices)


def residual(
    background: ArrayLike,
    residuals: ArrayLike,
    affine: ArrayLike,
    *,
    unit: str = "noise SD",
    limit: float | None = None,
    title: str = "Sodium image minus fitted model",
    n_slices: int = 6,
    **options: Any,
) -> str:
    """What the regional model leaves unexplained, red where the image is brighter than the model.

    Parameters
    ----------
    background, residuals
        On one grid (the native sodium grid), shape (X, Y, Z), RAS orientation.
    affine
        Voxel to world, millimetres, shape (4, 4).
    unit
        Of the residuals.
    limit
        End of the colour scale, by default the 99th percentile of the absolute residual.
    **options
        Passed on to :func:`mosaic`.
    """
    values = np.asarray(residuals, dtype=np.float32)
    finite = np.abs(values[np.isfinite(values)])
    end = limit if limit is not None else (float(np.percentile(finite, 99)) if finite.size else 1.0)
    return mosaic(
        background, affine, title=title, overlay=values, cmap="RdBu_r", vmin=-end, vmax=end,
        overlay_label=f"residual ({unit})", overlay_alpha=0.85, n_slices=n_slices, **options,
    )  # fmt: skip
