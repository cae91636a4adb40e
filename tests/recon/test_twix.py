"""Siemens raw data, as twixtools writes them: no scanner's file can be part of the tests."""

import struct
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.errors import InputError
from sodium_prep.recon.description import RawDescription
from sodium_prep.recon.raw import read_raw
from tests.recon.analytic import complex_noise, small_trajectory

twixtools = pytest.importorskip("twixtools")

COILS, SPOKES, SAMPLES, DWELL_NS = 3, 60, 65, 156250
TRAJECTORY = small_trajectory(SPOKES, SAMPLES)
DESCRIPTION = RawDescription("DA-3DPR", None, SPOKES, 0.2, 1e-9 * DWELL_NS, 0.01, (6.0, 6.0, 6.0), (240.0,) * 3)
PHASE, READ, SLICE = Rotation.from_euler("xyz", (20.0, -30.0, 55.0), degrees=True).as_matrix().T
POSITION = np.array([3.5, -12.25, 40.0])

PROTOCOL = f"""### ASCCONV BEGIN ###
sTXSPEC.asNucleusInfo[0].tNucleus = "23Na"
sRXSPEC.alDwellTime[0] = {{dwell}}
sProtConsistencyInfo.flNominalB0 = 2.8936
alTR[0] = 120000
alTE[0] = 300
alTE[1] = 5000
adFlipAngleDegree[0] = 90
sSliceArray.lSize = 1
sSliceArray.asSlice[0].sPosition.dSag = {POSITION[0]}
sSliceArray.asSlice[0].sPosition.dCor = {POSITION[1]}
sSliceArray.asSlice[0].sPosition.dTra = {POSITION[2]}
sSliceArray.asSlice[0].sNormal.dSag = {SLICE[0]}
sSliceArray.asSlice[0].sNormal.dCor = {SLICE[1]}
sSliceArray.asSlice[0].sNormal.dTra = {SLICE[2]}
sSliceArray.asSlice[0].dThickness = 216
sSliceArray.asSlice[0].dPhaseFOV = 228
sSliceArray.asSlice[0].dReadoutFOV = 240
sKSpace.lBaseResolution = 40
### ASCCONV END ###
"""


def _header(dwell_ns=DWELL_NS, old="", new="", length=0):
    text = PROTOCOL.format(dwell=dwell_ns).replace(old, new).encode()
    body = np.uint32(1).tobytes() + b"MeasYaps\0" + np.uint32(len(text)).tobytes() + text
    body += bytes(max(-(len(body) + 4) % 32, length - len(body) - 4))
    return np.frombuffer(np.uint32(len(body) + 4).tobytes() + body, "S1")


def _readout(data, line=0, average=0, echo=0, flag=None, version_is_ve=True):
    one = twixtools.mdb.Mdb_local(data, version_is_ve)
    one.mdh.Counter.Lin, one.mdh.Counter.Ave, one.mdh.Counter.Eco = line, average, echo
    x, y, z, w = Rotation.from_matrix(np.stack([PHASE, READ, SLICE], axis=1)).as_quat()
    one.mdh.SliceData.Quaternion[:] = (w, x, y, z)
    place = one.mdh.SliceData.SlicePos
    place.Sag, place.Cor, place.Tra = POSITION
    if flag:
        one.add_flag(flag)
    return one


def _data(seed=1, *shape):
    return complex_noise(np.random.default_rng(seed), (*shape, SPOKES, COILS, SAMPLES)).astype(np.complex64)


def _write(path, readouts, noise=None, **header):
    """A noise measurement, and the measurement itself with a readout that is none of the image."""
    scans = [{"hdr_str": _header(**header), "mdb": [_readout(np.ones((1, 32)), flag="RTFEEDBACK"), *readouts]}]
    if noise is not None:
        scans.insert(0, {"hdr_str": _header(2 * DWELL_NS), "mdb": [_readout(noise, flag="NOISEADJSCAN")]})
    twixtools.write_twix(scans, str(path))
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "meas_kspace.dat"


def test_a_measurement_with_noise_and_averages_is_read(file):
    data, noise = _data(1, 2), complex_noise(np.random.default_rng(2), (COILS, 200)).astype(np.complex64)
    _write(file, [_readout(data[n, i], i, n) for n in (0, 1) for i in range(SPOKES)], noise)
    (raw,), (apart,) = read_raw(file, DESCRIPTION), read_raw(file, DESCRIPTION, average=False)
    np.testing.assert_allclose(raw.kspace, data.mean(axis=0).transpose(1, 0, 2), atol=1e-6)
    np.testing.assert_array_equal(apart.kspace, data.reshape(-1, COILS, SAMPLES).transpose(1, 0, 2))
    assert apart.block.tolist() == [0] * SPOKES + [1] * SPOKES
    # Twice the dwell time and two averages: the noise of the scan has that of the image.
    np.testing.assert_allclose(raw.noise, noise, rtol=1e-6)
    np.testing.assert_allclose(raw.trajectory.k_per_mm, TRAJECTORY.k_per_mm, atol=1e-8)
    np.testing.assert_allclose(raw.trajectory.time_s, TRAJECTORY.time_s, rtol=1e-7)
    assert raw.trajectory.linear_fraction == pytest.approx(0.2, abs=1e-6)
    found = (raw.field_strength_t, raw.echo_time_s, raw.repetition_time_s, raw.flip_angle_deg, raw.n_averages)
    np.testing.assert_allclose(found, (2.8936, 0.0003, 0.12, 90.0, 2))
    # Voxel N // 2 lies at the position, its axes along read, phase and slice; LPS in the file, RAS here.
    to_ras = np.diag([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(raw.affine[:3, :3], 6.0 * to_ras @ np.stack([READ, PHASE, SLICE], axis=1), atol=1e-5)
    np.testing.assert_allclose(raw.affine @ [20, 20, 20, 1], [*(to_ras @ POSITION), 1], atol=1e-4)
    assert raw.shape == (40, 40, 40)
    (own,) = read_raw(file, replace(DESCRIPTION, field_of_view_mm=None))
    assert own.shape == (40, 38, 36)


def test_echoes_and_lines_in_any_order(file):
    data, order = _data(3, 2), np.random.default_rng(4).permutation(SPOKES)
    _write(file, [_readout(data[echo, i], i, 0, echo) for i in order for echo in (0, 1)])
    echoes = read_raw(file, DESCRIPTION)
    for number, (raw, time_s) in enumerate(zip(echoes, (0.0003, 0.005), strict=True)):
        np.testing.assert_array_equal(raw.kspace, data[number, order].transpose(1, 0, 2))
        np.testing.assert_allclose(raw.trajectory.k_per_mm, TRAJECTORY.k_per_mm[order], atol=1e-8)
        assert raw.echo_time_s == pytest.approx(time_s)


def test_a_file_of_software_vb_has_a_header_before_every_channel(file):
    data = _data(5)
    readouts = [_readout(one, i, version_is_ve=False) for i, one in enumerate(data)]
    last = _readout(np.zeros((1, 16)), flag="ACQEND", version_is_ve=False)
    parts = [bytes(one.mdh) + channel.tobytes() for one in (*readouts, last) for channel in one.data]
    file.write_bytes(_header(length=12000).tobytes() + b"".join(parts))
    (raw,) = read_raw(file, DESCRIPTION)
    np.testing.assert_array_equal(raw.kspace, data.transpose(1, 0, 2))
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(InputError, match="cut short or no twix file"):
        read_raw(file, DESCRIPTION)


def test_the_trajectory_may_come_from_a_file(file, tmp_path):
    turned = TRAJECTORY.k_per_mm @ Rotation.from_euler("z", 0.7).as_matrix().astype(np.float32)
    with h5py.File(tmp_path / "k.h5", "w") as stream:
        stream["k"] = 1e3 * turned.astype(np.float64)
        stream["k"].attrs["units"] = "1/m"
    description = RawDescription(trajectory_file=tmp_path / "k.h5")
    data = _data()
    _write(file, [_readout(one) for one in data])  # without line counters: the order of acquisition
    (raw,) = read_raw(file, description)
    np.testing.assert_allclose(raw.trajectory.k_per_mm, turned, rtol=1e-6)
    np.testing.assert_array_equal(raw.kspace, data.transpose(1, 0, 2))
    with h5py.File(tmp_path / "k.h5", "r+") as stream:
        shorter = stream["k"][:, 1:]
        del stream["k"]
        stream["k"] = shorter
        stream["k"].attrs["units"] = "1/m"
    with pytest.raises(InputError, match=r"k\.h5: has 64 samples per readout, the raw data 65"):
        read_raw(file, description)
    with pytest.raises(InputError, match=r"absent\.h5: cannot be read: it is not there"):
        read_raw(file, RawDescription(trajectory_file=tmp_path / "absent.h5"))


BAD = {
    "nucleus": (DESCRIPTION, {"old": "23Na", "new": "1H"}, "its nucleus is 1H, not 23Na"),
    "no nucleus": (DESCRIPTION, {"old": "tNucleus", "new": "tOther"}, "does not state its nucleus"),
    "no dwell": (DESCRIPTION, {"old": "alDwellTime", "new": "alOther"}, "does not state its dwell time"),
    "tilted": (DESCRIPTION, {"old": "sNormal.dTra", "new": "sNormal.dOther"}, "disagree about the slab"),
    "index": (DESCRIPTION, {"old": "alTE[1]", "new": "alTE[99999999]"}, "array of unlikely length"),
    "dwell": (replace(DESCRIPTION, dwell_time_s=1e-4), {}, "the DwellTime of its sidecar is 0.0001"),
    "channels": (replace(DESCRIPTION, n_channels=8), {}, "has 3 channels, but"),
    "spokes": (replace(DESCRIPTION, n_spokes=59), {}, "has 60 readouts of 60 lines, but its trajectory 59"),
    "duration": (replace(DESCRIPTION, readout_duration_s=0.02), {}, "its 65 samples last 10 ms"),
    "TPI": (replace(DESCRIPTION, trajectory="TPI"), {}, "that of Trajectory TPI cannot be computed"),
    "nothing": (None, {}, "that of Trajectory None cannot be computed"),
    "fraction": (replace(DESCRIPTION, linear_fraction=None), {}, "its sidecar lacks LinearFraction"),
}


@pytest.mark.parametrize(("description", "header", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_known_is_refused(file, description, header, message):
    _write(file, [_readout(one, i) for i, one in enumerate(_data())], **header)
    with pytest.raises(InputError, match=message) as refusal:
        read_raw(file, description)
    assert refusal.value.where == str(file)


def test_readouts_that_do_not_belong_together_are_refused(file, tmp_path):
    data = _data()
    lines = [_readout(one, i) for i, one in enumerate(data)]
    shorter = [*lines[:-1], _readout(data[-1, :, :-1], SPOKES - 1)]
    with pytest.raises(InputError, match="differ in channels or length"):
        read_raw(_write(file, shorter), DESCRIPTION)
    other = _write(tmp_path / "noise.dat", lines, noise=np.ones((2, 200)))
    with pytest.raises(InputError, match="noise has 2 channels, its imaging readouts 3"):
        read_raw(other, DESCRIPTION)
    incomplete = [*lines, *(_readout(data[i], i, 1) for i in range(20))]
    with pytest.raises(InputError, match="has 80 readouts of 60 lines"):
        read_raw(_write(tmp_path / "incomplete.dat", incomplete), DESCRIPTION)


def test_broken_files_are_refused(file):
    _write(file, [_readout(one, i) for i, one in enumerate(_data())])
    complete = file.read_bytes()
    unfinished, endless = bytearray(complete), bytearray(complete)
    (length,) = struct.unpack_from("<Q", complete, 24)
    struct.pack_into("<Q", unfinished, 24, length - 352)  # without the mark of the end
    first = 10240 + len(_header())
    struct.pack_into("<I", endless, first, 0)  # data of no length, 0 bytes on which the same would be read again
    struct.pack_into("<Q", endless, first + 40, 1 << 5)
    for content in (b"", complete[: len(complete) // 2], complete[:5000], b"<html>" * 5000, unfinished, endless):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cut short or no twix file"):
            read_raw(file, DESCRIPTION)
    file.write_bytes(complete.replace(b"MeasYaps", b"Nonsense"))
    with pytest.raises(InputError, match="does not state its nucleus"):
        read_raw(file, DESCRIPTION)


def test_without_twixtools_the_message_says_how_to_get_it(file, monkeypatch):
    _write(file, [_readout(one, i) for i, one in enumerate(_data())])
    monkeypatch.setattr("sodium_prep.recon.twix.find_spec", {}.get)
    with pytest.raises(InputError, match=r"pip install 'sodium-prep\[siemens\]'"):
        read_raw(file, DESCRIPTION)
