"""What all interfaces share: a cache key that knows the version, and files in the node's own directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, isdefined, traits

from sodium_prep import __version__


class StepInputSpec(BaseInterfaceInputSpec):  # type: ignore[misc]
    """Inputs that every step has."""

    app_version = traits.Str(__version__, usedefault=True, desc="makes a new version redo the step")
    option_files = traits.List(File(exists=True), desc="files behind an option: a change of them redoes the step")


class Step(SimpleInterface):  # type: ignore[misc]
    """One step: read files, call one core function, write files into the node's directory."""

    def out_path(self, output: str, name: str) -> Path:
        """Path of a new file in the working directory, recorded as the value of an output."""
        path = Path.cwd() / name
        self._results[output] = str(path)
        return path


def save_image(path: Path, data: Any, affine: Any) -> None:
    """Write an intermediate image: float32, or integers as they are, same bytes for the same data."""
    import nibabel as nib
    import numpy as np

    array = np.asarray(data)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype.kind == "b":
        array = array.astype(np.uint8)
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)  # type: ignore[no-untyped-call]
    image.set_qform(affine, 1)  # type: ignore[no-untyped-call]
    image.set_sform(affine, 1)  # type: ignore[no-untyped-call]
    path.write_bytes(image.to_bytes())


def load_image(path: str) -> tuple[Any, Any]:
    """Read an image of this program's own making: array, affine."""
    import nibabel as nib
    import numpy as np

    image: Any = nib.load(path)
    data = np.asanyarray(image.dataobj)
    return (data.astype(np.float32) if data.dtype.kind == "f" else data), image.affine


def load_mask(path: Any) -> Any:
    """Read a mask of this program's own making as bool; None if it is not defined."""
    return load_image(path)[0] > 0 if isdefined(path) else None


def save_json(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object with sorted keys."""
    path.write_text(json.dumps(data, indent=2, sort_keys=True, default=_plain) + "\n", encoding="utf-8")


def load_json(path: str) -> dict[str, Any]:
    """Read a JSON object."""
    data: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return data


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
