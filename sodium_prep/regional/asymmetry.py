"""Ratios of concentrations within a scan: left against right, a lesion against its mirror image.

What two regions share drops out of their ratio: the gain of the calibration altogether, noise, misregistration and
relaxation as far as they move both alike. So the error of a ratio comes from the joint covariance of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sodium_prep.atlas.groups import parcel_name
from sodium_prep.quant.calibration import CalibrationLine
from sodium_prep.regional.designs import Region
from sodium_prep.regional.estimates import Parameter, Signals

Array = NDArray[np.float64]


def concentrations_over_gain(
    found: Signals, shared_sd: Mapping[Parameter, float], line: CalibrationLine
) -> tuple[Array, Array]:
    """Concentrations times the slope of the calibration line, ``u = (t - a) / f``, and their joint covariance.

    With the within-scan covariance C of the signals t, the error of the intercept a, and the derivative d of t and of
    the signal factor f together by each shared parameter p (relaxation, width of the PSF) of standard deviation s,
    ``Cov(u_i, u_j) = [C_ij + var(a) + sum_p s_p^2 d_ip d_jp] / (f_i f_j)``.

    Returns
    -------
    values : (n,)
    covariance : (n, n)
    """
    t = found.values - line.intercept
    total = found.covariance + line.covariance[0, 0]
    for parameter, sd in shared_sd.items():
        change = (found.slopes.get(parameter, 0.0) - t * found.log_slopes.get(parameter, 0.0)) * sd
        total = total + np.outer(change, change)
    return t / found.factors, total / np.outer(found.factors, found.factors)


def ratio(values: Array, covariance: Array, above: Array, below: Array) -> tuple[float, float]:
    """Ratio of two weighted sums of values, and its standard error by the delta method.

    Parameters
    ----------
    values, covariance : (n,), (n, n)
        Rows without weight may be NaN.
    above, below : (n,)
        Weights of numerator and denominator.

    Returns
    -------
    Two NaN where the denominator is not positive.
    """
    rows = np.flatnonzero((above != 0.0) | (below != 0.0))
    u, c, a, b = values[rows], covariance[np.ix_(rows, rows)], above[rows], below[rows]
    if not b @ u > 0.0:
        return float("nan"), float("nan")
    found = (a @ u) / (b @ u)
    slope = (a - found * b) / (b @ u)
    return float(found), float(np.sqrt(slope @ c @ slope))


def asymmetry(values: Array, covariance: Array, left: int, right: int) -> tuple[float, float]:
    """Asymmetry index ``200 (L - R) / (L + R)`` in percent, and its standard error."""
    unit = np.eye(len(values))
    found, sd = ratio(values, covariance, unit[left] - unit[right], unit[left] + unit[right])
    return 200.0 * found, 200.0 * sd


def side_pairs(regions: Sequence[Region]) -> dict[int, tuple[int, int]]:
    """Rows of the left and the right counterpart, by either row.

    Counterparts have one name but for its side, and one tissue. Where a side has several such rows there is no pair.
    """
    places: dict[tuple[bool, str, str], dict[str, list[int]]] = {}
    for row, region in enumerate(regions):
        key = (region.index is None, parcel_name(region.name), region.tissue)
        places.setdefault(key, {}).setdefault(region.hemisphere, []).append(row)
    out: dict[int, tuple[int, int]] = {}
    for sides in places.values():
        match sides.get("L", []), sides.get("R", []):
            case [left], [right]:
                out[left] = out[right] = (left, right)
    return out
