"""Regional signals straight from k-space: least squares of the samples on what each compartment sends into them.

After SLIM (Hu, Levin, Lauterbur and Spraggins, MRM 1988;8:314) and SLAM (Zhang, Gabr, Schär, Weiss and Bottomley, J
Magn Reson 2012;218:66) of spectroscopy: the samples of coil c at k_j, read at the time t_j after the echo time TE, are

``y_cj = sum_i t_i D_i(t_j) int m_i(r) S_c(r) exp(-2 pi i k_j . r) dr + n_cj``

with the map m_i of compartment i, the decay ``D_i(t) = s(TE + t) / s(TE)`` of its tissue and the sensitivities S_c. For
real t, with weights w_j and white noise of variance sigma^2 per real component,

``t = A^-1 Re sum w conj(B) y``, ``A = Re sum w conj(B) B``, ``Cov = sigma^2 A^-1 (Re sum w^2 conj(B) B) A^-1``.

The weights are the density compensation. Equal weights would be the estimate of maximum likelihood, but only if
everything in the field of view were modelled: the many samples near the centre of k-space then decide, and what is
wrong about the scalp or a vial that is left out reaches every region. With these weights sums over k-space are those
over space (Parseval), so objects that do not overlap do not disturb each other. On a digital head the noise rose by
8 %, and the median error fell from 3.7 to 1.4 %.

Nothing is lost by what keeps this cheap. All spokes are read alike, and an object of finite size makes a signal that
varies slowly along a spoke. So each spoke lies in one space of few dimensions, the same for all (:func:`spoke_space`):
the samples are projected onto it, and the transform of each compartment is computed at few nodes of each spoke.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import finufft
import numpy as np
import scipy.fft
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import Array, solve_merged
from sodium_prep.pvc.forward import VoxelKernel, push_compartments
from sodium_prep.pvc.noise import gram
from sodium_prep.pvc.sensitivity import changed, uncertain_t2star
from sodium_prep.recon.trajectory import Trajectory

_GRID_PER_NOMINAL: Final = 0.7
"""Voxels of the maps over nominal ones. Between kmax and its alias at 1 / voxel - kmax the spectrum of a map fades
away; the rest is left to the spectrum of the sensitivities."""
_SENSITIVITY_BAND: Final = 0.1
"""Highest spatial frequency of a sensitivity, in units of 1 / nominal voxel (a period of 30 mm at 3 mm)."""
_TAIL: Final = 4.0
"""Margin around the compartments in nominal voxels."""
_ACCURACY: Final = 1e-6
_NUFFT_TOLERANCE: Final = 5e-5
_REACH: Final = 0.6
"""Radius around the isocentre that may hold signal, over the longest side of the field of view."""
_ALIKE: Final = 1e-4
_SLAB: Final = 256


@dataclass(frozen=True)
class Spokes:
    """K-space of one scan with white noise.

    Attributes
    ----------
    samples : (coils, spokes, samples) complex64
        Whitened.
    sigma
        Standard deviation of the real (and of the imaginary) part of the noise, the same for all coils.
    trajectory
        Along the axes of the image grid.
    sensitivities : (coils, X, Y, Z) complex64
        On the grid of the image that was combined with them, so that signals have the scale of that image.
    affine : (4, 4)
        Of this grid; the phase of every k is zero at voxel ``N // 2``.
    """

    samples: NDArray[np.complex64]
    sigma: float
    trajectory: Trajectory
    sensitivities: NDArray[np.complex64]
    affine: Array

    @property
    def voxel_mm(self) -> Array:
        """Voxel size of the image."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    def without_profile(self, profile: NDArray[np.floating]) -> Spokes:
        """The same samples for signals of an image that a receive profile (X, Y, Z) was taken off."""
        return replace(self, sensitivities=(self.sensitivities * profile).astype(np.complex64))

    @property
    def alike(self) -> bool:
        """Whether all spokes are straight and have the same radii, which the estimate needs."""
        k = self.trajectory.k_per_mm
        straight = k[:, -1:, :] * (_radii(self.trajectory) / _radii(self.trajectory)[-1])[:, None].astype(np.float32)
        return bool(np.abs(k - straight).max() < _ALIKE * self.trajectory.kmax_per_mm)


def _radii(trajectory: Trajectory) -> Array:
    return np.asarray(np.linalg.norm(trajectory.k_per_mm, axis=2).mean(axis=0), np.float64)


def spoke_space(
    radii_per_mm: Array, reach_mm: float, decays: Array
) -> tuple[NDArray[np.intp], Array, NDArray[np.float32]]:
    """Nodes, interpolation and the space of signals along a spoke.

    The signal of an object within ``reach_mm`` is a sum of ``exp(2 pi i k x)`` with ``|x| < reach_mm``. Pivoted QR
    picks samples (nodes) from which all others follow; the span of the interpolated signals times each decay is the
    space.

    Parameters
    ----------
    radii_per_mm : (n,)
        Of the samples.
    reach_mm
        Of the object, from the point where the phase of every k is zero.
    decays : (a, n)
        Relative signal of each kind of tissue during the readout.

    Returns
    -------
    nodes : (p,)
        Numbers of the samples that serve as nodes.
    interpolation : (n, p)
        Real.
    basis : (n, q) float32
        Orthonormal.
    """
    places = np.linspace(0.0, reach_mm, 2 * int(np.ceil(2.0 * reach_mm * radii_per_mm[-1])) + 16)
    angle = 2.0 * np.pi * np.outer(radii_per_mm, places)
    waves = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    _, triangle, order = scipy.linalg.qr(waves.T, mode="economic", pivoting=True)
    size = np.abs(np.diag(triangle))
    rank = int((size > _ACCURACY * size[0]).sum())
    nodes = np.sort(order[:rank])
    interpolation = scipy.linalg.lstsq(waves[nodes].T, waves.T)[0].T
    left, values, _ = np.linalg.svd(np.concatenate([d[:, None] * interpolation for d in decays], axis=1))
    basis = left[:, : int((values > _ACCURACY * values[0]).sum())]
    return nodes, interpolation, basis.astype(np.float32)


class _Fade:
    """Spectrum of the maps: whole within what is measured, gone where sampling on their grid would fold it in."""

    def __init__(self, kmax_per_mm: float) -> None:
        nominal = 2.0 * kmax_per_mm  # one over the nominal voxel
        self.whole = kmax_per_mm + _SENSITIVITY_BAND * nominal
        self.gone = nominal / _GRID_PER_NOMINAL - self.whole
        self.cutoff_per_mm = (self.gone, self.gone, self.gone)

    def mtf(self, k_vectors_per_mm: ArrayLike, _relaxation: Relaxation, _cell_per_mm: ArrayLike) -> Array:
        """Product of a smooth step along each axis."""
        way = (np.abs(np.asarray(k_vectors_per_mm)) - self.whole) / (self.gone - self.whole)
        x = np.clip(way, 0.0, 1.0)
        return np.asarray(np.prod(1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x**2), axis=-1))


@dataclass(frozen=True)
class _Grid:
    """A box of voxels along the axes of the image, somewhat finer than these."""

    shape: tuple[int, int, int]
    affine: Array
    first: Array  # centre of its first voxel in voxels of the image
    step: Array  # its voxel in voxels of the image

    @classmethod
    def around(cls, compartments: Compartments, sodium_to_t1w: Array, spokes: Spokes) -> _Grid:
        to_voxel = np.linalg.solve(spokes.affine, np.linalg.solve(sodium_to_t1w, compartments.affine))
        occupied = np.zeros(compartments.shape, bool)
        for voxels in compartments.voxels:
            occupied.reshape(-1)[voxels] = True
        ends = [np.flatnonzero(occupied.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
        corners = np.stack(np.meshgrid(*ends, indexing="ij")).reshape(3, 8)
        at = to_voxel[:3, :3] @ corners + to_voxel[:3, 3:]
        nominal = 0.5 / spokes.trajectory.kmax_per_mm / spokes.voxel_mm
        n = np.asarray(spokes.sensitivities.shape[1:])
        low = np.maximum(at.min(axis=1) - _TAIL * nominal, -0.5)
        high = np.minimum(at.max(axis=1) + _TAIL * nominal, n - 0.5)
        step = _GRID_PER_NOMINAL * nominal
        x, y, z = (scipy.fft.next_fast_len(int(np.ceil(width)) + 1) for width in (high - low) / step)
        inner = np.diag([*step, 1.0])
        inner[:3, 3] = low
        return cls((x, y, z), np.asarray(spokes.affine @ inner), low, step)

    def resampled(self, image: NDArray[Any]) -> NDArray[np.complex64]:
        """A smooth complex image on this grid."""
        for axis, (n, first, step, size) in enumerate(zip(image.shape, self.first, self.step, self.shape, strict=True)):
            places = np.clip(first + step * np.arange(size), 0.0, n - 1.0)
            image = make_interp_spline(np.arange(n), image, axis=axis)(places)
        return np.asarray(image, np.complex64)


class _Transform:
    """``dV sum_r x(r) exp(-2 pi i k . r)`` from a grid to the nodes of all spokes."""

    def __init__(self, k_per_mm: NDArray[np.float32], shape: Sequence[int], voxel_mm: Array, centre_mm: Array) -> None:
        self._plan = finufft.Plan(
            2, tuple(shape), eps=_NUFFT_TOLERANCE, isign=-1, dtype="complex64", upsampfac=1.25, nthreads=1
        )
        k = k_per_mm.reshape(-1, 3).astype(np.float64)
        self._plan.setpts(*((2.0 * np.pi * v * k[:, i]).astype(np.float32) for i, v in enumerate(voxel_mm)))
        self._factor = (np.prod(voxel_mm) * np.exp(-2j * np.pi * (k @ centre_mm))).astype(np.complex64)

    def __call__(self, image: NDArray[np.complex64], out: NDArray[np.float32]) -> None:
        """Into real and imaginary part, (2, spokes, nodes)."""
        signal = (self._plan.execute(image) * self._factor).reshape(out.shape[1:])
        out[0], out[1] = signal.real, signal.imag


@dataclass(frozen=True)
class KspaceFit:
    """Regional signals of one design.

    Attributes
    ----------
    values, inflation : (n,)
        As in :class:`sodium_prep.pvc.estimators.RegionFit`.
    covariance : (n, n)
        From the noise of the samples.
    operator : (n, m)
        From changes of the right side (one per compartment) to changes of the values.
    """

    values: Array
    covariance: Array
    inflation: Array
    operator: Array


class KspaceSystem:
    """Sums over k-space that every design of regions shares.

    Parameters
    ----------
    spokes
        Data; :attr:`Spokes.alike` must hold.
    compartments, sodium_to_t1w, relaxations, voxel_kernel
        As for :func:`sodium_prep.pvc.forward.push_compartments`.
    acquisition
        For the echo time.
    changes : (m, X, Y, Z)
        Images whose sums with the compartments are wanted, e.g. what a motion does to the gridded image.

    Attributes
    ----------
    matrix : (n, n), right : (n,)
        Normal equations.
    noise_matrix : (n, n)
        Covariance of the right side from noise.
    by_change : (n, m)
        Sums over the samples of each compartment with each of ``changes``.
    by_parameter
        For each uncertain T2* parameter (n, n) sums of each compartment (rows) with the change of each compartment's
        signal per unit of the parameter (columns).
    """

    def __init__(
        self,
        spokes: Spokes,
        compartments: Compartments,
        sodium_to_t1w: Array,
        acquisition: Acquisition,
        relaxations: Mapping[Tissue, Relaxation],
        *,
        changes: NDArray[np.floating] | None = None,
        voxel_kernel: VoxelKernel = "point",
    ) -> None:
        n = len(compartments.names)
        self.nuisance = np.array([kind == "nuisance" for kind in compartments.kinds])
        trajectory, voxel_mm = spokes.trajectory, spokes.voxel_mm
        image_shape = np.asarray(spokes.sensitivities.shape[1:])
        reach_mm = _REACH * float(np.max(image_shape * voxel_mm))
        courses = _time_courses(compartments.tissues, acquisition, relaxations, trajectory.time_s)
        decays = [course for (_, parameter), course in courses.items() if not parameter]
        weights = trajectory.weights_mm3.mean(axis=0)
        weights = weights / weights.max()
        nodes, interpolation, basis = spoke_space(_radii(trajectory), reach_mm, weights * np.stack(decays))
        into = {key: _onto(basis, c, interpolation) for key, c in courses.items()}
        weighted = {key: _onto(basis, weights * c, interpolation) for key, c in courses.items()}
        still = _onto(basis, np.ones_like(weights), interpolation)
        images = [] if changes is None else list(changes)

        grid = _Grid.around(compartments, sodium_to_t1w, spokes)
        fade = _Fade(trajectory.kmax_per_mm)
        maps = push_compartments(
            compartments, sodium_to_t1w, grid.shape, grid.affine, fade, relaxations, voxel_kernel=voxel_kernel
        ).reshape(n, *grid.shape)
        k = np.ascontiguousarray(trajectory.k_per_mm[:, nodes])
        middle_mm = (grid.first + grid.step * (np.asarray(grid.shape) // 2) - image_shape // 2) * voxel_mm
        fine = _Transform(k, grid.shape, grid.step * voxel_mm, middle_mm)
        native = _Transform(k, tuple(image_shape), voxel_mm, np.zeros(3))
        # Real and imaginary parts apart: only the real parts of sums are wanted, and every matrix in time is real.
        columns = np.empty((n, 2, *k.shape[:2]), np.float32)
        others = np.empty((len(images), 2, *k.shape[:2]), np.float32)
        self.noise_matrix = np.zeros((n, n))
        sums = np.zeros((n, n + 1 + len(images)))
        self.by_parameter = {key: np.zeros((n, n)) for key in courses if key[1]}
        rows = {tissue: [i for i, t in enumerate(compartments.tissues) if t == tissue] for tissue, _ in courses}
        for samples, sensitivity in zip(spokes.samples, spokes.sensitivities, strict=True):
            on_grid = grid.resampled(sensitivity)
            for column, one in zip(columns, maps, strict=True):
                fine(one * on_grid, column)
            for other, image in zip(others, images, strict=True):
                native((image * sensitivity).astype(np.complex64), other)
            for start in range(0, len(k), _SLAB):
                part = slice(start, start + _SLAB)
                signal = np.empty((n, 2, len(k[part]), basis.shape[1]), np.float32)
                heavy = np.empty_like(signal)
                for tissue, members in rows.items():
                    signal[members] = columns[members, :, part] @ into[tissue, ""].T
                    heavy[members] = columns[members, :, part] @ weighted[tissue, ""].T
                data = np.stack([samples[part].real, samples[part].imag])[None] @ basis
                left = _flat(heavy)
                self.noise_matrix += spokes.sigma**2 * gram(left, left, single=True)
                right = [_flat(signal), _flat(data), _flat(others[:, :, part] @ still.T)]
                sums += gram(left, np.concatenate(right), single=True)
                for (tissue, parameter), total in self.by_parameter.items():
                    change = columns[rows[tissue], :, part] @ into[tissue, parameter].T
                    total[:, rows[tissue]] += gram(left, _flat(change), single=True)
        self.matrix, self.right, self.by_change = sums[:, :n], sums[:, n], sums[:, n + 1 :]

    def fit(self, membership: NDArray[np.floating] | None = None) -> KspaceFit:
        """Solve for the compartments, or for sums of them (as :meth:`RegionalSystem.fit`)."""
        m = np.eye(len(self.matrix)) if membership is None else np.asarray(membership, np.float64)
        operator, inflation, _ = solve_merged(self.matrix, m, self.nuisance, np.diag(self.matrix))
        covariance = operator @ self.noise_matrix @ operator.T
        return KspaceFit(operator @ self.right, covariance, inflation, operator)


def _onto(basis: NDArray[np.float32], course: Array, interpolation: Array) -> NDArray[np.float32]:
    """From the nodes of a spoke to its coefficients, for signals that take a course in time."""
    return np.asarray(basis.T @ (course[:, None] * interpolation), np.float32)


def _flat(signals: NDArray[np.float32]) -> NDArray[np.float32]:
    return signals.reshape(len(signals), int(np.prod(signals.shape[1:])))


def _time_courses(
    tissues: Sequence[Tissue], acquisition: Acquisition, relaxations: Mapping[Tissue, Relaxation], time_s: Array
) -> dict[tuple[Tissue, str], Array]:
    """Signal relative to that at the echo time of every tissue (with ""), and its change by each T2* parameter."""

    def course(relaxation: Relaxation) -> Array:
        start = t2star_factor(acquisition.echo_time_s, relaxation)
        return np.asarray(t2star_factor(acquisition.echo_time_s + time_s, relaxation) / start)

    out: dict[tuple[Tissue, str], Array] = {}
    for tissue in sorted(set(tissues)):
        relaxation = relaxations[tissue]
        out[tissue, ""] = course(relaxation)
        for name, step in uncertain_t2star(relaxation).items():
            high, low = (course(changed(relaxation, name, sign * step)) for sign in (1.0, -1.0))
            out[tissue, name] = (high - low) / (2.0 * step)
    return out
