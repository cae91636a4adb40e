"""Receive channels made ready: decorrelated, of equal noise, and as few as hold what is above noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon import coils
from sodium_prep.recon.raw_data import RawData, Samples

_HELD_BYTES: Final = 210_000_000
"""Channels that are computed in one pass through a file; a pass through memory costs less, so half of it there."""


@dataclass(frozen=True)
class Channels:
    """Virtual channels, computed when they are asked for: no second copy of all samples, and none of those in a file.

    Attributes
    ----------
    measured
        (coils, readouts, samples)
    matrix
        (channels, coils) virtual from real ones.
    sigma
        Standard deviation of the noise's real (and imaginary) part, the same in all and uncorrelated between them.
    """

    measured: Samples = field(repr=False)
    matrix: NDArray[np.complex64]
    sigma: float

    def __len__(self) -> int:
        return len(self.matrix)

    def __iter__(self) -> Iterator[NDArray[np.complex64]]:
        """(readouts, samples) of one after the other."""
        _, readouts, samples = self.measured.shape
        held = _HELD_BYTES if self.measured.stored else _HELD_BYTES // 2
        step = max(1, held // (8 * readouts * samples))
        for first in range(0, len(self), step):
            chosen = self.matrix[first : first + step]
            channels = [np.empty((readouts, samples), np.complex64) for _ in chosen]
            self._compute(chosen, channels)
            while channels:
                yield channels.pop(0)

    def together(self) -> NDArray[np.complex64]:
        """All of them, (channels, readouts, samples)."""
        channels = np.empty((len(self), *self.measured.shape[1:]), np.complex64)
        self._compute(self.matrix, list(channels))
        return channels

    def _compute(self, matrix: NDArray[np.complex64], out: list[NDArray[np.complex64]]) -> None:
        for rows, block in self.measured.blocks():
            for channel, values in zip(out, np.tensordot(matrix, block, axes=1), strict=True):
                channel[rows] = values


def whitened(raw: RawData) -> Channels:
    """As many channels as measured, with uncorrelated noise of the same standard deviation.

    Raises
    ------
    InputError
        If channels are dead or copies of each other.
    """
    return _whitened(raw, _noise(raw))


def _whitened(raw: RawData, noise: NDArray[np.complex64]) -> Channels:
    covariance = coils.noise_covariance(noise)
    sigma = float(np.sqrt(np.trace(covariance).real / len(covariance)))
    if len(covariance) == 1 or sigma == 0.0:
        return Channels(raw.samples, np.eye(len(covariance), dtype=np.complex64), sigma)
    if fault := coils.dependent_channels(covariance):
        raise InputError(raw.source, fault, "Leave out dead or duplicated channels")
    matrix = coils.whiten(np.eye(len(covariance), dtype=complex), covariance) * sigma
    return Channels(raw.samples, matrix.astype(np.complex64), sigma)


def virtual_channels(raw: RawData) -> Channels:
    """The whitened channels, or the fewer principal components that hold what is above noise.

    Raises
    ------
    InputError
        As :func:`whitened`.
    """
    noise = _noise(raw)
    white = _whitened(raw, noise)
    if len(white) == 1 or white.sigma == 0.0:
        return white
    matrix = coils.compression(
        white, white.sigma, raw.trajectory, raw.shape, raw.voxel_mm, noise_samples=noise.shape[1]
    )
    return Channels(raw.samples, matrix @ white.matrix, white.sigma)


def _noise(raw: RawData) -> NDArray[np.complex64]:
    """Samples (coils, n) without signal."""
    if raw.noise is not None:
        return raw.noise
    return np.concatenate([coils.readout_tail_noise(block) for _, block in raw.samples.blocks()], axis=1)
