"""Images that are weighted by relaxation or by quantum coherence: what is made of them, and what is not.

They have no concentration: their signal depends on relaxation as much as on sodium, and no sodium-only method isolates
the intracellular compartment. Results are relative to a stated region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import t2star_factor

Weighting = Literal["SQ", "IR", "TQ"]
"""Single quantum (the usual image), inversion recovery, triple quantum."""

CAUTION: Final = (
    "This image is weighted: its signal depends on relaxation as well as on the amount of sodium. It has no "
    "concentration, and no sodium-only method isolates the intracellular compartment."
)

_FIRST_BELOW_S: Final = 0.002
_SECOND_S: Final = 0.025
_SECOND_WITHIN_S: Final = (0.015, 0.040)


@dataclass(frozen=True)
class EchoPair:
    """Two echoes of a relaxation-weighted difference.

    Attributes
    ----------
    first, second
        Places among the echoes.
    weight
        Factor of the second.
    """

    first: int
    second: int
    weight: float


def choose_echo_pair(echo_times_s: Sequence[float], fluid: Relaxation) -> EchoPair | None:
    """The first echo and the one nearest to 25 ms, weighted so that fluid vanishes; None where echoes do not suit.

    The echo times are those of Mueller et al. (Ther Adv Chronic Dis 2022;13), 0.3 and 25 ms; the first must lie below
    2 ms and the second between 15 and 40 ms. The weight is the signal of fluid at the first over that at the second, so
    what is left decays faster than fluid does.

    Parameters
    ----------
    echo_times_s
        Rising, seconds.
    fluid
        Relaxation of CSF.
    """
    times = np.asarray(echo_times_s, dtype=float)
    second = int(np.argmin(np.abs(times - _SECOND_S)))
    low, high = _SECOND_WITHIN_S
    if times[0] >= _FIRST_BELOW_S or not low <= times[second] <= high:
        return None
    first_factor, second_factor = t2star_factor(times[[0, second]], fluid)
    return EchoPair(0, second, float(first_factor / second_factor))


def weighted_difference(
    first: ArrayLike, second: ArrayLike, weight: float, first_sd: ArrayLike, second_sd: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """First image minus ``weight`` times the second, and its noise.

    Parameters
    ----------
    first, second
        Images of two echoes without noise floor, on one grid.
    first_sd, second_sd
        Standard deviations of their independent noise, each a number or a map.

    Raises
    ------
    ValueError
        If the images differ in shape.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"echoes of shapes {a.shape} and {b.shape} are not on one grid")
    noise = np.hypot(np.asarray(first_sd, dtype=float), weight * np.asarray(second_sd, dtype=float))
    return (a - weight * b).astype(np.float32), np.broadcast_to(noise, a.shape).astype(np.float32)
