"""ANTs programs on arrays.

Fixed and moving are ITK's words: a registration's transform resamples moving onto fixed, and maps points of fixed to
points of moving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sodium_prep.anat.jobs import Cost, JobSettings, Volume, job_folder, read_volume, run_job, write_volume
from sodium_prep.anat.transforms import read_itk_affine, write_itk_affine
from sodium_prep.errors import InputError

Interpolation = Literal["Linear", "NearestNeighbor", "GenericLabel", "BSpline", "LanczosWindowedSinc"]


@dataclass(frozen=True)
class Stage:
    """One stage of a registration, in ANTs' own terms.

    Attributes
    ----------
    transform
        For instance ``Rigid[0.1]`` or ``SyN[0.2,3,0]``.
    metric
        With ``{images}`` where the image pair goes, for instance ``MI[{images},1,32,Regular,0.25]``.
    iterations, shrink, sigmas_vox
        One entry per level, coarse to fine.
    """

    transform: str
    metric: str
    iterations: tuple[int, ...]
    shrink: tuple[int, ...]
    sigmas_vox: tuple[float, ...]

    def arguments(self) -> list[str]:
        """Command-line arguments of this stage."""
        return [
            *("--transform", self.transform),
            *("--metric", self.metric.format(images="fixed.nii.gz,moving.nii.gz")),
            *("--convergence", f"[{_times(self.iterations)},1e-6,10]"),
            *("--shrink-factors", _times(self.shrink)),
            *("--smoothing-sigmas", _times(self.sigmas_vox) + "vox"),
        ]


_DEFAULT = JobSettings()


def register(
    step: str,
    fixed: Volume,
    moving: Volume,
    stages: Sequence[Stage],
    folder: Path,
    *,
    initial: NDArray[np.float64] | Literal["centre of mass"] | None = None,
    fixed_mask: NDArray[np.bool_] | None = None,
    moving_mask: NDArray[np.bool_] | None = None,
    composite: bool = False,
    settings: JobSettings = _DEFAULT,
) -> Cost:
    """Run ``antsRegistration``; its results stay in the folder.

    Parameters
    ----------
    step
        Name of the step, for error messages.
    folder
        An empty folder. Gets ``out0GenericAffine.mat`` or, with ``composite``, ``outComposite.h5`` and
        ``outInverseComposite.h5``.
    initial
        4x4 moving -> fixed point map in RAS mm, alignment of the centres of mass, or none (the headers).
    fixed_mask, moving_mask
        Voxels that count in the metric, in every stage.
    composite
        Write composite transforms with the initial one inside.
    """
    write_volume(folder / "fixed.nii.gz", fixed)
    write_volume(folder / "moving.nii.gz", moving)
    args = ["--dimensionality", "3", "--float", "1", "--random-seed", str(settings.seed)]
    if isinstance(initial, np.ndarray):
        write_itk_affine(folder / "initial.txt", initial)
        args += ["--initial-moving-transform", "initial.txt"]
    elif initial == "centre of mass":
        args += ["--initial-moving-transform", "[fixed.nii.gz,moving.nii.gz,1]"]
    masks = []
    for name, mask, volume in (("fixed_mask", fixed_mask, fixed), ("moving_mask", moving_mask, moving)):
        if mask is None:
            masks.append("NULL")
        else:
            write_volume(folder / f"{name}.nii.gz", Volume(mask, volume.affine))
            masks.append(f"{name}.nii.gz")
    for stage in stages:
        args += stage.arguments()
        if masks != ["NULL", "NULL"]:
            args += ["--masks", f"[{','.join(masks)}]"]
    args += ["--output", "out", "--write-composite-transform", str(int(composite)), "--collapse-output-transforms", "1"]
    return run_job(step, "antsRegistration", args, folder, settings)


def register_linear(
    step: str,
    fixed: Volume,
    moving: Volume,
    stages: Sequence[Stage],
    *,
    initial: NDArray[np.float64] | Literal["centre of mass"] | None = None,
    fixed_mask: NDArray[np.bool_] | None = None,
    moving_mask: NDArray[np.bool_] | None = None,
    settings: JobSettings = _DEFAULT,
) -> NDArray[np.float64]:
    """Rigid or affine registration; returns the 4x4 map of points of moving to points of fixed, RAS mm."""
    with job_folder() as folder:
        register(
            step, fixed, moving, stages, folder, initial=initial, fixed_mask=fixed_mask, moving_mask=moving_mask,
            settings=settings,
        )  # fmt: skip
        return read_itk_affine(folder / "out0GenericAffine.mat")


def apply_transforms(
    image: NDArray[Any],
    affine: NDArray[np.float64],
    reference_shape: Sequence[int],
    reference_affine: NDArray[np.float64],
    transforms: Sequence[Path | NDArray[np.float64]],
    *,
    interpolation: Interpolation = "Linear",
    settings: JobSettings = _DEFAULT,
) -> NDArray[Any]:
    """Resample an image onto another grid through a chain of transforms, with one interpolation.

    Parameters
    ----------
    image : (X, Y, Z)
        Intensities or whole-number labels; labels need ``NearestNeighbor`` or ``GenericLabel`` and keep their type.
    reference_shape, reference_affine
        The target grid.
    transforms
        In the order in which they are met on the way from the image to the target: files that resample forward, or 4x4
        maps of source points to target points (RAS mm).
    interpolation
        As ANTs names it.

    Returns
    -------
    (X', Y', Z') float32, or int32 for labels
    """
    labels = np.issubdtype(np.asarray(image).dtype, np.integer) or np.asarray(image).dtype == bool
    if labels and interpolation not in ("NearestNeighbor", "GenericLabel"):
        raise ValueError(f"labels cannot be interpolated with {interpolation}")
    with job_folder() as folder:
        data = np.asarray(image, dtype=np.int32 if labels else np.float32)
        write_volume(folder / "image.nii.gz", Volume(data, affine))
        grid = np.broadcast_to(np.float32(0), tuple(reference_shape))
        write_volume(folder / "grid.nii.gz", Volume(grid, reference_affine))
        chain: list[str] = []
        for number, transform in enumerate(transforms):
            # ANTs applies the last one on its command line first, to points of the target.
            chain = ["-t", _place_transform(folder, number, transform), *chain]
        args = ["-d", "3", "-i", "image.nii.gz", "-r", "grid.nii.gz", "-o", "out.nii.gz", "-n", interpolation]
        run_job("resampling", "antsApplyTransforms", [*args, *(chain or ["-t", "identity"])], folder, settings)
        out = read_volume(folder / "out.nii.gz")
    return np.rint(out).astype(np.int32) if labels else out


def _place_transform(folder: Path, number: int, transform: Path | NDArray[np.float64]) -> str:
    if isinstance(transform, np.ndarray):
        name = f"transform{number}.txt"
        write_itk_affine(folder / name, transform)
        return name
    path = Path(transform).resolve()
    if not path.is_file():
        raise InputError(transform, "there is no such transform", "Give an ITK transform file")
    name = f"transform{number}" + "".join(path.suffixes[-2:] if path.suffix == ".gz" else [path.suffix])
    (folder / name).symlink_to(path)
    return name


def _times(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)
