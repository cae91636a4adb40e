"""The benchmarks must at least start: nothing else notices when a function that they use has moved."""

import importlib
from pathlib import Path

import pytest

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_can_be_imported(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").main)
