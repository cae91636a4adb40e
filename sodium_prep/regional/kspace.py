"""Signals straight from k-space for every design of regions, with what registration and T2* do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import RegionalSystem
from sodium_prep.pvc.forward import VoxelKernel
from sodium_prep.pvc.fraction_errors import FractionErrors
from sodium_prep.pvc.kspace import KspaceFit, KspaceSystem, Spokes
from sodium_prep.pvc.sensitivity import motion_derivatives
from sodium_prep.regional.designs import Design

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """What wrong assumptions do to the values of one design.

    Attributes
    ----------
    motion : (n, 12)
        Change by the first and second derivatives of :func:`sodium_prep.pvc.sensitivity.motion_derivatives`.
    fractions : (n, m)
        Change per unit of each error of the tissue fractions.
    slopes
        Change per unit of each parameter of the blurring, (n,) each.
    """

    motion: Array
    fractions: Array
    slopes: dict[tuple[str, str], Array]


@dataclass(frozen=True)
class KspaceFits:
    """One entry per design.

    Attributes
    ----------
    fits
        Signals with their noise.
    misfits
        Residual in the brain over its expectation.
    responses
        What registration, fractions and T2* do. The width of the point spread function has no part in it.
    covariance
        From noise, of the columns that designs report, across all designs in their order.
    """

    fits: list[KspaceFit]
    misfits: list[float]
    responses: list[Response]
    covariance: Array


def kspace_fits(
    spokes: Spokes,
    gridded: RegionalSystem,
    prediction: NDArray[np.floating],
    centre: Array,
    errors: FractionErrors,
    compartments: Compartments,
    designs: Sequence[Design],
    sodium_to_t1w: Array,
    acquisition: Acquisition,
    relaxations: Mapping[Tissue, Relaxation],
    *,
    voxel_kernel: VoxelKernel,
) -> KspaceFits:
    """Fit every design to k-space.

    The signals are judged by what they leave of the gridded image in the brain. Motions and errors of the fractions
    change the samples as they change the prediction of the gridded image, under sensitivities that stay; the T2* enter
    the samples themselves.

    Parameters
    ----------
    spokes
        Data.
    gridded, prediction
        Least squares of the gridded image, and what it says of the image.
    centre : (3,)
        Voxel about which the head turns.
    errors
        Of the fractions.
    designs
        To be fitted; the rest as for :class:`sodium_prep.pvc.kspace.KspaceSystem`.
    """
    motions = np.concatenate(motion_derivatives(prediction, spokes.voxel_mm, centre))
    system = KspaceSystem(
        spokes,
        compartments,
        sodium_to_t1w,
        acquisition,
        relaxations,
        changes=np.concatenate([motions, errors.images.reshape(-1, *prediction.shape)]),
        voxel_kernel=voxel_kernel,
    )
    fits = [system.fit(design.membership) for design in designs]
    misfits, responses = [], []
    for design, fit in zip(designs, fits, strict=True):
        fine = design.membership @ np.nan_to_num(fit.values)
        motion, fractions = np.split(fit.operator @ system.by_change, [len(motions)], axis=1)
        slopes: dict[tuple[str, str], Array] = {
            p: -fit.operator @ (change @ fine) for p, change in system.by_parameter.items()
        }
        misfits.append(gridded.judge(fine)[0])
        responses.append(Response(motion, fractions, slopes))
    rows = np.concatenate([fit.operator[list(design.columns)] for design, fit in zip(designs, fits, strict=True)])
    return KspaceFits(fits, misfits, responses, rows @ system.noise_matrix @ rows.T)
