"""The command ``sodium-prep-tools``: phantom studies, reconstruction, PSF and regions by themselves, plans, power."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sodium_prep import __version__
from sodium_prep.cli.power import add_power
from sodium_prep.errors import SodiumPrepError, UsageError
from sodium_prep.settings import KSPACE_METHODS


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``sodium-prep-tools`` with its sub-commands."""
    parser = argparse.ArgumentParser(
        prog="sodium-prep-tools", description="Tools around sodium-prep.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"sodium-prep {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_phantom(commands)
    _add_phantom_cohort(commands)
    _add_recon(commands)
    _add_tq(commands)
    _add_psf(commands)
    _add_pvc(commands)
    _add_b1map(commands)
    add_power(commands)
    plan = commands.add_parser("plan", help="what sodium-prep would do with a data set, and from which files")
    plan.add_argument("bids_dir", type=Path)
    plan.add_argument("options", nargs=argparse.REMAINDER, help="options of sodium-prep")
    plan.set_defaults(run=_plan)
    demo = commands.add_parser("demo", help="a phantom study processed end to end, compared with its truth")
    demo.add_argument("folder", type=Path)
    demo.add_argument("--participants", type=int, default=2, metavar="N")
    demo.set_defaults(run=_demo)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run a sub-command and end the program with its exit code."""
    args = build_parser().parse_args(argv)
    try:
        sys.exit(args.run(args))
    except SodiumPrepError as error:
        print(f"sodium-prep-tools: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _add_phantom(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    phantom = commands.add_parser("phantom", help="a BIDS study of digital heads with known concentrations")
    add = phantom.add_argument
    add("out", type=Path, help="folder of the new data set; its truth goes to OUT-truth")
    add("--participants", type=int, default=2, metavar="N", help="in all (default: 2)")
    add("--groups", default="control", metavar="A:B", help="groups, separated by colons (default: control)")
    add("--effect", nargs="+", default=[], metavar="GROUP:REGION=PERCENT", help="change of a region in a group")
    add("--sites", default="", metavar="A:B", help="names of sites, separated by colons")
    add("--sessions", type=int, default=1, metavar="N")
    add("--runs", type=int, default=1, metavar="N", help="repeat scans per session")
    add("--preset", choices=["fast", "standard"], default="standard", help="4 mm or 3 mm nominal resolution")
    add("--kspace", action="store_true", help="write k-space as ISMRMRD too")
    add("--no-images", action="store_true", help="write no sodium images (with --kspace)")
    add("--coils", type=int, default=1, metavar="N")
    add("--vials", type=int, default=4, choices=range(5), metavar="N", help="0 to 4 (default: 4)")
    add("--lesion", nargs="+", default=[], metavar="X,Y,Z,RADIUS,FACTOR", help="in template space, mm")
    add("--wm-snr", type=float, default=20.0, metavar="SNR", help="0 for no noise (default: 20)")
    add("--t1w-voxel", type=float, default=1.0, metavar="MM")
    add("--t1w-bias", type=float, default=0.2, metavar="FRACTION")
    add("--t1w-noise", type=float, default=0.03, metavar="FRACTION")
    add("--off-resonance", type=float, default=0.0, metavar="HZ", help="largest frequency offset")
    add(
        "--transmit-peak",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="deviation of the flip angle; adds a TB1map",
    )
    add("--seed", type=int, default=0)
    add("--truth", type=Path, metavar="DIR", help="where the truth goes (default: OUT-truth)")
    phantom.set_defaults(run=_phantom)


def _add_phantom_cohort(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    cohort = commands.add_parser(
        "phantom-cohort", help="regional tables of a cohort with known effects, without images, for the group level"
    )
    add = cohort.add_argument
    add("out", type=Path, help="new folder: OUT/bids is the data set, OUT/derivatives its regional tables")
    groups = ["control=12", "AD=14"]
    add("--groups", nargs="+", default=groups, metavar="GROUP=N", help="controls first (default: control=12 AD=14)")
    add("--effect", nargs="+", default=[], metavar="GROUP:REGION=PERCENT", help="change of a region in a group")
    add("--atrophy", nargs="+", default=[], metavar="GROUP=PERCENT", help="more CSF in the voxels of grey matter")
    add("--change", nargs="+", default=[], metavar="GROUP:REGION=PERCENT", help="change per year")
    add("--sites", nargs="+", default=["A=0"], metavar="SITE=MM", help="sites and what they add to every TSC, mM")
    add("--sessions", type=int, default=1, metavar="N", help="a year apart")
    add("--seed", type=int, default=0)
    cohort.set_defaults(run=_phantom_cohort)


def _add_recon(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    recon = commands.add_parser("recon", help="reconstruct a file of raw data, or several of its echoes")
    add = recon.add_argument
    add(
        "kspace",
        type=Path,
        nargs="+",
        help="ISMRMRD (.h5, .mrd), Siemens twix (.dat) or exchange format (.npz, .h5); with agrdm also "
        "one for each echo",
    )
    add(
        "out",
        type=Path,
        help="image to write (.nii.gz); beside it go its sidecar, its noise (OUT_stat-stderr), its point spread "
        "functions (OUT_label-*_psf) and a picture (.png)",
    )
    add(
        "--method",
        choices=KSPACE_METHODS,
        default="gridding",
        help="default: gridding; agrdm makes one image without decay and a T2* map (OUT_T2starmap) of all echoes",
    )
    add("--filter", choices=["none", "hamming"], default="none", help="window of gridding on k-space (default: none)")
    add("--strength", type=float, metavar="X", help="of the prior, in standard deviations of the noise")
    add("--t1w", type=Path, metavar="NIFTI", help="anatomical image for agr, bowsher and agrdm")
    add(
        "--transform",
        type=Path,
        metavar="FILE",
        help="ITK transform that resamples sodium onto it (default: both headers are right)",
    )
    told = "off-resonance of sodium in Hz, to be undone (that of protons times 0.2645)"
    add("--field-map", type=Path, metavar="NIFTI", help=told)
    add(
        "--motion-blocks",
        type=int,
        default=0,
        metavar="N",
        help="take the motion between N consecutive blocks of readouts out of k-space (default: 0, none)",
    )
    add("--echo", type=int, default=1, metavar="N", help="of several echoes (default: 1)")
    add("--sidecar", type=Path, metavar="JSON", help="BIDS sidecar of the raw data")
    add("--protocol", type=Path, metavar="FILE", help="TOML with the sidecar keys, for what the sidecar lacks")
    add("--threads", type=int, default=1, metavar="N")
    add("--seed", type=int, default=0, help="of the noise that noise maps are made with")
    recon.set_defaults(run=_recon)


def _add_tq(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tq = commands.add_parser("tq", help="a triple-quantum image of the steps of a phase cycle")
    add = tq.add_argument
    add(
        "steps",
        type=Path,
        nargs="+",
        metavar="STEP",
        help="one file for each step: NIfTI magnitudes (or real parts), or raw data as for recon",
    )
    add(
        "out",
        type=Path,
        help="magnitude to write (.nii.gz), and its phase where the name has _part-mag_; beside it go sidecar, noise "
        "(OUT_stat-stderr) and a picture (.png)",
    )
    for pulse in ("first", "second", "third"):
        add(
            f"--{pulse}",
            type=float,
            nargs="+",
            required=True,
            metavar="DEG",
            help=f"phase of the {pulse} pulse in every step, or one for all",
        )
    add(
        "--receiver",
        type=float,
        nargs="+",
        default=[0.0],
        metavar="DEG",
        help="phase that the receiver took off in every step (default: 0)",
    )
    add("--tau", type=float, required=True, metavar="S", help="from the first to the second pulse")
    add("--phase", type=Path, nargs="+", metavar="NIFTI", help="phase images of the steps, in radians")
    add("--imaginary", type=Path, nargs="+", metavar="NIFTI", help="imaginary parts, where the steps are real parts")
    add("--field-map", type=Path, metavar="NIFTI", help="off-resonance in Hz (default: found from the steps)")
    add("--noise", type=float, metavar="SD", help="of the real part of a step's image (default: measured in air)")
    add("--filter", choices=["none", "hamming"], default="none", help="window on raw data (default: none)")
    add("--echo", type=int, default=1, metavar="N", help="of raw data with several echoes (default: 1)")
    add("--sidecar", type=Path, metavar="JSON", help="BIDS sidecar of the steps (of images, by default the first's)")
    add("--protocol", type=Path, metavar="FILE", help="TOML with the sidecar keys, for what that of raw data lacks")
    add("--threads", type=int, default=1, metavar="N")
    tq.set_defaults(run=_tq)


def _add_b1map(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    b1map = commands.add_parser("b1map", help="a TB1map from a phase-sensitive pair, which BIDS has no name for")
    b1map.add_argument(
        "plus", type=Path, help="phase image in radians, from twice the flip angle about +x, once about y"
    )
    b1map.add_argument("minus", type=Path, help="the same with -x")
    b1map.add_argument("magnitude", type=Path, help="magnitude of either")
    b1map.add_argument("out", type=Path, help="..._TB1map.nii.gz to write, with its sidecar")
    b1map.add_argument("--flip", type=float, required=True, metavar="DEG", help="nominal angle of the second pulse")
    b1map.set_defaults(run=_b1map)


def _add_psf(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    psf = commands.add_parser("psf", help="width of the point spread function of a protocol, per tissue")
    psf.add_argument("--resolution", type=float, required=True, metavar="MM", help="nominal, 1 / (2 kmax)")
    psf.add_argument("--readout", type=float, required=True, metavar="S", help="readout duration")
    psf.add_argument("--trajectory", choices=["DA-3DPR", "3DPR", "TPI", "Cartesian"], default="DA-3DPR")
    psf.add_argument("--linear-fraction", type=float, default=0.2, metavar="P")
    psf.add_argument("--filter", choices=["none", "hamming", "hann", "fermi", "gaussian"], default="none")
    psf.add_argument("--filter-cutoff", type=float, metavar="K", help="of fermi and gaussian: k / kmax of one half")
    psf.add_argument("--filter-width", type=float, metavar="K", help="of fermi: width of its edge over kmax")
    psf.add_argument("--echo-time", type=float, default=0.0005, metavar="S")
    psf.add_argument("--field", type=float, default=3.0, metavar="T")
    psf.set_defaults(run=_psf)


def _add_pvc(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pvc = commands.add_parser("pvc", help="values of regions in one image, corrected for partial volume")
    add = pvc.add_argument
    add("image", type=Path, help="NIfTI image, any unit")
    add("regions", type=Path, help="on the grid of the image: integer labels, or one volume of fractions per region")
    add("-o", "--output", type=Path, required=True, metavar="OUT.tsv", help="table to write; OUT.json goes beside it")
    add("--psf", type=float, metavar="MM", help="Gaussian point spread function of this FWHM")
    add("--sidecar", type=Path, metavar="JSON", help="BIDS sidecar: the point spread function follows from the readout")
    add("--protocol", type=Path, metavar="FILE", help="TOML with the sidecar keys, for what the sidecar lacks")
    add("--table", type=Path, metavar="TSV", help="columns index, name and tissue (which --psf does not need)")
    add("--method", nargs="+", choices=["labbe", "gtm"], default=["labbe", "gtm"], help="default: both")
    add("--noise", type=float, metavar="SD", help="of a voxel, in the unit of the image (default: from the residual)")
    pvc.set_defaults(run=_pvc)


_PSF_BOUNDS: Final[dict[str, tuple[float, float, str]]] = {
    "resolution": (0.2, 30.0, "mm"),
    "readout": (0.0, 0.2, "s"),
    "linear_fraction": (0.0, 1.0, ""),
    "echo_time": (0.0, 0.2, "s"),
    "field": (0.2, 14.0, "T"),
}
"""Those of the sidecar."""
_UNITS: Final = {"mm": "millimetres", "s": "seconds", "T": "tesla", "": "k0 / kmax"}


def _recon(args: argparse.Namespace) -> int:
    from sodium_prep.cli.recon import reconstruct_file

    return reconstruct_file(args)


def _tq(args: argparse.Namespace) -> int:
    from sodium_prep.cli.triple_quantum import combine_phase_cycle

    return combine_phase_cycle(args)


def _b1map(args: argparse.Namespace) -> int:
    from sodium_prep.bids.images import load_checked
    from sodium_prep.bids.writers import write_json, write_nifti
    from sodium_prep.errors import InputError
    from sodium_prep.quant.b1 import smooth_phase_sensitive_field

    if not args.out.name.endswith("_TB1map.nii.gz"):
        raise UsageError(args.out, "is not a name of a TB1map", "Give one that ends in _TB1map.nii.gz")
    if not 45.0 <= args.flip <= 135.0:
        raise UsageError("--flip", f"is {args.flip:g}, outside [45, 135] degrees", "Give the angle of the second pulse")
    (plus, affine), (minus, _), (magnitude, _) = (load_checked(p) for p in (args.plus, args.minus, args.magnitude))
    if not plus.shape == minus.shape == magnitude.shape:
        raise InputError(
            args.plus, "and its partners have different shapes", "Give the three images of one measurement"
        )
    field = smooth_phase_sensitive_field(plus, minus, magnitude, affine, args.flip, where=str(args.plus))
    write_nifti(args.out, 100.0 * field.values, affine)
    content = {
        "Units": "percent",
        "ResonantNucleus": "23Na",
        "Description": "Transmit field relative to nominal by the phase-sensitive method (Morrell, MRM 2008;60:889)",
        "RelativeSpread": field.relative_sd,
    }
    write_json(args.out.with_name(args.out.name.replace(".nii.gz", ".json")), content)
    print(f"{args.out}  spread {100.0 * field.relative_sd:.1f} %")
    return 0


def _psf(args: argparse.Namespace) -> int:
    from sodium_prep.physics.acquisition import Acquisition
    from sodium_prep.physics.readout import acquisition_window
    from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation
    from sodium_prep.pvc.psf import psf_fwhm_mm

    for name, (low, high, unit) in _PSF_BOUNDS.items():
        value = getattr(args, name)
        if not low < value <= high and not (name == "readout" and value == 0.0 and args.trajectory == "Cartesian"):
            option = "--" + name.replace("_", "-")
            raise UsageError(
                option, f"is {value:g}, outside ({low:g}, {high:g}] {unit}".rstrip(), f"Give {_UNITS[unit]}"
            )
    acquisition = Acquisition(
        echo_time_s=args.echo_time,
        repetition_time_s=0.1,
        flip_angle_deg=90.0,
        field_strength_t=args.field,
        trajectory=args.trajectory,
        readout_duration_s=args.readout,
        nominal_resolution_mm=(args.resolution,) * 3,
        linear_fraction=args.linear_fraction,
        kspace_filter=args.filter,
        filter_cutoff=args.filter_cutoff,
        filter_width=args.filter_width,
    )
    try:
        acquisition_window(0.0, acquisition)
    except ValueError:
        needed = "--filter-cutoff and --filter-width" if args.filter == "fermi" else "--filter-cutoff"
        raise UsageError("--filter", f"{args.filter} needs parameters", f"Give {needed} relative to kmax") from None
    print("tissue          FWHM mm   / nominal")
    for tissue in TISSUES:
        width = psf_fwhm_mm(acquisition, tissue_relaxation(tissue, args.field))
        print(f"{tissue:<14}{width:9.2f}{width / args.resolution:12.3f}")
    return 0


def _phantom(args: argparse.Namespace) -> int:
    from sodium_prep.cli.phantom import make_phantom

    return make_phantom(args)


def _phantom_cohort(args: argparse.Namespace) -> int:
    from sodium_prep.cli.phantom import make_phantom_cohort

    return make_phantom_cohort(args)


def _pvc(args: argparse.Namespace) -> int:
    from sodium_prep.cli.pvc import correct_regions

    return correct_regions(args)


def _plan(args: argparse.Namespace) -> int:
    from sodium_prep.cli.main import run

    return run(
        [str(args.bids_dir), str(args.bids_dir / "derivatives" / "plan"), "participant", "--dry-run", *args.options]
    )


def _demo(args: argparse.Namespace) -> int:
    from sodium_prep.cli.demo import run_demo

    return run_demo(args.folder, args.participants)


if __name__ == "__main__":
    main()
