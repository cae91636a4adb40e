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

_BLOCK = 2048
_MOST_COMPRESSION = 1000
"""Of the table of readouts, whose rows are much alike; their samples lie elsewhere, as they are."""
_RAW_FILE = "Convert the raw data again with the site's converter"


@dataclass(frozen=True)
class Records:
    """Readouts of one kind: headers (n,), trajectories and samples as flat float32 arrays, one per readout."""

    heads: NDArray[Any]
    trajectories: list[NDArray[np.float32]]
    samples: list[NDArray[np.float32]]

    def chosen(self, which: NDArray[np.bool_]) -> Records:
        """Those readouts that a mask (n,) selects."""
        rows = np.flatnonzero(which)
        return Records(self.heads[rows], [self.trajectories[i] for i in rows], [self.samples[i] for i in rows])


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
        if not isinstance(data, h5py.Dataset) or not {"head", "traj", "data"} <= set(data.dtype.names or ()):
            raise InputError(path, "not an ISMRMRD file: its data are no acquisitions", _RAW_FILE)
        try:
            return header, *_read_acquisitions(data)
        except OSError as error:
            raise InputError(path, "its acquisitions cannot be read", "Copy the file again from its source") from error


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


def _read_acquisitions(data: h5py.Dataset) -> tuple[Records, Records]:
    storage = data.id.get_storage_size()
    if data.shape[0] * data.dtype.itemsize > _MOST_COMPRESSION * storage:
        raise OSError("more acquisitions are stated than stored")
    heads, trajectories, samples = [], [], []
    for start in range(0, data.shape[0], _BLOCK):
        block = data[start : start + _BLOCK]
        heads.append(block["head"])
        trajectories.extend(block["traj"])
        samples.extend(block["data"])
    head = np.concatenate(heads) if heads else np.empty(0, data.dtype["head"])
    is_noise = (head["flags"] & flag(NOISE_FLAG)) != 0
    other = np.zeros(len(head), dtype=bool)
    for number in _NOT_IMAGING:
        other |= (head["flags"] & flag(number)) != 0

    everything = Records(head, trajectories, samples)
    return everything.chosen(~is_noise & ~other), everything.chosen(is_noise)


def write_records(path: Path, header_xml: str, records: list[Records]) -> None:
    """Write a file in the layout of the ismrmrd library; it appears under its name only when complete."""
    from ismrmrd.hdf5 import acquisition_dtype

    table = np.empty(sum(len(r.heads) for r in records), dtype=acquisition_dtype)
    row = 0
    for part in records:
        for head, trajectory, samples in zip(part.heads, part.trajectories, part.samples, strict=True):
            table[row] = (head, trajectory, samples)
            row += 1
    partial = path.with_name(path.name + ".part")
    with h5py.File(partial, "w") as file:
        group = file.create_group(GROUP)
        xml = group.create_dataset("xml", shape=(1,), dtype=h5py.special_dtype(vlen=bytes))
        xml[0] = header_xml
        group.create_dataset("data", data=table, maxshape=(None,), chunks=(256,))
    partial.replace(path)
