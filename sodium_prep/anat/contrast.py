"""A sodium image foretold from the T1w, and how well a measured one fits it under a rigid map.

Sodium is bright where there is fluid: in the ventricles, in the sulci and in a rim around the brain. Maps of tissue,
fluid, rim and scalp, each times a slowly varying shading, explain nearly all of a sodium image, so a least-squares fit
of them is a measure of alignment with a wide range of capture, wholly unlike mutual information and cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.grids import dilate
from sodium_prep.anat.jobs import Volume
from sodium_prep.anat.transforms import apply_affine

Matrix = NDArray[np.float64]

_RIM_MM = 3.0
_SCALP = 0.4
_NEAR_MM = 11.0
_FLATTEN_MM = 20.0
_LEVER_MM = 60.0  # a typical distance from the centre of the brain, so that turns and shifts weigh alike
_LEAST_OVERLAP = 0.4
_TURN_DEG = 25.0
_PROBE_MM = 3.0
_UNKNOWN_MM = 20.0
_FWHM_PER_SD = 2.3548
_MAX_STEPS, _MAX_STEP_MM, _STOP = 25, 12.0, 5e-3


@dataclass(frozen=True)
class Level:
    """One resolution of the fit: blur of both images (standard deviation), spacing of points, degree of shading."""

    blur_mm: float
    spacing_mm: float
    shaded: bool


_SEARCH = Level(5.0, 10.0, False)
_MIDDLE = Level(3.0, 6.0, True)
_FINE = Level(1.5, 4.0, True)


def synthetic_maps(
    t1w: Volume, brain: NDArray[np.bool_], fractions: Sequence[NDArray[np.float32]] | None = None
) -> NDArray[np.float32]:
    """Maps of tissue, fluid, rim and scalp that a sodium image is a mixture of.

    Parameters
    ----------
    t1w
        T1w of the whole head, of any intensity; of a brain alone, the map of the scalp is empty.
    brain : (X, Y, Z) bool
        On the grid of the T1w.
    fractions
        Grey matter, white matter and CSF on that grid; without them dark parts of the brain pass for fluid.

    Returns
    -------
    (4, X, Y, Z) float32
        Sodium of tissue and of fluid inside the mask, relative, the rim of fluid around it, and what is bright beyond.
    """
    if fractions is None:
        weight = ndimage.gaussian_filter(brain.astype(np.float32), _FLATTEN_MM / t1w.voxel_mm)
        level = ndimage.gaussian_filter(np.where(brain, t1w.data, 0.0), _FLATTEN_MM / t1w.voxel_mm)
        flat = t1w.data / np.maximum(level / np.maximum(weight, 1e-3), 1e-6)
        dark, middle, _ = _three_classes(flat[brain])
        csf = np.clip((middle - flat) / max(middle - dark, 1e-6), 0.0, 1.0) * brain
        tissue = np.where(brain, 1.0 - csf, 0.0)
    else:
        gm, wm, csf = fractions
        # Grey over white matter in a usual protocol (Riemer et al., 2014: 52 and 42 mM).
        tissue = 1.2 * gm + wm
    rim = dilate(brain, _RIM_MM, t1w.voxel_mm) & ~brain
    scalp = (t1w.data > _SCALP * np.median(t1w.data[brain])) & ~brain & ~rim
    return np.stack([tissue, csf, rim, scalp]).astype(np.float32)


def _three_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of three classes of intensity, ascending, by k-means."""
    centres = np.percentile(values, [5.0, 45.0, 85.0])
    for _ in range(25):
        label = np.digitize(values, (centres[1:] + centres[:-1]) / 2.0)
        centres = np.array([values[label == k].mean() if np.any(label == k) else centres[k] for k in range(3)])
    return np.asarray(centres)


def fit_margin(correlation: float, other: float) -> float:
    """Logarithm of the variance that another fit leaves unexplained over that of this; negative if it is better."""
    left, left_by_other = (max(1.0 - value**2, 1e-9) for value in (correlation, other))
    return float(np.log(left_by_other / left))


class ContrastFit:
    """Least-squares fit of the synthetic maps to a sodium image, as a function of its place.

    Parameters
    ----------
    maps : (4, X, Y, Z)
        Of :func:`synthetic_maps`.
    affine : (4, 4)
        Their voxel to RAS mm.
    brain : (X, Y, Z) bool
        On their grid.
    sodium
        The measured image.
    resolution_mm
        Full width at half maximum of its point spread function.
    """

    def __init__(
        self, maps: NDArray[np.float32], affine: Matrix, brain: NDArray[np.bool_], sodium: Volume, resolution_mm: float
    ) -> None:
        grid = Volume(maps, affine)
        self.centre_mm = apply_affine(affine, np.argwhere(brain).mean(axis=0))
        near = dilate(brain, _NEAR_MM, grid.voxel_mm)
        self._levels = {
            level: _Sampled(level, grid, brain, near, sodium, resolution_mm, self.centre_mm)
            for level in (_SEARCH, _MIDDLE, _FINE)
        }

    def __call__(self, sodium_to_t1w: Matrix) -> float:
        """Multiple correlation of the sodium image with the maps, 0 to 1; 0 if too little of the brain is in view."""
        return self._levels[_FINE].correlation(sodium_to_t1w)

    def of_any(self, sodium_to_t1w: Matrix | None) -> float:
        """The same, and -1 for an estimate that is missing."""
        return -1.0 if sodium_to_t1w is None else self(sodium_to_t1w)

    def refine(self, starts: Sequence[Matrix]) -> tuple[Matrix, float]:
        """Best of the maps near to some starts, and its standard deviation from the misfit (mm, 3-D)."""
        middle = self._levels[_MIDDLE]
        best = max((middle.refine(start) for start in starts), key=middle.correlation)
        fine = self._levels[_FINE]
        matrix = fine.refine(best)
        return matrix, fine.deviation(matrix)

    def mirror_margin(self, sodium_to_t1w: Matrix) -> float:
        """Logarithm of the variance left unexplained with left and right of the sodium swapped, over that as it is.

        The swapped image is mirrored at the middle of the brain and fitted anew; negative where it fits better.
        """
        level = self._levels[_MIDDLE]
        mirror = np.eye(4)
        mirror[0, 0], mirror[0, 3] = -1.0, 2.0 * self.centre_mm[0]
        starts = (sodium_to_t1w, mirror @ sodium_to_t1w)
        return fit_margin(*(level.correlation(level.refine(start)) for start in starts))

    def search(self, centres_mm: Sequence[Matrix]) -> tuple[list[Matrix], int]:
        """Try many starts: turns about the axes with each of some points laid on the centre of the brain.

        Returns
        -------
        list of (4, 4), int
            The best few, to be refined, and the number of starts.
        """
        coarse = self._levels[_SEARCH]
        starts = []
        for turn, centre in product(product((-_TURN_DEG, 0.0, _TURN_DEG), repeat=3), centres_mm):
            start = np.eye(4)
            start[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn)).as_matrix()
            start[:3, 3] = self.centre_mm - start[:3, :3] @ centre
            starts.append(start)
        picked = sorted(starts, key=coarse.correlation, reverse=True)[:8]
        refined = sorted((coarse.refine(start) for start in picked), key=coarse.correlation, reverse=True)
        return refined[:3], len(starts)


class _Sampled:
    """The fit at one level."""

    def __init__(
        self,
        level: Level,
        maps: Volume,
        brain: NDArray[np.bool_],
        near: NDArray[np.bool_],
        sodium: Volume,
        resolution_mm: float,
        centre_mm: Matrix,
    ) -> None:
        voxel_mm = np.linalg.norm(maps.affine[:3, :3], axis=0)
        step = np.maximum(np.rint(level.spacing_mm / voxel_mm).astype(int), 1)
        lattice = np.zeros_like(near)
        lattice[:: step[0], :: step[1], :: step[2]] = True
        picked = near & lattice
        self.centre_mm = centre_mm
        self.points = apply_affine(maps.affine, np.argwhere(picked))
        self.inside = brain[picked]
        blur = np.hypot(resolution_mm / _FWHM_PER_SD, level.blur_mm) / voxel_mm
        columns = [ndimage.gaussian_filter(part, blur)[picked].astype(np.float64) for part in maps.data]
        tissue, fluid, rim, scalp = columns
        if level.shaded:
            place = (self.points - centre_mm) / _LEVER_MM
            linear = np.column_stack([np.ones(len(place)), place])
            parts = [part[:, None] * linear for part in (tissue, fluid, rim, scalp)]
            parts.append(tissue[:, None] * place**2)
        else:
            parts = [(tissue + 3.5 * fluid + 1.5 * rim)[:, None], scalp[:, None]]
        basis = np.column_stack([np.ones(len(self.points)), *parts])
        self.basis = basis[:, np.any(basis != 0.0, axis=0)]
        smooth = ndimage.gaussian_filter(np.asarray(sodium.data, np.float32), level.blur_mm / sodium.voxel_mm)
        self.to_voxel = np.linalg.inv(sodium.affine)
        # The image and its gradient along the world's axes, per mm.
        slope = np.einsum("axyz,ab->bxyz", np.stack(np.gradient(smooth)), self.to_voxel[:3, :3])
        self.image = np.concatenate([smooth[None], slope]).astype(np.float32)
        self.spacing_mm = level.spacing_mm

    def correlation(self, sodium_to_t1w: Matrix) -> float:
        """Multiple correlation; 0 where too little of the brain is in view."""
        return float(np.sqrt(max(1.0 - self._fit(sodium_to_t1w).unexplained, 0.0)))

    def refine(self, start: Matrix) -> Matrix:
        """Nearest best map by damped Gauss-Newton steps."""
        matrix, fit, damping = start, self._fit(start, slopes=True), 1e-3
        for _ in range(_MAX_STEPS):
            curvature = fit.slopes.T @ fit.slopes
            damped = curvature + damping * np.diag(np.diag(curvature)) + 1e-12 * np.eye(6)
            step = -np.linalg.solve(damped, fit.slopes.T @ fit.misfit)
            step *= min(1.0, _MAX_STEP_MM / max(float(np.linalg.norm(step)), 1e-12))
            moved = self._moved(matrix, step)
            tried = self._fit(moved, slopes=True)
            if tried.unexplained < fit.unexplained:
                matrix, fit, damping = moved, tried, damping / 5.0
                if np.linalg.norm(step) < self.spacing_mm * _STOP:
                    break
            else:
                damping = max(damping, 1e-3) * 10.0
                if damping > 1e4:
                    break
        return matrix

    def deviation(self, sodium_to_t1w: Matrix) -> float:
        """Standard deviation of a best map (root of the sum over turns and shifts, mm), as of a least-squares fit.

        How sharply the misfit rises is measured over a distance that noise does not correlate over: the slopes at the
        best map are those of the noise too.
        """
        fit = self._fit(sodium_to_t1w)
        free = max(len(fit.misfit) - 6 - self.basis.shape[1], 1)
        variance = 0.0
        for step in _PROBE_MM * np.eye(6):
            aside = [self._fit(self._moved(sodium_to_t1w, sign * step)).unexplained for sign in (1.0, -1.0)]
            rise = (sum(aside) / 2.0 - fit.unexplained) / _PROBE_MM**2
            variance += fit.unexplained / free / max(rise, 1e-12)
        return min(float(np.sqrt(variance)), _UNKNOWN_MM)

    def _fit(self, sodium_to_t1w: Matrix, slopes: bool = False) -> _Fit:
        back = np.linalg.inv(sodium_to_t1w)
        voxels = apply_affine(self.to_voxel @ back, self.points)
        room = np.minimum(voxels, np.array(self.image.shape[1:]) - 1.0 - voxels).min(axis=1)
        # Points leave the field of view by and by, so that the misfit does not jump.
        root = np.sqrt(np.clip(room + 0.5, 0.0, 1.0))
        if float((root[self.inside] ** 2).mean()) < _LEAST_OVERLAP:
            return _Fit(np.zeros(len(root)), 1.0, np.zeros((len(root), 6)))
        images = self.image if slopes else self.image[:1]
        sampled = np.stack([ndimage.map_coordinates(part, voxels.T, order=1, mode="nearest") for part in images])
        held = self.basis * root[:, None]
        targets = (sampled[0] * root)[:, None]
        if slopes:
            # Change of the sodium value under a point of the T1w when the image turns about the centre and shifts.
            gradient = sampled[1:].T @ back[:3, :3]
            turning = np.cross(self.points - self.centre_mm, gradient) / _LEVER_MM
            targets = np.column_stack([targets, -np.column_stack([turning, gradient]) * root[:, None]])
        gram = held.T @ held
        # A map may lie wholly outside the field of view.
        gram[np.diag_indices_from(gram)] += 1e-9 * gram.max()
        left = targets - held @ np.linalg.solve(gram, held.T @ targets)
        mean = float(targets[:, 0] @ root) / float(root @ root)
        spread = targets[:, 0] - mean * root
        norm = max(float(np.linalg.norm(spread)), 1e-12)
        misfit = left[:, 0] / norm
        along = left[:, 1:] / norm - np.outer(misfit, spread @ targets[:, 1:]) / norm**2
        return _Fit(misfit, float(misfit @ misfit), along)

    def _moved(self, start: Matrix, step: ArrayLike) -> Matrix:
        """A start followed by a small turn about the centre of the brain and a shift, both as mm."""
        move = np.eye(4)
        turn, shift = np.split(np.asarray(step, np.float64), 2)
        move[:3, :3] = Rotation.from_rotvec(turn / _LEVER_MM).as_matrix()
        move[:3, 3] = self.centre_mm + shift - move[:3, :3] @ self.centre_mm
        return np.asarray(move @ start)


@dataclass(frozen=True)
class _Fit:
    """Misfit in units of the image's spread, its sum of squares (1 - R^2), and slopes by turns and shifts in mm."""

    misfit: NDArray[np.float64]
    unexplained: float
    slopes: NDArray[np.float64]
