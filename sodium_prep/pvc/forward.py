"""From tissue fractions on the T1w grid to what the sodium acquisition would show of each compartment.

Every compartment goes straight from its T1w voxels to the spatial frequencies that the acquisition measures, by a
non-uniform Fourier transform (type 1) of its fractions at the places that its voxels have in the sodium image. There
it is multiplied by the transfer function of its tissue and turned into an image on the native sodium grid. Nothing is
interpolated, so nothing is blurred twice.

A compartment fills a small part of the field of view. Its points are therefore spread (finufft) in a box of their own,
and the frequencies computed from the box by matrix products with the waves of each axis, which costs less than a fast
transform of the whole period. The maps are real: half of the frequencies say all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol

import finufft
import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments

VoxelKernel = Literal["box", "point", "mean"]
"""What the fraction of a T1w voxel says; see :func:`push_compartments`."""


class Transfer(Protocol):
    """What multiplies the spectrum of a compartment, as :class:`sodium_prep.pvc.psf.PsfModel` does."""

    @property
    def cutoff_per_mm(self) -> tuple[float, float, float]:
        """Frequency along each axis from which on nothing is left."""

    def mtf(
        self, k_vectors_per_mm: ArrayLike, relaxation: Relaxation, cell_per_mm: ArrayLike, /
    ) -> NDArray[np.float64]:
        """Factor at spatial frequencies (..., 3)."""


_SINC_POWER: Final[dict[str, int]] = {"box": 1, "point": 0, "mean": -1}
_NUFFT_TOLERANCE: Final = 5e-5
_OVERSAMPLING: Final = 1.25
_SPREAD_CELLS: Final = 8  # more than half the width of finufft's kernel at any tolerance that single precision allows
_PADDING_MM: Final = 32.0


@dataclass(frozen=True)
class _Modes:
    """Spatial frequencies of a native grid with a margin, and the points that T1w voxels have in it.

    The period is longer than the field of view: gridding evaluates a sum over k-space that does not repeat itself, so
    the tails of the PSF must not come in again on the other side.
    """

    shape: tuple[int, int, int]
    period: NDArray[np.int64]
    n_modes: tuple[int, int, int]
    voxel_mm: NDArray[np.float64]
    t1w_to_sodium: NDArray[np.float64]  # voxel coordinates of the T1w image -> those of the sodium image

    @classmethod
    def build(
        cls,
        shape: Sequence[int],
        sodium_affine: NDArray[np.float64],
        sodium_to_t1w: NDArray[np.float64],
        t1w_affine: NDArray[np.float64],
        cutoff_per_mm: Sequence[float],
    ) -> _Modes:
        voxel = np.linalg.norm(sodium_affine[:3, :3], axis=0)
        axes = sodium_affine[:3, :3] / voxel
        if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
            raise ValueError("the axes of the sodium image are not at right angles")
        n = np.asarray(shape)
        period = np.array([scipy.fft.next_fast_len(int(m)) for m in n + np.ceil(_PADDING_MM / voxel)])
        half = np.floor(np.asarray(cutoff_per_mm) * period * voxel + 0.5).astype(int)
        n_modes = tuple(int(h) for h in 2 * half + 1)  # odd: every frequency has its mirror image
        to_sodium = np.linalg.solve(sodium_affine, np.linalg.solve(sodium_to_t1w, t1w_affine))
        return cls((int(n[0]), int(n[1]), int(n[2])), period, (n_modes[0], n_modes[1], n_modes[2]), voxel, to_sodium)

    @property
    def cell_per_mm(self) -> NDArray[np.float64]:
        """Spacing of the frequencies along each axis."""
        return np.asarray(1.0 / (self.period * self.voxel_mm))

    @cached_property
    def _steps(self) -> list[NDArray[np.int64]]:
        """Frequencies that are kept along each axis; those of the last are not negative, the others mirror them."""
        x, y, z = (np.arange(m) - m // 2 for m in self.n_modes)
        return [x, y, z[z >= 0]]

    def frequencies_per_mm(self) -> NDArray[np.float64]:
        """Those that are kept, along the axes of the sodium image; shape (..., 3)."""
        axes = [step * cell for step, cell in zip(self._steps, self.cell_per_mm, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def voxel_transform(self, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform of a T1w voxel, a box turned with its image; 1 at k = 0. Shape of ``frequencies[..., 0]``."""
        edges_mm = self.t1w_to_sodium[:3, :3] * self.voxel_mm[:, None]
        return np.asarray(np.prod(np.sinc(frequencies @ edges_mm), axis=-1))

    @cached_property
    def _fine(self) -> NDArray[np.int64]:
        """Cells of the period in which points are spread."""
        return np.ceil(_OVERSAMPLING * np.asarray(self.n_modes)).astype(np.int64)

    def unspread(self) -> NDArray[np.float64]:
        """Reciprocal of the transform of the spreading kernel."""
        profile, place = [], []
        n, offsets = 3 * _SPREAD_CELLS, (np.arange(16) + 0.5) / 16 - 0.5
        for offset in offsets:
            at = np.full((3, 1), n / 2.0)
            at[0] += offset
            profile.append(_spread(at, np.ones(1), (n, n, n))[:, n // 2, n // 2])
            place.append(np.arange(n) - at[0])
        weights, x = np.concatenate(profile) / offsets.size, np.concatenate(place)
        a, b, c = (
            np.cos(np.outer(step, 2.0 * np.pi / fine * x)) @ weights
            for step, fine in zip(self._steps, self._fine, strict=True)
        )
        return np.asarray(1.0 / (a[:, None, None] * b[:, None] * c))

    @cached_property
    def _waves_of_cells(self) -> list[NDArray[np.complex64]]:
        """Transform along each axis, from fine cells to frequencies."""
        return [
            np.exp(-2j * np.pi / fine * np.outer(step, np.arange(fine))).astype(np.complex64)
            for step, fine in zip(self._steps, self._fine, strict=True)
        ]

    def to_frequencies(self, points: NDArray[np.float64], weights: NDArray[np.floating]) -> NDArray[np.complex64]:
        """Transform of weighted points (3, n) in sodium voxels, times that of the spreading kernel."""
        cells = points * (self._fine / self.period)[:, None]
        corner = np.floor(cells.min(axis=1)).astype(np.int64) - _SPREAD_CELLS
        a, b, c = (int(n) for n in np.ceil(cells.max(axis=1)) + _SPREAD_CELLS + 1 - corner)
        box = _spread(cells - corner[:, None], weights, (a, b, c))
        x, y, z = (
            wave[:, (low + np.arange(n)) % fine]
            for wave, low, n, fine in zip(self._waves_of_cells, corner, (a, b, c), self._fine, strict=True)
        )
        part = np.matmul(y, (box @ np.ascontiguousarray(z.T).view(np.float32)).view(np.complex64))
        return np.asarray((x @ part.reshape(a, -1)).reshape(len(x), len(y), len(z)))

    def points(self, voxels: NDArray[np.int64], t1w_shape: Sequence[int]) -> NDArray[np.float64]:
        """Sodium voxel coordinates of T1w voxels; shape (3, n)."""
        index = np.stack(np.unravel_index(voxels, tuple(t1w_shape))).astype(np.float64)
        return self.t1w_to_sodium[:3, :3] @ index + self.t1w_to_sodium[:3, 3:]

    def near(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Points in the field of view or in the margin around it; others would be wrapped into it."""
        n = np.asarray(self.shape)[:, None]
        margin = (self.period[:, None] - n) / 2.0
        return np.asarray(np.all((points > -margin - 0.5) & (points < n - 0.5 + margin), axis=0))

    @cached_property
    def _waves(self) -> list[NDArray[np.complex64]]:
        """Inverse transform along each axis, from its frequencies to its voxel centres."""
        waves = []
        for n, step, period in zip(self.shape, self._steps, self.period, strict=True):
            waves.append((np.exp(2j * np.pi / period * np.outer(np.arange(n), step)) / period).astype(np.complex64))
        waves[2][:, 1:] *= 2.0  # for the half that is not kept
        return waves

    def to_space(self, spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Inverse transform at the voxel centres of the native grid; shape ``shape``.

        Frequencies beyond the grid's own alias, as in any sampling.
        """
        x, y, z = self._waves
        part = np.matmul(y, (x @ spectrum.reshape(len(spectrum), -1)).reshape(len(x), *spectrum.shape[1:]))
        return np.asarray(part.view(np.float32) @ z.conj().view(np.float32).T)


def push_compartments(
    compartments: Compartments,
    sodium_to_t1w: NDArray[np.float64],
    sodium_shape: Sequence[int],
    sodium_affine: NDArray[np.float64],
    psf: Transfer,
    relaxations: Mapping[Tissue, Relaxation],
    *,
    voxel_kernel: VoxelKernel = "point",
) -> NDArray[np.float32]:
    """Image of each compartment as the sodium acquisition would show it with unit signal.

    Parameters
    ----------
    compartments
        Fractions on the T1w grid.
    sodium_to_t1w : (4, 4)
        Moves points of sodium space to T1w space, RAS mm.
    sodium_shape, sodium_affine
        Native grid of the sodium image.
    psf
        Transfer function of the acquisition.
    relaxations
        Of each tissue that occurs.
    voxel_kernel
        ``point``: fractions are samples of a map that is as sharp as the T1w image, which holds for fractions measured
        from its intensities. ``box``: fractions are constant over each voxel, which holds for labels that *are* the
        truth (a voxelised phantom). ``mean``: fractions are means over voxels of something sharper.

    Returns
    -------
    (n_compartments, X * Y * Z) float32, in C order of the native grid; close to 1 deep inside a large compartment.
    """
    modes = _Modes.build(sodium_shape, sodium_affine, sodium_to_t1w, compartments.affine, psf.cutoff_per_mm)
    k = modes.frequencies_per_mm()
    density = abs(float(np.linalg.det(modes.t1w_to_sodium[:3, :3])))
    power = _SINC_POWER[voxel_kernel]
    common = density * modes.unspread() * (modes.voxel_transform(k) ** power if power else 1.0)
    images = np.zeros((len(compartments.names), int(np.prod(modes.shape))), np.float32)
    for tissue in sorted(set(compartments.tissues)):
        kernel = (common * psf.mtf(k, relaxations[tissue], modes.cell_per_mm)).astype(np.float32)
        for member in (i for i, t in enumerate(compartments.tissues) if t == tissue):
            at = modes.points(compartments.voxels[member], compartments.shape)
            near = modes.near(at)
            if near.any():
                spectrum = modes.to_frequencies(at[:, near], compartments.weights[member][near])
                images[member] = modes.to_space(spectrum * kernel).reshape(-1)
    return images


def _spread(
    points: NDArray[np.float64], weights: NDArray[np.floating], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Real points (3, n), in cells, spread in a box by the kernel of a non-uniform transform."""
    options = {"upsampfac": _OVERSAMPLING, "nthreads": 1, "spreadinterponly": 1}
    plan = finufft.Plan(1, shape, eps=_NUFFT_TOLERANCE, dtype="complex64", **options)
    angle = 2.0 * np.pi / np.asarray(shape)[:, None] * points - np.pi
    plan.setpts(*(np.ascontiguousarray(a, dtype=np.float32) for a in angle))
    return np.ascontiguousarray(plan.execute(weights.astype(np.complex64)).real)


def region_fractions(
    compartments: Compartments,
    sodium_to_t1w: NDArray[np.float64],
    sodium_shape: Sequence[int],
    sodium_affine: NDArray[np.float64],
) -> scipy.sparse.csr_matrix:
    """Share of every native voxel that each compartment fills, without any blurring.

    Each T1w voxel is laid into the native grid as a box along its axes (exact for parallel grids); its volume is kept.

    Returns
    -------
    Sparse (n_compartments, X * Y * Z) float32.
    """
    modes = _Modes.build(sodium_shape, sodium_affine, sodium_to_t1w, compartments.affine, (0.0, 0.0, 0.0))
    jacobian = modes.t1w_to_sodium[:3, :3]
    width = np.linalg.norm(jacobian, axis=1)
    scale = abs(float(np.linalg.det(jacobian)))
    n_voxels = int(np.prod(modes.shape))
    indices, data, ends = [], [], [0]
    for voxels, weights in zip(compartments.voxels, compartments.weights, strict=True):
        row = _deposit(modes.points(voxels, compartments.shape), weights * scale, width, modes.shape)
        filled = np.flatnonzero(row)
        indices.append(filled)
        data.append(row[filled].astype(np.float32))
        ends.append(ends[-1] + filled.size)
    parts = (np.concatenate(data), np.concatenate(indices), np.asarray(ends))
    return scipy.sparse.csr_matrix(parts, shape=(len(indices), n_voxels))


def _deposit(
    points: NDArray[np.float64], masses: NDArray[np.floating], width: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Mass in every cell of a grid after spreading each point over a box of the given width (in cells)."""
    low, high = points - width[:, None] / 2.0 + 0.5, points + width[:, None] / 2.0 + 0.5
    first = np.floor(low).astype(np.int64)
    at, cell, mass = np.arange(points.shape[1]), np.zeros(points.shape[1], np.int64), masses / np.prod(width)
    for axis, n in enumerate(shape):
        # Most points lie in one cell of an axis: those without a share in the next are dropped at once.
        parts = []
        for step in range(int(np.ceil(width[axis])) + 1):
            index = first[axis][at] + step
            share = np.minimum(high[axis][at], index + 1.0) - np.maximum(low[axis][at], index)
            kept = np.flatnonzero((share > 0.0) & (index >= 0) & (index < n))
            parts.append((at[kept], cell[kept] * n + index[kept], mass[kept] * share[kept]))
        at, cell, mass = (np.concatenate(column) for column in zip(*parts, strict=True))
    return np.asarray(np.bincount(cell, mass, minlength=int(np.prod(shape))), np.float64)
