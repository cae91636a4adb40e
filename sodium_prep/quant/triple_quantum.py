"""A triple-quantum image from the steps of a phase cycle, with off-resonance taken out.

Three pulses make the filter: the first brings magnetisation to coherence orders ``p1 = +-1``, relaxation over the time
tau makes third-rank coherence of them, the second pulse lifts that to ``p2 = +-3`` and the third brings it back to
``-1``, which is received. A pulse of phase ``phi`` that changes the order by ``dp`` gives the factor
``exp(-i dp phi)``, and off-resonance f over tau gives ``exp(-2 pi i f p1 tau)``: the parts that came by ``p1 = +1``
and ``-1`` add up on resonance only. Two sets of phases tell them apart, so each gets its own phase back before they are
added (Tanase and Boada, J Magn Reson 2005;174:270; Fleysher et al., NMR Biomed 2010;23:1191).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.errors import InputError

_ORDERS = (-2, -1, 0, 1, 2)
"""Orders after the second pulse that must not come through."""
_ESTIMABLE = 1e-6
_MEND = "Give steps of 60 degrees over a full turn with the second pulse at 90 and at 0 degrees from the first"


@dataclass(frozen=True)
class PhaseCycle:
    """Phases of every step in degrees, (steps,) each: of the three pulses, and the receiver's that was taken off."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    third: NDArray[np.float64]
    receiver: NDArray[np.float64]


def twelve_step_cycle() -> PhaseCycle:
    """Six steps with the second pulse 90 degrees from the first, then six with both alike; receiver at rest.

    In either half the two triple-quantum orders add up: ``cos 3 (phi1 + xi)`` is +-1 for the first phase ``phi1`` and
    the distance ``xi``.
    """
    turn = 60.0 * np.arange(6)
    rest = np.zeros(12)
    return PhaseCycle(np.concatenate([turn + 30.0, turn]), np.concatenate([turn + 120.0, turn]), rest, rest)


@dataclass(frozen=True)
class TripleQuantumImage:
    """What comes through the filter.

    Attributes
    ----------
    image
        (X, Y, Z) complex64, or one for each channel; scaled to the signal of one step on resonance with 90 degree
        pulses. Its phase is that of the receiver and of off-resonance over the echo time; without a map of the field,
        also over tau.
    noise_sd
        (X, Y, Z) float32, of its real and imaginary part.
    """

    image: NDArray[np.complex64]
    noise_sd: NDArray[np.float32]


def triple_quantum_image(
    steps: ArrayLike,
    cycle: PhaseCycle,
    tau_s: float,
    noise_sd: float,
    off_resonance_hz: ArrayLike | None = None,
    *,
    smooth_voxels: float = 1.5,
    where: str = "phase cycle",
) -> TripleQuantumImage:
    """Combine the complex images of a phase cycle.

    The parts by ``p1 = +1`` and ``-1`` are those combinations of the steps of least noise that pass them and no order
    below three. Relaxation and off-resonance between second and third pulse are left out, as these follow each other
    at once. A flip angle other than 90 degrees lowers the signal and is not corrected.

    Parameters
    ----------
    steps
        (steps, X, Y, Z) complex, on one grid, all of one receiver gain.
    cycle
        Their phases.
    tau_s
        Between first and second pulse, seconds.
    noise_sd
        Of the real and imaginary part of each step.
    off_resonance_hz
        Map of the field, (X, Y, Z). Without it the phase between the two parts, ``4 pi f tau``, is smoothed and taken.
    smooth_voxels
        Standard deviation of that smoothing; the field should hardly change over it.
    where
        For messages.

    Raises
    ------
    InputError
        If the cycle does not separate the parts from each other and from lower orders, or the steps do not match it.
    """
    data = np.asarray(steps, dtype=np.complex64)
    if data.ndim != 4 or len(data) != len(cycle.first):
        problem = f"has {len(cycle.first)} steps for images of shape {data.shape}"
        raise InputError(where, problem, "Give one 3D image for each step")
    weights = way_weights(cycle, where)
    ways = np.tensordot(weights.astype(np.complex64), data, axes=1)
    return join_ways(ways, weights, tau_s, noise_sd, off_resonance_hz, smooth_voxels=smooth_voxels)


def join_ways(
    ways: NDArray[np.complexfloating],
    weights: NDArray[np.complex128],
    tau_s: float,
    noise_sd: float,
    off_resonance_hz: ArrayLike | None = None,
    *,
    smooth_voxels: float = 1.5,
) -> TripleQuantumImage:
    """Bring the parts by ``p1 = +1`` and ``-1`` into phase and add them.

    Parameters
    ----------
    ways
        (2, X, Y, Z), or (2, channels, X, Y, Z) of channels with uncorrelated noise, which share the phase between.
    weights
        (2, steps), from :func:`way_weights`.
    tau_s, noise_sd, off_resonance_hz, smooth_voxels
        As for :func:`triple_quantum_image`.
    """
    plus, minus = ways
    if off_resonance_hz is None:
        product = (minus * plus.conj()).reshape(-1, *plus.shape[-3:]).sum(axis=0, dtype=np.complex128)
        half = np.ones(())
        apart = np.exp(1j * np.angle(_smooth(product, smooth_voxels)))
    else:
        half = np.exp(2j * np.pi * tau_s * np.asarray(off_resonance_hz, dtype=float))
        apart = half**2
    image = (0.5 * half).astype(np.complex64) * (plus + minus * apart.conj().astype(np.complex64))
    # Noise that both parts share adds by their phases.
    own = np.vdot(weights, weights).real
    shared = 2.0 * (apart * np.vdot(weights[1], weights[0])).real
    sd = 0.5 * noise_sd * np.sqrt(np.maximum(own + shared, 0.0))
    return TripleQuantumImage(image.astype(np.complex64), sd.astype(np.float32))


def way_weights(cycle: PhaseCycle, where: str = "phase cycle") -> NDArray[np.complex128]:
    """Weights of the steps for the parts by ``p1 = +1`` and ``-1``, (2, steps).

    Raises
    ------
    InputError
        If the cycle does not separate them from each other and from lower orders.
    """
    first, second, third, receiver = (
        np.deg2rad(np.asarray(phase, dtype=float)) for phase in (cycle.first, cycle.second, cycle.third, cycle.receiver)
    )

    def way(p1: int, p2: int) -> NDArray[np.complex128]:
        turned = p1 * first + (p2 - p1) * second + (-1 - p2) * third + receiver
        return np.asarray(np.exp(-1j * turned))

    # The reduced rotation matrix of rank 3 at 90 degrees has +sqrt(15) / 8 for all changes between +-1 and +-3; the
    # axis of the pulse gives i to the power of the change.
    parts = [0.25 * 1j ** (-1 - p1) * (way(p1, 3) + way(p1, -3)) for p1 in (1, -1)]
    others = [way(p1, p2) for p1 in (-1, 0, 1) for p2 in _ORDERS]
    design = np.stack([*parts, *others], axis=1)
    weights = np.linalg.pinv(design, rcond=1e-9)[:2]
    passed = weights @ design
    wanted = np.eye(2, design.shape[1])
    if np.abs(passed - wanted).max() > _ESTIMABLE:
        raise InputError(where, "does not separate the triple-quantum signal by its two ways", _MEND)
    return np.asarray(weights)


def _smooth(image: NDArray[np.complex128], sd_voxels: float) -> NDArray[np.complex128]:
    from scipy import ndimage

    real, imaginary = (ndimage.gaussian_filter(part, sd_voxels) for part in (image.real, image.imag))
    return np.asarray(real + 1j * imaginary)
