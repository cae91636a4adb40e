"""Running the program on a phantom study, and its table beside the truth."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MAIN = ("Cortex", "WhiteMatter", "Hippocampus")


@dataclass(frozen=True)
class Value:
    """One estimate with its interval, and the true concentration, mM."""

    tsc: float
    low: float
    high: float
    true: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.tsc / self.true - 1.0

    @property
    def held(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.true <= self.high


def sodium_prep(*args: object, timeout: float = 1500.0) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "sodium_prep.cli.main", *(str(arg) for arg in args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def process(study: Path, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the participant level; the study's folder holds everything."""
    work = study.parent / f"{out.name}-work"
    done = sodium_prep(study, out, "participant", "-w", work, "--nprocs", 1, "--skip-bids-validation", *options)
    assert done.returncode == 0, done.stderr
    return done


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of a TSV."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def compare(
    out: Path, truth: Path, folder: str, *, reference: str = "vials", estimator: str = "labbe", side: str = "both"
) -> dict[str, Value]:
    """Main regions of one session."""
    (table,) = (out / folder / "anat").glob("*_tsc.tsv")
    (true,) = (truth / folder).glob("*_regions.tsv")
    actual = {row["name"]: float(row["tsc"]) for row in rows(true) if row["hemisphere"] == side and row["name"] in MAIN}
    found = {
        row["name"]: row
        for row in rows(table)
        if (row["index"], row["hemisphere"], row["reference"], row["estimator"]) == ("n/a", side, reference, estimator)
    }
    keys = ("tsc", "tsc_ci_low", "tsc_ci_high")
    return {name: Value(*(float(found[name][key]) for key in keys), actual[name]) for name in MAIN}
