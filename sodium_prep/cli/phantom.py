"""The sub-commands ``phantom`` and ``phantom-cohort``: their options turned into a study, or its tables."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from sodium_prep.errors import UsageError
from sodium_prep.phantom.protocol import VIALS, Lesion
from sodium_prep.phantom.study import make_study


def make_phantom(args: argparse.Namespace) -> int:
    """Make the study that the options of ``sodium-prep-tools phantom`` describe."""
    out: Path = args.out
    _check_new(out)
    if args.no_images and not args.kspace:
        raise UsageError("--no-images", "leaves nothing to process", "Add --kspace")
    make_study(
        out,
        participants=args.participants,
        groups=tuple(args.groups.split(":")),
        protocol=args.preset,
        sessions=args.sessions,
        runs=args.runs,
        kspace=args.kspace,
        images=not args.no_images,
        coils=args.coils,
        off_resonance_hz=args.off_resonance,
        transmit_peak=args.transmit_peak,
        vials=VIALS[: args.vials],
        effects=_effects("--effect", args.effect),
        lesions=tuple(_lesion(text) for text in args.lesion),
        sites=tuple(args.sites.split(":")) if args.sites else ("phantom",),
        wm_snr=args.wm_snr or math.inf,
        t1w_voxel_mm=args.t1w_voxel,
        t1w_bias=args.t1w_bias,
        t1w_noise=args.t1w_noise,
        seed=args.seed,
        truth_dir=args.truth,
    )
    truth = args.truth or out.with_name(out.name + "-truth")
    print(f"Wrote {out} ({args.participants} participants); the truth is in {truth}")
    return 0


def make_phantom_cohort(args: argparse.Namespace) -> int:
    """Draw the cohort that the options of ``sodium-prep-tools phantom-cohort`` describe."""
    from sodium_prep.phantom.cohort import CohortDesign, CohortSite, draw_cohort, write_cohort

    out: Path = args.out
    _check_new(out)
    groups = {group: int(n) for group, n in _numbers("--groups", args.groups).items()}
    if min(groups.values()) < 1 or args.sessions < 1:
        raise UsageError("--groups", "leaves a group or its sessions empty", "Give numbers of at least 1")
    design = CohortDesign(
        groups=groups,
        effects=_effects("--effect", args.effect),
        atrophy={group: percent / 100.0 for group, percent in _numbers("--atrophy", args.atrophy).items()},
        sites=[CohortSite(name, offset) for name, offset in _numbers("--sites", args.sites).items()],
        sessions=args.sessions,
        change_per_year=_effects("--change", args.change),
    )
    write_cohort(draw_cohort(design, args.seed), out / "bids", out / "derivatives")
    print(f"Wrote {sum(groups.values())} participants. Next: sodium-prep {out / 'bids'} {out / 'derivatives'} group")
    return 0


def _check_new(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise UsageError(out, "is not empty", "Give a new folder")


def _effects(option: str, items: list[str]) -> dict[str, dict[str, float]]:
    effects: dict[str, dict[str, float]] = {}
    for item in items:
        group, _, rest = item.partition(":")
        region, _, percent = rest.partition("=")
        try:
            effects.setdefault(group, {})[region] = float(percent) / 100.0
        except ValueError:
            raise UsageError(option, f"{item!r} is not GROUP:REGION=PERCENT", "Write AD:hippocampus=12") from None
    return effects


def _numbers(option: str, items: list[str]) -> dict[str, float]:
    try:
        return {name: float(number) for name, number in (item.split("=") for item in items)}
    except ValueError:
        raise UsageError(option, f"{' '.join(items)!r} is not NAME=NUMBER ...", "Write control=12 AD=14") from None


def _lesion(text: str) -> Lesion:
    try:
        x, y, z, radius, factor = (float(word) for word in text.split(","))
    except ValueError:
        raise UsageError("--lesion", f"{text!r} is not X,Y,Z,RADIUS,FACTOR", "Write -30,0,20,9,2") from None
    return Lesion((x, y, z), radius, factor)
