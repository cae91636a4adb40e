"""Axis order, resolution and first guesses of position, without resampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.atlas.bundled import Template
from sodium_prep.errors import InputError

_THICKEST_MM, _THICK_MM = 5.0, 2.5
_FEWEST_VOXELS = 20
_SMALLEST_MM, _SMALL_MM = 80.0, 130.0


def to_ras(data: NDArray[np.float32], affine: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Permute and flip the axes so that they run closest to right, anterior, superior; no value changes.

    Parameters
    ----------
    data : (X, Y, Z)
    affine : (4, 4)
        Voxel to RAS mm.
    """
    import nibabel as nib

    image = nib.as_closest_canonical(nib.Nifti1Image(data, affine))  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(image.get_fdata(dtype=np.float32)), np.asarray(image.affine, dtype=np.float64)


def coverage_notes(where: str | Path, shape: Sequence[int], affine: NDArray[np.float64]) -> tuple[str, ...]:
    """What the grid of an anatomical image is too coarse or too small for.

    Slices of 3 mm are worked on as they are. Beyond 5 mm a slice holds more than one gyrus, and neither the outline of
    cortex nor the registration to a template means anything. A large field of view needs no cutting: the registrations
    see only what is near the brain.

    Parameters
    ----------
    where
        Name of the image, for messages.
    shape
        (X, Y, Z).
    affine : (4, 4)
        Voxel to RAS mm.

    Returns
    -------
    tuple of str
        Cautions for the report; none for an ordinary image.

    Raises
    ------
    InputError
        If a voxel is longer than 5 mm, an axis has fewer than 20 voxels or is shorter than 80 mm.
    """
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    extent_mm = voxel_mm * np.asarray(shape)
    size = " x ".join(f"{side:.3g}" for side in voxel_mm)
    mend = "Give an anatomical image that shows the whole brain in voxels of at most 5 mm"
    if voxel_mm.max() > _THICKEST_MM:
        raise InputError(where, f"its voxels measure {size} mm", mend)
    if min(shape) < _FEWEST_VOXELS or extent_mm.min() < _SMALLEST_MM:
        raise InputError(where, f"it has {min(shape)} slices over {extent_mm.min():.0f} mm along one axis", mend)
    notes = []
    if voxel_mm.max() > _THICK_MM:
        notes.append(f"voxels of {size} mm: tissue fractions of thin cortex are uncertain")
    if extent_mm.min() < _SMALL_MM:
        notes.append(f"the field of view is only {extent_mm.min():.0f} mm along one axis")
    return tuple(notes)


def mask_to_template(
    brain_mask: NDArray[np.bool_], affine: NDArray[np.float64], template: Template
) -> NDArray[np.float64]:
    """First guess of the affine from a subject's brain mask alone: centres and volumes are made equal.

    Returns
    -------
    (4, 4)
        Map of points of the subject to points of the template, RAS mm.
    """
    centres, volumes = [], []
    for mask, matrix in ((brain_mask, affine), (template.brain_mask, template.affine)):
        centres.append(np.asarray(ndimage.center_of_mass(mask)) @ matrix[:3, :3].T + matrix[:3, 3])
        volumes.append(mask.sum() * abs(np.linalg.det(matrix[:3, :3])))
    out = np.eye(4)
    out[:3, :3] *= (volumes[1] / volumes[0]) ** (1.0 / 3.0)
    out[:3, 3] = centres[1] - out[:3, :3] @ centres[0]
    return out
