"""Regional values where image and regions lie on one grid: no registration, no resampling, little time.

A symmetric point spread function only scales the cosine modes of a grid (DCT-II) whose border mirrors what lies within.
Blurring a region is then a product with the transfer function of its tissue, the sums over voxels that the estimators
need are sums over modes (Parseval), and modes that the transfer function takes out need not be computed. The few that
are left come from the box around each region by three small matrix products. A constant image stays constant up to the
border, as it does with repeated edges.

Maps and image are taken to be sampled alike (both at points, or both as means over voxels).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.estimators import RegionValues, scaled_inverse
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.recon.noise import noise_power_spectrum

Array = NDArray[np.float64]
Maps: TypeAlias = NDArray[np.integer] | scipy.sparse.csr_matrix

_LEAST_TRANSFER: Final = 3e-4
"""Modes that every transfer function reduces below this are left out: the sums hold them by its square."""
_NEARLY_ALL: Final = 0.9
_BLOCK: Final = 8192
_WORST_CONDITION: Final = 1e5
"""Sums in single precision say nothing beyond."""


class SameGrid:
    """Regions and their blurred images on the grid of an image, in cosine modes.

    Parameters
    ----------
    regions
        (X, Y, Z) integers 1..n, the region of each voxel (0 is none and has no signal); or sparse (n, X * Y * Z)
        fractions in C order (:func:`sparse_fractions`), which should add up to 1 in every voxel.
    shape, voxel_mm
        The grid.
    psf
        Transfer function of the acquisition.
    tissues : n entries
        Tissue of each region.
    relaxations
        Of each tissue that occurs.

    Notes
    -----
    Noise is white for a Gaussian PSF. For an acquisition it has the spectrum that gridding gives it
    (:func:`sodium_prep.recon.noise.noise_power_spectrum`).
    """

    def __init__(
        self,
        regions: Maps,
        shape: tuple[int, int, int],
        voxel_mm: tuple[float, float, float],
        psf: PsfModel,
        tissues: Sequence[Tissue],
        relaxations: Mapping[Tissue, Relaxation],
    ) -> None:
        if isinstance(regions, np.ndarray) and regions.shape != shape:
            raise ValueError(f"labels of shape {regions.shape} on a grid of {shape}")
        self._regions, self._shape = regions, shape
        n, voxel = np.asarray(shape), np.asarray(voxel_mm)
        cell = 0.5 / (n * voxel)
        box = np.minimum(n, np.ceil(np.asarray(psf.cutoff_per_mm) / cell + 0.5).astype(int) + 1)
        # A Gaussian is the same for every tissue.
        of_region = [tissues[0]] * len(tissues) if psf.kind == "gaussian" else list(tissues)
        kinds = sorted(set(of_region))
        self._tissue = np.array([kinds.index(tissue) for tissue in of_region])
        self._modes, self._transfer = _transfer(psf, [relaxations[kind] for kind in kinds], box, cell)
        self._cosines = [_cosines(count, rows) for count, rows in zip(shape, box, strict=True)]
        self._spectra = np.empty((len(tissues), self._modes.size), np.float32)
        for spectrum, (corner, piece) in zip(self._spectra, _pieces(regions, shape, len(tissues)), strict=True):
            self._transform(piece, corner, spectrum)
        self._noise: NDArray[np.float32] | None = None  # of each mode in that of a voxel; white is 1 in all
        if psf.acquisition is not None and psf.kind == "acquisition":
            self._noise = _noise_of_modes(psf.acquisition, n, voxel, box)[self._modes]

    @property
    def n_modes(self) -> int:
        """Number of independent values that the PSF leaves of an image; more regions cannot be told apart."""
        return int(self._modes.size)

    def labbe(self, image: NDArray[np.floating], noise_sd: float | None = None) -> RegionValues:
        """Least squares of the image on the blurred regions.

        Parameters
        ----------
        image : (X, Y, Z)
            Finite everywhere.
        noise_sd
            Standard deviation of the noise in a voxel; from the residual if not given.

        Raises
        ------
        numpy.linalg.LinAlgError
            If regions cannot be told apart at all.
        """
        modes = self._image_modes(image)
        matrix, noise, right = self._sums(modes, self._transfer, blurred=True)
        return self._solved(matrix, right, matrix if self._noise is None else noise, modes, noise_sd)

    def gtm(self, image: NDArray[np.floating], noise_sd: float | None = None) -> RegionValues:
        """Geometric transfer matrix; parameters as for :meth:`labbe`.

        The sums over regions hold all of the image, also what lies beyond the modes of the PSF.
        """
        modes = self._image_modes(image)
        if self._noise is None and len(self._transfer) == 1 and self._transfer.min() >= 0.0:
            # One transfer function, given by half to either side: a product with itself is half the work.
            matrix, noise, _ = self._sums(modes, np.sqrt(self._transfer), blurred=True)
        else:
            matrix, noise, _ = self._sums(modes, self._transfer, blurred=False)
        right, overlap = self._over_regions(image)
        return self._solved(matrix, right, overlap if self._noise is None else noise, modes, noise_sd)

    def means(self, image: NDArray[np.floating]) -> tuple[Array, Array]:
        """Uncorrected mean over each region (NaN without voxels), and its volume in voxels."""
        sums, _ = self._over_regions(image)
        volumes, _ = self._over_regions(np.ones(self._shape))
        return np.divide(sums, volumes, out=np.full_like(sums, np.nan), where=volumes > 0.0), volumes

    def _image_modes(self, image: NDArray[np.floating]) -> NDArray[np.float32]:
        modes = np.empty(self._modes.size, np.float32)
        self._transform(np.ascontiguousarray(image, np.float32), (0, 0, 0), modes)
        return modes

    def _transform(self, piece: NDArray[np.float32], corner: Sequence[int], out: NDArray[np.float32]) -> None:
        """Modes of a piece of an image that is zero elsewhere."""
        x, y, z = (
            cosines[:, start : start + count]
            for cosines, start, count in zip(self._cosines, corner, piece.shape, strict=True)
        )
        part = np.matmul(y, piece @ z.T)
        part = part.reshape(len(part), -1)
        if len(x) * part.shape[1] == out.size:
            np.matmul(x, part, out=out.reshape(len(x), -1))
        else:
            np.take(x @ part, self._modes, out=out, mode="clip")

    def _sums(
        self, image: NDArray[np.float32], transfer: NDArray[np.float32], *, blurred: bool
    ) -> tuple[Array, Array, Array]:
        """Instruments times blurred regions, their noise (zero where it is white), and their sums over the image.

        The instruments are the blurred regions, or the regions as they are. Products are in float32 for some modes at
        a time, and added up in float64.
        """
        n = len(self._spectra)
        matrix, noise, right = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n)
        for start in range(0, image.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            blur = self._spectra[:, part] * transfer[self._tissue, part]
            instruments = blur if blurred else self._spectra[:, part]
            matrix += instruments @ blur.T
            right += instruments @ image[part]
            if self._noise is not None:
                loud = instruments * self._noise[part]
                noise += loud @ loud.T
        return matrix, noise, right

    def _over_regions(self, image: NDArray[np.floating]) -> tuple[Array, Array]:
        """Sum of an image over each region (n,), and of the products of regions (n, n)."""
        if isinstance(self._regions, np.ndarray):
            flat, bins = self._regions.reshape(-1), len(self._spectra) + 1
            sums = np.bincount(flat, image.reshape(-1), minlength=bins)[1:]
            return np.asarray(sums, np.float64), np.diag(np.bincount(flat, minlength=bins)[1:].astype(np.float64))
        wide = self._regions.astype(np.float64)
        return np.asarray(wide @ image.reshape(-1)), np.asarray((wide @ wide.T).toarray())

    def _solved(
        self, matrix: Array, right: Array, noise: Array, image: NDArray[np.float32], noise_sd: float | None
    ) -> RegionValues:
        n = len(matrix)
        there = np.flatnonzero(np.diag(matrix) > 0.0)
        square = np.ix_(there, there)
        values, inflation, covariance = np.full(n, np.nan), np.full(n, np.nan), np.full((n, n), np.nan)
        inverse, condition = scaled_inverse(matrix[square])
        if not condition < _WORST_CONDITION:
            raise np.linalg.LinAlgError("the image does not tell the regions apart")
        values[there] = inverse @ right[there]
        inflation[there] = np.abs(np.diag(inverse) * np.diag(matrix)[there])
        covariance[square] = inverse @ noise[square] @ inverse.T
        amounts = np.zeros((len(self._transfer), n), np.float32)
        amounts[self._tissue, np.arange(n)] = np.nan_to_num(values)
        residual = image - np.einsum("ij,ij->j", amounts @ self._spectra, self._transfer)
        squares = float(np.sum(residual.astype(np.float64) ** 2))
        total = float(image.size if self._noise is None else np.sum(self._noise.astype(np.float64) ** 2))
        variance = squares / (total - float(np.sum(inverse * noise[square])))
        sd = float(np.sqrt(variance)) if noise_sd is None else noise_sd
        return RegionValues(
            values, covariance * sd**2, inflation, condition, variance / sd**2, float(np.sqrt(squares / total)), sd
        )


def sparse_fractions(maps: Sequence[NDArray[np.floating]]) -> scipy.sparse.csr_matrix:
    """Fraction maps, n times (X, Y, Z), as sparse (n, X * Y * Z) float32."""
    flat = [np.ascontiguousarray(one, np.float32).reshape(-1) for one in maps]
    filled = [np.flatnonzero(one != 0.0) for one in flat]
    ends = np.cumsum([0, *(where.size for where in filled)])
    data = np.concatenate([one[where] for one, where in zip(flat, filled, strict=True)])
    return scipy.sparse.csr_matrix((data, np.concatenate(filled), ends), shape=(len(flat), flat[0].size))


def _transfer(
    psf: PsfModel, relaxations: Sequence[Relaxation], box: NDArray[np.int64], cell: Array
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Flat indices in a box of the modes that are kept, and the transfer function of each tissue in them."""
    axes = [np.arange(count) * step for count, step in zip(box, cell, strict=True)]
    every = np.arange(int(box.prod()))
    near = every
    if psf.acquisition is None or psf.acquisition.trajectory != "Cartesian":
        limit = np.asarray(psf.cutoff_per_mm) + cell
        x, y, z = ((axis / end) ** 2 for axis, end in zip(axes, limit, strict=True))
        near = np.flatnonzero(x[:, None, None] + y[:, None] + z <= 1.0)
    if near.size > _NEARLY_ALL * every.size:  # it costs less to keep the others too
        near = every
    k = np.stack([axis[i] for axis, i in zip(axes, np.unravel_index(near, box), strict=True)], axis=-1)
    transfer = np.stack([psf.mtf(k, relaxation, cell) for relaxation in relaxations])
    kept = transfer.max(axis=0) > _LEAST_TRANSFER
    if kept.sum() > _NEARLY_ALL * every.size:
        kept[:] = True
    return near[kept], transfer[:, kept].astype(np.float32)


def _noise_of_modes(
    acquisition: Acquisition, n: NDArray[np.int64], voxel_mm: Array, box: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Standard deviation of all modes in a box for noise of 1 in a voxel."""
    # A coarser grid of the same extent has the same frequencies up to its own limit, and less to compute.
    x, y, z = (int(count) for count in box)
    coarse = voxel_mm * n / box
    power = noise_power_spectrum((2 * x, 2 * y, 2 * z), (coarse[0], coarse[1], coarse[2]), acquisition)
    return np.asarray(np.sqrt(power[:x, :y, :z].reshape(-1) * np.float32(n.prod() / box.prod())))


def _cosines(n: int, rows: int) -> NDArray[np.float32]:
    """First orthonormal cosine modes (DCT-II) of n points; (rows, n)."""
    modes = np.cos(np.pi / n * np.outer(np.arange(rows), np.arange(n) + 0.5)) * np.sqrt(2.0 / n)
    modes[0] = np.sqrt(1.0 / n)
    return np.asarray(modes, np.float32)


def _pieces(regions: Maps, shape: tuple[int, int, int], n: int) -> Iterator[tuple[Sequence[int], NDArray[np.float32]]]:
    """Box around each region: its first voxel, and the map inside."""
    nothing: tuple[Sequence[int], NDArray[np.float32]] = ((0, 0, 0), np.zeros((1, 1, 1), np.float32))
    if isinstance(regions, np.ndarray):
        for number, box in enumerate(ndimage.find_objects(regions, n), 1):
            yield nothing if box is None else ([s.start for s in box], (regions[box] == number).astype(np.float32))
        return
    for first, last in zip(regions.indptr[:-1], regions.indptr[1:], strict=True):
        if first == last:
            yield nothing
            continue
        index = np.unravel_index(regions.indices[first:last], shape)
        corner = [int(axis.min()) for axis in index]
        piece = np.zeros([int(axis.max()) - low + 1 for axis, low in zip(index, corner, strict=True)], np.float32)
        piece[tuple(axis - low for axis, low in zip(index, corner, strict=True))] = regions.data[first:last]
        yield corner, piece
