"""Which window a scanner put on k-space, and how far it went, told from the noise in the air of its image.

Noise enters every sample of k-space alike, so the power spectrum of the noise in an image is the density compensation
times the square of the window (:func:`sodium_prep.recon.noise.noise_power_spectrum`). What can be measured is the
autocorrelation of the squared air at small distances: it is the square of that of the noise, for magnitudes of one
channel (Goodman, Speckle Phenomena in Optics, 2007), for root sums of squares over channels and for real parts alike.
Tapered and transformed (Blackman and Tukey, Bell Syst Tech J 1958;37:185) it gives a smooth spectrum, that of the noise
convolved with itself, to be compared with what each window would give in the same air.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.physics.acquisition import Acquisition, FilterName
from sodium_prep.physics.readout import describe_window
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.pvc.psf import RELATIVE_WIDTH_SD, psf_fwhm_mm
from sodium_prep.quant.noise import bright_objects, measured_voxels
from sodium_prep.recon.noise import noise_power_spectrum

Array = NDArray[np.float64]

_LAGS_PER_RESOLUTION: Final = 8.0
_MOST_LAGS: Final = 16
_LEAST_AIR: Final = 3000
_LEAST_OBJECT_MM3: Final = 3000.0
_MARGINS_MM: Final = (24.0, 12.0)
_AMPLE_AIR: Final = 10000
_LOCAL_MM: Final = 25.0
_FIRST_BIN: Final = 0.1
_FIRST_FITTED: Final = 0.5
"""Nearer to the centre of k-space, streaks of the object add to the noise."""
_LAST_BIN: Final = 2.1
"""Squares of the noise reach to twice kmax."""
_LEAST_BINS: Final = 6
_STREAKS: Final = 1.5
_BIN: Final = 0.1
_MODEL_ERROR: Final = 0.07
_FLOOR: Final = 0.02
_ACCEPTED: Final = 2.5
_ACCEPTED_PLAIN: Final = 6.0
_MARGIN: Final = 9.0
_WIDTH_RANGE: Final = 0.12
_SCALES: Final = tuple(float(s) for s in np.round(1.06 ** np.arange(-9, 10), 3))
_SIMPLE: Final[tuple[FilterName, ...]] = ("none", "hamming", "hann")
_STATIC: Final = Relaxation(0.06, 1e6)


@dataclass(frozen=True)
class Spectrum:
    """Smoothed power spectrum of squared noise on radial bins, with what a model needs for the same.

    Attributes
    ----------
    power : (n_bins,)
        Relative to the mean of the fitted ones.
    relative_sd : (n_bins,)
        Standard error from the limited air, as a share.
    fitted : (n_bins,) bool
        Bins far enough from the centre of k-space to hold noise only.
    bins : (2 l + 1, ...) int
        Bin of each frequency, -1 for those left out.
    pairs : (2 l + 1, ...)
        Taper times the share of pairs of air voxels at each distance.
    voxel_mm
        Of the image.
    """

    power: Array
    relative_sd: Array
    fitted: NDArray[np.bool_]
    bins: NDArray[np.int64]
    pairs: Array
    voxel_mm: tuple[float, float, float]


@dataclass(frozen=True)
class WindowEstimate:
    """What the noise tells of the window.

    Attributes
    ----------
    acquisition
        With the window to use: the one stated, or the one found; None if none fits or several do that differ.
    relative_width_sd
        Standard uncertainty of the width of the PSF, as a share of it.
    misfits
        Mean square misfit of each kind of window at the nominal resolution, in units of its expectation.
    resolution_factor
        Resolution that the noise shows over the nominal one, where the nominal one does not fit; otherwise None.
    statement
        For the user, in a sentence; empty if the noise agrees with what was stated.
    """

    acquisition: Acquisition | None
    relative_width_sd: float
    misfits: dict[str, float]
    resolution_factor: float | None
    statement: str


def air_spectrum(
    images: Sequence[NDArray[np.floating]],
    air: NDArray[np.bool_],
    voxel_mm: tuple[float, float, float],
    resolution_mm: tuple[float, float, float],
) -> Spectrum:
    """Radial power spectrum of the squared noise in air.

    Parameters
    ----------
    images : each (X, Y, Z)
        Magnitudes or real parts of runs on one grid.
    air : (X, Y, Z) bool
        Where there is nothing but noise.
    voxel_mm, resolution_mm
        Of the image, and nominal.
    """
    voxel = np.asarray(voxel_mm)
    reach = _LAGS_PER_RESOLUTION * np.asarray(resolution_mm) / voxel
    lags = [int(lag) for lag in np.clip(np.rint(reach), 4, _MOST_LAGS)]
    shape = [scipy.fft.next_fast_len(n + lag) for n, lag in zip(air.shape, lags, strict=True)]
    pick = np.ix_(*(np.arange(-lag, lag + 1) % n for n, lag in zip(shape, lags, strict=True)))
    taper = np.ones(())
    for lag in lags:
        taper = np.multiply.outer(taper, 1.0 - np.abs(np.arange(-lag, lag + 1)) / (lag + 1.0))
    products = np.mean([_products(_fluctuation(one, air, voxel), shape)[pick] for one in images], axis=0) / air.sum()
    pairs = _products(air.astype(np.float64), shape)[pick] / air.sum() * taper
    power = _to_spectrum(products * taper)
    axes = [np.fft.fftfreq(2 * lag + 1, v) * 2.0 * r for lag, v, r in zip(lags, voxel, resolution_mm, strict=True)]
    radius = np.sqrt(sum(k**2 for k in np.meshgrid(*axes, indexing="ij", sparse=True)))
    kept = (radius >= _FIRST_BIN) & (radius < _LAST_BIN)
    bins = np.where(kept, ((radius - _FIRST_BIN) / _BIN).astype(np.int64), -1)
    numbers, bins = np.unique(bins, return_inverse=True)
    bins = bins.reshape(radius.shape) - 1
    # Degrees of freedom; each frequency shares its own with its mirror image.
    free = len(images) * air.sum() / np.sum(taper**2) * np.bincount(bins[bins >= 0])
    fitted = _FIRST_BIN + _BIN * (numbers[1:] + 0.5) > _FIRST_FITTED
    found = _radial(power, bins)
    return Spectrum(found / found[fitted].mean(), np.sqrt(2.0 / free), fitted, bins, pairs, voxel_mm)


def _fluctuation(image: NDArray[np.floating], air: NDArray[np.bool_], voxel_mm: Array) -> Array:
    """Squares in air relative to their local level, so that a receive profile does not matter; zero elsewhere."""
    squares = np.where(air, image, 0.0).astype(np.float64) ** 2
    level, share = (
        ndimage.gaussian_filter(data, _LOCAL_MM / voxel_mm, mode="constant") for data in (squares, air.astype(float))
    )
    level = level / np.maximum(share, 1e-9)
    return np.asarray(np.where(air & (level > 0.0), squares / np.maximum(level, 1e-300) - 1.0, 0.0))


def _products(values: Array, shape: Sequence[int]) -> Array:
    """Sum over voxels of the products of values at each distance."""
    return np.asarray(scipy.fft.irfftn(np.abs(scipy.fft.rfftn(values, shape)) ** 2, shape))


def _to_spectrum(covariance: Array) -> Array:
    return np.asarray(scipy.fft.fftn(np.fft.ifftshift(covariance)).real)


def _radial(power: Array, bins: NDArray[np.int64]) -> Array:
    kept = bins >= 0
    return np.asarray(np.bincount(bins[kept], power[kept]) / np.bincount(bins[kept]))


def expected_spectrum(spectrum: Spectrum, acquisition: Acquisition) -> Array:
    """What the spectrum would be for an acquisition; (n_bins,), relative to the mean of the fitted ones."""
    edges = spectrum.pairs.shape
    grid = [scipy.fft.next_fast_len(2 * n) for n in edges]
    power = noise_power_spectrum((grid[0], grid[1], grid[2]), spectrum.voxel_mm, acquisition)
    pick = np.ix_(*(np.arange(-(n // 2), n // 2 + 1) % g for n, g in zip(edges, grid, strict=True)))
    correlation = scipy.fft.ifftn(power.astype(np.float64)).real[pick]
    correlation /= correlation[tuple(n // 2 for n in edges)]
    found = _radial(_to_spectrum(correlation**2 * spectrum.pairs), spectrum.bins)
    return np.asarray(found / found[spectrum.fitted].mean())


def misfit(spectrum: Spectrum, acquisition: Acquisition) -> float:
    """Sum over the fitted bins of the squared logarithm of found over expected power, over its variance.

    The variance holds the limited air and 7 % for what no model of a scanner's reconstruction has. Power below 2 % of
    the highest counts as that much: there, interpolation and rounding reign.
    """
    fitted = spectrum.fitted
    found, expected = spectrum.power[fitted], expected_spectrum(spectrum, acquisition)[fitted]
    floor = _FLOOR * max(float(found.max()), float(expected.max()))
    ratio = np.log(np.maximum(found, floor) / np.maximum(expected, floor))
    variance = spectrum.relative_sd[fitted] ** 2 + _MODEL_ERROR**2
    ratio -= np.sum(ratio / variance) / np.sum(1.0 / variance)
    return float(np.sum(ratio**2 / variance))


def windows(acquisition: Acquisition) -> Iterator[Acquisition]:
    """An acquisition with each of the windows that are tried, the simple ones first."""
    bare = replace(acquisition, filter_cutoff=None, filter_width=None)
    for name in _SIMPLE:
        yield replace(bare, kspace_filter=name)
    for cutoff in np.arange(0.4, 1.21, 0.05):
        yield replace(bare, kspace_filter="gaussian", filter_cutoff=round(float(cutoff), 2))
    for cutoff in np.arange(0.6, 1.01, 0.05):
        for width in (0.02, 0.05, 0.1, 0.15):
            yield replace(bare, kspace_filter="fermi", filter_cutoff=round(float(cutoff), 2), filter_width=width)


def estimate_window(spectrum: Spectrum, acquisition: Acquisition) -> WindowEstimate:
    """Find the window of an image whose trajectory and nominal resolution are known, or check the one that is stated.

    Of the windows that fit (misfit below 2.5 per bin) one without parameters is taken unless another fits better by
    2 per bin; not so if a window that fits as well (within 9 in all) makes a PSF that is wider or narrower by 12 %, nor
    if there is half as much power again near the centre of k-space: streaks there, which a window seems to explain. No
    window is believed with a misfit of up to 6 per bin, if it fits best: streaks make no windowed image look like one
    without. If none fits, other resolutions are tried.

    Parameters
    ----------
    spectrum
        From :func:`air_spectrum`.
    acquisition
        Its window is ``unknown`` if one is sought. A stated window is kept, whatever the noise says of it.
    """
    stated = None if acquisition.kspace_filter == "unknown" else acquisition
    n = int(spectrum.fitted.sum())
    most = _ACCEPTED * n
    if stated is not None and misfit(spectrum, stated) <= most:
        return WindowEstimate(stated, RELATIVE_WIDTH_SD, {}, None, "")
    tried = [(misfit(spectrum, one), one) for one in windows(acquisition)]
    misfits: dict[str, float] = {}
    for value, one in tried:
        misfits[one.kspace_filter] = min(value / n, misfits.get(one.kspace_filter, np.inf))
    best, simple = (min(some, key=lambda entry: entry[0]) for some in (tried, tried[: len(_SIMPLE)]))
    value, chosen = simple if simple[0] < min(best[0] + 2.0 * n, most) else best
    if chosen.kspace_filter == "none":
        most = _ACCEPTED_PLAIN * n
    if stated is not None or value > most:
        return _doubts(spectrum, acquisition, chosen, misfits)
    alike = [one for other, one in tried if other < value + _MARGIN]
    off = max(abs(_width(one) / _width(chosen) - 1.0) for one in alike)
    sd = float(np.hypot(RELATIVE_WIDTH_SD, 0.5 * off))
    if chosen.kspace_filter != "none" and _streaky(spectrum, chosen):
        text = "KSpaceFilter is not known, and noise cannot tell it: streaks of the object cover it. State it."
        return WindowEstimate(None, sd, misfits, None, text)
    if off > _WIDTH_RANGE:
        kinds = " and ".join(dict.fromkeys(one.kspace_filter for one in alike))
        text = f"KSpaceFilter is not known, and noise cannot tell it: {kinds} fit alike. State it."
        return WindowEstimate(None, sd, misfits, None, text)
    text = f"KSpaceFilter is not known; the noise of the image shows {describe_window(chosen)}, which was taken."
    return WindowEstimate(chosen, sd, misfits, None, text)


def _doubts(
    spectrum: Spectrum, acquisition: Acquisition, best: Acquisition, misfits: dict[str, float]
) -> WindowEstimate:
    """What to say where the stated window does not fit, or none does: only what clearly fits in its place."""
    stated = None if acquisition.kspace_filter == "unknown" else acquisition
    factor = _other_resolution(spectrum, [stated] if stated else list(windows(acquisition))[: len(_SIMPLE)])
    fitting, off = [], []
    if factor is not None:
        sizes = " x ".join(f"{factor * size:.2g}" for size in acquisition.nominal_resolution_mm)
        fitting.append(f"that of {sizes} mm")
        off.append(factor - 1.0)
    if min(misfits.values()) <= _ACCEPTED and not _streaky(spectrum, best):
        fitting.append(f"with {describe_window(best)}")
        off.append(_width(best) / _width(stated or best) - 1.0)
    if stated is not None and not fitting:
        return WindowEstimate(stated, RELATIVE_WIDTH_SD, misfits, None, "")
    nominal = " x ".join(f"{size:.3g}" for size in acquisition.nominal_resolution_mm)
    text = f"The noise of the image is not that of a nominal resolution of {nominal} mm with "
    text += describe_window(stated) if stated else "any known window"
    text += f", but {' or '.join(fitting)}" if fitting else ", nor of another resolution"
    sd = float(np.hypot(RELATIVE_WIDTH_SD, min(map(abs, off), default=0.0)))
    return WindowEstimate(stated, sd, misfits, factor, f"{text}. Check NominalResolution and KSpaceFilter.")


def _streaky(spectrum: Spectrum, acquisition: Acquisition) -> bool:
    """Whether there is clearly more power near the centre of k-space than noise would have."""
    excess = np.log(spectrum.power / expected_spectrum(spectrum, acquisition))[~spectrum.fitted]
    return bool(excess.size and np.exp(excess.mean()) > _STREAKS)


def clear_air(image: NDArray[np.floating], affine: Array) -> NDArray[np.bool_]:
    """Air 24 mm from head and vials if there is ample of it, otherwise 12 mm, with its bright clusters of noise.

    :func:`sodium_prep.quant.noise.background_mask`, which seeks the level of the noise, leaves small objects out too;
    that bends a spectrum.
    """
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    parts, n = ndimage.label(bright_objects(image, affine))
    volumes = np.bincount(parts.ravel(), minlength=n + 1) * float(np.prod(voxel_mm))
    objects = (volumes > _LEAST_OBJECT_MM3)[parts] & (parts > 0)
    allowed = ndimage.binary_erosion(measured_voxels(image), iterations=2, border_value=0)
    distance = ndimage.distance_transform_edt(~objects, sampling=voxel_mm)
    far, near = (allowed & (distance > margin) for margin in _MARGINS_MM)
    return np.asarray(far if far.sum() >= _AMPLE_AIR else near)


def read_window(images: Sequence[NDArray[np.floating]], affine: Array, acquisition: Acquisition) -> WindowEstimate:
    """Find or check the window from the images of a series as the scanner stored them.

    Parameters
    ----------
    images : each (X, Y, Z)
        Runs; those on another grid than the first are left out.
    affine : (4, 4)
        Of the first.
    acquisition
        See :func:`estimate_window`.
    """
    first = images[0]
    stated = None if acquisition.kspace_filter == "unknown" else acquisition
    air = clear_air(first, affine)
    if air.sum() < _LEAST_AIR or np.ptp(first[air]) == 0.0:
        lack = f"KSpaceFilter is not known, and {int(air.sum())} voxels of air are too few to tell it from. State it."
        return WindowEstimate(stated, RELATIVE_WIDTH_SD, {}, None, "" if stated else lack)
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    alike = [image for image in images if image.shape == first.shape]
    spectrum = air_spectrum(alike, air, (x, y, z), acquisition.nominal_resolution_mm)
    if spectrum.fitted.sum() < _LEAST_BINS:
        lack = "KSpaceFilter is not known, and the voxels are too large for noise to tell it. State it."
        return WindowEstimate(stated, RELATIVE_WIDTH_SD, {}, None, "" if stated else lack)
    return estimate_window(spectrum, acquisition)


def _other_resolution(spectrum: Spectrum, candidates: Sequence[Acquisition]) -> float | None:
    """Resolution over the nominal one that fits best, if it fits and lies within the range that is tried."""
    tried = [(scale, _scaled(one, scale)) for one in candidates for scale in _SCALES]
    value, scale, one = min(((misfit(spectrum, one), scale, one) for scale, one in tried), key=lambda entry: entry[0])
    bad = value > _ACCEPTED * spectrum.fitted.sum() or scale in (_SCALES[0], _SCALES[-1])
    return None if bad or _streaky(spectrum, one) else scale


def _scaled(acquisition: Acquisition, scale: float) -> Acquisition:
    x, y, z = acquisition.nominal_resolution_mm
    return replace(acquisition, nominal_resolution_mm=(scale * x, scale * y, scale * z))


def _width(acquisition: Acquisition) -> float:
    return psf_fwhm_mm(replace(acquisition, readout_duration_s=0.0), _STATIC)
