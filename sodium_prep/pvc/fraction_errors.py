"""What errors of the tissue fractions do to the predicted sodium image.

Fractions come from a T1-weighted image, and after the point spread function they decide the corrected number. Their
errors have few shapes: bias left in the image and wrong intensities of pure tissue move the border between two tissues
(fractions change where both are present), evenly or with a slope over the head; thin fluid within grey matter is taken
for noise. Each shape moves volume from one tissue to another, and so changes the image by what the one sends less and
the other more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.relaxation import Tissue
from sodium_prep.pvc.compartments import Compartments

BORDER_SD: Final = 0.03
"""Standard deviation of the fraction that an error moves in voxels with two tissues: of its mean over the head, and of
its slope from the centre to each end."""
FLUID_SD: Final = 0.003
"""Standard deviation of the fraction of fluid in voxels that pass for pure grey matter, for T1w voxels of 1 mm. It
grows with the area of a voxel's face: the wider the voxel, the thicker the layer of fluid that it hides."""
BORDERS: Final[tuple[tuple[Tissue, Tissue], ...]] = (("GM", "WM"), ("CSF", "GM"))
WAYS: Final = ("", *(f", slope along axis {axis}" for axis in (1, 2, 3)))
FLUID: Final = "fluid in grey matter"
_BOTH: Final = 0.02
_WITHOUT_FLUID: Final = ("deep_gm", "lesion")


@dataclass(frozen=True)
class Slopes:
    """The ways in which the amount of an error varies over the head: not at all, and evenly along each axis.

    Attributes
    ----------
    low, high : (3,)
        Voxels of the native grid between which a slope runs from -1 to 1; it is level beyond.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @classmethod
    def over(cls, mask: NDArray[np.bool_]) -> Slopes:
        """Over the extent of a mask."""
        inside = np.argwhere(mask)
        return cls(inside.min(axis=0), inside.max(axis=0))

    def at(self, voxels: NDArray[np.floating]) -> NDArray[np.float32]:
        """Each of :data:`WAYS` at native voxel coordinates (3, n): (4, n)."""
        middle, half = (self.low + self.high) / 2.0, np.maximum((self.high - self.low) / 2.0, 0.5)
        slope = np.clip((voxels - middle[:, None]) / half[:, None], -1.0, 1.0)
        return np.asarray(np.concatenate([np.ones_like(slope[:1]), slope]), np.float32)


@dataclass(frozen=True)
class FractionErrors:
    """Derivatives of the predicted image by errors of the fractions, which are independent of each other.

    Attributes
    ----------
    names
        What each is.
    images : (n, X * Y * Z) float32
        Change of the image per unit.
    sds : (n,)
        Standard deviation of each.
    values : (n_compartments,)
        Signals that the derivatives were taken at.
    """

    names: tuple[str, ...]
    images: NDArray[np.float32] = field(repr=False)
    sds: NDArray[np.float64]
    values: NDArray[np.floating] = field(repr=False)

    @property
    def at_borders(self) -> FractionErrors:
        """Those that the image itself can tell. Fluid in grey matter looks like grey matter with more sodium."""
        return self._chosen([name != FLUID for name in self.names])

    @property
    def unseen(self) -> FractionErrors:
        """The others."""
        return self._chosen([name == FLUID for name in self.names])

    def _chosen(self, kept: list[bool]) -> FractionErrors:
        names = tuple(name for name, keep in zip(self.names, kept, strict=True) if keep)
        return FractionErrors(names, self.images[kept], self.sds[kept], self.values)


def fraction_errors(
    compartments: Compartments,
    values: NDArray[np.floating],
    mask: NDArray[np.bool_],
    push: Callable[[Compartments], NDArray[np.float32]],
) -> FractionErrors:
    """Derivatives of the predicted image by the errors that fractions have.

    Parameters
    ----------
    compartments
        Of the head.
    values : (n_compartments,)
        Signal of each as fitted.
    mask : (X, Y, Z) bool
        The fitted voxels of the native grid; slopes run from -1 to 1 over their extent.
    push
        Makes of compartments what the acquisition would show of them, (n, X * Y * Z).
    """
    moved = moved_volumes(compartments, values)
    base = push(moved)
    base = base[::2] - base[1::2]
    slopes = Slopes.over(mask)
    every = slopes.at(np.indices(mask.shape, np.float32).reshape(3, -1))
    names: list[str] = []
    images: list[NDArray[np.float32]] = []
    sds: list[float] = []
    for (lower, upper), image in zip(BORDERS, base, strict=False):
        for way, slope in zip(WAYS, every, strict=True):
            names.append(f"{lower}-{upper} border{way}")
            images.append(image * slope)
            sds.append(BORDER_SD)
    names.append(FLUID)
    images.append(base[-1])
    sds.append(FLUID_SD * max(1.0, float(np.cbrt(compartments.voxel_volume_mm3)) ** 2))
    return FractionErrors(tuple(names), np.stack(images), np.array(sds), values)


def moved_volumes(compartments: Compartments, values: NDArray[np.floating]) -> Compartments:
    """Pairs of compartments: the signal that one tissue gains and the one that another loses, for each kind of error.

    Returns
    -------
    Gain and loss in turn: for each of :data:`BORDERS`, and for fluid in grey matter.
    """
    shares = {tissue: _share_and_signal(compartments, values, tissue) for tissue in ("GM", "WM", "CSF")}
    out = Compartments([], [], [], [], [], compartments.shape, compartments.affine)
    for lower, upper in BORDERS:
        at = np.flatnonzero((shares[lower][0] > _BOTH) & (shares[upper][0] > _BOTH))
        for tissue in (upper, lower):
            share, signal = shares[tissue]
            out.append(tissue, tissue, "nuisance", at, signal[at] / share[at])
    fluid, fluid_signal = shares["CSF"]
    mean = float(fluid_signal.sum(dtype=np.float64) / max(float(fluid.sum(dtype=np.float64)), 1e-6))
    cortex = [i for i in compartments.regions if compartments.structures[i] not in _WITHOUT_FLUID]
    share, signal = _share_and_signal(compartments, values, "GM", cortex)
    at = np.flatnonzero(share > 0.0)
    out.append("CSF", "CSF", "nuisance", at, mean * share[at])
    out.append("GM", "GM", "nuisance", at, signal[at])
    return out


def with_borders_moved(
    compartments: Compartments,
    amounts: NDArray[np.floating],
    slopes: Slopes,
    to_native: NDArray[np.floating],
) -> Compartments:
    """Compartments after their borders have moved.

    Parameters
    ----------
    amounts : (2, 4)
        Fraction that passes from the lower to the upper tissue of each of :data:`BORDERS`, in voxels that hold both,
        for each of :data:`WAYS`. No more passes than there is.
    to_native : (4, 4)
        From voxels of the T1w grid to those that ``slopes`` counts in.

    Returns
    -------
    The same compartments; those of one tissue in a voxel keep their shares of it.
    """
    c = compartments
    before = {tissue: _share(c, tissue) for tissue in ("GM", "WM", "CSF")}
    after = {tissue: share.copy() for tissue, share in before.items()}
    for (lower, upper), amount in zip(BORDERS, amounts, strict=True):
        at = np.flatnonzero((before[lower] > _BOTH) & (before[upper] > _BOTH))
        places = to_native[:3, :3] @ np.stack(np.unravel_index(at, c.shape)) + to_native[:3, 3:]
        passed = np.clip(amount @ slopes.at(places), -after[upper][at], after[lower][at])
        after[lower][at] -= passed
        after[upper][at] += passed
    weights = [
        weight * (after[tissue][at] / before[tissue][at]) if tissue in after else weight
        for tissue, at, weight in zip(c.tissues, c.voxels, c.weights, strict=True)
    ]
    return replace(c, weights=weights)


def _share(c: Compartments, tissue: Tissue) -> NDArray[np.float32]:
    """Share of a tissue in each voxel of the T1w grid, flat. Fluid outside the brain counts."""
    share = np.zeros(int(np.prod(c.shape)), np.float32)
    for own, at, weight in zip(c.tissues, c.voxels, c.weights, strict=True):
        if own == tissue:
            share[at] += weight
    return share


def _share_and_signal(
    c: Compartments, values: NDArray[np.floating], tissue: Tissue, members: list[int] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Share of a tissue in each voxel of the T1w grid, and share times signal; flat.

    Fluid outside the brain counts, as grey matter borders on it.
    """
    share = np.zeros(int(np.prod(c.shape)), np.float32)
    signal = np.zeros_like(share)
    for i in range(len(c.names)) if members is None else members:
        if c.tissues[i] == tissue:
            share[c.voxels[i]] += c.weights[i]
            signal[c.voxels[i]] += c.weights[i] * np.float32(np.nan_to_num(values[i]))
    return share, signal
