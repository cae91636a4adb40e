"""Raw data of every format that is read: one entry for all."""

from __future__ import annotations

from pathlib import Path

from sodium_prep.errors import InputError
from sodium_prep.recon.assemble import assemble
from sodium_prep.recon.description import SUFFIXES, RawDescription
from sodium_prep.recon.exchange import read_exchange, write_exchange
from sodium_prep.recon.hdf5 import SIGNATURE, check_heaps, open_hdf5
from sodium_prep.recon.ismrmrd_read import read_ismrmrd
from sodium_prep.recon.ismrmrd_write import write_ismrmrd
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.twix import read_twix

__all__ = ["RawData", "RawDescription", "read_raw", "write_exchange", "write_ismrmrd"]


def read_raw(
    path: str | Path, description: RawDescription | None = None, *, average: bool = True
) -> tuple[RawData, ...]:
    """Read a single- or multi-channel acquisition of one or several echoes.

    ISMRMRD, Siemens twix, and the exchange format (``.npz`` or ``.h5``) are told apart by what is in the file. Noise is
    scaled to that of the imaging readouts (dwell time, averages).

    Parameters
    ----------
    path
        The file.
    description
        What its sidecar says. A twix file needs it, for its trajectory; any other file may not contradict it.
    average
        Whether averages and repetitions become one; otherwise every readout is kept, in the order of acquisition, with
        its ``block``.

    Returns
    -------
    One for each echo, the earliest first.

    Raises
    ------
    InputError
        If the file is no raw data, cut short, refers to other files, is no sodium acquisition, leaves units open, or
        holds data that cannot make one quantitative image per echo.
    """
    path = Path(path)
    description = description or RawDescription()
    kind = path.suffix.lower()
    start = b""
    if path.is_file():
        with path.open("rb") as stream:
            start = stream.read(len(SIGNATURE))
    if start == SIGNATURE or kind in (".h5", ".mrd"):
        with open_hdf5(path) as file:
            check_heaps(path)
            exchange = "kspace" in file.keys()  # noqa: SIM118 (membership of the file itself would follow links)
        echoes, scan = read_exchange(path) if exchange else read_ismrmrd(path)
    elif kind == ".npz":
        echoes, scan = read_exchange(path)
    elif kind == ".dat":
        echoes, scan = read_twix(path, description)
    else:
        raise InputError(path, "is no raw data that can be read", f"Give one of {', '.join(SUFFIXES)}")
    return assemble(echoes, scan, description, average=average)
