"""Non-linear registration of a brain to a template, checked, and what is carried over with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.ants import Stage, apply_transforms, register
from sodium_prep.anat.conform import mask_to_template
from sodium_prep.anat.fields import (
    Field,
    Step,
    apply_to_points,
    faded,
    invert_field,
    inverted,
    jacobian_determinants,
    map_points,
    read_field,
    write_composite,
)
from sodium_prep.anat.greedy import greedy_deform
from sodium_prep.anat.grids import coarsen, crop, dilate
from sodium_prep.anat.jobs import Cost, JobSettings, Volume, job_folder
from sodium_prep.anat.transforms import apply_affine, read_itk_affine
from sodium_prep.atlas.bundled import Atlas, Template
from sodium_prep.errors import InputError

__all__ = [
    "TemplateRegistration",
    "apply_to_points",
    "register_templates",
    "register_to_template",
    "template_priors",
    "warp_labels_to_t1w",
    "warp_priors_to_t1w",
]

Method = Literal["ants", "greedy"]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MARGIN_MM = 6.0
_LESION_RIM_MM = 4.0
_LEAST_OVERLAP = 0.85
_LEAST_SIMILARITY = 0.2
_SLACK = 0.02
_MOST_SCALE = 2.0
_MISS_MM = 0.1
_LEAST_JACOBIAN, _MOST_JACOBIAN = 0.02, 20.0
_TURNS_DEG = (-50.0, -25.0, 25.0, 50.0)
_WINDOW = 5

_AFFINE = Stage("Affine[0.1]", "MI[{images},1,32,Regular,0.25]", (200, 100, 50), (4, 2, 1), (2, 1, 0))
# Chosen by benchmarks/anatomy.py: fewer full-resolution iterations of longer steps reach the same overlaps sooner.
_SYN = Stage("SyN[0.3,2,0]", "CC[{images},1,2]", (40, 30, 10), (4, 2, 1), (2, 1, 0))
_SYN_FAST = Stage("SyN[0.3,2,0]", "CC[{images},1,2]", (40, 30), (4, 2), (2, 1))
_SYN_OTHER_CONTRAST = Stage("SyN[0.2,3,0]", "MI[{images},1,32]", (60, 40, 15), (4, 2, 1), (2, 1, 0))
_SYN_COARSE = Stage("SyN[0.1,6,0]", "MI[{images},1,32]", (60, 30), (4, 2), (2, 1))


@dataclass(frozen=True)
class TemplateRegistration:
    """Composite transform files (ITK ``.h5``), as BIDS names them, and how well they fit.

    Attributes
    ----------
    forward
        Resamples the subject's image onto the template (``from-T1w_to-TEMPLATE_mode-image``).
    inverse
        Resamples the template onto the subject's image.
    cost
        CPU seconds and peak memory of all programs that were run.
    affine : (4, 4)
        Affine part: map of points of the T1w to points of the template, RAS mm.
    similarity, similarity_affine
        Mean squared local correlation within the brain, 0 to 1, after everything and after the affine part alone.
    overlap
        Dice coefficient of the two brain masks where the image shows anything.
    jacobian
        Least and largest volume change of the deformation.
    method
        What the result was made by: ``ants``, ``greedy``, ``ants coarse`` or ``affine``.
    attempts
        What was tried and turned down, and why; empty where the first attempt was good.
    """

    forward: Path
    inverse: Path
    cost: Cost
    affine: Matrix
    similarity: float
    similarity_affine: float
    overlap: float
    jacobian: tuple[float, float]
    method: str
    attempts: tuple[str, ...]


def register_to_template(
    t1w: NDArray[np.float32],
    affine: Matrix,
    brain_mask: Mask,
    template: Template,
    out_dir: Path,
    *,
    initial: Matrix,
    lesion: Mask | None = None,
    method: Method = "ants",
    fast: bool = False,
    same_contrast: bool = True,
    work_mm: float = 2.0,
    settings: JobSettings | None = None,
) -> TemplateRegistration:
    """Register the brain of a subject to a template: affine, then diffeomorphic, each checked before it is used.

    Parameters
    ----------
    t1w : (X, Y, Z)
        Intensity, best with the bias removed.
    affine : (4, 4)
        Voxel to RAS mm.
    brain_mask : (X, Y, Z) bool
        The subject's brain.
    out_dir
        Existing folder for the two transform files, ``t1w_to_template.h5`` and ``template_to_t1w.h5``.
    initial : (4, 4)
        Affine point map T1w -> template, from brain extraction.
    lesion : (X, Y, Z) bool
        Tissue that has no counterpart in the template: it takes no part in any metric.
    method
        ``ants`` (SyN, local correlation) or ``greedy``, for the deformation; the affine stage is one of ANTs.
    fast
        Stop a level earlier.
    same_contrast
        False for images that are not T1-weighted: mutual information instead of local correlation.
    work_mm
        Voxel size of the registration.
    """
    pair = _make_pair(Volume(t1w, affine), brain_mask, template, lesion, work_mm)
    starts = {
        "the given start": initial,
        "the centres and volumes of the brains": mask_to_template(brain_mask, affine, template),
    }
    run = _Run(pair, method, fast, same_contrast, settings or JobSettings())
    return run.all(starts, out_dir / "t1w_to_template.h5", out_dir / "template_to_t1w.h5")


def register_templates(
    source: Template,
    target: Template,
    out_dir: Path,
    settings: JobSettings | None = None,
    *,
    method: Method = "ants",
    work_mm: float = 2.0,
) -> TemplateRegistration:
    """Register one template to another, brain to brain: what lies in the source is never laid on by its header.

    Returns
    -------
    TemplateRegistration
        ``forward`` (``SOURCE_to_TARGET.h5``) resamples the source onto the target, ``inverse`` the target onto the
        source; ``affine`` maps points of the source to points of the target.
    """
    pair = _make_pair(Volume(source.t1w, source.affine), source.brain_mask, target, None, work_mm)
    starts = {
        "the headers": np.eye(4),
        "the centres and volumes of the brains": mask_to_template(source.brain_mask, source.affine, target),
    }
    run = _Run(pair, method, False, True, settings or JobSettings())
    names = f"{source.name}_to_{target.name}.h5", f"{target.name}_to_{source.name}.h5"
    return run.all(starts, out_dir / names[0], out_dir / names[1])


@dataclass(frozen=True)
class _Pair:
    """What is registered: brains on coarse grids, and where they may be compared."""

    fixed: Volume
    fixed_brain: Mask
    moving: Volume
    moving_brain: Volume
    lesion: Volume | None
    field_of_view: tuple[tuple[int, ...], Matrix]

    def near(self) -> Mask:
        return dilate(self.fixed_brain, _MARGIN_MM / 2.0, self.fixed.voxel_mm)

    def seen(self, mask: Mask, steps: Sequence[Step]) -> Mask:
        """Voxels of a mask that the moving image shows, lesion left out, under fixed -> moving point maps."""
        shape, affine = self.field_of_view
        points = map_points(apply_affine(self.fixed.affine, np.argwhere(mask)), steps)
        voxels = apply_affine(np.linalg.inv(affine), points)
        good = np.all((voxels >= 0) & (voxels <= np.array(shape) - 1), axis=1)
        if self.lesion is not None:
            good &= _sample(self.lesion, points) < 0.5
        out = np.zeros_like(mask)
        out[mask] = good
        return out

    def sound(self) -> Mask | None:
        """Voxels of the moving image outside the lesion, if there is one."""
        return None if self.lesion is None else self.lesion.data < 0.5

    def judge(self, steps: Sequence[Step]) -> tuple[float, float]:
        """Similarity (mean squared local correlation) and overlap of the brains (Dice) under fixed -> moving maps."""
        near = self.near()
        points = map_points(apply_affine(self.fixed.affine, np.argwhere(near)), steps)
        seen = self.seen(near, steps)
        brain = seen & self.fixed_brain
        if brain.sum() < 0.2 * self.fixed_brain.sum():
            return 0.0, 0.0
        warped, moved = np.zeros(near.shape, np.float32), np.zeros(near.shape, bool)
        warped[near] = _sample(self.moving, points)
        moved[near] = _sample(self.moving_brain, points) > 0.5
        overlap = 2.0 * (brain & moved).sum() / (brain.sum() + (seen & moved).sum())
        return _local_correlation(self.fixed.data, warped, brain), float(overlap)


@dataclass(frozen=True)
class _Found:
    """What a stage came to."""

    method: str
    to_fixed: Matrix
    similarity: float
    overlap: float
    field: Field | None = None
    home: Field | None = None
    jacobian: tuple[float, float] = (1.0, 1.0)


@dataclass
class _Run:
    """One registration with its attempts."""

    pair: _Pair
    method: Method
    fast: bool
    same_contrast: bool
    settings: JobSettings

    def __post_init__(self) -> None:
        self.costs: list[Cost] = []
        self.attempts: list[str] = []

    def all(self, starts: dict[str, Matrix], forward: Path, backward: Path) -> TemplateRegistration:
        """Run the stages, and a coarser deformation or none where they fail their check."""
        before = self._affine(starts)
        back = inverted(before.to_fixed)
        best = self._deform(self.method, before) or self._deform("ants coarse", before) or before
        there: list[Step] = [back]
        home: list[Step] = [before.to_fixed]
        if best.field is not None and best.home is not None:
            there, home = [best.field, back], [before.to_fixed, best.home]
        write_composite(forward, there)
        write_composite(backward, home)
        cost = Cost(sum(c.cpu_s for c in self.costs), max(c.peak_memory_gb for c in self.costs))
        return TemplateRegistration(
            forward, backward, cost, before.to_fixed, best.similarity, before.similarity, best.overlap, best.jacobian,
            best.method, tuple(self.attempts),
        )  # fmt: skip

    def _affine(self, starts: dict[str, Matrix]) -> _Found:
        """Affine stage from the first start that leads to a good end; from turned ones where none does."""
        tried: list[_Found] = []
        for name, start in starts.items():
            tried.append(self._affine_from(start))
            if self._good(name, tried[-1]):
                return tried[-1]
        turns = _turns(list(starts.values())[-1], self.pair)
        tried.append(self._affine_from(max(turns, key=lambda turn: self.pair.judge([inverted(turn)])[0])))
        self._good("the best of turned starts", tried[-1])
        best = max(tried, key=lambda found: found.similarity * found.overlap)
        if best.similarity == 0.0:
            raise InputError(
                "registration to the template",
                "no start brought the brain and the template together",
                "Check the brain mask, and that the image shows most of a brain",
            )
        return best

    def _good(self, start: str, found: _Found) -> bool:
        good = found.similarity >= _LEAST_SIMILARITY and found.overlap >= _LEAST_OVERLAP
        if not good:
            self.attempts.append(f"affine from {start}: similarity {found.similarity:.2f}, overlap {found.overlap:.2f}")
        return good

    def _affine_from(self, start: Matrix) -> _Found:
        pair = self.pair
        mask = pair.seen(pair.near(), [inverted(start)])
        if not mask.any():
            return _Found("affine", start, 0.0, 0.0)
        with job_folder() as folder:
            cost = register(
                "affine registration to the template", pair.fixed, pair.moving, [_AFFINE], folder, initial=start,
                fixed_mask=mask, moving_mask=pair.sound(), settings=self.settings,
            )  # fmt: skip
            matrix = read_itk_affine(folder / "out0GenericAffine.mat")
        self.costs.append(cost)
        scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
        if scales[-1] < 1.0 / _MOST_SCALE or scales[0] > _MOST_SCALE:
            return _Found("affine", matrix, 0.0, 0.0)
        return _Found("affine", matrix, *pair.judge([inverted(matrix)]))

    def _deform(self, name: str, before: _Found) -> _Found | None:
        """Deformable stage by one method; None where it folds or its result is worse than the affine one."""
        back = inverted(before.to_fixed)
        mask = self.pair.seen(self.pair.near(), [back])
        field, guess = self._field(name, before.to_fixed, mask)
        home, miss = invert_field(field, guess)
        # Greedy's field has a rim that the mask has not.
        mask = np.pad(mask, (field.data.shape[0] - mask.shape[0]) // 2)
        volumes = jacobian_determinants(field, mask)
        least, most = float(volumes.min()), float(volumes.max())
        similarity, overlap = self.pair.judge([field, back])
        if least < _LEAST_JACOBIAN or most > _MOST_JACOBIAN or miss[mask].max() > _MISS_MM:
            why = f"volume changes from {least:.2f} to {most:.1f} are implausible"
        elif similarity < before.similarity - _SLACK:
            why = f"similarity {similarity:.2f}, {before.similarity:.2f} before it"
        elif overlap < before.overlap - _SLACK:
            why = f"overlap {overlap:.2f}, {before.overlap:.2f} before it"
        else:
            return _Found(name, before.to_fixed, similarity, overlap, field, home, (least, most))
        self.attempts.append(f"{name} deformation: {why}")
        return None

    def _field(self, name: str, to_fixed: Matrix, mask: Mask) -> tuple[Field, Field | None]:
        pair, step = self.pair, "deformable registration to the template"
        with job_folder() as folder:
            if name == "greedy":
                field, cost = greedy_deform(
                    step, pair.fixed, pair.moving, folder, affine=to_fixed, fixed_mask=mask, moving_mask=pair.sound(),
                    metric=("WNCC", "2x2x2") if self.same_contrast else ("NMI",),
                    iterations="100x50" if self.fast else "100x50x10", smoothing=("1.732vox", "0.7071vox"),
                    settings=self.settings,
                )  # fmt: skip
                self.costs.append(cost)
                return faded(field), None
            syn = _SYN_COARSE if name == "ants coarse" else _SYN if self.same_contrast else _SYN_OTHER_CONTRAST
            if self.fast and syn is _SYN:
                syn = _SYN_FAST
            cost = register(
                step, pair.fixed, pair.moving, [syn], folder, initial=to_fixed, fixed_mask=mask,
                moving_mask=pair.sound(), settings=self.settings,
            )  # fmt: skip
            self.costs.append(cost)
            grid = pair.fixed.data.shape, pair.fixed.affine
            there, back = (read_field(folder / f"out1{name}Warp.nii.gz").on_grid(*grid) for name in ("", "Inverse"))
            return there, back


def _make_pair(moving: Volume, brain_mask: Mask, template: Template, lesion: Mask | None, work_mm: float) -> _Pair:
    """Brains alone, cropped, without extreme values, on grids of the working voxel size."""
    used = brain_mask if lesion is None else brain_mask & ~lesion
    top = np.percentile(moving.data[used], 99.8)
    clipped = np.where(brain_mask, np.clip(moving.data, 0.0, top), 0.0).astype(np.float32)
    brain, box = crop(Volume(clipped, moving.affine), brain_mask, _MARGIN_MM)
    wide = None
    if lesion is not None:
        rim = dilate(lesion[box], _LESION_RIM_MM, brain.voxel_mm)
        wide = coarsen(Volume(rim.astype(np.float32), brain.affine), work_mm)
    target, fixed_box = crop(Volume(template.t1w, template.affine), template.brain_mask, _MARGIN_MM)
    fixed_brain = coarsen(Volume(template.brain_mask[fixed_box].astype(np.float32), target.affine), work_mm).data > 0.5
    return _Pair(
        coarsen(target, work_mm), fixed_brain, coarsen(brain, work_mm),
        coarsen(Volume(brain_mask[box].astype(np.float32), brain.affine), work_mm), wide,
        (moving.data.shape, moving.affine),
    )  # fmt: skip


def _turns(start: Matrix, pair: _Pair) -> list[Matrix]:
    """The start turned about each axis, with the centre of the template's brain held."""
    from scipy.spatial.transform import Rotation

    centre = apply_affine(pair.fixed.affine, np.argwhere(pair.fixed_brain)).mean(axis=0)
    out = []
    for axis in np.eye(3):
        for angle in _TURNS_DEG:
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_rotvec(np.deg2rad(angle) * axis).as_matrix()
            turn[:3, 3] = centre - turn[:3, :3] @ centre
            out.append(turn @ start)
    return out


def _sample(volume: Volume, points: Matrix) -> NDArray[np.float32]:
    voxels = apply_affine(np.linalg.inv(volume.affine), points)
    return np.asarray(ndimage.map_coordinates(volume.data, voxels.T, output=np.float32, order=1, mode="constant"))


def _local_correlation(a: NDArray[np.float32], b: NDArray[np.float32], mask: Mask) -> float:
    """Mean over a mask of the squared correlation of two images in a window of 5 voxels, mask voxels only."""

    def mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(ndimage.uniform_filter(np.where(mask, x, 0.0).astype(np.float64), _WINDOW) / weight)

    weight = np.maximum(ndimage.uniform_filter(mask.astype(np.float64), _WINDOW), 1e-9)
    a, b = a / a[mask].std(), b / max(float(b[mask].std()), 1e-12)
    mean_a, mean_b = mean(a), mean(b)
    covariance = mean(a * b) - mean_a * mean_b
    spread = np.maximum(mean(a * a) - mean_a**2, 1e-4) * np.maximum(mean(b * b) - mean_b**2, 1e-4)
    return float(np.mean((covariance**2 / spread)[mask]))


def warp_labels_to_t1w(
    atlas: Atlas,
    shape: tuple[int, ...],
    affine: Matrix,
    transforms: Sequence[Path | Matrix] | Path,
    *,
    smooth: bool = False,
    settings: JobSettings | None = None,
) -> NDArray[np.int32]:
    """Carry the labels of an atlas to the subject's grid, through any chain, with one interpolation.

    Parameters
    ----------
    shape, affine
        Grid of the subject's image.
    transforms
        In the order in which the atlas meets them: template -> T1w, or template X -> bundled template -> T1w.
    smooth
        ``GenericLabel`` in place of nearest neighbour: smoother borders, seven times as slow.
    """
    return apply_transforms(
        atlas.labels,
        atlas.affine,
        shape,
        affine,
        [transforms] if isinstance(transforms, Path) else list(transforms),
        interpolation="GenericLabel" if smooth else "NearestNeighbor",
        settings=settings or JobSettings(),
    )


def warp_priors_to_t1w(
    priors: NDArray[np.float32],
    priors_affine: NDArray[np.float64],
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    inverse: Path,
    *,
    settings: JobSettings | None = None,
) -> NDArray[np.float32]:
    """Carry tissue fractions (n, X, Y, Z) of the template to the subject's grid, (n, X', Y', Z')."""
    settings = settings or JobSettings()
    parts = [apply_transforms(part, priors_affine, shape, affine, [inverse], settings=settings) for part in priors]
    return np.clip(np.stack(parts), 0.0, 1.0).astype(np.float32)


def template_priors(template: Template, atlas: Atlas) -> NDArray[np.float32]:
    """Tissue fractions of the template, (3, X, Y, Z): GM, WM, CSF, for images without T1-weighted contrast.

    The intensity decides between neighbouring tissues; the atlas decides in deep grey matter, brainstem and ventricles.
    """
    table = atlas.table
    inside = template.brain_mask
    labels = atlas.labels

    def part(structure: str) -> NDArray[np.bool_]:
        return np.isin(labels, table.loc[table["structure"] == structure, "index"].to_numpy())

    def level(mask: NDArray[np.bool_]) -> float:
        return float(np.median(template.t1w[mask & (template.t1w > 0)]))

    def core(structure: str) -> NDArray[np.bool_]:
        return np.asarray(ndimage.binary_erosion(part(structure), iterations=2))

    white, fluid = level(core("wm")), level(core("csf"))
    # An average brain has hardly a voxel of pure cortex; the amygdala and hippocampus are pure.
    grey = level(core("hippocampus"))
    u = template.t1w
    csf = np.clip((grey - u) / (grey - fluid), 0.0, 1.0)
    wm = np.clip((u - grey) / (white - grey), 0.0, 1.0)
    deep = part("deep_gm") | part("hippocampus")
    csf = np.where(part("csf"), 1.0, np.where(deep | part("brainstem"), 0.0, csf))
    wm = np.where(part("brainstem"), 1.0, np.where(deep | part("csf"), 0.0, wm))
    return np.where(inside, np.stack([1.0 - csf - wm, wm, csf]), 0.0).astype(np.float32)
