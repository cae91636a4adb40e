"""Several atlases as one: the first covers the brain, the others are laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.atlas.tables import few
from sodium_prep.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_STEP: Final = 1000


def merge_tables(tables: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[int]]:
    """One table for several atlases, and what to add to the labels of each.

    The labels of the first stay; those of a later one that would meet labels before it are raised by a multiple of
    1000. This depends on the tables alone: labels mean the same in every participant.

    Raises
    ------
    UsageError
        If a region has the name and hemisphere of one in another atlas.
    """
    import pandas as pd

    parts: list[pd.DataFrame] = []
    shifts: list[int] = []
    used: set[int] = set()
    for table in tables:
        own = {int(i) for i in table["index"]}
        shift = 0 if not used & own else -(-max(used) // _STEP) * _STEP
        shifts.append(shift)
        used |= {i + shift for i in own}
        parts.append(table.assign(index=table["index"] + shift))
    merged = pd.concat(parts).sort_values("index", ignore_index=True)
    twice = merged.loc[merged.duplicated(["name", "hemisphere"]), "name"].unique()
    if twice.size:
        mend = "Leave one atlas out, or give its labels other names in a table of your own"
        raise UsageError("--atlas", f"two atlases have regions called {few(twice)}", mend)
    return merged, shifts


def merge_atlases(
    labels: Sequence[NDArray[np.int32]], tables: Sequence[pd.DataFrame]
) -> tuple[NDArray[np.int32], pd.DataFrame]:
    """Lay label images over each other.

    Parameters
    ----------
    labels : sequence of (X, Y, Z) int32
        On one grid, e.g. after warping. Each replaces those before it where it has a label.
    tables
        Of each.

    Returns
    -------
    Labels and their table. Regions that are wholly covered keep their rows: in another participant they may not be.

    Raises
    ------
    UsageError
        If two atlases name a region alike.
    """
    if len(labels) != len(tables) or not labels:
        raise ValueError("as many label images as tables are needed, and at least one")
    table, shifts = merge_tables(tables)
    out = np.zeros_like(labels[0], dtype=np.int32)
    for image, shift in zip(labels, shifts, strict=True):
        out = np.where(image > 0, image + np.int32(shift), out).astype(np.int32)
    return out, table
