"""Balls and cylinders of known size: where they lie on a grid, and what an acquisition makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sodium_prep.errors import InputError
from sodium_prep.physics.relaxation import Relaxation

Array = NDArray[np.float64]
Mtf = NDArray[np.floating] | Callable[[Array], NDArray[np.floating]]
"""Transfer function: values on the FFT grid of the image, or a function of k vectors (..., 3) in 1/mm."""


@dataclass(frozen=True)
class ReferenceGeometry:
    """A reference object: a ball, or a cylinder if it has a length.

    Attributes
    ----------
    label
        Its name in tables.
    centre_mm
        World coordinates (RAS).
    radius_mm, length_mm
        Inner radius, and inner length of a cylinder (``None``: a ball).
    axis
        Direction of the cylinder; need not be normalised.
    concentration_mM, concentration_sd_mM
        Sodium concentration and its standard uncertainty; ``None`` if not known (yet).
    relaxation
        Relaxation times of the content.
    """

    label: str
    centre_mm: tuple[float, float, float]
    radius_mm: float
    length_mm: float | None = None
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    concentration_mM: float | None = None  # noqa: N815 (the unit)
    concentration_sd_mM: float = 0.0  # noqa: N815 (the unit)
    relaxation: Relaxation | None = None

    def __post_init__(self) -> None:
        if not self.radius_mm > 0 or (self.length_mm is not None and not self.length_mm > 0):
            raise ValueError("radius and length of a reference must be positive")
        if not np.linalg.norm(self.axis) > 0:
            raise ValueError("the axis of a reference must not be zero")

    @property
    def direction(self) -> Array:
        """Unit vector of the axis, shape (3,)."""
        axis = np.asarray(self.axis, dtype=float)
        return np.asarray(axis / np.linalg.norm(axis), dtype=np.float64)

    @property
    def volume_mm3(self) -> float:
        """Volume of the ball or cylinder."""
        if self.length_mm is None:
            return 4.0 / 3.0 * np.pi * self.radius_mm**3
        return float(np.pi * self.radius_mm**2 * self.length_mm)


def signed_distance(geometry: ReferenceGeometry, points_mm: NDArray[np.floating]) -> Array:
    """Distance from the surface, negative inside; points (..., 3) in world mm.

    Beyond a cylinder's rim it is a lower bound.
    """
    d = np.asarray(points_mm, dtype=float) - np.asarray(geometry.centre_mm)
    if geometry.length_mm is None:
        return np.asarray(np.linalg.norm(d, axis=-1) - geometry.radius_mm, dtype=np.float64)
    along = d @ geometry.direction
    across = np.linalg.norm(d - along[..., None] * geometry.direction, axis=-1)
    ends = np.abs(along) - 0.5 * geometry.length_mm
    return np.asarray(np.maximum(across - geometry.radius_mm, ends), dtype=np.float64)


def voxel_centres(shape: tuple[int, int, int], affine: Array) -> Array:
    """World coordinates of all voxel centres, shape (X, Y, Z, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"), axis=-1)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3], dtype=np.float64)


def k_grid(shape: tuple[int, int, int], affine: Array) -> Array:
    """Spatial frequencies of the FFT grid as world vectors in 1/mm, shape (X, Y, Z, 3)."""
    cycles = np.stack(np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"), axis=-1)
    return np.asarray(cycles @ np.linalg.inv(affine[:3, :3]), dtype=np.float64)


def shape_spectrum(geometry: ReferenceGeometry, k_per_mm: Array) -> Array:
    """Fourier transform of the centred object, in mm^3; k vectors (..., 3) in 1/mm.

    Ball: ``V 3 j1(q) / q`` with q = 2 pi k R. Cylinder: ``V (2 J1(q) / q) sinc(k_a L)`` with q = 2 pi k_perp R
    (Bracewell, The Fourier Transform and Its Applications).
    """
    if geometry.length_mm is None:
        q = 2.0 * np.pi * geometry.radius_mm * np.linalg.norm(k_per_mm, axis=-1)
        safe = np.where(q > 1e-6, q, 1.0)
        return np.asarray(
            geometry.volume_mm3 * np.where(q > 1e-6, 3.0 * special.spherical_jn(1, safe) / safe, 1.0), dtype=np.float64
        )
    along = k_per_mm @ geometry.direction
    across = np.linalg.norm(k_per_mm - along[..., None] * geometry.direction, axis=-1)
    q = 2.0 * np.pi * geometry.radius_mm * across
    safe = np.where(q > 1e-6, q, 1.0)
    disc = np.where(q > 1e-6, 2.0 * special.j1(safe) / safe, 1.0)
    return np.asarray(geometry.volume_mm3 * disc * np.sinc(along * geometry.length_mm), dtype=np.float64)


class BlurredObject:
    """Images of balls and cylinders on one grid with one transfer function.

    The spectrum of a ball or cylinder is known in closed form, so neither supersampling nor interpolation is needed:
    ``image = IFFT[ F(k) MTF(k) exp(-2 pi i k.(c - origin)) ] / voxel volume``.

    Parameters
    ----------
    shape, affine
        The grid of the image. Objects must keep from its faces by the reach of the PSF, as the FFT is periodic.
    mtf
        Transfer function, see :data:`Mtf`.
    """

    def __init__(self, shape: tuple[int, int, int], affine: Array, mtf: Mtf) -> None:
        self.k = k_grid(shape, affine)
        transfer = mtf(self.k) if callable(mtf) else mtf
        if transfer.shape != shape:
            raise ValueError(f"the MTF has shape {transfer.shape}, the image {shape}")
        self.origin = affine[:3, 3]
        self.transfer = transfer / abs(np.linalg.det(affine[:3, :3]))

    def image(self, geometry: ReferenceGeometry) -> Array:
        """The blurred object, shape of the grid; 1 deep inside a large one."""
        from scipy import fft

        phase = np.exp(-2j * np.pi * (self.k @ (np.asarray(geometry.centre_mm) - self.origin)))
        spectrum = shape_spectrum(geometry, self.k) * self.transfer * phase
        return np.asarray(fft.ifftn(spectrum, workers=1).real, dtype=np.float64)


def crop_around(
    geometry: ReferenceGeometry, shape: tuple[int, int, int], affine: Array, reach_mm: float
) -> tuple[slice, slice, slice]:
    """Box of voxels that holds the object and ``reach_mm`` around it, cut at the image's faces.

    Raises
    ------
    InputError
        If the centre of the object lies outside the image.
    """
    inverse = np.linalg.inv(affine)
    centre = inverse[:3, :3] @ np.asarray(geometry.centre_mm) + inverse[:3, 3]
    if np.any(centre < -0.5) or np.any(centre > np.asarray(shape) - 0.5):
        raise InputError(
            f"reference {geometry.label}",
            f"its centre {tuple(round(c, 1) for c in geometry.centre_mm)} mm lies outside the sodium image",
            "Check its CentreRAS (world millimetres of the sodium image)",
        )
    half_length = 0.0 if geometry.length_mm is None else 0.5 * geometry.length_mm
    along = np.abs(geometry.direction) * half_length
    reach_world = along + geometry.radius_mm + reach_mm
    reach = np.abs(inverse[:3, :3]) @ reach_world
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, shape).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
