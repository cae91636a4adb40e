"""The greedy program (Yushkevich et al.) on arrays: a second, independent opinion on a registration.

Fixed and moving mean what they mean in ITK, and greedy's matrices map points of fixed to points of moving in RAS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sodium_prep.anat.jobs import Cost, JobSettings, Volume, job_folder, run_job, write_volume


def run_greedy(step: str, args: Sequence[str], folder: Path, settings: JobSettings) -> Cost:
    """Run ``greedy -d 3`` with these arguments in a folder; see :func:`sodium_prep.anat.jobs.run_job`."""
    return run_job(step, "greedy", ["-d", "3", "-threads", str(settings.n_threads), *args], folder, settings)


def greedy_rigid(
    step: str,
    fixed: Volume,
    moving: Volume,
    *,
    initial: NDArray[np.float64],
    iterations: Sequence[int] = (100, 60, 30),
    settings: JobSettings,
) -> NDArray[np.float64]:
    """Rigid registration by normalised mutual information; the 4x4 map of points of moving to points of fixed, RAS mm.

    Greedy shifts its sample points by random amounts that no seed governs; without them (``-jitter 0``) one thread
    gives the same bytes on every run, at no loss of accuracy.
    """
    with job_folder() as folder:
        write_volume(folder / "fixed.nii.gz", fixed)
        write_volume(folder / "moving.nii.gz", moving)
        write_greedy_matrix(folder / "initial.mat", initial)
        args = ["-a", "-dof", "6", "-m", "NMI", "-jitter", "0", "-i", "fixed.nii.gz", "moving.nii.gz"]
        args += ["-ia", "initial.mat", "-n", "x".join(map(str, iterations)), "-o", "rigid.mat"]
        run_greedy(step, args, folder, settings)
        return read_greedy_matrix(folder / "rigid.mat")


def read_greedy_matrix(path: Path) -> NDArray[np.float64]:
    """Read a matrix file of greedy as the 4x4 map of points of moving to points of fixed, RAS mm."""
    return np.asarray(np.linalg.inv(np.loadtxt(path)))


def write_greedy_matrix(path: Path, moving_to_fixed: NDArray[np.float64]) -> None:
    """Write a 4x4 map of points of moving to points of fixed (RAS mm) as a matrix file of greedy."""
    np.savetxt(path, np.linalg.inv(moving_to_fixed), fmt="%.12g")
