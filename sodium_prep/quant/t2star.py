"""T2* from several echoes: one or two exponentials, by the likelihood of the noise that the images have.

Magnitudes are Rician or, as a root sum of squares over channels, non-central chi; at late echoes their floor reads as
slow decay to any least-squares fit. Here the likelihood holds the floor (Sijbers et al., IEEE Trans Med Imaging
1998;17:357), so nothing is subtracted first. With the measured magnitude M, the true one m and the noise s of each part
of a channel, ``z = M m / s^2`` and ``R = I_L(z) / I_{L-1}(z)``, its slope in m is ``(M R - m) / s^2`` and its curvature
``(1 - (M / s)^2 (1 - R^2 - (2 L - 1) R / z)) / s^2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from sodium_prep.errors import InputError
from sodium_prep.quant.noise import correct_magnitude, nc_chi_mean, nc_chi_sd

Array = NDArray[np.float64]
Model = Literal["mono", "biexponential"]
Law = Literal["gaussian", "rician"]
Interval = Literal["profile", "wald"]

PARAMETERS: Final[dict[Model, tuple[str, ...]]] = {
    "mono": ("amplitude", "t2star"),
    "biexponential": ("amplitude", "fraction_fast", "t2star_fast", "t2star_slow"),
}
"""What each model has: signal at time zero, signal fraction of the fast component, times in seconds."""
LEAST_ECHOES: Final[dict[Model, int]] = {"mono": 2, "biexponential": 4}
MINIMUM_SNR: Final = 5.0
"""First echo over noise below which a voxel has no value."""

_REACH: Final = 10.0
"""Times are sought from a tenth of the smallest step between echoes, or the first if it is less, to ten times their
span."""
_TYPICAL: Final = (100.0, 0.6, 0.0035, 0.024)
"""Tissue at 3 T (Riemer et al., NMR Biomed 2018) at a signal-to-noise ratio of 100."""
_MOST_ERROR: Final = 0.5
"""Relative standard error of a time in such tissue above which echoes count as unfit to tell two components."""
_MISFIT_P: Final = 0.001
_STEPS, _PROFILE_STEPS = 500, 12
_CHUNK: Final = 16384
_TINY: Final = 1e-12


class Flag(IntFlag):
    """What is to be known of a fit; several may hold at once."""

    BELOW_NOISE = 1
    """The first echo is not clearly above noise, or a value is missing: no fit."""
    AT_BOUND = 2
    """A time or the fraction ended at the limit of what the echoes can tell; such a time is NaN."""
    NOT_CONVERGED = 4
    """The search found no end: no values."""
    UNTESTED = 8
    """As many parameters as echoes: nothing checks the model."""
    MISFIT = 16
    """The model leaves more than noise does (p below 0.001)."""


@dataclass(frozen=True)
class T2starFit:
    """Parameters of a model in each voxel or of each curve.

    Attributes
    ----------
    model, interval
        As fitted, and how the 95 % intervals were found.
    values, stderr, low, high
        By the names of :data:`PARAMETERS`, each of the shape of the voxels; NaN where there is no value. ``stderr`` is
        from the observed information. An interval that the data leave open ends at 0 or infinity.
    chi2
        Pearson's statistic per degree of freedom; NaN where there is none.
    flags : uint8
        Of :class:`Flag`; 0 where nothing is against the fit.
    """

    model: Model
    interval: Interval
    values: Mapping[str, Array]
    stderr: Mapping[str, Array]
    low: Mapping[str, Array]
    high: Mapping[str, Array]
    chi2: Array
    flags: NDArray[np.uint8]


def fit_t2star(
    signals: ArrayLike,
    echo_times_s: Sequence[float],
    noise_sd: ArrayLike,
    *,
    model: Model = "mono",
    law: Law = "rician",
    n_channels: int = 1,
    interval: Interval = "profile",
    minimum_snr: float = MINIMUM_SNR,
    where: str = "echoes",
) -> T2starFit:
    """Fit the decay over echoes by maximum likelihood.

    The best of a grid of times by non-negative least squares starts a damped Newton search on the exact likelihood
    within bounds. Times are sought on a logarithmic scale.

    Parameters
    ----------
    signals
        Shape (..., echoes): magnitudes as they are, floor and all, or real values with noise of mean zero.
    echo_times_s
        Rising, seconds.
    noise_sd
        Standard deviation of the noise, of each part of a channel for magnitudes; broadcasts against ``signals``.
    model
        ``mono`` or ``biexponential``.
    law
        ``rician`` for magnitudes (non-central chi with ``n_channels`` above 1), ``gaussian`` for real values, of which
        a mean over voxels is one too.
    interval
        ``profile``: where twice the logarithm of the profile likelihood has fallen by 3.84; ``wald``: 1.96 standard
        errors, of the logarithm for times. Profile intervals hold at low signal, and cost several times the fit.
    minimum_snr
        First echo over noise below which there is no fit.
    where
        For messages.

    Raises
    ------
    InputError
        If the echoes are too few for the model, do not rise, or cannot tell two components.
    """
    times = check_echo_times(echo_times_s, model, where)
    data = np.asarray(signals, dtype=float)
    if data.shape[-1] != len(times):
        raise ValueError(f"{data.shape[-1]} signals for {len(times)} echo times")
    shape, channels = data.shape[:-1], n_channels if law == "rician" else 0
    flat = data.reshape(-1, len(times))
    sd = np.broadcast_to(np.asarray(noise_sd, dtype=float), data.shape).reshape(flat.shape)
    first = correct_magnitude(flat[:, 0], sd[:, 0], channels) if channels else flat[:, 0]
    seen = np.isfinite(flat).all(axis=1) & (sd > 0.0).all(axis=1) & (first >= minimum_snr * sd[:, 0])
    names, n = PARAMETERS[model], len(flat)
    columns = {kind: np.full((n, len(names)), np.nan) for kind in ("values", "stderr", "low", "high")}
    chi2, flags = np.full(n, np.nan), np.where(seen, 0, int(Flag.BELOW_NOISE)).astype(np.uint8)
    kept = np.flatnonzero(seen)
    for start in range(0, len(kept), _CHUNK):
        some = kept[start : start + _CHUNK]
        problem = _Problem(model, times, flat[some], sd[some], channels)
        found = problem.solve(interval)
        for kind, column in columns.items():
            column[some] = found[kind]
        chi2[some], flags[some] = found["chi2"], found["flags"]
    out = {
        kind: {name: column[:, i].reshape(shape) for i, name in enumerate(names)} for kind, column in columns.items()
    }
    return T2starFit(model, interval, **out, chi2=chi2.reshape(shape), flags=flags.reshape(shape))


def check_echo_times(echo_times_s: Sequence[float], model: Model, where: str = "echoes") -> Array:
    """Echo times that a model can be fitted to.

    Two exponentials need, besides four echoes, times at which both components change: echoes are refused that would
    leave a standard error above 50 % in a time of tissue (T2* 3.5 and 24 ms, 0.6 fast) at a signal-to-noise ratio of
    100, by the Cramer-Rao bound.

    Raises
    ------
    InputError
        If they are too few, do not rise, or tell too little.
    """
    times = np.asarray(echo_times_s, dtype=float)
    least = LEAST_ECHOES[model]
    if len(times) < least:
        name = "one exponential" if model == "mono" else "two exponentials"
        problem = f"has {len(times)} echo{'es' * (len(times) != 1)}, and T2* by {name} needs at least {least}"
        raise InputError(where, problem, "Acquire more echoes" if model == "mono" else "Use one exponential")
    if not (np.diff(times) > 0.0).all() or times[0] <= 0.0:
        raise InputError(where, "has echo times that do not rise from above zero", "Correct EchoTime, in seconds")
    if model == "biexponential":
        theta = np.array([_TYPICAL])
        theta[:, 2:] = np.log(theta[:, 2:])
        jacobian = _model(model, theta, times)[1]
        errors = np.sqrt(np.abs(np.diagonal(np.linalg.pinv(jacobian[0].T @ jacobian[0]))))[2:]
        if not (worst := float(errors.max())) <= _MOST_ERROR:
            span = ", ".join(f"{1e3 * t:g}" for t in times)
            problem = (
                f"has echoes at {span} ms, which do not span both components: the T2* of tissue would have a "
                f"standard error of {100 * worst:.0f} % at a signal-to-noise ratio of 100"
            )
            raise InputError(where, problem, "Use one exponential")
    return times


def _model(model: Model, theta: Array, times: Array) -> tuple[Array, Array]:
    """Signal (voxels, echoes) and its derivatives (voxels, echoes, parameters); times enter as logarithms."""
    amplitude = theta[:, :1]
    rates = times / np.exp(theta[:, -1:])
    if model == "mono":
        decay = np.exp(-rates)
        signal = amplitude * decay
        return signal, np.stack([decay, signal * rates], axis=-1)
    share, fast_rates = theta[:, 1:2], times / np.exp(theta[:, 2:3])
    fast, slow = np.exp(-fast_rates), np.exp(-rates)
    decay = share * fast + (1.0 - share) * slow
    derivatives = [
        decay,
        amplitude * (fast - slow),
        amplitude * share * fast * fast_rates,
        amplitude * (1.0 - share) * slow * rates,
    ]
    return amplitude * decay, np.stack(derivatives, axis=-1)


def _likelihood(data: Array, signal: Array, sd: Array, channels: int) -> tuple[Array, Array, Array]:
    """Logarithm of the likelihood up to a constant, its slope and minus its curvature in each signal.

    ``channels`` 0 stands for Gaussian noise.
    """
    inverse = 1.0 / sd**2
    log = -0.5 * (data - signal) ** 2 * inverse
    if channels == 0:
        return log, (data - signal) * inverse, np.broadcast_to(inverse, data.shape)
    z = np.maximum(data * signal * inverse, _TINY)
    if channels == 1:
        lower = special.i0e(z)
        ratio = special.i1e(z) / lower
        log = log + np.log(lower)
    else:
        order = channels - 1.0
        lower = special.ive(order, z)
        small = lower < 1e-290
        safe = np.where(small, 1.0, lower)
        ratio = np.where(small, 0.5 * z / channels, special.ive(order + 1.0, z) / safe)
        # I_v(z) / z^v: its limit for small z is 1 / (2^v v!).
        limit = -z - order * np.log(2.0) - special.gammaln(order + 1.0)
        log = log + np.where(small, limit, np.log(safe) - order * np.log(z))
    slope = (data * ratio - signal) * inverse
    bend = 1.0 - ratio**2 - (2.0 * channels - 1.0) * ratio / z
    return log, slope, (1.0 - data**2 * inverse * bend) * inverse


class _Problem:
    """Many voxels with the same echo times."""

    def __init__(self, model: Model, times: Array, data: Array, sd: Array, channels: int) -> None:
        self.model, self.times, self.data, self.sd, self.channels = model, times, data, sd, channels
        low = np.log(min(float(np.diff(times).min()), times[0] * _REACH) / _REACH)
        high = np.log(_REACH * (times[-1] - times[0]))
        n_times = 1 if model == "mono" else 2
        self.lower = np.array([0.0, *([0.0] if n_times == 2 else []), *[low] * n_times])
        self.upper = np.array([np.inf, *([1.0] if n_times == 2 else []), *[high] * n_times])

    def solve(self, interval: Interval) -> dict[str, NDArray[np.generic]]:
        """Values, standard errors, intervals, fit and flags of every voxel."""
        n, size = len(self.data), len(self.lower)
        everything = np.arange(n)
        theta, best, converged = self._climb(self._start(), everything, np.ones(size, bool))
        if size == 4:
            swapped = theta[:, 2] > theta[:, 3]
            theta[swapped] = theta[swapped][:, [0, 1, 3, 2]]
            theta[swapped, 1] = 1.0 - theta[swapped, 1]
        bound = self._at_bound(theta)
        error = self._errors(theta, bound)
        ends = [theta - 1.96 * error, theta + 1.96 * error]
        if interval == "profile":
            ends = [self._profile_ends(theta, best, error, bound, sign) for sign in (-1.0, 1.0)]
        low, high = (np.clip(end, self._open(0), self._open(1)) for end in ends)
        chi2, misfit = self._misfit(theta)
        flags = np.where(bound.any(axis=1), int(Flag.AT_BOUND), 0) | np.where(misfit, int(Flag.MISFIT), 0)
        flags |= np.where(converged, 0, int(Flag.NOT_CONVERGED))
        if len(self.times) == size:
            flags |= int(Flag.UNTESTED)
        values, is_time = theta.copy(), np.arange(size) >= size // 2
        with np.errstate(over="ignore"):
            for part in (values, low, high):
                part[:, is_time] = np.exp(part[:, is_time])
        error[:, is_time] *= values[:, is_time]
        values[bound & is_time] = np.nan
        for part in (values, error, low, high):
            part[~converged] = np.nan
        return {"values": values, "stderr": error, "low": low, "high": high, "chi2": chi2, "flags": flags}

    def _open(self, end: int) -> Array:
        """Where an interval ends that the data leave open."""
        natural = [[0.0, np.inf], [0.0, 1.0]][: len(self.lower) // 2]
        return np.array([*(pair[end] for pair in natural), *[(-np.inf, np.inf)[end]] * (len(self.lower) // 2)])

    def _at_bound(self, theta: Array) -> NDArray[np.bool_]:
        near = (theta <= self.lower + 1e-6) | (theta >= self.upper - 1e-6)
        if len(self.lower) == 4:
            # A component without a share has no time.
            near[:, 2] |= theta[:, 1] <= self.lower[1] + 1e-6
            near[:, 3] |= theta[:, 1] >= self.upper[1] - 1e-6
        return np.asarray(near)

    def _start(self) -> Array:
        """Best of a grid of times by non-negative least squares."""
        y = correct_magnitude(self.data, self.sd, self.channels) if self.channels else self.data
        weight = 1.0 / self.sd[0]
        y = np.asarray(y, dtype=float) * weight
        grid = np.linspace(self.lower[-1], self.upper[-1], 40 if self.model == "mono" else 24)
        waves = np.exp(-self.times / np.exp(grid[:, None])) * weight
        along, norms = y @ waves.T, (waves**2).sum(axis=1)
        single = np.maximum(along, 0.0) ** 2 / norms
        chosen = np.argmax(single, axis=1)
        rows = np.arange(len(y))
        amplitude = np.maximum(along[rows, chosen] / norms[chosen], self.sd[:, 0])
        if self.model == "mono":
            return np.column_stack([amplitude, grid[chosen]])
        gain, theta = (
            single[rows, chosen],
            np.column_stack([amplitude, np.full(len(y), 0.5), grid[chosen] - 1.0, grid[chosen]]),
        )
        for i in range(len(grid)):
            for j in range(i + 2, len(grid)):
                cross = waves[i] @ waves[j]
                det = norms[i] * norms[j] - cross**2
                if det < 1e-6 * norms[i] * norms[j]:
                    continue
                a = (norms[j] * along[:, i] - cross * along[:, j]) / det
                b = (norms[i] * along[:, j] - cross * along[:, i]) / det
                gained = a * along[:, i] + b * along[:, j]
                better = (a > 0.0) & (b > 0.0) & (gained > gain)
                gain = np.where(better, gained, gain)
                theta[better] = np.column_stack(
                    [a + b, a / np.where(better, a + b, 1.0), np.full(len(a), grid[i]), np.full(len(a), grid[j])]
                )[better]
        return np.clip(theta, self.lower, self.upper)

    def _climb(
        self, theta: Array, rows: NDArray[np.intp], free: NDArray[np.bool_], steps: int = _STEPS
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Damped Newton steps within the bounds on the free parameters of some voxels.

        Returns the parameters, the best logarithm of the likelihood, and whether the search found an end.
        """
        theta, active, converged = theta.copy(), np.arange(len(rows)), np.zeros(len(rows), bool)
        damping = np.full(len(rows), 1e-3)
        best, gradient, hessian = self._evaluate(theta, rows)
        for _ in range(steps):
            before, tight = theta[active], damping[active]
            trial = np.clip(before + self._step(gradient, hessian, before, tight, free), self.lower, self.upper)
            total, new_gradient, new_hessian = self._evaluate(trial, rows[active])
            gain = total - best[active]
            taken = gain >= 0.0
            moved = np.abs(trial - before)
            moved[:, 0] /= np.maximum(before[:, 0], _TINY)
            still = moved.max(axis=1) < 1e-5
            done = still | (taken & (gain < 1e-6)) | (tight > 1e8)
            theta[active[taken]], best[active[taken]] = trial[taken], total[taken]
            damping[active] = np.where(taken, np.maximum(0.3 * tight, 1e-7), 4.0 * tight)
            converged[active[done]] = True
            gradient = np.where(taken[:, None], new_gradient, gradient)[~done]
            hessian = np.where(taken[:, None, None], new_hessian, hessian)[~done]
            active = active[~done]
            if not len(active):
                break
        return theta, best, converged

    def _evaluate(self, theta: Array, rows: NDArray[np.intp]) -> tuple[Array, Array, Array]:
        """Logarithm of the likelihood with its gradient and what stands for minus its second derivative."""
        data, sd = self.data[rows], self.sd[rows]
        signal, jacobian = _model(self.model, theta, self.times)
        log, slope, curvature = _likelihood(data, signal, sd, self.channels)
        # Far below the floor the likelihood is convex: there a little curvature stands for the true one.
        weight = np.maximum(curvature, 0.05 / sd**2)
        turned = np.swapaxes(jacobian, 1, 2)
        return log.sum(axis=1), (turned @ slope[..., None])[..., 0], (turned * weight[:, None, :]) @ jacobian

    def _step(self, gradient: Array, hessian: Array, theta: Array, damping: Array, free: NDArray[np.bool_]) -> Array:
        stuck = ((theta <= self.lower) & (gradient < 0.0)) | ((theta >= self.upper) & (gradient > 0.0)) | ~free
        size = theta.shape[1]
        diagonal = np.einsum("vpp->vp", hessian)
        moving = ~stuck & (diagonal > _TINY * diagonal.max(axis=1, keepdims=True))
        matrix = np.where(moving[:, :, None] & moving[:, None, :], hessian, 0.0)
        matrix[:, range(size), range(size)] = np.where(moving, diagonal * (1.0 + damping[:, None]) + _TINY, 1.0)
        step = np.linalg.solve(matrix, np.where(moving, gradient, 0.0)[..., None])[..., 0]
        # A step of one in the logarithm of a time is as far as a quadratic model can be believed.
        half = size // 2
        step[:, half:] = np.clip(step[:, half:], -1.0, 1.0)
        return np.asarray(step)

    def _errors(self, theta: Array, bound: NDArray[np.bool_]) -> Array:
        """Standard errors from the observed information; parameters at a bound have none and count as known."""
        signal, jacobian = _model(self.model, theta, self.times)
        curvature = np.maximum(_likelihood(self.data, signal, self.sd, self.channels)[2], 0.0)
        matrix = np.einsum("vep,veq->vpq", jacobian * curvature[..., None], jacobian)
        size = theta.shape[1]
        matrix[bound] = 0.0
        np.swapaxes(matrix, 1, 2)[bound] = 0.0
        matrix[:, range(size), range(size)] += bound
        scale = np.sqrt(np.maximum(np.einsum("vpp->vp", matrix), 1e-300))
        scaled = matrix / scale[:, :, None] / scale[:, None, :]
        values, vectors = np.linalg.eigh(scaled)
        variances = np.einsum("vpk,vk->vp", vectors**2, 1.0 / np.maximum(values, 1e-14))
        return np.where(bound, np.nan, np.sqrt(variances) / scale)

    def _profile_ends(self, theta: Array, best: Array, error: Array, bound: NDArray[np.bool_], sign: float) -> Array:
        """One end of the interval of every parameter by profile likelihood."""
        return np.column_stack([self._profile_end(k, theta, best, error, bound, sign) for k in range(theta.shape[1])])

    def _profile_end(
        self, k: int, theta: Array, best: Array, error: Array, bound: NDArray[np.bool_], sign: float
    ) -> Array:
        """Where the signed root of the deviance, nearly a straight line, is 1.96."""
        root = np.sqrt(stats.chi2.ppf(0.95, 1))
        limit = self.upper[k] if sign > 0 else self.lower[k]
        free = np.arange(theta.shape[1]) != k
        largest = np.inf if k == 0 else 0.5 if k < theta.shape[1] // 2 else 1.0
        end = np.full(len(theta), np.inf * sign)
        # A share of nothing or of all is a value, with one end of its interval within; a time at a bound is none.
        known = ~bound[:, k] | (theta.shape[1] == 4 and k == 1)
        rows = np.flatnonzero(known)
        inner, outer = np.zeros(len(rows)), np.full(len(rows), np.inf)
        at_inner, at_outer = np.zeros(len(rows)), np.full(len(rows), np.nan)
        room = np.abs(limit - theta[rows, k])
        distance = np.minimum(np.minimum(root * np.nan_to_num(error[rows, k], nan=1.0), largest), room)
        warm = theta[rows].copy()
        for _ in range(_PROFILE_STEPS):
            start = warm.copy()
            start[:, k] = theta[rows, k] + sign * distance
            warm, likely, _ = self._climb(start, rows, free, 60)
            value = np.sqrt(np.maximum(2.0 * (best[rows] - likely), 0.0))
            close = np.abs(value - root) < 0.01
            closed = (value < root) & (distance >= room)
            end[rows[close]] = warm[close, k]
            left = ~(close | closed)
            short = value < root
            inner, at_inner = np.where(short, distance, inner), np.where(short, value, at_inner)
            outer, at_outer = np.where(short, outer, distance), np.where(short, at_outer, value)
            with np.errstate(invalid="ignore"):
                between = inner + (outer - inner) * np.clip((root - at_inner) / (at_outer - at_inner), 0.1, 0.9)
            further = np.minimum(distance * np.clip(root / np.maximum(value, 1e-3), 1.2, 3.0), room)
            distance = np.where(np.isfinite(outer), between, further)
            rows, warm, distance, room = rows[left], warm[left], distance[left], room[left]
            inner, outer, at_inner, at_outer = inner[left], outer[left], at_inner[left], at_outer[left]
            if not len(rows):
                break
        # What is not close by now lies between the last two: the farther of them is on the safe side.
        rest = np.isfinite(outer)
        end[rows[rest]] = theta[rows[rest], k] + sign * outer[rest]
        end[~known] = np.nan
        return end

    def _misfit(self, theta: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Pearson's statistic per degree of freedom, and whether it is more than noise gives."""
        freedom = len(self.times) - theta.shape[1]
        if freedom < 1:
            return np.full(len(theta), np.nan), np.zeros(len(theta), bool)
        signal, _ = _model(self.model, theta, self.times)
        expected, spread = signal, self.sd
        if self.channels:
            ratio = signal / self.sd
            expected = self.sd * nc_chi_mean(ratio, 1.0, self.channels)
            spread = self.sd * nc_chi_sd(ratio, 1.0, self.channels)
        total = (((self.data - expected) / spread) ** 2).sum(axis=1)
        return total / freedom, total > stats.chi2.isf(_MISFIT_P, freedom)
