"""JSON sidecars and descriptions of a phantom data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sodium_prep import __version__
from sodium_prep.phantom.protocol import PhantomProtocol, Vial
from sodium_prep.physics.acquisition import Acquisition

README = """# Digital head phantom

A study made by the phantom of sodium_prep {version}. Nobody was scanned. Anatomy: MNI152NLin6Asym T1w template and
Desikan-Killiany atlas, deformed and posed for each participant. The sodium images come from simulated k-space with
T2* decay during the readout. The true concentrations and transforms lie in a folder of their own beside this one.
"""

PARTICIPANTS: dict[str, Any] = {
    "age": {"Description": "Age of the simulated participant", "Units": "year"},
    "sex": {"Description": "Sex of the simulated participant", "Levels": {"F": "female", "M": "male"}},
    "group": {"Description": "Group that decides the simulated effects"},
    "site": {"Description": "Simulated scanner"},
}


def dataset_description(name: str, *, derivative: bool = False) -> dict[str, Any]:
    """Content of ``dataset_description.json``."""
    content: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative" if derivative else "raw",
        "License": "CC0",
        "Authors": ["sodium_prep phantom"],
    }
    content["GeneratedBy"] = [{"Name": "sodium_prep phantom", "Version": __version__}]
    return content


def sodium_sidecar(
    protocol: PhantomProtocol, acquisition: Acquisition, vials: Sequence[Vial], coil: str, filter_name: str
) -> dict[str, Any]:
    """Sidecar of a sodium image or k-space file."""
    content: dict[str, Any] = {
        "Modality": "MR",
        "Manufacturer": "sodium_prep phantom",
        "ResonantNucleus": "23Na",
        "MagneticFieldStrength": acquisition.field_strength_t,
        "ReceiveCoilName": coil,
        "PulseSequenceType": acquisition.trajectory,
        "EchoTime": acquisition.echo_time_s,
        "RepetitionTime": acquisition.repetition_time_s,
        "RepetitionTimeExcitation": acquisition.repetition_time_s,
        "FlipAngle": acquisition.flip_angle_deg,
        "NonlinearGradientCorrection": False,
        "SodiumAcquisition": {
            "Trajectory": acquisition.trajectory,
            "ReadoutDuration": acquisition.readout_duration_s,
            "DwellTime": acquisition.readout_duration_s / (protocol.n_samples - 1),
            "NumberOfSpokes": protocol.n_spokes,
            "LinearFraction": acquisition.linear_fraction,
            "NominalResolution": list(acquisition.nominal_resolution_mm),
            "FieldOfView": [protocol.field_of_view_mm] * 3,
            "KSpaceFilter": filter_name,
            "RFPulseDuration": 0.0,
        },
    }
    if vials:
        content["SodiumReferences"] = [vial_entry(vial) for vial in vials]
    return content


def vial_entry(vial: Vial) -> dict[str, Any]:
    """Entry of ``SodiumReferences``."""
    entry: dict[str, Any] = {
        "Label": vial.label,
        "Concentration": vial.concentration_mM,
        "Matrix": vial.matrix,
        "T1": vial.relaxation.t1_s,
        "T2starSlow": vial.relaxation.t2star_slow_s,
        "ConcentrationError": vial.concentration_error_mM,
        "CentreRAS": list(vial.centre_mm),
        "Radius": vial.radius_mm,
        "Length": vial.length_mm,
        "Axis": list(vial.axis),
    }
    if vial.relaxation.fraction_fast > 0.0:
        entry |= {"T2starFast": vial.relaxation.t2star_fast_s, "FractionFast": vial.relaxation.fraction_fast}
    return entry


def t1w_sidecar(field_strength_t: float) -> dict[str, Any]:
    """Sidecar of the T1w image."""
    return {
        "Modality": "MR",
        "Manufacturer": "sodium_prep phantom",
        "ResonantNucleus": "1H",
        "MagneticFieldStrength": field_strength_t,
        "PulseSequenceType": "MPRAGE",
        "EchoTime": 0.003,
        "RepetitionTime": 2.3,
        "FlipAngle": 9,
        "InversionTime": 0.9,
        "NonlinearGradientCorrection": False,
    }
