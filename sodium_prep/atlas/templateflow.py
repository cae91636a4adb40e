"""Atlases of TemplateFlow, from its folder on this machine or, where the package is installed, fetched by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sodium_prep.atlas.bundled import Atlas
from sodium_prep.atlas.tables import STRUCTURE_TISSUE, Structure
from sodium_prep.atlas.user import atlas_stem, entities_of, load_user_atlas, read_record
from sodium_prep.errors import UsageError

PREFIX: Final = "templateflow:"
_FORM: Final = f"{PREFIX}NAME:atlas-X[:desc-Y][:res-N][:cohort-N][:suffix-probseg][:structure-S]"
_STRUCTURES: Final[dict[str, Structure]] = {
    "Schaefer2018": "cortex",
    "GlasserHCPMMP1": "cortex",
    "HOCPA": "cortex",
    "HOCPAL": "cortex",
    "MIAL67ThalamicNuclei": "deep_gm",
}
"""Atlases of one structure: their tables name none."""
_KEYWORDS: Final = {"res": "resolution"}


def templateflow_home() -> Path:
    """Folder of TemplateFlow: the environment variable ``TEMPLATEFLOW_HOME``, else ``~/.cache/templateflow``."""
    home = os.environ.get("TEMPLATEFLOW_HOME")
    return Path(home) if home else Path.home() / ".cache" / "templateflow"


def load_templateflow_atlas(spec: str) -> Atlas:
    """Load an atlas of TemplateFlow.

    Parameters
    ----------
    spec
        ``templateflow:NAME:atlas-X`` and any other entities of the file, such as ``desc-100Parcels7Networks`` or
        ``res-01``. Of several resolutions the finest is taken. ``structure-S`` tells the structure of labels whose
        names do not: the tables of TemplateFlow hold none.

    Raises
    ------
    UsageError
        If the specification is wrong, fits several atlases, or its files are neither here nor to be had.
    InputError
        If the files are faulty.
    """
    name, wanted, structure = _parse(spec)
    image = _find(spec, name, wanted) or _fetch(spec, name, wanted)
    table = _inherited(image, ".tsv")
    if table is None:
        raise UsageError(f"--atlas {spec}", f"there is no table beside {image.name}", "Get its dseg.tsv as well")
    description = read_record(templateflow_home() / f"tpl-{name}" / "template_description.json")
    own = _inherited(image, ".json")
    record = {"Version": description.get("TemplateFlowVersion", ""), "License": description.get("License", "")}
    record |= read_record(own) if own else {"ReferencesAndLinks": description.get("ReferencesAndLinks", "")}
    record["Name"] = atlas_stem(image)
    record["Space"] = name + (f":cohort-{wanted['cohort']}" if "cohort" in wanted else "")
    return load_user_atlas(image, table, record, structure=structure or _STRUCTURES.get(wanted["atlas"], ""))


def _parse(spec: str) -> tuple[str, dict[str, str], str]:
    name, *parts = spec.removeprefix(PREFIX).split(":")
    pairs = [part.partition("-") for part in parts]
    entities = {key: value for key, _, value in pairs}
    if not name or "atlas" not in entities or not all(dash and value for _, dash, value in pairs):
        raise UsageError(f"--atlas {spec}", "is no atlas of TemplateFlow", f"Write {_FORM}")
    structure = entities.pop("structure", "")
    if structure and structure not in STRUCTURE_TISSUE:
        raise UsageError(
            f"--atlas {spec}", f"there is no structure {structure}", f"Use one of {', '.join(STRUCTURE_TISSUE)}"
        )
    return name, {"suffix": "dseg"} | entities, structure


def _agrees(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(key in found and _plain(found[key]) == _plain(value) for key, value in wanted.items())


def _plain(value: str) -> str:
    return value.lstrip("0") if value.isdigit() else value


def _find(spec: str, name: str, wanted: Mapping[str, str]) -> Path | None:
    """The image that a specification means, the finest of several resolutions; None if it is not here.

    TemplateFlow keeps empty files in place of those that it has not fetched yet: they tell names only.
    """
    meant = {**wanted, "tpl": name}
    folder = templateflow_home() / f"tpl-{name}"
    images = [path for path in sorted(folder.rglob("*.nii.gz")) if _agrees(entities_of(path), meant)]
    kinds = {tuple(sorted((k, v) for k, v in entities_of(path).items() if k != "res")) for path in images}
    if len(kinds) > 1:
        names = ", ".join(path.name for path in images[:5])
        raise UsageError(f"--atlas {spec}", f"fits several atlases ({names})", "Add entities until one is left")
    here = [path for path in images if path.is_file() and path.stat().st_size]
    return min(here, key=_voxel_volume, default=None)


def _voxel_volume(path: Path) -> float:
    import nibabel as nib

    x, y, z = nib.load(path).header.get_zooms()[:3]  # type: ignore[attr-defined]
    return float(x * y * z)


def _inherited(image: Path, extension: str) -> Path | None:
    """The file with the most entities that holds for an image: none of its entities contradicts the image's."""
    entities = entities_of(image)
    folders = [image.parent, image.parent.parent]
    found = [path for folder in folders for path in sorted(folder.glob(f"tpl-*_{entities['suffix']}{extension}"))]
    found = [path for path in found if path.is_file() and path.stat().st_size]
    fitting = [path for path in found if "atlas" in entities_of(path) and _agrees(entities, entities_of(path))]
    return max(fitting, key=lambda path: len(entities_of(path)), default=None)


def _fetch(spec: str, name: str, wanted: Mapping[str, str]) -> Path:
    home = templateflow_home()
    get = (
        'On a machine with network: pip install templateflow, then python -c "from templateflow import api; '
        f"api.get('{name}', atlas='{wanted['atlas']}')\", and let TEMPLATEFLOW_HOME name its folder here"
    )
    try:
        api = import_module("templateflow.api")
    except ImportError:
        raise UsageError(f"--atlas {spec}", f"is not in {home}", get) from None
    meant: dict[str, Any] = {_KEYWORDS.get(key, key): int(v) if v.isdigit() else v for key, v in wanted.items()}
    anywhere = {key: value for key, value in meant.items() if key != "resolution"}
    general = {key: meant[key] for key in ("atlas", "suffix")}
    try:
        for extension, entities in ((".nii.gz", meant), (".tsv", anywhere), (".json", general)):
            api.get(name, extension=extension, **entities)
    except Exception as error:  # whatever its client and the network raise
        raise UsageError(f"--atlas {spec}", f"could not be fetched ({error})", get) from None
    image = _find(spec, name, wanted)
    if image is None:
        raise UsageError(f"--atlas {spec}", "TemplateFlow has no such atlas", f"Check the name; write {_FORM}")
    return image
