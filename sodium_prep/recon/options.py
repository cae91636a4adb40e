"""How to reconstruct: the method and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import FilterName
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.settings import GUIDED_METHODS, KspaceMethod

Image = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, the number of the step, and how many there are at most."""

STRENGTH: Final[dict[KspaceMethod, float]] = {"wavelet": 0.5, "tv": 0.25, "agr": 0.5, "bowsher": 0.125, "agrdm": 1.0}
"""Of the priors, where none is asked for."""


@dataclass(frozen=True)
class Options:
    """How to reconstruct.

    Attributes
    ----------
    method
        ``gridding``: density compensation and transform. ``sense``: least squares of all channels, few steps.
        ``wavelet``, ``tv``: the same with an image that is sparse in wavelets or in its gradient. ``agr``: the same
        with edges where the anatomical image has them. ``bowsher``: the same with neighbours pulled together that the
        anatomical image shows alike. ``agrdm``: one image without decay and a T2* map from several echoes, by
        :func:`sodium_prep.recon.decay.reconstruct_decay`.
    kspace_filter
        ``none`` or ``hamming``; of ``gridding`` only.
    strength
        Of the prior, in standard deviations of the noise of the gridded image; None for the method's own.
    guide
        (X, Y, Z) anatomical image on the grid of the raw data, for ``agr`` and ``bowsher``; ``agrdm`` can do without.
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


def check(options: Options, shape: tuple[int, int, int]) -> None:
    """Raise ValueError if options contradict each other, or a map is not on the grid (X, Y, Z)."""
    if options.method != "gridding" and options.kspace_filter != "none":
        raise ValueError(f"a window on k-space belongs to gridding, not to {options.method}")
    if options.guide is None and options.method in GUIDED_METHODS:
        raise ValueError(f"{options.method} needs an anatomical image")
    if options.guide is not None and options.method not in (*GUIDED_METHODS, "agrdm"):
        raise ValueError(f"{options.method} takes no anatomical image")
    if options.off_resonance_hz is not None and options.method == "agrdm":
        raise ValueError("agrdm takes no off-resonance map")
    if options.strength is not None and options.method not in STRENGTH:
        raise ValueError(f"{options.method} has no prior whose strength could be set")
    for name, image in (("anatomical image", options.guide), ("off-resonance map", options.off_resonance_hz)):
        if image is not None and (image.shape != shape or not np.isfinite(image).all()):
            raise ValueError(f"the {name} is not finite on the grid of the raw data, {shape}")
