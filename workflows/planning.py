"""What the graph of a session has to know before it is built: files, facts, and what the methods text says of them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from sodium_prep.atlas.bundled import FREESURFER_ATLAS, TEMPLATE_NAME
from sodium_prep.bids.records import KSpaceFile, SessionInputs, SodiumSeries
from sodium_prep.bids.sidecar import merged_metadata
from sodium_prep.errors import InputError
from sodium_prep.settings import JOINT_METHOD, KspaceMethod, Settings
from sodium_prep.workflows.anatomy import registers_to_template
from sodium_prep.workflows.psf import choose_psf
from sodium_prep.workflows.sodium import KspaceEcho, ReceiveMethod, SeriesPlan

logger = logging.getLogger("sodium_prep.run")


def given_files(inputs: SessionInputs, settings: Settings) -> dict[str, Path]:
    """Precomputed derivatives that replace steps of the anatomy.

    FreeSurfer's labels stand for the bundled atlas only; any other atlas goes by the way to the template.
    """
    pre = inputs.precomputed
    own_atlas = settings.atlas[0] != FREESURFER_ATLAS
    found: dict[str, Path | None] = {
        "brain_mask": pre.brain_mask,
        "segmentation": None if own_atlas else pre.aparcaseg or pre.segmentation,
        "segmentation_mask": None if own_atlas else pre.segmentation_mask,
        "gm": pre.probsegs.get("GM"),
        "wm": pre.probsegs.get("WM"),
        "csf": pre.probsegs.get("CSF"),
        "lesion": inputs.lesion,
    }
    there, back = (
        pre.template_xfms.get(("T1w", TEMPLATE_NAME)),
        pre.template_xfms.get((TEMPLATE_NAME, "T1w")),
    )
    if there and back:
        found |= {"to_template": there, "from_template": back}
    return {name: path for name, path in found.items() if path is not None}


def plan_series(
    series: SodiumSeries, inputs: SessionInputs, settings: Settings, *, longitudinal: bool = False
) -> SeriesPlan:
    """What the workflow of a series needs to know, from its checked inputs.

    Parameters
    ----------
    longitudinal
        Whether the participant's sessions share a template of their own.
    """
    first = series.runs[0]
    kspace = first.source == "kspace"
    sidecar = first.sidecar
    voxel = None if kspace else first.images[0].image.voxel_mm
    facts = sidecar.acquisition(voxel, settings.recon_filter if kspace else None)
    psf = choose_psf(sidecar, facts, settings, kspace=kspace)
    for warning in psf.warnings:
        logger.warning("%s: %s", first.files[0].path, warning)
    vials = [reference for reference in sidecar.references if reference.is_vial]
    placed = all(vial.centre_ras_mm is not None for vial in vials)
    label = f"acq-{series.acquisition}" if series.acquisition else series.suffix
    session = f"ses-{inputs.session} " if inputs.session else ""
    weighted = sidecar.weighting != "SQ"
    method, told = series_method(series, settings)
    several = first.files if len(first.files) > 1 and not weighted else ()
    of_first = (
        (f"T2* is of the first of {len(series.runs)} runs; concentrations are of their average.",)
        if several and len(series.runs) > 1
        else ()
    )
    one_run = (
        (f"Rows of the estimator kspace are of the first of {len(series.runs)} runs; all others are of their average.",)
        if kspace and "kspace" in settings.pvc and len(series.runs) > 1
        else ()
    )
    block = sidecar.sodium_acquisition
    other_parts = () if kspace else tuple(dict(run.images[0].other_part) for run in series.runs)
    receive, lacking = _receive_method(series, settings)
    return SeriesPlan(
        name=f"{series.acquisition or 'sodium'}_{series.suffix}_wf",
        label=f"{session}{label}",
        files=tuple(run.files[0].path for run in series.runs),
        kspace=kspace,
        method=method,
        strength=settings.recon_strength,
        motion_blocks=settings.motion_blocks,
        raw=tuple(tuple(_kspace_echo(file) for file in run.kspace) for run in series.runs) if kspace else (),
        other_parts=other_parts,
        acquisition=asdict(facts.acquisition),
        relaxation=sidecar.relaxation_given(),
        psf_known=facts.psf_known,
        n_channels=block.sum_of_squares_channels or 1,
        psf=psf,
        vials=tuple(_vial_fields(vial) for vial in vials),
        vials_placed=placed,
        acq=series.acquisition or "",
        suffix=series.suffix,
        receive=receive,
        receive_pair=series.receive_pair if receive == "pair" else None,
        air_point=settings.air_point,
        b1_plus=series.tb1map,
        b1_units=str(merged_metadata(series.tb1map).get("Units", "")) if series.tb1map else "",
        b1_pair=series.tb1dam,
        b1_pair_facts=_pair_facts(series.tb1dam),
        transform=inputs.precomputed.sodium_to_t1w.get(series.acquisition),
        proton=series.proton,
        weighting=sidecar.weighting,
        echoes=tuple(file.path for file in several),
        echo_times_s=tuple(file.echo_time_s for file in several),
        echo_parts=() if kspace else tuple(dict(image.other_part) for image in first.images),
        echo_run=first.run or "" if len(series.runs) > 1 else "",
        warnings=(*inputs.warnings, *facts.assumed, *psf.warnings, *told, *one_run, *of_first, *lacking),
        ran={
            "software": {"sodium_prep": settings.version, **_versions()},
            "recon": {
                "method": method if kspace else "vendor",
                "complex": any(other_parts),
                "trajectory": facts.acquisition.trajectory if facts.psf_known or kspace else None,
                "motion_blocks": settings.motion_blocks if kspace else 0,
                "fitted_echoes": len(several) if kspace and method == JOINT_METHOD else 0,
                "n_spokes": block.number_of_spokes,
                "kspace_filter": facts.acquisition.kspace_filter,
            },
            **_anatomy_ran(inputs, settings),
            "longitudinal": longitudinal,
            "registration": None
            if series.acquisition in inputs.precomputed.sodium_to_t1w
            else {"methods": ["ants", "greedy"], "coil_proton": series.proton is not None},
            "weighted": {"weighting": sidecar.weighting} if weighted else None,
            "regional": None
            if weighted
            else {"estimators": ["none", *(n for n in settings.pvc if n != "none" and (kspace or n != "kspace"))]},
        },
    )


def series_method(series: SodiumSeries, settings: Settings) -> tuple[KspaceMethod, tuple[str, ...]]:
    """How the k-space of a series is reconstructed, and what is told of its later echoes."""
    first, method = series.runs[0], settings.kspace_method
    if first.source != "kspace":
        return method, ()
    if method != JOINT_METHOD:
        later = dict.fromkeys(file.path for file in first.files[1:] if file.path != first.files[0].path)
        return method, tuple(f"{path}: is not used for TSC, which comes of the first echo." for path in later)
    if first.sidecar.weighting != "SQ":
        return "gridding", (f"--recon {method} is not for weighted images; this one is of gridding.",)
    times = [[file.echo_time_s for file in run.files] for run in series.runs]
    if alone := next((run for run in series.runs if len(run.files) < 2), None):
        mend = "Add a file for each echo, list all EchoTimes of the file in its sidecar, or choose another method"
        raise InputError(alone.files[0].path, f"has one echo, and --recon {method} needs two or more", mend)
    if any(own != times[0] for own in times):
        raise InputError(first.files[0].path, "has other echo times than other runs of its series", "Rename the series")
    return method, ()


def _receive_method(series: SodiumSeries, settings: Settings) -> tuple[ReceiveMethod, tuple[str, ...]]:
    """Where the receive profile comes from, and what to tell where what was asked for cannot be had."""
    asked = settings.receive_profile
    if asked in ("auto", "pair"):
        if series.receive_pair is not None:
            return "pair", ()
        told = "There is no RB1COR pair (--receive-profile pair), so the receive profile is not removed."
        return "none", (told,) * (asked == "pair")
    if asked == "reciprocity" and series.tb1map is None and series.tb1dam is None:
        return "none", (
            "There is no transmit field (--receive-profile reciprocity), so the receive profile is not removed.",
        )
    return cast("ReceiveMethod", asked), ()


def _pair_facts(pair: tuple[Path, Path] | None) -> tuple[float, float]:
    """Smaller flip angle in degrees and repetition time in seconds of a double-angle pair."""
    if pair is None:
        return 0.0, 0.0
    # Checked when the pair was found.
    known = merged_metadata(pair[0])
    return float(known["FlipAngle"]), float(known.get("RepetitionTimeExcitation") or known["RepetitionTime"])


def _anatomy_ran(inputs: SessionInputs, settings: Settings) -> dict[str, Any]:
    """Steps of the anatomy that run, and what is taken from derivatives in their place."""
    given = given_files(inputs, settings)
    contrast = inputs.anat.contrast
    others = [name for name in settings.output_spaces if name != "T1w"]
    registered = registers_to_template(contrast, given, to_template=bool(others))
    via = [Path(name).name for name in others if name != TEMPLATE_NAME]
    names = {"brain_mask": "brain mask", "gm": "tissue fractions", "segmentation": "atlas labels",
             "to_template": "transforms to the template"}  # fmt: skip
    taken = [text for name, text in names.items() if name in given]
    origin = inputs.precomputed.origin
    sources = sorted({origin[path] for path in given.values() if path in origin})
    return {
        "anatomy": {
            "contrast": contrast,
            "template": TEMPLATE_NAME,
            "n4": registered,
            "brain_extraction": "derivatives" if "brain_mask" in given else "template",
            "taken": taken,
            "derivatives": ", ".join(sources),
        },
        "fractions": None if "gm" in given else {"method": "joint" if contrast == "T1w" else "template"},
        "lesion": "lesion" in given,
        "normalisation": {
            "method": {"ants": "SyN"}.get(settings.registration, settings.registration),
            "template": TEMPLATE_NAME,
            "fast": settings.fast_registration,
            "further": via,
        }
        if registered
        else None,
    }


def _versions() -> dict[str, str]:
    """Versions of the programs that do the work."""
    programs = ("nipype", "nibabel", "antspyx", "picsl_greedy", "finufft", "numpy", "scipy")
    return {name: version(name) for name in programs}


def _kspace_echo(file: KSpaceFile) -> KspaceEcho:
    """With what its sidecar says of the raw data as values that a step hashes: of a file by its content."""
    known = {name: value for name, value in asdict(file.sidecar.raw_description()).items() if value is not None}
    fields = {name: str(value) if isinstance(value, Path) else value for name, value in known.items()}
    return KspaceEcho(file.path, fields, file.place)


def _vial_fields(vial: Any) -> dict[str, Any]:
    return {
        "label": vial.label,
        "centre_mm": list(vial.centre_ras_mm or (0.0, 0.0, 0.0)),
        "radius_mm": vial.radius_mm or 1.0,
        "length_mm": vial.length_mm,
        "axis": list(vial.axis or (0.0, 0.0, 1.0)),
        "concentration_mM": vial.concentration_mM,
        "concentration_sd_mM": vial.concentration_error_mM or 0.0,
        "relaxation": asdict(vial.relaxation) if vial.relaxation else None,
    }
