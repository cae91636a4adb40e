"""Axis order and first guesses of position, without resampling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.atlas.bundled import Template


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
