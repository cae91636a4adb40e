"""Quality metrics of one sodium scan: their thresholds, verdicts and explanations.

Every threshold stands in :data:`THRESHOLDS`; all are provisional until a multi-site cohort has set them. The range
of published tissue concentrations warns and never fails: patients differ by design.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Verdict = Literal["pass", "warn", "fail", "info"]

_SEVERITY: Final[dict[Verdict, int]] = {"info": 0, "pass": 1, "warn": 2, "fail": 3}


@dataclass(frozen=True)
class Threshold:
    """Limits of one metric and what the metric means.

    Attributes
    ----------
    label, unit
        As printed; ``unit`` is empty for a pure number.
    explanation
        What the metric measures, in one sentence.
    warn_below, fail_below, warn_above, fail_above
        Limits, or None where there is none. A value on a limit passes.
    provisional
        Whether the limits still await evidence.
    source
        Where the limits come from, if from a publication.
    digits
        Decimal places in print.
    yes_no
        Whether the value is printed as a word: yes for anything but zero.
    """

    label: str
    unit: str
    explanation: str
    warn_below: float | None = None
    fail_below: float | None = None
    warn_above: float | None = None
    fail_above: float | None = None
    provisional: bool = True
    source: str = ""
    digits: int = 2
    yes_no: bool = False

    @property
    def text(self) -> str:
        """The limits in words, such as ``warn < 8, fail < 4`` or ``warn outside 30 to 56``."""
        if self.yes_no and self.warn_above is not None:
            return "warn if yes"
        parts = []
        for word, low, high in (("warn", self.warn_below, self.warn_above), ("fail", self.fail_below, self.fail_above)):
            if low is not None and high is not None:
                parts.append(f"{word} outside {low:g} to {high:g}")
            elif low is not None:
                parts.append(f"{word} < {low:g}")
            elif high is not None:
                parts.append(f"{word} > {high:g}")
        return ", ".join(parts).replace("-", "\N{MINUS SIGN}") or "none"

    def judge(self, value: float) -> Verdict:
        """Verdict on a finite value; ``info`` where there is no limit at all."""
        if self.text == "none":
            return "info"
        if (self.fail_below is not None and value < self.fail_below) or (
            self.fail_above is not None and value > self.fail_above
        ):
            return "fail"
        if (self.warn_below is not None and value < self.warn_below) or (
            self.warn_above is not None and value > self.warn_above
        ):
            return "warn"
        return "pass"


_NORMS = "30 to 56 mM in brain tissue: Hagiwara et al., AJNR 2021, doi:10.3174/ajnr.A7261"

THRESHOLDS: Final[Mapping[str, Threshold]] = {
    "na_snr_wm": Threshold(
        "SNR in white matter",
        "",
        "Mean sodium signal of white matter over the noise standard deviation.",
        8,
        4,
        digits=1,
    ),
    "coverage": Threshold(
        "Brain inside the sodium image",
        "",
        "Fraction of cortex and white matter that the sodium image covers.",
        0.98,
        0.90,
        digits=3,
    ),
    "residual_ratio": Threshold(
        "Model residual over noise",
        "",
        "Root mean square of sodium image minus fitted model inside the head, over its expected noise. High values "
        "point to wrong tissue fractions, registration or point spread function.",
        warn_above=2.0,
        fail_above=5.0,
    ),
    "cal_chi2_per_dof": Threshold(
        "Calibration chi-square per degree of freedom",
        "",
        "Scatter of the references about the calibration line, relative to their errors.",
        warn_above=4.0,
        fail_above=16.0,
    ),
    "cal_r2": Threshold("Calibration R²", "", "Explained variance of the calibration line.", 0.99, 0.95, digits=4),
    "cal_n_vials": Threshold(
        "Calibration references",
        "",
        "Number of references on the line; two leave nothing to check it by.",
        3,
        1,
        digits=0,
    ),
    "cal_intercept_mM": Threshold(
        "Calibration intercept",
        "mM",
        "Apparent concentration of an object without sodium; far from zero it betrays a noise floor or receive bias.",
        warn_below=-5,
        fail_below=-20,
        warn_above=5,
        fail_above=20,
        digits=1,
    ),
    "cal_extrapolated_fraction": Threshold(
        "Brain above the calibrated range",
        "",
        "Fraction of the model's voxels within the head whose concentration exceeds that of the highest vial.",
        warn_above=0.25,
    ),
    "reg_nmi": Threshold(
        "Normalised mutual information",
        "",
        "Similarity of the sodium image and the T1w image after registration (1 = unrelated).",
        warn_below=1.02,
        digits=3,
    ),
    "reg_shift_mm": Threshold(
        "Shift, sodium to T1w", "mm", "Translation found by the registration.", warn_above=15, fail_above=50, digits=1
    ),
    "reg_rotation_deg": Threshold(
        "Rotation, sodium to T1w", "°", "Rotation found by the registration.", warn_above=10, fail_above=45, digits=1
    ),
    "reg_disagreement_mm": Threshold(
        "Disagreement of the two registrations",
        "mm",
        "Mean distance, over the brain, between where two independent registrations put the sodium image.",
        warn_above=1.0,
    ),
    "reg_sd_mm": Threshold(
        "Uncertainty of the registration",
        "mm",
        "Estimated root mean square displacement over the brain; it is part of the intervals.",
        warn_above=0.5,
    ),
    "reg_flagged": Threshold(
        "Registration in doubt",
        "",
        "Whether the two registrations disagree, one of them failed, or none of them fits.",
        warn_above=0,
        yes_no=True,
    ),
    "template_similarity": Threshold(
        "Similarity to the template",
        "",
        "Mean squared local correlation of the template and the T1w image within the brain, 0 to 1.",
        warn_below=0.2,
        digits=3,
    ),
    "template_gain": Threshold(
        "Gain by the deformable registration",
        "",
        "Similarity to the template after the deformable registration minus that after the affine one.",
        warn_below=0.0,
        digits=3,
    ),
    "lost_regions": Threshold(
        "Atlas regions lost by warping",
        "",
        "Number of regions of the atlas without a voxel on the T1w grid.",
        warn_above=0,
        digits=0,
    ),
    "csf_gm_ratio": Threshold(
        "CSF over grey matter",
        "",
        "Ratio of the corrected concentrations; CSF (about 140 mM) is the brightest compartment of a correct image.",
        warn_below=1.8,
        fail_below=1.0,
        warn_above=5.0,
    ),
    "gm_tsc_mM": Threshold(
        "Cortex TSC", "mM", "Corrected concentration of cortex.", 30, None, 56, source=_NORMS, digits=1
    ),
    "wm_tsc_mM": Threshold(
        "White-matter TSC", "mM", "Corrected concentration of white matter.", 30, None, 56, source=_NORMS, digits=1
    ),
    "reference_disagreement": Threshold(
        "Disagreement of references",
        "SE",
        "Largest difference of the cortical concentration between any two references, in standard errors of both.",
        warn_above=2.5,
    ),
    "brain_volume_ml": Threshold("Brain volume", "ml", "Volume of the brain mask.", 900, 600, 2000, 2400, digits=0),
    "gm_wm_volume_ratio": Threshold(
        "Grey over white volume", "", "Ratio of the tissue fractions summed over the brain.", 0.8, 0.5, 2.2, 3.0
    ),
    "csf_fraction": Threshold("CSF in the brain mask", "", "Fraction of the brain mask that is CSF.", 0.04, None, 0.40),
    "psf_fwhm_mm": Threshold(
        "Resolution in grey matter",
        "mm",
        "Full width at half maximum of the point spread function.",
        warn_above=10,
        digits=1,
    ),
    "clipped_fraction": Threshold(
        "Clipped voxels",
        "",
        "Fraction of voxels of head and references at the largest storable value.",
        warn_above=0.0,
        fail_above=0.01,
        digits=5,
    ),
    "negative_fraction": Threshold(
        "Negative voxels",
        "",
        "Fraction of brain voxels with a negative concentration.",
        warn_above=0.02,
        fail_above=0.10,
        digits=4,
    ),
}
"""Limits of every metric the reports know; the keys are the names used in tables."""


@dataclass(frozen=True)
class QcMetric:
    """One metric with its verdict, ready to print.

    ``value`` is None where the metric could not be had; ``text`` is the value in print.
    """

    name: str
    value: float | None
    unit: str
    verdict: Verdict
    threshold: str
    provisional: bool
    explanation: str
    label: str = ""
    text: str = ""
    source: str = ""


def evaluate(metrics: Mapping[str, float | None], thresholds: Mapping[str, Threshold] = THRESHOLDS) -> list[QcMetric]:
    """Judge measured metrics.

    Parameters
    ----------
    metrics
        Metric name to value. None means not measured (no verdict); a value that is not finite was attempted and went
        wrong, which is a warning. A name without a threshold is shown without a verdict.
    thresholds
        Limits, by default :data:`THRESHOLDS`.

    Returns
    -------
    The metrics in the order of ``thresholds``, then the unknown ones as given.
    """
    order = [name for name in thresholds if name in metrics] + [name for name in metrics if name not in thresholds]
    return [_evaluate_one(name, metrics[name], thresholds.get(name)) for name in order]


def _evaluate_one(name: str, value: float | None, threshold: Threshold | None) -> QcMetric:
    limit = threshold or Threshold(name, "", "", provisional=False, digits=3)
    if value is None:
        verdict, text = "info", "not measured"
    elif not math.isfinite(value):
        verdict, text, value = "warn", "not finite", None
    else:
        verdict, text = limit.judge(value), _print(value, limit)
    return QcMetric(
        name=name,
        value=value,
        unit=limit.unit,
        verdict=verdict,  # type: ignore[arg-type]
        threshold=limit.text,
        provisional=limit.provisional and limit.text != "none",
        explanation=limit.explanation,
        label=limit.label,
        text=text,
        source=limit.source,
    )


def _print(value: float, limit: Threshold) -> str:
    if limit.yes_no:
        return "yes" if value else "no"
    return f"{value:.{limit.digits}f}" if value else "0"


def overall_verdict(metrics: Iterable[QcMetric]) -> Verdict:
    """Worst verdict of all metrics; ``info`` when none was judged."""
    return max((metric.verdict for metric in metrics), key=_SEVERITY.__getitem__, default="info")


def qc_record(metrics: Iterable[QcMetric]) -> dict[str, Any]:
    """Metrics as a JSON-ready record, the form in which the group level reads them back."""
    listed = list(metrics)
    return {"Verdict": overall_verdict(listed), "Metrics": {m.name: asdict(m) for m in listed}}
