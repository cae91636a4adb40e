"""Rigid motion of the head between the blocks of a long scan: estimated from the scan itself and taken out of k-space.

An object that has moved by ``r -> R r + d`` about the point where the phase of every k is zero has the spectrum
``y(R^T k) exp(-2 pi i k . d)``: what a block measured at k belongs to ``R^T k`` of the unmoved object, after
multiplication by ``exp(+2 pi i k . d)``. That is exact for a coil of even sensitivity.

The motion comes from the low frequencies that each block alone samples completely. Images of two blocks differ by more
than their motion: each carries streaks of its own spokes, which draw the rotation that fits best after them. So an
image of the head is fitted to the samples of all blocks, each in its own pose, while the poses are fitted to what that
image leaves of the samples; streaks have no part in it. The standard errors come from what is left in the end: noise,
and all that is not rigid.

Sensitivities stay with the coils while the head moves. Their relations to each other are known, and are moved against
the head as it is registered; the receive profile that they share is not, so with several coils each block may differ
from the others by a factor that is a quadratic polynomial in space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial import QhullError, SphericalVoronoi
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from sodium_prep.anat.brain import head_mask
from sodium_prep.anat.grids import dilate
from sodium_prep.errors import InputError
from sodium_prep.physics.readout import filter_window
from sodium_prep.recon import coils
from sodium_prep.recon.channels import whitened
from sodium_prep.recon.fixtures import move_head
from sodium_prep.recon.nufft import Nufft
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.trajectory import Trajectory

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]
ComplexArray = NDArray[np.complexfloating[Any]]
Shape = tuple[int, int, int]
Size = tuple[float, float, float]

_HEAD_MM = 180.0
"""Diameter of what a block has to sample without aliasing."""
_RADIUS_MM = 60.0
"""Distance of points of a brain from its centre, at which turns count as displacement."""
_COARSEST_MM, _FINEST_MM = 20.0, 7.0
"""Resolution of the images that are registered: finer ones hold no motion that these do not show."""
_EVENNESS = 0.6
"""Least radius that a block samples, relative to spokes spread evenly: random ones have 0.9, a hemisphere has 0.4."""
_FINER = 1.25
"""Frequencies of the grid over those of its images: coarser voxels cut the head off unevenly."""
_MARGIN = 1.25
"""Around the head, in units of the resolution."""
_ORDER = 2
"""Of the polynomials that stand for what the receive profile of several coils does to a moved head."""
_PASSES, _LEAST_PASSES = 12, 4
_STEP_MM = 0.02
_SURE = float(chi2.ppf(0.99, 6))
_WORST_MISFIT = 1.1
"""Residual of a block over that of the median block: usual is 0.98 to 1.02."""
_LEAST_SIGNAL = 0.8
_SAME_DIRECTION = 1e-6
_DEGREES = np.repeat([180.0 / np.pi, 1.0], 3)


@dataclass(frozen=True, eq=False)
class Pose:
    """Where the head lies: ``r -> rotation r + shift_mm`` against a reference, about voxel ``N // 2``, in mm."""

    rotation: FloatArray
    shift_mm: FloatArray

    def __call__(self, points_mm: FloatArray) -> FloatArray:
        """Where points (..., 3) of the reference lie now."""
        return np.asarray(points_mm @ self.rotation.T + self.shift_mm)

    def after(self, other: Pose) -> Pose:
        """The pose that ``other`` and then this one make."""
        return Pose(self.rotation @ other.rotation, self(other.shift_mm))

    def inverse(self) -> Pose:
        """The pose that undoes this one."""
        return Pose(self.rotation.T, -self.rotation.T @ self.shift_mm)

    @classmethod
    def of(cls, motion: FloatArray) -> Pose:
        """Pose of a rotation vector in radians and a shift in mm, (6,)."""
        return cls(np.asarray(Rotation.from_rotvec(motion[:3]).as_matrix()), np.asarray(motion[3:]))

    @property
    def motion(self) -> FloatArray:
        """Rotation vector in radians and shift in mm, (6,)."""
        return np.concatenate([Rotation.from_matrix(self.rotation).as_rotvec(), self.shift_mm])

    @property
    def displacement_mm(self) -> float:
        """Root mean square displacement of a brain around the origin."""
        turn, shift = np.split(self.motion, 2)
        return float(np.sqrt(shift @ shift + 2.0 / 3.0 * _RADIUS_MM**2 * (turn @ turn)))


STILL = Pose(np.eye(3), np.zeros(3))


@dataclass(frozen=True)
class BlockMotion:
    """What was found of one block.

    Attributes
    ----------
    n_readouts
        Of the block.
    pose
        Estimated pose against the reference block.
    standard_error
        (6,) of ``motion``.
    applied
        The pose was taken out of the data: it differs from rest by more than its error (99 %).
    rejected
        The block was left out.
    signal
        Over that of the median block.
    misfit
        Residual of the block against the image of the head, over that of the median block.
    """

    n_readouts: int
    pose: Pose
    standard_error: FloatArray
    applied: bool
    rejected: bool
    signal: float
    misfit: float

    @property
    def motion(self) -> FloatArray:
        """Rotation vector in degrees and shift in mm, (6,)."""
        return np.asarray(self.pose.motion * _DEGREES)


@dataclass(frozen=True)
class MotionReport:
    """Motion between the blocks of a scan.

    Attributes
    ----------
    blocks
        In the order of their numbers.
    reference
        Number of the block whose pose the image has: the one nearest to all others.
    resolution_mm
        Of the images that were registered (half a wavelength of their highest frequency).
    largest_mm
        Largest displacement (root mean square over a brain) that was taken out.
    notes
        What is to be told about the motion, a sentence each.
    """

    blocks: tuple[BlockMotion, ...]
    reference: int
    resolution_mm: float
    largest_mm: float
    notes: tuple[str, ...]


def move_samples(
    k_per_mm: NDArray[np.floating[Any]], kspace: ComplexArray, pose: Pose
) -> tuple[FloatArray, ComplexArray]:
    """Places and values that samples of a moved head have for the head at rest.

    Parameters
    ----------
    k_per_mm
        (..., 3), 1/mm.
    kspace
        (coils, ...).
    """
    k = np.asarray(k_per_mm, dtype=np.float64)
    return k @ pose.rotation, kspace * np.exp(2j * np.pi * (k @ pose.shift_mm)).astype(kspace.dtype)


def solid_angles(directions: FloatArray) -> FloatArray:
    """Solid angle that lies nearest to each of several directions, steradian; those read twice share theirs.

    Parameters
    ----------
    directions
        (n, 3) unit vectors.

    Raises
    ------
    ValueError
        If they do not span the sphere.
    """
    rounded = np.round(directions / _SAME_DIRECTION)
    different, inverse, counts = np.unique(rounded, axis=0, return_inverse=True, return_counts=True)
    different /= np.linalg.norm(different, axis=1, keepdims=True)
    try:
        areas = np.asarray(SphericalVoronoi(different).calculate_areas())
    except (QhullError, ValueError) as error:
        raise ValueError("the directions do not span the sphere") from error
    return np.asarray((areas / counts)[inverse])


def spoke_ends(k_per_mm: NDArray[np.floating[Any]]) -> FloatArray:
    """Unit vectors (readouts, 3) to the last samples of readouts (readouts, samples, 3)."""
    ends = np.asarray(k_per_mm[:, -1], dtype=np.float64)
    return np.asarray(ends / np.linalg.norm(ends, axis=1, keepdims=True))


def sampled_radius(directions: FloatArray, object_mm: float = _HEAD_MM) -> float:
    """Radius of k-space up to which spokes sample an object of a given diameter, 1/mm.

    Nyquist asks for cells of at most ``1 / (object_mm k)^2`` steradian. Here that is asked of the mean cell over the
    sphere, so that one large hole counts and many small differences do not.
    """
    areas = solid_angles(directions)
    return float(1.0 / (object_mm * np.sqrt(np.sum(areas**2) / np.sum(areas))))


def moved_weights(trajectory: Trajectory, k_per_mm: FloatArray, kept: NDArray[np.bool_]) -> FloatArray:
    """Density compensation of readouts that were turned or left out.

    Each readout's weight grows by the square root of the growth of its solid angle. With the full growth (Voronoi
    weights) the noise of 8 blocks turned by 5 degrees rises by 12 %, with the root by 3 %; streaks fall from 1.7 (equal
    weights) to 0.9 and 1.2 mM in white matter of 35 mM, and the bias of regions stays below 0.1 % with all three.

    Parameters
    ----------
    trajectory
        As it was read.
    k_per_mm
        (readouts kept, samples, 3), turned.
    kept
        (readouts,) which of the trajectory's readouts are left.

    Returns
    -------
    (readouts kept, samples) with the total of the trajectory's own weights.
    """
    before = solid_angles(spoke_ends(trajectory.k_per_mm))[kept]
    growth = np.sqrt(solid_angles(spoke_ends(k_per_mm)) / before)
    weights = np.broadcast_to(trajectory.weights_mm3, trajectory.k_per_mm.shape[:2])
    turned = weights[kept] * growth[:, None]
    return np.asarray(turned * (weights.sum() / turned.sum()))


class _Block:
    """Low frequencies of one block."""

    def __init__(
        self, kspace: ComplexArray, trajectory: Trajectory, angles: FloatArray, readouts: IntArray, cutoff_per_mm: float
    ) -> None:
        k = trajectory.k_per_mm[readouts].astype(np.float64)
        radius = np.linalg.norm(k, axis=-1) / cutoff_per_mm
        low = radius < 1.0
        of_all = np.broadcast_to(trajectory.weights_mm3, trajectory.k_per_mm.shape[:2])
        weights = of_all[readouts] * (solid_angles(spoke_ends(k)) / angles[readouts])[:, None]
        weights *= of_all.sum() / weights.sum()
        self.k_per_mm = k[low]
        self.kspace = kspace[:, readouts][:, low]
        self.weights = weights[low]
        self.windowed = self.weights * filter_window(radius[low], "hamming")

    def image(self, shape: Shape, voxel_mm: Size) -> ComplexArray:
        """Windowed image of each coil, where the head lay."""
        operator = Nufft(self.k_per_mm, shape, voxel_mm)
        return np.stack([operator.adjoint(samples * self.windowed) for samples in self.kspace])


class _Placed:
    """A block brought to the reference by its pose; ``factor`` is what the pose does to the receive profile."""

    def __init__(self, block: _Block, pose: Pose, maps: ComplexArray, factor: FloatArray, voxel_mm: Size) -> None:
        self.block = block
        k, self.kspace = move_samples(block.k_per_mm, block.kspace, pose)
        self.operator = Nufft(k, (maps.shape[1], maps.shape[2], maps.shape[3]), voxel_mm)
        self.maps = moved_maps(maps, pose, voxel_mm) * factor

    def residual(self, image: FloatArray, weights: FloatArray) -> tuple[FloatArray, float]:
        """What an image of the head leaves of the samples, as an image, and its weighted energy."""
        out, energy = np.zeros(image.shape), 0.0
        for samples, sensitivity in zip(self.kspace, self.maps, strict=True):
            left = samples - self.operator.forward(sensitivity * image)
            out += (sensitivity.conj() * self.operator.adjoint(left * weights)).real
            energy += float(np.sum(weights * np.abs(left) ** 2))
        return out, energy


def _positions_mm(shape: Shape, voxel_mm: Size) -> FloatArray:
    index = np.moveaxis(np.indices(shape), 0, -1) - np.asarray(shape) // 2
    return np.asarray(index * np.asarray(voxel_mm))


def moved_maps(maps: ComplexArray, pose: Pose, voxel_mm: Size) -> ComplexArray:
    """Sensitivities (coils, X, Y, Z) of coils at rest as a moved head meets them, ``S(R r + d)``."""
    if pose is STILL:
        return maps
    size, centre = np.asarray(voxel_mm), np.asarray(maps.shape[1:]) // 2
    matrix = pose.rotation * size[None, :] / size[:, None]
    offset = pose.shift_mm / size + centre - matrix @ centre
    return np.stack([ndimage.affine_transform(s, matrix, offset, order=1, mode="nearest") for s in maps])


def _fields(places: FloatArray, order: int) -> FloatArray:
    """Polynomials of places (..., 3) up to an order, (..., number)."""
    x, y, z = np.moveaxis(places, -1, 0)
    powers = [(a, b, c) for a in range(order + 1) for b in range(order + 1) for c in range(order + 1)]
    powers = sorted((p for p in powers if sum(p) <= order), key=sum)
    return np.stack([x**a * y**b * z**c for a, b, c in powers], axis=-1)


@dataclass(frozen=True)
class _Fit:
    """Poses against their mean, with covariances (blocks, 6, 6), signal and residual energy of each block."""

    poses: list[Pose]
    covariances: FloatArray
    signal: FloatArray
    energy: FloatArray


def _register(blocks: list[_Block], maps: ComplexArray, mask: NDArray[np.bool_], cutoff: float, voxel_mm: Size) -> _Fit:
    """Bring the blocks to their mean by Gauss-Newton steps.

    ``v(r) - x(r) = grad x . (omega x r + t)`` for a block v that still lies off by a small turn and shift. The
    derivatives are taken in the image of the mean, the normal matrix takes the samples of a block for complete: that
    changes the length of the steps, not where they end.
    """
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    n = len(blocks)
    frequencies = np.stack(
        np.meshgrid(*(np.fft.fftfreq(m, v) for m, v in zip(shape, voxel_mm, strict=True)), indexing="ij"), axis=-1
    )
    window = coils.low_resolution_window(shape, voxel_mm, cutoff)
    positions = _positions_mm(shape, voxel_mm)
    fields = _fields(positions / _RADIUS_MM, _ORDER if len(maps) > 1 else 0)
    poses, shares = [STILL] * n, np.zeros((n, fields.shape[-1] - 1))
    image = np.zeros(shape)
    for number in range(_PASSES):
        placed = [
            _Placed(block, pose, maps, 1.0 + fields[..., 1:] @ share, voxel_mm)
            for block, pose, share in zip(blocks, poses, shares, strict=True)
        ]
        image = image + mask * np.mean([p.residual(image, p.block.weights)[0] for p in placed], axis=0)
        left = [p.residual(image, p.block.windowed) for p in placed]
        spectrum = fft.fftn(image)
        gradient = np.stack([fft.ifftn(2j * np.pi * frequencies[..., a] * spectrum).real for a in range(3)], axis=-1)
        columns = np.concatenate([np.cross(positions, gradient), gradient, fields * image[..., None]], axis=-1)
        inside = np.stack([fft.fftn(mask * c).ravel() for c in np.moveaxis(columns, -1, 0)])
        whole = np.stack([fft.fftn(c).ravel() for c in np.moveaxis(columns, -1, 0)])
        inverse = np.linalg.inv(((inside.conj() * window.ravel()) @ whole.T).real / mask.size)
        images = mask * np.stack([windowed for windowed, _ in left])
        steps = np.einsum("bxyz,xyzi->bi", images, columns) @ inverse.T
        poses = [pose.after(Pose.of(step[:6]).inverse()) for pose, step in zip(poses, steps, strict=True)]
        shares += steps[:, 7:] - steps[:, 7:].mean(axis=0)
        if number >= _LEAST_PASSES and max(Pose.of(step[:6]).displacement_mm for step in steps) < _STEP_MM:
            break
    # Noise whose power at each frequency is that of the residual.
    power = np.abs(fft.fftn(images, axes=(1, 2, 3)).reshape(n, -1)) ** 2 / mask.sum()
    spread = np.stack([((inside * p) @ inside.conj().T).real for p in power]) / mask.size
    covariances = (inverse @ spread @ inverse.T)[:, :6, :6]
    return _Fit(poses, covariances, 1.0 + steps[:, 6], np.array([energy for _, energy in left]))


def _prepare(
    kspace: ComplexArray, sigma: float, raw: RawData, members: list[IntArray], cutoff: float
) -> tuple[list[_Block], ComplexArray, NDArray[np.bool_], Size]:
    """Blocks, sensitivities and the region of the head on a grid that holds their frequencies."""
    extent = raw.field_of_view_mm
    half = [int(np.ceil(_FINER * e * cutoff)) for e in extent]
    shape = (2 * half[0], 2 * half[1], 2 * half[2])
    voxel_mm = (extent[0] / shape[0], extent[1] / shape[1], extent[2] / shape[2])
    angles = np.ones(raw.trajectory.n_readouts)
    if len(raw.trajectory.weights_mm3) > 1:
        angles = solid_angles(spoke_ends(raw.trajectory.k_per_mm))
    blocks = [_Block(kspace, raw.trajectory, angles, readouts, cutoff) for readouts in members]
    images = np.mean([block.image(shape, voxel_mm) for block in blocks], axis=0)
    smooth_sd = sigma * float(np.sqrt(sum(np.sum(block.windowed**2) for block in blocks))) / len(blocks)
    maps = coils.sensitivities(images, 3, voxel_mm, smooth_sd)
    # Twice as fine, so that vials beside the head do not melt into it.
    fine_shape = (2 * shape[0], 2 * shape[1], 2 * shape[2])
    fine_mm = (0.5 * voxel_mm[0], 0.5 * voxel_mm[1], 0.5 * voxel_mm[2])
    everything = _Block(kspace, raw.trajectory, angles, np.arange(len(angles)), 2.0 * cutoff)
    magnitude = np.linalg.norm(everything.image(fine_shape, fine_mm), axis=0)
    head = head_mask(magnitude.astype(np.float32), np.diag([*fine_mm, 1.0]))
    near = dilate(head, _MARGIN * 0.5 / cutoff, np.asarray(fine_mm))[::2, ::2, ::2]
    return blocks, maps, near, voxel_mm


def _members(raw: RawData, blocks: int | IntArray) -> list[IntArray]:
    """Readouts of each block."""
    n = raw.trajectory.n_readouts
    number = np.arange(n) * blocks // n if isinstance(blocks, int) else np.asarray(blocks)
    if number.shape != (n,):
        raise ValueError(f"{n} readouts need {n} block numbers, got {number.shape}")
    members: list[IntArray] = [np.flatnonzero(number == value) for value in np.unique(number)]
    if len(members) < 2:
        raise ValueError("motion shows only between at least two blocks")
    return members


def _cutoff(raw: RawData, members: list[IntArray]) -> float:
    """Radius of k-space that every block samples, 1/mm."""
    if raw.trajectory.extents_per_mm is not None:
        raise InputError(
            raw.source,
            "its readouts sample no sphere of k-space, so they are not complete after a turn of the head",
            "Reconstruct it without correction of motion",
        )
    ends = spoke_ends(raw.trajectory.k_per_mm)
    sampled = np.inf
    for readouts in members:
        even = np.sqrt(len(readouts) / (4.0 * np.pi)) / _HEAD_MM
        try:
            own = sampled_radius(ends[readouts])
        except ValueError:
            own = 0.0
        if own < _EVENNESS * even:
            raise InputError(
                raw.source,
                f"a block of {len(readouts)} of its readouts does not cover the sphere of k-space evenly",
                "Give blocks whose readouts point in all directions",
            )
        sampled = min(sampled, own)
    if sampled < 0.5 / _COARSEST_MM:
        raise InputError(
            raw.source,
            f"a block of its readouts resolves {0.5 / sampled:.0f} mm, too little to show motion",
            "Ask for fewer blocks",
        )
    return min(sampled, 0.5 / _FINEST_MM, raw.trajectory.kmax_per_mm)


def correct_motion(raw: RawData, blocks: int | IntArray = 8) -> tuple[RawData, MotionReport]:
    """Take the rigid motion between blocks of a scan out of its k-space.

    Parameters
    ----------
    raw
        Centre-out readouts in the order of their acquisition, read without averaging
        (:func:`sodium_prep.recon.raw.read_raw` with ``average=False``).
    blocks
        Number of blocks of consecutive readouts, or the number (readouts,) of the block of each readout.

    Returns
    -------
    Raw data of the head in the pose of the reference block, with turned trajectory, corrected phase and weights, and
    without the readouts of rejected blocks; the raw data themselves if no block was moved or rejected. Objects beside
    the head that did not move with it keep their place.

    Raises
    ------
    InputError
        If a block does not cover the sphere of k-space well enough for an image of its own, or no two blocks agree.
    """
    members = _members(raw, blocks)
    cutoff = _cutoff(raw, members)
    channels = whitened(raw)
    parts, maps, mask, voxel_mm = _prepare(channels.together(), channels.sigma, raw, members, cutoff)
    fit = _register(parts, maps, mask, cutoff, voxel_mm)
    misfit = np.sqrt(fit.energy / [part.windowed.sum() for part in parts])
    misfit /= np.median(misfit)
    signal = fit.signal / np.median(fit.signal)
    good = (misfit < _WORST_MISFIT) & (signal > _LEAST_SIGNAL)
    if good.sum() < 2:
        raise InputError(
            raw.source, "no two blocks of its readouts agree", "Look at the raw data, or reconstruct them as they are"
        )
    final = fit
    if not good.all():
        final = _register([part for part, g in zip(parts, good, strict=True) if g], maps, mask, cutoff, voxel_mm)
    place = np.cumsum(good) - 1
    candidates = np.flatnonzero(good)

    def between(one: int, other: int) -> Pose:
        """Pose of one block against another's; of a rejected one as it was before the others were fitted again."""
        poses = [final.poses[place[i]] for i in (one, other)] if good[other] else [fit.poses[i] for i in (one, other)]
        return poses[1].after(poses[0].inverse())

    reference = int(min(candidates, key=lambda a: sum(between(a, b).displacement_mm for b in candidates)))
    found = []
    for number, readouts in enumerate(members):
        pose = between(reference, number)
        own = final.covariances[place[number]] if good[number] else fit.covariances[number]
        covariance = own + final.covariances[place[reference]]
        sure = pose.motion @ np.linalg.solve(covariance, pose.motion) > _SURE
        error = np.sqrt(np.diag(covariance)) * _DEGREES
        applied, rejected = bool(sure and good[number]), not good[number]
        found.append(
            BlockMotion(len(readouts), pose, error, applied, rejected, float(signal[number]), float(misfit[number]))
        )
    corrected, fixed = raw, False
    if any(block.applied for block in found):
        corrected, fixed = move_head(raw, lambda data: _moved(data, members, found))
    elif any(block.rejected for block in found):
        corrected = _moved(raw, members, found)
    return corrected, _report(found, reference, fixed, cutoff)


def _report(found: list[BlockMotion], reference: int, fixed: bool, cutoff: float) -> MotionReport:
    largest = max(block.pose.displacement_mm if block.applied else 0.0 for block in found)
    notes = []
    if largest > 0.0:
        notes.append(f"The head moved by up to {largest:.1f} mm between blocks, which was taken out.")
    if fixed:
        notes.append("Objects beside the head, as vials are, did not move with it and were left where they lie.")
    rejected = [str(number) for number, block in enumerate(found) if block.rejected]
    if rejected:
        notes.append(
            f"Readouts of {len(rejected)} of {len(found)} blocks were left out (blocks {', '.join(rejected)})."
        )
    return MotionReport(tuple(found), reference, 0.5 / cutoff, largest, tuple(notes))


def _moved(raw: RawData, members: list[IntArray], found: list[BlockMotion]) -> RawData:
    """Raw data with the motion that was found taken out."""
    k = raw.trajectory.k_per_mm.astype(np.float64)
    kspace = raw.kspace.copy()
    kept = np.ones(len(k), dtype=bool)
    for readouts, block in zip(members, found, strict=True):
        if block.rejected:
            kept[readouts] = False
        elif block.applied:
            k[readouts], kspace[:, readouts] = move_samples(k[readouts], kspace[:, readouts], block.pose)
    weights = moved_weights(raw.trajectory, k[kept], kept)
    trajectory = replace(raw.trajectory, k_per_mm=k[kept].astype(np.float32), weights_mm3=weights)
    return replace(
        raw, kspace=kspace[:, kept], trajectory=trajectory, block=None if raw.block is None else raw.block[kept]
    )
