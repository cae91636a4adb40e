"""The signal equation of k-space and its adjoint, by non-uniform fast Fourier transform (finufft)."""

from __future__ import annotations

from typing import Any

import finufft
import numpy as np
from numpy.typing import DTypeLike, NDArray

_TOLERANCE = {np.dtype(np.complex64): 1e-5, np.dtype(np.complex128): 1e-12}
_REAL = {np.dtype(np.complex64): np.float32, np.dtype(np.complex128): np.float64}


class Nufft:
    """Forward model and adjoint between a voxel grid and samples of k-space.

    ``forward``: ``y_j = dV sum_r x(r) exp(-2 pi i k_j . r)``; ``adjoint``: ``x(r) = sum_j y_j exp(+2 pi i k_j . r)``,
    which is the adjoint of ``forward / dV``. Voxel ``N // 2`` of each axis lies at ``origin_mm``.

    Parameters
    ----------
    k_per_mm
        (M, 3) 1/mm along the axes of the grid.
    shape
        (X, Y, Z) of the grid.
    voxel_mm
        Edge lengths, mm.
    dtype
        complex64 (relative error near 1e-5) or complex128 (near 1e-12).
    origin_mm
        Position of voxel ``N // 2`` relative to the point where the phase of every k is zero.
    upsampling
        Edge of the grid of the inner transforms over that of ``shape``; less than 2 takes less memory, and less time
        where there are few samples for each voxel, but bounds the accuracy (1.5: complex64 only).
    """

    def __init__(
        self,
        k_per_mm: NDArray[np.floating[Any]],
        shape: tuple[int, int, int],
        voxel_mm: tuple[float, float, float],
        dtype: DTypeLike = np.complex64,
        origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        upsampling: float = 2.0,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        if self.dtype not in _TOLERANCE:
            raise ValueError(f"dtype must be complex64 or complex128, got {self.dtype}")
        self.voxel_volume_mm3 = float(np.prod(voxel_mm))
        self.n_samples = len(k_per_mm)
        k = np.asarray(k_per_mm, dtype=np.float64)
        real = _REAL[self.dtype]
        self._points = [(2.0 * np.pi * v * k[:, i]).astype(real) for i, v in enumerate(voxel_mm)]
        self._shift: NDArray[np.complexfloating[Any]] | None = None
        if any(origin_mm):
            self._shift = np.exp(-2j * np.pi * (k @ np.asarray(origin_mm, dtype=np.float64))).astype(self.dtype)
        # Transforms keep nothing in the plan: threads may share it.
        self._plan = finufft.Plan(
            2, self.shape, eps=_TOLERANCE[self.dtype], isign=-1, dtype=self.dtype, nthreads=1, upsampfac=upsampling
        )
        self._plan.setpts(*self._points)

    def forward(self, image: NDArray[Any]) -> NDArray[np.complexfloating[Any]]:
        """Signal (M,) of an image (X, Y, Z) given in signal per mm^3."""
        samples = self._plan.execute(np.ascontiguousarray(image, dtype=self.dtype))
        samples *= self.voxel_volume_mm3
        return np.asarray(samples if self._shift is None else samples * self._shift)

    def adjoint(self, samples: NDArray[Any]) -> NDArray[np.complexfloating[Any]]:
        """Sum (X, Y, Z) of the plane waves of all samples (M,)."""
        values = np.ascontiguousarray(samples, dtype=self.dtype)
        if self._shift is not None:
            values = values * self._shift.conj()
        return np.asarray(self._plan.execute_adjoint(values))
