"""Maps of one participant against the controls: how unusual every voxel is for the participant's age and sex."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError

LEAST_CONTROLS: Final = 10
"""Controls below which a z-map is made, but with a warning."""
_LEAST_DOF: Final = 3
_SLAB: Final = 2_000_000


def z_maps(
    values: NDArray[np.floating],
    controls: NDArray[np.bool_],
    covariates: NDArray[np.float64],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Score every participant in every voxel, by what the linear model of the controls predicts.

    A new value misses its prediction by ``s sqrt(1 + x (X'X)^-1 x')`` on average, so that the ratio follows Student's t
    with the model's degrees of freedom; z is the normal deviate of equal probability. A control is predicted by the
    others, which needs no second fit: its ratio is the externally studentised residual (Belsley, Kuh and Welsch,
    Regression Diagnostics, 1980, chapter 2).

    Parameters
    ----------
    values : (n, V)
        nan where there is no value.
    controls : (n,)
        Who is a control.
    covariates : (n, k)
        Columns such as age and sex, without the intercept.
    out : (n, V)
        Where the result goes; may be ``values``, for a thousand participants fill a gigabyte.

    Returns
    -------
    (n, V)
        nan where the participant or one of the controls has no value, where all controls are equal, for a participant
        of a category that no control belongs to, and for a control who is the only one of a category.

    Raises
    ------
    InputError
        If there are too few controls for the covariates.
    """
    design = np.column_stack([np.ones(len(controls)), covariates])
    own = design[controls]
    # A column that is the same in all controls says nothing of them, nor they of somebody who differs there.
    flat = np.ptp(own, axis=0) == 0.0
    foreign = (design[:, flat] != own[0, flat]).any(axis=1) if len(own) else np.zeros(len(controls), dtype=bool)
    flat[0] = False
    design, own = design[:, ~flat], own[:, ~flat]
    dof = len(own) - (np.linalg.matrix_rank(own) if len(own) else 0)
    if dof - 1 < _LEAST_DOF:
        problem = f"{len(own)} controls leave {dof} degrees of freedom"
        raise InputError("z-maps", problem, "Add controls, or take fewer covariates")
    inverse = np.linalg.pinv(own)
    leverage = ((design @ inverse) ** 2).sum(axis=1)
    alone = controls & (leverage > 1.0 - 1e-9)
    # What a residual is divided by: of a control, who took part in the fit, and of somebody new.
    spread = np.sqrt(np.where(controls, np.where(alone, np.nan, 1.0 - leverage), 1.0 + leverage))[:, None]
    left_out = np.where(controls, dof - 1, dof)[:, None]
    out = np.empty(values.shape, dtype=np.float32) if out is None else out
    width = max(_SLAB // len(values), 1)
    for first in range(0, values.shape[1], width):
        part = slice(first, first + width)
        y = np.asarray(values[:, part], dtype=np.float64)
        residual = y - design @ (inverse @ y[controls])
        total = (residual[controls] ** 2).sum(axis=0)
        total = np.where(total > 1e-12 * (y[controls] ** 2).sum(axis=0), total, np.nan)
        rest = total - np.where(controls[:, None], (residual / spread) ** 2, 0.0)
        out[:, part] = normal_deviate(residual / spread / np.sqrt(np.maximum(rest, 0.0) / left_out), left_out)
    out[foreign | alone] = np.nan
    return out


def normal_deviate(t: NDArray[np.float64], dof: NDArray[np.integer]) -> NDArray[np.float64]:
    """Normal deviate of the same probability as a value of Student's t."""
    from scipy.special import ndtri, stdtr

    # The lower tail keeps its digits; 1e-300 is z = 37.
    return np.asarray(-np.sign(t) * ndtri(np.maximum(stdtr(dof, -np.abs(t)), 1e-300)))
