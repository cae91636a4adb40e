"""Makes a BIDS study of digital heads, and beside it the truth.

Everything is drawn from the seed: a random stream belongs to (participant, session, purpose), so asking for k-space or
for another run changes nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sodium_prep import __version__
from sodium_prep.bids.writers import write_json, write_text, write_tsv
from sodium_prep.phantom import sidecars
from sodium_prep.phantom.design import Person, StudyDesign, check_design, draw_person
from sodium_prep.phantom.protocol import VIALS, Lesion, PhantomProtocol, Site, Vial, find_protocol
from sodium_prep.phantom.session import make_session, session_place
from sodium_prep.phantom.sodium import ScannerFields

Lesions = Sequence[Lesion] | Mapping[str, Sequence[Lesion]]


def make_study(
    out_dir: str | Path,
    *,
    participants: int = 2,
    groups: Sequence[str] = ("control",),
    protocol: str | PhantomProtocol = "standard",
    sessions: int = 1,
    runs: int = 1,
    kspace: bool = False,
    images: bool = True,
    image_part: Literal["magnitude", "real"] = "magnitude",
    coils: int = 1,
    transmit_peak: float = 0.0,
    off_resonance_hz: float = 0.0,
    vials: Sequence[Vial] = VIALS,
    concentrations_mM: Mapping[str, float] | None = None,
    effects: Mapping[str, Mapping[str, float]] | None = None,
    subject_sd: float = 0.05,
    region_sd: float = 0.02,
    lesions: Lesions = (),
    sites: Sequence[Site | str] = ("phantom",),
    motion_deg: float = 5.0,
    motion_mm: float = 5.0,
    wm_snr: float = 20.0,
    t1w_voxel_mm: float = 1.0,
    t1w_bias: float = 0.2,
    t1w_noise: float = 0.03,
    seed: int = 0,
    truth_dir: str | Path | None = None,
) -> Path:
    """Make a valid BIDS data set of digital heads, and the truth about it in a second folder.

    Parameters
    ----------
    out_dir
        New or empty folder of the data set.
    participants
        Number of participants; groups take turns, and sites after each round of groups.
    protocol
        ``standard`` (3 mm), ``fast`` (4 mm) or one's own.
    sessions, runs
        Repeat scans: sessions with a new pose, runs with new noise only. Names have ``ses-`` or ``run-`` if there is
        more than one.
    kspace, images
        Write ISMRMRD files under ``sourcedata``; write the sodium images the scanner makes (decay, PSF and noise as in
        k-space, which is simulated either way).
    image_part
        What the scanner saves of its image.
    coils
        Receive loops; more than one adds the ``RB1COR`` pair of field maps.
    transmit_peak, off_resonance_hz
        See :class:`sodium_prep.phantom.sodium.ScannerFields`; a transmit profile (or a site with a wrong flip angle)
        adds a ``TB1map``.
    vials
        None by an empty sequence.
    concentrations_mM
        By structure or region, instead of the defaults.
    effects
        By group: relative change by structure or region, as ``{"AD": {"hippocampus": 0.12}}``.
    subject_sd, region_sd
        See :func:`sodium_prep.phantom.concentrations.draw_concentrations`.
    lesions
        Of all participants, or by group.
    sites
        Scanners, by name or in full.
    motion_deg, motion_mm
        Largest rotation and translation along each axis between T1w and sodium.
    wm_snr
        Of white matter in the unfiltered gridded image; ``inf`` for no noise.
    t1w_voxel_mm
        1.0, 1.5 or 2.0.
    t1w_bias, t1w_noise
        Peak of the bias field and Rician noise, relative.
    truth_dir
        Folder of the truth; ``<out_dir>-truth`` by default.

    Returns
    -------
    The data set's folder.
    """
    root = Path(out_dir)
    true_root = Path(truth_dir) if truth_dir is not None else root.with_name(f"{root.name}-truth")
    design = StudyDesign(
        participants=participants,
        groups=tuple(groups),
        protocol=find_protocol(protocol),
        sessions=sessions,
        runs=runs,
        kspace=kspace,
        images=images,
        image_part=image_part,
        scanner=ScannerFields(coils, transmit_peak, off_resonance_hz),
        vials=tuple(vials),
        concentrations_mM=concentrations_mM or {},
        effects=effects or {},
        subject_sd=subject_sd,
        region_sd=region_sd,
        lesions=_lesions_by_group(lesions, groups),
        sites=tuple(Site(site) if isinstance(site, str) else site for site in sites),
        motion_deg=motion_deg,
        motion_mm=motion_mm,
        wm_snr=wm_snr,
        t1w_voxel_mm=float(t1w_voxel_mm),
        t1w_bias=t1w_bias,
        t1w_noise=t1w_noise,
        seed=seed,
    )
    check_design(design, root, true_root)
    people = [draw_person(design, number) for number in range(1, participants + 1)]
    _write_dataset_files(root, true_root)
    for person in people:
        for session in range(1, sessions + 1):
            make_session(design, person, session, session_place(design, root, true_root, person, session))
    _write_participants(root, people)
    return root


def _lesions_by_group(lesions: Lesions, groups: Sequence[str]) -> dict[str, tuple[Lesion, ...]]:
    if isinstance(lesions, Mapping):
        return {group: tuple(values) for group, values in lesions.items()}
    return {group: tuple(lesions) for group in groups}


def _write_dataset_files(root: Path, true_root: Path) -> None:
    write_json(root / "dataset_description.json", sidecars.dataset_description("Digital sodium head phantom"))
    write_text(root / "README.md", sidecars.README.format(version=__version__))
    write_json(root / "participants.json", sidecars.PARTICIPANTS)
    anatomy = sidecars.dataset_description("True anatomy of the digital sodium head phantom", derivative=True)
    write_json(true_root / "derivatives" / "dataset_description.json", anatomy)
    write_text(true_root / "derivatives" / ".bidsignore", "**/*_xfm.*\n")


def _write_participants(root: Path, people: Sequence[Person]) -> None:
    rows = [
        {"participant_id": f"sub-{p.label}", "age": p.age, "sex": p.sex, "group": p.group, "site": p.site.name}
        for p in people
    ]
    write_tsv(root / "participants.tsv", rows, ("participant_id", "age", "sex", "group", "site"))
