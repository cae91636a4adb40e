"""Reading Siemens raw data (twix, ``.dat``) with twixtools, the extra ``siemens``.

A twix file does not hold its trajectory: that is known to the sequence alone. It comes from an HDF5 file that the
sidecar names, or from the sidecar's parameters. Place and directions of the image are those of each readout's header:
its quaternion is a rotation whose columns are the directions of phase, read and slice in LPS, as siemens_to_ismrmrd
takes it; the slice normal and position of the protocol have to agree with it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.assemble import CONVERT, Grid, NoiseScan, RawEcho, RawScan, oriented_grid
from sodium_prep.recon.description import RawDescription
from sodium_prep.recon.hdf5 import read_trajectory, unreadable
from sodium_prep.recon.raw_data import NUCLEUS, Samples
from sodium_prep.recon.trajectory import radial_trajectory

_MOST_MEASUREMENTS = 64
_RAID_HEADER, _RAID_ENTRY, _RAID_PLACE = 8, 152, 8
_SHORTEST_VB_HEADER = 10000
_SAME_PLACE_MM, _SAME_DIRECTION = 0.5, 0.999
_SAME_DURATION = 0.01
_SHORTEST_READOUT = 128
_LARGE_INDEX = re.compile(rb"\[\d{5,}\][\w.\[\]]*\s*=")
"""In the protocol's text, which is parsed into lists of such a length."""
_NAME_FILE = "Name an HDF5 file with k in SodiumAcquisition.TrajectoryFile, or give all parameters of DA-3DPR or 3DPR"


class _Readout(NamedTuple):
    """Counters, samples (coils, n) and geometry of one readout."""

    line: int
    echo: int
    block: tuple[int, int]
    slice: int
    samples: NDArray[np.complex64]
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


def read_twix(path: Path, description: RawDescription) -> tuple[list[RawEcho], RawScan]:
    """Readouts of each echo of the last measurement of a file; noise is that of any measurement in it.

    Parameters
    ----------
    description
        Says what the trajectory is.

    Raises
    ------
    InputError
        If twixtools is not installed, the file is cut short or no twix file, another nucleus was measured, or the
        trajectory is not known or has another number of readouts or samples.
    """
    check_twix(path, description)
    from twixtools.twixprot import parse_twix_hdr

    noise, readouts, protocol = None, [], {}
    try:
        with path.open("rb") as stream:
            for start, data, end, is_ve in _measurements(stream, path):
                stream.seek(start)
                protocol = parse_twix_hdr(stream).get("MeasYaps", {})
                found = list(_readouts(stream, data, end, is_ve, path))
                readouts = [one for is_noise, one in found if not is_noise]
                silent = [one.samples for is_noise, one in found if is_noise]
                noise = _noise(silent, protocol, path) if silent else noise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(path, "is no twix file that can be read", "Export the raw data again") from error
    _check_measurement(readouts, protocol, path)
    dwell_s = _dwell_time_s(protocol, path)
    numbers = sorted({one.echo for one in readouts})
    table = _trajectory(description, len(numbers), readouts[0].samples.shape[1], dwell_s, path)
    echoes = []
    for number, k in zip(numbers, table, strict=True):
        own = [one for one in readouts if one.echo == number]
        _, block = np.unique([one.block for one in own], axis=0, return_inverse=True)
        echoes.append(
            RawEcho(
                samples=Samples.of(np.stack([one.samples for one in own], axis=1)),
                k_per_mm=k[_rows(own, len(k), path)],
                dwell_time_s=dwell_s,
                block=block.ravel().astype(np.int32),
                echo_time_s=_scaled(_number(protocol, "alTE", number), 1e-6),
            )
        )
    return echoes, RawScan(
        source=str(path),
        grids=[_grid(protocol, description, readouts[0], path)],
        noise=noise,
        trajectory_name=description.trajectory,
        field_strength_t=_number(protocol, "sProtConsistencyInfo", "flNominalB0"),
        repetition_time_s=_scaled(_number(protocol, "alTR", 0), 1e-6),
        flip_angle_deg=_number(protocol, "adFlipAngleDegree", 0),
    )


def check_twix(path: Path, description: RawDescription) -> None:
    """Refuse, without reading samples, a file that is cut short and one whose trajectory is not known.

    Raises
    ------
    InputError
        Also if twixtools is not installed.
    """
    if find_spec("twixtools") is None:
        mend = "Install it (pip install 'sodium-prep[siemens]'), or use the scanner's image with --recon vendor"
        raise InputError(path, "is Siemens raw data, which need the package twixtools", mend)
    try:
        with path.open("rb") as stream:
            list(_measurements(stream, path))
    except OSError as error:
        raise unreadable(path, "twix") from error
    if description.trajectory_file is None:
        _acquisition(description, path)
    elif not description.trajectory_file.is_file():
        raise unreadable(description.trajectory_file, "HDF5")


def _bytes(stream: BinaryIO, start: int, count: int, path: Path) -> bytes:
    stream.seek(start)
    found = stream.read(count)
    if len(found) < count:
        raise unreadable(path, "twix")
    return found


def _measurements(stream: BinaryIO, path: Path) -> Iterator[tuple[int, int, int, bool]]:
    """Where each measurement, its data and its end are, and whether it is of software VD or later."""
    size = path.stat().st_size
    first, count = struct.unpack("<II", _bytes(stream, 0, 8, path))
    if first >= _SHORTEST_VB_HEADER or count > _MOST_MEASUREMENTS:
        places = [(0, size)]
        is_ve = False
    else:
        entries = (_bytes(stream, _RAID_HEADER + n * _RAID_ENTRY + _RAID_PLACE, 16, path) for n in range(count))
        places = [struct.unpack("<QQ", entry) for entry in entries]
        is_ve = True
    for start, length in places:
        if start + length > size or length < 8:
            raise unreadable(path, "twix")
        (header_length,) = struct.unpack("<I", _bytes(stream, start, 4, path))
        if not 8 <= header_length <= length:
            raise unreadable(path, "twix")
        if _LARGE_INDEX.search(_bytes(stream, start, header_length, path)):
            raise InputError(path, "its protocol has an array of unlikely length", "Export the raw data again")
        yield start, start + header_length, start + length, is_ve


def _readouts(stream: BinaryIO, place: int, end: int, is_ve: bool, path: Path) -> Iterator[tuple[bool, _Readout]]:
    """Imaging readouts, and noise marked True, of a measurement, which ends with a readout that is marked so."""
    from twixtools.mdb import Mdb

    while place + _SHORTEST_READOUT <= end:
        stream.seek(place)
        block = Mdb(stream, is_ve)
        if block.is_flag_set("ACQEND"):
            return
        length = int(block.dma_len)
        if length < _SHORTEST_READOUT or place + length > end:
            break
        is_noise = block.is_flag_set("NOISEADJSCAN")
        if is_noise or block.is_image_scan():
            head, count = block.mdh, block.mdh.Counter
            where = head.SliceData.SlicePos
            yield (
                is_noise,
                _Readout(
                    count.Lin,
                    count.Eco,
                    (count.Rep, count.Ave),
                    count.Sli,
                    block.data[:, head.CutOff.Pre : head.SamplesInScan - head.CutOff.Post],
                    (where.Sag, where.Cor, where.Tra),
                    tuple(head.SliceData.Quaternion),
                ),
            )
        place += length
    raise unreadable(path, "twix")


def _value(protocol: Any, *keys: str | int) -> Any:
    """Entry of the parsed protocol; None where it lacks, as zeros do."""
    for key in keys:
        try:
            protocol = protocol[key]
        except (KeyError, IndexError, TypeError):
            return None
    return protocol


def _number(protocol: Any, *keys: str | int) -> float | None:
    value = _value(protocol, *keys)
    return float(value) if isinstance(value, int | float) else None


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else unit * value


def _check_measurement(readouts: list[_Readout], protocol: Any, path: Path) -> None:
    nucleus = _value(protocol, "sTXSPEC", "asNucleusInfo", 0, "tNucleus")
    if nucleus is None:
        raise InputError(path, "does not state its nucleus", "Export the raw data with their protocol")
    if str(nucleus).strip('"').upper() != NUCLEUS.upper():
        raise InputError(path, f"its nucleus is {nucleus}, not {NUCLEUS}", "Give the raw data of the sodium scan")
    if not readouts:
        raise InputError(path, "holds no imaging readouts", "Export the measurement, not its adjustments")
    if len({one.slice for one in readouts}) > 1:
        raise InputError(path, "holds several slices", "Give a three-dimensional acquisition of one slab")
    if len({one.samples.shape for one in readouts}) > 1:
        raise InputError(path, "its readouts differ in channels or length", CONVERT)


def _dwell_time_s(protocol: Any, path: Path) -> float:
    """From sample to sample as recorded, that is with oversampling."""
    dwell_ns = _number(protocol, "sRXSPEC", "alDwellTime", 0)
    if not dwell_ns:
        raise InputError(path, "does not state its dwell time", "Export the raw data with their protocol")
    return 1e-9 * dwell_ns


def _noise(samples: list[NDArray[np.complex64]], protocol: Any, path: Path) -> NoiseScan:
    if len({len(one) for one in samples}) > 1:
        raise InputError(path, "its noise readouts differ in channels", "Export the measurement again")
    return NoiseScan(np.concatenate(samples, axis=1), _dwell_time_s(protocol, path))


def _rows(readouts: list[_Readout], n_spokes: int, path: Path) -> NDArray[np.int64]:
    """Row of the trajectory for each readout: its line counter, or its number where lines are not counted."""
    lines = np.array([one.line for one in readouts])
    counts = np.bincount(lines)
    if len(counts) == n_spokes and (counts == counts[0]).all():
        return lines
    if not lines.any() and len(lines) % n_spokes == 0:
        return np.arange(len(lines)) % n_spokes
    told = f"of {len(np.unique(lines))} lines" if lines.any() else "without line counters"
    problem = f"has {len(lines)} readouts {told}, but its trajectory {n_spokes}"
    raise InputError(path, problem, "Give the trajectory of this scan, or correct NumberOfSpokes in the sidecar")


def _trajectory(
    description: RawDescription, n_echoes: int, n_samples: int, dwell_s: float, path: Path
) -> NDArray[np.float32]:
    """Of each echo, k (echoes, spokes, samples, 3) in 1/mm."""
    if description.trajectory_file is None:
        acquisition, n_spokes = _acquisition(description, path)
        told_s, lasts_s = acquisition.readout_duration_s, dwell_s * (n_samples - 1)
        if abs(lasts_s - told_s) > _SAME_DURATION * told_s:
            problem = (
                f"its {n_samples} samples last {1e3 * lasts_s:.4g} ms, its ReadoutDuration is {1e3 * told_s:.4g} ms"
            )
            raise InputError(path, problem, "Correct ReadoutDuration, or name the measured k in TrajectoryFile")
        try:
            k = radial_trajectory(acquisition, n_spokes, n_samples).k_per_mm
        except ValueError as error:
            raise InputError(path, f"its trajectory cannot be computed: {error}", _NAME_FILE) from error
    else:
        k, where = read_trajectory(description.trajectory_file), description.trajectory_file
        if k.ndim == 4 and len(k) != n_echoes:
            mend = "Write k (readouts, samples, 3), or one for each echo"
            raise InputError(where, f"holds k of {len(k)} echoes, the raw data {n_echoes}", mend)
        if k.shape[-2] != n_samples:
            problem = f"has {k.shape[-2]} samples per readout, the raw data {n_samples}"
            raise InputError(where, problem, "Write k of every sample as it was recorded")
    return np.broadcast_to(k, (n_echoes, *k.shape[-3:]))


def _acquisition(description: RawDescription, path: Path) -> tuple[Acquisition, int]:
    """Law and number of spokes from the sidecar's parameters: what it lacks is asked for, never guessed."""
    name, n_spokes = description.trajectory, description.n_spokes
    duration_s, resolution = description.readout_duration_s, description.nominal_resolution_mm
    fraction = 1.0 if name == "3DPR" else description.linear_fraction
    if name not in ("DA-3DPR", "3DPR"):
        problem = f"does not hold its trajectory, and that of Trajectory {name} cannot be computed"
        raise InputError(path, problem, _NAME_FILE)
    if n_spokes is None or duration_s is None or resolution is None or fraction is None:
        keys = ("NumberOfSpokes", "ReadoutDuration", "NominalResolution", "LinearFraction")
        values = (n_spokes, duration_s, resolution, fraction)
        missing = [key for key, value in zip(keys, values, strict=True) if value is None]
        raise InputError(path, f"does not hold its trajectory, and its sidecar lacks {', '.join(missing)}", _NAME_FILE)
    # Times of the sequence and the field do not count for k.
    return Acquisition(0.0, 1.0, 90.0, 3.0, name, duration_s, resolution, fraction), n_spokes


def _grid(protocol: Any, description: RawDescription, readout: _Readout, path: Path) -> Grid:
    """Grid along read, phase and slice; the sidecar's field of view and resolution go before the protocol's."""
    slab = _value(protocol, "sSliceArray", "asSlice", 0)
    components = ("dSag", "dCor", "dTra")
    normal, centre = (
        np.array([_number(slab, name, one) or 0.0 for one in components]) for name in ("sNormal", "sPosition")
    )
    w, x, y, z = readout.quaternion
    phase_read_slice = np.array(
        [
            [1 - 2 * (y**2 + z**2), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x**2 + z**2), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x**2 + y**2)],
        ]
    )
    along = phase_read_slice[:, 2] @ normal
    apart = np.abs(np.array(readout.position) - centre).max()
    if not abs(along) > _SAME_DIRECTION or not apart < _SAME_PLACE_MM:
        problem = f"its readouts and its protocol disagree about the slab: {apart:.1f} mm, direction cosine {along:.3f}"
        raise InputError(path, problem, "Convert the file to ISMRMRD (siemens_to_ismrmrd) with the right geometry")
    extents = [_number(slab, name) or 0.0 for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")]
    field_mm = description.field_of_view_mm or (extents[0], extents[1], extents[2])
    base = _number(protocol, "sKSpace", "lBaseResolution")
    resolution = description.nominal_resolution_mm or ((field_mm[0] / base,) * 3 if base else None)
    if resolution is None or min(resolution) <= 0.0 or min(field_mm) <= 0.0:
        mend = "Give FieldOfView and NominalResolution in the sidecar's SodiumAcquisition"
        raise InputError(path, "does not state the field of view and resolution of its image", mend)
    i, j, k = (round(extent / size) for extent, size in zip(field_mm, resolution, strict=True))
    return oriented_grid((i, j, k), field_mm, phase_read_slice[:, [1, 0, 2]], np.array(readout.position), str(path))
