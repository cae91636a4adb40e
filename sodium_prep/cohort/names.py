"""What the names of derivative files say."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ENTITIES: Final[dict[str, str]] = {
    "sub": "participant_id",
    "ses": "session_id",
    "acq": "acquisition",
    "rec": "reconstruction",
    "run": "run",
    "seg": "atlas",
}
"""Entities of a table's file name and the columns that they become."""


def parse_entities(name: str) -> dict[str, str]:
    """Columns of :data:`ENTITIES` from a file name; empty text where an entity is absent."""
    found = dict(part.split("-", 1) for part in name.split(".")[0].split("_") if "-" in part)
    return {column: found.get(key, "") for key, column in ENTITIES.items()}


def anat_files(out_dir: Path, pattern: str) -> list[Path]:
    """Files in the anat folders of all participants and sessions."""
    return [*out_dir.glob(f"sub-*/anat/{pattern}"), *out_dir.glob(f"sub-*/ses-*/anat/{pattern}")]
