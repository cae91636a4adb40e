"""Raw data for the steps that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import traits

from sodium_prep.interfaces.base import StepInputSpec


class KspaceInputSpec(StepInputSpec):
    """Inputs of a step that reads raw data."""

    described = traits.Dict({}, usedefault=True, desc="fields of RawDescription, from the sidecar")


def read_echoes(path: str, described: dict[str, Any], *, average: bool = True) -> tuple[Any, ...]:
    """RawData of every echo of a file."""
    from sodium_prep.recon.raw import RawDescription, read_raw

    if "trajectory_file" in described:
        described = {**described, "trajectory_file": Path(described["trajectory_file"])}
    return read_raw(path, RawDescription(**described), average=average)
