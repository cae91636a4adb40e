"""Accuracy and time of the joint reconstruction of image and T2*, at the size of a clinical sodium scan.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.agrdm FOLDER [--coils 1 8] [--realisations 3]

The head, trajectory, grid, coils and noise of :mod:`benchmarks._recon_problem`, at echo times of 0.5 and 5 ms, with one
time constant in each tissue, and once with 60 % of 3 ms and 40 % of 20 ms in gray and white matter. FOLDER keeps the
k-space between runs. Figures are means over realisations of the noise. The bias of the image is counted against
directional total variation with the same weight on the same noise and a head that does not decay, so that what the
prior and the resolution do is not taken for decay.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks._recon_problem import NOISE, SHAPE, VOXEL_MM, positions_mm, spokes
from benchmarks._recon_problem import _waves as all_waves
from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_image, ellipsoid_transform
from sodium_prep.recon.agr import agr
from sodium_prep.recon.agrdm import DecayData, Echo, JointSolver
from sodium_prep.recon.encoding import Encoding, LeastSquares, least_squares
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.toeplitz import Toeplitz

ECHO_TIMES_S = (0.0005, 0.005)
WEIGHT = 1.0
"""Of directional total variation, in standard deviations of the noise."""
BIN_S = 0.00025
T2STAR_S = {"scalp": 0.015, "csf": 0.05, "wm": 0.018, "ventricle": 0.05, "lesion": 0.018, "tube": 0.025}
GREY_S = 0.020
T1W = {"scalp": 0.5, "csf": 0.2, "wm": 0.85, "ventricle": 0.2, "lesion": 0.85, "tube": 0.3}
GREY_T1W = 0.55
REGIONS = {
    "white matter": "wm",
    "gray matter": "gm",
    "ventricles": "ventricle",
    "hippocampi": "hippocampus",
    "deep gray": "deep",
    "sodium-only lesion": "lesion-large",
}


def of(table, name, otherwise):
    return next((value for key, value in table.items() if name.startswith(key)), otherwise)


def is_tissue(name):
    return of(T2STAR_S, name, GREY_S) <= GREY_S and name != "scalp"


def course(kind, ellipsoid, time_s):
    """Signal of an ellipsoid over the time since the excitation."""
    t2star_s = of(T2STAR_S, ellipsoid.name, GREY_S)
    if kind == "free":
        return np.full_like(time_s, ellipsoid.concentration_mM)
    if kind == "two" and is_tissue(ellipsoid.name):
        return ellipsoid.concentration_mM * (0.6 * np.exp(-time_s / 0.003) + 0.4 * np.exp(-time_s / 0.020))
    return ellipsoid.concentration_mM * np.exp(-time_s / t2star_s)


waves = cache(all_waves)
SCANS = [("free", 0.0), *((kind, time_s) for kind in ("one", "two") for time_s in ECHO_TIMES_S)]


def wave_file(folder, scan, number):
    kind, time_s = scan
    return folder / f"{kind}-{1e3 * time_s:.1f}ms-wave{number}.npy"


def make(folder, number):
    """Write the k-space of the head times a plane wave, in closed form, of all scans, unless it is there."""
    if wave_file(folder, SCANS[-1], number).exists():
        return
    trajectory = spokes()
    by_name = {ellipsoid.name: ellipsoid for ellipsoid in ANALYTIC_HEAD}
    totals = [np.zeros(trajectory.k_per_mm.shape[:2], np.complex64) for _ in SCANS]
    for ellipsoid in ANALYTIC_HEAD:
        courses = []
        for kind, time_s in SCANS:
            times_s = time_s + trajectory.time_s
            around = course(kind, by_name[ellipsoid.inside], times_s) if ellipsoid.inside else 0.0
            courses.append(course(kind, ellipsoid, times_s) - around)
        for first in range(0, trajectory.n_readouts, 500):
            part = slice(first, first + 500)
            transform = ellipsoid_transform(ellipsoid, trajectory.k_per_mm[part] - waves()[0][number])
            for total, own in zip(totals, courses, strict=True):
                total[part] += transform * own
    for scan, total in zip(SCANS, totals, strict=True):
        np.save(wave_file(folder, scan, number), total)


def echoes_of(folder, kind, n_coils, sigma, seed=0):
    """Both echoes as the coils see them, and the receive profile that stays in the image."""
    shifts, shares = waves()
    share = shares[n_coils].astype(np.complex64)
    maps = np.zeros((n_coils, *SHAPE), np.complex64)
    for number, part in enumerate(share.T):
        if part.any():
            wave = np.exp(2j * np.pi * (positions_mm() @ shifts[number])).astype(np.complex64)
            maps += part[:, None, None, None] * wave
    profile = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    maps /= profile
    trajectory, rng, echoes = spokes(), np.random.default_rng(seed), []
    for time_s in ECHO_TIMES_S:
        shape = (n_coils, *trajectory.k_per_mm.shape[:2])
        kspace = sigma * rng.standard_normal((*shape[:-1], 2 * shape[-1]), dtype=np.float32).view(np.complex64)
        for number, part in enumerate(share.T):
            if part.any():
                make(folder, number)
                wave = np.load(wave_file(folder, (kind, 0.0 if kind == "free" else time_s), number))
                for samples, factor in zip(kspace, part, strict=True):
                    samples += factor * wave
        echoes.append(Echo(kspace, trajectory, time_s, maps))
    return echoes, profile


def without_decay(echoes, guide):
    """Directional total variation of both echoes as if they were two averages."""
    one, other = (
        least_squares(Encoding(e.trajectory.k_per_mm, VOXEL_MM, e.sensitivities), e.kspace, e.trajectory.weights_mm3)
        for e in echoes
    )
    # Maps and trajectory of the two are the same, so is the normal operator.
    both = LeastSquares(lambda x: 2.0 * one.normal(x), one.right + other.right, lambda: 2.0 * one.largest_eigenvalue())
    return agr(both, guide, WEIGHT * NOISE)


def map_of(affine, value):
    return analytic_image([replace(e, concentration_mM=value(e)) for e in ANALYTIC_HEAD], SHAPE, affine, 2)


def speed():
    """Normal operator of one coil and echo: short sum of courses, and a transform pair for each bin of time."""
    trajectory = spokes()
    k, weights = trajectory.k_per_mm, trajectory.weights_mm3.astype(np.float32)
    rng = np.random.default_rng(0)
    image = rng.standard_normal((4, *SHAPE), dtype=np.float32).astype(np.complex64)
    courses = np.linalg.qr(rng.standard_normal((trajectory.n_samples, 4)))[0].T
    operator = Toeplitz(k, weights, SHAPE, VOXEL_MM, courses)
    operator(image)
    starts = []
    for _ in range(5):
        starts.append(time.process_time())
        operator(image)
    short = np.median(np.diff([*starts, time.process_time()]))
    bins = np.array_split(np.arange(trajectory.n_samples), round(trajectory.readout_duration_s / BIN_S))
    total = 0.0
    for samples in bins:
        nufft = Nufft(k[:, samples].reshape(-1, 3), SHAPE, VOXEL_MM)
        factor = np.broadcast_to(weights[:, samples], (len(k), len(samples))).ravel()
        nufft.adjoint(factor * nufft.forward(image[0]))
        start = time.process_time()
        nufft.adjoint(factor * nufft.forward(image[0]))
        total += time.process_time() - start
    print(
        f"normal operator: {short:.2f} s with 4 courses, {total:.2f} s with {len(bins)} bins of time and plans at hand,"
    )
    print(f"{total / short:.0f} times as much", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--realisations", type=int, default=3)
    parser.add_argument("--coils", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    speed()
    affine = np.diag([*VOXEL_MM, 1.0])
    affine[:3, 3] = positions_mm()[0, 0, 0]

    guide = map_of(affine, lambda e: of(T1W, e.name, GREY_T1W))
    numbers = {key: number for number, key in enumerate(REGIONS.values(), 1)}
    mean, square = (map_of(affine, lambda e, p=p: float(of(numbers, e.name, 0)) ** p) for p in (1, 2))
    # Voxels that lie in one region as a whole: no spread of its number.
    masks = {name: (np.abs(mean - numbers[key]) < 1e-3) & (square - mean**2 < 1e-3) for name, key in REGIONS.items()}
    sigma = np.float32(NOISE / gridding_noise_sd(1.0, spokes()))
    for n_coils in options.coils:
        for kind in ("one", "two") if n_coils == 1 else ("one",):
            rows = []
            for seed in range(options.realisations):
                free, profile = echoes_of(options.folder, "free", n_coils, sigma, seed)
                reference = without_decay(free, guide)
                del free
                echoes, _ = echoes_of(options.folder, kind, n_coils, sigma, seed)
                start = time.process_time()
                data = DecayData(echoes, VOXEL_MM)
                setup = time.process_time() - start
                solver = JointSolver(data, WEIGHT * NOISE, NOISE, guide)
                found = solver.images(*solver(data, solver.start()))
                seconds = time.process_time() - start
                gridded = data.gridded_of(data.right)[0]
                rows.append([row(found, gridded, reference, map_true(n) * profile, m) for n, m in masks.items()])
            print(f"{n_coils} coil(s), {kind} time constant(s): {seconds:.0f} CPU s, {setup:.0f} of them before rounds")
            print(f"{'':20}  image by decay, gridded by decay, image to truth    T2* true, found, spread in voxels")
            for name, (by_decay, before, to_truth, t2star, spread) in zip(masks, np.mean(rows, axis=0), strict=True):
                mixed = kind == "two" and is_tissue(REGIONS[name])
                true = "mixed" if mixed else f"{1e3 * of(T2STAR_S, REGIONS[name], GREY_S):5.1f}"
                print(
                    f"{name:20}  {by_decay:+6.1f} %  {before:+6.1f} %  {to_truth:+6.1f} %"
                    f"     {true}  {t2star:5.1f} {spread:5.1f} ms",
                    flush=True,
                )


def row(found, gridded, reference, truth, mask):
    """Bias of image and gridded image by decay and of the image to the truth, %; T2* and its spread, ms."""
    level = reference[mask].mean()
    percent = [100.0 * (mean / level - 1.0) for mean in (found.image[mask].mean(), gridded[mask].mean())]
    t2star = 1e3 * found.t2star_s[mask]
    to_truth = 100.0 * (found.image[mask].mean() / truth[mask].mean() - 1.0)
    return *percent, to_truth, np.nanmedian(t2star), np.nanstd(t2star)


def map_true(name):
    return next(e.concentration_mM for e in ANALYTIC_HEAD if e.name.startswith(REGIONS[name]))


if __name__ == "__main__":
    main()
