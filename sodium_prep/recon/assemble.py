"""From the readouts of any file format to raw data: the checks that all of them have to pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import TRAJECTORIES
from sodium_prep.recon.description import RawDescription
from sodium_prep.recon.raw_data import LPS_TO_RAS, RawData, Samples
from sodium_prep.recon.recognise import measured_trajectory
from sodium_prep.recon.trajectory import Trajectory

CONVERT = "Convert the raw data again with the site's converter"
MAX_MATRIX = 1024
_FEWEST_SAMPLES = 16
_RESOLUTION_TOLERANCE = 0.1
_DWELL_TOLERANCE = 0.01
_ECHO_TOLERANCE_S = 1e-4
_PROBES = 9
"""Samples by which trajectories of readouts are told apart."""


@dataclass(frozen=True)
class NoiseScan:
    """Samples (coils, n) without signal, recorded with this dwell time."""

    samples: NDArray[np.complex64]
    dwell_time_s: float


@dataclass(frozen=True)
class RawEcho:
    """Readouts of one echo in the order in which they were taken.

    Attributes
    ----------
    samples
        In memory or in the file.
    k_per_mm
        (readouts, samples, 3) float32, along the axes of the grid.
    block
        (readouts,) average or repetition of each.
    """

    samples: Samples
    k_per_mm: NDArray[np.float32]
    dwell_time_s: float
    block: NDArray[np.int32]
    echo_time_s: float | None = None


@dataclass(frozen=True)
class Grid:
    """Grid of an image: matrix, voxel size in mm, (4, 4) voxel to world in RAS+ mm."""

    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class RawScan:
    """What all echoes of a file share.

    Attributes
    ----------
    grids
        Those that the image may have, in the order of preference; the first that fits the extent of k-space is taken.
    noise
        At the level of the readouts as they are written, but for the dwell time.
    n_averages
        Readouts that were averaged before they were written.
    """

    source: str
    grids: Sequence[Grid]
    noise: NoiseScan | None = None
    trajectory_name: str | None = None
    field_strength_t: float | None = None
    repetition_time_s: float | None = None
    flip_angle_deg: float | None = None
    n_averages: int = 1


def assemble(
    echoes: Sequence[RawEcho], scan: RawScan, description: RawDescription, *, average: bool = True
) -> tuple[RawData, ...]:
    """Raw data of each echo.

    Parameters
    ----------
    echoes
        In the order of their echo times.
    description
        What the sidecar says, which the data may not contradict.
    average
        Whether readouts with the same trajectory become one; otherwise all are kept, with their block.

    Raises
    ------
    InputError
        If the data cannot make one quantitative image per echo.
    """
    found: list[RawData] = []
    times = _echo_times(echoes, description.echo_times_s, scan.source)
    for grid in scan.grids:
        _check_grid(grid, scan.source)
    for echo, time_s in zip(echoes, times, strict=True):
        _check_samples(echo, scan.source)
        coils = echo.samples.shape[0]
        groups = _alike(echo.k_per_mm, scan.source)
        _check_description(description, len(groups), coils, echo.dwell_time_s, scan.source)
        samples, k, n_averages, block = echo.samples, echo.k_per_mm, 1, None if average else echo.block
        if average and groups.shape[1] > 1:
            samples, k, n_averages = samples.mean_of(groups), k[groups[:, 0]], groups.shape[1]
        before = found[-1].trajectory if found else None
        trajectory = _trajectory(k, np.arange(k.shape[1]) * np.float64(echo.dwell_time_s), before, scan.source)
        grid = _fitting(scan, trajectory.half_extents_per_mm)
        raw = RawData(
            kspace=cast(Any, samples) if samples.stored else samples.load(),
            trajectory=trajectory,
            shape=grid.shape,
            voxel_mm=grid.voxel_mm,
            affine=grid.affine,
            noise=_noise(scan, coils, echo.dwell_time_s, n_averages),
            trajectory_name=scan.trajectory_name if scan.trajectory_name in TRAJECTORIES else None,
            field_strength_t=scan.field_strength_t,
            echo_time_s=time_s,
            repetition_time_s=scan.repetition_time_s,
            flip_angle_deg=scan.flip_angle_deg,
            n_averages=n_averages * scan.n_averages,
            block=block,
            source=scan.source,
        )
        found.append(raw)
    return tuple(found)


def _echo_times(echoes: Sequence[RawEcho], stated: Sequence[float], source: str) -> list[float | None]:
    """Echo times, which have to be there and to rise where there are several echoes."""
    times = [echo.echo_time_s for echo in echoes]
    if len(stated) > 1 and len(stated) != len(times):
        problem = f"holds {len(times)} echoes, but the sidecar's EchoTime lists {len(stated)}"
        raise InputError(source, problem, "List the echo times of this file")
    if len(times) == 1:
        return list(stated) or times
    known = [time for time in times if time is not None]
    if not known and len(stated) == len(times):
        known = list(stated)
    if len(known) < len(times):
        problem = f"holds {len(times)} echoes, but its header states {len(known)} of their echo times"
        raise InputError(source, problem, "List all of them as the sidecar's EchoTime, or write them into the header")
    if (np.diff(known) <= 0.0).any():
        raise InputError(source, f"its echo times ({_in_ms(known)} ms) do not rise", "Write the echoes in their order")
    if any(abs(time - told) > _ECHO_TOLERANCE_S for time, told in zip(known, stated, strict=False)):
        problem = f"its echo times are {_in_ms(known)} ms, but the sidecar's EchoTime is {_in_ms(stated)} ms"
        raise InputError(source, problem, "Write those of the file into the sidecar")
    return list(known)


def _in_ms(times_s: Sequence[float]) -> str:
    return ", ".join(f"{1e3 * time:g}" for time in times_s)


def oriented_grid(
    shape: tuple[int, int, int],
    field_of_view_mm: tuple[float, float, float],
    directions: NDArray[np.float64],
    position: NDArray[np.float64],
    source: str,
) -> Grid:
    """Grid from its axes.

    Parameters
    ----------
    directions
        (3, 3) unit vectors of read, phase and slice as columns, LPS.
    position
        (3,) place of voxel ``N // 2``, LPS mm.
    """
    if min(shape) < 1 or max(shape) > MAX_MATRIX or not all(0.0 < e < 1e4 for e in field_of_view_mm):
        raise InputError(source, f"its header states a matrix of {shape} over {field_of_view_mm} mm", CONVERT)
    x, y, z = (e / n for e, n in zip(field_of_view_mm, shape, strict=True))
    lps = np.eye(4)
    lps[:3, :3] = directions * np.asarray((x, y, z))
    lps[:3, 3] = position - lps[:3, :3] @ (np.asarray(shape) // 2)
    return Grid(shape, (x, y, z), np.asarray(LPS_TO_RAS @ lps))


def _check_grid(grid: Grid, source: str) -> None:
    axes = grid.affine[:3, :3] / np.asarray(grid.voxel_mm)
    if not np.abs(axes.T @ axes - np.eye(3)).max() < 1e-3 or not np.isfinite(grid.affine).all():
        problem = "read_dir, phase_dir and slice_dir, or affine over voxel_mm, are no orthogonal unit vectors"
        raise InputError(source, problem, "Write the geometry of the scan")


def _check_samples(echo: RawEcho, source: str) -> None:
    (coils, readouts, samples), dwell_s = echo.samples.shape, echo.dwell_time_s
    if not 0.0 < dwell_s < 1e-2:
        problem = f"its dwell time sample_time_us is {1e6 * dwell_s:g}"
        raise InputError(source, problem, "Write the time from sample to sample")
    if not coils * readouts * samples:
        raise InputError(source, "holds no samples", CONVERT)
    if samples < _FEWEST_SAMPLES:
        raise InputError(source, f"its readouts have only {samples} samples", CONVERT)
    silent = np.ones(coils, dtype=bool)
    for rows, block in echo.samples.blocks():
        if not (np.isfinite(block).all() and np.isfinite(echo.k_per_mm[rows]).all()):
            raise InputError(source, "holds values that are not finite", CONVERT)
        silent &= ~block.any(axis=(1, 2))
    if silent.any():
        which = "all its data are" if silent.all() else f"channel {int(np.flatnonzero(silent)[0])} is"
        raise InputError(source, f"{which} zero", "Check the coil and the export, or leave the channel out")


def _alike(k: NDArray[np.float32], source: str) -> NDArray[np.intp]:
    """Readouts of the same trajectory, (trajectories, averages), in the order in which each was first taken."""
    probes = np.linspace(0, k.shape[1] - 1, _PROBES).round().astype(int)
    keys = k[:, probes].reshape(len(k), -1)
    _, first, inverse, counts = np.unique(keys, axis=0, return_index=True, return_inverse=True, return_counts=True)
    if (counts != counts[0]).any():
        raise InputError(
            source,
            f"some spokes were read {counts.min()} times, others {counts.max()} times",
            "Leave out the incomplete average",
        )
    return np.argsort(inverse, kind="stable").reshape(-1, counts[0])[np.argsort(first)]


def _trajectory(
    k_per_mm: NDArray[np.float32], time_s: NDArray[np.float64], before: Trajectory | None, source: str
) -> Trajectory:
    """Trajectory with its density compensation: that of the echo before where it is the same."""
    if before is not None and np.array_equal(before.time_s, time_s) and np.array_equal(before.k_per_mm, k_per_mm):
        return before
    try:
        return measured_trajectory(k_per_mm, time_s)
    except ValueError as error:
        mend = "Give the complete set of readouts of a trajectory that can be gridded"
        raise InputError(source, str(error), mend) from error


def _fitting(scan: RawScan, half_extents_per_mm: tuple[float, float, float]) -> Grid:
    """The first grid whose voxels fit the extent of k-space."""
    for grid in scan.grids:
        products = np.asarray(grid.voxel_mm) * 2.0 * np.asarray(half_extents_per_mm)
        if np.abs(products - 1.0).max() <= _RESOLUTION_TOLERANCE:
            return grid
    stated = dict.fromkeys(_by_axis(grid.voxel_mm) for grid in scan.grids)
    reach = _by_axis([1e3 * k for k in half_extents_per_mm], 4)
    raise InputError(
        scan.source,
        f"its trajectory reaches |k| = {reach}/m, which makes voxels of"
        f" {_by_axis([0.5 / k for k in half_extents_per_mm])} mm, but its header states {' or '.join(stated)} mm",
        "Check that k is in 1/m (not rad/m or scaled to 0.5) and that matrix and field of view are right",
    )


def _by_axis(values: Sequence[float], digits: int = 3) -> str:
    """Values along the axes, one where they are the same."""
    texts = [f"{value:.{digits}g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts)


def _noise(scan: RawScan, coils: int, dwell_time_s: float, n_averages: int) -> NDArray[np.complex64] | None:
    """Noise samples (coils, n) at the level of the averaged imaging readouts."""
    if scan.noise is None:
        return None
    samples = scan.noise.samples
    if len(samples) != coils:
        problem = f"its noise has {len(samples)} channels, its imaging readouts {coils}"
        raise InputError(scan.source, problem, "Leave the noise out, or write that of the same channels")
    if not np.isfinite(samples).all() or samples.shape[1] < 10 * coils or not samples.any(axis=1).all():
        problem = "its noise readouts are empty, too short or not finite"
        raise InputError(scan.source, problem, "Leave them out of the file")
    scale = np.sqrt(scan.noise.dwell_time_s / dwell_time_s / n_averages)
    return np.asarray(samples * np.float32(scale), dtype=np.complex64)


def _check_description(stated: RawDescription, spokes: int, coils: int, dwell_time_s: float, source: str) -> None:
    """Refuse a file that contradicts its sidecar."""
    told = (
        ("NumberOfSpokes", stated.n_spokes, spokes, 0.0, "readouts of different trajectory"),
        ("NumberReceiveCoilActiveElements", stated.n_channels, coils, 0.0, "channels"),
        ("DwellTime", stated.dwell_time_s, dwell_time_s, _DWELL_TOLERANCE, "s from sample to sample"),
    )
    for key, value, there, tolerance, what in told:
        if value is not None and abs(there - value) > tolerance * value:
            problem = f"has {there:g} {what}, but the {key} of its sidecar is {value:g}"
            raise InputError(source, problem, "Correct the one that is wrong")
