"""Cost of reconstruction at the size of a clinical sodium scan, against BART and sigpy where they are installed.

The problem is that of :mod:`benchmarks.recon_problem`. Every case runs in a process of its own, whose peak memory is
that of the case with its data. BART is its command line, with reading and writing of files; sigpy's conjugate gradients
are its measured transforms times their number. The peers' images are compared after a fitted scale, ours as they are.

Usage: python -m benchmarks.recon [FOLDER]     FOLDER keeps the test data for the next run (250 MB)
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import recon_peers as peers
from benchmarks.recon_problem import SHAPE, VOXEL_MM, load, make, spokes

ITERATIONS = 20


def in_own_process(function, *arguments):
    """What the function returns, a dictionary of figures, with the peak memory in MB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, *arguments).result()


def _with_peak(function, *arguments):
    figures = function(*arguments) or {}
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, **figures}


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


def method(folder: Path, n_coils: int):
    """A whole reconstruction, from samples to image and noise."""
    from sodium_prep.recon.reconstruct import reconstruct

    problem = load(folder, n_coils)
    cost = timed(reconstruct, problem.raw)
    return {**cost, "error": problem.error(cost.pop("result").image)}


def _figures(name, cost, more=""):
    error = f"{cost['error']:.3f}"
    print(f"{name:34}{cost['cpu']:8.1f}{cost['wall']:8.1f}{cost['peak']:8.0f}{error:>8}  {more}", flush=True)


def report(folder: Path) -> None:
    print(f"{spokes().k_per_mm[..., 0].size / 1e6:.1f} M samples, grid {SHAPE}; CPU seconds of one thread")
    for there, name in ((peers.has_bart(), "BART"), (peers.has_sigpy(), "sigpy")):
        if not there:
            print(f"{name} is not installed: no comparison with it")
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
        f" {sum(ours) / normal:.1f} times faster than the pair; its kernel {build:.2f}"
    )
    print(f"\n{'':34}     CPU    wall peak MB   error")
    for n_coils in (1, 8, 32):
        for workers in (1, 2):
            cost = in_own_process(conjugate_gradients, folder, n_coils, workers)
            more = f"{cost['step']:.3f} per step"
            _figures(f"{ITERATIONS} steps, coils {n_coils}, threads {workers}", cost, more)
            if n_coils == 8 and peers.has_bart():
                options = ("-l2", "-r", "0", "-i", str(ITERATIONS))
                bart = in_own_process(peers.bart_pics, folder, n_coils, workers, *options)
                _figures(f"    bart pics, threads {workers}", bart, f"{bart['cpu'] / cost['cpu']:.1f} times ours")
            if n_coils == 8 and "sigpy" in rows and workers == 1:
                seconds = n_coils * (
                    (ITERATIONS + 1) * rows["sigpy"]["times"][1] + ITERATIONS * rows["sigpy"]["times"][0]
                )
                print(f"    sigpy, from its transforms {seconds:14.0f}   {seconds / cost['cpu']:.0f} times ours")
    for n_coils in (1, 8, 32):
        _figures(f"gridding, coils {n_coils}", in_own_process(method, folder, n_coils))


def main() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        in_own_process(make, folder)
        report(folder)


if __name__ == "__main__":
    main()
