"""Templates by name or file: the bundled one, TemplateFlow's, and a user's own.

Files are only ever read as NIfTI and JSON. Nothing is fetched unless the ``templateflow`` package is installed and the
files are not in its folder already.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.atlas.bundled import TEMPLATE_NAME, Template, load_template
from sodium_prep.atlas.templateflow import templateflow_home
from sodium_prep.atlas.user import entities_of, read_record
from sodium_prep.errors import InputError, UsageError

__all__ = ["Template", "find_template", "load_template"]

_OPTION: Final = "--output-spaces"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+]*")
_ENTITY: Final = re.compile(r"(cohort|res)-([A-Za-z0-9]+)")
_NIFTI: Final = (".nii", ".nii.gz")
_LEAST_OUTSIDE: Final = 0.2


def find_template(name_or_path: str | Path) -> Template:
    """Find a T1-weighted brain template.

    Parameters
    ----------
    name_or_path
        ``MNI152NLin6Asym`` (bundled); a name of TemplateFlow, ``NAME[:cohort-N][:res-N]``; or the path of a T1-weighted
        NIfTI image with its brain mask beside it (``X_mask.nii.gz`` or ``X_desc-brain_mask.nii.gz`` for ``X.nii.gz`` or
        ``X_T1w.nii.gz``), or with zeros outside the brain.

    Returns
    -------
    Template
        In RAS+ order, zero outside the brain mask. Its name holds letters and digits only.

    Raises
    ------
    UsageError
        If there is no such template, or not its files.
    InputError
        If its files are faulty.
    """
    text = str(name_or_path)
    if text == TEMPLATE_NAME:
        return load_template()
    if isinstance(name_or_path, Path) or text.endswith(_NIFTI) or "/" in text:
        return _from_file(Path(name_or_path))
    return _from_templateflow(text)


def _from_templateflow(spec: str) -> Template:
    name, *parts = spec.split(":")
    matches = [_ENTITY.fullmatch(part) for part in parts]
    entities = {match[1]: match[2] for match in matches if match}
    if not _NAME.fullmatch(name) or not all(matches) or len(entities) != len(parts):
        raise UsageError(
            f"{_OPTION} {spec}",
            "is neither a name of a template nor a NIfTI file",
            "Write NAME[:cohort-N][:res-N] as TemplateFlow has it, or the path of a T1w .nii.gz",
        )
    folder = templateflow_home() / f"tpl-{name}"
    image = _stored(folder, name, entities, "T1w")
    mask = _stored(folder, name, entities, "desc-brain_mask")
    if image is None or mask is None:
        _fetch(spec, name, entities, image or mask)
        image, mask = (_stored(folder, name, entities, end) for end in ("T1w", "desc-brain_mask"))
    if image is None or mask is None:
        missing = "T1w image" if image is None else "brain mask"
        raise UsageError(f"{_OPTION} {spec}", f"TemplateFlow has no {missing} of it", "Check the name")
    about = read_record(folder / "template_description.json")
    links = about.get("ReferencesAndLinks", "")
    citation = "; ".join(map(str, links.values() if isinstance(links, dict) else links)) if links else ""
    label = name + (f"cohort{entities['cohort']}" if "cohort" in entities else "")
    return _read(
        image, mask, "".join(filter(str.isalnum, label)), citation=citation or str(about.get("Name", name)),
        licence=str(about.get("License", "")),
    )  # fmt: skip


def _stored(folder: Path, name: str, entities: dict[str, str], end: str) -> Path | None:
    """A file of TemplateFlow, if it is in its folder with its content; resolution 1 where none is asked for."""
    cohort = [f"cohort-{entities['cohort']}"] if "cohort" in entities else []
    place = folder.joinpath(*cohort)
    stem = "_".join([f"tpl-{name}", *cohort])
    wanted = entities.get("res", "1").lstrip("0")
    resolutions = dict.fromkeys([wanted, wanted.zfill(2)])
    paths = [place / f"{stem}_res-{resolution}_{end}.nii.gz" for resolution in resolutions]
    if "res" not in entities:
        paths.append(place / f"{stem}_{end}.nii.gz")
    # Names without content are what TemplateFlow's data set has before its files are fetched.
    return next((path for path in paths if path.is_file() and path.stat().st_size > 0), None)


def _fetch(spec: str, name: str, entities: dict[str, str], there: Path | None) -> None:
    resolution = entities.get("res", "1")
    keywords: dict[str, Any] = {
        "extension": ".nii.gz",
        "resolution": int(resolution) if resolution.isdigit() else resolution,
    }
    if "cohort" in entities:
        keywords["cohort"] = entities["cohort"]
    asked = "".join(f", {key}={value!r}" for key, value in keywords.items())
    mend = (
        "On a machine with network: pip install templateflow, then in Python from templateflow import api; "
        f"api.get({name!r}, suffix='T1w', desc=None{asked}); api.get({name!r}, suffix='mask', desc='brain'{asked}); "
        "and let TEMPLATEFLOW_HOME name its folder here. Or give the path of a T1w NIfTI"
    )
    problem = f"its T1w and brain mask are not in {templateflow_home()}"
    if there is not None:
        problem = f"of its T1w and brain mask only {there.name} is in {there.parent}"
    try:
        api = import_module("templateflow.api")
    except ImportError:
        raise UsageError(f"{_OPTION} {spec}", problem, mend) from None
    try:
        api.get(name, suffix="T1w", desc=None, **keywords)
        api.get(name, suffix="mask", desc="brain", **keywords)
    except Exception as error:  # whatever its client and the network raise
        raise UsageError(f"{_OPTION} {spec}", f"{problem}, and could not be fetched ({error})", mend) from None


def _from_file(path: Path) -> Template:
    if not path.name.endswith(_NIFTI):
        raise UsageError(f"{_OPTION} {path}", "is no NIfTI image", "Give a T1w template as .nii or .nii.gz")
    if not path.is_file():
        raise UsageError(f"{_OPTION} {path}", "there is no such file", "Give a T1w template as .nii or .nii.gz")
    if path.stat().st_size == 0:
        raise UsageError(f"{_OPTION} {path}", "is empty", "Fetch its content, for instance by `datalad get`")
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    stems = dict.fromkeys([stem, stem.removesuffix("_T1w")])
    masks = [path.with_name(f"{s}{end}{ext}") for s in stems for end in ("_desc-brain_mask", "_mask") for ext in _NIFTI]
    entities = entities_of(path)
    label = entities.get("tpl") or entities.get("space") or stem
    label = "".join(filter(str.isalnum, label))
    if label == TEMPLATE_NAME:
        raise UsageError(
            f"{_OPTION} {path}",
            f"is called {TEMPLATE_NAME} as the bundled template is",
            f"Write {TEMPLATE_NAME} for that one, or give your file another name",
        )
    return _read(path, next((mask for mask in masks if mask.is_file()), None), label)


def _read(image: Path, mask: Path | None, name: str, *, citation: str = "", licence: str = "") -> Template:
    data, affine = _canonical(image)
    if mask is not None:
        inside, mask_affine = _canonical(mask)
        if inside.shape != data.shape or not np.allclose(mask_affine, affine, atol=1e-3):
            raise InputError(mask, f"its grid is not that of {image.name}", "Give the mask on the grid of the template")
        brain = inside > 0.5
        if not brain.any():
            raise InputError(mask, "it is empty", "Give a mask that is 1 in the brain")
    else:
        corners = [data[x, y, z] for x in (0, -1) for y in (0, -1) for z in (0, -1)]
        if any(corners) or np.mean(data == 0.0) < _LEAST_OUTSIDE or not data.any():
            raise UsageError(
                f"{_OPTION} {image}",
                "it has no brain mask, and is not zero outside the brain",
                f"Put the mask beside it as {image.name.split('.')[0].removesuffix('_T1w')}_desc-brain_mask.nii.gz",
            )
        brain = np.asarray(ndimage.binary_fill_holes(data != 0.0))
    files = (image,) if mask is None else (image, mask)
    t1w = np.where(brain, np.maximum(data, 0.0), 0.0).astype(np.float32)
    return Template(t1w, brain, affine, name, citation, licence, files)


def _canonical(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]
        data = np.squeeze(np.asarray(image.dataobj, dtype=np.float32))
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputError(path, f"it cannot be read ({error})", "Give a valid NIfTI image") from None
    affine = np.asarray(image.affine, dtype=np.float64)
    if data.ndim != 3:
        raise InputError(path, f"it has shape {image.shape}", "Give a 3-D image")
    if not np.all(np.isfinite(data)):
        raise InputError(path, "it holds NaN or infinite values", "Replace them")
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(path, "its affine is not finite or singular", "Write a valid sform and qform")
    return data, affine
