"""Every method of reconstruction on the analytic head at its own strength: pictures, bias of regions, noise.

The scan, the guide and the regions are those of `benchmarks.priors`. Bias is in per cent of the true mean; noise is the
standard deviation over realisations, averaged over white matter, relative to gridding's.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.recon_methods [FIGURE.svg]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.priors import NOISE, REGIONS, VOXEL_MM, N, affine, guide_image, painted, problems, sense
from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_image
from sodium_prep.recon.agr import agr, bowsher
from sodium_prep.recon.options import STRENGTH
from sodium_prep.recon.tv import tv
from sodium_prep.recon.wavelet import wavelet
from sodium_prep.report.svg import BLUE, GREEN, ORANGE, PURPLE, new_figure, to_svg

REALISATIONS = 3
SLICES_MM = (-16.0, 30.0)
"""Through the hippocampi, and through the lesions that only sodium shows."""
SHOWN = {"hippocampus": BLUE, "lesion 9 mm": ORANGE, "4.5 mm": PURPLE, "WM": GREEN}
NAMES = {"hippocampus": "hippocampus", "lesion 9 mm": "lesion, 9 mm", "4.5 mm": "lesion, 4.5 mm", "WM": "white matter"}


def images():
    """Images (realisations, X, Y, Z) by every method."""
    guide = guide_image(np.random.default_rng(100))
    methods = {
        "gridding": lambda problem, _: problem.right,
        "gridding, Hamming": lambda _, filtered: filtered,
        "sense": lambda problem, _: sense(problem, 2),
        "wavelet": lambda problem, _: wavelet(problem, STRENGTH["wavelet"] * NOISE),
        "tv": lambda problem, _: tv(problem, STRENGTH["tv"] * NOISE),
        "agr": lambda problem, _: agr(problem, guide, STRENGTH["agr"] * NOISE),
        "bowsher": lambda problem, _: bowsher(problem, guide, STRENGTH["bowsher"]),
    }
    scans = list(problems(REALISATIONS))
    return {name: np.stack([method(*scan) for scan in scans]) for name, method in methods.items()}


def draw(truth, made, biases, noises):
    pictures = {"truth": truth, **{name: stack[0] for name, stack in made.items()}}
    labels = [name.replace(", ", ",\n") for name in made]
    with new_figure(11.0, 6.0) as figure:
        grid = figure.add_gridspec(
            2, len(pictures), top=0.93, bottom=0.45, left=0.05, right=0.99, hspace=0.03, wspace=0.03
        )
        for column, (name, image) in enumerate(pictures.items()):
            for row, place in enumerate(SLICES_MM):
                axes = figure.add_subplot(grid[row, column])
                axes.imshow(image[12:68, 4:76, round(place / VOXEL_MM) + N // 2].T, cmap="inferno", vmin=0, vmax=90,
                            origin="lower", interpolation="nearest")  # fmt: skip
                axes.set(xticks=[], yticks=[])
                axes.grid(False)
                if row == 0:
                    axes.set_title(name.replace(", ", ",\n"), fontsize=9, loc="center")
        lower = figure.add_gridspec(
            1, 2, width_ratios=(3, 1), wspace=0.22, top=0.37, bottom=0.09, left=0.05, right=0.99
        )
        left, right = figure.add_subplot(lower[0]), figure.add_subplot(lower[1])
        places = np.arange(len(made))
        for number, (region, colour) in enumerate(SHOWN.items()):
            values = [biases[name][region] for name in made]
            left.bar(places + 0.2 * (number - 1.5), values, 0.18, color=colour, label=NAMES[region])
        left.axhline(0.0, color="black", linewidth=0.8)
        left.set(title="Bias of the mean, %", ylim=(-26, 12), xticks=places)
        left.set_xticklabels(labels, fontsize=8.5)
        left.legend(ncols=2, loc="lower right")
        right.barh(places[::-1], [noises[name] for name in made], 0.6, color="#5F6B7A")
        right.set(title="Noise in white matter", yticks=places[::-1], xlim=(0.0, 1.05))
        right.set_yticklabels(labels, fontsize=8.5)
        right.set_xlabel("gridding = 1", fontsize=8.5)
        return to_svg(figure)


def main():
    truth = analytic_image(ANALYTIC_HEAD, (N,) * 3, affine(), 4)
    regions = {}
    for label, names in REGIONS.items():
        regions[label] = painted(lambda name, names=names: name in names) > 0.999
    made = images()
    white = regions["WM"]
    biases = {
        name: {label: 100.0 * (stack[:, regions[label]].mean() / truth[regions[label]].mean() - 1.0) for label in SHOWN}
        for name, stack in made.items()
    }
    spread = {name: float(np.sqrt(np.mean(np.var(stack[:, white], axis=0, ddof=1)))) for name, stack in made.items()}
    noises = {name: value / spread["gridding"] for name, value in spread.items()}
    print(f"{'':20}{'noise':>8}" + "".join(f"{NAMES[label]:>16}" for label in SHOWN))
    for name in made:
        print(f"{name:20}{noises[name]:8.2f}" + "".join(f"{biases[name][label]:+16.1f}" for label in SHOWN))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(draw(truth, made, biases, noises), encoding="utf-8")


if __name__ == "__main__":
    main()
