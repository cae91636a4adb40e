"""Cost and overlap of the registrations to the template, on Colin27.

Usage: OMP_NUM_THREADS=1 MRICRON_TEMPLATES=FOLDER python -m benchmarks.anatomy [NAME ...]

``ch2bet`` of Debian's ``mricron-data`` is the brain; no bias correction and no brain extraction take part. Labels of
the bundled Desikan-Killiany atlas are carried to it and compared with references that no registration made:

- hippocampus: the AAL hippocampi, drawn on this head by hand in two dimensions (another protocol: two atlases without
  any registration overlap by 0.80 only), mean of both sides;
- cortex: voxels of the grey class outside AAL's hippocampi, deep structures and cerebellum, and outside what AAL leaves
  without a label next to the cerebellum (brainstem and cerebellar white matter);
- WM: voxels of the white class, likewise.

The classes come from k-means of the intensities (3 classes). Round trip: points of the brain carried to the template
and back, mean and 99th percentile, mm. Last columns: CPU seconds and memory against the first row.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

from sodium_prep.anat.conform import mask_to_template
from sodium_prep.anat.grids import largest_component
from sodium_prep.anat.register import apply_to_points, register_to_template, warp_labels_to_t1w
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.atlas.bundled import load_atlas, load_template

ROWS = {
    "ants": {},
    "ants fast": {"fast": True},
    "greedy": {"method": "greedy"},
    "greedy fast": {"method": "greedy", "fast": True},
    "greedy 1 mm": {"method": "greedy", "work_mm": 1.0},
}
DEEP = [37, 38, 41, 42, *range(71, 79)]
FIRST_OF_CEREBELLUM = 91


def main(names: list[str]) -> None:
    folder = Path(os.environ.get("MRICRON_TEMPLATES", "/usr/share/mricron/templates"))
    image, affine = load(folder / "ch2bet.nii.gz")
    aal, _ = load(folder / "aal.nii.gz")
    brain = ndimage.binary_fill_holes(largest_component(ndimage.binary_closing(image > 0, iterations=2)))
    template, atlas = load_template(), load_atlas()
    start = mask_to_template(brain, affine, template)
    points = apply_affine(affine, np.argwhere(ndimage.binary_erosion(brain, iterations=5))[::997])
    print(f"{'':<14}CPU s   GB    hip  cortex   WM   similarity  volume change  round trip   CPU  GB", flush=True)
    first = None
    for name in names:
        with tempfile.TemporaryDirectory() as out:
            found = register_to_template(
                image.astype(np.float32), affine, brain, template, Path(out), initial=start, **ROWS[name]
            )
            labels = warp_labels_to_t1w(atlas, image.shape, affine, [found.inverse])
            there = apply_to_points(points, [found.inverse])
            error = np.linalg.norm(apply_to_points(there, [found.forward]) - points, axis=1)
        first = first or found.cost
        hip, cortex, white = overlaps(labels, atlas.table, image, brain, aal)
        print(
            f"{name:<12}{found.cost.cpu_s:7.1f}{found.cost.peak_memory_gb:6.2f}{hip:7.3f}{cortex:7.3f}{white:7.3f}"
            f"{found.similarity_affine:8.3f} {found.similarity:.3f}   {found.jacobian[0]:5.2f} {found.jacobian[1]:5.2f}"
            f"   {error.mean():.4f} {np.percentile(error, 99):.4f}"
            f"{found.cost.cpu_s / first.cpu_s:6.2f}{found.cost.peak_memory_gb / first.peak_memory_gb:6.2f}",
            *found.attempts,
            flush=True,
        )


def overlaps(labels, table, image, brain, aal):
    """Dice coefficients of hippocampus, cortex and white matter."""
    classes = k_means(image, brain)
    nearest = aal[tuple(ndimage.distance_transform_edt(aal == 0, return_distances=False, return_indices=True))]
    counted = brain & ~np.isin(aal, DEEP) & (nearest < FIRST_OF_CEREBELLUM)

    def carried(structure):
        return np.isin(labels, table.loc[table["structure"] == structure, "index"])

    hippocampi = [dice(labels == ours, aal == theirs) for ours, theirs in ((17, 37), (53, 38))]
    cortex, white = carried("cortex"), carried("wm") & counted
    return float(np.mean(hippocampi)), dice(cortex, counted & (classes == 1)), dice(white, counted & (classes == 2))


def k_means(image, brain):
    """Three classes of intensity: 0 fluid, 1 grey, 2 white; -1 outside the brain."""
    values = image[brain].astype(float)
    centres = np.percentile(values, [5, 40, 80])
    for _ in range(100):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        moved = np.array([values[nearest == k].mean() for k in range(3)])
        if np.allclose(moved, centres, atol=1e-3):
            break
        centres = moved
    out = np.full(image.shape, -1)
    out[brain] = nearest
    return out


def dice(a, b):
    return 2.0 * np.sum(a & b) / (a.sum() + b.sum())


def load(path):
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj).squeeze(), image.affine


if __name__ == "__main__":
    main(sys.argv[1:] or list(ROWS))
