"""Methods text with citations, written from what really ran: a step that did not run leaves no sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from sodium_prep.report import methods_anatomy as anatomical
from sodium_prep.report import methods_group as group_level
from sodium_prep.report.bibliography import BIBLIOGRAPHY, Source
from sodium_prep.report.methods_anatomy import Step, join

_CITE: Final = re.compile(r"\{([a-z0-9, ]+)\}")


@dataclass(frozen=True)
class Reference:
    """One numbered entry of the list of references."""

    number: int
    key: str
    text: str
    doi: str = ""

    @property
    def url(self) -> str:
        """Address of the publication; empty without a DOI."""
        return "https://doi.org/" + quote(self.doi, safe="/:;().") if self.doi else ""


@dataclass(frozen=True)
class MethodsText:
    """Paragraphs (heading and text, citations as ``[1, 2]``) and the references that they cite, in order."""

    paragraphs: tuple[tuple[str, str], ...]
    references: tuple[Reference, ...]

    def to_markdown(self) -> str:
        """The same as Markdown, for ``logs/CITATION.md``."""
        parts = ["# Methods\n"]
        parts += [f"## {heading}\n\n{text}\n" for heading, text in self.paragraphs]
        parts.append("## References\n")
        parts += [f"{r.number}. {r.text}" + (f" {r.url}" if r.url else "") for r in self.references]
        return "\n".join(parts) + "\n"


def build_methods(
    ran: Mapping[str, Step | bool | None], extra_sources: Mapping[str, Source] | None = None
) -> MethodsText:
    """Write the methods section.

    Parameters
    ----------
    ran
        Step to its parameters; a step that is absent, None or False did not run, and True stands for one without
        parameters. Steps and the parameters they know (each may be left out, and then is not spoken of):

        ``software``
            name to version.
        ``recon``
            ``method`` (gridding, vendor), ``trajectory``, ``n_spokes``, ``n_coils``, ``kspace_filter``, ``n_runs``,
            ``floor_removed`` (bool), ``motion_blocks``, ``fitted_echoes`` (number of echoes that make one image).
        ``receive``
            ``method`` (pair, reciprocity, fit).
        ``anatomy``
            ``contrast``, ``n4`` (bool), ``brain_extraction`` (template, derivatives), ``template``, ``taken`` (what
            comes from derivatives, in words), ``derivatives`` (their names).
        ``fractions``
            ``method`` (joint, template).
        ``lesion``
            none; a mask of a lesion was given.
        ``longitudinal``
            none; the sessions share a template of the participant.
        ``normalisation``
            ``method`` (SyN, ants, ants coarse, greedy, affine), ``template``, ``via`` (bundled template in which the
            atlas lies, if another one), ``further`` (templates reached by way of this one), ``fast`` (bool).
        ``atlas``
            ``name``, ``version``, ``licence``, ``citation`` (free text).
        ``registration``
            ``methods`` (ants, greedy: independent estimates) or ``method`` (ants, greedy, header) with ``metric``;
            ``coil_proton`` (bool: by way of a proton image of the sodium coil), ``refined`` (bool).
        ``psf``
            ``kind`` (acquisition, measured, gaussian), ``fwhm_mm`` (tissue to width), ``window``, ``reason``.
        ``relaxation``
            ``field_strength_t``, ``sources`` (free text citations of the values used), ``fitted_echoes`` (their number
            where one exponential through them makes the image).
        ``echoes``
            ``n_echoes``, ``fitted_voxels`` (model to count), ``law`` (gaussian, rician), ``difference_echoes``.
        ``weighted``
            ``weighting`` (IR, TQ).
        ``calibration``
            ``references`` (vials, CSF, vitreous), ``n_vials``, ``intercept`` (free, zero).
        ``regional``
            ``estimators`` (names of ``--pvc``), ``free_csf`` (bool), ``noise_covariance`` (bool).

        and of the group level, where covariates, scores and regions are names in print:

        ``quality``
            ``raters`` (bool), ``n_excluded``.
        ``comparison``
            ``covariates``, ``tissue_covariates``, ``negative_controls``, ``regions`` (in words), ``robust``,
            ``weights`` (bool).
        ``harmonisation``
            ``method`` (site, combat), ``shown`` (bool: harmonised values are drawn).
        ``normative``
            ``n_controls``, ``covariates``.
        ``longitudinal_change``
            ``covariates``.
        ``correlation``
            ``scores``, ``methods`` (spearman, pearson), ``covariates``.
        ``classification``
            ``folds``, ``bootstraps``.
        ``survival``
            ``covariates``.
        ``reliability``
            ``repeat`` (in words).
        ``voxelwise``
            ``statistic`` (tfce, cluster), ``permutations``, ``covariates``.
    extra_sources
        Entries to add to or to replace in the bibliography, such as a user's own atlas.

    Raises
    ------
    ValueError
        For a step that does not exist.
    """
    if unknown := set(ran) - set(_WRITERS):
        raise ValueError(f"unknown steps {sorted(unknown)}; known: {', '.join(_WRITERS)}")
    sources = {**BIBLIOGRAPHY, **(extra_sources or {})}
    order: list[str] = []
    paragraphs = []
    for name, (heading, write) in _WRITERS.items():
        step = ran.get(name)
        text = "" if step is None or step is False else write({} if step is True else step)
        if text:
            paragraphs.append((heading, _number(text, order, sources)))
    references = tuple(Reference(i + 1, key, sources[key].text, sources[key].doi) for i, key in enumerate(order))
    return MethodsText(tuple(paragraphs), references)


def _number(text: str, order: list[str], sources: Mapping[str, Source]) -> str:
    def cite(match: re.Match[str]) -> str:
        keys = [key.strip() for key in match.group(1).split(",")]
        if any(key not in sources for key in keys):
            return match.group()
        for key in keys:
            if key not in order:
                order.append(key)
        return "[" + ", ".join(str(order.index(key) + 1) for key in keys) + "]"

    return _CITE.sub(cite, text)


def _recon(step: Step) -> str:
    text = _reconstruction(step)
    if step.get("floor_removed"):
        text += " The Rician noise floor of the magnitude, measured in air, was removed {gudbjartsson1995}."
    if (step.get("n_runs") or 1) > 1:
        text += f" {step['n_runs']} repeat scans were registered rigidly to the first and averaged."
    return text


_ITERATED: Final = {
    "sense": " From there an image was found by least squares over all channels {pruessmann2001}, by conjugate "
    "gradients that end before the noise grows.",
    "wavelet": " From there an image sparse in wavelets was found by accelerated proximal gradient descent {beck2009}.",
    "tv": " From there an image of small total variation was found by accelerated proximal gradient descent "
    "{beck2009}.",
    "agr": " From there an image of small directional total variation {ehrhardt2016}, guided by the anatomical image "
    "{schramm2024}, was found by accelerated proximal gradient descent {beck2009}.",
    "bowsher": " From there an image was found by least squares with Bowsher's prior {bowsher2004}: differences "
    "between neighbours that are alike in the anatomical image are kept small.",
    "agrdm": " From there an image before any decay and a map of one T2* in each voxel were found from all echoes "
    "together, with the decay during the readouts as part of the signal equation {schramm2024}: the image of small "
    "directional total variation {ehrhardt2016}, both guided by the anatomical image.",
}
"""What follows gridding."""


def _reconstruction(step: Step) -> str:
    trajectory = {
        "DA-3DPR": "density-adapted 3D radial {nagel2009}",
        "TPI": "twisted projection {boada1997}",
        "3DPR": "3D radial",
        "Cones": "3D cones",
        "SpiralStack": "stack of spirals",
    }.get(str(step.get("trajectory")), str(step.get("trajectory", "")))
    if step.get("method") == "vendor":
        text = "Sodium images were taken as reconstructed by the scanner."
        if step.get("complex"):
            text += " They were complex; a smooth phase was removed and the real part kept, whose noise has no floor."
        return text
    parts = ["Sodium k-space"]
    if trajectory:
        parts.append(f"on a {trajectory} trajectory")
    if step.get("n_spokes"):
        parts.append(f"with {step['n_spokes']} readouts")
    text = " ".join(parts) + (
        " was density compensated with the weights that follow from the trajectory and transformed by a "
        "non-uniform fast Fourier transform {barnett2019}, so that image values are signal per unit volume."
    )
    if step.get("motion_blocks"):
        text += (
            f" Rigid motion between {step['motion_blocks']} consecutive blocks of readouts was estimated from their "
            "low frequencies and taken out of k-space before."
        )
    text += _ITERATED.get(str(step.get("method")), "")
    if step.get("kspace_filter", "none") != "none":
        text += f" A {str(step['kspace_filter']).capitalize()} window was applied in k-space."
    if (step.get("n_coils") or 1) > 1:
        text += (
            f" The {step['n_coils']} receive channels were decorrelated by their noise covariance {{roemer1990}} and "
            "combined with sensitivities estimated from the data {walsh2000, inati2014}."
        )
    return text


def _receive(step: Step) -> str:
    if step.get("method") == "pair":
        return (
            "The receive profile was removed by the smoothed ratio of a sodium image taken with the receive array to "
            "one taken with the volume coil {lachner2020}."
        )
    if step.get("method") == "reciprocity":
        return "The receive profile of the transmit-receive coil was taken to be its transmit field, by reciprocity."
    if step.get("method") == "fit":
        return (
            "The receive profile was fitted to the sodium image, as the exponential of a polynomial of second order "
            "together with one signal for every brain structure."
        )
    return ""


def _psf(step: Step) -> str:
    widths = step.get("fwhm_mm")
    if isinstance(widths, Mapping):
        ordered = sorted(widths.items(), key=lambda item: ("GM", "WM", "CSF", item[0]).index(item[0]))
        place = {"all": ""}
        parts = [f"{width:.1f} mm" + place.get(tissue, f" in {tissue}") for tissue, width in ordered]
        shown = " Its full width at half maximum is " + join(parts) + "."
    else:
        shown = f" Its full width at half maximum is {widths:.1f} mm." if widths else ""
    if step.get("kind") == "gaussian":
        return "The point spread function was taken as a Gaussian of the width given by the user." + shown
    if step.get("kind") == "acquisition":
        text = (
            "The point spread function was computed for each tissue from the trajectory, the duration of the readout "
            "and the tissue's T2* {nagel2009}"
        )
        window = step.get("window") or "no window"
        text += "." if window == "no window" else f", with {window} included."
        if "told from the noise" in str(step.get("reason")):
            text += " Which window had been applied was told from the power spectrum of the noise in air."
        return text + shown
    if step.get("kind") == "measured" and str(step.get("reason")).startswith("computed"):
        return "The point spread function of each tissue was computed from the readouts and the tissue's T2*." + shown
    if step.get("kind") == "measured" and str(step.get("reason")).startswith("measured by points"):
        return (
            "The point spread function of each tissue was measured by points that were added to the data "
            "{fessler1996}." + shown
        )
    if step.get("kind") == "measured":
        return "The point spread function was taken from images of a point that the user gave." + shown
    return ""


def _relaxation(step: Step) -> str:
    field = step.get("field_strength_t")
    if step.get("fitted_echoes"):
        left = f"what one exponential through {step['fitted_echoes']} echoes leaves of biexponential T2* decay"
    else:
        left = "biexponential T2* decay at the echo time"
    text = f"Saturation {{ernst1966}} and {left} were corrected for with relaxation times"
    text += f" at {field:g} T" if field else ""
    sources = " ".join(str(s) for s in step.get("sources", ()))
    cited = [k for word, k in (("Riemer", "riemer2018"), ("Niesporek", "niesporek2017"), ("Fleysher", "fleysher2009"),
                               ("Ridley", "ridley2018")) if word in sources]  # fmt: skip
    text += f" from the literature {{{', '.join(cited)}}}" if cited else ""
    return text + "; their uncertainties are part of the intervals."


def _echoes(step: Step) -> str:
    both = "biexponential" in step.get("fitted_voxels", {})
    how = "Rician or non-central chi likelihood {sijbers1998}" if step.get("law") == "rician" else "Gaussian likelihood"
    text = (
        f"T2* was fitted to {step.get('n_echoes')} echoes in each voxel by one exponential"
        f"{' and by two' if both else ''}, by maximum {how}; intervals are 95 % intervals of the profile likelihood."
    )
    if step.get("difference_echoes"):
        text += (
            " A relaxation-weighted image is the difference of two echoes {mueller2022}, weighted so that the signal "
            "of fluid vanishes."
        )
    return text


def _weighted(step: Step) -> str:
    kind = {"IR": "an inversion-prepared", "TQ": "a multiple-quantum filtered"}[str(step["weighting"])]
    return (
        f"The signal of {kind} image is reported relative to that of white matter and not as a concentration: it is "
        "weighted by relaxation, and no sodium-only method isolates the intracellular compartment {hagiwara2021}."
    )


def _calibration(step: Step) -> str:
    names = {"vials": "external reference vials", "CSF": "cerebrospinal fluid", "vitreous": "the vitreous humour"}
    used = [names.get(str(r), str(r)) for r in step.get("references", ())]
    if not used:
        return ""
    text = f"Signal was converted to total sodium concentration (TSC, mmol/L) by {join(used)}"
    text += ", each reported separately" if len(used) > 1 else ""
    text += " {madelin2014}."
    if "vials" in step.get("references", ()):
        n = f" of {step['n_vials']} vials" if step.get("n_vials") else ""
        kind = {"free": " with a free intercept", "zero": " through the origin"}
        text += f" The line through the signals{n} was fitted by weighted least squares"
        text += kind.get(str(step.get("intercept")), "")
        text += " {york2004}; its covariance reaches every concentration, with Fieller's interval {fieller1954}."
    return text


_FURTHER: Final = {
    "mg": "subtraction of all that is not grey matter {muellergaertner1992}",
    "rbv": "region-based voxel-wise correction {thomas2011}",
    "mtc": "multi-target correction {erlandsson2006}",
    "iy": "iterative Yang correction {erlandsson2012}",
    "rl": "Richardson-Lucy deconvolution {richardson1972, lucy1974}",
    "vc": "reblurred Van Cittert deconvolution {tohka2008}",
    "mlts": "local regression on tissues by least trimmed squares {asllani2008, kim2021}",
}


def _regional(step: Step) -> str:
    estimators = list(step.get("estimators", ()))
    text = ""
    if "none" in estimators:
        text += "Uncorrected values are means of the sodium image weighted by the regions' fractions. "
    if "labbe" in estimators:
        text += (
            "Corrected values are the least-squares fit of the native sodium image by all region maps pushed through "
            "the acquisition, i.e. transformed to the sodium grid and blurred by the tissue's point spread function "
            "{labbe1998, sattarivand2012}; tissue outside the brain is part of the model. "
        )
        if step.get("free_csf"):
            text += "CSF outside the brain mask entered as compartments of free concentration. "
    if "joint" in estimators:
        text += (
            "In a second fit the errors of the tissue fractions at the borders of two tissues were random effects "
            "{henderson1975}, estimated with the regional signals by Gauss-Newton, as a check (joint). "
        )
    if "gtm" in estimators:
        text += "The geometric transfer matrix {rousset1998} was solved for comparison. "
    if "kspace" in estimators:
        text += (
            "Signals were also estimated from k-space, by least squares of the samples on the transform of each "
            "region map times the coil sensitivities and the decay of its tissue during the readout, after SLIM "
            "{hu1988} and SLAM {zhang2012} of spectroscopy. "
        )
    if others := [_FURTHER[name] for name in estimators if name in _FURTHER]:
        text += f"Voxel-wise maps, and regional values where these methods have any, were made by {join(others)}. "
    if text:
        text += "Intervals are 95 % intervals"
        text += " that use the covariance of the reconstructed noise." if step.get("noise_covariance") else "."
    return text.strip()


def _software(step: Step) -> str:
    cited = {"nipype": "gorgolewski2011", "nibabel": "brett", "antspyx": "avants2011",
             "picsl_greedy": "yushkevich2016", "finufft": "barnett2019",
             "numpy": "harris2020", "scipy": "virtanen2020", "matplotlib": "hunter2007",
             "statsmodels": "seabold2010"}  # fmt: skip
    parts = [f"{n} {v}" + (f" {{{cited[n.lower()]}}}" if n.lower() in cited else "") for n, v in step.items()]
    return (
        f"Computed with {join(parts)}, on data in the Brain Imaging Data Structure {{gorgolewski2016}}."
        if parts
        else ""
    )


_WRITERS: Final[dict[str, tuple[str, Callable[[Step], str]]]] = {
    "recon": ("Reconstruction", _recon),
    "receive": ("Receive profile", _receive),
    "anatomy": ("Anatomy", anatomical.anatomy),
    "fractions": ("Tissue fractions", anatomical.fractions),
    "lesion": ("Lesion", anatomical.lesion),
    "longitudinal": ("Template of the participant", anatomical.longitudinal),
    "normalisation": ("Spatial normalisation", anatomical.normalisation),
    "atlas": ("Regions", anatomical.atlas),
    "registration": ("Sodium to anatomy", anatomical.registration),
    "psf": ("Point spread function", _psf),
    "relaxation": ("Relaxation", _relaxation),
    "echoes": ("Echoes", _echoes),
    "weighted": ("Weighted images", _weighted),
    "calibration": ("Calibration", _calibration),
    "regional": ("Regional concentration", _regional),
    "quality": ("Quality of the scans", group_level.quality),
    "comparison": ("Group comparison", group_level.comparison),
    "harmonisation": ("Sites", group_level.harmonisation),
    "normative": ("Distance from the controls", group_level.normative),
    "longitudinal_change": ("Change over time", group_level.longitudinal),
    "correlation": ("Scores", group_level.correlation),
    "classification": ("Classification", group_level.classification),
    "survival": ("Time to event", group_level.survival),
    "reliability": ("Reliability", group_level.reliability),
    "voxelwise": ("Voxel by voxel", group_level.voxelwise),
    "software": ("Software", _software),
}
