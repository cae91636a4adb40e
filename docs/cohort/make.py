"""Makes the data of the cohort tutorial: ``python docs/cohort/make.py FOLDER`` (about two hours of one processor).

Digital heads are scanned and processed by the app. What the group level reads of them is packed into ``cohort.zip``,
from which the documentation makes every figure anew: tables of the merged regions, records of quality, and the
corrected maps in blocks of 5 mm.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np

from sodium_prep.atlas.templates import find_template
from sodium_prep.bids.template_maps import coarse_grid, load_maps, template_maps
from sodium_prep.cli.main import run
from sodium_prep.phantom.protocol import Site
from sodium_prep.phantom.study import make_study

EFFECTS = {"AD": {"hippocampus": 0.129, "wm": 0.136, "csf": 0.206}}
SITES = (Site("A"), Site("B", gain=14.0, snr_factor=0.8), Site("C", gain=7.0, snr_factor=1.2))
NOT_RECRUITED = ("sub-26", "sub-28")
ARCHIVE = Path(__file__).parent / "cohort.zip"
VOXEL_MM = 5.0


def scan(study: Path) -> None:
    """14 patients and 12 controls at three sites, T1w and sodium each."""
    make_study(
        study, participants=28, groups=("AD", "control"), protocol="fast", effects=EFFECTS, sites=SITES,
        t1w_voxel_mm=2.0, seed=2021,
    )  # fmt: skip
    for label in NOT_RECRUITED:
        shutil.rmtree(study / label)
    people = study / "participants.tsv"
    kept = [line for line in people.read_text().splitlines() if line.split("\t")[0] not in NOT_RECRUITED]
    people.write_text("\n".join(kept) + "\n")


def process(study: Path, out: Path, work: Path) -> None:
    """The participant level, with the true anatomy in place of a computed one."""
    truth = study.with_name(f"{study.name}-truth") / "derivatives"
    options = ["--derivatives", f"truth={truth}", "--pvc", "none", "labbe", "mtc", "--work-dir", str(work)]
    code = run([str(study), str(out), "participant", *options, "--output-spaces", "MNI152NLin6Asym"])
    if code:
        raise SystemExit(code)


def pack(study: Path, out: Path) -> None:
    """Everything that the group level reads, small; the same bytes from the same results."""
    files = {f"bids/{name}": (study / name).read_bytes() for name in ("dataset_description.json", "participants.tsv")}
    for path in sorted(out.glob("sub-*/anat/*_tsc.tsv")):
        with path.open(newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t"))
        place = {name: rows[0].index(name) for name in ("index", "estimator")}
        kept = [r for r in rows[1:] if r[place["index"]] == "n/a" and r[place["estimator"]] in ("none", "labbe")]
        text = "\n".join("\t".join(row) for row in (rows[0], *kept)) + "\n"
        files[f"out/{path.relative_to(out)}"] = text.encode()
    for path in sorted(out.glob("sub-*/anat/*_qc.json")):
        files[f"out/{path.relative_to(out)}"] = path.read_bytes()
    maps = template_maps(out)
    maps = maps[maps["desc"] == "mtc"].sort_values("participant_id")
    grid = coarse_grid(find_template("MNI152NLin6Asym"), VOXEL_MM)
    values = load_maps([[path] for path in maps["path"]], grid)
    stored = io.BytesIO()
    np.savez(stored, participants=maps["participant_id"].to_numpy(str), values=values.astype(np.float16))
    files["maps.npz"] = stored.getvalue()
    with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def main() -> None:
    """Make, process and pack."""
    folder = Path(sys.argv[1])
    study, out = folder / "study", folder / "out"
    if not study.exists():
        scan(study)
    process(study, out, folder / "work")
    pack(study, out)


if __name__ == "__main__":
    main()
