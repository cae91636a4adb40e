"""Histogram model of a T1-weighted brain: three pure tissues, two mixtures of neighbours, and outliers.

With the bias removed, a voxel holds CSF, grey matter, white matter, or a linear mixture of CSF and grey or of grey and
white matter (Santago and Gage, IEEE Trans Image Process 1995; Shattuck et al., NeuroImage 2001). Shares that are all
alike have the density ``[Phi((u - mu_j)/sigma) - Phi((u - mu_k)/sigma)] / (mu_k - mu_j)`` for tissues j < k seen with
noise sigma. But no image is as sharp as its voxels: across a blurred border the share runs like the integral of the
blur, and spends longer near its ends than in the middle. Of a Gaussian blur, shares below 15 % and above 85 % have
three tenths each. With shares all alike, the little fluid in grey matter at its border counts as noise: cortex loses a
percent of its volume in CSF, and gains 2 to 3 % in sodium.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, ndtr, softmax

Array = NDArray[np.float64]

N_CLASSES: Final = 5
"""CSF, CSF-GM, GM, GM-WM, WM: in order of intensity."""
_SHARE_EDGES: Final = np.array([0.0, 0.15, 0.85, 1.0])
_SHARE_DENSITY: Final = np.array([0.3, 0.4, 0.3]) / np.diff(_SHARE_EDGES)
"""Density of the share of the brighter tissue in a mixed voxel, by pieces."""
_OUTLIERS: Final = 0.005
_HIGHEST: Final = 2.0
_MIN_SD, _MAX_SD = 0.008, 0.12
# Priors, as a part of the data: a mixture class that takes all the histogram for itself tells nothing of the bias, and
# that is where the fit ends up under a steep one.
_USUAL_SHARES: Final = np.array([0.05, 0.15, 0.35, 0.2, 0.25])
_USUAL_SD: Final = 0.04
_SHARE_WEIGHT: Final = 0.1
_SD_WEIGHT: Final = 0.08


@dataclass(frozen=True)
class Mixture:
    """Parameters of the model; intensities relative to the rough white-matter level.

    Attributes
    ----------
    means, sds : (3,)
        CSF, GM, WM.
    shares : (5,)
        Prior probability of each class, summing to 1.
    log_likelihood
        Mean per voxel of the data that it was fitted to, priors included.
    """

    means: Array
    sds: Array
    shares: Array
    log_likelihood: float = float("nan")

    def densities(self, values: Array, extra_sd: float = 0.0) -> Array:
        """Density of each class at intensities (...): (5, ...)."""
        u = np.asarray(values, dtype=np.float64)
        sds = np.hypot(self.sds, extra_sd)
        out = np.empty((N_CLASSES, *u.shape))
        for k in range(3):
            out[2 * k] = np.exp(-0.5 * ((u - self.means[k]) / sds[k]) ** 2) / (sds[k] * np.sqrt(2.0 * np.pi))
        # Below pure CSF there is nothing else within a brain.
        out[0] = np.where(u < self.means[0], np.maximum(out[0], 1e-3), out[0])
        for k in range(2):
            low, high, sd = self.means[k], self.means[k + 1], (sds[k] + sds[k + 1]) / 2.0
            below = [ndtr((u - low - edge * (high - low)) / sd) for edge in _SHARE_EDGES]
            parts = [density * (a - b) for density, (a, b) in zip(_SHARE_DENSITY, pairwise(below), strict=True)]
            out[2 * k + 1] = np.sum(parts, axis=0) / (high - low)
        return out

    def share_between(self, values: Array, noise_sd: Array, low: int, high: int) -> Array:
        """Expected share of the brighter of two tissues in voxels that hold nothing else.

        Parameters
        ----------
        values, noise_sd : (n,)
            Intensities, and the factor on the standard deviations of each.
        low, high
            Positions of the tissues among CSF, GM, WM.
        """
        sd = (self.sds[low] + self.sds[high]) / 2.0 * noise_sd
        return _expected_share(np.asarray(values, np.float64), self.means[low], self.means[high], sd)[0]

    def log_density(self, values: Array, extra_sd: float = 0.0) -> Array:
        """Logarithm of the density of all classes together, outliers included."""
        mixed = np.tensordot(self.shares, self.densities(values, extra_sd), 1)
        return np.asarray(np.log((1.0 - _OUTLIERS) * mixed + _OUTLIERS / _HIGHEST))


def fit_mixture(values: Array, start: Mixture | None = None) -> Mixture:
    """Most probable mixture given intensities, through their histogram.

    Parameters
    ----------
    values : (n,)
        Intensities relative to the rough white-matter level.
    start
        Where to begin; without one several contrasts are tried and the likeliest is kept.
    """
    counts, edges = np.histogram(values, 500, range=(0.0, _HIGHEST))
    centres = (edges[:-1] + edges[1:]) / 2.0
    if start is not None:
        return _fit(centres, counts, start)
    starts = [
        Mixture(np.array([csf, grey, 1.0]), np.full(3, 0.05), _USUAL_SHARES)
        for grey in (0.55, 0.65, 0.75, 0.85)
        for csf in (0.3 * grey, 0.6 * grey)
    ]
    return max((_fit(centres, counts, each) for each in starts), key=lambda fit: fit.log_likelihood)


def _fit(centres: Array, counts: NDArray[np.int64], start: Mixture) -> Mixture:
    weights = counts / counts.sum()

    def unpack(p: Array) -> Mixture:
        gaps = np.exp(p[:3])
        return Mixture(np.cumsum(gaps), np.exp(p[3:6]), softmax(p[6:]))

    def cost(p: Array) -> float:
        mixture = unpack(p)
        prior = _SHARE_WEIGHT * float(_USUAL_SHARES @ np.log(mixture.shares))
        prior -= 0.5 * _SD_WEIGHT * float(np.sum(np.log(mixture.sds / _USUAL_SD) ** 2))
        return -float(weights @ mixture.log_density(centres)) - prior

    first = np.concatenate(
        [
            np.log(np.diff(start.means, prepend=0.0)),
            np.log(np.clip(start.sds, _MIN_SD, _MAX_SD)),
            log_softmax(np.log(np.maximum(start.shares, 1e-6))),
        ]
    )
    bounds = [(-4.0, 0.5)] + [(-3.5, 0.0)] * 2 + [(np.log(_MIN_SD), np.log(_MAX_SD))] * 3 + [(-8.0, 3.0)] * N_CLASSES
    result = minimize(cost, first, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200})
    best = unpack(result.x)
    return Mixture(best.means, best.sds, best.shares, -float(result.fun))


def posterior(mixture: Mixture, values: Array, shares: Array, noise_sd: Array | None = None) -> tuple[Array, Array]:
    """Class probabilities and expected tissue fractions of voxels.

    The expectation of the fraction, not the most probable one: its error does not correlate with itself, so that
    regional sums, and regressions on it, are free of bias.

    Parameters
    ----------
    mixture
        The fitted model.
    values : (n,)
        Intensities.
    shares : (5, n)
        Prior probability of the classes, per voxel.
    noise_sd : (n,)
        Factor on the standard deviations of each voxel; ones if left out.

    Returns
    -------
    probabilities : (5, n)
    fractions : (3, n)
        CSF, GM, WM; sum 1.
    """
    u = np.asarray(values, dtype=np.float64)
    factor = np.ones_like(u) if noise_sd is None else noise_sd
    probabilities = np.empty((N_CLASSES, *u.shape))
    fractions = np.zeros((3, *u.shape))
    means, sds = mixture.means, mixture.sds
    for k in range(3):
        sd = sds[k] * factor
        distance = (u - means[k]) / sd
        if k == 0:
            distance = np.maximum(distance, 0.0)
        if k == 2:
            distance = np.minimum(distance, 0.0)
        probabilities[2 * k] = shares[2 * k] * np.exp(-0.5 * distance**2) / (sd * np.sqrt(2.0 * np.pi))
    upper = []
    for k in range(2):
        share, density = _expected_share(u, means[k], means[k + 1], (sds[k] + sds[k + 1]) / 2.0 * factor)
        probabilities[2 * k + 1] = shares[2 * k + 1] * density
        upper.append(share)
    probabilities /= np.maximum(probabilities.sum(axis=0), 1e-30)
    csf_grey, grey_white = probabilities[1], probabilities[3]
    fractions[0] = probabilities[0] + csf_grey * (1.0 - upper[0])
    fractions[2] = probabilities[4] + grey_white * upper[1]
    fractions[1] = 1.0 - fractions[0] - fractions[2]
    return probabilities, fractions


def _expected_share(u: Array, low: float, high: float, sd: Array) -> tuple[Array, Array]:
    """Mean of the share of the brighter tissue in a mixed voxel given the intensity; and the density of that."""
    reach = [(low + edge * (high - low) - u) / sd for edge in _SHARE_EDGES]
    below = [ndtr(z) for z in reach]
    bump = [np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi) for z in reach]
    total, moment = np.zeros_like(u), np.zeros_like(u)
    for k, density in enumerate(_SHARE_DENSITY):
        mass = density * (below[k + 1] - below[k])
        total += mass
        moment += mass * (u - low) + density * sd * (bump[k] - bump[k + 1])
    share = moment / np.maximum(total, 1e-12) / (high - low)
    return np.clip(share, 0.0, 1.0), np.maximum(total, 1e-12) / (high - low)
