"""From a proton image to masks, tissue fractions, atlas labels and the way to the template."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

GIVEN = ("brain_mask", "gm", "wm", "csf", "labels", "to_template", "from_template")
"""What precomputed derivatives may replace."""
ANATOMY_OUTPUTS = ("t1w", "brain_mask", "head_mask", "gm", "wm", "csf", "labels", "to_template", "from_template")


def registers_to_template(contrast: str, given: Collection[str], *, to_template: bool) -> bool:
    """Whether the template has to be registered: for labels, for a template space, or for fractions without T1w."""
    needed = to_template or "labels" not in given or ("gm" not in given and contrast != "T1w")
    return needed and not {"to_template", "from_template"} <= set(given)


def init_anatomy_wf(
    *,
    contrast: str,
    atlas: str,
    given: frozenset[str] = frozenset(),
    to_template: bool = True,
    seed: int = 42,
    n_threads: int = 1,
    sloppy: bool = False,
    name: str = "anatomy_wf",
) -> Any:
    """Build the chain for one proton image.

    Parameters
    ----------
    contrast
        Suffix of the proton image; only T1w has the contrast that fractions are read from.
    atlas
        Bundled atlas or label image in the template's space.
    given
        Names of :data:`GIVEN` that come with the inputs and are not computed.
    to_template
        Whether the registration to the template is wanted for its own sake.
    seed, n_threads, sloppy
        Of the registrations.

    Inputs
    ------
    in_file
        Proton image.
    brain_mask, gm, wm, csf, labels, to_template, from_template
        Those that are given.

    Outputs
    -------
    t1w
        Bias-corrected image.
    brain_mask, head_mask
        Masks on its grid.
    gm, wm, csf
        Tissue fractions.
    labels
        Atlas labels.
    to_template, from_template
        Composite transforms, if there are any.
    report
        JSON of what was found, if fractions were computed.
    """
    from nipype.interfaces.utility import IdentityInterface
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces import anatomy

    ants = {"seed": seed, "n_threads": n_threads, "sloppy": sloppy}
    cost = {"mem_gb": 1.5, "n_procs": n_threads}
    workflow = Workflow(name=name)
    inputnode = Node(IdentityInterface(["in_file", *GIVEN], mandatory_inputs=False), name="inputnode")
    outputnode = Node(IdentityInterface([*ANATOMY_OUTPUTS, "report"], mandatory_inputs=False), name="outputnode")
    source: dict[str, tuple[Any, str]] = {item: (inputnode, item) for item in given}

    def connect(item: str, node: Any, field: str) -> None:
        workflow.connect(*source[item], node, field)

    conform = Node(anatomy.ConformAnatomical(), name="conform")
    workflow.connect(inputnode, "in_file", conform, "in_file")
    source["raw"] = (conform, "out_file")
    if "brain_mask" not in given:
        brain = Node(anatomy.ExtractBrain(**ants), name="brain", **cost)
        connect("raw", brain, "in_file")
        source |= {"brain_mask": (brain, "brain_mask"), "affine": (brain, "to_template")}
    head = Node(anatomy.HeadMask(), name="head", mem_gb=0.5)
    connect("raw", head, "in_file")
    connect("brain_mask", head, "brain_mask")
    source["head_mask"] = (head, "out_file")
    if registers_to_template(contrast, given, to_template=to_template):
        bias = Node(anatomy.CorrectBias(**ants), name="bias", **cost)
        register = Node(anatomy.RegisterToTemplate(contrast=contrast, **ants), name="template", **cost)
        connect("raw", bias, "in_file")
        connect("brain_mask", bias, "brain_mask")
        connect("brain_mask", register, "brain_mask")
        workflow.connect(bias, "out_file", register, "in_file")
        if "affine" in source:
            connect("affine", register, "initial")
        source |= {end: (register, end) for end in ("to_template", "from_template")}
    labels = Node(anatomy.LabelsToAnatomical(atlas=atlas), name="labels", mem_gb=1.0)
    connect("brain_mask", labels, "brain_mask")
    connect(*(("labels", labels, "labels") if "labels" in given else ("from_template", labels, "from_template")))
    source["labels"] = (labels, "out_file")
    source["t1w"] = source["raw"]
    if "gm" not in given:
        fractions = Node(anatomy.TissueFractions(contrast=contrast, atlas=atlas), name="fractions", mem_gb=2.0)
        connect("raw", fractions, "in_file")
        connect("brain_mask", fractions, "brain_mask")
        connect("labels", fractions, "labels")
        if contrast != "T1w":
            connect("from_template", fractions, "from_template")
        source |= {tissue: (fractions, tissue) for tissue in ("gm", "wm", "csf")}
        source |= {"t1w": (fractions, "out_file"), "report": (fractions, "report_file")}
    for item in (*ANATOMY_OUTPUTS, "report"):
        if item in source:
            connect(item, outputnode, item)
    return workflow
