"""Raw data to an image with its noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import FilterName
from sodium_prep.recon import coils
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.raw_data import RawData

_MIN_ALIAS_FREE = 0.75
"""Part of the field of view that the steps along a spoke must sample without aliasing: a head in a usual one."""


@dataclass(frozen=True)
class Reconstruction:
    """A gridded image and what is known of its noise.

    Attributes
    ----------
    image
        (X, Y, Z) float32, signal per mm^3: real part after removal of the phase, so its noise is Gaussian of mean zero
        wherever a smooth phase could be estimated. It holds the receive profile: for one coil its sensitivity's
        magnitude ``|C|``, for several ``s sqrt(C^H Psi^-1 C)`` with the noise covariance Psi and
        ``s^2 = trace(Psi) / coils``, which is ``sqrt(sum |C|^2)`` for channels of equal, uncorrelated noise.
    magnitude
        (X, Y, Z) float32, magnitude of the same combination, with its Rician floor.
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
    """

    image: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    noise_sd: NDArray[np.float32]
    noise_psd: NDArray[np.float32]
    affine: NDArray[np.float64]
    voxel_mm: tuple[float, float, float]
    kspace_filter: FilterName
    n_coils: int
    noise_from_scan: bool
    alias_free_mm: float
    sensitivities: NDArray[np.complex64] = field(repr=False)


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


def whitened(raw: RawData) -> tuple[NDArray[np.complex64], float]:
    """Channels with noise of the same standard deviation, and that standard deviation per real component."""
    noise = coils.readout_tail_noise(raw.kspace) if raw.noise is None else raw.noise
    covariance = coils.noise_covariance(noise)
    sigma = float(np.sqrt(np.trace(covariance).real / len(covariance)))
    if len(covariance) == 1 or sigma == 0.0:
        return raw.kspace, sigma
    fault = coils.dependent_channels(covariance)
    if fault:
        raise InputError(raw.source, fault, "Leave out dead or duplicated channels")
    return np.asarray(coils.whiten(raw.kspace, covariance) * sigma, dtype=np.complex64), sigma


def reconstruct(raw: RawData, kspace_filter: FilterName = "none", box: int = 3) -> Reconstruction:
    """Grid every channel, estimate the sensitivities, combine and remove the phase.

    Parameters
    ----------
    raw
        From :func:`sodium_prep.recon.raw.read_ismrmrd`.
    kspace_filter
        ``none`` or ``hamming``.
    box
        Edge, in voxels, of the box in which phase and sensitivities count as constant.
    """
    _check_radial_steps(raw)
    kspace, sigma = whitened(raw)
    images = grid_image(kspace, raw.trajectory, raw.shape, raw.voxel_mm, kspace_filter)
    sd = gridding_noise_sd(sigma, raw.trajectory, kspace_filter)
    psd = trajectory_noise_spectrum(raw.shape, raw.voxel_mm, raw.trajectory, kspace_filter)
    window = coils.low_resolution_window(raw.shape, raw.voxel_mm, coils.PHASE_CUTOFF * raw.trajectory.kmax_per_mm)
    smooth_sd = sd * float(np.sqrt(np.mean(psd * window**2)))
    maps = coils.sensitivities(coils.low_resolution(images, window), box, raw.voxel_mm, smooth_sd)
    combined = coils.combine(images, maps)
    return Reconstruction(
        image=np.ascontiguousarray(combined.real, dtype=np.float32),
        magnitude=np.abs(combined).astype(np.float32),
        noise_sd=np.full(raw.shape, sd, dtype=np.float32),
        noise_psd=psd,
        affine=raw.affine,
        voxel_mm=raw.voxel_mm,
        kspace_filter=kspace_filter,
        n_coils=len(raw.kspace),
        noise_from_scan=raw.noise is not None,
        alias_free_mm=raw.trajectory.alias_free_mm,
        sensitivities=np.asarray(maps, dtype=np.complex64),
    )
