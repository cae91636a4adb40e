"""Regional signal from a sodium image: uncorrected, by geometric transfer matrix, and by least squares.

All three are linear in the image. With blurred compartments ``b_j`` and an instrument ``q_i`` for each,

- Labbe et al. 1998 (symmetric GTM; Sattarivand et al., Phys Med Biol 2012) takes ``q_i = b_i``: least squares of the
  image on the compartments. Its matrix is symmetric, and it bears wrong PSFs and shifts best.
- Rousset, Ma and Evans, J Nucl Med 1998;39:904 takes ``q_i = p_i / sum p_i``, the unblurred regions (GTM).

``t = (Q B^T)^-1 Q y`` and ``Cov(t) = (Q B^T)^-1 Q C Q^T (Q B^T)^-T`` with the covariance C of the image noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from sodium_prep.pvc.compartments import Kind
from sodium_prep.pvc.fraction_errors import FractionErrors
from sodium_prep.pvc.noise import Noise, gram, weighted_sum

Array = NDArray[np.float64]

NUISANCE_RIDGE: Final = 1e-4
"""Relative strength of the pull of nuisance compartments towards zero: neighbouring shells and patches trade signal
with each other without end otherwise. Reported regions are not pulled."""
ILL_DETERMINED: Final = 30.0
"""Variance inflation from which a region counts as not told apart from its neighbours."""
_LEAST_SHARE: Final = 1e-7


@dataclass(frozen=True)
class RegionValues:
    """Regional signals of one design, and how well they are determined.

    Attributes
    ----------
    values : (n,)
        Signal of every column, NaN where it is not in the fitted voxels.
    covariance : (n, n)
        From image noise alone; NaN like the values.
    inflation : (n,)
        Factor by which the other columns raise the variance of each (white noise; 1 for a region on its own).
    condition
        Condition number of the matrix with its diagonal scaled to 1.
    misfit
        Residual sum of squares in the core over its expectation from noise: 1 where the model is right.
    residual_sd, noise_sd
        Root mean square over the core.
    """

    values: Array
    covariance: Array = field(repr=False)
    inflation: Array = field(repr=False)
    condition: float
    misfit: float
    residual_sd: float
    noise_sd: float

    @property
    def standard_errors(self) -> Array:
        """From noise, widened where the residual is larger than noise explains."""
        return np.asarray(np.sqrt(np.diag(self.covariance) * max(1.0, self.misfit)))


@dataclass(frozen=True)
class RegionFit(RegionValues):
    """Regional signals with the system that they solve, for what else is to be known of them."""

    _operator: Array = field(repr=False)
    _pull: Array = field(repr=False)
    _system: RegionalSystem = field(repr=False)

    @property
    def operator(self) -> Array:
        """From the sums over the image, (n,), to the values; NaN like the values."""
        return self._operator

    def response(self, images: NDArray[np.floating]) -> Array:
        """Change of the values if these are added to the image; (k, m) voxels of the mask -> (n, k)."""
        return self._operator @ gram(self._system.instruments, np.atleast_2d(images))

    def prediction(self, blurred: NDArray[np.float32], membership: Array) -> NDArray[np.float32]:
        """What the model says the image is, in all voxels for which blurred compartments are given."""
        fine = membership @ np.nan_to_num(self.values)
        return np.asarray(fine.astype(np.float32) @ blurred)


class RegionalSystem:
    """Sums over the image that every design of regions shares.

    Parameters
    ----------
    instruments, blurred : (n, m) float32
        q_i and b_i in the m fitted voxels.
    image : (m,)
        Signal.
    mask : (X, Y, Z) bool
        The fitted voxels.
    noise
        Of the image.
    kinds
        Which columns are nuisance; None is none.
    core : (X, Y, Z) bool
        Where the model is judged by its residual, e.g. the brain; all fitted voxels if not given. Around the head it
        is coarse on purpose, and its misfit there says little about the regions.
    random_sds : (r,)
        The last r columns are random effects of mean zero with these standard deviations: fitted, and not reported.
    centre : (n - r,)
        Values that nuisance columns are pulled to; zero if not given. Beside random effects the pull to zero would
        show: they could trade with it.
    """

    def __init__(
        self,
        instruments: NDArray[np.float32],
        blurred: NDArray[np.float32],
        image: NDArray[np.floating],
        mask: NDArray[np.bool_],
        noise: Noise,
        kinds: list[Kind] | None = None,
        core: NDArray[np.bool_] | None = None,
        random_sds: NDArray[np.floating] | None = None,
        centre: NDArray[np.floating] | None = None,
    ) -> None:
        self.instruments, self.blurred, self.mask, self.noise = instruments, blurred, mask, noise
        self.image = np.asarray(image, np.float64)
        self.random_sds = np.zeros(0) if random_sds is None else np.asarray(random_sds, np.float64)
        fixed = len(blurred) - self.random_sds.size
        self.nuisance = np.array([kind == "nuisance" for kind in kinds or ["region"] * fixed])
        self.centre = np.zeros(fixed) if centre is None else np.nan_to_num(centre)
        self.matrix = gram(instruments, blurred)
        self.right = gram(instruments, self.image[None])[:, 0]
        judged = np.ones(self.image.size, bool) if core is None else core[mask]
        self._core = judged if judged.any() else np.ones_like(judged)
        self._norms = np.einsum("ij,ij->i", blurred, blurred, dtype=np.float64)

    @cached_property
    def noise_matrix(self) -> Array:
        """Covariance of the sums over the image, ``Q C Q^T``."""
        return self.noise.quadratic_form(self.instruments, self.mask)

    def with_image(self, image: NDArray[np.floating]) -> RegionalSystem:
        """The same model for another image, (m,) fitted voxels, without summing anew."""
        other = copy(self)
        other.image = np.asarray(image, np.float64)
        other.right = gram(self.instruments, other.image[None])[:, 0]
        return other

    def fit(self, membership: NDArray[np.floating] | None = None) -> RegionFit:
        """Solve for the compartments, or for sums of them.

        Parameters
        ----------
        membership : (n, k)
            1 where compartment i is part of column j; every compartment in one column. None keeps them apart. Random
            effects have no row in it and stay apart.

        Returns
        -------
        Fit with k columns: the same as with blurred maps added up beforehand, without touching an image again.
        """
        m, operator, values, inflation, condition = self._solved(membership)
        # A random effect is pulled to zero, so that a part of it stays in the regions.
        pull = operator[:, len(self.nuisance) :] * (self.penalties * self.random_sds)
        covariance = operator @ self.noise_matrix @ operator.T + pull @ pull.T
        # Least squares leaves tr C - tr (B C B^T)(B B^T)^-1, taken to be spread like the variance itself.
        taken = float(np.sum(np.nan_to_num(operator).T * (self.noise_matrix @ m)))
        judged = self.judge(m @ np.nan_to_num(values), taken)
        kept = slice(0, len(values) - self.random_sds.size)
        return RegionFit(
            values[kept], covariance[kept, kept], inflation[kept], condition, *judged, operator[kept], pull[kept], self
        )

    def estimate(self, membership: NDArray[np.floating] | None = None) -> tuple[Array, Array]:
        """Values of the columns (k,), NaN where there is no signal, and random effects (r,), without their errors."""
        values = self._solved(membership)[2]
        return values[: len(values) - self.random_sds.size], values[len(values) - self.random_sds.size :]

    def _solved(self, membership: NDArray[np.floating] | None) -> tuple[Array, Array, Array, Array, float]:
        """Membership with the random effects, operator, values, inflation and condition."""
        n_random = self.random_sds.size
        fixed = np.eye(len(self.nuisance)) if membership is None else np.asarray(membership, np.float64)
        m = scipy.linalg.block_diag(fixed, np.eye(n_random))
        operator, inflation, condition = solve_merged(self.matrix, m, self.nuisance, self._norms, self.penalties)
        held = NUISANCE_RIDGE * np.diag(self.matrix) * np.pad(self.centre * self.nuisance, (0, n_random))
        return m, operator, operator @ (self.right + held), inflation, condition

    def judge(self, fine: Array, taken: float = 0.0) -> tuple[float, float, float]:
        """Misfit, residual and noise in the core for some signals of the compartments.

        Parameters
        ----------
        fine : (n,)
            Signals, whatever they were estimated from.
        taken
            Variance that their estimation took out of the residual, summed over the fitted voxels.
        """
        residual = self.image - weighted_sum(fine, self.blurred)
        variance = self.noise.sd[self.mask].astype(np.float64) ** 2
        expected = (1.0 - taken / float(variance.sum())) * float(variance[self._core].sum())
        squares = float(np.sum(residual[self._core] ** 2))
        misfit = squares / expected if expected > 0.0 else 1.0
        return misfit, float(np.sqrt(squares / self._core.sum())), float(np.sqrt(np.mean(variance[self._core])))

    def solve(self) -> tuple[Array, Array, Array]:
        """Operator on the sums over the image (n, n), values (n,) and residual (m,), without any error estimate.

        Columns that are not in the fitted voxels are zero.
        """
        found = solve_merged(self.matrix, np.eye(len(self.matrix)), self.nuisance, self._norms, self.penalties)
        operator = np.nan_to_num(found[0])
        values = operator @ self.right
        return operator, values, self.image - weighted_sum(values, self.blurred)

    @cached_property
    def penalties(self) -> Array:
        """Variance of the noise, in the frequencies that hold the signal, over that of each random effect."""
        variance = float(np.mean(self.noise.sd[self.mask].astype(np.float64) ** 2))
        spectrum = self.noise.spectrum
        peak = 1.0 if spectrum is None else float(np.mean(spectrum**2, dtype=np.float64) / np.mean(spectrum))
        return np.asarray(peak * variance / self.random_sds**2)


def solve_merged(
    matrix: Array,
    membership: Array,
    nuisance: NDArray[np.bool_],
    norms: Array,
    penalties: Array | None = None,
) -> tuple[Array, Array, float]:
    """Operator from sums over the data to the values of merged columns.

    Parameters
    ----------
    matrix : (n + r, n + r)
        Normal matrix of the compartments, and of random effects after them.
    membership : (n + r, k + r)
        1 where compartment i is part of column j; random effects stay apart.
    nuisance : (n,) bool
        Which compartments are pulled towards zero.
    norms : (n + r,)
        Weight of each compartment in the data; a column without any is not estimated.
    penalties : (r,)
        Pull of each random effect to zero; there are none if not given.

    Returns
    -------
    operator, inflation, condition
        (k + r, n + r) and (k + r,), NaN for columns without weight; condition number with the diagonal scaled to 1.
    """
    merged, covered = membership.T @ matrix @ membership, membership.T @ norms
    penalties = np.zeros(0) if penalties is None else penalties
    n_fixed = len(covered) - penalties.size
    free = np.asarray(membership.T @ np.pad(nuisance, (0, penalties.size)) > 0.0)
    pull = NUISANCE_RIDGE * free * np.diag(merged)
    pull[n_fixed:] = penalties
    merged += np.diag(pull)
    alive = covered > _LEAST_SHARE * covered[:n_fixed].max()
    alive[n_fixed:] = True
    inverse, condition = scaled_inverse(merged[np.ix_(alive, alive)])
    operator = np.full((membership.shape[1], membership.shape[0]), np.nan)
    operator[alive] = inverse @ membership.T[alive]
    inflation = np.full(len(operator), np.nan)
    inflation[alive] = np.abs(np.diag(inverse) * np.diag(merged)[alive])
    return operator, inflation, condition


def joint_covariance(fits: Sequence[RegionFit], columns: Sequence[Sequence[int]]) -> Array:
    """Covariance from noise and random effects of columns of several designs for one system, in their order."""
    rows, pull = (
        np.concatenate([part[list(chosen)] for part, chosen in zip(parts, columns, strict=True)])
        for parts in ([fit._operator for fit in fits], [fit._pull for fit in fits])
    )
    return np.asarray(rows @ fits[0]._system.noise_matrix @ rows.T + pull @ pull.T)


def scaled_inverse(matrix: Array) -> tuple[Array, float]:
    """Inverse, and condition number with the diagonal scaled to 1."""
    scale = 1.0 / np.sqrt(np.abs(np.diag(matrix)))
    scaled = matrix * np.outer(scale, scale)
    return np.asarray(scipy.linalg.inv(scaled)) * np.outer(scale, scale), float(np.linalg.cond(scaled))


def labbe(
    blurred: NDArray[np.float32],
    image: NDArray[np.floating],
    mask: NDArray[np.bool_],
    noise: Noise,
    kinds: list[Kind] | None = None,
    core: NDArray[np.bool_] | None = None,
    errors: FractionErrors | None = None,
) -> RegionalSystem:
    """Least squares of the image on blurred compartments.

    Parameters
    ----------
    blurred : (n, X * Y * Z) float32
        From :func:`sodium_prep.pvc.forward.push_compartments`.
    image, mask : (X, Y, Z)
        Native sodium image and the voxels to be fitted.
    noise
        Of the image.
    kinds
        Which compartments are nuisance.
    core : (X, Y, Z) bool
        Where the model is judged by its residual; all fitted voxels if not given.
    errors
        Errors of the fractions to be fitted along, as random effects (estimator ``joint``).
    """
    voxels = np.flatnonzero(mask)
    inside = blurred[:, voxels]
    if errors is None:
        return RegionalSystem(inside, inside, image[mask], mask, noise, kinds, core)
    inside = np.vstack([inside, errors.images[:, voxels]])
    return RegionalSystem(inside, inside, image[mask], mask, noise, kinds, core, errors.sds, errors.values)


def gtm(
    blurred: NDArray[np.float32],
    fractions: scipy.sparse.csr_matrix,
    image: NDArray[np.floating],
    mask: NDArray[np.bool_],
    noise: Noise,
    kinds: list[Kind] | None = None,
) -> RegionalSystem:
    """Geometric transfer matrix: regional means are what regions send into each other.

    Nuisance compartments reach beyond the fitted voxels, so there is no mean over them; they keep the instruments of
    least squares, as does a region without any unblurred share in the mask.

    Parameters
    ----------
    fractions : sparse (n, X * Y * Z)
        From :func:`sodium_prep.pvc.forward.region_fractions`; the rest as for :func:`labbe`.
    """
    inside = blurred[:, np.flatnonzero(mask)]
    instruments = np.asarray(fractions[:, np.flatnonzero(mask)].toarray(), np.float32)
    total = instruments.sum(axis=1, dtype=np.float64)
    nuisance = np.array([kind == "nuisance" for kind in kinds or ["region"] * len(blurred)])
    as_blurred = nuisance | (total <= 0.0)
    instruments[as_blurred] = inside[as_blurred]
    return RegionalSystem(instruments, inside, image[mask], mask, noise, kinds)


@dataclass(frozen=True)
class RegionMeans:
    """Uncorrected weighted means of an image over regions.

    Attributes
    ----------
    values, sd, median : (n,)
        Of the voxels of each region, weighted by the region's share in them; NaN without voxels.
    covariance : (n, n)
        Of the means, from image noise.
    n_voxels : (n,)
        Voxels in which the region's share reaches the threshold.
    coverage : (n,)
        Part of the region's volume that lies in usable voxels.
    weights : sparse (n, X * Y * Z)
        Rows add up to 1.
    """

    values: Array
    sd: Array
    median: Array
    covariance: Array = field(repr=False)
    n_voxels: NDArray[np.int64]
    coverage: Array
    weights: scipy.sparse.csr_matrix = field(repr=False)


def regional_means(
    fractions: scipy.sparse.csr_matrix,
    image: NDArray[np.floating],
    usable: NDArray[np.bool_],
    noise: Noise,
    volumes: NDArray[np.floating],
    *,
    threshold: float = 0.3,
) -> RegionMeans:
    """Mean, spread and noise of the image in each region, without any correction.

    Parameters
    ----------
    fractions : sparse (n, X * Y * Z)
        Share of each region in each native voxel.
    image, usable : (X, Y, Z)
        Image, and where it holds data.
    volumes : (n,)
        Volume of each region in native voxels, also of what lies outside the image.
    threshold
        Least share of a voxel that counts; half of the largest share where a region never reaches twice this.
    """
    flat, good = np.asarray(image, np.float64).reshape(-1), usable.reshape(-1)
    n = fractions.shape[0]
    mean, sd, median, coverage = (np.full(n, np.nan) for _ in range(4))
    count = np.zeros(n, np.int64)
    rows = []
    for i in range(n):
        row = fractions[i]
        inside = good[row.indices]
        where, share = row.indices[inside], row.data[inside].astype(np.float64)
        coverage[i] = min(share.sum() / volumes[i], 1.0) if volumes[i] > 0 else np.nan
        kept = share >= min(threshold, 0.5 * share.max(initial=0.0)) if share.size else np.zeros(0, bool)
        where, share = where[kept], share[kept]
        count[i] = where.size
        if where.size:
            weight = share / share.sum()
            mean[i] = weight @ flat[where]
            sd[i] = np.sqrt(weight @ (flat[where] - mean[i]) ** 2)
            median[i] = _weighted_median(flat[where], weight)
            rows.append(scipy.sparse.csr_matrix((weight, where, [0, where.size]), shape=(1, flat.size)))
        else:
            rows.append(scipy.sparse.csr_matrix((1, flat.size)))
    weights = scipy.sparse.vstack(rows, format="csr")
    touched = np.zeros(flat.size, bool)
    touched[weights.indices] = True
    dense = np.asarray(weights[:, np.flatnonzero(touched)].toarray(), np.float32)
    covariance = noise.quadratic_form(dense, touched.reshape(usable.shape))
    covariance[np.isnan(mean)] = np.nan
    covariance[:, np.isnan(mean)] = np.nan
    return RegionMeans(mean, sd, median, covariance, count, coverage, weights)


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())])


def fit_mask(
    blurred: NDArray[np.float32], names: list[str], kinds: list[Kind], usable: NDArray[np.bool_], least: float = 0.1
) -> NDArray[np.bool_]:
    """Voxels to be fitted: those in which brain and the CSF around it make up some of the signal.

    Parameters
    ----------
    usable : (X, Y, Z) bool
        Where the image holds data.
    least
        Sum of the blurred maps that counts.
    """
    inner = [i for i, kind in enumerate(kinds) if kind == "region" or names[i].startswith("outer-CSF")]
    total = blurred[inner].sum(axis=0).reshape(usable.shape)
    return np.asarray((total > least) & usable)
