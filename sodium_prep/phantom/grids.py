"""Separable resampling of volumes by small matrices: averages over boxes, and band-limited thinning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal, sparse

Volume = NDArray[np.float32]
_TAPS = 31


def apply_separable(volume: NDArray[np.floating], matrices: Sequence[sparse.csr_array]) -> Volume:
    """Apply one (n_out, n_in) matrix along each axis."""
    out = np.asarray(volume, dtype=np.float32)
    for matrix in matrices:
        shape = out.shape
        out = (matrix @ out.reshape(shape[0], -1)).reshape(-1, *shape[1:])
        # The next axis comes to the front; after three turns the order is the old one.
        out = np.ascontiguousarray(np.moveaxis(out, 0, -1))
    return out


def box_average_matrix(n_in: int, ratio: float) -> sparse.csr_array:
    """Averages over ``ratio`` input voxels (a fraction counts by overlap), beginning at the first one's edge."""
    n_out = int(n_in / ratio + 1e-9)
    rows, columns, values = [], [], []
    for row in range(n_out):
        low, high = row * ratio, (row + 1) * ratio
        for column in range(int(low), int(np.ceil(high - 1e-9))):
            rows.append(row)
            columns.append(column)
            values.append((min(high, column + 1) - max(low, column)) / ratio)
    return sparse.csr_array((np.array(values, np.float32), (rows, columns)), shape=(n_out, n_in))


def block_average(volume: NDArray[np.floating], ratio: float) -> Volume:
    """Average a volume over cubes of ``ratio`` voxels."""
    if ratio == 1.0:
        return np.asarray(volume, dtype=np.float32)
    return apply_separable(volume, [box_average_matrix(n, ratio) for n in volume.shape])


def block_affine(affine: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Affine of :func:`block_average`: the outer corner of the first voxel stays where it is."""
    out = affine.copy()
    out[:3, :3] *= ratio
    out[:3, 3] = affine[:3, 3] + affine[:3, :3] @ np.full(3, 0.5 * (ratio - 1.0))
    return out


def block_majority(labels: NDArray[np.integer], ratio: float) -> NDArray[np.int16]:
    """Label that fills most of each cube of ``ratio`` voxels, for ratios of at most 2."""
    if ratio == 1.0:
        return labels.astype(np.int16)
    candidates: list[tuple[NDArray[np.integer], NDArray[np.float64]]] = [(labels, np.ones(()))]
    for axis, n_in in enumerate(labels.shape):
        matrix = box_average_matrix(n_in, ratio)
        first = matrix.indices[matrix.indptr[:-1]]
        last = matrix.indices[matrix.indptr[1:] - 1]
        shape = [1, 1, 1]
        shape[axis] = -1
        halves = [
            (i, matrix.data[p].astype(float)) for i, p in ((first, matrix.indptr[:-1]), (last, matrix.indptr[1:] - 1))
        ]
        candidates = [
            (np.take(values, index, axis=axis), weight * share.reshape(shape))
            for values, weight in candidates
            for index, share in halves
        ]
    best, most = np.zeros(candidates[0][0].shape, np.int16), np.zeros(candidates[0][0].shape, np.float32)
    for values, _ in candidates:
        votes = sum((weight * (other == values)).astype(np.float32) for other, weight in candidates)
        better = votes > most
        best[better], most[better] = values[better], votes[better]
    return best


def thinning_matrix(n_in: int, band: float) -> tuple[sparse.csr_array, NDArray[np.float64], int]:
    """Matrix that keeps every second sample after a low-pass filter, such that the band [0, band] is kept exactly.

    Parameters
    ----------
    band
        Highest frequency needed, in cycles per input voxel, below 0.25.

    Returns
    -------
    matrix
        (n_out, n_in); its first output lies ``lead`` voxels before the first input.
    taps
        The filter, whose frequency response a user divides out.
    lead
        Even number of voxels.
    """
    taps = signal.remez(_TAPS, [0.0, band, 0.5 - band, 0.5], [1.0, 0.0], fs=1.0)
    half = _TAPS // 2
    lead = half + half % 2
    centres = np.arange(-lead, n_in + half + 1, 2)
    rows, columns, values = [], [], []
    for row, centre in enumerate(centres):
        for offset in range(-half, half + 1):
            if 0 <= centre + offset < n_in:
                rows.append(row)
                columns.append(centre + offset)
                values.append(taps[half - offset])
    return sparse.csr_array((np.array(values, np.float32), (rows, columns)), shape=(len(centres), n_in)), taps, lead


def thinning_response(taps: NDArray[np.float64], frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Frequency response (real) of the filter of :func:`thinning_matrix` at cycles per input voxel."""
    half = len(taps) // 2
    response = np.full(frequency.shape, taps[half])
    for offset in range(1, half + 1):
        response += 2.0 * taps[half + offset] * np.cos(2.0 * np.pi * offset * frequency)
    return response
