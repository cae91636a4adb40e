"""The demonstration: a phantom study from raw data to the group page, compared with its truth."""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

from sodium_prep.atlas.groups import MAIN
from sodium_prep.cli.main import run
from sodium_prep.errors import ExitCode, UsageError
from sodium_prep.phantom.study import make_study

GROUPS = ("control", "AD")
EFFECTS = {"AD": {"hippocampus": 0.12}}
_WORST = 0.06
"""Error of a region, relative; it is below 3 % where all is well."""


def run_demo(folder: Path, participants: int) -> int:
    """Make the study in a folder, process it, and print recovered against true concentrations.

    A folder with an earlier demonstration is gone on with.
    """
    study, truth, out = folder / "study", folder / "study-truth", folder / "derivatives"
    if folder.exists() and any(folder.iterdir()) and not study.exists():
        raise UsageError(folder, "is not empty and holds no demonstration", "Give a new folder")
    started = time.monotonic()
    if not (study / "participants.tsv").exists():
        print(f"Making {participants} digital heads in {study} ...", flush=True)
        make_study(
            study,
            participants=participants,
            groups=GROUPS,
            effects=EFFECTS,
            protocol="fast",
            t1w_voxel_mm=2.0,
            kspace=True,
            seed=1,
        )
    work = ["--work-dir", str(folder / "work"), "--nprocs", str(max(1, len(os.sched_getaffinity(0))))]
    print("Processing them (participant level) ...", flush=True)
    code = run([str(study), str(out), "participant", "--fast-registration", *work])
    if code == ExitCode.DONE:
        code = run([str(study), str(out), "group", *work])
    if code != ExitCode.DONE:
        return code
    wrong = print_comparison(out, truth)
    print(f"{time.monotonic() - started:.0f} s in all. Open {out / 'sub-01.html'} and {out / 'group.html'}")
    if not wrong:
        return ExitCode.DONE
    told = f"{', '.join(wrong)}: off by more than {100 * _WORST:g} %, so something is wrong with this installation"
    print(f"sodium-prep-tools: {told}. Run the test suite (make test).", file=sys.stderr)
    return ExitCode.INTERNAL


def print_comparison(out: Path, truth: Path) -> list[str]:
    """Print recovered against true values; the regions that are off by more than they ever are."""
    wrong = []
    print("\nTSC in mmol/L   region        true   uncorrected   corrected [95 % interval]    error")
    for table in sorted(out.glob("sub-*/**/*_tsc.tsv")):
        participant = table.name.split("_")[0]
        true = {
            (row["name"], row["hemisphere"]): row for row in _rows(next((truth / participant).glob("*_regions.tsv")))
        }
        found = {
            (row["name"], row["estimator"]): row
            for row in _rows(table)
            if row["hemisphere"] == "both" and row["reference"] == "vials" and row["index"] == "n/a"
        }
        for name in (group.name for group in MAIN):
            actual = float(true[name, "both"]["tsc"])
            raw, best = found[name, "none"], found[name, "labbe"]
            tsc, low, high = (float(best[key]) for key in ("tsc", "tsc_ci_low", "tsc_ci_high"))
            if not abs(tsc / actual - 1.0) <= _WORST:
                wrong.append(f"{name} of {participant}")
            print(
                f"{participant:<16}{name:<12}{actual:6.1f}{float(raw['tsc']):12.1f}"
                f"{tsc:12.1f} [{low:5.1f}, {high:5.1f}]{100.0 * (tsc / actual - 1.0):+11.1f} %"
            )
    return wrong


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
