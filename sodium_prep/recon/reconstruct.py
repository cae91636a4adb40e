"""Raw data to an image with its noise and its point spread function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import FilterName
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.recon import coils
from sodium_prep.recon.agr import agr, bowsher, similarity_laplacian
from sodium_prep.recon.channels import virtual_channels, whitened
from sodium_prep.recon.encoding import Encoding, LeastSquares, least_squares, real_part
from sodium_prep.recon.fista import Progress as Steps
from sodium_prep.recon.gridding import filtered_weights, grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.point import point_grid, trajectory_psf
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.replicas import passed_noise
from sodium_prep.recon.response import point_response
from sodium_prep.recon.sense import conjugate_gradients
from sodium_prep.recon.time_courses import off_resonance_basis
from sodium_prep.recon.tv import tv
from sodium_prep.recon.wavelet import wavelet
from sodium_prep.settings import GUIDED_METHODS, KspaceMethod

Image = NDArray[np.float32]
Solver = Callable[[LeastSquares], Image]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, the number of the step, and how many there are at most."""

_MIN_ALIAS_FREE: Final = 0.75
"""Part of the field of view that the steps along a spoke must sample without aliasing: a head in a usual one."""
STRENGTH: Final[dict[KspaceMethod, float]] = {"wavelet": 0.5, "tv": 0.25, "agr": 0.5, "bowsher": 0.125}
_CONTRAST_PERCENTILE: Final = 99.0
_LEAST_HZ: Final = 1.0
_ALIKE: Final = 4
"""Neighbours of Bowsher's prior."""


@dataclass(frozen=True)
class Options:
    """How to reconstruct.

    Attributes
    ----------
    method
        ``gridding``: density compensation and transform. ``sense``: least squares of all channels, few steps.
        ``wavelet``, ``tv``: the same with an image that is sparse in wavelets or in its gradient. ``agr``: the same
        with edges where the anatomical image has them. ``bowsher``: the same with neighbours pulled together that the
        anatomical image shows alike.
    kspace_filter
        ``none`` or ``hamming``; of ``gridding`` only.
    strength
        Of the prior, in standard deviations of the noise of the gridded image; None for the method's own.
    guide
        (X, Y, Z) anatomical image on the grid of the raw data, for ``agr`` and ``bowsher``.
    relaxations
        Tissues whose point spread function is wanted; the decay of each acts during the readout.
    echo_time_s
        At which the decay starts; needed with ``relaxations``.
    off_resonance_hz
        (X, Y, Z) deviation of the frequency on the grid of the raw data, which turns the signal by
        ``exp(2 pi i f t)`` during the readout; None for none.
    seed
        Of the noise that noise maps are made with.
    workers
        Threads.
    """

    method: KspaceMethod = "gridding"
    kspace_filter: FilterName = "none"
    strength: float | None = None
    guide: Image | None = field(default=None, repr=False)
    relaxations: Mapping[str, Relaxation] = field(default_factory=dict)
    echo_time_s: float = 0.0
    off_resonance_hz: Image | None = field(default=None, repr=False)
    seed: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Reconstruction:
    """An image and what is known of its noise and of its blur.

    Attributes
    ----------
    image
        (X, Y, Z) float32, signal per mm^3: real part after removal of the phase, so its noise is of mean zero wherever
        a smooth phase could be estimated. It holds the receive profile: for one coil its sensitivity's magnitude
        ``|C|``, for several ``s sqrt(C^H Psi^-1 C)`` with the noise covariance Psi and ``s^2 = trace(Psi) / coils``,
        which is ``sqrt(sum |C|^2)`` for channels of equal, uncorrelated noise.
    magnitude
        (X, Y, Z) float32, magnitude of the same combination, with its Rician floor; of the gridded image.
    noise_sd
        (X, Y, Z) float32, standard deviation of ``image``.
    noise_psd
        (X, Y, Z) float32, power spectrum of the noise with mean 1, in the order of ``numpy.fft.fftn``: the covariance
        of voxels r, s is ``noise_sd(r) noise_sd(s) C(r - s)`` with C the inverse transform of ``noise_psd``.
    affine
        (4, 4) voxel to world, RAS+ mm.
    alias_free_mm
        Largest object that the steps along a spoke sample without aliasing.
    sensitivities
        (coils, X, Y, Z) complex64 maps of unit norm that the whitened channels were combined with.
    psf
        Of every tissue asked for, (n, n, n) images of a point, their sum near 1.
    psf_voxel_mm
        Voxels of these images: those of the image, where points were measured, and finer ones for gridding.
    steps, strength
        Steps of conjugate gradients; strength of the prior in units of the noise. None where the method has none.
    """

    image: Image
    magnitude: Image
    noise_sd: Image
    noise_psd: Image
    affine: NDArray[np.float64]
    voxel_mm: tuple[float, float, float]
    kspace_filter: FilterName
    n_coils: int
    noise_from_scan: bool
    alias_free_mm: float
    sensitivities: NDArray[np.complex64] = field(repr=False)
    method: KspaceMethod = "gridding"
    psf: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    psf_voxel_mm: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    steps: int | None = None
    strength: float | None = None

    @property
    def psf_affine(self) -> NDArray[np.float64]:
        """(4, 4) directions of the image and voxels of ``psf``; where a point lies in the world does not matter."""
        out = np.eye(4)
        out[:3, :3] = self.affine[:3, :3] * (np.asarray(self.psf_voxel_mm) / self.voxel_mm)
        return out


def _check_radial_steps(raw: RawData) -> None:
    field_mm = min(raw.field_of_view_mm)
    alias_free = raw.trajectory.alias_free_mm
    if alias_free < _MIN_ALIAS_FREE * field_mm:
        raise InputError(
            raw.source,
            f"samples along a spoke lie up to 1/({alias_free:.0f} mm) apart, too far for a field of view of"
            f" {field_mm:.0f} mm",
            "Record with a shorter dwell time or state the smaller field of view that holds the object",
        )


def reconstruct(raw: RawData, options: Options = Options(), progress: Progress | None = None) -> Reconstruction:
    """Image, noise and point spread function of one scan.

    Parameters
    ----------
    raw
        From :func:`sodium_prep.recon.raw.read_raw`.
    options
        Method and what it needs.
    progress
        Told what is being done.

    Raises
    ------
    InputError
        If the data cannot make one quantitative image.
    ValueError
        If the options contradict each other.
    """
    _check(options, raw)
    _check_radial_steps(raw)
    tell = progress or (lambda _what, _number, _of: None)
    # Concentrations come of gridding, so nothing of it is given away there.
    channels = whitened(raw) if options.method == "gridding" else virtual_channels(raw)
    tell("gridding", 0, 1)
    images = grid_image(
        channels, raw.trajectory, raw.shape, raw.voxel_mm, options.kspace_filter, workers=options.workers
    )
    sd = gridding_noise_sd(channels.sigma, raw.trajectory, options.kspace_filter)
    psd = trajectory_noise_spectrum(raw.shape, raw.voxel_mm, raw.trajectory, options.kspace_filter)
    maps = coils.low_resolution_maps(images, raw.trajectory, raw.voxel_mm, sd, psd)
    encoding = _encoding(raw, maps, options)
    if options.off_resonance_hz is None:
        combined = coils.combine(images, maps)
    else:
        weights = filtered_weights(raw.trajectory, options.kspace_filter).astype(np.float32)
        combined = encoding.adjoint(channel * weights for channel in channels)
    del images
    gridded = Reconstruction(
        image=np.ascontiguousarray(combined.real, dtype=np.float32),
        magnitude=np.abs(combined).astype(np.float32),
        noise_sd=np.full(raw.shape, sd, dtype=np.float32),
        noise_psd=psd,
        affine=raw.affine,
        voxel_mm=raw.voxel_mm,
        kspace_filter=options.kspace_filter,
        n_coils=len(raw.kspace),
        noise_from_scan=raw.noise is not None,
        alias_free_mm=raw.trajectory.alias_free_mm,
        sensitivities=maps,
    )
    if options.method == "gridding":
        shape, voxel_mm = point_grid(raw.trajectory)
        psf = {
            tissue: trajectory_psf(
                raw.trajectory,
                shape,
                voxel_mm,
                relaxation=relaxation,
                echo_time_s=options.echo_time_s,
                kspace_filter=options.kspace_filter,
            )
            * np.prod(voxel_mm)
            for tissue, relaxation in options.relaxations.items()
        }
        return replace(gridded, psf=psf, psf_voxel_mm=voxel_mm)
    return _iterated(raw, encoding, channels.sigma, gridded, options, tell)


def _encoding(raw: RawData, maps: NDArray[np.complex64], options: Options) -> Encoding:
    k, voxel_mm, hertz = raw.trajectory.k_per_mm, raw.voxel_mm, options.off_resonance_hz
    if hertz is None:
        return Encoding(k, voxel_mm, maps, workers=options.workers)
    basis = off_resonance_basis(raw.trajectory.time_s, max(float(np.abs(hertz).max()), _LEAST_HZ))
    return Encoding(k, voxel_mm, maps, basis.courses, basis.at(hertz), workers=options.workers)


def _check(options: Options, raw: RawData) -> None:
    if options.method != "gridding" and options.kspace_filter != "none":
        raise ValueError(f"a window on k-space belongs to gridding, not to {options.method}")
    if (options.guide is not None) != (options.method in GUIDED_METHODS):
        need = "needs an" if options.method in GUIDED_METHODS else "takes no"
        raise ValueError(f"{options.method} {need} anatomical image")
    if options.strength is not None and options.method not in STRENGTH:
        raise ValueError(f"{options.method} has no prior whose strength could be set")
    for name, image in (("anatomical image", options.guide), ("off-resonance map", options.off_resonance_hz)):
        if image is not None and (image.shape != raw.shape or not np.isfinite(image).all()):
            raise ValueError(f"the {name} is not finite on the grid of the raw data, {raw.shape}")


def _iterated(
    raw: RawData,
    encoding: Encoding,
    sigma: float,
    gridded: Reconstruction,
    options: Options,
    tell: Progress,
) -> Reconstruction:
    """Least squares with or without a prior, starting from the gridded image."""
    weights = raw.trajectory.weights_mm3
    problem = least_squares(encoding, raw.kspace, weights, gridded.image)
    tell("noise", 0, 1)
    noise = _noise_images(encoding, weights, sigma, options.seed)
    steps = strength = None
    if options.method == "sense":
        image, krylov, replicas = conjugate_gradients(problem, noise, progress=lambda n, of: tell("sense", n, of))
        steps = len(krylov.steps)
        solve: Solver = krylov
    else:
        strength = STRENGTH[options.method] if options.strength is None else options.strength
        image, solve = _with_prior(problem, options, strength, float(gridded.noise_sd.mean()), tell)
        tell("noise map", 0, 1)
        # Noise on top of that in the data would meet a prior that is too weak for it, so it is put on the image's own.
        clean = replace(problem, right=problem.normal(image))
        still = solve(clean)
        replicas = [solve(replace(problem, right=clean.right + sample)) - still for sample in noise]
    passed = passed_noise(noise, replicas, gridded.noise_sd, gridded.noise_psd, raw.voxel_mm)
    solved = solve(problem) if options.relaxations else image
    contrast = float(np.percentile(gridded.image, _CONTRAST_PERCENTILE))
    psf = {}
    for number, (tissue, relaxation) in enumerate(options.relaxations.items()):
        tell("point spread function", number, len(options.relaxations))
        start = t2star_factor(options.echo_time_s, relaxation)
        decay = t2star_factor(options.echo_time_s + raw.trajectory.time_s, relaxation) / start
        psf[tissue] = point_response(solve, problem, solved, real_part(encoding.normal(weights * decay)), contrast)
    return replace(
        gridded,
        image=image,
        noise_sd=passed.sd,
        noise_psd=passed.psd,
        method=options.method,
        psf=psf,
        psf_voxel_mm=raw.voxel_mm,
        steps=steps,
        strength=strength,
    )


def _with_prior(
    problem: LeastSquares, options: Options, strength: float, noise_sd: float, tell: Progress
) -> tuple[Image, Solver]:
    """Image by the prior of a method, and the solver that goes on from it for other data."""
    guide = options.guide
    like = similarity_laplacian(guide, _ALIKE) if guide is not None and options.method == "bowsher" else None

    def solve(data: LeastSquares, start: Image | None = None, told: Steps | None = None) -> Image:
        if guide is not None and options.method == "bowsher":
            return bowsher(data, guide, strength, _ALIKE, roughness=like, start=start, progress=told)
        weight = strength * noise_sd
        if guide is not None:
            return agr(data, guide, weight, start=start, progress=told)
        return (tv if options.method == "tv" else wavelet)(data, weight, start=start, progress=told)

    image = solve(problem, told=lambda number, of: tell(options.method, number, of))
    return image, lambda other: solve(other, image)


def _noise_images(encoding: Encoding, weights: NDArray[np.float64], sigma: float, seed: int) -> list[Image]:
    """Two samples of the noise of the gridded image: real and imaginary part of a complex one."""
    rng = np.random.default_rng(seed)
    shape = encoding.k_per_mm.shape[:2]
    scale = (sigma * weights).astype(np.float32)
    draws = (rng.standard_normal((*shape, 2), dtype=np.float32) for _ in encoding.sensitivities)
    noise = encoding.adjoint(draw.view(np.complex64)[..., 0] * scale for draw in draws)
    return [np.ascontiguousarray(noise.real), np.ascontiguousarray(noise.imag)]
