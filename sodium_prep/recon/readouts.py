"""The signal equation for readouts, with the samples that straight ones have in excess left out.

The samples of a spoke lie several times denser than the extent of the image asks for: along its line the signal of
whatever lies on the grid is band-limited. It is computed at the fewer radii that hold it and interpolated between them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sodium_prep.recon.nufft import Nufft

ComplexArray = NDArray[np.complexfloating[Any]]
FloatArray = NDArray[np.float64]

_STRAIGHT: Final = 3e-7
"""Departure from common radii along straight lines, relative to the largest k: the rounding of single precision."""
_DENSITY: Final = 1.5
_MARGIN: Final = 6
"""Nodes over those of the sampling theorem, and beyond the ends; with these the interpolation errs by 1e-7."""
_CONDITION: Final = 1e-7
_WORTHWHILE: Final = 0.6
"""Nodes over samples up to which the detour pays."""


class Readouts:
    """:class:`~sodium_prep.recon.nufft.Nufft` with samples of the shape (readouts, samples).

    Parameters
    ----------
    k_per_mm
        (readouts, samples, 3), 1/mm along the axes of the grid.
    shape, voxel_mm, dtype, upsampling
        Of :class:`~sodium_prep.recon.nufft.Nufft`.
    """

    def __init__(
        self,
        k_per_mm: NDArray[np.floating[Any]],
        shape: tuple[int, int, int],
        voxel_mm: tuple[float, float, float],
        dtype: DTypeLike = np.complex64,
        upsampling: float = 2.0,
    ) -> None:
        self.n_readouts = len(k_per_mm)
        # (samples, nodes), from the signal at the nodes to that of the samples; None where all samples are nodes.
        self._interpolation: ComplexArray | None = None
        spokes = _spokes(k_per_mm) if np.dtype(dtype) == np.complex64 else None
        if spokes is not None:
            directions, radii = spokes
            reach_mm = 0.5 * float(np.linalg.norm(np.multiply(shape, voxel_mm)))
            nodes = _nodes(radii, reach_mm)
            if len(nodes) < _WORTHWHILE * len(radii):
                self._interpolation = _interpolation(radii, nodes, reach_mm).astype(dtype)
                k_per_mm = directions[:, None] * nodes[:, None]
        self._nufft = Nufft(k_per_mm.reshape(-1, 3), shape, voxel_mm, dtype, upsampling=upsampling)

    @property
    def n_transformed(self) -> int:
        """Samples that the transform has, all readouts together."""
        return self._nufft.n_samples

    def forward(self, image: NDArray[Any]) -> ComplexArray:
        """Signal (readouts, samples) of an image (X, Y, Z) given in signal per mm^3."""
        signal = self._nufft.forward(image).reshape(self.n_readouts, -1)
        return signal if self._interpolation is None else signal @ self._interpolation.T

    def adjoint(self, samples: NDArray[Any]) -> ComplexArray:
        """Sum (X, Y, Z) of the plane waves of all samples (readouts, samples)."""
        return self._nufft.adjoint((samples if self._interpolation is None else samples @ self._interpolation).ravel())


def _spokes(k_per_mm: NDArray[np.floating[Any]]) -> tuple[FloatArray, FloatArray] | None:
    """Unit vectors (readouts, 3) and common radii (samples,) of straight readouts; None for others."""
    ends = k_per_mm[:, -1].astype(np.float64)
    lengths = np.linalg.norm(ends, axis=1)
    if lengths.min() == 0.0:
        return None
    directions = ends / lengths[:, None]
    radii = np.einsum("rsi,ri->s", k_per_mm, directions) / len(ends)
    largest = float(np.abs(radii).max())
    for axis in range(3):
        if np.abs(k_per_mm[..., axis] - np.outer(directions[:, axis], radii)).max() > _STRAIGHT * largest:
            return None
    return directions, radii


def _nodes(radii: FloatArray, reach_mm: float) -> FloatArray:
    """Equidistant radii that hold the signal of what lies within ``reach_mm`` of the origin."""
    step = 0.5 / (_DENSITY * reach_mm)
    first, last = np.floor(radii.min() / step) - _MARGIN, np.ceil(radii.max() / step) + _MARGIN
    return np.asarray(step * np.arange(first, last + 1.0), dtype=np.float64)


def _interpolation(radii: FloatArray, nodes: FloatArray, reach_mm: float) -> FloatArray:
    """(samples, nodes), best in least squares for plane waves of all positions up to ``reach_mm``."""
    positions = np.linspace(0.0, reach_mm, 2 * len(nodes))

    def waves(k: FloatArray) -> FloatArray:
        angle = 2.0 * np.pi * np.outer(positions, k)
        return np.concatenate([np.cos(angle), np.sin(angle)])

    return np.asarray(np.linalg.lstsq(waves(nodes), waves(radii), rcond=_CONDITION)[0].T, dtype=np.float64)
