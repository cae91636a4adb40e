"""What each label of an atlas is: hemisphere, tissue and structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    import pandas as pd

Hemisphere = Literal["L", "R", "both"]
AtlasTissue = Literal["GM", "WM", "CSF"]
Structure = Literal["cortex", "hippocampus", "deep_gm", "wm", "cerebellum_gm", "cerebellum_wm", "brainstem", "csf"]
COLUMNS: Final = ("index", "name", "hemisphere", "tissue", "structure")
STRUCTURE_TISSUE: Final[dict[Structure, AtlasTissue]] = {
    "cortex": "GM",
    "hippocampus": "GM",
    "deep_gm": "GM",
    "wm": "WM",
    "cerebellum_gm": "GM",
    "cerebellum_wm": "WM",
    "brainstem": "WM",
    "csf": "CSF",
}
HEMISPHERES: Final[tuple[str, ...]] = get_args(Hemisphere)
RESERVED_NAMES: Final = ("Cortex", "WhiteMatter", "Hippocampus", "CSF", "Sulcal-CSF")
"""Rows that every regional table has besides the labels of its atlas; no label may bear these names."""

# Parts of FreeSurfer label names. Choroid plexus lies in the ventricles. "Vessel" and the "non-WM" hypointensities are
# specks in the basal ganglia, which the template shows as bright as their surroundings.
_STRUCTURE_OF: Final[tuple[tuple[str, Structure], ...]] = (
    ("ctx-", "cortex"),
    ("Hippocampus", "hippocampus"),
    ("Cerebellum-Cortex", "cerebellum_gm"),
    ("Cerebellum-White", "cerebellum_wm"),
    ("Brain-Stem", "brainstem"),
    ("non-WM-hypointensities", "deep_gm"),
    ("WM-hypointensities", "wm"),
    ("White-Matter", "wm"),
    ("CC_", "wm"),
    ("Optic-Chiasm", "wm"),
    ("Vent", "csf"),
    ("CSF", "csf"),
    ("choroid-plexus", "csf"),
)
_DEEP_GREY: Final = ("Thalamus", "Caudate", "Putamen", "Pallidum", "Amygdala", "Accumbens", "VentralDC", "vessel")


def freesurfer_structure(name: str) -> Structure:
    """Structure of a FreeSurfer label, from its name in FreeSurfer's colour table.

    Raises
    ------
    ValueError
        If the name is not one that FreeSurfer's aseg or aparc has.
    """
    # VentralDC must not be taken for a ventricle.
    if any(part in name for part in _DEEP_GREY):
        return "deep_gm"
    for part, structure in _STRUCTURE_OF:
        if part in name:
            return structure
    raise ValueError(f"no structure is known for the label {name!r}")


def freesurfer_hemisphere(name: str) -> Hemisphere:
    """Hemisphere of a FreeSurfer label, from its name; ``both`` for midline structures."""
    if name.startswith(("Left-", "ctx-lh-")):
        return "L"
    if name.startswith(("Right-", "ctx-rh-")):
        return "R"
    return "both"


def complete_table(names: pd.DataFrame) -> pd.DataFrame:
    """Add hemisphere, tissue and structure to a table of FreeSurfer labels.

    Parameters
    ----------
    names
        Columns ``index`` and ``name``.

    Returns
    -------
    Table with the columns :data:`COLUMNS`, in order of index; the label ``CSF`` is called ``Other-CSF``.
    """
    table = names[["index", "name"]].sort_values("index", ignore_index=True)
    # FreeSurfer's label 24 is the fluid outside the ventricles. Its name would be that of all CSF of the brain, merged.
    table["name"] = table["name"].replace("CSF", "Other-CSF")
    structures = [freesurfer_structure(name) for name in table["name"]]
    table["hemisphere"] = [freesurfer_hemisphere(name) for name in table["name"]]
    table["tissue"] = [STRUCTURE_TISSUE[structure] for structure in structures]
    table["structure"] = structures
    return table
