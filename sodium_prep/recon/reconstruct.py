"""Raw data to an image with its noise and its point spread function."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import FilterName
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.recon import coils
from sodium_prep.recon.channels import Channels, virtual_channels, whitened
from sodium_prep.recon.encoding import Encoding, least_squares, real_part
from sodium_prep.recon.gridding import filtered_weights, grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.options import Image, Options, Progress, check
from sodium_prep.recon.point import point_grid, trajectory_psf
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.replicas import passed_noise
from sodium_prep.recon.response import point_response
from sodium_prep.recon.solution import noise_images, solve_scan
from sodium_prep.recon.time_courses import off_resonance_basis
from sodium_prep.settings import KspaceMethod

_MIN_ALIAS_FREE: Final = 0.9
"""Part of the field of view that the steps along a spoke must sample without aliasing.

With it an analytic head that fills up to 0.8 of the field has less than 0.5 % of bias in every region (gridding, 3DPR
and DA-3DPR, 4 mm). With three quarters of the field it has up to 2 % (DA-3DPR), and where the head fills 0.9 of
the field 24 to 40 % in cortex.
"""
CONTRAST_PERCENTILE: Final = 99.0
"""Of the gridded image, for how bright points are."""
_LEAST_HZ: Final = 1.0


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


def check_radial_steps(raw: RawData) -> None:
    """Raise InputError if the samples along a readout lie too far apart for the field of view."""
    field_mm = min(raw.field_of_view_mm)
    alias_free = raw.trajectory.alias_free_mm
    if alias_free < _MIN_ALIAS_FREE * field_mm:
        raise InputError(
            raw.source,
            f"samples along a spoke lie up to 1/({alias_free:.0f} mm) apart, too far for a field of view of"
            f" {field_mm:.0f} mm",
            "Record with a shorter dwell time or state the smaller field of view that holds the object",
        )


def reconstruct(raw: RawData, options: Options | None = None, progress: Progress | None = None) -> Reconstruction:
    """Image, noise and point spread function of one scan.

    Parameters
    ----------
    raw
        From :func:`sodium_prep.recon.raw.read_raw`.
    options
        Method and what it needs; gridding by default.
    progress
        Told what is being done.

    Raises
    ------
    InputError
        If the data cannot make one quantitative image.
    ValueError
        If the options contradict each other.
    """
    options = options or Options()
    if options.method == "agrdm":
        raise ValueError("agrdm takes several echoes, with reconstruct_decay")
    check(options, raw.shape)
    check_radial_steps(raw)
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
        n_coils=raw.n_coils,
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
    return _iterated(raw, encoding, channels, gridded, options, tell)


def _encoding(raw: RawData, maps: NDArray[np.complex64], options: Options) -> Encoding:
    k, voxel_mm, hertz = raw.trajectory.k_per_mm, raw.voxel_mm, options.off_resonance_hz
    if hertz is None:
        return Encoding(k, voxel_mm, maps, workers=options.workers)
    basis = off_resonance_basis(raw.trajectory.time_s, max(float(np.abs(hertz).max()), _LEAST_HZ))
    return Encoding(k, voxel_mm, maps, basis.courses, basis.at(hertz), workers=options.workers)


def _iterated(
    raw: RawData,
    encoding: Encoding,
    channels: Channels,
    gridded: Reconstruction,
    options: Options,
    tell: Progress,
) -> Reconstruction:
    """Least squares with or without a prior, starting from the gridded image."""
    weights = raw.trajectory.weights_mm3
    problem = least_squares(encoding, channels, weights, gridded.image)
    tell("noise", 0, 1)
    noise = noise_images(encoding, weights, channels.sigma, options.seed)
    found = solve_scan(problem, noise, float(gridded.noise_sd.mean()), options, tell)
    passed = passed_noise(noise, found.noise, gridded.noise_sd, gridded.noise_psd, raw.voxel_mm)
    solved = found.solve(problem) if options.relaxations else found.image
    contrast = float(np.percentile(gridded.image, CONTRAST_PERCENTILE))
    psf = {}
    for number, (tissue, relaxation) in enumerate(options.relaxations.items()):
        tell("point spread function", number, len(options.relaxations))
        start = t2star_factor(options.echo_time_s, relaxation)
        decay = t2star_factor(options.echo_time_s + raw.trajectory.time_s, relaxation) / start
        seen = real_part(encoding.normal(weights * decay))
        psf[tissue] = point_response(found.solve, problem, solved, seen, contrast)
    return replace(
        gridded,
        image=found.image,
        noise_sd=passed.sd,
        noise_psd=passed.psd,
        method=options.method,
        psf=psf,
        psf_voxel_mm=raw.voxel_mm,
        steps=found.steps,
        strength=found.strength,
    )
