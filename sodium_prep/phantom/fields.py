"""Smooth fields of the sodium scanner, all given as functions of position in its frame (mm from the isocentre)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]

_COIL_RING_MM = 150.0
_COIL_REACH_MM = 80.0
_DOME_MM = 100.0


def coil_profiles(points_mm: Points, n_coils: int) -> NDArray[np.complex64]:
    """Receive sensitivities of loops on a ring around the head; their root sum of squares is 1 at the isocentre.

    One coil is a volume coil with the sensitivity 1 everywhere.

    Parameters
    ----------
    points_mm
        (..., 3)
    n_coils
        Number of loops.

    Returns
    -------
    (n_coils, ...) complex64
    """
    if n_coils == 1:
        return np.ones((1, *points_mm.shape[:-1]), np.complex64)
    profiles = np.empty((n_coils, *points_mm.shape[:-1]), np.complex64)
    at_centre = (1.0 + (_COIL_RING_MM / _COIL_REACH_MM) ** 2) ** -1.5
    for coil in range(n_coils):
        angle = 2.0 * np.pi * coil / n_coils
        height = 40.0 * (-1.0) ** coil if n_coils > 4 else 0.0
        loop = np.array([np.cos(angle), np.sin(angle), 0.0]) * np.sqrt(_COIL_RING_MM**2 - height**2)
        loop[2] = height
        distance2 = sum((points_mm[..., a] - loop[a]) ** 2 for a in range(3))
        # As the field on the axis of a loop.
        size = (1.0 + distance2 / _COIL_REACH_MM**2) ** -1.5
        # The phase turns slowly across the head and differs from loop to loop.
        phase = angle + (points_mm[..., 0] * np.sin(angle) - points_mm[..., 1] * np.cos(angle)) / 200.0
        profiles[coil] = size * np.exp(1j * phase) / (at_centre * np.sqrt(n_coils))
    return profiles


def transmit_profile(points_mm: Points, peak: float) -> NDArray[np.float32]:
    """Flip angle relative to nominal: ``1 + peak`` at the isocentre, ``1 - peak`` 100 mm away from it."""
    r2 = sum(points_mm[..., a] ** 2 for a in range(3)) / _DOME_MM**2
    return np.asarray(1.0 + peak * (1.0 - 2.0 * np.minimum(r2, 1.5)), dtype=np.float32)


def off_resonance(points_mm: Points, peak_hz: float) -> NDArray[np.float32]:
    """Frequency offset in Hz: a hump above the nasal cavity and a slope along z, at most ``peak_hz``."""
    x, y, z = (points_mm[..., a] for a in range(3))
    hump = np.exp(-0.5 * ((x / 30.0) ** 2 + ((y - 70.0) / 30.0) ** 2 + ((z + 35.0) / 25.0) ** 2))
    slope = np.clip(-z / 120.0, -1.0, 1.0)
    return np.asarray(peak_hz * (0.7 * hump + 0.3 * slope), dtype=np.float32)
