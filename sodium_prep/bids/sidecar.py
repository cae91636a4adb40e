"""Sidecars: BIDS inheritance, the study's protocol file, and the checks of the physical quantities.

The protocol file (``--protocol FILE``) is TOML with the key names of the JSON sidecar, and says once for a study what
its sidecars lack::

    MagneticFieldStrength = 3.0
    EchoTime = 0.0005            # seconds
    RepetitionTime = 0.12
    FlipAngle = 90

    [SodiumAcquisition]
    Trajectory = "DA-3DPR"
    ReadoutDuration = 0.01
    NominalResolution = [3.0, 3.0, 3.0]
    KSpaceFilter = "none"

    [[SodiumReferences]]
    Label = "vial50"
    Concentration = 50.0         # mmol/L
    Matrix = "agar"

    [Relaxation.GM]              # in place of the literature's
    T1 = 0.0405
    T1Error = 0.002
    Citation = "our own inversion recovery"

A value in a sidecar goes before the protocol's. Where a sidecar lists ``SodiumReferences``, that list says which
references were in the scan, and the protocol only fills what an entry of the same ``Label`` lacks.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from sodium_prep.bids.images import CheckedImage, check_available, load_checked
from sodium_prep.bids.models import (
    LATER_ECHOES,
    AcquisitionFacts,
    SodiumAcquisition,
    SodiumReference,
    SodiumSidecar,
    TissueRelaxation,
    aliases,
    validation_message,
)
from sodium_prep.errors import InputError
from sodium_prep.quant.detect import LEAST_FILL, geometry_from_mask, mask_fill
from sodium_prep.quant.geometry import ReferenceGeometry

__all__ = [
    "AcquisitionFacts",
    "SodiumAcquisition",
    "SodiumReference",
    "SodiumSidecar",
    "check_references",
    "load_protocol",
    "load_sidecar",
    "merged_metadata",
    "place_by_masks",
    "read_json",
    "sidecar_from_files",
]

_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "": (*(key for key in aliases(SodiumSidecar) if key != LATER_ECHOES), "RepetitionTimeExcitation"),
    "SodiumAcquisition": aliases(SodiumAcquisition),
    "SodiumReferences": aliases(SodiumReference),
    "Relaxation": aliases(TissueRelaxation),
}

_ELSEWHERE: Final = {
    "PointSpreadFunction": "Give a path from the root of the data set, or use --protocol or --psf",
    "TrajectoryFile": "Give a path from the root of the data set, or use --protocol",
}
"""Keys that name files, and what to do where such a file lies outside the data set."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold one object."""
    check_available(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(path, "is not UTF-8 text", "Save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise InputError(path, problem, "Correct the file at that place") from None
    except RecursionError:
        raise InputError(path, "is nested too deeply for JSON metadata", "Correct the file") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check the permissions of the file") from None
    if not isinstance(content, dict):
        raise InputError(path, "does not hold a JSON object", "Write the keys between { and }")
    return content


def merged_metadata(data_file: Path, root: Path | None = None) -> dict[str, Any]:
    """Metadata of a data file by the BIDS inheritance principle: the nearest sidecar wins, key by key.

    Parameters
    ----------
    data_file
        An image or k-space file; need not exist.
    root
        Folder of the data set, where inheritance starts; by default the nearest parent with a
        ``dataset_description.json``.
    """
    merged: dict[str, Any] = {}
    for sidecar in applicable_sidecars(data_file, root):
        merged.update(read_json(sidecar))
    return merged


def applicable_sidecars(data_file: Path, root: Path | None = None) -> list[Path]:
    """JSON files that describe a data file, farthest and most general first."""
    *entities, suffix = data_file.name.split(".")[0].split("_")
    found: list[Path] = []
    for folder in _folders_down_to(data_file.parent, root):
        here = []
        for candidate in folder.glob(f"*{suffix}.json"):
            *tokens, last = candidate.name.removesuffix(".json").split("_")
            if last == suffix and set(tokens) <= set(entities):
                here.append((len(tokens), candidate))
        ranks = [rank for rank, _ in here]
        if len(set(ranks)) < len(ranks):
            names = ", ".join(sorted(candidate.name for _, candidate in here))
            problem = f"is described by several sidecars of one folder ({names})"
            raise InputError(data_file, problem, "Keep one of them, as BIDS inheritance wants it")
        found += [candidate for _, candidate in sorted(here)]
    return found


def _folders_down_to(folder: Path, root: Path | None) -> list[Path]:
    if root is None:
        parents = (folder, *folder.parents)
        root = next((parent for parent in parents if (parent / "dataset_description.json").exists()), folder)
    below = folder.relative_to(root).parts
    return [root.joinpath(*below[:depth]) for depth in range(len(below) + 1)]


def load_protocol(path: Path) -> dict[str, Any]:
    """Read a study's protocol file, and refuse keys that are not known and values out of their bounds."""
    check_available(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"is not valid TOML ({error})", "Correct the file at that place") from None
    for key in content:
        if key not in _KEYS[""]:
            raise InputError(path, f"{key} is not a known key", f"Known keys: {', '.join(_KEYS[''])}")
    try:
        SodiumSidecar.model_validate(content)
    except ValidationError as error:
        # What is missing here may be in the sidecars; what is here must be right.
        faults = [fault for fault in error.errors(include_url=False) if fault["type"] != "missing"]
        if faults:
            raise validation_message(faults, {}, path, _KEYS) from None
    return _with_paths(content, path.absolute().parent)


def _with_paths(content: dict[str, Any], folder: Path, sidecar: Path | None = None) -> dict[str, Any]:
    """Metadata with the files that they name as absolute paths; a sidecar may name files of its data set only."""
    block = content.get("SodiumAcquisition")
    if not isinstance(block, Mapping):
        return content

    def placed(key: str, text: str) -> Path:
        path = folder / text.removeprefix("bids::")
        if sidecar is not None and not path.resolve().is_relative_to(folder.resolve()):
            problem = f"names {path} as {key}, which is not in the data set"
            raise InputError(sidecar, problem, _ELSEWHERE[key])
        return path

    found = dict(block)
    for key in _ELSEWHERE:
        given = block.get(key)
        if isinstance(given, str):
            found[key] = placed(key, given)
        elif isinstance(given, Mapping) and all(isinstance(text, str) for text in given.values()):
            found[key] = {tissue: placed(key, text) for tissue, text in given.items()}
    return {**content, "SodiumAcquisition": found}


def load_sidecar(
    data_file: Path, protocol: Mapping[str, Any] | Path | None = None, root: Path | None = None
) -> SodiumSidecar:
    """Sidecar of a sodium image or k-space file: inherited, completed from the protocol, and checked.

    Parameters
    ----------
    data_file
        The image or k-space file.
    protocol
        Path of a protocol file, or its content from :func:`load_protocol`.
    root
        Folder of the data set; by default the nearest parent with a ``dataset_description.json``.

    Raises
    ------
    InputError
        If a key is missing, not known, or out of its physical bounds.
    """
    if isinstance(protocol, Path):
        protocol = load_protocol(protocol)
    sidecars = applicable_sidecars(data_file, root)
    where = sidecars[-1] if sidecars else data_file
    merged: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    top = _folders_down_to(data_file.parent, root)[0]
    for sidecar in sidecars:
        content = _with_paths(_our_keys(sidecar), top, sidecar)
        merged.update(content)
        origin.update(dict.fromkeys(content, sidecar))
    if not sidecars and not protocol:
        problem = "has no JSON sidecar"
        keys = "ResonantNucleus, MagneticFieldStrength, EchoTime, RepetitionTime, FlipAngle"
        raise InputError(data_file, problem, f"Write one beside it with {keys}")
    return _validated(merged, protocol or {}, origin, where)


def sidecar_from_files(sidecar: Path | None, protocol: Path | None) -> SodiumSidecar:
    """The sidecar of a lone image, from a JSON file, a protocol file, or both, without any folder of a data set.

    A protocol file is that of a sodium acquisition, so it need not name the nucleus.

    Raises
    ------
    InputError
        If a key is missing, not known, or out of its physical bounds.
    """
    content = _our_keys(sidecar) if sidecar else {}
    defaults = {"ResonantNucleus": "23Na"} | load_protocol(protocol) if protocol else {}
    return _validated(content, defaults, dict.fromkeys(content, sidecar), sidecar or protocol)


def _our_keys(sidecar: Path) -> dict[str, Any]:
    return {key: value for key, value in read_json(sidecar).items() if key in _KEYS[""]}


def _validated(
    metadata: Mapping[str, Any], protocol: Mapping[str, Any], origin: Mapping[str, object], where: object
) -> SodiumSidecar:
    try:
        return SodiumSidecar.model_validate(complete_metadata(metadata, protocol))
    except ValidationError as error:
        raise validation_message(error.errors(include_url=False), origin, where, _KEYS) from None


def complete_metadata(metadata: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Fill what metadata lack from a protocol; metadata go first, block by block and reference by reference."""
    merged = {**protocol, **metadata}
    # Both keys name one quantity: a sidecar's RepetitionTime must not lose against the protocol's other spelling.
    if "RepetitionTime" in metadata and "RepetitionTimeExcitation" not in metadata:
        merged.pop("RepetitionTimeExcitation", None)
    relaxation = (protocol.get("Relaxation"), metadata.get("Relaxation"))
    if all(isinstance(block, Mapping) for block in relaxation):
        merged["Relaxation"] = {**relaxation[0], **relaxation[1]}  # type: ignore[dict-item]
    study, own = protocol.get("SodiumAcquisition"), metadata.get("SodiumAcquisition")
    if isinstance(study, Mapping) and isinstance(own, Mapping):
        # The parameters of one window are not those of another.
        other = {"KSpaceFilter"} <= set(study) & set(own) and study["KSpaceFilter"] != own["KSpaceFilter"]
        dropped = {"FilterCutoff", "FilterWidth"} if other else set()
        merged["SodiumAcquisition"] = {key: study[key] for key in study if key not in dropped} | dict(own)
    listed = metadata.get("SodiumReferences")
    if isinstance(listed, list) and all(isinstance(entry, Mapping) for entry in listed):
        by_label = {entry.get("Label"): entry for entry in protocol.get("SodiumReferences", [])}
        merged["SodiumReferences"] = [{**by_label.get(entry.get("Label"), {}), **entry} for entry in listed]
    return merged


def check_references(references: tuple[SodiumReference, ...], where: Path, image: CheckedImage | None = None) -> None:
    """Refuse vials that cannot make a calibration line, have no relaxation times or do not lie in the image.

    Parameters
    ----------
    references
        All references of a scan; without any vial there is nothing to check.
    where
        File that the message names.
    image
        The sodium image, if the vials' places are to be checked.
    """
    vials = [reference for reference in references if reference.is_vial]
    distinct = {vial.concentration_mM for vial in vials}
    # A single vial makes a line through the origin; several alike are more likely a slip than a design.
    if len(distinct) == 1 and len(vials) > 1:
        problem = f"its vials have one distinct concentration only ({distinct.pop():g} mmol/L)"
        raise InputError(where, problem, "Give the Concentration of at least two different vials in SodiumReferences")
    if unknown := [vial.label for vial in vials if vial.relaxation is None]:
        problem = f"the T1 or T2starSlow of {', '.join(unknown)} is missing, so vials cannot be compared with tissue"
        mend = "Give both for each vial in SodiumReferences or in the --protocol file, in seconds"
        raise InputError(where, problem, mend)
    if image is None:
        return
    to_voxel = np.linalg.inv(image.affine)
    for vial in vials:
        if vial.centre_ras_mm is None:
            continue
        voxel = to_voxel[:3, :3] @ np.asarray(vial.centre_ras_mm) + to_voxel[:3, 3]
        if np.any(voxel < -0.5) or np.any(voxel > np.asarray(image.shape) - 0.5):
            centre = ", ".join(f"{value:g}" for value in vial.centre_ras_mm)
            problem = f"the reference {vial.label} at ({centre}) mm lies outside the image {image.path.name}"
            raise InputError(where, problem, "Give CentreRAS in scanner millimetres (RAS+), or leave it out")


def place_by_masks(sidecar: SodiumSidecar, where: Path, root: Path) -> SodiumSidecar:
    """References with a ``Mask`` get centre, radius, length and axis of the ball or cylinder that it shows.

    Parameters
    ----------
    where
        File that the message names.
    root
        Folder of the data set, within which the masks must lie.
    """
    placed = []
    for reference in sidecar.references:
        if reference.mask is None:
            placed.append(reference)
            continue
        shape = _mask_geometry(reference, where, root)
        axis = None if shape.length_mm is None else shape.axis
        known = {"centre_ras_mm": shape.centre_mm, "radius_mm": shape.radius_mm, "length_mm": shape.length_mm}
        placed.append(reference.model_copy(update={**known, "axis": axis, "mask": None}))
    return sidecar.model_copy(update={"references": tuple(placed)})


def _mask_geometry(reference: SodiumReference, where: Path, root: Path) -> ReferenceGeometry:
    path = (root / str(reference.mask).removeprefix("bids::")).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise InputError(where, f"the Mask {reference.mask} of {reference.label} is not there", "Correct the URI")
    data, affine = load_checked(path)
    if not np.isin(data, (0, 1)).all():
        raise InputError(path, "has other values than 0 and 1", "Give a mask")
    try:
        shape, fill = geometry_from_mask(data > 0, affine, reference.label), mask_fill(data > 0, affine)
    except ValueError:
        fill = 0.0
    if fill < LEAST_FILL:
        raise InputError(path, "does not show a ball or cylinder", "Draw the inside of the vial, or give CentreRAS")
    return shape
