"""Time and memory of the group level's tables: ``python -m benchmarks.gather FOLDER [PARTICIPANTS [REGIONS]]``.

Writes synthetic regional tables (three estimators, three references), gathers them, and writes the long and the wide
table; then adds one participant and does it again; then runs the whole group level on all regions.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from sodium_prep.cohort.tables import gather, joined, wide_table
from sodium_prep.cohort.tsv import tsv_chunks
from sodium_prep.regional.table import TABLE_COLUMNS

ESTIMATORS = ("none", "gtm", "labbe")
REFERENCES = ("vials", "CSF", "vitreous")


def write_participant(root: Path, number: int, regions: int) -> None:
    rng = np.random.default_rng(number)
    folder = root / "out" / f"sub-{number:04d}" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"tissue": "GM", "flag": "n/a", "hemisphere": "both"}
    lines = ["\t".join(TABLE_COLUMNS)]
    for region in range(regions):
        for estimator in ESTIMATORS:
            for reference in REFERENCES:
                row = {"index": str(region), "name": f"Region{region}", "estimator": estimator, "reference": reference}
                cells = (row.get(c) or texts.get(c) or f"{rng.normal(45, 3):.6g}" for c in TABLE_COLUMNS)
                lines.append("\t".join(cells))
    (folder / f"sub-{number:04d}_acq-sodium_seg-dk_tsc.tsv").write_text("\n".join(lines) + "\n")


def write_people(root: Path, n: int) -> None:
    rows = [f"sub-{i:04d}\t{'AD' if i % 2 else 'control'}\t{60 + i % 20}\t{'FM'[i % 3 == 0]}\tABC" for i in range(n)]
    (root / "bids").mkdir(parents=True, exist_ok=True)
    (root / "bids" / "participants.tsv").write_text("participant_id\tgroup\tage\tsex\tsite\n" + "\n".join(rows) + "\n")


def once(root: Path) -> tuple[float, int, list[str]]:
    begun = time.perf_counter()
    cohort = gather(root / "out", root / "bids")
    with (root / "group_tsc.tsv").open("w") as file:
        file.writelines(tsv_chunks(joined(cohort.tsc, cohort)))
    with (root / "wide.tsv").open("w") as file:
        file.writelines(tsv_chunks(wide_table(cohort)))
    return time.perf_counter() - begun, len(cohort.tsc), (root / "group_tsc.tsv").read_text().splitlines()


def whole(root: Path) -> None:
    """The command as a user gives it, every region tested."""
    (root / "bids" / "dataset_description.json").write_text('{"Name": "synthetic", "BIDSVersion": "1.10.0"}')
    (root / "model.toml").write_text('regions = ["*"]\n')
    program = [sys.executable, "-m", "sodium_prep.cli.main", str(root / "bids"), str(root / "out"), "group"]
    begun = time.perf_counter()
    subprocess.run([*program, "--model", str(root / "model.toml")], check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"the whole group level: {time.perf_counter() - begun:.1f} s, peak {peak:.0f} MB")


def main() -> None:
    root = Path(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    regions = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    for number in range(n):
        write_participant(root, number, regions)
    write_people(root, n + 1)
    seconds, rows, before = once(root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{n} participants, {rows} rows: {seconds:.1f} s, peak {peak:.0f} MB (with the text read back to compare)")
    write_participant(root, n, regions)
    seconds, rows, after = once(root)
    print(f"one more participant: {seconds:.1f} s; rows of the others unchanged: {after[: len(before)] == before}")
    whole(root)


if __name__ == "__main__":
    main()
