"""What the sessions of one participant have in common: a template of their own, and its way to the bundled one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUPPLIED = ("brain_mask", "to_template", "from_template")
"""What each session receives."""


def init_longitudinal_wf(
    *,
    files: Sequence[Path],
    names: Sequence[str],
    method: str = "ants",
    fast: bool = False,
    ignore_sides: bool = False,
    seed: int = 42,
    n_threads: int = 1,
    sloppy: bool = False,
    name: str = "longitudinal_wf",
) -> Any:
    """Build the chain for the T1w images of all sessions.

    Sessions are laid on each other rigidly, none before the others (Reuter et al., NeuroImage 2012;61:1402), and their
    average is registered to the bundled template once. So every session has the same regions; what is in them is told
    by its own image.

    Parameters
    ----------
    files
        T1w image of each session.
    names
        Of the sessions, for messages.
    method, fast
        Of the registration to the template.
    ignore_sides
        Go on with an image that seems to be swapped left and right.
    seed, n_threads, sloppy
        Of all registrations.

    Outputs
    -------
    brain_mask<n>, to_template<n>, from_template<n>
        For session n, from 1 on: its brain mask, and its transforms to and from the bundled template.
    """
    from nipype.interfaces.utility import IdentityInterface, Merge
    from nipype.pipeline.engine import Node, Workflow

    from sodium_prep.interfaces import anatomy

    programs = {"seed": seed, "n_threads": n_threads, "sloppy": sloppy}
    cost = {"mem_gb": 1.2, "n_procs": n_threads}
    numbers = range(1, len(files) + 1)
    workflow = Workflow(name=name)
    outputnode = Node(IdentityInterface([f"{item}{n}" for n in numbers for item in SUPPLIED]), name="outputnode")
    gathered = {item: Node(Merge(len(files)), name=f"all_{item}") for item in ("unbiased", "brain_mask", "affine")}
    midspace = Node(anatomy.MakeMidspace(names=list(names), **programs), name="midspace", mem_gb=2.0)
    template = Node(anatomy.RegisterToTemplate(method=method, fast=fast, **programs), name="template", **cost)
    for number, path in enumerate(files, start=1):
        conform = Node(anatomy.ConformAnatomical(in_file=str(path)), name=f"conform{number}", mem_gb=0.5)
        extract = anatomy.ExtractBrain(source=str(path), ignore_sides=ignore_sides, **programs)
        brain = Node(extract, name=f"brain{number}", **cost)
        bias = Node(anatomy.CorrectBias(**programs), name=f"bias{number}", **cost)
        join = Node(anatomy.JoinSession(number=number), name=f"join{number}", mem_gb=0.5)
        workflow.connect(
            [
                (conform, brain, [("out_file", "in_file")]),
                (conform, bias, [("out_file", "in_file")]),
                (brain, bias, [("brain_mask", "brain_mask")]),
                (bias, gathered["unbiased"], [("unbiased", f"in{number}")]),
                (brain, gathered["brain_mask"], [("brain_mask", f"in{number}")]),
                (brain, gathered["affine"], [("affine", f"in{number}")]),
                (midspace, join, [("matrices", "matrices")]),
                (template, join, [("to_template", "to_template"), ("from_template", "from_template")]),
                (brain, outputnode, [("brain_mask", f"brain_mask{number}")]),
                (join, outputnode, [(item, f"{item}{number}") for item in ("to_template", "from_template")]),
            ]
        )
    workflow.connect(
        [
            (gathered["unbiased"], midspace, [("out", "in_files")]),
            (gathered["brain_mask"], midspace, [("out", "brain_masks")]),
            (gathered["affine"], midspace, [("out", "affines")]),
            (midspace, template, [("out_file", "in_file"), ("brain_mask", "brain_mask"), ("affine", "initial")]),
        ]
    )
    return workflow
