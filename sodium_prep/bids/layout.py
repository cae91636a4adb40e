"""Checks of the three folders of a run, before any work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sodium_prep.bids.sidecar import read_json
from sodium_prep.errors import InputError, UsageError


def check_directories(bids_dir: Path, output_dir: Path, work_dir: Path | None = None, *, make: bool = True) -> None:
    """Refuse folders that would mix inputs, outputs and scratch; make the output and work folders if ``make``.

    The work folder is trusted on a later run (nipype reads pickles from it), so it is private to its owner.

    Raises
    ------
    InputError
        If ``bids_dir`` is not a BIDS data set.
    UsageError
        If the output or work folder lies where it must not, cannot be written, or belongs to somebody else.
    """
    for option, folder in (("bids_dir", bids_dir), ("output_dir", output_dir), ("--work-dir", work_dir)):
        if folder is not None and any(sign in str(folder) for sign in "\n\r\t"):
            raise UsageError(option, f"{str(folder)!r} has a line break or tab in its name", "Rename the folder")
    if not bids_dir.is_dir():
        raise InputError(bids_dir, "does not exist or is not a folder", "Give the folder of a BIDS data set")
    description = bids_dir / "dataset_description.json"
    if not description.exists() and not description.is_symlink():
        mend = "Give the root of a BIDS data set, or add the file (Name and BIDSVersion)"
        raise InputError(bids_dir, "has no dataset_description.json", mend)
    read_json(description)
    raw, out = bids_dir.resolve(), output_dir.resolve()
    if out.is_relative_to(raw) and not out.is_relative_to(raw / "derivatives"):
        mend = f"Choose a folder outside the input, or {bids_dir / 'derivatives' / 'sodium_prep'}"
        raise UsageError("output_dir", f"{output_dir} lies inside the input {bids_dir}", mend)
    if out == raw / "derivatives":
        mend = f"Choose a folder of its own, such as {bids_dir / 'derivatives' / 'sodium_prep'}"
        raise UsageError("output_dir", f"{output_dir} is the folder of all derivatives", mend)
    if work_dir is not None and work_dir.resolve().is_relative_to(raw):
        raise UsageError("--work-dir", f"{work_dir} lies inside the input {bids_dir}", "Choose a folder outside it")
    if make:
        _make_writable("output_dir", output_dir)
        if work_dir is not None:
            _make_private(work_dir)


def _make_writable(option: str, folder: Path, mode: int = 0o777) -> None:
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        mend = "Choose a folder in which you may write"
        raise UsageError(option, f"{folder} cannot be written ({error.strerror})", mend) from None


def _make_private(folder: Path) -> None:
    existed = folder.is_dir()
    _make_writable("--work-dir", folder, 0o700)
    status = folder.stat()
    if status.st_uid != os.getuid():
        problem = f"{folder} belongs to another user (uid {status.st_uid})"
        raise UsageError("--work-dir", problem, "Choose a folder of your own: cached results in it are trusted")
    if existed and status.st_mode & 0o002:
        problem = f"{folder} can be written by everybody"
        raise UsageError("--work-dir", problem, f"Run: chmod o-w {folder}")
