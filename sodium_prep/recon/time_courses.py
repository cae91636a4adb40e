"""Decay and off-resonance during a readout as short sums of (function of time) x (function of place).

The leading singular vectors of a table of all courses that can occur (Fessler et al., IEEE Trans Signal Process
2005;53:3393, with a singular value decomposition in place of time segments).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_TABLE = 400


@dataclass(frozen=True)
class TimeBasis:
    """Courses ``f(p, t)`` of one parameter p as ``sum_l u_l(t) c_l(p)``.

    Attributes
    ----------
    courses : (L, samples)
        u_l; real for decay, complex for off-resonance.
    parameters : (n,)
        Increasing, equidistant values of p in the table.
    coefficients : (L, n)
        c_l at these values.
    """

    courses: NDArray[Any]
    parameters: FloatArray
    coefficients: NDArray[Any]

    def at(self, values: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """c_l (L, ...) at parameters of any shape, which are clipped to the table."""
        position = (np.asarray(values, np.float64) - self.parameters[0]) / (self.parameters[1] - self.parameters[0])
        position = np.clip(position, 0.0, len(self.parameters) - 1.0)
        low = np.minimum(position.astype(np.intp), len(self.parameters) - 2)
        part = position - low
        single = np.complex64 if np.iscomplexobj(self.coefficients) else np.float32
        c = self.coefficients
        return np.stack([row[low] + part * (row[low + 1] - row[low]) for row in c]).astype(single)

    def slope(self) -> TimeBasis:
        """The same basis for the derivative of the courses by the parameter."""
        step = self.parameters[1] - self.parameters[0]
        slopes = np.gradient(self.coefficients, step, axis=1, edge_order=2)
        return TimeBasis(self.courses, self.parameters, slopes)


def _basis(table: NDArray[Any], parameters: FloatArray, rank: int) -> TimeBasis:
    """From a table (n, samples) of courses, with Chebyshev's weight on the ends of the readout, where errors gather."""
    place = (np.arange(table.shape[1]) + 1.0) / (table.shape[1] + 1.0)
    root = (place * (1.0 - place)) ** -0.25
    left, values, right = np.linalg.svd((table * root).T, full_matrices=False)
    return TimeBasis((left[:, :rank] / root[:, None]).T, parameters, values[:rank, None] * right[:rank])


def decay_basis(time_s: FloatArray, scale_s: float, rank: int = 4) -> TimeBasis:
    """Basis of ``r^(t / scale)``, the decay ``exp(-t / T2*)`` by its ratio r over a time ``scale``.

    Parameters
    ----------
    time_s
        (samples,) times at which the decay acts, seconds, 0 where the signal is whole.
    scale_s
        Time over which r is counted, e.g. between two echoes, seconds.
    rank
        Number of courses; 4 leave an error below 6e-4 of the first sample over a readout of 10 ms with ``scale_s`` of
        4.5 ms.

    Returns
    -------
    Basis with r in [0.05, 1] as its parameter (T2* down to a third of ``scale_s``).
    """
    ratios = np.linspace(0.05, 1.0, _TABLE)
    return _basis(ratios[:, None] ** (time_s / scale_s), ratios, rank)


def off_resonance_basis(time_s: FloatArray, peak_hz: float, tolerance: float = 5e-4) -> TimeBasis:
    """Basis of ``exp(2 pi i f t)`` for frequencies f from ``-peak_hz`` to ``peak_hz``.

    As many courses as leave errors below ``tolerance``: 4 for 30 Hz and 10 ms.

    Returns
    -------
    Basis with f in Hz as its parameter.
    """
    hertz = np.linspace(-peak_hz, peak_hz, _TABLE)
    table = np.exp(2j * np.pi * hertz[:, None] * time_s)
    for rank in range(1, len(time_s) + 1):
        basis = _basis(table, hertz, rank)
        if np.linalg.norm(basis.coefficients.T @ basis.courses - table) < tolerance * np.sqrt(table.size):
            break
    return basis
