"""Cost of the regional forward model: pushing every compartment to the sodium grid, against resample and convolve.

Prints CPU seconds, peak memory, and the ratio of the plain approach (cubic spline of each fraction map onto a fine grid
along the sodium axes, FFT convolution, sampling at voxel centres).

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.pvc
"""

from __future__ import annotations

import resource
import time

import numpy as np
import scipy.fft
from scipy import ndimage
from scipy.spatial import cKDTree

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import push_compartments, region_fractions
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.recon.noise import noise_power_spectrum

N_REGIONS, T1W_SHAPE, SODIUM_SHAPE, VOXEL_MM = 130, (208, 240, 208), (80, 80, 80), 3.0


def head(n_regions: int = N_REGIONS) -> Compartments:
    """Regions of 1 mm voxels: sectors of an ellipsoid and of the shell around it."""
    affine = np.eye(4)
    affine[:3, 3] = -(np.asarray(T1W_SHAPE) - 1) / 2
    axes = [np.arange(n, dtype=np.float32) + o for n, o in zip(T1W_SHAPE, affine[:3, 3], strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    radius = np.sqrt((x / 70) ** 2 + (y / 88) ** 2 + (z / 70) ** 2)
    inside = np.flatnonzero(radius < 1.15)
    r = radius.ravel()[inside]
    rng = np.random.default_rng(0)
    seeds = rng.standard_normal((n_regions - 2, 3))
    points = np.stack(np.unravel_index(inside, T1W_SHAPE), axis=1).astype(np.float32) + affine[:3, 3].astype(np.float32)
    points /= np.linalg.norm(points, axis=1)[:, None]
    sector = cKDTree(seeds / np.linalg.norm(seeds, axis=1)[:, None]).query(points)[1]
    region = np.where(r < 0.75, n_regions - 2, np.where(r < 1.0, sector, n_regions - 1))
    out = Compartments([], [], [], [], [], T1W_SHAPE, affine)
    for number in range(n_regions):
        voxels = inside[region == number]
        tissue = {n_regions - 2: "WM", n_regions - 1: "CSF"}.get(number, "GM")
        out.append(f"region-{number}", tissue, "region", voxels, np.ones(voxels.size))
    return out


def resample_and_convolve(c: Compartments, number: int, motion, affine, psf, relaxation):
    """One compartment the plain way: spline onto 1.5 mm along the sodium axes, FFT convolution, every second voxel."""
    fine = affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    shape = tuple(2 * n for n in SODIUM_SHAPE)
    volume = np.zeros(c.shape, np.float32)
    volume.reshape(-1)[c.voxels[number]] = c.weights[number]
    to_t1w = np.linalg.inv(c.affine) @ motion @ fine
    moved = ndimage.affine_transform(volume, to_t1w[:3, :3], to_t1w[:3, 3], shape, order=3)
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(n, VOXEL_MM / 2) for n in shape), indexing="ij"), axis=-1)[
        ..., : shape[2] // 2 + 1, :
    ]
    spectrum = scipy.fft.rfftn(moved) * psf.mtf(k, relaxation)
    return scipy.fft.irfftn(spectrum, shape)[::2, ::2, ::2]


def timed(label, function):
    start = time.process_time()
    out = function()
    seconds = time.process_time() - start
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{label:42s} {seconds:8.2f} s CPU   peak {peak_gb:.2f} GB")
    return out, seconds


def main() -> None:
    acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (3.0, 3.0, 3.0))
    psf = PsfModel("acquisition", acquisition)
    relaxations = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF")}
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = -VOXEL_MM * 40
    motion = np.eye(4)
    turn = np.deg2rad(7.0)
    motion[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    motion[:3, 3] = (1.3, -2.0, 0.7)
    compartments, _ = timed("making the head", head)
    blurred, ours = timed(
        "push_compartments",
        lambda: push_compartments(compartments, motion, SODIUM_SHAPE, affine, psf, relaxations),
    )
    fractions, _ = timed("region_fractions", lambda: region_fractions(compartments, motion, SODIUM_SHAPE, affine))
    noise = Noise(
        np.full(SODIUM_SHAPE, 3.0, np.float32), noise_power_spectrum(SODIUM_SHAPE, (VOXEL_MM,) * 3, acquisition)
    )
    mask = fit_mask(blurred, compartments.names, compartments.kinds, np.ones(SODIUM_SHAPE, bool))
    image = blurred.sum(axis=0).reshape(SODIUM_SHAPE)
    timed("labbe with its covariance", lambda: labbe(blurred, image, mask, noise, compartments.kinds).fit())
    sample = [0, N_REGIONS // 2, N_REGIONS - 1]
    _, plain = timed(
        f"resample and convolve, {len(sample)} of {N_REGIONS}",
        lambda: [
            resample_and_convolve(compartments, i, motion, affine, psf, relaxations[compartments.tissues[i]])
            for i in sample
        ],
    )
    whole = plain / len(sample) * N_REGIONS
    print(f"plain approach, extrapolated: {whole:.0f} s CPU; ratio {whole / ours:.1f}")
    print(f"stored: {blurred.nbytes / 1e6:.0f} MB of maps, {fractions.data.nbytes * 2 / 1e6:.0f} MB of fractions")


if __name__ == "__main__":
    main()
