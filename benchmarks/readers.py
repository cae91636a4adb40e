"""Time to read raw data of the size of a clinical sodium scan, against the record interface of the ismrmrd library.

Usage: OMP_NUM_THREADS=1 python benchmarks/readers.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import ismrmrd
import numpy as np

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.ismrmrd_file import read_records
from sodium_prep.recon.raw import RawData, read_raw, write_exchange, write_ismrmrd
from sodium_prep.recon.trajectory import radial_trajectory

N_COILS, N_SPOKES, N_SAMPLES = 8, 8000, 400
N_PROBES = 400
"""Readouts that the record interface reads; each costs it the same."""


def by_record(path: Path) -> np.ndarray:
    with ismrmrd.Dataset(str(path), mode="r") as dataset:
        return np.stack([dataset.read_acquisition(i).data for i in range(N_PROBES)])


def timed(function, *arguments):
    """Wall and CPU time in seconds, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main():
    rng = np.random.default_rng(0)
    acquisition = Acquisition(0.0003, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (3.0, 3.0, 3.0), 0.2)
    trajectory = radial_trajectory(acquisition, N_SPOKES, N_SAMPLES)
    parts = rng.standard_normal((N_COILS, N_SPOKES, N_SAMPLES, 2), dtype=np.float32)
    raw = RawData(parts.view(np.complex64)[..., 0], trajectory, (80,) * 3, (3.0,) * 3, np.diag([3.0, 3.0, 3.0, 1.0]))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in ("raw.mrd", "raw.npz", "raw.h5")}
        write_ismrmrd(paths["raw.mrd"], raw)
        for name in ("raw.npz", "raw.h5"):
            write_exchange(paths[name], [raw])
        print(f"{N_COILS} channels, {N_SPOKES} readouts of {N_SAMPLES} samples (wall s, CPU s)")
        wall, cpu, probes = timed(by_record, paths["raw.mrd"])
        wall, cpu = wall * N_SPOKES / N_PROBES, cpu * N_SPOKES / N_PROBES
        print(f"ismrmrd.Dataset.read_acquisition  {wall:7.2f} {cpu:7.2f}   from {N_PROBES} readouts")
        bulk_wall, bulk_cpu, (_, records, _) = timed(read_records, paths["raw.mrd"])
        print(f"all readouts in bulk              {bulk_wall:7.2f} {bulk_cpu:7.2f}   {cpu / bulk_cpu:.0f} times faster")
        assert np.array_equal(np.stack(records.samples[:N_PROBES]), probes.view(np.float32).reshape(N_PROBES, -1))
        for name, path in paths.items():
            wall_s, cpu_s, (back,) = timed(read_raw, path)
            assert np.array_equal(back.kspace, raw.kspace)
            print(f"read_raw, {name:7} with all checks {wall_s:7.2f} {cpu_s:7.2f}   {cpu / cpu_s:.0f} times faster")


if __name__ == "__main__":
    main()
