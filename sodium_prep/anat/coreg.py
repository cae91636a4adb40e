"""Rigid registration of sodium images: to the T1w of the session, and of runs to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sodium_prep.anat.ants import Stage, register_linear
from sodium_prep.anat.brain import head_mask
from sodium_prep.anat.grids import coarsen, crop, dilate, winsorise
from sodium_prep.anat.jobs import JobSettings, Volume
from sodium_prep.anat.similarity import Similarity
from sodium_prep.anat.transforms import apply_affine

Matrix = NDArray[np.float64]

_FIXED_MM = 2.0
_MARGIN_MM = 12.0
_RIGID = Stage("Rigid[0.1]", "MI[{images},1,32,Regular,0.25]", (500, 250, 100), (4, 2, 1), (2, 1, 0))
_RUNS = Stage("Rigid[0.1]", "GC[{images},1,1,Regular,0.5]", (200, 100, 50), (4, 2, 1), (2, 1, 0))
_USUAL_MM, _USUAL_DEG = 15.0, 12.0
_TURNS_DEG = 20.0


@dataclass(frozen=True)
class Coregistration:
    """Result of a rigid registration.

    Attributes
    ----------
    sodium_to_t1w : (4, 4)
        Map of points of the sodium image to points of the T1w, RAS mm.
    nmi, nmi_header
        Normalised mutual information in and around the brain (1 to 2), after registration and with the headers alone.
    shift_mm, turn_deg
        How far the centre of the brain moved against the headers, and the angle.
    n_starts
        Number of starting points that were tried; more than one where the first result looked doubtful.
    """

    sodium_to_t1w: Matrix
    nmi: float
    nmi_header: float
    shift_mm: float
    turn_deg: float
    n_starts: int


def register_sodium(
    sodium: NDArray[np.float32],
    sodium_affine: Matrix,
    t1w: NDArray[np.float32],
    t1w_affine: Matrix,
    brain_mask: NDArray[np.bool_],
    *,
    same_session: bool = True,
    settings: JobSettings | None = None,
) -> Coregistration:
    """Register a sodium image rigidly to the T1w by mutual information.

    The fixed image is the T1w brain, and only the brain and what is near to it counts: vials and scalp, which need not
    keep their place or which the T1w brain does not show, pull on nothing.

    Parameters
    ----------
    sodium, t1w : (X, Y, Z)
        Magnitude images.
    sodium_affine, t1w_affine : (4, 4)
        Voxel to RAS mm.
    brain_mask : (X, Y, Z) bool
        On the grid of the T1w.
    same_session
        Start from the headers; otherwise several starts are tried at once.
    """
    settings = settings or JobSettings()
    cut, box = crop(Volume(np.where(brain_mask, t1w, 0.0).astype(np.float32), t1w_affine), brain_mask, _MARGIN_MM)
    fixed = coarsen(cut, _FIXED_MM)
    inside = coarsen(Volume(brain_mask[box].astype(np.float32), cut.affine), _FIXED_MM).data > 0.5
    near = dilate(inside, _MARGIN_MM - 4.0, fixed.voxel_mm)
    moving = Volume(winsorise(sodium), np.asarray(sodium_affine, np.float64))
    score = Similarity(fixed, near, moving)
    centre = apply_affine(fixed.affine, np.argwhere(inside).mean(axis=0))

    def refine(start: Matrix) -> tuple[float, Matrix]:
        result = register_linear(
            "registration of sodium to T1w", fixed, moving, [_RIGID], initial=start, fixed_mask=near, settings=settings
        )
        return score(result), result

    header = np.eye(4)
    nmi_header = score(header)
    best = refine(header)
    n_starts = 1
    shift_mm, turn_deg = _motion(best[1], centre)
    if not same_session or best[0] <= nmi_header or shift_mm > _USUAL_MM or turn_deg > _USUAL_DEG:
        starts = sorted(_starts(moving, centre), key=score, reverse=True)[:3]
        best = max([best, *(refine(start) for start in starts)], key=lambda pair: pair[0])
        n_starts += len(starts)
        shift_mm, turn_deg = _motion(best[1], centre)
    return Coregistration(best[1], best[0], nmi_header, shift_mm, turn_deg, n_starts)


def register_runs(
    images: Sequence[NDArray[np.float32]],
    affines: Sequence[Matrix],
    *,
    settings: JobSettings | None = None,
) -> list[Matrix]:
    """Register runs of the same contrast rigidly to the first one.

    Parameters
    ----------
    images
        Each (X, Y, Z).
    affines
        Each (4, 4), voxel to RAS mm.

    Returns
    -------
    list of (4, 4)
        Map of points of each run to points of the first, RAS mm; the identity for the first.
    """
    fixed = Volume(winsorise(images[0]), np.asarray(affines[0], np.float64))
    mask = head_mask(fixed.data, fixed.affine)
    out = [np.eye(4)]
    for image, affine in zip(images[1:], affines[1:], strict=True):
        moving = Volume(winsorise(image), np.asarray(affine, np.float64))
        out.append(
            register_linear(
                "registration of sodium runs",
                fixed,
                moving,
                [_RUNS],
                initial=np.eye(4),
                fixed_mask=mask,
                settings=settings or JobSettings(),
            )
        )
    return out


def _motion(matrix: Matrix, centre_mm: Matrix) -> tuple[float, float]:
    """Displacement of a point in mm, and angle in degrees, of a rigid map."""
    shift = float(np.linalg.norm(apply_affine(matrix, centre_mm) - centre_mm))
    cosine = np.clip((np.trace(matrix[:3, :3]) - 1.0) / 2.0, -1.0, 1.0)
    return shift, float(np.rad2deg(np.arccos(cosine)))


def _starts(moving: Volume, centre_mm: Matrix) -> list[Matrix]:
    """Turns about the axes, with the headers' position and with the head's centre laid on the brain's."""
    head = head_mask(moving.data, moving.affine)
    head_centre = apply_affine(moving.affine, np.argwhere(head).mean(axis=0))
    starts = []
    for axis, angle in [(0, 0.0), *product(range(3), (-_TURNS_DEG, _TURNS_DEG))]:
        turn = Rotation.from_rotvec(np.deg2rad(angle) * np.eye(3)[axis]).as_matrix()
        for pivot in (centre_mm, head_centre):
            start = np.eye(4)
            start[:3, :3] = turn
            start[:3, 3] = centre_mm - turn @ pivot
            starts.append(start)
    return starts
