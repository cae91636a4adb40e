"""Growing labels into voxels that an atlas leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from sodium_prep.atlas.tables import AtlasTissue

if TYPE_CHECKING:
    import pandas as pd


def grow_labels(
    labels: NDArray[np.int32],
    mask: NDArray[np.bool_],
    table: pd.DataFrame,
    *,
    tissue: AtlasTissue | None = None,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[np.int32]:
    """Give every voxel of a mask the label that is nearest to it.

    Atlases are drawn tighter than brain masks: the outer cortex and the sulci carry no label. Without ``tissue``,
    labelled voxels stay as they are and open ones take the nearest label that is not CSF. With ``tissue``, the result
    holds labels of that tissue only, everywhere in the mask: it names the region that the share of this tissue in each
    voxel belongs to.

    Parameters
    ----------
    labels : (X, Y, Z) int32
        0 where there is no label.
    mask : (X, Y, Z) bool
        Voxels to be labelled; the result is 0 outside.
    table
        Columns ``index`` and ``tissue``.
    tissue
        ``GM``, ``WM``, ``CSF`` or None.
    spacing_mm
        Voxel size along the axes.

    Returns
    -------
    (X, Y, Z) int32
    """
    wanted = table["tissue"] == tissue if tissue else table["tissue"] != "CSF"
    sources = np.isin(labels, table.loc[wanted, "index"].to_numpy())
    if not sources.any():
        raise ValueError(f"no label of tissue {tissue or 'GM or WM'} in the image")
    keep = sources if tissue else labels > 0
    return np.where(mask, np.where(keep, labels, _nearest(labels, sources, spacing_mm)), 0).astype(np.int32)


def _nearest(labels: NDArray[np.int32], sources: NDArray[np.bool_], spacing_mm: ArrayLike) -> NDArray[np.int32]:
    where = ndimage.distance_transform_edt(
        ~sources, sampling=np.asarray(spacing_mm, float), return_distances=False, return_indices=True
    )
    return np.asarray(labels[tuple(where)], dtype=np.int32)
