"""Runs the group level on the packed cohort and takes the figures of the tutorial from what it writes."""

from __future__ import annotations

import base64
import io
import re
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

SECTIONS = {"regions": "strips", "effects": "effects", "sites": "sites", "zscores": "zscores"}
MODEL = 'control = "control"\nnegative_controls = ["OccipitalLobe"]\n'


def build(images: Path) -> str:
    """Write the figures below a folder; returns the group page."""
    from make import ARCHIVE

    from sodium_prep.cli.main import run

    images.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(root)
        model = root / "model.toml"
        model.write_text(MODEL)
        if code := run([str(root / "bids"), str(root / "out"), "group", "--model", str(model)]):
            raise RuntimeError(f"the group level ended with {code}")
        page = (root / "out" / "group.html").read_text(encoding="utf-8")
        for section, name in SECTIONS.items():
            found = re.search(rf'<section id="{section}">.*?src="data:image/svg\+xml;base64,([^"]+)"', page, re.DOTALL)
            if found is None:
                raise RuntimeError(f"the page has no figure in its section {section}")
            (images / f"{name}.svg").write_bytes(base64.b64decode(found.group(1)))
        (images / "maps.svg").write_text(_maps(root), encoding="utf-8")
    return page


def _maps(root: Path) -> str:
    """The corrected maps compared voxel by voxel."""
    from make import VOXEL_MM

    from sodium_prep.atlas.templates import find_template
    from sodium_prep.bids.template_maps import coarse_grid
    from sodium_prep.cohort.columns import covariates
    from sodium_prep.cohort.tables import gather
    from sodium_prep.cohort.voxelwise import compare_voxels, place
    from sodium_prep.report.voxelwise import map_slices

    stored = np.load(io.BytesIO((root / "maps.npz").read_bytes()), allow_pickle=False)
    people = gather(root / "out", root / "bids").participants.set_index("participant_id")
    people = people.loc[stored["participants"]].reset_index()
    grid = coarse_grid(find_template("MNI152NLin6Asym"), VOXEL_MM)
    values = stored["values"].astype(np.float32)
    known = np.isfinite(values).all(axis=0)
    mask = np.zeros_like(grid.brain)
    mask[grid.brain] = known
    held = covariates(people, ("age", "sex", "site")).matrix
    test = compare_voxels(values[:, known], (people["group"] == "AD").to_numpy(), held, mask, statistic="mass")
    return map_slices(
        place(test.effect, mask), grid.affine, grid.template.t1w, grid.template.affine, label="AD - control / (mmol/L)",
        significant=np.nan_to_num(place(test.p, mask), nan=1.0) < 0.05, outline="p < 0.05, family-wise error",
    )  # fmt: skip
