"""Errors of the registration of sodium to T1w on simulated heads of known place.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.coregistration [ORDINARY [STRESS]]   (60 and 40 cases by default)

Heads are the template head of the tests and, where Debian's mricron-data is installed (``MRICRON_TEMPLATES`` names its
folder), Colin27. The sodium image has 3 mm nominal resolution, the point spread function of a density-adapted radial
readout, bright CSF inside and around the brain, scalp, eyes, two vials, 30 % smooth shading and Rician noise. Ordinary
cases are displaced by up to 15 mm and 15 degrees along and about each axis at SNR 10 to 30; stress cases by 15 to 40 mm
and 20 to 40 degrees at SNR 8 with 15 to 35 mm of the brain cut off. The error is the mean displacement over a lattice
in the brain.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.brain import head_mask
from sodium_prep.anat.coreg import Coregistration, register_sodium
from sodium_prep.anat.transforms import apply_affine
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.psf import mtf
from tests.anat.heads import averaged_parts, smooth_bias

FINE_MM, NOMINAL_MM, FOV = 1.5, 3.0, 80
SODIUM = {"gm": 45.0, "wm": 38.0, "csf": 140.0, "bone": 8.0, "scalp": 30.0, "eyes": 140.0, "rim": 90.0}
EYES_MM = [(-33.0, 62.0, -38.0), (33.0, 62.0, -38.0)]
T1W = {"gm": 600.0, "wm": 900.0, "csf": 250.0, "bone": 60.0, "scalp": 750.0, "eyes": 250.0, "rim": 250.0}


@dataclass(frozen=True)
class Anatomy:
    """T1w, brain mask and sodium concentration of a head on one grid; ``lattice`` are points of the brain, mm."""

    t1w: np.ndarray
    brain: np.ndarray
    fluid: np.ndarray
    tissue: np.ndarray
    fractions: tuple[np.ndarray, np.ndarray, np.ndarray]
    affine: np.ndarray
    lattice: np.ndarray


@dataclass(frozen=True)
class Case:
    """A simulated sodium image and the map that takes its points to the T1w."""

    anatomy: Anatomy
    t1w: np.ndarray
    sodium: np.ndarray
    affine: np.ndarray
    truth: np.ndarray


def anatomy_from(parts: dict[str, np.ndarray], affine: np.ndarray, t1w: np.ndarray | None) -> Anatomy:
    """Mix tissue maps to a T1w (if none is given) and to sodium in fluid and tissue."""
    brain = ndimage.binary_fill_holes(parts["gm"] + parts["wm"] + parts["csf"] > 0.5)
    distance = ndimage.distance_transform_edt(~brain, sampling=np.linalg.norm(affine[:3, :3], axis=0))
    parts["rim"] = ((distance > 0) & (distance < 2.5)).astype(np.float32)
    points = apply_affine(affine, np.argwhere(np.ones(brain.shape))).reshape(*brain.shape, 3)
    parts["eyes"] = np.any([np.linalg.norm(points - eye, axis=-1) < 12.0 for eye in EYES_MM], axis=0) * 1.0
    for name in ("bone", "scalp"):
        parts[name] = np.where((parts["rim"] > 0) | (parts["eyes"] > 0), 0.0, parts[name])
    if t1w is None:
        t1w = sum(T1W[name] * part for name, part in parts.items())
    fluid = sum(SODIUM[name] * parts[name] for name in ("csf", "rim", "eyes"))
    tissue = sum(SODIUM[name] * parts[name] for name in ("gm", "wm", "bone", "scalp"))
    step = np.zeros_like(brain)
    step[::5, ::5, ::5] = True
    lattice = apply_affine(affine, np.argwhere(brain & step))
    fractions = (parts["gm"], parts["wm"], parts["csf"])
    return Anatomy(np.asarray(t1w, np.float32), brain, fluid, tissue, fractions, affine, lattice)


@cache
def template_anatomy() -> Anatomy:
    """The template brain within a shell of skull and scalp, 2 mm."""
    parts, affine = averaged_parts(2)
    return anatomy_from(dict(zip(("gm", "wm", "csf", "bone", "scalp"), parts.copy(), strict=True)), affine, None)


@cache
def colin_anatomy() -> Anatomy:
    """Colin27, 2 mm: tissues by intensity within its extracted brain, scalp by intensity outside."""
    from tests.anat.colin import colin27

    (head, affine), (inner, _) = colin27("ch2"), colin27("ch2bet")
    head = head.astype(np.float32)
    brain = ndimage.binary_closing(inner > 0, iterations=3)
    smooth = ndimage.gaussian_filter(head, 0.5)
    csf_gm, gm_wm = _splits(smooth[brain])
    width = 0.25 * (gm_wm - csf_gm)
    wm = np.clip((smooth - gm_wm) / width / 2 + 0.5, 0, 1) * brain
    csf = np.clip((csf_gm - smooth) / width / 2 + 0.5, 0, 1) * brain
    whole = head_mask(head, affine, brain)
    scalp = whole & ~brain & (head > 0.5 * csf_gm)
    parts = {"gm": brain - wm - csf, "wm": wm, "csf": csf, "bone": whole & ~brain & ~scalp, "scalp": scalp}
    halved = {name: _halve(np.asarray(part, np.float32)) for name, part in parts.items()}
    grid = affine.copy()
    grid[:3, :3] *= 2
    grid[:3, 3] += affine[:3, :3] @ [0.5, 0.5, 0.5]
    return anatomy_from(halved, grid, _halve(head))


def _splits(values: np.ndarray) -> tuple[float, float]:
    """Thresholds between three classes, by k-means."""
    centres = np.percentile(values, [10, 50, 85])
    for _ in range(30):
        edges = (centres[1:] + centres[:-1]) / 2
        label = np.digitize(values, edges)
        centres = np.array([values[label == k].mean() for k in range(3)])
    return float(edges[0]), float(edges[1])


def _halve(data: np.ndarray) -> np.ndarray:
    n = [size // 2 for size in data.shape]
    cut = data[: 2 * n[0], : 2 * n[1], : 2 * n[2]]
    return cut.reshape(n[0], 2, n[1], 2, n[2], 2).mean(axis=(1, 3, 5))


def displacement(anatomy: Anatomy, angle_vector_deg: np.ndarray, shift_mm: np.ndarray) -> np.ndarray:
    """Rigid map about the centre of the brain."""
    centre = anatomy.lattice.mean(axis=0)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.deg2rad(angle_vector_deg)).as_matrix()
    move[:3, 3] = centre + shift_mm - move[:3, :3] @ centre
    return move


def simulate(anatomy: Anatomy, t1w_to_sodium: np.ndarray, snr: float, cut_mm: float, rng: np.random.Generator) -> Case:
    """Sodium image of a displaced head; ``cut_mm`` of its brain lie outside the field of view, above or below."""
    n = round(FOV * NOMINAL_MM / FINE_MM)
    fine = np.diag([FINE_MM, FINE_MM, FINE_MM, 1.0])
    fine[:3, 3] = anatomy.lattice.mean(axis=0) - FINE_MM * (n // 2)
    to_voxel = np.linalg.inv(anatomy.affine) @ np.linalg.inv(t1w_to_sodium) @ fine
    acquisition = Acquisition(
        trajectory="DA-3DPR", readout_duration_s=0.010, nominal_resolution_mm=(NOMINAL_MM,) * 3, echo_time_s=0.0005,
        repetition_time_s=0.12, flip_angle_deg=90.0, field_strength_t=3.0, linear_fraction=0.2,
    )  # fmt: skip
    axis = np.fft.fftshift(np.fft.fftfreq(n, FINE_MM))
    keep = slice(n // 2 - FOV // 2, n // 2 + FOV // 2)
    k = np.sqrt(sum(np.meshgrid(*(axis[keep] ** 2,) * 3, indexing="ij"))) * 2.0 * NOMINAL_MM
    spectrum = 0
    for part, name in ((anatomy.tissue, "WM"), (anatomy.fluid, "CSF")):
        placed = ndimage.affine_transform(part, to_voxel, output_shape=(n,) * 3, order=1)
        if name == "WM":
            for x, level in ((-108.0, 80.0), (108.0, 40.0)):
                place = np.round((np.array([x, 20.0, 0.0]) + FINE_MM * (n // 2)) / FINE_MM).astype(int)
                box = tuple(slice(p - half, p + half) for p, half in zip(place, (5, 5, 20), strict=True))
                placed[box] += level
        whole = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(placed.astype(np.complex64))))
        spectrum = spectrum + whole[keep, keep, keep] * mtf(k, acquisition, tissue_relaxation(name, 3.0))
    image = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(spectrum))).real * (FOV / n) ** 3
    grid = fine.copy()
    grid[:3, :3] *= NOMINAL_MM / FINE_MM
    shaded = image * smooth_bias(image.shape, 0.3, rng)
    sd = SODIUM["wm"] / snr
    sodium = np.hypot(shaded + sd * rng.standard_normal(image.shape), sd * rng.standard_normal(image.shape))
    if cut_mm:
        z = apply_affine(np.linalg.inv(grid) @ t1w_to_sodium, anatomy.lattice)[:, 2]
        lost = cut_mm / NOMINAL_MM
        part = slice(None, max(int(z.max() - lost), 1)) if rng.random() < 0.5 else slice(int(z.min() + lost), None)
        sodium = sodium[:, :, part]
        grid[:3, 3] += grid[:3, 2] * (part.start or 0)
    shape = anatomy.t1w.shape
    noise = 0.03 * np.percentile(anatomy.t1w, 98) * rng.standard_normal((2, *shape))
    t1w = np.hypot(anatomy.t1w * smooth_bias(shape, 0.1, rng) + noise[0], noise[1]).astype(np.float32)
    return Case(anatomy, t1w, sodium.astype(np.float32), grid, np.linalg.inv(t1w_to_sodium))


def ordinary(anatomy: Anatomy, seed: int) -> Case:
    """Up to 15 mm and 15 degrees along and about each axis, SNR 10 to 30."""
    rng = np.random.default_rng([1, seed])
    move = displacement(anatomy, rng.uniform(-15, 15, 3), rng.uniform(-15, 15, 3))
    return simulate(anatomy, move, rng.uniform(10, 30), 0.0, rng)


def stress(anatomy: Anatomy, seed: int) -> Case:
    """20 to 40 degrees, 15 to 40 mm, SNR 8, part of the brain outside the field of view."""
    rng = np.random.default_rng([2, seed])
    axis, way = rng.standard_normal((2, 3))
    turn, shift = rng.uniform(20, 40) * axis / np.linalg.norm(axis), rng.uniform(15, 40) * way / np.linalg.norm(way)
    return simulate(anatomy, displacement(anatomy, turn, shift), 8.0, rng.uniform(15, 35), rng)


def error_mm(case: Case, sodium_to_t1w: np.ndarray) -> float:
    """Mean displacement over the lattice."""
    back = np.linalg.inv(case.truth)
    off = apply_affine(sodium_to_t1w @ back, case.anatomy.lattice) - case.anatomy.lattice
    return float(np.linalg.norm(off, axis=1).mean())


@dataclass(frozen=True)
class Row:
    """Result of one case: errors and standard deviation in mm, cost in s."""

    kind: str
    seed: int
    found: Coregistration
    error: float
    errors: dict[str, float]
    cpu_s: float
    wall_s: float

    def __str__(self) -> str:
        scores = {opinion.name: opinion.score for opinion in self.found.opinions}
        each = "  ".join(f"{name} {error:.2f} ({scores[name]:.4f})" for name, error in self.errors.items())
        return (
            f"{self.kind:<9}{self.seed:3d}  error {self.error:.3f}  {self.found.chosen:<8}  sd {self.found.sd_mm:.2f}  "
            f"apart {self.found.disagreement_mm:.2f}  {'FLAGGED  ' if self.found.flagged else ''}{each}  "
            f"mirror {self.found.mirror_margin:+.2f}  {self.cpu_s:.1f} CPU s"
        )


def measure(kind: str, seed: int, case: Case) -> Row:
    """Register one case and compare with its truth."""
    before, started = _cpu_s(), time.monotonic()
    found = register_sodium(case.sodium, case.affine, case.t1w, case.anatomy.affine, case.anatomy.brain)
    cpu_s, wall_s = _cpu_s() - before, time.monotonic() - started
    errors = {held.name: error_mm(case, held.matrix) for held in found.opinions if held.matrix is not None}
    return Row(kind, seed, found, error_mm(case, found.sodium_to_t1w), errors, cpu_s, wall_s)


def _cpu_s() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def summary(rows: list[Row]) -> str:
    """Table of errors by kind of case and estimate."""
    lines = ["kind      estimate   n  median    p90  worst  >1 mm  >1.5 mm unflagged  flagged  rms(error/sd)  CPU s"]
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        for name in ("taken", "ants", "greedy", "contrast"):
            errors = np.array([row.error if name == "taken" else row.errors.get(name, np.nan) for row in of_kind])
            flagged = np.array([row.found.flagged for row in of_kind])
            ratio = np.sqrt(np.mean((errors / [row.found.sd_mm for row in of_kind]) ** 2))
            lines.append(
                f"{kind:<10}{name:<9}{len(errors):3d}{np.nanmedian(errors):8.3f}{np.nanpercentile(errors, 90):7.3f}"
                f"{np.nanmax(errors):7.3f}{np.sum(errors > 1):7d}{np.sum((errors > 1.5) & ~flagged):19d}"
                f"{flagged.sum():9d}{ratio:15.2f}{np.mean([row.cpu_s for row in of_kind]):7.1f}"
            )
    return "\n".join(lines)


def cases(n_ordinary: int, n_stress: int) -> Iterator[tuple[str, int, Case]]:
    """All cases, heads in turn."""
    for kind, make, count in (("ordinary", ordinary, n_ordinary), ("stress", stress, n_stress)):
        for seed in range(count):
            yield kind, seed, make((template_anatomy, colin_anatomy)[seed % 2](), seed)


def main(n_ordinary: int, n_stress: int) -> None:
    """Measure all cases, a line for each, then the table."""
    rows = []
    for case in cases(n_ordinary, n_stress):
        rows.append(measure(*case))
        print(rows[-1], flush=True)
    print(summary(rows))


if __name__ == "__main__":
    main(*(int(sys.argv[n]) if len(sys.argv) > n else default for n, default in ((1, 60), (2, 40))))
