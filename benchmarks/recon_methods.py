"""Every method of reconstruction on the analytic head at its own strength: pictures, bias of regions, noise, time.

The scan, the guide and the regions are those of `benchmarks.priors`; those of `agrdm` are the two echoes with one time
constant in each tissue of `benchmarks.agrdm`. Bias is in per cent of the true mean over what lies wholly inside; noise
is the standard deviation over realisations, averaged over white matter, relative to gridding's. Time is in CPU seconds
of one realisation, without what all methods share.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.recon_methods [FOLDER of the figures]
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import agrdm as decay
from benchmarks.priors import NOISE, REGIONS, VOXEL_MM, N, affine, guide_image, painted, problems, sense
from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_image
from sodium_prep.recon.agr import agr, bowsher
from sodium_prep.recon.decay import reconstruct_decay
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.options import STRENGTH, Options
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.reconstruct import reconstruct
from sodium_prep.recon.tv import tv
from sodium_prep.recon.wavelet import wavelet
from sodium_prep.report.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, new_figure, to_svg

REALISATIONS = 3
SLICES_MM = (-16.0, 30.0)
"""Through the hippocampi, and through the lesions that only sodium shows."""
NAMES = {
    "WM": "white matter",
    "cortex": "cortex",
    "hippocampus": "hippocampus",
    "lesion 9 mm": "9 mm lesion",
    "4.5 mm": "4.5 mm lesion",
}
COLOURS = dict(zip(NAMES, (GREEN, SKY, BLUE, ORANGE, PURPLE), strict=True))
T2STAR_MS = {"WM": "wm", "cortex": "gm", "hippocampus": "hippocampus", "lesion 9 mm": "lesion-large"}
PAGES = {"gridding": "gridding, Hamming", **{name: name for name in ("sense", "wavelet", "tv", "agr", "bowsher")}}
"""Page of a method, and what its figure shows beside gridding."""
SHOWN_MM, SHOWN_ERROR, SHOWN_MS = 90.0, 30.0, 60.0
ABOVE = {"loc": "lower right", "bbox_to_anchor": (1.01, 0.98), "ncols": 2, "columnspacing": 1.0, "handlelength": 1.2}
PALETTE = 48
"""Colours of a picture in a figure."""


@dataclass
class Made:
    """Images (realisations, X, Y, Z) of one method, and the time that one took."""

    images: np.ndarray
    seconds: float

    def bias(self, truth, mask):
        """Per cent, and its standard deviation over realisations."""
        means = self.images[:, mask].mean(axis=1)
        return 100.0 * (means.mean() / truth[mask].mean() - 1.0), 100.0 * means.std(ddof=1) / truth[mask].mean()

    def noise(self, mask):
        return float(np.sqrt(np.mean(np.var(self.images[:, mask], axis=0, ddof=1))))


def one_echo(guide):
    """Every method on a scan without decay."""
    methods = {
        "gridding": lambda problem, _: problem.right,
        "gridding, Hamming": lambda _, filtered: filtered,
        "sense": lambda problem, _: sense(problem, 2),
        "wavelet": lambda problem, _: wavelet(problem, STRENGTH["wavelet"] * NOISE),
        "tv": lambda problem, _: tv(problem, STRENGTH["tv"] * NOISE),
        "agr": lambda problem, _: agr(problem, guide, STRENGTH["agr"] * NOISE),
        "bowsher": lambda problem, _: bowsher(problem, guide, STRENGTH["bowsher"]),
    }
    scans, made = list(problems(REALISATIONS)), {}
    for name, method in methods.items():
        start = time.process_time()
        images = np.stack([method(*scan) for scan in scans])
        made[name] = Made(images, (time.process_time() - start) / REALISATIONS)
    return made


def two_echoes(guide):
    """The first of two echoes gridded, both together by ``agrdm``, and its T2*, ms."""
    with tempfile.TemporaryDirectory() as folder:
        clean, _ = decay.echoes_of(Path(folder), "one", 1, np.float32(0.0))
    sigma = np.float32(NOISE / gridding_noise_sd(1.0, clean[0].trajectory))
    options = Options(method="agrdm", guide=guide.astype(np.float32))
    gridded, found, seconds = [], [], 0.0
    for realisation in range(REALISATIONS):
        rng, scans = np.random.default_rng(realisation), []
        for echo in clean:
            parts, apart = (rng.standard_normal((2, *shape), np.float32) for shape in (echo.kspace.shape, (1, 20_000)))
            kspace, noise = echo.kspace + sigma * (parts[0] + 1j * parts[1]), sigma * (apart[0] + 1j * apart[1])
            grid = ((N,) * 3, (VOXEL_MM,) * 3, affine())
            scans.append(RawData(kspace, echo.trajectory, *grid, noise, echo_time_s=echo.echo_time_s))
        gridded.append(reconstruct(scans[0]).image)
        start = time.process_time()
        found.append(reconstruct_decay(scans, options))
        seconds += (time.process_time() - start) / REALISATIONS
    t2star_ms = 1e3 * np.stack([one.t2star_s for one in found])
    images = np.stack([one.scan.image for one in found])
    return {"gridding": Made(np.stack(gridded), 0.0), "agrdm": Made(images, seconds)}, t2star_ms


def true_t2star_ms(region):
    return 1e3 * decay.of(decay.T2STAR_S, T2STAR_MS[region], decay.GREY_S)


def show(axes, image, place_mm, cmap, low, high):
    # Without resampling the file holds the voxels themselves.
    axes.imshow(image[12:68, 4:76, round(place_mm / VOXEL_MM) + N // 2].T, cmap=cmap, vmin=low, vmax=high,
                origin="lower", interpolation="none")  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def scale(figure, place, cmap, low, high, label):
    """A colour bar of few bytes."""
    axes = figure.add_subplot(place)
    axes.imshow(np.linspace(0.0, 1.0, 64)[:, None], cmap=cmap, extent=(0.0, 1.0, low, high), origin="lower",
                aspect="auto", interpolation="none")  # fmt: skip
    axes.set(xticks=[])
    axes.grid(False)
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=7.5, length=2, pad=1.5)
    axes.set_title(label, fontsize=7.5, fontweight="normal", loc="left", pad=6)


def small_svg(figure):
    """The figure with pictures of few colours, which take half the bytes."""

    def smaller(match):
        picture = Image.open(io.BytesIO(base64.b64decode(match.group()))).convert("RGB")
        stream = io.BytesIO()
        picture.quantize(PALETTE, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            stream, "PNG", optimize=True
        )
        return base64.b64encode(stream.getvalue()).decode()

    return re.sub(r"(?<=data:image/png;base64,)[^\"]+", smaller, to_svg(figure))


def words(name):
    """A name over two lines."""
    return "\n".join(name.rsplit(" ", 1))


def overview(truth, made, regions):
    """All methods side by side."""
    pictures = {"truth": truth, **{name: one.images[0] for name, one in made.items()}}
    labels = [name.replace(", ", ",\n") for name in made]
    with new_figure(11.0, 6.0) as figure:
        grid = figure.add_gridspec(2, len(pictures), top=0.93, bottom=0.45, left=0.05, right=0.99, hspace=0.03,
                                   wspace=0.03)  # fmt: skip
        for column, (name, image) in enumerate(pictures.items()):
            for row, place in enumerate(SLICES_MM):
                axes = figure.add_subplot(grid[row, column])
                show(axes, image, place, "inferno", 0.0, SHOWN_MM)
                if row == 0:
                    axes.set_title(name.replace(", ", ",\n"), fontsize=9, loc="center")
        lower = figure.add_gridspec(
            1, 2, width_ratios=(3, 1), wspace=0.22, top=0.37, bottom=0.09, left=0.05, right=0.99
        )
        left, right = figure.add_subplot(lower[0]), figure.add_subplot(lower[1])
        places = np.arange(len(made))
        for number, (region, colour) in enumerate(COLOURS.items()):
            values = [one.bias(truth, regions[region])[0] for one in made.values()]
            left.bar(places + 0.17 * (number - 2), values, 0.15, color=colour, label=NAMES[region])
        left.axhline(0.0, color="black", linewidth=0.8)
        left.set(title="Bias of the mean, %", ylim=(-32, 24), xticks=places)
        left.set_xticklabels(labels, fontsize=8.5)
        left.legend(ncols=3, loc="lower right")
        level = made["gridding"].noise(regions["WM"])
        right.barh(places[::-1], [one.noise(regions["WM"]) / level for one in made.values()], 0.6, color=GREY)
        right.set(title="Noise in white matter", yticks=places[::-1], xlim=(0.0, 1.05))
        right.set_yticklabels(labels, fontsize=8.5)
        right.set_xlabel("gridding = 1", fontsize=8.5)
        return small_svg(figure)


def page(truth, without, found, names, regions, guide=None, t2star_ms=None):
    """One method beside gridding: slices, errors, bias and noise, and T2* where there is one."""
    one, other = without.images[0], found.images[0]
    pictures = [("truth", truth, 0), (names[0], one, 0), (names[1], other, 0)]
    pictures += [(f"error of\n{names[0]}", one - truth, 1), (f"error of\n{names[1]}", other - truth, 1)]
    if guide is not None:
        pictures.insert(0, ("guide", guide / 1.1 * SHOWN_MM, 2))
    if t2star_ms is not None:
        pictures.append(("T2*", np.nan_to_num(t2star_ms[0]), 3))
    looks = [("inferno", 0.0, SHOWN_MM), ("RdBu_r", -SHOWN_ERROR, SHOWN_ERROR), ("gray", 0.0, SHOWN_MM),
             ("viridis", 0.0, SHOWN_MS)]  # fmt: skip
    bars = [("mM", 0), ("error", 1)] + [("T2*, ms", 3)] * (t2star_ms is not None)
    with new_figure(9.6, 5.7) as figure:
        grid = figure.add_gridspec(2, len(pictures), top=0.91, bottom=0.36, left=0.01, right=0.915, hspace=0.03,
                                   wspace=0.03)  # fmt: skip
        for column, (name, image, look) in enumerate(pictures):
            for row, place in enumerate(SLICES_MM):
                axes = figure.add_subplot(grid[row, column])
                show(axes, image, place, *looks[look])
                if row == 0:
                    axes.set_title(name, fontsize=9, loc="center")
        sides = figure.add_gridspec(len(bars), 1, top=0.89, bottom=0.38, left=0.93, right=0.945, hspace=0.4)
        for place, (label, look) in zip(sides, bars, strict=True):
            scale(figure, place, *looks[look], label)
        lower = figure.add_gridspec(1, 3 if t2star_ms is not None else 2, top=0.27, bottom=0.075, left=0.05, right=0.98,
                                    width_ratios=(3, 2, 1) if t2star_ms is not None else (3, 1),
                                    wspace=0.3)  # fmt: skip
        axes = [figure.add_subplot(place) for place in lower]
        colours = (GREY, BLUE)
        places = np.arange(len(NAMES))
        for shift, name, made, colour in zip((-0.2, 0.2), names, (without, found), colours, strict=True):
            means, sds = zip(*(made.bias(truth, regions[region]) for region in NAMES), strict=True)
            axes[0].bar(places + shift, means, 0.36, yerr=sds, color=colour, label=name, error_kw={"linewidth": 0.9})
        axes[0].axhline(0.0, color="black", linewidth=0.8)
        axes[0].set(title="Bias of the mean, %", xticks=places)
        axes[0].set_xticklabels(list(map(words, NAMES.values())), fontsize=8)
        axes[0].legend(**ABOVE)
        if t2star_ms is not None:
            found_ms = [np.nanmedian(t2star_ms[:, regions[region]]) for region in T2STAR_MS]
            places = np.arange(len(T2STAR_MS))
            for shift, values, colour, name in (
                (-0.2, [true_t2star_ms(region) for region in T2STAR_MS], "black", "true"),
                (0.2, found_ms, BLUE, names[1]),
            ):
                axes[1].bar(places + shift, values, 0.36, color=colour, label=name)
            axes[1].set(title="T2*, ms", xticks=places)
            axes[1].set_xticklabels([words(NAMES[region]) for region in T2STAR_MS], fontsize=8)
            axes[1].legend(**ABOVE)
        level = without.noise(regions["WM"])
        axes[-1].bar((0, 1), [1.0, found.noise(regions["WM"]) / level], 0.6, color=colours)
        axes[-1].set(title="Noise in WM", xticks=(0, 1))
        axes[-1].set_xticklabels([name.replace(", ", ",\n") for name in names], fontsize=8)
        return small_svg(figure)


def tell(name, made, without, truth, regions):
    noise = made.noise(regions["WM"]) / without.noise(regions["WM"])
    cells = (made.bias(truth, regions[region]) for region in NAMES)
    print(f"{name:20}{noise:7.2f}" + "".join(f"{m:+11.1f} ±{s:3.1f}" for m, s in cells) + f"{made.seconds:8.1f} s")


def main():
    truth = analytic_image(ANALYTIC_HEAD, (N,) * 3, affine(), 4)
    regions = {}
    for label, names in REGIONS.items():
        regions[label] = painted(lambda name, names=names: name in names) > (0.95 if label == "cortex" else 0.999)
    guide = guide_image(np.random.default_rng(100))
    made = one_echo(guide)
    echoes, t2star_ms = two_echoes(guide)
    print(f"{'':20}{'noise':>7}" + "".join(f"{name:>16}" for name in NAMES.values()) + f"{'CPU':>8}")
    for stacks in (made, echoes):
        for name, one in stacks.items():
            tell(name, one, stacks["gridding"], truth, regions)
    for region in T2STAR_MS:
        found = np.nanmedian(t2star_ms[:, regions[region]])
        print(f"T2* of {NAMES[region]}: {found:.1f} ms, true {true_t2star_ms(region):.1f} ms")
    if len(sys.argv) < 2:
        return
    folder = Path(sys.argv[1])
    figures = {"recon": overview(truth, made, regions)}
    for name, shown in PAGES.items():
        by = guide if name in ("agr", "bowsher") else None
        figures[f"recon-{name}"] = page(truth, made["gridding"], made[shown], ("gridding", shown), regions, by)
    figures["recon-agrdm"] = page(
        truth, echoes["gridding"], echoes["agrdm"], ("first echo", "agrdm"), regions, t2star_ms=t2star_ms
    )
    for name, figure in figures.items():
        (folder / f"{name}.svg").write_text(figure, encoding="utf-8")


if __name__ == "__main__":
    main()
