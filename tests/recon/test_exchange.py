import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest

from sodium_prep.errors import InputError
from sodium_prep.recon.description import RawDescription
from sodium_prep.recon.hdf5 import read_trajectory
from sodium_prep.recon.raw import RawData, read_raw, write_exchange
from tests.recon.analytic import complex_noise, small_trajectory

SPOKES, SAMPLES = 60, 64


def _echoes(**more) -> list[RawData]:
    rng = np.random.default_rng(6)
    affine = np.array([[0, -6.0, 0, 95.3], [6.0, 0, 0, -101.7], [0, 0, 6.0, -88.1], [0, 0, 0, 1]])
    first = RawData(
        kspace=complex_noise(rng, (3, SPOKES, SAMPLES)).astype(np.complex64),
        trajectory=small_trajectory(SPOKES, SAMPLES),
        shape=(40, 38, 36),
        voxel_mm=(6.0, 6.0, 6.0),
        affine=affine,
        noise=complex_noise(rng, (3, 150)).astype(np.complex64),
        trajectory_name="DA-3DPR",
        field_strength_t=2.89,
        echo_time_s=0.0003,
        repetition_time_s=0.12,
        flip_angle_deg=90.0,
        n_averages=4,
        **more,
    )
    later = complex_noise(rng, (3, SPOKES, SAMPLES)).astype(np.complex64)
    return [first, replace(first, kspace=later, echo_time_s=0.005)]


def _arrays() -> dict:
    raw = _echoes()[0]
    return {
        "kspace": raw.kspace,
        "k_per_m": 1e3 * raw.trajectory.k_per_mm.astype(np.float64),
        "dwell_time_s": raw.trajectory.time_s[1],
        "nucleus": "23Na",
        "affine": raw.affine,
        "shape": raw.shape,
        "voxel_mm": raw.voxel_mm,
        "noise": raw.noise,
        "n_averages": 4,
    }


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_round_trip_is_exact(tmp_path, suffix):
    echoes, path = _echoes(), tmp_path / f"nätrium_kspace{suffix}"
    write_exchange(path, echoes)
    back = read_raw(path)
    for raw, found in zip(echoes, back, strict=True):
        assert found.kspace.tobytes() == raw.kspace.tobytes()
        assert found.noise.tobytes() == raw.noise.tobytes()
        assert found.trajectory.k_per_mm.tobytes() == raw.trajectory.k_per_mm.tobytes()
        np.testing.assert_allclose(found.trajectory.time_s, raw.trajectory.time_s, rtol=1e-14)
        np.testing.assert_allclose(found.trajectory.weights_mm3, raw.trajectory.weights_mm3, rtol=1e-6)
        np.testing.assert_array_equal(found.affine, raw.affine)
        for name in ("shape", "voxel_mm", "trajectory_name", "field_strength_t", "echo_time_s", "repetition_time_s"):
            assert getattr(found, name) == getattr(raw, name)
        assert (found.flip_angle_deg, found.n_averages, found.block) == (90.0, 4, None)
    assert back[1].trajectory is back[0].trajectory
    again = tmp_path / f"again{suffix}"
    write_exchange(again, back)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, again.name])


def test_a_file_as_other_programs_write_it(tmp_path):
    """Real and imaginary part along the last axis, small values as attributes of the file."""
    arrays, path = _arrays(), tmp_path / "matlab.h5"
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            if name in ("kspace", "noise"):
                file[name] = np.stack([value.real, value.imag], axis=-1)
            elif name == "k_per_m":
                file[name] = value
            else:
                file.attrs[name] = value
    (raw,) = read_raw(path)
    assert raw.kspace.tobytes() == arrays["kspace"].tobytes()
    assert raw.noise.tobytes() == arrays["noise"].tobytes()
    assert (raw.shape, raw.n_averages, raw.echo_time_s) == ((40, 38, 36), 4, None)


def test_blocks_can_be_kept_apart(tmp_path):
    """Readouts keep their order and block, and stand for the same image as their averages."""
    arrays = _arrays()
    second = arrays["kspace"][:, ::-1] + 1.0
    arrays["kspace"] = np.concatenate([arrays["kspace"], second], axis=1)
    arrays["k_per_m"] = np.concatenate([arrays["k_per_m"], arrays["k_per_m"][::-1]])
    arrays["block"] = np.repeat([0, 1], SPOKES)
    np.savez(tmp_path / "two.npz", **arrays)
    (mean,), (apart,) = read_raw(tmp_path / "two.npz"), read_raw(tmp_path / "two.npz", average=False)
    assert apart.kspace.tobytes() == arrays["kspace"].tobytes()
    assert apart.block.tolist() == [0] * SPOKES + [1] * SPOKES
    assert (mean.n_averages, apart.n_averages, mean.block) == (8, 4, None)
    np.testing.assert_allclose(mean.kspace, (arrays["kspace"][:, :SPOKES] + second[:, ::-1]) / 2.0, atol=1e-6)
    np.testing.assert_allclose(mean.noise, apart.noise / np.sqrt(2.0), rtol=1e-6)
    at_centre = [(raw.trajectory.weights_mm3 * raw.kspace).sum(axis=(1, 2)) for raw in (mean, apart)]
    np.testing.assert_allclose(*at_centre, rtol=1e-5)
    (told,) = read_raw(tmp_path / "two.npz", RawDescription(n_spokes=SPOKES), average=False)
    assert told.trajectory.n_readouts == 2 * SPOKES


def _nan(array):
    array = array.copy()
    array[..., 3] = np.nan
    return array


BAD = {
    "nucleus": ({"nucleus": "1H"}, "its nucleus is '1H'"),
    "no nucleus": ({"nucleus": None}, "has no nucleus"),
    "no k": ({"k_per_m": None}, "has no k_per_m"),
    "misspelt": ({"echo_time": 0.5}, "echo_time is not part"),
    "NaN": ({"kspace": _nan}, "not finite"),
    "silent channel": ({"kspace": lambda y: y * np.array([1, 0, 1])[:, None, None]}, "channel 1 is zero"),
    "NaN in k": ({"k_per_m": lambda k: np.full_like(k, np.nan)}, "k_per_m is float64 .* or not finite"),
    "rad/m": ({"k_per_m": lambda k: 2.0 * np.pi * k}, r"reaches \|k\| = 523.6/m"),
    "fewer spokes": ({"k_per_m": lambda k: k[1:]}, r"k_per_m has the shape \(59, 64, 3\)"),
    "real": ({"kspace": np.abs}, "kspace is float32"),
    "empty": ({"kspace": lambda y: y[:0]}, "holds no samples"),
    "channels": ({"noise": lambda noise: noise[:2]}, "noise has 2 channels, its imaging readouts 3"),
    "voxel": ({"voxel_mm": (6.0, 6.0, 5.0)}, "unit vectors"),
    "sheared": ({"affine": lambda a: a + 2.0 * np.eye(4, k=2) * [1, 1, 1, 0]}, "unit vectors"),
    "transposed": ({"affine": np.transpose}, "none of an image"),
    "matrix": ({"shape": (40, 38, 360000)}, "states a matrix"),
    "dwell": ({"dwell_time_s": 0.0}, "sample_time_us is 0"),
    "echo times": ({"echo_times_s": [0.1, 0.2]}, "echo_times_s are 2, its echoes 1"),
    "no times": ({"kspace": lambda y: np.stack([y, y])}, "2 echoes, but its header states 0"),
    "falling": ({"kspace": lambda y: np.stack([y, y]), "echo_times_s": [0.2, 0.1]}, "do not rise"),
    "averages": ({"n_averages": 0.5}, "n_averages are no whole numbers"),
    "no averages": ({"n_averages": 0}, r"n_averages is \[0\]"),
    "blocks": ({"block": [0, 1]}, "2 entries for 60 readouts"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_unusable_arrays_are_refused(tmp_path, changes, message):
    arrays = _arrays()
    for name, change in changes.items():
        arrays[name] = change(arrays[name]) if callable(change) else change
    np.savez(tmp_path / "bad.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=message) as refusal:
        read_raw(tmp_path / "bad.npz")
    assert refusal.value.where == str(tmp_path / "bad.npz")
    assert "\n" not in str(refusal.value)


CONTRADICTIONS = {
    "spokes": (RawDescription(n_spokes=59), "has 60 readouts of different trajectory, but the NumberOfSpokes"),
    "channels": (RawDescription(n_channels=8), "has 3 channels, but the NumberReceiveCoilActiveElements"),
    "dwell": (RawDescription(dwell_time_s=1e-4), "but the DwellTime of its sidecar is 0.0001"),
    "echo": (RawDescription(echo_times_s=(0.005,)), "its echo times are 0.3, 5 ms, but the sidecar's EchoTime is 5 ms"),
}


@pytest.mark.parametrize(("description", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_sidecar_that_contradicts_is_refused(tmp_path, description, message):
    write_exchange(tmp_path / "raw.npz", _echoes())
    with pytest.raises(InputError, match=message):
        read_raw(tmp_path / "raw.npz", description)


def test_an_npz_may_hold_plain_arrays_of_its_own_size_only(tmp_path):
    path, arrays = tmp_path / "raw.npz", _arrays()
    ragged = np.array([np.zeros(64), np.zeros(63)], dtype=object)
    np.savez(path, **arrays | {"kspace": ragged})
    with pytest.raises(InputError, match="kspace holds Python objects"):
        read_raw(path)
    np.savez(path, **arrays)
    complete = path.read_bytes()
    path.write_bytes(complete[: len(complete) // 2])
    with pytest.raises(InputError, match="cut short or no npz file"):
        read_raw(path)
    with pytest.raises(InputError, match="not there"):
        read_raw(tmp_path / "absent.npz")
    for shape, content in (("(64, 65535, 65535)", b""), ("(2500000,)", bytes(20_000_000))):
        header = f"{{'descr': '<c8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("kspace.npy", b"\x93NUMPY\x01\x00v\x00" + header.encode() + content)
        assert path.stat().st_size < 30_000
        with pytest.raises(InputError, match="kspace states a size that the file cannot hold"):
            read_raw(path)


def _external(file, other):
    file["kspace"] = h5py.ExternalLink(str(other), "/kspace")


def _soft(file, other):
    file["kspace"] = h5py.SoftLink("/noise")


def _virtual(file, other):
    layout = h5py.VirtualLayout((3, SPOKES, SAMPLES), np.complex64)
    layout[...] = h5py.VirtualSource(str(other), "kspace", (3, SPOKES, SAMPLES))
    file.create_virtual_dataset("kspace", layout)


def _stored_elsewhere(file, other):
    file.create_dataset("kspace", (100,), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def _never_written(file, other):
    member = file.create_dataset("kspace", (1 << 20, 1 << 20, 64), np.complex64, chunks=(64, 64, 64))
    member.attrs["units"] = "1/m"


def _group(file, other):
    file.create_group("kspace").attrs["units"] = "1/m"


BAD_MEMBERS = {
    "external": (_external, "kspace is a link"),
    "soft": (_soft, "kspace is a link"),
    "virtual": (_virtual, "in other files"),
    "storage": (_stored_elsewhere, "in other files"),
    "size": (_never_written, "kspace states a size that the file cannot hold"),
    "group": (_group, "kspace is no dataset"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_MEMBERS.values(), ids=BAD_MEMBERS)
@pytest.mark.parametrize("name", ["kspace", "k"])
def test_nothing_outside_an_hdf5_file_is_read(tmp_path, spoil, message, name):
    other, path = tmp_path / "other.h5", tmp_path / "raw.h5"
    write_exchange(other, _echoes()[:1])
    with h5py.File(path, "w") as file:
        spoil(file, other)
        if name == "k":
            file.move("kspace", "k")
            message = message.replace("kspace", "k")
    with pytest.raises(InputError, match=message):
        read_raw(path) if name == "kspace" else read_trajectory(path)


def test_a_trajectory_file_states_its_units(tmp_path):
    path, k = tmp_path / "k.h5", small_trajectory(SPOKES, SAMPLES).k_per_mm
    for units, scale in (("1/m", 1e3), ("1/mm", 1.0)):
        with h5py.File(path, "w") as file:
            file["k"] = scale * k.astype(np.float64)
            file["k"].attrs["units"] = units
        np.testing.assert_allclose(read_trajectory(path), k, rtol=1e-7)
    for units, found in (("rad/m", "are 'rad/m'"), (None, "are not stated")):
        with h5py.File(path, "w") as file:
            file["k"] = k
            if units:
                file["k"].attrs["units"] = units
        with pytest.raises(InputError, match=found):
            read_trajectory(path)
    with h5py.File(path, "w") as file:
        file["k"] = k[..., :2]
        file["k"].attrs["units"] = "1/m"
    with pytest.raises(InputError, match=r"shape \(60, 64, 2\)"):
        read_trajectory(path)
