"""Sorts the sodium files of a session into series, runs and echoes, with their field maps."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sodium_prep.bids.corrected import intensity_correction
from sodium_prep.bids.filters import Filters, matches, parse_entities
from sodium_prep.bids.images import CheckedImage, check_available, check_image, load_checked, same_grid
from sodium_prep.bids.points import load_points
from sodium_prep.bids.records import KSpaceFile, SodiumImage, SodiumRun, SodiumSeries, Source
from sodium_prep.bids.sidecar import SodiumSidecar, check_references, load_sidecar, merged_metadata, place_by_masks
from sodium_prep.errors import InputError
from sodium_prep.quant.weighted import CAUTION
from sodium_prep.recon.description import SUFFIXES

SourceChoice = Literal["auto", "image", "kspace"]
_File = TypeVar("_File", SodiumImage, KSpaceFile)

_SINGLE_OR_MULTI_ECHO: Final = ("PDw", "T2starw", "MEGRE")
_SODIUM_SUFFIXES: Final = (*_SINGLE_OR_MULTI_ECHO, "VFA")
_SODIUM_LABEL: Final = re.compile(r"(sodium|23na|na23)\Z", re.IGNORECASE)
_OTHER_PART: Final = {"phase": "mag", "real": "imag", "imag": "real"}
_MOST_RADIANS: Final = 2.001 * math.pi
"""One turn either way, with what rounding adds."""
_HDF5: Final = ("HDF5", b"\x89HDF\r\n\x1a\n")
_SIGNATURES: Final = {".h5": _HDF5, ".mrd": _HDF5, ".npz": ("npz", b"PK\x03\x04")}
"""Kind and first bytes of raw data by suffix."""
_NAME_NUCLEUS: Final = 'Put "ResonantNucleus": "23Na" into the JSON sidecar of the sodium image'


@dataclass(frozen=True, eq=False)
class FoundFile:
    """An image of a participant with its entities and inherited metadata."""

    path: Path
    entities: Mapping[str, str]
    metadata: Mapping[str, Any]
    partner: FoundFile | None = None
    """Phase of a magnitude or imaginary of a real part that make complex data with it."""

    @property
    def nucleus(self) -> str | None:
        """Nucleus by sidecar or, failing that, by name."""
        value = self.metadata.get("ResonantNucleus", self.entities.get("nucleus"))
        return None if value is None else str(value)

    @property
    def named_sodium(self) -> bool:
        """Whether the ``acq-`` label alone says that this is a sodium image."""
        return bool(_SODIUM_LABEL.match(self.entities.get("acquisition", "")))

    @property
    def is_magnitude(self) -> bool:
        """Whether it is not declared to be a phase, real or imaginary part."""
        return self.entities.get("part") not in _OTHER_PART

    @property
    def parts(self) -> tuple[Path, ...]:
        """The file, and its partner."""
        return (self.path, self.partner.path) if self.partner else (self.path,)


def session_folder(bids_dir: Path, participant: str, session: str | None) -> Path:
    """Folder of a session, or of the participant where there are no sessions."""
    folder = bids_dir / f"sub-{participant}"
    return folder if session is None else folder / f"ses-{session}"


def list_images(bids_dir: Path, folder: Path) -> list[FoundFile]:
    """Images of one folder (``anat`` or ``fmap``), sorted by name; nothing else of the data set is opened."""
    images = []
    for path in sorted(folder.glob("*.nii*")):
        if path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith("."):
            images.append(FoundFile(path, parse_entities(path, bids_dir), merged_metadata(path, bids_dir)))
    return images


def sodium_images(anat: Iterable[FoundFile], protocol: Mapping[str, Any]) -> list[FoundFile]:
    """Those images that show sodium; images that contradict themselves about it are refused."""
    chosen = []
    for found in anat:
        nucleus = found.nucleus
        by_name = found.entities.get("nucleus")
        if by_name is not None and nucleus != by_name:
            problem = f"has the nucleus {nucleus} in its sidecar and {by_name} in its name"
            raise InputError(found.path, problem, "Correct the one that is wrong")
        if nucleus == "23Na":
            chosen.append(found)
        elif nucleus is not None and re.search("na|sodium", nucleus, re.IGNORECASE):
            raise InputError(found.path, f"has the ResonantNucleus {nucleus!r}", "Write it as BIDS does: 23Na")
        elif found.named_sodium and found.entities.get("suffix") in _SODIUM_SUFFIXES:
            if nucleus is not None:
                problem = f"is named as a sodium image but has the ResonantNucleus {nucleus!r}"
                raise InputError(found.path, problem, "Correct the sidecar (23Na), or give the image another acq label")
            if protocol.get("ResonantNucleus") != "23Na":
                fault = "has no ResonantNucleus" if found.metadata else "has no JSON sidecar"
                raise InputError(found.path, f"is named as a sodium image but {fault}", _NAME_NUCLEUS)
            chosen.append(found)
    return chosen


def build_series(
    bids_dir: Path,
    participant: str,
    session: str | None,
    anat: Sequence[FoundFile],
    filters: Filters,
    protocol: Mapping[str, Any],
    source: SourceChoice,
    warnings: list[str],
) -> tuple[SodiumSeries, ...]:
    """Sodium series of a session from its images and its k-space under ``sourcedata``.

    Parameters
    ----------
    anat
        Images of the session's ``anat`` folder.
    source
        ``auto`` takes k-space where a run has it, ``image`` and ``kspace`` want the one or the other.
    warnings
        Receives one line for each file that is left out.
    """
    wanted = [found for found in sodium_images(anat, protocol) if matches(found.entities, filters.get("sodium", {}))]
    images = _usable_images(wanted, warnings)
    raw = _kspace_files(bids_dir, participant, session, filters.get("kspace", {}), warnings)
    keys = sorted({_series_key(found.entities) for found in (*images, *raw)}, key=str)
    if not keys:
        folder = session_folder(bids_dir, participant, session)
        problem = "has no sodium image and no sodium k-space that can be used for TSC"
        raise InputError(folder, problem, f"{_NAME_NUCLEUS}; see also --bids-filter-file")
    fmaps = list_images(bids_dir, session_folder(bids_dir, participant, session) / "fmap")
    receive = filters.get("receive", {})
    fmaps = [one for one in fmaps if one.entities.get("suffix") != "RB1COR" or matches(one.entities, receive)]
    series = []
    for key in keys:
        own_images = [found for found in images if _series_key(found.entities) == key]
        own_raw = [found for found in raw if _series_key(found.entities) == key]
        runs = _runs(bids_dir, own_images, own_raw, protocol, source, warnings)
        suffix = own_images[0].entities["suffix"] if own_images else ("MEGRE" if key[1] else "PDw")
        targets = [path for found in (*own_images, *own_raw) for path in found.parts]
        maps = _field_maps(bids_dir, targets, fmaps, warnings)
        _refuse_mixed_weighting(runs)
        series.append(SodiumSeries(key[0], suffix, runs, **maps))
    return tuple(series)


def _refuse_mixed_weighting(runs: Sequence[SodiumRun]) -> None:
    """Images of one series are averaged or compared, so they must be of one kind."""
    files = [file for run in runs for file in run.files]
    for file in files[1:]:
        own, first = file.sidecar.weighting, files[0].sidecar.weighting
        if own != first:
            problem = f"is weighted otherwise ({own}) than {files[0].path.name} ({first}) of the same series"
            raise InputError(file.path, problem, "Give it an acq- label of its own, or correct Weighting")


def _usable_images(found: Iterable[FoundFile], warnings: list[str]) -> list[FoundFile]:
    usable = []
    for image in found:
        suffix = image.entities.get("suffix")
        if suffix == "VFA":
            warnings.append(f"{image.path}: variable-flip-angle images are not used for TSC yet.")
        elif suffix not in _SINGLE_OR_MULTI_ECHO:
            warnings.append(f"{image.path}: a sodium image with the suffix {suffix} is not used.")
        else:
            usable.append(image)
    return _paired(usable, warnings)


def _paired(images: Iterable[FoundFile], warnings: list[str]) -> list[FoundFile]:
    """Magnitudes with their phase, or real with imaginary parts, or magnitudes alone: one for each acquired image.

    A phase counts only where it is said to be in radians: the full scale of a scanner's integers cannot be known.
    """
    groups: dict[frozenset[tuple[str, str]], dict[str, FoundFile]] = {}
    for image in images:
        key = frozenset(item for item in image.entities.items() if item[0] not in ("part", "extension"))
        parts, part = groups.setdefault(key, {}), image.entities.get("part", "mag")
        if part in parts:
            problem = f"and {parts[part].path.name} are the same image"
            raise InputError(image.path, problem, "Choose one with a 'sodium' query in --bids-filter-file")
        parts[part] = image
    chosen = []
    for parts in groups.values():
        in_radians = "phase" in parts and parts["phase"].metadata.get("Units") == "rad"
        pairs = [("mag", "phase")] * in_radians + [("real", "imag")]
        first, second = next((pair for pair in pairs if parts.keys() >= {*pair}), ("mag", ""))
        if first in parts:
            chosen.append(replace(parts[first], partner=parts.get(second)))
        left = [part for part in parts if part not in (first, second)]
        warnings += [f"{parts[p].path}: is not used, because {_unused(p, parts, paired=bool(second))}." for p in left]
    return chosen


def _unused(part: str, parts: Mapping[str, FoundFile], *, paired: bool) -> str:
    """Why a part of an acquired image is left out."""
    units = parts[part].metadata.get("Units")
    if part == "phase" and "mag" in parts and units != "rad":
        mend = "scale it to radians and set Units to rad, and it makes complex data of its magnitude"
        return f"its Units are {units!r}, not 'rad', and its scale is open; {mend}"
    if paired:
        return "the other parts make complex data without it"
    return f"there is no part-{_OTHER_PART[part]} to it"


def _kspace_files(
    bids_dir: Path, participant: str, session: str | None, wanted: Mapping[str, Any], warnings: list[str]
) -> list[FoundFile]:
    """Raw files, which pybids does not index: one per name, the scanner's own after what was converted."""
    folder = session_folder(bids_dir / "sourcedata", participant, session) / "sodium"
    chosen: dict[str, FoundFile] = {}
    for path in [path for suffix in SUFFIXES for path in sorted(folder.glob(f"*_kspace{suffix}"))]:
        found = FoundFile(path, parse_entities(path, bids_dir), merged_metadata(path, bids_dir))
        if not matches(found.entities, wanted):
            continue
        if path.stem in chosen:
            warnings.append(f"{path}: is not used, because {chosen[path.stem].path.name} lies beside it.")
            continue
        chosen[path.stem] = found
    return sorted(chosen.values(), key=lambda found: found.path)


def _series_key(entities: Mapping[str, str]) -> tuple[str | None, bool]:
    return entities.get("acquisition"), "echo" in entities


def _number(entities: Mapping[str, str], name: str) -> int | None:
    return int(entities[name]) if name in entities else None


def _runs(
    bids_dir: Path,
    images: Sequence[FoundFile],
    raw: Sequence[FoundFile],
    protocol: Mapping[str, Any],
    source: SourceChoice,
    warnings: list[str],
) -> tuple[SodiumRun, ...]:
    numbers = sorted({_number(found.entities, "run") for found in (*images, *raw)}, key=lambda run: run or 0)
    runs = []
    for number in numbers:
        own_images = [found for found in images if _number(found.entities, "run") == number]
        own_raw = [found for found in raw if _number(found.entities, "run") == number]
        for group in (own_images, own_raw):
            _refuse_duplicates(group)
        chosen = _choose_source(source, own_images, own_raw)
        if chosen == "kspace":
            own_images = [replace(found, partner=None) for found in own_images]
        checked = tuple(_checked_image(found, bids_dir, protocol, warnings) for found in own_images)
        if chosen == "image":
            warnings += filter(None, map(_correction_warning, own_images))
            own_raw = [found for found in own_raw if found.path.suffix != ".dat"]
        files = tuple(echo for found in own_raw for echo in _checked_kspace(found, bids_dir, protocol))
        text = (own_images or own_raw)[0].entities.get("run")
        by_echo = _check_echoes(checked), _check_echoes(files)
        _check_grids(by_echo[0])
        runs.append(SodiumRun(text, *by_echo, chosen))
    alone = next((run for run in runs if run.source == "image"), None)
    if alone is not None and any(run.source == "kspace" for run in runs):
        problem = "has no k-space, which other runs of the series have; one reconstruction serves all"
        raise InputError(alone.files[0].path, problem, "Add it, or take the images of all runs (--recon vendor)")
    return tuple(runs)


def _choose_source(source: SourceChoice, images: Sequence[FoundFile], raw: Sequence[FoundFile]) -> Source:
    if source == "image" and not images:
        raise InputError(raw[0].path, "has no reconstructed image", "Choose the reconstruction from k-space")
    if source == "kspace" and not raw:
        mend = "Put it under sourcedata/sub-*/[ses-*/]sodium as *_kspace.h5, or choose the image"
        raise InputError(images[0].path, "has no k-space", mend)
    if source == "auto":
        return "kspace" if raw else "image"
    return source


def _refuse_duplicates(files: Sequence[FoundFile]) -> None:
    seen: dict[int | None, Path] = {}
    for found in files:
        echo = _number(found.entities, "echo")
        if echo in seen:
            problem = f"and {seen[echo].name} are the same acquisition, run and echo"
            raise InputError(found.path, problem, "Choose one with a 'sodium' query in --bids-filter-file")
        seen[echo] = found.path


def _completed(found: FoundFile, protocol: Mapping[str, Any]) -> Mapping[str, Any]:
    """Protocol of a file whose name, not its sidecar, states the nucleus."""
    return {**protocol, "ResonantNucleus": "23Na"} if found.entities.get("nucleus") == "23Na" else protocol


def _loaded(found: FoundFile, protocol: Mapping[str, Any], bids_dir: Path) -> SodiumSidecar:
    sidecar = load_sidecar(found.path, _completed(found, protocol), bids_dir)
    load_points(sidecar.sodium_acquisition.psf_files)
    return place_by_masks(sidecar, found.path, bids_dir)


def _correction_warning(found: FoundFile) -> str | None:
    sign = intensity_correction(found.path, found.metadata)
    if sign is None:
        return None
    return (
        f"{found.path}: was corrected for intensity before ({sign}). A field that another program estimated and took "
        "off changes concentrations by as much as it varies between head and vials; calibrate the image as "
        "reconstructed, unless the same field was taken off the vials."
    )


def _checked_image(found: FoundFile, bids_dir: Path, protocol: Mapping[str, Any], warnings: list[str]) -> SodiumImage:
    sidecar = _loaded(found, protocol, bids_dir)
    if sidecar.later_echo_times_s:
        problem = f"has {len(sidecar.echo_times_s)} EchoTimes, but an image is of one echo"
        raise InputError(found.path, problem, "Give the one of this image, in seconds")
    image = check_image(found.path)
    check_references(sidecar.references, found.path, image)
    warnings += image.warnings
    if sidecar.weighting != "SQ":
        warnings.append(f"{found.path}: is taken as a weighted image ({sidecar.weighting}). {CAUTION}")
    number, other = _number(found.entities, "echo"), {}
    if found.partner is not None:
        if sidecar.sodium_acquisition.sum_of_squares_channels is not None:
            mend = 'Take the key out, or the other part with {"sodium": {"part": ["mag", null]}} in --bids-filter-file'
            problem = f"has SumOfSquaresChannels and {found.partner.path.name}, but a sum of squares has no phase"
            raise InputError(found.path, problem, mend)
        other = _checked_partner(found.partner, image, warnings)
    return SodiumImage(found.path, image, sidecar, number, other)


def _checked_partner(partner: FoundFile, image: CheckedImage, warnings: list[str]) -> dict[str, Path]:
    checked = check_image(partner.path)
    if not same_grid(image, checked):
        problem = f"lies on another grid than {image.path.name}"
        raise InputError(partner.path, problem, "Give both parts of the complex image on one grid")
    warnings += checked.warnings
    if partner.entities["part"] == "imag":
        return {"imaginary": partner.path}
    largest = float(abs(load_checked(partner.path)[0]).max())
    if largest > _MOST_RADIANS:
        problem = f"has Units rad and values up to {largest:.4g}, beyond 2 pi"
        raise InputError(partner.path, problem, "Scale it to radians, or set its Units to arbitrary to leave it aside")
    return {"phase": partner.path}


def _checked_kspace(found: FoundFile, bids_dir: Path, protocol: Mapping[str, Any]) -> tuple[KSpaceFile, ...]:
    """Every echo of a file."""
    check_available(found.path)
    kind, signature = _SIGNATURES.get(found.path.suffix, ("", b""))
    with found.path.open("rb") as stream:
        if stream.read(len(signature)) != signature:
            raise InputError(found.path, f"is not an {kind} file", "Convert the raw data again")
    sidecar = _loaded(found, protocol, bids_dir)
    if found.path.suffix == ".dat":
        from sodium_prep.recon.twix import check_twix

        check_twix(found.path, sidecar.raw_description())
    check_references(sidecar.references, found.path)
    number, n_echoes = _number(found.entities, "echo"), len(sidecar.echo_times_s)
    if n_echoes == 1:
        return (KSpaceFile(found.path, sidecar, number),)
    if number is not None:
        problem = f"is echo {number} by its name, but its sidecar lists {n_echoes} EchoTimes"
        raise InputError(found.path, problem, "Give the one of this echo, or take echo- out of the name")
    return tuple(KSpaceFile(found.path, sidecar, place + 1, place) for place in range(n_echoes))


def _check_echoes(files: tuple[_File, ...]) -> tuple[_File, ...]:
    """Sort by echo number, and refuse echo times that do not rise with it."""
    ordered = tuple(sorted(files, key=lambda file: file.echo or 0))
    for earlier, later in itertools.pairwise(ordered):
        if later.echo_time_s <= earlier.echo_time_s:
            problem = f"has EchoTime {later.echo_time_s:g} s, not above that of {earlier.path.name}"
            raise InputError(later.path, problem, "Give each echo its own EchoTime, in seconds")
    return ordered


def _check_grids(echoes: Sequence[SodiumImage]) -> None:
    for later in echoes[1:]:
        if not same_grid(echoes[0].image, later.image):
            problem = f"lies on another grid than the echo {echoes[0].path.name}"
            raise InputError(later.path, problem, "Give all echoes of a run on one grid")


def _field_maps(
    bids_dir: Path, targets: Sequence[Path], fmaps: Sequence[FoundFile], warnings: list[str]
) -> dict[str, Any]:
    """Receive pair and transmit maps of 23Na that are intended for one of the targets, or for no file in particular."""
    own = [found for found in fmaps if _belongs(found, bids_dir, targets)]
    by_suffix: dict[str, list[FoundFile]] = {"RB1COR": [], "TB1map": [], "TB1DAM": []}
    for found in own:
        by_suffix.setdefault(found.entities.get("suffix", ""), []).append(found)
    coils: dict[str, list[Path]] = {"body": [], "head": []}
    for found in by_suffix["RB1COR"]:
        for coil, paths in coils.items():
            if found.entities.get("acquisition", "").lower().endswith(coil):
                paths.append(found.path)
    maps = [found.path for found in by_suffix["TB1map"]]
    for paths in (*coils.values(), maps):
        warnings += [f"{path}: is not used, because {paths[0].name} serves the same purpose." for path in paths[1:]]
    if bool(coils["body"]) != bool(coils["head"]):
        lonely = (coils["body"] or coils["head"])[0]
        warnings.append(f"{lonely}: is not used, because its partner with the other coil is missing.")
    pair = (coils["body"][0], coils["head"][0]) if all(coils.values()) else None
    dam = _double_angle(by_suffix["TB1DAM"], warnings)
    if dam and maps:
        warnings.append(f"{dam[0]}: is not used, because {maps[0].name} gives the transmit field.")
        dam = None
    checked = {path: check_image(path) for path in (*(pair or ()), *maps[:1], *(dam or ()))}
    warnings += [text for image in checked.values() for text in image.warnings]
    if pair and not same_grid(checked[pair[0]], checked[pair[1]]):
        problem = f"lies on another grid than its partner {pair[0].name}"
        raise InputError(pair[1], problem, "Give the pair on one grid, or leave it out ('receive', --bids-filter-file)")
    return {"receive_pair": pair, "tb1map": maps[0] if maps else None, "tb1dam": dam}


def _double_angle(found: Sequence[FoundFile], warnings: list[str]) -> tuple[Path, Path] | None:
    """Magnitudes at a flip angle and at twice it, by what their sidecars say."""
    images = [one for one in found if one.is_magnitude]
    if len(images) != 2:
        if found:
            warnings.append(f"{found[0].path}: is not used, because a double-angle measurement has two images.")
        return None
    flips = []
    for one in images:
        flip, time = (one.metadata.get(k) for k in ("FlipAngle", "RepetitionTime"))
        time = one.metadata.get("RepetitionTimeExcitation", time)
        if not all(isinstance(value, int | float) and value > 0 for value in (flip, time)):
            raise InputError(one.path, "has no FlipAngle or RepetitionTime in its sidecar", "Give both")
        flips.append(float(flip or 0.0))
    (small, first), (large, second) = sorted(zip(flips, (one.path for one in images), strict=True))
    if abs(large / small - 2.0) > 0.02:
        problem = f"and {second.name} have flip angles {small:g} and {large:g} degrees, not one twice the other"
        raise InputError(first, problem, "Correct FlipAngle in their sidecars, or take the pair out of the data set")
    return first, second


def _belongs(found: FoundFile, bids_dir: Path, targets: Sequence[Path]) -> bool:
    intended = found.metadata.get("IntendedFor", [])
    intended = [intended] if isinstance(intended, str) else intended
    if not intended:
        return found.nucleus == "23Na" or found.named_sodium
    participant = bids_dir / f"sub-{found.entities.get('subject')}"
    places = set()
    for text in map(str, intended):
        local = text.removeprefix("bids::")
        places |= {bids_dir / local} if local != text else {participant / local, bids_dir / local}
    return found.nucleus in (None, "23Na") and not places.isdisjoint(targets)
