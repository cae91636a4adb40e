"""What each label of an atlas is: hemisphere, tissue and structure; tables of labels as text."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from sodium_prep.atlas.groups import GROUPS
from sodium_prep.errors import InputError

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
RESERVED_NAMES: Final = (
    *dict.fromkeys(group.name for groups in GROUPS.values() for group in groups),
    *("Sulcal-CSF", "Lesion", "LesionRimGM", "LesionRimWM", "LesionMirrorGM", "LesionMirrorWM"),
)
"""Rows that regional tables can have besides the labels of their atlas; no label may bear these names."""

# FreeSurfer's label names without their side. Choroid plexus lies in the ventricles. "Vessel" and the "non-WM"
# hypointensities are specks in the basal ganglia, which the template shows as bright as their surroundings.
_FREESURFER: Final[dict[Structure, tuple[str, ...]]] = {
    "cortex": ("Cerebral-Cortex",),
    "hippocampus": ("Hippocampus",),
    "deep_gm": (
        "Thalamus", "Thalamus-Proper", "Thalamus-Proper*", "Caudate", "Putamen", "Pallidum", "Amygdala",
        "Accumbens-area", "VentralDC", "vessel", "non-WM-hypointensities",
    ),
    "wm": (
        "Cerebral-White-Matter", "UnsegmentedWhiteMatter", "WM-hypointensities", "Optic-Chiasm", "CC_Posterior",
        "CC_Mid_Posterior", "CC_Central", "CC_Mid_Anterior", "CC_Anterior",
    ),
    "cerebellum_gm": ("Cerebellum-Cortex",),
    "cerebellum_wm": ("Cerebellum-White-Matter",),
    "brainstem": ("Brain-Stem",),
    "csf": (
        "Lateral-Ventricle", "Inf-Lat-Vent", "3rd-Ventricle", "4th-Ventricle", "5th-Ventricle", "CSF", "Other-CSF",
        "choroid-plexus",
    ),
}  # fmt: skip
# Names of the JHU white matter label map without their side (Mori et al. 2008). Its tracts in the brain stem are
# brain stem: the white matter that a T1w image shows there is not all that they consist of.
_JHU: Final[dict[Structure, tuple[str, ...]]] = {
    "cerebellum_wm": ("Middle_cerebellar_peduncle",),
    "brainstem": (
        "Pontine_crossing_tract_(a_part_of_MCP)", "Corticospinal_tract", "Medial_lemniscus",
        "Inferior_cerebellar_peduncle", "Superior_cerebellar_peduncle", "Cerebral_peduncle",
    ),
    "wm": (
        "Genu_of_corpus_callosum", "Body_of_corpus_callosum", "Splenium_of_corpus_callosum",
        "Fornix_(column_and_body_of_fornix)", "Anterior_limb_of_internal_capsule",
        "Posterior_limb_of_internal_capsule", "Retrolenticular_part_of_internal_capsule", "Anterior_corona_radiata",
        "Superior_corona_radiata", "Posterior_corona_radiata",
        "Posterior_thalamic_radiation_(include_optic_radiation)",
        "Sagittal_stratum_(include_inferior_longitidinal_fasciculus_and_inferior_fronto-occipital_fasciculus)",
        "External_capsule", "Cingulum_(cingulate_gyrus)", "Cingulum_(hippocampus)",
        "Fornix_(cres)_/_Stria_terminalis_(can_not_be_resolved_with_current_resolution)",
        "Superior_longitudinal_fasciculus",
        "Superior_fronto-occipital_fasciculus_(could_be_a_part_of_anterior_internal_capsule)",
        "Uncinate_fasciculus", "Tapetum",
    ),
}  # fmt: skip
_STRUCTURE_OF: Final[dict[str, Structure]] = {
    name: structure for known in (_FREESURFER, _JHU) for structure, names in known.items() for name in names
}
_OF_TISSUE: Final = {"WM": "wm", "CSF": "csf"}
_LISTED = re.compile(r"\s*(\d+)\s+(\S.*?)(?:\s+\d+)?\s*")
_CORTICAL = re.compile(r"ctx[-_](?:lh|rh)[-_]")
_SIDED = re.compile(r"^(?:Left|Right)-|_[LR]$")
_SIDE_WORDS: Final[dict[str, Hemisphere]] = {"lh": "L", "left": "L", "rh": "R", "right": "R"}
_SIDE_LETTERS: Final[dict[str, Hemisphere]] = {"l": "L", "r": "R"}


def known_structure(name: str) -> Structure | None:
    """Structure of a label that bears a name of FreeSurfer's aseg and aparc or of the JHU white matter labels.

    Names must be those of the published tables, with ``-`` or a blank between words: nothing is guessed from parts.
    """
    name = name.replace(" ", "-")
    if _CORTICAL.match(name):
        return "cortex"
    return _STRUCTURE_OF.get(_SIDED.sub("", name))


def hemisphere_of(name: str) -> Hemisphere:
    """Hemisphere that a name tells: ``left``, ``lh`` anywhere between separators, ``L`` first or last; else ``both``.

    Raises
    ------
    ValueError
        If the name tells both sides.
    """
    words = [word for word in re.split(r"[-_. ()]+", name.lower()) if word]
    sides = {_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS}
    sides |= {_SIDE_LETTERS[word] for word in words[:1] + words[-1:] if len(words) > 1 and word in _SIDE_LETTERS}
    if len(sides) > 1:
        raise ValueError(f"the name {name!r} tells both sides")
    return sides.pop() if sides else "both"


def complete_table(names: pd.DataFrame, where: object, *, structure: str = "") -> pd.DataFrame:
    """Complete and check a table of labels.

    Parameters
    ----------
    names
        Columns ``index`` and ``name``, and any of ``hemisphere``, ``structure``, ``tissue``; cells may be empty.
    where
        The file, for messages.
    structure
        Of labels whose structure nothing else tells.

    Returns
    -------
    Table with the columns :data:`COLUMNS`, in order of index, without background. A missing hemisphere comes from the
    name. A missing structure comes from the name if it is FreeSurfer's or JHU's, otherwise from the tissue (white
    matter is ``wm``, CSF is ``csf``), otherwise from ``structure``. Grey matter alone is not enough, because cortex and
    deep grey matter are told from their surroundings in different ways. FreeSurfer's label ``CSF`` is called
    ``Other-CSF``: its name would be that of all CSF of the brain.

    Raises
    ------
    InputError
        If the table is not complete or contradicts itself.
    """
    table = names[[column for column in COLUMNS if column in names]].copy()
    _require(table, where)
    table = table[table["index"] != 0].reset_index(drop=True)
    table["name"] = [name.strip() if isinstance(name, str) else "" for name in table["name"]]
    table["name"] = table["name"].where(~((table["name"] == "CSF") & (table["index"] == 24)), "Other-CSF")
    rows = [_completed(row, where, structure) for row in table.to_dict("records")]
    full = table[["index", "name"]].assign(**{key: [row[key] for row in rows] for key in COLUMNS[2:]})
    _check_rows(full, where)
    return full.sort_values("index", ignore_index=True)


def _require(table: pd.DataFrame, where: object) -> None:
    import pandas as pd

    absent = [column for column in ("index", "name") if column not in table]
    if absent:
        mend = f"Give tab-separated columns {' '.join(COLUMNS)}; index and name at least"
        raise InputError(where, f"column(s) {', '.join(absent)} are missing", mend)
    numbers = table["index"]
    if not pd.api.types.is_integer_dtype(numbers) or numbers.duplicated().any() or (numbers < 0).any():
        raise InputError(where, "the column index is not one whole number from 0 per row, each once", "Number the rows")


def _completed(row: dict[Any, Any], where: object, default: str) -> dict[str, str]:
    name = row["name"]
    given = {key: str(row[key]).strip() for key in COLUMNS[2:] if isinstance(row.get(key), str)}
    tissue = given.get("tissue", "")
    structure = given.get("structure") or known_structure(name) or _OF_TISSUE.get(tissue) or default
    if not structure:
        raise InputError(
            where,
            f"the structure of {name!r} is not known",
            f"Give a column structure with one of {', '.join(STRUCTURE_TISSUE)}, or one for all labels by the key "
            "Structure of a JSON file beside the image",
        )
    _among(structure, "structure", tuple(STRUCTURE_TISSUE), where)
    belongs = STRUCTURE_TISSUE[cast("Structure", structure)]
    if tissue:
        _among(tissue, "tissue", get_args(AtlasTissue), where)
    if tissue and tissue != belongs:
        problem = f"{name}: structure {structure} is not of tissue {tissue}"
        raise InputError(where, problem, f"{structure} belongs to {belongs}")
    hemisphere = given.get("hemisphere", "")
    if not hemisphere:
        try:
            hemisphere = hemisphere_of(name)
        except ValueError as error:
            raise InputError(where, str(error), "Give a column hemisphere with L, R or both") from None
    _among(hemisphere, "hemisphere", HEMISPHERES, where)
    return {"hemisphere": hemisphere, "tissue": belongs, "structure": structure}


def _among(value: str, column: str, allowed: tuple[str, ...], where: object) -> None:
    if value not in allowed:
        raise InputError(where, f"column {column} holds {value}", f"Use one of {', '.join(allowed)}")


def _check_rows(table: pd.DataFrame, where: object) -> None:
    if not len(table):
        raise InputError(where, "it has no label besides the background", "Give one row per label")
    if (table["name"] == "").any():
        raise InputError(where, "a label has no name", "Name every label")
    reserved = table.loc[table["name"].isin(RESERVED_NAMES), "name"].unique()
    if reserved.size:
        problem = f"column name holds {few(reserved)}, which regional tables have as rows of their own"
        raise InputError(where, problem, "Give these labels other names")
    twice = table.loc[table.duplicated(["name", "hemisphere"]), "name"].unique()
    if twice.size:
        problem = f"several labels have the name {few(twice)} and the same hemisphere"
        raise InputError(where, problem, "Give each label its own name")


def few(values: Any) -> str:
    """The first five of some values, for messages."""
    shown = ", ".join(str(value) for value in list(values)[:5])
    return shown + (" ..." if len(values) > 5 else "")


def read_table(path: Path, *, structure: str = "") -> pd.DataFrame:
    """Read a table of labels and complete it.

    Parameters
    ----------
    path
        Tab-separated with a header line (BIDS ``dseg.tsv``), or, if it ends in ``.txt``, a list of ``index name`` lines
        without one (a number after the name is not read).
    structure
        See :func:`complete_table`.

    Raises
    ------
    InputError
        If the table cannot be read or is not complete.
    """
    import pandas as pd

    if not path.is_file():
        raise InputError(path, "does not exist", f"Give a table of the labels with the columns {' '.join(COLUMNS)}")
    try:
        if path.suffix == ".txt":
            lines = [_LISTED.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            if not all(lines):
                raise ValueError("a line is not a number and a name")
            rows = [(int(line[1]), line[2]) for line in lines if line]
            table = pd.DataFrame(rows, columns=["index", "name"])
        else:
            text = dict.fromkeys(COLUMNS[1:], str)
            table = pd.read_csv(path, sep="\t", dtype=text, na_values=["n/a"], keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError(path, f"cannot be read as a table ({error})", "Give tab-separated text in UTF-8") from None
    return complete_table(table, path, structure=structure)


def table_text(table: pd.DataFrame) -> str:
    """A complete table of labels as tab-separated text, which :func:`read_table` reads back as it was."""
    out = io.StringIO()
    table[list(COLUMNS)].to_csv(out, sep="\t", index=False, lineterminator="\n")
    return out.getvalue()
