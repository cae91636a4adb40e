"""Cost of the regional model: on one grid, against dense sums and PETPVC; and from T1w to sodium, against resampling.

Prints CPU seconds and the peak memory of the process so far. The plain ways are measured on a few regions and
extrapolated: on one grid one blur of the whole volume per region and one sum over it per pair; between grids a cubic
spline of each fraction map onto a fine grid along the sodium axes, FFT convolution, sampling at voxel centres. The
figures of PETPVC are stored, not measured here: version 1.2.12, one thread, same numbers of voxels and regions, reading
included; at 1 mm extrapolated from 5, 10 and 20 regions.

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 python -m benchmarks.pvc
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
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel
from sodium_prep.pvc.samegrid import SameGrid, sparse_fractions
from sodium_prep.recon.noise import noise_power_spectrum

ACQUISITION = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (3.0, 3.0, 3.0))
RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
ONE_GRID_SHAPE, N_ONE_GRID, FWHM_MM = (174, 210, 171), 121, 6.0
PETPVC_SECONDS = {3: {"gtm": 25.1, "labbe": 178.0}, 1: {"gtm": 706.0, "labbe": 16000.0}}
GOAL_SECONDS = {3: 0.3, 1: 2.0}
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


def one_grid_head():
    """121 labels of 1 mm voxels that fill the volume: sectors of cortex, deep CSF, white matter, scalp and air."""
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in ONE_GRID_SHAPE]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    radius = np.sqrt((x / 66) ** 2 + (y / 84) ** 2 + (z / 64) ** 2).ravel()
    inside = np.flatnonzero(radius < 1.15)
    points = np.stack([axis[i] for axis, i in zip(axes, np.unravel_index(inside, ONE_GRID_SHAPE), strict=True)], axis=1)
    points /= np.linalg.norm(points, axis=1)[:, None] + 1e-6
    seeds = np.random.default_rng(0).standard_normal((N_ONE_GRID - 4, 3))
    sector = cKDTree(seeds / np.linalg.norm(seeds, axis=1)[:, None]).query(points)[1] + 1
    csf, wm, scalp, air = range(N_ONE_GRID - 3, N_ONE_GRID + 1)
    r = radius[inside]
    labels = np.full(radius.size, air, np.int32)
    labels[inside] = np.select([r < 0.2, r < 0.75, r < 1.0, r < 1.07], [csf, wm, sector, csf], scalp)
    return labels.reshape(ONE_GRID_SHAPE), ["GM"] * (N_ONE_GRID - 4) + ["CSF", "WM", "extracerebral", "extracerebral"]


def thirds(volume):
    """Means over 3 x 3 x 3 voxels."""
    a, b, c = (n // 3 for n in volume.shape)
    return volume.reshape(a, 3, b, 3, c, 3).mean((1, 3, 5), dtype=np.float32)


def plain_seconds(maps, spacing_mm, psf):
    """Blurs of the whole volume for all regions and sums over all pairs, from a few; the kernel is made before."""
    shape = maps[0].shape
    k = [np.fft.fftfreq(shape[0], spacing_mm), np.fft.fftfreq(shape[1], spacing_mm)]
    k.append(np.fft.rfftfreq(shape[2], spacing_mm))
    kernel = None
    if psf.kind == "acquisition":
        planes = [np.stack(np.meshgrid([a], *k[1:], indexing="ij"), axis=-1)[0] for a in k[0]]
        kernel = np.stack([psf.mtf(plane, RELAXATIONS["GM"]).astype(np.float32) for plane in planes])

    def blur(one):
        if kernel is None:
            return ndimage.gaussian_filter(one, FWHM_MM / FWHM_PER_SD / spacing_mm, truncate=4.5)
        return scipy.fft.irfftn(scipy.fft.rfftn(one) * kernel, shape)

    start = time.process_time()
    blurred = [blur(one) for one in maps]
    per_region = (time.process_time() - start) / len(maps)
    start = time.process_time()
    for one in maps:
        for other in blurred:
            np.sum(one * other, dtype=np.float64)
    per_pair = (time.process_time() - start) / len(maps) ** 2
    return N_ONE_GRID * per_region + N_ONE_GRID**2 * per_pair


def one_grid() -> None:
    """Both methods, both kinds of PSF, fractions at 3 mm and labels at 1 mm."""
    labels, tissues = one_grid_head()
    image = np.array([45.0] * (N_ONE_GRID - 4) + [140.0, 35.0, 25.0, 0.0], np.float32)[labels - 1]
    image = ndimage.gaussian_filter(image, FWHM_MM / FWHM_PER_SD)
    image += np.random.default_rng(1).normal(0.0, 3.0, image.shape).astype(np.float32)
    print(f"one grid, {N_ONE_GRID} regions, CPU seconds with all transforms and sums; peak so far {peak_gb():.2f} GB")
    for spacing in (1, 3):
        maps, given = labels, image
        if spacing == 3:
            fractions = np.stack([thirds(labels == number) for number in range(1, N_ONE_GRID + 1)])
            given = thirds(image)
        for psf in (PsfModel("gaussian", fwhm_mm=FWHM_MM), PsfModel("acquisition", ACQUISITION)):
            ours = {}
            for method in ("labbe", "gtm"):
                start = time.process_time()
                if spacing == 3:
                    maps = sparse_fractions(fractions)
                grid = SameGrid(maps, given.shape, (float(spacing),) * 3, psf, tissues, RELAXATIONS)
                getattr(grid, method)(given)
                ours[method] = time.process_time() - start
                del grid
            memory = peak_gb()
            sample = [(labels == 1).astype(np.float32)] * 2 if spacing == 1 else list(fractions[:2])
            plain = plain_seconds(sample, spacing, psf)
            for method, seconds in ours.items():
                petpvc = PETPVC_SECONDS[spacing][method]
                print(
                    f"  {spacing} mm {psf.kind:11s} {method:5s} {seconds:6.2f} s (goal {GOAL_SECONDS[spacing]})  "
                    f"dense {plain:5.0f} s, ratio {plain / seconds:5.0f}  "
                    f"PETPVC, stored, {petpvc:5g} s, ratio {petpvc / seconds:6.0f}  peak {memory:.2f} GB"
                )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


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
    print(f"{label:42s} {seconds:8.2f} s CPU   peak {peak_gb():.2f} GB")
    return out, seconds


def two_grids() -> None:
    """What a scan takes: 130 regions of a T1w grid pushed to the sodium grid, and fitted."""
    psf = PsfModel("acquisition", ACQUISITION)
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = -VOXEL_MM * 40
    motion = np.eye(4)
    turn = np.deg2rad(7.0)
    motion[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    motion[:3, 3] = (1.3, -2.0, 0.7)
    compartments, _ = timed("making the head", head)
    blurred, ours = timed(
        "push_compartments",
        lambda: push_compartments(compartments, motion, SODIUM_SHAPE, affine, psf, RELAXATIONS),
    )
    fractions, _ = timed("region_fractions", lambda: region_fractions(compartments, motion, SODIUM_SHAPE, affine))
    noise = Noise(
        np.full(SODIUM_SHAPE, 3.0, np.float32), noise_power_spectrum(SODIUM_SHAPE, (VOXEL_MM,) * 3, ACQUISITION)
    )
    mask = fit_mask(blurred, compartments.names, compartments.kinds, np.ones(SODIUM_SHAPE, bool))
    image = blurred.sum(axis=0).reshape(SODIUM_SHAPE)
    timed("labbe with its covariance", lambda: labbe(blurred, image, mask, noise, compartments.kinds).fit())
    sample = [0, N_REGIONS // 2, N_REGIONS - 1]
    _, plain = timed(
        f"resample and convolve, {len(sample)} of {N_REGIONS}",
        lambda: [
            resample_and_convolve(compartments, i, motion, affine, psf, RELAXATIONS[compartments.tissues[i]])
            for i in sample
        ],
    )
    whole = plain / len(sample) * N_REGIONS
    print(f"plain approach, extrapolated: {whole:.0f} s CPU; ratio {whole / ours:.1f}")
    print(f"stored: {blurred.nbytes / 1e6:.0f} MB of maps, {fractions.data.nbytes * 2 / 1e6:.0f} MB of fractions")


def main() -> None:
    one_grid()
    two_grids()


if __name__ == "__main__":
    main()
