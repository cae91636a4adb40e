"""When each part of k-space is read, and with which window: the two causes of the point spread function."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sodium_prep.physics.acquisition import WITHOUT_LAW, Acquisition, FilterName, TrajectoryName


def readout_time(
    k_rel: ArrayLike, trajectory: TrajectoryName, readout_duration_s: float, linear_fraction: float = 0.2
) -> NDArray[np.float64]:
    """Time after the first sample at which a centre-out readout reaches a radius of k-space.

    3DPR runs at constant speed. DA-3DPR and TPI are linear up to ``p = k0 / kmax`` and then keep ``k^2 dk/dt``
    constant (Nagel et al., MRM 2009;62:1565, eq. 3; Boada et al., MRM 1997). A Cartesian acquisition is read in a time
    short against T2*, so its decay does not depend on k.

    Parameters
    ----------
    k_rel
        Radius relative to kmax, any shape, within [0, 1].
    readout_duration_s
        Time from k = 0 to kmax, seconds.
    linear_fraction
        p, in (0, 1].

    Returns
    -------
    Seconds, shape of ``k_rel``.

    Raises
    ------
    ValueError
        For a trajectory whose readouts must be known (cones, FLORET, stacks of spirals).
    """
    k = np.asarray(k_rel, dtype=float)
    if trajectory in WITHOUT_LAW:
        raise ValueError(f"no law says when a {trajectory} readout reaches a radius of k-space")
    if trajectory == "Cartesian":
        return np.zeros_like(k)
    if trajectory == "3DPR":
        return np.asarray(readout_duration_s * k, dtype=np.float64)
    p = linear_fraction
    speed = p + (1.0 - p**3) / (3.0 * p**2)
    late = p + (np.maximum(k, p) ** 3 - p**3) / (3.0 * p**2)
    return np.asarray(readout_duration_s / speed * np.where(k <= p, k, late), dtype=np.float64)


def filter_window(
    k_rel: ArrayLike, kspace_filter: FilterName, cutoff: float | None = None, width: float | None = None
) -> NDArray[np.float64]:
    """Window of a k-space filter at radii relative to kmax, 1 at the centre.

    Parameters
    ----------
    k_rel
        ``k = |k| / kmax``, any shape.
    kspace_filter
        ``none``: 1; ``hamming``: 0.54 + 0.46 cos(pi k); ``hann``: 0.5 + 0.5 cos(pi k); ``gaussian``:
        2^-(k / cutoff)^2; ``fermi``: 1 / (1 + exp((k - cutoff) / width)), over its value at the centre.
    cutoff
        k at which a ``fermi`` or ``gaussian`` window has fallen to one half. A Gaussian that smooths the image with
        ``fwhm_mm`` has 4 ln(2) / pi = 0.8825 times the nominal resolution over ``fwhm_mm``.
    width
        Of the edge of a ``fermi`` window, which falls from 0.73 to 0.27 within twice of it.

    Raises
    ------
    ValueError
        If the filter is ``unknown``, or a parameter of it lacks: a window that is not known has no values.
    """
    k = np.asarray(k_rel, dtype=np.float64)
    if kspace_filter == "none":
        return np.ones_like(k)
    if kspace_filter == "hamming":
        return np.asarray(0.54 + 0.46 * np.cos(np.pi * k))
    if kspace_filter == "hann":
        return np.asarray(0.5 + 0.5 * np.cos(np.pi * k))
    if kspace_filter == "gaussian" and cutoff is not None:
        return np.asarray(np.exp2(-((k / cutoff) ** 2)))
    if kspace_filter == "fermi" and cutoff is not None and width is not None:
        return np.asarray(special.expit((cutoff - k) / width) / special.expit(cutoff / width))
    raise ValueError(f"no window is defined for the k-space filter {kspace_filter!r}")


def describe_window(acquisition: Acquisition) -> str:
    """Name of the window with its parameters, as in "with a Hamming window"."""
    name, cutoff, width = acquisition.kspace_filter, acquisition.filter_cutoff, acquisition.filter_width
    if name == "none":
        return "no window"
    if name == "fermi":
        return f"a Fermi window (half at {cutoff:g} kmax, width {width:g} kmax)"
    if name == "gaussian":
        return f"a Gaussian window (half at {cutoff:g} kmax)"
    return f"a {name.capitalize()} window"


def computed_reason(acquisition: Acquisition) -> str:
    """What a point spread function computed from an acquisition rests on."""
    text = f"computed from the trajectory {acquisition.trajectory}, {describe_window(acquisition)}"
    if acquisition.trajectory == "Cartesian":
        return text
    return f"{text}, a readout of {1000.0 * acquisition.readout_duration_s:g} ms and the T2* of each tissue"


def acquisition_window(k_rel: ArrayLike, acquisition: Acquisition) -> NDArray[np.float64]:
    """The :func:`filter_window` of an acquisition."""
    return filter_window(k_rel, acquisition.kspace_filter, acquisition.filter_cutoff, acquisition.filter_width)
