"""A point spread function that was measured, or computed elsewhere, as a small image of a point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import finufft
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.errors import InputError

_TOLERANCE: Final = 1e-6
_MARGIN: Final = 0.25
"""Share of the image along each axis within which the peak must keep from the border."""
_EXTENT_WIDTHS: Final = 4.0
_BORDER_SHARE: Final = 0.03
_BAND_SHARE: Final = 0.6
_ASYMMETRY: Final = 0.1
_NEGLIGIBLE: Final = 2e-3
_HALF_POWER: Final = 0.7


@dataclass(frozen=True, eq=False)
class MeasuredPsf:
    """Image of a point with sum 1, and where in it the point lies.

    Attributes
    ----------
    values : (X, Y, Z)
        Axes as those of the sodium image.
    voxel_mm : (3,)
    centre : (3,)
        Voxel coordinates of the point about which the image is symmetric.
    cutoff_per_mm
        Frequency along each axis from which on the transfer function stays below 0.002.
    fwhm_mm
        Full width at half maximum along each axis, between voxels by the Fourier series of the image.
    """

    values: NDArray[np.float64] = field(repr=False)
    voxel_mm: NDArray[np.float64]
    centre: NDArray[np.float64]
    cutoff_per_mm: tuple[float, float, float]
    fwhm_mm: tuple[float, float, float]

    def mtf(self, k_vectors_per_mm: ArrayLike) -> NDArray[np.float64]:
        """Transfer function at spatial frequencies along the axes of the image; the part that is even in space.

        Parameters
        ----------
        k_vectors_per_mm
            Shape (..., 3). Beyond the frequencies that the image can hold the function is 0.
        """
        k = np.asarray(k_vectors_per_mm, dtype=np.float64)
        cycles = k.reshape(-1, 3) * self.voxel_mm
        held = np.all(np.abs(cycles) <= 0.5 + 1e-9, axis=1)
        out = np.zeros(len(cycles))
        out[held] = _transform(self.values, cycles[held], self.centre).real
        return out.reshape(k.shape[:-1])

    def profile(self, r_mm: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
        """Mean of the values at distances to both sides of the centre along an axis, in 1/mm^3."""
        return _profile(self.values, self.centre, np.asarray(r_mm) / self.voxel_mm[axis], axis) / np.prod(self.voxel_mm)


def measured_psf(
    values: NDArray[np.floating], voxel_mm: ArrayLike, where: object = "PSF", *, own: bool = False
) -> MeasuredPsf:
    """Check the image of a point, scale it to sum 1 and find its centre.

    The centre is the point about which the image is symmetric: the phase of its spectrum at the frequencies that pass
    best, fitted by a plane, starting from the highest voxel. The outer half of the way to the border is faded out,
    because the tails of a sharp cut in k-space do not end, and a sharp end of them would ripple in k-space.

    Parameters
    ----------
    values : (X, Y, Z)
        Image of a point, its axes those of the sodium image.
    voxel_mm : (3,)
        Edges of its voxels.
    where
        File that messages name.
    own
        Whether points were measured at the voxels of the very image that it is for. It may then hold all frequencies
        that the voxels can, as images with a prior do.

    Raises
    ------
    InputError
        If the image cannot be the whole of a point spread function.
    """
    image, voxel = np.array(values, dtype=np.float64, order="C"), np.asarray(voxel_mm, dtype=np.float64)
    if not np.all(np.isfinite(image)):
        raise InputError(where, "has values that are not finite", "Give the image of a point")
    total, shape = float(image.sum()), np.asarray(image.shape)
    if not total > 0.0:
        raise InputError(where, f"sums to {total:.3g}", "Give the image of a point, bright on dark, with its sidelobes")
    image /= total
    peak = np.asarray(np.unravel_index(int(np.argmax(image)), image.shape))
    if np.any(np.minimum(peak, shape - 1 - peak) < _MARGIN * (shape - 1)):
        problem = f"has its peak at voxel {tuple(peak.tolist())} of {image.shape}, far from the middle"
        raise InputError(where, problem, "Cut the image so that the point is in its middle")
    centre = _centre(image, peak)
    widths = tuple(_fwhm(image, voxel, centre, axis) for axis in range(3))
    spectrum = _centred_spectrum(image, centre)
    if not own and (filled := float(np.mean(np.abs(spectrum)))) > _BAND_SHARE:
        problem = f"fills {100 * filled:.0f} % of the spatial frequencies that its voxels can hold"
        raise InputError(where, problem, "Give it on voxels no larger than the nominal resolution, better half of it")
    skew = float(np.sqrt(np.sum(spectrum.imag**2) / np.sum(np.abs(spectrum) ** 2)))
    if skew > _ASYMMETRY:
        problem = f"is not symmetric about its peak ({100 * skew:.0f} % of its spectrum are odd)"
        raise InputError(where, problem, "Give the image of a point on resonance, without noise")
    reach = (np.minimum(centre, shape - 1 - centre) + 0.5) * voxel
    border = np.ones(image.shape, dtype=bool)
    border[1:-1, 1:-1, 1:-1] = False
    rest = float(np.abs(image[border]).max() / image[tuple(peak)])
    if np.any(reach < _EXTENT_WIDTHS * np.asarray(widths)) or rest > _BORDER_SHARE:
        problem = f"ends {reach.min():.3g} mm from its peak, where up to {100 * rest:.2g} % of it are left"
        mend = f"Give at least {_EXTENT_WIDTHS:g} widths at half maximum to each side: the tails carry signal"
        raise InputError(where, problem, mend)
    for axis, (n, v, c) in enumerate(zip(shape, voxel, centre, strict=True)):
        outwards = np.clip(2.0 * np.abs(np.arange(n) - c) * v / reach[axis] - 1.0, 0.0, 1.0)
        image *= np.cos(0.5 * np.pi * outwards).reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
    image /= image.sum()
    return MeasuredPsf(image, voxel, centre, _cutoff(image, voxel), (widths[0], widths[1], widths[2]))


def _transform(
    image: NDArray[np.float64], cycles: NDArray[np.float64], centre: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Fourier sum of the image about its centre at any frequency, (n, 3) in cycles per voxel."""
    if len(cycles) == 0:
        return np.zeros(0, np.complex128)
    angles = np.ascontiguousarray(2.0 * np.pi * cycles.T)
    middle = np.asarray(image.shape) // 2
    raw = finufft.nufft3d2(*angles, image.astype(np.complex128), eps=_TOLERANCE, isign=-1, nthreads=1)
    return np.asarray(raw * np.exp(2j * np.pi * (cycles @ (centre - middle))))


def _centred_spectrum(image: NDArray[np.float64], centre: NDArray[np.floating]) -> NDArray[np.complex128]:
    spectrum = np.fft.fftn(image)
    for axis, (n, c) in enumerate(zip(image.shape, centre, strict=True)):
        turn = np.exp(2j * np.pi * np.fft.fftfreq(n) * c)
        spectrum *= turn.reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(spectrum)


def _centre(image: NDArray[np.float64], peak: NDArray[np.int64]) -> NDArray[np.float64]:
    spectrum = _centred_spectrum(image, peak.astype(np.float64))
    passes = np.abs(spectrum) > _HALF_POWER
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"), axis=-1)[passes]
    weight = np.abs(spectrum[passes])
    slope = np.linalg.lstsq(weight[:, None] * k, weight * np.angle(spectrum[passes]), rcond=None)[0]
    return np.asarray(peak - slope / (2.0 * np.pi))


def _cutoff(image: NDArray[np.float64], voxel_mm: NDArray[np.float64]) -> tuple[float, float, float]:
    passes = np.abs(np.fft.fftn(image)) > _NEGLIGIBLE
    out = []
    for axis, (n, v) in enumerate(zip(image.shape, voxel_mm, strict=True)):
        seen = np.any(passes, axis=tuple(a for a in range(3) if a != axis))
        step = 1.0 / (n * v)
        out.append(min(float(np.abs(np.fft.fftfreq(n, v))[seen].max()) + step, 0.5 / float(v)))
    return out[0], out[1], out[2]


def _profile(
    image: NDArray[np.float64], centre: NDArray[np.float64], distance: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Even part of the Fourier series of the image along an axis through the centre; distances in voxels."""
    along = _centred_spectrum(image, centre).sum(axis=tuple(a for a in range(3) if a != axis)).real / image.size
    waves = np.cos(2.0 * np.pi * np.multiply.outer(distance, np.fft.fftfreq(image.shape[axis])))
    return np.asarray(waves @ along)


def _fwhm(image: NDArray[np.float64], voxel_mm: NDArray[np.float64], centre: NDArray[np.float64], axis: int) -> float:
    distance = np.arange(0.0, image.shape[axis] / 2.0, 0.02)
    values = _profile(image, centre, distance, axis)
    below = np.flatnonzero(values < 0.5 * values[0])
    if below.size == 0:
        return float(voxel_mm[axis] * image.shape[axis])
    around = slice(int(below[0]) - 1, int(below[0]) + 1)
    half = np.interp(-0.5 * values[0], -values[around], distance[around])
    return 2.0 * float(half) * float(voxel_mm[axis])
