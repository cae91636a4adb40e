"""What errors of the tissue fractions do to the predicted sodium image.

Fractions come from a T1-weighted image, and after the point spread function they decide the corrected number. Their
errors have few shapes: bias left in the image and wrong intensities of pure tissue move the border between two tissues
(fractions change where both are present), evenly or with a slope over the head; thin fluid within grey matter is taken
for noise. Each shape moves volume from one tissue to another, and so changes the image by what the one sends less and
the other more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
FLUID: Final = "fluid in grey matter"
_BOTH: Final = 0.02
_WITHOUT_FLUID: Final = ("deep_gm", "lesion")


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
    slopes = _slopes(mask)
    names: list[str] = []
    images: list[NDArray[np.float32]] = []
    sds: list[float] = []
    for (lower, upper), image in zip(BORDERS, base, strict=False):
        for way, slope in slopes.items():
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


def _slopes(mask: NDArray[np.bool_]) -> Mapping[str, NDArray[np.float32]]:
    """One, and the three coordinates of the native grid from -1 to 1 over the mask; flat."""
    inside = np.argwhere(mask)
    low, high = inside.min(axis=0), inside.max(axis=0)
    out = {"": np.ones(mask.size, np.float32)}
    for axis, n in enumerate(mask.shape):
        line = np.clip(2.0 * (np.arange(n) - low[axis]) / max(high[axis] - low[axis], 1) - 1.0, -1.0, 1.0)
        shape = [-1 if a == axis else 1 for a in range(3)]
        out[f", slope along axis {axis + 1}"] = (
            np.broadcast_to(line.reshape(shape), mask.shape).reshape(-1).astype(np.float32)
        )
    return out
