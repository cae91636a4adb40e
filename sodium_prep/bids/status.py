"""``logs/status.json``: how each participant ended, for people and for scripts."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from sodium_prep.bids.writers import write_json
from sodium_prep.errors import ExitCode

SCHEMA_VERSION: Final = 1

State = Literal["done", "failed", "refused"]


@dataclass(frozen=True)
class SessionStatus:
    """How one session ended.

    Attributes
    ----------
    state
        ``done``; ``refused`` for an input that was not accepted; ``failed`` for an error on the way.
    exit_code
        What the program would have returned for this session alone.
    message
        Empty for a session that is done.
    outputs
        Number of files written.
    started, finished
        UTC, ISO 8601.
    """

    participant: str
    session: str | None
    state: State
    exit_code: int
    message: str = ""
    outputs: int = 0
    started: str = ""
    finished: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``sub-01`` or ``sub-01_ses-01``."""
        return f"sub-{self.participant}" + (f"_ses-{self.session}" if self.session else "")


def now() -> str:
    """Current time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def overall_exit_code(sessions: Sequence[SessionStatus]) -> ExitCode:
    """Exit code of a run: done, every input refused, or finished with some that failed."""
    if all(one.state == "done" for one in sessions):
        return ExitCode.DONE
    if all(one.state == "refused" for one in sessions):
        return ExitCode.INPUT_REFUSED
    return ExitCode.SOME_FAILED


def write_status(
    out_dir: Path,
    sessions: Sequence[SessionStatus],
    *,
    settings: Mapping[str, Any] | None = None,
    exit_code: int | None = None,
) -> Path:
    """Write ``logs/status.json``, keeping what earlier or parallel runs said of other sessions.

    Parameters
    ----------
    sessions
        The sessions of this run.
    settings
        Command and settings of this run.
    exit_code
        Of this run; by default from the sessions.
    """
    path = out_dir / "logs" / "status.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.with_name(".status.lock")):
        merged = _earlier(path)
        merged.update({one.key: asdict(one) for one in sessions})
        content = {
            "schema_version": SCHEMA_VERSION,
            "exit_code": int(overall_exit_code(sessions) if exit_code is None else exit_code),
            "written": now(),
            "settings": settings or {},
            "sessions": {key: merged[key] for key in sorted(merged)},
        }
        return write_json(path, content)


def read_status(out_dir: Path) -> dict[str, SessionStatus]:
    """Sessions of ``logs/status.json`` by ``sub-01_ses-01``; empty without a readable file."""
    found = _earlier(out_dir / "logs" / "status.json")
    return {key: SessionStatus(**{**row, "warnings": tuple(row["warnings"])}) for key, row in found.items()}


def _earlier(path: Path) -> dict[str, Any]:
    """Sessions of an existing file; a file of another schema, or none, counts as empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        return {}
    return dict(content["sessions"])


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock while the file is read, merged and replaced; it ends with the process that holds it.

    File systems without locks are used without one: the file is replaced whole in any case, and only the entry of a
    run that ends in the same instant could be lost.
    """
    with path.open("w") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
