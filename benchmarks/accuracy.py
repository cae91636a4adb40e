"""Bias and coverage of regional concentrations over noise realisations of one digital head.

Usage: python benchmarks/accuracy.py [REALISATIONS]

The head's own fractions and registration are given, so that what is measured is physics, calibration and estimation.
Each realisation is a new magnitude image with WM SNR 20. Printed for every main region: relative bias and its standard
error, scatter, mean standard error of the table, and the part of 95 % intervals that hold the truth. ``within`` leaves
out what all realisations share (calibration, relaxation), so its coverage is that of the noise alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from sodium_prep.anat.brain import head_mask
from sodium_prep.anat.transforms import read_itk_affine
from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.bids.images import load_checked
from sodium_prep.bids.inputs import collect
from sodium_prep.phantom.study import make_study
from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation
from sodium_prep.pvc.compartments import build_compartments
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.quant.geometry import ReferenceGeometry
from sodium_prep.quant.references import clipped_voxels
from sodium_prep.quant.vendor import clean_vendor_image
from sodium_prep.regional.inputs import Scan, mask_on_grid
from sodium_prep.regional.scan import quantify_scan

ROWS = [("Cortex", "both"), ("WhiteMatter", "both"), ("Hippocampus", "L"), ("Hippocampus", "R"), ("CSF", "both")]


def main(realisations: int) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder) / "study", participants=1, protocol="fast", runs=realisations, seed=3)
        truth = Path(f"{study}-truth")
        inputs = collect(study, "01", None, derivatives={"phantom": truth / "derivatives"})
        print(f"study with {realisations} runs made in {time.monotonic() - started:.0f} s", flush=True)
        true = _truth(truth / "sub-01" / "sub-01_regions.tsv")
        tables = list(_tables(inputs))
    print("region             true mM   bias % (+-)    scatter %  within %  total %   held within / total")
    for name, side in ROWS:
        found = [next(r for r in table if (r["index"], r["name"], r["hemisphere"]) == (None, name, side)
                      and (r["estimator"], r["reference"]) == ("labbe", "vials")) for table in tables]  # fmt: skip
        actual = true[name, side]
        values = np.array([row["tsc"] for row in found])
        within = np.array([row["tsc_stderr_within"] for row in found])
        total = np.array([row["tsc_stderr"] for row in found])
        errors = np.abs(values - actual)
        held = [
            np.mean(errors < 1.96 * within),
            np.mean([r["tsc_ci_low"] <= actual <= r["tsc_ci_high"] for r in found]),
        ]
        spread = values.std(ddof=1)
        print(
            f"{name:<12}{side:<6}{actual:8.2f}{100 * (values.mean() / actual - 1):+9.2f}"
            f" ({100 * spread / np.sqrt(len(values)) / actual:.2f}){100 * spread / actual:11.2f}"
            f"{100 * within.mean() / actual:10.2f}{100 * total.mean() / actual:9.2f}"
            f"{100 * held[0]:10.0f} % / {100 * held[1]:.0f} %"
        )
    print(f"{time.monotonic() - started:.0f} s")


def _tables(inputs):
    given, runs = inputs.precomputed, inputs.sodium[0].runs
    gm, wm, csf = (load_checked(given.probsegs[tissue])[0] for tissue in ("GM", "WM", "CSF"))
    (brain, affine), (labels, _), (t1w, _) = map(load_checked, (given.brain_mask, given.aparcaseg, given.anat.path))
    head = head_mask(t1w, affine, brain > 0)
    table = load_atlas().table
    labels = labels.astype(np.int32)
    compartments = build_compartments(gm, wm, csf, brain > 0, head, t1w, labels, table, affine)
    matrix = read_itk_affine(given.sodium_to_t1w["sodium"])
    sidecar = runs[0].sidecar
    acquisition = sidecar.acquisition().acquisition
    relaxations = {tissue: tissue_relaxation(tissue, acquisition.field_strength_t) for tissue in TISSUES}
    vials = [
        ReferenceGeometry(v.label, v.centre_ras_mm, v.radius_mm, v.length_mm, v.axis, v.concentration_mM,
                          v.concentration_error_mM, v.relaxation)
        for v in sidecar.references
    ]  # fmt: skip
    scan = None
    for number, run in enumerate(runs, start=1):
        image, sodium_affine = load_checked(run.images[0].path)
        cleaned = clean_vendor_image(image, sodium_affine, acquisition, run.images[0].path.name)
        noise = Noise(np.full(image.shape, cleaned.noise_sd, np.float32), cleaned.noise_psd)
        on_grid = mask_on_grid(head, affine, matrix, image.shape, sodium_affine) if scan is None else scan.head
        first = scan or Scan(cleaned.image, sodium_affine, matrix, noise, acquisition,
                             PsfModel("acquisition", acquisition), on_grid, clipped_voxels(image))  # fmt: skip
        scan = replace(first, image=cleaned.image, noise=noise, clipped=clipped_voxels(image))
        result = quantify_scan(
            scan, compartments, relaxations, vials=vials, vials_placed=True, eyes_mm=[], references=["vials"],
            estimators=["labbe"], refine=False,
        )  # fmt: skip
        print(f"\r{number} of {len(runs)}", end="", flush=True)
        yield result.table
    print()


def _truth(path):
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    column = {name: number for number, name in enumerate(lines[0])}
    return {
        (row[column["name"]], row[column["hemisphere"]]): float(row[column["tsc"]])
        for row in lines[1:]
        if row[column["index"]] == "n/a"
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
