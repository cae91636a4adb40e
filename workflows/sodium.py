"""From the runs of one sodium series to its corrected image, concentrations and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    acquisition, psf_known
        Fields of :class:`sodium_prep.physics.acquisition.Acquisition`, and whether they suffice for the PSF.
    vials, vials_placed
        Fields of :class:`sodium_prep.quant.geometry.ReferenceGeometry` each.
    receive_pair
        Volume and array coil image.
    b1_plus, b1_units
        Transmit map.
    transform
        Given transform of sodium to anatomy.
    ran
        Steps and parameters for the methods text.
    """

    name: str
    label: str
    files: tuple[Path, ...]
    kspace: bool
    acquisition: dict[str, Any]
    psf_known: bool
    vials: tuple[dict[str, Any], ...]
    vials_placed: bool
    acq: str = ""
    suffix: str = "PDw"
    receive_pair: tuple[Path, Path] | None = None
    b1_plus: Path | None = None
    b1_units: str = ""
    transform: Path | None = None
    warnings: tuple[str, ...] = ()
    ran: dict[str, Any] = field(default_factory=dict)

    @property
    def rec(self) -> str:
        """Label of the reconstruction in file names."""
        return "gridding" if self.kspace else "vendor"


SERIES_INPUTS = ("t1w", "brain_mask", "head_mask", "gm", "wm", "csf", "labels", "to_template", "anatomy_report")
_FROM_QUANTIFY = ("transform", "table", "calibration", "tsc", "tsc_stderr")
SERIES_OUTPUTS = ("sodium", *_FROM_QUANTIFY, "tsc_t1w", "tsc_template", "quality", "figures")
_ANATOMY = ("t1w", "brain_mask", "gm", "wm", "csf", "labels")


def init_series_wf(
    *,
    plan: SeriesPlan,
    references: Sequence[str],
    estimators: Sequence[str],
    atlas: str,
    contrast: str,
    spaces: Sequence[str],
    psf_fwhm_mm: float | None = None,
    kspace_filter: str = "none",
    seed: int = 42,
    n_threads: int = 1,
) -> Any:
    """Build the chain for one series.

    Parameters
    ----------
    plan
        Files and facts.
    references, estimators
        Wanted.
    atlas, contrast
        Of the anatomy.
    spaces
        Spaces of resampled maps.
    psf_fwhm_mm
        A Gaussian PSF in place of the computed one.
    kspace_filter
        Window of our own reconstruction.
    seed, n_threads
        Of the registrations.

    Inputs
    ------
    t1w, brain_mask, head_mask, gm, wm, csf, labels, to_template, anatomy_report
        From the anatomy; the last two may be absent.

    Outputs
    -------
    sodium, transform, table, calibration, tsc, tsc_stderr, tsc_t1w, tsc_template, quality, figures
        What is saved.
    """
    from nipype.interfaces.utility import IdentityInterface, Merge
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces import report

    workflow = Workflow(name=plan.name)
    inputnode = Node(IdentityInterface(list(SERIES_INPUTS), mandatory_inputs=False), name="inputnode")
    outputnode = Node(IdentityInterface(list(SERIES_OUTPUTS), mandatory_inputs=False), name="outputnode")
    image, reports = _image_chain(workflow, plan, kspace_filter, seed)
    registered = _registration(workflow, plan, inputnode, image, reports, seed, n_threads)

    quant = _quantification(plan, references, estimators, atlas, psf_fwhm_mm)
    workflow.connect(*registered, quant, "transform")
    workflow.connect(
        [
            (image, quant, [("out_file", "in_file"), ("noise_file", "noise_file")]),
            (inputnode, quant, [(item, item) for item in (*_ANATOMY, "head_mask")]),
        ]
    )
    reports.append((quant, "report_file"))

    page = Node(
        report.ReportScan(
            label=plan.label,
            contrast=contrast,
            atlas=atlas,
            ran=plan.ran,
            warnings=list(plan.warnings),
            field_strength_t=plan.acquisition["field_strength_t"],
        ),
        name="report",
        mem_gb=1.5,
    )
    in_t1w = _resampled(workflow, "sodium_t1w", (image, "out_file"), quant, inputnode)
    workflow.connect(in_t1w, "out_file", page, "sodium_t1w")
    if references:
        tsc_t1w = _resampled(workflow, "tsc_t1w", (quant, "tsc"), quant, inputnode)
        workflow.connect(tsc_t1w, "out_file", page, "tsc_t1w")
        if "T1w" in spaces:
            workflow.connect(tsc_t1w, "out_file", outputnode, "tsc_t1w")
        if "MNI152NLin6Asym" in spaces:
            tsc_template = _resampled(workflow, "tsc_template", (quant, "tsc"), quant, inputnode, template=True)
            workflow.connect(tsc_template, "out_file", outputnode, "tsc_template")
    gathered = Node(Merge(len(reports) + 1), name="reports")
    for number, (node, output) in enumerate(reports, start=1):
        workflow.connect(node, output, gathered, f"in{number}")
    workflow.connect(inputnode, "anatomy_report", gathered, f"in{len(reports) + 1}")
    workflow.connect(
        [
            (gathered, page, [("out", "reports")]),
            (inputnode, page, [(item, item) for item in _ANATOMY]),
            (image, page, [("out_file", "sodium")]),
            (quant, page, [("residual", "residual"), ("table", "table"), ("calibration", "calibration")]),
            (image, outputnode, [("out_file", "sodium")]),
            (quant, outputnode, [(item, item) for item in _FROM_QUANTIFY]),
            (page, outputnode, [("quality", "quality"), ("figures", "figures")]),
        ]
    )
    return workflow


def _registration(
    workflow: Any,
    plan: SeriesPlan,
    inputnode: Any,
    image: Any,
    reports: list[tuple[Any, str]],
    seed: int,
    n_threads: int,
) -> tuple[Any, str]:
    """Where the transform of sodium to anatomy comes from: the inputs, or a registration."""
    from nipype.interfaces.utility import IdentityInterface
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import sodium

    if plan.transform is not None:
        return Node(IdentityInterface(["transform"], transform=str(plan.transform)), name="given"), "transform"
    coreg = Node(sodium.RegisterSodium(seed=seed, n_threads=n_threads), name="coreg", mem_gb=1.0, n_procs=n_threads)
    workflow.connect(
        [
            (image, coreg, [("out_file", "in_file")]),
            (inputnode, coreg, [("t1w", "t1w"), ("brain_mask", "brain_mask")]),
        ]
    )
    reports.append((coreg, "report_file"))
    return coreg, "out_file"


def _quantification(
    plan: SeriesPlan, references: Sequence[str], estimators: Sequence[str], atlas: str, psf_fwhm_mm: float | None
) -> Any:
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import quantify

    quant = Node(
        quantify.Quantify(
            atlas=atlas,
            acquisition=plan.acquisition,
            psf_known=plan.psf_known,
            vials=list(plan.vials),
            vials_placed=plan.vials_placed,
            references=list(references),
            estimators=list(estimators),
            b1_units=plan.b1_units,
            refine=plan.transform is None,
        ),
        name="quantify",
        mem_gb=2.5,
    )
    if psf_fwhm_mm is not None:
        quant.inputs.psf_fwhm_mm = psf_fwhm_mm
    if plan.b1_plus is not None:
        quant.inputs.b1_plus = str(plan.b1_plus)
    if not plan.kspace:
        quant.inputs.stored_files = [str(path) for path in plan.files]
    return quant


def _image_chain(workflow: Any, plan: SeriesPlan, kspace_filter: str, seed: int) -> tuple[Any, list[tuple[Any, str]]]:
    """Read or reconstruct every run, average, take off the receive profile; the last node and the reports."""
    from nipype.interfaces.utility import Merge
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import sodium

    runs = []
    for number, path in enumerate(plan.files, start=1):
        if plan.kspace:
            interface = sodium.ReconstructKspace(in_file=str(path), kspace_filter=kspace_filter)
            runs.append(Node(interface, name=f"recon{number}", mem_gb=1.5))
        else:
            interface = sodium.CleanVendorImage(
                in_file=str(path), acquisition=plan.acquisition, psf_known=plan.psf_known
            )
            runs.append(Node(interface, name=f"image{number}", mem_gb=0.5))
    image, reports = runs[0], [(runs[0], "report_file")]
    if len(runs) > 1:
        files, noises = Node(Merge(len(runs)), name="run_files"), Node(Merge(len(runs)), name="run_noises")
        image = Node(sodium.AverageRuns(seed=seed), name="average", mem_gb=1.0)
        for number, run in enumerate(runs, start=1):
            workflow.connect(run, "out_file", files, f"in{number}")
            workflow.connect(run, "noise_file", noises, f"in{number}")
        workflow.connect([(files, image, [("out", "in_files")]), (noises, image, [("out", "noise_files")])])
        reports.append((image, "report_file"))
    if plan.receive_pair is not None:
        body, head = plan.receive_pair
        receive = Node(sodium.CorrectReceive(body=str(body), head=str(head)), name="receive", mem_gb=0.5)
        workflow.connect([(image, receive, [("out_file", "in_file"), ("noise_file", "noise_file")])])
        image = receive
        reports.append((receive, "report_file"))
    return image, reports


def _resampled(
    workflow: Any, name: str, source: tuple[Any, str], quant: Any, inputnode: Any, *, template: bool = False
) -> Any:
    """A native map on the grid of the anatomical image or of the template, through the transforms in one step."""
    from nipype.interfaces.utility import Merge
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import quantify

    chain = Node(Merge(2 if template else 1), name=f"{name}_chain")
    node = Node(quantify.ResampleMap(), name=name, mem_gb=1.0)
    workflow.connect(quant, "transform", chain, "in1")
    workflow.connect(chain, "out", node, "transforms")
    workflow.connect(*source, node, "in_file")
    if template:
        workflow.connect(inputnode, "to_template", chain, "in2")
    else:
        workflow.connect(inputnode, "t1w", node, "reference")
    return node
