"""Which compartments are fitted as one region, and which rows of the table each fit gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.relaxation import Tissue
from sodium_prep.pvc.compartments import Compartments

MERGED: Final[tuple[tuple[str, str, Tissue], ...]] = (
    ("Cortex", "cortex", "GM"),
    ("WhiteMatter", "wm", "WM"),
    ("Hippocampus", "hippocampus", "GM"),
    ("CSF", "csf", "CSF"),
)
"""Name, structure and tissue of the rows that every table has besides those of the atlas."""


@dataclass(frozen=True)
class Region:
    """One row of the table, whatever its estimator.

    Attributes
    ----------
    index
        Label in the atlas; None for regions that no label stands for.
    members
        Compartments that make it up.
    """

    index: int | None
    name: str
    hemisphere: str
    tissue: Tissue
    members: tuple[int, ...]


@dataclass(frozen=True)
class Design:
    """A division of the compartments into columns of one fit.

    Attributes
    ----------
    membership : (n_compartments, n_columns)
        1 where a compartment is part of a column.
    columns
        Column of each region in ``regions``; the other columns stand beside them so that nothing is left out.
    """

    membership: NDArray[np.float64]
    regions: tuple[Region, ...]
    columns: tuple[int, ...]


def build_designs(compartments: Compartments) -> list[Design]:
    """Three divisions: every region of the atlas; merged per hemisphere; merged over both.

    In the merged designs cortex, white matter, hippocampus and CSF are one column each (per hemisphere or over both),
    everything else stays as fine as it is. Midline labels belong to neither side, except CSF, which is divided.
    """
    c = compartments
    fine = _atlas_regions(c)
    sides = [_merged(c, entry, side) for entry in MERGED for side in ("L", "R")]
    both = [_merged(c, entry, "both") for entry in MERGED]
    return [_design(len(c.names), [r for r in regions if r.members]) for regions in (fine, sides, both)]


def _atlas_regions(c: Compartments) -> list[Region]:
    """One region per label; a label that is divided between the sides is put together again."""
    groups: dict[object, list[int]] = {}
    for i in c.regions:
        groups.setdefault(c.indices[i] if c.indices[i] >= 0 else (c.names[i], c.hemispheres[i]), []).append(i)
    out = []
    for members in groups.values():
        first, sides = members[0], {c.hemispheres[i] for i in members}
        side = sides.pop() if len(sides) == 1 else "both"
        index = c.indices[first] if c.indices[first] >= 0 else None
        out.append(Region(index, c.names[first], side, c.tissues[first], tuple(members)))
    return out


def _merged(c: Compartments, entry: tuple[str, str, Tissue], side: str) -> Region:
    name, structure, tissue = entry
    members = tuple(i for i in c.regions if c.structures[i] == structure and side in ("both", c.hemispheres[i]))
    return Region(None, name, side, tissue, members)


def merged_design(n_compartments: int, region: Region) -> Design:
    """One region merged, all other compartments on their own."""
    return _design(n_compartments, [region])


def _design(n: int, regions: Sequence[Region]) -> Design:
    merged = {i for region in regions for i in region.members}
    groups = [region.members for region in regions] + [(i,) for i in range(n) if i not in merged]
    membership = np.zeros((n, len(groups)))
    for column, members in enumerate(groups):
        membership[list(members), column] = 1.0
    return Design(membership, tuple(regions), tuple(range(len(regions))))
