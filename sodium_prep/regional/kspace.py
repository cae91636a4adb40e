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
from sodium_prep.pvc.kspace import KspaceFit, KspaceSystem, Spokes
from sodium_prep.pvc.sensitivity import motion_derivatives, motion_variance
from sodium_prep.regional.designs import Design

Array = NDArray[np.float64]
Response = tuple[Array, dict[tuple[Tissue, str], Array]]
"""Variance from misregistration, and change per unit of each T2* parameter, (n,) each."""


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
        What registration and T2* do.
    """

    fits: list[KspaceFit]
    misfits: list[float]
    responses: list[Response]


def kspace_fits(
    spokes: Spokes,
    gridded: RegionalSystem,
    prediction: NDArray[np.floating],
    centre: Array,
    compartments: Compartments,
    designs: Sequence[Design],
    sodium_to_t1w: Array,
    acquisition: Acquisition,
    relaxations: Mapping[Tissue, Relaxation],
    *,
    registration_sd_mm: float,
    voxel_kernel: VoxelKernel,
) -> KspaceFits:
    """Fit every design to k-space.

    The signals are judged by what they leave of the gridded image in the brain. Motions change the samples as they
    change the prediction of the gridded image, under sensitivities that stay; the T2* enter the samples themselves.

    Parameters
    ----------
    spokes
        Data.
    gridded, prediction
        Least squares of the gridded image, and what it says of the image.
    centre : (3,)
        Voxel about which the head turns.
    designs
        To be fitted; the rest as for :class:`sodium_prep.pvc.kspace.KspaceSystem`.
    """
    first, second = motion_derivatives(prediction, spokes.voxel_mm, centre)
    system = KspaceSystem(
        spokes,
        compartments,
        sodium_to_t1w,
        acquisition,
        relaxations,
        changes=np.concatenate([first, second]),
        voxel_kernel=voxel_kernel,
    )
    out = KspaceFits([], [], [])
    for design in designs:
        fit = system.fit(design.membership)
        fine = design.membership @ np.nan_to_num(fit.values)
        moved = fit.operator @ system.by_change
        slopes = {p: -fit.operator @ (change @ fine) for p, change in system.by_parameter.items()}
        out.fits.append(fit)
        out.misfits.append(gridded.judge(fine)[0])
        out.responses.append((motion_variance(moved[:, :6], moved[:, 6:], registration_sd_mm), slopes))
    return out
