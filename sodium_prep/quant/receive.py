"""Receive profile of an array coil from a pair of images, one of them received with the volume coil.

Both images show the same object with the same excitation, so their ratio is the array's receive sensitivity relative to
the volume coil's (the reference of Lachner et al., Z Med Phys 2020;30:104). Both are noisy magnitudes: their floors
are taken off in the power domain, where that is unbiased, and the ratio is taken of local sums, not of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.quant.noise import background_mask, bright_objects
from sodium_prep.quant.smooth import smooth_field

Array = NDArray[np.float64]


_MODEL_SD = 0.05
"""Relative deviation of a true local ratio from a smooth profile (motion, edges); bounds the weight of a voxel."""


@dataclass(frozen=True)
class ReceiveProfile:
    """Relative receive sensitivity on the grid of its pair.

    Attributes
    ----------
    values
        Positive, mean 1 over the head; float32, shape (X, Y, Z).
    affine
        Voxel to world.
    support
        Voxels where the pair has signal; elsewhere the profile is continued.
    relative_residual
        Robust relative deviation of the local ratios from the profile within the support.
    """

    values: NDArray[np.float32]
    affine: Array
    support: NDArray[np.bool_]
    relative_residual: float


def receive_profile(
    head: NDArray[np.floating],
    body: NDArray[np.floating],
    affine: Array,
    *,
    head_mask: NDArray[np.bool_] | None = None,
    scale_mm: float = 60.0,
    minimum_power_ratio: float = 2.0,
    where: str = "RB1COR pair",
) -> ReceiveProfile:
    """Smooth ratio of the image with the receive array to the image with the volume coil.

    Parameters
    ----------
    head, body
        Magnitudes with array and volume coil on one grid, shape (X, Y, Z).
    head_mask
        Where the profile is normalised to mean 1; the largest object of the pair if not given.
    scale_mm
        Shortest features of the profile.
    minimum_power_ratio
        Voxels enter if in both images the local mean power exceeds that of air by this many times the power of air,
        more than ten standard deviations of a local mean.

    Raises
    ------
    InputError
        If the grids differ or hardly any voxel has signal in both.
    """
    found = local_ratio(head, body, affine, minimum_power_ratio=minimum_power_ratio, where=where)
    support, spacing = found.support, np.linalg.norm(affine[:3, :3], axis=0)
    weights = np.where(support, 1.0 / (found.variance + _MODEL_SD**2), 0.0)
    log_profile = smooth_field(found.log_ratio, weights, spacing, scale_mm=scale_mm, stiffness=0.1)
    low, high = np.min(log_profile[support]), np.max(log_profile[support])
    values = np.exp(np.clip(log_profile, low, high))
    inner = _largest(found.objects) if head_mask is None else head_mask
    values /= float(values[inner].mean())
    deviation = (found.log_ratio - log_profile)[support]
    spread = 1.482602218505602 * float(np.median(np.abs(deviation - np.median(deviation))))
    return ReceiveProfile(values.astype(np.float32), np.asarray(affine, dtype=np.float64), support, spread)


@dataclass(frozen=True)
class LocalRatio:
    """Logarithm of the ratio of two magnitudes, its variance, and where both have signal; objects of either."""

    log_ratio: Array
    variance: Array
    support: NDArray[np.bool_]
    objects: NDArray[np.bool_]


def local_ratio(
    over: NDArray[np.floating],
    under: NDArray[np.floating],
    affine: Array,
    *,
    minimum_power_ratio: float = 2.0,
    where: str = "pair of images",
) -> LocalRatio:
    """Ratio of two magnitude images of one object, by local sums of their power without the noise floor.

    Parameters and errors as for :func:`receive_profile`.
    """
    from scipy import ndimage

    if over.shape != under.shape:
        raise InputError(where, f"the images have shapes {over.shape} and {under.shape}", "Give them on one grid")
    objects = bright_objects(over, affine) | bright_objects(under, affine)
    power, floors = [], []
    support = ndimage.binary_erosion(over > 0) & ndimage.binary_erosion(under > 0)
    for image in (np.asarray(over, dtype=float), np.asarray(under, dtype=float)):
        air = background_mask(image, affine, objects, where=where)
        floors.append(float(np.mean(image[air] ** 2)))
        power.append(image**2 - floors[-1])
        support &= ndimage.gaussian_filter(power[-1], 1.0) > minimum_power_ratio * floors[-1]
    if support.sum() < 200:
        raise InputError(where, f"only {int(support.sum())} voxels have signal in both images", "Check the pair")
    # One voxel of smoothing: the power sums stay local, the noise of the weaker image averages.
    sums = [ndimage.gaussian_filter(np.where(support, p, 0.0), 1.0) for p in power]
    averaged = (4.0 * np.pi) ** 1.5
    support &= (sums[0] > 0) & (sums[1] > 0)
    ratio = np.where(support, 0.5 * np.log(np.where(support, sums[0], 1.0) / np.where(support, sums[1], 1.0)), 0.0)
    variance = sum(f / (2.0 * averaged * np.where(support, s, 1.0)) for f, s in zip(floors, sums, strict=True))
    return LocalRatio(ratio, np.asarray(variance, dtype=np.float64), support, objects)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(labels == int(np.argmax(sizes)), dtype=np.bool_)


def resample_profile(
    values: NDArray[np.floating],
    affine: Array,
    shape: tuple[int, int, int],
    target_affine: Array,
    outside: float | None = None,
) -> NDArray[np.float32]:
    """A smooth profile on another grid, by trilinear interpolation.

    Beyond its own grid it stays at the edge value, or is ``outside``.
    """
    from scipy import ndimage

    from sodium_prep.quant.geometry import voxel_centres

    inverse = np.linalg.inv(affine)
    points = voxel_centres(shape, target_affine) @ inverse[:3, :3].T + inverse[:3, 3]
    rule = {"mode": "nearest"} if outside is None else {"mode": "constant", "cval": outside}
    source, where = np.asarray(values, dtype=float), np.moveaxis(points, -1, 0)
    return np.asarray(ndimage.map_coordinates(source, where, order=1, **rule), dtype=np.float32)


def divide_profile(
    image: NDArray[np.floating], noise_sd: float | NDArray[np.floating], profile: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image and noise map without the receive profile.

    The noise floor of a magnitude has to be taken off before, as it does not carry the profile.
    """
    return (image / profile).astype(np.float32), (noise_sd / profile).astype(np.float32)
