"""Point spread function of a sodium acquisition from its trajectory, readout, window and T2* decay.

A centre-out readout with density compensation images a point as the transform of its modulation transfer function,
``PSF(r) = int 4 pi k^2 M(k) sinc(2 k r) dk`` with ``M(k) = S(t(k)) / S(0) x window`` (Rahmer, Boernert, Groen and Bos,
MRM 2006;55:1075; Konstandin and Nagel, MAGMA 2013). A Gaussian of the same width is not a stand-in: the long tails
that T2* adds carry signal between tissues.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.readout import acquisition_window, readout_time
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import t2star_factor
from sodium_prep.pvc.measured import MeasuredPsf

FWHM_PER_SD: Final = float(np.sqrt(8.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian over its standard deviation."""

RELATIVE_WIDTH_SD: Final = 0.05
"""Standard uncertainty of the width of a PSF that is thought to be known, as a share of it."""

_DECAY_S: Final = np.linspace(0.0, 0.02, 21)
_N_QUADRATURE: Final = 512  # resolves the oscillation out to about 200 nominal voxels


def mtf(k_rel: ArrayLike, acquisition: Acquisition, relaxation: Relaxation) -> NDArray[np.float64]:
    """Modulation transfer function along a radius of k-space.

    Parameters
    ----------
    k_rel
        ``|k| / kmax``, any shape.
    acquisition
        Trajectory, readout, window and echo time.
    relaxation
        T2* of the tissue that is imaged.

    Returns
    -------
    Decay since the echo time, times the window; 1 at k = 0 and 0 beyond kmax. Shape of ``k_rel``.

    Raises
    ------
    ValueError
        If the k-space window of the acquisition is ``unknown``.
    """
    k = np.abs(np.asarray(k_rel, dtype=float))
    inside = np.minimum(k, 1.0)
    time = readout_time(inside, acquisition.trajectory, acquisition.readout_duration_s, acquisition.linear_fraction)
    start = t2star_factor(acquisition.echo_time_s, relaxation)
    decay = t2star_factor(acquisition.echo_time_s + time, relaxation) / start
    return np.asarray(np.where(k <= 1.0, decay * acquisition_window(inside, acquisition), 0.0))


@cache
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, w = np.polynomial.legendre.leggauss(_N_QUADRATURE)
    return x, w


def _quadrature(acquisition: Acquisition) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes and weights on [0, 1], split where the density adaption sets in."""
    split = acquisition.linear_fraction if acquisition.trajectory in ("DA-3DPR", "TPI") else 1.0
    x, w = _legendre()
    edges = [0.0, split, 1.0] if split < 1.0 else [0.0, 1.0]
    pieces = [(a + (b - a) * (x + 1.0) / 2.0, w * (b - a) / 2.0) for a, b in pairwise(edges)]
    return np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces])


def psf_profile(
    r_mm: ArrayLike, acquisition: Acquisition, relaxation: Relaxation, axis: int = 0
) -> NDArray[np.float64]:
    """Point spread function along a line through its centre, parallel to an axis of k-space.

    Parameters
    ----------
    r_mm
        Distances from the centre, mm, any shape.
    axis
        0, 1 or 2; matters only if the nominal resolution differs between axes.

    Returns
    -------
    Values in 1/mm^3 (the function integrates to 1 over space), shape of ``r_mm``.
    """
    r = np.asarray(r_mm, dtype=float)
    kmax = np.asarray(acquisition.kmax_per_mm)
    k, w = _quadrature(acquisition)
    m = mtf(k, acquisition, relaxation)
    x = r.reshape(-1, 1) * kmax[axis]
    if acquisition.trajectory == "Cartesian":
        line = 2.0 * (np.cos(2.0 * np.pi * x * k) @ (m * w))
        others = (2.0 * np.sum(m * w)) ** 2
        values = line * others
    else:
        values = np.sinc(2.0 * x * k) @ (4.0 * np.pi * k**2 * m * w)
    return np.asarray(values * np.prod(kmax)).reshape(r.shape)


def psf_fwhm_mm(acquisition: Acquisition, relaxation: Relaxation, axis: int = 0) -> float:
    """Full width at half maximum of the point spread function along an axis, in mm.

    Without decay and window it is 1.5904 nominal voxels for a centre-out sphere and 1.2067 for a Cartesian box.
    """
    dx = acquisition.nominal_resolution_mm[axis]
    half = 0.5 * float(psf_profile(0.0, acquisition, relaxation, axis))

    def above_half(r_mm: float) -> float:
        return float(psf_profile(r_mm, acquisition, relaxation, axis)) - half

    r = 0.05 * dx
    while above_half(r) > 0.0:
        r += 0.05 * dx
    return 2.0 * float(brentq(above_half, r - 0.05 * dx, r, xtol=1e-10 * dx))


@dataclass(frozen=True)
class PsfModel:
    """What the acquisition does to a point, for every tissue.

    Attributes
    ----------
    kind
        ``acquisition`` computes the transfer function from the physics, each tissue with its own T2*; ``measured``
        takes it from images of a point; ``gaussian`` is one Gaussian for all tissues, meant for images whose
        reconstruction left no physical kernel.
    acquisition
        Needed by ``acquisition``.
    fwhm_mm
        Needed by ``gaussian``.
    measured
        Needed by ``measured``: the decay that each image of a point was made with, or stands for. A content gets the
        one whose decay during the first 20 ms is most like its own.
    relative_width_sd
        Standard uncertainty of its width, as a share of it.
    reason
        Why it is this one, for the records.
    """

    kind: Literal["acquisition", "gaussian", "measured"]
    acquisition: Acquisition | None = None
    fwhm_mm: float | None = None
    measured: tuple[tuple[Relaxation, MeasuredPsf], ...] = ()
    relative_width_sd: float = RELATIVE_WIDTH_SD
    reason: str = ""

    def __post_init__(self) -> None:
        if self.kind == "acquisition":
            if self.acquisition is None:
                raise ValueError("a PSF of kind 'acquisition' needs the acquisition")
            acquisition_window(0.0, self.acquisition)
            readout_time(0.0, self.acquisition.trajectory, 0.0)
        elif self.kind == "measured":
            if not self.measured:
                raise ValueError("a PSF of kind 'measured' needs an image of a point")
        elif self.fwhm_mm is None or not self.fwhm_mm > 0.0:
            raise ValueError("a PSF of kind 'gaussian' needs a positive fwhm_mm")

    @property
    def cutoff_per_mm(self) -> tuple[float, float, float]:
        """Spatial frequency along each axis beyond which the transfer function is zero or negligible."""
        if self.acquisition is not None and self.kind == "acquisition":
            return self.acquisition.kmax_per_mm
        if self.kind == "measured":
            x, y, z = np.max([one.cutoff_per_mm for _, one in self.measured], axis=0).tolist()
            return (x, y, z)
        k = 4.45 * FWHM_PER_SD / (2.0 * np.pi * float(self.fwhm_mm or 0.0))
        return (k, k, k)

    def mtf(
        self, k_vectors_per_mm: ArrayLike, relaxation: Relaxation, cell_per_mm: ArrayLike = (0.0, 0.0, 0.0)
    ) -> NDArray[np.float64]:
        """Transfer function at spatial frequencies along the axes of the sodium image.

        Parameters
        ----------
        k_vectors_per_mm
            Shape (..., 3), 1/mm.
        relaxation
            Of the tissue; a Gaussian does not depend on it.
        cell_per_mm
            Spacing of the frequencies along each axis. The edge at kmax is then spread over the cells that it cuts,
            which keeps the far tails of the PSF from being folded in by the finite period.

        Returns
        -------
        Shape (...), 1 at k = 0.
        """
        k = np.asarray(k_vectors_per_mm, dtype=float)
        if self.kind == "measured":
            return self.measured_for(relaxation).mtf(k)
        if self.kind == "gaussian" or self.acquisition is None:
            sd_mm = float(self.fwhm_mm or 0.0) / FWHM_PER_SD
            return np.asarray(np.exp(-2.0 * np.pi**2 * sd_mm**2 * np.sum(k**2, axis=-1)))
        kmax = np.asarray(self.acquisition.kmax_per_mm)
        relative, cell = np.abs(k / kmax), np.asarray(cell_per_mm, dtype=float) / kmax
        if self.acquisition.trajectory == "Cartesian":
            inside = mtf(np.minimum(relative, 1.0), self.acquisition, relaxation)
            return np.asarray(np.prod(inside * _coverage(relative, cell), axis=-1))
        radius = np.linalg.norm(relative, axis=-1)
        width = np.max(relative * cell, axis=-1) / np.maximum(radius, 1e-12)
        return mtf(np.minimum(radius, 1.0), self.acquisition, relaxation) * _coverage(radius, width)

    def measured_for(self, relaxation: Relaxation) -> MeasuredPsf:
        """Of several measured PSFs the one of the most similar decay."""
        course = t2star_factor(_DECAY_S, relaxation)
        return min(self.measured, key=lambda one: float(np.abs(t2star_factor(_DECAY_S, one[0]) - course).max()))[1]

    def profile(self, r_mm: ArrayLike, relaxation: Relaxation) -> NDArray[np.float64]:
        """Values along the first axis of the sodium image, relative to those at the centre."""
        r = np.asarray(r_mm, dtype=float)
        if self.kind == "measured":
            values = self.measured_for(relaxation).profile(np.append(r, 0.0))
        elif self.kind == "gaussian" or self.acquisition is None:
            values = np.exp(-0.5 * (np.append(r, 0.0) * FWHM_PER_SD / float(self.fwhm_mm or 0.0)) ** 2)
        else:
            values = psf_profile(np.append(r, 0.0), self.acquisition, relaxation)
        return np.asarray(values[:-1] / values[-1])

    def width_mm(self, relaxation: Relaxation) -> float:
        """Full width at half maximum; the mean over the axes of a measured one."""
        if self.kind == "measured":
            return float(np.mean(self.measured_for(relaxation).fwhm_mm))
        if self.kind == "gaussian" or self.acquisition is None:
            return float(self.fwhm_mm or 0.0)
        return psf_fwhm_mm(self.acquisition, relaxation)


def _coverage(k_rel: NDArray[np.float64], width: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a cell of some width around a radius that lies within kmax."""
    inside = 1.0 - k_rel
    return np.where(width > 0.0, np.clip(inside / np.maximum(width, 1e-12) + 0.5, 0.0, 1.0), inside >= 0.0)
