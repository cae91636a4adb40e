"""Writing raw radial data as ISMRMRD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sodium_prep.recon.ismrmrd_file import NOISE_FLAG, flag, write_records
from sodium_prep.recon.raw_data import LPS_TO_RAS, NUCLEUS, TRAJECTORY_UNITS, RawData

_PROTON_HZ_PER_T = 42.577478518e6


def write_ismrmrd(path: str | Path, raw: RawData) -> None:
    """Write raw data as an ISMRMRD file that :func:`sodium_prep.recon.raw.read_raw` and the ismrmrd library read.

    Noise comes first, cut into readouts of the imaging length.

    Parameters
    ----------
    path
        File to write, replaced if it exists.
    raw
        At most 65535 samples per readout.
    """
    _, spokes, samples = raw.kspace.shape
    if samples > np.iinfo(np.uint16).max:
        raise ValueError(f"ISMRMRD holds at most 65535 samples per readout, got {samples}")
    k_per_m = (raw.trajectory.k_per_mm.astype(np.float64) * 1e3).astype(np.float32)
    heads = _heads(raw, spokes, samples)
    index = np.arange(spokes)
    heads["idx"]["kspace_encode_step_1"] = index & 0xFFFF
    heads["idx"]["kspace_encode_step_2"] = index >> 16
    heads["trajectory_dimensions"] = 3
    trajectories, lines = list(k_per_m.reshape(spokes, -1)), [_flat(raw.kspace[:, row]) for row in index]
    if raw.noise is not None:
        parts = np.split(raw.noise, range(samples, raw.noise.shape[1], samples), axis=1)
        noise_heads = _heads(raw, len(parts), samples)
        noise_heads["number_of_samples"] = [p.shape[1] for p in parts]
        noise_heads["flags"] = flag(NOISE_FLAG)
        heads = np.concatenate([noise_heads, heads])
        trajectories = [np.empty(0, np.float32)] * len(parts) + trajectories
        lines = [_flat(part) for part in parts] + lines
    heads["scan_counter"] = np.arange(len(heads))
    write_records(Path(path), _header_xml(raw), heads, trajectories, lines)


def _flat(samples: NDArray[np.complexfloating[Any]]) -> NDArray[np.float32]:
    """Real and imaginary parts in turn, channel by channel, of complex numbers of any precision."""
    return np.ascontiguousarray(samples, dtype=np.complex64).view(np.float32).ravel()


def _heads(raw: RawData, count: int, samples: int) -> NDArray[Any]:
    """Acquisition headers with everything that all readouts share."""
    from ismrmrd.hdf5 import acquisition_header_dtype

    lps = LPS_TO_RAS @ raw.affine
    axes = lps[:3, :3] / np.asarray(raw.voxel_mm)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise ValueError("the affine is no rotation of voxels of the stated size")
    heads = np.zeros(count, dtype=acquisition_header_dtype)
    coils = len(raw.kspace)
    heads["version"] = 1
    heads["number_of_samples"] = samples
    heads["available_channels"] = heads["active_channels"] = coils
    for channel in range(min(coils, 1024)):
        heads["channel_mask"][:, channel // 64] |= np.uint64(1 << (channel % 64))
    heads["sample_time_us"] = 1e6 * raw.trajectory.readout_duration_s / (samples - 1)
    heads["position"] = lps[:3, :3] @ (np.asarray(raw.shape) // 2) + lps[:3, 3]
    for column, name in enumerate(("read_dir", "phase_dir", "slice_dir")):
        heads[name] = axes[:, column]
    return heads


def _header_xml(raw: RawData) -> str:
    from ismrmrd import xsd

    matrix = xsd.matrixSizeType(**dict(zip("xyz", raw.shape, strict=True)))
    extent = xsd.fieldOfViewMm(**dict(zip("xyz", raw.field_of_view_mm, strict=True)))
    space = xsd.encodingSpaceType(matrixSize=matrix, fieldOfView_mm=extent)
    description = xsd.trajectoryDescriptionType(
        identifier=raw.trajectory_name or "other",
        userParameterString=[xsd.userParameterStringType(name="traj_units", value=TRAJECTORY_UNITS)],
    )
    encoding = xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        encodingLimits=xsd.encodingLimitsType(),
        trajectory=xsd.trajectoryType.OTHER,
        trajectoryDescription=description,
    )
    field_t = raw.field_strength_t
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(_PROTON_HZ_PER_T * (field_t or 0.0))
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=field_t, receiverChannels=len(raw.kspace)
        ),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[] if raw.repetition_time_s is None else [1e3 * raw.repetition_time_s],
            TE=[] if raw.echo_time_s is None else [1e3 * raw.echo_time_s],
            flipAngle_deg=[] if raw.flip_angle_deg is None else [raw.flip_angle_deg],
        ),
        userParameters=xsd.userParametersType(
            userParameterString=[xsd.userParameterStringType(name="ResonantNucleus", value=NUCLEUS)]
        ),
    )
    return str(xsd.ToXML(header))
