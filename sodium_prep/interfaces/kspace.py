"""Raw data for the steps that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import traits

from sodium_prep.interfaces.base import StepInputSpec


class KspaceInputSpec(StepInputSpec):
    """Inputs of a step that reads raw data."""

    described = traits.Dict({}, usedefault=True, desc="fields of RawDescription, from the sidecar")


def read_first_echo(path: str, described: dict[str, Any], *, average: bool = True) -> tuple[Any, list[str]]:
    """RawData of the first echo of a file, and what to tell of the others."""
    from sodium_prep.recon.raw import RawDescription, read_raw

    if "trajectory_file" in described:
        described = {**described, "trajectory_file": Path(described["trajectory_file"])}
    raw, *later = read_raw(path, RawDescription(**described), average=average)
    note = f"{Path(path).name} holds {len(later) + 1} echoes; TSC comes of the first, and the others are not used."
    return raw, [note] if later else []
