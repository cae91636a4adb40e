"""Raw data of several echoes to one image without decay and a map of T2*, each with its noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.errors import InputError
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.recon import coils
from sodium_prep.recon.agrdm import DecayData, Echo, JointSolver
from sodium_prep.recon.channels import virtual_channels, whitened
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.options import STRENGTH, Image, Options, Progress, check
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.reconstruct import CONTRAST_PERCENTILE, Reconstruction, check_radial_steps
from sodium_prep.recon.replicas import SMOOTHING, ReplicaNoise, passed_noise
from sodium_prep.recon.response import REACH, mean_response, points_in
from sodium_prep.recon.trajectory import Trajectory

_ONE_GRID: Final = 1e-3
"""Part of a voxel that the grids of two files may differ by."""


@dataclass(frozen=True)
class DecayReconstruction:
    """Image and T2* of several echoes together.

    Attributes
    ----------
    scan
        Its image is that at the centre of the excitation, before any decay, so the sum of a point spread function is
        what is seen of a tissue that decays with two time constants. ``magnitude`` is of the gridded first echo.
    t2star_s
        (X, Y, Z) float32, seconds; NaN where the image is at the level of the noise or ``clipped`` is not 0.
    t2star_sd_s
        (X, Y, Z) float32, its standard error by noise, averaged over a neighbourhood of a few voxels; NaN where it is.
    clipped
        (X, Y, Z) int8: 1 where T2* is too long to be told from no decay (above 100 ``scale_s``), -1 where it is too
        short (below 0.4 ``scale_s``).
    scale_s
        Mean distance between the echoes.
    """

    scan: Reconstruction
    t2star_s: Image
    t2star_sd_s: Image
    clipped: NDArray[np.int8]
    scale_s: float


@dataclass(frozen=True)
class _Gridded:
    """Echoes ready for the joint solution, the first of them as an image, and the noise of all.

    ``roots`` are those of :meth:`sodium_prep.recon.agrdm.DecayData.of_noise`.
    """

    echoes: list[Echo] = field(repr=False)
    first: Image = field(repr=False)
    magnitude: Image = field(repr=False)
    noise: list[ReplicaNoise] = field(repr=False)
    roots: list[NDArray[Any]]
    n_coils: int


def reconstruct_decay(
    echoes: Sequence[RawData], options: Options | None = None, progress: Progress | None = None
) -> DecayReconstruction:
    """Joint image and T2* of the echoes of one file or several (:mod:`sodium_prep.recon.agrdm`).

    All echoes go through the virtual channels of the earliest, and their sensitivities are its own, turned by the
    smooth phase that the echo has gained.

    Noise is measured as that of the other methods with a prior: two samples of it are put on what the image found
    would have given, and go the same way from there. What a point becomes is measured on the data of the scan,
    with r as its tissue has it.

    Parameters
    ----------
    echoes
        Two or more, on one grid.
    options
        Of method ``agrdm``; ``echo_time_s`` has no meaning, as every echo has its own.
    progress
        Told what is being done.

    Raises
    ------
    InputError
        If there are fewer than two echoes, or their times, channels or grids do not fit together.
    ValueError
        If the options contradict each other.
    """
    options = options or Options(method="agrdm")
    ordered = _ordered(echoes)
    raw = ordered[0]
    check(options, raw.shape)
    tell = progress or (lambda _what, _number, _of: None)
    strength = STRENGTH["agrdm"] if options.strength is None else options.strength
    gridded = _gridded(ordered, options.workers, tell)
    noise_sd = float(gridded.noise[0].sd[0, 0, 0])
    tell("kernels", 0, 1)
    data = DecayData(gridded.echoes, raw.voxel_mm, workers=options.workers)
    solver = JointSolver(data, strength * noise_sd, noise_sd, options.guide)
    found = solver(data, solver.start(), progress=lambda number, of: tell("agrdm", number, of))
    images = solver.images(*found)

    tell("noise map", 0, 3)
    samples = data.of_noise(gridded.roots, options.seed)
    clean = data.clean(*found)
    still = solver(data.having(clean), found)
    changes = []
    for number, sample in enumerate(samples, start=1):
        tell("noise map", number, 3)
        noisy = [own + noise for own, noise in zip(clean, sample, strict=True)]
        moved = solver(data.having(noisy), found)
        changes.append((data.at_excitation(*moved) - data.at_excitation(*still), moved[1] - still[1]))
    passed = _image_noise(data, samples, [x for x, _ in changes], gridded.noise, raw.voxel_mm)

    psf = {}
    if options.relaxations:
        contrast = float(np.percentile(gridded.first, CONTRAST_PERCENTILE))
        psf = _point_responses(solver, found, options, contrast, tell)
    scan = Reconstruction(
        image=images.image,
        magnitude=gridded.magnitude,
        noise_sd=passed.sd,
        noise_psd=passed.psd,
        affine=raw.affine,
        voxel_mm=raw.voxel_mm,
        kspace_filter="none",
        n_coils=gridded.n_coils,
        noise_from_scan=all(echo.noise is not None for echo in ordered),
        alias_free_mm=min(echo.trajectory.alias_free_mm for echo in ordered),
        sensitivities=gridded.echoes[0].sensitivities,
        method="agrdm",
        psf=psf,
        psf_voxel_mm=raw.voxel_mm,
        strength=strength,
    )
    spread = _t2star_sd(*found, [r for _, r in changes], np.isfinite(images.t2star_s), data.scale_s)
    return DecayReconstruction(scan, images.t2star_s, spread, images.clipped, data.scale_s)


def _ordered(echoes: Sequence[RawData]) -> list[RawData]:
    """The echoes by their times."""
    first = echoes[0]
    if len(echoes) < 2:
        raise InputError(first.source, "holds fewer than two echoes", "Give the files of the others or another method")
    for echo in echoes:
        if echo.echo_time_s is None:
            raise InputError(echo.source, "has an echo of unknown time", "State its echo time in the file")
        check_radial_steps(echo)
    ordered = sorted(echoes, key=lambda echo: echo.echo_time_s or 0.0)
    first = ordered[0]
    for before, echo in pairwise(ordered):
        if echo.echo_time_s == before.echo_time_s:
            what = f"has the echo time of another echo, {1e3 * (echo.echo_time_s or 0.0):g} ms"
            raise InputError(echo.source, what, "Average the two, or state the time of each")
        near = _ONE_GRID * min(first.voxel_mm)
        if echo.shape != first.shape or not np.allclose(echo.affine, first.affine, rtol=0.0, atol=near):
            raise InputError(echo.source, "lies on another grid than the first echo", "Give echoes of one protocol")
    return ordered


def _gridded(ordered: Sequence[RawData], workers: int, tell: Progress) -> _Gridded:
    virtual = virtual_channels(ordered[0])
    echoes: list[Echo] = []
    noise: list[ReplicaNoise] = []
    roots = []
    maps, first = np.zeros(0, np.complex64), np.zeros(0, np.complex64)
    for number, raw in enumerate(ordered):
        tell("gridding", number, len(ordered))
        line = next((e.trajectory for e in echoes if _same(e.trajectory, raw.trajectory)), raw.trajectory)
        white = whitened(raw)
        if len(white) != virtual.matrix.shape[1]:
            what = f"has {len(white)} channels, and the first echo {virtual.matrix.shape[1]}"
            raise InputError(raw.source, what, "Give echoes of the same receive coils")
        half = white.sigma * virtual.matrix @ np.linalg.inv(white.matrix.astype(complex))
        covariance = half @ half.conj().T
        sigma = float(np.sqrt(np.trace(covariance).real / len(covariance)))
        if sigma == 0.0:
            raise InputError(raw.source, "has no noise, which the strength of a prior is counted in", "Choose gridding")
        roots.append(np.linalg.cholesky(covariance))
        channels = replace(white, matrix=virtual.matrix, sigma=sigma)
        images = grid_image(channels, line, raw.shape, raw.voxel_mm, workers=workers)
        sd = gridding_noise_sd(sigma, line)
        psd = trajectory_noise_spectrum(raw.shape, raw.voxel_mm, line)
        if number == 0:
            maps = coils.low_resolution_maps(images, line, raw.voxel_mm, sd, psd)
            turned = maps
            first = coils.combine(images, maps)
        else:
            combined = coils.combine(images, maps)[None]
            turned = maps * coils.low_resolution_maps(combined, line, raw.voxel_mm, sd, psd)
        noise.append(ReplicaNoise(np.full(raw.shape, sd, np.float32), psd))
        echoes.append(Echo(channels, line, raw.echo_time_s or 0.0, turned))
    real = np.ascontiguousarray(first.real, dtype=np.float32)
    return _Gridded(echoes, real, np.abs(first).astype(np.float32), noise, roots, virtual.matrix.shape[1])


def _point_responses(
    solver: JointSolver, found: tuple[Image, Image], options: Options, contrast: float, tell: Progress
) -> dict[str, NDArray[np.float64]]:
    """What becomes of a point of each tissue, within tissue of its kind.

    r is known, and everywhere that of the tissue, one exponential through the echoes. An r that the point had a part in
    would answer over a wide neighbourhood and change what is there already, which is no blur of the point. The sum of
    the response is then what one exponential makes of two: 1 for tissue that decays with one time constant.
    """
    data = solver.data
    image, ratio = found
    reach = min(REACH, (min(data.shape) - 1) // 2)
    points, objects = points_in(data.at_excitation(image, ratio), reach)
    left = [y - own for y, own in zip(data.right, data.clean(image, ratio), strict=True)]
    ends = np.asarray([min(data.echo_times_s), max(data.echo_times_s)])
    psf = {}
    for number, (tissue, relaxation) in enumerate(options.relaxations.items()):
        tell("point spread function", number, len(options.relaxations))
        first, last = t2star_factor(ends, relaxation)
        own = np.clip((last / first) ** (data.scale_s / np.ptp(ends)), *data.bounds)
        start = image, np.full_like(ratio, own)
        added = data.of_object(objects, partial(t2star_factor, relaxation=relaxation))
        amplitude = np.float32(contrast / data.gridded_of(added)[0][tuple(points.T)].mean())
        right = [y + more for y, more in zip(data.clean(*start), left, strict=True)]
        still, _ = solver(data.having(right), start, ratio_known=True)
        right = [y + amplitude * more for y, more in zip(right, added, strict=True)]
        moved, _ = solver(data.having(right), start, ratio_known=True)
        psf[tissue] = mean_response(data.at_excitation(moved - still, start[1]) / amplitude, points, reach)
    return psf


def _same(one: Trajectory, other: Trajectory) -> bool:
    return (
        np.array_equal(one.k_per_mm, other.k_per_mm)
        and np.array_equal(one.time_s, other.time_s)
        and np.array_equal(one.weights_mm3, other.weights_mm3)
    )


def _image_noise(
    data: DecayData,
    samples: Iterable[list[NDArray[np.float32]]],
    passed: Sequence[Image],
    known: Sequence[ReplicaNoise],
    voxel_mm: tuple[float, float, float],
) -> ReplicaNoise:
    """Noise of the image by the law of the gridded echoes, each with the share that it has in the image."""
    shares = np.asarray([np.linalg.norm(image) for image in data.gridded_of(data.right)], np.float32)
    before = [np.tensordot(shares, data.gridded_of(sample), 1) for sample in samples]
    power = [(w * noise.sd) ** 2 for w, noise in zip(shares, known, strict=True)]
    total = np.sum(power, axis=0)
    psd = np.sum([p * noise.psd for p, noise in zip(power, known, strict=True)], axis=0) / total
    return passed_noise(before, passed, np.sqrt(total), psd, voxel_mm)


def _t2star_sd(image: Image, ratio: Image, changes: Sequence[Image], told: NDArray[np.bool_], scale_s: float) -> Image:
    """Standard error of T2* by what noise made of r, as the mean square over the neighbours that have a T2*."""
    # Times the signal, which r is the less sure the fainter it is: that differs little between tissues.
    square = np.where(told, np.mean(np.square(changes), axis=0) * image**2, 0.0)
    near, share = (ndimage.gaussian_filter(v, SMOOTHING, mode="nearest") for v in (square, told.astype(np.float32)))
    out = np.full(ratio.shape, np.nan, np.float32)
    r = ratio[told]
    out[told] = scale_s / (r * np.log(r) ** 2) * np.sqrt(near[told] / share[told]) / image[told]
    return out
