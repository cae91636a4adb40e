"""Rigid and affine transforms: 4x4 point maps in RAS mm, and ITK files.

In memory a transform maps points: ``p_to = M @ p_from``. A BIDS file ``from-A_to-B_mode-image_xfm`` resamples image A
onto B; ITK does that with the map of points of B to points of A, in LPS. So the file of ``a_to_b`` holds the inverse of
``a_to_b``, in LPS, and the two functions here undo exactly that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.errors import InputError

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KINDS = ("AffineTransform", "MatrixOffsetTransformBase")


def write_itk_affine(path: Path, a_to_b: ArrayLike) -> None:
    """Write a 4x4 map of points of A to points of B as the ITK text file that resamples image A onto B.

    Parameters
    ----------
    path
        File ending in ``.txt``.
    a_to_b : (4, 4)
        Affine point map, RAS mm.
    """
    matrix = np.asarray(a_to_b, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.all(np.isfinite(matrix)):
        raise ValueError("the transform is not a finite 4x4 matrix")
    held = _LPS @ np.linalg.inv(matrix) @ _LPS
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


def apply_affine(matrix: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """Map points (..., 3) by a 4x4 matrix."""
    m = np.asarray(matrix, dtype=np.float64)
    return np.asarray(np.asarray(points, dtype=np.float64) @ m[:3, :3].T + m[:3, 3])
