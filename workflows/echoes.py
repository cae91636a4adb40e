"""Maps of the echoes of a series, beside its concentration."""

from __future__ import annotations

from typing import Any

from sodium_prep.workflows.sodium import SeriesPlan, reconstruction


def connect_echoes(
    workflow: Any, plan: SeriesPlan, kspace_filter: str, outputnode: Any, seed: int, n_threads: int
) -> Any:
    """Add the step that fits the echoes of the first run to the workflow of its series; the step.

    Of k-space the gridded images are fitted, whatever makes the image that concentrations are computed from.
    """
    from nipype.interfaces.utility import Merge
    from nipype.pipeline.engine import Node

    from sodium_prep.interfaces import echoes

    step = echoes.FitEchoes(
        echo_times_s=list(plan.echo_times_s),
        field_strength_t=plan.acquisition["field_strength_t"],
        relaxation=plan.relaxation,
        n_channels=plan.n_channels,
    )
    fit = Node(step, name="echoes", mem_gb=1.5)
    if plan.kspace:
        images, noises = (Node(Merge(len(plan.echoes)), name=f"echo_{what}") for what in ("images", "noises"))
        for number, of in enumerate(plan.raw[0], start=1):
            echo = workflow.get_node("recon1")
            if number > 1:
                echo = reconstruction(
                    plan,
                    of,
                    f"echo{number}",
                    method=plan.first_method,
                    kspace_filter=kspace_filter,
                    seed=seed,
                    n_threads=n_threads,
                )
            workflow.connect(echo, "out_file", images, f"in{number}")
            workflow.connect(echo, "noise_file", noises, f"in{number}")
        workflow.connect([(images, fit, [("out", "in_files")]), (noises, fit, [("out", "noise_files")])])
    else:
        fit.inputs.in_files = [str(path) for path in plan.echoes]
        fit.inputs.imaginary_files = [str(others["imaginary"]) for others in plan.echo_parts if "imaginary" in others]
    if plan.receive in ("pair", "reciprocity"):
        workflow.connect(workflow.get_node("receive"), "profile_file", fit, "profile_file")
    workflow.connect(fit, "report_file", outputnode, "echo_report")
    if not plan.joint:
        workflow.connect(fit, "maps", outputnode, "echo_maps")
        return fit
    maps = Node(Merge(2), name="echo_maps")
    workflow.connect([(fit, maps, [("maps", "in1")]), (workflow.get_node("guided1"), maps, [("maps", "in2")])])
    workflow.connect(maps, "out", outputnode, "echo_maps")
    return fit
