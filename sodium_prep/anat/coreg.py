"""Rigid registration of sodium images: to the T1w of the session, and of runs to each other.

No single measure can be trusted with a sodium image, so three unlike ones are asked: mutual information by ANTs,
normalised mutual information by greedy, and the fit of a sodium contrast foretold from the T1w
(:mod:`sodium_prep.anat.contrast`), which also has the widest range of capture. What they agree on is taken, and how far
they differ is the measure of the error that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sodium_prep.anat.ants import Stage, register_linear
from sodium_prep.anat.brain import head_mask
from sodium_prep.anat.contrast import ContrastFit, fit_margin, synthetic_maps
from sodium_prep.anat.greedy import greedy_rigid
from sodium_prep.anat.grids import coarsen, crop, dilate, winsorise
from sodium_prep.anat.jobs import JobSettings, Volume
from sodium_prep.anat.similarity import Similarity
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.errors import ResourceError

Matrix = NDArray[np.float64]

_FIXED_MM = 2.0
_MARGIN_MM = 12.0
_HEAD_MARGIN_MM = 22.0
_LATTICE_MM = 12.0
_AGREE_MM = 1.0
_THIRD_MM = 2.0
_LEAST_FIT = 0.65
_SD_FLOOR_MM, _SD_SPREAD, _SD_FORMAL = 0.15, 1.0, 3.0
_USUAL_MM = 12.0
_MOTION_MM = 2.0  # between scans of a session
_CLEAR_MARGIN = 0.2  # of logarithms of unexplained variance
_RESOLUTION_PER_VOXEL = 1.6
# The contrast brings the start near, so no coarser level is needed; with one, a real 7 T scan went astray.
_RIGID = Stage("Rigid[0.05]", "MI[{images},1,32,Regular,0.15]", (100, 50), (2, 1), (1, 0))
_PROTON = Stage("Rigid[0.1]", "MI[{images},1,32,Regular,0.25]", (200, 100, 30), (4, 2, 1), (2, 1, 0))
_RUNS = Stage("Rigid[0.1]", "GC[{images},1,1,Regular,0.5]", (200, 100, 50), (4, 2, 1), (2, 1, 0))


class Opinion(NamedTuple):
    """One estimate of where the sodium image lies.

    Attributes
    ----------
    name
        Who made it.
    matrix
        Map of sodium points to T1w points; None if it failed.
    score
        Its fit of the contrast.
    shift_mm, turn_deg
        How far it moves the centre of the brain against the headers, and its angle; None if it failed.
    """

    name: str
    matrix: Matrix | None
    score: float
    shift_mm: float | None
    turn_deg: float | None


@dataclass(frozen=True)
class Coregistration:
    """Result of a rigid registration.

    Attributes
    ----------
    sodium_to_t1w : (4, 4)
        Map of points of the sodium image to points of the T1w, RAS mm.
    opinions
        All estimates: ``ants``, ``greedy``, ``contrast`` and, where a proton image was given, ``proton``. A score is
        the multiple correlation of the sodium image with the contrast foretold from the T1w, 0 to 1; NaN for a failure.
    disagreement_mm
        Mean distance over the brain between the estimates of the two programs; NaN if one has failed.
    sd_mm
        Estimated root mean square displacement over the brain (3-D), mm.
    flagged
        The estimates disagree, one of them failed, or none of them fits.
    chosen
        Name of the estimate that was taken.
    notes
        What is to be told about the registration, a sentence each.
    mirrored
        Whether the sodium image fits this head better with left and right swapped; None where that cannot be told.
    mirror_margin
        Logarithm of the variance that the contrast leaves unexplained in the mirrored over that in the unmirrored
        sodium image; negative where the mirrored one fits better.
    nmi, nmi_header
        Normalised mutual information in and around the brain (1 to 2), after registration and with the headers alone.
    shift_mm, turn_deg
        How far the centre of the brain moved against the headers, and the angle.
    n_starts
        Number of starting points that were tried.
    """

    sodium_to_t1w: Matrix
    opinions: tuple[Opinion, ...]
    disagreement_mm: float
    sd_mm: float
    flagged: bool
    chosen: str
    notes: tuple[str, ...]
    mirrored: bool | None
    mirror_margin: float
    nmi: float
    nmi_header: float
    shift_mm: float
    turn_deg: float
    n_starts: int

    @property
    def motion_sd_mm(self) -> float:
        """Standard deviation of each of the six motions, rotations as displacement at 60 mm.

        Points of a brain lie about 60 mm from its centre. Three shifts of this size and three turns, each of which
        moves them by the square root of 2/3 of it, add up to ``sd_mm``.
        """
        return self.sd_mm / float(np.sqrt(5.0))


@dataclass(frozen=True)
class _Brain:
    """The fixed image: T1w brain on a coarse grid, its mask, what is near it, points to measure distances on."""

    fixed: Volume
    inside: NDArray[np.bool_]
    near: NDArray[np.bool_]
    lattice: Matrix
    centre: Matrix

    def distance(self, one: Matrix | None, other: Matrix | None) -> float:
        """Mean distance between two maps over the brain, mm."""
        if one is None or other is None:
            return float("nan")
        points = apply_affine(np.linalg.inv(other), self.lattice)
        return float(np.linalg.norm(apply_affine(one, points) - self.lattice, axis=1).mean())


def register_sodium(
    sodium: NDArray[np.float32],
    sodium_affine: Matrix,
    t1w: NDArray[np.float32],
    t1w_affine: Matrix,
    brain_mask: NDArray[np.bool_],
    *,
    fractions: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]] | None = None,
    proton: Volume | None = None,
    resolution_mm: float | None = None,
    same_session: bool = True,
    settings: JobSettings | None = None,
) -> Coregistration:
    """Register a sodium image rigidly to the T1w by three unlike measures.

    The fixed image is the T1w brain, and only the brain and what is near to it counts: vials and scalp, which need not
    keep their place or which the T1w brain does not show, pull on nothing. The two programs start from the headers, or
    from what the contrast found where that lies far off; if they disagree from the headers, they start again from
    there.

    Parameters
    ----------
    sodium, t1w : (X, Y, Z)
        Magnitude images.
    sodium_affine, t1w_affine : (4, 4)
        Voxel to RAS mm.
    brain_mask : (X, Y, Z) bool
        On the grid of the T1w.
    fractions
        Grey matter, white matter and CSF on the grid of the T1w, where they are known by now.
    proton
        A proton image of the whole head from the sodium coil, in the scanner coordinates of the sodium image.
    resolution_mm
        Full width at half maximum of the sodium image's point spread function; 1.6 voxels (at least 4 mm) unless given.
    same_session
        Start from the headers; otherwise from what the contrast found.

    Raises
    ------
    ResourceError
        If both programs fail.
    """
    settings = settings or JobSettings()
    reference = Volume(t1w, np.asarray(t1w_affine, np.float64))
    brain, maps = _prepare(reference, brain_mask, fractions)
    moving = Volume(winsorise(sodium), np.asarray(sodium_affine, np.float64))
    if resolution_mm is None:
        resolution_mm = max(_RESOLUTION_PER_VOXEL * float(moving.voxel_mm.max()), 4.0)
    fit = ContrastFit(maps, brain.fixed.affine, brain.inside, moving, resolution_mm)
    notes: list[str] = []
    contrast, contrast_sd, n_starts = _search(fit, moving)
    start = contrast if not same_session or brain.distance(contrast, np.eye(4)) > _USUAL_MM else np.eye(4)
    stepping = None
    if proton is not None:
        stepping = _attempt(lambda: _register_proton(proton, reference, brain_mask, start, settings), notes)
        start = start if stepping is None or fit(stepping) < fit(start) else stepping
    programs = _ask_programs(brain, moving, start, settings, notes)
    if not brain.distance(*programs) <= _AGREE_MM and start is not contrast:
        again = _ask_programs(brain, moving, contrast, settings, notes)
        programs = [max(pair, key=fit.of_any) for pair in zip(programs, again, strict=True)]
        n_starts += 1
    if programs[0] is None and programs[1] is None:
        raise ResourceError("registration of sodium to T1w", " ".join(notes), "Look at the sodium image and the T1w")
    named = [("ants", programs[0]), ("greedy", programs[1]), ("contrast", contrast)]
    named += [("proton", stepping)] if proton is not None else []
    opinions = tuple(
        Opinion(name, None, float("nan"), None, None)
        if matrix is None
        else Opinion(name, matrix, fit(matrix), *_motion(matrix, brain.centre))
        for name, matrix in named
    )
    verdict = _judge(opinions, brain, contrast_sd, notes)
    margin = fit.mirror_margin(contrast)
    mirrored = margin < 0.0 if abs(margin) > _CLEAR_MARGIN else None
    if mirrored:
        notes.append("The sodium image fits this head better with left and right swapped.")
    score = Similarity(brain.fixed, brain.near, moving)
    shift_mm, turn_deg = _motion(verdict.matrix, brain.centre)
    return Coregistration(
        sodium_to_t1w=verdict.matrix,
        opinions=opinions,
        disagreement_mm=verdict.disagreement_mm,
        sd_mm=verdict.sd_mm,
        flagged=bool(notes),
        chosen=verdict.chosen,
        notes=tuple(notes),
        mirrored=mirrored,
        mirror_margin=margin,
        nmi=score(verdict.matrix),
        nmi_header=score(np.eye(4)),
        shift_mm=shift_mm,
        turn_deg=turn_deg,
        n_starts=n_starts,
    )


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
                "registration of sodium runs", fixed, moving, [_RUNS], initial=np.eye(4), fixed_mask=mask,
                settings=settings or JobSettings(),
            )
        )  # fmt: skip
    return out


def _prepare(
    t1w: Volume, brain_mask: NDArray[np.bool_], fractions: Sequence[NDArray[np.float32]] | None
) -> tuple[_Brain, NDArray[np.float32]]:
    """The fixed image and the synthetic maps on its grid."""
    cut, box = crop(t1w, brain_mask, _MARGIN_MM)
    mask = brain_mask[box]
    fixed = coarsen(Volume(np.where(mask, cut.data, 0.0).astype(np.float32), cut.affine), _FIXED_MM)
    inside = coarsen(Volume(mask.astype(np.float32), cut.affine), _FIXED_MM).data > 0.5
    whole = coarsen(cut, _FIXED_MM)
    coarse = None
    if fractions is not None:
        coarse = [coarsen(Volume(part[box], cut.affine), _FIXED_MM).data for part in fractions]
    step = np.maximum(np.rint(_LATTICE_MM / fixed.voxel_mm).astype(int), 1)
    picked = np.zeros_like(inside)
    picked[:: step[0], :: step[1], :: step[2]] = True
    lattice = apply_affine(fixed.affine, np.argwhere(inside & picked))
    centre = apply_affine(fixed.affine, np.argwhere(inside).mean(axis=0))
    near = dilate(inside, _MARGIN_MM - 4.0, fixed.voxel_mm)
    return _Brain(fixed, inside, near, lattice, centre), synthetic_maps(whole, inside, coarse)


def _search(fit: ContrastFit, moving: Volume) -> tuple[Matrix, float, int]:
    """Best fit of the contrast from the headers and from many starts; its standard deviation; number of starts."""
    head = head_mask(moving.data, moving.affine)
    middle = apply_affine(moving.affine, np.argwhere(head).mean(axis=0))
    # A neck in view or a cut-off crown moves the centre of what is seen along the body.
    centres = [fit.centre_mm, *(middle + np.array([0.0, 0.0, z]) for z in (-25.0, 0.0, 25.0))]
    far, n_starts = fit.search(centres)
    matrix, sd = fit.refine([np.eye(4), *far])
    return matrix, sd, n_starts + 1


def _ask_programs(
    brain: _Brain, moving: Volume, start: Matrix, settings: JobSettings, notes: list[str]
) -> list[Matrix | None]:
    """Estimates of ANTs and of greedy."""
    step = "registration of sodium to T1w"
    return [
        _attempt(
            lambda: register_linear(
                step, brain.fixed, moving, [_RIGID], initial=start, fixed_mask=brain.near, settings=settings
            ),
            notes,
        ),
        _attempt(lambda: greedy_rigid(step, brain.fixed, moving, initial=start, settings=settings), notes),
    ]


def _attempt(estimate: Callable[[], Matrix], notes: list[str]) -> Matrix | None:
    """An estimate, or None and a note if the program failed."""
    try:
        return estimate()
    except ResourceError as error:
        notes.append(str(error))
        return None


def _register_proton(
    proton: Volume, t1w: Volume, brain_mask: NDArray[np.bool_], start: Matrix, settings: JobSettings
) -> Matrix:
    """Proton image of the sodium coil to the T1w: both show the scalp, so the head near to the brain counts."""
    cut, box = crop(t1w, brain_mask, _HEAD_MARGIN_MM + 4.0)
    fixed = coarsen(Volume(winsorise(cut.data), cut.affine), _FIXED_MM)
    share = coarsen(Volume(brain_mask[box].astype(np.float32), cut.affine), _FIXED_MM).data
    return register_linear(
        "registration of the sodium coil's proton image to T1w", fixed,
        coarsen(Volume(winsorise(proton.data), np.asarray(proton.affine, np.float64)), _FIXED_MM), [_PROTON],
        initial=start, fixed_mask=dilate(share > 0.5, _HEAD_MARGIN_MM, fixed.voxel_mm), settings=settings,
    )  # fmt: skip


class _Verdict(NamedTuple):
    matrix: Matrix
    chosen: str
    disagreement_mm: float
    sd_mm: float


def _judge(opinions: Sequence[Opinion], brain: _Brain, contrast_sd: float, notes: list[str]) -> _Verdict:
    """Choose among the opinions; each note is a reason for doubt."""
    found = {opinion.name: opinion.matrix for opinion in opinions if opinion.matrix is not None}
    score = {opinion.name: opinion.score for opinion in opinions}
    programs = [opinion.name for opinion in opinions[:2] if opinion.matrix is not None]
    disagreement = brain.distance(opinions[0].matrix, opinions[1].matrix)
    if disagreement > _AGREE_MM:
        notes.append(f"ANTs and greedy differ by {disagreement:.1f} mm.")
    chosen = max(programs, key=score.__getitem__)
    apart = brain.distance(found[chosen], found["contrast"])
    if apart > _THIRD_MM:
        notes.append(f"The synthetic sodium contrast puts the image {apart:.1f} mm away from the programs.")
    if score[chosen] < _LEAST_FIT:
        notes.append(f"The sodium image hardly looks like this head (correlation {score[chosen]:.2f}).")
    others = [*programs, "contrast"]
    if notes:
        # The contrast is foretold, and judges itself: it is taken only where both programs have clearly gone astray.
        if fit_margin(score["contrast"], score[chosen]) > _CLEAR_MARGIN:
            chosen = "contrast"
        # A sodium image that hardly shows the head, or differs within its own error, cannot gainsay the proton image.
        apart = brain.distance(found.get("proton"), found["contrast"])
        if score[chosen] < _LEAST_FIT or apart < max(_AGREE_MM, 3.0 * _SD_FORMAL * contrast_sd):
            chosen = "proton" if "proton" in found else chosen
    apart_mm = [brain.distance(found[chosen], found[name]) for name in others if name != chosen]
    if notes:
        # An opinion that the others outvote tells little of their error.
        apart_mm = [distance for distance in apart_mm if distance <= 3.0 * min(apart_mm)]
    spread = _SD_SPREAD * float(np.sqrt(np.mean(np.square(apart_mm))))
    terms = [_SD_FLOOR_MM, spread, _SD_FORMAL * contrast_sd]
    if chosen == "proton":
        terms = [_SD_FLOOR_MM, min(apart, _MOTION_MM)]
    return _Verdict(found[chosen], chosen, disagreement, float(np.linalg.norm(terms)))


def _motion(matrix: Matrix, centre_mm: Matrix) -> tuple[float, float]:
    """Displacement of a point in mm, and angle in degrees, of a rigid map."""
    shift = float(np.linalg.norm(apply_affine(matrix, centre_mm) - centre_mm))
    cosine = np.clip((np.trace(matrix[:3, :3]) - 1.0) / 2.0, -1.0, 1.0)
    return shift, float(np.rad2deg(np.arccos(cosine)))
