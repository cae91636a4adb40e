"""Collects what one session of one participant holds; no other participant's files are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sodium_prep.anat.conform import coverage_notes
from sodium_prep.bids.filters import Filters, matches
from sodium_prep.bids.images import check_image, handedness_warning
from sodium_prep.bids.participants import find_participants, find_sessions, read_participants, table_warnings
from sodium_prep.bids.precomputed import check_precomputed, find_lesion, find_precomputed, parse_derivatives
from sodium_prep.bids.records import (
    AnatImage,
    KSpaceFile,
    Precomputed,
    SessionInputs,
    SodiumImage,
    SodiumRun,
    SodiumSeries,
)
from sodium_prep.bids.series import FoundFile, SourceChoice, build_series, list_images, session_folder
from sodium_prep.bids.sidecar import load_protocol
from sodium_prep.errors import InputError

__all__ = [
    "AnatImage",
    "KSpaceFile",
    "Precomputed",
    "SessionInputs",
    "SodiumImage",
    "SodiumRun",
    "SodiumSeries",
    "collect",
    "find_participants",
    "find_sessions",
    "parse_derivatives",
    "read_participants",
    "table_warnings",
]

ANAT_PREFERENCE: Final = ("T1w", "UNIT1", "T2w", "PDw", "T2starw")
"""Proton contrasts in the order of preference; any other magnitude image comes after them."""

_NOT_ANATOMY: Final = ("defacemask", "mask", "dseg", "probseg", "roi", "angio")


def collect(
    bids_dir: Path,
    participant: str,
    session: str | None,
    *,
    filters: Filters | None = None,
    derivatives: Mapping[str, Path] | None = None,
    protocol: Mapping[str, Any] | Path | None = None,
    anat_contrast: str | None = None,
    source: SourceChoice = "auto",
) -> SessionInputs:
    """Find and check everything that the processing of one session needs.

    Parameters
    ----------
    bids_dir
        Root of the data set.
    participant, session
        Labels without prefix; session None for a data set without sessions.
    filters
        From :func:`~sodium_prep.bids.filters.load_filters`.
    derivatives
        From :func:`~sodium_prep.bids.precomputed.parse_derivatives`.
    protocol
        Protocol file, or its content.
    anat_contrast
        Suffix of the anatomical image that is wanted; the best proton image by default.
    source
        Whether sodium runs are processed from their image or from k-space; ``auto`` takes k-space where it is.

    Raises
    ------
    InputError
        With the first fault that makes this session unusable; other sessions are not affected.
    """
    protocol = load_protocol(protocol) if isinstance(protocol, Path) else protocol or {}
    filters = filters or {}
    warnings: list[str] = []
    anat_files = list_images(bids_dir, session_folder(bids_dir, participant, session) / "anat")
    sodium = build_series(bids_dir, participant, session, anat_files, filters, protocol, source, warnings)
    derivatives = derivatives or {}
    precomputed = find_precomputed(derivatives, participant, session, anat_contrast or "T1w", warnings)
    anat, own_files = precomputed.anat, anat_files
    if anat is None:
        wanted = filters.get("t1w", {})
        if "session" in wanted:
            anat_files = _all_sessions(bids_dir, participant)
        folder = session_folder(bids_dir, participant, session)
        anat = choose_anat(anat_files, wanted, anat_contrast, folder, warnings)
    coverage_notes(anat.path, anat.image.shape, anat.image.affine)  # refuses; the step that suffers takes the notes
    warnings += check_precomputed(precomputed, anat.image)
    own_paths = [found.path for found in own_files]
    lesion = find_lesion(bids_dir, own_paths, derivatives, participant, session, anat, warnings)
    sodium = tuple(replace(series, proton=choose_proton(series, own_files, anat, warnings)) for series in sodium)
    images = [image.image for series in sodium for run in series.runs for image in run.images]
    warnings += [text for image in images if (text := handedness_warning(image, anat.image))]
    return SessionInputs(participant, session, anat, sodium, precomputed, tuple(dict.fromkeys(warnings)), lesion)


def choose_anat(
    found: list[FoundFile], wanted: Mapping[str, Any], contrast: str | None, folder: Path, warnings: list[str]
) -> AnatImage:
    """Choose the proton image: T1w by preference, the first by name among equals.

    Parameters
    ----------
    found
        Images of ``anat``, sodium images among them.
    wanted
        Query ``t1w`` of the filter file.
    contrast
        Suffix that is asked for, if any.
    folder
        Where the images were looked for, for the message.
    warnings
        Receives one line if there was a choice among images of the same contrast.
    """
    ranks = {suffix: rank for rank, suffix in enumerate(ANAT_PREFERENCE)}
    candidates = [
        (ranks.get(one.entities.get("suffix", ""), len(ranks)), one.path, one)
        for one in found
        if _is_proton(one) and matches(one.entities, wanted) and contrast in (None, one.entities.get("suffix"))
    ]
    if not candidates:
        kind = f"proton image with the suffix {contrast}" if contrast else "proton image"
        mend = 'Add a T1w, or name a session that has one with {"t1w": {"session": ...}} in --bids-filter-file'
        raise InputError(folder, f"has no {kind} to serve as anatomical reference", mend)
    rank, path, chosen = min(candidates, key=lambda entry: entry[:2])
    image = check_image(path)
    warnings += image.warnings
    suffix = chosen.entities["suffix"]
    others = [entry[1].name for entry in candidates if entry[1] != path and entry[2].entities["suffix"] == suffix]
    if others:
        warnings.append(f"{path}: was taken as anatomical reference before {', '.join(others)}.")
    if rank > 0 and contrast is None:
        warnings.append(f"{path}: is the anatomical reference, because there is no T1w.")
    return AnatImage(path, image, suffix, chosen.entities)


def choose_proton(
    series: SodiumSeries, found: Sequence[FoundFile], anat: AnatImage, warnings: list[str]
) -> Path | None:
    """The proton image that was taken with the coil of a sodium series: T1w by preference, then the first by name.

    There is none where the sidecars do not name the coils alike, nor where the anatomical image itself was taken with
    this coil. It is a help and no need: an image that cannot be used is left out with a warning.

    Parameters
    ----------
    found
        Images of the session's ``anat`` folder.
    """
    coils = {file.sidecar.receive_coil_name for run in series.runs for file in run.files}
    coil = coils.pop() if len(coils) == 1 else None
    if not coil:
        return None
    ranks = {suffix: rank for rank, suffix in enumerate(ANAT_PREFERENCE)}
    same = [one for one in found if _is_proton(one) and one.metadata.get("ReceiveCoilName") == coil]
    if any(one.path == anat.path for one in same):
        return None
    for one in sorted(same, key=lambda one: (ranks.get(one.entities.get("suffix", ""), len(ranks)), one.path)):
        try:
            warnings += check_image(one.path).warnings
        except InputError as error:
            warnings.append(f"{error.where}: is not used as a stepping stone, because it {error.problem}.")
            continue
        return one.path
    return None


def _is_proton(found: FoundFile) -> bool:
    return (
        found.nucleus in (None, "1H")
        and not found.named_sodium
        and found.is_magnitude
        and found.entities.get("suffix", "mask") not in _NOT_ANATOMY
    )


def _all_sessions(bids_dir: Path, participant: str) -> list[FoundFile]:
    sessions = find_sessions(bids_dir, participant)
    folders = [session_folder(bids_dir, participant, session) / "anat" for session in sessions]
    return [found for folder in folders for found in list_images(bids_dir, folder)]
