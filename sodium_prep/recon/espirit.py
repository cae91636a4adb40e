"""Coil sensitivities from the linear dependence of neighbouring k-space samples (ESPIRiT).

Samples of all channels in a small neighbourhood of k-space lie in a space of few dimensions, because the channels see
one object through smooth sensitivities. Its projection is a convolution in k-space, so in space it acts on the channels
voxel by voxel, and where there is signal the sensitivities are its eigenvector of eigenvalue 1 (Uecker et al., MRM
2014;71:990).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft, ndimage

from sodium_prep.recon.coils import combine

ComplexArray = NDArray[np.complexfloating[Any]]

_GRID: Final = 40
"""Voxels along each axis at which eigenvectors are computed; the operator varies far more slowly."""
_ABOVE_NOISE: Final = 3.0
"""Neighbourhoods overlap, so the largest eigenvalue of noise is two to three times their mean."""
_RANGE: Final = 1e-4
"""Least power that counts as signal where there is no noise, relative to the strongest."""


def espirit_maps(
    images: ComplexArray,
    reference: ComplexArray,
    noise_sd: float = 0.0,
    noise_psd: NDArray[np.floating[Any]] | None = None,
    *,
    calibration: int = 24,
    kernel: int = 4,
    crop: float = 0.8,
) -> NDArray[np.complex64]:
    """Sensitivities relative to each other by ESPIRiT, with the phase of a reference.

    ESPIRiT leaves the phase of each voxel open. It is chosen so that the scalar product with the reference is real and
    positive: combined images are real as with :func:`sodium_prep.recon.coils.sensitivities`. Where the eigenvalue is
    too far below 1 there is no signal to tell them from, and the maps are those of the reference.

    Parameters
    ----------
    images
        (coils, X, Y, Z), whitened and gridded without a filter. More than some ten channels are better compressed
        before (:func:`sodium_prep.recon.coils.compress`): the time rises with the third power of their number.
    reference
        (coils, X, Y, Z) of unit norm, from :func:`sodium_prep.recon.coils.sensitivities`.
    noise_sd, noise_psd
        Of the real part of ``images`` and as :func:`sodium_prep.recon.noise.noise_power_spectrum` has it; None is
        white. They tell signal from noise: kept is what has three times the mean power of noise.
    calibration
        Samples along each axis of the centre of the discrete k-space of ``images`` that are used.
    kernel
        Samples along each axis of a neighbourhood. Larger ones follow finer profiles, and more noise: 4 do for loops
        of 90 mm diameter in a field of view of 240 mm.
    crop
        Lowest eigenvalue that counts as signal.

    Returns
    -------
    (coils, X, Y, Z) of unit norm.

    Raises
    ------
    ValueError
        If a neighbourhood does not fit into the calibration region or this not into the images.
    """
    shape = images.shape[1:]
    if not 1 < kernel <= calibration <= min(shape):
        raise ValueError(f"a kernel of {kernel} and {calibration} calibration samples do not fit images of {shape}")
    if len(images) == 1:
        return reference.astype(np.complex64)
    centre = np.stack([_centre(fft.fftn(image), calibration) for image in images]).astype(np.complex64)
    density = 1.0 if noise_psd is None else float(_centre(noise_psd, calibration).mean())
    operator = _projection(centre, kernel, 2.0 * noise_sd**2 * images[0].size * density)
    axes = [np.linspace(0.0, n - 1.0, min(n, _GRID)) for n in shape]
    eigenvalues, vectors = np.linalg.eigh(_in_space(operator, axes, shape))
    found = np.moveaxis(vectors[..., -1], -1, 0)
    near = _interpolated(reference, axes, 1)
    found = np.where(eigenvalues[..., -1] > crop, found * _phase(combine(near, found)), near)
    back = [np.linspace(0.0, len(axis) - 1.0, n) for axis, n in zip(axes, shape, strict=True)]
    found = _interpolated(found, back, 3)
    found /= np.maximum(np.sqrt(np.sum(np.abs(found) ** 2, axis=0)), np.finfo(np.float32).tiny)
    found *= _phase(combine(reference, found))
    signal = _interpolated(eigenvalues[None, ..., -1], back, 1)[0] > crop
    return np.where(signal, found, reference).astype(np.complex64)


def _centre(spectrum: NDArray[Any], size: int) -> NDArray[Any]:
    """The lowest frequencies of a spectrum in the order of ``numpy.fft.fftn``, (size, size, size)."""
    return np.asarray(
        fft.fftshift(spectrum)[tuple(slice(n // 2 - size // 2, n // 2 - size // 2 + size) for n in spectrum.shape)]
    )


def _projection(centre: ComplexArray, kernel: int, noise_power: float) -> ComplexArray:
    """Convolution that projects onto what neighbourhoods can hold, averaged over those that share a sample.

    Parameters
    ----------
    noise_power
        Mean square of the noise in each sample.

    Returns
    -------
    (coils, coils, 2 kernel - 1, ..., ...); ``y_c[k] = sum_d sum_m h_cd[m] y_d[k + m - kernel + 1]`` for the samples y.
    """
    coils, size = len(centre), kernel**3
    windows = sliding_window_view(centre, (1, kernel, kernel, kernel))
    rows = np.ascontiguousarray(windows.transpose(1, 2, 3, 0, 4, 5, 6, 7)).reshape(-1, coils * size)
    powers, vectors = scipy.linalg.eigh(rows.T @ rows.conj(), overwrite_a=True, check_finite=False)
    held = vectors[:, powers > max(_ABOVE_NOISE * len(rows) * noise_power, _RANGE * powers[-1])]
    projector = (held @ held.conj().T / size).reshape(coils, size, coils, *(kernel,) * 3)
    sums = np.zeros((coils, coils, *(2 * kernel - 1,) * 3), dtype=np.complex64)
    for number, at in enumerate(np.ndindex(kernel, kernel, kernel)):
        i, j, k = (slice(kernel - 1 - one, 2 * kernel - 1 - one) for one in at)
        sums[:, :, i, j, k] += projector[:, number]
    return sums


def _in_space(operator: ComplexArray, axes: list[NDArray[np.float64]], shape: tuple[int, ...]) -> ComplexArray:
    """The convolution as a matrix (coils, coils) that acts on the channels in each voxel, (x, y, z, coils, coils)."""
    reach = operator.shape[-1] // 2
    for axis, n in zip(axes, shape, strict=True):
        waves = np.exp(-2j * np.pi * np.outer(np.arange(-reach, reach + 1), axis) / n).astype(np.complex64)
        operator = np.tensordot(operator, waves, axes=(2, 0))
    return np.asarray(operator.transpose(2, 3, 4, 0, 1))


def _interpolated(maps: NDArray[Any], axes: list[NDArray[np.float64]], order: int) -> NDArray[Any]:
    """Maps (n, X, Y, Z) at the places, in voxels, that the axes span."""
    places = np.meshgrid(*axes, indexing="ij")
    return np.stack([ndimage.map_coordinates(one, places, order=order, mode="nearest") for one in maps])


def _phase(values: ComplexArray) -> ComplexArray:
    """Complex numbers of the same phase with modulus 1."""
    return np.asarray(values / np.maximum(np.abs(values), np.finfo(np.float32).tiny))
