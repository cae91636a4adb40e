"""Small trajectories of every kind, fully sampled for what they are tested with."""

from __future__ import annotations

from functools import cache

from sodium_prep.recon import generators
from sodium_prep.recon.generators import Design, Readout
from sodium_prep.recon.gradients import Gradients

LIMITS = Gradients(40.0, 150.0)
RESOLUTION_MM, FIELD_MM = 8.0, 190.0
SLOW, FAST = Readout(0.010, 5e-5, LIMITS), Readout(0.003, 1.25e-5, LIMITS)

_MAKE = {
    "DA-3DPR": lambda: generators.density_adapted_radial(RESOLUTION_MM, 1500, SLOW, 0.3),
    "TPI": lambda: generators.twisted_projections(RESOLUTION_MM, FIELD_MM, SLOW, 0.3),
    "Cones": lambda: generators.cones(RESOLUTION_MM, FIELD_MM, FAST),
    "FLORET": lambda: generators.floret(RESOLUTION_MM, FIELD_MM, FAST),
    "SpiralStack": lambda: generators.spiral_stack((RESOLUTION_MM, 10.0), (FIELD_MM, FIELD_MM), FAST),
}
KINDS = tuple(_MAKE)


@cache
def design(kind: str) -> Design:
    return _MAKE[kind]()
