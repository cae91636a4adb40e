"""The command line of the BIDS App, spelt as users of fMRIPrep know it."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sodium_prep import __version__
from sodium_prep.bids.points import parse_points
from sodium_prep.bids.precomputed import parse_derivatives
from sodium_prep.errors import UsageError
from sodium_prep.settings import (
    CHECKS,
    ESTIMATORS,
    JOINT_METHOD,
    KSPACE_METHODS,
    RECEIVE_PROFILES,
    REFERENCES,
    REGION_PRESETS,
    Settings,
    make_settings,
    read_toml,
)

_EXIT_CODES = """\
exit codes:
  0 done                      3 input refused before work began
  1 internal error            4 finished, but some participants failed
  2 wrong usage               5 resources (disk, memory, a killed worker)
  128+n ended by signal n     OUT/logs/status.json tells the same per participant
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``sodium-prep``. Options that are not given are absent from the namespace."""
    parser = argparse.ArgumentParser(
        prog="sodium-prep",
        description="Regional total sodium concentration (TSC, mmol/L) with confidence intervals from sodium MRI.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="root of a BIDS data set")
    parser.add_argument("output_dir", type=Path, help="where the derivatives go")
    parser.add_argument("analysis_level", choices=["participant", "group"], help="stage of the analysis to run")
    parser.add_argument("--version", action="version", version=f"sodium-prep {__version__}")
    _add_selection(parser.add_argument_group("which data"))
    _add_science(parser.add_argument_group("how concentrations are found"))
    _add_anatomy(parser.add_argument_group("how regions are found"))
    _add_group(parser.add_argument_group("how groups are compared (group level)"))
    _add_execution(parser.add_argument_group("how the work is done"))
    return parser


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--participant-label", "--participant_label", nargs="+", metavar="LABEL", help="default: all")
    group.add_argument("--session-label", "--session_label", nargs="+", metavar="LABEL", help="default: all")
    group.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="JSON of {query: {entity: value}} for t1w, sodium, kspace, receive; null: entity absent, *: any",
    )
    group.add_argument(
        "--skip-bids-validation",
        action="store_true",
        help="do not run bids-validator-deno (it runs when it is installed)",
    )
    group.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        metavar="NAME=PATH",
        help="precomputed derivatives to use: T1w, brain mask, fractions, segmentation, transforms",
    )
    group.add_argument(
        "--protocol", type=Path, metavar="FILE", help="TOML with the sidecar keys that hold for the whole study"
    )
    group.add_argument(
        "--anat-contrast", metavar="SUFFIX", help="proton image to use (T1w, T2w, PDw ...); default: T1w, else the best"
    )


def _add_science(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--recon",
        choices=["auto", *KSPACE_METHODS, "vendor"],
        help="from k-space: gridding, sense (least squares of all channels), wavelet or tv (sparse), agr or bowsher "
        "(guided by the anatomical image), agrdm (likewise, with a T2* map, from all echoes together); vendor: the "
        "images given; auto (default): gridding where there is k-space",
    )
    group.add_argument(
        "--recon-filter", choices=["none", "hamming"], help="window of gridding on k-space (default: none)"
    )
    group.add_argument(
        "--recon-strength",
        type=float,
        metavar="X",
        help="strength of the prior of wavelet, tv, agr, bowsher and agrdm, in standard deviations of the noise of the "
        "gridded image",
    )
    group.add_argument(
        "--motion-blocks",
        type=int,
        metavar="N",
        help="take the motion between N consecutive blocks of readouts out of k-space (default: 0, none)",
    )
    group.add_argument(
        "--reference",
        nargs="+",
        choices=REFERENCES,
        help="references to report; each that the data allow has its own rows (default: all)",
    )
    group.add_argument(
        "--receive-profile",
        choices=RECEIVE_PROFILES,
        help="pair: ratio of array to volume coil (RB1COR); reciprocity: the transmit field, for a birdcage that "
        "transmits and receives; fit: low-order field fitted with whole structures, which takes real gradients for "
        "field; auto (default): the pair where there is one",
    )
    group.add_argument(
        "--air-point",
        action="store_true",
        help="take the mean of air as a reference without sodium, in images with zero-mean air (k-space, real parts)",
    )
    group.add_argument(
        "--pvc",
        nargs="+",
        choices=ESTIMATORS,
        help="partial volume correction (default: none gtm labbe joint; 'none', the uncorrected mean, is always "
        "reported). rows in the table: gtm, labbe, joint, kspace (raw data, takes minutes), mg, iy, mlts; "
        "voxel-wise maps: mg, rbv, mtc, iy, rl, vc, mlts",
    )
    group.add_argument(
        "--psf",
        nargs="+",
        metavar="auto|FWHM|FILE",
        help="auto (default): from trajectory, readout, filter and T2*; an image of a point, or TISSUE=FILE for some "
        "of GM, WM, CSF, vitreous, extracerebral; a number: a Gaussian of that FWHM in mm",
    )


def _add_anatomy(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--atlas",
        nargs="+",
        metavar="ATLAS",
        help="desikan-killiany (default), destrieux, templateflow:NAME:atlas-X[:desc-Y], or a label image with its "
        ".tsv; further ones (tracts, nuclei) are laid over the first",
    )
    group.add_argument(
        "--regions",
        nargs="+",
        choices=REGION_PRESETS,
        help="sets of regions that studies of one kind report, each estimated as one; main is cortex, white matter, "
        "hippocampus and CSF, which are always there (default: lobes)",
    )
    group.add_argument(
        "--output-spaces",
        nargs="+",
        metavar="SPACE",
        help="spaces of resampled TSC maps: T1w, MNI152NLin6Asym (both by default), any TemplateFlow template, or the "
        "file of a T1w template",
    )
    group.add_argument(
        "--registration",
        choices=["ants", "greedy"],
        help="program for the deformation to the template (default: ants)",
    )
    group.add_argument(
        "--fast-registration", action="store_true", help="end the deformation to the template at a coarser level"
    )
    group.add_argument(
        "--longitudinal",
        action="store_true",
        help="make a template of each participant's sessions first, so that all have the same regions",
    )
    group.add_argument(
        "--ignore",
        nargs="+",
        choices=CHECKS,
        help="checks that do not end the processing of a participant; sides: left and right of the T1w against the "
        "template, and of sodium against the T1w",
    )


def _add_group(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="groups, covariates, regions and further analyses: TOML, or a BIDS Stats-Model (default: the column group "
        "of participants.tsv, adjusted for age, sex and site; OUT/group/group_model.toml is the model as fitted)",
    )


def _add_execution(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-w", "--work-dir", type=Path, metavar="DIR", help="for intermediate files (default: ./work)")
    group.add_argument("--nprocs", "--nthreads", "--n-cpus", type=int, metavar="N", help="processes at once")
    group.add_argument(
        "--omp-nthreads", type=int, metavar="N", help="threads per process (default: 1, which gives the same bytes)"
    )
    group.add_argument("--mem", "--mem-mb", metavar="SIZE", help="memory to use, in MB or with a unit: 16G")
    group.add_argument("--random-seed", type=int, metavar="N", help="seed of everything random (default: 42)")
    group.add_argument("--sloppy", action="store_true", help="coarse registrations, for tests only")
    group.add_argument("--stop-on-first-crash", action="store_true", help="end when a participant fails")
    group.add_argument("--write-graph", action="store_true", help="write the workflow graph to OUT/logs")
    group.add_argument("--reports-only", action="store_true", help="only write the pages anew from earlier results")
    group.add_argument(
        "--clean-workdir",
        action="store_true",
        help="remove the work folder's contents of this program when all is done",
    )
    group.add_argument("--config-file", type=Path, metavar="FILE", help="start from the settings of an earlier run")
    group.add_argument(
        "--dry-run", action="store_true", help="print what would be done from which files, write nothing"
    )
    group.add_argument("-v", "--verbose", action="count", help="say more; -vv for everything")


def available_cpus() -> int:
    """Processors that this process may use."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(slurm) if slurm.isdigit() and int(slurm) > 0 else len(os.sched_getaffinity(0))


def parse_args(argv: Sequence[str] | None = None) -> tuple[Settings, int]:
    """Read the command line.

    Returns
    -------
    settings, verbosity

    Raises
    ------
    UsageError
        If an option's value cannot be used (argparse itself ends the program with 2 otherwise).
    """
    given = vars(build_parser().parse_args(argv))
    verbosity = int(given.pop("verbose", 0))
    values: dict[str, Any] = {"nprocs": available_cpus(), "work_dir": Path("work")}
    if "config_file" in given:
        values |= read_toml(given.pop("config_file"))
    psf = given.pop("psf", None)
    if psf is not None:
        values |= _psf(psf)
    if "mem" in given:
        values["mem_gb"] = _memory_gb(given.pop("mem"))
    elif "mem_gb" not in values:
        values["mem_gb"] = 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    for key, prefix in (("participant_label", "sub-"), ("session_label", "ses-")):
        if key in given:
            given[key] = tuple(_label(name.removeprefix(prefix), key) for name in given[key])
    if "derivatives" in given:
        given["derivatives"] = parse_derivatives(given["derivatives"])
    for key in ("reference", "pvc", "output_spaces", "atlas", "regions", "ignore"):
        if key in given:
            given[key] = tuple(dict.fromkeys(given[key]))
    settings = make_settings(values | given | {"version": __version__})
    _check_recon(settings)
    return _with_absolute_paths(settings), verbosity


def _check_recon(settings: Settings) -> None:
    """Refuse options of one reconstruction beside another."""
    method = settings.kspace_method
    if settings.recon_filter != "none" and method != "gridding":
        raise UsageError("--recon-filter", f"is a window of gridding, not of {method}", "Leave one of them out")
    if settings.recon_strength is not None and method in ("gridding", "sense"):
        raise UsageError("--recon-strength", f"is of a prior, which {method} has none of", "Leave it out")
    if method == JOINT_METHOD:
        for option, given in (("--motion-blocks", settings.motion_blocks), ("--pvc kspace", "kspace" in settings.pvc)):
            if given:
                raise UsageError(option, f"goes with no --recon {method}, which is of all echoes", "Leave one out")
    if settings.motion_blocks == 1:
        raise UsageError("--motion-blocks", "is 1, and one block does not move against others", "Give 2 or more")
    if settings.motion_blocks and "kspace" in settings.pvc:
        raise UsageError("--motion-blocks", "goes with no --pvc kspace, which takes all spokes alike", "Leave one out")


def _with_absolute_paths(settings: Settings) -> Settings:
    """The steps run in folders of their own, where a relative path would mean something else."""
    folders = ("bids_dir", "output_dir", "work_dir")
    update: dict[str, Any] = {name: getattr(settings, name).absolute() for name in folders}
    for name in ("atlas", "output_spaces"):
        update[name] = tuple(_absolute_file(text) for text in getattr(settings, name))
    return settings.model_copy(update=update)


def _absolute_file(text: str) -> str:
    """The path of an image made absolute; the name of something as it is."""
    return str(Path(text).absolute()) if text.endswith((".nii", ".nii.gz")) else text


def _label(label: str, option: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]+", label):
        name = "--" + option.replace("_", "-")
        raise UsageError(name, f"{label!r} is not a BIDS label", "Use letters and digits only")
    return label


def _psf(texts: Sequence[str]) -> dict[str, Any]:
    """Settings of a PSF; those of an earlier run are forgotten."""
    if texts == ["auto"]:
        return {"psf_fwhm_mm": None, "psf_files": {}}
    if texts[0].endswith((".nii", ".nii.gz")) or "=" in texts[0]:
        return {"psf_fwhm_mm": None, "psf_files": parse_points("--psf", texts)}
    try:
        (width,) = (float(text) for text in texts)
    except ValueError:
        problem = f"{' '.join(texts)!r} is not auto, a number, or an image (.nii, .nii.gz)"
        raise UsageError("--psf", problem, "See --help for its values") from None
    return {"psf_fwhm_mm": width, "psf_files": {}}


def _memory_gb(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError("--mem", f"{text!r} is not an amount of memory", "Give MB as a number, or 16G")
    scale = {"K": 1 / 1024**2, "": 1 / 1024, "M": 1 / 1024, "G": 1.0, "T": 1024.0}[match[2].upper()]
    return float(match[1]) * scale
