"""The one place that knows where reference material outside the repository lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(os.environ.get("SODIUM_PREP_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared_path(relative: str) -> Path:
    """Path of a piece of reference material; skips the calling test where it is absent."""
    path = _ROOT / relative
    if not path.exists():
        pytest.skip(f"reference material {relative} is not here")
    return path
