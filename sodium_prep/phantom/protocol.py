"""What a phantom study is made with: acquisition, vials, lesions, sites and tissue concentrations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from sodium_prep.errors import UsageError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation

AGAR: Final = Relaxation(0.035, 0.025, 0.004, 0.6, citation="phantom")
SALINE: Final = Relaxation(0.053, 0.053, citation="phantom")

CONCENTRATIONS_MM: Final[dict[str, float]] = {
    "cortex": 45.0,
    "hippocampus": 50.0,
    "deep_gm": 42.0,
    "wm": 35.0,
    "cerebellum_gm": 43.0,
    "cerebellum_wm": 34.0,
    "brainstem": 35.0,
    "csf": 140.0,
    "vitreous": 125.0,
    "soft": 25.0,
    "fat": 8.0,
    "bone": 1.0,
}
"""Sodium concentration of each structure, mM. Names of brain structures are those of the atlas table."""


@dataclass(frozen=True)
class Vial:
    """A cylinder of known concentration beside the head, fixed to the coil (RAS mm of the sodium image).

    ``matrix`` is a material the sidecar knows: agar, saline, PAG.
    """

    label: str
    concentration_mM: float  # noqa: N815
    centre_mm: tuple[float, float, float]
    relaxation: Relaxation = AGAR
    matrix: str = "agar"
    radius_mm: float = 9.0
    length_mm: float = 60.0
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    concentration_error_mM: float = 0.5  # noqa: N815

    @property
    def volume_mm3(self) -> float:
        """Volume of the cylinder."""
        return 3.141592653589793 * self.radius_mm**2 * self.length_mm


VIALS: Final[tuple[Vial, ...]] = (
    Vial("vial20", 20.0, (97.0, 66.0, 10.0)),
    Vial("vial50", 50.0, (-97.0, 66.0, 10.0)),
    Vial("vial80", 80.0, (97.0, -70.0, 10.0)),
    Vial("vial110", 110.0, (-97.0, -70.0, 10.0), SALINE, "saline"),
)


@dataclass(frozen=True)
class Lesion:
    """A ball, given in template space, in which the concentration of brain tissue is multiplied.

    ``on_t1w`` is the factor on the T1w signal of the tissue within; 1 makes the lesion invisible there.
    """

    centre_mm: tuple[float, float, float]
    radius_mm: float
    factor: float
    on_t1w: float = 1.0


@dataclass(frozen=True)
class Site:
    """A scanner: receiver gain, signal-to-noise ratio and true flip angle relative to those the protocol states."""

    name: str
    gain: float = 10.0
    snr_factor: float = 1.0
    flip_factor: float = 1.0


@dataclass(frozen=True)
class PhantomProtocol:
    """One sodium protocol; echo times beyond one make a multi-echo series.

    Attributes
    ----------
    acquisition
        Its ``echo_time_s`` is the first echo, its ``kspace_filter`` that of the scanner's image.
    n_spokes, n_samples
        Half-spokes of the acquisition and samples on each.
    field_of_view_mm
        Edge of the cubic image.
    further_echo_times_s
        Echo times after the first.
    """

    acquisition: Acquisition
    n_spokes: int
    n_samples: int
    field_of_view_mm: float = 240.0
    further_echo_times_s: tuple[float, ...] = field(default=())

    @property
    def matrix(self) -> int:
        """Voxels along each edge of the image."""
        return round(self.field_of_view_mm / self.acquisition.nominal_resolution_mm[0])

    @property
    def echoes(self) -> tuple[Acquisition, ...]:
        """The acquisition at each echo time."""
        later = (replace(self.acquisition, echo_time_s=t) for t in self.further_echo_times_s)
        return (self.acquisition, *later)


# The number of samples keeps the steps along a spoke below 1 / field of view.
PROTOCOLS: Final[dict[str, PhantomProtocol]] = {
    "standard": PhantomProtocol(
        Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (3.0, 3.0, 3.0), 0.2), 8000, 400
    ),
    "fast": PhantomProtocol(Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (4.0, 4.0, 4.0), 0.3), 5000, 128),
}


def find_protocol(protocol: str | PhantomProtocol) -> PhantomProtocol:
    """Return a protocol by name (``standard`` 3 mm, ``fast`` 4 mm), or the one given.

    Raises
    ------
    UsageError
        If there is no protocol of that name.
    """
    if isinstance(protocol, PhantomProtocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise UsageError("--protocol", f"there is no protocol {protocol!r}", f"Choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
