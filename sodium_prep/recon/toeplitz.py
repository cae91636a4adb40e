"""The normal operator of non-uniform samples as a convolution on a doubled grid.

``sum_j w_j exp(2 pi i k_j . (r - s))`` depends on ``r - s`` alone, so ``A^H W A`` is a convolution that two fast
Fourier transforms make (Fessler et al., IEEE Trans Signal Process 2005;53:3393). With a signal that is a short sum of
courses in time, ``y_j = sum_l u_l(t_j) F_j x_l``, it is a small matrix of such convolutions, with the weights
``w conj(u_l) u_m``.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import fft

from sodium_prep.recon.nufft import Nufft

ComplexArray = NDArray[np.complexfloating[Any]]

_SLAB = 2
"""Planes that go through the inner transforms together: few enough to stay in the cache."""

_UPSAMPLING = 1.5
"""Of the point response in single precision: the doubled grid has few samples for each voxel."""


class Toeplitz:
    """``x_l -> dV sum_m sum_j w_j conj(u_l(t_j)) u_m(t_j) exp(+2 pi i k_j . r) sum_s exp(-2 pi i k_j . s) x_m(s)``.

    Each convolution is exact for images on the grid; the transforms leave out what is zero before and not wanted after
    them, and run slab by slab.

    Parameters
    ----------
    k_per_mm
        (readouts, samples, 3), 1/mm.
    weights
        (readouts or 1, samples), real.
    shape, voxel_mm
        Grid of the images.
    courses
        (L, samples) functions of time, real or complex; None for one that is constant.
    dtype
        complex64 or complex128.
    """

    def __init__(
        self,
        k_per_mm: NDArray[np.floating[Any]],
        weights: NDArray[np.floating[Any]],
        shape: tuple[int, int, int],
        voxel_mm: tuple[float, float, float],
        courses: NDArray[Any] | None = None,
        dtype: DTypeLike = np.complex64,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        samples = k_per_mm.shape[1]
        u = np.ones((1, samples)) if courses is None else np.asarray(courses)
        self.n_courses = len(u)
        double = (2 * shape[0], 2 * shape[1], 2 * shape[2])
        upsampling = _UPSAMPLING if self.dtype == np.complex64 else 2.0
        # All samples, not Readouts: errors of its interpolation would add up over a smooth image.
        operator = Nufft(k_per_mm.reshape(-1, 3), double, voxel_mm, dtype, upsampling=upsampling)

        def spectrum(course: NDArray[Any]) -> NDArray[Any]:
            product = np.broadcast_to((weights * course).astype(self.dtype), k_per_mm.shape[:2])
            point = operator.adjoint(product.ravel())
            point *= operator.voxel_volume_mm3
            # Offsets of -N belong to no pair of voxels; without them the spectrum is as symmetric as it should be.
            point[0], point[:, 0], point[:, :, 0] = 0.0, 0.0, 0.0
            return np.asarray(fft.fftn(fft.ifftshift(point), overwrite_x=True))

        pairs = list(combinations_with_replacement(range(self.n_courses), 2))
        self._kernels: dict[tuple[int, int], NDArray[Any]] = {}
        if np.iscomplexobj(u):
            for row, column in pairs:
                # An imaginary part of mere rounding is subnormal in the transform, which takes ten times as long.
                product = u[row].conj() * u[column]
                self._kernels[row, column] = spectrum(product.real if row == column else product)
            return
        # Real weights make real spectra: two of them are the real and imaginary part of one transform.
        for two in (pairs[first : first + 2] for first in range(0, len(pairs), 2)):
            both = spectrum(
                sum(unit * u[row] * u[column] for unit, (row, column) in zip((1.0, 1.0j), two, strict=False))
            )
            for part, pair in zip((both.real, both.imag), two, strict=False):
                self._kernels[pair] = np.ascontiguousarray(part)

    def _kernel(self, row: int, column: int, planes: slice) -> NDArray[Any]:
        if row <= column:
            return self._kernels[row, column][planes]
        return np.asarray(self._kernels[column, row][planes].conj())

    def __call__(self, images: ComplexArray) -> ComplexArray:
        """Images (L, X, Y, Z), one for each course, convolved; the same shape."""
        nx, ny, nz = self.shape
        # One list entry per course, (2 X, Y, Z); what comes out takes the place of what went in.
        wide = [fft.fft(np.asarray(image, self.dtype), n=2 * nx, axis=0) for image in images]
        for first in range(0, 2 * nx, _SLAB):
            planes = slice(first, first + _SLAB)
            slabs = [fft.fft(fft.fft(w[planes], n=2 * ny, axis=1), n=2 * nz, axis=2, overwrite_x=True) for w in wide]
            for row, w in enumerate(wide):
                product = slabs[0] * self._kernel(row, 0, planes)
                for column in range(1, self.n_courses):
                    product += slabs[column] * self._kernel(row, column, planes)
                product = fft.ifft(product, axis=2, overwrite_x=True)[:, :, :nz]
                w[planes] = fft.ifft(product, axis=1)[:, :ny]
        return np.stack([fft.ifft(w, axis=0, overwrite_x=True)[:nx] for w in wide])
