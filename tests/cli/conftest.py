"""One coarse study for all tests of this folder, of which participant 01 is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import study


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """Folder of the study: ``raw``, ``derivatives``, ``work`` and the results of participant 01 in ``out``."""
    folder = study.make_study(tmp_path_factory.mktemp("study ü"), ("01", "02", "03"))
    outcome = study.run_here(study.options(folder, folder / "out", "--participant-label", "01"))
    assert outcome.code == 0, outcome.err
    return folder
