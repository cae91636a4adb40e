"""The sub-command ``recon``: an image of one file of raw data, without a data set around it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from sodium_prep import __version__
from sodium_prep.anat.transforms import read_itk_affine
from sodium_prep.bids.images import load_finite
from sodium_prep.bids.outputs import json_beside, write_bytes, write_json, write_nifti
from sodium_prep.bids.sidecar import sidecar_from_files
from sodium_prep.errors import InputError, UsageError
from sodium_prep.physics.relaxation import Tissue, tissue_relaxation
from sodium_prep.pvc.measured import measured_psf
from sodium_prep.recon.decay import DecayReconstruction, reconstruct_decay
from sodium_prep.recon.motion import BlockMotion, MotionReport, correct_motion
from sodium_prep.recon.options import Options, Progress
from sodium_prep.recon.raw import RawData, read_raw
from sodium_prep.recon.reconstruct import Reconstruction, reconstruct
from sodium_prep.recon.resample import guide_on_grid
from sodium_prep.report.quicklook import quicklook
from sodium_prep.settings import GUIDED_METHODS

JOINT: Final = "agrdm"
"""Image and T2* of all echoes together."""
_TISSUES: tuple[Tissue, ...] = ("GM", "WM", "CSF")


def reconstruct_file(args: argparse.Namespace) -> int:
    """Do what the options of ``sodium-prep-tools recon`` say."""
    _check_options(args)
    sidecar = sidecar_from_files(args.sidecar, args.protocol) if args.sidecar or args.protocol else None
    description = sidecar.raw_description() if sidecar else None
    raws = [raw for path in args.kspace for raw in read_raw(path, description, average=not args.motion_blocks)]
    given = sidecar.relaxation_given() if sidecar else {}
    if args.method == JOINT:
        first = raws[0]
        field_t = sidecar.field_strength_t if sidecar else first.field_strength_t
        options = Options(
            method=JOINT,
            strength=args.strength,
            guide=_guide(args, first) if args.t1w else None,
            relaxations=_relaxations(first.echo_time_s, field_t, given),
            seed=args.seed,
            workers=args.threads,
        )
        with _progress() as told:
            found = reconstruct_decay(raws, options, told)
        _tell_of_points(options)
        times = sorted(raw.echo_time_s or 0.0 for raw in raws)
        return _tell(_write(args.out, found.scan, raws, times, decay=found))
    if not 1 <= args.echo <= len(raws):
        raise InputError(args.kspace[0], f"holds {len(raws)} echoes, not {args.echo}", "Give --echo within them")
    raw = raws[args.echo - 1]
    echo_time_s = raw.echo_time_s
    field_t = sidecar.field_strength_t if sidecar else raw.field_strength_t
    motion = None
    with _progress() as told:
        if args.motion_blocks:
            told("motion", 0, 1)
            raw, motion = correct_motion(raw, args.motion_blocks)
        options = Options(
            method=args.method,
            kspace_filter=args.filter,
            strength=args.strength,
            guide=_guide(args, raw) if args.t1w else None,
            relaxations=_relaxations(echo_time_s, field_t, given),
            echo_time_s=echo_time_s or 0.0,
            off_resonance_hz=_field_map(args, raw) if args.field_map else None,
            seed=args.seed,
            workers=args.threads,
        )
        result = reconstruct(raw, options, told)
    for note in motion.notes if motion else ():
        print(note, file=sys.stderr)
    _tell_of_points(options)
    return _tell(_write(args.out, result, [raw], echo_time_s, motion))


def _tell_of_points(options: Options) -> None:
    if not options.relaxations:
        print("no point spread function: echo time or field strength are not known; give --sidecar", file=sys.stderr)


def _tell(written: list[Path]) -> int:
    for path in written:
        print(path)
    return 0


def _relaxations(echo_time_s: float | None, field_t: float | None, given: Any) -> dict[str, Any]:
    """Tissues whose point spread function can be told."""
    if echo_time_s is None or field_t is None:
        return {}
    return {tissue: tissue_relaxation(tissue, field_t, given.get(tissue)) for tissue in _TISSUES}


def _check_options(args: argparse.Namespace) -> None:
    if not args.out.name.endswith(".nii.gz"):
        raise UsageError(args.out, "is not a .nii.gz file name", "Give one")
    guided, joint = args.method in GUIDED_METHODS, args.method == JOINT
    if guided and args.t1w is None:
        raise UsageError("--method", f"{args.method} needs an anatomical image", "Give --t1w")
    if len(args.kspace) > 1 and not joint:
        raise UsageError(args.kspace[1], f"is a second file, but {args.method} takes one", "Give one")
    for option, value, sense in (
        ("--sidecar", args.sidecar, len(args.kspace) == 1),
        ("--t1w", args.t1w, guided or joint),
        ("--transform", args.transform, args.t1w is not None),
        ("--field-map", args.field_map, not joint),
        ("--motion-blocks", args.motion_blocks or None, not joint),
        ("--strength", args.strength, args.method not in ("gridding", "sense")),
        ("--filter", None if args.filter == "none" else args.filter, args.method == "gridding"),
    ):
        if value is not None and not sense:
            what = "several files" if option == "--sidecar" else args.method
            raise UsageError(option, f"has no meaning for {what}", "Leave it out")
    if args.strength is not None and not args.strength > 0.0:
        raise UsageError("--strength", f"is {args.strength:g}", "Give a positive number")
    for option, number, least in (("--threads", args.threads, 1), ("--motion-blocks", args.motion_blocks, 0)):
        if number < least:
            raise UsageError(option, f"is {number}", f"Give {least} or more")


def _guide(args: argparse.Namespace, raw: RawData) -> Any:
    """The anatomical image on the grid of the raw data, by its header or by a transform."""
    image, grid = load_finite(args.t1w)
    matrix = read_itk_affine(args.transform) if args.transform else np.eye(4)
    return guide_on_grid(image, grid.affine, matrix, raw.shape, raw.affine)


def _field_map(args: argparse.Namespace, raw: RawData) -> Any:
    """The off-resonance, Hz, on the grid of the raw data."""
    image, grid = load_finite(args.field_map)
    return guide_on_grid(image, grid.affine, np.eye(4), raw.shape, raw.affine)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("reading")

        def tell(what: str, number: int, of: int) -> None:
            bars.update(task, description=f"{what} {number}/{of}" if number else what)

        yield tell


def _write(
    out: Path,
    result: Reconstruction,
    raws: Sequence[RawData],
    echo_time_s: float | Sequence[float] | None,
    motion: MotionReport | None = None,
    decay: DecayReconstruction | None = None,
) -> list[Path]:
    """Image, noise, point spread functions, T2* map, picture and sidecar; the sidecar of the image last."""
    stem = out.name.removesuffix(".nii.gz")
    written = [
        write_nifti(out, result.image, result.affine),
        write_nifti(out.with_name(f"{stem}_stat-stderr.nii.gz"), result.noise_sd, result.affine),
    ]
    widths = _widths(result)
    for tissue in widths:
        path = out.with_name(f"{stem}_label-{tissue}_psf.nii.gz")
        written.append(write_nifti(path, result.psf[tissue], result.psf_affine))
    noise = float(np.median(result.noise_sd))
    brightness = float(np.median(result.image[result.image > 0.3 * np.percentile(result.image, 99.0)]))
    sources = list(dict.fromkeys(Path(raw.source).name for raw in raws))
    title = f"{sources[0]}: {result.method}, signal / noise {brightness / noise:.0f}"
    picture = quicklook(result.image, result.affine, title, "signal per mm³")
    written.append(write_bytes(out.with_name(f"{stem}.png"), lambda stream: stream.write(picture)))
    when = ", at the centre of the excitation, before any decay" if decay else ""
    content = {
        "Description": f"Sodium image reconstructed from k-space{when}, receive profile not removed",
        "Units": "arbitrary",
        "ResonantNucleus": "23Na",
        "EchoTime": echo_time_s,
        "MagneticFieldStrength": raws[0].field_strength_t,
        "Sources": sources,
        "GeneratedBy": [{"Name": "sodium_prep", "Version": __version__}],
        "Reconstruction": {
            "Method": result.method,
            "KSpaceFilter": result.kspace_filter,
            "Steps": result.steps,
            "Strength": result.strength,
            "MotionBlocks": [_block(block) for block in motion.blocks] if motion else None,
            "ReceiveChannels": result.n_coils,
            "VirtualChannels": len(result.sensitivities),
            "NoiseFromNoiseScan": result.noise_from_scan,
            "NoiseSD": noise,
            "PointSpreadFunctionFWHM": widths,
        },
    }
    if decay:
        told = "T2* with one exponential; NaN at the level of the noise and beyond the times that the echoes tell"
        for name, values, text in (
            ("T2starmap", decay.t2star_s, told),
            ("stat-stderr_T2starmap", decay.t2star_sd_s, "Standard error of T2* by noise"),
        ):
            path = write_nifti(out.with_name(f"{stem}_{name}.nii.gz"), values, result.affine)
            written += [path, write_json(json_beside(path), content | {"Description": text, "Units": "s"})]
    written.append(write_json(json_beside(out), content))
    return written


def _widths(result: Reconstruction) -> dict[str, tuple[float, float, float]]:
    """Of the point spread functions that are whole: few readouts leave streaks as far as an image of a point goes."""
    found = {}
    for tissue, point in result.psf.items():
        try:
            found[tissue] = measured_psf(point, result.psf_voxel_mm, own=result.method != "gridding").fwhm_mm
        except InputError as error:
            print(f"no point spread function of {tissue}: it {error.problem}", file=sys.stderr)
    return found


def _block(block: BlockMotion) -> dict[str, Any]:
    return {
        "Degrees": [float(x) for x in block.motion[:3]],
        "Millimetres": [float(x) for x in block.motion[3:]],
        "StandardError": [float(x) for x in block.standard_error],
        "Applied": bool(block.applied),
        "Rejected": bool(block.rejected),
    }
