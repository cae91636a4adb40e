"""A triple-quantum image from the k-space of the steps of a phase cycle, of any number of channels.

The steps are combined before anything is reconstructed, so all of them have one whitening of the channels, one set of
sensitivities and the same place of every sample; their phases stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import FilterName
from sodium_prep.quant.triple_quantum import PhaseCycle, TripleQuantumImage, join_ways, way_weights
from sodium_prep.recon import coils
from sodium_prep.recon.channels import whitened
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.reconstruct import check_radial_steps

_SAME_K = 1e-3
"""Part of the largest k by which samples of two steps may lie apart."""
_ALIKE = "Give the files of one series, one for each step, with the same averages and trajectory"


def triple_quantum_scan(
    steps: Iterable[RawData],
    cycle: PhaseCycle,
    tau_s: float,
    off_resonance_hz: ArrayLike | None = None,
    *,
    kspace_filter: FilterName = "none",
    workers: int = 1,
    where: str = "phase cycle",
) -> TripleQuantumImage:
    """Combine the steps in k-space, reconstruct by gridding, and combine the channels.

    The sensitivities are those of the triple-quantum images of the channels, with both parts in phase, because a step
    by itself has dark bands where off-resonance puts them out of phase. They take the phase off.

    Parameters
    ----------
    steps
        Raw data of every step, taken one by one.
    cycle, tau_s, where
        As for :func:`~sodium_prep.quant.triple_quantum.triple_quantum_image`.
    off_resonance_hz
        (X, Y, Z) on the grid of the raw data.
    kspace_filter
        Window of gridding.
    workers
        Threads.

    Returns
    -------
    An image of signal per mm^3 whose real part has noise of mean zero, with the receive profile of
    :func:`sodium_prep.recon.coils.combine` in it.

    Raises
    ------
    InputError
        If the cycle does not separate the parts, or the steps do not match each other, or alias.
    ValueError
        If there are more or fewer steps than the cycle has.
    """
    weights = way_weights(cycle, where)
    rest = iter(steps)
    first = next(rest)
    check_radial_steps(first)
    ways = np.zeros((2, *first.kspace.shape), np.complex64)
    for raw, factors in zip(chain([first], rest), weights.T.astype(np.complex64), strict=True):
        _check_alike(first, raw)
        for way, factor in zip(ways, factors, strict=True):
            way += factor * raw.kspace
    white, line = whitened(first), first.trajectory
    images = np.stack(
        [
            grid_image(
                (np.tensordot(row, way, axes=1) for row in white.matrix),
                line,
                first.shape,
                first.voxel_mm,
                kspace_filter,
                workers=workers,
            )
            for way in ways
        ]
    )
    del ways
    joined = join_ways(images, weights, tau_s, gridding_noise_sd(white.sigma, line, kspace_filter), off_resonance_hz)
    psd = trajectory_noise_spectrum(first.shape, first.voxel_mm, line, kspace_filter)
    maps = coils.low_resolution_maps(joined.image, line, first.voxel_mm, float(joined.noise_sd.mean()), psd)
    return TripleQuantumImage(coils.combine(joined.image, maps).astype(np.complex64), joined.noise_sd)


def _check_alike(first: RawData, raw: RawData) -> None:
    """Refuse steps that cannot be added sample by sample."""
    k, other = first.trajectory.k_per_mm, raw.trajectory.k_per_mm
    unlike = {
        "channels": len(raw.kspace) != len(first.kspace),
        "averages": raw.n_averages != first.n_averages,
        "trajectory": k.shape != other.shape or np.abs(k - other).max() > _SAME_K * first.trajectory.kmax_per_mm,
        "grid": raw.shape != first.shape or not np.allclose(raw.affine, first.affine, atol=1e-3),
    }
    for what, differs in unlike.items():
        if differs:
            raise InputError(raw.source, f"has other {what} than {first.source}", _ALIKE)
