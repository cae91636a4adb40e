"""Derivatives of other programs (``--derivatives NAME=PATH``) that are used and not computed again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.bids.filters import parse_entities
from sodium_prep.bids.freesurfer import (
    IMAGE_FILES,
    LABEL_FILES,
    MASK_FILES,
    check_head,
    find_subject,
    first_file,
    load_segmentation,
)
from sodium_prep.bids.images import CheckedImage, check_available, check_image, load_checked, same_grid
from sodium_prep.bids.records import AnatImage, Precomputed
from sodium_prep.errors import InputError, UsageError

_TISSUES: Final = ("GM", "WM", "CSF")
_NAMED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.+-]*)=(.+)")
_SYNTHSEG: Final = re.compile(r"_(?:(?:desc|seg)-synthseg(?:_[^_]+)*_dseg|synthseg|seg)\.(?:nii|nii\.gz|mgz)$")
_LESION: Final = re.compile(
    r"(?:_([A-Za-z0-9]+))?_label-[Ll]esion[A-Za-z0-9]*(?:_[a-z]+-[A-Za-z0-9]+)*_(?:roi|mask)\.nii(?:\.gz)?$"
)
_SAME_USE: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("aparcaseg",): ("segmentation",),
    ("segmentation",): ("aparcaseg",),
}


def parse_derivatives(texts: Sequence[str]) -> dict[str, Path]:
    """Turn ``NAME=PATH`` (or a bare path, which is called by its folder) into a mapping, in the order given.

    Returns
    -------
    Absolute paths by name; whether they are folders is seen when they are used.

    Raises
    ------
    UsageError
        If a name comes twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        named = _NAMED.fullmatch(text)
        path = Path(named[2] if named else text).absolute()
        name = named[1] if named else path.name
        if name in found:
            raise UsageError("--derivatives", f"names {name!r} twice", "Give each data set a name of its own")
        found[name] = path
    return found


def find_precomputed(
    derivatives: Mapping[str, Path], participant: str, session: str | None, contrast: str, warnings: list[str]
) -> Precomputed:
    """Derivatives of a session: from its own folder first, then from the participant's.

    Parameters
    ----------
    derivatives
        Data sets by name: fMRIPrep or sMRIPrep, a ``SUBJECTS_DIR`` of FreeSurfer or FastSurfer, SynthSeg's results
        under BIDS-like names. What several offer is taken from the first.
    contrast
        Suffix of the anatomical image (``T1w``).
    warnings
        Receives one line for each file that another one went before, and for an incomplete set of tissues.

    Raises
    ------
    UsageError
        If a data set is not a folder.
    """
    files: dict[tuple[str, ...], Path] = {}
    origin: dict[Path, str] = {}
    for name, root in derivatives.items():
        if not root.is_dir():
            mend = "Give NAME=PATH of a derivative data set"
            raise UsageError(f"--derivatives {name}={root}", "is not a folder", mend)
        for purpose, path in _offered(root, participant, session, contrast, warnings).items():
            first = files.get(purpose) or files.get(_SAME_USE.get(purpose, purpose))
            if first is not None:
                warnings.append(_beaten(path, first))
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
    segmentation = files.get(("segmentation",))
    mask, own_image = _beside(segmentation, MASK_FILES), _beside(segmentation, IMAGE_FILES)
    if segmentation is not None:
        origin |= {path: origin[segmentation] for path in (mask, own_image) if path is not None}
    return Precomputed(
        anat=anat,
        brain_mask=files.get(("mask",)),
        dseg=files.get(("dseg",)),
        aparcaseg=files.get(("aparcaseg",)),
        segmentation=segmentation,
        segmentation_mask=mask,
        segmentation_t1w=own_image,
        probsegs=probsegs,
        sodium_to_t1w={key[1] or None: path for key, path in files.items() if key[0] == "sodium"},
        template_xfms={(key[1], key[2]): path for key, path in files.items() if key[0] == "xfm"},
        origin=origin,
    )


def check_precomputed(precomputed: Precomputed, anat: CheckedImage) -> list[str]:
    """Refuse derivatives that do not lie on the grid of the anatomical image, or show another head.

    Returns
    -------
    Warnings about labels.
    """
    for path in precomputed.on_anat_grid:
        if not same_grid(check_image(path), anat):
            problem = f"does not lie on the grid of {anat.path}"
            raise InputError(path, problem, "Give the derivatives that belong to this image, or resample them to it")
    warnings: list[str] = []
    if precomputed.aparcaseg is not None:
        load_segmentation(precomputed.aparcaseg, warnings)
    if precomputed.segmentation is not None:
        warnings += check_head(precomputed.segmentation, precomputed.segmentation_t1w, anat.path)
    return warnings


def find_lesion(
    bids_dir: Path,
    raw_files: Iterable[Path],
    derivatives: Mapping[str, Path],
    participant: str,
    session: str | None,
    anat: AnatImage,
    warnings: list[str],
) -> Path | None:
    """The lesion mask of a session: ``label-lesion`` with the suffix ``roi`` or ``mask``, raw or in a derivative.

    A suffix in the middle of the name (``_T1w_label-lesion_roi``, as older fMRIPrep has it) says which image the mask
    was drawn on; masks drawn on another contrast are left out with a warning.

    Parameters
    ----------
    raw_files
        Images of the session's ``anat`` folder in the raw data set.

    Raises
    ------
    InputError
        If there are several masks that differ (which one is meant, or whether they add up, is not guessed), or if a
        mask does not lie on the grid of the anatomical image or holds anything but 0 and 1.
    """
    candidates = [(path, bids_dir) for path in raw_files]
    for root in derivatives.values():
        candidates += [(path, root) for path in _candidates(root, participant, session)]
    found = []
    for path, root in candidates:
        entities = parse_entities(path, root)
        named = _LESION.search(path.name)
        if named is None or entities.get("space", "T1w") != "T1w" or entities.get("session") not in (None, session):
            continue
        if named[1] not in (None, anat.contrast):
            warnings.append(f"{path}: is not used, because it was drawn on another image than {anat.path.name}.")
            continue
        found.append(path)
    masks = [_load_lesion(path, anat) for path in found]
    for path, mask in zip(found[1:], masks[1:], strict=True):
        if not np.array_equal(mask, masks[0]):
            mend = "Merge them into one file, or keep the one that is meant"
            raise InputError(path, f"and {found[0]} are different masks of lesions", mend)
    return found[0] if found else None


def _load_lesion(path: Path, anat: AnatImage) -> NDArray[np.bool_]:
    try:
        checked = check_image(path)
    except InputError as error:
        if "the same value" not in error.problem:
            raise
        raise InputError(path, error.problem, "Remove the mask of a head without lesion, or draw it again") from None
    if not same_grid(checked, anat.image):
        problem = f"does not lie on the grid of {anat.path}"
        raise InputError(path, problem, "Draw it on this image, or resample it to its grid (nearest neighbour)")
    data = load_checked(path)[0]
    values = np.unique(data)
    if not np.array_equal(values, [0.0, 1.0]):
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (" ..." if len(values) > 5 else "")
        raise InputError(path, f"holds the values {shown}", "Give a mask of 0 and 1")
    return data > 0


def _offered(
    root: Path, participant: str, session: str | None, contrast: str, warnings: list[str]
) -> dict[tuple[str, ...], Path]:
    """What one data set offers, by purpose; of several label images the best."""
    found: dict[tuple[str, ...], Path] = {}
    for path in _candidates(root, participant, session):
        entities = parse_entities(path, root)
        purpose = _purpose(path, entities, contrast)
        if purpose is None or entities.get("session") not in (None, session):
            continue
        if purpose in found:
            warnings.append(_beaten(path, found[purpose]))
        else:
            found[purpose] = path
    aseg, synthseg = found.pop(("aseg",), None), found.pop(("synthseg",), None)
    if ("aparcaseg",) in found:
        return found
    subject = find_subject(root, participant, session, warnings)
    labels = first_file(subject, LABEL_FILES) if subject is not None else None
    if labels is None and aseg is not None:
        return found | {("aparcaseg",): aseg}
    labels = labels or synthseg
    return found if labels is None else found | {("segmentation",): labels}


def _beaten(path: Path, first: Path) -> str:
    return f"{path}: is not used, because {first} was found first."


def _beside(segmentation: Path | None, names: tuple[str, ...]) -> Path | None:
    """A file of the same FreeSurfer subject."""
    if segmentation is None or segmentation.parent.name != "mri":
        return None
    path = first_file(segmentation.parent.parent, names)
    if path is not None:
        check_available(path)
    return path


def _candidates(root: Path, participant: str, session: str | None) -> list[Path]:
    """Files of a participant, those of the session first; in the root itself only what SynthSeg wrote."""
    folders = [root / f"sub-{participant}" / "anat"]
    if session is not None:
        folders.insert(0, root / f"sub-{participant}" / f"ses-{session}" / "anat")
    flat = [path for path in sorted(root.glob(f"sub-{participant}_*")) if _SYNTHSEG.search(path.name)]
    found = [path for folder in folders for path in sorted(folder.glob(f"sub-{participant}_*"))]
    return [path for path in (*found, *flat) if path.suffix != ".json"]


def _purpose(path: Path, entities: Mapping[str, str], contrast: str) -> tuple[str, ...] | None:
    """What a file is for, as a key; None for a file that is not needed."""
    suffix, desc = entities.get("suffix", ""), entities.get("desc")
    if suffix == "xfm" and entities.get("mode") == "image":
        ends = entities.get("from", ""), entities.get("to", "")
        if ends == ("sodium", "T1w"):
            return ("sodium", entities.get("acquisition", "")) if path.suffix == ".txt" else None
        return ("xfm", *ends) if "T1w" in ends and "sodium" not in ends else None
    if _SYNTHSEG.search(path.name) and entities.get("space", "T1w") == "T1w":
        return ("synthseg",)
    if not path.name.endswith((".nii", ".nii.gz")) or entities.get("space", "T1w") != "T1w":
        return None
    if suffix == contrast and desc == "preproc":
        return ("anat",)
    if suffix == "mask" and desc == "brain":
        return ("mask",)
    if suffix == "dseg" and desc in (None, "aparcaseg", "aseg") and "segmentation" not in entities:
        return (desc or "dseg",)
    if suffix == "probseg" and desc is None and entities.get("label") in _TISSUES:
        return ("probseg", entities["label"])
    return None
