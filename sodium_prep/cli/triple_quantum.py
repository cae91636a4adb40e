"""The sub-command ``tq``: a triple-quantum image from the steps of a phase cycle."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from sodium_prep import __version__
from sodium_prep.bids.images import CheckedImage, load_finite, same_grid
from sodium_prep.bids.outputs import json_beside, write_bytes, write_json, write_nifti
from sodium_prep.bids.sidecar import read_json, sidecar_from_files
from sodium_prep.errors import InputError, UsageError
from sodium_prep.quant.noise import background_mask, estimate_noise_sd
from sodium_prep.quant.triple_quantum import PhaseCycle, TripleQuantumImage, triple_quantum_image
from sodium_prep.quant.triple_quantum_kspace import triple_quantum_scan
from sodium_prep.quant.weighted import CAUTION
from sodium_prep.recon.description import SUFFIXES
from sodium_prep.recon.raw import RawData, read_raw
from sodium_prep.recon.resample import guide_on_grid
from sodium_prep.report.quicklook import quicklook

Affine = NDArray[np.float64]
_T = TypeVar("_T")

_PULSES: Final = ("first", "second", "third", "receiver")
_MOST_TAU_S: Final = 0.1
_MOST_RADIANS: Final = 2.0 * np.pi + 0.01
_NOT_COPIED: Final = ("Units", "SodiumReferences")
"""Keys of a step's sidecar that do not hold for the combination."""


def combine_phase_cycle(args: argparse.Namespace) -> int:
    """Do what the options of ``sodium-prep-tools tq`` say."""
    raw = [path.suffix.lower() in SUFFIXES for path in args.steps]
    _check_options(args, raw)
    cycle = _cycle(args)
    found, affine, facts = (_of_kspace if all(raw) else _of_images)(args, cycle)
    for path in _write(args, found, affine, facts):
        print(path)
    return 0


def _check_options(args: argparse.Namespace, raw: list[bool]) -> None:
    if not args.out.name.endswith(".nii.gz"):
        raise UsageError(args.out, "is not a .nii.gz file name", "Give one, after the steps")
    if args.out in [*args.steps, *(args.phase or ()), *(args.imaginary or ())]:
        raise UsageError(args.out, "is an image of a step", "Give a name for the result, after the steps")
    if any(raw) and not all(raw):
        raise UsageError("STEP", "are images and raw data", "Give one kind")
    _check_parts(args, any(raw))
    for option, value, of_raw in (
        ("--noise", args.noise, False),
        ("--protocol", args.protocol, True),
        ("--echo", None if args.echo == 1 else args.echo, True),
        ("--filter", None if args.filter == "none" else args.filter, True),
    ):
        if value is not None and of_raw != any(raw):
            what = "raw data" if any(raw) else "images"
            raise UsageError(option, f"has no meaning for {what}", "Leave it out")
    if not 0.0 < args.tau <= _MOST_TAU_S:
        raise UsageError("--tau", f"is {args.tau:g}, outside (0, {_MOST_TAU_S:g}] s", "Give seconds")
    if args.noise is not None and not args.noise > 0.0:
        raise UsageError("--noise", f"is {args.noise:g}", "Give a positive number")
    if args.threads < 1:
        raise UsageError("--threads", f"is {args.threads}", "Give 1 or more")


def _check_parts(args: argparse.Namespace, raw: bool) -> None:
    """Images need one other part each, raw data none."""
    given = {name: files for name, files in (("--phase", args.phase), ("--imaginary", args.imaginary)) if files}
    if raw and given:
        raise UsageError(next(iter(given)), "has no meaning for raw data", "Leave it out")
    if not raw and len(given) != 1:
        problem = "or --imaginary is needed, because steps are combined as complex images"
        raise UsageError("--phase", problem, "Give one of them, an image for each step")
    for option, files in given.items():
        if len(files) != len(args.steps):
            problem = f"has {len(files)} images for {len(args.steps)} steps"
            raise UsageError(option, problem, "Give one for each step, in the same order")


def _cycle(args: argparse.Namespace) -> PhaseCycle:
    n, phases = len(args.steps), []
    for pulse in _PULSES:
        given = getattr(args, pulse)
        if len(given) not in (1, n):
            raise UsageError(
                f"--{pulse}", f"has {len(given)} phases for {n} steps", "Give one for each, or one for all"
            )
        phases.append(np.broadcast_to(np.asarray(given, dtype=float), (n,)))
    return PhaseCycle(*phases)


def _of_images(args: argparse.Namespace, cycle: PhaseCycle) -> tuple[TripleQuantumImage, Affine, Any]:
    partners = args.phase or args.imaginary
    steps: list[NDArray[np.complex64]] = []
    grids: list[CheckedImage] = []
    for path, partner in _with_bar(zip(args.steps, partners, strict=True), len(partners)):
        (values, own), (other, its) = load_finite(path), load_finite(partner)
        grids += [own, its]
        for image in (own, its):
            if not same_grid(image, grids[0]):
                problem = f"lies on another grid than {grids[0].path.name}"
                raise InputError(image.path, problem, "Give the images of one series")
        if args.imaginary:
            step = values + 1j * other
        elif np.abs(other).max() > _MOST_RADIANS:
            problem = f"has values up to {np.abs(other).max():.4g}, beyond 2 pi"
            raise InputError(partner, problem, "Scale it to radians by what the scanner's manual says")
        else:
            step = values * np.exp(1j * other)
        steps.append(step.astype(np.complex64))
    data, grid = np.stack(steps), grids[0]
    noise_sd = args.noise or _noise_sd(data, grid)
    field = _field_map(args.field_map, grid.shape, grid.affine)
    beside = json_beside(args.steps[0])
    sidecar = args.sidecar or (beside if beside.is_file() else None)
    facts = read_json(sidecar) if sidecar else {}
    if not isinstance(facts.get("SodiumAcquisition", {}), dict):
        raise InputError(sidecar, "has a SodiumAcquisition that is no object", "Write its keys between { and }")
    return triple_quantum_image(data, cycle, args.tau, noise_sd, field), grid.affine, facts


def _noise_sd(steps: NDArray[np.complex64], grid: CheckedImage) -> float:
    """Of the real and imaginary part of a step, from air."""
    air = background_mask(np.abs(steps).mean(axis=0), grid.affine, where=str(grid.path))
    values = steps[:, air]
    return estimate_noise_sd(np.stack([values.real, values.imag]), np.ones((2, *values.shape), bool), "real")


def _of_kspace(args: argparse.Namespace, cycle: PhaseCycle) -> tuple[TripleQuantumImage, Affine, Any]:
    sidecar = sidecar_from_files(args.sidecar, args.protocol) if args.sidecar or args.protocol else None
    description = sidecar.raw_description() if sidecar else None

    def read(path: Path) -> RawData:
        echoes = read_raw(path, description)
        if not 1 <= args.echo <= len(echoes):
            raise InputError(path, f"holds {len(echoes)} echoes, not {args.echo}", "Give --echo within them")
        raw: RawData = echoes[args.echo - 1]
        return raw

    scans = map(read, _with_bar(args.steps, len(args.steps)))
    first = next(scans)
    field = _field_map(args.field_map, first.shape, first.affine)
    options = {"kspace_filter": args.filter, "workers": args.threads}
    found = triple_quantum_scan(chain([first], scans), cycle, args.tau, field, **options)
    return found, first.affine, _facts_of(first, args)


def _facts_of(raw: RawData, args: argparse.Namespace) -> dict[str, Any]:
    """Sidecar keys of an image of raw data: those of the sidecar, and what is known of the scan."""
    known = {
        "EchoTime": raw.echo_time_s,
        "MagneticFieldStrength": raw.field_strength_t,
        "RepetitionTime": raw.repetition_time_s,
        "FlipAngle": raw.flip_angle_deg,
    }
    facts = read_json(args.sidecar) if args.sidecar else {}
    facts |= {key: value for key, value in known.items() if value is not None}
    block = facts.get("SodiumAcquisition", {})
    resolution = [0.5 / k for k in raw.trajectory.half_extents_per_mm]
    return facts | {"SodiumAcquisition": {"NominalResolution": resolution, **block, "KSpaceFilter": args.filter}}


def _with_bar(steps: Iterable[_T], total: int) -> Iterable[_T]:
    """The steps, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(steps, "steps", total, console=console, transient=True, disable=hidden)


def _field_map(path: Path | None, shape: tuple[int, int, int], affine: Affine) -> Any:
    """The off-resonance, Hz, on the grid of the steps; None where none is given."""
    if path is None:
        return None
    image, grid = load_finite(path)
    return guide_on_grid(image, grid.affine, np.eye(4), shape, affine)


def _write(args: argparse.Namespace, found: TripleQuantumImage, affine: Affine, facts: dict[str, Any]) -> list[Path]:
    """Magnitude, phase where the name asks for it, noise, picture and sidecars; the image's own sidecar last."""
    out: Path = args.out
    stem = out.name.removesuffix(".nii.gz")
    magnitude = np.abs(found.image)
    title = f"{args.steps[0].name} and {len(args.steps) - 1} more: triple-quantum filtered, signal of one step"
    picture = quicklook(magnitude, affine, title, "", CAUTION)
    kept = {key: value for key, value in facts.items() if key not in _NOT_COPIED}
    block = facts.get("SodiumAcquisition", {})
    content = kept | {
        "Description": f"Triple-quantum filtered image, magnitude. {CAUTION}",
        "Units": "arbitrary",
        "ResonantNucleus": "23Na",
        "SodiumAcquisition": {**block, "Weighting": "TQ"},
        "Sources": [path.name for path in (*args.steps, *(args.phase or ()), *(args.imaginary or ()))],
        "GeneratedBy": [{"Name": "sodium_prep", "Version": __version__}],
        "PhaseCycle": {
            **{pulse.capitalize(): [float(x) for x in getattr(args, pulse)] for pulse in _PULSES},
            "EvolutionTime": args.tau,
            "FieldMap": args.field_map.name if args.field_map else None,
            "NoiseSD": float(np.median(found.noise_sd)),
        },
    }
    written = [
        write_nifti(out, magnitude, affine),
        write_nifti(out.with_name(f"{stem}_stat-stderr.nii.gz"), found.noise_sd, affine),
        write_bytes(out.with_name(f"{stem}.png"), lambda stream: stream.write(picture)),
    ]
    if "_part-mag_" in out.name:
        phase = out.with_name(out.name.replace("_part-mag_", "_part-phase_"))
        text = "Phase of the triple-quantum filtered image"
        written.append(write_nifti(phase, np.angle(found.image), affine))
        written.append(write_json(json_beside(phase), content | {"Description": text, "Units": "rad"}))
    return [*written, write_json(json_beside(out), content)]
