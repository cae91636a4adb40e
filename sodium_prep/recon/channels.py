"""Receive channels made ready: decorrelated, of equal noise, and as few as hold what is above noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon import coils
from sodium_prep.recon.raw_data import RawData


@dataclass(frozen=True)
class Channels:
    """Virtual channels, computed one by one when they are asked for: no second copy of all samples.

    Attributes
    ----------
    kspace
        (coils, readouts, samples) as measured.
    matrix
        (channels, coils) virtual from real ones.
    sigma
        Standard deviation of the noise's real (and imaginary) part, the same in all and uncorrelated between them.
    """

    kspace: NDArray[np.complex64] = field(repr=False)
    matrix: NDArray[np.complex64]
    sigma: float

    def __len__(self) -> int:
        return len(self.matrix)

    def __iter__(self) -> Iterator[NDArray[np.complex64]]:
        return (np.tensordot(row, self.kspace, axes=1) for row in self.matrix)


def whitened(raw: RawData) -> Channels:
    """As many channels as measured, with uncorrelated noise of the same standard deviation.

    Raises
    ------
    InputError
        If channels are dead or copies of each other.
    """
    covariance = coils.noise_covariance(_noise(raw))
    sigma = float(np.sqrt(np.trace(covariance).real / len(covariance)))
    if len(covariance) == 1 or sigma == 0.0:
        return Channels(raw.kspace, np.eye(len(covariance), dtype=np.complex64), sigma)
    if fault := coils.dependent_channels(covariance):
        raise InputError(raw.source, fault, "Leave out dead or duplicated channels")
    matrix = coils.whiten(np.eye(len(covariance), dtype=complex), covariance) * sigma
    return Channels(raw.kspace, matrix.astype(np.complex64), sigma)


def virtual_channels(raw: RawData) -> Channels:
    """The whitened channels, or the fewer principal components that hold what is above noise.

    Raises
    ------
    InputError
        As :func:`whitened`.
    """
    white = whitened(raw)
    if len(white) == 1 or white.sigma == 0.0:
        return white
    noise_samples = _noise(raw).shape[1]
    matrix = coils.compression(white, white.sigma, raw.trajectory, raw.shape, raw.voxel_mm, noise_samples=noise_samples)
    return Channels(raw.kspace, matrix @ white.matrix, white.sigma)


def _noise(raw: RawData) -> NDArray[np.complex64]:
    return coils.readout_tail_noise(raw.kspace) if raw.noise is None else raw.noise
