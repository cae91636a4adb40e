"""Sidecar keys as typed, bounded quantities.

Numbers are taken as they stand: a value out of its physical bounds is refused with a hint at the likely unit, and
never converted.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.types import AllowInfNan, Strict, StringConstraints
from pydantic_core import ErrorDetails, PydanticCustomError

from sodium_prep.bids.points import ALL
from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import TRAJECTORIES, WITHOUT_LAW, Acquisition, FilterName, TrajectoryName
from sodium_prep.physics.constants import GAMMA_BAR_23NA_HZ_PER_T
from sodium_prep.physics.relaxation import TISSUES, Relaxation, Tissue, tissue_relaxation
from sodium_prep.quant.weighted import Weighting
from sodium_prep.recon.description import RawDescription

Matrix = Literal["agar", "saline", "PAG", "CSF", "vitreous"]
INTERNAL_MATRICES: tuple[Matrix, ...] = ("CSF", "vitreous")
"""References that lie inside the body, as against vials."""

_SECONDS = "Give seconds, as BIDS does (is the value in milliseconds?)"
_Number = Annotated[float, Strict(), AllowInfNan(False)]
_Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)]


def _fault(problem: str, mend: str) -> PydanticCustomError:
    return PydanticCustomError("sodium_prep", "{problem}", {"problem": problem, "mend": mend})


def _bounded(low: float, high: float, unit: str, mend: str, *, open_low: bool = False) -> AfterValidator:
    """Interval up to and with ``high``; ``open_low`` leaves its lower end out."""

    def check(value: float) -> float:
        if low <= value <= high and not (open_low and value == low):
            return value
        bracket = "(" if open_low else "["
        raise _fault(f"is {value:g}, outside {bracket}{low:g}, {high:g}] {unit}".strip(), mend)

    return AfterValidator(check)


def _known_trajectory(value: Any) -> Any:
    """Other trajectories read k-space in an order that is not known here."""
    if isinstance(value, str) and value not in TRAJECTORIES:
        mend = "Leave Trajectory out, and give the point spread function as an image (PointSpreadFunction, or --psf)"
        raise _fault(f"is {value!r}, which is not known ({', '.join(TRAJECTORIES)} are)", mend)
    return value


def _points(value: Any) -> Any:
    """One image of a point for all tissues, or one for each."""
    given = {ALL: value} if isinstance(value, str | Path) else value
    tissues = set(TISSUES)
    if not isinstance(given, Mapping) or not given or (set(given) != {ALL} and not set(given) <= tissues):
        mend = f"Give one file, or an object with a file for some of {', '.join(TISSUES)}"
        raise _fault("is not an image of a point, nor one by tissue", mend)
    return dict(given)


LATER_ECHOES = "LaterEchoTimes"
"""Where the model keeps all but the first of a list; no key of the sidecar."""

_EchoTime = Annotated[_Number, _bounded(0, 0.2, "s", _SECONDS, open_low=True)]
_RepetitionTime = Annotated[_Number, _bounded(0, 10, "s", _SECONDS, open_low=True)]
_Megahertz = Annotated[_Number, _bounded(1, 700, "MHz", "Give megahertz")]
_Degrees = Annotated[_Number, _bounded(0, 180, "degrees", "Give the flip angle in degrees", open_low=True)]
_Tesla = Annotated[_Number, _bounded(0.2, 14, "T", "Give the static field in tesla")]
_Relaxation = Annotated[_Number, _bounded(0, 0.2, "s", _SECONDS, open_low=True)]
_Fraction = Annotated[_Number, _bounded(0, 1, "", "Give a fraction between 0 and 1")]
_RelaxationError = Annotated[_Number, _bounded(0, 0.1, "s", "Give the standard error in seconds")]
_FractionError = Annotated[_Number, _bounded(0, 0.5, "", "Give the standard error of a fraction between 0 and 1")]
_Readout = Annotated[_Number, _bounded(0, 0.2, "s", _SECONDS, open_low=True)]
_Dwell = Annotated[
    _Number, _bounded(0, 1e-3, "s", "Give seconds, as BIDS does (is the value in microseconds?)", open_low=True)
]
_PulseDuration = Annotated[_Number, _bounded(0, 0.05, "s", _SECONDS)]
_LinearFraction = Annotated[_Number, _bounded(0, 1, "", "Give k0 / kmax", open_low=True)]
_FilterCutoff = Annotated[_Number, _bounded(0.1, 2, "", "Give the k / kmax where the window has fallen to one half")]
_FilterWidth = Annotated[_Number, _bounded(0.001, 1, "", "Give the width of the edge relative to kmax")]
_Resolution = Annotated[_Number, _bounded(0.2, 30, "mm", "Give millimetres")]
_FieldOfView = Annotated[_Number, _bounded(30, 1000, "mm", "Give millimetres")]
_Concentration = Annotated[_Number, _bounded(1, 1000, "mmol/L", "Give mmol/L (is the value in mol/L?)")]
_ConcentrationError = Annotated[_Number, _bounded(0, 100, "mmol/L", "Give the standard error in mmol/L")]
_Coordinate = Annotated[_Number, _bounded(-1000, 1000, "mm", "Give millimetres in scanner space, RAS+")]
_Radius = Annotated[_Number, _bounded(0.5, 100, "mm", "Give the inner radius in millimetres")]
_Length = Annotated[_Number, _bounded(0.5, 500, "mm", "Give the inner length in millimetres")]


_ImageUri = Annotated[str, StringConstraints(pattern=r"^bids::[A-Za-z0-9._+/-]+\.nii(\.gz)?$", max_length=500)]


class _Block(BaseModel):
    """Frozen block of our own keys; a key that is not known is more likely misspelt than meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SodiumAcquisition(_Block):
    """What the standard has no keys for: how k-space was sampled and filtered."""

    trajectory: Annotated[TrajectoryName, BeforeValidator(_known_trajectory)] | None = Field(
        default=None, alias="Trajectory"
    )
    readout_duration_s: _Readout | None = Field(default=None, alias="ReadoutDuration")
    dwell_time_s: _Dwell | None = Field(default=None, alias="DwellTime")
    trajectory_file: Path | None = Field(default=None, alias="TrajectoryFile")
    number_of_spokes: Annotated[int, Strict(), Field(ge=1)] | None = Field(default=None, alias="NumberOfSpokes")
    linear_fraction: _LinearFraction | None = Field(default=None, alias="LinearFraction")
    nominal_resolution_mm: tuple[_Resolution, _Resolution, _Resolution] | None = Field(
        default=None, alias="NominalResolution"
    )
    field_of_view_mm: tuple[_FieldOfView, _FieldOfView, _FieldOfView] | None = Field(default=None, alias="FieldOfView")
    kspace_filter: FilterName | None = Field(default=None, alias="KSpaceFilter")
    filter_cutoff: _FilterCutoff | None = Field(default=None, alias="FilterCutoff")
    filter_width: _FilterWidth | None = Field(default=None, alias="FilterWidth")
    sum_of_squares_channels: Annotated[int, Strict(), Field(ge=2, le=256)] | None = Field(
        default=None, alias="SumOfSquaresChannels"
    )
    rf_pulse_duration_s: _PulseDuration | None = Field(default=None, alias="RFPulseDuration")
    psf_files: Annotated[dict[str, Path], BeforeValidator(_points)] = Field(default={}, alias="PointSpreadFunction")
    nonlinear: Annotated[bool, Strict()] = Field(default=False, alias="NonlinearReconstruction")
    weighting: Weighting | None = Field(default=None, alias="Weighting")

    def check_filter(self) -> None:
        """Refuse a window without its parameters, or parameters of another one.

        Called once sidecar and protocol are joined: one may name the window and the other its parameters.
        """
        if self.kspace_filter is None:
            return
        needed = {"fermi": {"FilterCutoff", "FilterWidth"}, "gaussian": {"FilterCutoff"}}.get(self.kspace_filter, set())
        given = {"FilterCutoff": self.filter_cutoff, "FilterWidth": self.filter_width}
        there = {key for key, value in given.items() if value is not None}
        if lacking := sorted(needed - there):
            problem = f"has KSpaceFilter {self.kspace_filter} without {' and '.join(lacking)}"
            raise _fault(problem, "Give them relative to kmax, or write unknown to have the window sought in the noise")
        if idle := sorted(there - needed):
            problem = f"has {' and '.join(idle)}, which KSpaceFilter {self.kspace_filter} does not have"
            raise _fault(problem, "Leave them out, or correct KSpaceFilter")


class SodiumReference(_Block):
    """A region of known concentration: a vial, CSF or the vitreous humour."""

    label: _Label = Field(alias="Label")
    concentration_mM: _Concentration = Field(alias="Concentration")  # noqa: N815
    matrix: Matrix = Field(alias="Matrix")
    t1_s: _Relaxation | None = Field(default=None, alias="T1")
    t2star_fast_s: _Relaxation | None = Field(default=None, alias="T2starFast")
    t2star_slow_s: _Relaxation | None = Field(default=None, alias="T2starSlow")
    fraction_fast: _Fraction | None = Field(default=None, alias="FractionFast")
    t1_error_s: _RelaxationError = Field(default=0.0, alias="T1Error")
    t2star_fast_error_s: _RelaxationError = Field(default=0.0, alias="T2starFastError")
    t2star_slow_error_s: _RelaxationError = Field(default=0.0, alias="T2starSlowError")
    fraction_fast_error: _FractionError = Field(default=0.0, alias="FractionFastError")
    concentration_error_mM: _ConcentrationError | None = Field(default=None, alias="ConcentrationError")  # noqa: N815
    centre_ras_mm: tuple[_Coordinate, _Coordinate, _Coordinate] | None = Field(default=None, alias="CentreRAS")
    radius_mm: _Radius | None = Field(default=None, alias="Radius")
    length_mm: _Length | None = Field(default=None, alias="Length")
    axis: tuple[_Number, _Number, _Number] | None = Field(default=None, alias="Axis")
    mask: _ImageUri | None = Field(default=None, alias="Mask")

    @model_validator(mode="after")
    def _consistent(self) -> SodiumReference:
        if self.mask is not None and self.centre_ras_mm is not None:
            raise _fault("has a Mask and a CentreRAS", "Give one of them")
        if (self.centre_ras_mm is None) != (self.radius_mm is None):
            raise _fault("has only one of CentreRAS and Radius", "Give both, or none")
        if (self.length_mm is None) != (self.axis is None):
            raise _fault("has only one of Length and Axis", "Give both for a cylinder, none for a ball")
        if self.axis is not None and not np.any(self.axis):
            raise _fault("has an Axis without direction", "Give a vector such as [0, 0, 1]")
        if self.length_mm is not None and self.centre_ras_mm is None:
            raise _fault("has Length and Axis but no CentreRAS and Radius", "Give all four for a cylinder")
        if (self.fraction_fast or 0.0) > 0.0 and self.t2star_fast_s is None:
            raise _fault("has FractionFast but no T2starFast", "Give T2starFast in seconds")
        if self.t2star_fast_s is not None and self.fraction_fast is None:
            raise _fault("has T2starFast but no FractionFast", "Give the signal fraction that decays fast")
        if (self.t2star_fast_s or 0.0) > (self.t2star_slow_s or math.inf):
            raise _fault("has T2starFast above T2starSlow", "Exchange the two values")
        return self

    @property
    def is_vial(self) -> bool:
        """Whether it stands beside the head rather than lying in it."""
        return self.matrix not in INTERNAL_MATRICES

    @property
    def relaxation(self) -> Relaxation | None:
        """Relaxation times as given; None where T1 or T2starSlow is lacking."""
        if self.t1_s is None or self.t2star_slow_s is None:
            return None
        slow = Relaxation(
            self.t1_s,
            self.t2star_slow_s,
            t1_sd_s=self.t1_error_s,
            t2star_slow_sd_s=self.t2star_slow_error_s,
            citation="sidecar",
        )
        if self.t2star_fast_s is None or self.fraction_fast is None:
            return slow
        return replace(
            slow,
            t2star_fast_s=self.t2star_fast_s,
            fraction_fast=self.fraction_fast,
            t2star_fast_sd_s=self.t2star_fast_error_s,
            fraction_fast_sd=self.fraction_fast_error,
        )


class TissueRelaxation(_Block):
    """What a study knows of the relaxation of a tissue, in place of the literature."""

    t1_s: _Relaxation | None = Field(default=None, alias="T1")
    t2star_fast_s: _Relaxation | None = Field(default=None, alias="T2starFast")
    t2star_slow_s: _Relaxation | None = Field(default=None, alias="T2starSlow")
    fraction_fast: _Fraction | None = Field(default=None, alias="FractionFast")
    t1_sd_s: _RelaxationError | None = Field(default=None, alias="T1Error")
    t2star_fast_sd_s: _RelaxationError | None = Field(default=None, alias="T2starFastError")
    t2star_slow_sd_s: _RelaxationError | None = Field(default=None, alias="T2starSlowError")
    fraction_fast_sd: _FractionError | None = Field(default=None, alias="FractionFastError")
    citation: str = Field(alias="Citation", min_length=3)


@dataclass(frozen=True)
class AcquisitionFacts:
    """An acquisition, with what of it is known.

    Attributes
    ----------
    acquisition
        Echo time, repetition time, flip angle and field are always the sidecar's.
    psf_known
        Whether trajectory, readout, resolution and filter are known. Where False, those four fields are placeholders
        (NaN, or ``unknown``) from which no PSF may be computed.
    missing
        Sidecar keys that the PSF lacks.
    assumed
        One line for each value that was taken from elsewhere than the sidecar.
    """

    acquisition: Acquisition
    psf_known: bool
    missing: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


class SodiumSidecar(BaseModel):
    """The sidecar of one sodium image or k-space file, in seconds, degrees, tesla, millimetres and mmol/L."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    resonant_nucleus: Literal["23Na"] = Field(alias="ResonantNucleus")
    field_strength_t: _Tesla = Field(alias="MagneticFieldStrength")
    echo_time_s: _EchoTime = Field(alias="EchoTime")
    later_echo_times_s: tuple[_EchoTime, ...] = Field(default=(), alias=LATER_ECHOES)
    repetition_time_s: _RepetitionTime = Field(alias="RepetitionTime")
    flip_angle_deg: _Degrees = Field(alias="FlipAngle")
    pulse_sequence_type: str | None = Field(default=None, alias="PulseSequenceType")
    receive_coil_name: str | None = Field(default=None, alias="ReceiveCoilName")
    n_channels: Annotated[int, Strict(), Field(ge=1)] | None = Field(
        default=None, alias="NumberReceiveCoilActiveElements"
    )
    inversion_time_s: _RepetitionTime | None = Field(default=None, alias="InversionTime")
    imaging_frequency_mhz: _Megahertz | None = Field(default=None, alias="ImagingFrequency")
    sodium_acquisition: SodiumAcquisition = Field(default=SodiumAcquisition(), alias="SodiumAcquisition")
    references: tuple[SodiumReference, ...] = Field(default=(), alias="SodiumReferences")
    relaxation: dict[Tissue, TissueRelaxation] = Field(default={}, alias="Relaxation")

    @model_validator(mode="before")
    @classmethod
    def _several_echoes(cls, data: Any) -> Any:
        """The EchoTime of a file with several echoes is a list."""
        if not isinstance(data, dict):
            return data
        times = data.get("EchoTime")
        first, later = (times[0], times[1:]) if isinstance(times, list) and times else (times, [])
        data = {key: value for key, value in data.items() if key not in ("EchoTime", LATER_ECHOES)}
        return data | ({} if times is None else {"EchoTime": first, LATER_ECHOES: later})

    @model_validator(mode="before")
    @classmethod
    def _excitation_interval(cls, data: Any) -> Any:
        """RepetitionTimeExcitation is the interval that saturation depends on, so it goes before RepetitionTime."""
        if isinstance(data, dict) and "RepetitionTimeExcitation" in data:
            return {**data, "RepetitionTime": data["RepetitionTimeExcitation"]}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> SodiumSidecar:
        last = self.echo_times_s[-1]
        if any(time >= later for time, later in itertools.pairwise(self.echo_times_s)):
            raise _fault("has EchoTimes that do not rise", "List those of the echoes in their order, in seconds")
        if last >= self.repetition_time_s:
            problem = f"has EchoTime {last:g} s not below RepetitionTime {self.repetition_time_s:g} s"
            raise _fault(problem, "Give both in seconds, as BIDS does (is one of them in milliseconds?)")
        expected_mhz = 1e-6 * GAMMA_BAR_23NA_HZ_PER_T * self.field_strength_t
        if self.imaging_frequency_mhz and not 0.9 < self.imaging_frequency_mhz / expected_mhz < 1.1:
            problem = f"has ImagingFrequency {self.imaging_frequency_mhz:g} MHz where 23Na has {expected_mhz:.1f} MHz"
            raise _fault(problem, "Check which nucleus the image shows, and MagneticFieldStrength")
        for tissue, given in self.relaxation_given().items():
            try:
                tissue_relaxation(cast("Tissue", tissue), self.field_strength_t, given)
            except InputError as error:
                raise _fault(f"has a Relaxation.{tissue} whose {error.problem}", error.mend) from None
        self.sodium_acquisition.check_filter()
        stated = self.sodium_acquisition.weighting
        if stated not in (None, self._weighting_told()) and self._weighting_told() != "SQ":
            told = (
                "InversionTime"
                if self.inversion_time_s is not None
                else f"PulseSequenceType {self.pulse_sequence_type}"
            )
            problem = f"has SodiumAcquisition.Weighting {stated} beside {told}"
            raise _fault(problem, f"Correct one of them: {told} goes with {self._weighting_told()}")
        labels = [reference.label for reference in self.references]
        if len(set(labels)) < len(labels):
            raise _fault(f"has SodiumReferences of the same Label ({', '.join(labels)})", "Give each its own Label")
        return self

    @property
    def echo_times_s(self) -> tuple[float, ...]:
        """Of all echoes in the file, rising."""
        return (self.echo_time_s, *self.later_echo_times_s)

    @property
    def weighting(self) -> Weighting:
        """As stated, or as the sequence tells; anything but ``SQ`` has no concentration."""
        return self.sodium_acquisition.weighting or self._weighting_told()

    def _weighting_told(self) -> Weighting:
        sequence = (self.pulse_sequence_type or "").lower()
        if any(word in sequence for word in ("tqf", "triple", "quantum")):
            return "TQ"
        return "IR" if self.inversion_time_s is not None or "inversion" in sequence else "SQ"

    def relaxation_given(self) -> dict[str, dict[str, Any]]:
        """Fields of :class:`~sodium_prep.physics.relaxation.Relaxation` that replace the literature's, by tissue."""
        found: dict[str, dict[str, Any]] = {}
        for tissue, block in self.relaxation.items():
            values = block.model_dump(exclude_none=True)
            source = {"t1_citation": block.citation} if "t1_s" in values else {}
            if not values.keys() & {"t2star_fast_s", "t2star_slow_s", "fraction_fast"}:
                values.pop("citation")
            found[tissue] = values | source
        return found

    def raw_description(self) -> RawDescription:
        """What raw data beside the sidecar are."""
        block = self.sodium_acquisition
        return RawDescription(
            trajectory=block.trajectory,
            trajectory_file=block.trajectory_file,
            n_spokes=block.number_of_spokes,
            linear_fraction=block.linear_fraction,
            dwell_time_s=block.dwell_time_s,
            readout_duration_s=block.readout_duration_s,
            nominal_resolution_mm=block.nominal_resolution_mm,
            field_of_view_mm=block.field_of_view_mm,
            echo_times_s=self.echo_times_s,
            n_channels=self.n_channels,
        )

    def acquisition(
        self, voxel_mm: tuple[float, float, float] | None = None, kspace_filter: FilterName | None = None
    ) -> AcquisitionFacts:
        """Parameters for the signal and the PSF, with a record of what is lacking or assumed.

        Parameters
        ----------
        voxel_mm
            Taken as nominal resolution where the sidecar has none, with a note in ``assumed``.
        kspace_filter
            The filter of our own reconstruction, which takes the place of the sidecar's.
        """
        block = self.sodium_acquisition
        assumed = []
        resolution = block.nominal_resolution_mm
        if resolution is None and voxel_mm is not None:
            resolution = voxel_mm
            text = " x ".join(f"{size:g}" for size in voxel_mm)
            assumed.append(f"NominalResolution is lacking; the voxel size {text} mm was taken")
        trajectory = block.trajectory
        if trajectory is None and self.pulse_sequence_type in TRAJECTORIES:
            trajectory = cast("TrajectoryName", self.pulse_sequence_type)
            assumed.append(f"Trajectory is lacking; PulseSequenceType {trajectory} was taken")
        readout = 0.0 if trajectory == "Cartesian" else block.readout_duration_s
        window = kspace_filter or block.kspace_filter or "unknown"
        cutoff, width = (None, None) if kspace_filter else (block.filter_cutoff, block.filter_width)
        linear = block.linear_fraction
        if linear is None:
            linear = 0.2
            if trajectory in ("DA-3DPR", "TPI"):
                assumed.append("LinearFraction is lacking; 0.2 was taken")
        known = {
            "Trajectory": trajectory is not None,
            "ReadoutDuration": readout is not None,
            "NominalResolution": resolution is not None,
            "KSpaceFilter": window != "unknown",
            # What is left of the acquisition's PSF by compressed sensing or a denoiser, nobody can compute; nor that of
            # a trajectory without its readouts.
            "PointSpreadFunction": (not block.nonlinear or kspace_filter is not None) and trajectory not in WITHOUT_LAW,
        }
        missing = [key for key, there in known.items() if not there]
        acquisition = Acquisition(
            echo_time_s=self.echo_time_s,
            repetition_time_s=self.repetition_time_s,
            flip_angle_deg=self.flip_angle_deg,
            field_strength_t=self.field_strength_t,
            trajectory=trajectory or "Cartesian",
            readout_duration_s=math.nan if readout is None else readout,
            nominal_resolution_mm=resolution or (math.nan, math.nan, math.nan),
            linear_fraction=linear,
            kspace_filter=window,
            filter_cutoff=cutoff,
            filter_width=width,
        )
        return AcquisitionFacts(acquisition, not missing, tuple(missing), tuple(assumed))


def validation_message(
    faults: Sequence[ErrorDetails], origin: Mapping[str, object], where: object, known: Mapping[str, tuple[str, ...]]
) -> InputError:
    """Turn the errors of a model into one line that names file, keys, values and the first mend.

    Parameters
    ----------
    faults
        Of a :class:`pydantic.ValidationError`, at least one.
    origin
        The file that each top-level key was read from.
    where
        The file to name for a key that was read from none.
    known
        Keys of each block (``""`` for the top level), to propose the right spelling.
    """
    problems, mends = [], []
    for fault in faults:
        key = _key_text(_stated(fault["loc"]))
        mend = str(fault.get("ctx", {}).get("mend", ""))
        if fault["type"] == "missing":
            problem, mend = f"{key} is missing", mend or f"Add {key} to the JSON sidecar or to the --protocol file"
        elif fault["type"] == "sodium_prep":
            problem = f"{key} {fault['msg']}".strip()
        elif fault["type"] == "extra_forbidden":
            name = str(fault["loc"][-1])
            block = str(fault["loc"][0]) if len(fault["loc"]) > 1 else ""
            near = difflib.get_close_matches(name, known.get(block, ()), 1, 0.5)
            problem = f"{key} is not a known key"
            mend = f"Did you mean {near[0]}" if near else f"Known keys: {', '.join(known.get(block, ()))}"
        else:
            problem = f"{key} is {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
            mend = "Write the value as the documentation of the sidecar has it"
        problems.append(problem)
        mends.append(mend)
    first = _stated(faults[0]["loc"])[0] if faults[0]["loc"] else ""
    return InputError(origin.get(str(first), where), "; ".join(problems), mends[0])


def _stated(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The key as the sidecar has it."""
    match location:
        case (key, int(number)) if key == LATER_ECHOES:
            return "EchoTime", number + 1
    return location


def _key_text(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def aliases(model: type[BaseModel]) -> tuple[str, ...]:
    """JSON keys of a model."""
    return tuple(field.alias or name for name, field in model.model_fields.items())
