"""Signal of a spoiled steady-state acquisition: saturation and biexponential T2* decay."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation


def saturation_factor(repetition_time_s: ArrayLike, flip_angle_deg: ArrayLike, t1_s: ArrayLike) -> NDArray[np.float64]:
    """Steady-state transverse magnetisation of a spoiled sequence, relative to equilibrium.

    ``sin(a) (1 - E1) / (1 - E1 cos(a))`` with ``E1 = exp(-TR / T1)`` (Ernst and Anderson, Rev Sci Instrum 1966,
    eq. 11). Arguments broadcast.
    """
    e1 = np.exp(-np.asarray(repetition_time_s, dtype=float) / np.asarray(t1_s, dtype=float))
    a = np.deg2rad(np.asarray(flip_angle_deg, dtype=float))
    return np.asarray(np.sin(a) * (1.0 - e1) / (1.0 - e1 * np.cos(a)), dtype=np.float64)


def biexponential(
    time_s: ArrayLike, t2star_fast_s: ArrayLike, t2star_slow_s: ArrayLike, fraction_fast: ArrayLike
) -> NDArray[np.float64]:
    """Decay ``a exp(-t/T2*fast) + (1 - a) exp(-t/T2*slow)`` at times since excitation, seconds; arguments broadcast."""
    t, a = np.asarray(time_s, dtype=float), np.asarray(fraction_fast, dtype=float)
    fast = np.exp(-t / np.asarray(t2star_fast_s, dtype=float))
    slow = np.exp(-t / np.asarray(t2star_slow_s, dtype=float))
    return np.asarray(a * fast + (1.0 - a) * slow, dtype=np.float64)


def t2star_factor(time_s: ArrayLike, relaxation: Relaxation) -> NDArray[np.float64]:
    """:func:`biexponential` of a tissue.

    Parameters
    ----------
    time_s
        Any shape, seconds.
    """
    return biexponential(time_s, relaxation.t2star_fast_s, relaxation.t2star_slow_s, relaxation.fraction_fast)


def decay_factor(
    acquisition: Acquisition, t2star_fast_s: ArrayLike, t2star_slow_s: ArrayLike, fraction_fast: ArrayLike
) -> NDArray[np.float64]:
    """What the decay leaves of the signal in the image of an acquisition; arguments broadcast.

    That at the echo time. In an image to which one exponential was fitted through several echoes, the value at the
    centre of the excitation of the one that fits them: through two of them; of more, the straight line through the
    logarithms by least squares weighted with the signal squared, which is the fit of the signal itself to first order.
    """
    decays = (t2star_fast_s, t2star_slow_s, fraction_fast)
    if not acquisition.fitted_echo_times_s:
        return biexponential(acquisition.echo_time_s, *decays)
    times = acquisition.fitted_echo_times_s
    signal = np.stack([biexponential(time, *decays) for time in times])
    t = np.reshape(times, (-1,) + (1,) * (signal.ndim - 1))
    weight = signal**2 / np.sum(signal**2, axis=0)
    mean_t, mean_log = np.sum(weight * t, axis=0), np.sum(weight * np.log(signal), axis=0)
    rate = np.sum(weight * (t - mean_t) * np.log(signal), axis=0) / np.sum(weight * (t - mean_t) ** 2, axis=0)
    return np.asarray(np.exp(mean_log - rate * mean_t), dtype=np.float64)


def signal_factor(acquisition: Acquisition, relaxation: Relaxation, b1_plus: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Signal per unit concentration at the centre of k-space: saturation times decay.

    Parameters
    ----------
    b1_plus
        Transmit field relative to nominal, any shape; the result has that shape.
    """
    flip = acquisition.flip_angle_deg * np.asarray(b1_plus, dtype=float)
    saturation = saturation_factor(acquisition.repetition_time_s, flip, relaxation.t1_s)
    decays = relaxation.t2star_fast_s, relaxation.t2star_slow_s, relaxation.fraction_fast
    return saturation * decay_factor(acquisition, *decays)
