"""Whether an image is the mirror image of the head that it shows, as after a left-right swapped header.

Two hypotheses are treated alike: the image as its header has it, and the same image mirrored. Each is registered, and
the statistic is a difference between the two, so that swapping the header changes its sign and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.ants import Stage, register_linear
from sodium_prep.anat.bias_n4 import registration_bias
from sodium_prep.anat.grids import coarsen, crop, dilate, erode
from sodium_prep.anat.jobs import JobSettings, Volume
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import Template

Matrix = NDArray[np.float64]

_GRID_MM = 2.0
_MARGIN_MM = 8.0
_SMOOTH_MM = 4.0
_AFFINE = Stage("Affine[0.1]", "MI[{images},1,32,Regular,0.25]", (100, 50), (4, 2), (2, 1))
_SURE, _LEAST = 0.25, 0.3
"""Margin between the two hypotheses, and correlation of the better one, that a verdict needs. Measured: 0.39 on one
real T1w (Colin27), 0.76 on a head made by deforming the template, but -0.16, the wrong sign if its header is right, on
a proton-density-like image at 7 T. How the margin varies between people is not known."""
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Handedness:
    """Verdict on left and right.

    Attributes
    ----------
    mirrored
        True: left and right are swapped. None: the images do not tell.
    score
        Above 0 speaks for the header, below 0 for a swap, -2 to 2.
    evidence
        One sentence with the figures.
    """

    mirrored: bool | None
    score: float
    evidence: str


def check_handedness(
    t1w: NDArray[np.float32],
    affine: Matrix,
    brain_mask: NDArray[np.bool_],
    template: Template,
    *,
    t1w_to_template: Matrix,
    settings: JobSettings | None = None,
) -> Handedness:
    """Compare the left-right asymmetry of a brain with that of the template.

    Parameters
    ----------
    t1w : (X, Y, Z)
        T1-weighted intensity.
    affine : (4, 4)
        Voxel to RAS mm.
    brain_mask : (X, Y, Z) bool
        The brain.
    template
        An asymmetric template, an average of unmirrored brains.
    t1w_to_template : (4, 4)
        Affine point map from brain extraction, RAS mm.
    """
    settings = settings or JobSettings()
    fixed = coarsen(Volume(template.t1w, template.affine), _GRID_MM)
    inside = coarsen(Volume(template.brain_mask.astype(np.float32), template.affine), _GRID_MM).data > 0.5
    near = dilate(inside, _MARGIN_MM / 2, fixed.voxel_mm)
    brain = _corrected_brain(t1w, affine, brain_mask, settings)
    scores = []
    for volume, start in ((brain, t1w_to_template), (_reflected(brain), _MIRROR @ t1w_to_template @ _MIRROR)):
        found = register_linear(
            "check of left and right", fixed, volume, [_AFFINE], initial=start, fixed_mask=near, settings=settings
        )
        scores.append(_asymmetry_match(fixed, inside, volume, found))
    score = scores[0] - scores[1]
    evidence = (
        f"the asymmetry of the brain correlates {scores[0]:+.2f} with that of the template as the header has it, "
        f"{scores[1]:+.2f} with left and right swapped"
    )
    mirrored = score < 0.0 if abs(score) > _SURE and max(scores) > _LEAST else None
    return Handedness(mirrored, score, evidence)


def _corrected_brain(
    t1w: NDArray[np.float32], affine: Matrix, mask: NDArray[np.bool_], settings: JobSettings
) -> Volume:
    cut, box = crop(Volume(t1w, affine), mask, _MARGIN_MM)
    bias = registration_bias(cut.data, cut.affine, mask[box], settings=settings)
    top = float(np.percentile(t1w[mask], 99.5))
    return coarsen(
        Volume(np.where(mask[box], np.minimum(cut.data, top) / bias, 0.0).astype(np.float32), cut.affine), _GRID_MM
    )


def _reflected(volume: Volume) -> Volume:
    """Mirror the head in the plane x = 0 of the world; the grid keeps its handedness."""
    turn = np.eye(4)
    turn[0, 0], turn[0, 3] = -1.0, volume.data.shape[0] - 1.0
    return Volume(np.ascontiguousarray(volume.data[::-1]), _MIRROR @ volume.affine @ turn)


def _asymmetry_match(fixed: Volume, inside: NDArray[np.bool_], brain: Volume, to_template: Matrix) -> float:
    """Correlation of the antisymmetric parts of template and registered brain, over one half of the brain."""
    core = erode(inside, _SMOOTH_MM, fixed.voxel_mm)
    points = apply_affine(fixed.affine, np.argwhere(core))
    points = points[points[:, 0] > _SMOOTH_MM]
    smooth_fixed, smooth_brain = (
        Volume(ndimage.gaussian_filter(v.data, _SMOOTH_MM / v.voxel_mm), v.affine) for v in (fixed, brain)
    )
    across = apply_affine(_MIRROR, points)
    parts = [
        _sample(volume, matrix, points) - _sample(volume, matrix, across)
        for volume, matrix in ((smooth_fixed, np.eye(4)), (smooth_brain, to_template))
    ]
    return _correlation(*parts)


def _sample(volume: Volume, to_points: Matrix, points: NDArray[np.float64]) -> NDArray[np.float32]:
    voxels = apply_affine(np.linalg.inv(to_points @ volume.affine), points)
    return np.asarray(ndimage.map_coordinates(volume.data, voxels.T, order=1, mode="constant", output=np.float32))


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
