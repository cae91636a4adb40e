"""Brain extraction of hard heads, all made of Colin27.

Usage: OMP_NUM_THREADS=1 MRICRON_TEMPLATES=FOLDER python -m benchmarks.heads [CASE ...] [--sheet OUT.png] [--work-mm 2]

Debian's ``mricron-data`` holds the head (``ch2``) and its brain cut out by BET (``ch2bet``). The head is turned, moved,
cut off, shaded, and so on; the reference goes the same way. One row of a Markdown table for every case:

- Dice: overlap of the mask found with ``ch2bet``, whose holes at sulci are closed and filled;
- tissue: share of grey and white matter (brighter than half way between fluid and grey matter in k-means of three
  classes) within the mask found; a lesion does not count;
- CPU s: of the programs and of this process, for the extraction alone;
- GB: memory of the largest program;
- notes: what the extraction says, or why it refuses the image.

The sheet shows every head in three planes through its brain, all in one scale: found in red, reference in blue.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.brain import extract_brain, head_mask
from sodium_prep.atlas.bundled import load_template
from sodium_prep.errors import InputError
from tests.anat.colin import colin27
from tests.anat.heads import dice, smooth_bias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Vector = tuple[float, float, float]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]

ACROSS_MM = ((-93.0, 93.0), (-93.0, 93.0), (-112.0, 112.0))
UP_MM = (-112.0, 112.0)
"""What the sheet shows of the axial, coronal and sagittal plane, mm from the centre of the brain."""
BESIDE_MIDLINE_MM = 6.0
PIXELS_PER_MM, COLUMNS, GAP, TITLE, COLOURS = 0.75, 3, 14, 22, 48


@dataclass(frozen=True)
class Head:
    """A T1w image, the brain and its grey and white matter on one grid; ``lesion`` is what the user would draw."""

    t1w: Image
    affine: Matrix
    brain: Mask
    tissue: Mask
    lesion: Mask | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one case; the mask is None where the image was refused."""

    mask: Mask | None
    dice: float
    tissue: float
    cpu_programs_s: float
    cpu_own_s: float
    memory_gb: float
    notes: str


class Plane(NamedTuple):
    """A slice of image, mask found and reference (up, across), and the places of its voxels in mm from the brain."""

    grey: Image
    found: Image
    brain: Image
    across_mm: NDArray[np.float64]
    up_mm: NDArray[np.float64]


class Case(NamedTuple):
    title: str
    make: Callable[[], Head]


def seeded() -> np.random.Generator:
    return np.random.default_rng(0)


@cache
def class_means() -> NDArray[np.float64]:
    """Intensity of fluid, grey and white matter of Colin27."""
    brain, _ = colin27("ch2bet")
    values = brain[brain > 0].astype(float)
    centres = np.percentile(values, [5, 45, 85])
    for _ in range(30):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        centres = np.array([values[nearest == k].mean() for k in range(3)])
    return centres


def between_fluid_and_grey() -> float:
    return float(class_means()[:2].mean())


@cache
def colin() -> Head:
    image, affine = colin27("ch2")
    stripped, _ = colin27("ch2bet")
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(stripped > 0, iterations=2))
    tissue = brain & (stripped > between_fluid_and_grey())
    return Head(image.astype(np.float32), np.asarray(affine, float), brain, tissue)


def with_image(t1w: Image) -> Head:
    return replace(colin(), t1w=t1w.astype(np.float32))


def world_mm() -> Matrix:
    """Place of every voxel of Colin27, (X, Y, Z, 3)."""
    head = colin()
    voxels = np.stack(np.meshgrid(*map(np.arange, head.t1w.shape), indexing="ij"), axis=-1)
    return voxels @ head.affine[:3, :3].T + head.affine[:3, 3]


def motion(turn_deg: Vector = (0, 0, 0), shift_mm: Vector = (0, 0, 0)) -> Matrix:
    """Turns about x, then y, then z through the origin, and a shift after them."""
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    out[:3, 3] = shift_mm
    return out


def straight_grid(voxel_mm: Vector, first_mm: Sequence[float] | NDArray[np.float64]) -> Matrix:
    out = np.diag([*voxel_mm, 1.0])
    out[:3, 3] = first_mm
    return out


def resampled(grid: Matrix, shape: tuple[int, int, int], move: Matrix | None = None) -> Head:
    """Colin27, moved in the world, on another grid; what is finer than its voxels is smoothed away first."""
    head = colin()
    voxel_mm = np.linalg.norm(grid[:3, :3], axis=0)
    to_voxel = np.linalg.inv(head.affine) @ np.linalg.inv(np.eye(4) if move is None else move) @ grid

    def carried(part: NDArray[Any]) -> Image:
        part = part.astype(np.float32)
        if voxel_mm.max() > 1.2:
            part = ndimage.gaussian_filter(part, np.sqrt(np.maximum(voxel_mm**2 - 1, 0) / 12))
        return ndimage.affine_transform(part, to_voxel, output_shape=shape, order=1)

    return Head(carried(head.t1w), grid, carried(head.brain) > 0.5, carried(head.tissue) > 0.5)


def noisy(image: Image, sd: float, rng: np.random.Generator) -> Image:
    """Rician noise."""
    real = image + sd * rng.standard_normal(image.shape)
    return np.hypot(real, sd * rng.standard_normal(image.shape)).astype(np.float32)


def turned(turn_deg: Vector, shift_mm: Vector = (0, 0, 0)) -> Head:
    grid = straight_grid((1, 1, 1), (-127, -143, -117))
    return resampled(grid, (256, 256, 256), motion(turn_deg, shift_mm))


def off_centre(shift_mm: Vector, turn_deg: Vector = (0, 0, 0)) -> Head:
    """A head far from the origin of the world; the field of view follows it for the most part."""
    grid = straight_grid((1, 1, 1), np.array([-127, -143, -117]) + 0.8 * np.array(shift_mm))
    return resampled(grid, (256, 256, 256), motion(turn_deg, shift_mm))


def small() -> Head:
    head = colin()
    return resampled(head.affine, head.t1w.shape, np.diag([0.88, 0.88, 0.88, 1.0]))


def with_neck() -> Head:
    """The lowest slices of the head go on downwards by 130 mm and widen to shoulders; noise in the air."""
    head, slices = colin(), 130
    slab = ndimage.gaussian_filter(head.t1w[:, :, :4].mean(axis=2), 1)
    below = np.empty((*slab.shape, slices), np.float32)
    for depth in range(slices):
        wider = 1 + 0.9 * np.clip((depth - 40) / 40, 0, 1)
        zoom = 1 / np.array([wider, 1 + 0.3 * (wider - 1)])
        middle = np.array(slab.shape) / 2
        below[:, :, slices - 1 - depth] = ndimage.affine_transform(slab, np.diag(zoom), middle * (1 - zoom), order=1)

    def extended(part: NDArray[Any], low: NDArray[Any]) -> NDArray[Any]:
        return np.pad(np.concatenate([low, part], axis=2), ((40, 40), (20, 20), (0, 20)))

    affine = head.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [-40, -20, -slices]
    image = extended(head.t1w, below)
    image += np.abs(seeded().normal(0, 2, image.shape)).astype(np.float32)
    nothing = np.zeros(below.shape, bool)
    return Head(image, affine, extended(head.brain, nothing), extended(head.tissue, nothing))


def cut_off(axis: int, *, low: int = 0, high: int = 0) -> Head:
    """The field of view ends within the brain: so many voxels from its first (``low``) or last voxel (``high``)."""
    head = colin()
    extent = np.flatnonzero(head.brain.any(axis=tuple({0, 1, 2} - {axis})))
    first = extent[0] + low if low else 0
    last = extent[-1] - high if high else head.brain.shape[axis]
    kept = tuple(slice(first, last) if along == axis else slice(None) for along in range(3))
    affine = head.affine.copy()
    affine[:3, 3] += affine[:3, axis] * first
    return Head(head.t1w[kept], affine, head.brain[kept], head.tissue[kept])


def shaded(peak: float) -> Head:
    image = colin().t1w
    return with_image(image * smooth_bias(image.shape, peak, seeded()))


def with_noise(relative_sd: float) -> Head:
    return with_image(noisy(colin().t1w, relative_sd * class_means()[2], seeded()))


def everything() -> Head:
    """Turned, moved, shaded, noisy and in thick slices."""
    rng = seeded()
    grid = straight_grid((1, 1, 1.5), (-127, -143, -127))
    head = resampled(grid, (256, 256, 170), motion((20, -15, 20), (20, -20, 20)))
    image = head.t1w * smooth_bias(head.t1w.shape, 0.4, rng)
    return replace(head, t1w=noisy(image, 0.08 * class_means()[2], rng))


def lateral_ventricles() -> Mask:
    head = colin()
    deep = ndimage.distance_transform_edt(head.brain) > 18
    labels, _ = ndimage.label((ndimage.gaussian_filter(head.t1w, 0.7) < between_fluid_and_grey()) & deep)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def atrophied() -> Head:
    """Brain narrower by 6 % in a skull that stays, ventricles wider by 3 mm; the fluid around it is brain still."""
    head = colin()
    voxels = np.stack(np.meshgrid(*map(np.arange, head.t1w.shape), indexing="ij"), axis=-1).astype(np.float32)
    centre = np.array(ndimage.center_of_mass(head.brain))
    fade = np.exp(-ndimage.distance_transform_edt(~head.brain) / 4.0)[..., None]
    source = centre + (voxels - centre) * (1 + 0.06 * fade)

    ventricles = lateral_ventricles()
    outside, inside = ndimage.distance_transform_edt(~ventricles), ndimage.distance_transform_edt(ventricles)
    away = np.stack(np.gradient(ndimage.gaussian_filter(outside - inside, 3)), axis=-1)
    away /= np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-3)
    source -= 3.0 * ndimage.gaussian_filter(np.exp(-((outside / 12.0) ** 2)), 2)[..., None] * away

    image, shrunk, tissue = (
        ndimage.map_coordinates(part.astype(np.float32), np.moveaxis(source, -1, 0), order=1)
        for part in (head.t1w, head.brain, head.tissue)
    )
    gap = head.brain & (shrunk <= 0.5)
    image[gap] = np.minimum(image[gap], class_means()[0])
    return Head(image, head.affine, head.brain, tissue > 0.5)


def with_lesion(relative: float) -> Head:
    """A ball of 30 mm in the left hemisphere, of an intensity relative to white matter, masked."""
    head = colin()
    lesion = (np.linalg.norm(world_mm() - (-38, -8, 34), axis=-1) < 15) & head.brain
    image = head.t1w.copy()
    image[lesion] = relative * class_means()[2] + 5 * seeded().standard_normal(int(lesion.sum()))
    image = np.maximum(ndimage.gaussian_filter(image, 0.4), 0)
    return Head(image, head.affine, head.brain, head.tissue & ~lesion, lesion)


def defaced() -> Head:
    """All before an oblique plane at the frontal pole is zero, but for the brain and 4 mm around it."""
    head, where = colin(), world_mm()
    face = where[..., 1] > 40 + 0.9 * (where[..., 2] + 35)
    return with_image(np.where(face & ~ndimage.binary_dilation(head.brain, iterations=4), 0, head.t1w))


def thick_slices() -> Head:
    return resampled(straight_grid((1, 1, 3), colin().affine[:3, 3] + [0, 0, 1]), (181, 217, 60))


def oblique() -> Head:
    """Sagittal slices of 1.2 mm, turned about all axes; the head lies straight in the world."""
    shape = (240, 240, 170)
    axes = motion((18, -12, 15))[:3, :3] @ np.array([[0, 0, 1.2], [-1, 0, 0], [0, -1, 0]])
    grid = np.eye(4)
    grid[:3, :3] = axes
    grid[:3, 3] = np.array([0, -20, 10]) - axes @ ((np.array(shape) - 1) / 2)
    return resampled(grid, shape)


def stripped(part: str) -> Head:
    """Nothing but ``brain`` or ``tissue``."""
    return with_image(np.where(getattr(colin(), part), colin().t1w, 0))


def without_background() -> Head:
    head = colin()
    return with_image(np.where(head_mask(head.t1w, head.affine), head.t1w, 0))


CASES = {
    "plain": Case("Colin27", colin),
    "tilt_x40": Case("nose up by 40°", partial(turned, (40, 0, 0))),
    "tilt_x-40": Case("nose down by 40°", partial(turned, (-40, 0, 0))),
    "tilt_y40": Case("to the side by 40°", partial(turned, (0, 40, 0))),
    "tilt_z40": Case("turned by 40°", partial(turned, (0, 0, 40))),
    "tilt_all": Case("turned about all axes", partial(turned, (25, -20, 25), (20, 10, -10))),
    "offset60": Case("60 mm off centre", partial(off_centre, (35, -35, 35))),
    "offset60b": Case("60 mm off, turned", partial(off_centre, (-20, 40, -40), (10, 5, -8))),
    "neck": Case("neck and shoulders", with_neck),
    "cut_top": Case("top 20 mm cut off", partial(cut_off, 2, high=20)),
    "cut_low": Case("bottom 25 mm cut off", partial(cut_off, 2, low=25)),
    "cut_front": Case("front 15 mm cut off", partial(cut_off, 1, high=15)),
    "bias": Case("shading of ±40 %", partial(shaded, 0.4)),
    "noise": Case("noise of 12 %", partial(with_noise, 0.12)),
    "hard": Case("tilt, offset, shading, noise", everything),
    "atrophy": Case("atrophy", atrophied),
    "lesion_dark": Case("dark lesion of 30 mm", partial(with_lesion, 0.15)),
    "lesion_bright": Case("bright lesion of 30 mm", partial(with_lesion, 1.6)),
    "defaced": Case("defaced", defaced),
    "aniso": Case("1 × 1 × 3 mm", thick_slices),
    "oblique": Case("oblique slices", oblique),
    "stripped": Case("brain cut out already", partial(stripped, "brain")),
    "stripped_tight": Case("cut out tightly", partial(stripped, "tissue")),
    "zero_bg": Case("background set to zero", without_background),
    "small": Case("small head", small),
}


class Memory(logging.Handler):
    """Keeps the memory that every program reports when it ends (step, CPU seconds, gigabytes)."""

    def __init__(self) -> None:
        super().__init__()
        self.gb: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple):
            _step, _cpu_s, memory_gb = record.args
            self.gb.append(float(str(memory_gb)))


def score(mask: Mask, head: Head) -> tuple[float, float]:
    """Dice coefficient, and share of the tissue that the mask holds."""
    return float(dice(mask, head.brain)), float(head.tissue[mask].sum() / head.tissue.sum())


def measure(head: Head, work_mm: float) -> Outcome:
    logger, memory = logging.getLogger("sodium_prep.anat.jobs"), Memory()
    logger.setLevel(logging.INFO)
    logger.addHandler(memory)
    template, mask, overlap, share = load_template(), None, float("nan"), float("nan")
    before = os.times()
    try:
        found = extract_brain(head.t1w, head.affine, template, lesion=head.lesion, work_mm=work_mm)
        mask, notes = found.brain_mask, "; ".join(found.notes)
        overlap, share = score(mask, head)
    except InputError as refusal:
        notes = f"refused: {refusal}"
    after = os.times()
    logger.removeHandler(memory)
    own, own_system, programs, programs_system = (end - start for start, end in zip(before[:4], after[:4], strict=True))
    largest = max(memory.gb, default=0.0)
    return Outcome(mask, overlap, share, programs + programs_system, own + own_system, largest, notes)


def planes(head: Head, mask: Mask | None) -> list[Plane]:
    """Axial, coronal and sagittal slices through the brain, along the axes of the image."""
    import nibabel as nib

    def upright(data: NDArray[Any]) -> nib.Nifti1Image:
        return nib.as_closest_canonical(nib.Nifti1Image(data.astype(np.float32), head.affine))

    image, brain = upright(head.t1w), np.asarray(upright(head.brain).dataobj)
    found = np.zeros_like(brain) if mask is None else np.asarray(upright(mask).dataobj)
    grey = np.asarray(image.dataobj)
    grey = np.clip(grey / (1.1 * np.percentile(grey[brain > 0], 99.5)), 0, 1)
    voxel_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    centre = np.argwhere(brain).mean(axis=0)
    out = []
    for axis, across, up in ((2, 0, 1), (1, 0, 2), (0, 1, 2)):
        # The plane between the hemispheres shows fluid and falx rather than brain.
        at = round(centre[axis] + (BESIDE_MIDLINE_MM / voxel_mm[0] if axis == 0 else 0))
        places = tuple((np.arange(brain.shape[a]) - centre[a]) * voxel_mm[a] for a in (across, up))
        out.append(Plane(*(np.take(part, at, axis).T for part in (grey, found, brain)), *places))
    return out


def draw_sheet(path: Path, heads: Sequence[tuple[str, Sequence[Plane]]]) -> None:
    """Write titled heads, each of three planes, to a PNG with a palette."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image as Picture

    each = sum(high - low for low, high in ACROSS_MM) * PIXELS_PER_MM + GAP
    tall = (UP_MM[1] - UP_MM[0]) * PIXELS_PER_MM
    columns = min(COLUMNS, len(heads))
    width, height = columns * each - GAP, -(-len(heads) // columns) * (tall + TITLE)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    for number, (title, slices) in enumerate(heads):
        row, column = divmod(number, columns)
        left, bottom = column * each, height - (row + 1) * (tall + TITLE)
        figure.text(left / width, (bottom + tall + 5) / height, title, fontsize=9)
        for plane, window in zip(slices, ACROSS_MM, strict=True):
            wide = (window[1] - window[0]) * PIXELS_PER_MM
            axes = figure.add_axes(
                (left / width, bottom / height, (wide - 1) / width, tall / height), facecolor="black"
            )
            draw_plane(axes, plane, window)
            left += wide
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Picture.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, Picture.Quantize.MEDIANCUT, dither=Picture.Dither.NONE).save(path, optimize=True)


def draw_plane(axes: Axes, plane: Plane, window: tuple[float, float]) -> None:
    across, up = plane.across_mm, plane.up_mm
    half = (across[1] - across[0]) / 2, (up[1] - up[0]) / 2
    extent = (across[0] - half[0], across[-1] + half[0], up[0] - half[1], up[-1] + half[1])
    axes.imshow(plane.grey, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent, interpolation="antialiased")
    for part, colour in ((plane.brain, "deepskyblue"), (plane.found, "red")):
        if part.any():
            axes.contour(across, up, part, [0.5], colors=colour, linewidths=0.9)
    axes.set(xlim=window, ylim=UP_MM, xticks=[], yticks=[], aspect="auto")
    axes.spines[:].set_visible(False)


def main(names: Sequence[str], sheet: Path | None, work_mm: float) -> None:
    print("| case | Dice | tissue | CPU s (programs + own) | GB | notes |")
    print("| --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    heads = []
    for name in names:
        case = CASES[name]
        head = case.make()
        outcome = measure(head, work_mm)
        print(
            f"| {case.title} (`{name}`) | {outcome.dice:.3f} | {100 * outcome.tissue:.1f} %"
            f" | {outcome.cpu_programs_s:.0f} + {outcome.cpu_own_s:.0f} | {outcome.memory_gb:.2f} | {outcome.notes} |",
            flush=True,
        )
        if sheet:
            said = "refused" if outcome.mask is None else f"Dice {outcome.dice:.3f}"
            heads.append((f"{case.title}: {said}", planes(head, outcome.mask)))
    if sheet:
        draw_sheet(sheet, heads)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description="Brain extraction of hard heads")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all by default: {', '.join(CASES)}")
    parser.add_argument("--sheet", type=Path, metavar="OUT.png", help="picture of every head with its contours")
    parser.add_argument("--work-mm", type=float, default=2.0, help="voxel size of the registrations (default: 2)")
    given = parser.parse_args()
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}")
    return given


if __name__ == "__main__":
    given = arguments()
    main(given.cases or list(CASES), given.sheet, given.work_mm)
