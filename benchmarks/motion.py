"""Motion between blocks of a scan at clinical size: what it does to regions, and what is left after its correction.

Usage: OMP_NUM_THREADS=1 python -P benchmarks/motion.py [--coils]

The analytic head moves as ellipsoids do, before its k-space is computed, so nothing of the correction goes into the
data. DA-3DPR, 3 mm, 8000 spokes, SNR 10 in white matter in the gridded image. With --coils also 8 loops made of 27
plane waves (5 mm, 3600 spokes; some minutes), at SNR 10 and at 100: the means of small regions differ by noise, as the
correction turns it. Bias of the mean of a region in per cent against the same scan of a head at rest with the same
noise.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_kspace
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.motion import STILL, Pose, correct_motion
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.reconstruct import reconstruct
from sodium_prep.recon.trajectory import radial_trajectory

HEAD = [e for e in ANALYTIC_HEAD if not e.name.startswith("tube")]
TUBES = [e for e in ANALYTIC_HEAD if e.name.startswith("tube")]
WHITE_MATTER_MM, FIELD_MM = 35.0, 240.0


def moved(head, pose):
    """The ellipsoids themselves, turned and shifted."""
    for ellipsoid in head:
        rotation = Rotation.from_matrix(pose.rotation @ ellipsoid.matrix).as_euler("xyz", degrees=True)
        yield replace(ellipsoid, centre_mm=tuple(pose(np.array(ellipsoid.centre_mm))), rotation_deg=tuple(rotation))


def steps(n, mm=5.0, degrees=5.0):
    """Each block somewhere else, 5 mm and 5 degrees away from the first."""
    rng = np.random.default_rng(1)
    poses = [STILL]
    for _ in range(n - 1):
        turn, shift = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
        poses.append(Pose.of(np.concatenate([np.deg2rad(degrees) * turn, mm * shift])))
    return poses


def drift(n, mm=5.0, degrees=5.0):
    """From rest to the end at an even pace."""
    end = steps(2, mm, degrees)[1].motion
    return [Pose.of(end * number / (n - 1)) for number in range(n)]


def kspace(trajectory, block, poses, plane_waves, shares):
    """(coils, readouts, samples); sensitivities are sums of plane waves exp(2 pi i q . r) in the frame of the coils."""
    out = np.zeros((len(shares), *trajectory.k_per_mm.shape[:2]), np.complex64)
    for number, pose in enumerate(poses):
        mine = block == number
        head = list(moved(HEAD, pose))
        for wave, share in zip(plane_waves, shares.T, strict=True):
            shifted = replace(trajectory, k_per_mm=trajectory.k_per_mm[mine].astype(np.float64) - wave)
            out[:, mine] += share[:, None, None].astype(np.complex64) * analytic_kspace(head, shifted)
    return out


def loops(n_coils):
    """Plane waves (27, 3) of period 400 mm, and their shares (coils, 27) in loop-like sensitivities."""
    grid = np.arange(-110.0, 111.0, 20.0)
    points = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[np.linalg.norm(points, axis=1) < 115.0]
    maps = []
    for number in range(n_coils):
        angle = 2.0 * np.pi * number / n_coils
        place = np.array([140.0 * np.cos(angle), 140.0 * np.sin(angle), 35.0 * (-1) ** number])
        away = points - place
        maps.append(60.0**3 / (60.0**2 + np.sum(away**2, axis=1)) ** 1.5 * np.exp(1j * angle))
    waves = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 400.0
    basis = np.vstack([np.exp(2j * np.pi * points @ waves.T), 0.3 * np.eye(27)])
    wanted = np.vstack([np.array(maps).T, np.zeros((27, n_coils))])
    return waves, np.linalg.lstsq(basis, wanted, rcond=None)[0].T


def regions(n, voxel_mm, pose):
    points = pose.inverse()((np.moveaxis(np.indices((n,) * 3), 0, -1) - n // 2) * voxel_mm)

    def inside(name, grow_mm=0.0):
        ellipsoid = next(e for e in HEAD if e.name == name)
        local = (points - ellipsoid.centre_mm) @ ellipsoid.matrix / (np.array(ellipsoid.semi_axes_mm) + grow_mm)
        return np.sum(local**2, axis=-1) < 1.0

    def in_tube(tube):
        local = (pose(points) - tube.centre_mm) / np.array(tube.semi_axes_mm)
        return np.sum(local**2, axis=-1) < 1.0

    deep = [e.name for e in HEAD if e.inside == "wm"]
    return {
        "wm": inside("wm", -6.0) & ~np.any([inside(name, 3.0) for name in deep], axis=0),
        "cortex": inside("gm") & ~inside("wm"),
        "hippocampus": inside("hippocampus-left") | inside("hippocampus-right"),
        "ventricle": inside("ventricle-left") | inside("ventricle-right"),
        "csf": inside("csf") & ~inside("gm"),
        "vials": np.any([in_tube(tube) for tube in TUBES], axis=0),
    }


def report(name, poses, raw, still_at, block, with_tubes):
    start = time.process_time()
    corrected, found = correct_motion(raw, block)
    seconds = time.process_time() - start
    reference = poses[found.reference]
    still, masks = still_at(reference, with_tubes)

    def means(image):
        return np.array([image[mask].mean() for mask in masks.values()])

    shown = len(masks) if with_tubes else len(masks) - 1
    before, after = (100.0 * (means(reconstruct(r).image) / means(still) - 1.0) for r in (raw, corrected))
    others = [pair for n, pair in enumerate(zip(found.blocks, poses, strict=True)) if n != found.reference]
    left = [b.pose.after(reference.after(p.inverse())).motion for b, p in others]
    error = np.sqrt(np.mean(np.square(left).reshape(-1, 2, 3), axis=(0, 2))) * [180.0 / np.pi, 1.0]
    stated = np.sqrt(np.mean([np.square(b.standard_error).reshape(2, 3) for b, _ in others], axis=(0, 2)))
    print(f"{name:<26} uncorrected " + "".join(f"{v:12.2f}" for v in before[:shown]))
    print(f"{'':<26} corrected   " + "".join(f"{v:12.2f}" for v in after[:shown]))
    noise = gridding_noise_sd(1.0, corrected.trajectory) / gridding_noise_sd(1.0, raw.trajectory)
    print(
        f"{'':<26} error of motion {error[0]:.2f} degrees (stated {stated[0]:.2f}), {error[1]:.3f} mm"
        f" (stated {stated[1]:.3f}); noise x {noise:.3f}; {sum(b.applied for b in found.blocks)} of {len(poses)} blocks"
        f" moved; {seconds:.1f} CPU s",
        flush=True,
    )


def study(n, voxel_mm, n_spokes, n_samples, n_coils, cases, snr=10.0):
    acquisition = Acquisition(0.0003, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (voxel_mm,) * 3, 0.2)
    trajectory = radial_trajectory(acquisition, n_spokes, n_samples)
    waves, shares = loops(n_coils) if n_coils > 1 else (np.zeros((1, 3)), np.ones((1, 1)))
    level = 1.0 if n_coils == 1 else 0.27  # root of the sum of squares of the loops over a head
    sigma = level * WHITE_MATTER_MM / snr / gridding_noise_sd(1.0, trajectory)
    rng = np.random.default_rng(3)
    shape = (n_coils, n_spokes, n_samples)
    noise = (sigma * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))).astype(np.complex64)
    fixed = analytic_kspace(TUBES, trajectory)
    names = regions(n, voxel_mm, STILL)
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])

    def scan(samples):
        return RawData(samples + noise, trajectory, (n,) * 3, (voxel_mm,) * 3, affine)

    print(f"{n_coils} coil(s), {voxel_mm:g} mm, SNR {snr:3g}".ljust(39) + "".join(f"{name:>12}" for name in names))

    @cache
    def still_at(pose, with_tubes):
        rest = kspace(trajectory, np.zeros(n_spokes, int), [pose], waves, shares) + (fixed if with_tubes else 0.0)
        return reconstruct(scan(rest)).image, regions(n, voxel_mm, pose)

    for name, poses, with_tubes in cases:
        block = np.arange(n_spokes) % len(poses)
        samples = kspace(trajectory, block, poses, waves, shares)
        if with_tubes:
            samples += fixed
        report(name, poses, scan(samples), still_at, block, with_tubes)


def main():
    volume = [
        ("at rest, 8 blocks", [STILL] * 8, False),
        ("steps, 4 blocks", steps(4), False),
        ("steps, 8 blocks", steps(8), False),
        ("drift, 8 blocks", drift(8), False),
        ("steps, vials at rest", steps(8), True),
    ]
    study(80, 3.0, 8000, 400, 1, volume)
    if "--coils" in sys.argv:
        for snr in (10.0, 100.0):
            study(48, 5.0, 3600, 220, 8, [("steps, 6 blocks", steps(6), False)], snr)


if __name__ == "__main__":
    main()
