"""Which tissue fractions lead to the right regional sodium: our joint estimate, Atropos, hard labels, the truth.

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.tissue_fractions [VOXEL_MM [CASES]]

A T1w image (bias of +-40 %, 3 % noise) and a sodium image (DA-3DPR, 3 mm, readout 10 ms, hardly any noise) are made
from the phantom's head, whose fractions are known. The regional model is fitted with each set of fractions, true
registration and true labels; what is left is the error of the fractions, by ``labbe`` and by ``joint``. Atropos works
at 2 mm, after N4, and gets as priors the very template that the head was made of, which is the best that it can be
given. CASES is a comma-separated choice of ``methods``, ``eyes``, ``heads``, or one of ``colin`` and ``sharp``: the
methods on Colin27, with the shares found in its T1w as the truth, or with every point one tissue.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from sodium_prep.anat.bias_n4 import registration_bias
from sodium_prep.anat.fractions import tissue_fractions, ventricle_walls
from sodium_prep.anat.grids import coarsen
from sodium_prep.anat.jobs import Volume, job_folder, read_volume, run_job, write_volume
from sodium_prep.anat.register import template_priors
from sodium_prep.atlas.bundled import load_atlas, load_template
from sodium_prep.phantom.grids import block_affine, block_average
from sodium_prep.phantom.head import CHANNELS, EYES_MM, SHAPE, template_head
from sodium_prep.phantom.protocol import CONCENTRATIONS_MM
from sodium_prep.phantom.proton import SIGNAL, bias_field, scanned_t1w
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation
from sodium_prep.pvc.compartments import Compartments, build_compartments
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.fraction_errors import fraction_errors
from sodium_prep.pvc.joint import joint_model
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel

RELAXATION = {tissue: tissue_relaxation(tissue, 3.0) for tissue in TISSUES}
ACQUISITION = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (3.0, 3.0, 3.0))
PSF = PsfModel("acquisition", ACQUISITION)
SODIUM_SHAPE = (64, 72, 62)
SODIUM_AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SODIUM_AFFINE[:3, 3] = (-94.5, -124.0, -84.0)
OWN = {"ctx-lh-precentral": "precentral L", "ctx-rh-precentral": "precentral R", "Left-Hippocampus": "hippocampus L",
       "Right-Hippocampus": "hippocampus R", "ctx-lh-lateralorbitofrontal": "orbitofrontal L",
       "ctx-rh-lateralorbitofrontal": "orbitofrontal R"}  # fmt: skip
NOISE_SD, USUAL_NOISE_SD = 0.2, 1.5
CSF_IN_RIM = 0.6


@dataclass(frozen=True)
class Study:
    """A T1w image with its truth on the same grid, and the sodium image of the same head."""

    t1w: np.ndarray
    affine: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    brain: np.ndarray
    head: np.ndarray
    labels: np.ndarray
    sodium: np.ndarray


def main(voxel_mm: int, cases: list[str]) -> None:
    """Print one table per case."""
    colin = {"colin", "sharp"} & set(cases)
    study = colin_study(sharp="sharp" in colin) if colin else make_study(voxel_mm)
    print(f"T1w {voxel_mm} mm; error of regional TSC in %\n{'':26}" + "  ".join(f"{n[:4]}{n[-2:]:>3}" for n in ROWS))
    if "methods" in cases or colin:
        show("true fractions", study, (study.gm, study.wm, study.csf))
        for name, estimate in METHODS.items():
            started, before = time.process_time(), children_cpu()
            fractions = estimate(study)
            cpu = time.process_time() - started + children_cpu() - before
            show(name, study, fractions, f"{cpu:6.1f} CPU s")
    if "eyes" in cases:
        true = (study.gm, study.wm, study.csf)
        for name, shift in (("eyes known", 0.0), ("eyes 4 mm off", 4.0)):
            show(name, study, true, eyes_mm=[(x, y + shift, z) for x, y, z in EYES_MM])
    if "heads" in cases:
        for name, degrade in HEADS.items():
            changed = degrade(study)
            show(name, changed, ours(changed))


def make_study(voxel_mm: int, *, bias: float = 0.4, noise: float = 0.03, seed: int = 1) -> Study:
    """Simulate both images of the phantom's head."""
    rng = np.random.default_rng(seed)
    head = template_head()
    part = dict(zip(CHANNELS, head.fractions, strict=True))
    clean = sum(np.float32(SIGNAL[name]) * part[name] for name in CHANNELS if name != "rim")
    clean = 1000.0 * (clean + SIGNAL["csf_outer"] * part["rim"])
    field = bias_field(SHAPE, bias, rng)
    t1w = scanned_t1w(block_average(clean, voxel_mm), block_average(field, voxel_mm), noise, rng).astype(np.float32)
    gm, wm, csf = (block_average(part[name], voxel_mm) for name in ("gm", "wm", "csf"))
    affine = block_affine(head.affine, voxel_mm)
    inside = block_average((head.fractions.sum(axis=0) > 0.1).astype(np.float32), voxel_mm) > 0.5
    labels = atlas_on(SHAPE, head.affine)[(slice(voxel_mm // 2, None, voxel_mm),) * 3]
    labels = labels[tuple(slice(n) for n in gm.shape)]
    return Study(t1w, affine, gm, wm, csf, (gm + wm + csf) > 0.5, inside, labels, sodium_image(part, head.affine))


def colin_study(*, sharp: bool = False, bias: float = 0.4, noise: float = 0.03, seed: int = 1) -> Study:
    """A head of another anatomy: the fractions of Colin27's own T1w are the truth, and both images are made of them.

    They are blurred by what the estimate makes of the noise of that T1w. With ``sharp`` each third of a voxel is of the
    tissue that fills most of it.
    """
    from tests.anat.colin import colin27

    (image, affine), (stripped, _) = colin27("ch2"), colin27("ch2bet")
    brain, labels = stripped > 0, atlas_on(image.shape, affine)
    own = tissue_fractions(
        image.astype(np.float32), brain, affine, deep_grey=deep_labels(labels),
        walls=ventricle_walls(labels, load_atlas().table, affine),
    )  # fmt: skip
    distance = ndimage.distance_transform_edt(~brain)
    rim, scalp = (distance > 0) & (distance <= 3), (distance > 9) & (distance <= 14)
    none = np.zeros(image.shape, np.float32)
    gm, wm, csf = sharpened((own.gm, own.wm, own.csf), brain) if sharp else (own.gm, own.wm, own.csf)
    part = {"gm": gm, "wm": wm, "csf": csf, "rim": rim.astype(np.float32), "vitreous": none,
            "soft": scalp.astype(np.float32), "fat": none}  # fmt: skip
    rng = np.random.default_rng(seed)
    clean = 1000.0 * sum(np.float32(SIGNAL[name]) * part[name] for name in ("gm", "wm", "csf", "soft"))
    clean += np.float32(1000.0 * SIGNAL["csf_outer"]) * ((distance > 0) & (distance <= 9))
    t1w = scanned_t1w(clean, bias_field(image.shape, bias, rng), noise, rng).astype(np.float32)
    head = distance <= 14
    return Study(t1w, affine, gm, wm, csf, brain, head, labels, sodium_image(part, affine))


def sharpened(parts: tuple[np.ndarray, ...], brain: np.ndarray, n: int = 3) -> list[np.ndarray]:
    """Shares of tissues that do not mix: each n-th of a voxel goes to the one that fills most of it."""
    smooth = (ndimage.gaussian_filter(part, 0.5) for part in parts)
    best = np.argmax([ndimage.zoom(p, n, order=1, mode="nearest", grid_mode=True) for p in smooth], axis=0)
    return [block_average((best == k).astype(np.float32), n) * brain for k in range(len(parts))]


def deep_labels(labels: np.ndarray) -> np.ndarray:
    """Labels of deep grey matter, 0 elsewhere."""
    table = load_atlas().table
    deep = np.isin(labels, table.loc[table["structure"] == "deep_gm", "index"])
    return np.where(deep, labels, 0).astype(np.int32)


def atlas_on(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """The bundled atlas on a grid shifted by whole voxels."""
    atlas = load_atlas()
    shift = np.rint(atlas.affine[:3, 3] - affine[:3, 3]).astype(int)
    out = np.zeros(shape, np.int32)
    low, high = np.maximum(shift, 0), np.minimum(shift + atlas.labels.shape, shape)
    target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    out[target] = atlas.labels[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, shift, strict=True))]
    return out


def sodium_image(part: dict[str, np.ndarray], affine: np.ndarray) -> np.ndarray:
    """What the acquisition shows of the true head, one concentration per structure."""
    brain = part["gm"] + part["wm"] + part["csf"]
    true = build_compartments(
        part["gm"], part["wm"], part["csf"], brain > 0.5, None, np.zeros_like(brain), atlas_on(brain.shape, affine),
        load_atlas().table, affine, shell_patches=1, rest_patches=1, reach_mm=4.0,
    )  # fmt: skip
    regions, values = grouped(true, only_regions=True)
    for name, tissue, share in (
        ("csf", "CSF", CSF_IN_RIM * part["rim"]),
        ("vitreous", "vitreous", part["vitreous"]),
        ("soft", "extracerebral", part["soft"]),
        ("fat", "extracerebral", part["fat"]),
    ):
        voxels = np.flatnonzero(share)
        regions.append(name, tissue, "nuisance", voxels, share.reshape(-1)[voxels])
        values.append(CONCENTRATIONS_MM[name])
    blurred = push(regions, "point")
    noise = NOISE_SD * np.random.default_rng(9).standard_normal(blurred.shape[1])
    return (np.asarray(values) @ blurred + noise).reshape(SODIUM_SHAPE).astype(np.float32)


def push(compartments: Compartments, kernel: str) -> np.ndarray:
    """Blurred compartments on the sodium grid."""
    return push_compartments(compartments, np.eye(4), SODIUM_SHAPE, SODIUM_AFFINE, PSF, RELAXATION, voxel_kernel=kernel)


def grouped(c: Compartments, *, only_regions: bool = False) -> tuple[Compartments, list[float]]:
    """Few regions: the reported ones and one per structure for the rest, with their concentrations."""
    out = Compartments([], [], [], [], [], c.shape, c.affine)
    members: dict[str, list[int]] = {}
    for i in c.regions:
        members.setdefault(OWN.get(c.names[i], c.structures[i]), []).append(i)
    values = []
    for name, of in members.items():
        voxels, weights = (np.concatenate([column[i] for i in of]) for column in (c.voxels, c.weights))
        out.append(name, c.tissues[of[0]], "region", voxels, weights, structure=c.structures[of[0]])
        values.append(CONCENTRATIONS_MM.get(c.structures[of[0]], np.nan))
    for i in range(0 if only_regions else len(c.names)):
        if c.kinds[i] == "nuisance":
            out.append(c.names[i], c.tissues[i], "nuisance", c.voxels[i], c.weights[i])
    return out, values


ROWS = ["cortex", *OWN.values(), "wm", "deep_gm", "csf"]


def errors(study: Study, fractions, **options) -> tuple[dict[str, float], dict[str, float]]:
    """Error in % of each row, and the residual of the fit in mM, by ``labbe`` and by ``joint``."""
    c = build_compartments(
        *fractions, study.brain, study.head, study.t1w, study.labels, load_atlas().table, study.affine, **options
    )
    c, truth = grouped(c)
    kernel = "point" if study.affine[0, 0] == 1.0 else "mean"
    blurred = push(c, kernel)
    mask = fit_mask(blurred, c.names, c.kinds, np.ones(SODIUM_SHAPE, bool))
    # As wide as in a usual scan: it weighs the errors of the fractions, and nothing else here.
    noise = Noise(np.full(SODIUM_SHAPE, USUAL_NOISE_SD, np.float32), None)
    plain = labbe(blurred, study.sodium, mask, noise, c.kinds).fit()
    wrong = fraction_errors(c, plain.values, mask, lambda moved: push(moved, kernel))
    joint = joint_model(
        c, blurred, wrong, study.sodium, mask, noise, np.eye(len(c.names)), lambda moved: push(moved, kernel),
        np.linalg.solve(SODIUM_AFFINE, study.affine),
    ).system.fit()  # fmt: skip
    return tuple(
        {name: 100 * (found / value - 1) for name, found, value in zip(c.names, fit.values, truth, strict=False)}
        | {"residual": fit.residual_sd}
        for fit in (plain, joint)
    )


def show(name: str, study: Study, fractions, extra: str = "", **options) -> None:
    """Print one line of the table."""
    plain, joint = errors(study, fractions, **options)
    ml = np.prod(np.diag(study.affine)[:3]) / 1000
    volumes = "/".join(f"{float(part.sum()) * ml:.0f}" for part in fractions)
    for label, found, more in ((name, plain, f"{volumes} ml  {extra}"), ("  joint", joint, "")):
        line = "".join(f"{found.get(row, np.nan):+7.1f}" for row in ROWS)
        print(f"{label:26}{line}   residual {found['residual']:.2f}   {more}", flush=True)


def children_cpu() -> float:
    """CPU seconds of the programs run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ours(study: Study):
    """Our joint estimate."""
    found = tissue_fractions(
        study.t1w, study.brain, study.affine, deep_grey=deep_labels(study.labels),
        walls=ventricle_walls(study.labels, load_atlas().table, study.affine),
    )  # fmt: skip
    return found.gm, found.wm, found.csf


def atropos(weight: float, *, hard: bool = False):
    """N4 once and Atropos with template priors, at 2 mm, brought to the grid of the T1w."""

    def estimate(study: Study):
        image = coarsen(Volume(study.t1w, study.affine), 2.0)
        mask = coarsen(Volume(study.brain.astype(np.float32), study.affine), 2.0).data > 0.5
        template = load_template()
        priors = template_priors(template, load_atlas())
        flat = image.data / registration_bias(image.data, image.affine, mask)
        with job_folder() as folder:
            write_volume(folder / "image.nii.gz", Volume(flat, image.affine))
            write_volume(folder / "mask.nii.gz", Volume(mask, image.affine))
            # Brightness decides the order: CSF, grey, white matter.
            for number, prior in enumerate(priors[[2, 0, 1]], start=1):
                write_volume(
                    folder / f"prior{number}.nii.gz", Volume(onto(prior, template.affine, image), image.affine)
                )
            start = f"PriorProbabilityImages[3,prior%d.nii.gz,{weight}]"
            run_job(
                "Atropos", "Atropos",
                ["-d", "3", "-a", "image.nii.gz", "-x", "mask.nii.gz", "-i", start, "-m", "[0.1,1x1x1]", "-c", "[5,0]",
                 "-o", "[labels.nii.gz,posterior%d.nii.gz]"],
                folder,
            )  # fmt: skip
            parts = [Volume(read_volume(folder / f"posterior{k}.nii.gz"), image.affine) for k in (2, 3, 1)]
        fine = np.stack([onto(part.data, part.affine, Volume(study.t1w, study.affine)) for part in parts])
        if hard:
            fine = (np.arange(3)[:, None, None, None] == fine.argmax(axis=0)).astype(np.float32)
        total = fine.sum(axis=0)
        return [np.where(study.brain, part / np.maximum(total, 1e-6), 0.0).astype(np.float32) for part in fine]

    return estimate


def onto(data: np.ndarray, affine: np.ndarray, grid: Volume) -> np.ndarray:
    """Linear interpolation onto another grid."""
    matrix = np.linalg.inv(affine) @ grid.affine
    return ndimage.affine_transform(data, matrix[:3, :3], matrix[:3, 3], grid.data.shape, np.float32, order=1)


def hard_ours(study: Study):
    """Our fractions made into labels."""
    best = np.argmax(ours(study), axis=0)
    return [((best == k) & study.brain).astype(np.float32) for k in range(3)]


def defaced(study: Study) -> Study:
    """Face and eyes cut off by a plane, as pydeface and quickshear leave it."""
    y, z = (study.affine[i, i] * np.arange(study.t1w.shape[i]) + study.affine[i, 3] for i in (1, 2))
    cut = (y[:, None] - 40.0) * 0.7 - (z[None, :] + 35.0) * 0.7 > 0.0
    gone = cut[None] & ~ndimage.binary_dilation(study.brain, iterations=2)
    return replace(study, t1w=np.where(gone, 0.0, study.t1w), head=study.head & ~gone)


METHODS = {
    "ours": ours,
    "ours, hard labels": hard_ours,
    "Atropos, prior weight 0": atropos(0.0),
    "Atropos, prior weight 0.25": atropos(0.25),
    "Atropos, prior weight 0.5": atropos(0.5),
    "Atropos 0, hard labels": atropos(0.0, hard=True),
}
HEADS = {"defaced": defaced}


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1,
        sys.argv[2].split(",") if len(sys.argv) > 2 else ["methods", "eyes", "heads"],
    )
