"""The voxel-wise map of total sodium concentration and its standard error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.quant.calibration import CalibrationLine, predict_concentration


def tsc_map(
    signal: ArrayLike,
    factor_map: ArrayLike,
    line: CalibrationLine,
    noise_sd_map: ArrayLike,
    factor_relative_sd: ArrayLike = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Total sodium concentration of each voxel in mmol/L, with its total standard error.

    Parameters
    ----------
    signal
        Image free of noise floor and receive profile, shape (X, Y, Z).
    factor_map
        Signal factor of each voxel (saturation, decay, B1+), or one number; zero or NaN where unknown.
    noise_sd_map
        Standard deviation of ``signal``, per voxel or one number.
    factor_relative_sd
        Relative standard deviation of the factor (:func:`~sodium_prep.quant.relaxation_error.relaxation_sensitivity`).

    Returns
    -------
    Concentration and standard error, float32; both NaN where the factor is not known. Noise, calibration and relaxation
    errors add as variances. Voxels share the last two, so the error of a mean is not this over root n.
    """
    c, total, _, _ = predict_concentration(signal, noise_sd_map, factor_map, line)
    stderr = np.hypot(total, c * np.asarray(factor_relative_sd, dtype=float))
    return c.astype(np.float32), stderr.astype(np.float32)
