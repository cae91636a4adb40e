"""Truth for the tests of reconstruction: ellipsoids in closed form, in both domains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.trajectory import Trajectory, radial_trajectory


@dataclass(frozen=True)
class Ellipsoid:
    value: float
    semi_axes_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_deg: float = 0.0  # about z

    @property
    def _rotation(self):
        c, s = np.cos(np.deg2rad(self.rotation_deg)), np.sin(np.deg2rad(self.rotation_deg))
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    def spectrum(self, k_per_mm):
        """Fourier integral at k (..., 3)."""
        k = np.asarray(k_per_mm, dtype=float)
        q = 2.0 * np.pi * np.linalg.norm(k @ self._rotation * self.semi_axes_mm, axis=-1)
        safe = np.maximum(q, 1e-3)
        shape = np.where(q < 1e-3, 1.0, 3.0 * (np.sin(safe) - safe * np.cos(safe)) / safe**3)
        volume = 4.0 / 3.0 * np.pi * np.prod(self.semi_axes_mm)
        return self.value * volume * shape * np.exp(-2j * np.pi * (k @ np.asarray(self.centre_mm)))

    def depth(self, shape, voxel_mm):
        """Scaled radius of each voxel centre (1 on the surface); voxel N // 2 is the origin."""
        index = np.moveaxis(np.indices(shape), 0, -1) - np.asarray(shape) // 2
        inside = (index * np.asarray(voxel_mm) - self.centre_mm) @ self._rotation
        return np.linalg.norm(inside / np.asarray(self.semi_axes_mm), axis=-1)


def acquisition(trajectory="DA-3DPR", resolution_mm=6.0, linear_fraction=0.2, kspace_filter="none"):
    return Acquisition(0.0003, 0.12, 90.0, 3.0, trajectory, 0.01, (resolution_mm,) * 3, linear_fraction, kspace_filter)


def raw_data(kspace, trajectory: Trajectory, n: int, voxel_mm: float, **more) -> RawData:
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    return RawData(np.asarray(kspace, np.complex64), trajectory, (n,) * 3, (voxel_mm,) * 3, affine, **more)


def small_trajectory(n_spokes=2500, n_samples=220, **kind) -> Trajectory:
    return radial_trajectory(acquisition(**kind), n_spokes, n_samples)


def complex_noise(rng, shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
