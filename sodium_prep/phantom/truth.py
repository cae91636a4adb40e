"""What is true of a scan: concentration maps, the regional table, and the anatomy as precomputed derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.transforms import apply_affine, write_itk_affine
from sodium_prep.bids.writers import write_json, write_nifti, write_tsv
from sodium_prep.phantom import grids
from sodium_prep.phantom.individual import Anatomy, IndividualHead
from sodium_prep.phantom.protocol import Vial

if TYPE_CHECKING:
    import pandas as pd

Volume = NDArray[np.float32]

COLUMNS: Final = ("index", "name", "hemisphere", "tissue", "tsc", "volume_mm3")
_COMPOSITES: Final = (
    ("Cortex", "GM", "cortex"),
    ("WhiteMatter", "WM", "wm"),
    ("Hippocampus", "GM", "hippocampus"),
)
_SUBSAMPLES: Final = 2


def region_table(head: IndividualHead, sodium_mM: dict[Any, Volume], table: pd.DataFrame) -> list[dict[str, Any]]:
    """True concentration of the tissue of every region, and its volume.

    Regions are those of the atlas, and ``Cortex``, ``WhiteMatter``, ``Hippocampus`` and ``CSF`` (within the brain
    mask) of each hemisphere and of both.

    Parameters
    ----------
    sodium_mM
        From :func:`sodium_prep.phantom.concentrations.tissue_maps`.
    """
    volume_mm3 = abs(float(np.linalg.det(head.affine[:3, :3])))
    amount, volume = (np.zeros(int(table["index"].max()) + 1) for _ in range(2))
    csf_mM = sodium_mM["CSF"].sum(dtype=float) / float(
        head.fractions["csf"].sum(dtype=float) + head.fractions["csf_outer"].sum(dtype=float)
    )
    parts = (
        ("gm", head.gm_label, sodium_mM["GM"]),
        ("wm", head.wm_label, sodium_mM["WM"]),
        ("csf", head.csf_label, head.fractions["csf"] * np.float32(csf_mM)),
    )
    for name, labels, values in parts:
        flat = labels.ravel()
        # Label 0 takes in what resampling smeared beyond the brain; nothing of it is tissue.
        volume[: flat.max() + 1] += np.bincount(flat, weights=head.fractions[name].ravel())
        amount[: flat.max() + 1] += np.bincount(flat, weights=values.ravel())

    def row(index: int | None, name: str, side: str, tissue: str, chosen: Sequence[int]) -> dict[str, Any]:
        total = volume[list(chosen)].sum()
        return {
            "index": index,
            "name": name,
            "hemisphere": side,
            "tissue": tissue,
            "tsc": amount[list(chosen)].sum() / total if total else None,
            "volume_mm3": total * volume_mm3,
        }

    names = zip(table["index"], table["name"], table["hemisphere"], table["tissue"], strict=True)
    rows = [row(int(index), name, side, tissue, [index]) for index, name, side, tissue in names]
    for name, tissue, structure in _COMPOSITES:
        for side in ("L", "R", "both"):
            member = table["structure"] == structure
            if side != "both":
                member &= table["hemisphere"] == side
            rows.append(row(None, name, side, tissue, table.loc[member, "index"].tolist()))
    fluid = head.fractions["csf"]
    shares = {"L": fluid[head.left].sum(dtype=float), "both": fluid.sum(dtype=float)}
    shares["R"] = shares["both"] - shares["L"]
    for side in ("L", "R", "both"):
        fluid_row = {"index": None, "name": "CSF", "hemisphere": side, "tissue": "CSF"}
        rows.append(fluid_row | {"tsc": csf_mM, "volume_mm3": shares[side] * volume_mm3})
    return rows


def dominant_labels(head: IndividualHead) -> NDArray[np.int16]:
    """One label per voxel of the brain: the region of the tissue that fills most of it."""
    f = head.fractions
    chosen = np.where(f["wm"] > f["gm"], head.wm_label, head.gm_label)
    chosen = np.where(f["csf"] > np.maximum(f["gm"], f["wm"]), head.csf_label, chosen)
    return np.where(head.brain_mask, chosen, 0).astype(np.int16)


def native_tsc(
    tsc_mM: Volume,
    affine: NDArray[np.float64],
    sodium_to_t1w: NDArray[np.float64],
    shape: Sequence[int],
    sodium_affine: NDArray[np.float64],
    vials: Sequence[Vial] = (),
) -> Volume:
    """Concentration averaged over the voxels of the sodium grid (2 x 2 x 2 points in each), vials included."""
    offsets = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
    axes = [(np.arange(n)[:, None] + offsets).ravel() for n in shape]
    fine = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
    world = apply_affine(sodium_affine, fine).astype(np.float32)
    voxel = apply_affine(np.linalg.inv(affine) @ sodium_to_t1w, world).astype(np.float32)
    sampled = ndimage.map_coordinates(tsc_mM, np.moveaxis(voxel, -1, 0), order=1, prefilter=False)
    for vial in vials:
        axis = np.asarray(vial.axis, float) / np.linalg.norm(vial.axis)
        offset = world - np.asarray(vial.centre_mm, np.float32)
        along = offset @ axis.astype(np.float32)
        across2 = np.einsum("...i,...i", offset, offset) - along**2
        sampled[(np.abs(along) <= 0.5 * vial.length_mm) & (across2 <= vial.radius_mm**2)] = vial.concentration_mM
    return grids.block_average(sampled, float(_SUBSAMPLES))


def write_truth(
    folder: Path,
    prefix: str,
    *,
    head: IndividualHead,
    anatomy: Anatomy,
    tsc_mM: Volume,
    native_mM: Volume,
    sodium_affine: NDArray[np.float64],
    sodium_to_t1w: NDArray[np.float64],
    rows: list[dict[str, Any]],
    voxel_mm: float,
    facts: dict[str, Any],
) -> None:
    """Write the truth of one session into ``folder``, names beginning with ``prefix``."""
    coarse = grids.block_affine(head.affine, voxel_mm)
    write_nifti(folder / f"{prefix}_space-T1w_TSCmap.nii.gz", _rounded(grids.block_average(tsc_mM, voxel_mm)), coarse)
    write_nifti(folder / f"{prefix}_acq-sodium_TSCmap.nii.gz", _rounded(native_mM), sodium_affine)
    outer = grids.block_average(head.fractions["csf_outer"], voxel_mm)
    write_nifti(folder / f"{prefix}_label-outerCSF_probseg.nii.gz", _rounded(outer, 4096.0), coarse)
    write_tsv(folder / f"{prefix}_regions.tsv", rows, COLUMNS)
    write_itk_affine(folder / f"{prefix}_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt", sodium_to_t1w)
    field = np.moveaxis(anatomy.displacement_mm, 0, -1)
    write_nifti(folder / f"{prefix}_from-head_to-template_displacement.nii.gz", field, anatomy.affine)
    write_json(folder / f"{prefix}_truth.json", facts)


def write_derivatives(
    folder: Path,
    prefix: str,
    *,
    head: IndividualHead,
    t1w: Volume,
    sodium_to_t1w: NDArray[np.float64],
    voxel_mm: float,
) -> None:
    """Write the true anatomy of one session as precomputed derivatives (``--derivatives phantom=PATH``).

    Parameters
    ----------
    folder
        The session's ``anat`` folder.
    t1w
        Without bias and noise, on the coarse grid.
    """
    affine = grids.block_affine(head.affine, voxel_mm)
    fractions = {name: grids.block_average(head.fractions[name], voxel_mm) for name in ("gm", "wm", "csf")}
    mask = np.asarray(fractions["gm"] + fractions["wm"] + fractions["csf"] >= 0.5)
    write_nifti(folder / f"{prefix}_desc-preproc_T1w.nii.gz", np.rint(t1w).astype(np.int16), affine)
    write_json(folder / f"{prefix}_desc-preproc_T1w.json", {"SkullStripped": False})
    write_nifti(folder / f"{prefix}_desc-brain_mask.nii.gz", mask, affine)
    write_json(folder / f"{prefix}_desc-brain_mask.json", {"Type": "Brain"})
    for name, values in fractions.items():
        write_nifti(folder / f"{prefix}_label-{name.upper()}_probseg.nii.gz", _rounded(values, 4096.0), affine)
    if head.lesions.any():
        lesion = grids.block_average((head.lesions > 0).astype(np.float32), voxel_mm) >= 0.5
        write_nifti(folder / f"{prefix}_label-lesion_mask.nii.gz", lesion, affine)
        write_json(folder / f"{prefix}_label-lesion_mask.json", {"Type": "Lesion"})
    labels = grids.block_majority(dominant_labels(head), voxel_mm)
    write_nifti(folder / f"{prefix}_desc-aparcaseg_dseg.nii.gz", labels, affine)
    write_itk_affine(folder / f"{prefix}_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt", sodium_to_t1w)


def _rounded(values: Volume, steps: float = 256.0) -> Volume:
    """Values in steps of 1 / steps, which compress well."""
    return np.asarray(np.rint(values * np.float32(steps)) / np.float32(steps), dtype=np.float32)
