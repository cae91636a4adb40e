"""Atlases in files: a label image or probability maps, their table and what is said of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.atlas.bundled import TEMPLATE_NAME, Atlas
from sodium_prep.atlas.tables import few, read_table
from sodium_prep.errors import InputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

PROBABILITY_THRESHOLD: Final = 0.25
"""A voxel of a probabilistic atlas belongs to its likeliest region if that is likelier than this (the usual choice
for the Harvard-Oxford maps)."""
_FSL_CORNER_MM: Final = (90.0, -126.0, -72.0)
_FSL_EXTENT_MM: Final = (182.0, 218.0, 182.0)
"""Centre of the right posterior inferior voxel, and size, of FSL's grids of MNI152NLin6Asym at any resolution."""
_LABEL = re.compile(r"[A-Za-z0-9]+(?::cohort-[A-Za-z0-9]+)?")


def atlas_stem(path: Path) -> str:
    """Name of a NIfTI file without its extension."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def entities_of(path: Path) -> dict[str, str]:
    """BIDS entities in the name of a file, and its ``suffix``."""
    *pairs, suffix = path.name.split(".")[0].split("_")
    return {key: value for key, dash, value in (pair.partition("-") for pair in pairs) if dash} | {"suffix": suffix}


def table_path(image: Path) -> Path:
    """Table beside an atlas: ``X.tsv``, else ``X.txt`` or ``X.nii.txt`` if there is one."""
    candidates = [image.with_name(atlas_stem(image) + end) for end in (".tsv", ".txt", ".nii.txt")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file beside an atlas; nothing if there is none."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(path, f"is not JSON ({error})", "Mend or remove it") from None
    if not isinstance(record, dict):
        raise InputError(path, "holds no JSON object", "Mend or remove it")
    return record


def load_user_atlas(
    image_path: Path, table_file: Path, record: Mapping[str, Any] | None = None, *, structure: str = ""
) -> Atlas:
    """Load an atlas from a NIfTI image and a table.

    Parameters
    ----------
    image_path
        3-D labels, whole numbers with 0 as background; or 4-D probabilities (0 to 1, or 0 to 100), one volume per
        region, where the index of a region is the number of its volume, from 1. Regions must not overlap, because the
        estimators divide the signal of a voxel among them: each voxel goes to its likeliest region, if that is likelier
        than :data:`PROBABILITY_THRESHOLD`.
    table_file
        See :func:`sodium_prep.atlas.tables.read_table`. Rows without any voxel are left out, with a note.
    record
        What is said of the atlas: ``Name``, ``Version``, ``License``, ``ReferencesAndLinks``, ``Space`` or
        ``SpatialReference``, and ``Structure`` of labels whose structure the table does not tell; read from the JSON
        file beside the image if not given.
    structure
        Goes before ``Structure`` of the record.

    Returns
    -------
    Atlas, with its space from the file name (``space-`` or ``tpl-``), else from the record, else MNI152NLin6Asym if the
    image has the field of view of FSL's grids.

    Raises
    ------
    InputError
        If the image or the table is not as described, or a label has no row.
    UsageError
        If the space is not known.
    """
    if record is None:
        record = read_record(image_path.with_name(atlas_stem(image_path) + ".json"))
    table = read_table(table_file, structure=structure or str(record.get("Structure", "")))
    data, affine = _read(image_path)
    probable = not isinstance(data, np.ndarray)
    labels = _hard_labels(image_path, data, len(table)) if probable else _whole_labels(image_path, data)
    table, notes = _match(labels, table, image_path, table_file)
    references = record.get("ReferencesAndLinks", "")
    references = list(references.values()) if isinstance(references, dict) else references
    return Atlas(
        labels,
        affine,
        table,
        str(record.get("Name") or atlas_stem(image_path)),
        _space(image_path, record, labels.shape, affine),
        str(record.get("Version", "")),
        str(record.get("License", "")),
        "; ".join(map(str, references)) if isinstance(references, list) else str(references),
        PROBABILITY_THRESHOLD if probable else None,
        notes,
    )


def _canonical(image: Any) -> Any:
    import nibabel as nib

    return nib.as_closest_canonical(image)  # type: ignore[no-untyped-call]


def _read(path: Path) -> tuple[Any, NDArray[np.float64]]:
    """Labels in RAS+ order, or an image of probabilities as stored; and the affine in RAS+ order."""
    import nibabel as nib

    if not path.is_file():
        raise InputError(path, "does not exist", "Give a label image with its table beside it, under the same name")
    try:
        image: Any = nib.load(path)
        if image.ndim == 4 and image.shape[3] > 1:
            return image, np.asarray(_canonical(image.slicer[..., :1]).affine, dtype=np.float64)
        if image.ndim < 3 or np.prod(image.shape[3:]) != 1:
            raise InputError(path, f"it has shape {image.shape}", "Give a 3-D label image or 4-D probabilities")
        image = _canonical(image)
        data = np.asarray(image.dataobj)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(path, f"cannot be read as NIfTI ({error})", "Copy the file again") from None
    return data.reshape(data.shape[:3]), np.asarray(image.affine, dtype=np.float64)


def _whole_labels(path: Path, data: NDArray[Any]) -> NDArray[np.int32]:
    if not np.all(np.isfinite(data)) or np.any(data != np.rint(data)) or np.any(data < 0):
        raise InputError(path, "its values are not whole numbers from 0", "Give labels, or 4-D probabilities")
    return data.astype(np.int32)


def _hard_labels(path: Path, image: Any, n_rows: int) -> NDArray[np.int32]:
    """The likeliest region of each voxel; volumes are read one by one, because all of them may not fit in memory."""
    n = int(image.shape[3])
    if n != n_rows:
        problem = f"it has {n} volumes, and its table has {n_rows} rows besides the background"
        raise InputError(path, problem, "Give one row per volume, numbered from 1")
    best: NDArray[np.float32] = np.zeros(1, np.float32)
    labels: NDArray[np.int32] = np.zeros(1, np.int32)
    for number in range(1, n + 1):
        values = np.asarray(_canonical(image.slicer[..., number - 1 : number]).dataobj, np.float32)[..., 0]
        if not np.all(np.isfinite(values)) or values.min() < 0.0 or values.max() > 100.0:
            problem = f"volume {number} has values that are no probabilities"
            raise InputError(path, problem, "Give probabilities from 0 to 1, or from 0 to 100")
        labels = np.where(values > best, np.int32(number), labels)
        best = np.maximum(values, best)
    full = 100.0 if best.max() > 1.0 else 1.0
    return np.where(best > PROBABILITY_THRESHOLD * full, labels, 0).astype(np.int32)


def _match(
    labels: NDArray[np.int32], table: pd.DataFrame, image_path: Path, table_file: Path
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    present = np.unique(labels[labels > 0])
    missing = np.setdiff1d(present, table["index"])
    if missing.size:
        problem = f"no row for label(s) {few(missing)} of {image_path.name}"
        raise InputError(table_file, problem, "Add them to the table")
    if not present.size:
        raise InputError(image_path, "no voxel has a label", "Give an atlas with labels")
    empty = table.loc[~table["index"].isin(present), "name"]
    told = f"{len(empty)} region(s) of {table_file.name} have no voxel and are left out: {few(empty)}."
    return table[table["index"].isin(present)].reset_index(drop=True), (told,) if len(empty) else ()


def _space(path: Path, record: Mapping[str, Any], shape: tuple[int, ...], affine: NDArray[np.float64]) -> str:
    entities = entities_of(path)
    named = entities.get("space") or entities.get("tpl", "")
    if named and "cohort" in entities:
        named += f":cohort-{entities['cohort']}"
    said = record.get("Space", record.get("SpatialReference", ""))
    template = re.search(r"tpl-([A-Za-z0-9]+)", said) if isinstance(said, str) else None
    said = template[1] if template else said
    if said and not (isinstance(said, str) and _LABEL.fullmatch(said)):
        mend = "Give the name of a template, such as MNI152NLin2009cAsym"
        raise InputError(path.with_name(atlas_stem(path) + ".json"), f"Space is {said!r}", mend)
    if named and said and said.partition(":")[0] != named.partition(":")[0]:
        raise InputError(path, f"its name tells the space {named}, its JSON file {said}", "Correct one of them")
    if named or said:
        return named or str(said)
    if _is_fsl_grid(shape, affine):
        return TEMPLATE_NAME
    raise UsageError(
        f"--atlas {path}",
        f"the space of the atlas is not known (its grid is {'x'.join(map(str, shape))}, not FSL's)",
        f"Name the template in the file's name (space-{TEMPLATE_NAME}, space-MNI152NLin2009cAsym, ...) or by the key "
        "Space of a JSON file beside it",
    )


def _is_fsl_grid(shape: tuple[int, ...], affine: NDArray[np.float64]) -> bool:
    """Whether a grid in RAS+ order is FSL's; that of Colin27, for one, is as large and lies 1 mm off."""
    axes = affine[:3, :3]
    voxel_mm = np.diag(axes)
    corner = affine[:3, 3] + [voxel_mm[0] * (shape[0] - 1), 0.0, 0.0]
    straight = np.allclose(axes, np.diag(voxel_mm))
    same_size = np.all(np.abs(voxel_mm * shape - _FSL_EXTENT_MM) <= voxel_mm)
    return bool(straight and same_size and np.allclose(corner, _FSL_CORNER_MM, atol=0.1))
