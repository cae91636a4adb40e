"""Transmit field (B1+) and the timing of the excitation pulse."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.errors import InputError

_PLAUSIBLE = (0.3, 2.0)


def double_angle_b1(
    signal_single: ArrayLike, signal_double: ArrayLike, nominal_flip_deg: float, minimum_signal: float = 0.0
) -> NDArray[np.float64]:
    """Transmit field relative to nominal from a double-angle pair.

    ``flip = acos(S(2a) / (2 S(a)))``, for TR well above T1 (Insko and Bolinger, J Magn Reson A 1993;103:82).

    Parameters
    ----------
    signal_single, signal_double
        Signals at the nominal flip angle and at twice it, any one shape; the second signed if flips exceed 90 degrees.
    nominal_flip_deg
        The smaller of the two nominal flip angles.
    minimum_signal
        Below it the result is NaN, as where no flip angle explains the pair.
    """
    s1, s2 = np.broadcast_arrays(np.asarray(signal_single, dtype=float), np.asarray(signal_double, dtype=float))
    usable = (s1 > minimum_signal) & (s1 > 0)
    cosine = np.divide(s2, 2.0 * s1, out=np.full(s1.shape, np.nan), where=usable)
    cosine[np.abs(cosine) > 1.0] = np.nan
    return np.asarray(np.rad2deg(np.arccos(cosine)) / nominal_flip_deg, dtype=np.float64)


def relative_b1_plus(
    values: ArrayLike, units: str | None, *, nominal_flip_deg: float | None = None, where: str = "TB1map"
) -> NDArray[np.float64]:
    """Transmit field relative to nominal from a TB1map in its own units.

    Parameters
    ----------
    values
        The map, any shape; values that are not positive are no measurement and become NaN.
    units
        Of the sidecar: ``percent`` or ``%`` (as BIDS recommends), ``ratio`` or ``1``, ``degree``. BIDS allows
        "arbitrary", which does not say what 1 means, so it is refused.
    nominal_flip_deg
        Needed for maps in degrees.

    Raises
    ------
    InputError
        If the units are not known, or the median of the map is not that of a transmit field in these units.
    """
    name = (units or "").strip().lower()
    divisor = {"percent": 100.0, "%": 100.0, "ratio": 1.0, "1": 1.0}.get(name)
    if name in {"degree", "degrees", "deg"} and nominal_flip_deg is not None:
        divisor = nominal_flip_deg
    if divisor is None:
        raise InputError(
            where,
            f"units {units!r} do not say how the map relates to the nominal flip angle",
            'Set "Units" in its sidecar to "percent" (100 = nominal), "ratio" (1 = nominal) or "degree"',
        )
    map_ = np.asarray(values, dtype=float)
    kappa = np.where(np.isfinite(map_) & (map_ > 0), map_ / divisor, np.nan)
    measured = kappa[np.isfinite(kappa)]
    centre = float(np.median(measured)) if measured.size else float("nan")
    if not _PLAUSIBLE[0] <= centre <= _PLAUSIBLE[1]:
        raise InputError(
            where,
            f"the median is {centre:.3g} times nominal if the units are {units!r}",
            'Check "Units" in its sidecar: 100 is nominal for "percent", 1 for "ratio"',
        )
    return kappa


def echo_time_from_centre(time_after_pulse_s: float, pulse_duration_s: float) -> float:
    """Echo time counted from the centre of a symmetric pulse, from the time since its end; seconds.

    Transverse magnetisation decays from the pulse centre on average, so decay is counted from there.
    """
    return time_after_pulse_s + 0.5 * pulse_duration_s
