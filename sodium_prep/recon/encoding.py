"""The signal equation of a whole scan: coils, decay and off-resonance during the readout, samples anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sodium_prep.recon.readouts import Readouts
from sodium_prep.recon.threads import in_order
from sodium_prep.recon.toeplitz import Toeplitz

ComplexArray = NDArray[np.complexfloating[Any]]
Images = NDArray[Any]

_POWER_ITERATIONS = 12
_MARGIN = 1.02


class Encoding:
    """``y_cj = dV sum_l u_l(t_j) sum_r S_c(r) c_l(r) x(r) exp(-2 pi i k_j . r)``.

    Parameters
    ----------
    k_per_mm
        (readouts, samples, 3), 1/mm.
    voxel_mm
        Of the grid; voxel ``N // 2`` is where the phase of every k is zero.
    sensitivities
        S_c, (coils, X, Y, Z).
    courses, coefficients
        u_l (L, samples) and c_l (L, X, Y, Z) of :class:`sodium_prep.recon.time_courses.TimeBasis`; None for a signal
        that does not change during the readout.
    dtype
        complex64 or complex128.
    workers
        Threads; the result does not depend on them.
    """

    def __init__(
        self,
        k_per_mm: NDArray[np.floating[Any]],
        voxel_mm: tuple[float, float, float],
        sensitivities: ComplexArray,
        courses: NDArray[Any] | None = None,
        coefficients: NDArray[Any] | None = None,
        dtype: DTypeLike = np.complex64,
        workers: int = 1,
    ) -> None:
        if (courses is None) != (coefficients is None):
            raise ValueError("courses in time and their coefficients in space belong together")
        self.k_per_mm = k_per_mm
        self.voxel_mm = voxel_mm
        self.sensitivities = sensitivities
        nx, ny, nz = sensitivities.shape[1:]
        self.shape = (nx, ny, nz)
        self.courses = courses
        self.coefficients = coefficients
        self.dtype = np.dtype(dtype)
        self.workers = workers
        self._readouts = Readouts(k_per_mm, self.shape, voxel_mm, dtype)

    def _terms(self) -> list[tuple[Any, Any]]:
        """Pairs of u_l and c_l."""
        if self.courses is None or self.coefficients is None:
            return [(1.0, 1.0)]
        return list(zip(self.courses, self.coefficients, strict=True))

    def forward(self, image: Images) -> ComplexArray:
        """Samples (coils, readouts, samples) of an image (X, Y, Z) in signal per mm^3."""
        out = np.zeros((len(self.sensitivities), *self.k_per_mm.shape[:2]), self.dtype)
        for samples, sensitivity in zip(out, self.sensitivities, strict=True):
            for course, coefficient in self._terms():
                samples += course * self._readouts.forward(sensitivity * coefficient * image)
        return out

    def adjoint(self, samples: Iterable[ComplexArray]) -> ComplexArray:
        """Adjoint of ``forward / dV``: image (X, Y, Z) of the samples (readouts, samples) of every coil."""
        out = np.zeros(self.shape, self.dtype)
        pairs = zip(samples, self.sensitivities, strict=True)
        for part in in_order(lambda pair: self._adjoint_of_coil(*pair), pairs, self.workers):
            out += part
        return out

    def _adjoint_of_coil(self, samples: ComplexArray, sensitivity: ComplexArray) -> ComplexArray:
        out = np.zeros(self.shape, self.dtype)
        for course, coefficient in self._terms():
            plane_waves = self._readouts.adjoint(samples * np.conj(course))
            out += np.conj(sensitivity * coefficient) * plane_waves
        return out

    def normal(self, weights: NDArray[np.floating[Any]]) -> Normal:
        """``adjoint . weights . forward`` as an operator on images.

        Parameters
        ----------
        weights
            (readouts or 1, samples), real.
        """
        return Normal(self, Toeplitz(self.k_per_mm, weights, self.shape, self.voxel_mm, self.courses, self.dtype))


class Normal:
    """``A^H W A`` of an :class:`Encoding`: a convolution for every coil.

    Parameters
    ----------
    encoding, toeplitz
        Coils and courses; the convolution with the point response of the weights.
    """

    def __init__(self, encoding: Encoding, toeplitz: Toeplitz) -> None:
        self._encoding = encoding
        self._toeplitz = toeplitz

    def __call__(self, image: Images) -> ComplexArray:
        """Image (X, Y, Z), real or complex, to a complex one."""
        total = np.zeros(self._encoding.shape, self._encoding.dtype)
        coils = self._encoding.sensitivities
        for part in in_order(lambda s: self._one_coil(s, image), coils, self._encoding.workers):
            total += part
        return total

    def _one_coil(self, sensitivity: ComplexArray, image: Images) -> ComplexArray:
        seen = sensitivity * image
        coefficients = self._encoding.coefficients
        if coefficients is None:
            return np.asarray(sensitivity.conj() * self._toeplitz(seen[None])[0])
        through = self._toeplitz(coefficients * seen)
        through *= coefficients.conj()
        return np.asarray(sensitivity.conj() * through.sum(axis=0))

    @cached_property
    def largest_eigenvalue(self) -> float:
        """Bound from above: that of the convolution alone times the largest sum of squared sensitivities.

        Of the convolution by power iteration from a fixed start, rounded up by 2 %.
        """
        encoding = self._encoding
        x = np.random.default_rng(0).standard_normal((self._toeplitz.n_courses, *encoding.shape)).astype(encoding.dtype)
        value = 0.0
        for _ in range(_POWER_ITERATIONS):
            x /= np.linalg.norm(x)
            x = self._toeplitz(x)
            value = float(np.linalg.norm(x))
        strongest = float(np.max(np.sum(np.abs(encoding.sensitivities) ** 2, axis=0)))
        if encoding.coefficients is not None:
            strongest *= float(np.max(np.sum(np.abs(encoding.coefficients) ** 2, axis=0)))
        return _MARGIN * value * strongest


@dataclass(frozen=True)
class LeastSquares:
    """``min 1/2 sum_j w_j |(A x - y)_j|^2`` over real images x, in the form that solvers need.

    The phase of the object is in the sensitivities, so its image is real: half of the noise and half of what
    undersampling leaves open is gone before any prior.

    Attributes
    ----------
    normal
        ``x -> Re A^H W A x``, (X, Y, Z) float32. With density compensation as weights and sensitivities of unit norm
        its eigenvalues lie near 1 for images whose spectrum was sampled and near 0 for others.
    right
        ``Re A^H W y``, (X, Y, Z) float32: the gridded image.
    largest_eigenvalue
        Bound of the eigenvalues of ``normal``; a function, as not every solver asks.
    """

    normal: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    right: NDArray[np.float32]
    largest_eigenvalue: Callable[[], float] = field(repr=False)


def least_squares(
    encoding: Encoding,
    kspace: Iterable[ComplexArray],
    weights: NDArray[np.floating[Any]],
    gridded: Images | None = None,
) -> LeastSquares:
    """The problem of one scan.

    Parameters
    ----------
    kspace
        (readouts, samples) of every coil, noise white and the same in all.
    weights
        Density compensation (readouts or 1, samples), 1/mm^3.
    gridded
        ``A^H W y`` where it was computed already; then ``kspace`` is not looked at.
    """
    operator = encoding.normal(weights)
    w = weights.astype(np.float32)
    right = encoding.adjoint(channel * w for channel in kspace) if gridded is None else gridded
    return LeastSquares(
        real_part(operator), np.ascontiguousarray(right.real, dtype=np.float32), lambda: operator.largest_eigenvalue
    )


def real_part(operator: Callable[[Images], ComplexArray]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The real part of what an operator makes of a real image."""
    return lambda image: np.ascontiguousarray(operator(image).real)
