"""The greedy program (Yushkevich et al.) on arrays: a second, independent opinion on a registration.

Fixed and moving mean what they mean in ITK, and greedy's matrices map points of fixed to points of moving in RAS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sodium_prep.anat.fields import Field, read_field
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

    Greedy shifts its sample points by random amounts; without them (``-jitter 0``) one thread gives the same bytes on
    every run, at no loss of accuracy.
    """
    with job_folder() as folder:
        write_volume(folder / "fixed.nii.gz", fixed)
        write_volume(folder / "moving.nii.gz", moving)
        write_greedy_matrix(folder / "initial.mat", initial)
        args = ["-a", "-dof", "6", "-m", "NMI", "-jitter", "0", "-i", "fixed.nii.gz", "moving.nii.gz"]
        args += ["-ia", "initial.mat", "-n", "x".join(map(str, iterations)), "-o", "rigid.mat"]
        run_greedy(step, args, folder, settings)
        return read_greedy_matrix(folder / "rigid.mat")


def greedy_deform(
    step: str,
    fixed: Volume,
    moving: Volume,
    folder: Path,
    *,
    affine: NDArray[np.float64],
    fixed_mask: NDArray[np.bool_],
    moving_mask: NDArray[np.bool_] | None,
    metric: Sequence[str],
    iterations: str,
    smoothing: Sequence[str],
    settings: JobSettings,
) -> tuple[Field, Cost]:
    """Deformable registration by greedy; the field on the fixed grid that comes before the affine map.

    Greedy has no affine stage here: with part of a brain its own shrinks the template to nothing.
    """
    write_volume(folder / "fixed.nii.gz", fixed)
    write_volume(folder / "moving.nii.gz", moving)
    write_volume(folder / "fixed_mask.nii.gz", Volume(fixed_mask, fixed.affine))
    write_greedy_matrix(folder / "affine.mat", affine)
    # Noise is added to the images: bytes are the same with a seed only.
    args = ["-seed", str(settings.seed), "-i", "fixed.nii.gz", "moving.nii.gz", "-gm", "fixed_mask.nii.gz"]
    if moving_mask is not None:
        write_volume(folder / "moving_mask.nii.gz", Volume(moving_mask, moving.affine))
        args += ["-mm", "moving_mask.nii.gz"]
    args += ["-m", *metric, "-it", "affine.mat", "-n", iterations, "-s", *smoothing, "-o", "warp.nii.gz"]
    cost = run_greedy(step, args, folder, settings)
    return read_field(folder / "warp.nii.gz"), cost


def read_greedy_matrix(path: Path) -> NDArray[np.float64]:
    """Read a matrix file of greedy as the 4x4 map of points of moving to points of fixed, RAS mm."""
    return np.asarray(np.linalg.inv(np.loadtxt(path)))


def write_greedy_matrix(path: Path, moving_to_fixed: NDArray[np.float64]) -> None:
    """Write a 4x4 map of points of moving to points of fixed (RAS mm) as a matrix file of greedy."""
    np.savetxt(path, np.linalg.inv(moving_to_fixed), fmt="%.12g")
