"""From the runs of one sodium series to its corrected image, concentrations and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sodium_prep.quant.weighted import Weighting
from sodium_prep.settings import GUIDED_METHODS, JOINT_METHOD, KspaceMethod
from sodium_prep.workflows.psf import PsfPlan

ReceiveMethod = Literal["pair", "reciprocity", "fit", "none"]


@dataclass(frozen=True)
class KspaceEcho:
    """One echo of a k-space file.

    Attributes
    ----------
    path
        The file.
    described
        Fields of :class:`sodium_prep.recon.description.RawDescription`, of the file.
    place
        Which echo of the file, counted from 0.
    """

    path: Path
    described: dict[str, Any]
    place: int = 0


@dataclass(frozen=True)
class SeriesPlan:
    """What is known of a series before the work begins, as plain values.

    Attributes
    ----------
    name
        Of the workflow.
    label
        Heading on the page.
    files
        Image or k-space file of each run.
    kspace
        Whether they are k-space.
    method, strength, motion_blocks
        How k-space is reconstructed, the strength of a prior where it is not the method's own, and the number of blocks
        whose motion is taken out.
    raw
        Of k-space, every echo of each run.
    other_parts
        For each image, the ``phase`` or ``imaginary`` part that makes complex data with it, or nothing.
    acquisition, psf_known
        Fields of :class:`sodium_prep.physics.acquisition.Acquisition`, and whether they suffice for the PSF.
    n_channels
        Channels that an image is the sum of squares of.
    relaxation
        Fields of :class:`sodium_prep.physics.relaxation.Relaxation` that replace the literature's, by tissue.
    psf
        The PSF that was chosen.
    vials, vials_placed
        Fields of :class:`sodium_prep.quant.geometry.ReferenceGeometry` each.
    receive, receive_pair
        Where the receive profile comes from; volume and array coil image.
    air_point
        Whether air is a reference without sodium.
    b1_plus, b1_units
        Transmit map.
    b1_pair, b1_pair_facts
        Images at a flip angle and at twice it, with that angle in degrees and their repetition time in seconds.
    transform
        Given transform of sodium to anatomy.
    proton
        Proton image of the sodium coil: a stepping stone of the registration.
    weighting
        Kind of the image; anything but ``SQ`` has no concentration.
    echoes, echo_times_s, echo_parts
        Every echo of the first run with its parts as in ``other_parts``; none where there is one echo, or no T2*.
    echo_run
        Label of that run in file names, where there are others.
    ran
        Steps and parameters for the methods text.
    """

    name: str
    label: str
    files: tuple[Path, ...]
    kspace: bool
    acquisition: dict[str, Any]
    psf_known: bool
    psf: PsfPlan
    vials: tuple[dict[str, Any], ...]
    vials_placed: bool
    raw: tuple[tuple[KspaceEcho, ...], ...] = ()
    other_parts: tuple[dict[str, Path], ...] = ()
    method: KspaceMethod = "gridding"
    strength: float | None = None
    motion_blocks: int = 0
    n_channels: int = 1
    acq: str = ""
    suffix: str = "PDw"
    receive: ReceiveMethod = "none"
    receive_pair: tuple[Path, Path] | None = None
    air_point: bool = False
    b1_plus: Path | None = None
    b1_units: str = ""
    b1_pair: tuple[Path, Path] | None = None
    b1_pair_facts: tuple[float, float] = (0.0, 0.0)
    transform: Path | None = None
    proton: Path | None = None
    weighting: Weighting = "SQ"
    echoes: tuple[Path, ...] = ()
    echo_times_s: tuple[float, ...] = ()
    echo_parts: tuple[dict[str, Path], ...] = ()
    echo_run: str = ""
    warnings: tuple[str, ...] = ()
    relaxation: dict[str, dict[str, Any]] = field(default_factory=dict)
    ran: dict[str, Any] = field(default_factory=dict)

    @property
    def rec(self) -> str:
        """Label of the reconstruction in file names."""
        return self.method if self.kspace else "vendor"

    @property
    def first_method(self) -> KspaceMethod:
        """Method before the place of the anatomical image is known."""
        return "gridding" if self.guided else self.method

    @property
    def points_wanted(self) -> bool:
        """Whether the reconstruction has to tell its point spread functions."""
        return self.kspace and self.psf.kind == "measured" and self.psf.files is None

    @property
    def joint(self) -> bool:
        """Whether all echoes of a run make one image."""
        return self.kspace and self.method == JOINT_METHOD

    @property
    def guided(self) -> bool:
        """Whether the anatomical image takes part in the reconstruction."""
        return self.joint or (self.kspace and self.method in GUIDED_METHODS)

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files that the image is made of."""
        echoes = [echo.path for run in self.raw for echo in run] if self.joint else self.files
        parts = (path for others in self.other_parts for path in others.values())
        return tuple(dict.fromkeys((*echoes, *parts, *(self.receive_pair or ()))))

    @property
    def quantified(self) -> dict[str, Any]:
        """Acquisition of the image that concentrations come of."""
        if not self.joint:
            return self.acquisition
        return {**self.acquisition, "echo_time_s": 0.0, "fitted_echo_times_s": self.echo_times_s}


@dataclass(frozen=True)
class MapSpace:
    """A template space that maps are resampled to.

    Attributes
    ----------
    label
        Of the space in file names.
    template
        Name or file, as :func:`sodium_prep.atlas.templates.find_template` takes it; empty for the bundled one.
    """

    label: str
    template: str = ""


_ANATOMY = ("t1w", "brain_mask", "gm", "wm", "csf", "lesion", "labels", "atlas_table")
_SHOWN = ("template_affine", "template_warped", "atlas_record")
SERIES_INPUTS = (*_ANATOMY, "head_mask", *_SHOWN, "to_template", "anatomy_reports")
_FROM_QUANTIFY = ("transform", "acquisition", "table", "relative", "calibration", "tsc", "tsc_stderr", "corrected")
_FROM_ECHOES = ("echo_maps", "echo_report")
_MOVED = ("tsc_t1w", "tsc_spaces", "corrected_t1w", "corrected_spaces")
SERIES_OUTPUTS = (
    *("sodium", "noise", "psf_files", "psf_tissues"),
    *(*_FROM_QUANTIFY, *_FROM_ECHOES, *_MOVED),
    *("quality", "figures"),
)


def init_series_wf(
    *,
    plan: SeriesPlan,
    references: Sequence[str],
    estimators: Sequence[str],
    groups: Sequence[str],
    contrast: str,
    in_t1w: bool,
    spaces: Sequence[MapSpace],
    kspace_filter: str = "none",
    ignore_sides: bool = False,
    seed: int = 42,
    n_threads: int = 1,
) -> Any:
    """Build the chain for one series.

    Parameters
    ----------
    plan
        Files and facts.
    references, estimators, groups
        Wanted.
    contrast
        Of the anatomy.
    in_t1w, spaces
        Whether maps on the anatomical grid are kept, and the templates that maps are resampled to.
    kspace_filter
        Window of our own reconstruction.
    ignore_sides
        Go on where left and right of sodium seem to be swapped.
    seed, n_threads
        Of the registrations.

    Inputs
    ------
    t1w, brain_mask, head_mask, gm, wm, csf, labels, atlas_table, atlas_record
        From the anatomy.
    lesion, to_template, template_affine, template_warped, anatomy_reports
        From the anatomy, where there are any.
    to_<label>
        Transform of the bundled template to each other one of ``spaces``.

    Outputs
    -------
    sodium, noise, psf_files, psf_tissues, transform, acquisition, table, relative, calibration, tsc, tsc_stderr,
    corrected, echo_maps, echo_report,
    tsc_t1w, tsc_spaces, corrected_t1w, corrected_spaces, quality, figures
        What is saved; the maps in template spaces in the order of ``spaces``.
    """
    from nipype.interfaces.utility import IdentityInterface, Merge
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces import report

    workflow = Workflow(name=plan.name)
    fields = [*SERIES_INPUTS, *(f"to_{space.label}" for space in spaces if space.template)]
    inputnode = Node(IdentityInterface(fields, mandatory_inputs=False), name="inputnode")
    outputnode = Node(IdentityInterface(list(SERIES_OUTPUTS), mandatory_inputs=False), name="outputnode")
    window = _window(plan)
    chain = _image_chain(workflow, plan, window, kspace_filter, seed, n_threads)
    registered = _registration(workflow, plan, inputnode, chain, ignore_sides, seed, n_threads)
    if plan.guided:
        chain = _guided_chain(workflow, plan, inputnode, chain, registered, seed, n_threads)
    image, reports = chain.image, chain.reports
    if plan.echoes:
        from sodium_prep.workflows.echoes import connect_echoes

        reports.append((connect_echoes(workflow, plan, kspace_filter, outputnode, seed, n_threads), "report_file"))

    quant = _quantification(plan, references, estimators, groups)
    if window is not None:
        found = [(name, name) for name in ("acquisition", "psf_kind", "psf_reason", "psf_width_sd")]
        workflow.connect([(window, quant, found)])
    if plan.points_wanted:
        quant.inputs.psf_own = plan.method != "gridding"
        points = [(name, name) for name in ("psf_files", "psf_tissues")]
        workflow.connect([(chain.runs[0], quant, points), (chain.runs[0], outputnode, points)])
    workflow.connect(registered, "out_file", quant, "transform")
    if plan.transform is None:
        workflow.connect(registered, "motion_sd_mm", quant, "registration_sd_mm")
    workflow.connect(
        [
            (image, quant, [("out_file", "in_file"), ("noise_file", "noise_file")]),
            (inputnode, quant, [(item, item) for item in (*_ANATOMY, "head_mask")]),
        ]
    )
    if plan.kspace and plan.receive in ("pair", "reciprocity"):
        workflow.connect(image, "profile_file", quant, "profile_file")
    reports.append((quant, "report_file"))

    page = Node(
        report.ReportScan(
            label=plan.label,
            contrast=contrast,
            ran=plan.ran,
            warnings=list(plan.warnings),
            field_strength_t=plan.acquisition["field_strength_t"],
        ),
        name="report",
        mem_gb=1.5,
    )
    to_t1w = [(quant, "transform")]
    shown = _resampled(workflow, "sodium_t1w", (image, "out_file"), to_t1w, (inputnode, "t1w"))
    workflow.connect(shown, "out_file", page, "sodium_t1w")
    if plan.transform is None:
        second = [(registered, "second_file")]
        other = _resampled(workflow, "sodium_second", (image, "out_file"), second, (inputnode, "t1w"))
        workflow.connect(other, "out_file", page, "sodium_second")
    if references:
        _concentration_maps(workflow, inputnode, outputnode, quant, page, to_t1w, in_t1w, spaces)
    gathered = Node(Merge(len(reports) + 1), name="reports")
    for number, (node, output) in enumerate(reports, start=1):
        workflow.connect(node, output, gathered, f"in{number}")
    workflow.connect(inputnode, "anatomy_reports", gathered, f"in{len(reports) + 1}")
    workflow.connect(
        [
            (gathered, page, [("out", "reports")]),
            (inputnode, page, [(item, item) for item in (*_ANATOMY, *_SHOWN)]),
            (image, page, [("out_file", "sodium")]),
            (quant, page, [("residual", "residual"), ("table", "table"), ("calibration", "calibration")]),
            (image, outputnode, [("out_file", "sodium"), ("noise_file", "noise")]),
            (quant, outputnode, [(item, item) for item in _FROM_QUANTIFY]),
            (page, outputnode, [("quality", "quality"), ("figures", "figures")]),
        ]
    )
    return workflow


def _concentration_maps(
    workflow: Any,
    inputnode: Any,
    outputnode: Any,
    quant: Any,
    page: Any,
    to_t1w: list[tuple[Any, str]],
    in_t1w: bool,
    spaces: Sequence[MapSpace],
) -> None:
    """Maps in mM on the anatomical grid, for the page too, and on those of templates."""
    from nipype.interfaces.utility import Merge
    from nipype.pipeline.engine import Node

    tsc = (quant, "tsc")
    tsc_t1w = _resampled(workflow, "tsc_t1w", tsc, to_t1w, (inputnode, "t1w"))
    workflow.connect(tsc_t1w, "out_file", page, "tsc_t1w")
    if in_t1w:
        workflow.connect(quant, "corrected", tsc_t1w, "more_files")
        ends = [("out_file", "tsc_t1w"), ("more_out", "corrected_t1w")]
        workflow.connect([(tsc_t1w, outputnode, ends)])
    maps = Node(Merge(max(len(spaces), 1)), name="tsc_spaces")
    corrected = Node(Merge(max(len(spaces), 1)), name="corrected_spaces")
    for number, space in enumerate(spaces, start=1):
        way = [*to_t1w, (inputnode, "to_template")]
        way += [(inputnode, f"to_{space.label}")] if space.template else []
        node = _resampled(workflow, f"tsc_{space.label}", tsc, way, space)
        workflow.connect(quant, "corrected", node, "more_files")
        workflow.connect(node, "out_file", maps, f"in{number}")
        workflow.connect(node, "more_out", corrected, f"in{number}")
    workflow.connect(maps, "out", outputnode, "tsc_spaces")
    workflow.connect(corrected, "out", outputnode, "corrected_spaces")


def _registration(
    workflow: Any,
    plan: SeriesPlan,
    inputnode: Any,
    chain: _Chain,
    ignore_sides: bool,
    seed: int,
    n_threads: int,
) -> Any:
    """Node whose ``out_file`` is the transform of sodium to anatomy: one that was given, or a registration."""
    from nipype.interfaces.utility import IdentityInterface
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import sodium

    if plan.transform is not None:
        return Node(IdentityInterface(["out_file"], out_file=str(plan.transform)), name="given")
    register = sodium.RegisterSodium(
        source=str(plan.files[0]), ignore_sides=ignore_sides, seed=seed, n_threads=n_threads
    )
    coreg = Node(register, name="coreg", mem_gb=1.0, n_procs=n_threads)
    if plan.proton is not None:
        coreg.inputs.proton = str(plan.proton)
    workflow.connect(
        [
            (chain.image, coreg, [("out_file", "in_file")]),
            (inputnode, coreg, [(item, item) for item in ("t1w", "brain_mask", "gm", "wm", "csf")]),
        ]
    )
    chain.reports.append((coreg, "report_file"))
    return coreg


def _quantification(
    plan: SeriesPlan,
    references: Sequence[str],
    estimators: Sequence[str],
    groups: Sequence[str],
) -> Any:
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import quantify

    quant = Node(
        quantify.Quantify(
            groups=list(groups),
            acquisition=plan.quantified,
            relaxation=plan.relaxation,
            psf_kind=plan.psf.kind,
            psf_reason=plan.psf.reason,
            psf_files=[str(path) for path in (plan.psf.files or {}).values()],
            psf_tissues=list(plan.psf.files or {}),
            vials=list(plan.vials),
            vials_placed=plan.vials_placed,
            references=list(references),
            estimators=list(estimators),
            refine=plan.transform is None,
            fit_receive=plan.receive == "fit",
            air_point=plan.air_point,
            weighting=plan.weighting,
        ),
        name="quantify",
        mem_gb=2.5,
    )
    if plan.psf.fwhm_mm is not None:
        quant.inputs.psf_fwhm_mm = plan.psf.fwhm_mm
    _give_transmit_field(quant, plan)
    if not plan.kspace:
        imaginary = [others["imaginary"] for others in plan.other_parts if "imaginary" in others]
        quant.inputs.stored_files = [str(path) for path in (*plan.files, *imaginary)]
    else:
        quant.inputs.described = plan.raw[0][0].described
        if "kspace" in estimators:
            quant.inputs.kspace_file = str(plan.files[0])
    return quant


def _give_transmit_field(node: Any, plan: SeriesPlan) -> None:
    """Set the inputs of a step that reads the transmit field."""
    if plan.b1_plus is not None:
        node.inputs.b1_plus, node.inputs.b1_units = str(plan.b1_plus), plan.b1_units
    if plan.b1_pair is not None:
        node.inputs.b1_pair = [str(path) for path in plan.b1_pair]
        node.inputs.b1_pair_flip_deg, node.inputs.b1_pair_tr_s = plan.b1_pair_facts


def _window(plan: SeriesPlan) -> Any:
    """Node that reads the noise of the scanner's images, if there is something to find or to check."""
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import sodium

    if not plan.psf.sought:
        return None
    step = sodium.FindWindow(acquisition=plan.acquisition, psf_reason=plan.psf.reason)
    return Node(step, name="window", mem_gb=0.7)


def _scanner_images(workflow: Any, plan: SeriesPlan, window: Any) -> tuple[list[Any], list[tuple[Any, str]]]:
    """Make every run's image one with zero-mean noise as far as that can be had; the last nodes and the reports."""
    from nipype.interfaces.utility import IdentityInterface, Merge
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import sodium

    runs, reports = [], []
    seen = Node(Merge(len(plan.files)), name="seen")
    for number, (path, others) in enumerate(zip(plan.files, plan.other_parts, strict=True), start=1):
        source: Any = IdentityInterface(["out_file"], out_file=str(path))
        if others:
            parts = {name: str(other) for name, other in others.items()}
            resolution = tuple(plan.acquisition["nominal_resolution_mm"])
            source = sodium.TakeRealPart(in_file=str(path), resolution_mm=resolution, **parts)
        given = Node(source, name=f"given{number}", mem_gb=1.0)
        clean = sodium.CleanVendorImage(
            acquisition=plan.acquisition, psf_known=plan.psf_known, n_channels=plan.n_channels
        )
        run = Node(clean, name=f"image{number}", mem_gb=0.5)
        workflow.connect(given, "out_file", run, "in_file")
        if window is not None:
            workflow.connect([(window, run, [("acquisition", "acquisition"), ("psf_known", "psf_known")])])
            workflow.connect(given, "out_file", seen, f"in{number}")
        if number == 1:
            reports = [(run, "report_file"), *([(given, "report_file")] if others else [])]
        runs.append(run)
    if window is not None:
        workflow.connect(seen, "out", window, "in_files")
        reports.append((window, "report_file"))
    return runs, reports


@dataclass
class _Chain:
    """Nodes from the runs of a series to one image.

    Attributes
    ----------
    runs
        One node for each run.
    image
        The last node.
    reports
        Nodes with the names of their outputs.
    average
        Node that averages the runs; None for one.
    """

    runs: list[Any]
    image: Any
    reports: list[tuple[Any, str]]
    average: Any = None


def _image_chain(workflow: Any, plan: SeriesPlan, window: Any, kspace_filter: str, seed: int, n_threads: int) -> _Chain:
    """Read or reconstruct every run, average, take off the receive profile; by gridding before a guided method."""
    if plan.kspace:
        how = {"method": plan.first_method, "kspace_filter": kspace_filter, "seed": seed, "n_threads": n_threads}
        runs = _reconstructions(plan, "recon", **how)
        workflow.add_nodes(runs)
        reports = [] if plan.guided else [(runs[0], "report_file")]
    else:
        runs, reports = _scanner_images(workflow, plan, window)
    chain = _Chain(runs, runs[0], reports)
    _average_and_correct(workflow, plan, chain, seed)
    return chain


def _guided_chain(
    workflow: Any, plan: SeriesPlan, inputnode: Any, first: _Chain, registered: Any, seed: int, n_threads: int
) -> _Chain:
    """Every run once more with the anatomical image, now that it is known where that lies."""
    from nipype.interfaces.utility import Merge, Select
    from nipype.pipeline.engine import Node

    how = {"method": plan.method, "kspace_filter": "none", "seed": seed, "n_threads": n_threads}
    runs = _joint_reconstructions(plan, seed, n_threads) if plan.joint else _reconstructions(plan, "guided", **how)
    chain = _Chain(runs, runs[0], [(runs[0], "report_file"), *first.reports])
    for number, run in enumerate(runs):
        workflow.connect(inputnode, "t1w", run, "guide")
        if first.average is None:
            workflow.connect(registered, "out_file", run, "transforms")
            continue
        own = Node(Select(index=[number]), name=f"to_first{number + 1}")
        way = Node(Merge(2), name=f"to_t1w{number + 1}")
        workflow.connect(first.average, "transforms", own, "inlist")
        workflow.connect([(own, way, [("out", "in1")]), (registered, way, [("out_file", "in2")])])
        workflow.connect(way, "out", run, "transforms")
    _average_and_correct(workflow, plan, chain, seed, "_guided")
    if first.average is not None:
        workflow.connect(first.average, "transforms", chain.average, "transforms")
    return chain


def reconstruction(
    plan: SeriesPlan,
    echo: KspaceEcho,
    name: str,
    *,
    method: KspaceMethod,
    kspace_filter: str,
    seed: int,
    n_threads: int,
) -> Any:
    """Node that makes an image of one echo."""
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces.reconstruct import ReconstructKspace

    step = ReconstructKspace(
        in_file=str(echo.path), described=echo.described, echo=echo.place, method=method, kspace_filter=kspace_filter,
        acquisition=plan.acquisition, relaxation=plan.relaxation, motion_blocks=plan.motion_blocks,
        seed=seed, n_threads=n_threads,
    )  # fmt: skip
    if method == plan.method:
        step.inputs.points = plan.points_wanted
    if plan.strength is not None and method != "gridding":
        step.inputs.strength = plan.strength
    return Node(step, name=name, mem_gb=1.5, n_procs=1 if method == "gridding" else n_threads)


def _reconstructions(plan: SeriesPlan, name: str, **how: Any) -> list[Any]:
    """One node for each run, of its first echo."""
    return [reconstruction(plan, run[0], f"{name}{number}", **how) for number, run in enumerate(plan.raw, start=1)]


def _joint_reconstructions(plan: SeriesPlan, seed: int, n_threads: int) -> list[Any]:
    """One node for each run, of all its echoes."""
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces.reconstruct import ReconstructDecay

    nodes = []
    for number, run in enumerate(plan.raw, start=1):
        files = {str(echo.path): echo.described for echo in run}
        step = ReconstructDecay(
            in_files=list(files), described=list(files.values()), acquisition=plan.acquisition,
            relaxation=plan.relaxation, points=plan.points_wanted, seed=seed, n_threads=n_threads,
        )  # fmt: skip
        if plan.strength is not None:
            step.inputs.strength = plan.strength
        nodes.append(Node(step, name=f"guided{number}", mem_gb=2.0, n_procs=n_threads))
    return nodes


def _average_and_correct(workflow: Any, plan: SeriesPlan, chain: _Chain, seed: int, label: str = "") -> None:
    """Average the runs and take off the receive profile; names of nodes end in ``label``."""
    from nipype.interfaces.utility import Merge
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import sodium

    if len(chain.runs) > 1:
        n = len(chain.runs)
        files, noises = Node(Merge(n), name=f"run_files{label}"), Node(Merge(n), name=f"run_noises{label}")
        chain.average = chain.image = Node(sodium.AverageRuns(seed=seed), name=f"average{label}", mem_gb=1.0)
        for number, run in enumerate(chain.runs, start=1):
            workflow.connect(run, "out_file", files, f"in{number}")
            workflow.connect(run, "noise_file", noises, f"in{number}")
        joined = [(files, chain.image, [("out", "in_files")]), (noises, chain.image, [("out", "noise_files")])]
        workflow.connect(joined)
        chain.reports.append((chain.image, "report_file"))
    if plan.receive_pair is not None:
        body, head = plan.receive_pair
        receive = Node(sodium.CorrectReceive(body=str(body), head=str(head)), name=f"receive{label}", mem_gb=0.5)
    elif plan.receive == "reciprocity":
        step = sodium.CorrectReceiveByTransmit(acquisition=plan.acquisition)
        receive = Node(step, name=f"receive{label}", mem_gb=0.5)
        _give_transmit_field(receive, plan)
    else:
        return
    workflow.connect([(chain.image, receive, [("out_file", "in_file"), ("noise_file", "noise_file")])])
    chain.image = receive
    chain.reports.append((receive, "report_file"))


def _resampled(
    workflow: Any,
    name: str,
    source: tuple[Any, str],
    transforms: Sequence[tuple[Any, str]],
    grid: tuple[Any, str] | MapSpace,
) -> Any:
    """A native map on the grid of the anatomical image or of a template, through the transforms in one step."""
    from nipype.interfaces.utility import Merge
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import quantify

    chain = Node(Merge(len(transforms)), name=f"{name}_chain")
    node = Node(quantify.ResampleMap(), name=name, mem_gb=1.0)
    for number, transform in enumerate(transforms, start=1):
        workflow.connect(*transform, chain, f"in{number}")
    workflow.connect(chain, "out", node, "transforms")
    workflow.connect(*source, node, "in_file")
    if isinstance(grid, MapSpace):
        node.inputs.template = grid.template
    else:
        workflow.connect(*grid, node, "reference")
    return node
