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


def t2star_factor(time_s: ArrayLike, relaxation: Relaxation) -> NDArray[np.float64]:
    """Biexponential decay ``a exp(-t/T2*fast) + (1 - a) exp(-t/T2*slow)`` at times since excitation.

    Parameters
    ----------
    time_s
        Any shape, seconds.
    """
    t = np.asarray(time_s, dtype=float)
    a = relaxation.fraction_fast
    fast = np.exp(-t / relaxation.t2star_fast_s)
    slow = np.exp(-t / relaxation.t2star_slow_s)
    return np.asarray(a * fast + (1.0 - a) * slow, dtype=np.float64)


def signal_factor(acquisition: Acquisition, relaxation: Relaxation, b1_plus: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Signal per unit concentration at the centre of k-space: saturation times decay at the echo time.

    Parameters
    ----------
    b1_plus
        Transmit field relative to nominal, any shape; the result has that shape.
    """
    flip = acquisition.flip_angle_deg * np.asarray(b1_plus, dtype=float)
    saturation = saturation_factor(acquisition.repetition_time_s, flip, relaxation.t1_s)
    return saturation * t2star_factor(acquisition.echo_time_s, relaxation)
