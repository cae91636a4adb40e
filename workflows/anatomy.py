"""From a proton image to masks, tissue fractions, atlas labels and the way to the template."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

GIVEN_IMAGES = ("brain_mask", "gm", "wm", "csf", "lesion")
"""Images on the grid of the proton image that may come with the inputs."""
GIVEN = (*GIVEN_IMAGES, "segmentation", "segmentation_mask", "to_template", "from_template")
"""Everything that may come with the inputs and is then not computed."""
ANATOMY_OUTPUTS = (
    "t1w", "brain_mask", "head_mask", "gm", "wm", "csf", "lesion", "labels", "atlas_table", "atlas_record",
    "to_template", "from_template", "template_affine", "template_warped",
)  # fmt: skip


def registers_to_template(contrast: str, given: Collection[str], *, to_template: bool) -> bool:
    """Whether the template has to be registered: for labels, for a template space, or for fractions without T1w."""
    needed = to_template or "segmentation" not in given or ("gm" not in given and contrast != "T1w")
    return needed and not {"to_template", "from_template"} <= set(given)


def init_anatomy_wf(
    *,
    source: str,
    contrast: str,
    atlases: Sequence[str],
    given: frozenset[str] = frozenset(),
    to_template: bool = True,
    via: Sequence[str] = (),
    method: str = "ants",
    fast: bool = False,
    ignore_sides: bool = False,
    seed: int = 42,
    n_threads: int = 1,
    sloppy: bool = False,
    name: str = "anatomy_wf",
) -> Any:
    """Build the chain for one proton image.

    Parameters
    ----------
    source
        Name of the proton image, for messages.
    contrast
        Suffix of the proton image; only T1w has the contrast that fractions are read from.
    atlases
        The first covers the brain, others are laid over it.
    given
        Names of :data:`GIVEN` that come with the inputs and are not computed.
    to_template
        Whether the registration to the bundled template is wanted for its own sake.
    via
        Templates other than the bundled one that an atlas lies in; their transforms come by ``from_spaces``.
    method, fast
        Of the registration to the template.
    ignore_sides
        Go on with an image that seems to be swapped left and right.
    seed, n_threads, sloppy
        Of all registrations.

    Inputs
    ------
    in_file
        Proton image.
    brain_mask, gm, wm, csf, lesion, segmentation, segmentation_mask, to_template, from_template
        Those that are given.
    from_spaces
        Transforms that carry images of the templates ``via`` to the bundled one.

    Outputs
    -------
    t1w
        Bias-corrected image.
    brain_mask, head_mask, lesion
        Masks on its grid; the last only if given.
    gm, wm, csf
        Tissue fractions.
    labels, atlas_table, atlas_record
        Atlas labels, what each of them is (TSV), and where they come from (JSON).
    to_template, from_template
        Composite transforms to and from the bundled template, if there are any.
    template_affine, template_warped
        The template on the grid of the image, by the affine part and by all of the transform.
    reports
        JSON files of what was found.
    """
    from nipype.interfaces.utility import IdentityInterface
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces import anatomy

    programs = {"seed": seed, "n_threads": n_threads, "sloppy": sloppy}
    cost = {"mem_gb": 1.2, "n_procs": n_threads}
    workflow = Workflow(name=name)
    inputnode = Node(IdentityInterface(["in_file", *GIVEN, "from_spaces"], mandatory_inputs=False), name="inputnode")
    outputnode = Node(IdentityInterface([*ANATOMY_OUTPUTS, "reports"], mandatory_inputs=False), name="outputnode")
    chain = _Chain(workflow, {item: (inputnode, item) for item in given})

    conform = Node(anatomy.ConformAnatomical(), name="conform", mem_gb=0.5)
    workflow.connect(inputnode, "in_file", conform, "in_file")
    chain.source["raw"] = chain.source["t1w"] = (conform, "out_file")
    images = [item for item in GIVEN_IMAGES if item in given]
    if images:
        chain.add(Node(anatomy.ConformGiven(), name="given", mem_gb=0.5), images, **{item: item for item in images})
    if "brain_mask" not in given and "segmentation" in given:
        brain = Node(anatomy.SegmentedBrain(), name="brain", mem_gb=1.0)
        chain.add(brain, ["brain_mask"], in_file="raw", segmentation="segmentation", mask="segmentation_mask")
    elif "brain_mask" not in given:
        brain = Node(
            anatomy.ExtractBrain(source=source, contrast=contrast, ignore_sides=ignore_sides, **programs),
            name="brain",
            **cost,
        )
        chain.add(brain, ["brain_mask", "affine"], in_file="raw", lesion="lesion")
    head = Node(anatomy.HeadMask(), name="head", mem_gb=0.5)
    chain.add(head, ["head_mask"], in_file="raw", brain_mask="brain_mask")
    if registers_to_template(contrast, given, to_template=to_template):
        bias = Node(anatomy.CorrectBias(**programs), name="bias", **cost)
        chain.add(bias, ["unbiased"], in_file="raw", brain_mask="brain_mask")
        interface = anatomy.RegisterToTemplate(contrast=contrast, method=method, fast=fast, **programs)
        register = Node(interface, name="template", **cost)
        fields = {"in_file": "unbiased", "brain_mask": "brain_mask", "lesion": "lesion", "initial": "affine"}
        chain.add(register, ["to_template", "from_template", "affine"], **fields)
    if "from_template" in chain.source:
        shown = Node(anatomy.TemplateOnAnatomical(), name="template_shown", mem_gb=1.0)
        fields = {"reference": "raw", "from_template": "from_template", "affine": "affine"}
        chain.add(shown, ["template_affine", "template_warped"], **fields)
    labels = Node(anatomy.LabelsToAnatomical(atlases=list(atlases), via=list(via)), name="labels", mem_gb=1.0)
    fields = {"brain_mask": "brain_mask", "segmentation": "segmentation", "from_template": "from_template"}
    chain.add(labels, ["labels", "atlas_table", "atlas_record"], **fields)
    if via:
        workflow.connect(inputnode, "from_spaces", labels, "from_spaces")
    if "gm" not in given:
        fractions = Node(anatomy.TissueFractions(contrast=contrast), name="fractions", mem_gb=1.5)
        fields = {item: item for item in ("brain_mask", "labels", "atlas_table", "lesion")}
        if contrast != "T1w":
            fields["from_template"] = "from_template"
        chain.add(fractions, ["gm", "wm", "csf", "t1w"], in_file="raw", **fields)
    chain.add(outputnode, [], **{item: item for item in ANATOMY_OUTPUTS})
    chain.gather_reports(outputnode)
    return workflow


class _Chain:
    """Nodes in a row: each takes by name what earlier ones, or the inputs, have made."""

    def __init__(self, workflow: Any, source: dict[str, tuple[Any, str]]) -> None:
        self._workflow = workflow
        self.source = source
        self._reports: list[Any] = []

    def add(self, node: Any, makes: Sequence[str], **takes: str) -> None:
        """Connect a node's fields to the items of these names, so far as they are there, and note what it makes."""
        for field, item in takes.items():
            if item in self.source:
                self._workflow.connect(*self.source[item], node, field)
        self.source |= {item: (node, item) for item in makes}
        if "report_file" in node.outputs.copyable_trait_names():
            self._reports.append(node)

    def gather_reports(self, outputnode: Any) -> None:
        """Hand the JSON reports of all nodes on as one list."""
        from nipype.interfaces.utility import Merge
        from nipype.pipeline.engine import Node

        gathered = Node(Merge(max(len(self._reports), 1)), name="reports")
        for number, node in enumerate(self._reports, start=1):
            self._workflow.connect(node, "report_file", gathered, f"in{number}")
        self._workflow.connect(gathered, "out", outputnode, "reports")
