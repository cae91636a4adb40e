"""Local regression on tissues, trimmed of outliers: a map of the concentration-like signal of each tissue.

In a small cube around a voxel every tissue is taken as having one signal, ``y(r') = sum_c b_c(r') t_c``, and the t_c
are found by least squares: the regression of Asllani, Borogovac and Brown (Magn Reson Med 2008;60:1362) for perfusion.
Kim et al. (NMR Biomed 2021, e4448) brought it to sodium with a cube in place of a slice and with least trimmed squares
(Rousseeuw, J Am Stat Assoc 1984;79:871), after deconvolving the image. What is known here of that paper is its
abstract. So its name is kept, but size of the cube, share of voxels that is kept, and the search for them are choices
of this program. One thing is different on purpose: the image is not deconvolved. The tissues are blurred as the
acquisition blurs them, each by its own transfer function, which says the same without amplifying noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Array = NDArray[np.float64]

RADIUS_VOXELS: Final = 2
"""The cube has five voxels along each edge."""
KEPT_SHARE: Final = 0.75
"""Share of a cube's voxels that the search keeps: those with the smallest residuals."""
OUTLIER_SDS: Final = 2.5
"""Residual, in standard deviations of those that the search kept, from which a voxel is left out in the end."""
PULL: Final = 1e-3
"""Weight of the tissue's mean over the head, in voxels full of it, so that a cube that hardly holds a tissue can be
solved."""
_STEPS: Final = 4
_CONSISTENCY: Final = 0.3684
"""Mean square of the smallest three quarters of normal residuals, relative to that of all."""
_BLOCK: Final = 4096


@dataclass(frozen=True)
class TrimmedRegression:
    """Signals of tissues in every voxel.

    Attributes
    ----------
    values : (t, m)
        Signal of each tissue around each voxel.
    rows : (r, m)
        Weights of the image's voxels in the regional values asked for.
    offsets : (r,)
        What the pull to the tissues' means adds to them.
    """

    values: Array
    rows: NDArray[np.float32]
    offsets: Array


def trimmed_regression(
    image: NDArray[np.floating],
    tissues: NDArray[np.floating],
    mask: NDArray[np.bool_],
    means: Array,
    weights: scipy.sparse.csr_matrix | None = None,
    of_tissue: NDArray[np.int64] | None = None,
) -> TrimmedRegression:
    """Regress the image on the tissues around every voxel, by least trimmed squares.

    The regression begins with all voxels of a cube, then keeps the three quarters with the smallest residuals and fits
    them again, four times (concentration steps; Rousseeuw and Van Driessen, Data Min Knowl Discov 2006;12:29). The last
    fit has all voxels but those beyond 2.5 standard deviations of these (reweighted least squares; Rousseeuw and Leroy,
    Robust Regression and Outlier Detection, 1987): good voxels count again, so that noise is hardly larger than that of
    least squares.

    Parameters
    ----------
    image : (m,)
        Signal of the voxels in the mask, without what is not made by these tissues.
    tissues : (t, m)
        Each tissue as the acquisition shows it.
    mask : (X, Y, Z) bool
        With m true voxels.
    means : (t,)
        Signal of each tissue over the whole head.
    weights : sparse (r, m)
        Weights of the voxels of regions, adding up to 1.
    of_tissue : (r,)
        Tissue of each region; -1 for none.

    Returns
    -------
    Maps, and each regional mean ``weights @ values`` as ``rows @ image + offsets``: linear in the image once it is
    settled which voxels are trimmed.
    """
    n = int(mask.sum())
    data = np.append(np.asarray(image, np.float64), 0.0)
    basis = np.concatenate([np.asarray(tissues, np.float64), np.zeros((len(tissues), 1))], axis=1)
    near = _neighbours(mask)
    values = np.empty((len(tissues), n))
    weights = scipy.sparse.csr_matrix((0, n)) if weights is None else weights.tocsc()
    of_tissue = np.zeros(0, np.int64) if of_tissue is None else of_tissue
    rows, offsets = np.zeros((weights.shape[0], n), np.float32), np.zeros(weights.shape[0])
    ridge = PULL * np.eye(len(tissues))
    for start in range(0, n, _BLOCK):
        part = slice(start, min(start + _BLOCK, n))
        index = near[part]
        local, target = basis[:, index].transpose(1, 0, 2), data[index]  # (voxels, tissues, cube), (voxels, cube)
        keep = index < n
        least_kept = np.ceil(KEPT_SHARE * keep.sum(axis=1)).astype(int) - 1
        for step in range(_STEPS + 1):
            used = local * keep[:, None]
            inverse = np.linalg.inv(used @ local.transpose(0, 2, 1) + ridge)
            found = (inverse @ (used @ target[..., None] + PULL * means[:, None]))[..., 0]
            if step < _STEPS:
                residual = np.abs(target - (found[:, None] @ local)[:, 0])
                residual[index == n] = np.inf
                limit = np.take_along_axis(np.sort(residual, axis=1), least_kept[:, None], axis=1)
                if step == _STEPS - 1:
                    smallest = np.where(residual <= limit, residual, 0.0)
                    variance = np.sum(smallest**2, axis=1, keepdims=True) / (least_kept[:, None] + 1) / _CONSISTENCY
                    limit = np.maximum(limit, OUTLIER_SDS * np.sqrt(variance))
                keep = residual <= limit
        values[:, part] = found.T
        operator, pulled = inverse @ used, PULL * inverse @ means
        for tissue in np.unique(of_tissue[of_tissue >= 0]):
            mine = np.flatnonzero(of_tissue == tissue)
            here = weights[mine, part]
            linear = scipy.sparse.csr_matrix(
                (operator[:, tissue].ravel(), index.ravel(), np.arange(0, index.size + 1, index.shape[1])),
                shape=(len(index), n + 1),
            )
            rows[mine] += (here @ linear)[:, :n].toarray()
            offsets[mine] += here @ pulled[:, tissue]
    return TrimmedRegression(values, rows, offsets)


def _neighbours(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions in the mask of the voxels of the cube around each of its voxels; m for those outside; (m, cube)."""
    r = RADIUS_VOXELS
    n = int(mask.sum())
    number = np.full(tuple(np.add(mask.shape, 2 * r)), n, np.int64)
    inner = number[r:-r, r:-r, r:-r]
    inner[mask] = np.arange(n)
    place = np.argwhere(mask) + r
    steps = np.stack(np.meshgrid(*[np.arange(-r, r + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    strides = np.array([number.shape[1] * number.shape[2], number.shape[2], 1])
    return np.asarray(number.ravel()[(place @ strides)[:, None] + (steps @ strides)])
