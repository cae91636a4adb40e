"""How uncertain relaxation times and transmit field make the signal factor of a tissue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import decay_factor, saturation_factor, signal_factor

_TELLING: Final = 0.02
_PARAMETERS = {
    "t1_s": "t1_sd_s",
    "t2star_fast_s": "t2star_fast_sd_s",
    "t2star_slow_s": "t2star_slow_sd_s",
    "fraction_fast": "fraction_fast_sd",
}


@dataclass(frozen=True)
class RelaxationSensitivity:
    """Uncertainty of the signal factor of one tissue in one acquisition.

    Attributes
    ----------
    factor
        The signal factor at the central values.
    derivatives
        d ln(factor) / dp for ``t1_s``, ``t2star_fast_s``, ``t2star_slow_s`` (1/s), ``fraction_fast``, ``b1_plus``.
    dlnf
        Relative standard deviation of the factor by the delta method, which a concentration inherits.
    """

    factor: float
    derivatives: dict[str, float]
    dlnf: float


def relaxation_sensitivity(
    acquisition: Acquisition, relaxation: Relaxation, *, b1_plus: float = 1.0, b1_plus_sd: float = 0.0
) -> RelaxationSensitivity:
    """Relative standard deviation of the signal factor from the uncertainties of T1, T2*, short fraction and B1+.

    By the delta method; :func:`widening` tells where that is too little.

    Parameters
    ----------
    relaxation
        With its ``*_sd`` fields; parameters are taken as independent.
    b1_plus, b1_plus_sd
        Transmit field relative to nominal, and its standard deviation.
    """
    factor = float(signal_factor(acquisition, relaxation, b1_plus))
    derivatives = {name: _log_derivative(acquisition, relaxation, b1_plus, name) for name in (*_PARAMETERS, "b1_plus")}
    sds = {name: float(getattr(relaxation, sd)) for name, sd in _PARAMETERS.items()} | {"b1_plus": b1_plus_sd}
    dlnf = float(np.sqrt(sum((derivatives[name] * sds[name]) ** 2 for name in derivatives)))
    return RelaxationSensitivity(factor, derivatives, dlnf)


def widening(
    acquisition: Acquisition, relaxation: Relaxation, *, b1_plus: float = 1.0, n_draws: int = 20000, seed: int = 0
) -> float:
    """Factor on the standard uncertainties of a tissue that makes the delta method as wide as Monte Carlo.

    Where T2*fast is comparable with the echo time and poorly known, a concentration varies with it more than its
    derivative says, and lopsidedly. The factor is the root mean square deviation of ``1 / factor`` over draws, its
    shift included, over that of the delta method; 1 where they agree to 2 %, which is all that the draws can tell.
    """
    found = relaxation_sensitivity(acquisition, relaxation, b1_plus=b1_plus)
    if found.dlnf == 0.0:
        return 1.0
    ratio = found.factor / draw_factors(acquisition, relaxation, n_draws, seed, b1_plus=b1_plus)
    wide = float(np.sqrt(np.mean((ratio - 1.0) ** 2))) / found.dlnf
    return wide if wide > 1.0 + _TELLING else 1.0


def _log_derivative(acquisition: Acquisition, relaxation: Relaxation, b1_plus: float, name: str) -> float:
    """Central difference of ln(factor), with a step at which rounding and curvature are both below 1e-8."""
    if name == "b1_plus":
        step = 1e-5 * b1_plus
        ends = [float(signal_factor(acquisition, relaxation, b1_plus + sign * step)) for sign in (1.0, -1.0)]
    else:
        value = getattr(relaxation, name)
        step = 1e-5 * (value if value > 0 else 1.0)
        ends = [
            float(signal_factor(acquisition, replace(relaxation, **{name: value + sign * step}), b1_plus))
            for sign in (1.0, -1.0)
        ]
    return float((np.log(ends[0]) - np.log(ends[1])) / (2.0 * step))


def draw_factors(
    acquisition: Acquisition,
    relaxation: Relaxation,
    n_draws: int,
    seed: int,
    *,
    b1_plus: float = 1.0,
    b1_plus_sd: float = 0.0,
) -> NDArray[np.float64]:
    """Signal factors, shape (n_draws,), at relaxation values drawn from normal distributions.

    Times and B1+ are kept above a tenth of their central value and the fraction within [0, 1].
    """
    rng = np.random.default_rng(seed)

    def draw(centre: float, sd: float) -> NDArray[np.float64]:
        return np.maximum(centre + sd * rng.standard_normal(n_draws), 0.1 * centre)

    t1 = draw(relaxation.t1_s, relaxation.t1_sd_s)
    fast = draw(relaxation.t2star_fast_s, relaxation.t2star_fast_sd_s)
    slow = draw(relaxation.t2star_slow_s, relaxation.t2star_slow_sd_s)
    share = relaxation.fraction_fast + relaxation.fraction_fast_sd * rng.standard_normal(n_draws)
    share = np.clip(share, 0.0, 1.0)
    flip = acquisition.flip_angle_deg * draw(b1_plus, b1_plus_sd)
    saturation = saturation_factor(acquisition.repetition_time_s, flip, t1)
    return np.asarray(saturation * decay_factor(acquisition, fast, slow, share), dtype=np.float64)
