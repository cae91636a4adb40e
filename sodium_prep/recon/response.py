"""What a reconstruction makes of a point: its point spread function, measured on the data of the scan itself.

Points are added to the data, the same reconstruction is run again, and what changed is the response (the local impulse
response of Fessler and Rogers, IEEE Trans Image Process 1996;5:1346). A linear method has one answer. A nonlinear one
answers to the contrast and the neighbourhood: its points are as bright as the head itself and lie all over it, and the
mean of their images is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.encoding import LeastSquares

Image = NDArray[np.float32]

REACH: Final = 12
"""Voxels from the point to the border of its image."""
_BRIGHT: Final = 0.25
"""Of the object's signal: where an image is brighter than this, points may be set."""


def point_lattice(image: Image, reach: int = REACH) -> NDArray[np.intp]:
    """Voxels (n, 3) within an object whose surroundings of ``reach`` voxels lie in the image and do not overlap.

    Of all offsets of the lattice the one with the most points is taken; an object that none fits gets the voxel
    nearest to its middle.
    """
    level = float(np.percentile(image, 99.0))
    allowed = image > _BRIGHT * level
    for axis, n in enumerate(image.shape):
        border = np.ones(n, dtype=bool)
        border[reach : n - reach] = False
        allowed[tuple(border if a == axis else slice(None) for a in range(3))] = False
    inside = np.argwhere(allowed)
    if not len(inside):
        return np.asarray([[n // 2 for n in image.shape]], dtype=np.intp)
    step = 2 * reach + 1
    offset = inside % step
    _, group, counts = np.unique(offset, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(inside[group.reshape(-1) == int(counts.argmax())], dtype=np.intp)


def point_response(
    solve: Callable[[LeastSquares], Image],
    problem: LeastSquares,
    image: Image,
    seen: Callable[[Image], Image],
    contrast: float,
    reach: int = REACH,
) -> NDArray[np.float64]:
    """Mean image of points.

    Parameters
    ----------
    solve
        The reconstruction.
    problem, image
        Data, and their reconstruction by ``solve``.
    seen
        What an object sends into ``problem.right``: ``Re A^H W D A`` with the decay D of a tissue.
    contrast
        Brightness of the points in the gridded image, signal per mm^3.
    reach
        Half the edge of the result.

    Returns
    -------
    (2 reach + 1,) * 3 with the points in the middle, over their integral: it sums up to near 1. What is odd in it
    depends on the side on which a point has an edge, and is left out.
    """
    points, objects = points_in(image, reach)
    added = seen(objects)
    amplitude = contrast / float(added[tuple(points.T)].mean())
    change = solve(replace(problem, right=problem.right + np.float32(amplitude) * added)) - image
    return mean_response(change / np.float32(amplitude), points, reach)


def points_in(image: Image, reach: int = REACH) -> tuple[NDArray[np.intp], Image]:
    """:func:`point_lattice`, and the object (X, Y, Z) that is 1 in these voxels and 0 elsewhere."""
    points = point_lattice(image, reach)
    objects = np.zeros_like(image)
    objects[tuple(points.T)] = 1.0
    return points, objects


def mean_response(change: Image, points: NDArray[np.intp], reach: int = REACH) -> NDArray[np.float64]:
    """Mean image (2 reach + 1,) * 3 around voxels (n, 3), of which what is odd in space is left out."""
    windows = [change[tuple(slice(p - reach, p + reach + 1) for p in point)] for point in points]
    mean = np.asarray(np.mean(windows, axis=0, dtype=np.float64))
    return np.asarray(0.5 * (mean + mean[::-1, ::-1, ::-1]))
