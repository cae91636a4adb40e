"""Bias of every regional estimator on the phantom's head, with the right model and with one thing wrong at a time.

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.bias [FIGURE.svg]

The head is that of `benchmarks.coverage`: true fractions on 2 mm voxels, sodium at 4 mm, no noise. Errors are in % of
the true concentration; the figure shows the same numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.coverage import ACQUISITION, AFFINE, GAIN, PSF, RELAXATION, SHAPE, Scanner
from sodium_prep.physics.signal import signal_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.regional.signals import regional_signals

ESTIMATORS = ("none", "gtm", "labbe", "joint", "mg", "iy", "mlts")
ROWS = (("Cortex", "both"), ("Hippocampus", "both"), ("WhiteMatter", "both"), ("CSF", "both"))
LIMIT = 40.0


def cases(head: Compartments) -> dict[str, tuple[Compartments, PsfModel, np.ndarray]]:
    """Compartments, PSF and transform that the estimators are given."""
    off = np.eye(4)
    off[1, 3] = 1.0
    return {
        "the right model": (head, PSF, np.eye(4)),
        "a Gaussian as wide as the PSF": (head, PsfModel("gaussian", fwhm_mm=1.74 * 4.0), np.eye(4)),
        "a PSF without T2* decay": (head, PsfModel("acquisition", undecayed()), np.eye(4)),
        "registration 1 mm off": (head, PSF, off),
        "fluid around the brain left out": (without_outer_fluid(head), PSF, np.eye(4)),
        "labels in place of fractions": (hard(head), PSF, np.eye(4)),
    }


def undecayed():
    """The acquisition with a readout so short that nothing decays."""
    return replace(ACQUISITION, readout_duration_s=1e-6)


def without_outer_fluid(head: Compartments) -> Compartments:
    out = Compartments([], [], [], [], [], head.shape, head.affine)
    for i, name in enumerate(head.names):
        if not name.startswith("outer-CSF"):
            copy(head, i, out, head.voxels[i], head.weights[i])
    return out


def hard(head: Compartments) -> Compartments:
    """Every voxel belongs to the compartment that fills most of it."""
    most, owner = np.zeros(int(np.prod(head.shape))), np.full(int(np.prod(head.shape)), -1)
    for i, (voxels, weights) in enumerate(zip(head.voxels, head.weights, strict=True)):
        more = weights > most[voxels]
        most[voxels[more]], owner[voxels[more]] = weights[more], i
    out = Compartments([], [], [], [], [], head.shape, head.affine)
    for i in range(len(head.names)):
        voxels = np.flatnonzero(owner == i)
        copy(head, i, out, voxels, np.ones(voxels.size))
    return out


def copy(head: Compartments, i: int, out: Compartments, voxels: np.ndarray, weights: np.ndarray) -> None:
    out.append(
        head.names[i], head.tissues[i], head.kinds[i], voxels, weights, index=head.indices[i],
        hemisphere=head.hemispheres[i], structure=head.structures[i],
    )  # fmt: skip


def errors(given: Compartments, psf: PsfModel, place: np.ndarray, image: np.ndarray, scanner: Scanner, true):
    """Error in % by region and estimator."""
    found = regional_signals(
        image, AFFINE, scanner.noise, given, place, ACQUISITION, RELAXATION, psf, estimators=ESTIMATORS,
        voxel_kernel="mean",
    )  # fmt: skip
    rows = {(r.name, r.hemisphere): i for i, r in enumerate(found.regions)}
    out = {}
    for name in ROWS:
        i = rows[name]
        for estimator, signals in found.by_estimator.items():
            if signals.estimated is None or signals.estimated[i]:
                tsc_mM = signals.values[i] / (GAIN * signals.factors[i])
                out[name[0], estimator] = 100 * (tsc_mM / true[name[0]] - 1)
    return out


def main(figure: str | None = None) -> None:
    scanner = Scanner()
    head = scanner.head
    tsc_mM = scanner.concentrations(spread=0.0)
    factors = np.array([float(signal_factor(ACQUISITION, RELAXATION[t])) for t in head.tissues])
    pushed = push_compartments(head, np.eye(4), SHAPE, AFFINE, PSF, RELAXATION, voxel_kernel="mean")
    image = (GAIN * tsc_mM * factors) @ pushed
    structures = {"Cortex": "cortex", "Hippocampus": "hippocampus", "WhiteMatter": "wm", "CSF": "csf"}
    true = {name: tsc_mM[head.structures.index(structure)] for name, structure in structures.items()}
    found = {}
    for case, (given, psf, place) in cases(head).items():
        found[case] = errors(given, psf, place, image.reshape(SHAPE), scanner, true)
        print(case)
        for name, _ in ROWS:
            line = "  ".join(f"{e} {found[case][name, e]:+7.1f}" for e in ESTIMATORS if (name, e) in found[case])
            print(f"  {name:14}{line}", flush=True)
    if figure:
        draw(found, figure)


def draw(found: Mapping[str, Mapping[tuple[str, str], float]], path: str) -> None:
    """One panel per case, one group of bars per region; bars beyond the limit are cut and say how long they are."""
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "bias", "font.size": 9, "svg.fonttype": "none"}
    colours = dict(zip(ESTIMATORS, plt.get_cmap("tab10").colors, strict=False))
    fig, panels = plt.subplots(2, 3, figsize=(11, 6), sharey=True, layout="constrained")
    for panel, (case, values) in zip(panels.ravel(), found.items(), strict=True):
        panel.axhline(0.0, color="0.3", linewidth=0.8)
        for i, (name, _) in enumerate(ROWS):
            for j, estimator in enumerate(ESTIMATORS):
                value = values.get((name, estimator))
                if value is None:
                    continue
                x, shown = i + (j - 3) * 0.12, float(np.clip(value, -LIMIT, LIMIT))
                panel.bar(x, shown, 0.11, color=colours[estimator], label=estimator if i == 0 else None)
                if abs(value) > LIMIT:
                    panel.text(x, shown * 0.98, f"{value:+.0f}", rotation=90, ha="center", va="top", fontsize=7)
        panel.set_title(case, fontsize=10)
        panel.set_xticks(range(len(ROWS)), ["cortex", "hippo-\ncampus", "white\nmatter", "CSF"])
        panel.set_ylim(-LIMIT * 1.05, LIMIT * 1.05)
    for panel in panels[:, 0]:
        panel.set_ylabel("error, %")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ESTIMATORS))
    fig.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:2])
