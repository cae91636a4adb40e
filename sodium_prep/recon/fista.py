"""Accelerated proximal gradient descent: least squares of k-space plus a prior that has a proximal operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.encoding import LeastSquares

Image = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with the number of iterations done and the largest number there can be."""

_MOMENTUM = 4
"""The larger, the slower the momentum grows; 2 would be FISTA itself."""


def fista(
    problem: LeastSquares,
    proximal: Callable[[Image, float], Image],
    iterations: int = 100,
    tolerance: float = 5e-4,
    start: Image | None = None,
    progress: Progress | None = None,
) -> Image:
    """Image x of least ``1/2 x^T N x - b^T x + R(x)``.

    FISTA (Beck and Teboulle, SIAM J Imaging Sci 2009;2:183) with steps of one over the largest eigenvalue of N and the
    slower momentum of Chambolle and Dossal (J Optim Theory Appl 2015;166:968), with which the images themselves
    converge and proximal operators may be inexact; it is dropped whenever it points uphill (O'Donoghue and Candes,
    Found Comput Math 2015;15:715).

    Parameters
    ----------
    problem
        N and b.
    proximal
        ``(v, step) -> argmin_x 1/2 |x - v|^2 + step R(x)``; may use v as memory.
    iterations
        At most so many.
    tolerance
        Done when an iteration changes the image by less than this part of its norm.
    start
        (X, Y, Z); None for b, the gridded image.
    progress
        Called after each iteration.

    Returns
    -------
    (X, Y, Z) float32, in the units of b.
    """
    step = 1.0 / problem.largest_eigenvalue()
    x = (problem.right if start is None else start).astype(np.float32)
    ahead, age = x, 0
    for iteration in range(iterations):
        descent = problem.normal(ahead)
        descent -= problem.right
        descent *= np.float32(-step)
        descent += ahead
        new = proximal(descent, step)
        change = new - x
        if np.vdot(ahead - new, change) > 0.0:
            age = 0
        ahead = change * np.float32(age / (age + 1 + _MOMENTUM))
        ahead += new
        x, age = new, age + 1
        if progress is not None:
            progress(iteration + 1, iterations)
        if np.linalg.norm(change) <= tolerance * np.linalg.norm(x):
            break
    return x
