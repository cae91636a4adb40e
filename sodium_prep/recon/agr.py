"""Anatomically guided reconstruction: edges of a proton image mark where the sodium image may change.

Both priors believe the proton image only so far as their strength says. A lesion that sodium alone shows is then flat
to the prior, which shrinks it; that it survives bounds the strength, not the error of the whole image, which keeps
falling beyond that.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sodium_prep.recon.conjugate_gradients import conjugate_gradients
from sodium_prep.recon.encoding import LeastSquares
from sodium_prep.recon.fista import Image, Progress, fista
from sodium_prep.recon.tv import Variation, Vectors, gradient

EDGE = 0.03
"""Least eta of a direction field, in parts of the guide's range: small beside the contrast of its tissues."""

_EDGE_NOISE = 3.0
"""Least eta in standard deviations of the guide's noise, whose differences would count as edges otherwise."""

_REACH2 = 6
"""Squared distance, in voxels, up to which a voxel counts as a neighbour: 80 neighbours, as Schramm's code takes."""


def _checked(guide: NDArray[Any], shape: tuple[int, ...]) -> tuple[Image, float]:
    """The guide as float32, and its range: what 99.9 % of its voxels lie below, above what 0.1 % do."""
    if guide.shape != shape:
        raise ValueError(f"the anatomical image has the grid {guide.shape}, the sodium image {shape}")
    with np.errstate(over="ignore"):
        values = np.asarray(guide, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("the anatomical image holds values that are not finite")
    low, high = np.percentile(values, [0.1, 99.9])
    if not high > low:
        raise ValueError("the anatomical image is constant")
    return values, float(high - low)


def guide_noise(guide: NDArray[Any]) -> float:
    """Standard deviation of the guide's noise, from differences along all three axes at once, which few edges have.

    Their median magnitude (Donoho, IEEE Trans Inf Theory 1995;41:613), over voxels brighter than a tenth of the range.

    Parameters
    ----------
    guide
        (X, Y, Z), in any units; where it is smooth on the scale of a voxel too little is found.
    """
    values, span = _checked(guide, guide.shape)
    details: NDArray[Any] = values
    for axis in range(3):
        details = np.diff(details, axis=axis)
    bright = values[:-1, :-1, :-1] > np.percentile(values, 0.1) + 0.1 * span
    # The eight voxels of a difference add their variances; 0.6745 is the median magnitude of a standard normal.
    return float(np.median(np.abs(details[bright]))) / (0.6745 * np.sqrt(8.0)) if bright.any() else 0.0


def edge_directions(guide: NDArray[Any], edge: float | None = None) -> Vectors:
    """Direction field of directional total variation, ``xi = grad v / sqrt(|grad v|^2 + eta^2)``.

    Ehrhardt and Betcke, SIAM J Imaging Sci 2016;9:1084.

    Parameters
    ----------
    guide
        v, (X, Y, Z), on the grid of the sodium image, in any units.
    edge
        eta in parts of the guide's range; None for ``EDGE`` or three times the noise of the guide, whichever is more.

    Returns
    -------
    (3, X, Y, Z), of length below 1.

    Raises
    ------
    ValueError
        If the guide is constant or not finite.
    """
    values, span = _checked(guide, guide.shape)
    if edge is None:
        edge = max(EDGE, _EDGE_NOISE * guide_noise(guide) / span)
    slopes = gradient(values / np.float32(span))
    slopes /= np.sqrt(np.einsum("cxyz,cxyz->xyz", slopes, slopes) + np.float32(edge**2))
    return slopes


def agr(
    problem: LeastSquares,
    guide: NDArray[Any],
    weight: float,
    iterations: int = 100,
    tolerance: float = 1e-3,
    edge: float | None = None,
    start: Image | None = None,
    progress: Progress | None = None,
) -> Image:
    """Image x of least ``1/2 x^T N x - b^T x + weight sum_r |grad x - xi (xi . grad x)|_2``.

    Parameters
    ----------
    guide
        T1w image (X, Y, Z) on the grid of the sodium image.
    weight
        In the units of the image. With half of the noise's standard deviation in the gridded image a lesion of 9 mm
        radius that the guide does not show loses 3 % to what gridding gives, with all of it 6 %, with twice 11 %, with
        eight times 47 %; a hippocampus that it shows loses 1 % up to all of it (``benchmarks/priors.py``, 3 mm, noise
        of 4 mM, lesion of 80 mM in 35 mM).
    iterations, tolerance, start, progress
        Of :func:`sodium_prep.recon.fista.fista`.
    edge
        Of :func:`edge_directions`.

    Returns
    -------
    (X, Y, Z) float32.

    Raises
    ------
    ValueError
        If the guide lies on another grid, is constant or not finite.
    """
    _checked(guide, problem.right.shape)
    prior = Variation(problem.right.shape, edge_directions(guide, edge))
    return fista(problem, lambda v, step: prior.proximal(v, step * weight), iterations, tolerance, start, progress)


def similarity_laplacian(guide: NDArray[Any], count: int) -> sparse.csr_array:
    """Matrix M with ``x^T M x = sum_i sum_(j in B_i) (x_i - x_j)^2``.

    B_i are those of the 80 nearest voxels that are most like voxel i in the guide (Bowsher et al., IEEE Nucl Sci Symp
    Conf Rec 2004;4:2488); of voxels alike to 0.1 % of its range the nearest.

    Parameters
    ----------
    guide
        (X, Y, Z).
    count
        Voxels in each B_i, at most 19, which is what a corner has.

    Returns
    -------
    (voxels, voxels) float32.

    Raises
    ------
    ValueError
        If the guide is constant or not finite, or a corner has fewer neighbours.
    """
    values, span = _checked(guide, guide.shape)
    cube = itertools.product(range(-2, 3), repeat=3)
    offsets = sorted((o for o in cube if 0 < sum(i * i for i in o) <= _REACH2), key=lambda o: sum(i * i for i in o))
    wide = np.pad(values / np.float32(1e-3 * span), 2, constant_values=np.inf)
    numbers = np.pad(np.arange(values.size, dtype=np.int32).reshape(values.shape), 2)
    nx, ny, nz = values.shape
    chosen = np.empty((nx, ny, nz, count), np.int32)
    for x in range(nx):
        views = [(x + 2 + i, slice(2 + j, 2 + j + ny), slice(2 + k, 2 + k + nz)) for i, j, k in offsets]
        unlike = np.stack([np.abs(wide[v] - wide[x + 2, 2:-2, 2:-2]) for v in views], axis=-1)
        # Whole steps of the resolution, and the rank by distance behind the point.
        order = np.rint(unlike) + np.arange(len(offsets), dtype=np.float32) / 128.0
        best = np.argpartition(order, count, axis=-1)[..., :count]
        if np.isinf(np.take_along_axis(order, best, axis=-1)).any():
            raise ValueError(f"a voxel in a corner has fewer than {count} neighbours")
        candidates = np.stack([numbers[v] for v in views], axis=-1)
        chosen[x] = np.take_along_axis(candidates, best, axis=-1)
    first = np.arange(0, chosen.size + 1, count)
    like = sparse.csr_array((np.ones(chosen.size, np.float32), chosen.ravel(), first), shape=(values.size,) * 2)
    both = like + like.T
    return sparse.csr_array(sparse.diags_array(both.sum(axis=1)) - both)


def bowsher(
    problem: LeastSquares,
    guide: NDArray[Any],
    strength: float,
    neighbours: int = 4,
    iterations: int = 50,
    tolerance: float = 1e-3,
    roughness: sparse.csr_array | None = None,
    start: Image | None = None,
    progress: Progress | None = None,
) -> Image:
    """Image x of least ``1/2 x^T N x - b^T x + strength / (2 n) sum_i sum_(j like i) (x_i - x_j)^2``.

    Parameters
    ----------
    guide
        T1w image (X, Y, Z) on the grid of the sodium image.
    strength
        Without unit. A difference as large as the noise's standard deviation sd is pulled on as hard as by :func:`agr`
        with ``weight = strength * sd``; larger ones are pulled on harder, so that lesions bear less of it: with 1/8
        the one described there loses 3 %, with 1/2 11 % (``benchmarks/priors.py``).
    neighbours
        n, of the 80 nearest voxels those most like it, at most 19.
    roughness
        What :func:`similarity_laplacian` makes of the guide, where it is known already.
    iterations, tolerance, start, progress
        Of :func:`sodium_prep.recon.conjugate_gradients.conjugate_gradients`; None starts from the gridded image.

    Returns
    -------
    (X, Y, Z) float32.

    Raises
    ------
    ValueError
        If the guide lies on another grid, is constant or not finite.
    """
    _checked(guide, problem.right.shape)
    like = similarity_laplacian(guide, neighbours) if roughness is None else roughness
    pull = np.float32(strength / neighbours)

    def operator(image: Image) -> Image:
        through = problem.normal(image)
        through += pull * (like @ image.ravel()).reshape(image.shape)
        return through

    first = problem.right if start is None else start
    return conjugate_gradients(operator, problem.right, first, iterations, tolerance, progress)
