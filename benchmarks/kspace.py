"""Cost of regional estimates straight from k-space, against one non-uniform transform per region and coil.

100 regions of a head, 8 coils, 8000 spokes of 400 samples at 3 mm. Prints CPU seconds, peak memory, and the ratio of
the direct way (every map times every sensitivity to all samples, sums over all of them), extrapolated from a few.

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.kspace
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.pvc import SODIUM_SHAPE, VOXEL_MM, head, timed
from sodium_prep.phantom.fields import coil_profiles
from sodium_prep.phantom.scan import sodium_affine
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.kspace import KspaceSystem, Spokes
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.trajectory import radial_trajectory

N_REGIONS, N_COILS, N_SPOKES, N_SAMPLES = 100, 8, 8000, 400


def direct(spokes: Spokes) -> float:
    """CPU seconds of the direct way: two transforms and one pair of sums, each as often as it would be needed."""
    operator = Nufft(spokes.trajectory.k_per_mm.reshape(-1, 3), SODIUM_SHAPE, (VOXEL_MM,) * 3)
    operator.forward(spokes.sensitivities[0])
    start = time.process_time()
    columns = [operator.forward(sensitivity) for sensitivity in spokes.sensitivities[:2]]
    one = (time.process_time() - start) / 2
    left, right = (column.view(np.float32) for column in columns)
    start = time.process_time()
    float(left @ right)
    pair = time.process_time() - start
    return N_COILS * (N_REGIONS * one + N_REGIONS * (N_REGIONS + 1) / 2 * pair)


def main() -> None:
    acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (VOXEL_MM,) * 3)
    trajectory = radial_trajectory(acquisition, N_SPOKES, N_SAMPLES)
    affine = sodium_affine(SODIUM_SHAPE[0], VOXEL_MM)
    points = np.stack(np.indices(SODIUM_SHAPE), axis=-1) @ affine[:3, :3] + affine[:3, 3]
    maps = coil_profiles(points, N_COILS)
    maps /= np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((N_COILS, N_SPOKES, 2 * N_SAMPLES), dtype=np.float32).view(np.complex64)
    spokes = Spokes(samples, 1.0, trajectory, maps, affine)
    relaxations = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF")}
    compartments, _ = timed("making the head and noise", lambda: head(N_REGIONS))
    system, ours = timed(
        f"{N_REGIONS} regions, {N_COILS} coils",
        lambda: KspaceSystem(spokes, compartments, np.eye(4), acquisition, relaxations),
    )
    timed("estimates with their covariance", system.fit)
    whole = direct(spokes)
    print(f"direct way, extrapolated: {whole:.0f} s CPU; ratio {whole / ours:.1f}")


if __name__ == "__main__":
    main()
