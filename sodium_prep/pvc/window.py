"""Which window a scanner put on k-space, and how far it went, told from the noise in the air of its image.

Noise enters every sample of k-space alike, so the power spectrum of the noise in an image is the density compensation
times the square of the window (:func:`sodium_prep.recon.noise.noise_power_spectrum`). What can be measured is the
autocovariance of the air at small distances. Of zero-mean data it is the transform of that spectrum. Of magnitudes the
squares are taken: their autocorrelation is the square of that of the complex noise, for one channel (Goodman, Speckle
Phenomena in Optics, 2007) and for a root sum of squares over channels alike, so their spectrum is that of the complex
noise convolved with itself. Tapered and transformed back (Blackman and Tukey, Bell Syst Tech J 1958;37:185) it gives a
smooth spectrum, to be compared with what each window would give in the same air.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition, FilterName
from sodium_prep.physics.readout import describe_window
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.pvc.psf import RELATIVE_WIDTH_SD, psf_fwhm_mm
from sodium_prep.quant.noise import background_mask, measure_floor
from sodium_prep.recon.noise import noise_power_spectrum

Array = NDArray[np.float64]

_LAGS_PER_RESOLUTION: Final = 8.0
_MOST_LAGS: Final = 16
_LOCAL_MM: Final = 25.0
_FIRST_BIN: Final = 0.5
"""Nearer to the centre of k-space, streaks of the object add to the noise."""
_BIN: Final = 0.1
_MODEL_ERROR: Final = 0.07
_FLOOR: Final = 0.02
_ACCEPTED: Final = 2.5
_MARGIN: Final = 9.0
_TIE: Final = 4.0
_WIDTH_RANGE: Final = 0.12
_SCALES: Final = tuple(float(s) for s in np.round(1.06 ** np.arange(-9, 10), 3))
_SIMPLE: Final[tuple[FilterName, ...]] = ("none", "hamming", "hann")
_STATIC: Final = Relaxation(0.06, 1e6)


@dataclass(frozen=True)
class Spectrum:
    """Smoothed power spectrum of the noise on radial bins, with what a model needs for the same.

    Attributes
    ----------
    power : (n_bins,)
        Relative to its mean.
    relative_sd : (n_bins,)
        Standard error from the limited air, as a share.
    bins : (2 l + 1, ...) int
        Bin of each frequency, -1 for those left out.
    pairs : (2 l + 1, ...)
        Taper times the share of pairs of air voxels at each distance.
    voxel_mm
        Of the image.
    squares
        Whether it is that of squared magnitudes.
    """

    power: Array
    relative_sd: Array
    bins: NDArray[np.int64]
    pairs: Array
    voxel_mm: tuple[float, float, float]
    squares: bool


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
    *,
    squares: bool,
) -> Spectrum:
    """Radial power spectrum of the noise in air.

    Parameters
    ----------
    images : each (X, Y, Z)
        Runs on one grid. With two or more, what they have in common is no noise and is taken away.
    air : (X, Y, Z) bool
        Where there is nothing but noise.
    voxel_mm, resolution_mm
        Of the image, and nominal.
    squares
        For magnitudes; otherwise the image is taken as zero-mean.
    """
    voxel = np.asarray(voxel_mm)
    noise = [_fluctuation(image, air, voxel, squares=squares) for image in images]
    if len(noise) > 1:
        noise = list((np.stack(noise) - np.mean(noise, axis=0)) * np.sqrt(len(noise) / (len(noise) - 1.0)))
    reach = _LAGS_PER_RESOLUTION * np.asarray(resolution_mm) / voxel
    lags = [int(lag) for lag in np.clip(np.rint(reach), 4, _MOST_LAGS)]
    shape = [scipy.fft.next_fast_len(n + lag) for n, lag in zip(air.shape, lags, strict=True)]
    pick = np.ix_(*(np.arange(-lag, lag + 1) % n for n, lag in zip(shape, lags, strict=True)))
    taper = np.ones(())
    for lag in lags:
        taper = np.multiply.outer(taper, 1.0 - np.abs(np.arange(-lag, lag + 1)) / (lag + 1.0))
    products = np.mean([_products(one, shape)[pick] for one in noise], axis=0) / air.sum()
    pairs = _products(air.astype(np.float64), shape)[pick] / air.sum() * taper
    power = _to_spectrum(products * taper)
    axes = [np.fft.fftfreq(2 * lag + 1, v) * 2.0 * r for lag, v, r in zip(lags, voxel, resolution_mm, strict=True)]
    radius = np.sqrt(sum(k**2 for k in np.meshgrid(*axes, indexing="ij", sparse=True)))
    bins = np.where(radius >= _FIRST_BIN, ((radius - _FIRST_BIN) / _BIN).astype(np.int64), -1)
    _, bins = np.unique(bins, return_inverse=True)
    bins = bins.reshape(radius.shape) - 1
    cells = np.bincount(bins[bins >= 0])
    runs = max(len(images) - 1, 1)
    free = runs * air.sum() / np.sum(taper**2) * cells  # degrees of freedom, each frequency sharing with its mirror
    found = _radial(power, bins)
    return Spectrum(found / found.mean(), np.sqrt(2.0 / free), bins, pairs, voxel_mm, squares)


def _fluctuation(image: NDArray[np.floating], air: NDArray[np.bool_], voxel_mm: Array, *, squares: bool) -> Array:
    """Air relative to its local level, so that a receive profile does not matter; zero elsewhere."""
    values = np.where(air, image, 0.0).astype(np.float64) ** (2 if squares else 1)

    def local(data: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(data, _LOCAL_MM / voxel_mm, mode="constant"))

    share = np.maximum(local(air.astype(np.float64)), 1e-9)
    values = np.where(air, values - local(values) / share, 0.0)
    spread = np.sqrt(local(values**2) / share)
    return np.asarray(np.where(air & (spread > 0.0), values / np.maximum(spread, 1e-300), 0.0))


def _products(values: Array, shape: Sequence[int]) -> Array:
    """Sum over voxels of the products of values at each distance."""
    return np.asarray(scipy.fft.irfftn(np.abs(scipy.fft.rfftn(values, shape)) ** 2, shape))


def _to_spectrum(covariance: Array) -> Array:
    return np.asarray(scipy.fft.fftn(np.fft.ifftshift(covariance)).real)


def _radial(power: Array, bins: NDArray[np.int64]) -> Array:
    kept = bins >= 0
    return np.asarray(np.bincount(bins[kept], power[kept]) / np.bincount(bins[kept]))


def expected_spectrum(spectrum: Spectrum, acquisition: Acquisition) -> Array:
    """What the spectrum would be for an acquisition; (n_bins,), relative to its mean."""
    edges = spectrum.pairs.shape
    grid = [scipy.fft.next_fast_len(2 * n) for n in edges]
    power = noise_power_spectrum((grid[0], grid[1], grid[2]), spectrum.voxel_mm, acquisition)
    pick = np.ix_(*(np.arange(-(n // 2), n // 2 + 1) % g for n, g in zip(edges, grid, strict=True)))
    correlation = scipy.fft.ifftn(power.astype(np.float64)).real[pick]
    correlation /= correlation[tuple(n // 2 for n in edges)]
    found = _radial(_to_spectrum((correlation**2 if spectrum.squares else correlation) * spectrum.pairs), spectrum.bins)
    return np.asarray(found / found.mean())


def misfit(spectrum: Spectrum, acquisition: Acquisition) -> float:
    """Sum over bins of the squared logarithm of found over expected power, over its variance.

    The variance holds the limited air and 10 % for what no model of a scanner's reconstruction has. Power below 2 % of
    the highest counts as that much: there, interpolation and rounding reign.
    """
    found, expected = spectrum.power, expected_spectrum(spectrum, acquisition)
    floor = _FLOOR * max(float(found.max()), float(expected.max()))
    ratio = np.log(np.maximum(found, floor) / np.maximum(expected, floor))
    variance = spectrum.relative_sd**2 + _MODEL_ERROR**2
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

    Of the windows that fit (misfit below 2.5 per bin, and within 9 of the best) the simplest of the best is taken, if
    the PSFs of all of them are equally wide to 12 %. If none fits, other resolutions are tried.

    Parameters
    ----------
    spectrum
        From :func:`air_spectrum`.
    acquisition
        Its window is ``unknown`` if one is sought. A stated window is kept, whatever the noise says of it.
    """
    stated = None if acquisition.kspace_filter == "unknown" else acquisition
    if stated is not None and misfit(spectrum, stated) <= _ACCEPTED * spectrum.power.size:
        return WindowEstimate(stated, RELATIVE_WIDTH_SD, {}, None, "")
    tried = [(misfit(spectrum, one), one) for one in windows(acquisition)]
    misfits: dict[str, float] = {}
    for value, one in tried:
        misfits[one.kspace_filter] = min(value / spectrum.power.size, misfits.get(one.kspace_filter, np.inf))
    fitting = [name for name, value in misfits.items() if value <= _ACCEPTED]
    if stated is not None or not fitting:
        simple = [replace(acquisition, kspace_filter=name) for name in _SIMPLE]
        factor = _other_resolution(spectrum, [stated] if stated else simple)
        sd = float(np.hypot(RELATIVE_WIDTH_SD, 0.0 if factor is None else factor - 1.0))
        return WindowEstimate(stated, sd, misfits, factor, _disagreement(acquisition, fitting, factor))
    best = min(value for value, _ in tried)
    alike = [(value, one, _width(one)) for value, one in tried if value < best + _MARGIN]
    _, chosen, width = next(entry for entry in alike if entry[0] < best + _TIE)
    off = max(abs(other / width - 1.0) for _, _, other in alike)
    sd = float(np.hypot(RELATIVE_WIDTH_SD, 0.5 * off))
    if off > _WIDTH_RANGE:
        kinds = " and ".join(dict.fromkeys(one.kspace_filter for _, one, _ in alike))
        text = f"KSpaceFilter is not known, and noise cannot tell it: {kinds} fit alike. State it."
        return WindowEstimate(None, sd, misfits, None, text)
    text = f"KSpaceFilter is not known; the noise of the image is that of {describe_window(chosen)}, which was taken."
    return WindowEstimate(chosen, sd, misfits, None, text)


def _disagreement(acquisition: Acquisition, fitting: Sequence[str], factor: float | None) -> str:
    nominal = " x ".join(f"{size:.3g}" for size in acquisition.nominal_resolution_mm)
    known = acquisition.kspace_filter != "unknown"
    text = f"The noise of the image is not that of a nominal resolution of {nominal} mm with "
    text += describe_window(acquisition) if known else "any known window"
    could = []
    if factor is not None:
        could.append(" x ".join(f"{factor * size:.2g}" for size in acquisition.nominal_resolution_mm) + " mm")
    could += [f"a window of the kind {' or '.join(fitting)}"] if fitting else []
    text += f"; {', or '.join(could)}, would fit" if could else ", nor of another resolution"
    return text + ". Check NominalResolution and KSpaceFilter."


def read_window(
    images: Sequence[NDArray[np.floating]], affine: Array, acquisition: Acquisition, where: str
) -> WindowEstimate:
    """Find or check the window from the images of a series as the scanner stored them.

    Parameters
    ----------
    images : each (X, Y, Z)
        Runs; those on another grid than the first are left out.
    affine : (4, 4)
        Of the first.
    acquisition
        See :func:`estimate_window`.
    where
        The file, for messages.
    """
    first = images[0]
    stated = None if acquisition.kspace_filter == "unknown" else acquisition
    try:
        air = background_mask(first, affine, where=where)
    except InputError as error:
        lack = f"KSpaceFilter is not known, and noise cannot tell it: {error.problem}. State it."
        return WindowEstimate(stated, RELATIVE_WIDTH_SD, {}, None, "" if stated else lack)
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    alike = [image for image in images if image.shape == first.shape]
    squares = measure_floor(first, air).law != "zero-mean"
    spectrum = air_spectrum(alike, air, (x, y, z), acquisition.nominal_resolution_mm, squares=squares)
    return estimate_window(spectrum, acquisition)


def _other_resolution(spectrum: Spectrum, candidates: Sequence[Acquisition]) -> float | None:
    found = [(misfit(spectrum, _scaled(one, scale)), scale) for one in candidates for scale in _SCALES]
    value, scale = min(found)
    good = value <= _ACCEPTED * spectrum.power.size and scale not in (_SCALES[0], _SCALES[-1])
    return scale if good else None


def _scaled(acquisition: Acquisition, scale: float) -> Acquisition:
    x, y, z = acquisition.nominal_resolution_mm
    return replace(acquisition, nominal_resolution_mm=(scale * x, scale * y, scale * z))


def _width(acquisition: Acquisition) -> float:
    return psf_fwhm_mm(replace(acquisition, readout_duration_s=0.0), _STATIC)
