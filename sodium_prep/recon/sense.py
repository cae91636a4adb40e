"""Multi-coil least squares by few iterations of conjugate gradients.

Density compensation as weights and sensitivities of unit norm are the preconditioner, so that the gridded image is the
first iterate and two more steps are all that undersampled, noisy data bear: after them the residual still falls while
the error grows with the noise. The number of steps is told by noise itself: a sample of it goes through the same steps
(which are linear in the data once their lengths are fixed), and the last step before it begins to grow is the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.encoding import LeastSquares

Image = NDArray[np.float32]

MAX_STEPS = 10
_GROWTH = 1.02
"""Rise of the noise over its lowest value at which iteration ends."""


@dataclass(frozen=True)
class KrylovFilter:
    """Steps of conjugate gradients with fixed lengths: a polynomial in the normal operator, linear in the data.

    Attributes
    ----------
    steps
        Length of each step and the share of the old direction in the next one.
    """

    steps: tuple[tuple[float, float], ...]

    def __call__(self, problem: LeastSquares) -> Image:
        """Image of other data of the same scan."""
        image, residual = problem.right, problem.right - problem.normal(problem.right)
        direction = residual
        for number, (length, share) in enumerate(self.steps, start=1):
            image = image + np.float32(length) * direction
            if number < len(self.steps):
                residual = residual - np.float32(length) * problem.normal(direction)
                direction = residual + np.float32(share) * direction
        return image


def sense(
    problem: LeastSquares,
    noise: Sequence[Image],
    max_steps: int = MAX_STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Image, KrylovFilter, list[Image]]:
    """Least squares by conjugate gradients from the gridded image on, stopped before noise grows.

    Pruessmann et al., MRM 2001;46:638, with the weights of the density compensation.

    Parameters
    ----------
    noise
        (X, Y, Z) each: samples of the noise in ``problem.right``.
    max_steps
        Steps at most.
    progress
        Called with the number of the step and ``max_steps``.

    Returns
    -------
    Image in signal per mm^3, the filter that made it of the data, and what it made of the noise.
    """
    # The data and every sample of noise: image, residual, direction.
    runs = [[start, start - problem.normal(start), np.zeros_like(start)] for start in (problem.right, *noise)]
    data = runs[0]
    lowest, before = _level([run[0] for run in runs[1:]]), 0.0
    lengths: list[float] = []
    shares: list[float] = []
    for number in range(1, max_steps + 1):
        square = float(np.vdot(data[1], data[1]))
        if square == 0.0:
            break
        share = np.float32(square / before if before else 0.0)
        for run in runs:
            run[2] = run[1] + share * run[2]
        through = problem.normal(data[2])
        length = np.float32(square / float(np.vdot(data[2], through)))
        moved = [run[0] + length * run[2] for run in runs]
        level = _level(moved[1:])
        if level > _GROWTH * lowest:
            break
        lowest, before = min(lowest, level), square
        lengths.append(float(length))
        shares.append(float(share))
        if progress is not None:
            progress(number, max_steps)
        for run, image in zip(runs, moved, strict=True):
            run[0] = image
            run[1] = run[1] - length * (through if run is data else problem.normal(run[2]))
    steps = tuple(zip(lengths, [*shares[1:], 0.0][: len(lengths)], strict=True))
    return data[0], KrylovFilter(steps), [run[0] for run in runs[1:]]


def _level(images: Sequence[Image]) -> float:
    return float(np.sqrt(sum(float(np.vdot(image, image)) for image in images)))
