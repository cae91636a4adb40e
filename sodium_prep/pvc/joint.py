"""Tissue fractions that the sodium image has had a say in: borders between tissues fitted with all regional signals.

The borders of the head are moved until image, regional signals and what is known of the fractions' errors agree best.
The model is linear in the signals and nearly so in the borders, so this is Gauss-Newton with random effects of mean
zero (Henderson, Biometrics 1975;31:423, in each linear step): the head is made anew with the borders where they are
thought to be, and the derivatives are taken there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import RegionalSystem, labbe
from sodium_prep.pvc.fraction_errors import BORDERS, WAYS, FractionErrors, Slopes, fraction_errors, with_borders_moved
from sodium_prep.pvc.noise import Noise

Array = NDArray[np.float64]

_STEPS: Final = 6
_HALVINGS: Final = 3
_CONVERGED: Final = 1e-3
"""Part of the objective that a step must gain to be followed by another."""


@dataclass(frozen=True)
class JointModel:
    """The model of an image about the best place of the borders.

    Attributes
    ----------
    amounts : (2, 4)
        How far each border moved, see :func:`sodium_prep.pvc.fraction_errors.with_borders_moved`.
    compartments, blurred
        The head with borders there, and what the acquisition shows of it.
    errors
        Of these fractions, or of those before a last step that gained next to nothing.
    system
        Least squares of the image with the errors at borders as random effects.
    objective
        Weighted sum of squares of residual and borders, at the start and after every step; each is smaller than the
        one before.
    """

    amounts: Array
    compartments: Compartments = field(repr=False)
    blurred: NDArray[np.float32] = field(repr=False)
    errors: FractionErrors = field(repr=False)
    system: RegionalSystem = field(repr=False)
    objective: tuple[float, ...]


def joint_model(
    compartments: Compartments,
    blurred: NDArray[np.float32],
    errors: FractionErrors,
    image: NDArray[np.floating],
    mask: NDArray[np.bool_],
    noise: Noise,
    membership: Array,
    push: Callable[[Compartments], NDArray[np.float32]],
    to_native: Array,
    core: NDArray[np.bool_] | None = None,
) -> JointModel:
    """Move the borders of a head until its model fits an image best.

    Parameters
    ----------
    compartments, blurred, errors
        The head as it is thought to be, what ``push`` makes of it, and the errors of its fractions.
    image, mask, noise, core
        As for :func:`sodium_prep.pvc.estimators.labbe`.
    membership : (n_compartments, k)
        Which compartments share a signal.
    push
        Makes of compartments what the acquisition would show of them, (n, X * Y * Z).
    to_native : (4, 4)
        From voxels of the T1w grid to those of the image.
    """
    slopes, original = Slopes.over(mask), compartments
    amounts = np.zeros((len(BORDERS), len(WAYS)))

    def least_squares() -> tuple[Array, float]:
        """Signals of the compartments with the borders where they are, and the sum of squares that they leave."""
        plain = labbe(blurred, image, mask, noise, original.kinds, core)
        fine = membership @ np.nan_to_num(plain.estimate(membership)[0])
        return fine, float(np.sum((plain.image - fine @ plain.blurred) ** 2))

    def linear() -> RegionalSystem:
        """The model about the borders where they are."""
        borders = errors.at_borders
        about = np.array(image, np.float64)
        about[mask] += amounts.reshape(-1) @ borders.images[:, np.flatnonzero(mask)]
        return labbe(blurred, about, mask, noise, original.kinds, core, borders)

    system = linear()
    objective = [least_squares()[1]]
    for _ in range(_STEPS):
        wanted = system.estimate(membership)[1].reshape(amounts.shape)
        before = amounts, compartments, blurred
        for halving in range(_HALVINGS):
            amounts = before[0] + (wanted - before[0]) / 2**halving
            compartments = with_borders_moved(original, amounts, slopes, to_native)
            blurred = push(compartments)
            fine, residual = least_squares()
            found = residual + float(system.penalties @ amounts.reshape(-1) ** 2)
            if found < objective[-1]:
                break
        else:
            amounts, compartments, blurred = before
            break
        objective.append(found)
        converged = found > (1.0 - _CONVERGED) * objective[-2]
        if not converged:
            errors = fraction_errors(compartments, fine, mask, push)
        system = linear()
        if converged:
            break
    return JointModel(amounts, compartments, blurred, errors, system, tuple(objective))
