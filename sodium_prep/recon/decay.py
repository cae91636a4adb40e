"""Raw data of several echoes to one image without decay and a map of T2*, each with its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon import coils
from sodium_prep.recon.agrdm import Echo, agrdm
from sodium_prep.recon.channels import Channels, virtual_channels
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.options import STRENGTH, Image, Options, Progress, check
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.reconstruct import Reconstruction


@dataclass(frozen=True)
class DecayReconstruction:
    """Image and T2* of several echoes together.

    Attributes
    ----------
    scan
        Its image is that at the centre of the excitation, before any decay; ``magnitude`` is of the gridded first echo.
    t2star_s
        (X, Y, Z) float32, seconds; NaN where the image is at the level of the noise or ``clipped`` is not 0.
    t2star_sd_s
        (X, Y, Z) float32, its standard error by noise; NaN where it is.
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


def reconstruct_decay(
    echoes: Sequence[RawData], options: Options | None = None, progress: Progress | None = None
) -> DecayReconstruction:
    """Joint image and T2* of the echoes of one file or several (:func:`sodium_prep.recon.agrdm.agrdm`).

    All echoes go through the virtual channels of the first, and their sensitivities are its own, turned by the smooth
    phase that the echo has gained.

    Parameters
    ----------
    echoes
        Two or more, on one grid.
    options
        Of method ``agrdm``.
    progress
        Told what is being done.

    Raises
    ------
    InputError
        If there are fewer than two echoes or echo times, or their channels or grids differ.
    """
    options = options or Options(method="agrdm")
    first = echoes[0]
    check(options, first.shape)
    tell = progress or (lambda _what, _number, _of: None)
    times = [echo.echo_time_s for echo in echoes]
    known = [time for time in times if time is not None]
    if len(known) < len(times) or len(set(known)) < 2:
        raise InputError(first.source, "holds fewer than two echoes of known echo times", "Choose another method")
    if any(echo.shape != first.shape or echo.n_coils != first.n_coils for echo in echoes):
        raise InputError(first.source, "holds echoes of different channels or grids", "Reconstruct them one by one")
    strength = STRENGTH["agrdm"] if options.strength is None else options.strength
    virtual = virtual_channels(first)
    made, noise_sd, maps = [], 0.0, np.zeros(0, np.complex64)
    for number, (echo, time) in enumerate(zip(echoes, known, strict=True)):
        tell("gridding", number, len(echoes))
        channels = Channels(echo.samples, virtual.matrix, virtual.sigma)
        images = grid_image(channels, echo.trajectory, echo.shape, echo.voxel_mm, workers=options.workers)
        sd = gridding_noise_sd(virtual.sigma, echo.trajectory)
        psd = trajectory_noise_spectrum(echo.shape, echo.voxel_mm, echo.trajectory)
        if number == 0:
            maps, noise_sd, noise_psd = (
                coils.low_resolution_maps(images, echo.trajectory, echo.voxel_mm, sd, psd),
                sd,
                psd,
            )
            turned, combined = maps, coils.combine(images, maps)
            magnitude = np.abs(combined).astype(np.float32)
        else:
            combined = coils.combine(images, maps)[None]
            turned = maps * coils.low_resolution_maps(combined, echo.trajectory, echo.voxel_mm, sd, psd)
        made.append(Echo(np.stack(list(channels)), echo.trajectory, time, turned))
    found = agrdm(
        made,
        first.voxel_mm,
        strength * noise_sd,
        noise_sd,
        options.guide,
        workers=options.workers,
        progress=lambda number, of: tell("agrdm", number, of),
    )
    scan = Reconstruction(
        image=found.image,
        magnitude=magnitude,
        noise_sd=np.full(first.shape, noise_sd, np.float32),
        noise_psd=noise_psd,
        affine=first.affine,
        voxel_mm=first.voxel_mm,
        kspace_filter="none",
        n_coils=len(first.kspace),
        noise_from_scan=first.noise is not None,
        alias_free_mm=min(echo.trajectory.alias_free_mm for echo in echoes),
        sensitivities=maps,
        method="agrdm",
        psf_voxel_mm=first.voxel_mm,
        strength=strength,
    )
    spread = np.full(first.shape, np.nan, np.float32)
    return DecayReconstruction(scan, found.t2star_s, spread, found.clipped, found.scale_s)
