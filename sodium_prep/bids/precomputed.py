"""Derivatives of other programs (``--derivatives NAME=PATH``) that are used and not computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sodium_prep.bids.filters import parse_entities
from sodium_prep.bids.images import CheckedImage, check_available, check_image, same_grid
from sodium_prep.bids.records import AnatImage, Precomputed
from sodium_prep.errors import InputError, UsageError

_TISSUES: Final = ("GM", "WM", "CSF")


def parse_derivatives(texts: Sequence[str]) -> dict[str, Path]:
    """Turn ``NAME=PATH`` (or a bare path, which is called by its folder) into a mapping, in the order given.

    Raises
    ------
    UsageError
        If a name comes twice or a path is not a folder.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, _, place = text.partition("=") if "=" in text else ("", "", text)
        path = Path(place)
        name = name or path.resolve().name
        if name in found:
            raise UsageError("--derivatives", f"names {name!r} twice", "Give each data set a name of its own")
        if not path.is_dir():
            raise UsageError(f"--derivatives {text}", "is not a folder", "Give NAME=PATH of a derivative data set")
        found[name] = path
    return found


def find_precomputed(
    derivatives: Mapping[str, Path], participant: str, session: str | None, contrast: str, warnings: list[str]
) -> Precomputed:
    """Derivatives of a session: from its own folder first, then from the participant's.

    Parameters
    ----------
    derivatives
        Data sets by name; what several offer is taken from the first.
    contrast
        Suffix of the anatomical image (``T1w``).
    warnings
        Receives one line for each file that another one went before, and for an incomplete set of tissues.
    """
    files: dict[tuple[str, ...], Path] = {}
    origin: dict[Path, str] = {}
    for name, root in derivatives.items():
        for path in _candidates(root, participant, session):
            purpose = _purpose(path, parse_entities(path, root), contrast)
            if purpose is None:
                continue
            if purpose in files:
                warnings.append(f"{path}: is not used, because {files[purpose]} was found first.")
                continue
            check_available(path)
            files[purpose], origin[path] = path, name
    probsegs = {tissue: files["probseg", tissue] for tissue in _TISSUES if ("probseg", tissue) in files}
    if 0 < len(probsegs) < len(_TISSUES):
        warnings.append(f"{next(iter(probsegs.values()))}: is not used, because GM, WM and CSF are not all there.")
        probsegs = {}
    anat = None
    if ("anat",) in files:
        where = files[("anat",)]
        image = check_image(where)
        warnings += image.warnings
        entities = parse_entities(where, derivatives[origin[where]])
        anat = AnatImage(where, image, contrast, entities, origin[where])
    return Precomputed(
        anat=anat,
        brain_mask=files.get(("mask",)),
        dseg=files.get(("dseg",)),
        aparcaseg=files.get(("aparcaseg",)),
        probsegs=probsegs,
        sodium_to_t1w={key[1] or None: path for key, path in files.items() if key[0] == "sodium"},
        template_xfms={(key[1], key[2]): path for key, path in files.items() if key[0] == "xfm"},
        origin=origin,
    )


def check_grids(precomputed: Precomputed, anat: CheckedImage) -> None:
    """Refuse derivatives that do not lie on the grid of the anatomical image."""
    for path in precomputed.on_anat_grid:
        if not same_grid(check_image(path), anat):
            problem = f"does not lie on the grid of {anat.path}"
            raise InputError(path, problem, "Give the derivatives that belong to this image, or resample them to it")


def _candidates(root: Path, participant: str, session: str | None) -> list[Path]:
    folders = [root / f"sub-{participant}" / "anat"]
    if session is not None:
        folders.insert(0, root / f"sub-{participant}" / f"ses-{session}" / "anat")
    return [
        path for folder in folders for path in sorted(folder.glob(f"sub-{participant}_*")) if path.suffix != ".json"
    ]


def _purpose(path: Path, entities: Mapping[str, str], contrast: str) -> tuple[str, ...] | None:
    """What a file is for, as a key; None for a file that is not needed."""
    suffix, desc = entities.get("suffix", ""), entities.get("desc")
    if suffix == "xfm" and entities.get("mode") == "image":
        ends = entities.get("from", ""), entities.get("to", "")
        if ends == ("sodium", "T1w"):
            return ("sodium", entities.get("acquisition", "")) if path.suffix == ".txt" else None
        return ("xfm", *ends) if "T1w" in ends and "sodium" not in ends else None
    if not path.name.endswith((".nii", ".nii.gz")) or entities.get("space", "T1w") != "T1w":
        return None
    if suffix == contrast and desc == "preproc":
        return ("anat",)
    if suffix == "mask" and desc == "brain":
        return ("mask",)
    if suffix == "dseg" and desc in (None, "aparcaseg") and "segmentation" not in entities:
        return (desc or "dseg",)
    if suffix == "probseg" and desc is None and entities.get("label") in _TISSUES:
        return ("probseg", entities["label"])
    return None
