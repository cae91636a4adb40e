"""Atlases that a user brings: a label image and its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sodium_prep.atlas.bundled import Atlas, load_atlas
from sodium_prep.atlas.tables import COLUMNS, HEMISPHERES, RESERVED_NAMES, STRUCTURE_TISSUE
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def load_user_atlas(image_path: Path, table_path: Path) -> Atlas:
    """Load an atlas in MNI152NLin6Asym from a NIfTI label image and a TSV table.

    Parameters
    ----------
    image_path
        3-D label image of whole numbers; 0 is background.
    table_path
        Tab-separated, with the columns ``index name tissue structure`` and, if wanted, ``hemisphere`` (else ``both``).
        Rows whose index is not in the image are left out.

    Raises
    ------
    InputError
        If the image or the table is not as described, or a label has no row.
    """
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(image_path))  # type: ignore[no-untyped-call]
    data = np.squeeze(np.asarray(image.dataobj))
    if data.ndim != 3:
        raise InputError(image_path, f"it has shape {image.shape}", "Give a 3-D label image")
    if not np.all(np.isfinite(data)) or np.any(data != np.rint(data)) or np.any(data < 0):
        raise InputError(image_path, "its values are not whole numbers from 0", "Give a label image, not probabilities")
    labels = data.astype(np.int32)
    table = _read_table(table_path)
    present = np.unique(labels[labels > 0])
    missing = np.setdiff1d(present, table["index"])
    if missing.size:
        raise InputError(table_path, f"no row for label(s) {_few(missing)} of {image_path}", "Add them to the table")
    table = table[table["index"].isin(present)].reset_index(drop=True)
    name = image_path.name.removesuffix(".gz").removesuffix(".nii")
    return Atlas(labels, np.asarray(image.affine, dtype=np.float64), table, name)


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_csv(path, sep="\t", dtype={"name": str})
    if "hemisphere" not in table:
        table["hemisphere"] = "both"
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise InputError(path, f"column(s) {', '.join(absent)} are missing", f"Give the columns {' '.join(COLUMNS)}")
    if not pd.api.types.is_integer_dtype(table["index"]) or table["index"].duplicated().any():
        raise InputError(path, "the column index is not one whole number per row, each once", "Number the labels")
    reserved = table.loc[table["name"].isin(RESERVED_NAMES), "name"].unique()
    if reserved.size:
        problem = f"column name holds {_few(reserved)}, which regional tables have as rows of their own"
        raise InputError(path, problem, "Give these labels other names")
    twice = table.loc[table.duplicated(["name", "hemisphere"]), "name"].unique()
    if twice.size:
        problem = f"several labels have the name {_few(twice)} and the same hemisphere"
        raise InputError(path, problem, "Give each label its own name")
    for column, allowed in (
        ("hemisphere", HEMISPHERES),
        ("structure", tuple(STRUCTURE_TISSUE)),
        ("tissue", tuple(dict.fromkeys(STRUCTURE_TISSUE.values()))),
    ):
        wrong = table.loc[~table[column].isin(allowed), column].unique()
        if wrong.size:
            raise InputError(path, f"column {column} holds {_few(wrong)}", f"Use one of {', '.join(allowed)}")
    clash = table[table["tissue"] != table["structure"].map(STRUCTURE_TISSUE)]
    if len(clash):
        row = clash.iloc[0]
        raise InputError(
            path,
            f"{row['name']}: structure {row['structure']} is not of tissue {row['tissue']}",
            f"{row['structure']} belongs to {STRUCTURE_TISSUE[row['structure']]}",
        )
    return table[list(COLUMNS)].sort_values("index", ignore_index=True)


def _few(values: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in values[:5])
    return shown + (" ..." if len(values) > 5 else "")


def find_atlas(name_or_path: str) -> Atlas:
    """A bundled atlas by name, or a user's by the path of its label image with the table beside it (``.tsv``)."""
    files = atlas_files(name_or_path)
    if not files:
        return load_atlas(name_or_path)
    for path in files:
        if not path.is_file():
            raise InputError(path, "does not exist", "Give a label image and its table under the same name")
    return load_user_atlas(*files)


def atlas_files(name_or_path: str) -> tuple[Path, Path] | tuple[()]:
    """Label image and table of a user's atlas, whether they are there or not; none for a bundled one."""
    if not name_or_path.endswith((".nii", ".nii.gz")):
        return ()
    image = Path(name_or_path)
    return image, image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
