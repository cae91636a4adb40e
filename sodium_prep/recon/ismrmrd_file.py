"""ISMRMRD files as records: bulk HDF5 access and the XML header."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon.hdf5 import local_member, open_hdf5

GROUP = "dataset"
NOISE_FLAG = 19
_NOT_IMAGING = (20, 23, 24, 26, 27, 28, 29, 30, 31)
"""Flags of calibration, navigation, phase correction, feedback, dummy and stabilisation readouts."""

_BLOCK = 256
_GAP = 16
"""Readouts that are read and thrown away rather than read around."""
_MOST_COMPRESSION = 1000
"""Of the table of readouts, whose rows are much alike; their samples lie elsewhere, as they are."""
_RAW_FILE = "Convert the raw data again with the site's converter"


@dataclass(frozen=True)
class Records:
    """Readouts of one kind: headers (n,), trajectories as flat float32 arrays, one per readout, places in the table."""

    heads: NDArray[Any]
    trajectories: list[NDArray[np.float32]]
    rows: NDArray[np.intp]

    def chosen(self, which: NDArray[np.bool_]) -> Records:
        """Those readouts that a mask (n,) selects."""
        places = np.flatnonzero(which)
        return Records(self.heads[places], [self.trajectories[i] for i in places], self.rows[places])


def flag(number: int) -> np.uint64:
    """Bit of an ISMRMRD acquisition flag."""
    return np.uint64(1 << (number - 1))


def _local(group: h5py.Group, name: str, path: Path) -> Any:
    member = local_member(group, name, path)
    if member is None:
        raise InputError(path, f"not an ISMRMRD file: it has no {group.name.rstrip('/')}/{name}", _RAW_FILE)
    return member


def read_records(path: Path) -> tuple[Any, Records, Records]:
    """XML header, imaging readouts and noise readouts of a file.

    Returns
    -------
    header, imaging, noise
        The header as ``ismrmrd.xsd.ismrmrdHeader``.
    """
    with open_hdf5(path) as file:
        group = _local(file, GROUP, path)
        if not isinstance(group, h5py.Group):
            raise InputError(path, f"not an ISMRMRD file: {GROUP} is no group", _RAW_FILE)
        header = _parse_header(_local(group, "xml", path), path)
        data = _local(group, "data", path)
        if not isinstance(data, h5py.Dataset) or not _holds_acquisitions(data.dtype):
            raise InputError(path, "not an ISMRMRD file: its data are no acquisitions", _RAW_FILE)
        return header, *_read_acquisitions(data, path)


def _holds_acquisitions(dtype: np.dtype[Any]) -> bool:
    from ismrmrd.hdf5 import acquisition_dtype

    found, expected = dtype, acquisition_dtype
    for name in ("head", "idx"):
        if not set(expected.names) <= set(found.names or ()):
            return False
        found, expected = found[name], expected[name]
    complete = set(expected.names) <= set(found.names or ())
    return complete and all(h5py.check_vlen_dtype(dtype[name]) == np.float32 for name in ("traj", "data"))


def _parse_header(xml: Any, path: Path) -> Any:
    from ismrmrd.xsd import CreateFromDocument

    try:
        text = bytes(xml[0])
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise ValueError("document type declarations are not part of ISMRMRD")
        ElementTree.fromstring(text)  # refuses what the lenient parser of ismrmrd would mend in silence
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return CreateFromDocument(text)
    except Exception as error:  # the parser raises errors of many kinds; none of them is ours
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(path, f"its XML header cannot be read ({reason})", _RAW_FILE) from error


def _read_acquisitions(data: h5py.Dataset, path: Path) -> tuple[Records, Records]:
    storage = data.id.get_storage_size()
    if data.shape[0] * data.dtype.itemsize > _MOST_COMPRESSION * storage:
        raise InputError(path, "states more acquisitions than it holds", "Copy the file again from its source")
    heads, trajectories = [], []
    for start in range(0, data.shape[0], _BLOCK):
        block = data[start : start + _BLOCK]  # with the samples: h5py never frees those of fields left out
        heads.append(block["head"].copy())  # a view would keep them, too
        trajectories.extend(block["traj"])
    head = np.concatenate(heads) if heads else np.empty(0, data.dtype["head"])
    is_noise = (head["flags"] & flag(NOISE_FLAG)) != 0
    other = np.zeros(len(head), dtype=bool)
    for number in _NOT_IMAGING:
        other |= (head["flags"] & flag(number)) != 0

    everything = Records(head, trajectories, np.arange(len(head)))
    return everything.chosen(~is_noise & ~other), everything.chosen(is_noise)


def read_samples(path: Path, rows: NDArray[np.intp]) -> list[NDArray[np.float32]]:
    """Samples of readouts at rising places in the table, a flat array for each."""
    found: list[NDArray[np.float32]] = []
    with open_hdf5(path) as file:
        data = file[GROUP]["data"]
        for some in np.split(rows, np.flatnonzero(np.diff(rows) > _GAP) + 1):
            between = data[some[0] : some[-1] + 1]["data"]
            found += [between[row] for row in some - some[0]]
    return found


def write_records(
    path: Path,
    header_xml: str,
    heads: NDArray[Any],
    trajectories: list[NDArray[np.float32]],
    samples: list[NDArray[np.float32]],
) -> None:
    """Write a file in the layout of the ismrmrd library; it appears under its name only when complete."""
    from ismrmrd.hdf5 import acquisition_dtype

    table = np.empty(len(heads), dtype=acquisition_dtype)
    for row, parts in enumerate(zip(heads, trajectories, samples, strict=True)):
        table[row] = parts
    partial = path.with_name(path.name + ".part")
    with h5py.File(partial, "w") as file:
        group = file.create_group(GROUP)
        xml = group.create_dataset("xml", shape=(1,), dtype=h5py.special_dtype(vlen=bytes))
        xml[0] = header_xml
        group.create_dataset("data", data=table, maxshape=(None,), chunks=(256,))
    partial.replace(path)
