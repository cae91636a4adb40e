"""HDF5 files that nobody vouches for: nothing outside the file is read, and nothing larger than it can hold."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon.raw_data import PER_MM, per_mm

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
"""Of an HDF5 file."""
_HEAP: Final = b"GCOL\x01\0\0\0"
"""Signature and version of a collection of the global heap, where values of variable length lie."""
_CHUNK: Final = 1 << 20
_ROOM = 1 << 24
_MOST_COMPRESSION = 50


def most_bytes(path: Path) -> int:
    """Size that the arrays of a file may state: samples are noisy, so honest ones are hardly compressed."""
    return _ROOM + _MOST_COMPRESSION * path.stat().st_size


def unreadable(path: Path, kind: str) -> InputError:
    """What to tell of a file that cannot be opened as one of its kind."""
    reason = f"it is damaged, cut short or no {kind} file" if path.exists() else "it is not there"
    return InputError(path, f"cannot be read: {reason}", "Copy the file again from its source")


def check_heaps(path: Path) -> None:
    """Refuse a file whose global heap holds objects of impossible size: the HDF5 library would turn in circles.

    Of all that may be wrong in a file this is what the library itself does not notice.

    Raises
    ------
    InputError
        For such a file.
    """
    with path.open("rb") as stream:
        if _bytes_of_lengths(stream, path.stat().st_size) != 8:  # as any library writes them
            raise unreadable(path, "HDF5")
        stream.seek(0)
        for place in _heaps(stream):
            stream.seek(place + len(_HEAP))
            size = int.from_bytes(stream.read(8), "little") - 16  # without what tells it
            collection, at = stream.read(max(0, min(size, path.stat().st_size))), 0
            while len(collection) - at >= 16:
                index, length = struct.unpack_from("<H6xQ", collection, at)
                step = length if index == 0 else 16 + -(-length // 8) * 8
                if not 0 < step <= size - at:
                    raise unreadable(path, "HDF5")
                at += step


def _bytes_of_lengths(stream: BinaryIO, size: int) -> int:
    """How many bytes hold a length, by the superblock: at the start of the file, or after 512, 1024, 2048... bytes."""
    place = 0
    while place < size:
        stream.seek(place)
        start = stream.read(16).ljust(16, b"\0")
        if start.startswith(SIGNATURE):
            return start[14] if start[8] < 2 else start[10]
        place = max(512, 2 * place)
    return 0


def _heaps(stream: BinaryIO) -> Iterator[int]:
    """Where the collections of the global heap begin."""
    start, before = 0, b""
    while chunk := stream.read(_CHUNK):
        text = before + chunk
        place = text.find(_HEAP)
        while place >= 0:
            yield start - len(before) + place
            place = text.find(_HEAP, place + 1)
        before, start = text[-len(_HEAP) + 1 :], start + len(chunk)
        stream.seek(start)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; what is done with it may come upon any kind of damage.

    Raises
    ------
    InputError
        If it is not there, damaged, cut short or no HDF5 file.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:  # h5py has no error of its own
        raise unreadable(path, "HDF5") from error


def local_member(group: h5py.Group, name: str, path: Path) -> Any:
    """Member of a group, None where there is none of that name; refused unless it lies in this very file."""
    if name not in group.keys():  # noqa: SIM118 (membership of the group itself would follow links)
        return None
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise InputError(path, f"{name} is a link to another place", "Write the data into the file itself")
    member = group[name]
    if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
        raise InputError(path, f"{name} keeps its data in other files", "Write the data into the file itself")
    return member


def checked_array(member: Any, name: str, path: Path) -> h5py.Dataset:
    """A dataset whose stated size the file can hold."""
    if not isinstance(member, h5py.Dataset):
        raise InputError(path, f"{name} is no dataset", "Write it as an array")
    if member.shape is None or member.size * member.dtype.itemsize > most_bytes(path):
        raise InputError(path, f"{name} states a size that the file cannot hold", "Write the file again")
    return member


def read_array(member: Any, name: str, path: Path) -> NDArray[Any]:
    """Content of a dataset whose stated size the file can hold."""
    return np.asarray(checked_array(member, name, path)[()])


def as_text(value: Any) -> str | None:
    """A single string as HDF5 or numpy hold it; None for anything else."""
    if isinstance(value, np.ndarray | h5py.Empty):
        value = value.ravel()[0] if isinstance(value, np.ndarray) and value.size == 1 else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def read_trajectory(path: Path) -> NDArray[np.float32]:
    """The dataset ``k`` of a file, with its units in the attribute ``units``.

    Returns
    -------
    (readouts, samples, 3) for all echoes, or (echoes, readouts, samples, 3), 1/mm, along read, phase and slice.
    """
    with open_hdf5(path) as file:
        check_heaps(path)
        member = local_member(file, "k", path)
        if member is None:
            raise InputError(path, "has no dataset k", "Write the trajectory as k (readouts, samples, 3)")
        units = as_text(member.attrs.get("units"))
        if units not in PER_MM:
            found = "are not stated" if units is None else f"are {units!r}"
            mend = "Write k in 1/m and the attribute units = 1/m"
            raise InputError(path, f"the units of its trajectory {found}", mend)
        k = read_array(member, "k", path)
    if k.ndim not in (3, 4) or k.shape[-1] != 3 or k.dtype.kind != "f":
        problem = f"its k is {k.dtype} of the shape {k.shape}"
        raise InputError(path, problem, "Write real numbers of the shape (readouts, samples, 3)")
    return per_mm(k, str(units))
