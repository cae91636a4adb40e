"""The figures of a participant's report: pure functions from arrays to SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.report.mosaic import Contour, mosaic
from sodium_prep.report.plots import calibration, psf_profiles, regional_bars
from sodium_prep.report.svg import SKY, TISSUE_COLOURS, VERMILION

__all__ = [
    "atlas_outlines",
    "calibration",
    "fit",
    "fit_contours",
    "mosaic",
    "psf_profiles",
    "regional_bars",
    "residual",
    "tissue_maps",
    "tsc_on_t1w",
]

# On dark pictures and black-red-yellow overlays alike. Drawn in this order: grey matter, the most wanted, on top.
_LINES: dict[str, str] = {"CSF": TISSUE_COLOURS["CSF"], "WM": "#FFFFFF", "GM": TISSUE_COLOURS["GM"]}
_LESION: Final = "#FF3DF2"
_YELLOW: Final = "#F0E442"
_MASK: Final = "#FF5A1F"
_DEEP_MM: Final = 20.0  # cortical sulci end above, the lateral ventricles lie below
_SPECK_ML: Final = 0.3
FIT_SLICES: Final = 4
"""Slices per plane of pictures whose misfit must be seen: fewer, so that 1 mm is more than a pixel."""
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
    title: str = "Total sodium concentration on the anatomy",
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


def fit_contours(
    affine: ArrayLike,
    brain_mask: ArrayLike,
    wm: ArrayLike,
    csf: ArrayLike,
    *,
    lesion: ArrayLike | None = None,
    moved_mask: ArrayLike | None = None,
) -> list[Contour]:
    """Lines of the T1w image that any image registered to it must fit.

    Parameters
    ----------
    affine
        Voxel to world, millimetres, shape (4, 4).
    brain_mask, wm, csf
        Mask and tissue fractions of the T1w image, (X, Y, Z), RAS orientation. Of the CSF only the ventricles are
        drawn: its deep, large pieces.
    lesion
        Mask of a lesion.
    moved_mask
        Brain mask where another registration puts it, drawn dashed; hidden where it agrees.
    """
    lines: list[Contour] = [
        (ventricles(csf, brain_mask, affine), SKY, "ventricles and deep CSF"),
        (wm, _YELLOW, _NAMES["WM"]),
    ]
    if moved_mask is not None:
        lines.append((moved_mask, "#FFFFFF", "brain mask by the other registration", "--"))
    lines.append((np.asarray(brain_mask) > 0, _MASK, "brain mask"))
    if lesion is not None:
        lines.append((np.asarray(lesion) > 0, _LESION, "lesion"))
    return lines


def ventricles(csf: ArrayLike, brain_mask: ArrayLike, affine: ArrayLike) -> NDArray[np.float32]:
    """CSF fraction where it lies at least 20 mm inside the brain, in pieces of at least 0.3 ml; zero elsewhere.

    Parameters
    ----------
    csf, brain_mask
        Fraction and mask, (X, Y, Z).
    affine
        Voxel to world, millimetres, shape (4, 4).
    """
    from scipy.ndimage import distance_transform_edt, label

    fraction, inside = np.asarray(csf, dtype=np.float32), np.asarray(brain_mask) > 0
    voxel_mm = np.sqrt((np.asarray(affine, dtype=float)[:3, :3] ** 2).sum(axis=0))
    # Distances on every second or third voxel: 20 mm needs no finer grid, and a full one needs seconds.
    steps = np.maximum(np.rint(2.5 / voxel_mm).astype(int), 1)
    coarse = np.pad(inside[tuple(slice(None, None, int(step)) for step in steps)], 1)
    deep = (distance_transform_edt(coarse, sampling=voxel_mm * steps) >= _DEEP_MM)[1:-1, 1:-1, 1:-1]
    for axis, step in enumerate(steps):
        deep = np.repeat(deep, step, axis=axis).take(np.arange(inside.shape[axis]), axis=axis)
    pieces, _ = label((fraction > 0.5) & deep)
    sizes = np.bincount(pieces.ravel())
    large = sizes * float(np.prod(voxel_mm)) / 1000.0 >= _SPECK_ML
    large[0] = False
    return np.where(large[pieces], fraction, np.float32(0.0))


def fit(
    image: ArrayLike,
    affine: ArrayLike,
    contours: Sequence[Contour],
    *,
    extent: ArrayLike,
    through: ArrayLike | None = None,
    white: float = 1.0,
    n_slices: int = FIT_SLICES,
) -> str:
    """An image brought to the T1w grid, in grey, under lines of the T1w image: what does not fit is misregistered.

    Parameters
    ----------
    image
        Sodium, template or any other image resampled to the T1w grid, shape (X, Y, Z), RAS orientation; not finite
        outside its field of view.
    affine
        Voxel to world, millimetres, shape (4, 4).
    contours
        From :func:`fit_contours`.
    extent
        Mask that the slices show, and whose values set the display window; the same for figures to be compared.
    through
        Mask of a lesion, which the slices must not miss.
    white
        What is shown in white, in units of the 99th percentile within the mask.
    """
    values = np.asarray(image, dtype=np.float32)
    seen = values[(np.asarray(extent) > 0) & np.isfinite(values)]
    top = white * float(np.percentile(seen, 99.0)) if seen.size else None
    return mosaic(
        values, affine, contours=contours, extent=extent, through=through, grey_max=top, n_slices=n_slices, dpi=165.0
    )


def tissue_maps(
    t1w: ArrayLike,
    affine: ArrayLike,
    tissues: Mapping[str, ArrayLike],
    *,
    brain_mask: ArrayLike | None = None,
    lesion: ArrayLike | None = None,
    title: str = "Tissue fractions and brain mask on the anatomy",
    n_slices: int = FIT_SLICES,
) -> str:
    """Tissue fractions (at one half), brain mask and lesion on the T1w image.

    Parameters
    ----------
    t1w
        Shape (X, Y, Z), RAS orientation.
    affine
        Voxel to world, millimetres, shape (4, 4).
    tissues
        ``GM``, ``WM``, ``CSF`` fractions, (X, Y, Z) each.
    brain_mask, lesion
        Masks, (X, Y, Z).
    """
    # Borders of tissues that touch coincide, so that lines alone would hide that of grey matter.
    lines: list[Contour] = []
    for name, colour, style in (("GM", SKY, "fill"), ("WM", _YELLOW, "-"), ("CSF", "#00D9A0", "-")):
        if name in tissues:
            lines.append((tissues[name], colour, _NAMES[name], style))
    if brain_mask is not None:
        lines.append((np.asarray(brain_mask) > 0, _MASK, "brain mask"))
    if lesion is not None:
        lines.append((np.asarray(lesion) > 0, _LESION, "lesion"))
    return mosaic(
        t1w, affine, title=title, contours=lines, extent=brain_mask, through=lesion, n_slices=n_slices, dpi=165.0
    )


def atlas_outlines(
    image: ArrayLike,
    labels: ArrayLike,
    affine: ArrayLike,
    *,
    title: str = "Atlas regions on the anatomy",
    n_slices: int = 6,
) -> str:
    """Borders of all atlas regions on the T1w image, or any other on its grid; colours only separate neighbours.

    Parameters
    ----------
    image, labels
        Image and integer labels, shape (X, Y, Z), RAS orientation; the image not finite outside its field of view.
    affine
        Voxel to world, millimetres, shape (4, 4).
    """
    values, inside = np.asarray(image, dtype=np.float32), np.asarray(labels) > 0
    seen = values[inside & np.isfinite(values)]
    white = 1.5 * float(np.percentile(seen, 99.0)) if seen.size else None  # dark, so that lines stand out
    return mosaic(values, affine, title=title, labels=labels, extent=inside, grey_max=white, n_slices=n_slices)


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
