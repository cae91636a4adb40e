"""Brain extraction with a brain-only template, and the head mask.

A template without a skull leads scale astray: an affine registration blows it up to the size of the head. What holds
is a rigid registration masked by the template brain first, then a masked affine one, then a masked deformation that
carries the template's brain mask over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.ants import Stage, apply_transforms, register, register_linear
from sodium_prep.anat.grids import coarsen, dilate, erode, largest_component, winsorise
from sodium_prep.anat.jobs import JobSettings, Volume, job_folder
from sodium_prep.anat.similarity import Similarity
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import Template
from sodium_prep.errors import InputError

_MARGIN_MM = 3.0
_HEAD_MM = 150.0
_CLOSE_MM = 4.0
_RIGID = Stage("Rigid[0.1]", "MI[{images},1,32,Regular,0.25]", (1000, 500, 250), (8, 4, 2), (3, 2, 1))
_AFFINE = Stage("Affine[0.1]", "MI[{images},1,32,Regular,0.25]", (1000, 500, 250), (8, 4, 2), (3, 2, 1))
_DEFORM = Stage("SyN[0.2,3,0]", "MI[{images},1,32]", (60, 40, 15), (4, 2, 1), (2, 1, 0))


@dataclass(frozen=True)
class BrainExtraction:
    """What brain extraction gives.

    Attributes
    ----------
    brain_mask, head_mask : (X, Y, Z) bool
        On the grid of the image.
    t1w_to_template : (4, 4)
        Affine map of points of the image to points of the template, RAS mm.
    """

    brain_mask: NDArray[np.bool_]
    head_mask: NDArray[np.bool_]
    t1w_to_template: NDArray[np.float64]


def extract_brain(
    t1w: NDArray[np.float32],
    affine: NDArray[np.float64],
    template: Template,
    *,
    work_mm: float = 2.0,
    deform: Stage | None = _DEFORM,
    settings: JobSettings | None = None,
) -> BrainExtraction:
    """Find the brain and the head in a proton image.

    Parameters
    ----------
    t1w : (X, Y, Z)
        Whole head, any orientation that the affine tells; intensity in any unit.
    affine : (4, 4)
        Voxel to RAS mm.
    work_mm
        Voxel size of the registrations.
    deform
        The deformable stage; None stops at the affine mask.
    """
    settings = settings or JobSettings()
    head = coarsen(Volume(winsorise(t1w), affine), work_mm)
    fixed = coarsen(Volume(template.t1w, template.affine), work_mm)
    brain = coarsen(Volume(template.brain_mask.astype(np.float32), template.affine), work_mm).data > 0.5
    near = dilate(brain, _MARGIN_MM, fixed.voxel_mm)
    score = Similarity(fixed, near, head)
    tries = [
        register_linear(
            "rigid registration of the head", fixed, head, [_RIGID], initial=start, fixed_mask=near, settings=settings
        )
        for start in _starts(head, fixed, brain)
    ]
    rigid = max(tries, key=score)
    to_template = register_linear(
        "affine registration of the head", fixed, head, [_AFFINE], initial=rigid, fixed_mask=near, settings=settings
    )
    source = template.brain_mask.astype(np.float32)
    with job_folder() as folder:
        back: Path | NDArray[np.float64] = np.asarray(np.linalg.inv(to_template))
        if deform is not None:
            register(
                "deformation for the brain mask", fixed, head, [deform], folder, initial=to_template,
                fixed_mask=dilate(brain, 2 * _MARGIN_MM, fixed.voxel_mm), composite=True, settings=settings,
            )  # fmt: skip
            back = folder / "outInverseComposite.h5"
        carried = apply_transforms(source, template.affine, t1w.shape, affine, [back], settings=settings)
    mask = ndimage.binary_fill_holes(largest_component(carried > 0.5))
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    volume_ml = float(mask.sum()) * voxel_ml
    if not 600.0 < volume_ml < 2500.0:
        raise InputError(
            "brain extraction", f"the brain found has {volume_ml:.0f} ml", "Check that the image shows a whole head"
        )
    return BrainExtraction(mask, head_mask(t1w, affine, mask), to_template)


def _starts(head: Volume, template: Volume, brain: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Translations to start from: brain laid on the upper part of the head, on all of it, and as the headers have it.

    How much of neck and shoulders an image shows moves the centre of all of it, but not that of the upper 150 mm.
    """
    goal = apply_affine(template.affine, np.argwhere(brain)).mean(axis=0)
    points = apply_affine(head.affine, np.argwhere(head_mask(head.data, head.affine)))
    upper = points[points[:, 2] > np.percentile(points[:, 2], 99.9) - _HEAD_MM]
    starts = [np.eye(4) for _ in range(3)]
    for start, centre in zip(starts, (upper.mean(axis=0), points.mean(axis=0)), strict=False):
        start[:3, 3] = goal - centre
    return starts


def head_mask(
    image: NDArray[np.float32], affine: NDArray[np.float64], brain_mask: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
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
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float32), 1.0 / voxel_mm)
    # Half way up from the level of air, which a magnitude image of low signal-to-noise ratio does not have near zero.
    split = _otsu(smooth)
    air = float(np.median(smooth[smooth < split])) if np.any(smooth < split) else 0.0
    above = smooth > 0.5 * (air + split)
    if brain_mask is not None:
        above |= brain_mask
    # Closing joins the scalp to the brain over the dark skull; it needs room at the borders of the image. Vials, which
    # stand farther off than that, are parts of their own.
    pad = np.ceil(_CLOSE_MM / voxel_mm).astype(int) + 1
    wide = dilate(np.pad(above, [(n, n) for n in pad]), _CLOSE_MM, voxel_mm)
    closed = erode(wide, _CLOSE_MM, voxel_mm)[tuple(slice(n, -n) for n in pad)]
    head = largest_component(closed)
    for axis in range(3):
        head = _fill_slices(head, axis)
    return head


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
