"""Joined transforms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sodium_prep.anat.greedy_warp import Matrix, Step, read_transform, write_composite


def join_transforms(path: Path, transforms: Sequence[Path | Matrix]) -> None:
    """Write several transforms as one file (``.h5``).

    Parameters
    ----------
    transforms
        Files that resample forward, or 4x4 maps of source points to target points (RAS mm), in the order in which an
        image meets them.
    """
    steps: list[Step] = []
    for transform in reversed(transforms):
        steps += [np.linalg.inv(transform)] if isinstance(transform, np.ndarray) else read_transform(Path(transform))
    write_composite(path, steps)
