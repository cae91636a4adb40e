"""A receive profile fitted together with the signals of whole structures.

Where neither a reference coil nor a transmit map tells the receive field, what is left is the image itself. A plain
bias correction of the image would take tissue for field. Here every structure (cortex, white matter, ventricles, ...)
has one signal throughout the head, seen through the acquisition, and only a product of that with a polynomial of low
order is the field. A real gradient of concentration of that order is taken for field all the same, in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import VoxelKernel, push_compartments
from sodium_prep.pvc.noise import Noise, gram
from sodium_prep.pvc.psf import PsfModel

Array = NDArray[np.float64]

_CONVERGED: Final = 1e-3
_SCALE_MM: Final = 80.0


@dataclass(frozen=True)
class ReceiveFit:
    """A fitted receive profile.

    Attributes
    ----------
    values : (X, Y, Z) float32
        Relative sensitivity, mean 1 over the fitted voxels; beyond them held within the range that it has there.
    fitted : (X, Y, Z) bool
        Voxels of the fit.
    coefficients, covariance : (k,), (k, k)
        Of the polynomial's terms in the logarithm, and their covariance from noise widened by the misfit.
    converged
        Whether the last step changed no voxel by more than a thousandth.
    """

    values: NDArray[np.float32]
    fitted: NDArray[np.bool_]
    coefficients: Array = field(repr=False)
    covariance: Array = field(repr=False)
    converged: bool


def fit_receive_profile(
    image: NDArray[np.floating],
    sodium_affine: Array,
    noise: Noise,
    compartments: Compartments,
    sodium_to_t1w: Array,
    relaxations: Mapping[Tissue, Relaxation],
    psf: PsfModel,
    *,
    order: int = 2,
    voxel_kernel: VoxelKernel = "point",
    steps: int = 12,
) -> ReceiveFit:
    """Receive profile as the exponential of a polynomial, by Gauss-Newton with all signals free (variable projection).

    Parameters
    ----------
    image : (X, Y, Z)
        Native sodium image; the rest as for :func:`sodium_prep.pvc.forward.push_compartments`.
    order
        Of the polynomial; 2 has nine terms.
    """
    usable = np.isfinite(image)
    values = np.where(usable, image, 0.0).astype(np.float64)
    blurred = push_compartments(
        compartments, sodium_to_t1w, image.shape, sodium_affine, psf, relaxations, voxel_kernel=voxel_kernel
    )
    mask = fit_mask(blurred, compartments.names, compartments.kinds, usable)
    every = _terms(image.shape, sodium_affine, mask, order)
    terms = every[:, mask]
    members = _structures(compartments)
    system = labbe(blurred, values, mask, noise, compartments.kinds)
    coefficients = np.zeros(len(terms))
    change, covariance = np.inf, np.full((len(terms),) * 2, np.nan)
    for _ in range(steps):
        corrected = system.with_image(values[mask] * np.exp(-coefficients @ terms))
        fit = corrected.fit(members)
        fine = members @ np.nan_to_num(fit.values)
        predicted = fine @ system.blurred
        moves = terms * predicted
        moves -= (members @ np.nan_to_num(fit.response(moves))).T @ system.blurred
        inverse = np.linalg.inv(gram(moves, moves))
        step = inverse @ (moves @ (corrected.image - predicted))
        coefficients = coefficients + step
        covariance = max(1.0, fit.misfit) * inverse @ noise.quadratic_form(moves.astype(np.float32), mask) @ inverse
        change = float(np.abs(step @ terms).max())
        if change < _CONVERGED:
            break
    log_profile = coefficients @ terms
    whole = np.clip(np.tensordot(coefficients, every, axes=1), log_profile.min(), log_profile.max())
    profile = np.exp(whole - np.log(np.mean(np.exp(log_profile))))
    return ReceiveFit(profile.astype(np.float32), mask, coefficients, covariance, change < _CONVERGED)


def _terms(shape: tuple[int, ...], affine: Array, mask: NDArray[np.bool_], order: int) -> Array:
    """Products of coordinates up to an order, without the constant, about the middle of the fitted voxels; (k, ...)."""
    index = np.indices(shape).reshape(3, -1)
    points = affine[:3, :3] @ index
    points = (points - points[:, mask.reshape(-1)].mean(axis=1, keepdims=True)) / _SCALE_MM
    chosen = [c for n in range(1, order + 1) for c in combinations_with_replacement(range(3), n)]
    return np.stack([np.prod(points[list(c)], axis=0) for c in chosen]).reshape(len(chosen), *shape)


def _structures(compartments: Compartments) -> Array:
    """Membership of compartments in structures (n, k); what is not reported stays apart."""
    keys = [
        (compartments.structures[i], compartments.tissues[i]) if kind == "region" else i
        for i, kind in enumerate(compartments.kinds)
    ]
    columns = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    members = np.zeros((len(keys), len(columns)))
    members[np.arange(len(keys)), [columns[key] for key in keys]] = 1.0
    return members
