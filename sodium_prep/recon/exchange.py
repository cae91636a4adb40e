"""The exchange format: raw data as named arrays in an ``.npz`` or ``.h5`` file; ``docs/rawdata.md`` describes it.

For data that no other reader knows: whoever can load them in MATLAB or Python can write it.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon.assemble import MAX_MATRIX, Grid, NoiseScan, RawEcho, RawScan
from sodium_prep.recon.hdf5 import as_text, checked_array, local_member, most_bytes, open_hdf5, read_array, unreadable
from sodium_prep.recon.raw_data import NUCLEUS, TRAJECTORY_UNITS, RawData, Samples, per_mm

_NEEDED = ("kspace", "k_per_m", "dwell_time_s", "nucleus", "affine", "shape", "voxel_mm")
_NUMBERS = ("field_strength_t", "repetition_time_s", "flip_angle_deg")
_KNOWN = (*_NEEDED, *_NUMBERS, "echo_times_s", "noise", "block", "n_averages", "trajectory_name")
_TEXTS = ("nucleus", "trajectory_name")
_FORMAT = "Write the file as the page Raw data of the documentation has it"

Values = dict[str, Any]


@dataclass(frozen=True)
class _Stored:
    """The dataset kspace of an HDF5 file, and how many of its readouts are compressed together."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    least: int


def read_exchange(path: Path) -> tuple[list[RawEcho], RawScan]:
    """Readouts of each echo.

    Raises
    ------
    InputError
        If the file is cut short, refers to other files, holds Python objects or more than it can, or its arrays are
        not those of the format.
    """
    values = _read_npz(path) if path.suffix.lower() == ".npz" else _read_hdf5(path)
    for name in _NEEDED:
        if name not in values:
            raise InputError(path, f"has no {name}", _FORMAT)
    if values["nucleus"] != NUCLEUS:
        problem = f"its nucleus is {values['nucleus']!r}, not {NUCLEUS}"
        raise InputError(path, problem, "Give the raw data of the sodium scan")
    kspace = values["kspace"] if isinstance(values["kspace"], _Stored) else np.asarray(values["kspace"])
    n_echoes, _, readouts, samples = _complex_shape(kspace, "kspace", (3, 4), path)
    k = _array(values, "k_per_m", (3, 4), path)
    if k.shape[-3:] != (readouts, samples, 3) or k.shape[:-3] not in ((), (n_echoes,)):
        problem = (
            f"its k_per_m has the shape {k.shape}, but kspace {n_echoes} echoes of {readouts} readouts of {samples}"
        )
        raise InputError(path, f"{problem} samples", "Write k of every sample: (readouts, samples, 3)")
    block = _whole(values, "block", path) if "block" in values else np.zeros(readouts, np.int32)
    if len(block) != readouts:
        raise InputError(path, f"its block has {len(block)} entries for {readouts} readouts", _FORMAT)
    times = list(_list(values, "echo_times_s", path)) if "echo_times_s" in values else []
    if times and len(times) != n_echoes:
        raise InputError(path, f"its echo_times_s are {len(times)}, its echoes {n_echoes}", "Write one for each echo")
    dwell_s = _number(values, "dwell_time_s", path)
    k_per_mm = np.broadcast_to(per_mm(k, TRAJECTORY_UNITS), (n_echoes, readouts, samples, 3))
    echoes = [
        RawEcho(one, own_k, dwell_s, block, float(times[number]) if times else None)
        for number, (one, own_k) in enumerate(zip(_samples(kspace, path), k_per_mm, strict=True))
    ]
    return echoes, _scan(values, dwell_s, path)


def _scan(values: Values, dwell_s: float, path: Path) -> RawScan:
    affine = _array(values, "affine", (2,), path).astype(np.float64)
    shape, voxel_mm = _whole(values, "shape", path), _list(values, "voxel_mm", path)
    if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)) or len(shape) != 3 or len(voxel_mm) != 3:
        mend = "Write affine as 4 x 4 with the last row 0 0 0 1, shape and voxel_mm with three values each"
        raise InputError(path, "its affine, shape or voxel_mm is none of an image", mend)
    (i, j, k), (x, y, z) = shape.tolist(), voxel_mm.astype(np.float64).tolist()
    if not (min(i, j, k) > 0 and max(i, j, k) <= MAX_MATRIX and min(x, y, z) > 0.0):
        raise InputError(path, f"states a matrix of {shape} voxels of {voxel_mm} mm", "Write whole numbers and mm")
    averages = _whole(values, "n_averages", path).tolist() if "n_averages" in values else [1]
    if len(averages) != 1 or averages[0] < 1:
        raise InputError(path, f"its n_averages is {averages}", "Write a whole number")
    return RawScan(
        source=str(path),
        grids=[Grid((i, j, k), (x, y, z), affine)],
        noise=_noise(values["noise"], dwell_s, path) if "noise" in values else None,
        trajectory_name=values.get("trajectory_name"),
        n_averages=averages[0],
        **{name: _number(values, name, path) for name in _NUMBERS if name in values},
    )


def _noise(array: Any, dwell_s: float, path: Path) -> NoiseScan:
    array = np.asarray(array)
    _complex_shape(array, "noise", (2,), path)
    return NoiseScan(_complex(array), dwell_s)


def _complex_shape(array: Any, name: str, dims: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Shape of complex numbers, given as such or with real and imaginary part along the last axis.

    It is filled up with ones in front, to the most dimensions that there may be.
    """
    pairs = array.dtype.kind == "f" and array.shape[-1:] == (2,)
    shape = array.shape[:-1] if pairs else array.shape
    if (array.dtype.kind != "c" and not pairs) or len(shape) not in dims:
        problem = f"its {name} is {array.dtype} of the shape {array.shape}"
        raise InputError(path, problem, "Write complex numbers, or real and imaginary parts along the last axis")
    return (1,) * (max(dims) - len(shape)) + tuple(shape)


def _complex(array: NDArray[Any]) -> NDArray[np.complex64]:
    with np.errstate(over="ignore"):  # what single precision cannot hold is refused as not finite
        if array.dtype.kind == "f":
            return np.ascontiguousarray(array, dtype=np.float32).view(np.complex64)[..., 0]
        return array.astype(np.complex64, copy=False)


def _samples(kspace: NDArray[Any] | _Stored, path: Path) -> list[Samples]:
    """Those of every echo."""
    *echoes, coils, readouts, samples = _complex_shape(kspace, "kspace", (3, 4), path)
    if not isinstance(kspace, _Stored):
        return [Samples.of(one) for one in _complex(kspace).reshape(*echoes, coils, readouts, samples)]

    def reader(number: int) -> Callable[[int, int], NDArray[np.complex64]]:
        echo = (number,) if len(kspace.shape) - (kspace.dtype.kind == "f") == 4 else ()

        def read(first: int, last: int) -> NDArray[np.complex64]:
            with open_hdf5(path) as file:
                return _complex(np.asarray(file["kspace"][(*echo, slice(None), slice(first, last))]))

        return read

    return [Samples((coils, readouts, samples), reader(number), True, kspace.least) for number in range(*echoes)]


def _array(values: Values, name: str, dims: tuple[int, ...], path: Path) -> NDArray[Any]:
    array = np.asarray(values[name])
    if array.dtype.kind not in "fiu" or array.ndim not in dims or not np.isfinite(array).all():
        problem = f"its {name} is {array.dtype} of the shape {array.shape}, or not finite"
        raise InputError(path, problem, _FORMAT)
    return array


def _list(values: Values, name: str, path: Path) -> NDArray[Any]:
    """Values in a row; some programs write it with a second dimension of 1."""
    return _array(values, name, (0, 1, 2), path).ravel()


def _whole(values: Values, name: str, path: Path) -> NDArray[np.int32]:
    array = _list(values, name, path)
    if (array != np.round(array)).any() or np.abs(array).max(initial=0) > np.iinfo(np.int32).max:
        raise InputError(path, f"its {name} are no whole numbers", _FORMAT)
    return array.astype(np.int32)


def _number(values: Values, name: str, path: Path) -> float:
    array = np.asarray(values[name])
    if array.size != 1 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(path, f"its {name} is no number", _FORMAT)
    return float(array.ravel()[0])


def _check_name(name: str, path: Path) -> None:
    if name not in _KNOWN:
        raise InputError(path, f"{name} is not part of the exchange format", f"Known: {', '.join(_KNOWN)}")


def _read_hdf5(path: Path) -> Values:
    """Datasets of the root group, and its attributes for what is small."""
    found: Values = {}
    with open_hdf5(path) as file:
        for name in dict.fromkeys((*file.keys(), *file.attrs.keys())):
            _check_name(name, path)
            member = local_member(file, name, path)
            if member is None:
                found[name] = file.attrs[name]
            elif name in _TEXTS and isinstance(member, h5py.Dataset) and member.size == 1:
                found[name] = member[()]
            elif name == "kspace":
                found[name] = _stored(checked_array(member, name, path))
            else:
                found[name] = read_array(member, name, path)
            if name in _TEXTS:
                found[name] = as_text(found[name])
    return found


def _stored(kspace: h5py.Dataset) -> _Stored:
    axis = -3 if kspace.dtype.kind == "f" else -2
    whole = kspace.chunks is not None and kspace.ndim + axis >= 0
    return _Stored(kspace.shape, kspace.dtype, kspace.chunks[axis] if whole else 1)


def _read_npz(path: Path) -> Values:
    try:
        _check_zip(path)
        with np.load(path, allow_pickle=False) as data:
            found = {name: data[name] for name in data.files}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, "npz") from error
    return {name: as_text(value) if name in _TEXTS else value for name, value in found.items()}


def _check_zip(path: Path) -> None:
    """Refuse members that are no plain arrays or state more than the file can hold, before any is unpacked."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            _check_name(name, path)
            with archive.open(member) as stream:
                shape, _, dtype = _array_header(stream)
                start = stream.tell()
            if dtype.hasobject:
                raise InputError(path, f"its {name} holds Python objects", "Save numbers and text only")
            size = math.prod(shape) * dtype.itemsize
            total += size
            if start + size != member.file_size or total > most_bytes(path):
                raise InputError(path, f"{name} states a size that the file cannot hold", "Write the file again")


def _array_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    first: Any = np.lib.format
    read = first.read_array_header_1_0 if first.read_magic(stream) == (1, 0) else first.read_array_header_2_0
    return cast("tuple[tuple[int, ...], bool, np.dtype[Any]]", read(stream))


def write_exchange(path: str | Path, echoes: Sequence[RawData]) -> None:
    """Write raw data to a file that :func:`sodium_prep.recon.raw.read_raw` gives back as they are.

    It appears under its name only when complete.

    Parameters
    ----------
    path
        ``.npz`` or ``.h5``, replaced if it exists.
    echoes
        Of one acquisition, on one grid, with as many readouts and samples each.
    """
    path, first = Path(path), echoes[0]
    k = np.stack([1e3 * raw.trajectory.k_per_mm.astype(np.float64) for raw in echoes])
    content: dict[str, Any] = {
        "kspace": np.stack([raw.kspace for raw in echoes]),
        "k_per_m": k[0] if all(np.array_equal(one, k[0]) for one in k) else k,
        "dwell_time_s": first.trajectory.time_s[1],
        "nucleus": NUCLEUS,
        "affine": first.affine,
        "shape": first.shape,
        "voxel_mm": first.voxel_mm,
        "echo_times_s": None if first.echo_time_s is None else [raw.echo_time_s for raw in echoes],
        "n_averages": first.n_averages,
        **{name: getattr(first, name) for name in ("noise", "block", "trajectory_name", *_NUMBERS)},
    }
    arrays = {name: value for name, value in content.items() if value is not None}
    partial = path.with_name(path.name + ".part")
    if path.suffix.lower() == ".npz":
        with partial.open("wb") as stream:
            np.savez(stream, **arrays)
    else:
        with h5py.File(partial, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    partial.replace(path)
