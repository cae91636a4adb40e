"""Rigid and affine transforms: 4x4 point maps in RAS mm, their algebra, ITK files, and images moved by them.

In memory a transform maps points: ``p_to = M @ p_from``. A BIDS file ``from-A_to-B_mode-image_xfm`` resamples image A
onto B; ITK does that with the map of points of B to points of A, in LPS. So the file of ``a_to_b`` holds the inverse of
``a_to_b``, in LPS, and the two functions here undo exactly that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.errors import InputError

Matrix = NDArray[np.float64]

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KINDS = ("AffineTransform", "MatrixOffsetTransformBase")
_RIGID_TOLERANCE = 1e-4
_MEAN_ROUNDS = 100
_NUFFT_TOLERANCE = 1e-6


def write_itk_affine(path: Path, a_to_b: ArrayLike) -> None:
    """Write a 4x4 map of points of A to points of B as the ITK text file that resamples image A onto B.

    Parameters
    ----------
    path
        File ending in ``.txt``.
    a_to_b : (4, 4)
        Affine point map, RAS mm.
    """
    held = _LPS @ np.linalg.inv(check_affine(a_to_b)) @ _LPS
    numbers = [*held[:3, :3].ravel(), *held[:3, 3]]
    path.write_text(
        "#Insight Transform File V1.0\n"
        "#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(repr(float(number)) for number in numbers)}\n"
        "FixedParameters: 0 0 0\n"
    )


def read_itk_affine(path: Path) -> NDArray[np.float64]:
    """Read an ITK affine file (``.txt``, ``.tfm`` or ``.mat``) that resamples image A onto B.

    Returns
    -------
    (4, 4)
        The map of points of A to points of B, RAS mm.

    Raises
    ------
    InputError
        If the file is not one ITK affine or rigid transform with a matrix.
    """
    parameters, centre = _read_mat(path) if path.suffix == ".mat" else _read_text(path)
    if parameters.size != 12 or centre.size != 3:
        raise InputError(path, "it is not one affine transform with 12 parameters", "Give an ITK affine transform")
    held = np.eye(4)
    held[:3, :3] = parameters[:9].reshape(3, 3)
    held[:3, 3] = parameters[9:] + centre - held[:3, :3] @ centre
    if abs(np.linalg.det(held)) < 1e-9:
        raise InputError(path, "its matrix is singular", "Give an ITK affine transform")
    return np.asarray(_LPS @ np.linalg.inv(held) @ _LPS)


def _read_text(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    fields: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields.setdefault(key.strip(), []).append(value.strip())
    kinds = fields.get("Transform", [])
    if len(kinds) != 1 or not kinds[0].startswith(_KINDS):
        found = ", ".join(kinds) or "no transform"
        raise InputError(path, f"it holds {found}", "Give one AffineTransform or MatrixOffsetTransformBase")
    return tuple(  # type: ignore[return-value]
        np.array([float(word) for word in fields.get(key, [""])[0].split()])
        for key in ("Parameters", "FixedParameters")
    )


def _read_mat(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.io import loadmat

    content = {key: value.ravel() for key, value in loadmat(path).items() if not key.startswith("__")}
    kinds = [key for key in content if key.startswith(_KINDS)]
    if len(kinds) != 1 or "fixed" not in content:
        raise InputError(path, f"it holds {', '.join(content)}", "Give one ITK affine transform")
    return content[kinds[0]].astype(np.float64), content["fixed"].astype(np.float64)


def check_affine(matrix: ArrayLike) -> Matrix:
    """Return a matrix as float64 if it can be an affine map of points.

    Raises
    ------
    ValueError
        If it is not 4x4, not finite, singular, or its last row is not 0 0 0 1.
    """
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape != (4, 4) or not np.all(np.isfinite(m)):
        raise ValueError("the transform is not a finite 4x4 matrix")
    if not np.allclose(m[3], (0.0, 0.0, 0.0, 1.0), rtol=0.0, atol=1e-9):
        raise ValueError(f"the last row of the transform is {m[3]}, not 0 0 0 1")
    if abs(np.linalg.det(m[:3, :3])) < 1e-9:
        raise ValueError("the transform is singular")
    return m


def check_rigid(matrix: ArrayLike, tolerance: float = _RIGID_TOLERANCE) -> Matrix:
    """Return a matrix as float64 if it is a rotation and a translation; ValueError if it scales, shears or mirrors."""
    m = check_affine(matrix)
    r = m[:3, :3]
    if np.abs(r @ r.T - np.eye(3)).max() > tolerance or np.linalg.det(r) < 0.0:
        raise ValueError("the transform is not rigid: it scales, shears or mirrors")
    return m


def apply_affine(matrix: ArrayLike, points: ArrayLike) -> Matrix:
    """Map points (..., 3) by a 4x4 matrix."""
    m = np.asarray(matrix, dtype=np.float64)
    return np.asarray(np.asarray(points, dtype=np.float64) @ m[:3, :3].T + m[:3, 3])


def compose(*steps: ArrayLike) -> Matrix:
    """One map for several, given in the order in which points meet them: ``compose(a_to_b, b_to_c)`` is ``a_to_c``."""
    out = np.eye(4)
    for step in steps:
        out = check_affine(step) @ out
    return out


def invert(matrix: ArrayLike) -> Matrix:
    """Map of the opposite direction."""
    return np.asarray(np.linalg.inv(check_affine(matrix)), dtype=np.float64)


def nearest_rotation(matrix: ArrayLike) -> Matrix:
    """Return the rotation (3, 3) that is nearest to a (3, 3) matrix (Frobenius norm; Kabsch, Acta Cryst A 1976)."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    return np.asarray(u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt)


def rigid_log(matrix: ArrayLike) -> Matrix:
    """Logarithm of a rigid map: (6,), rotation vector in radians (angle below pi), then velocity in mm.

    The motion ``exp(t log M)`` turns and advances at constant speed and passes through M at t = 1. Closed form: Murray,
    Li, Sastry, A Mathematical Introduction to Robotic Manipulation, 1994, section 2.3.
    """
    from scipy.spatial.transform import Rotation

    m = check_rigid(matrix)
    turn = Rotation.from_matrix(nearest_rotation(m[:3, :3])).as_rotvec()
    return np.concatenate([turn, np.linalg.solve(_left_jacobian(turn), m[:3, 3])])


def rigid_exp(twist: ArrayLike) -> Matrix:
    """Rigid map (4, 4) of a logarithm (6,); inverse of :func:`rigid_log`."""
    from scipy.spatial.transform import Rotation

    vector = np.asarray(twist, dtype=np.float64)
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(vector[:3]).as_matrix()
    out[:3, 3] = _left_jacobian(vector[:3]) @ vector[3:]
    return out


def rigid_mean(matrices: Sequence[ArrayLike]) -> Matrix:
    """Mean of rigid maps: the M for which the logarithms of ``inv(M) @ M_i`` add up to zero.

    This group mean (Pennec, Arsigny, in Matrix Information Geometry, 2013, chapter 7) goes along with any change of
    coordinates on either side, and the mean of the inverses is the inverse of the mean, so that no image is favoured.

    Raises
    ------
    ValueError
        If there are no matrices, or one is turned by 90 degrees or more against their mean, which may then not be the
        only one.
    """
    maps = [check_rigid(matrix) for matrix in matrices]
    if not maps:
        raise ValueError("there is nothing to take the mean of")
    mean = maps[0].copy()
    mean[:3, :3] = nearest_rotation(mean[:3, :3])
    for _ in range(_MEAN_ROUNDS):
        logs = np.array([rigid_log(np.linalg.solve(mean, matrix)) for matrix in maps])
        step = logs.mean(axis=0)
        mean = mean @ rigid_exp(step)
        mean[:3, :3] = nearest_rotation(mean[:3, :3])
        # Within 90 degrees of it, a mean is the only one.
        if np.abs(step).max() < 1e-11 and np.linalg.norm(logs[:, :3], axis=1).max() < np.pi / 2.0:
            return mean
    raise ValueError("the rotations are too far apart to have one mean")


def _left_jacobian(turn: Matrix) -> Matrix:
    """Matrix that makes the translation of a twist's exponential from its velocity."""
    x, y, z = turn
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = float(np.linalg.norm(turn))
    if angle < 1e-4:  # both quotients by their series, which are exact to 1e-17 here
        first, second = 0.5 - angle**2 / 24.0, 1.0 / 6.0 - angle**2 / 120.0
    else:
        first, second = (1.0 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
    return np.asarray(np.eye(3) + first * cross + second * cross @ cross)


def resample_bandlimited(
    image: NDArray[np.floating],
    affine: Matrix,
    image_to_target: Matrix,
    shape: Sequence[int],
    target_affine: Matrix,
    *,
    margin: int = 4,
    outside: float = 0.0,
) -> NDArray[np.float32]:
    """Rigidly move an image onto another grid by its own Fourier series.

    An image made from k-space holds no frequency beyond its sampling limit, so its trigonometric polynomial is the
    image between the voxels too; linear or spline kernels would blur it, each position within a voxel differently.

    Parameters
    ----------
    image
        (X, Y, Z), real.
    affine, target_affine
        Voxel to world of both grids, RAS mm.
    image_to_target
        (4, 4) map of points of the image to points of the target space.
    shape
        Of the target grid; its voxels should not be larger than the image's, or it is aliased.
    margin
        Voxels around the image on which it fades to zero, so that opposite faces do not meet.
    outside
        Value where the image does not reach.

    Returns
    -------
    Values on the target grid.
    """
    import finufft
    import scipy.fft

    padded = np.pad(np.asarray(image, dtype=np.float32), margin, mode="linear_ramp")
    spectrum = scipy.fft.fftshift(scipy.fft.fftn(padded, workers=1)).astype(np.complex64)
    for axis, n in enumerate(padded.shape):
        if n % 2 == 0:  # the Nyquist frequency has no mirror image; left in, it would make the result complex
            spectrum[tuple(0 if a == axis else slice(None) for a in range(3))] = 0.0
    to_voxel = np.linalg.solve(affine, np.linalg.solve(image_to_target, target_affine))
    steps = np.ogrid[tuple(slice(n) for n in shape)]
    inside = np.ones(tuple(shape), dtype=bool)
    angles = []
    for row, n, n_padded in zip(to_voxel[:3], image.shape, padded.shape, strict=True):
        voxel = row[3] + sum(slope * step for slope, step in zip(row[:3], steps, strict=True))
        inside &= (voxel > -0.5) & (voxel < n - 0.5)
        angles.append((2.0 * np.pi * (voxel + margin) / n_padded).astype(np.float32))
    angles = [angle[inside] for angle in angles]
    values = finufft.nufft3d2(*angles, spectrum, eps=_NUFFT_TOLERANCE, isign=1, nthreads=1).real / padded.size
    out = np.full(inside.shape, outside, dtype=np.float32)
    out[inside] = values
    return out
