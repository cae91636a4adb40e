"""Conjugate gradients for least squares with a quadratic prior."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sodium_prep.recon.fista import Image, Progress


def conjugate_gradients(
    operator: Callable[[Image], Image],
    right: Image,
    start: Image,
    iterations: int,
    tolerance: float,
    progress: Progress | None = None,
) -> Image:
    """Solution x of ``operator(x) = right`` for a symmetric operator without negative eigenvalues.

    Hestenes and Stiefel, J Res Natl Bur Stand 1952;49:409.

    Parameters
    ----------
    start
        Where to begin.
    iterations
        At most so many.
    tolerance
        Done when an iteration changes x by less than this part of its norm.
    progress
        Called after each iteration.

    Returns
    -------
    Of the shape of ``right``, float32.
    """
    x = start.astype(np.float32)
    residual = right - operator(x)
    direction = residual.copy()
    power = float(np.vdot(residual, residual))
    for iteration in range(iterations):
        if power == 0.0:
            break
        through = operator(direction)
        step = power / float(np.vdot(direction, through))
        x += np.float32(step) * direction
        residual -= np.float32(step) * through
        before, power = power, float(np.vdot(residual, residual))
        if progress is not None:
            progress(iteration + 1, iterations)
        if step * np.linalg.norm(direction) <= tolerance * np.linalg.norm(x):
            break
        direction *= np.float32(power / before)
        direction += residual
    return x
