"""A sodium scan as the regional steps take it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.pvc.kspace import Spokes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.quant.geometry import Mtf

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """A sodium image with what is known of it.

    Attributes
    ----------
    image : (X, Y, Z)
        Free of noise floor and receive profile.
    affine, sodium_to_t1w : (4, 4)
        Voxel to world, and map of points to T1w space, RAS mm.
    noise
        Of the image.
    acquisition
        Physics of the signal.
    psf
        None where it is not known; then nothing is corrected for partial volume.
    head : (X, Y, Z) bool
        The head on the sodium grid; references are looked for outside.
    clipped : (X, Y, Z) bool
        Saturated voxels of the image as stored.
    b1_plus : (X, Y, Z) or None
        Transmit field relative to nominal.
    b1_plus_sd
        Its standard uncertainty.
    where
        The file, for messages.
    spokes
        K-space of the image, for estimates from it.
    """

    image: NDArray[np.float32]
    affine: Array
    sodium_to_t1w: Array
    noise: Noise
    acquisition: Acquisition
    psf: PsfModel | None
    head: NDArray[np.bool_]
    clipped: NDArray[np.bool_]
    b1_plus: NDArray[np.float32] | None = None
    b1_plus_sd: float = 0.0
    where: str = "sodium image"
    spokes: Spokes | None = None

    def mtf(self, relaxation: Relaxation) -> Mtf:
        """Transfer function for contents of given relaxation, at k vectors in world axes."""
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        psf = self.psf or nominal_psf(self.acquisition, self.affine)
        return lambda k: psf.mtf(np.asarray(k) @ axes, relaxation)


def nominal_psf(acquisition: Acquisition, affine: Array) -> PsfModel:
    """The sharpest PSF that a centre-out acquisition with this voxel size can have: no decay, no window.

    Used where the true one is not known and hardly matters: to find reference objects larger than the PSF.
    """
    x, y, z = (float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    sharp = replace(
        acquisition, trajectory="3DPR", readout_duration_s=0.0, nominal_resolution_mm=(x, y, z), kspace_filter="none"
    )
    return PsfModel("acquisition", sharp)


def mask_on_grid(
    mask: NDArray[np.bool_], affine: Array, sodium_to_t1w: Array, shape: tuple[int, ...], sodium_affine: Array
) -> NDArray[np.bool_]:
    """A T1w mask on the sodium grid, by the nearest voxel.

    Parameters
    ----------
    mask, affine
        On the T1w grid.
    sodium_to_t1w
        Map of points.
    shape, sodium_affine
        Of the sodium image.
    """
    to_voxel = np.linalg.inv(affine) @ sodium_to_t1w @ sodium_affine
    return np.asarray(
        ndimage.affine_transform(mask.astype(np.uint8), to_voxel[:3, :3], to_voxel[:3, 3], shape, order=0) > 0
    )
