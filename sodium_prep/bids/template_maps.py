"""Maps in template space: which there are, several on one coarser grid, and what the group level makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.fields import apply_to_points
from sodium_prep.atlas.bundled import Template
from sodium_prep.bids.images import load_checked, load_with_gaps
from sodium_prep.bids.outputs import TEMPLATE_SPACE, bids_uri, derivative_sidecar, json_beside, write_json, write_nifti
from sodium_prep.bids.sidecar import read_json
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MAP_COLUMNS: Final[dict[str, str]] = {
    "sub": "participant_id",
    "ses": "session_id",
    "acq": "acquisition",
    "rec": "reconstruction",
    "run": "run",
    "space": "space",
    "label": "label",
    "desc": "desc",
}
"""Entities of a map's file name and the columns that they become; ``desc`` is the partial volume correction."""
_NATIVE: Final = ("", "T1w", "sodium")
_FWHM_PER_SD: Final = float(np.sqrt(8.0 * np.log(2.0)))


def template_maps(out_dir: Path) -> pd.DataFrame:
    """The TSC maps in template spaces of a derivative data set.

    Returns
    -------
    One row per map: the columns of :data:`MAP_COLUMNS` as text (empty where the entity is absent), ``path``, and
    ``transform``, the path of what resamples the anatomical image onto the template; empty if it is not there. Tissue
    fractions are stored on the anatomical grid only, and :func:`tissue_on_grid` looks them up through this transform.
    """
    import pandas as pd

    rows = []
    found_at = (out_dir.glob(f"sub-*/{folder}*_TSCmap.nii.gz") for folder in ("anat/", "ses-*/anat/"))
    for path in sorted(path for paths in found_at for path in paths):
        found = dict(part.split("-", 1) for part in path.name.split(".")[0].split("_") if "-" in part)
        if "stat" in found or found.get("space", "") in _NATIVE:
            continue
        ways = sorted(path.parent.glob(f"*_from-T1w_to-{found['space']}_mode-image_xfm.h5"))
        row = {column: found.get(entity, "") for entity, column in MAP_COLUMNS.items()}
        rows.append(row | {"path": str(path), "transform": str(ways[0]) if len(ways) == 1 else ""})
    return pd.DataFrame(rows, columns=[*MAP_COLUMNS.values(), "path", "transform"], dtype=object)


@dataclass(frozen=True)
class CoarseGrid:
    """Blocks of a template's voxels.

    Attributes
    ----------
    template
        The template.
    factor
        Voxels of the template along each edge of a block.
    brain : (X, Y, Z) bool
        Blocks of which at least half is brain.
    affine : (4, 4)
        Block to RAS mm.
    """

    template: Template
    factor: tuple[int, int, int]
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]

    @property
    def voxel_mm(self) -> float:
        """Edge of a block, mm (geometric mean)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) ** (1 / 3))


def coarse_grid(template: Template, voxel_mm: float) -> CoarseGrid:
    """The blocks of a template whose size is nearest to ``voxel_mm``."""
    size = np.linalg.norm(template.affine[:3, :3], axis=0)
    x, y, z = (max(round(voxel_mm / float(one)), 1) for one in size)
    affine = np.array(template.affine, dtype=np.float64)
    affine[:3, 3] += affine[:3, :3] @ ((np.array([x, y, z]) - 1.0) / 2.0)
    affine[:3, :3] *= (x, y, z)
    return CoarseGrid(template, (x, y, z), _blocks(template.brain_mask.astype(np.float32), (x, y, z)) >= 0.5, affine)


def _blocks(data: NDArray[np.float32], factor: tuple[int, int, int]) -> NDArray[np.float32]:
    """Mean of the values in each block; nan where fewer than half of its voxels have one."""
    pad = [(0, -n % f) for n, f in zip(data.shape, factor, strict=True)]
    known = np.isfinite(data)
    cut = [n for size, f in zip(data.shape, factor, strict=True) for n in (-(-size // f), f)]
    total, count = (
        np.pad(part, pad).reshape(cut).sum(axis=(1, 3, 5), dtype=np.float64)
        for part in (np.where(known, data, np.float32(0.0)), known)
    )
    half = count >= np.prod(factor) / 2.0
    return np.where(half, total / np.where(half, count, 1.0), np.nan).astype(np.float32)


def load_maps(
    paths: Sequence[Sequence[str | Path]], grid: CoarseGrid, smoothing_mm: float = 0.0
) -> NDArray[np.float32]:
    """Maps of several participants in the brain of a coarser grid.

    Parameters
    ----------
    paths
        Of each participant, the maps whose mean is taken (runs).
    smoothing_mm
        FWHM of a Gaussian; only voxels with a value take part, and those without stay without.

    Returns
    -------
    (n, V) mM; nan where the image did not reach or a correction gave no value.
    """
    out = np.empty((len(paths), int(grid.brain.sum())), dtype=np.float32)
    for row, runs in zip(out, paths, strict=True):
        row[:] = np.mean([_load_map(Path(path), grid, smoothing_mm) for path in runs], axis=0)
    return out


def _load_map(path: Path, grid: CoarseGrid, smoothing_mm: float) -> NDArray[np.float32]:
    data, affine = load_with_gaps(path)
    if data.shape != grid.template.t1w.shape or not np.allclose(affine, grid.template.affine, atol=1e-3):
        problem = f"its grid is not that of the template {grid.template.name}"
        raise InputError(path, problem, "Process the participant again with the template that the others have")
    blocks = _blocks(data, grid.factor)
    if smoothing_mm > 0.0:
        sd = smoothing_mm / _FWHM_PER_SD / np.linalg.norm(grid.affine[:3, :3], axis=0)
        known = np.isfinite(blocks)
        total = ndimage.gaussian_filter(np.where(known, blocks, np.float32(0.0)), sd, mode="constant")
        share = ndimage.gaussian_filter(known.astype(np.float32), sd, mode="constant")
        blocks = np.where(known, total / np.where(known, share, 1.0), np.nan)
    return np.asarray(blocks[grid.brain], dtype=np.float32)


def tissue_on_grid(row: Mapping[str, str], tissue: str, grid: CoarseGrid, smoothing_mm: float = 0.0) -> NDArray[Any]:
    """Share of a tissue as the sodium image of a participant sees it, in the brain of a coarser grid.

    The fraction on the anatomical grid is blurred by a Gaussian as wide as the image's point spread function, as the
    map's sidecar has it, with the grid's own voxel, and looked up at the places that the transform gives.

    Parameters
    ----------
    row
        A row of :func:`template_maps`.
    tissue
        ``GM``, ``WM`` or ``CSF``.
    smoothing_mm
        FWHM by which the maps were smoothed.

    Returns
    -------
    (V,), 0-1; nan outside the anatomical image.
    """
    path = Path(row["path"])
    found = [p for p in sorted(path.parent.glob(f"*_label-{tissue}_probseg.nii.gz")) if "_space-" not in p.name]
    if len(found) != 1 or not row["transform"]:
        problem = f"the folder has {len(found)} label-{tissue}_probseg images and "
        problem += "a transform" if row["transform"] else f"no transform of T1w to {row['space']}"
        raise InputError(path, problem, "Process the participant again, or compare without the tissue covariate")
    data, affine = load_checked(found[0])
    fwhm = (read_json(json_beside(path)).get("PointSpreadFunction") or {}).get("fwhm_mm") or {}
    if not isinstance(fwhm.get(tissue), int | float):
        problem = f"has no PointSpreadFunction.fwhm_mm.{tissue}"
        raise InputError(json_beside(path), problem, "Process the participant again")
    variance = (fwhm[tissue] ** 2 + smoothing_mm**2) / _FWHM_PER_SD**2 + grid.voxel_mm**2 / 12.0
    blurred = ndimage.gaussian_filter(data, np.sqrt(variance) / np.linalg.norm(affine[:3, :3], axis=0))
    places = np.argwhere(grid.brain) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    there = apply_to_points(places, [Path(row["transform"])])
    voxels = np.linalg.solve(affine, np.column_stack([there, np.ones(len(there))]).T)[:3]
    return np.asarray(ndimage.map_coordinates(blurred, voxels, order=1, mode="constant", cval=np.nan), np.float32)


def write_group_map(
    path: Path,
    values: NDArray[Any],
    grid: CoarseGrid,
    *,
    description: str,
    units: str,
    sources: Sequence[str | Path],
    out_dir: Path,
    extra: Mapping[str, Any],
) -> Path:
    """Write an image of the group level (X, Y, Z) on a coarser grid, with its sidecar.

    Parameters
    ----------
    sources
        Files of the derivative data set ``out_dir`` that it was made from.
    extra
        Design, seed and whatever else belongs to it.
    """
    write_nifti(path, values, grid.affine, TEMPLATE_SPACE)
    content = derivative_sidecar(
        description=description, units=units, space=grid.template.name, extra=extra,
        sources=[bids_uri(Path(source), {"": out_dir}) for source in sources],
    )  # fmt: skip
    write_json(json_beside(path), content)
    return path
