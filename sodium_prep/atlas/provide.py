"""Atlases of every kind behind one door, and the checks that hold for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.atlas.bundled import BUNDLED, TEMPLATE_NAME, Atlas, Template, load_atlas, load_template
from sodium_prep.atlas.tables import few
from sodium_prep.atlas.templateflow import PREFIX, load_templateflow_atlas
from sodium_prep.atlas.user import load_user_atlas, table_path
from sodium_prep.errors import InputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_STRAY_MM: Final = 4.0
_MOST_STRAYS: Final = 0.06
_NOTED_OUTSIDE: Final = 0.03
_STEP: Final = 2


def find_atlas(spec: str) -> Atlas:
    """Load an atlas and check that it lies where it says.

    Parameters
    ----------
    spec
        ``desikan-killiany`` or ``destrieux`` (bundled); the path of a NIfTI image with its table beside it
        (:func:`sodium_prep.atlas.user.load_user_atlas`); or ``templateflow:NAME:atlas-X``
        (:func:`sodium_prep.atlas.templateflow.load_templateflow_atlas`).

    Raises
    ------
    InputError
        If its files are faulty, or it does not lie in the space that it should.
    UsageError
        If there is no such atlas, or its space is not known.
    """
    if spec in BUNDLED:
        return load_atlas(spec)
    if spec.startswith(PREFIX):
        atlas = load_templateflow_atlas(spec)
    elif spec.endswith((".nii", ".nii.gz")):
        atlas = load_user_atlas(Path(spec), table_path(Path(spec)))
    else:
        mend = f"Choose one of {', '.join(BUNDLED)}, the path of a .nii.gz, or {PREFIX}NAME:atlas-X"
        raise UsageError("--atlas", f"there is no atlas {spec!r}", mend)
    check_sides(atlas, spec)
    return check_place(atlas, load_template(), spec) if atlas.space == TEMPLATE_NAME else atlas


def space_label(space: str) -> str:
    """A space as the label that stands for it in file names: letters and digits."""
    return "".join(sign for sign in space if sign.isalnum() and sign.isascii())


def atlas_files(spec: str) -> tuple[Path, ...]:
    """Label image and table of a user's atlas, whether they are there or not; none for other kinds."""
    if spec in BUNDLED or spec.startswith(PREFIX) or not spec.endswith((".nii", ".nii.gz")):
        return ()
    return Path(spec), table_path(Path(spec))


def check_sides(atlas: Atlas, where: object) -> None:
    """Refuse an atlas whose left labels lie right of the midline, x = 0 mm.

    Raises
    ------
    InputError
        If most of the volume of left or right labels lies on the other side: header or table is swapped.
    """
    table = atlas.table
    wrong = total = 0
    for side, right in (("L", False), ("R", True)):
        voxels = np.argwhere(np.isin(atlas.labels, table.loc[table["hemisphere"] == side, "index"].to_numpy()))
        x = voxels @ atlas.affine[0, :3] + atlas.affine[0, 3]
        wrong += int(np.count_nonzero((x < 0.0) if right else (x > 0.0)))
        total += x.size
    if total and wrong > 0.5 * total:
        raise InputError(
            where,
            f"{100.0 * wrong / total:.0f} % of the voxels of left and right labels lie on the other side",
            "Check the header of the image for a swap of left and right, and the column hemisphere",
        )


def outside_fractions(atlas: Atlas, template: Template) -> tuple[float, float]:
    """Part of an atlas that lies outside the brain of its template, and part that lies more than 4 mm outside.

    Every second voxel along each axis of the template is looked at.
    """
    step = (slice(None, None, _STEP),) * 3
    brain = template.brain_mask[step]
    affine = template.affine @ np.diag([_STEP, _STEP, _STEP, 1.0])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    distance = np.pad(ndimage.distance_transform_edt(~brain, sampling=spacing), 1, constant_values=np.inf)
    voxels = np.argwhere(atlas.labels > 0)
    voxels = voxels[:: max(1, voxels.shape[0] // 200_000)]
    points = voxels @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    back = np.linalg.inv(affine)
    index = np.rint(points @ back[:3, :3].T + back[:3, 3]).astype(int) + 1
    found = distance[tuple(np.clip(index, 0, np.asarray(distance.shape) - 1).T)]
    return float(np.mean(found > 0.0)), float(np.mean(found > _STRAY_MM))


def check_place(atlas: Atlas, template: Template, where: object) -> Atlas:
    """Refuse an atlas that cannot lie in the space of a template; note a doubt.

    Atlases in the right space have up to 0.5 % of their labelled volume outside the brain, generous ones
    (Harvard-Oxford without threshold) 16 %, but no more than 3 % beyond 4 mm; a shift of 20 mm or a scale of 1.1 puts
    9 % or more there. Two templates of the same kind, 2 to 5 mm apart, cannot be told apart in this way.

    Raises
    ------
    InputError
        If more than 6 % of it lies more than 4 mm outside the brain.
    """
    outside, strays = outside_fractions(atlas, template)
    if strays > _MOST_STRAYS:
        raise InputError(
            where,
            f"{100.0 * strays:.0f} % of its labels lie more than {_STRAY_MM:g} mm outside the brain of {template.name}",
            "Check in which space the atlas lies, and its header",
        )
    if outside <= _NOTED_OUTSIDE:
        return atlas
    told = f"{100.0 * outside:.0f} % of the atlas {atlas.name} lies outside the brain of {template.name}."
    return replace(atlas, notes=(*atlas.notes, told))


def lost_regions(table: pd.DataFrame, labels: NDArray[np.int32]) -> list[str]:
    """Names of the regions of a table that have no voxel on a subject's grid.

    They keep their rows in the regional table, with the flag ``absent``.
    """
    return [str(name) for name in table.loc[~table["index"].isin(np.unique(labels)), "name"]]


def atlas_record(atlas: Atlas) -> dict[str, Any]:
    """What a sidecar and a methods text say of an atlas; what is not known is left out."""
    found = {
        "Name": atlas.name,
        "Space": atlas.space,
        "Version": atlas.version,
        "License": atlas.licence,
        "Citation": atlas.citation,
        "ProbabilityThreshold": atlas.probability_threshold,
        "Notes": list(atlas.notes),
    }
    return {key: value for key, value in found.items() if value not in ("", None, [])}


def lost_note(names: Sequence[str]) -> str:
    """One line for the user about regions without a voxel; empty if there are none."""
    return f"{len(names)} region(s) of the atlas have no voxel here: {few(names)}." if names else ""
