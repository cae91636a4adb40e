"""What the echoes of one run give beside the concentration: T2* maps and a relaxation-weighted difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.quant.noise import ImageKind, background_mask, correct_magnitude, estimate_noise_sd, measure_floor
from sodium_prep.quant.t2star import LEAST_ECHOES, Law, Model, T2starFit, check_echo_times, fit_t2star
from sodium_prep.quant.weighted import EchoPair, choose_echo_pair, weighted_difference

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EchoNoise:
    """Noise of the echoes of one run.

    Attributes
    ----------
    law, n_channels
        As :func:`sodium_prep.quant.t2star.fit_t2star` takes them.
    sd
        (echoes,), or (X, Y, Z, echoes) where it varies.
    """

    law: Law
    sd: Array
    n_channels: int = 1


@dataclass(frozen=True)
class EchoMaps:
    """Maps of one run on its native grid.

    Attributes
    ----------
    fits
        By model, one exponential always.
    difference, difference_sd
        (X, Y, Z) float32; None where the echo times do not suit.
    pair
        Echoes and weight of the difference.
    notes
        Why something is missing.
    """

    fits: dict[Model, T2starFit] = field(repr=False)
    difference: NDArray[np.float32] | None = field(repr=False)
    difference_sd: NDArray[np.float32] | None = field(repr=False)
    pair: EchoPair | None
    notes: tuple[str, ...]


def measure_echo_noise(
    images: Sequence[NDArray[np.floating]], affine: Array, n_channels: int = 1, where: str = "echoes"
) -> EchoNoise:
    """Law and level of the noise of every echo, from the air of the first, where objects are brightest.

    Raises
    ------
    InputError
        If there is too little air, or the air of an echo obeys no law or another one than that of the first: then
        nothing tells late echoes from their noise floor.
    """
    air = background_mask(np.asarray(images[0]), affine, where=where)
    laws = {measure_floor(image, air, n_channels).law for image in images}
    if len(laws) > 1 or "unknown" in laws:
        problem = f"has noise of no known law over its echoes ({', '.join(sorted(laws))})"
        raise InputError(where, problem, "Give magnitudes of one coil or sums of squares (SumOfSquaresChannels)")
    real = laws == {"zero-mean"}
    kind: ImageKind = "real" if real else "magnitude"
    sd = np.array([estimate_noise_sd(image, air, kind, n_coils=n_channels) for image in images])
    return EchoNoise("gaussian" if real else "rician", sd, n_channels)


def make_echo_maps(
    images: Sequence[NDArray[np.floating]],
    echo_times_s: Sequence[float],
    noise: EchoNoise,
    fluid: Relaxation,
    where: str = "echoes",
) -> EchoMaps:
    """T2* by one exponential, by two where the echoes allow it, and the difference where their times suit.

    Parameters
    ----------
    images
        As acquired, floor and all, on one grid, (X, Y, Z) each.
    fluid
        Relaxation of CSF, which the difference is to null.
    """
    stack = np.stack([np.asarray(image, dtype=np.float32) for image in images], axis=-1)
    models: list[Model] = ["mono"]
    notes = []
    try:
        check_echo_times(echo_times_s, "biexponential", where)
        models.append("biexponential")
    except InputError as error:
        # Fewer echoes were never meant for it.
        if len(images) >= LEAST_ECHOES["biexponential"]:
            notes.append(f"There are no T2* maps by two exponentials: the series {error.problem}.")
    how = {"law": noise.law, "n_channels": noise.n_channels, "where": where}
    fits = {model: fit_t2star(stack, echo_times_s, noise.sd, model=model, **how) for model in models}  # type: ignore[arg-type]
    if len(images) == LEAST_ECHOES["mono"]:
        notes.append("T2* of two echoes: nothing tests that the decay is that of one exponential; in tissue it is not.")
    pair = choose_echo_pair(echo_times_s, fluid)
    if pair is None:
        return EchoMaps(fits, None, None, None, tuple(notes))
    free, sd = [], np.broadcast_to(noise.sd, stack.shape)
    for i in (pair.first, pair.second):
        image = stack[..., i]
        free.append(correct_magnitude(image, sd[..., i], noise.n_channels) if noise.law == "rician" else image)
    made = weighted_difference(free[0], free[1], pair.weight, sd[..., pair.first], sd[..., pair.second])
    return EchoMaps(fits, *made, pair, tuple(notes))
