"""Which compartments are fitted as one region, and which rows of the table each fit gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.atlas.groups import MAIN, SIDES, Group
from sodium_prep.physics.relaxation import Tissue
from sodium_prep.pvc.compartments import Compartments


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


def build_designs(compartments: Compartments, groups: Sequence[Group] = MAIN) -> list[Design]:
    """Divisions for every region of the atlas, for the main groups per side and over both, and for all other groups.

    In a merged design each of its groups is one column, everything else stays as fine as it is. Midline labels belong
    to neither side, except CSF, which is divided. The main groups have two designs of their own, so that their values
    do not depend on what else is asked for. The other groups share as few designs as their overlaps allow. What lies
    opposite a lesion is a region of each tissue in one more design; in all others it is part of its labels.

    Parameters
    ----------
    compartments
        Of the head.
    groups
        Those of which the head has no parts get no row.

    Returns
    -------
    The atlas regions first; every compartment is in exactly one column of each design.
    """
    main = [group for group in groups if group in MAIN]
    sides = [_merged(compartments, group, side) for group in main for side in ("L", "R")]
    both = [_merged(compartments, group, "both") for group in main]
    others = [_merged(compartments, group, side) for group in groups if group not in MAIN for side in SIDES]
    packed = _pack([region for region in others if region.members])
    merged = [[region for region in regions if region.members] for regions in (sides, both, *packed)]
    merged.append(_mirror_regions(compartments))
    return [_design(compartments, regions) for regions in (_atlas_regions(compartments), *filter(None, merged))]


def _pack(regions: Sequence[Region]) -> list[list[Region]]:
    """Divide regions into sets without overlap, as few as can be had by taking the most entangled regions first."""
    sets = [set(region.members) for region in regions]
    crowd = np.array([[bool(a & b) for b in sets] for a in sets]).sum(axis=1) if regions else np.zeros(0)
    colours: dict[int, int] = {}
    for i in np.argsort(-crowd, kind="stable").tolist():
        taken = {colour for j, colour in colours.items() if sets[i] & sets[j]}
        colours[i] = next(colour for colour in range(len(regions)) if colour not in taken)
    n = max(colours.values(), default=-1) + 1
    return [[region for i, region in enumerate(regions) if colours[i] == colour] for colour in range(n)]


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


def _merged(c: Compartments, group: Group, side: str) -> Region:
    reported = c.regions
    names, hemispheres, structures, tissues = (
        [column[i] for i in reported] for column in (c.names, c.hemispheres, c.structures, c.tissues)
    )
    members = group.members(names, hemispheres, structures, tissues, side)
    return Region(None, group.name, side, group.tissue, tuple(reported[i] for i in members))


def _mirror_regions(c: Compartments) -> list[Region]:
    opposite = [i for i in c.regions if c.in_mirror[i]]
    members: dict[Tissue, list[int]] = {}
    for i in opposite:
        members.setdefault(c.tissues[i], []).append(i)
    return [Region(None, f"LesionMirror{tissue}", "both", tissue, tuple(rows)) for tissue, rows in members.items()]


def merged_design(compartments: Compartments, region: Region) -> Design:
    """One region merged, all other compartments on their own."""
    return _design(compartments, [region])


def _design(c: Compartments, regions: Sequence[Region]) -> Design:
    """Regions as columns, all else on its own; the parts of a label that are left stay together."""
    n = len(c.names)
    merged = {i for region in regions for i in region.members}
    rest: dict[object, list[int]] = {}
    for i in range(n):
        if i not in merged:
            rest.setdefault((c.kinds[i], c.indices[i], c.names[i], c.hemispheres[i]), []).append(i)
    groups = [region.members for region in regions] + [tuple(rows) for rows in rest.values()]
    membership = np.zeros((n, len(groups)))
    for column, members in enumerate(groups):
        membership[list(members), column] = 1.0
    return Design(membership, tuple(regions), tuple(range(len(regions))))
