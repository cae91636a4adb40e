"""``sodium-prep-tools power``: participants that a study needs, from the variance of one that there is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from sodium_prep.errors import InputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from sodium_prep.cohort.power import Effect

_BOUNDS: Final[dict[str, tuple[float, float, str]]] = {
    "alpha": (0.0, 0.5, "Give the level of the tests, such as 0.05"),
    "power": (0.5, 1.0, "Give a chance such as 0.8"),
    "ratio": (0.01, 100.0, "Give the size of the second group over that of the first"),
    "error_share": (0.0, 1.0, "Give 1 - ICC of repeat scans"),
    "sd": (0.0, np.inf, "Give the standard deviation between participants in mM"),
    "mean": (0.0, np.inf, "Give the mean of the controls in mM"),
}


def add_power(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to the parser of the tools."""
    power = commands.add_parser("power", help="participants that a study needs, from the variance of one that there is")
    add = power.add_argument
    add("out", type=Path, nargs="?", help="output folder of sodium-prep with a group folder, whose variance is taken")
    add("--percent", type=float, nargs="+", default=[], metavar="X", help="effects to find, percent of the mean")
    add("--difference", type=float, nargs="+", default=[], metavar="MM", help="effects to find, mmol/L")
    add("--d", type=float, nargs="+", default=[], metavar="D", help="effects to find, standard deviations")
    add("--n", type=int, nargs="+", metavar="N", help="numbers that there are (one, or one per group): their power")
    add("--sd", type=float, metavar="MM", help="between participants, instead of OUT's")
    add("--mean", type=float, metavar="MM", help="of the controls, instead of OUT's")
    add("--alpha", type=float, default=0.05, metavar="P", help="level, two-sided (default: 0.05)")
    add("--power", type=float, default=0.8, metavar="P", help="chance of finding the effect (default: 0.8)")
    add("--tests", type=int, default=1, metavar="N", help="tests that share the level, by Bonferroni (default: 1)")
    add("--ratio", type=float, default=1.0, metavar="R", help="second group over first (default: 1)")
    add("--error-share", type=float, metavar="E", help="1 - ICC: what repeat scans would save")
    add("--scans", type=int, nargs="+", default=[1, 2, 3], metavar="K", help="with --error-share (default: 1 2 3)")
    add("--region", nargs="+", metavar="NAME", help="of OUT (default: the main regions)")
    add("--estimator", nargs="+", metavar="NAME", help="of OUT (default: all)")
    add("--reference", nargs="+", metavar="NAME", help="of OUT (default: all)")
    add("--group", default="group", metavar="COLUMN", help="of the groups in OUT (default: group)")
    add("--control", metavar="LABEL", help="group whose mean percentages refer to (default: all participants)")
    add(
        "--covariates",
        nargs="*",
        default=["age", "sex", "site"],
        metavar="COLUMN",
        help="held constant where they are there (default: age sex site)",
    )
    add(
        "--categories",
        nargs="*",
        default=["sex", "site"],
        metavar="COLUMN",
        help="covariates that are categories (default: sex site)",
    )
    power.set_defaults(run=print_power)


def print_power(args: argparse.Namespace) -> int:
    """Print the table; returns the exit code.

    Raises
    ------
    UsageError
        If options are missing or out of range.
    InputError
        If the folder has no table of the group, or none of what was asked for.
    """
    from sodium_prep.cohort.power import power_table

    effects = _effects(args)
    sizes = _sizes(args)
    variances = _given(args, effects) if args.out is None else _measured(args)
    table = power_table(
        variances,
        effects,
        alpha=args.alpha,
        power=args.power,
        tests=args.tests,
        ratio=args.ratio,
        sizes=sizes,
        error_share=args.error_share or 0.0,
        scans=args.scans if args.error_share else (1,),
    )
    shown = f"two-sided, alpha {args.alpha:g}" + (f" over {args.tests} tests (Bonferroni)" if args.tests > 1 else "")
    print(f"Power {args.power:g}, {shown}")
    if "covariates" in table:
        held = sorted(set(table["covariates"]) - {""})
        print(f"Standard deviation within groups{', at equal ' if held else ''}{'; '.join(held)}")
    if sizes:
        print(f"Columns from power on: with {sizes[0]} and {sizes[1]} participants")
    for line in _lines(table):
        print(line)
    return 0


def _effects(args: argparse.Namespace) -> list[Effect]:
    from sodium_prep.cohort.power import Effect

    for name, (low, high, mend) in _BOUNDS.items():
        value = getattr(args, name)
        if value is not None and not low < value < high:
            raise UsageError("--" + name.replace("_", "-"), f"is {value:g}, outside ({low:g}, {high:g})", mend)
    if args.tests < 1:
        raise UsageError("--tests", f"is {args.tests}, below 1", "Give the number of tests")
    if min(args.scans) < 1:
        raise UsageError("--scans", f"is {min(args.scans)}, below 1", "Give the scans of each participant")
    effects = [Effect(x, "percent") for x in args.percent] + [Effect(x, "mM") for x in args.difference]
    effects += [Effect(x, "d") for x in args.d]
    for effect in effects:
        if not 1e-4 <= abs(effect.value) < np.inf:
            raise UsageError(f"effect {effect}", "is no effect that can be found", "Give one that is not zero")
    if not effects and not args.n:
        raise UsageError("power", "has nothing to find", "Give --percent, --difference or --d, or --n")
    return effects


def _sizes(args: argparse.Namespace) -> tuple[int, int] | None:
    if not args.n:
        return None
    first = args.n[0]
    sizes = (first, args.n[1]) if len(args.n) == 2 else (first, max(2, round(args.ratio * first)))
    if len(args.n) > 2 or min(sizes) < 2:
        raise UsageError("--n", f"is {' '.join(map(str, args.n))}", "Give one or two numbers of at least 2")
    return sizes


def _given(args: argparse.Namespace, effects: list[Effect]) -> pd.DataFrame:
    import pandas as pd

    units = {effect.unit for effect in effects}
    if args.sd is None and units & {"percent", "mM"}:
        raise UsageError("--sd", "is missing", "Give it, or the output folder of a study")
    if args.mean is None and "percent" in units:
        raise UsageError("--mean", "is missing", "Give it, or the output folder of a study")
    nothing = float("nan")
    return pd.DataFrame({"mean": [args.mean or nothing], "sd": [args.sd or nothing]})


def _measured(args: argparse.Namespace) -> pd.DataFrame:
    """Variances of the study in the folder."""
    from sodium_prep.cohort.model import MAIN_REGIONS
    from sodium_prep.cohort.power import residual_sd

    frame = _read_values(args.out)
    frame = frame[frame["region"].isin(args.region or MAIN_REGIONS) & (frame["hemisphere"] == "both")]
    for name in ("estimator", "reference"):
        if wanted := getattr(args, name):
            frame = frame[frame[name].isin(wanted)]
    if args.control is not None and (args.group not in frame or args.control not in set(frame[args.group])):
        raise UsageError("--control", f"{args.control} is no {args.group} in {args.out}", "Give a label that is there")
    variances = residual_sd(
        frame,
        group=args.group,
        control=args.control,
        covariates=args.covariates,
        categories=args.categories,
    )
    if variances.empty:
        problem = "holds none of what was asked for, or too few participants"
        raise InputError(args.out / "group" / "group_tsc.tsv", problem, "See its columns name, estimator and reference")
    for name in ("sd", "mean"):
        if getattr(args, name) is not None:
            variances[name] = getattr(args, name)
    return variances


def _read_values(out: Path) -> pd.DataFrame:
    """One row per participant, session, region, estimator and reference of the group's tables, runs averaged.

    Participants whose quality verdict is ``fail`` are left out.
    """
    import pandas as pd

    from sodium_prep.cohort.tsv import read_tsv
    from sodium_prep.cohort.values import STRATUM

    folder = out / "group"
    for name in ("group_tsc.tsv", "group_participants.tsv"):
        if not (folder / name).exists():
            raise InputError(folder / name, "is not there", "Run the group level first, or give --sd")
    tsc = pd.DataFrame(read_tsv(folder / "group_tsc.tsv")).rename(columns={"name": "region"})
    people = pd.DataFrame(read_tsv(folder / "group_participants.tsv"))
    try:
        people = people[people["qc"] != "fail"]
        tsc["tsc"] = tsc["tsc"].replace("", "nan").astype(float)
        keys = ["participant_id", *STRATUM, "index", "region", "hemisphere", "estimator", "reference"]
        values = tsc.groupby(keys, sort=False)["tsc"].mean().reset_index()
        own = [name for name in people if name == "participant_id" or name not in values]
        merged: pd.DataFrame = values.merge(people[own], on="participant_id")
    except (KeyError, ValueError) as error:
        raise InputError(folder / "group_tsc.tsv", f"cannot be used ({error})", "Run the group level again") from None
    return merged


_SHOWN: Final[dict[str, tuple[str, str]]] = {
    "session_id": ("session", "{}"),
    "acquisition": ("acq", "{}"),
    "reconstruction": ("rec", "{}"),
    "atlas": ("atlas", "{}"),
    "region": ("region", "{}"),
    "estimator": ("estimator", "{}"),
    "reference": ("reference", "{}"),
    "mean": ("mean mM", "{:.1f}"),
    "sd": ("SD mM", "{:.2f}"),
    "scans": ("scans", "{}"),
    "effect": ("effect", "{}"),
    "d": ("d", "{:.2f}"),
    "n_1": ("n 1", "{:.0f}"),
    "n_2": ("n 2", "{:.0f}"),
    "power": ("power", "{:.2f}"),
    "detectable_d": ("least d", "{:.2f}"),
    "detectable": ("least mM", "{:.2f}"),
    "detectable_percent": ("least %", "{:.1f}"),
}


def _lines(table: pd.DataFrame) -> list[str]:
    """The table as aligned text, without columns that are empty."""
    columns = []
    for name, (title, form) in _SHOWN.items():
        cells = ["" if x != x or x is None else form.format(x) for x in table[name]] if name in table else []
        if any(cells):
            width = max(map(len, [title, *cells]))
            text = form == "{}"
            columns.append([cell.ljust(width) if text else cell.rjust(width) for cell in [title, *cells]])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
