"""The test problem of ``benchmarks.recon`` solved by BART (its command line) and by sigpy, where they are installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._recon_problem import SHAPE, VOXEL_MM, Problem, load

_FIELD_MM = SHAPE[0] * VOXEL_MM[0]


def has_bart() -> bool:
    return shutil.which("bart") is not None


def has_sigpy() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("sigpy", "numba", "pywt"))


def _write(path: Path, array) -> None:
    """An array as BART has it: first axis fastest, complex64."""
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(str(n) for n in array.shape) + "\n")
    np.asarray(array, np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def _read(path: Path):
    shape = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(shape, order="F").squeeze()


def _bart(folder: Path, threads: int, *words: str) -> dict[str, float]:
    """CPU and wall seconds and peak memory (MB) of one command, reading and writing of files included."""
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(["bart", *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"bart {words[0]} ended with {process.returncode}")
    wall = time.perf_counter() - start
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "peak": usage.ru_maxrss * 1024 / 1e6}


def _samples_last(array):
    """(spokes, samples) as BART has it: (1, samples, spokes)."""
    return np.ascontiguousarray(array).T[None]


def _trajectory(problem: Problem):
    """(3, samples, spokes) in cycles per field of view."""
    return (problem.raw.trajectory.k_per_mm * _FIELD_MM).T


def bart_nufft(image, samples, problem: Problem) -> tuple[dict, dict]:
    """Forward of an image and adjoint of samples (spokes, samples): costs with the arrays as ``result``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "k", _trajectory(problem))
        _write(folder / "x", image)
        _write(folder / "y", _samples_last(samples))
        forward = _bart(folder, 1, "nufft", "k", "x", "ax")
        forward["result"] = _read(folder / "ax").T
        adjoint = _bart(folder, 1, "nufft", "-a", "-d", ":".join(str(n) for n in SHAPE), "k", "y", "aty")
        adjoint["result"] = _read(folder / "aty")
    return forward, adjoint


def bart_pics(data: Path, n_coils: int, threads: int, *options: str) -> dict:
    """Cost of ``bart pics`` with the density compensation as weights, and the error of its image."""
    problem = load(data, n_coils)
    trajectory = problem.raw.trajectory
    weights = np.broadcast_to(np.sqrt(trajectory.weights_mm3), trajectory.k_per_mm.shape[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "k", _trajectory(problem))
        _write(folder / "y", problem.raw.kspace.T[None])
        _write(folder / "w", _samples_last(weights / weights.max()))
        _write(folder / "s", np.moveaxis(problem.maps, 0, -1))
        cost = _bart(folder, threads, "pics", "-p", "w", "-t", "k", *options, "y", "s", "x")
        cost["error"] = problem.error(_read(folder / "x"), free_scale=True)
    return cost


def sigpy_nufft(image, samples, problem: Problem) -> tuple[dict, dict]:
    """As :func:`bart_nufft`, in this process, compiled beforehand."""
    import sigpy

    coordinates = problem.raw.trajectory.k_per_mm * np.float32(_FIELD_MM)
    sigpy.nufft(image[:8, :8, :8], coordinates[:2, :5])
    sigpy.nufft_adjoint(samples[:2, :5], coordinates[:2, :5], (8, 8, 8))
    costs = []
    for function in (
        lambda: sigpy.nufft(image, coordinates),
        lambda: sigpy.nufft_adjoint(samples, coordinates, SHAPE),
    ):
        start = time.process_time()
        result = function()
        costs.append({"cpu": time.process_time() - start, "result": result})
    return costs[0], costs[1]


def sigpy_pair(data: Path) -> dict[str, float]:
    """CPU seconds of sigpy's two transforms for one coil."""
    problem = load(data, 1)
    forward, adjoint = sigpy_nufft(problem.truth.astype(np.complex64), problem.raw.kspace[0], problem)
    return {"forward": forward["cpu"], "adjoint": adjoint["cpu"]}
