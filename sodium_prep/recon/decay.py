"""Raw data of several echoes to one image without decay and a map of T2*."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.recon import coils
from sodium_prep.recon.agrdm import DecayImages, Echo, agrdm
from sodium_prep.recon.channels import Channels, virtual_channels
from sodium_prep.recon.fista import Progress
from sodium_prep.recon.gridding import grid_image, gridding_noise_sd
from sodium_prep.recon.noise import trajectory_noise_spectrum
from sodium_prep.recon.raw_data import RawData

STRENGTH = 1.0


def reconstruct_decay(
    echoes: Sequence[RawData],
    guide: NDArray[np.float32] | None = None,
    strength: float = STRENGTH,
    workers: int = 1,
    progress: Progress | None = None,
) -> DecayImages:
    """Joint image and T2* of the echoes of one file (:func:`sodium_prep.recon.agrdm.agrdm`).

    All echoes go through the virtual channels of the first, and their sensitivities are its own, turned by the smooth
    phase that the echo has gained.

    Parameters
    ----------
    echoes
        Two or more, on one grid.
    guide
        (X, Y, Z) anatomical image on that grid; None for none.
    strength
        Of the prior, in standard deviations of the noise of the first gridded echo.
    workers, progress
        Of :func:`sodium_prep.recon.agrdm.agrdm`.

    Raises
    ------
    InputError
        If there are fewer than two echoes or echo times, or their channels or grids differ.
    """
    first = echoes[0]
    times = [echo.echo_time_s for echo in echoes]
    known = [time for time in times if time is not None]
    if len(known) < len(times) or len(set(known)) < 2:
        raise InputError(first.source, "holds fewer than two echoes of known echo times", "Choose another method")
    if any(echo.shape != first.shape or echo.n_coils != first.n_coils for echo in echoes):
        raise InputError(first.source, "holds echoes of different channels or grids", "Reconstruct them one by one")
    virtual = virtual_channels(first)
    made, noise_sd, maps = [], 0.0, np.zeros(0, np.complex64)
    for number, (echo, time) in enumerate(zip(echoes, known, strict=True)):
        channels = Channels(echo.samples, virtual.matrix, virtual.sigma)
        images = grid_image(channels, echo.trajectory, echo.shape, echo.voxel_mm, workers=workers)
        sd = gridding_noise_sd(virtual.sigma, echo.trajectory)
        psd = trajectory_noise_spectrum(echo.shape, echo.voxel_mm, echo.trajectory)
        if number == 0:
            maps, noise_sd = coils.low_resolution_maps(images, echo.trajectory, echo.voxel_mm, sd, psd), sd
            turned = maps
        else:
            combined = coils.combine(images, maps)[None]
            turned = maps * coils.low_resolution_maps(combined, echo.trajectory, echo.voxel_mm, sd, psd)
        made.append(Echo(np.stack(list(channels)), echo.trajectory, time, turned))
    return agrdm(made, first.voxel_mm, strength * noise_sd, noise_sd, guide, workers=workers, progress=progress)
