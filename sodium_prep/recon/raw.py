"""Raw radial data: reading and checking ISMRMRD files.

The ISMRMRD standard leaves the units of a trajectory open. Here they are 1/m and must be written as the string
parameter ``traj_units`` of the ``trajectoryDescription``. The components of k run along ``read_dir``, ``phase_dir`` and
``slice_dir`` (unit vectors in LPS, as the standard has them), and the phase of every k is zero at ``position``, where
voxel ``N // 2`` of the image grid lies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import TRAJECTORIES
from sodium_prep.recon.ismrmrd_file import Records, read_records
from sodium_prep.recon.ismrmrd_write import write_ismrmrd
from sodium_prep.recon.raw_data import LPS_TO_RAS, NUCLEUS, TRAJECTORY_UNITS, RawData
from sodium_prep.recon.trajectory import Trajectory, radial_weights, recognise_law

__all__ = ["RawData", "read_ismrmrd", "write_ismrmrd"]

_MAX_MATRIX = 1024
_RESOLUTION_TOLERANCE = 0.1
_SAME_RADIUS = 1e-4
_EVEN_DIRECTIONS = 0.05
_CONVERT = "Convert the raw data again with the site's converter"


def read_ismrmrd(path: str | Path) -> RawData:
    """Read a single- or multi-channel centre-out radial acquisition.

    Noise readouts are split off and scaled to the noise of the imaging readouts (dwell time, averages); readouts with
    the same trajectory are averaged.

    Raises
    ------
    InputError
        If the file is cut short, refers to other files, is no sodium acquisition, states no or other trajectory units
        than 1/m, or holds data that cannot make one quantitative image.
    """
    path = Path(path)
    header, imaging, noise = read_records(path)
    _check_nucleus(header, path)
    _check_one_image(imaging, path)
    encoding = _encoding(header, imaging, path)
    kspace, k_per_m, n_averages = _average(*_stack(imaging, path), path)
    time_s = _dwell_time_s(imaging, path) * np.arange(kspace.shape[2], dtype=np.float64)
    trajectory = _trajectory(k_per_m, time_s, path)
    shape, voxel_mm = _grid(encoding, trajectory.kmax_per_mm, path)
    name = encoding.trajectoryDescription.identifier
    sequence = header.sequenceParameters
    system = header.acquisitionSystemInformation
    return RawData(
        kspace=kspace,
        trajectory=trajectory,
        shape=shape,
        voxel_mm=voxel_mm,
        affine=_affine(imaging.heads[0], shape, voxel_mm, path),
        noise=_noise(noise, len(kspace), float(time_s[1]), n_averages, path),
        trajectory_name=name if name in TRAJECTORIES else None,
        field_strength_t=None if system is None else system.systemFieldStrength_T,
        echo_time_s=_first(sequence, "TE", 1e-3),
        repetition_time_s=_first(sequence, "TR", 1e-3),
        flip_angle_deg=_first(sequence, "flipAngle_deg", 1.0),
        n_averages=n_averages,
        source=str(path),
    )


def _first(sequence: Any, name: str, unit: float) -> float | None:
    values = getattr(sequence, name, None)
    return float(values[0]) * unit if values else None


def _check_nucleus(header: Any, path: Path) -> None:
    strings = header.userParameters.userParameterString if header.userParameters else []
    for parameter in strings:
        if parameter.name == "ResonantNucleus" and parameter.value != NUCLEUS:
            raise InputError(
                path, f"its nucleus is {parameter.value!r}, not {NUCLEUS}", "Give the raw data of the sodium scan"
            )


def _check_one_image(imaging: Records, path: Path) -> None:
    """Refuse readouts that differ in more than their place in k-space."""
    heads = imaging.heads
    if not len(heads):
        raise InputError(path, "holds no imaging readouts", _CONVERT)
    for name, what in (("contrast", "echoes"), ("slice", "slices"), ("set", "sets"), ("phase", "phases")):
        count = len(np.unique(heads["idx"][name]))
        if count > 1:
            raise InputError(path, f"holds {count} {what}", "Write one file for each")
    for name in (
        *("number_of_samples", "active_channels", "trajectory_dimensions", "discard_pre", "discard_post"),
        *("encoding_space_ref", "sample_time_us", "position", "read_dir", "phase_dir", "slice_dir"),
    ):
        if (heads[name] != heads[name][0]).any():
            raise InputError(path, f"its readouts differ in {name}", "Write readouts that differ into separate files")
    if heads["trajectory_dimensions"][0] != 3:
        found = heads["trajectory_dimensions"][0]
        raise InputError(
            path,
            f"its readouts have a trajectory of {found} dimensions, not 3",
            "Write the trajectory (k in 1/m) into every readout",
        )


def _encoding(header: Any, imaging: Records, path: Path) -> Any:
    """Encoding of the imaging readouts, once its trajectory units are sure."""
    index = int(imaging.heads["encoding_space_ref"][0])
    if index >= len(header.encoding):
        raise InputError(path, f"its readouts name encoding {index}, which the header lacks", _CONVERT)
    encoding = header.encoding[index]
    description = encoding.trajectoryDescription
    strings = description.userParameterString if description else []
    units = [parameter.value for parameter in strings if parameter.name == "traj_units"]
    if units != [TRAJECTORY_UNITS]:
        found = f"are {units[0]!r}" if units else "are not stated"
        raise InputError(
            path,
            f"the units of its trajectory {found}",
            f"Write k in 1/m and the string parameter traj_units = {TRAJECTORY_UNITS} into trajectoryDescription",
        )
    return encoding


def _stack(imaging: Records, path: Path) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Samples (readouts, coils, samples) and trajectories (readouts, samples, 3) without the samples to discard."""
    head = imaging.heads[0]
    n, coils = int(head["number_of_samples"]), int(head["active_channels"])
    if any(t.size != 3 * n for t in imaging.trajectories) or any(s.size != 2 * n * coils for s in imaging.samples):
        raise InputError(path, "the length of a readout contradicts its header", _CONVERT)
    samples = np.stack(imaging.samples).view(np.complex64).reshape(-1, coils, n)
    trajectories = np.stack(imaging.trajectories).reshape(-1, n, 3)
    kept = slice(int(head["discard_pre"]), n - int(head["discard_post"]))
    samples, trajectories = samples[..., kept], trajectories[:, kept]
    if samples.shape[2] < 16:
        raise InputError(path, f"its readouts have only {samples.shape[2]} samples", _CONVERT)
    if not (np.isfinite(samples).all() and np.isfinite(trajectories).all()):
        raise InputError(path, "holds values that are not finite", _CONVERT)
    silent = ~samples.any(axis=(0, 2))
    if silent.any():
        which = "all its data are" if silent.all() else f"channel {int(np.flatnonzero(silent)[0])} is"
        raise InputError(path, f"{which} zero", "Check the coil and the export, or leave the channel out")
    return samples, trajectories


def _average(
    samples: NDArray[np.complex64], trajectories: NDArray[np.float32], path: Path
) -> tuple[NDArray[np.complex64], NDArray[np.float32], int]:
    """Mean of readouts with the same trajectory; k-space (coils, spokes, samples), k in 1/m, number of averages."""
    middle = trajectories.shape[1] // 2
    keys = trajectories[:, [middle, -1]].reshape(len(trajectories), 6)
    _, first, inverse, counts = np.unique(keys, axis=0, return_index=True, return_inverse=True, return_counts=True)
    if (counts != counts[0]).any():
        raise InputError(
            path,
            f"some spokes were read {counts.min()} times, others {counts.max()} times",
            "Leave out the incomplete average",
        )
    if counts[0] > 1:
        groups = np.argsort(inverse, kind="stable").reshape(-1, counts[0])[np.argsort(first)]
        samples = samples[groups].mean(axis=1, dtype=np.complex128).astype(np.complex64)
        trajectories = trajectories[np.sort(first)]
    return np.ascontiguousarray(samples.transpose(1, 0, 2)), trajectories, int(counts[0])


def _dwell_time_s(records: Records, path: Path) -> float:
    dwell_us = float(records.heads["sample_time_us"][0])
    if not 0.0 < dwell_us < 1e4:
        raise InputError(path, f"its sample_time_us is {dwell_us:g}", "Write the dwell time in microseconds")
    return dwell_us * 1e-6


def _trajectory(k_per_m: NDArray[np.float32], time_s: NDArray[np.float64], path: Path) -> Trajectory:
    k = k_per_m.astype(np.float64) * 1e-3
    radius = np.sqrt(np.einsum("...i,...i", k, k))
    ends = radius[:, -1]
    kmax = float(ends.mean())
    if kmax <= 0.0 or np.ptp(ends) > 0.01 * kmax:
        raise InputError(
            path,
            "its readouts do not all end on the same sphere of k-space",
            "Only centre-out radial acquisitions with isotropic resolution can be gridded",
        )
    direction = k[:, -1] / ends[:, None]
    spread = direction.T @ direction / len(k) - np.eye(3) / 3.0
    if max(np.abs(direction.mean(axis=0)).max(), np.abs(spread).max()) > _EVEN_DIRECTIONS:
        raise InputError(
            path, "its readouts do not cover the sphere of k-space evenly", "Give the complete set of readouts"
        )
    mean = radius.mean(axis=0)
    shared = np.abs(radius - mean).max() < _SAME_RADIUS * kmax
    fraction = recognise_law(mean / mean[-1]) if shared else None
    try:
        weights = radial_weights(mean if shared else radius, len(k), fraction)
    except ValueError as error:
        raise InputError(
            path, f"its trajectory is not centre-out ({error})", "Only centre-out radial data can be gridded"
        ) from error
    return Trajectory(k.astype(np.float32), time_s, weights, kmax, fraction)


def _grid(encoding: Any, kmax_per_mm: float, path: Path) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Matrix and voxel size of the header's image space whose voxels fit the extent of k-space."""
    tried = []
    for space in (encoding.reconSpace, encoding.encodedSpace):
        shape = tuple(int(getattr(space.matrixSize, a)) for a in "xyz")
        extent = tuple(float(getattr(space.fieldOfView_mm, a)) for a in "xyz")
        if min(shape) < 1 or max(shape) > _MAX_MATRIX or not all(0.0 < e < 1e4 for e in extent):
            raise InputError(path, f"its header states a matrix of {shape} over {extent} mm", _CONVERT)
        voxel = tuple(e / n for e, n in zip(extent, shape, strict=True))
        if all(abs(2.0 * kmax_per_mm * v - 1.0) <= _RESOLUTION_TOLERANCE for v in voxel):
            return (shape[0], shape[1], shape[2]), (voxel[0], voxel[1], voxel[2])
        tried.append(" x ".join(f"{v:.3g}" for v in voxel))
    raise InputError(
        path,
        f"its trajectory reaches |k| = {1e3 * kmax_per_mm:.4g}/m, which makes voxels of {0.5 / kmax_per_mm:.3g} mm,"
        f" but its header states {' or '.join(dict.fromkeys(tried))} mm",
        "Check that k is in 1/m (not rad/m or scaled to 0.5) and that matrix and field of view are right",
    )


def _affine(
    head: Any, shape: tuple[int, int, int], voxel_mm: tuple[float, float, float], path: Path
) -> NDArray[np.float64]:
    axes = np.stack([head[n].astype(np.float64) for n in ("read_dir", "phase_dir", "slice_dir")], axis=1)
    position = head["position"].astype(np.float64)
    if not np.abs(axes.T @ axes - np.eye(3)).max() < 1e-3 or not np.isfinite(position).all():
        raise InputError(
            path, "read_dir, phase_dir and slice_dir are no orthogonal unit vectors", "Write the geometry of the scan"
        )
    lps = np.eye(4)
    lps[:3, :3] = axes * np.asarray(voxel_mm)
    lps[:3, 3] = position - lps[:3, :3] @ (np.asarray(shape) // 2)
    return np.asarray(LPS_TO_RAS @ lps)


def _noise(
    noise: Records, coils: int, dwell_time_s: float, n_averages: int, path: Path
) -> NDArray[np.complex64] | None:
    """Noise samples (coils, n) at the level of the averaged imaging readouts."""
    if not len(noise.heads):
        return None
    heads = noise.heads
    if (heads["active_channels"] != coils).any() or (heads["sample_time_us"] != heads["sample_time_us"][0]).any():
        raise InputError(path, "its noise readouts differ in channels or dwell time", _CONVERT)
    if any(s.size != 2 * coils * int(n) for s, n in zip(noise.samples, heads["number_of_samples"], strict=True)):
        raise InputError(path, "the length of a noise readout contradicts its header", _CONVERT)
    samples = np.concatenate([s.view(np.complex64).reshape(coils, -1) for s in noise.samples], axis=1)
    if not np.isfinite(samples).all() or samples.shape[1] < 10 * coils or not samples.any(axis=1).all():
        raise InputError(path, "its noise readouts are empty, too short or not finite", "Leave them out of the file")
    scale = np.sqrt(_dwell_time_s(noise, path) / dwell_time_s / n_averages)
    return np.asarray(samples * np.float32(scale), dtype=np.complex64)
