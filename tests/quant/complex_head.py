"""A head and a vial of known amplitude as complex data, with a smooth phase and white noise of unit deviation."""

from __future__ import annotations

import numpy as np

N, VOXEL_MM = 64, 3.0
SHAPE = (N,) * 3
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
RESOLUTION = (VOXEL_MM,) * 3

_R = (np.moveaxis(np.indices(SHAPE), 0, -1) - N / 2) * VOXEL_MM
HEAD = np.linalg.norm(_R, axis=-1) < 66.0
VIAL = np.linalg.norm(_R - [80.0, 0.0, 0.0], axis=-1) < 12.0
_X, _Y, _Z = np.moveaxis(_R, -1, 0) / 66.0
PHASE = 0.7 + 1.2 * _X - 0.8 * _Y + _Z**2 - _X**2
"""Of coil and off-resonance: 4 rad from side to side of the head, so it wraps."""


def complex_head(amplitude: float, seed: int = 1) -> np.ndarray:
    """Head of the given amplitude, vial of twice that; (64, 64, 64) complex."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)
    return (amplitude * (HEAD + 2.0 * VIAL) + noise) * np.exp(1j * PHASE)
