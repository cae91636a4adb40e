"""All sessions of a run in one graph."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sodium_prep.atlas.bundled import TEMPLATE_NAME
from sodium_prep.bids.records import SessionInputs
from sodium_prep.errors import UsageError
from sodium_prep.settings import Settings
from sodium_prep.workflows.anatomy import ANATOMY_OUTPUTS, init_anatomy_wf
from sodium_prep.workflows.longitudinal import SUPPLIED, init_longitudinal_wf
from sodium_prep.workflows.planning import given_files, plan_series
from sodium_prep.workflows.sodium import SERIES_INPUTS, MapSpace, SeriesPlan, init_series_wf

WORKFLOW_NAME = "sodium_prep"
"""Name of the graph, and of its folder in the work folder."""
_WARP = "warp_"


@dataclass(frozen=True)
class Spaces:
    """Where maps go and where atlases come from.

    Attributes
    ----------
    in_t1w
        Whether maps on the anatomical grid are kept.
    maps
        Template spaces of maps.
    via
        Templates other than the bundled one that an atlas lies in.
    """

    in_t1w: bool
    maps: tuple[MapSpace, ...]
    via: tuple[MapSpace, ...]

    @property
    def others(self) -> tuple[MapSpace, ...]:
        """Every template that needs a warp to the bundled one."""
        return tuple({space.label: space for space in (*self.maps, *self.via) if space.template}.values())


def find_spaces(settings: Settings) -> Spaces:
    """Resolve the names of templates and atlases.

    Raises
    ------
    UsageError, InputError
        If a template or an atlas cannot be had.
    """
    from sodium_prep.atlas.provide import find_atlas, space_label
    from sodium_prep.atlas.templates import find_template

    def space(name: str) -> MapSpace:
        if name == TEMPLATE_NAME:
            return MapSpace(TEMPLATE_NAME)
        found = find_template(name)
        if found.name == TEMPLATE_NAME:
            raise UsageError("--output-spaces", f"{name} is the bundled template", f"Give {TEMPLATE_NAME}")
        return MapSpace(found.name, name)

    atlases = [find_atlas(spec) for spec in settings.atlas]
    if not (atlases[0].table["structure"] == "cortex").any():
        mend = "Name one that covers the brain first, such as desikan-killiany"
        raise UsageError("--atlas", f"{settings.atlas[0]} has no cortex", mend)
    named = {found.label: found for found in (space(name) for name in settings.output_spaces if name != "T1w")}
    spaces = dict.fromkeys(atlas.space for atlas in atlases if atlas.space != TEMPLATE_NAME)
    via = [named.get(space_label(name)) or space(name) for name in spaces]
    return Spaces("T1w" in settings.output_spaces, tuple(named.values()), tuple(via))


def session_wf_name(inputs: SessionInputs) -> str:
    """Name of the sub-workflow of a session."""
    return f"sub_{inputs.participant}" + (f"_ses_{inputs.session}" if inputs.session else "") + "_wf"


def longitudinal_wf_name(participant: str) -> str:
    """Name of the sub-workflow that a participant's sessions share under ``--longitudinal``."""
    return f"sub_{participant}_longitudinal_wf"


def concerns(step: str, inputs: SessionInputs) -> bool:
    """Whether a session needs a step, by the step's full name: one of its own, or one that it shares."""
    part = step.split(".")[1]
    own = (session_wf_name(inputs), longitudinal_wf_name(inputs.participant))
    return part in own or part.startswith(_WARP)


def init_participants_wf(*, settings: Settings, sessions: Sequence[SessionInputs]) -> Any:
    """Build the graph of a run.

    Its sub-workflows share nothing but the warps between templates and, under ``--longitudinal``, what the sessions of
    a participant have in common.
    """
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces.anatomy import RegisterTemplates

    spaces = find_spaces(settings)
    workflow = Workflow(name=WORKFLOW_NAME, base_dir=str(settings.work_dir))
    warps = {
        space.label: Node(
            RegisterTemplates(template=space.template, seed=settings.random_seed, sloppy=settings.sloppy),
            name=f"{_WARP}{space.label}",
            mem_gb=1.2,
        )
        for space in spaces.others
    }
    shared = _longitudinal(workflow, settings, sessions)
    for inputs in sessions:
        supplied = SUPPLIED if inputs in shared else ()
        session = init_session_wf(settings=settings, inputs=inputs, spaces=spaces, supplied=supplied)
        workflow.add_nodes([session])
        for label, node in warps.items():
            ends = [("to_other", f"inputnode.to_{label}"), ("from_other", f"inputnode.from_{label}")]
            workflow.connect([(node, session, ends)])
        if inputs in shared:
            common, number = shared[inputs]
            ends = [(f"outputnode.{item}{number}", f"inputnode.{item}") for item in SUPPLIED]
            workflow.connect([(common, session, ends)])
    _remember_files(workflow, settings)
    return workflow


def _longitudinal(
    workflow: Any, settings: Settings, sessions: Sequence[SessionInputs]
) -> dict[SessionInputs, tuple[Any, int]]:
    """What sessions of one participant share: its workflow and the session's number in it."""
    shared: dict[SessionInputs, tuple[Any, int]] = {}
    if not settings.longitudinal:
        return shared
    for participant in dict.fromkeys(inputs.participant for inputs in sessions):
        own = [inputs for inputs in sessions if inputs.participant == participant and inputs.anat.contrast == "T1w"]
        if len(own) < 2:
            continue
        common = init_longitudinal_wf(
            files=[inputs.anat.path for inputs in own],
            names=[f"ses-{inputs.session}" for inputs in own],
            method=settings.registration,
            fast=settings.fast_registration,
            ignore_sides="sides" in settings.ignore,
            seed=settings.random_seed,
            n_threads=settings.omp_nthreads,
            sloppy=settings.sloppy,
            name=longitudinal_wf_name(participant),
        )
        workflow.add_nodes([common])
        shared |= {inputs: (common, number) for number, inputs in enumerate(own, start=1)}
    return shared


def _remember_files(workflow: Any, settings: Settings) -> None:
    """Let a change of a file behind --atlas or --output-spaces redo the steps that read it."""
    from sodium_prep.atlas.provide import atlas_files
    from sodium_prep.atlas.templates import find_template

    files = {"atlases": [path for spec in settings.atlas for path in atlas_files(spec)]}
    templates = [name for name in settings.output_spaces if name not in ("T1w", TEMPLATE_NAME)]
    files["template"] = [path for name in templates for path in find_template(name).files]
    for name in workflow.list_node_names():
        inputs = workflow.get_node(name).inputs
        for field, paths in files.items():
            if paths and field in inputs.copyable_trait_names():
                inputs.option_files = [str(path) for path in paths]


def init_session_wf(
    *, settings: Settings, inputs: SessionInputs, spaces: Spaces, supplied: Collection[str] = ()
) -> Any:
    """Build the graph of one session: anatomy, every sodium series, and the steps that save them.

    Parameters
    ----------
    supplied
        Items of the anatomy that come from another workflow.

    Inputs
    ------
    to_<label>, from_<label>
        Warps between the bundled template and the others of ``spaces``.
    brain_mask, to_template, from_template
        Those that are supplied.
    """
    from nipype.interfaces.utility import IdentityInterface, Merge
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces.outputs import SaveAnatomy

    workflow = Workflow(name=session_wf_name(inputs))
    ways = [f"{way}_{space.label}" for space in spaces.others for way in ("to", "from")]
    inputnode = Node(IdentityInterface([*ways, *SUPPLIED], mandatory_inputs=False), name="inputnode")
    given = given_files(inputs, settings)
    anatomy = init_anatomy_wf(
        source=str(inputs.anat.path),
        contrast=inputs.anat.contrast,
        atlases=settings.atlas,
        given=frozenset(given) | frozenset(supplied),
        to_template=bool(spaces.maps),
        via=[space.label for space in spaces.via],
        method=settings.registration,
        fast=settings.fast_registration,
        ignore_sides="sides" in settings.ignore,
        seed=settings.random_seed,
        n_threads=settings.omp_nthreads,
        sloppy=settings.sloppy,
    )
    anatomy.inputs.inputnode.in_file = str(inputs.anat.path)
    for name, path in given.items():
        setattr(anatomy.inputs.inputnode, name, str(path))
    workflow.connect([(inputnode, anatomy, [(item, f"inputnode.{item}") for item in supplied if item not in given])])

    def warps(purpose: str, way: str, among: Sequence[MapSpace]) -> Any:
        node = Node(Merge(len(among)), name=f"{purpose}_{way}")
        for number, space in enumerate(among, start=1):
            workflow.connect(inputnode, f"{way}_{space.label}", node, f"in{number}")
        return node

    if spaces.via:
        workflow.connect(warps("atlas", "from", spaces.via), "out", anatomy, "inputnode.from_spaces")
    save = Node(
        SaveAnatomy(
            sources=[str(inputs.anat.path), *(str(path) for path in given.values())],
            spaces=[space.label for space in spaces.maps if space.template],
            **_saving(settings, inputs),
        ),
        name="save_anatomy",
        mem_gb=0.5,
    )
    kept = [name for name in ANATOMY_OUTPUTS if name in save.inputs.copyable_trait_names()]
    workflow.connect([(anatomy, save, [(f"outputnode.{name}", name) for name in kept])])
    if others := [space for space in spaces.maps if space.template]:
        for way in ("to", "from"):
            workflow.connect(warps("map", way, others), "out", save, f"{way}_spaces")
    for series in inputs.sodium:
        plan = plan_series(series, inputs, settings, longitudinal=bool(supplied))
        _add_series(workflow, plan, inputs, settings, spaces, anatomy, inputnode)
    return workflow


def _add_series(
    workflow: Any,
    plan: SeriesPlan,
    inputs: SessionInputs,
    settings: Settings,
    spaces: Spaces,
    anatomy: Any,
    inputnode: Any,
) -> None:
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces.outputs import SaveScan

    quantified = plan.weighting == "SQ"
    scan = init_series_wf(
        plan=plan,
        references=settings.reference if quantified else (),
        estimators=settings.pvc if quantified else ("none",),
        groups=settings.regions,
        contrast=inputs.anat.contrast,
        in_t1w=spaces.in_t1w,
        spaces=spaces.maps,
        kspace_filter=settings.recon_filter,
        ignore_sides="sides" in settings.ignore,
        seed=settings.random_seed,
        n_threads=settings.omp_nthreads,
    )
    echoes = dict.fromkeys((*plan.echoes, *(path for parts in plan.echo_parts[1:] for path in parts.values())))
    save = Node(
        SaveScan(
            sources=[str(path) for path in (*plan.sources, inputs.anat.path)],
            acq=plan.acq, suffix=plan.suffix, rec=plan.rec,
            echo_sources=[str(path) for path in echoes],
            echo_run=plan.echo_run, weighting=plan.weighting,
            spaces=[space.label for space in spaces.maps],
            groups=list(settings.regions), **_saving(settings, inputs),
        ),
        name=f"save_{plan.name}",
        mem_gb=0.5,
    )  # fmt: skip
    fields = scan.get_node("outputnode").inputs.copyable_trait_names()
    taken = [name for name in SERIES_INPUTS if name in ANATOMY_OUTPUTS and (spaces.maps or name != "to_template")]
    ways = [f"to_{space.label}" for space in spaces.maps if space.template]
    workflow.connect(
        [
            (anatomy, scan, [(f"outputnode.{name}", f"inputnode.{name}") for name in taken]),
            (anatomy, scan, [("outputnode.reports", "inputnode.anatomy_reports")]),
            (anatomy, save, [("outputnode.atlas_record", "atlas_record")]),
            (inputnode, scan, [(name, f"inputnode.{name}") for name in ways]),
            (scan, save, [(f"outputnode.{name}", name) for name in fields]),
        ]
    )


def _saving(settings: Settings, inputs: SessionInputs) -> dict[str, Any]:
    """What every step that saves has to know."""
    return {
        "out_dir": str(settings.output_dir),
        "bids_dir": str(settings.bids_dir),
        "participant": inputs.participant,
        "session": inputs.session or "",
        "links": {name: str(path) for name, path in settings.derivatives.items()},
        "contrast": inputs.anat.contrast,
        "atlases": list(settings.atlas),
    }
