"""Brain extraction with a brain-only template, and the head mask.

A template without a skull leads scale astray: an affine registration blows it up to the size of the head. What holds
is a rigid registration masked by the template brain first, then a masked affine one, then a masked deformation that
carries the template's brain mask over. The result is judged; if it does not look like a brain, turned starts are
tried, then the affine mask alone, and then the image is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.ants import Stage, apply_transforms, register, register_linear
from sodium_prep.anat.bias_n4 import registration_bias
from sodium_prep.anat.conform import mask_to_template
from sodium_prep.anat.grids import coarsen, dilate, erode, largest_component, winsorise
from sodium_prep.anat.jobs import JobSettings, Volume, job_folder
from sodium_prep.anat.similarity import Similarity
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import Template
from sodium_prep.errors import InputError

_LOGGER = logging.getLogger(__name__)

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MARGIN_MM = 3.0
_HEAD_MM = 150.0
_CLOSE_MM = 4.0
_HEAD_GRID_MM = 2.0
_RIGID = Stage("Rigid[0.1]", "MI[{images},1,32,Regular,0.25]", (1000, 500, 250), (8, 4, 2), (3, 2, 1))
_AFFINE = Stage("Affine[0.1]", "MI[{images},1,32,Regular,0.25]", (1000, 500, 250), (8, 4, 2), (3, 2, 1))
_DEFORM = Stage("SyN[0.2,3,0]", "MI[{images},1,32]", (60, 40, 15), (4, 2, 1), (2, 1, 0))
_DEFORM_COARSER = 1.5
"""The border of a brain is smooth: voxels half as large again take a third of the time at the same overlap."""

_TURNS_DEG = ((0, -20, 20, -40, 40), (0, -20, 20), (0, -30, 30))
_APART_DEG, _APART_MM = 15.0, 8.0

_VOLUME_ML = (700.0, 2300.0)
_SCALE = (0.75, 1.33)
_LEAST_COVERAGE, _WHOLE_COVERAGE = 0.5, 0.98
_LEAST_NMI = 1.05
_LEAST_EDGE, _MOST_EDGE = 1.1, 10.0
"""A brain is brighter than the skull around it, but skull and scalp are brighter than air."""
_STRIPPED_ZEROS = 0.4
_STRIPPED_DICE = 0.85


@dataclass(frozen=True)
class BrainExtraction:
    """What brain extraction gives.

    Attributes
    ----------
    brain_mask, head_mask : (X, Y, Z) bool
        On the grid of the image.
    t1w_to_template : (4, 4)
        Affine map of points of the image to points of the template, RAS mm.
    similarity
        Normalised mutual information (1 to 2) of the template and the registered image in and near the brain.
    notes
        What was out of the ordinary, for the report.
    """

    brain_mask: Mask
    head_mask: Mask
    t1w_to_template: Matrix
    similarity: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """Template and head at working resolution.

    ``healthy`` are the voxels of the head that count, ``score`` is the similarity under an affine map.
    """

    fixed: Volume
    brain: Mask
    head: Volume
    outline: Mask
    healthy: Mask | None
    score: Similarity
    settings: JobSettings

    def near(self, margin_mm: float) -> Mask:
        return dilate(self.brain, margin_mm, self.fixed.voxel_mm)

    def coverage(self, to_template: Matrix) -> float:
        """Share of the template's brain that lies within the field of view of the head."""
        points = apply_affine(self.fixed.affine, np.argwhere(self.brain))
        voxels = apply_affine(np.linalg.inv(to_template @ self.head.affine), points)
        return float(np.mean(np.all((voxels > -0.5) & (voxels < np.array(self.head.data.shape) - 0.5), axis=1)))


@dataclass(frozen=True)
class _Attempt:
    mask: Mask
    to_template: Matrix
    similarity: float
    coverage: float
    doubts: tuple[str, ...]


def extract_brain(
    t1w: NDArray[np.float32],
    affine: Matrix,
    template: Template,
    *,
    lesion: Mask | None = None,
    work_mm: float = 2.0,
    settings: JobSettings | None = None,
) -> BrainExtraction:
    """Find the brain and the head in a proton image.

    Parameters
    ----------
    t1w : (X, Y, Z)
        A head, or a brain that has been cut out already; any orientation that the affine tells, intensity in any unit.
    affine : (4, 4)
        Voxel to RAS mm.
    template
        Brain-only image and brain mask.
    lesion : (X, Y, Z) bool
        Voxels that do not count in the registrations; they stay part of the brain.
    work_mm
        Voxel size of the registrations.

    Raises
    ------
    InputError
        If nothing that was tried looks like a brain.
    """
    settings = settings or JobSettings()
    if lesion is not None and lesion.shape != t1w.shape:
        raise ValueError("the lesion mask does not lie on the grid of the image")
    pair = _make_pair(Volume(t1w, affine), template, lesion, work_mm, settings)
    stripped = stripped_brain(t1w, affine)
    taken = None if stripped is None else _take_stripped(pair, stripped, affine, template)
    if taken is not None:
        return taken
    found, notes = _first_sound(pair, template, Volume(t1w, affine), work_mm * _DEFORM_COARSER)
    if found.coverage < _WHOLE_COVERAGE:
        notes += (f"the image shows {100 * found.coverage:.0f} % of the brain only",)
    head = head_mask(t1w, affine, found.mask)
    return BrainExtraction(found.mask, head, found.to_template, found.similarity, notes)


def _make_pair(image: Volume, template: Template, lesion: Mask | None, work_mm: float, settings: JobSettings) -> _Pair:
    head = coarsen(Volume(winsorise(image.data), image.affine), work_mm)
    if not head.data.std() > 0:
        raise InputError("brain extraction", "the image is empty", "Give an image of a head")
    outline = head_mask(head.data, head.affine)
    bias = registration_bias(head.data, head.affine, outline, rough=True, settings=settings)
    # Far from the head the field is extrapolated, and would lift the noise of air.
    flat = Volume((head.data / np.clip(bias, 0.25, 4.0)).astype(np.float32), head.affine)
    fixed = coarsen(Volume(template.t1w, template.affine), work_mm)
    brain = _coarse_mask(template.brain_mask, template.affine, work_mm)
    healthy = None if lesion is None else ~_coarse_mask(lesion, image.affine, work_mm)
    score = Similarity(fixed, dilate(brain, _MARGIN_MM, fixed.voxel_mm), flat)
    return _Pair(fixed, brain, flat, outline, healthy, score, settings)


def _first_sound(pair: _Pair, template: Template, image: Volume, deform_mm: float) -> tuple[_Attempt, tuple[str, ...]]:
    """Try one setting after the other until the result looks like a brain."""
    notes: list[str] = []
    best = np.eye(4)
    for name, starts, deform in (
        ("the usual starts", _usual_starts, True),
        ("turned starts", _turned_starts, True),
        ("the affine registration alone", None, False),
    ):
        if starts is not None:
            best = _register(pair, starts(pair))
        found = _carry(pair, template, best, image, deform_mm if deform else None)
        if not found.doubts:
            return found, (*notes, f"the brain was found with {name}") if notes else ()
        notes.append(f"brain extraction with {name} was dropped: {', '.join(found.doubts)}")
    raise InputError(
        "brain extraction",
        f"nothing in the image looks like a brain ({'; '.join(notes)})",
        "Check that the image shows a whole head and that its header is right, or give a mask by --derivatives",
    )


def _register(pair: _Pair, starts: Sequence[Matrix]) -> Matrix:
    """Rigid registration from every start, then an affine one from the best of them."""

    def run(stage: Stage, start: Matrix) -> Matrix:
        kind = stage.transform.partition("[")[0].lower()
        return register_linear(
            f"{kind} registration of the head", pair.fixed, pair.head, [stage], initial=start,
            fixed_mask=pair.near(_MARGIN_MM), moving_mask=pair.healthy, settings=pair.settings,
        )  # fmt: skip

    return run(_AFFINE, max((run(_RIGID, start) for start in starts), key=pair.score))


def _carry(pair: _Pair, template: Template, to_template: Matrix, image: Volume, deform_mm: float | None) -> _Attempt:
    """Carry the template's brain mask to the image, deformed at a voxel size or not, and judge it."""
    with job_folder() as folder:
        there: Path | Matrix = to_template
        back: Path | Matrix = np.asarray(np.linalg.inv(to_template))
        if deform_mm is not None:
            fixed, head = coarsen(pair.fixed, deform_mm), coarsen(pair.head, deform_mm)
            near = _coarse_mask(pair.near(2 * _MARGIN_MM), pair.fixed.affine, deform_mm)
            healthy = None if pair.healthy is None else _coarse_mask(pair.healthy, pair.head.affine, deform_mm)
            register(
                "deformation for the brain mask", fixed, head, [_DEFORM], folder, initial=to_template,
                fixed_mask=near, moving_mask=healthy, composite=True, settings=pair.settings,
            )  # fmt: skip
            there, back = folder / "outComposite.h5", folder / "outInverseComposite.h5"
        source = template.brain_mask.astype(np.float32)
        carried = apply_transforms(
            source, template.affine, image.data.shape, image.affine, [back], settings=pair.settings
        )
        laid = apply_transforms(
            pair.head.data, pair.head.affine, pair.fixed.data.shape, pair.fixed.affine, [there], settings=pair.settings
        )
    nmi = Similarity(pair.fixed, pair.near(_MARGIN_MM), Volume(laid, pair.fixed.affine))(np.eye(4))
    mask = np.asarray(ndimage.binary_fill_holes(largest_component(carried > 0.5)))
    coverage = pair.coverage(to_template)
    doubts = _doubts(pair, to_template, mask, image.affine, coverage, nmi)
    return _Attempt(mask, to_template, nmi, coverage, doubts)


def _doubts(
    pair: _Pair, to_template: Matrix, mask: Mask, affine: Matrix, coverage: float, nmi: float
) -> tuple[str, ...]:
    """What speaks against a brain mask; nothing if it looks like a brain."""
    scale = np.linalg.svd(to_template[:3, :3], compute_uv=False)
    volume_ml = _volume_ml(mask, affine) / max(coverage, _LEAST_COVERAGE)
    edge = _edge_contrast(pair.head, mask, affine)
    _LOGGER.info(
        "brain: NMI %.3f, edge contrast %.2f, scale %.2f to %.2f, %.0f ml, coverage %.2f",
        nmi, edge, scale[-1], scale[0], volume_ml, coverage,
    )  # fmt: skip
    judged = (
        (scale[-1] < _SCALE[0] or scale[0] > _SCALE[1], f"the affine scales by {scale[-1]:.2f} to {scale[0]:.2f}"),
        (coverage < _LEAST_COVERAGE, f"only {100 * coverage:.0f} % of the brain would lie within the image"),
        (not _VOLUME_ML[0] < volume_ml < _VOLUME_ML[1], f"the brain has {volume_ml:.0f} ml"),
        (nmi < _LEAST_NMI, f"the mutual information with the template is {nmi:.3f}, below {_LEAST_NMI:g}"),
        (edge > _MOST_EDGE, f"it is {edge:.0f} times as bright as what surrounds it: air, not a skull and scalp"),
        (edge < _LEAST_EDGE, f"the brain is only {edge:.2f} times as bright as what surrounds it"),
    )
    return tuple(text for bad, text in judged if bad)


def _edge_contrast(head: Volume, mask: Mask, affine: Matrix) -> float:
    """Median intensity just within a brain mask, by that of the skull and fluid just outside."""
    to_mask = np.linalg.inv(affine) @ head.affine
    inside = ndimage.affine_transform(
        mask.astype(np.float32), to_mask[:3, :3], to_mask[:3, 3], head.data.shape, order=1
    )
    brain = inside > 0.5
    if not brain.any():
        return 0.0
    within = brain & ~erode(brain, 6.0, head.voxel_mm)
    around = dilate(brain, 7.0, head.voxel_mm) & ~dilate(brain, 2.0, head.voxel_mm)
    outer = float(np.median(head.data[around])) if around.any() else 0.0
    return float(np.median(head.data[within])) / max(outer, 1e-6)


def _usual_starts(pair: _Pair) -> list[Matrix]:
    """Brain laid on the upper part of the head, on all of it, as the headers have it, and turned if that fits better.

    How much of neck and shoulders an image shows moves the centre of all of it, but not that of the upper 150 mm.
    """
    straight = _apart([*_laid(pair), np.eye(4)])
    turned = max(_turns(pair), key=pair.score)
    return [*straight, turned] if pair.score(turned) > max(map(pair.score, straight)) else straight


def _turned_starts(pair: _Pair) -> list[Matrix]:
    """The turns that fit best, far enough from each other."""
    return _apart(sorted(_turns(pair), key=pair.score, reverse=True))[:5]


def _laid(pair: _Pair) -> list[Matrix]:
    goal = apply_affine(pair.fixed.affine, np.argwhere(pair.brain)).mean(axis=0)
    points = apply_affine(pair.head.affine, np.argwhere(pair.outline))
    upper = points[points[:, 2] > np.percentile(points[:, 2], 99.9) - _HEAD_MM]
    starts = [np.eye(4), np.eye(4)]
    for start, centre in zip(starts, (upper.mean(axis=0), points.mean(axis=0)), strict=True):
        start[:3, 3] = goal - centre
    return starts


def _turns(pair: _Pair) -> list[Matrix]:
    goal = apply_affine(pair.fixed.affine, np.argwhere(pair.brain)).mean(axis=0)
    out = []
    laid = _laid(pair)[0]
    for angles in product(*_TURNS_DEG):
        start = np.eye(4)
        start[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        start[:3, 3] = goal - start[:3, :3] @ (goal - laid[:3, 3])
        out.append(start)
    return out


def _apart(starts: Sequence[Matrix]) -> list[Matrix]:
    """Drop starts that an earlier one is near to."""
    kept: list[Matrix] = []
    for start in starts:
        steps = [start @ np.linalg.inv(other) for other in kept]
        angles = [np.rad2deg(np.arccos(np.clip((np.trace(step[:3, :3]) - 1) / 2, -1, 1))) for step in steps]
        shifts = [np.linalg.norm(step[:3, 3]) for step in steps]
        if all(a > _APART_DEG or s > _APART_MM for a, s in zip(angles, shifts, strict=True)):
            kept.append(start)
    return kept


def stripped_brain(t1w: NDArray[np.float32], affine: Matrix) -> Mask | None:
    """Outline of an image that is exactly 0 outside one compact object of a brain's volume; None for other images.

    Parameters
    ----------
    t1w : (X, Y, Z)
        Intensity.
    affine : (4, 4)
        Voxel to RAS mm.
    """
    shown = t1w != 0
    if 1.0 - shown.mean() < _STRIPPED_ZEROS:
        return None
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    mask = np.asarray(ndimage.binary_fill_holes(_close(largest_component(shown), voxel_mm)))
    return mask if _VOLUME_ML[0] < _volume_ml(mask, affine) < _VOLUME_ML[1] else None


def _take_stripped(pair: _Pair, mask: Mask, affine: Matrix, template: Template) -> BrainExtraction | None:
    """Register a brain that has been cut out already; None if its outline is not that of the template's brain."""
    to_template = _register(pair, [mask_to_template(mask, affine, template)])
    points = apply_affine(np.linalg.inv(to_template @ affine), apply_affine(pair.fixed.affine, np.argwhere(pair.brain)))
    hit = ndimage.map_coordinates(mask.astype(np.uint8), points.T, order=0).sum() * np.prod(pair.fixed.voxel_mm)
    whole = _volume_ml(mask, affine) * 1000.0 * abs(np.linalg.det(to_template[:3, :3]))
    dice = 2.0 * hit / (whole + len(points) * np.prod(pair.fixed.voxel_mm))
    if dice < _STRIPPED_DICE:
        return None
    note = (
        f"the image is zero outside {_volume_ml(mask, affine):.0f} ml that overlap with the template's brain by "
        f"{dice:.2f} (Dice): the brain had been cut out already, and its outline is taken as the mask"
    )
    return BrainExtraction(mask, mask.copy(), to_template, pair.score(to_template), (note,))


def _coarse_mask(mask: Mask, affine: Matrix, spacing_mm: float) -> Mask:
    return np.asarray(coarsen(Volume(mask.astype(np.float32), affine), spacing_mm).data > 0.5)


def _volume_ml(mask: Mask, affine: Matrix) -> float:
    return float(mask.sum()) * abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0


def head_mask(image: NDArray[np.float32], affine: Matrix, brain_mask: Mask | None = None) -> Mask:
    """Everything within the skin: threshold above the background, largest component, holes filled.

    Parameters
    ----------
    image : (X, Y, Z)
        Magnitude image, any contrast that shows the scalp.
    affine : (4, 4)
        Voxel to RAS mm.
    brain_mask
        If given, belongs to the head whatever its intensity.
    """
    volume = Volume(np.asarray(image, np.float32), affine)
    coarse = coarsen(volume, _HEAD_GRID_MM)
    if coarse.data.shape == volume.data.shape:
        return _outline(coarse, brain_mask)
    brain = None if brain_mask is None else _coarse_mask(brain_mask, affine, _HEAD_GRID_MM)
    to_coarse = np.linalg.inv(coarse.affine) @ affine
    outline = _outline(coarse, brain).astype(np.float32)
    fine = ndimage.affine_transform(
        outline, to_coarse[:3, :3], to_coarse[:3, 3], volume.data.shape, order=1, mode="nearest"
    )
    head = np.asarray(fine > 0.5)
    return head if brain_mask is None else head | brain_mask


def _outline(volume: Volume, brain: Mask | None) -> Mask:
    smooth = ndimage.gaussian_filter(volume.data, 1.0 / volume.voxel_mm)
    # Half way up from the level of air, which a magnitude image of low signal-to-noise ratio does not have near zero.
    split = _otsu(smooth)
    air = float(np.median(smooth[smooth < split])) if np.any(smooth < split) else 0.0
    above = smooth > 0.5 * (air + split)
    if brain is not None:
        above |= brain
    # Closing joins the scalp to the brain over the dark skull; it needs room at the borders of the image. Vials, which
    # stand farther off than that, are parts of their own.
    head = largest_component(_close(above, volume.voxel_mm))
    for axis in range(3):
        head = _fill_slices(head, axis)
    return head


def _close(mask: Mask, voxel_mm: NDArray[np.float64]) -> Mask:
    pad = np.ceil(_CLOSE_MM / voxel_mm).astype(int) + 1
    wide = dilate(np.pad(mask, [(n, n) for n in pad]), _CLOSE_MM, voxel_mm)
    return erode(wide, _CLOSE_MM, voxel_mm)[tuple(slice(n, -n) for n in pad)]


def _fill_slices(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    structure = np.zeros((3, 3, 3), bool)
    index: list[slice | int] = [slice(None)] * 3
    index[axis] = 1
    structure[tuple(index)] = ndimage.generate_binary_structure(2, 1)
    return np.asarray(ndimage.binary_fill_holes(mask, structure))


def _otsu(values: NDArray[np.float32]) -> float:
    """Threshold that splits a histogram into two classes with least variance (Otsu, IEEE Trans SMC 1979)."""
    counts, edges = np.histogram(values, 256, range=(float(values.min()), float(np.percentile(values, 99.5))))
    centres = (edges[:-1] + edges[1:]) / 2.0
    below = np.cumsum(counts)
    above = below[-1] - below
    first = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (first / below - (first[-1] - first) / above) ** 2
    return float(centres[np.nanargmax(between)])
