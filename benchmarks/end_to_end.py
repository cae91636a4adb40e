"""Error of regional TSC on digital heads that go through the whole program: T1w and sodium image in, table out.

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.end_to_end [HEADS [FOLDER]]

Every head has its own concentrations, position, noise (WM SNR 20) and bias field (+-40 % over the T1w of 1 mm, 3 %
noise), outer fluid that the T1w does not show, and a magnitude image of 3 mm with four vials. The program gets nothing
else. Printed for each region and estimator: median, worst and root mean square error in %, and how many 95 % intervals
hold the truth. A head takes about five minutes; those whose table is in FOLDER (made if it is not there) are not
processed again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from sodium_prep.phantom.study import make_study

ROWS = (("Cortex", "both"), ("WhiteMatter", "both"), ("Hippocampus", "L"), ("Hippocampus", "R"),
        ("ctx-lh-precentral", "L"), ("ctx-rh-precentral", "R"), ("CSF", "both"))  # fmt: skip
ESTIMATORS = ("none", "gtm", "labbe", "joint")


def main(heads: int, folder: Path) -> None:
    """Print the table of errors."""
    study, out = folder / "study", folder / "out"
    if not study.exists():
        make_study(study, participants=heads, t1w_bias=0.4, seed=77)
    found: dict[tuple[str, str, str], list[tuple[float, bool]]] = {}
    for number in range(1, heads + 1):
        label = f"{number:02d}"
        if not table_of(out, label):
            process(study, out, folder / "work", label)
        print(f"\rhead {number} of {heads}", end="", flush=True)
        add_errors(found, *table_of(out, label), next((folder / "study-truth" / f"sub-{label}").glob("*_regions.tsv")))
    print(f"\n{'region':24}{'estimator':10}  median   worst     rms %   held by the interval")
    for (name, side, estimator), values in found.items():
        error = 100 * np.array([value for value, _ in values])
        held = f"{sum(inside for _, inside in values)} of {len(values)}"
        print(f"{name:18}{side:6}{estimator:10}{np.median(error):+8.1f}{error[np.abs(error).argmax()]:+8.1f}"
              f"{np.sqrt(np.mean(error**2)):10.1f}   {held}")  # fmt: skip


def table_of(out: Path, label: str) -> list[Path]:
    """The participant's table, if there is one."""
    return list((out / f"sub-{label}" / "anat").glob("*_tsc.tsv"))


def process(study: Path, out: Path, work: Path, label: str) -> None:
    """One participant by the command line."""
    command = [sys.executable, "-m", "sodium_prep.cli.main", study, out, "participant", "--participant-label", label,
               "-w", work, "--nprocs", "1", "--clean-workdir"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def add_errors(found: dict[tuple[str, str, str], list[tuple[float, bool]]], table: Path, truth: Path) -> None:
    """Relative error of every row that is asked for, and whether its interval holds the truth."""
    rows, true = (pd.read_csv(path, sep="\t", na_values="n/a") for path in (table, truth))
    rows = rows[rows["reference"] == "vials"]
    for name, side in ROWS:
        actual = true[(true["name"] == name) & (true["hemisphere"] == side)]["tsc"].iloc[0]
        for estimator in ESTIMATORS:
            chosen = (rows["name"] == name) & (rows["hemisphere"] == side) & (rows["estimator"] == estimator)
            for row in rows[chosen].to_dict("records"):
                held = bool(row["tsc_ci_low"] <= actual <= row["tsc_ci_high"])
                found.setdefault((name, side, estimator), []).append((row["tsc"] / actual - 1.0, held))


if __name__ == "__main__":
    heads = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    if len(sys.argv) > 2:
        main(heads, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(heads, Path(temporary))
