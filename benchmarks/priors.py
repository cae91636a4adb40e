"""What each prior does to noise, regions and lesions of the analytic head, by strength, and what it costs.

8000 density-adapted spokes of 400 samples to 3 mm, k-space in closed form without decay, noise of 4 mM in the gridded
image. Strengths are in units of that noise; of Bowsher's prior, without unit. The lesions are not in the guide, which
has 10 % of receive profile and 1 % of noise. Bias is of the mean over voxels that lie wholly inside, over realisations
of the noise; ± is its standard deviation over them. Cost is in CPU seconds of one realisation, without the kernel of
the normal operator and the right side, which all methods share.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.priors [REALISATIONS]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np

from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_image, analytic_kspace
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.agr import agr, bowsher
from sodium_prep.recon.conjugate_gradients import conjugate_gradients
from sodium_prep.recon.encoding import Encoding, least_squares
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.trajectory import radial_trajectory
from sodium_prep.recon.tv import tv
from sodium_prep.recon.wavelet import wavelet

N, VOXEL_MM, NOISE = 80, 3.0, 4.0
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
REGIONS = {
    "hippocampus": ("hippocampus-left", "hippocampus-right"),
    "lesion 9 mm": ("lesion-large",),
    "4.5 mm": ("lesion-small",),
    "WM": ("wm",),
    "cortex": ("gm",),
}
T1W = {"scalp": 0.8, "csf": 0.25, "gm": 0.65, "ventricle": 0.25, "hippocampus": 0.65, "deep": 0.75, "tube50": 0.5}


def affine(shift_mm=0.0):
    matrix = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    matrix[:3, 3] = shift_mm - VOXEL_MM * (N // 2)
    return matrix


def radial():
    acquisition = Acquisition(0.0003, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (VOXEL_MM,) * 3, 0.2)
    return radial_trajectory(acquisition, 8000, 400)


def painted(value, subsamples=3, shift_mm=0.0):
    """Image of the head with ``value(name)`` in each ellipsoid."""
    head = [replace(e, concentration_mM=float(value(e.name))) for e in ANALYTIC_HEAD]
    return analytic_image(head, (N,) * 3, affine(shift_mm), subsamples)


def guide_image(rng, noise=0.01, shift_mm=0.0):
    t1w = painted(lambda name: T1W.get(name.split("-")[0], 1.0), shift_mm=shift_mm)
    t1w *= 1.0 + 0.1 * np.linspace(-1.0, 1.0, N)[:, None, None]
    return t1w + noise * rng.standard_normal(t1w.shape)


def problems(realisations):
    """Least squares of realisations of the noise, and the same gridded with a Hamming filter."""
    trajectory = radial()
    encoding = Encoding(trajectory.k_per_mm, (VOXEL_MM,) * 3, np.ones((1, N, N, N), np.complex64))
    exact = analytic_kspace(ANALYTIC_HEAD, trajectory)[None]
    weights = trajectory.weights_mm3
    hamming = weights * (0.54 + 0.46 * np.cos(np.pi * trajectory.k_relative))
    sd = NOISE / gridding_noise_sd(1.0, trajectory, "none")
    first = least_squares(encoding, exact, weights)
    for realisation in range(realisations):
        rng = np.random.default_rng(realisation)
        parts = rng.standard_normal((2, *exact.shape), dtype=np.float32)
        kspace = exact + np.float32(sd) * (parts[0] + 1j * parts[1])
        gridded = np.ascontiguousarray(encoding.adjoint(kspace * weights.astype(np.float32)).real)
        filtered = encoding.adjoint(kspace * hamming.astype(np.float32)).real
        yield replace(first, right=gridded), filtered


def sense(problem, iterations):
    return conjugate_gradients(problem.normal, problem.right, problem.right, iterations, 0.0)


def coil_problem(truth, n_coils=8):
    """A problem of several coils, for its cost alone: data from the grid itself."""
    trajectory = radial()
    x, y, z = (np.indices((N,) * 3) - N // 2) * VOXEL_MM
    angles = 2.0 * np.pi * np.arange(n_coils) / n_coils
    profiles = [
        np.exp(-((x - 120 * np.cos(a)) ** 2 + (y - 120 * np.sin(a)) ** 2 + z**2) / 2e4 + 1j * a) for a in angles
    ]
    maps = np.array(profiles / np.sqrt(np.sum(np.abs(profiles) ** 2, axis=0)), np.complex64)
    encoding = Encoding(trajectory.k_per_mm, (VOXEL_MM,) * 3, maps)
    return least_squares(encoding, encoding.forward(truth), trajectory.weights_mm3)


def main():
    realisations = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    truth = analytic_image(ANALYTIC_HEAD, (N,) * 3, affine(), 4)
    brain = painted(lambda name: not name.startswith(("scalp", "tube"))) > 0.5
    regions = {}
    for label, names in REGIONS.items():
        regions[label] = painted(lambda name, names=names: name in names) > (0.95 if label == "cortex" else 0.999)
    rng = np.random.default_rng(100)
    guide = guide_image(rng)
    scans = list(problems(realisations))

    def row(label, images, seconds=None, steps=None):
        errors = [np.linalg.norm((i - truth)[brain]) / np.linalg.norm(truth[brain]) for i in images]
        bias = [[100 * (i[m].mean() / truth[m].mean() - 1) for m in regions.values()] for i in images]
        cells = [f"{m:+6.1f} ±{s:3.1f}" for m, s in zip(np.mean(bias, axis=0), np.std(bias, axis=0), strict=True)]
        spread = np.mean([i[regions["WM"]].std() for i in images])
        cost = "" if seconds is None else f"{seconds:6.1f} s {steps:4d}"
        print(f"{label:28}{np.mean(errors):8.4f}{spread:7.2f}  {'  '.join(cells)} {cost}", flush=True)

    def solve(label, method, scans=scans):
        images, steps, start = [], [], time.process_time()
        for problem, _ in scans:
            images.append(method(problem, progress=lambda step, _: steps.append(step)))
        row(label, images, (time.process_time() - start) / len(scans), len(steps) // len(scans))

    print(
        f"{realisations} realisations{'':14}  NRMSE  WM sd  {'  '.join(f'{name:>11}' for name in regions)}   cost  its"
    )
    row("gridding", [problem.right for problem, _ in scans])
    row("gridding, Hamming", [filtered for _, filtered in scans])
    row("sense, 2 iterations", [sense(problem, 2) for problem, _ in scans])
    for name in ("tv", "wavelet", "agr", "bowsher"):
        for strength in STRENGTHS:
            method = {
                "tv": partial(tv, weight=strength * NOISE),
                "wavelet": partial(wavelet, weight=strength * NOISE),
                "agr": partial(agr, guide=guide, weight=strength * NOISE),
                "bowsher": partial(bowsher, guide=guide, strength=strength / 8.0),
            }[name]
            solve(f"{name} {strength / 8.0 if name == 'bowsher' else strength:g}", method)
    # The rest is of the first realisation alone.
    for edge in (0.01, 0.03, 0.1):
        solve(f"agr 0.5, edge {edge:g}", partial(agr, guide=guide, weight=0.5 * NOISE, edge=edge), scans[:1])
    for noise, shift in ((0.03, 0.0), (0.1, 0.0), (0.01, 1.5), (0.01, 3.0)):
        other = guide_image(rng, noise, shift)
        label = f"agr 0.5, guide {100 * noise:g} %, {shift:g} mm off"
        solve(label, partial(agr, guide=other, weight=0.5 * NOISE), scans[:1])
    several = coil_problem(truth)
    for name, method in (("tv 0.5", tv), ("agr 0.5", partial(agr, guide=guide))):
        start = time.process_time()
        method(several, weight=0.5 * NOISE)
        print(f"8 coils, {name}: {time.process_time() - start:.1f} CPU s")


if __name__ == "__main__":
    main()
