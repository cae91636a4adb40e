"""k-space of heads and vials, computed from their 1 mm maps and closed forms, never from the grid of an image.

Each sample is ``sum over tissues of decay(t_j) integral rho(r) exp(-2 pi i k_j . r) dr``, with decay and (optionally)
off-resonance acting during the readout, the 1 mm voxels taken as boxes (hence a sinc on k-space) and the head posed by
turning k instead of resampling the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from sodium_prep.phantom import fields, grids
from sodium_prep.phantom.protocol import Vial
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import saturation_factor, t2star_factor
from sodium_prep.recon.trajectory import Trajectory

ComplexArray = NDArray[np.complex64]

_ACCURACY = 1e-5
_FREQUENCIES = 401
_VIAL_SEGMENTS = 12
_THINNING_BAND = 0.2


@dataclass(frozen=True)
class Source:
    """Concentration of one kind of sodium on a grid.

    Attributes
    ----------
    concentration_mM : (X, Y, Z) float32
        Concentration times tissue fraction.
    relaxation
        Shared by all of it.
    """

    concentration_mM: NDArray[np.float32]  # noqa: N815
    relaxation: Relaxation


@dataclass(frozen=True)
class ScannerFields:
    """Imperfections of the scanner; the defaults are a perfect volume coil.

    Attributes
    ----------
    n_coils
        Receive loops; 1 is a volume coil.
    transmit_peak
        Relative deviation of the flip angle, see :func:`sodium_prep.phantom.fields.transmit_profile`.
    off_resonance_hz
        See :func:`sodium_prep.phantom.fields.off_resonance`.
    """

    n_coils: int = 1
    transmit_peak: float = 0.0
    off_resonance_hz: float = 0.0

    @property
    def uniform(self) -> bool:
        """Whether no field varies in space."""
        return self.n_coils == 1 and self.transmit_peak == 0.0 and self.off_resonance_hz == 0.0


def simulate_kspace(
    sources: Sequence[Source],
    affine: NDArray[np.float64],
    sodium_to_t1w: NDArray[np.float64],
    trajectory: Trajectory,
    acquisition: Acquisition,
    *,
    vials: Sequence[Vial] = (),
    scanner: ScannerFields | None = None,
) -> ComplexArray:
    """Noise-free k-space of a head on its T1w grid and of vials in the sodium frame.

    Parameters
    ----------
    sources
        Maps on one grid.
    affine : (4, 4)
        Of the maps, voxel to RAS mm, axes along x, y, z.
    sodium_to_t1w : (4, 4)
        Rigid; takes points of the sodium frame to the frame of the maps.
    trajectory, acquisition
        The acquisition's flip angle is the one that truly acts.

    Returns
    -------
    (coils, spokes, samples) complex64, in mM mm^3.
    """
    scanner = scanner or ScannerFields()
    k = trajectory.k_per_mm.reshape(-1, 3).astype(np.float64)
    total = np.zeros((scanner.n_coils, trajectory.n_readouts, trajectory.n_samples), np.complex64)
    grid = _SourceGrid(sources[0].concentration_mM.shape, affine, sodium_to_t1w, k, trajectory.kmax_per_mm)
    decays = np.stack([_decay(acquisition, source.relaxation, trajectory) for source in sources])
    courses = _TimeCourses(decays, acquisition.echo_time_s + trajectory.time_s, scanner.off_resonance_hz)
    # Where nothing varies in space, one point stands for all.
    points_mm = np.zeros((1, 1, 1, 3), np.float32) if scanner.uniform else grid.points_mm
    hertz = fields.off_resonance(points_mm, scanner.off_resonance_hz)
    images = np.zeros((len(courses.basis), *grid.shape), np.complex64)
    for number, source in enumerate(sources):
        thin = grid.thin(source.concentration_mM) * _saturation(points_mm, acquisition, source.relaxation, scanner)
        for image, weight in zip(images, courses.weights(number, hertz), strict=True):
            image += thin * weight
    for coil, profile in enumerate(fields.coil_profiles(points_mm, scanner.n_coils)):
        for image, course in zip(images, courses.basis, strict=True):
            total[coil] += grid.transform(image * profile).reshape(total.shape[1:]) * course
    for vial in vials:
        _add_vial(total, vial, k, trajectory, acquisition, scanner)
    return total


def vial_kspace(vial: Vial, k_per_mm: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Fourier transform of a cylinder of spin density 1, closed form.

    Parameters
    ----------
    k_per_mm : (M, 3)

    Returns
    -------
    (M,) in mm^3.
    """
    axis = np.asarray(vial.axis, float) / np.linalg.norm(vial.axis)
    along = k_per_mm @ axis
    across = np.sqrt(np.maximum(np.einsum("ij,ij->i", k_per_mm, k_per_mm) - along**2, 0.0))
    q = 2.0 * np.pi * vial.radius_mm * across
    disc = np.where(q > 1e-6, 2.0 * special.j1(q) / np.maximum(q, 1e-6), 1.0)
    phase = np.exp(-2j * np.pi * (k_per_mm @ np.asarray(vial.centre_mm)))
    return np.asarray(vial.volume_mm3 * disc * np.sinc(along * vial.length_mm) * phase)


def add_noise(kspace: ComplexArray, sigma: float, rng: np.random.Generator) -> ComplexArray:
    """Add white Gaussian noise of standard deviation ``sigma`` to real and imaginary part of every sample."""
    noise = rng.standard_normal((*kspace.shape, 2), dtype=np.float32) * np.float32(sigma)
    return kspace + noise.view(np.complex64)[..., 0]


class _SourceGrid:
    """The grid of the maps, thinned out as far as k-space allows, with a transform to the trajectory's samples."""

    def __init__(
        self,
        shape: tuple[int, ...],
        affine: NDArray[np.float64],
        sodium_to_t1w: NDArray[np.float64],
        k_per_mm: NDArray[np.float64],
        kmax_per_mm: float,
    ) -> None:
        voxel_mm = np.diag(affine)[:3]
        if not np.allclose(affine[:3, :3], np.diag(voxel_mm)):
            raise ValueError("the axes of the source grid must run along x, y, z")
        turned = k_per_mm @ sodium_to_t1w[:3, :3].T
        cycles = turned * voxel_mm
        self._response = np.prod(voxel_mm) * np.sinc(cycles).prod(axis=1)
        self._matrices = []
        first, step = affine[:3, 3].copy(), voxel_mm.copy()
        for axis, n in enumerate(shape):
            matrix = sparse.eye_array(n, dtype=np.float32, format="csr")
            while kmax_per_mm * step[axis] <= _THINNING_BAND:
                thinner, taps, lead = grids.thinning_matrix(matrix.shape[0], kmax_per_mm * float(step[axis]))
                self._response *= 2.0 / grids.thinning_response(taps, turned[:, axis] * step[axis])
                first[axis] -= lead * step[axis]
                step[axis] *= 2.0
                matrix = thinner @ matrix
            self._matrices.append(matrix)
        shape = tuple(matrix.shape[0] for matrix in self._matrices)
        centre = first + step * (np.array(shape) // 2)
        offset = centre - sodium_to_t1w[:3, 3]
        self._factor = (self._response * np.exp(-2j * np.pi * (turned @ offset))).astype(np.complex64)
        self._plan = finufft.Plan(2, tuple(shape), eps=_ACCURACY, isign=-1, dtype="complex64", nthreads=1)
        angles = (2.0 * np.pi * turned * step).astype(np.float32)
        self._plan.setpts(*(np.ascontiguousarray(angles[:, axis]) for axis in range(3)))
        self.shape = tuple(shape)
        self._geometry = (first, step, np.linalg.inv(sodium_to_t1w))

    @cached_property
    def points_mm(self) -> NDArray[np.float32]:
        """(X, Y, Z, 3) position of the thinned voxels in the sodium frame."""
        first, step, inverse = self._geometry
        axes = [f + s * np.arange(n) for f, s, n in zip(first, step, self.shape, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ inverse[:3, :3].T + inverse[:3, 3]
        return np.asarray(points, dtype=np.float32)

    def thin(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return grids.apply_separable(values, self._matrices)

    def transform(self, values: NDArray[np.float32] | ComplexArray) -> ComplexArray:
        """Integral of the map times ``exp(-2 pi i k . r)`` at every sample."""
        return np.asarray(self._plan.execute(np.ascontiguousarray(values, dtype=np.complex64)) * self._factor)


class _TimeCourses:
    """Decay of each source times ``exp(2 pi i f(r) t)``, as a short sum of (function of time) x (function of place).

    The functions of time are the leading singular vectors of a table of all that can occur (low-rank time
    segmentation: Fessler et al., IEEE TSP 2005;53:3393).
    """

    def __init__(self, decays: NDArray[np.float32], time_s: NDArray[np.float64], peak_hz: float) -> None:
        self._hertz = np.linspace(-abs(peak_hz), abs(peak_hz), _FREQUENCIES) if peak_hz else np.zeros(1)
        table = decays[:, None, :] * np.exp(2j * np.pi * self._hertz[:, None] * time_s)
        courses, values, _ = np.linalg.svd(table.reshape(-1, time_s.size).T, full_matrices=False)
        kept = courses[:, values > _ACCURACY * values[0]]
        self.basis = kept.T.astype(np.complex64)
        self._coefficients = table @ kept.conj()

    def weights(self, source: int, hertz: NDArray[np.floating]) -> Iterator[NDArray[np.complex64]]:
        """Weight of each function of time for one source, at places of a given frequency offset."""
        for values in self._coefficients[source].T:
            real = np.interp(hertz, self._hertz, values.real)
            yield (real + 1j * np.interp(hertz, self._hertz, values.imag)).astype(np.complex64)


def _decay(acquisition: Acquisition, relaxation: Relaxation, trajectory: Trajectory) -> NDArray[np.float32]:
    return t2star_factor(acquisition.echo_time_s + trajectory.time_s, relaxation).astype(np.float32)


def _saturation(
    points_mm: NDArray[np.floating], acquisition: Acquisition, relaxation: Relaxation, scanner: ScannerFields
) -> NDArray[np.float32]:
    flip = acquisition.flip_angle_deg * fields.transmit_profile(points_mm, scanner.transmit_peak)
    return saturation_factor(acquisition.repetition_time_s, flip, relaxation.t1_s).astype(np.float32)


def _add_vial(
    total: ComplexArray,
    vial: Vial,
    k: NDArray[np.float64],
    trajectory: Trajectory,
    acquisition: Acquisition,
    scanner: ScannerFields,
) -> None:
    """Add a vial; where fields vary they count as constant over the section and over each of 12 lengths of it."""
    n = 1 if scanner.uniform else _VIAL_SEGMENTS
    axis = np.asarray(vial.axis, float) / np.linalg.norm(vial.axis)
    decay = _decay(acquisition, vial.relaxation, trajectory)
    time_s = acquisition.echo_time_s + trajectory.time_s
    for number in range(n):
        centre = np.asarray(vial.centre_mm) + axis * vial.length_mm * ((number + 0.5) / n - 0.5)
        part = replace(vial, centre_mm=tuple(centre), length_mm=vial.length_mm / n)
        shape = vial_kspace(part, k).reshape(total.shape[1:])
        factor = vial.concentration_mM * float(_saturation(centre, acquisition, vial.relaxation, scanner))
        turning = np.exp(2j * np.pi * float(fields.off_resonance(centre, scanner.off_resonance_hz)) * time_s)
        course = (factor * decay * turning).astype(np.complex64)
        for coil, profile in enumerate(fields.coil_profiles(centre, scanner.n_coils)):
            total[coil] += (shape * (course * profile)).astype(np.complex64)
