"""The regional table: concentration of every region by every estimator and reference, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.quant.calibration import (
    CalibrationLine,
    fieller_interval,
    internal_reference_line,
    predict_concentration,
)
from sodium_prep.regional.asymmetry import asymmetry, concentrations_over_gain, ratio, side_pairs
from sodium_prep.regional.estimates import Signals
from sodium_prep.regional.lesion import mirror_weights
from sodium_prep.regional.signals import EstimatorName, RegionalSignals

TABLE_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "index": {"Description": "Label of the region in the atlas; n/a for regions that are merged or without a label"},
    "name": {"Description": "Name of the region"},
    "hemisphere": {
        "Description": "Side of the brain",
        "Levels": {"L": "left", "R": "right", "both": "both, or midline"},
    },
    "tissue": {"Description": "Tissue that is reported; decides relaxation times and point spread function"},
    "estimator": {
        "Description": "How the signal of the region was estimated",
        "Levels": {
            "none": "mean over the region's voxels, without correction of partial volume",
            "gtm": "geometric transfer matrix (Rousset et al. 1998)",
            "labbe": "least squares on the regions as the acquisition blurs them (Labbe et al. 1998)",
            "joint": "the same, with the errors of the tissue fractions fitted along",
            "kspace": "least squares of the samples of k-space on what each region sends into them",
            "mg": "what is left in grey matter without all other compartments (Mueller-Gaertner et al. 1992)",
            "iy": "iterative Yang correction (Erlandsson et al. 2012)",
            "mlts": "local regression on tissues by least trimmed squares (Kim et al. 2021)",
        },
    },
    "reference": {"Description": "What the concentration was calibrated with"},
    "n_voxels": {"Description": "Native sodium voxels of the uncorrected mean"},
    "volume_mm3": {"Description": "Volume of the region's tissue in the anatomical image", "Units": "mm^3"},
    "coverage": {"Description": "Part of the region's volume inside usable sodium voxels", "Units": "1"},
    "tsc": {"Description": "Total sodium concentration", "Units": "mmol/L"},
    "tsc_stderr_within": {
        "Description": "Standard error from noise, misfit, registration and tissue fractions, without the errors of "
        "calibration, relaxation and point spread function that all regions of a scan share",
        "Units": "mmol/L",
    },
    "tsc_stderr": {
        "Description": "Standard error with calibration, relaxation and point spread function",
        "Units": "mmol/L",
    },
    "tsc_ci_low": {"Description": "Lower end of the 95 % interval (Fieller) of tsc", "Units": "mmol/L"},
    "tsc_ci_high": {"Description": "Upper end of the 95 % interval (Fieller) of tsc", "Units": "mmol/L"},
    "tsc_sd": {"Description": "Standard deviation over the region's voxels, uncorrected only", "Units": "mmol/L"},
    "tsc_median": {"Description": "Median over the region's voxels, uncorrected only", "Units": "mmol/L"},
    "gm_fraction": {"Description": "Share of grey matter in the region's voxels, before blurring", "Units": "1"},
    "wm_fraction": {"Description": "Share of white matter in the region's voxels, before blurring", "Units": "1"},
    "csf_fraction": {"Description": "Share of CSF in the region's voxels, before blurring", "Units": "1"},
    "spill_in_fraction": {
        "Description": "Part of the signal in the region's voxels that comes from other compartments",
        "Units": "1",
    },
    "csf_signal_fraction": {
        "Description": "Part of the signal in the region's voxels that comes from CSF, by the fitted model; of the "
        "signal, where csf_fraction is of the volume. Ripples of the point spread function can make it negative",
        "Units": "1",
    },
    "asymmetry": {
        "Description": "Asymmetry index 200 (L - R) / (L + R) of tsc, the same in the rows of both sides",
        "Units": "percent",
    },
    "asymmetry_stderr": {
        "Description": "Its standard error, from the joint covariance of the two sides",
        "Units": "percent",
    },
    "mirror_ratio": {
        "Description": "Rows of a lesion: tsc over that of what lies opposite. Lesion: over grey and white matter of "
        "its mirror image, weighted by volume; rim: over the same tissue of the mirror image",
        "Units": "1",
    },
    "mirror_ratio_stderr": {"Description": "Its standard error, from the joint covariance", "Units": "1"},
    "flag": {
        "Description": "Why the row must be read with care, joined by +; ok if nothing is known against it",
        "Levels": {
            "absent": "the region has no volume here, or none in the field of view",
            "cut": "less than 90 % of its volume is in usable voxels",
            "ill-determined": "the data do not tell it from its neighbours",
            "uncertain": "standard error within the scan above 25 %",
            "misfit": "the model leaves more than twice the expected noise",
            "fractions": "with tissue borders fitted to the sodium image (joint) the value is another, by more than "
            "three standard errors within the scan",
        },
    },
}
"""Columns of the table in their order, with the fields of a BIDS data dictionary."""

_CUT: Final = 0.9
_UNCERTAIN: Final = 0.25
_MISFIT: Final = 4.0
_DOUBTED: Final = 3.0


def csf_line(signals: RegionalSignals, concentration_mM: float, concentration_sd_mM: float) -> CalibrationLine:
    """Calibration by CSF of assumed concentration, from its partial-volume corrected signal.

    Its error holds noise, registration and relaxation of the fluid, and that of the concentration. What of it the
    signals of the regions share is taken off where a concentration is made of both (:func:`regional_table`).

    Raises
    ------
    InputError
        If there is no CSF, or its signal is not positive.
    """
    fluid = signals.csf_reference
    if fluid is None:
        raise InputError("CSF", "the anatomy shows no CSF", "Use another reference")
    return internal_reference_line(fluid.signal, fluid.sd, fluid.factor, concentration_mM, concentration_sd_mM)


def _shared_with_slope(
    signals: RegionalSignals, estimator: EstimatorName, found: Signals, reference: str, line: CalibrationLine
) -> NDArray[np.float64]:
    """Covariance of the regional signals with the slope of the CSF line, (n,); none with that of another.

    Relaxation and the width of the PSF move both; noise and registration too, and what they share is known for least
    squares, from which the reference comes.
    """
    total = np.zeros(len(found.values))
    fluid = signals.csf_reference
    if reference != "CSF" or fluid is None or line.mode != "internal":
        return total
    if estimator == "labbe":
        total = total + fluid.covariance
    for p, change in fluid.changes.items():
        own = found.slopes.get(p, 0.0) - (found.values - line.intercept) * found.log_slopes.get(p, 0.0)
        total = total + own * signals.shared_sd[p] * change
    return total * line.slope / fluid.signal


def regional_table(signals: RegionalSignals, lines: Mapping[str, CalibrationLine]) -> list[dict[str, Any]]:
    """Rows of the table: every region by every estimator and reference.

    A region has ``tsc = (t - a) / (g f)`` with its signal t, the line's intercept a and slope g, and its signal factor
    f. Within a scan t varies with noise (widened where the model does not fit), with registration and with the tissue
    fractions; the total adds calibration, relaxation and the width of the PSF. A relaxation parameter acts on f and,
    through the PSF, on every t, and these two effects are added before squaring. The interval is Fieller's, for the
    ratio of t - a, with the error of t and of f, and g, with the covariance of a and g. The interval of ``none`` is
    that of the uncorrected mean: it does not hold the concentration of the tissue.

    Parameters
    ----------
    signals
        From :func:`sodium_prep.regional.signals.regional_signals`.
    lines
        Calibration of each reference that exists, e.g. ``{"vials": ..., "CSF": ...}``.

    Returns
    -------
    Rows with the keys of :data:`TABLE_COLUMNS`; NaN or None where there is no value.
    """
    rows = []
    for reference, line in lines.items():
        for estimator, found in signals.by_estimator.items():
            rows += _rows(signals, estimator, found, reference, line)
    order = {name: i for i, name in enumerate(lines)}
    place = {id(region): i for i, region in enumerate(signals.regions)}
    rows.sort(key=lambda item: (place[item[0]], order[item[1]["reference"]]))
    return [row for _, row in rows]


def doubted_groups(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of merged regions whose least-squares value the joint fit contradicts."""
    return sorted({row["name"] for row in rows if row["index"] is None and "fractions" in row["flag"].split("+")})


def _rows(
    signals: RegionalSignals, estimator: EstimatorName, found: Signals, reference: str, line: CalibrationLine
) -> list[tuple[int, dict[str, Any]]]:
    within_sd, total_sd = found.signal_sd(signals.shared_sd, line.intercept)
    shared = _shared_with_slope(signals, estimator, found, reference, line)
    tsc, total, _, _ = predict_concentration(found.values, total_sd, found.factors, line, shared)
    low, high = fieller_interval(found.values, total_sd, found.factors, line, slope_covariance=shared)
    gain = line.slope * found.factors
    within = within_sd / gain
    means = signals.means
    uncorrected = estimator == "none"
    over_gain = concentrations_over_gain(found, signals.shared_sd, line)
    doubted = _doubted(signals, estimator, found)
    pairs, mirror = side_pairs(signals.regions), mirror_weights(signals.regions, signals.volumes_mm3)
    out = []
    for i, region in enumerate(signals.regions):
        if found.estimated is not None and not found.estimated[i]:
            continue
        row = {
            "index": region.index,
            "name": region.name,
            "hemisphere": region.hemisphere,
            "tissue": region.tissue,
            "estimator": estimator,
            "reference": reference,
            "n_voxels": int(means.n_voxels[i]),
            "volume_mm3": float(signals.volumes_mm3[i]),
            "coverage": float(means.coverage[i]),
            "tsc": float(tsc[i]),
            "tsc_stderr_within": float(within[i]),
            "tsc_stderr": float(total[i]),
            "tsc_ci_low": float(low[i]),
            "tsc_ci_high": float(high[i]),
            "tsc_sd": float(means.sd[i] / gain[i]) if uncorrected else None,
            "tsc_median": float((means.median[i] - line.intercept) / gain[i]) if uncorrected else None,
            "gm_fraction": _share(signals.composition, "GM", i),
            "wm_fraction": _share(signals.composition, "WM", i),
            "csf_fraction": _share(signals.composition, "CSF", i),
            "spill_in_fraction": float(signals.spill_in[i]),
            "csf_signal_fraction": float(signals.csf_signal[i]),
        }
        index, index_sd = asymmetry(*over_gain, *pairs[i]) if i in pairs else (None, None)
        row |= {"asymmetry": index, "asymmetry_stderr": index_sd}
        over, over_sd = ratio(*over_gain, np.eye(len(found.values))[i], mirror[i]) if i in mirror else (None, None)
        row |= {"mirror_ratio": over, "mirror_ratio_stderr": over_sd}
        ill, wrong = bool(found.ill_determined[i]), bool(doubted[i])
        row["flag"] = _flag(row, ill, signals.misfit, wrong, corrected=not uncorrected)
        out.append((id(region), row))
    return out


def _share(composition: Mapping[Any, NDArray[np.float64]], tissue: str, row: int) -> float:
    return float(composition[tissue][row]) if tissue in composition else 0.0


def _doubted(signals: RegionalSignals, estimator: EstimatorName, found: Signals) -> NDArray[np.bool_]:
    """Where least squares with fractions as given contradicts the fit that may change them."""
    joint = signals.by_estimator.get("joint")
    if joint is None or estimator not in ("labbe", "gtm"):
        return np.zeros(len(found.values), bool)
    within_sd = np.sqrt(np.diag(found.covariance))
    return np.asarray(np.abs(found.values - joint.values) > _DOUBTED * within_sd)


def _flag(row: Mapping[str, Any], ill_determined: bool, misfit: float, doubted: bool, *, corrected: bool) -> str:
    if not np.isfinite(row["tsc"]):
        return "absent"
    found = [
        name
        for name, holds in (
            ("cut", row["coverage"] < _CUT),
            ("ill-determined", ill_determined),
            ("uncertain", row["tsc_stderr_within"] > _UNCERTAIN * abs(row["tsc"])),
            ("misfit", corrected and misfit > _MISFIT),
            ("fractions", doubted),
        )
        if holds
    ]
    return "+".join(found) or "ok"
