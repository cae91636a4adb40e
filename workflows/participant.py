"""All sessions of a run in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sodium_prep.atlas.bundled import FREESURFER_ATLAS
from sodium_prep.atlas.user import atlas_files
from sodium_prep.bids.records import SessionInputs, SodiumSeries
from sodium_prep.bids.sidecar import merged_metadata
from sodium_prep.settings import Settings
from sodium_prep.workflows.anatomy import ANATOMY_OUTPUTS, init_anatomy_wf, registers_to_template
from sodium_prep.workflows.sodium import SeriesPlan, init_series_wf

WORKFLOW_NAME = "sodium_prep"
"""Name of the graph, and of its folder in the work folder."""
_TEMPLATE = "MNI152NLin6Asym"


def session_wf_name(inputs: SessionInputs) -> str:
    """Name of the sub-workflow of a session."""
    return f"sub_{inputs.participant}" + (f"_ses_{inputs.session}" if inputs.session else "") + "_wf"


def init_participants_wf(*, settings: Settings, sessions: Sequence[SessionInputs]) -> Any:
    """Build the graph of a run; its sub-workflows share nothing."""
    from nipype.pipeline.engine import Workflow

    workflow = Workflow(name=WORKFLOW_NAME, base_dir=str(settings.work_dir))
    workflow.add_nodes([init_session_wf(settings=settings, inputs=inputs) for inputs in sessions])
    files = atlas_files(settings.atlas)
    for name in workflow.list_node_names() if files else ():
        inputs = workflow.get_node(name).inputs
        if "atlas" in inputs.copyable_trait_names():
            inputs.option_files = [str(path) for path in files]
    return workflow


def init_session_wf(*, settings: Settings, inputs: SessionInputs) -> Any:
    """Build the graph of one session: anatomy, every sodium series, and the steps that save them."""
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces.outputs import SaveAnatomy, SaveScan

    workflow = Workflow(name=session_wf_name(inputs))
    given = given_files(inputs, settings)
    contrast = inputs.anat.contrast
    in_template = _TEMPLATE in settings.output_spaces
    anatomy = init_anatomy_wf(
        contrast=contrast,
        atlas=settings.atlas,
        given=frozenset(given),
        to_template=in_template,
        seed=settings.random_seed,
        n_threads=settings.omp_nthreads,
        sloppy=settings.sloppy,
    )
    anatomy.inputs.inputnode.in_file = str(inputs.anat.path)
    for name, path in given.items():
        setattr(anatomy.inputs.inputnode, name, str(path))
    common = {
        "out_dir": str(settings.output_dir),
        "bids_dir": str(settings.bids_dir),
        "participant": inputs.participant,
        "session": inputs.session or "",
        "links": {name: str(path) for name, path in settings.derivatives.items()},
        "contrast": contrast,
        "atlas": settings.atlas,
    }
    sources = [str(inputs.anat.path), *(str(path) for path in given.values())]
    save = Node(SaveAnatomy(sources=sources, **common), name="save_anatomy", mem_gb=0.5)
    there = [name for name in ANATOMY_OUTPUTS if name != "head_mask"]
    workflow.connect([(anatomy, save, [(f"outputnode.{name}", name) for name in there])])
    for series in inputs.sodium:
        plan = plan_series(series, inputs, settings)
        scan = init_series_wf(
            plan=plan,
            references=settings.reference,
            estimators=settings.pvc,
            atlas=settings.atlas,
            contrast=contrast,
            spaces=settings.output_spaces,
            psf_fwhm_mm=settings.psf_fwhm_mm,
            kspace_filter=settings.recon_filter,
            seed=settings.random_seed,
            n_threads=settings.omp_nthreads,
        )
        used = [str(path) for path in (*plan.files, *(plan.receive_pair or ()))]
        save_scan = Node(
            SaveScan(
                sources=[*used, str(inputs.anat.path)], acq=plan.acq, suffix=plan.suffix, rec=plan.rec,
                acquisition=plan.acquisition, **common,
            ),
            name=f"save_{plan.name}",
            mem_gb=0.5,
        )  # fmt: skip
        fields = [name for name in scan.get_node("outputnode").inputs.copyable_trait_names() if name != "sodium"]
        workflow.connect(
            [
                (anatomy, scan, [(f"outputnode.{name}", f"inputnode.{name}") for name in _series_needs(in_template)]),
                (anatomy, scan, [("outputnode.report", "inputnode.anatomy_report")]),
                (scan, save_scan, [(f"outputnode.{name}", name) for name in ["sodium", *fields]]),
            ]
        )
    return workflow


def _series_needs(in_template: bool) -> list[str]:
    return [name for name in ANATOMY_OUTPUTS if name != "from_template" and (in_template or name != "to_template")]


def given_files(inputs: SessionInputs, settings: Settings) -> dict[str, Path]:
    """Precomputed derivatives that replace steps of the anatomy.

    FreeSurfer's labels are those of the bundled atlas only; a user's own atlas goes by the way to the template.
    """
    pre = inputs.precomputed
    found: dict[str, Path | None] = {
        "brain_mask": pre.brain_mask,
        "labels": pre.aparcaseg if settings.atlas == FREESURFER_ATLAS else None,
        "gm": pre.probsegs.get("GM"),
        "wm": pre.probsegs.get("WM"),
        "csf": pre.probsegs.get("CSF"),
    }
    there, back = pre.template_xfms.get(("T1w", _TEMPLATE)), pre.template_xfms.get((_TEMPLATE, "T1w"))
    if there and back:
        found |= {"to_template": there, "from_template": back}
    return {name: path for name, path in found.items() if path is not None}


def plan_series(series: SodiumSeries, inputs: SessionInputs, settings: Settings) -> SeriesPlan:
    """What the workflow of a series needs to know, from its checked inputs."""
    first = series.runs[0]
    kspace = first.source == "kspace"
    sidecar = first.sidecar
    voxel = None if kspace else first.images[0].image.voxel_mm
    facts = sidecar.acquisition(voxel, settings.recon_filter if kspace else None)
    vials = [reference for reference in sidecar.references if reference.is_vial]
    placed = all(vial.centre_ras_mm is not None for vial in vials)
    label = f"acq-{series.acquisition}" if series.acquisition else series.suffix
    session = f"ses-{inputs.session} " if inputs.session else ""
    weighted = (
        ("This is a relaxation- or coherence-weighted image; its concentrations are not total sodium.",)
        if sidecar.is_weighted
        else ()
    )
    block = sidecar.sodium_acquisition
    return SeriesPlan(
        name=f"{series.acquisition or 'sodium'}_{series.suffix}_wf",
        label=f"{session}{label}",
        files=tuple(run.files[0].path for run in series.runs),
        kspace=kspace,
        acquisition=asdict(facts.acquisition),
        psf_known=facts.psf_known,
        vials=tuple(_vial_fields(vial) for vial in vials),
        vials_placed=placed,
        acq=series.acquisition or "",
        suffix=series.suffix,
        receive_pair=series.receive_pair,
        b1_plus=series.tb1map,
        b1_units=str(merged_metadata(series.tb1map).get("Units", "")) if series.tb1map else "",
        transform=inputs.precomputed.sodium_to_t1w.get(series.acquisition),
        warnings=(*inputs.warnings, *facts.assumed, *weighted),
        ran={
            "software": {"sodium_prep": settings.version, **_versions()},
            "recon": {
                "method": "gridding" if kspace else "vendor",
                "trajectory": facts.acquisition.trajectory if facts.psf_known else None,
                "n_spokes": block.number_of_spokes,
                "kspace_filter": facts.acquisition.kspace_filter,
            },
            "receive": {"method": "rb1cor"} if series.receive_pair else None,
            **_anatomy_ran(inputs, settings),
            "atlas": {"name": settings.atlas},
            "registration": None
            if series.acquisition in inputs.precomputed.sodium_to_t1w
            else {"method": "ants", "metric": "mutual information"},
            "regional": {"estimators": ["none", *(name for name in settings.pvc if name != "none")]},
        },
    )


def _anatomy_ran(inputs: SessionInputs, settings: Settings) -> dict[str, Any]:
    """Steps of the anatomy that run, and what is taken from derivatives in their place."""
    given = given_files(inputs, settings)
    contrast = inputs.anat.contrast
    registered = registers_to_template(contrast, given, to_template=_TEMPLATE in settings.output_spaces)
    names = {"brain_mask": "brain mask", "gm": "tissue fractions", "labels": "atlas labels",
             "to_template": "transforms to the template"}  # fmt: skip
    taken = [text for name, text in names.items() if name in given]
    origin = inputs.precomputed.origin
    sources = sorted({origin[path] for path in given.values() if path in origin})
    return {
        "anatomy": {
            "contrast": contrast,
            "template": _TEMPLATE,
            "n4": registered,
            "brain_extraction": "derivatives" if "brain_mask" in given else "template",
            "taken": taken,
            "derivatives": ", ".join(sources),
        },
        "fractions": None if "gm" in given else {"method": "joint" if contrast == "T1w" else "template"},
        "normalisation": {"method": "SyN", "template": _TEMPLATE} if registered else None,
    }


def _versions() -> dict[str, str]:
    """Versions of the programs that do the work."""
    return {name: version(name) for name in ("nipype", "nibabel", "antspyx", "finufft", "numpy", "scipy")}


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
