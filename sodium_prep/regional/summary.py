"""What a report and a quality check need to know of a quantified scan, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from sodium_prep.physics.readout import describe_window
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.physics.signal import signal_factor
from sodium_prep.quant.references import ReferenceSignal
from sodium_prep.regional.inputs import Scan
from sodium_prep.regional.scan import ScanResult

_TISSUES: Final[tuple[Tissue, ...]] = ("GM", "WM", "CSF")
_PROFILE_MM = np.linspace(0.0, 20.0, 161)


def calibration_record(result: ScanResult, scan: Scan) -> dict[str, Any]:
    """References as measured and lines as fitted, for the calibration files and the figure.

    ``order`` names the lines, the one that the maps use first.
    """
    return {
        # Keys of "lines" may be sorted on their way through a file; the order says which one the maps use.
        "order": list(result.lines),
        "references": [_reference_row(one, result, scan) for one in (*result.vials, *result.eyes)],
        "lines": {
            name: {
                "Intercept": line.intercept,
                "Slope": line.slope,
                "Covariance": line.covariance,
                "ChiSquared": line.chi2,
                "DegreesOfFreedom": line.dof,
                "PValue": line.p_value if line.dof else None,
                "InterceptError": line.intercept_sd,
                "SlopeError": line.slope_sd,
                "NumberOfPoints": line.n_points,
                "RSquared": line.r_squared,
                "Mode": line.mode,
            }
            for name, line in result.lines.items()
        },
    }


def _reference_row(one: ReferenceSignal, result: ScanResult, scan: Scan) -> dict[str, Any]:
    """One line of the table of references."""
    known = one.geometry
    factor = float(signal_factor(scan.acquisition, known.relaxation)) if known.relaxation else float("nan")
    kind = "vials" if one in result.vials else "vitreous"
    line = result.lines.get(kind)
    found = (one.signal - line.intercept) / (line.slope * factor) if line else float("nan")
    x, y, z = known.centre_mm
    return {
        "label": one.label,
        "reference": kind,
        "concentration": known.concentration_mM,
        "concentration_sd": known.concentration_sd_mM,
        "signal_factor": factor,
        "signal": one.signal,
        "signal_sd": one.signal_sd,
        "fitted_concentration": found,
        "background": one.background,
        "relative_residual": one.residual,
        "x": x,
        "y": y,
        "z": z,
        "radius": known.radius_mm,
        "length": known.length_mm,
        "n_voxels": one.n_voxels,
        "flag": one.flag,
        "reason": one.reason,
    }


CALIBRATION_COLUMNS: dict[str, dict[str, Any]] = {
    "label": {"Description": "Name of the reference object"},
    "reference": {"Description": "Which calibration it belongs to", "Levels": {"vials": "vials", "vitreous": "eyes"}},
    "concentration": {"Description": "Known or assumed sodium concentration", "Units": "mmol/L"},
    "concentration_sd": {"Description": "Its standard uncertainty", "Units": "mmol/L"},
    "signal_factor": {"Description": "Saturation times decay at the echo time", "Units": "1"},
    "signal": {"Description": "Amplitude of the fitted object in the image", "Units": "arbitrary"},
    "signal_sd": {"Description": "Its standard error", "Units": "arbitrary"},
    "fitted_concentration": {"Description": "Concentration that the calibration line gives it", "Units": "mmol/L"},
    "background": {"Description": "Constant under the object", "Units": "arbitrary"},
    "relative_residual": {"Description": "Root mean square residual of the fit over the signal", "Units": "1"},
    "x": {"Description": "Fitted centre, right", "Units": "mm"},
    "y": {"Description": "Fitted centre, anterior", "Units": "mm"},
    "z": {"Description": "Fitted centre, superior", "Units": "mm"},
    "radius": {"Description": "Inner radius", "Units": "mm"},
    "length": {"Description": "Inner length of a cylinder; n/a for a ball", "Units": "mm"},
    "n_voxels": {"Description": "Voxels of the fit"},
    "flag": {"Description": "ok, or why the reference is not used"},
    "reason": {"Description": "The same in words"},
}
"""Columns of the table of references, with the fields of a BIDS data dictionary."""


def scan_metrics(result: ScanResult, scan: Scan, relaxations: Mapping[Tissue, Relaxation]) -> dict[str, Any]:
    """Quality metrics, PSF profiles and notes.

    Returns
    -------
    Plain values: ``metrics`` by the names of :data:`sodium_prep.report.qc.THRESHOLDS`, ``psf``, ``primary``, ``notes``,
    ``signal_factors`` (of the tissues at nominal flip angle), ``relaxation`` as used, what became of the registration.
    """
    signals = result.signals
    primary = next(iter(result.lines), None)
    return {
        "metrics": {
            "na_snr_wm": _snr(result),
            "coverage": _coverage(result),
            "residual_ratio": float(np.sqrt(signals.misfit)) if scan.psf else None,
            **_calibration_metrics(result, scan),
            **_concentration_metrics(result, primary),
        },
        "psf": _psf_record(scan, relaxations),
        "primary": primary,
        "signal_factors": {tissue: float(signal_factor(scan.acquisition, relaxations[tissue])) for tissue in _TISSUES},
        "relaxation": {tissue: asdict(relaxation) for tissue, relaxation in relaxations.items()},
        "registration_refined": result.refined,
        **({"receive_method": "fit"} if result.receive_fitted else {}),
        "condition": signals.condition,
        "registration_sd_mm": result.registration_sd_mm,
        "notes": list(result.notes),
    }


def _row_of(result: ScanResult, name: str) -> int:
    regions = result.signals.regions
    return next(i for i, r in enumerate(regions) if (r.index, r.name, r.hemisphere) == (None, name, "both"))


def _snr(result: ScanResult) -> float | None:
    signals = result.signals
    values = signals.by_estimator["none"].values
    snr = float(values[_row_of(result, "WhiteMatter")] / signals.noise_sd) if signals.noise_sd > 0 else float("nan")
    return snr if np.isfinite(snr) else None


def _coverage(result: ScanResult) -> float:
    rows = [_row_of(result, name) for name in ("Cortex", "WhiteMatter")]
    volumes = result.signals.volumes_mm3[rows]
    return float(volumes @ result.signals.means.coverage[rows] / volumes.sum())


def _calibration_metrics(result: ScanResult, scan: Scan) -> dict[str, float | None]:
    line = result.lines.get("vials")
    if line is None:
        return {}
    used = [vial for vial in result.vials if vial.usable]
    out: dict[str, float | None] = {
        "cal_n_vials": float(len(used)),
        "cal_r2": line.r_squared,
        "cal_intercept_mM": line.intercept / line.slope,
        "cal_chi2_per_dof": line.chi2 / line.dof if line.dof else None,
    }
    top = max(vial.geometry.concentration_mM or 0.0 for vial in used)
    if result.tsc is not None:
        brain = np.isfinite(result.signals.residual) & scan.head
        out["cal_extrapolated_fraction"] = float(np.mean(result.tsc[brain] > top))
    return out


def _concentration_metrics(result: ScanResult, primary: str | None) -> dict[str, float | None]:
    if primary is None:
        return {}
    estimator = "labbe" if "labbe" in result.signals.by_estimator else "none"

    def tsc(name: str, reference: str) -> float:
        return next(
            float(row["tsc"])
            for row in result.table
            if (row["index"], row["name"], row["hemisphere"]) == (None, name, "both")
            and (row["estimator"], row["reference"]) == (estimator, reference)
        )

    out: dict[str, float | None] = {}
    if estimator == "labbe":
        out |= {"gm_tsc_mM": tsc("Cortex", primary), "wm_tsc_mM": tsc("WhiteMatter", primary)}
        out["csf_gm_ratio"] = tsc("CSF", primary) / tsc("Cortex", primary)
    out["reference_disagreement"] = result.disagreement
    if result.tsc is not None:
        seen = result.tsc[np.isfinite(result.signals.residual)]
        out["negative_fraction"] = float(np.mean(seen < 0.0))
    return out


def _psf_record(scan: Scan, relaxations: Mapping[Tissue, Relaxation]) -> dict[str, Any] | None:
    """What it is and why, with radial profiles relative to their peak, and widths."""
    psf = scan.psf
    if psf is None:
        return None
    contents = {str(tissue): relaxations[tissue] for tissue in _TISSUES}
    if psf.kind == "gaussian" or len(psf.measured) == 1:
        contents = {"all": relaxations["GM"]}
    return {
        "kind": psf.kind,
        "reason": psf.reason,
        "window": describe_window(psf.acquisition) if psf.acquisition else "",
        "relative_width_sd": psf.relative_width_sd,
        "radius_mm": _PROFILE_MM,
        "profiles": {name: psf.profile(_PROFILE_MM, relaxation) for name, relaxation in contents.items()},
        "fwhm_mm": {name: psf.width_mm(relaxation) for name, relaxation in contents.items()},
    }
