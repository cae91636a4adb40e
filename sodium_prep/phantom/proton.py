"""The T1w image of a head: tissue contrast, bias field and Rician noise."""

from __future__ import annotations

from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.phantom import grids
from sodium_prep.phantom.concentrations import lesion_factor
from sodium_prep.phantom.individual import IndividualHead
from sodium_prep.phantom.protocol import Lesion

Volume = NDArray[np.float32]

WHITE_MATTER: Final = 1000.0
# CSF outside the brain and bone are equally dark, as on a real T1w: the image does not tell them apart.
SIGNAL: Final[dict[str, float]] = {
    "gm": 0.75,
    "wm": 1.0,
    "csf": 0.3,
    "csf_outer": 0.3,
    "bone": 0.3,
    "soft": 0.6,
    "fat": 1.3,
    "vitreous": 0.35,
}
_BIAS_ORDER: Final = 3


def clean_t1w(head: IndividualHead, voxel_mm: float, lesions: tuple[Lesion, ...] = ()) -> Volume:
    """T1w without bias and noise, as area average of the 1 mm head; white matter has 1000."""
    change = lesion_factor(head, tuple(lesion.on_t1w for lesion in lesions))
    total = sum(
        np.float32(SIGNAL[name]) * values for name, values in head.fractions.items() if name not in ("gm", "wm")
    )
    total = total + change * sum(np.float32(SIGNAL[name]) * head.fractions[name] for name in ("gm", "wm"))
    return np.float32(WHITE_MATTER) * grids.block_average(total, voxel_mm)


def bias_field(shape: tuple[int, ...], peak: float, rng: np.random.Generator) -> Volume:
    """Smooth field of cosines up to third order between ``1 - peak`` and ``1 + peak``."""
    bases = [np.cos(np.pi * np.outer(np.arange(_BIAS_ORDER + 1), (np.arange(n) + 0.5) / n)) for n in shape]
    weights = np.zeros((_BIAS_ORDER + 1,) * 3)
    for order in product(range(_BIAS_ORDER + 1), repeat=3):
        if 0 < sum(order) <= _BIAS_ORDER:
            weights[order] = rng.standard_normal() / sum(order) ** 2
    field = np.einsum("ijk,ix,jy,kz->xyz", weights, *bases, optimize=True)
    field = 2.0 * (field - field.min()) / np.ptp(field) - 1.0
    return np.asarray(1.0 + peak * field, dtype=np.float32)


def scanned_t1w(clean: Volume, bias: Volume, noise: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """Image as the scanner gives it, in whole numbers.

    Parameters
    ----------
    clean, bias : (X, Y, Z)
        From :func:`clean_t1w` and :func:`bias_field`.
    noise
        Standard deviation of each quadrature channel relative to white matter.
    """
    sd = np.float32(noise * WHITE_MATTER)
    signal = clean * bias
    real = signal + sd * rng.standard_normal(clean.shape, dtype=np.float32)
    imaginary = sd * rng.standard_normal(clean.shape, dtype=np.float32)
    return np.asarray(np.rint(np.hypot(real, imaginary)), dtype=np.int16)
