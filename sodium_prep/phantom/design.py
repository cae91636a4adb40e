"""The plan of a phantom study, and the participants drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sodium_prep.errors import UsageError
from sodium_prep.phantom.concentrations import Concentrations, draw_concentrations
from sodium_prep.phantom.head import template_head
from sodium_prep.phantom.individual import Anatomy, random_anatomy
from sodium_prep.phantom.protocol import Lesion, PhantomProtocol, Site, Vial
from sodium_prep.phantom.sodium import ScannerFields

_STREAMS = ("anatomy", "concentration", "pose", "t1w", "sodium", "person", "calibration")
_VOXEL_SIZES_MM = (1.0, 1.5, 2.0)


@dataclass(frozen=True)
class StudyDesign:
    """Everything a study is made from; see :func:`make_study`."""

    participants: int
    groups: tuple[str, ...]
    protocol: PhantomProtocol
    sessions: int
    runs: int
    kspace: bool
    images: bool
    image_part: Literal["magnitude", "real"]
    scanner: ScannerFields
    vials: tuple[Vial, ...]
    concentrations_mM: Mapping[str, float]  # noqa: N815
    effects: Mapping[str, Mapping[str, float]]
    subject_sd: float
    region_sd: float
    lesions: Mapping[str, tuple[Lesion, ...]]
    sites: tuple[Site, ...]
    motion_deg: float
    motion_mm: float
    wm_snr: float
    t1w_voxel_mm: float
    t1w_bias: float
    t1w_noise: float
    seed: int


@dataclass(frozen=True)
class Person:
    """One row of participants.tsv, with what stays the same over sessions."""

    label: str
    number: int
    group: str
    site: Site
    age: float
    sex: str
    anatomy: Anatomy
    concentrations: Concentrations


def check_design(design: StudyDesign, root: Path, true_root: Path) -> None:
    """Refuse a plan that cannot be carried out, or folders that hold something already.

    Raises
    ------
    UsageError
        With the option that is at fault.
    """
    for name in ("participants", "sessions", "runs"):
        if getattr(design, name) < 1:
            raise UsageError(f"--{name}", f"is {getattr(design, name)}", "Give a number of at least 1")
    if design.t1w_voxel_mm not in _VOXEL_SIZES_MM:
        raise UsageError("--t1w-voxel", f"{design.t1w_voxel_mm:g} mm cannot be made", "Choose 1, 1.5 or 2 mm")
    if not (design.kspace or design.images):
        raise UsageError("phantom", "neither images nor k-space are asked for", "Ask for at least one of them")
    for option, named in (("--effect", design.effects), ("--lesion", design.lesions)):
        if unknown := sorted(set(named) - set(design.groups)):
            raise UsageError(option, f"there is no group {unknown[0]!r}", f"Groups are {', '.join(design.groups)}")
    for folder in (root, true_root):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(folder, "is there already and not empty", "Give a new folder")


def random_stream(design: StudyDesign, purpose: str, person: int, *further: int) -> np.random.Generator:
    """Random generator of one purpose, person, session and so on: independent of all others."""
    return np.random.default_rng([design.seed, _STREAMS.index(purpose), person, *further])


def draw_person(design: StudyDesign, number: int) -> Person:
    """Draw a participant; groups take turns, and sites after each round of groups."""
    group = design.groups[(number - 1) % len(design.groups)]
    site = design.sites[(number - 1) // len(design.groups) % len(design.sites)]
    rng = random_stream(design, "person", number)
    concentrations = draw_concentrations(
        template_head().table,
        random_stream(design, "concentration", number),
        regional_mM=design.concentrations_mM,
        effects=design.effects.get(group),
        subject_sd=design.subject_sd,
        region_sd=design.region_sd,
    )
    age = float(np.round(np.clip(rng.normal(68.0, 7.0), 50.0, 88.0)))
    sex = str(rng.choice(["F", "M"]))
    anatomy = random_anatomy(random_stream(design, "anatomy", number))
    return Person(f"{number:02d}", number, group, site, age, sex, anatomy, concentrations)
