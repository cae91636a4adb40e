"""Regional tables of a cohort with known truth, drawn in a moment: what a group analysis finds can be compared.

What the images of the digital heads take minutes for is put here into a few numbers per region, taken from their tables
at 4 mm: how much of a region's uncorrected mean is its own signal, grey matter's, white matter's and CSF's, and how
noisy its corrected value is. The physics stops there; for the whole way from raw data use
:mod:`sodium_prep.phantom.study`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sodium_prep.bids.outputs import build_path, dataset_description
from sodium_prep.bids.writers import write_json, write_tsv
from sodium_prep.cohort.tables import Cohort
from sodium_prep.errors import UsageError
from sodium_prep.phantom import sidecars
from sodium_prep.regional.table import TABLE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CohortRegion:
    """A region of the tables.

    Attributes
    ----------
    tissue
        GM, WM or CSF.
    concentration_mM
        True mean of the cohort.
    own, grey, white, fluid
        Weights in its uncorrected mean of itself, of cortex, of white matter and of CSF.
    size_mm3, csf_fraction
        Of both sides; share of CSF in its voxels.
    noise_mM
        Standard error of its corrected value, without what all regions of a scan share.
    """

    tissue: str
    concentration_mM: float  # noqa: N815
    own: float
    grey: float
    white: float
    fluid: float
    size_mm3: float
    csf_fraction: float
    noise_mM: float  # noqa: N815


COHORT_REGIONS: Final[dict[str, CohortRegion]] = {
    "Cortex": CohortRegion("GM", 45.0, 0.588, 0.0, 0.244, 0.142, 603_600.0, 0.15, 1.3),
    "WhiteMatter": CohortRegion("WM", 35.0, 0.712, 0.240, 0.0, 0.001, 598_100.0, 0.015, 0.4),
    "Hippocampus": CohortRegion("GM", 50.0, 0.662, 0.08, 0.22, 0.065, 12_660.0, 0.067, 0.9),
    "CSF": CohortRegion("CSF", 140.0, 0.569, 0.33, 0.2, 0.0, 165_100.0, 0.602, 2.4),
    "FrontalLobe": CohortRegion("GM", 45.0, 0.557, 0.0, 0.268, 0.142, 210_900.0, 0.15, 1.4),
    "ParietalLobe": CohortRegion("GM", 45.0, 0.530, 0.0, 0.301, 0.159, 136_800.0, 0.163, 1.6),
    "TemporalLobe": CohortRegion("GM", 45.0, 0.613, 0.0, 0.239, 0.118, 140_200.0, 0.129, 1.1),
    "OccipitalLobe": CohortRegion("GM", 45.0, 0.527, 0.0, 0.348, 0.118, 63_870.0, 0.125, 1.4),
    "MotorCortex": CohortRegion("GM", 45.0, 0.557, 0.0, 0.268, 0.142, 26_000.0, 0.15, 1.8),
    "CorticospinalTract": CohortRegion("WM", 35.0, 0.55, 0.08, 0.36, 0.01, 14_000.0, 0.01, 1.0),
}
"""Weights, volumes and noise of the 4 mm phantom heads; the motor cortex as the frontal lobe, but smaller."""


@dataclass(frozen=True)
class CohortSite:
    """A scanner: its TSC is ``(1 + gain) * truth + offset_mM``, with noise of its own."""

    name: str
    offset_mM: float = 0.0  # noqa: N815
    gain: float = 0.0
    noise_factor: float = 1.0


@dataclass(frozen=True)
class CohortDesign:
    """What a cohort is drawn with.

    Attributes
    ----------
    groups
        Participants by group, in this order; the first is the control group.
    effects
        By group: relative change of concentration by region.
    atrophy
        By group: how much more CSF the voxels of grey matter hold, relative.
    sites
        Scanners.
    site_shares
        By group: share of its participants at each site; equal where it is left out.
    sessions, years_between
        Visits of each participant.
    change_per_year
        By group: relative change of concentration per year by region.
    subject_sd, region_sd, tissue_sd
        Standard deviations between participants, relative: of the concentration of the whole brain, of each region by
        itself, and of the CSF in the voxels of grey matter.
    calibration_sd, repeat_sd
        Between scans: of all regions together (as an error of calibration has it), and of each region beyond its noise.
    age_per_decade
        Relative change of concentration per ten years of age.
    """

    groups: Mapping[str, int] = field(default_factory=lambda: {"control": 12, "AD": 14})
    effects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    atrophy: Mapping[str, float] = field(default_factory=dict)
    sites: Sequence[CohortSite] = (CohortSite("A"),)
    site_shares: Mapping[str, Sequence[float]] = field(default_factory=dict)
    sessions: int = 1
    years_between: float = 1.0
    change_per_year: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    subject_sd: float = 0.05
    region_sd: float = 0.02
    tissue_sd: float = 0.05
    calibration_sd: float = 0.02
    repeat_sd: float = 0.0
    age_per_decade: float = 0.01


REFERENCES: Final = ("vials", "CSF", "vitreous")
ESTIMATORS: Final = ("none", "labbe")
_CSF_MM: Final = 140.0
_VITREOUS: Final = 113.0 / 125.0
"""What the app assumes of vitreous over what the phantom's holds."""


def draw_cohort(design: CohortDesign, seed: int = 0) -> Cohort:
    """Tables of a cohort as the group level gathers them.

    Returns
    -------
    Cohort with the columns ``age``, ``sex``, ``group``, ``site`` and ``MMSE`` (which falls as the true concentration of
    the hippocampus rises), and with ``years`` in its sessions where there are several.

    Raises
    ------
    UsageError
        If a group or region of the effects does not exist.
    """
    import pandas as pd

    _check(design)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    people, visits = [], []
    number = 0
    for group, n in design.groups.items():
        places = _places(design, group, n)
        for site in places:
            number += 1
            label = f"{number:03d}"
            person = _Person(design, group, site, rng)
            people.append(
                {"participant_id": label, "age": f"{person.age:.0f}", "sex": person.sex, "group": group,
                 "site": site.name, "MMSE": f"{person.mmse:.0f}", "state": "done", "reason": "", "qc": "info"}
            )  # fmt: skip
            for visit in range(design.sessions):
                session = f"{visit + 1:02d}" if design.sessions > 1 else ""
                years = visit * design.years_between
                if session:
                    visits.append({"participant_id": label, "session_id": session, "years": f"{years:g}"})
                keys = {"participant_id": label, "session_id": session, "acquisition": "sodium"}
                keys |= {"reconstruction": "", "run": "", "atlas": "phantom"}
                rows += [keys | row for row in person.scan(years, rng)]
    tsc = pd.DataFrame(rows, columns=[*keys, *TABLE_COLUMNS])
    sessions = pd.DataFrame(visits, columns=["participant_id", "session_id", "years"], dtype=object)
    return Cohort(tsc, pd.DataFrame(people, dtype=object), sessions)


def _check(design: CohortDesign) -> None:
    by_option = {"--effect": design.effects, "--change": design.change_per_year}
    for option, named in (*by_option.items(), ("--atrophy", design.atrophy)):
        if unknown := sorted(set(named) - set(design.groups)):
            raise UsageError(option, f"there is no group {unknown[0]!r}", f"Groups are {', '.join(design.groups)}")
    for option, by_group in by_option.items():
        for regions in by_group.values():
            if unknown := sorted(set(regions) - set(COHORT_REGIONS)):
                known = ", ".join(COHORT_REGIONS)
                raise UsageError(option, f"there is no region {unknown[0]!r}", f"Regions are {known}")


def _places(design: CohortDesign, group: str, n: int) -> list[CohortSite]:
    """Sites of a group's participants, as near to their shares as whole numbers come."""
    shares = np.asarray(design.site_shares.get(group, np.ones(len(design.sites))), dtype=float)
    ends = np.round(np.cumsum(shares / shares.sum()) * n).astype(int)
    return [site for site, a, b in zip(design.sites, [0, *ends], ends, strict=False) for _ in range(b - a)]


class _Person:
    """One participant: true concentrations at the first visit, and scans drawn from them."""

    def __init__(self, design: CohortDesign, group: str, site: CohortSite, rng: np.random.Generator) -> None:
        self._design, self._group, self._site = design, group, site
        self.age = float(np.clip(np.round(rng.normal(68.0, 7.0)), 45, 90))
        self.sex = str(rng.choice(["F", "M"]))
        whole = (1.0 + design.subject_sd * rng.standard_normal()) * (
            1.0 + design.age_per_decade * (self.age - 68.0) / 10.0
        )
        effects = design.effects.get(group, {})
        self._true = {}
        for name, region in COHORT_REGIONS.items():
            own = 1.0 + design.region_sd * rng.standard_normal()
            shared = 1.0 if region.tissue == "CSF" else whole
            self._true[name] = region.concentration_mM * (1.0 + effects.get(name, 0.0)) * shared * own
        change = self._true["Hippocampus"] / COHORT_REGIONS["Hippocampus"].concentration_mM - 1.0
        self.mmse = float(np.clip(28.5 - 30.0 * change + rng.normal(0.0, 1.0), 0.0, 30.0))
        self._atrophy = design.atrophy.get(group, 0.0) + design.tissue_sd * rng.standard_normal()
        self._volume = float(np.exp(0.08 * rng.standard_normal()))

    def scan(self, years: float, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Rows of one table: regions, both sides together and each, estimators, references."""
        design, site = self._design, self._site
        changes = design.change_per_year.get(self._group, {})
        now = {name: true * (1.0 + changes.get(name, 0.0) * years) for name, true in self._true.items()}
        calibration = 1.0 + design.calibration_sd * rng.standard_normal()
        eyes = _VITREOUS * (1.0 + 0.03 * rng.standard_normal())
        measured: dict[tuple[str, str, str], float] = {}
        for name, region in COHORT_REGIONS.items():
            fluid = region.fluid * (1.0 + self._atrophy) if region.tissue == "GM" else region.fluid
            own = region.own - (fluid - region.fluid)
            for side, spread in (("both", 1.0), ("L", 1.4), ("R", 1.4)):
                here = now[name] * (1.0 + design.repeat_sd * rng.standard_normal())
                none = own * here + region.grey * now["Cortex"] + region.white * now["WhiteMatter"] + fluid * now["CSF"]
                noise = site.noise_factor * spread * region.noise_mM * rng.standard_normal(2)
                for estimator, value, error in (("none", none, 0.15 * noise[0]), ("labbe", here, noise[1])):
                    measured[name, side, estimator] = calibration * (1.0 + site.gain) * (value + error) + site.offset_mM
        scale = {"vials": 1.0, "CSF": _CSF_MM / measured["CSF", "both", "labbe"], "vitreous": eyes}
        return [
            self._row(name, side, estimator, reference, scale[reference] * value)
            for (name, side, estimator), value in measured.items()
            for reference in REFERENCES
        ]

    def _row(self, name: str, side: str, estimator: str, reference: str, tsc: float) -> dict[str, Any]:
        region, atrophy = COHORT_REGIONS[name], self._atrophy
        within = region.noise_mM * self._site.noise_factor * (0.15 if estimator == "none" else 1.0)
        total = float(np.hypot(within, self._design.calibration_sd * tsc))
        csf = region.csf_fraction * (1.0 + atrophy) if region.tissue == "GM" else region.csf_fraction
        loss = 1.0 - 0.5 * atrophy if region.tissue == "GM" else 1.0
        row: dict[str, Any] = dict.fromkeys(TABLE_COLUMNS, float("nan"))
        return row | {
            "name": name, "hemisphere": side, "tissue": region.tissue, "estimator": estimator, "reference": reference,
            "volume_mm3": region.size_mm3 * self._volume * loss * (1.0 if side == "both" else 0.5), "coverage": 1.0,
            "tsc": tsc, "tsc_stderr_within": within, "tsc_stderr": total, "tsc_ci_low": tsc - 1.96 * total,
            "tsc_ci_high": tsc + 1.96 * total, "csf_fraction": csf, "flag": "ok",
            "csf_signal_fraction": region.fluid * (1.0 + atrophy) * _CSF_MM / tsc,
        }  # fmt: skip


def write_cohort(cohort: Cohort, bids_dir: Path, out_dir: Path) -> None:
    """Write a drawn cohort as a data set without images and the derivatives of its participants."""
    write_json(bids_dir / "dataset_description.json", sidecars.dataset_description("Phantom cohort: tables only"))
    own = [name for name in map(str, cohort.participants.columns) if name not in ("state", "reason", "qc")]
    people = [row | {"participant_id": f"sub-{row['participant_id']}"} for row in _records(cohort.participants[own])]
    write_tsv(bids_dir / "participants.tsv", people, own)
    for label, visits in cohort.sessions.groupby("participant_id"):
        rows = [
            row | {"session_id": f"ses-{row['session_id']}"} for row in _records(visits.drop(columns="participant_id"))
        ]
        write_tsv(bids_dir / f"sub-{label}" / f"sub-{label}_sessions.tsv", rows, list(rows[0]))
    dataset_description(out_dir, bids_dir, {})
    for scan, table in cohort.tsc.groupby(["participant_id", "session_id"]):
        participant, session = map(str, scan)
        _write_table(table, participant, session or None, out_dir)


def _write_table(table: pd.DataFrame, label: str, session: str | None, out_dir: Path) -> None:
    path = build_path(out_dir, label, session, "anat", "tsc", ".tsv", acq="sodium", seg="phantom")
    rows = [{key: row[key] for key in TABLE_COLUMNS} for row in _records(table)]
    write_tsv(path, rows, list(TABLE_COLUMNS))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
