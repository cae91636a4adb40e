"""Tissue fractions of a T1-weighted brain: bias and tissue estimated together, voxels as linear mixtures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.anat.bias import estimate_bias
from sodium_prep.anat.grids import dilate, erode
from sodium_prep.anat.mixture import N_CLASSES, Mixture, posterior
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

_RIM_MM: Final = 2.0
_NEIGHBOURHOOD_MM: Final = 1.0
_MIN_CONTRAST: Final = 1.5
_ENOUGH: Final = 500
_NORMAL_QUARTER: Final = 0.318639
_WALL_REACH_MM: Final = 3.0
_NEARLY_PURE: Final = 0.7
_PURE: Final = 0.98


@dataclass(frozen=True)
class TissueFractions:
    """Share of each tissue in each voxel.

    Attributes
    ----------
    gm, wm, csf : (X, Y, Z) float32
        Sum 1 in the mask, 0 outside.
    mask : (X, Y, Z) bool
        Brain with ventricles and sulci, without the lesion if there is one.
    bias : (X, Y, Z) float32
        Smooth intensity bias, mean 1 in the brain; ``image / bias`` is the corrected image.
    means, sds : dict
        Intensity of pure tissue in the corrected image, and its spread, by ``CSF``, ``GM``, ``WM``.
    noise_sd
        Noise of one voxel, in units of the image.
    contrast
        Difference of white and grey matter over their spread.
    prior_driven
        True where the image has no T1-weighted contrast and the fractions are a registered template's.
    """

    gm: Volume
    wm: Volume
    csf: Volume
    mask: Mask
    bias: Volume
    means: dict[str, float]
    sds: dict[str, float]
    noise_sd: float
    contrast: float
    prior_driven: bool = False


def tissue_fractions(
    t1w: Volume,
    brain_mask: Mask,
    affine: NDArray[np.float64],
    *,
    deep_grey: NDArray[np.int32] | None = None,
    walls: Mask | None = None,
    priors: NDArray[np.float32] | None = None,
    lesion: Mask | None = None,
) -> TissueFractions:
    """Estimate the fractions of grey matter, white matter and CSF.

    Parameters
    ----------
    t1w : (X, Y, Z)
        T1-weighted intensity, with bias.
    brain_mask : (X, Y, Z) bool
        Brain with ventricles and sulci.
    affine : (4, 4)
        Voxel to RAS mm.
    deep_grey : (X, Y, Z) int
        Labels of structures whose intensity lies between grey and white matter (thalamus, putamen, pallidum, ...) but
        which count as grey matter; 0 elsewhere.
    walls : (X, Y, Z) bool
        Where CSF may border on white matter with no grey matter between, from :func:`ventricle_walls`.
    priors : (3, X, Y, Z)
        GM, WM and CSF fractions of a registered template; used for images without T1-weighted contrast.
    lesion : (X, Y, Z) bool
        Tissue of any other kind. It takes no part in the models of bias and tissue, and holds none of the three.

    Raises
    ------
    InputError
        If the image has no T1-weighted contrast and no priors are given.
    """
    voxel_mm = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    image = np.asarray(t1w, np.float32)
    if lesion is not None:
        brain_mask = brain_mask & ~lesion
    inner = erode(brain_mask, _RIM_MM, voxel_mm)
    deep = np.zeros(brain_mask.shape, np.int32) if deep_grey is None else np.asarray(deep_grey, np.int32)
    bias, mixture, level = estimate_bias(image, inner & (deep == 0), voxel_mm)
    u = np.where(brain_mask, image / (bias * level), 0.0).astype(np.float32)
    contrast = _contrast(mixture)
    if not _t1_weighted(u, inner, contrast, priors):
        if priors is None:
            raise InputError(
                "tissue fractions",
                f"the image has no T1-weighted contrast (white against grey matter {contrast:.1f} sd)",
                "Give a T1w image",
            )
        return _from_priors(image, brain_mask, priors, contrast)
    relative_noise = np.clip(1.0 / bias, 0.5, 2.0)
    fractions = _fractions(u, brain_mask, mixture, voxel_mm, relative_noise)
    if deep_grey is not None:
        fractions = _deep_grey(fractions, u, deep, mixture, voxel_mm)
    if walls is not None:
        _mend_walls(fractions, u, walls & brain_mask & (deep == 0), mixture, relative_noise)
    pure = ndimage.binary_erosion(fractions[2] > 0.95)
    names = ("CSF", "GM", "WM")
    csf, gm, wm = (np.where(brain_mask, part, 0.0).astype(np.float32) for part in fractions)
    return TissueFractions(
        gm=gm,
        wm=wm,
        csf=csf,
        mask=brain_mask,
        bias=bias,
        means={name: float(value) * level for name, value in zip(names, mixture.means, strict=True)},
        sds={name: float(value) * level for name, value in zip(names, mixture.sds, strict=True)},
        noise_sd=noise_sd(image, pure if pure.sum() > _ENOUGH else inner),
        contrast=contrast,
    )


def ventricle_walls(labels: NDArray[np.int32], table: pd.DataFrame, affine: NDArray[np.float64]) -> Mask:
    """Neighbourhood of the ventricles where white matter is what they border on.

    Parameters
    ----------
    labels : (X, Y, Z) int
        Atlas labels on the image's grid, 0 where there is none.
    table
        Atlas table with the columns ``index`` and ``structure``.
    affine : (4, 4)
        Voxel to RAS mm.

    Returns
    -------
    Voxels within 3 mm of a ventricle label that bear a label of a ventricle or of white matter.
    """
    voxel_mm = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    index, structure = table["index"].to_numpy(), table["structure"].to_numpy()
    ventricles = np.isin(labels, index[structure == "csf"])
    if not ventricles.any():
        return ventricles
    white = np.isin(labels, index[structure == "wm"])
    return (white | ventricles) & dilate(ventricles, _WALL_REACH_MM, voxel_mm)


def noise_sd(image: Volume, mask: Mask) -> float:
    """Noise of one voxel from second differences, which anatomy hardly reaches in smooth places.

    After Immerkaer (Comput Vis Image Underst 1996), in three dimensions; a low quantile in place of the mean keeps out
    the places that are not smooth.

    Parameters
    ----------
    image : (X, Y, Z)
        Intensity.
    mask : (X, Y, Z) bool
        Voxels to judge by; those at the border of the grid are left out.
    """
    filtered = np.asarray(image, np.float64)
    for axis in range(3):
        filtered = ndimage.convolve1d(filtered, [1.0, -2.0, 1.0], axis=axis)
    inner = (slice(1, -1),) * 3
    values = np.abs(filtered[inner][mask[inner]]) / np.sqrt(6.0**3)
    return float(np.quantile(values, 0.25) / _NORMAL_QUARTER)


def _fractions(u: Volume, mask: Mask, mixture: Mixture, voxel_mm: NDArray[np.float64], noise: Volume) -> Volume:
    """Posterior mean fractions, with class priors that the neighbourhood of each voxel informs, (3, X, Y, Z)."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside = mask[box]
    values, factor = u[box][inside].astype(np.float64), noise[box][inside].astype(np.float64)
    shares = np.repeat(mixture.shares[:, None], values.size, axis=1)
    sigma = _NEIGHBOURHOOD_MM / voxel_mm
    near = ndimage.gaussian_filter(inside.astype(np.float32), sigma)[inside]
    grid = np.zeros(inside.shape, np.float32)
    result = np.empty((3, values.size))
    for _ in range(3):
        probabilities, result = posterior(mixture, values, shares, factor)
        for k in range(N_CLASSES):
            grid[inside] = probabilities[k]
            local = ndimage.gaussian_filter(grid, sigma)[inside] / near
            shares[k] = 0.8 * local + 0.2 * mixture.shares[k]
    out = np.zeros((3, *u.shape), np.float32)
    for part, values_in in zip(out, result, strict=True):
        part[box][inside] = values_in
    return out


def _deep_grey(
    fractions: Volume, u: Volume, labels: NDArray[np.int32], mixture: Mixture, voxel_mm: NDArray[np.float64]
) -> Volume:
    """Within deep grey structures, take the structure's own intensity for pure grey matter.

    What is as bright as white matter stays white, so that a label that reaches over its border does no harm, unless the
    structure itself is too bright to be told apart (pallidum): then the label decides.
    """
    out = fractions.copy()
    white = mixture.means[2]
    smooth = ndimage.gaussian_filter(u, 0.7 / voxel_mm)
    for label in np.unique(labels[labels > 0]):
        here = labels == label
        core = erode(here, 1.0, voxel_mm)
        own = float(np.median(smooth[core if core.any() else here]))
        own = max(own, float(mixture.means[1]))
        if white - own > 2.0 * mixture.sds[2]:
            share = np.clip((smooth[here] - own) / (white - own), 0.0, 1.0)
        else:
            share = np.zeros(int(here.sum()))
        share = np.minimum(share, out[2][here])
        out[1][here] += out[2][here] - share
        out[2][here] = share
    return out


def _mend_walls(fractions: Volume, u: Volume, walls: Mask, mixture: Mixture, noise: Volume) -> None:
    """Where white matter borders on CSF, take what is between them in brightness for both, not for grey matter.

    A voxel counts only if it touches CSF as well as white matter: a label that misses the edge of a nucleus, and dark
    white matter around the ventricles, are farther from one of the two.
    """
    found = ndimage.find_objects(ndimage.binary_dilation(walls, iterations=2).astype(np.uint8))
    if not found:
        return
    box = found[0]
    touch = np.ones((3, 3, 3), bool)
    csf, _, wm = (part[box] for part in fractions)
    direct = walls[box] & (csf < _PURE) & (wm < _PURE)
    for part in (csf, wm):
        direct &= ndimage.binary_dilation(part > _NEARLY_PURE, touch)
    white = mixture.share_between(u[box][direct], noise[box][direct], 0, 2)
    for part, share in zip(fractions, (1.0 - white, np.zeros_like(white), white), strict=True):
        part[box][direct] = share


def _contrast(mixture: Mixture) -> float:
    return float((mixture.means[2] - mixture.means[1]) / np.mean(mixture.sds[1:]))


def _t1_weighted(u: Volume, inner: Mask, contrast: float, priors: Volume | None) -> bool:
    """Whether tissue is as bright as in a T1-weighted image: CSF < GM < WM, told apart by more than their spread."""
    if contrast < _MIN_CONTRAST:
        return False
    if priors is None:
        return True
    grey, white = (u[inner & (part > 0.8)] for part in priors[:2])
    if min(grey.size, white.size) < 100:
        return True
    spread = 0.5 * (_robust_sd(grey) + _robust_sd(white))
    return bool(np.median(white) - np.median(grey) > 0.5 * spread)


def _robust_sd(values: Volume) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high - low) / 1.349


def _from_priors(image: Volume, mask: Mask, priors: Volume, contrast: float) -> TissueFractions:
    total = np.maximum(priors.sum(axis=0), 1e-6)
    # Where the template knows of no tissue inside the mask there is CSF.
    empty = priors.sum(axis=0) < 0.05
    gm, wm = (np.where(mask & ~empty, part / total, 0.0).astype(np.float32) for part in priors[:2])
    csf = np.where(mask, 1.0 - gm - wm, 0.0).astype(np.float32)
    parts = {"CSF": csf, "GM": gm, "WM": wm}
    means = {name: float((image * part).sum() / max(float(part.sum()), 1e-6)) for name, part in parts.items()}
    sds = {name: _robust_sd(image[part > 0.8]) if np.any(part > 0.8) else float("nan") for name, part in parts.items()}
    ones = np.ones(image.shape, np.float32)
    noise = noise_sd(image, mask)
    return TissueFractions(gm, wm, csf, mask, ones, means, sds, noise, contrast, prior_driven=True)
