"""Least squares of one scan with or without a prior: its image, and what the method makes of noise and other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.agr import agr, bowsher, similarity_laplacian
from sodium_prep.recon.encoding import Encoding, LeastSquares
from sodium_prep.recon.fista import Progress as Steps
from sodium_prep.recon.options import STRENGTH, Image, Options, Progress
from sodium_prep.recon.sense import sense
from sodium_prep.recon.threads import in_order
from sodium_prep.recon.tv import tv
from sodium_prep.recon.wavelet import wavelet

Solver = Callable[[LeastSquares], Image]

_ALIKE: Final = 4
"""Neighbours of Bowsher's prior."""


@dataclass(frozen=True)
class Solution:
    """What a method made of a scan.

    Attributes
    ----------
    image
        (X, Y, Z), signal per mm^3.
    noise
        What became of the samples of noise.
    solve
        The method for other data of the same scan; one with a prior goes on from ``image``.
    steps, strength
        As of :class:`sodium_prep.recon.reconstruct.Reconstruction`.
    """

    image: Image = field(repr=False)
    noise: list[Image] = field(repr=False)
    solve: Solver = field(repr=False)
    steps: int | None = None
    strength: float | None = None


def solve_scan(
    problem: LeastSquares, noise: list[Image], noise_sd: float, options: Options, tell: Progress
) -> Solution:
    """Image by the method of the options.

    Parameters
    ----------
    problem
        Of the scan.
    noise
        Samples of the noise in ``problem.right``.
    noise_sd
        Its standard deviation.
    options
        Any method but gridding.
    tell
        Told of every step.
    """
    if options.method == "sense":
        image, krylov, filtered = sense(problem, noise, progress=lambda n, of: tell("sense", n, of))
        return Solution(image, filtered, krylov, steps=len(krylov.steps))
    strength = STRENGTH[options.method] if options.strength is None else options.strength
    image, solve = _with_prior(problem, options, strength, noise_sd, tell)
    tell("noise map", 0, 1)
    # Noise on top of that in the data would meet a prior that is too weak for it, so it is put on the image's own.
    clean = replace(problem, right=problem.normal(image))
    still = solve(clean)
    noisy = (replace(problem, right=clean.right + sample) for sample in noise)
    passed = in_order(lambda data: solve(data) - still, noisy, options.workers)
    return Solution(image, list(passed), solve, strength=strength)


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


def noise_images(encoding: Encoding, weights: NDArray[np.float64], sigma: float, seed: int) -> list[Image]:
    """Two samples of the noise of the gridded image: real and imaginary part of a complex one."""
    rng = np.random.default_rng(seed)
    shape = encoding.k_per_mm.shape[:2]
    scale = (sigma * weights).astype(np.float32)
    draws = (rng.standard_normal((*shape, 2), dtype=np.float32) for _ in encoding.sensitivities)
    noise = encoding.adjoint(draw.view(np.complex64)[..., 0] * scale for draw in draws)
    return [np.ascontiguousarray(noise.real), np.ascontiguousarray(noise.imag)]
