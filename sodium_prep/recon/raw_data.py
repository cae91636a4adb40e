"""What a reconstruction needs of raw data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.trajectory import Trajectory

NUCLEUS = "23Na"
TRAJECTORY_UNITS = "1/m"
PER_MM = {TRAJECTORY_UNITS: 1e-3, "1/mm": 1.0}
"""What makes 1/mm of the units of a trajectory that a file may state."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_BLOCK_BYTES: Final = 1 << 24
"""Samples that are read together."""


def per_mm(k: NDArray[np.floating[Any]], units: str) -> NDArray[np.float32]:
    """Trajectory in 1/mm; values that single precision cannot hold become infinite, for the checks to find."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (PER_MM[units] * k.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class Samples:
    """Samples of k-space, in memory or still in their file, given out by readouts.

    Attributes
    ----------
    shape
        (coils, readouts, samples)
    read
        From the first readout and the one after the last to (coils, readouts, samples) complex64.
    stored
        Whether they are in a file.
    least
        Readouts that are read as fast as one of them.
    """

    shape: tuple[int, int, int]
    read: Callable[[int, int], NDArray[np.complex64]] = field(repr=False)
    stored: bool = True
    least: int = 1

    @classmethod
    def of(cls, kspace: NDArray[np.complex64]) -> Samples:
        """Those of an array (coils, readouts, samples)."""
        coils, readouts, samples = kspace.shape
        return cls((coils, readouts, samples), lambda first, last: kspace[:, first:last], stored=False)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.complex64]]]:
        """All of them, few readouts at a time: which these are, and (coils, readouts, samples)."""
        coils, readouts, samples = self.shape
        step = max(_BLOCK_BYTES // max(8 * coils * samples, 1), self.least, 1)
        for first in range(0, readouts, step):
            last = min(first + step, readouts)
            yield slice(first, last), self.read(first, last)

    def load(self) -> NDArray[np.complex64]:
        """(coils, readouts, samples), in memory."""
        if not self.stored:
            return np.ascontiguousarray(self.read(0, self.shape[1]))
        kspace = np.empty(self.shape, np.complex64)
        for readouts, block in self.blocks():
            kspace[:, readouts] = block
        return kspace

    def mean_of(self, groups: NDArray[np.intp]) -> Samples:
        """Means of the readouts that each row of an array (means, members) names."""

        def read(first: int, last: int) -> NDArray[np.complex64]:
            total = sum(self._chosen(rows).astype(np.complex128) for rows in groups[first:last].T)
            return np.asarray(total / groups.shape[1], np.complex64)

        return Samples((self.shape[0], len(groups), self.shape[2]), read, self.stored, self.least)

    def _chosen(self, rows: NDArray[np.intp]) -> NDArray[np.complex64]:
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        return np.concatenate([self.read(int(run[0]), int(run[-1]) + 1) for run in runs], axis=1)


@dataclass(frozen=True)
class RawData:
    """Samples of k-space with all that is needed to make an image of them.

    Attributes
    ----------
    kspace
        (coils, spokes, samples) complex64. Given as :class:`Samples`, it is read when first asked for, and then kept.
    trajectory
        Where and when each sample was taken, along the axes of the grid.
    shape, voxel_mm
        Grid of the image.
    affine
        (4, 4) voxel to world, RAS+ mm. The phase of every k is zero at voxel ``N // 2``.
    noise
        (coils, n) complex64 samples without signal with the noise level of ``kspace``; None where none were recorded.
    trajectory_name
        ``DA-3DPR``, ``3DPR`` or ``TPI`` where the file says so.
    echo_time_s
        From the centre of the excitation pulse to the first sample.
    n_averages
        Readouts averaged into each spoke.
    block
        (spokes,) average or repetition that each readout belongs to, counted from 0, where readouts were kept apart;
        they are then in the order in which they were taken. None where they were averaged.
    source
        File the data came from, for messages.
    """

    kspace: NDArray[np.complex64] = field(repr=False)
    trajectory: Trajectory
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    noise: NDArray[np.complex64] | None = None
    trajectory_name: str | None = None
    field_strength_t: float | None = None
    echo_time_s: float | None = None
    repetition_time_s: float | None = None
    flip_angle_deg: float | None = None
    n_averages: int = 1
    block: NDArray[np.int32] | None = None
    source: str = "raw data"

    def __post_init__(self) -> None:
        if isinstance(self.kspace, Samples):
            self.__dict__["_stored"] = self.__dict__.pop("kspace")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """``kspace``, where it is not in memory yet."""
            if name != "kspace" or "_stored" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__} has no {name}")
            self.__dict__["kspace"] = self.__dict__["_stored"].load()
            return self.__dict__["kspace"]

    @property
    def samples(self) -> Samples:
        """The samples wherever they are; reading them so keeps none in memory."""
        return Samples.of(self.kspace) if "kspace" in self.__dict__ else self.__dict__["_stored"]

    @property
    def n_coils(self) -> int:
        """Number of receive channels."""
        return self.samples.shape[0]

    @property
    def field_of_view_mm(self) -> tuple[float, float, float]:
        """Extent of the grid along its axes, mm."""
        x, y, z = (n * v for n, v in zip(self.shape, self.voxel_mm, strict=True))
        return (x, y, z)
