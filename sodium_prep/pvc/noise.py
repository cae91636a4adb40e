"""Spatially correlated noise of an image, as far as linear estimates from it need to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

_BLOCK: Final = 8192


@dataclass(frozen=True)
class Noise:
    """Noise of variance ``sd(r)^2`` whose correlation depends on distance only.

    Attributes
    ----------
    sd : (X, Y, Z)
        Standard deviation in every voxel.
    spectrum : (X, Y, Z) or None
        Power spectrum in the order of ``numpy.fft.fftn``, with mean 1
        (:func:`sodium_prep.recon.noise.noise_power_spectrum`); None is white noise.
    """

    sd: NDArray[np.floating]
    spectrum: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        if self.sd.ndim != 3 or (self.spectrum is not None and self.spectrum.shape != self.sd.shape):
            raise ValueError("the noise needs maps of three dimensions and one shape")

    def quadratic_form(self, rows: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Covariance of linear combinations of voxels: ``Q C Q^T``.

        Parameters
        ----------
        rows : (n, m)
            Weights of the m voxels in the mask.
        mask : (X, Y, Z) bool
            With m true voxels.

        Returns
        -------
        (n, n) float64
        """
        kept = np.asarray(rows * self.sd[mask], np.float32)
        if self.spectrum is not None:
            kept = _coloured(kept, mask, self.spectrum)
        return gram(kept, kept, single=True)


def _coloured(
    rows: NDArray[np.float32], mask: NDArray[np.bool_], spectrum: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Rows whose scalar products are those of the given ones through the covariance (Parseval)."""
    n_z = mask.shape[2] // 2 + 1
    # A real image's spectrum is kept by half: the other half counts by doubling all but the self-mirrored planes.
    double = np.full(n_z, 2.0)
    double[0] = 1.0
    if mask.shape[2] % 2 == 0:
        double[-1] = 1.0
    root = np.sqrt(np.maximum(spectrum[..., :n_z], 0.0) * double / mask.size).astype(np.float32).reshape(-1)
    alive, inside = np.flatnonzero(root), np.flatnonzero(mask)
    root = root[alive]
    out = np.empty((len(rows), alive.size), np.complex64)
    image = np.zeros(mask.shape, np.float32)
    for kept, row in zip(out, rows, strict=True):
        image.reshape(-1)[inside] = row
        np.multiply(scipy.fft.rfftn(image).reshape(-1)[alive], root, out=kept)
    return out.view(np.float32)


def gram(left: NDArray[np.floating], right: NDArray[np.floating], *, single: bool = False) -> NDArray[np.float64]:
    """``left @ right.T``, some columns at a time, summed in float64.

    ``single`` multiplies within each block in float32, which is twice as fast and good to 1e-6.
    """
    dtype: type[np.floating] = np.float32 if single else np.float64
    total = np.zeros((left.shape[0], right.shape[0]))
    for start in range(0, left.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        one = np.asarray(left[:, part], dtype)
        # A product with itself is symmetric, and half the work.
        total += one @ (one if right is left else np.asarray(right[:, part], dtype)).T
    return total


def weighted_sum(weights: NDArray[np.float64], rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """``weights @ rows`` in float64, some columns at a time; (n,) and (n, m) -> (m,)."""
    out = np.empty(rows.shape[1])
    for start in range(0, out.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        out[part] = weights @ np.asarray(rows[:, part], np.float64)
    return out
