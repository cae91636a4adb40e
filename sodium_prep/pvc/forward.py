"""From tissue fractions on the T1w grid to what the sodium acquisition would show of each compartment.

Every compartment goes straight from its T1w voxels to the spatial frequencies that the acquisition measures, by a
non-uniform Fourier transform (type 1) of its fractions at the places that its voxels have in the sodium image. There
it is multiplied by the transfer function of its tissue and turned into an image on the native sodium grid. Nothing is
interpolated, so nothing is blurred twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import finufft
import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray

from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.psf import PsfModel

VoxelKernel = Literal["box", "point", "mean"]
"""What the fraction of a T1w voxel says; see :func:`push_compartments`."""

_SINC_POWER: Final[dict[str, int]] = {"box": 1, "point": 0, "mean": -1}
_NUFFT_TOLERANCE: Final = 5e-5
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

    def _frequencies_per_mm(self, steps: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """At some steps along the axes of the sodium image; shape (..., 3)."""
        axes = [step * cell for step, cell in zip(steps, self.cell_per_mm, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def voxel_transform(self) -> NDArray[np.float64]:
        """Transform of a T1w voxel, a box turned with its image; 1 at k = 0. Shape ``n_modes``."""
        edges_mm = self.t1w_to_sodium[:3, :3] * self.voxel_mm[:, None]
        frequencies = self._frequencies_per_mm([np.arange(m) - m // 2 for m in self.n_modes])
        return np.asarray(np.prod(np.sinc(frequencies @ edges_mm), axis=-1))

    def transfer(self, psf: PsfModel, relaxation: Relaxation) -> NDArray[np.float64]:
        """Transfer function of a tissue, shape ``n_modes``: computed in one octant, as it is even along every axis."""
        octant = self._frequencies_per_mm([np.arange(m // 2 + 1) for m in self.n_modes])
        mirror = np.ix_(*(np.abs(np.arange(m) - m // 2) for m in self.n_modes))
        return psf.mtf(octant, relaxation, self.cell_per_mm)[mirror]

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
        for n, m, period in zip(self.shape, self.n_modes, self.period, strict=True):
            turns = np.outer(np.arange(n), np.arange(m) - m // 2) / period
            waves.append((np.exp(2j * np.pi * turns) / period).astype(np.complex64))
        return waves

    def to_space(self, spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Inverse transform at the voxel centres of the native grid; shape ``shape``.

        By matrix products: fewer voxels are wanted than the period has. Frequencies beyond the grid's own alias, as in
        any sampling.
        """
        x, y, z = self._waves
        part = np.matmul(y, spectrum @ z.T)
        return np.asarray((x @ part.reshape(len(part), -1)).reshape(self.shape))


def push_compartments(
    compartments: Compartments,
    sodium_to_t1w: NDArray[np.float64],
    sodium_shape: Sequence[int],
    sodium_affine: NDArray[np.float64],
    psf: PsfModel,
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
    density = abs(float(np.linalg.det(modes.t1w_to_sodium[:3, :3])))
    power = _SINC_POWER[voxel_kernel]
    common = density * modes.voxel_transform() ** power if power else density
    plan = finufft.Plan(1, modes.n_modes, eps=_NUFFT_TOLERANCE, isign=-1, dtype="complex64", upsampfac=1.25, nthreads=1)
    images = np.empty((len(compartments.names), int(np.prod(modes.shape))), np.float32)
    for tissue in sorted(set(compartments.tissues)):
        kernel = (common * modes.transfer(psf, relaxations[tissue])).astype(np.float32)
        for pair in _pairs(compartments, tissue):
            spectrum = _transform(plan, modes, compartments, pair)
            spectrum *= kernel
            image = modes.to_space(spectrum).reshape(-1)
            for member, part in zip(pair, (image.real, image.imag), strict=False):
                images[member] = part
    return images


def _pairs(compartments: Compartments, tissue: Tissue) -> Iterator[list[int]]:
    """Two compartments of one tissue at a time, of about equal size, to share one complex transform."""
    members = [i for i, t in enumerate(compartments.tissues) if t == tissue]
    members.sort(key=lambda i: (compartments.voxels[i].size, i))
    for start in range(0, len(members), 2):
        yield members[start : start + 2]


def _transform(
    plan: finufft.Plan, modes: _Modes, compartments: Compartments, pair: Sequence[int]
) -> NDArray[np.complex64]:
    """Spectrum of the first compartment plus i times that of the second: their images are its two parts."""
    points, strengths = [], []
    for unit, member in zip((1.0, 1.0j), pair, strict=False):
        at = modes.points(compartments.voxels[member], compartments.shape)
        near = modes.near(at)
        points.append(at[:, near])
        strengths.append(unit * compartments.weights[member][near])
    angle = 2.0 * np.pi * np.concatenate(points, axis=1) / modes.period[:, None]
    if angle.shape[1] == 0:
        return np.zeros(modes.n_modes, np.complex64)
    plan.setpts(*(np.ascontiguousarray(a, dtype=np.float32) for a in angle))
    return np.asarray(plan.execute(np.concatenate(strengths).astype(np.complex64)))


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
    first = np.floor(points - width[:, None] / 2.0 + 0.5).astype(np.int64)
    shares: list[list[NDArray[np.float64]]] = []
    for axis in range(3):
        low, high = points[axis] - width[axis] / 2.0, points[axis] + width[axis] / 2.0
        cells = [first[axis] + step for step in range(int(np.ceil(width[axis])) + 1)]
        shares.append([np.clip(np.minimum(high, c + 0.5) - np.maximum(low, c - 0.5), 0.0, None) for c in cells])
    scaled = masses / np.prod(width)
    cells, parts = [], []
    for steps in np.ndindex(*(len(s) for s in shares)):
        mass = scaled * shares[0][steps[0]] * shares[1][steps[1]] * shares[2][steps[2]]
        filled = np.flatnonzero(mass > 0.0)
        cell = first[:, filled] + np.asarray(steps)[:, None]
        inside = np.all((cell >= 0) & (cell < np.asarray(shape)[:, None]), axis=0)
        cells.append(np.ravel_multi_index(tuple(cell[:, inside]), shape))
        parts.append(mass[filled[inside]])
    return np.asarray(np.bincount(np.concatenate(cells), np.concatenate(parts), minlength=int(np.prod(shape))))
