from dataclasses import replace

import h5py
import ismrmrd
import numpy as np
import pytest
from ismrmrd.xsd import CreateFromDocument

from sodium_prep.errors import InputError
from sodium_prep.recon.generators import Readout, spiral_stack
from sodium_prep.recon.gradients import Gradients
from sodium_prep.recon.raw import RawData, read_raw, write_exchange, write_ismrmrd
from tests.recon.analytic import complex_noise, small_trajectory

SHAPE, VOXEL_MM = (40, 38, 36), (6.0, 6.0, 6.0)


def _oblique_affine():
    a, b = np.deg2rad([20.0, -35.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([-1.0, 1.0, 1.0]) * VOXEL_MM
    affine[:3, 3] = [101.5, -87.25, -60.125]
    return affine


def _raw(n_coils=3, n_spokes=60, n_samples=64, **more) -> RawData:
    rng = np.random.default_rng(4)
    trajectory = small_trajectory(n_spokes, n_samples)
    return RawData(
        kspace=complex_noise(rng, (n_coils, n_spokes, n_samples)).astype(np.complex64),
        trajectory=trajectory,
        shape=SHAPE,
        voxel_mm=VOXEL_MM,
        affine=_oblique_affine(),
        noise=complex_noise(rng, (n_coils, 150)).astype(np.complex64),
        trajectory_name="DA-3DPR",
        field_strength_t=2.89,
        echo_time_s=0.0003,
        repetition_time_s=0.12,
        flip_angle_deg=90.0,
        **more,
    )


def read_ismrmrd(path):
    (raw,) = read_raw(path)
    return raw


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "sub-01 nätrium_kspace.h5"
    write_ismrmrd(path, _raw())
    return path


def test_round_trip_is_exact(written):
    raw, back = _raw(), read_ismrmrd(written)
    assert back.kspace.tobytes() == raw.kspace.tobytes()
    assert back.noise.tobytes() == raw.noise.tobytes()
    np.testing.assert_allclose(back.trajectory.k_per_mm, raw.trajectory.k_per_mm, rtol=3e-7)
    np.testing.assert_allclose(back.trajectory.time_s, raw.trajectory.time_s, rtol=1e-7)
    np.testing.assert_allclose(back.trajectory.weights_mm3, raw.trajectory.weights_mm3, rtol=1e-6)
    assert back.trajectory.linear_fraction == pytest.approx(0.2, abs=1e-6)
    np.testing.assert_allclose(back.affine, raw.affine, atol=2e-5)
    assert (back.shape, back.voxel_mm) == (SHAPE, VOXEL_MM)
    assert back.trajectory_name == "DA-3DPR"
    found = (back.field_strength_t, back.echo_time_s, back.repetition_time_s, back.flip_angle_deg)
    np.testing.assert_allclose(found, (2.89, 0.0003, 0.12, 90.0), rtol=1e-6)


def test_same_raw_data_make_the_same_file(written, tmp_path):
    write_ismrmrd(tmp_path / "again.h5", _raw())
    assert (tmp_path / "again.h5").read_bytes() == written.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_ismrmrd_library_reads_what_was_written(written):
    raw = _raw()
    with ismrmrd.Dataset(str(written), mode="r") as dataset:
        header = CreateFromDocument(dataset.read_xml_header())
        readouts = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
    noise = [r for r in readouts if r.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    imaging = [r for r in readouts if not r.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    np.testing.assert_array_equal(np.stack([r.data for r in imaging], axis=1), raw.kspace)
    np.testing.assert_array_equal(np.concatenate([r.data for r in noise], axis=1), raw.noise)
    np.testing.assert_allclose(np.stack([r.traj for r in imaging]), 1e3 * raw.trajectory.k_per_mm, rtol=1e-6)
    assert [r.idx.kspace_encode_step_1 for r in imaging] == list(range(60))
    # Voxel N // 2 lies at `position`, its axes along the direction vectors, all in LPS.
    head = imaging[0]
    middle = raw.affine @ [20, 19, 18, 1]
    np.testing.assert_allclose(np.array(head.position) * [-1, -1, 1], middle[:3], atol=1e-4)
    np.testing.assert_allclose(np.array(head.phase_dir) * [-1, -1, 1] * 6.0, raw.affine[:3, 1], atol=1e-5)
    assert header.sequenceParameters.TR[0] == pytest.approx(120.0)
    assert header.encoding[0].encodedSpace.matrixSize.y == 38


def _records_of_the_library(tmp_path, edit):
    """The file of ``_raw`` written by the ismrmrd library itself, acquisition by acquisition."""
    source, path = tmp_path / "source.h5", tmp_path / "library.h5"
    write_ismrmrd(source, _raw())
    with ismrmrd.Dataset(str(source), mode="r") as old, ismrmrd.Dataset(str(path)) as new:
        new.write_xml_header(old.read_xml_header())
        readouts = [old.read_acquisition(i) for i in range(old.number_of_acquisitions())]
        for readout in edit(readouts):
            new.append_acquisition(readout)
    return path


def test_averages_are_averaged_and_noise_follows(tmp_path):
    rng = np.random.default_rng(8)
    extra = complex_noise(rng, (3, 60, 64)).astype(np.complex64)

    def twice(readouts):
        readouts[0].sample_time_us *= 4.0
        readouts[1].sample_time_us *= 4.0
        readouts[2].sample_time_us *= 4.0
        yield from readouts
        for i, readout in enumerate(readouts[3:]):
            head = readout.getHead()
            head.idx.average = 1
            yield ismrmrd.Acquisition(head, np.ascontiguousarray(extra[:, i]), readout.traj.copy())

    raw, back = _raw(), read_ismrmrd(_records_of_the_library(tmp_path, twice))
    assert back.n_averages == 2
    np.testing.assert_allclose(back.kspace, (raw.kspace + extra) / 2.0, atol=1e-6)
    np.testing.assert_allclose(back.trajectory.k_per_mm, raw.trajectory.k_per_mm, rtol=3e-7)
    # Four times the dwell time halves the noise of the scan; two averages divide that of the image by sqrt(2).
    np.testing.assert_allclose(back.noise, raw.noise * np.sqrt(2.0), rtol=1e-5)


def _resize(path, change):
    with h5py.File(path, "r+") as file:
        records = change(file["dataset/data"][()])
        file["dataset/data"].resize(records.shape)
        file["dataset/data"][...] = records


def test_echoes_come_one_by_one(written):
    """Readout by readout a second echo, as a scanner takes them, after the noise."""
    raw, extra = _raw(), complex_noise(np.random.default_rng(9), (3, 60, 64)).astype(np.complex64)

    def interleave(records):
        later = records[3:].copy()
        later["head"]["idx"]["contrast"] = 1
        for i in range(60):
            later["data"][i] = extra[:, i].ravel().view(np.float32)
        return np.concatenate([records[:3], np.stack([records[3:], later], axis=1).ravel()])

    _resize(written, interleave)
    _rewrite_header(written, "<TE>0.3</TE>", "<TE>0.3</TE><TE>5.0</TE>")
    first, second = read_raw(written)
    assert first.kspace.tobytes() == raw.kspace.tobytes()
    assert second.kspace.tobytes() == extra.tobytes()
    assert second.trajectory is first.trajectory
    assert (first.echo_time_s, second.echo_time_s) == pytest.approx((0.0003, 0.005))
    _rewrite_header(written, "<TE>5.0</TE>", "<TE>0.2</TE>")
    with pytest.raises(InputError, match=r"its echo times \(0.3, 0.2 ms\) do not rise"):
        read_raw(written)
    # A file with the second echo alone, but the times of both.
    _rewrite_header(written, "<TE>0.2</TE>", "<TE>5.0</TE>")
    _resize(written, lambda records: np.concatenate([records[:3], records[4::2]]))
    alone = read_ismrmrd(written)
    assert alone.kspace.tobytes() == extra.tobytes()
    assert alone.echo_time_s == pytest.approx(0.005)


def test_units_are_those_that_are_written(written):
    _rewrite_header(written, "<value>1/m</value>", "<value>1/mm</value>")
    _edit_records(written, _scale_k(1e-3))
    np.testing.assert_allclose(read_ismrmrd(written).trajectory.k_per_mm, _raw().trajectory.k_per_mm, rtol=3e-7)


@pytest.mark.parametrize("suffix", [".mrd", ".npz"])
def test_a_stack_of_spirals_is_read(tmp_path, suffix):
    readout = Readout(0.004, 2e-5, Gradients(40.0, 150.0))
    trajectory = spiral_stack((10.0, 16.0), (160.0, 144.0), readout).trajectory
    rng = np.random.default_rng(5)
    kspace = complex_noise(rng, (1, *trajectory.k_per_mm.shape[:2])).astype(np.complex64)
    affine = np.diag([10.0, 10.0, 16.0, 1.0])
    raw, path = RawData(kspace, trajectory, (16, 16, 9), (10.0, 10.0, 16.0), affine), tmp_path / f"spirals{suffix}"
    write = write_ismrmrd if suffix == ".mrd" else lambda path, raw: write_exchange(path, [raw])
    write(path, raw)
    (back,) = read_raw(path)
    np.testing.assert_allclose(back.trajectory.k_per_mm, trajectory.k_per_mm, atol=1e-8)
    # Those of the design come of its radii, those of the file of k in single precision.
    np.testing.assert_allclose(back.trajectory.weights_mm3, trajectory.weights_mm3, rtol=1e-4)
    assert back.trajectory.region == "cylinder"
    assert back.kspace.tobytes() == kspace.tobytes()
    write(path, replace(raw, voxel_mm=(10.0, 10.0, 10.0), affine=np.diag([10.0, 10.0, 10.0, 1.0])))
    with pytest.raises(InputError, match=r"50 x 50 x 31.25/m, which makes voxels of 10 x 10 x 16 mm, .* states 10 mm"):
        read_raw(path)


def _rewrite_header(path, old, new):
    with h5py.File(path, "r+") as file:
        text = bytes(file["dataset/xml"][0]).decode()
        assert old in text
        file["dataset/xml"][0] = text.replace(old, new)


def _edit_records(path, change):
    with h5py.File(path, "r+") as file:
        records = file["dataset/data"][()]
        change(records)
        file["dataset/data"][...] = records


def _first_sample(value):
    def change(records):
        records["data"][10][0] = value

    return change


def _no_trajectory(records):
    records["head"]["trajectory_dimensions"] = 0


def _silence(records):
    for samples in records["data"][3:]:
        samples[:] = 0.0


def _scale_k(factor):
    def change(records):
        for trajectory in records["traj"]:
            trajectory *= factor

    return change


def _cut_readout(records):
    records["head"]["number_of_samples"][10] = 32


def _flip_half(records):
    for trajectory in records["traj"][4:]:
        trajectory[2::3] = np.abs(trajectory[2::3])


def _second_echo(records):
    records["head"]["idx"]["contrast"][40:] = 1


def _no_geometry(records):
    records["head"]["read_dir"] = 0.0


def _no_dwell(records):
    records["head"]["sample_time_us"] = 0.0


BAD_RECORDS = {
    "NaN": (_first_sample(np.nan), "not finite"),
    "no trajectory": (_no_trajectory, "trajectory of 0 dimensions"),
    "zeros": (_silence, "all its data are zero"),
    "rad per m": (_scale_k(2.0 * np.pi), r"reaches \|k\| = 523.6/m"),
    "normalised": (_scale_k(0.006), "Check that k is in 1/m"),
    "lengths": (_cut_readout, "differ in number_of_samples"),
    "half sphere": (_flip_half, "cover the sphere"),
    "echoes": (_second_echo, "2 echoes"),
    "geometry": (_no_geometry, "unit vectors"),
    "dwell": (_no_dwell, "sample_time_us is 0"),
}


@pytest.mark.parametrize(("change", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_unusable_readouts_are_refused(written, change, message):
    _edit_records(written, change)
    with pytest.raises(InputError, match=message) as refusal:
        read_ismrmrd(written)
    assert refusal.value.where == str(written)
    assert refusal.value.mend


BAD_HEADERS = {
    "units": ("<value>1/m</value>", "<value>rad/m</value>", "are 'rad/m'"),
    "no units": ("traj_units", "remark", "are not stated"),
    "nucleus": ("<value>23Na</value>", "<value>1H</value>", "its nucleus is '1H'"),
    "matrix": ("<x>40</x>", "<x>4000</x>", "states a matrix"),
    "field of view": ("<x>240.0</x>", "<x>480.0</x>", "12 x 6 x 6 mm"),
    "entity": ("<ismrmrdHeader", '<!DOCTYPE a [<!ENTITY b "c">]><ismrmrdHeader', "document type"),
    "no number": ("<x>40</x>", "<x>forty</x>", "not a valid `int`"),
    "no XML": ("<ismrmrdHeader", "<ismrmrd", "XML header cannot be read"),
}


@pytest.mark.parametrize(("old", "new", "message"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_unusable_headers_are_refused(written, old, new, message):
    _rewrite_header(written, old, new)
    with pytest.raises(InputError, match=message):
        read_ismrmrd(written)


def test_a_missing_average_is_refused(tmp_path):
    with pytest.raises(InputError, match="read 1 times, others 2 times"):
        read_ismrmrd(_records_of_the_library(tmp_path, lambda readouts: [*readouts, *readouts[3:20]]))


def test_broken_files_are_refused(written, tmp_path):
    complete = written.read_bytes()
    for size, message in ((0, "cut short"), (len(complete) // 2, "cut short")):
        written.write_bytes(complete[:size])
        with pytest.raises(InputError, match=message):
            read_ismrmrd(written)
    written.write_text("<html>404</html>")
    with pytest.raises(InputError, match="no HDF5 file"):
        read_ismrmrd(written)
    with pytest.raises(InputError, match="not there"):
        read_ismrmrd(tmp_path / "absent.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["image"] = 1
    with pytest.raises(InputError, match="not an ISMRMRD file"):
        read_ismrmrd(tmp_path / "other.h5")


def test_a_table_larger_than_its_file_is_refused(written):
    with h5py.File(written, "r+") as file:
        file["dataset/data"].resize((10**8,))
    with pytest.raises(InputError, match="more acquisitions than it holds"):
        read_ismrmrd(written)


@pytest.mark.parametrize("length", [0, 2**64 - 16])
def test_a_heap_that_the_library_would_walk_for_ever_is_refused(written, length):
    content = bytearray(written.read_bytes())
    free = content.index(b"GCOL") + 16
    content[free : free + 16] = bytes(8) + length.to_bytes(8, "little")
    written.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_ismrmrd(written)


def test_the_writer_brings_any_precision_to_single(written, tmp_path):
    raw = _raw()
    double = replace(raw, kspace=raw.kspace.astype(np.complex128), noise=raw.noise.astype(np.complex128))
    write_ismrmrd(tmp_path / "double.h5", double)
    assert (tmp_path / "double.h5").read_bytes() == written.read_bytes()


def test_links_to_other_files_are_refused(written, tmp_path):
    linked = tmp_path / "linked.h5"
    with h5py.File(linked, "w") as file:
        file["dataset"] = h5py.ExternalLink(str(written), "/dataset")
    with pytest.raises(InputError, match="link"):
        read_ismrmrd(linked)
    with h5py.File(linked, "w") as file, h5py.File(written) as source:
        source.copy("dataset/xml", file.create_group("dataset"))
        file["dataset/data"] = h5py.ExternalLink(str(written), "/dataset/data")
    with pytest.raises(InputError, match="data is a link"):
        read_ismrmrd(linked)


def test_the_writer_refuses_an_affine_of_other_voxels(tmp_path):
    with pytest.raises(ValueError, match="affine"):
        write_ismrmrd(tmp_path / "x.h5", replace(_raw(), affine=np.eye(4)))
