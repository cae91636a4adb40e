"""Files appear whole or not at all: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import ResourceError

SpaceCode = Literal[1, 4]
SCANNER_SPACE: Final[SpaceCode] = 1
TEMPLATE_SPACE: Final[SpaceCode] = 4

MISSING: Final = "n/a"
_FORMULA: Final = ("=", "+", "-", "@")
_STORED_INTEGERS: Final = (np.uint8, np.int16, np.int32)


def write_bytes(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Write a file atomically.

    Parameters
    ----------
    path
        Final place; its folders are made.
    write
        Receives the open temporary file. If it raises, nothing is left behind and an older file stays as it was.

    Raises
    ------
    ResourceError
        If the disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = (
            "Make room on the disk, or raise the limit on it, and run again"
            if full
            else "Check that the output folder can be written"
        )
        raise ResourceError(path, f"cannot be written ({error.strerror or error})", mend) from error
    finally:
        if temporary.exists():
            temporary.unlink()
    return path


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; some network file systems refuse this, and the file is whole there all the same."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, lambda stream: stream.write(text.encode("utf-8")))


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON object atomically; numpy values become plain ones, and numbers that are not finite null."""
    return write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tsv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Path:
    """Write a table atomically.

    Numbers have 6 significant digits; what is missing or not finite is ``n/a``. Text that a spreadsheet would run as a
    formula is preceded by an apostrophe.

    Raises
    ------
    ValueError
        If a row has a column that is not in ``columns``.
    """
    lines = ["\t".join(columns)]
    for row in rows:
        if unknown := row.keys() - set(columns):
            raise ValueError(f"columns that are not announced: {sorted(unknown)}")
        lines.append("\t".join(_cell(row.get(column)) for column in columns))
    return write_text(path, "\n".join(lines) + "\n")


def write_nifti(
    path: Path, data: NDArray[Any], affine: NDArray[np.float64], space_code: SpaceCode = SCANNER_SPACE
) -> Path:
    """Write a ``.nii.gz`` atomically, with the same bytes for the same values.

    Parameters
    ----------
    data
        Shape (X, Y, Z) or (X, Y, Z, T). Small integers and booleans are stored as integers (at most 32 bit), all else
        as float32.
    affine
        Voxel to world (RAS+, mm), shape (4, 4); written as sform and qform.
    space_code
        1 for a scanner space, 4 for a template.
    """
    import nibabel as nib

    if not path.name.endswith(".nii.gz"):
        raise ValueError(f"an image is written as .nii.gz, not {path.name}")
    values = np.asarray(data)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    elif values.dtype.kind in "iu" and values.dtype not in _STORED_INTEGERS:
        if values.size and (values.min() < -(2**31) or values.max() >= 2**31):
            raise ValueError("integer labels do not fit into 32 bits")
        values = values.astype(np.int32)
    elif values.dtype.kind not in "iu":
        values = values.astype(np.float32)
    image_class: Any = nib.Nifti1Image
    image = image_class(values, np.asarray(affine, dtype=np.float64))
    image.set_sform(affine, space_code)
    image.set_qform(affine, space_code)
    image.header.set_xyzt_units("mm", "sec")
    content = image.to_bytes()

    def write(stream: IO[bytes]) -> None:
        # No name and no time in the gzip header: they would make equal images differ.
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=6) as packed:
            packed.write(content)

    return write_bytes(path, write)


def copy_file(source: Path, path: Path) -> Path:
    """Copy a file's bytes atomically."""

    def write(stream: IO[bytes]) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, stream)

    return write_bytes(path, write)


def plain(value: Any) -> Any:
    """The same content in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _cell(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else MISSING
    text = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", str(value)).strip()
    if not text:
        return MISSING
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
