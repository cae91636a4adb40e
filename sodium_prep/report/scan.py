"""Figures and record of one sodium series, and back from the record to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sodium_prep.physics.relaxation import TISSUES, Relaxation, field_note, tissue_relaxation
from sodium_prep.report import figures, plots
from sodium_prep.report.alignment import (
    Placed,
    alignment_figures,
    alignment_metrics,
    alignment_record,
    alignment_sections,
    alignment_warnings,
    need,
    paired,
)
from sodium_prep.report.clinical import clinical_tables, relative_tables
from sodium_prep.report.page import PrintedTable, RegionRow, ReportFigure, ScanReport, SummaryItem
from sodium_prep.report.qc import evaluate, qc_record

MAIN_REGIONS: Final = ("Cortex", "WhiteMatter", "Hippocampus", "CSF")
_FIGURE_FIELDS: Final = ("section", "title", "caption", "alt", "wide", "label")
_PSF_FACTS: Final = ("kind", "reason", "window", "fwhm_mm", "relative_width_sd")
_BAR_REGIONS: Final = (
    *((name, side) for name in MAIN_REGIONS for side in ("L", "R")),
    *((f"{side}-{name}", hemi) for name in ("Thalamus-Proper", "Putamen", "Caudate") for side, hemi in
      (("Left", "L"), ("Right", "R"))),
    *((f"ctx-{side}-{name}", hemi) for name in ("precentral", "entorhinal", "superiorfrontal") for side, hemi in
      (("lh", "L"), ("rh", "R"))),
)  # fmt: skip


def draw_figures(
    images: Mapping[str, Placed | None],
    table: Sequence[Mapping[str, Any]],
    calibration: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, ReportFigure]:
    """Draw every figure that the data allow, by name.

    Parameters
    ----------
    images
        On the anatomical grid: ``t1w brain_mask gm wm csf labels sodium_t1w``, and, None or left out where there is
        none, ``tsc_t1w``, ``template_affine`` and ``template_warped`` (the template's image brought there by its affine
        registration alone and by all of it), ``sodium_second`` (the sodium image placed by the registration that was
        not taken) and ``lesion`` (mask). On the native grid: ``sodium residual``.
    table
        Rows of the regional table.
    calibration
        From :func:`sodium_prep.regional.summary.calibration_record`.
    facts
        What the steps before found, each of which may be left out: ``psf``, ``primary``, ``signal_factors``;
        ``reg_opinions`` (list of ``name``, ``shift_mm``, ``turn_deg``, ``score``, ``chosen`` and, if the outline by the
        other opinion is to be drawn, ``matrix``, the (4, 4) map of points of the sodium image to points of the T1w).
    """
    t1w, affine = need(images, "t1w")
    tissues = {name.upper(): need(images, name)[0] for name in ("gm", "wm", "csf")}
    native, native_affine = need(images, "sodium")
    primary = facts.get("primary")
    out = alignment_figures(images, facts)

    def add(section: str, title: str, caption: str, svg: str, *, wide: bool) -> None:
        out[section] = ReportFigure(section, title, caption, svg, alt=title, wide=wide)

    tsc = images.get("tsc_t1w")
    if tsc is not None:
        add("tsc", "Total sodium concentration", f"Not corrected for partial volume; calibrated by {primary}.",
            figures.tsc_on_t1w(t1w, tsc[0], affine, tissues=tissues, brain_mask=need(images, "brain_mask")[0]),
            wide=True)  # fmt: skip
    vials = [row for row in calibration["references"] if row["reference"] == "vials"]
    if vials and "vials" in calibration["lines"]:
        line = _calibration(vials, calibration["lines"]["vials"], table, facts["signal_factors"])
        text = (
            "Vials and fitted line with 95 % intervals; residuals below. Shaded, if corrected: cortex to white matter."
        )
        add("calibration", "Calibration line", text, line, wide=False)
    psf = facts.get("psf")
    if psf:
        told = f" It is {psf['reason']}." if psf.get("reason") else ""
        add("psf", "Point spread function", f"Radial profiles relative to their peak, from the centre outwards.{told}",
            plots.psf_profiles(psf["radius_mm"], _in_order(psf["profiles"]), fwhm_mm=psf["fwhm_mm"]),
            wide=False)  # fmt: skip
    bars = _bars(table, primary) if primary else None
    if bars:
        add("regions", "Regional TSC", "Bars: estimate; lines: 95 % interval. Grey is the uncorrected mean.",
            plots.regional_bars(*bars, reference=str(primary)), wide=False)  # fmt: skip
    if psf:
        add("residual", "Model residual", "Sodium image minus fitted model, in units of the noise; structure that "
            "follows anatomy points to wrong fractions, registration or PSF.",
            figures.residual(native, need(images, "residual")[0], native_affine), wide=True)  # fmt: skip
    return out


def _in_order(profiles: Mapping[str, Any]) -> dict[str, Any]:
    """Tissues in their usual order; JSON sorts them."""
    known = [name for name in ("GM", "WM", "CSF") if name in profiles]
    return {name: profiles[name] for name in (*known, *sorted(set(profiles) - set(known)))}


def _calibration(
    vials: Sequence[Mapping[str, Any]],
    line: Mapping[str, Any],
    table: Sequence[Mapping[str, Any]],
    factors: Mapping[str, float],
) -> str:
    seen = [v for v in vials if np.isfinite(v["signal"])]
    # Only a corrected value is that of one tissue, whose signal factor is known.
    brain = [
        line["Intercept"] + line["Slope"] * factors[row["tissue"]] * row["tsc"]
        for row in table
        if row["name"] in ("Cortex", "WhiteMatter") and row["estimator"] == "labbe" and row["reference"] == "vials"
    ]
    return plots.calibration(
        [v["concentration"] * v["signal_factor"] for v in seen],
        [v["signal"] for v in seen],
        [v["signal_sd"] for v in seen],
        labels=[str(v["label"]) for v in seen],
        intercept=line["Intercept"],
        slope=line["Slope"],
        covariance=line["Covariance"],
        brain_range=(min(brain), max(brain)) if brain else None,
        used=[v["flag"] == "ok" for v in seen],
    )


def _bars(
    table: Sequence[Mapping[str, Any]], reference: str
) -> tuple[list[str], dict[str, dict[str, list[float]]]] | None:
    rows = {
        (row["name"], row["hemisphere"], row["estimator"]): row
        for row in table
        if row["reference"] == reference and np.isfinite(row["tsc"])
    }
    chosen = [key for key in _BAR_REGIONS if (*key, "none") in rows]
    if not chosen:
        return None
    estimates: dict[str, dict[str, list[float]]] = {}
    for estimator in ("none", "labbe"):
        if any((*key, estimator) in rows for key in chosen):
            found = [rows.get((*key, estimator), {}) for key in chosen]
            columns = {"tsc": "tsc", "low": "tsc_ci_low", "high": "tsc_ci_high"}
            estimates[estimator] = {k: [float(r.get(c, np.nan)) for r in found] for k, c in columns.items()}
    names = [name if name.startswith(("Left", "Right", "ctx")) else f"{name} {side}" for name, side in chosen]
    return names, estimates


def scan_record(
    label: str,
    drawn: Mapping[str, ReportFigure],
    images: Mapping[str, Placed | None],
    table: Sequence[Mapping[str, Any]],
    calibration: Mapping[str, Any],
    facts: Mapping[str, Any],
    ran: Mapping[str, Any],
    warnings: Sequence[str],
    field_strength_t: float,
) -> dict[str, Any]:
    """Quality record of a series, with all that the page needs under ``report``.

    Parameters are those of :func:`draw_figures`; ``label`` is the heading, ``ran`` the steps for the methods text.
    """
    brain, affine = need(images, "brain_mask")
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    gm, wm, csf = (float(need(images, name)[0].sum(dtype=float)) for name in ("gm", "wm", "csf"))
    psf = facts.get("psf")
    metrics: dict[str, float | None] = {
        **facts.get("metrics", {}),
        **alignment_metrics(facts),
        **({"clipped_fraction": facts["clipped_fraction"]} if "clipped_fraction" in facts else {}),
        "brain_volume_ml": float((brain > 0).sum()) * voxel_ml,
        "gm_wm_volume_ratio": gm / wm if wm else None,
        "csf_fraction": csf / max(gm + wm + csf, 1e-9),
    }
    if psf:
        metrics["psf_fwhm_mm"] = psf["fwhm_mm"].get("GM", psf["fwhm_mm"].get("all"))
    record = qc_record(evaluate(metrics))
    relaxation = facts.get("relaxation", {})
    record["report"] = {
        "label": label,
        "primary": facts.get("primary"),
        "figures": {name: {key: getattr(figure, key) for key in _FIGURE_FIELDS} for name, figure in drawn.items()},
        "alignment": alignment_record(images, facts, ran),
        "summary": _summary(facts, calibration, field_strength_t),
        "regions": _region_rows(table),
        "clinical": [*clinical_tables(table, facts.get("primary")), *relative_tables(facts)],
        "weighting": facts.get("weighting", "SQ"),
        "warnings": [
            *warnings,
            *filter(None, [field_note(field_strength_t)]),
            *facts.get("window_notes", []),
            *facts.get("kspace_notes", []),
            *facts.get("echo_notes", []),
            *facts.get("notes", []),
            *alignment_warnings(facts),
        ],
        "ran": _what_ran(ran, calibration, facts, field_strength_t),
        "psf": {key: psf[key] for key in _PSF_FACTS if key in psf} if psf else None,
        "relaxation": relaxation,
        "metrics": metrics,
    }
    return record


def _summary(
    facts: Mapping[str, Any], calibration: Mapping[str, Any], field_strength_t: float
) -> list[tuple[str, str]]:
    floor = str(facts.get("floor", "zero-mean"))
    if "phase_left" in facts:
        floor += f", complex data ({100 * facts['phase_left']:.1f} % of the power left imaginary)"
    image = [
        ("Reconstruction", str(facts.get("method", ""))),
        ("Runs averaged", str(facts.get("n_runs", 1))),
        ("Noise floor", floor + (", removed" if facts.get("floor_corrected") else "")),
        ("Receive profile", _RECEIVE.get(str(facts.get("receive_method")), "not corrected")),
    ]
    if facts.get("weighting", "SQ") != "SQ":
        return [("Kind of image", f"weighted ({facts['weighting']}): no concentration"), *image]
    return [
        image[0],
        ("Point spread function", (facts.get("psf") or {}).get("reason") or "not known"),
        *image[1:],
        *_echo_summary(facts.get("echoes", {})),
        ("References", ", ".join(calibration["order"]) or "none"),
        ("Concentration map by", str(facts.get("primary") or "no reference")),
        ("T1 and T2* of tissue", _relaxation_origin(facts.get("relaxation", {}), field_strength_t)),
        ("Tissue fractions", "from the template (no T1w contrast)" if facts.get("prior_driven") else "from the image"),
    ]


def _echoes_ran(echoes: Mapping[str, Any]) -> dict[str, Any] | None:
    if "fitted_voxels" not in echoes:
        return None
    facts = {name: echoes[name] for name in ("fitted_voxels", "law", "difference_echoes")}
    return facts | {"n_echoes": len(echoes["echo_times_s"])}


def _echo_summary(echoes: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "fitted_voxels" not in echoes:
        return []
    names = {"mono": "one exponential", "biexponential": "two exponentials"}
    fits = " and ".join(f"{names[model]} in {n} voxels" for model, n in sorted(echoes["fitted_voxels"].items())[::-1])
    times = ", ".join(f"{1e3 * t:g}" for t in echoes["echo_times_s"])
    return [("T2* maps", f"{fits}, from echoes at {times} ms")]


_RECEIVE: Final = {
    "pair": "corrected by the coil pair",
    "reciprocity": "corrected by the transmit field (reciprocity)",
    "fit": "corrected by a fit to the image",
}


def _relaxation_origin(relaxation: Mapping[str, Mapping[str, Any]], field_strength_t: float) -> str:
    """Tissues whose times are the study's own, and what all others are."""
    own = [
        t for t in TISSUES if t in relaxation and Relaxation(**relaxation[t]) != tissue_relaxation(t, field_strength_t)
    ]
    text = f"of the study for {', '.join(own)}; literature for others" if own else "of the literature"
    return text if field_note(field_strength_t) is None else f"{text} (at other fields)"


def _region_rows(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in table:
        if row["name"] in MAIN_REGIONS and not np.isfinite(float(row["index"] if row["index"] is not None else np.nan)):
            sides = ("L", "R", "both") if row["name"] == "Hippocampus" else ("both",)
            if row["hemisphere"] not in sides:
                continue
            side = "" if row["hemisphere"] == "both" else f" {row['hemisphere']}"
            entry = rows.setdefault(
                (row["name"] + side, row["reference"]),
                {"region": row["name"] + side, "reference": row["reference"], "values": {}, "flag": ""},
            )
            entry["values"][row["estimator"]] = [row["tsc"], row["tsc_ci_low"], row["tsc_ci_high"]]
            if row["estimator"] == "labbe" and row["flag"] != "ok":
                entry["flag"] = row["flag"]
    order = [f"{name}{side}" for name in MAIN_REGIONS for side in ("", " L", " R")]
    return sorted(rows.values(), key=lambda entry: order.index(entry["region"]))


def _what_ran(
    ran: Mapping[str, Any], calibration: Mapping[str, Any], facts: Mapping[str, Any], field_strength_t: float
) -> dict[str, Any]:
    lines, references = calibration["lines"], list(calibration["order"])
    psf = facts.get("psf")
    corrected = bool(psf)
    used = [row for row in calibration["references"] if row["reference"] == "vials" and row["flag"] == "ok"]
    used_times = facts.get("relaxation", {}).values()
    sources = sorted({str(times[key]) for times in used_times for key in ("citation", "t1_citation")} - {""})
    out: dict[str, Any] = dict(ran)
    if lines:
        out["calibration"] = {"references": references, "n_vials": len(used)}
        if "vials" in lines:
            out["calibration"]["intercept"] = lines["vials"]["Mode"]
    weighted = facts.get("weighting", "SQ") != "SQ"
    recon = ran.get("recon") or {}
    told = {"field_strength_t": field_strength_t, "sources": sources, "fitted_echoes": recon.get("fitted_echoes")}
    out["relaxation"] = None if weighted else told
    out["echoes"] = _echoes_ran(facts.get("echoes", {}))
    if recon:
        out["recon"] = {**recon, **{name: facts[name] for name in ("n_coils", "n_runs") if name in facts}}
        out["recon"]["floor_removed"] = bool(facts.get("floor_corrected"))
    out["receive"] = {"method": facts["receive_method"]} if "receive_method" in facts else None
    if out.get("fractions") and facts.get("prior_driven"):
        out["fractions"] = {"method": "template"}
    if out.get("registration"):
        known = {"refined": "registration_refined", "coil_proton": "coil_proton"}
        out["registration"] = {**out["registration"], **{key: True for key, fact in known.items() if facts.get(fact)}}
    if out.get("normalisation") and facts.get("template_method"):
        out["normalisation"] = {**out["normalisation"], "method": facts["template_method"]}
    if facts.get("atlas"):
        out["atlas"] = {**(out.get("atlas") or {}), **facts["atlas"]}
    if psf:
        out["psf"] = {key: psf[key] for key in _PSF_FACTS if key in psf}
    if weighted:
        return out
    estimators = [name for name in ran.get("regional", {}).get("estimators", ()) if name == "none" or corrected]
    out["regional"] = {"estimators": estimators, "free_csf": corrected, "noise_covariance": corrected}
    return out


def scan_report(record: Mapping[str, Any], svgs: Mapping[str, str]) -> ScanReport:
    """The page's part for one series, from its record and the figures found beside it."""
    report = record["report"]
    drawn = {
        name: ReportFigure(svg=svgs[name], **({"section": name} | about))
        for name, about in report["figures"].items()
        if name in svgs
    }
    missing: dict[str, str] = dict(report.get("alignment", {}).get("missing", {}))
    if "psf" not in report["figures"]:
        missing |= dict.fromkeys(("psf", "residual"), "the point spread function is not known")
    if "calibration" not in report["figures"]:
        missing["calibration"] = "there is no calibration by vials"
    if "tsc" not in report["figures"]:
        missing["tsc"] = "there is no reference, so there are no concentrations"
    if report.get("weighting", "SQ") != "SQ":
        missing |= dict.fromkeys(("tsc", "calibration", "regions"), "a weighted image has no concentration")
        missing |= dict.fromkeys(("psf", "residual"), "a weighted image is not corrected for partial volume")
    rows = [
        RegionRow(
            row["region"],
            row["reference"],
            {name: _triple(row["values"][name]) for name in plots.ESTIMATOR_NAMES if name in row["values"]},
            row["flag"],
        )
        for row in report["regions"]
    ]
    return ScanReport(
        label=report["label"],
        summary=[SummaryItem(name, value) for name, value in report["summary"]],
        qc=evaluate(report["metrics"]),
        figures=paired(drawn),
        regions=rows,
        warnings=report["warnings"],
        missing=missing,
        clinical=[PrintedTable("", **one) for one in report.get("clinical", ())],
        **alignment_sections(report),
    )


def _triple(values: Sequence[float | None]) -> tuple[float, float, float]:
    tsc, low, high = (float("nan") if value is None else float(value) for value in values)
    return tsc, low, high
