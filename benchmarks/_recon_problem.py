"""The test problem of ``benchmarks.recon``: an analytic head seen by coils along density-adapted spokes.

8000 spokes of 400 samples, 3 mm on a grid of 80^3: 2.5 times fewer spokes than Nyquist asks for. Nothing is made on the
the grid that it is solved on: sensitivities are sums of plane waves, so a coil sees a sum of shifted closed forms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_image, analytic_kspace
from sodium_prep.phantom.fields import coil_profiles
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.raw import write_exchange, write_ismrmrd
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.readouts import Readouts
from sodium_prep.recon.trajectory import Trajectory, radial_trajectory

SHAPE, VOXEL_MM = (80, 80, 80), (3.0, 3.0, 3.0)
N_SPOKES, N_SAMPLES = 8000, 400
NOISE = 4.0
"""Standard deviation of the noise in the gridded image, mM."""
ARRAY_FILES = ("exchange.h5", "ismrmrd.h5")
_T1W = {"scalp": 0.9, "csf": 0.2, "gm": 0.6, "wm": 1.0, "ventricle": 0.2, "hippocampus": 0.6, "deep": 0.7}
"""Shades of the anatomical image, which does not show lesions and vials."""
_PERIOD_MM = 480.0
_AFFINE = np.diag([*VOXEL_MM, 1.0])
_AFFINE[:3, 3] = [-v * (n // 2) for v, n in zip(VOXEL_MM, SHAPE, strict=True)]


def spokes() -> Trajectory:
    acquisition = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, VOXEL_MM, 0.245)
    return radial_trajectory(acquisition, N_SPOKES, N_SAMPLES)


def positions_mm():
    return np.stack(np.indices(SHAPE), axis=-1) @ _AFFINE[:3, :3] + _AFFINE[:3, 3]


def _waves():
    """Shifts of k-space, and what they are multiplied with for each of 8 or 32 loops around the head."""
    shifts = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]) / _PERIOD_MM
    points = positions_mm()[::4, ::4, ::4].reshape(-1, 3)
    points = points[np.linalg.norm(points / [85.0, 100.0, 90.0], axis=1) < 1.0]
    waves = np.exp(2j * np.pi * points @ shifts.T)
    shares = {1: np.eye(1, len(shifts), dtype=complex)}
    for n_coils in (8, 32):
        shares[n_coils] = np.linalg.lstsq(waves, coil_profiles(points, n_coils).T, rcond=None)[0].T
    return shifts, shares


def make(folder: Path) -> None:
    """Write truth and k-space of one coil per plane wave, without noise, unless they are there."""
    if (folder / "truth.npy").exists():
        return
    trajectory = spokes()
    for number, shift in enumerate(_waves()[0]):
        moved = replace(trajectory, k_per_mm=trajectory.k_per_mm - shift.astype(np.float32))
        np.save(folder / f"wave{number}.npy", analytic_kspace(ANALYTIC_HEAD, moved))
    shades = [replace(e, concentration_mM=_T1W.get(e.name.split("-")[0], 0.0)) for e in ANALYTIC_HEAD]
    np.save(folder / "guide.npy", analytic_image([e for e in shades if e.concentration_mM], SHAPE, _AFFINE, 2))
    np.save(folder / "truth.npy", analytic_image(ANALYTIC_HEAD, SHAPE, _AFFINE))


def make_array(folder: Path) -> None:
    """Write files of a scan by 32 loops, each with its whole profile, unless they are there.

    That its samples are those of an image of voxels does not matter where memory is measured.
    """
    exchange, ismrmrd = (folder / name for name in ARRAY_FILES)
    if ismrmrd.exists():
        return
    trajectory, truth = spokes(), np.load(folder / "truth.npy")
    operator = Readouts(trajectory.k_per_mm, SHAPE, VOXEL_MM)
    profiles = coil_profiles(positions_mm(), 32)
    raw = _noisy(np.stack([operator.forward(truth * profile) for profile in profiles]), trajectory)
    write_exchange(exchange, [raw])
    write_ismrmrd(ismrmrd, raw)


@dataclass
class Problem:
    """A scan with its truth: maps of unit norm, and the image sought, concentration times receive profile."""

    raw: RawData
    maps: np.ndarray
    truth: np.ndarray
    guide: np.ndarray

    def error(self, image, free_scale=False) -> float:
        """Root mean square error in the head over that of an image of zeros."""
        inside = self.truth > 1.0
        found, truth = np.abs(image[inside]), self.truth[inside]
        if free_scale:
            found = found * ((found @ truth) / (found @ found))
        return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def load(folder: Path, n_coils: int) -> Problem:
    shifts, shares = _waves()
    share = shares[n_coils].astype(np.complex64)
    maps = np.zeros((n_coils, *SHAPE), np.complex64)
    for shift, part in zip(shifts, share.T, strict=True):
        wave = np.exp(2j * np.pi * (positions_mm() @ shift)).astype(np.complex64)
        for image, factor in zip(maps, part, strict=True):
            image += factor * wave
    profile = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    maps /= profile
    return Problem(_scan(folder, share), maps, np.load(folder / "truth.npy") * profile, np.load(folder / "guide.npy"))


def _scan(folder: Path, share) -> RawData:
    kspace = np.zeros((len(share), N_SPOKES, N_SAMPLES), np.complex64)
    for number, part in enumerate(share.T):
        if part.any():
            wave = np.load(folder / f"wave{number}.npy")
            for samples, factor in zip(kspace, part, strict=True):
                samples += factor * wave
    return _noisy(kspace, spokes())


def _noisy(kspace, trajectory: Trajectory) -> RawData:
    """With noise put into the samples, and a noise scan."""
    sigma = np.float32(NOISE / gridding_noise_sd(1.0, trajectory))
    rng = np.random.default_rng(0)

    def noise(*shape):
        return sigma * rng.standard_normal((*shape[:-1], 2 * shape[-1]), dtype=np.float32).view(np.complex64)

    for samples in kspace:
        samples += noise(N_SPOKES, N_SAMPLES)
    return RawData(kspace, trajectory, SHAPE, VOXEL_MM, _AFFINE, noise(len(kspace), 20_000), "DA-3DPR")
