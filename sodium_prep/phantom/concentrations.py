"""Sodium concentration of every region of one participant, and the maps that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import UsageError
from sodium_prep.phantom.individual import IndividualHead
from sodium_prep.phantom.protocol import CONCENTRATIONS_MM, Lesion
from sodium_prep.phantom.sodium import Source
from sodium_prep.physics.relaxation import Relaxation, Tissue, tissue_relaxation

if TYPE_CHECKING:
    import pandas as pd

Volume = NDArray[np.float32]
OTHER = ("csf", "vitreous", "soft", "fat", "bone")
"""What has one concentration throughout."""


@dataclass(frozen=True)
class Concentrations:
    """Concentration in mM by label of the atlas table (grey and white matter) and by name (:data:`OTHER`)."""

    by_label: NDArray[np.float32]
    by_name: Mapping[str, float]


def draw_concentrations(
    table: pd.DataFrame,
    rng: np.random.Generator,
    *,
    regional_mM: Mapping[str, float] | None = None,
    effects: Mapping[str, float] | None = None,
    subject_sd: float = 0.0,
    region_sd: float = 0.0,
) -> Concentrations:
    """Concentrations of one participant.

    Parameters
    ----------
    table
        The atlas table.
    regional_mM
        By name of a structure or region, instead of :data:`CONCENTRATIONS_MM`; a region goes before its structure.
    effects
        Relative change by name of a structure or region; both act where both are given.
    subject_sd, region_sd
        Relative standard deviation between participants of all brain tissue together, and of each region by itself.

    Raises
    ------
    UsageError
        If a name is neither a structure nor a region.
    """
    regional_mM, effects = regional_mM or {}, effects or {}
    known = {*CONCENTRATIONS_MM, *table["name"]}
    for option, names in (("--concentration", regional_mM), ("--effect", effects)):
        for name in names:
            if name not in known:
                problem = f"{name!r} is neither a structure nor a region of the atlas"
                raise UsageError(option, problem, f"Structures are {', '.join(CONCENTRATIONS_MM)}")
    by_label = np.zeros(int(table["index"].max()) + 1, np.float32)
    whole = 1.0 + subject_sd * float(np.clip(rng.standard_normal(), -2.5, 2.5))
    own = 1.0 + region_sd * np.clip(rng.standard_normal(len(table)), -2.5, 2.5)
    by_name = {name: regional_mM.get(name, CONCENTRATIONS_MM[name]) * (1.0 + effects.get(name, 0.0)) for name in OTHER}
    for index, name, structure, factor in zip(table["index"], table["name"], table["structure"], own, strict=True):
        if structure == "csf":
            by_label[index] = by_name["csf"]
            continue
        value = regional_mM.get(name, regional_mM.get(structure, CONCENTRATIONS_MM[structure]))
        change = (1.0 + effects.get(structure, 0.0)) * (1.0 + effects.get(name, 0.0))
        by_label[index] = value * change * whole * factor
    return Concentrations(by_label, by_name)


def tissue_maps(
    head: IndividualHead, concentrations: Concentrations, lesions: tuple[Lesion, ...]
) -> dict[Tissue, Volume]:
    """Concentration times fraction, mM, of everything that shares relaxation times; their sum is the TSC map."""
    f, c = head.fractions, concentrations.by_name
    change = lesion_factor(head, tuple(lesion.factor for lesion in lesions))
    return {
        "GM": f["gm"] * concentrations.by_label[head.gm_label] * change,
        "WM": f["wm"] * concentrations.by_label[head.wm_label] * change,
        "CSF": (f["csf"] + f["csf_outer"]) * np.float32(c["csf"]),
        "vitreous": f["vitreous"] * np.float32(c["vitreous"]),
        "extracerebral": np.stack([f[name] * np.float32(c[name]) for name in ("soft", "fat", "bone")]).sum(axis=0),
    }


def lesion_factor(head: IndividualHead, factors: tuple[float, ...]) -> Volume:
    """Factor of each voxel's lesion, 1 elsewhere."""
    return np.array([1.0, *factors], np.float32)[head.lesions]


def sodium_sources(maps: Mapping[Tissue, Volume], field_strength_t: float) -> list[Source]:
    """The maps as sources of signal; those with the same relaxation times together."""
    merged: dict[Relaxation, Volume] = {}
    for tissue, values in maps.items():
        relaxation = tissue_relaxation(tissue, field_strength_t)
        merged[relaxation] = merged[relaxation] + values if relaxation in merged else values
    return [Source(values, relaxation) for relaxation, values in merged.items()]
