"""Non-linear registration of the brain to the template, and what is carried over with it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.ants import Stage, apply_transforms, register
from sodium_prep.anat.grids import coarsen, crop, dilate
from sodium_prep.anat.jobs import Cost, JobSettings, Volume, job_folder
from sodium_prep.atlas.bundled import Atlas, Template

_MARGIN_MM = 6.0
_AFFINE = Stage("Affine[0.1]", "MI[{images},1,32,Regular,0.25]", (200, 100, 50), (4, 2, 1), (2, 1, 0))
_SYN = Stage("SyN[0.2,3,0]", "CC[{images},1,2]", (60, 40, 5), (4, 2, 1), (2, 1, 0))
_SYN_FAST = Stage("SyN[0.2,3,0]", "CC[{images},1,2]", (40, 20), (4, 2), (2, 1))
_SYN_OTHER_CONTRAST = Stage("SyN[0.2,3,0]", "MI[{images},1,32]", (60, 40, 15), (4, 2, 1), (2, 1, 0))


@dataclass(frozen=True)
class TemplateRegistration:
    """Composite transform files (ITK ``.h5``), as BIDS names them.

    Attributes
    ----------
    forward
        Resamples the subject's image onto the template (``from-T1w_to-MNI152NLin6Asym_mode-image``).
    inverse
        Resamples the template onto the subject's image.
    cost
        CPU seconds and peak memory of the registration.
    """

    forward: Path
    inverse: Path
    cost: Cost


def register_to_template(
    t1w: NDArray[np.float32],
    affine: NDArray[np.float64],
    brain_mask: NDArray[np.bool_],
    template: Template,
    out_dir: Path,
    *,
    initial: NDArray[np.float64],
    work_mm: float = 2.0,
    fast: bool = False,
    same_contrast: bool = True,
    settings: JobSettings | None = None,
) -> TemplateRegistration:
    """Register the brain of a subject to the template: affine, then symmetric diffeomorphic (SyN).

    Parameters
    ----------
    t1w : (X, Y, Z)
        Intensity, best with the bias removed.
    affine : (4, 4)
        Voxel to RAS mm.
    brain_mask : (X, Y, Z) bool
        The subject's brain.
    out_dir
        Existing folder for the two transform files.
    initial : (4, 4)
        Affine point map T1w -> template, from brain extraction.
    work_mm
        Voxel size of the registration.
    fast
        Stop a level earlier.
    same_contrast
        False for images that are not T1-weighted: mutual information instead of local correlation.
    """
    settings = settings or JobSettings()
    brain, _ = crop(Volume(np.where(brain_mask, t1w, 0.0).astype(np.float32), affine), brain_mask, _MARGIN_MM)
    top = np.percentile(t1w[brain_mask], 99.8)
    moving = coarsen(Volume(np.minimum(brain.data, top), brain.affine), work_mm)
    target, box = crop(Volume(template.t1w, template.affine), template.brain_mask, _MARGIN_MM)
    fixed = coarsen(target, work_mm)
    near = coarsen(Volume(template.brain_mask[box].astype(np.float32), target.affine), work_mm).data > 0.5
    near = dilate(near, _MARGIN_MM / 2.0, fixed.voxel_mm)
    syn = (_SYN_FAST if fast else _SYN) if same_contrast else _SYN_OTHER_CONTRAST
    with job_folder() as folder:
        cost = register(
            "registration to the template", fixed, moving, [_AFFINE, syn], folder, initial=initial, fixed_mask=near,
            composite=True, settings=settings,
        )  # fmt: skip
        forward, inverse = out_dir / "t1w_to_template.h5", out_dir / "template_to_t1w.h5"
        shutil.move(folder / "outComposite.h5", forward)
        shutil.move(folder / "outInverseComposite.h5", inverse)
    return TemplateRegistration(forward, inverse, cost)


def warp_labels_to_t1w(
    atlas: Atlas,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    inverse: Path,
    *,
    smooth: bool = False,
    settings: JobSettings | None = None,
) -> NDArray[np.int32]:
    """Carry the labels of an atlas in template space to the subject's grid.

    Parameters
    ----------
    shape, affine
        Grid of the subject's image.
    inverse
        Template -> T1w transform file.
    smooth
        ``GenericLabel`` in place of nearest neighbour: smoother borders, seven times as slow.
    """
    return apply_transforms(
        atlas.labels,
        atlas.affine,
        shape,
        affine,
        [inverse],
        interpolation="GenericLabel" if smooth else "NearestNeighbor",
        settings=settings or JobSettings(),
    )


def warp_priors_to_t1w(
    priors: NDArray[np.float32],
    priors_affine: NDArray[np.float64],
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    inverse: Path,
    *,
    settings: JobSettings | None = None,
) -> NDArray[np.float32]:
    """Carry tissue fractions (n, X, Y, Z) of the template to the subject's grid, (n, X', Y', Z')."""
    settings = settings or JobSettings()
    parts = [apply_transforms(part, priors_affine, shape, affine, [inverse], settings=settings) for part in priors]
    return np.clip(np.stack(parts), 0.0, 1.0).astype(np.float32)


def template_priors(template: Template, atlas: Atlas) -> NDArray[np.float32]:
    """Tissue fractions of the template, (3, X, Y, Z): GM, WM, CSF, for images without T1-weighted contrast.

    The intensity decides between neighbouring tissues; the atlas decides in deep grey matter, brainstem and ventricles.
    """
    table = atlas.table
    inside = template.brain_mask
    labels = atlas.labels

    def part(structure: str) -> NDArray[np.bool_]:
        return np.isin(labels, table.loc[table["structure"] == structure, "index"].to_numpy())

    def level(mask: NDArray[np.bool_]) -> float:
        return float(np.median(template.t1w[mask & (template.t1w > 0)]))

    def core(structure: str) -> NDArray[np.bool_]:
        return np.asarray(ndimage.binary_erosion(part(structure), iterations=2))

    white, fluid = level(core("wm")), level(core("csf"))
    # An average brain has hardly a voxel of pure cortex; the amygdala and hippocampus are pure.
    grey = level(core("hippocampus"))
    u = template.t1w
    csf = np.clip((grey - u) / (grey - fluid), 0.0, 1.0)
    wm = np.clip((u - grey) / (white - grey), 0.0, 1.0)
    deep = part("deep_gm") | part("hippocampus")
    csf = np.where(part("csf"), 1.0, np.where(deep | part("brainstem"), 0.0, csf))
    wm = np.where(part("brainstem"), 1.0, np.where(deep | part("csf"), 0.0, wm))
    return np.where(inside, np.stack([1.0 - csf - wm, wm, csf]), 0.0).astype(np.float32)
