"""Voxel-wise partial-volume correction with an anatomy: what each voxel would show without blurring.

All of these start from the shares ``m_i`` of each compartment in every voxel, the same as the acquisition blurs them,
``b_i``, and one signal ``t_i`` of each. ``s = sum t_i m_i`` is then the image without blurring and ``P = sum t_i b_i``
the image as it should be, so no method needs a further convolution, and each tissue keeps its own transfer function.

These maps answer for blurring only. A voxel still shows the mixture of tissues that it holds, so the mean of a map over
a region is not the concentration of its tissue: with a perfect point spread function the mean over grey matter of such
a map is still 18 % too high next to fluid.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MOST_STEPS: Final = 100


def yang_map(
    image: NDArray[np.floating],
    values: Array,
    fractions: scipy.sparse.csr_matrix,
    blurred: NDArray[np.floating],
    least: float = 0.0,
) -> Array:
    """Image times what blurring took away from the model: ``y s / P``.

    With the values of a geometric transfer matrix or of least squares this is region-based voxel-wise correction (RBV;
    Thomas et al., Eur J Nucl Med Mol Imaging 2011;38:1104), with those of :func:`iterative_yang` iterative Yang.

    Parameters
    ----------
    image : (m,)
        Signal of m voxels.
    values : (n,)
        Signal of each compartment.
    fractions : sparse (n, m)
        Unblurred shares of the compartments.
    blurred : (n, m)
        The same as the acquisition shows them.
    least
        Predicted signal below which there is nothing to divide by.

    Returns
    -------
    (m,) float64; NaN where the model predicts no more than ``least``.
    """
    predicted = values @ blurred
    known = predicted > least
    return np.where(known, image * (fractions.T @ values) / np.where(known, predicted, 1.0), np.nan)


def multi_target(
    image: NDArray[np.floating],
    values: Array,
    fractions: scipy.sparse.csr_matrix,
    blurred: NDArray[np.floating],
    least: float = 0.0,
) -> Array:
    """Each compartment of a voxel as if it were alone, weighted by its share: ``sum_j m_j (y - P + t_j b_j) / b_j``.

    Multi-target correction (MTC; Erlandsson, Wong, van Heertum, Mann and Parsey, J Nucl Med 2006;47(S1):84P), written
    as ``s + (y - P) sum_j m_j / b_j``.

    Parameters
    ----------
    least
        Blurred share up to which the residual says nothing of a compartment: it then has its value ``t_j`` there. The
        rest as for :func:`yang_map`.

    Returns
    -------
    (m,) float64
    """
    shares = fractions.tocoo()
    held = np.asarray(blurred[shares.row, shares.col], np.float64)
    known = held > least
    gain = np.bincount(shares.col[known], shares.data[known] / held[known], minlength=image.size)
    return np.asarray(fractions.T @ values + (image - values @ blurred) * gain)


def mueller_gaertner(
    image: NDArray[np.floating], others: NDArray[np.floating], grey: NDArray[np.floating], least: float = 0.0
) -> Array:
    """Signal of grey matter: what is left of the image without all else, over the blurred share of grey matter.

    Mueller-Gaertner et al., J Cereb Blood Flow Metab 1992;12:571 subtract white matter. Here all that is not grey
    matter must be in ``others``: fluid is the brightest compartment of a sodium image, not a dark one as in PET.

    Parameters
    ----------
    image, others : (m,)
        Signal, and the part of it that other compartments make.
    grey : (m,)
        Grey matter as the acquisition shows it.
    least
        Smallest share to divide by.

    Returns
    -------
    (m,) float64; NaN where grey matter has no more than this share.
    """
    known = grey > least
    return np.where(known, (image - others) / np.where(known, grey, 1.0), np.nan)


def iterative_yang(
    image: NDArray[np.floating],
    fractions: scipy.sparse.csr_matrix,
    blurred: NDArray[np.floating],
    *,
    fixed: Array | None = None,
    iterations: int = 10,
) -> Array:
    """Signal of each compartment by iterative Yang correction.

    Beginning with the image itself, the values are those whose mixture has the same regional means as the current
    estimate (``F t = o`` with ``F_ij = <m_i, m_j> / sum m_i``), and the next estimate is ``y s / P`` with them
    (Erlandsson et al., Phys Med Biol 2012;57:R119).

    Parameters
    ----------
    image : (m,)
        Signal.
    fractions : sparse (n, m)
        Unblurred shares; each compartment must have some.
    blurred : (n, m)
        As the acquisition shows them.
    fixed : (n,)
        Values that are kept; NaN marks those to be found. All are found if not given.
    iterations
        10 is usual.

    Returns
    -------
    (n,) values; means below zero count as zero.
    """
    values, free = _start(fixed, fractions.shape[0])
    own = fractions[free]
    overlap = scipy.linalg.lu_factor((own @ own.T).toarray())
    held = own @ (fractions.T @ values)
    estimate = np.asarray(image, np.float64)
    for _ in range(iterations):
        values[free] = scipy.linalg.lu_solve(overlap, np.maximum(own @ estimate - held, 0.0))
        estimate = image * _sharpening(values, fractions, blurred)
    return values


def settled_yang(
    image: NDArray[np.floating],
    fractions: scipy.sparse.csr_matrix,
    blurred: NDArray[np.floating],
    *,
    fixed: Array | None = None,
    tolerance: float = 1e-8,
) -> tuple[Array, scipy.sparse.csr_matrix]:
    """Where iterative Yang correction comes to rest, which takes it hundreds of iterations.

    There ``sum m_i s / P (y - P) = 0`` for every compartment: a geometric transfer matrix whose regions are weighted by
    ``s / P``. So after ten iterations the weights and the solution are updated in turn, which takes a few steps.

    Parameters
    ----------
    tolerance
        Change of the values, relative to the largest, that counts as rest. The others as for :func:`iterative_yang`.

    Returns
    -------
    (n,) values, and the weighted regions (f, m) of those that were found.

    Raises
    ------
    ValueError
        If the values do not come to rest.
    """
    values = iterative_yang(image, fractions, blurred, fixed=fixed)
    around, free = _start(fixed, fractions.shape[0])
    rest = image - around @ blurred
    for _ in range(_MOST_STEPS):
        instruments = fractions[free].multiply(_sharpening(values, fractions, blurred)).tocsr()
        found = np.linalg.solve(instruments @ blurred[free].T, instruments @ rest)
        change = float(np.abs(found - values[free]).max(initial=0.0))
        values[free] = found
        if change <= tolerance * float(np.abs(values).max()):
            return values, instruments
    raise ValueError("the values do not come to rest")


def _start(fixed: Array | None, n: int) -> tuple[Array, NDArray[np.bool_]]:
    """Values to begin with, zero where they are to be found, and which these are."""
    kept = np.full(n, np.nan) if fixed is None else fixed
    return np.nan_to_num(kept), np.isnan(kept)


def _sharpening(values: Array, fractions: scipy.sparse.csr_matrix, blurred: NDArray[np.floating]) -> Array:
    """``s / P``; zero where the model predicts no signal."""
    predicted = values @ blurred
    seen = predicted > 0.0
    return np.where(seen, (fractions.T @ values) / np.where(seen, predicted, 1.0), 0.0)
