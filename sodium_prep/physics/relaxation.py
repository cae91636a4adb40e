"""Relaxation times of sodium in the head, each with its uncertainty and citation.

The values are data, not code: ``relaxation.toml`` beside this file. A study replaces them in its sidecars or protocol.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from math import hypot, log2
from typing import Any, Final, Literal

from sodium_prep.errors import InputError

Tissue = Literal["GM", "WM", "CSF", "extracerebral", "vitreous"]
TISSUES: Final[tuple[Tissue, ...]] = ("GM", "WM", "CSF", "extracerebral", "vitreous")

KEYS: Final[dict[str, str]] = {
    "T1": "t1_s",
    "T2starSlow": "t2star_slow_s",
    "T2starFast": "t2star_fast_s",
    "FractionFast": "fraction_fast",
    "T1Error": "t1_sd_s",
    "T2starSlowError": "t2star_slow_sd_s",
    "T2starFastError": "t2star_fast_sd_s",
    "FractionFastError": "fraction_fast_sd",
    "Citation": "citation",
    "T1Citation": "t1_citation",
}
"""Names in files, and the fields of :class:`Relaxation`."""

SAME_FIELD_T: Final = 0.2
"""Fields this near count as one (2.89 T is called 3 T)."""
_PER_DOUBLING: Final = 0.10
"""Relative standard uncertainty that a time gains for each doubling or halving of the field beyond those measured."""


@dataclass(frozen=True)
class Relaxation:
    """T1 and biexponential T2* of one compartment, in seconds.

    ``fraction_fast`` is the signal fraction that decays with ``t2star_fast_s``; a compartment with one component has
    ``fraction_fast = 0``. The ``*_sd`` fields are standard uncertainties of the values.
    """

    t1_s: float
    t2star_slow_s: float
    t2star_fast_s: float = 1e-3
    fraction_fast: float = 0.0
    t1_sd_s: float = 0.0
    t2star_slow_sd_s: float = 0.0
    t2star_fast_sd_s: float = 0.0
    fraction_fast_sd: float = 0.0
    citation: str = field(default="", compare=False)
    t1_citation: str = field(default="", compare=False)


_TIMES: Final = {"t1_s": "t1_sd_s", "t2star_slow_s": "t2star_slow_sd_s", "t2star_fast_s": "t2star_fast_sd_s"}


@cache
def _entries() -> dict[str, dict[float | None, Relaxation]]:
    """Packaged values by tissue and field (None: any)."""
    text = files("sodium_prep.physics").joinpath("relaxation.toml").read_text(encoding="utf-8")
    found: dict[str, dict[float | None, Relaxation]] = {}
    for entry in tomllib.loads(text)["entry"]:
        values = {KEYS[key]: value for key, value in entry.items() if key in KEYS}
        found.setdefault(entry["Tissue"], {})[entry.get("MagneticFieldStrength")] = Relaxation(**values)
    return found


def measured_fields_t() -> list[float]:
    """Fields at which the packaged values of tissue were measured, tesla."""
    return sorted({field_t for by_field in _entries().values() for field_t in by_field if field_t is not None})


def tissue_relaxation(tissue: Tissue, field_strength_t: float, given: Mapping[str, Any] | None = None) -> Relaxation:
    """Relaxation times of a tissue: those of the literature, replaced by what a study knows better.

    At a field between two measured ones times are interpolated linearly. What their course in between may be is an
    uncertainty: in the middle half the difference of the two, falling to nothing at either. Beyond the measured fields
    the nearest value is taken, with the slope between the measured ones times the distance, and 10 % for every doubling
    or halving, as further standard uncertainties.

    Parameters
    ----------
    tissue
        One of :data:`TISSUES`.
    field_strength_t
        Static field, tesla.
    given
        Fields of :class:`Relaxation` that replace the table's; a value without its uncertainty keeps the table's.

    Raises
    ------
    InputError
        If the result has a fast component slower than the slow one.
    """
    known = replace(_at_field(_entries()[tissue], field_strength_t), **dict(given or {}))
    if known.fraction_fast > 0.0 and known.t2star_fast_s > known.t2star_slow_s:
        problem = f"T2starFast {known.t2star_fast_s:g} s is above T2starSlow {known.t2star_slow_s:g} s"
        raise InputError(f"Relaxation.{tissue}", problem, "Give both, the smaller as T2starFast")
    return known


def _at_field(by_field: Mapping[float | None, Relaxation], field_t: float) -> Relaxation:
    if None in by_field:
        return by_field[None]
    fields = sorted(b for b in by_field if b is not None)
    nearest = min(fields, key=lambda b: abs(b - field_t))
    if abs(nearest - field_t) <= SAME_FIELD_T:
        return by_field[nearest]
    low = max((b for b in fields if b < field_t), default=fields[0])
    high = min((b for b in fields if b > field_t), default=fields[-1])
    if low < field_t < high:
        return _between(by_field[low], by_field[high], (field_t - low) / (high - low), f"{low:g} T and {high:g} T")
    near = by_field[nearest]
    first, last = by_field[fields[0]], by_field[fields[-1]]
    changes: dict[str, Any] = {}
    for name, sd in _TIMES.items():
        value = getattr(near, name)
        slope = (getattr(last, name) - getattr(first, name)) / max(fields[-1] - fields[0], 1e-9)
        guess = _PER_DOUBLING * abs(log2(field_t / nearest)) * value
        changes[sd] = hypot(getattr(near, sd), slope * (field_t - nearest), guess)
    return replace(near, **changes, citation=f"{near.citation}; taken from {nearest:g} T")


def _between(one: Relaxation, other: Relaxation, share: float, fields: str) -> Relaxation:
    values: dict[str, Any] = {}
    for name, sd in (_TIMES | {"fraction_fast": "fraction_fast_sd"}).items():
        a, b = getattr(one, name), getattr(other, name)
        values[name] = (1.0 - share) * a + share * b
        spread = (1.0 - share) * getattr(one, sd) + share * getattr(other, sd)
        values[sd] = hypot(spread, 2.0 * share * (1.0 - share) * (b - a))
    sources = dict.fromkeys((one.citation, other.citation))
    return Relaxation(**values, citation=f"{'; '.join(sources)}; between {fields}", t1_citation=one.t1_citation)


def field_note(field_strength_t: float) -> str | None:
    """What to tell of relaxation times at a field at which they were not measured; None at the others."""
    fields = measured_fields_t()
    if min(abs(b - field_strength_t) for b in fields) <= SAME_FIELD_T:
        return None
    how = "interpolated between" if fields[0] < field_strength_t < fields[-1] else "the nearest of"
    told = " and ".join(f"{b:g} T" for b in fields)
    return (
        f"Relaxation times of tissue at {field_strength_t:g} T are {how} those at {told}, with wider uncertainty; "
        "give those of your field in the protocol file."
    )
