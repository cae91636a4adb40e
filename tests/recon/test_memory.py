"""What reading and reconstructing hold in memory, and that it does not depend on where the samples are."""

import tracemalloc

import numpy as np
import pytest

from sodium_prep.recon import channels, raw_data
from sodium_prep.recon.options import Options
from sodium_prep.recon.raw import read_raw, write_exchange, write_ismrmrd
from sodium_prep.recon.reconstruct import reconstruct
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory
from tests.recon.analytic import raw_data as made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A scan of 32 channels that see the object from all sides, in both formats."""
    folder, rng = tmp_path_factory.mktemp("array"), np.random.default_rng(0)
    trajectory = small_trajectory(400, 200)
    sides = complex_noise(rng, (32, 3)) / 400.0
    signal = [Ellipsoid(1.0, (40.0, 45.0, 35.0)).spectrum(trajectory.k_per_mm - 0.004 * axis) for axis in np.eye(3)]
    kspace = np.tensordot(sides, signal, axes=1).astype(np.complex64)
    kspace += 30.0 * rng.standard_normal((*kspace.shape, 2), np.float32).view(np.complex64)[..., 0]
    raw = made(kspace, trajectory, 20, 6.0, noise=30.0 * complex_noise(rng, (32, 2000)).astype(np.complex64))
    write_exchange(folder / "exchange.h5", [raw])
    write_ismrmrd(folder / "ismrmrd.h5", raw)
    return folder, kspace


@pytest.mark.parametrize(("name", "method"), [("exchange.h5", "sense"), ("ismrmrd.h5", "gridding")])
def test_the_samples_of_an_array_are_never_all_in_memory(files, name, method, monkeypatch):
    folder, kspace = files
    monkeypatch.setattr(raw_data, "_BLOCK_BYTES", kspace.nbytes // 16)
    monkeypatch.setattr(channels, "_HELD_BYTES", kspace.nbytes // 4)
    read_raw(folder / name)  # what it imports is not counted
    tracemalloc.start()
    (raw,) = read_raw(folder / name)
    image = reconstruct(raw, Options(method=method)).image
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.75 * kspace.nbytes
    assert raw.kspace.tobytes() == kspace.tobytes()
    again = reconstruct(raw, Options(method=method)).image
    np.testing.assert_allclose(again, image, atol=1e-5 * image.max())
