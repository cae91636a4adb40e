"""Time and accuracy of the operators and of a whole reconstruction at the size of a clinical sodium scan.

Usage: OMP_NUM_THREADS=1 python benchmarks/recon.py
"""

from __future__ import annotations

import time

import numpy as np

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.gridding import grid_image
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.raw import RawData
from sodium_prep.recon.reconstruct import reconstruct
from sodium_prep.recon.trajectory import radial_trajectory

SHAPE, VOXEL_MM = (80, 80, 80), (3.0, 3.0, 3.0)
N_SPOKES, N_SAMPLES, N_PROBES = 8000, 400, 300


def timed(function, *arguments, repeats=3):
    """Median wall time in seconds, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


def relative_error(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def sphere_spectrum(k_per_mm, radius_mm):
    q = np.maximum(2.0 * np.pi * radius_mm * np.linalg.norm(k_per_mm, axis=-1), 1e-3)
    return 4.0 * np.pi * radius_mm**3 * (np.sin(q) - q * np.cos(q)) / q**3


def main():
    rng = np.random.default_rng(0)
    acquisition = Acquisition(0.0003, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, VOXEL_MM, 0.2)
    trajectory = radial_trajectory(acquisition, N_SPOKES, N_SAMPLES)
    k = trajectory.k_per_mm.reshape(-1, 3)
    index = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij"), axis=-1).reshape(-1, 3)
    image = rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)
    samples = rng.standard_normal(len(k)) + 1j * rng.standard_normal(len(k))
    probes = rng.choice(len(k), N_PROBES, replace=False)
    voxels = rng.choice(len(index), N_PROBES // 10, replace=False)

    def direct_forward():
        waves = (np.exp(-2j * np.pi * (index * VOXEL_MM) @ k[j].astype(float)) for j in probes)
        return np.array([np.sum(w * image.ravel()) for w in waves]) * np.prod(VOXEL_MM)

    def direct_adjoint():
        return np.array(
            [np.sum(samples * np.exp(2j * np.pi * k.astype(float) @ (index[v] * VOXEL_MM))) for v in voxels]
        )

    slow_forward, forward = timed(direct_forward, repeats=1)
    slow_adjoint, adjoint = timed(direct_adjoint, repeats=1)
    slow_forward *= len(k) / N_PROBES
    slow_adjoint *= len(index) / len(voxels)
    print(f"{len(k)} samples, {SHAPE} voxels, one thread; direct sums extrapolated from {N_PROBES} probes")
    print("precision   forward  error     adjoint  error     against direct sums (forward, adjoint)")
    for dtype in (np.complex64, np.complex128):
        operator = Nufft(k, SHAPE, VOXEL_MM, dtype)
        operator.forward(image), operator.adjoint(samples)
        t_forward, y = timed(operator.forward, image)
        t_adjoint, x = timed(operator.adjoint, samples)
        print(
            f"{np.dtype(dtype).name:11} {t_forward:6.2f} s {relative_error(y[probes], forward):.1e}"
            f"  {t_adjoint:6.2f} s {relative_error(x.ravel()[voxels], adjoint):.1e}"
            f"   {slow_forward / t_forward:.1e} x, {slow_adjoint / t_adjoint:.1e} x"
        )
    kspace = 40.0 * sphere_spectrum(trajectory.k_per_mm, 90.0).astype(np.complex64)[None]
    t_grid, gridded = timed(grid_image, kspace, trajectory, SHAPE, VOXEL_MM)
    inside = (np.linalg.norm(index * VOXEL_MM, axis=1) < 70.0).reshape(SHAPE)
    bias = gridded[0].real[inside].mean() / 40.0 - 1.0
    print(f"gridding one channel {t_grid:.2f} s, bias of a sphere of 90 mm {100.0 * bias:+.3f} %")
    for n_coils in (1, 8):
        parts = 2e4 * rng.standard_normal((2, n_coils, *kspace.shape[1:]), dtype=np.float32)
        raw = RawData(kspace + parts[0] + 1j * parts[1], trajectory, SHAPE, VOXEL_MM, np.diag([3.0, 3.0, 3.0, 1.0]))
        seconds, _ = timed(reconstruct, raw, repeats=1)
        print(f"reconstruct, {n_coils} channel(s): {seconds:.1f} s")


if __name__ == "__main__":
    main()
