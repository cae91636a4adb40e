"""One image without decay, and a T2* map, from several echoes guided by anatomy.

AGRdm of Schramm et al., Magn Reson Med 2024, 10.1002/mrm.29936: the decay during each readout is part of the signal
equation, so that the image loses neither signal nor resolution by it, and what describes the decay is estimated with
the image. Here the decay is a short sum of courses in time, all coils take part, and both unknowns move together.

The model holds one T2* in each voxel. Tissue whose sodium decays with two time constants gets an apparent one between
them, which cannot describe the fast loss before the first echo, so the image stays low by a part of it: with 60 % of
3 ms and 40 % of 20 ms, echoes at 0.5 and 5 ms and a readout of 10 ms, T2* is 6 ms and the image 2 % low in white matter
(11 % without the model). The T2* of single voxels is noisy: take medians of regions. A lesion that only sodium shows
loses a few percent to the prior.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from sodium_prep.recon.agr import edge_directions
from sodium_prep.recon.conjugate_gradients import conjugate_gradients
from sodium_prep.recon.encoding import Encoding, LeastSquares
from sodium_prep.recon.fista import Image, Progress, fista
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.threads import in_order
from sodium_prep.recon.time_courses import TimeBasis, decay_basis
from sodium_prep.recon.toeplitz import Toeplitz
from sodium_prep.recon.trajectory import Trajectory
from sodium_prep.recon.tv import Variation, Vectors, gradient

Images = NDArray[np.float32]
Shape = tuple[int, int, int]
Voxel = tuple[float, float, float]

_BINS: Final = 64
"""Radii at which the time is looked up."""
_IMAGE_STEPS: Final = 10
_RATIO_STEPS: Final = 8
"""In each unknown between two looks at the data."""
_FIRST_STEPS: Final = 30
ROUNDS: Final = 8
"""Of looks at the data, at most: thin layers go on rising for some tens of rounds, all else stays as it is."""
_MOMENTUM: Final = 3
"""The larger, the slower the momentum of the rounds grows."""
_EXACT: Final = 1e-3
_MEAN_ROUGHNESS: Final = 6.0
"""Diagonal of the second derivatives of the roughness."""
_TOLD: Final = (0.075, 0.99)
"""Ratios that are told as a T2*, 0.4 to 100 times the distance of the echoes; those beyond are at the bounds."""
_SIGNAL: Final = 3.0
"""Standard deviations of the noise above which a T2* is told."""
_ROUNDING: Final = 1e-6
"""Part of the data term that single precision may change it by."""


@dataclass(frozen=True)
class Echo:
    """Samples of one echo.

    Attributes
    ----------
    kspace
        (readouts, samples) complex64 of every coil; noise white and the same in all coils.
    trajectory
        Echoes that share the object share what is computed from it.
    echo_time_s
        From the centre of the excitation to the first sample.
    sensitivities
        (coils, X, Y, Z) complex64 of unit norm over the coils, with the phase of this echo.
    """

    kspace: Iterable[NDArray[np.complex64]] = field(repr=False)
    trajectory: Trajectory = field(repr=False)
    echo_time_s: float
    sensitivities: NDArray[np.complex64] = field(repr=False)


@dataclass(frozen=True)
class _Path:
    """What echoes with the same trajectory share.

    ``operator`` is exact. Near it is one whose samples lie on the frequencies of the grid, each taken at the mean time
    at which the readouts pass its radius. ``on_grid`` (L, X, Y, Z // 2 + 1) are the courses at these times, lifted so
    that the exact operator lies below: where readouts are farther apart than the field of view asks for, a sample
    stands for more of k-space than it can be told from, and the exact operator's eigenvalues grow from 1 as the square
    of the radius up to the largest.
    """

    trajectory: Trajectory
    basis: TimeBasis
    with_slopes: TimeBasis
    operator: Toeplitz
    nufft: Nufft
    on_grid: Images

    def gathered(
        self, kspace: Iterable[NDArray[np.complex64]], sensitivities: NDArray[np.complex64]
    ) -> NDArray[np.complex64]:
        """``S^H A^H (w u_l y)`` of every course, (L, X, Y, Z)."""
        out = np.zeros((len(self.basis.courses), *self.operator.shape), np.complex64)
        weights = [(self.trajectory.weights_mm3 * course).astype(np.float32) for course in self.basis.courses]
        for samples, sensitivity in zip(kspace, sensitivities, strict=True):
            for image, weight in zip(out, weights, strict=True):
                image += sensitivity.conj() * self.nufft.adjoint((samples * weight).ravel())
        return out

    def seen_by(self, sensitivity: NDArray[np.complex64], images: Images) -> Images:
        """Images (L, X, Y, Z) through the exact operator of one coil."""
        return np.asarray((sensitivity.conj() * self.operator(sensitivity * images)).real)

    def near(self, images: Images) -> Images:
        """Images (L, X, Y, Z) through the operator on the grid of frequencies."""
        spectrum = sum(u * fft.rfftn(image) for u, image in zip(self.on_grid, images, strict=True))
        return np.stack([fft.irfftn(u * spectrum, images.shape[1:], overwrite_x=True) for u in self.on_grid])


def _path(trajectory: Trajectory, shape: Shape, voxel_mm: Voxel, scale_s: float, rank: int) -> _Path:
    k, weights = trajectory.k_per_mm, trajectory.weights_mm3
    basis = decay_basis(trajectory.time_s, scale_s, rank)
    both = np.concatenate([basis.coefficients, basis.slope().coefficients])
    largest = Encoding(k, voxel_mm, np.ones((1, *shape), np.complex64)).normal(weights).largest_eigenvalue
    radius = trajectory.k_relative
    bins = np.minimum((radius * _BINS).astype(np.intp), _BINS - 1).ravel()
    counts, times, radii = (
        np.bincount(bins, np.broadcast_to(v, radius.shape).ravel(), _BINS) for v in (1.0, trajectory.time_s, radius)
    )
    passed = counts > 0
    x, y, z = np.meshgrid(
        *(np.fft.fftfreq(n, v) / trajectory.kmax_per_mm for n, v in zip(shape, voxel_mm, strict=True)),
        indexing="ij",
        sparse=True,
    )
    distance = np.sqrt(x**2 + y**2 + z[..., : shape[2] // 2 + 1] ** 2)
    when = np.interp(distance, radii[passed] / counts[passed], times[passed] / counts[passed])
    lift = np.sqrt(np.maximum(1.0, largest * np.minimum(distance, 1.0) ** 2))
    return _Path(
        trajectory,
        basis,
        replace(basis, coefficients=both),
        Toeplitz(k, weights, shape, voxel_mm, basis.courses),
        Nufft(k.reshape(-1, 3), shape, voxel_mm),
        np.stack([lift * np.interp(when, trajectory.time_s, u) for u in basis.courses]).astype(np.float32),
    )


class DecayData:
    """``1/2 sum_ecj w_j |A_ec(s, r)_j - y_ecj|^2`` up to a constant, for real images s and r.

    ``A_ec(s, r)_j = dV sum_q S_ec(q) s(q) r(q)^((TE_e + t_j - centre) / scale) exp(-2 pi i k_j . q)``, with the decay
    during the readout as ``r^(t / scale) = sum_l u_l(t) c_l(r)``. The samples enter once, as ``Re S^H A^H (w u_l y)``;
    after that an evaluation is one :class:`~sodium_prep.recon.toeplitz.Toeplitz` product for every echo and coil.
    Echoes with the same trajectory share its kernels, as what they differ in is a factor in space.

    s is the image at the centre of the echoes and not at that of the excitation, ``x = s r^(-centre / scale)``: the
    data tell s and r independently of each other, x and r they do not. A prior that flattens x would have r make up
    for it: 6.5 % off a lesion in place of 2.2 %, at a T2* 40 % too long (``benchmarks.agrdm``, one realisation).

    Parameters
    ----------
    echoes
        At least two, at different times.
    voxel_mm
        Of the grid; voxel ``N // 2`` is where the phase of every k is zero.
    rank
        Number of courses.
    workers
        Threads; the result does not depend on them.

    Attributes
    ----------
    echo_times_s
        Of the echoes, in their order.
    scale_s
        Mean distance between the echoes: the time over which r is counted.
    centre_s
        Mean of the echo times, weighted by the energy of the echoes.
    bounds
        Least and largest r.
    right
        Of each echo ``Re S^H A^H (w u_l y)``, (L, X, Y, Z) float32: the data.
    """

    def __init__(self, echoes: Sequence[Echo], voxel_mm: Voxel, rank: int = 4, workers: int = 1) -> None:
        times = sorted({echo.echo_time_s for echo in echoes})
        if len(times) < 2:
            raise ValueError(f"a T2* map needs two echo times or more, got {times} s")
        shapes = {echo.sensitivities.shape[1:] for echo in echoes}
        if len(shapes) > 1:
            raise ValueError(f"the sensitivities of the echoes lie on different grids, {sorted(shapes)}")
        nx, ny, nz = shapes.pop()
        self.shape: Shape = (nx, ny, nz)
        self.workers = workers
        self.echo_times_s = [echo.echo_time_s for echo in echoes]
        self.scale_s = (times[-1] - times[0]) / (len(times) - 1)
        self._sensitivities = [echo.sensitivities for echo in echoes]
        self._paths: list[_Path] = []
        self.right: list[Images] = []
        made: dict[int, _Path] = {}
        for echo in echoes:
            line = echo.trajectory
            if id(line) not in made:
                made[id(line)] = _path(line, self.shape, voxel_mm, self.scale_s, rank)
            path = made[id(line)]
            right = np.ascontiguousarray(path.gathered(echo.kspace, echo.sensitivities).real)
            self.right.append(right)
            self._paths.append(path)
        ratios = self._paths[0].basis.parameters
        self.bounds = (float(ratios[0]), float(ratios[-1]))
        gridded = self.gridded_of(self.right)
        self.centre_s = float(np.average(self.echo_times_s, weights=[np.vdot(g, g) for g in gridded]))
        self._delays = [(time_s - self.centre_s) / self.scale_s for time_s in self.echo_times_s]

    def _decays(self, ratio: Image) -> Iterator[tuple[_Path, Images, Images]]:
        """Of each echo its path, the coefficients (L, X, Y, Z) of the decay, and their derivatives by r."""
        terms = {id(path): path.with_slopes.at(ratio) for path in self._paths}
        for path, delay in zip(self._paths, self._delays, strict=True):
            c, slope = np.split(terms[id(path)], 2)
            late = np.exp(np.float32(delay) * np.log(ratio))
            yield path, late * c, late * (slope + np.float32(delay) / ratio * c)

    def _through(self, echo: int, signals: Images) -> Images:
        """Coefficients (L, X, Y, Z) of the courses of an echo through its exact operator."""
        out = np.zeros_like(signals)
        for part in in_order(
            partial(self._paths[echo].seen_by, images=signals), self._sensitivities[echo], self.workers
        ):
            out += part
        return out

    def residuals(self, image: Image, ratio: Image) -> tuple[float, list[Images]]:
        """Value at s and r, (X, Y, Z) float32 each, and its derivatives by the signal's coefficients in each echo."""
        value, residuals = 0.0, []
        for echo, (_, c, _) in enumerate(self._decays(ratio)):
            signal = c * image
            residual = self._through(echo, signal) - self.right[echo]
            value += 0.5 * float(np.sum(signal * (residual - self.right[echo]), dtype=np.float64))
            residuals.append(residual)
        return value, residuals

    def having(self, right: list[Images]) -> DecayData:
        """The same scan with other data, which ``right`` stands for."""
        other = copy.copy(self)
        other.right = right
        return other

    def clean(self, image: Image, ratio: Image) -> list[Images]:
        """``right`` of s and r themselves."""
        return [self._through(echo, c * image) for echo, (_, c, _) in enumerate(self._decays(ratio))]

    def of_object(self, spins: Image, decay: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> list[Images]:
        """``right`` of an object (X, Y, Z) at the centre of the excitation with any decay from there on."""
        out = []
        for echo, (path, time_s) in enumerate(zip(self._paths, self.echo_times_s, strict=True)):
            course = decay(time_s + path.trajectory.time_s)
            shares = np.linalg.lstsq(path.basis.courses.T, course, rcond=None)[0].astype(np.float32)
            out.append(self._through(echo, shares[:, None, None, None] * spins))
        return out

    def of_noise(
        self, roots: Sequence[NDArray[np.complexfloating[Any]]], seed: int
    ) -> tuple[list[Images], list[Images]]:
        """``right`` of two samples of noise, which are as good as independent.

        Parameters
        ----------
        roots
            Of each echo a matrix (coils, coils) whose product with its own adjoint is the covariance of the channels'
            noise, counted per real component.
        """
        rng = np.random.default_rng(seed)
        found = []
        for path, maps, root in zip(self._paths, self._sensitivities, roots, strict=True):
            shape = path.trajectory.k_per_mm.shape[:2]
            draws = (rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0] for _ in maps)
            seen = np.tensordot(root.conj().T, maps, 1).astype(np.complex64)
            found.append(path.gathered(draws, seen))
        return [np.ascontiguousarray(f.real) for f in found], [np.ascontiguousarray(f.imag) for f in found]

    def gridded_of(self, right: Sequence[Images]) -> list[Image]:
        """Gridded images (X, Y, Z) of the echoes."""
        return [
            np.tensordot(path.basis.at(np.ones(())), images, 1) for path, images in zip(self._paths, right, strict=True)
        ]

    def at_excitation(self, image: Image, ratio: Image) -> Image:
        """The image x of s and r."""
        return np.asarray(image * ratio ** np.float32(-self.centre_s / self.scale_s))

    def near(self, image: Image, ratio: Image, residuals: Sequence[Images], stiffness: float) -> NearData:
        """A function like this one without coils, and with the same value and slopes at one point.

        Parameters
        ----------
        image, ratio, residuals
            The point, and :meth:`residuals` there.
        stiffness
            Factor on the second derivatives.
        """
        lags = [
            residual - np.float32(stiffness) * path.near(c * image)
            for residual, (path, c, _) in zip(residuals, self._decays(ratio), strict=True)
        ]
        return NearData(self._decays, lags, stiffness)


@dataclass(frozen=True)
class NearData:
    """What :meth:`DecayData.near` returns, seen from either unknown."""

    decays: Callable[[Image], Iterable[tuple[_Path, Images, Images]]] = field(repr=False)
    lags: list[Images] = field(repr=False)
    stiffness: float

    def by_image(self, ratio: Image) -> LeastSquares:
        """In s, where r is known."""
        echoes = list(self.decays(ratio))

        def normal(x: Image) -> Image:
            out = np.zeros_like(x)
            for path, c, _ in echoes:
                out += np.float32(self.stiffness) * np.einsum("l...,l...->...", c, path.near(c * x))
            return out

        right = np.zeros_like(ratio)
        for lag, (_, c, _) in zip(self.lags, echoes, strict=True):
            right -= np.einsum("l...,l...->...", c, lag)
        extremes = [int(np.argmin(ratio)), int(np.argmax(ratio))]
        peaks = sum(
            np.max(np.einsum("ln,l...->n...", c.reshape(len(c), -1)[:, extremes], path.on_grid) ** 2, axis=(1, 2, 3))
            for path, c, _ in echoes
        )
        bound = self.stiffness * float(np.max(peaks))
        return LeastSquares(normal, right, lambda: bound)

    def by_ratio(self, image: Image, ratio: Image) -> tuple[Callable[[Image], Image], Image]:
        """In r around a point: second derivatives (Gauss and Newton) as an operator on changes of r, and slopes."""
        echoes = list(self.decays(ratio))
        slopes = np.zeros_like(ratio)
        for lag, (path, c, slope) in zip(self.lags, echoes, strict=True):
            residual = np.float32(self.stiffness) * path.near(c * image) + lag
            slopes += image * np.einsum("l...,l...->...", slope, residual)

        def operator(change: Image) -> Image:
            out = np.zeros_like(change)
            for path, _, slope in echoes:
                moved = path.near(slope * (image * change))
                out += np.float32(self.stiffness) * image * np.einsum("l...,l...->...", slope, moved)
            return out

        return operator, slopes


class _Roughness:
    """``1/2 sum_r |D x|^2`` with ``D x = grad x - xi (xi . grad x)`` as in :class:`sodium_prep.recon.tv.Variation`."""

    def __init__(self, directions: Vectors | None) -> None:
        self._directions = directions
        # (1 - xi xi^T)^2 = 1 - (2 - |xi|^2) xi xi^T
        self._twice = None if directions is None else (2.0 - np.sum(directions**2, axis=0)) * directions

    def gradient(self, image: Image) -> Image:
        """``D^T D x``."""
        v = gradient(image)
        if self._directions is not None and self._twice is not None:
            v -= self._twice * np.einsum("c...,c...->...", self._directions, v)
        out = np.zeros_like(image)
        for axis, part in enumerate(v):
            moved, inner = np.moveaxis(out, axis, 0), np.moveaxis(part, axis, 0)[:-1]
            moved[:-1] -= inner
            moved[1:] += inner
        return out

    def value(self, image: Image) -> float:
        return 0.5 * float(np.sum(image * self.gradient(image), dtype=np.float64))


@dataclass(frozen=True)
class _RatioPrior:
    """``weight roughness(r)`` and the bounds of r."""

    weight: np.float32
    roughness: _Roughness
    bounds: tuple[float, float]

    def value(self, ratio: Image) -> float:
        return float(self.weight) * self.roughness.value(ratio)

    def step(
        self, ratio: Image, image: Image, second: Callable[[Image], Image], slopes: Image, steps: int = _RATIO_STEPS
    ) -> Image:
        """Newton's step for a function of r with these derivatives, plus the prior, clipped to the bounds.

        By conjugate gradients, each voxel in a scale of its own: ``image`` squared is near the second derivatives.
        """
        root = 1.0 / np.sqrt(image**2 + _MEAN_ROUGHNESS * self.weight)
        right = -root * (slopes + self.weight * self.roughness.gradient(ratio))

        def operator(change: Image) -> Image:
            moved = root * change
            return np.asarray(root * (second(moved) + self.weight * self.roughness.gradient(moved)))

        change = conjugate_gradients(operator, right, np.zeros_like(right), steps, _EXACT)
        return np.asarray(np.clip(ratio + root * change, *self.bounds))


@dataclass(frozen=True)
class DecayImages:
    """Image and decay.

    Attributes
    ----------
    image
        (X, Y, Z) float32, signal per mm^3 at the centre of the excitation, before any decay.
    t2star_s
        (X, Y, Z) float32, seconds; NaN where the image is at the level of the noise or ``clipped`` is not 0.
    ratio
        (X, Y, Z) float32, ``exp(-scale_s / T2*)``.
    clipped
        (X, Y, Z) int8: 1 where T2* is too long to be told from no decay (above 100 ``scale_s``), -1 where it is too
        short (below 0.4 ``scale_s``).
    scale_s
        Mean distance between the echoes.
    """

    image: Image
    t2star_s: Image
    ratio: Image
    clipped: NDArray[np.int8]
    scale_s: float


class JointSolver:
    """Images s and ``r = exp(-scale / T2*)`` of least data term + ``weight sum |D s| + 1/2 (sd / step)^2 sum |D r|^2``.

    The data term is :class:`DecayData`'s, and ``D x = grad x - xi (xi . grad x)`` with the directions xi of
    :func:`sodium_prep.recon.agr.edge_directions`. Each round looks at the data once, and goes down a function that
    agrees with the data term there and bounds it elsewhere, in which no coil and no doubled grid takes part; a round
    that went up instead is taken back and gone again with a steeper one. The problem is not convex in s and r together;
    it starts from the gridded echoes.

    Parameters
    ----------
    data
        Of the scan.
    weight
        Of directional total variation, in the units of the image. ``noise_sd`` for two echoes, which together weigh
        nearly twice as much as the one of :func:`sodium_prep.recon.agr.agr`.
    noise_sd
        Standard deviation of the noise in the gridded image of one echo.
    guide
        T1w image (X, Y, Z) on the grid of the sodium image; None for priors that know no anatomy.
    ratio_step
        Difference of r between neighbours that counts as much as a standard deviation of the noise.

    Raises
    ------
    ValueError
        If there is no noise, or the guide does not fit.
    """

    def __init__(
        self,
        data: DecayData,
        weight: float,
        noise_sd: float,
        guide: NDArray[Any] | None = None,
        ratio_step: float = 0.1,
    ) -> None:
        if not noise_sd > 0.0:
            raise ValueError(f"the noise's standard deviation must be positive, got {noise_sd}")
        if guide is not None and guide.shape != data.shape:
            raise ValueError(f"the anatomical image has the grid {guide.shape}, the sodium image {data.shape}")
        directions = None if guide is None else edge_directions(guide)
        self.data, self.weight, self.noise_sd = data, weight, noise_sd
        self._variation = Variation(data.shape, directions)
        self._prior = _RatioPrior(np.float32((noise_sd / ratio_step) ** 2), _Roughness(directions), data.bounds)

    def start(self) -> tuple[Image, Image]:
        """Of the first gridded echo s, and the smooth r that makes the last echo's of it."""
        data, gridded = self.data, self.data.gridded_of(self.data.right)
        order = np.argsort(data.echo_times_s)
        first, last = gridded[order[0]], gridded[order[-1]]
        between = (data.echo_times_s[order[-1]] - data.echo_times_s[order[0]]) / data.scale_s
        ratio = np.full_like(first, np.clip(np.sum(first * last) / np.sum(first**2), *data.bounds))
        slopes = first * (first * ratio - last)
        ratio = self._prior.step(ratio, first, lambda change: first**2 * change, slopes, _FIRST_STEPS)
        ratio = np.clip(ratio ** np.float32(1.0 / between), *data.bounds)
        delay = np.float32((data.centre_s - data.echo_times_s[order[0]]) / data.scale_s)
        return first * ratio**delay, ratio

    def __call__(
        self,
        data: DecayData,
        start: tuple[Image, Image],
        rounds: int = ROUNDS,
        tolerance: float = 2e-3,
        progress: Progress | None = None,
        ratio_known: bool = False,
    ) -> tuple[Image, Image]:
        """Images s and r, (X, Y, Z) float32, of data of this scan.

        Parameters
        ----------
        start
            s and r to begin with.
        rounds, tolerance
            At most so many rounds; done when one changes s, and the effect of r on it, by less than this part.
        progress
            Called after each round.
        ratio_known
            Keep r as it is.
        """
        variation, prior, weight = self._variation, self._prior, self.weight

        def proximal(image: Image, step: float) -> Image:
            return variation.proximal(image, step * weight)

        def look(s: Image, r: Image) -> tuple[float, list[Images]]:
            value, residuals = data.residuals(s, r)
            return value + weight * variation.value(s) + prior.value(r), residuals

        s, r = ahead, ahead_r = start
        least, residuals = look(s, r)
        stiffness, age = 1.0, 0
        for number in range(rounds):
            near = data.near(ahead, ahead_r, residuals, stiffness)
            new_s = fista(near.by_image(ahead_r), proximal, _IMAGE_STEPS, 0.0, ahead)
            new_r = r if ratio_known else prior.step(ahead_r, new_s, *near.by_ratio(new_s, ahead_r))
            momentum = np.float32(age / (age + _MOMENTUM))
            further = new_s + momentum * (new_s - s)
            further_r = np.clip(new_r + momentum * (new_r - r), *data.bounds)
            value, found = look(further, further_r)
            if value > least + _ROUNDING * abs(least) and age:
                further, further_r, age = new_s, new_r, 0
                value, found = look(further, further_r)
            if progress is not None:
                progress(number + 1, rounds)
            if value > least + _ROUNDING * abs(least):
                stiffness *= 2.0
                continue
            small = tolerance * np.linalg.norm(new_s)
            done = np.linalg.norm(new_s - s) < small and np.linalg.norm(new_s * (new_r - r)) < small
            s, r, ahead, ahead_r, residuals, least, age = new_s, new_r, further, further_r, found, value, age + 1
            if done:
                break
        return s, r

    def images(self, s: Image, r: Image) -> DecayImages:
        """What s and r say of the object."""
        x = self.data.at_excitation(s, r)
        clipped = (r > _TOLD[1]).astype(np.int8) - (r < _TOLD[0]).astype(np.int8)
        t2star = np.full(x.shape, np.nan, np.float32)
        known = (x > _SIGNAL * self.noise_sd) & (clipped == 0)
        t2star[known] = -self.data.scale_s / np.log(r[known])
        return DecayImages(x, t2star, r, clipped, self.data.scale_s)
