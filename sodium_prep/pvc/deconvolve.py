"""Deconvolution without an anatomy, by one transfer function for all tissues.

These sharpen edges and ripples alike and know of no tissue, so they are offered for comparison only: the transfer
functions of the tissues differ, and what the acquisition did not measure stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.pvc.psf import PsfModel

Array = NDArray[np.float64]
Blur = Callable[[Array], Array]
"""The forward model, taken as its own transpose."""

_PADDING_MM: Final = 32.0


def common_blur(
    shape: tuple[int, int, int], voxel_mm: NDArray[np.floating], psf: PsfModel, relaxation: Relaxation
) -> Blur:
    """Blurring of a whole image by the transfer function of one tissue; nothing lies outside the image.

    Parameters
    ----------
    shape, voxel_mm
        Native grid.
    relaxation
        Of the tissue.
    """
    period = [scipy.fft.next_fast_len(n + int(np.ceil(_PADDING_MM / v))) for n, v in zip(shape, voxel_mm, strict=True)]
    axes = [np.fft.fftfreq(n, v) for n, v in zip(period, voxel_mm, strict=True)]
    axes[2] = np.abs(axes[2][: period[2] // 2 + 1])
    cell = 1.0 / (np.asarray(period) * voxel_mm)
    kernel = psf.mtf(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), relaxation, cell)

    def blur(image: Array) -> Array:
        spectrum = scipy.fft.rfftn(image, period)
        return np.asarray(scipy.fft.irfftn(spectrum * kernel, period)[: shape[0], : shape[1], : shape[2]])

    return blur


def richardson_lucy(image: NDArray[np.floating], blur: Blur, iterations: int = 10) -> Array:
    """Richardson-Lucy deconvolution: ``f <- f h*(y / h*f)`` (J Opt Soc Am 1972;62:55; Astron J 1974;79:745).

    Parameters
    ----------
    image : (X, Y, Z)
        Signal; it is meant for images without negative values, which count as zero.
    iterations
        Each brings out finer detail, and more noise and ripples.
    """
    measured = np.maximum(np.asarray(image, np.float64), 0.0)
    least = min(1e-4, 1e-4 * float(measured.max(initial=0.0)))
    estimate = measured
    for _ in range(iterations):
        predicted = blur(estimate)
        seen = predicted > least
        ratio = np.where(seen, measured / np.where(seen, predicted, 1.0), 0.0)
        estimate = np.maximum(estimate * blur(ratio), 0.0)
    return estimate


def van_cittert(
    image: NDArray[np.floating], blur: Blur, *, step: float = 1.5, stop: float = 0.01, iterations: int = 30
) -> Array:
    """Reblurred Van Cittert deconvolution: ``f <- max(0, f + a h*(y - h*f))``.

    Van Cittert, Z Phys 1931;69:298, with the residual blurred once more so that what the acquisition does not pass is
    left alone (Tohka and Reilhac, NeuroImage 2008;39:1570).

    Parameters
    ----------
    image : (X, Y, Z)
        Signal.
    step
        ``a``; below 2 the iteration does not diverge.
    stop
        Change relative to the image at which to end.
    iterations
        Most iterations.
    """
    measured = np.asarray(image, np.float64)
    size = float(np.linalg.norm(measured))
    estimate = measured
    for _ in range(iterations):
        update = np.maximum(estimate + step * blur(measured - blur(estimate)), 0.0)
        change = float(np.linalg.norm(update - estimate))
        estimate = update
        if change < stop * size:
            break
    return estimate
