"""The analytic head: nested ellipsoids whose k-space is closed form.

The Fourier transform of an ellipsoid with semi-axes a and rotation R about its centre c is
``V 3 (sin q - q cos q) / q^3 exp(-2 pi i k . c)`` with ``q = 2 pi |diag(a) R^T k|`` (Koay et al., MRM 2007;58:430).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from sodium_prep.phantom.protocol import AGAR
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, tissue_relaxation
from sodium_prep.physics.signal import saturation_factor, t2star_factor
from sodium_prep.recon.trajectory import Trajectory

Point = tuple[float, float, float]
_CHUNK: Final = 262_144


@dataclass(frozen=True)
class Ellipsoid:
    """A homogeneous ellipsoid, which takes the place of the one it lies in.

    Attributes
    ----------
    name
        Unique within a head.
    centre_mm, semi_axes_mm
        In the frame of the sodium image (mm from its isocentre).
    concentration_mM, relaxation
        Of what it is filled with.
    inside
        Name of the ellipsoid that wholly surrounds it; None in air. Ellipsoids within the same one must not touch.
    rotation_deg
        About x, y, z, in this order, about the fixed axes.
    """

    name: str
    centre_mm: Point
    semi_axes_mm: Point
    concentration_mM: float  # noqa: N815
    relaxation: Relaxation
    inside: str | None = None
    rotation_deg: Point = (0.0, 0.0, 0.0)

    @property
    def volume_mm3(self) -> float:
        """Volume of the whole ellipsoid, with what lies in it."""
        return float(4.0 / 3.0 * np.pi * np.prod(self.semi_axes_mm))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Rotation, (3, 3)."""
        return np.asarray(Rotation.from_euler("xyz", self.rotation_deg, degrees=True).as_matrix())


_GM, _WM, _CSF = (tissue_relaxation(tissue, 3.0) for tissue in ("GM", "WM", "CSF"))
_SOFT = tissue_relaxation("extracerebral", 3.0)

ANALYTIC_HEAD: Final[tuple[Ellipsoid, ...]] = (
    Ellipsoid("scalp", (0.0, 0.0, 0.0), (80.0, 98.0, 88.0), 15.0, _SOFT),
    Ellipsoid("csf", (0.0, 0.0, 0.0), (71.0, 89.0, 79.0), 140.0, _CSF, "scalp"),
    Ellipsoid("gm", (0.0, 0.0, 0.0), (68.0, 86.0, 76.0), 45.0, _GM, "csf"),
    Ellipsoid("wm", (0.0, 0.0, 0.0), (62.0, 80.0, 70.0), 35.0, _WM, "gm"),
    Ellipsoid("ventricle-left", (-12.0, 6.0, 12.0), (7.0, 26.0, 9.0), 140.0, _CSF, "wm", (0.0, 0.0, -8.0)),
    Ellipsoid("ventricle-right", (12.0, 6.0, 12.0), (7.0, 26.0, 9.0), 140.0, _CSF, "wm", (0.0, 0.0, 8.0)),
    Ellipsoid("hippocampus-left", (-28.0, -18.0, -16.0), (6.0, 19.0, 6.0), 50.0, _GM, "wm", (15.0, 0.0, 10.0)),
    Ellipsoid("hippocampus-right", (28.0, -18.0, -16.0), (6.0, 19.0, 6.0), 50.0, _GM, "wm", (15.0, 0.0, -10.0)),
    Ellipsoid("deep-left", (-16.0, 10.0, -8.0), (9.0, 14.0, 8.0), 42.0, _GM, "wm"),
    Ellipsoid("deep-right", (16.0, 10.0, -8.0), (9.0, 14.0, 8.0), 42.0, _GM, "wm"),
    Ellipsoid("lesion-large", (34.0, 20.0, 30.0), (9.0, 9.0, 9.0), 80.0, _WM, "wm"),
    Ellipsoid("lesion-small", (-34.0, -20.0, 34.0), (4.5, 4.5, 4.5), 80.0, _WM, "wm"),
    Ellipsoid("tube50", (92.0, 62.0, 0.0), (9.0, 9.0, 30.0), 50.0, AGAR),
    Ellipsoid("tube100", (-92.0, 62.0, 0.0), (9.0, 9.0, 30.0), 100.0, AGAR),
)


def ellipsoid_transform(ellipsoid: Ellipsoid, k_per_mm: ArrayLike) -> NDArray[np.complex128]:
    """Fourier transform of an ellipsoid of spin density 1.

    Parameters
    ----------
    k_per_mm : (..., 3)

    Returns
    -------
    (...) in mm^3.
    """
    k = np.asarray(k_per_mm, dtype=np.float64)
    turned = (k @ ellipsoid.matrix) * ellipsoid.semi_axes_mm
    q = 2.0 * np.pi * np.sqrt(np.einsum("...i,...i", turned, turned))
    # Below q = 0.05 the difference cancels; the series is exact to 1e-9 there.
    safe = np.maximum(q, 0.05)
    shape = np.where(q < 0.05, 1.0 - q**2 / 10.0 + q**4 / 280.0, 3.0 * (np.sin(safe) - safe * np.cos(safe)) / safe**3)
    return np.asarray(ellipsoid.volume_mm3 * shape * np.exp(-2j * np.pi * (k @ np.asarray(ellipsoid.centre_mm))))


def analytic_kspace(
    head: Sequence[Ellipsoid], trajectory: Trajectory, acquisition: Acquisition | None = None
) -> NDArray[np.complex64]:
    """k-space of nested ellipsoids.

    Parameters
    ----------
    acquisition
        Gives saturation, echo time and the decay during the readout; None for concentration itself.

    Returns
    -------
    (spokes, samples), in mM mm^3.
    """
    by_name = {ellipsoid.name: ellipsoid for ellipsoid in head}

    def course(ellipsoid: Ellipsoid) -> NDArray[np.float64]:
        if acquisition is None:
            return np.full(trajectory.n_samples, ellipsoid.concentration_mM)
        flip, repetition = acquisition.flip_angle_deg, acquisition.repetition_time_s
        saturation = float(saturation_factor(repetition, flip, ellipsoid.relaxation.t1_s))
        decay = t2star_factor(acquisition.echo_time_s + trajectory.time_s, ellipsoid.relaxation)
        return ellipsoid.concentration_mM * saturation * decay

    total = np.zeros((trajectory.n_readouts, trajectory.n_samples), np.complex64)
    step = max(1, _CHUNK // trajectory.n_samples)
    for ellipsoid in head:
        own = course(ellipsoid) - (course(by_name[ellipsoid.inside]) if ellipsoid.inside else 0.0)
        for first in range(0, trajectory.n_readouts, step):
            spokes = slice(first, first + step)
            total[spokes] += ellipsoid_transform(ellipsoid, trajectory.k_per_mm[spokes]) * own
    return total


def analytic_image(
    head: Sequence[Ellipsoid], shape: tuple[int, int, int], affine: NDArray[np.float64], subsamples: int = 4
) -> NDArray[np.float32]:
    """Concentration averaged over each voxel, from ``subsamples`` points along each of its axes.

    Returns
    -------
    (X, Y, Z) in mM.
    """
    offsets = (np.arange(subsamples) + 0.5) / subsamples - 0.5
    total = np.zeros(shape, np.float64)
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    centre = np.stack(axes, axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    for shift in np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 3):
        total += _concentration_at(head, centre + affine[:3, :3] @ shift)
    return np.asarray(total / subsamples**3, dtype=np.float32)


def _concentration_at(head: Sequence[Ellipsoid], points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Concentration at points (..., 3); an ellipsoid comes after the one it lies in."""
    values = np.zeros(points_mm.shape[:-1])
    for ellipsoid in head:
        local = ((points_mm - ellipsoid.centre_mm) @ ellipsoid.matrix) / ellipsoid.semi_axes_mm
        values[np.einsum("...i,...i", local, local) <= 1.0] = ellipsoid.concentration_mM
    return values
