"""The greedy program (Yushkevich et al.) on arrays: a second, independent opinion on a registration.

Fixed and moving mean what they mean in ITK, and greedy's matrices map points of fixed to points of moving in RAS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sodium_prep.anat.jobs import Cost, JobSettings, run_job


def run_greedy(step: str, args: Sequence[str], folder: Path, settings: JobSettings) -> Cost:
    """Run ``greedy -d 3`` with these arguments in a folder; see :func:`sodium_prep.anat.jobs.run_job`."""
    return run_job(step, "greedy", ["-d", "3", "-threads", str(settings.n_threads), *args], folder, settings)


def read_greedy_matrix(path: Path) -> NDArray[np.float64]:
    """Read a matrix file of greedy as the 4x4 map of points of moving to points of fixed, RAS mm."""
    return np.asarray(np.linalg.inv(np.loadtxt(path)))


def write_greedy_matrix(path: Path, moving_to_fixed: NDArray[np.float64]) -> None:
    """Write a 4x4 map of points of moving to points of fixed (RAS mm) as a matrix file of greedy."""
    np.savetxt(path, np.linalg.inv(moving_to_fixed), fmt="%.12g")
