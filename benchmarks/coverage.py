"""How often the 95 % intervals of the table hold the truth, over simulated scans in which everything is uncertain.

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.coverage [SCANS]

In every scan these are drawn anew, each from the distribution that the intervals assume: image noise (WM SNR 20, with
its correlation), signals and concentrations of four vials, relaxation times of every tissue, width of the PSF, position
of the head, errors of the tissue fractions, and the concentrations themselves. The image is made from the changed head
by the changed acquisition; the table is made with the unchanged ones. Printed for each region: bias, spread and mean
standard error in %, and the part of intervals that hold the truth (200 scans know it to 1.5 %).
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import scipy.fft

from benchmarks.tissue_fractions import make_study
from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.phantom.protocol import CONCENTRATIONS_MM
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation
from sodium_prep.physics.signal import signal_factor
from sodium_prep.pvc.compartments import Compartments, build_compartments
from sodium_prep.pvc.estimators import fit_mask
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.fraction_errors import BORDER_SD, BORDERS, FLUID_SD, moved_volumes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import FWHM_PER_SD, PsfModel
from sodium_prep.pvc.refine import _moved
from sodium_prep.quant.calibration import fit_calibration
from sodium_prep.recon.noise import noise_power_spectrum
from sodium_prep.regional.signals import REGISTRATION_SD_MM, regional_signals
from sodium_prep.regional.table import regional_table

ACQUISITION = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (4.0, 4.0, 4.0))
PSF = PsfModel("acquisition", ACQUISITION)
RELAXATION = {tissue: tissue_relaxation(tissue, 3.0) for tissue in TISSUES}
SHAPE, VOXEL_MM, GAIN, WM_SNR, VOXEL_T1W_MM = (50, 56, 48), 4.0, 10.0, 20.0, 2
AFFINE = np.diag([VOXEL_MM] * 3 + [1.0])
AFFINE[:3, 3] = (-98.0, -128.0, -86.0)
VIALS_MM, VIAL_SD_MM, VIAL_NOISE = np.array([20.0, 50.0, 80.0, 110.0]), 0.5, 0.003
ROWS = (("Cortex", "both"), ("WhiteMatter", "both"), ("Hippocampus", "L"), ("Hippocampus", "R"),
        ("ctx-lh-precentral", "L"), ("ctx-rh-precentral", "R"))  # fmt: skip
ESTIMATORS = ("labbe", "joint")


class ChangedPsf:
    """The acquisition with a PSF that is wider by a part of its width."""

    def __init__(self, wider: float) -> None:
        self.wider, self.cutoff_per_mm = wider, PSF.cutoff_per_mm

    def mtf(self, k, relaxation, cell=(0.0, 0.0, 0.0)):
        sd_mm = PSF.width_mm(relaxation) / FWHM_PER_SD
        return PSF.mtf(k, relaxation, cell) * np.exp(-4 * np.pi**2 * sd_mm**2 * np.sum(k**2, axis=-1) * self.wider)


def head() -> Compartments:
    """The phantom's head with true fractions, cortical parcels of a side in one but for the precentral gyrus."""
    study = make_study(VOXEL_T1W_MM)
    fine = build_compartments(
        study.gm, study.wm, study.csf, study.brain, study.head, study.t1w, study.labels, load_atlas().table,
        study.affine,
    )  # fmt: skip
    out = Compartments([], [], [], [], [], fine.shape, fine.affine)
    groups: dict[tuple, list[int]] = {}
    for i, name in enumerate(fine.names):
        own = fine.kinds[i] == "nuisance" or "precentral" in name or fine.structures[i] == "hippocampus"
        key = (name, i) if own else (fine.structures[i], fine.hemispheres[i], fine.tissues[i])
        groups.setdefault(key, []).append(i)
    for members in groups.values():
        i = members[0]
        voxels, weights = (np.concatenate([column[j] for j in members]) for column in (fine.voxels, fine.weights))
        out.append(
            fine.names[i], fine.tissues[i], fine.kinds[i], voxels, weights, index=fine.indices[i],
            hemisphere=fine.hemispheres[i], structure=fine.structures[i],
        )  # fmt: skip
    return out


class Scanner:
    """Draws scans of one head."""

    def __init__(self, seed: int = 1) -> None:
        self.rng, self.head = np.random.default_rng(seed), head()
        self.blurred = push_compartments(self.head, np.eye(4), SHAPE, AFFINE, PSF, RELAXATION, voxel_kernel="mean")
        self.mask = fit_mask(self.blurred, self.head.names, self.head.kinds, np.ones(SHAPE, bool))
        spectrum = noise_power_spectrum(SHAPE, (VOXEL_MM,) * 3, ACQUISITION)
        white = GAIN * CONCENTRATIONS_MM["wm"] * float(signal_factor(ACQUISITION, RELAXATION["WM"]))
        self.noise = Noise(np.full(SHAPE, white / WM_SNR, np.float32), spectrum)

    def relaxation(self):
        """Relaxation times as they might be."""
        out = {}
        for tissue, r in RELAXATION.items():
            names = ("t1_s", "t2star_slow_s", "t2star_fast_s", "fraction_fast")
            drawn = {n: getattr(r, n) + getattr(r, f"{n[:-2]}_sd_s" if n.endswith("_s") else f"{n}_sd") *
                     self.rng.standard_normal() for n in names}  # fmt: skip
            out[tissue] = replace(r, **drawn)
        return out

    def concentrations(self, spread: float = 0.05):
        """Of every compartment; those without a name in the phantom's list are bone, skin and the like."""
        c = self.head
        usual = {"soft": CONCENTRATIONS_MM["soft"], "oute": 90.0, "rest": 3.0, "eye-": 113.0}
        base = [CONCENTRATIONS_MM.get(s) or usual[n[:4]] for s, n in zip(c.structures, c.names, strict=True)]
        return np.array(base) * (1.0 + spread * self.rng.standard_normal(len(base)))

    def changed_fractions(self, signals):
        """Signal density of each tissue with the fractions as they might be; flat, on the T1w grid."""
        c, n = self.head, int(np.prod(self.head.shape))
        density = {tissue: np.zeros(n) for tissue in sorted(set(c.tissues))}
        for i, tissue in enumerate(c.tissues):
            density[tissue][c.voxels[i]] += c.weights[i] * signals[i]
        inside = np.argwhere(self.mask)
        low, high = inside.min(axis=0), inside.max(axis=0)
        moved = moved_volumes(c, signals)
        for pair in range(len(BORDERS) + 1):
            voxels = moved.voxels[2 * pair]
            at = np.stack(np.unravel_index(voxels, c.shape))
            at = np.linalg.solve(AFFINE, c.affine)[:3, :3] @ at + np.linalg.solve(AFFINE, c.affine)[:3, 3:]
            slope = np.clip(2.0 * (at - low[:, None]) / (high - low)[:, None] - 1.0, -1.0, 1.0)
            if pair < len(BORDERS):
                amount = BORDER_SD * (self.rng.standard_normal() + self.rng.standard_normal(3) @ slope)
            else:
                amount = FLUID_SD * VOXEL_T1W_MM**2 * self.rng.standard_normal()
            density[moved.tissues[2 * pair]][voxels] += amount * moved.weights[2 * pair]
            density[moved.tissues[2 * pair + 1]][voxels] -= amount * moved.weights[2 * pair + 1]
        return density

    def scan(self):
        """Image, calibration line and true concentrations of one scan."""
        rng, c = self.rng, self.head
        relaxations, tsc_mM = self.relaxation(), self.concentrations()
        factors = {tissue: float(signal_factor(ACQUISITION, r)) for tissue, r in relaxations.items()}
        density = self.changed_fractions(tsc_mM * GAIN * np.array([factors[t] for t in c.tissues]))
        seen = Compartments([], [], [], [], [], c.shape, c.affine)
        for tissue, values in density.items():
            voxels = np.flatnonzero(values)
            seen.append(tissue, tissue, "region", voxels, values[voxels])
        place = _moved(np.eye(4), REGISTRATION_SD_MM * rng.standard_normal(6), AFFINE, np.array(SHAPE) / 2)
        psf = ChangedPsf(PSF.relative_width_sd * rng.standard_normal())
        image = push_compartments(seen, place, SHAPE, AFFINE, psf, relaxations, voxel_kernel="mean").sum(axis=0)
        white = scipy.fft.fftn(rng.standard_normal(SHAPE)) * np.sqrt(self.noise.spectrum)
        image = image.reshape(SHAPE) + self.noise.sd * scipy.fft.ifftn(white).real
        true = VIALS_MM + VIAL_SD_MM * rng.standard_normal(VIALS_MM.size)
        noise = VIAL_NOISE * GAIN * 100.0
        line = fit_calibration(
            VIALS_MM, GAIN * true + noise * rng.standard_normal(true.size), np.full(true.size, noise),
            x_sd=np.full(true.size, VIAL_SD_MM),
        )  # fmt: skip
        return image, line, tsc_mM

    def table(self, image, line):
        """Rows of the table, made without knowing what was drawn."""
        found = regional_signals(
            image, AFFINE, self.noise, self.head, np.eye(4), ACQUISITION, RELAXATION, PSF, blurred=self.blurred,
            estimators=ESTIMATORS, voxel_kernel="mean",
        )  # fmt: skip
        return found, regional_table(found, {"vials": line})


def main(scans: int) -> None:
    started = time.monotonic()
    scanner = Scanner()
    found: dict[tuple, list[tuple[float, ...]]] = {}
    for number in range(1, scans + 1):
        image, line, tsc_mM = scanner.scan()
        signals, rows = scanner.table(image, line)
        volumes = scanner.head.volumes_mm3
        for name, side in ROWS:
            region = next(r for r in signals.regions if (r.name, r.hemisphere) == (name, side))
            members = list(region.members)
            true = float(volumes[members] @ tsc_mM[members] / volumes[members].sum())
            for estimator in ESTIMATORS:
                row = next(r for r in rows if (r["name"], r["hemisphere"], r["estimator"]) == (name, side, estimator))
                held = row["tsc_ci_low"] <= true <= row["tsc_ci_high"]
                one = (row["tsc"] / true - 1, row["tsc_stderr"] / true, held)
                found.setdefault((name, side, estimator), []).append(one)
        print(f"\r{number} of {scans}", end="", flush=True)
    print(f"\nregion                 {'':8}bias %  spread %  stderr %   held by the interval")
    for (name, side, estimator), values in found.items():
        error, stderr, held = np.array(values, float).T
        print(f"{name:18}{side:5}{estimator:7}{100 * error.mean():+7.2f}{100 * np.sqrt(np.mean(error**2)):10.2f}"
              f"{100 * stderr.mean():10.2f}{100 * held.mean():14.1f} %")  # fmt: skip
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
