"""One sodium scan: k-space with noise, and the image the scanner makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sodium_prep.phantom.fields import coil_profiles
from sodium_prep.phantom.protocol import PhantomProtocol, Vial
from sodium_prep.phantom.sodium import ScannerFields, Source, add_noise, simulate_kspace
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation
from sodium_prep.physics.signal import signal_factor
from sodium_prep.recon.gridding import gridding_noise_sd
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.trajectory import Trajectory, radial_trajectory

_NOISE_SAMPLES = 8192
_CALIBRATION_MM = 8.0
_CALIBRATION_SPOKES = 1500
_CALIBRATION_SAMPLES = 96


@dataclass(frozen=True)
class Subject:
    """What lies in the scanner.

    Attributes
    ----------
    sources, affine
        Concentration maps on the T1w grid, and its affine.
    sodium_to_t1w : (4, 4)
        Rigid map of points of the sodium frame to the T1w frame.
    vials
        In the sodium frame.
    white_matter_mM
        Mean concentration of white matter, which the noise level refers to.
    white_matter_points_mm : (n, 3)
        Some points of white matter in the sodium frame.
    white_matter_relaxation
        Its relaxation times.
    """

    sources: Sequence[Source]
    affine: NDArray[np.float64]
    sodium_to_t1w: NDArray[np.float64]
    vials: Sequence[Vial]
    white_matter_mM: float  # noqa: N815
    white_matter_points_mm: NDArray[np.float64]
    white_matter_relaxation: Relaxation


def sodium_affine(matrix: int, voxel_mm: float) -> NDArray[np.float64]:
    """Affine of the sodium image: the isocentre lies in voxel ``N // 2``."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = -voxel_mm * (matrix // 2)
    return affine


def interleaved_order(n: int) -> NDArray[np.intp]:
    """Order in which a scanner takes n spokes of a spiral: any contiguous part of it covers the sphere evenly.

    By the reversed bits of their numbers (van der Corput's sequence).
    """
    bits = max(1, (n - 1).bit_length())
    reversed_bits = sum(((np.arange(2**bits) >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
    order = np.asarray(reversed_bits, dtype=np.intp)
    return order[order < n]


def noise_sigma(
    subject: Subject, acquisition: Acquisition, trajectory: Trajectory, n_coils: int, wm_snr: float
) -> float:
    """Noise of one sample's real part for which white matter has a given SNR in the unfiltered gridded image."""
    signal = subject.white_matter_mM * float(signal_factor(acquisition, subject.white_matter_relaxation))
    profiles = coil_profiles(subject.white_matter_points_mm, n_coils)
    shading = float(np.sqrt((np.abs(profiles) ** 2).sum(axis=0)).mean())
    return signal * shading / (wm_snr * gridding_noise_sd(1.0, trajectory))


def measure(
    subject: Subject,
    protocol: PhantomProtocol,
    acquisition: Acquisition,
    scanner: ScannerFields,
    *,
    wm_snr: float,
    gain: float,
    flip_factor: float,
    rngs: Sequence[np.random.Generator],
    poses: Sequence[NDArray[np.float64]] = (np.eye(4),),
) -> list[RawData]:
    """Raw data of one acquisition, repeated with new noise once for every random generator.

    Parameters
    ----------
    acquisition
        One echo of the protocol.
    wm_snr
        Of the protocol's first echo, at nominal flip angle; infinite for no noise.
    gain
        Factor on signal and noise.
    flip_factor
        True relative to nominal flip angle at the isocentre, before the transmit profile.
    poses : (4, 4) each
        Where the head lies in each of as many blocks of consecutive spokes, as the rigid map of its points (RAS mm of
        the sodium frame). Vials and coils stay.

    Returns
    -------
    Raw data with their spokes in the order of :func:`interleaved_order`.
    """
    trajectory = radial_trajectory(acquisition, protocol.n_spokes, protocol.n_samples)
    order = interleaved_order(trajectory.n_readouts)
    true = replace(acquisition, flip_angle_deg=acquisition.flip_angle_deg * flip_factor)
    clean = np.empty((scanner.n_coils, trajectory.n_readouts, trajectory.n_samples), np.complex64)
    for pose, spokes in zip(poses, np.array_split(order, len(poses)), strict=True):
        clean[:, spokes] = simulate_kspace(
            subject.sources,
            subject.affine,
            subject.sodium_to_t1w @ np.linalg.inv(pose),
            replace(trajectory, k_per_mm=trajectory.k_per_mm[spokes]),
            true,
            vials=subject.vials,
            scanner=scanner,
        )
    clean *= np.float32(gain)
    sigma = gain * noise_sigma(subject, protocol.acquisition, trajectory, scanner.n_coils, wm_snr)
    voxel_mm = acquisition.nominal_resolution_mm[0]
    n = protocol.matrix
    silence = np.zeros((scanner.n_coils, _NOISE_SAMPLES), np.complex64)
    return [
        RawData(
            kspace=(add_noise(clean, sigma, rng) if sigma else clean)[:, order],
            trajectory=replace(trajectory, k_per_mm=trajectory.k_per_mm[order]),
            shape=(n, n, n),
            voxel_mm=(voxel_mm, voxel_mm, voxel_mm),
            affine=sodium_affine(n, voxel_mm),
            noise=add_noise(silence, sigma, rng) if sigma else None,
            trajectory_name=acquisition.trajectory,
            field_strength_t=acquisition.field_strength_t,
            echo_time_s=acquisition.echo_time_s,
            repetition_time_s=acquisition.repetition_time_s,
            flip_angle_deg=acquisition.flip_angle_deg,
            source="phantom",
        )
        for rng in rngs
    ]


def calibration_protocol(protocol: PhantomProtocol) -> PhantomProtocol:
    """A quick 8 mm version of a protocol, for the pair of images that shows the receive profile."""
    acquisition = replace(protocol.acquisition, nominal_resolution_mm=(_CALIBRATION_MM,) * 3, linear_fraction=0.5)
    return PhantomProtocol(acquisition, _CALIBRATION_SPOKES, _CALIBRATION_SAMPLES, protocol.field_of_view_mm)
