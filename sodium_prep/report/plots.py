"""Plots of numbers: calibration line, point spread function, regional values. Each returns SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.report.svg import BLUE, GREY, ORANGE, PURPLE, TISSUE_COLOURS, VERMILION, new_figure, to_svg

_WIDTH_IN = 5.4  # narrow, so that the lettering stays readable on a telephone
ESTIMATOR_NAMES: Final = {
    "none": "uncorrected",
    "labbe": "corrected (Labbé)",
    "gtm": "corrected (GTM)",
    "joint": "corrected (joint)",
    "kspace": "from k-space",
    "mg": "corrected (MG)",
    "iy": "corrected (IY)",
    "mlts": "corrected (mLTS)",
}
"""Estimators as readers are told them."""


def calibration(
    concentration_mM: ArrayLike,
    signal: ArrayLike,
    signal_sd: ArrayLike,
    *,
    labels: Sequence[str],
    intercept: float,
    slope: float,
    covariance: ArrayLike,
    brain_range: tuple[float, float] | None = None,
    used: Sequence[bool] | None = None,
    signal_label: str = "signal (a.u.)",
    title: str = "Calibration",
) -> str:
    """References, fitted line with its 95 % confidence band, and the residual of each reference in mM.

    Parameters
    ----------
    concentration_mM
        Known concentration of each reference times its signal factor (the abscissa of the fit), shape (n,).
    signal, signal_sd
        Measured signal and its standard deviation, (n,).
    labels
        Name of each reference, n of them.
    intercept, slope, covariance
        Line ``signal = intercept + slope * concentration * signal factor`` and its (2, 2) covariance.
    brain_range
        Low and high signal of the brain, shaded: where calibration is applied.
    used
        False for references left out of the fit, drawn hollow.
    """
    c, s, sd = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (concentration_mM, signal, signal_sd))
    keep = np.ones(c.size, dtype=bool) if used is None else np.asarray(used, dtype=bool)
    if not c.shape == s.shape == sd.shape == keep.shape == (len(labels),):
        raise ValueError("concentration, signal, standard deviation, labels and used must have the same length")
    line = np.linspace(min(0.0, float(c.min(initial=0.0))), float(c.max(initial=1.0)) * 1.08, 100)
    fit = intercept + slope * line
    design = np.stack([np.ones_like(line), line])
    band = 1.959964 * np.sqrt(np.einsum("in,ij,jn->n", design, np.asarray(covariance, dtype=float), design))
    with new_figure(_WIDTH_IN, 4.9) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        top.fill_between(line, fit - band, fit + band, color=BLUE, alpha=0.2, linewidth=0, label="95 % band")
        top.plot(line, fit, color=BLUE, label=f"{intercept:.4g} + {slope:.4g} c \N{MULTIPLICATION SIGN} f")
        if brain_range is not None:
            top.axhspan(*brain_range, color=ORANGE, alpha=0.13, linewidth=0, label="brain")
        for marked, fill, text in ((keep, VERMILION, "references"), (~keep, "white", "not used")):
            if marked.any():
                top.errorbar(c[marked], s[marked], 1.959964 * sd[marked], fmt="o", color=VERMILION,
                             markerfacecolor=fill, capsize=3, label=f"{text} (95 % interval)")  # fmt: skip
        for x, y, name in zip(c, s, labels, strict=True):
            top.annotate(str(name), (x, y), xytext=(7, -9), textcoords="offset points", fontsize=8.5)
        top.set(ylabel=signal_label, title=title)
        top.legend(loc="upper left")
        error = (s - intercept - slope * c) / slope if slope else np.full_like(s, np.nan)
        spread = 1.959964 * sd / abs(slope) if slope else np.zeros_like(s)
        bottom.axhline(0.0, color=BLUE)
        bottom.errorbar(c, error, spread, fmt="o", color=VERMILION, capsize=3)
        bottom.set(xlabel="concentration c × signal factor f (mM)", ylabel="residual (mM)")
        figure.align_ylabels([top, bottom])
        figure.tight_layout(pad=0.6)
        return to_svg(figure)


def _fwhm(radius: NDArray[np.float64], profile: NDArray[np.float64]) -> float:
    """Full width at half of the central value, linearly interpolated; nan if it is never reached."""
    below = np.flatnonzero(profile < 0.5 * profile[0])
    if not below.size or below[0] == 0:
        return float("nan")
    j = int(below[0])
    step = (profile[j - 1] - 0.5 * profile[0]) / (profile[j - 1] - profile[j])
    return float(2.0 * (radius[j - 1] + step * (radius[j] - radius[j - 1])))


def psf_profiles(
    radius_mm: ArrayLike,
    profiles: Mapping[str, ArrayLike],
    *,
    fwhm_mm: Mapping[str, float] | None = None,
    nominal_mm: float | None = None,
    title: str = "Point spread function",
) -> str:
    """Radial point spread function of each tissue, with its full width at half maximum.

    Parameters
    ----------
    radius_mm
        Distances from the centre, shape (n,), starting at 0.
    profiles
        Tissue to values, (n,) each. They are drawn relative to the highest centre, so that the loss of peak by decay
        shows.
    fwhm_mm
        Widths to print, by default measured on the profiles.
    nominal_mm
        Nominal resolution, marked by half of it.
    """
    radius = np.asarray(radius_mm, dtype=float)
    curves = {name: np.asarray(values, dtype=float) for name, values in profiles.items()}
    peak = max((abs(float(v[0])) for v in curves.values()), default=1.0) or 1.0
    spare = iter((PURPLE, VERMILION, GREY) * len(curves))
    with new_figure(_WIDTH_IN, 3.4) as figure:
        axes = figure.subplots()
        for name, values in curves.items():
            width = fwhm_mm[name] if fwhm_mm and name in fwhm_mm else _fwhm(radius, values)
            colour = TISSUE_COLOURS.get(name) or next(spare)
            # The lines of grey and white matter all but coincide.
            style = "--" if name == "WM" else "-"
            axes.plot(radius, values / peak, style, color=colour, label=f"{name}, FWHM {width:.1f} mm")
            half = 0.5 * values[0] / peak
            axes.plot([width / 2], [half], "o", color=colour, markersize=4)
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        if nominal_mm is not None:
            axes.axvline(nominal_mm / 2, color=GREY, linestyle=":", label=f"half of nominal {nominal_mm:g} mm")
        axes.set(xlabel="distance from the centre (mm)", ylabel="relative amplitude", title=title)
        axes.set_xlim(0, float(radius.max(initial=1.0)))
        axes.legend(loc="upper right")
        figure.tight_layout(pad=0.6)
        return to_svg(figure)


def regional_bars(
    names: Sequence[str],
    estimates: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    reference: str = "vials",
    title: str = "Regional TSC before and after correction",
) -> str:
    """Concentration of regions with 95 % intervals, one bar per estimator.

    Parameters
    ----------
    names
        Regions, in the order drawn (top to bottom).
    estimates
        Estimator (``none``, ``labbe``) to ``{"tsc": ..., "low": ..., "high": ...}``, mM, one value per region; not
        finite where there is none.
    reference
        What the concentration was calibrated by, printed under the title.
    """
    colours = {"none": "#9AA5B1", "labbe": BLUE, "gtm": PURPLE}
    n = max(len(estimates), 1)
    thick = 0.8 / n
    place = np.arange(len(names), dtype=float)
    with new_figure(_WIDTH_IN, 1.25 + len(names) * max(0.30, 0.17 * n)) as figure:
        axes = figure.subplots()
        for i, (estimator, columns) in enumerate(estimates.items()):
            value, low, high = (np.asarray(columns[key], dtype=float) for key in ("tsc", "low", "high"))
            at = place + (i - (n - 1) / 2) * thick
            colour = colours.get(estimator, ORANGE)
            axes.barh(
                at, np.nan_to_num(value), thick * 0.92, color=colour, label=ESTIMATOR_NAMES.get(estimator, estimator)
            )
            good = np.isfinite(value) & np.isfinite(low) & np.isfinite(high)
            error = np.stack([value - low, high - value])[:, good].clip(min=0.0)
            axes.errorbar(value[good], at[good], xerr=error, fmt="none", ecolor="#111111", elinewidth=1, capsize=2)
            for y in at[~np.isfinite(value)]:
                axes.text(1.0, y, "n/a", va="center", fontsize=8, color=GREY)
        axes.set_yticks(place, list(names))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.set(xlabel=f"TSC (mM), 95 % interval; reference: {reference}")
        figure.text(0.01, 1 - 0.06 / figure.get_size_inches()[1], title, va="top", fontsize=10.5, fontweight="bold")
        figure.legend(loc="upper left", bbox_to_anchor=(0.0, 1 - 0.26 / figure.get_size_inches()[1]), ncols=n)
        figure.tight_layout(pad=0.6, rect=(0, 0, 1, 1 - 0.5 / figure.get_size_inches()[1]))
        return to_svg(figure)
