"""Reading ISMRMRD files.

The ISMRMRD standard leaves the units of a trajectory open. Here they must be written as the string parameter
``traj_units`` of the ``trajectoryDescription``: 1/m or 1/mm. The components of k run along ``read_dir``, ``phase_dir``
and ``slice_dir`` (unit vectors in LPS, as the standard has them), and the phase of every k is zero at ``position``,
where voxel ``N // 2`` of the image grid lies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon.assemble import CONVERT, Grid, NoiseScan, RawEcho, RawScan, oriented_grid
from sodium_prep.recon.ismrmrd_file import Records, read_records, read_samples
from sodium_prep.recon.raw_data import NUCLEUS, PER_MM, TRAJECTORY_UNITS, Samples, per_mm

_CONTRADICTION = "the length of a readout contradicts its header"
_SHARED = ("active_channels", "trajectory_dimensions", "encoding_space_ref")
_GEOMETRY = ("position", "read_dir", "phase_dir", "slice_dir")
_PER_ECHO = ("number_of_samples", "discard_pre", "discard_post", "sample_time_us")


def read_ismrmrd(path: Path) -> tuple[list[RawEcho], RawScan]:
    """Readouts of each echo (index ``contrast``) in the order of the file; noise readouts are split off.

    Raises
    ------
    InputError
        If the file is cut short, refers to other files, is no sodium acquisition, states no or unknown units of its
        trajectory, or holds more than echoes, averages and repetitions of one image.
    """
    header, imaging, noise = read_records(path)
    _check_nucleus(header, path)
    _check_one_image(imaging, path)
    encoding, units = _encoding(header, imaging, path)
    sequence = header.sequenceParameters
    system = header.acquisitionSystemInformation
    times = getattr(sequence, "TE", None) or []
    contrast = imaging.heads["idx"]["contrast"]
    numbers = np.unique(contrast)
    # A file with one of several echoes may state all of their times, or its own.
    known = {int(numbers[0]): times[0]} if len(numbers) == len(times) == 1 else dict(enumerate(times))
    echoes = [_echo(imaging.chosen(contrast == n), units, known.get(int(n)), path) for n in numbers]
    return echoes, RawScan(
        source=str(path),
        grids=[_grid(space, imaging.heads[0], path) for space in (encoding.reconSpace, encoding.encodedSpace)],
        noise=_noise(noise, path),
        trajectory_name=encoding.trajectoryDescription.identifier,
        field_strength_t=None if system is None else system.systemFieldStrength_T,
        repetition_time_s=_first(sequence, "TR", 1e-3),
        flip_angle_deg=_first(sequence, "flipAngle_deg", 1.0),
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
    """Refuse readouts that differ in more than their place in k-space, their echo and their repetition."""
    heads = imaging.heads
    if not len(heads):
        raise InputError(path, "holds no imaging readouts", CONVERT)
    for name, what in (("slice", "slices"), ("set", "sets"), ("phase", "phases")):
        count = len(np.unique(heads["idx"][name]))
        if count > 1:
            raise InputError(path, f"holds {count} {what}", "Write one file for each")
    _check_alike(imaging, (*_SHARED, *_GEOMETRY), path)
    if heads["trajectory_dimensions"][0] != 3:
        found = heads["trajectory_dimensions"][0]
        raise InputError(
            path,
            f"its readouts have a trajectory of {found} dimensions, not 3",
            "Write the trajectory (k in 1/m) into every readout",
        )


def _check_alike(records: Records, names: tuple[str, ...], path: Path) -> None:
    for name in names:
        if (records.heads[name] != records.heads[name][0]).any():
            raise InputError(path, f"its readouts differ in {name}", "Write readouts that differ into separate files")


def _encoding(header: Any, imaging: Records, path: Path) -> tuple[Any, str]:
    """Encoding of the imaging readouts, and the units of its trajectory."""
    index = int(imaging.heads["encoding_space_ref"][0])
    if index >= len(header.encoding):
        raise InputError(path, f"its readouts name encoding {index}, which the header lacks", CONVERT)
    encoding = header.encoding[index]
    description = encoding.trajectoryDescription
    strings = description.userParameterString if description else []
    units = [parameter.value for parameter in strings if parameter.name == "traj_units"]
    if len(units) != 1 or units[0] not in PER_MM:
        found = f"are {units[0]!r}" if units else "are not stated"
        raise InputError(
            path,
            f"the units of its trajectory {found}",
            f"Write k in 1/m and the string parameter traj_units = {TRAJECTORY_UNITS} into trajectoryDescription",
        )
    return encoding, str(units[0])


def _echo(records: Records, units: str, time_ms: float | None, path: Path) -> RawEcho:
    """One echo without the samples to discard."""
    _check_alike(records, _PER_ECHO, path)
    head = records.heads[0]
    n, coils = int(head["number_of_samples"]), int(head["active_channels"])
    if any(t.size != 3 * n for t in records.trajectories):
        raise InputError(path, _CONTRADICTION, CONVERT)
    kept = slice(int(head["discard_pre"]), n - int(head["discard_post"]))
    k = np.stack(records.trajectories).reshape(-1, n, 3)[:, kept]
    kept_samples, rows, index = k.shape[1], records.rows, records.heads["idx"]
    _, block = np.unique(np.stack([index["repetition"], index["average"]], axis=1), axis=0, return_inverse=True)

    def read(first: int, last: int) -> NDArray[np.complex64]:
        samples = np.empty((coils, last - first, kept_samples), np.complex64)
        for row, values in enumerate(read_samples(path, rows[first:last])):
            if values.size != 2 * n * coils:
                raise InputError(path, _CONTRADICTION, CONVERT)
            samples[:, row] = values.view(np.complex64).reshape(coils, n)[:, kept]
        return samples

    return RawEcho(
        samples=Samples((coils, len(rows), kept_samples), read),
        k_per_mm=per_mm(k, units),
        dwell_time_s=1e-6 * float(head["sample_time_us"]),
        block=block.astype(np.int32),
        echo_time_s=None if time_ms is None else 1e-3 * float(time_ms),
    )


def _grid(space: Any, head: Any, path: Path) -> Grid:
    matrix, field_mm = space.matrixSize, space.fieldOfView_mm
    directions = np.stack([head[name].astype(np.float64) for name in _GEOMETRY[1:]], axis=1)
    return oriented_grid(
        (int(matrix.x), int(matrix.y), int(matrix.z)),
        (float(field_mm.x), float(field_mm.y), float(field_mm.z)),
        directions,
        head["position"].astype(np.float64),
        str(path),
    )


def _noise(noise: Records, path: Path) -> NoiseScan | None:
    if not len(noise.heads):
        return None
    heads = noise.heads
    _check_alike(noise, ("active_channels", "sample_time_us"), path)
    coils, dwell_us = int(heads["active_channels"][0]), float(heads["sample_time_us"][0])
    if not 0.0 < dwell_us < 1e4:
        raise InputError(path, f"its noise's sample_time_us is {dwell_us:g}", "Write it, or leave the noise out")
    samples = read_samples(path, noise.rows)
    if any(s.size != 2 * coils * int(n) for s, n in zip(samples, heads["number_of_samples"], strict=True)):
        raise InputError(path, "the length of a noise readout contradicts its header", CONVERT)
    return NoiseScan(
        np.concatenate([s.view(np.complex64).reshape(coils, -1) for s in samples], axis=1), 1e-6 * dwell_us
    )
