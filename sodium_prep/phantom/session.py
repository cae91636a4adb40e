"""One session of a phantom study: proton image, sodium scans, field maps and truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sodium_prep.bids.writers import write_json, write_nifti
from sodium_prep.phantom import grids, sidecars, truth
from sodium_prep.phantom.concentrations import sodium_sources, tissue_maps
from sodium_prep.phantom.design import Person, StudyDesign, random_stream
from sodium_prep.phantom.fields import transmit_profile
from sodium_prep.phantom.head import template_head
from sodium_prep.phantom.individual import IndividualHead, pose_head, random_rigid
from sodium_prep.phantom.proton import bias_field, clean_t1w, scanned_t1w
from sodium_prep.phantom.scan import Subject, calibration_protocol, measure, sodium_affine
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.recon.options import Options
from sodium_prep.recon.raw_data import RawData
from sodium_prep.recon.reconstruct import reconstruct

_CALIBRATION_SNR = 30.0


@dataclass(frozen=True)
class Place:
    """Where the files of one session go."""

    raw: Path
    source: Path
    truth: Path
    derivative: Path
    prefix: str


def session_place(design: StudyDesign, root: Path, true_root: Path, person: Person, session: int) -> Place:
    """Folders and name prefix of a session; without ``ses-`` in a study of one session."""
    parts = [f"sub-{person.label}"] + ([f"ses-{session:02d}"] if design.sessions > 1 else [])
    own = Path(*parts)
    return Place(
        raw=root / own,
        source=root / "sourcedata" / own / "sodium",
        truth=true_root / own,
        derivative=true_root / "derivatives" / own / "anat",
        prefix="_".join(parts),
    )


def make_session(design: StudyDesign, person: Person, session: int, place: Place) -> None:
    """Scan a participant once: pose the head, make and write all images, k-space and the truth."""
    rng = random_stream(design, "pose", person.number, session)
    poses = random_rigid(rng, 5.0, 4.0), random_rigid(rng, design.motion_deg, design.motion_mm)
    # A scanner's gain is set anew before every examination.
    gain = person.site.gain * float(np.exp(0.1 * random_stream(design, "sodium", person.number, session).normal()))
    # The head is let go before k-space needs the memory.
    subject = _scan_protons(design, person, session, place, *poses, gain)
    _write_sodium(design, person, session, place, subject, gain)


def _scan_protons(
    design: StudyDesign,
    person: Person,
    session: int,
    place: Place,
    head_to_t1w: NDArray[np.float64],
    motion: NDArray[np.float64],
    gain: float,
) -> Subject:
    """Write the T1w and the truth; return what the sodium scanner sees."""
    # Isocentres of the two scanners agree but for the motion, so this is the map from sodium to T1w points.
    sodium_to_t1w = head_to_t1w @ motion
    lesions = design.lesions.get(person.group, ())
    head = pose_head(template_head(), person.anatomy, head_to_t1w, lesions)
    t1w = clean_t1w(head, design.t1w_voxel_mm, lesions)
    _write_t1w(design, person, session, place, t1w, grids.block_affine(head.affine, design.t1w_voxel_mm))
    truth.write_derivatives(
        place.derivative, place.prefix, head=head, t1w=t1w, sodium_to_t1w=sodium_to_t1w, voxel_mm=design.t1w_voxel_mm
    )
    maps = tissue_maps(head, person.concentrations, lesions)
    tsc_mM = np.asarray(sum(maps.values()), dtype=np.float32)
    matrix = design.protocol.matrix
    grid = sodium_affine(matrix, design.protocol.acquisition.nominal_resolution_mm[0])
    truth.write_truth(
        place.truth,
        place.prefix,
        head=head,
        anatomy=person.anatomy,
        tsc_mM=tsc_mM,
        native_mM=truth.native_tsc(tsc_mM, head.affine, sodium_to_t1w, (matrix,) * 3, grid, design.vials),
        sodium_affine=grid,
        sodium_to_t1w=sodium_to_t1w,
        rows=truth.region_table(head, maps, template_head().table),
        voxel_mm=design.t1w_voxel_mm,
        facts=_facts(design, person, gain) | {"HeadToT1w": head_to_t1w, "SodiumToT1w": sodium_to_t1w},
    )
    return _subject(design, head, maps, sodium_to_t1w)


def _facts(design: StudyDesign, person: Person, gain: float) -> dict[str, Any]:
    return {
        "Group": person.group,
        "Site": asdict(person.site),
        "Gain": gain,
        "Scanner": asdict(design.scanner),
        "WhiteMatterSNR": design.wm_snr * person.site.snr_factor,
        "Scale": person.anatomy.scale,
        "Concentrations": dict(person.concentrations.by_name),
        "Vials": [sidecars.vial_entry(vial) for vial in design.vials],
        "Lesions": [asdict(lesion) for lesion in design.lesions.get(person.group, ())],
    }


def _subject(
    design: StudyDesign, head: IndividualHead, maps: dict[Any, Any], sodium_to_t1w: NDArray[np.float64]
) -> Subject:
    field_t = design.protocol.acquisition.field_strength_t
    white = np.argwhere(head.fractions["wm"] > 0.99)[::500]
    in_t1w = white @ head.affine[:3, :3].T + head.affine[:3, 3]
    inverse = np.linalg.inv(sodium_to_t1w)
    return Subject(
        sources=sodium_sources(maps, field_t),
        affine=head.affine,
        sodium_to_t1w=sodium_to_t1w,
        vials=design.vials,
        white_matter_mM=float(maps["WM"].sum(dtype=float) / head.fractions["wm"].sum(dtype=float)),
        white_matter_points_mm=in_t1w @ inverse[:3, :3].T + inverse[:3, 3],
        white_matter_relaxation=tissue_relaxation("WM", field_t),
    )


def _write_t1w(
    design: StudyDesign,
    person: Person,
    session: int,
    place: Place,
    clean: NDArray[np.float32],
    affine: NDArray[np.float64],
) -> None:
    rng = random_stream(design, "t1w", person.number, session)
    image = scanned_t1w(clean, bias_field(clean.shape, design.t1w_bias, rng), design.t1w_noise, rng)
    path = place.raw / "anat" / f"{place.prefix}_T1w.nii.gz"
    write_nifti(path, image, affine)
    field_t = design.protocol.acquisition.field_strength_t
    write_json(path.with_name(f"{place.prefix}_T1w.json"), sidecars.t1w_sidecar(field_t))


def _write_sodium(
    design: StudyDesign, person: Person, session: int, place: Place, subject: Subject, gain: float
) -> None:
    site, protocol = person.site, design.protocol
    echoes = protocol.echoes
    for number, acquisition in enumerate(echoes, start=1):
        rngs = [
            random_stream(design, "sodium", person.number, session, run, number) for run in range(1, design.runs + 1)
        ]
        scans = measure(
            subject,
            protocol,
            acquisition,
            design.scanner,
            wm_snr=design.wm_snr * site.snr_factor,
            gain=gain,
            flip_factor=site.flip_factor,
            rngs=rngs,
        )
        for run, raw in enumerate(scans, start=1):
            entities = f"{place.prefix}_acq-sodium"
            entities += f"_run-{run}" if design.runs > 1 else ""
            entities += f"_echo-{number}" if len(echoes) > 1 else ""
            _write_scan(design, place, entities, acquisition, raw)
    _write_field_maps(design, person, session, place, subject, gain)


def _write_scan(design: StudyDesign, place: Place, entities: str, acquisition: Any, raw: RawData) -> None:
    coil = "volume" if design.scanner.n_coils == 1 else f"array{design.scanner.n_coils}"
    if design.images:
        filter_name = acquisition.kspace_filter
        made = reconstruct(raw, Options(kspace_filter=filter_name))
        suffix = "MEGRE" if len(design.protocol.echoes) > 1 else "PDw"
        path = place.raw / "anat" / f"{entities}_{suffix}.nii.gz"
        write_nifti(path, made.image if design.image_part == "real" else made.magnitude, raw.affine)
        content = sidecars.sodium_sidecar(design.protocol, acquisition, design.vials, coil, filter_name)
        write_json(path.with_name(f"{entities}_{suffix}.json"), content)
    if design.kspace:
        from sodium_prep.recon.raw import write_ismrmrd

        place.source.mkdir(parents=True, exist_ok=True)
        write_ismrmrd(place.source / f"{entities}_kspace.h5", raw)
        content = sidecars.sodium_sidecar(design.protocol, acquisition, design.vials, coil, "none")
        write_json(place.source / f"{entities}_kspace.json", content)


def _write_field_maps(
    design: StudyDesign, person: Person, session: int, place: Place, subject: Subject, gain: float
) -> None:
    folder = place.raw / "fmap"
    scanner, acquisition = design.scanner, design.protocol.acquisition
    if scanner.n_coils > 1:
        quick = calibration_protocol(design.protocol)
        for number, (coil, fields) in enumerate((("body", replace(scanner, n_coils=1)), ("head", scanner))):
            rng = random_stream(design, "calibration", person.number, session, number)
            (raw,) = measure(
                subject,
                quick,
                quick.acquisition,
                fields,
                wm_snr=_CALIBRATION_SNR,
                gain=gain,
                flip_factor=person.site.flip_factor,
                rngs=[rng],
            )
            path = folder / f"{place.prefix}_acq-{coil}_RB1COR.nii.gz"
            write_nifti(path, reconstruct(raw).magnitude, raw.affine)
            content = sidecars.sodium_sidecar(quick, quick.acquisition, (), coil, "none")
            write_json(path.with_name(f"{place.prefix}_acq-{coil}_RB1COR.json"), content)
    if scanner.transmit_peak or person.site.flip_factor != 1.0:
        n, voxel_mm = design.protocol.matrix, acquisition.nominal_resolution_mm[0]
        affine = sodium_affine(n, voxel_mm)
        points = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1) * voxel_mm + affine[:3, 3]
        kappa = transmit_profile(points, scanner.transmit_peak) * person.site.flip_factor
        path = folder / f"{place.prefix}_acq-sodium_TB1map.nii.gz"
        write_nifti(path, np.rint(1000.0 * kappa) / 10.0, affine)
        write_json(path.with_name(f"{place.prefix}_acq-sodium_TB1map.json"), {"Units": "percent"})
