"""The sub-command ``phantom``: its options turned into a study."""

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
    if out.exists() and any(out.iterdir()):
        raise UsageError(out, "is not empty", "Give a new folder")
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
        effects=_effects(args.effect),
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


def _effects(items: list[str]) -> dict[str, dict[str, float]]:
    effects: dict[str, dict[str, float]] = {}
    for item in items:
        group, _, rest = item.partition(":")
        region, _, percent = rest.partition("=")
        try:
            effects.setdefault(group, {})[region] = float(percent) / 100.0
        except ValueError:
            raise UsageError("--effect", f"{item!r} is not GROUP:REGION=PERCENT", "Write AD:hippocampus=12") from None
    return effects


def _lesion(text: str) -> Lesion:
    try:
        x, y, z, radius, factor = (float(word) for word in text.split(","))
    except ValueError:
        raise UsageError("--lesion", f"{text!r} is not X,Y,Z,RADIUS,FACTOR", "Write -30,0,20,9,2") from None
    return Lesion((x, y, z), radius, factor)
