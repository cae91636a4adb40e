"""Spin 3/2 in its density matrix, propagated pulse by pulse: what a phase cycle of three pulses receives."""

import numpy as np
from scipy.linalg import expm

TAU_S, ECHO_S, FAST_S, SLOW_S, T1_S = 0.010, 0.0005, 0.0035, 0.024, 0.040
IZ = np.diag([1.5, 0.5, -0.5, -1.5]).astype(complex)
UP = np.diag(np.sqrt([3.0, 4.0, 3.0]), 1).astype(complex)


def _tensors():
    """Orthonormal irreducible tensors by rank and order, lowered from the highest by commutators."""
    found = {}
    for rank in (1, 2, 3):
        tensor = (-1.0) ** rank * np.linalg.matrix_power(UP, rank)
        for order in range(rank, -rank - 1, -1):
            found[rank, order] = tensor / np.linalg.norm(tensor)
            tensor = UP.T @ tensor - tensor @ UP.T
    return found


TENSORS = _tensors()


def _pulse(rho, phase_deg, flip_deg=90.0):
    phase = np.deg2rad(phase_deg)
    axis = np.cos(phase) * 0.5 * (UP + UP.T) + np.sin(phase) * -0.5j * (UP - UP.T)
    turn = expm(-1j * np.deg2rad(flip_deg) * axis)
    return turn @ rho @ turn.conj().T


def _evolve(rho, time_s, off_hz):
    """Quadrupolar relaxation of slow fluctuation (Jaccard et al., J Chem Phys 1986), and precession."""
    fast, slow, back = np.exp(-time_s / FAST_S), np.exp(-time_s / SLOW_S), np.exp(-time_s / T1_S)
    share = {key: np.vdot(tensor, rho) for key, tensor in TENSORS.items()}
    new = dict.fromkeys(share, 0.0)
    for order in (-1, 1):
        one, three = share[1, order], share[3, order]
        mixed = np.sqrt(6.0) / 5.0 * (slow - fast)
        new[1, order] = (0.6 * fast + 0.4 * slow) * one + mixed * three
        new[3, order] = mixed * one + (0.4 * fast + 0.6 * slow) * three
        new[2, order] = fast * share[2, order]
    equilibrium = np.vdot(TENSORS[1, 0], IZ)
    new[1, 0] = equilibrium + (share[1, 0] - equilibrium) * back
    for order in (-3, -2, 2, 3):
        for rank in range(abs(order), 4):
            new[rank, order] = share[rank, order] * slow
    return sum(np.exp(-2j * np.pi * off_hz * key[1] * time_s) * value * TENSORS[key] for key, value in new.items())


def received(phases, off_hz, flip_deg=90.0):
    """Signal over that of one 90 degree pulse."""
    rho = _pulse(_evolve(_pulse(IZ, phases[0], flip_deg), TAU_S, off_hz), phases[1], flip_deg)
    rho = _evolve(_pulse(rho, phases[2], flip_deg), ECHO_S, off_hz)
    return np.trace(rho @ UP) / np.trace(_pulse(IZ, 0.0) @ UP)


CLOSED_FORM = 9.0 / 40.0 * np.prod([np.exp(-t / SLOW_S) - np.exp(-t / FAST_S) for t in (TAU_S, ECHO_S)])
