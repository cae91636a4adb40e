"""Noise: its standard deviation, the floor it leaves in magnitude images, and how to take that away.

A magnitude from one channel, or from channels combined with known sensitivities, is Rician (Gudbjartsson and Patz,
MRM 1995;34:910); a root sum of squares over L channels of equal, independent noise is non-central chi (Constantinides
et al., MRM 1997;38:852). Other combinations (adaptive, compressed sensing, denoised) follow no known law: their floor
is measured and reported, never subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from sodium_prep.errors import InputError

Array = NDArray[np.float64]
Law = Literal["zero-mean", "rayleigh", "nc-chi", "unknown"]
ImageKind = Literal["magnitude", "real"]

_MIN_BACKGROUND_VOXELS = 200


def nc_chi_mean(amplitude: ArrayLike, sigma: float, n_coils: int = 1) -> Array:
    """Mean of a root sum of squares of ``n_coils`` channels whose true combined amplitude is ``amplitude``.

    ``sigma sqrt(2) Gamma(L + 1/2) / Gamma(L) 1F1(-1/2; L; -A^2 / (2 sigma^2))``.
    """
    a = np.asarray(amplitude, dtype=float)
    scale = np.sqrt(2.0) * np.exp(special.gammaln(n_coils + 0.5) - special.gammaln(n_coils))
    # 1F1 overflows for large negative arguments; there the mean has its asymptote A + (2L - 1) sigma^2 / (2A).
    u = np.minimum(a**2 / (2.0 * sigma**2), 500.0)
    exact = sigma * scale * special.hyp1f1(-0.5, n_coils, -u)
    large = a**2 > 1000.0 * sigma**2
    asymptote = a + (2 * n_coils - 1) * sigma**2 / (2.0 * np.where(large, a, 1.0))
    return np.asarray(np.where(large, asymptote, exact), dtype=np.float64)


def nc_chi_sd(amplitude: ArrayLike, sigma: float, n_coils: int = 1) -> Array:
    """Standard deviation of the same magnitude: ``sqrt(A^2 + 2 L sigma^2 - mean^2)``."""
    a = np.asarray(amplitude, dtype=float)
    mean = nc_chi_mean(a, sigma, n_coils)
    return np.asarray(np.sqrt(np.maximum(a**2 + 2.0 * n_coils * sigma**2 - mean**2, 0.0)), dtype=np.float64)


def correct_magnitude(image: ArrayLike, sigma: ArrayLike, n_coils: int = 1) -> NDArray[np.float32]:
    """Take the noise floor from each voxel: ``sign(q) sqrt(|q|)`` with ``q = M^2 - (2 L - 1) sigma^2``.

    For one channel that is Gudbjartsson and Patz' rule with its sign kept. Subtracting all of 2 L sigma^2, right for
    the mean square of a region as ``E[M^2] = A^2 + 2 L sigma^2``, would leave each voxel low by sigma^2 / (2 A), as
    much as the magnitude is high. From three times the noise on the bias is below 0.03 sigma; air keeps 0.48 sigma of
    its 1.25.

    Parameters
    ----------
    image
        Magnitudes, shape (X, Y, Z).
    sigma
        Noise in each of the two parts of a channel, one number or a map.
    """
    q = np.asarray(image, dtype=float) ** 2 - (2.0 * n_coils - 1.0) * np.asarray(sigma, dtype=float) ** 2
    return np.asarray(np.sign(q) * np.sqrt(np.abs(q)), dtype=np.float32)


def estimate_noise_sd(
    image: ArrayLike,
    mask: NDArray[np.bool_],
    kind: ImageKind = "magnitude",
    *,
    n_coils: int = 1,
    statistic: Literal["median", "mean"] = "median",
) -> float:
    """Standard deviation of the noise from a background of air.

    Parameters
    ----------
    image, mask
        Image and background, one shape.
    kind
        ``magnitude``: sigma of each part of a channel, from the central chi law; ``real``: the deviation itself.
    statistic
        ``median`` bears streaks in part of the background; ``mean`` is the textbook rule sigma = mean / beta_L
        (beta_1 = 1.2533).
    """
    values = np.asarray(image, dtype=float)[mask]
    if values.size == 0:
        raise ValueError("the background mask is empty")
    if kind == "real":
        centre = np.median(values)
        return float(1.482602218505602 * np.median(np.abs(values - centre)))
    if statistic == "mean":
        return float(values.mean() / nc_chi_mean(0.0, 1.0, n_coils))
    return float(np.median(values) / np.sqrt(stats.chi2.ppf(0.5, 2 * n_coils)))


@dataclass(frozen=True)
class NoiseFloor:
    """What the air of an image looks like.

    Attributes
    ----------
    mean, sd, n_voxels
        Of the background, robust against bright streaks.
    mean_to_sd
        0 for zero-mean data, 1.913 for Rayleigh; larger for sums of squares over channels.
    law
        ``zero-mean``, ``rayleigh``, ``nc-chi`` (sum of squares over channels) or ``unknown``; the last is not treated.
    n_channels
        Of the law.
    """

    mean: float
    sd: float
    n_voxels: int
    mean_to_sd: float
    law: Law
    n_channels: int = 1

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the noise on a strong signal.

        That of zero-mean air itself; of Rayleigh air over 0.655; of any other over 0.707, the limit of many channels.
        """
        if self.law == "zero-mean":
            return self.sd
        share = float(np.sqrt(0.5)) if self.law == "unknown" else float(nc_chi_sd(0.0, 1.0, self.n_channels))
        return self.sd / share


def measure_floor(image: ArrayLike, mask: NDArray[np.bool_], n_channels: int = 1, tolerance: float = 0.1) -> NoiseFloor:
    """Mean, spread and law of the background.

    Parameters
    ----------
    n_channels
        Channels that were combined by sum of squares, as the user says; the air has to agree.
    tolerance
        Relative deviation of mean / sd from that of the law (1.913 for one channel) up to which it counts as obeyed.
    """
    values = np.asarray(image, dtype=float)[mask]
    low, high = np.percentile(values, [0.0, 99.5])
    kept = values[(values >= low) & (values <= high)]
    mean, sd = float(kept.mean()), float(kept.std())
    ratio = mean / sd if sd > 0 else float("inf")
    expected = float(nc_chi_mean(0.0, 1.0, n_channels) / nc_chi_sd(0.0, 1.0, n_channels))
    law: Law = "unknown"
    if (values < 0).any() and abs(ratio) < 0.5:
        law = "zero-mean"
    elif abs(ratio / expected - 1.0) < tolerance:
        law = "rayleigh" if n_channels == 1 else "nc-chi"
    return NoiseFloor(mean, sd, int(values.size), ratio, law, n_channels)


def measured_voxels(image: ArrayLike) -> NDArray[np.bool_]:
    """Where an image holds data: finite, and not in a block of exact zeros (defacing and field-of-view masks).

    Single zeros of an integer magnitude are data.
    """
    from scipy import ndimage

    a = np.asarray(image, dtype=float)
    zeros = ndimage.binary_opening(a == 0, structure=np.ones((3,) * a.ndim))
    return np.asarray(np.isfinite(a) & ~zeros, dtype=np.bool_)


def background_mask(
    image: NDArray[np.floating],
    affine: Array,
    head_mask: NDArray[np.bool_] | None = None,
    *,
    margin_mm: float = 12.0,
    where: str = "sodium image",
) -> NDArray[np.bool_]:
    """Air of an image: away from head, vials and the border, where data exist.

    Parameters
    ----------
    image
        Shape (X, Y, Z).
    head_mask
        Head on the same grid; without it only brightness tells what is an object.
    margin_mm
        Distance kept from every object, for its sidelobes.

    Raises
    ------
    InputError
        If fewer than 200 voxels of air are left.
    """
    from scipy import ndimage

    data = np.asarray(image, dtype=float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Voxels at zeroed data may be interpolated towards zero, and the outermost ones hold gridding's worst aliasing.
    allowed = ndimage.binary_erosion(measured_voxels(data), iterations=2, border_value=0)
    objects = bright_objects(data, affine)
    if head_mask is not None:
        objects = objects | head_mask
    distance = ndimage.distance_transform_edt(~objects, sampling=spacing)
    air = allowed & (distance > margin_mm)
    if air.sum() < _MIN_BACKGROUND_VOXELS:
        raise InputError(
            where,
            f"only {int(air.sum())} voxels of air lie clear of head and vials, {_MIN_BACKGROUND_VOXELS} are needed",
            "Give the noise level, or reconstruct with a larger field of view",
        )
    return np.asarray(air, dtype=np.bool_)


def bright_objects(
    image: NDArray[np.floating], affine: Array, *, smooth_mm: float = 6.0, z_threshold: float = 6.0
) -> NDArray[np.bool_]:
    """Everything that clearly stands above the air: head, vials, pads.

    The level of air is the lower mode of the lightly smoothed image (half-sample mode of the darker 60 %) and its
    spread is taken below that, so neither the noise law nor the head's share of the field needs to be known.
    """
    from scipy import ndimage

    data = np.asarray(image, dtype=float)
    valid = measured_voxels(data)
    if not valid.any():
        raise ValueError("the image is empty")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    sigma = smooth_mm / spacing / np.sqrt(8.0 * np.log(2.0))
    weight = ndimage.gaussian_filter(valid.astype(float), sigma)
    smooth = ndimage.gaussian_filter(np.where(valid, data, 0.0), sigma) / np.maximum(weight, 1e-6)
    values = np.sort(smooth[valid])
    level = _half_sample_mode(values[: max(int(0.6 * values.size), 2)])
    below = level - values[values < level]
    spread = 1.482602218505602 * float(np.median(below)) if below.size else 0.0
    top = float(np.percentile(values, 99.0))
    cut = max(level + z_threshold * spread, level + 0.05 * (top - level))
    return np.asarray(valid & (smooth > cut), dtype=np.bool_)


def _half_sample_mode(ordered: Array) -> float:
    """Mode of sorted values by repeatedly keeping the densest half (Robertson and Cryer, JASA 1974;69:1012)."""
    kept = ordered
    while kept.size > 50:
        half = kept.size // 2
        widths = kept[half:] - kept[: kept.size - half]
        start = int(np.argmin(widths))
        kept = kept[start : start + half]
    return float(kept.mean())
