"""Cost of reconstruction at the size of a clinical sodium scan, against BART and sigpy where they are installed.

The problem is that of :mod:`benchmarks._recon_problem`. Every case runs in a process of its own, whose peak memory is
that of the case with its data; "as ref" is its CPU time at the speed of the machine that the goals are stated for, by a
transform timed before and after it. BART is its command line, with reading and writing of files; sigpy's conjugate
gradients are its measured transforms times their number. The peers' images are compared after a fitted scale. The
part ``memory`` reads and reconstructs files of 32 coils with profiles of their own.

Usage: python -m benchmarks.recon [--folder FOLDER] [operators] [steps] [methods] [memory]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy import fft

from benchmarks import _recon_peers as peers
from benchmarks._recon_problem import ARRAY_FILES, SHAPE, VOXEL_MM, load, make, make_array, spokes

ITERATIONS = 20
YARDSTICK = 0.031
HEADING = f"\n{'':34}     CPU    wall  as ref peak MB   error"
METHODS = (
    *((name, n_coils, 1) for n_coils in (1, 8) for name in ("gridding", "sense", "agr", "tv", "wavelet")),
    ("gridding", 32, 1),
    ("sense", 32, 1),
    ("sense", 8, 2),
    ("agr", 8, 2),
)


def in_own_process(function, *arguments):
    """What the function returns, a dictionary of figures, with the peak memory in MB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, *arguments).result()


def _with_peak(function, *arguments):
    before = _yardstick()
    figures = function(*arguments) or {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"peak": peak, "speed": 2.0 * YARDSTICK / (before + _yardstick()), **figures}


def _yardstick() -> float:
    """CPU seconds of a transform that took ``YARDSTICK`` on the machine that the goals are stated for."""
    cube = np.ones((160, 160, 160), np.complex64)
    return timed(fft.fftn, cube, repeats=7)["cpu"]


def timed(function, *arguments, repeats=1):
    """Median CPU and wall seconds of a call, and what it returned."""
    times = []
    for _ in range(repeats):
        start = time.process_time(), time.perf_counter()
        result = function(*arguments)
        times.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    cpu, wall = np.median(times, axis=0)
    return {"cpu": float(cpu), "wall": float(wall), "result": result}


def relative_error(found, truth, free_scale=False):
    if free_scale:
        found = found * (np.vdot(found, truth) / np.vdot(found, found))
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def operators(folder: Path):
    """Forward, adjoint and normal operator of one coil: seconds and error of each program."""
    from sodium_prep.recon.nufft import Nufft
    from sodium_prep.recon.toeplitz import Toeplitz

    problem = load(folder, 1)
    trajectory = problem.raw.trajectory
    k = trajectory.k_per_mm.reshape(-1, 3)
    image, samples = problem.truth.astype(np.complex64), problem.raw.kspace[0]
    exact = Nufft(k, SHAPE, VOXEL_MM, np.complex128)
    ax = exact.forward(image)
    aty = exact.adjoint(samples.ravel())
    atax = exact.adjoint(ax * np.broadcast_to(trajectory.weights_mm3, samples.shape).ravel())
    del exact
    rows = {}

    def row(name, forward, adjoint, setup=None):
        free = name != "sodium_prep"
        errors = [
            relative_error(np.ravel(found["result"]), np.ravel(truth), free)
            for found, truth in ((forward, ax), (adjoint, aty))
        ]
        rows[name] = {"setup": setup, "times": (forward["cpu"], adjoint["cpu"]), "errors": errors}

    setup = timed(Nufft, k, SHAPE, VOXEL_MM)
    operator = setup["result"]
    first = timed(lambda: (operator.forward(image), operator.adjoint(samples.ravel())))
    forward = timed(operator.forward, image, repeats=5)
    adjoint = timed(operator.adjoint, samples.ravel(), repeats=5)
    row("sodium_prep", forward, adjoint, setup["cpu"] + first["cpu"] - forward["cpu"] - adjoint["cpu"])
    build = timed(Toeplitz, trajectory.k_per_mm, trajectory.weights_mm3, SHAPE, VOXEL_MM)
    normal = timed(build["result"], image[None], repeats=15)
    if peers.has_bart():
        row("BART", *peers.bart_nufft(image, samples, problem))
    if peers.has_sigpy():
        row("sigpy", *peers.sigpy_nufft(image, samples, problem))
    normal_error = relative_error(normal["result"][0], atax)
    return {"rows": rows, "normal": (build["cpu"], normal["cpu"], normal_error)}


def conjugate_gradients(folder: Path, n_coils: int, workers: int):
    """Plain least squares from zero: what is common to all programs."""
    from sodium_prep.recon.encoding import Encoding, least_squares

    problem = load(folder, n_coils)
    raw = problem.raw

    def solve():
        encoding = Encoding(raw.trajectory.k_per_mm, VOXEL_MM, problem.maps, workers=workers)
        system = least_squares(encoding, raw.kspace, raw.trajectory.weights_mm3)
        ready = time.process_time()
        x = np.zeros_like(system.right)
        direction = residual = system.right
        square = np.vdot(residual, residual)
        for _ in range(ITERATIONS):
            through = system.normal(direction)
            length = square / np.vdot(direction, through)
            x = x + length * direction
            residual = residual - length * through
            square, before = np.vdot(residual, residual), square
            direction = residual + square / before * direction
        return x, time.process_time() - ready

    cost = timed(solve)
    x, seconds = cost.pop("result")
    return {**cost, "step": seconds / ITERATIONS, "error": problem.error(x)}


def method(folder: Path, name: str, n_coils: int, workers: int):
    """A whole reconstruction by the command line's defaults, from samples to image and noise map."""
    from sodium_prep.recon.options import Options
    from sodium_prep.recon.reconstruct import reconstruct

    problem = load(folder, n_coils)
    raw, guide = problem.raw, problem.guide if name == "agr" else None
    problem.maps = None
    start, until = time.process_time(), {}

    def progress(what, _number, _of):
        until.setdefault(what, time.process_time() - start)

    cost = timed(reconstruct, raw, Options(method=name, guide=guide, workers=workers), progress)
    error = problem.error(cost.pop("result").image)
    return {**cost, "error": error, "image": until.get("noise map", cost["cpu"])}


def from_file(path: Path, name: str):
    """A file read and reconstructed."""
    from sodium_prep.recon.options import Options
    from sodium_prep.recon.raw import read_raw
    from sodium_prep.recon.reconstruct import reconstruct

    cost = timed(lambda: reconstruct(read_raw(path)[0], Options(method=name)))
    channels = len(cost.pop("result").sensitivities)
    return {**cost, "channels": channels}


def _figures(name, cost, more=""):
    seconds = "".join(f"{value:8.1f}" for value in (cost["cpu"], cost["wall"], cost["cpu"] * cost["speed"]))
    print(f"{name:34}{seconds}{cost['peak']:8.0f}{cost.get('error', np.nan):8.3f}  {more}", flush=True)


def report_operators(folder: Path) -> None:
    figures = in_own_process(operators, folder)
    rows = figures["rows"]
    ours = rows["sodium_prep"]["times"]
    print("\none coil        forward   error  adjoint   error   ratio to ours")
    for name, row in rows.items():
        (forward, adjoint), (forward_error, adjoint_error) = row["times"], row["errors"]
        ratio = f"{forward / ours[0]:6.1f}{adjoint / ours[1]:6.1f}"
        print(f"{name:14}{forward:9.3f} {forward_error:.1e}{adjoint:9.3f} {adjoint_error:.1e}  {ratio}")
    build, normal, error = figures["normal"]
    print(
        f"setup of the pair {rows['sodium_prep']['setup']:.2f}; normal operator {normal:.3f}, error {error:.1e},"
        f" {sum(ours) / normal:.1f} times faster than the pair; its kernel {build:.2f}",
        flush=True,
    )


def report_steps(folder: Path) -> None:
    print(HEADING)
    for n_coils in (8, 1, 32):
        for workers in (1, 2):
            cost = in_own_process(conjugate_gradients, folder, n_coils, workers)
            more = f"{cost['step']:.3f} per step"
            _figures(f"{ITERATIONS} steps, coils {n_coils}, threads {workers}", cost, more)
            if n_coils == 8 and peers.has_bart():
                options = ("-l2", "-r", "0", "-i", str(ITERATIONS))
                bart = in_own_process(peers.bart_pics, folder, n_coils, workers, *options)
                ratio = f"CPU {bart['cpu'] / cost['cpu']:.1f}, wall {bart['wall'] / cost['wall']:.1f} times ours"
                _figures(f"    bart pics, threads {workers}", bart, ratio)
            if n_coils == 8 and workers == 1 and peers.has_sigpy():
                pair = in_own_process(peers.sigpy_pair, folder)
                seconds = n_coils * (ITERATIONS * (pair["forward"] + pair["adjoint"]) + pair["adjoint"])
                print(
                    f"    sigpy, from its transforms{seconds:16.0f}{seconds / cost['cpu']:32.0f} times ours", flush=True
                )


def report_methods(folder: Path) -> None:
    print(HEADING)
    for name, n_coils, workers in METHODS:
        cost = in_own_process(method, folder, name, n_coils, workers)
        _figures(f"{name}, coils {n_coils}, threads {workers}", cost, f"{cost['image']:.1f} without noise map")


def report_memory(folder: Path) -> None:
    in_own_process(make_array, folder)
    print(HEADING)
    for path in (folder / name for name in ARRAY_FILES):
        for name in ("gridding", "sense", "tv"):
            cost = in_own_process(from_file, path, name)
            _figures(f"{path.stem}, {name}", cost, f"{cost['channels']} channels of 32")


PARTS = {"operators": report_operators, "steps": report_steps, "methods": report_methods, "memory": report_memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument(
        "--folder", type=Path, help="keeps the test data for the next run (2 GB with those of ``memory``)"
    )
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        in_own_process(make, folder)
        print(f"{spokes().k_per_mm[..., 0].size / 1e6:.1f} M samples, grid {SHAPE}; CPU seconds of one thread")
        for there, name in ((peers.has_bart(), "BART"), (peers.has_sigpy(), "sigpy")):
            if not there:
                print(f"{name} is not installed: no comparison with it")
        for part in arguments.parts or PARTS:
            PARTS[part](folder)


if __name__ == "__main__":
    main()
