"""Logging: quiet on the terminal, complete in a file."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from pathlib import Path


def start_logging(verbosity: int, log_dir: Path | None) -> Path | None:
    """Send messages to standard error by verbosity, and all of them to a new file.

    Parameters
    ----------
    verbosity
        0: warnings and what matters; 1: every step; 2: everything, nipype's messages too.
    log_dir
        Folder for the file; None for no file.

    Returns
    -------
    Path of the log file, if there is one.
    """
    root = logging.getLogger("sodium_prep")
    root.setLevel(logging.DEBUG)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    terminal.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root.addHandler(terminal)
    if log_dir is None:
        return None
    log_dir.mkdir(parents=True, exist_ok=True)
    path = _new_file(log_dir, time.strftime("sodium-prep_%Y%m%dT%H%M%SZ", time.gmtime()))
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.addHandler(file)
    return path


class _LogFile(logging.FileHandler):
    """A log file whose disk may fill up: that is said once and ends the log, not the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        logging.getLogger("sodium_prep").removeHandler(self)
        print(f"WARNING {self.baseFilename}: cannot be written ({sys.exc_info()[1]}).", file=sys.stderr)


def _new_file(folder: Path, stem: str) -> Path:
    """A file of this run's own, for runs that start in the same second write into one folder."""
    for number in itertools.count(1):
        path = folder / (f"{stem}.log" if number == 1 else f"{stem}_{number}.log")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")
