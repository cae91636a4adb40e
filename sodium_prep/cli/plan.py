"""What would be done with a session, in words."""

from __future__ import annotations

from pathlib import Path

from sodium_prep.bids.records import SessionInputs, SodiumSeries
from sodium_prep.settings import Settings
from sodium_prep.workflows.psf import choose_psf


def describe_session(inputs: SessionInputs, settings: Settings) -> str:
    """One paragraph per session: files in, steps, references and estimators."""
    name = f"sub-{inputs.participant}" + (f" ses-{inputs.session}" if inputs.session else "")
    anat = inputs.anat
    lines = [name, f"  anatomy: {_short(anat.path, settings)} ({anat.contrast})"]
    given = _given(inputs, settings)
    lines.append(f"  taken as given: {', '.join(given) if given else 'nothing; all anatomy is computed'}")
    for series in inputs.sodium:
        lines += _describe_series(series, settings)
    lines += [f"  note: {warning}" for warning in inputs.warnings]
    return "\n".join(lines)


def _given(inputs: SessionInputs, settings: Settings) -> list[str]:
    from sodium_prep.workflows.planning import given_files

    names = {
        "brain_mask": "brain mask",
        "gm": "tissue fractions",
        "segmentation": "atlas labels",
        "lesion": "lesion mask",
        "to_template": "transforms to template",
    }
    given = given_files(inputs, settings)
    found = ["bias-corrected image"] if inputs.precomputed.anat else []
    found += [text for name, text in names.items() if name in given]
    return [*found, *(["sodium to T1w"] if inputs.precomputed.sodium_to_t1w else [])]


def _describe_series(series: SodiumSeries, settings: Settings) -> list[str]:
    from sodium_prep.workflows.planning import series_method

    method, told = series_method(series, settings)
    lines = [f"  sodium acq-{series.acquisition or '(none)'} {series.suffix}: {len(series.runs)} run(s)"]
    for run in series.runs:
        how = f"{method} of k-space" if run.source == "kspace" else "image as given"
        files = list(dict.fromkeys(file.path for file in run.files))
        if run.source == "image" and run.images[0].other_part:
            how = "complex image as given"
            files += [path for image in run.images for path in image.other_part.values()]
        lines.append(f"    {how}: {', '.join(_short(path, settings) for path in files)}")
    sidecar = series.runs[0].sidecar
    vials = [reference for reference in sidecar.references if reference.is_vial]
    found = "" if all(vial.centre_ras_mm for vial in vials) else ", to be found in the image"
    wanted = [
        name + (f" ({len(vials)}{found})" if name == "vials" else "")
        for name in settings.reference
        if name != "vials" or vials
    ]
    first = series.runs[0]
    kspace = first.source == "kspace"
    voxel = None if kspace else first.images[0].image.voxel_mm
    facts = sidecar.acquisition(voxel, settings.recon_filter if kspace else None)
    psf = choose_psf(sidecar, facts, settings, kspace=kspace)
    if sidecar.weighting != "SQ":
        lines.append(f"    weighted image ({sidecar.weighting}): signal relative to white matter, no concentration")
    else:
        lines.append(f"    references: {', '.join(wanted)}")
        lines.append(f"    estimators: {', '.join(settings.pvc)}; atlas {' with '.join(settings.atlas)}")
        if len(first.files) > 1:
            times = ", ".join(f"{1e3 * file.sidecar.echo_time_s:g}" for file in first.files)
            lines.append(f"    T2* from echoes at {times} ms")
    lines += [f"    PSF {psf.reason}", *(f"    note: {warning}" for warning in (*told, *psf.warnings))]
    if series.proton:
        lines.append(f"    proton image of the sodium coil: {_short(series.proton, settings)}")
    if series.receive_pair and settings.receive_profile in ("auto", "pair"):
        lines.append("    receive profile from " + " and ".join(_short(path, settings) for path in series.receive_pair))
    elif settings.receive_profile in ("reciprocity", "fit"):
        lines.append(f"    receive profile by {settings.receive_profile}")
    for path in (*filter(None, [series.tb1map]), *(series.tb1dam or ())):
        lines.append(f"    transmit field from {_short(path, settings)}")
    return lines


def _short(path: Path, settings: Settings) -> str:
    return str(path.relative_to(settings.bids_dir)) if path.is_relative_to(settings.bids_dir) else str(path)
