"""Registration refined by the regional model itself.

A proton image and a sodium image look unlike, and what a registration between them leaves (some tenths of a
millimetre) is the largest error of a cortical region. The model of the sodium image knows better: the six rigid
motions are fitted together with all regional signals, by Gauss-Newton on the same sum of squares (variable projection,
Golub and Pereyra, SIAM J Numer Anal 1973;10:413).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import VoxelKernel, push_compartments
from sodium_prep.pvc.noise import Noise, gram
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.sensitivity import HEAD_RADIUS_MM, motion_derivatives

Array = NDArray[np.float64]

_CONVERGED_MM: Final = 0.02


@dataclass(frozen=True)
class RigidRefinement:
    """A registration after its refinement.

    Attributes
    ----------
    sodium_to_t1w : (4, 4)
        The better transform of points.
    motion_mm : (6,)
        How far it moved: shifts along the axes of the sodium image, and rotations as displacement at 60 mm.
    covariance : (6, 6)
        Of the motions, from image noise widened by the misfit; mm^2.
    residual_sd : (2,)
        Root mean square residual before, and before the last step.
    converged
        Whether the last step was below 0.02 mm and within the limit; if not, the transform is the one given.
    """

    sodium_to_t1w: Array
    motion_mm: Array
    covariance: Array = field(repr=False)
    residual_sd: tuple[float, float]
    converged: bool

    @property
    def sd_mm(self) -> float:
        """Root mean square standard deviation of the six motions."""
        return float(np.sqrt(np.mean(np.diag(self.covariance))))


def refine_rigid(
    image: NDArray[np.floating],
    sodium_affine: Array,
    noise: Noise,
    compartments: Compartments,
    sodium_to_t1w: Array,
    relaxations: Mapping[Tissue, Relaxation],
    psf: PsfModel,
    *,
    usable: NDArray[np.bool_] | None = None,
    voxel_kernel: VoxelKernel = "point",
    most_mm: float = 3.0,
    steps: int = 5,
) -> RigidRefinement:
    """Move the compartments against the sodium image until the model fits best.

    Parameters
    ----------
    image : (X, Y, Z)
        Native sodium image; the rest as for :func:`sodium_prep.pvc.forward.push_compartments`.
    usable : (X, Y, Z) bool
        Where the image holds data; everywhere finite if not given.
    most_mm
        Largest motion that is believed; beyond it the given transform is kept.
    steps
        Most Gauss-Newton steps.
    """
    usable = np.isfinite(image) if usable is None else usable & np.isfinite(image)
    values = np.where(usable, image, 0.0).astype(np.float64)
    voxel_mm = np.linalg.norm(sodium_affine[:3, :3], axis=0)
    current, total = np.array(sodium_to_t1w, np.float64), np.zeros(6)
    mask: NDArray[np.bool_] | None = None
    residuals: list[float] = []
    covariance = np.full((6, 6), np.nan)
    size = np.inf
    for _ in range(steps):
        blurred = push_compartments(
            compartments, current, image.shape, sodium_affine, psf, relaxations, voxel_kernel=voxel_kernel
        )
        if mask is None:  # kept, so that the sums of squares of all steps compare
            mask = fit_mask(blurred, compartments.names, compartments.kinds, usable)
            centre = np.mean(np.argwhere(mask), axis=0)
        system = labbe(blurred, values, mask, noise, compartments.kinds)
        operator, fitted, residual = system.solve()
        residuals.append(float(np.sqrt(np.mean(residual**2))))
        first, _ = motion_derivatives((fitted.astype(np.float32) @ blurred).reshape(image.shape), voxel_mm, centre)
        moves = np.stack([d[mask] for d in first]).astype(np.float64)
        moves -= (operator @ gram(system.instruments, moves)).T @ system.blurred
        inverse = np.linalg.inv(gram(moves, moves))
        step = inverse @ (moves @ residual)
        size = float(np.abs(step).max())
        excess = max(1.0, residuals[-1] ** 2 / float(np.mean(noise.sd[mask].astype(np.float64) ** 2)))
        covariance = excess * inverse @ noise.quadratic_form(moves, mask) @ inverse
        current, total = _moved(current, step, sodium_affine, centre), total + step
        if size < _CONVERGED_MM:
            break
    good = size < _CONVERGED_MM and float(np.abs(total).max()) < most_mm and residuals[-1] <= residuals[0]
    return RigidRefinement(
        current if good else np.array(sodium_to_t1w, np.float64),
        total,
        covariance,
        (residuals[0], residuals[-1]),
        good,
    )


def _moved(sodium_to_t1w: Array, step: Array, affine: Array, centre: Sequence[float] | Array) -> Array:
    """Transform after the head has moved by a step within the sodium image."""
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    to_mm = np.diag([*voxel_mm, 1.0])  # grid coordinates in mm, whatever the orientation of the axes
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(step[3:] / HEAD_RADIUS_MM).as_matrix()
    middle = np.asarray(centre) * voxel_mm
    motion[:3, 3] = middle - motion[:3, :3] @ middle + step[:3]
    in_world = affine @ np.linalg.inv(to_mm) @ motion @ to_mm @ np.linalg.inv(affine)
    return np.asarray(sodium_to_t1w @ np.linalg.inv(in_world))
