"""Point spread functions that are given as images of a point, one for all tissues or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sodium_prep.bids.images import load_checked
from sodium_prep.errors import UsageError
from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation

ALL: Final = "all"
"""Stands for every tissue, where there is one image only."""


def parse_points(option: str, texts: Sequence[str]) -> dict[str, Path]:
    """Turn one ``FILE``, or ``TISSUE=FILE`` several times, into a mapping of absolute paths.

    Raises
    ------
    UsageError
        If a tissue is not known or named twice, or a file stands beside others without its tissue.
    """
    if len(texts) == 1 and "=" not in texts[0]:
        return {ALL: Path(texts[0]).absolute()}
    found: dict[str, Path] = {}
    for text in texts:
        tissue, _, path = text.partition("=")
        if tissue not in TISSUES or not path:
            mend = f"Give one FILE, or TISSUE=FILE for some of {', '.join(TISSUES)}"
            raise UsageError(option, f"{text!r} does not name the tissue of an image", mend)
        if tissue in found:
            raise UsageError(option, f"names {tissue} twice", "Give each tissue one image")
        found[tissue] = Path(path).absolute()
    return found


def load_points(
    files: Mapping[str, Path], field_strength_t: float = 3.0, *, own: bool = False
) -> tuple[tuple[Any, Any], ...]:
    """Read and check the images of a point; pairs for :attr:`sodium_prep.pvc.psf.PsfModel.measured`.

    The axes of the image are taken as those of the sodium image as it is stored; of its header only the voxel size
    counts.

    Parameters
    ----------
    files
        By tissue, or :data:`ALL` alone.
    field_strength_t
        Decides which T2* each tissue has.
    own
        As of :func:`sodium_prep.pvc.measured.measured_psf`.
    """
    import numpy as np

    from sodium_prep.pvc.measured import measured_psf

    out = []
    for tissue, path in files.items():
        values, affine = load_checked(path)
        relaxation = tissue_relaxation("GM" if tissue == ALL else tissue, field_strength_t)  # type: ignore[arg-type]
        out.append((relaxation, measured_psf(values, np.linalg.norm(affine[:3, :3], axis=0), path, own=own)))
    return tuple(out)
