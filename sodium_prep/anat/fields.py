"""Displacement fields: composite transform files, points, inversion, quality.

A deformation maps points of the fixed image to points of the moving one: first by a displacement field on the fixed
grid, then by an affine map. That is what ITK keeps in the file that resamples moving onto fixed. Files are written here
for both registration programs alike, because ITK's own writer puts the name of the operating system in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from sodium_prep.anat.transforms import apply_affine, read_itk_affine
from sodium_prep.errors import InputError

Matrix = NDArray[np.float64]

_LPS = np.array([-1.0, -1.0, 1.0])
_ROUNDS = 50
_EXACT_MM = 1e-3
_SLOPE_MM = 0.01
_CHUNK = 500_000


@dataclass(frozen=True)
class Field:
    """Displacements (X, Y, Z, 3) in RAS mm, float32, on a grid (4, 4), voxel to RAS mm; zero outside the grid."""

    data: NDArray[np.float32]
    grid: Matrix

    def __call__(self, points: ArrayLike) -> Matrix:
        """Map points (n, 3), RAS mm, with linear interpolation between voxels as ITK does."""
        x = np.asarray(points, dtype=np.float64)
        return x + self._displacement(x)

    def on_grid(self, shape: Sequence[int], grid: Matrix) -> Field:
        """The same field on another grid; a program that stops at a coarse level writes it on a coarse grid."""
        if tuple(shape) == self.data.shape[:3] and np.allclose(grid, self.grid, atol=1e-4):
            return self
        points = apply_affine(grid, np.indices(tuple(shape)).reshape(3, -1).T)
        return Field(self._displacement(points).reshape(*shape, 3).astype(np.float32), np.asarray(grid))

    def _displacement(self, points: Matrix) -> Matrix:
        voxels = apply_affine(np.linalg.inv(self.grid), points).T
        size = np.array(self.data.shape[:3])[:, None]
        inside = np.all((voxels >= -0.5) & (voxels <= size - 0.5), axis=0)
        out = np.zeros_like(points)
        for axis in range(3):
            # Linear interpolation keeps float64 only if asked to; the last 1e-5 mm matter to inversion.
            out[inside, axis] = ndimage.map_coordinates(
                self.data[..., axis], voxels[:, inside], output=np.float64, order=1, mode="nearest"
            )
        return out


Step = Matrix | Field


def inverted(matrix: Matrix) -> Matrix:
    """Inverse of a 4x4 map."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def map_points(points: ArrayLike, steps: Sequence[Step]) -> Matrix:
    """Map points (n, 3), RAS mm, by 4x4 matrices and fields, in this order."""
    out = np.asarray(points, dtype=np.float64)
    for step in steps:
        out = step(out) if isinstance(step, Field) else apply_affine(step, out)
    return out


def apply_to_points(points: ArrayLike, transforms: Sequence[Path | Matrix], *, inverse: bool = False) -> Matrix:
    """Carry points of the target of a chain of transforms back to the image that the chain resamples.

    A transform that resamples image A onto B holds the map of points of B to points of A. So landmarks go from B to A
    by the very chain that carries images from A to B, and from A to B by the chain of the opposite files, or with
    ``inverse``.

    Parameters
    ----------
    points : (n, 3)
        RAS mm.
    transforms
        As :func:`sodium_prep.anat.ants.apply_transforms` takes them: in the order in which an image meets them, ITK
        files or 4x4 maps of source points to target points.
    inverse
        Carry points of the image to the target, by solving for each point to 0.001 mm. A stored inverse field is as
        exact at its voxels, but between them it is interpolated.

    Returns
    -------
    (n, 3) RAS mm
    """
    steps = _steps(transforms)
    if not inverse:
        return map_points(points, steps)
    out = np.asarray(points, dtype=np.float64)
    for step in reversed(steps):
        out = _solve(step, out) if isinstance(step, Field) else apply_affine(inverted(step), out)
    return out


def read_transform(path: Path) -> list[Step]:
    """Read an ITK affine or composite (``.h5``) file as the point maps that it holds, target to image, in their order.

    Raises
    ------
    InputError
        If it is another kind of transform.
    """
    if path.suffix != ".h5":
        return [inverted(read_itk_affine(path))]
    import h5py

    steps: list[Step] = []
    with h5py.File(path) as file:
        group = file["TransformGroup"]
        for number in sorted(group, key=int):
            entry = group[number]
            kind = entry["TransformType"][0].decode()
            if kind.startswith("CompositeTransform"):
                continue
            parameters, fixed = (
                np.asarray(entry[key], dtype=np.float64) for key in ("TransformParameters", "TransformFixedParameters")
            )
            if kind.startswith("DisplacementField"):
                steps.append(_field_from_itk(parameters, fixed))
            elif parameters.size == 12:
                steps.append(_affine_from_itk(parameters, fixed))
            else:
                raise InputError(path, f"it holds a {kind}", "Give affine transforms and displacement fields")
    # ITK applies the last of a composite first.
    return steps[::-1]


def write_composite(path: Path, steps: Sequence[Step]) -> None:
    """Write point maps, target to image, as the ITK composite transform (``.h5``) that resamples image onto target.

    Parameters
    ----------
    steps
        In the order in which points of the target meet them.
    """
    import h5py

    kinds = [
        f"{'DisplacementField' if isinstance(step, Field) else 'Affine'}Transform_float_3_3" for step in steps[::-1]
    ]
    with h5py.File(path, "w", libver="earliest", track_order=False) as file:
        for key, word in (("ITKVersion", b"5.4"), ("HDFVersion", b""), ("OSName", b""), ("OSVersion", b"")):
            _write_words(file, key, word)
        _write_words(file, "TransformGroup/0/TransformType", b"CompositeTransform_float_3_3")
        for number, (kind, step) in enumerate(zip(kinds, steps[::-1], strict=True), start=1):
            parameters, fixed = _to_itk(step)
            entry = file.create_group(f"TransformGroup/{number}")
            _write_words(entry, "TransformType", kind.encode())
            options = {"compression": "gzip", "compression_opts": 5, "shuffle": True, "track_times": False}
            entry.create_dataset("TransformParameters", data=parameters.astype(np.float32), **options)
            entry.create_dataset("TransformFixedParameters", data=fixed, track_times=False)


def join_transforms(path: Path, transforms: Sequence[Path | Matrix]) -> None:
    """Write several transforms as one composite file (``.h5``).

    Parameters
    ----------
    transforms
        Files that resample forward, or 4x4 maps of source points to target points (RAS mm), in the order in which an
        image meets them.
    """
    write_composite(path, _steps(transforms))


def _steps(transforms: Sequence[Path | Matrix]) -> list[Step]:
    """Point maps of a chain, target to image, in the order in which points meet them."""
    steps: list[Step] = []
    for transform in reversed(transforms):
        steps += [inverted(transform)] if isinstance(transform, np.ndarray) else read_transform(Path(transform))
    return steps


def read_field(path: Path) -> Field:
    """Read a displacement field image of ANTs or greedy (vectors in LPS mm)."""
    import nibabel as nib

    image = nib.load(path)
    data = np.asarray(image.dataobj, dtype=np.float32).squeeze()  # type: ignore[attr-defined]
    return Field(data * _LPS.astype(np.float32), np.asarray(image.affine, dtype=np.float64))  # type: ignore[attr-defined]


def faded(field: Field, voxels: int = 6) -> Field:
    """Carry a field on to zero over some voxels beyond its grid, so that it does not end in a step."""
    data = np.pad(field.data, [(voxels, voxels)] * 3 + [(0, 0)], mode="linear_ramp")
    grid = np.array(field.grid, dtype=np.float64)
    grid[:3, 3] -= grid[:3, :3] @ np.full(3, voxels)
    return Field(data, grid)


def invert_field(field: Field, guess: Field | None = None) -> tuple[Field, NDArray[np.float64]]:
    """Invert a displacement field on its own grid.

    Every voxel y gets the v with ``(y + v) + u(y + v) = y`` by the fixed-point iteration ``v <- -u(y + v)`` (Chen et
    al., Med Phys 2008), or, where that does not settle, by Newton's method.

    Parameters
    ----------
    guess
        Where to start from, on the same grid.

    Returns
    -------
    inverse
    residual_mm : (X, Y, Z)
        Distance by which a voxel misses, mm.
    """
    goal = apply_affine(field.grid, np.indices(field.data.shape[:3]).reshape(3, -1).T)
    guess = guess or Field(-field.data, field.grid)
    found, miss = _solve_from(field, goal, goal + guess.data.reshape(-1, 3))
    data = (found - goal).reshape(field.data.shape).astype(np.float32)
    return Field(data, field.grid), miss.reshape(field.data.shape[:3])


def _solve(field: Field, goal: Matrix) -> Matrix:
    """Points that a field maps to the goals."""
    return _solve_from(field, goal, 2.0 * goal - field(goal))[0]


def _solve_from(field: Field, goal: Matrix, start: Matrix) -> tuple[Matrix, Matrix]:
    """Points that a field maps to the goals, and the distances by which they miss."""
    out, miss = np.empty_like(goal), np.empty(len(goal))
    for first in range(0, len(goal), _CHUNK):
        part = slice(first, first + _CHUNK)
        out[part], miss[part] = _settle(field, goal[part], start[part])
    stuck = np.flatnonzero(miss > _EXACT_MM)
    if stuck.size:
        # Next to steep places the iteration goes round in circles; from the voxel that maps nearest it does not.
        nodes = apply_affine(field.grid, np.indices(field.data.shape[:3]).reshape(3, -1).T)
        nearest = cKDTree(nodes + field.data.reshape(-1, 3)).query(goal[stuck])[1]
        out[stuck], miss[stuck] = _newton(field, goal[stuck], nodes[nearest])
    return out, miss


def _settle(field: Field, goal: Matrix, start: Matrix) -> tuple[Matrix, Matrix]:
    """Points that a field maps to the goals, by fixed-point iteration, and the distances by which they miss."""
    x = start
    off = field(x) - goal
    miss = np.linalg.norm(off, axis=1)
    left = np.arange(len(goal))
    for _ in range(_ROUNDS):
        left = left[miss[left] > _EXACT_MM]
        if left.size == 0:
            break
        trial = x[left] - off[left]
        now = field(trial) - goal[left]
        distance = np.linalg.norm(now, axis=1)
        better = distance < miss[left]
        left = left[better]
        x[left], off[left], miss[left] = trial[better], now[better], distance[better]
    return x, miss


def _newton(field: Field, goal: Matrix, start: Matrix) -> tuple[Matrix, Matrix]:
    """As :func:`_settle`, by Newton's method with halved steps, for few points."""
    x, miss = start.copy(), np.linalg.norm(field(start) - goal, axis=1)
    damping = np.ones(len(goal))
    for _ in range(_ROUNDS):
        slope = np.stack(
            [(field(x + _SLOPE_MM * e) - field(x - _SLOPE_MM * e)) / (2 * _SLOPE_MM) for e in np.eye(3)], axis=-1
        )
        # The least squares solution stands even where the map is flat.
        step = (np.linalg.pinv(slope, rcond=1e-3) @ (field(x) - goal)[..., None])[..., 0]
        trial = x - damping[:, None] * step
        distance = np.linalg.norm(field(trial) - goal, axis=1)
        better = distance < miss
        x[better], miss[better] = trial[better], distance[better]
        damping = np.where(better, 1.0, damping / 2.0)
        if miss.max() < _EXACT_MM:
            break
    return x, miss


def jacobian_determinants(field: Field, mask: NDArray[np.bool_]) -> Matrix:
    """Determinants (n,) of the field's Jacobian at the voxels of a mask on its grid; below zero it folds."""
    to_voxel = np.linalg.inv(field.grid[:3, :3])
    j = np.empty((int(mask.sum()), 3, 3))
    for axis in range(3):
        by_voxel = np.stack([part[mask] for part in np.gradient(field.data[..., axis])], axis=-1)
        j[:, axis] = by_voxel @ to_voxel + np.eye(3)[axis]
    return np.asarray(np.linalg.det(j))


def _write_words(group: object, key: str, word: bytes) -> None:
    import h5py

    data = np.array([word], dtype=object)
    kind = h5py.string_dtype("ascii")
    group.create_dataset(key, data=data, dtype=kind, track_times=False)  # type: ignore[attr-defined]


def _to_itk(step: Step) -> tuple[Matrix, Matrix]:
    if not isinstance(step, Field):
        lps = np.diag([*_LPS, 1.0])
        held = lps @ step @ lps
        return np.concatenate([held[:3, :3].ravel(), held[:3, 3]]), np.zeros(3)
    voxel_mm = np.linalg.norm(step.grid[:3, :3], axis=0)
    direction = _LPS[:, None] * step.grid[:3, :3] / voxel_mm
    fixed = np.concatenate([step.data.shape[:3], _LPS * step.grid[:3, 3], voxel_mm, direction.ravel()])
    # ITK's first axis runs fastest, the vector's components within it.
    return np.asarray(np.transpose(step.data * _LPS, (2, 1, 0, 3)).ravel()), fixed


def _field_from_itk(parameters: Matrix, fixed: Matrix) -> Field:
    shape, origin, voxel_mm = fixed[:3].astype(int), fixed[3:6], fixed[6:9]
    data = parameters.reshape(*shape[::-1], 3).transpose(2, 1, 0, 3) * _LPS
    grid = np.eye(4)
    grid[:3, :3] = _LPS[:, None] * fixed[9:18].reshape(3, 3) * voxel_mm
    grid[:3, 3] = _LPS * origin
    return Field(data.astype(np.float32), grid)


def _affine_from_itk(parameters: Matrix, centre: Matrix) -> Matrix:
    held = np.eye(4)
    held[:3, :3] = parameters[:9].reshape(3, 3)
    held[:3, 3] = parameters[9:] + centre - held[:3, :3] @ centre
    lps = np.diag([*_LPS, 1.0])
    return np.asarray(lps @ held @ lps)
