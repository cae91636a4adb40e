"""One sodium scan from its image to the table: references, calibration lines, regional signals, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from sodium_prep.atlas.groups import MAIN, Group, missing_note
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.physics.signal import signal_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.forward import region_fractions
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.receive_fit import fit_receive_profile
from sodium_prep.pvc.refine import refine_rigid
from sodium_prep.quant.calibration import CalibrationLine
from sodium_prep.quant.geometry import ReferenceGeometry
from sodium_prep.quant.receive import divide_profile
from sodium_prep.quant.references import ReferenceSignal
from sodium_prep.quant.relaxation_error import relaxation_sensitivity
from sodium_prep.quant.tscmap import tsc_map
from sodium_prep.regional.further import MAP_NAMES, CorrectedMaps
from sodium_prep.regional.inputs import Scan, nominal_psf
from sodium_prep.regional.references import (
    add_csf_line,
    add_vitreous_line,
    compare_references,
    measure_air,
    measure_eyes,
    measure_vials,
    vial_line,
)
from sodium_prep.regional.signals import (
    REGISTRATION_SD_MM,
    EstimatorName,
    RegionalSignals,
    regional_signals,
)
from sodium_prep.regional.table import doubted_groups, regional_table

Array = NDArray[np.float64]

_REFINED_SD_MM: Final = 0.15
"""What a refined registration leaves, at the least, with fractions that are estimates themselves."""


@dataclass(frozen=True)
class ScanResult:
    """What a scan gives.

    Attributes
    ----------
    signals
        Regional signals before calibration.
    vials, eyes
        References as measured.
    lines
        Calibration by reference, the one that the maps use first.
    table
        Rows of the regional table.
    tsc, tsc_stderr : (X, Y, Z) float32
        Maps on the native grid, mM; None without any reference.
    sodium_to_t1w : (4, 4)
        Registration as used.
    registration_sd_mm
        Standard deviation assumed of each of its motions.
    notes
        What the user should know, one line each.
    refined
        Whether the regional model refined the registration.
    corrected
        Maps corrected for partial volume on the native grid, mM.
    disagreement
        Largest disagreement between two references, in standard errors of both; None with fewer than two.
    receive_fitted
        Whether a receive profile was fitted and taken off.
    """

    signals: RegionalSignals
    vials: tuple[ReferenceSignal, ...]
    eyes: tuple[ReferenceSignal, ...]
    lines: dict[str, CalibrationLine]
    table: list[dict[str, Any]]
    tsc: NDArray[np.float32] | None
    tsc_stderr: NDArray[np.float32] | None
    sodium_to_t1w: Array
    registration_sd_mm: float
    notes: tuple[str, ...]
    refined: bool = False
    corrected: CorrectedMaps = field(default_factory=dict)
    disagreement: float | None = None
    receive_fitted: bool = False


def quantify_scan(
    scan: Scan,
    compartments: Compartments,
    relaxations: Mapping[Tissue, Relaxation],
    *,
    vials: Sequence[ReferenceGeometry],
    vials_placed: bool,
    eyes_mm: Sequence[Array],
    references: Sequence[str],
    estimators: Sequence[str],
    groups: Sequence[Group] = MAIN,
    refine: bool = True,
    fit_receive: bool = False,
    air_point: bool = False,
    registration_sd_mm: float = REGISTRATION_SD_MM,
    weighted: bool = False,
) -> ScanResult:
    """Estimate regional signals, calibrate by every reference there is, and make table and maps.

    Parameters
    ----------
    vials
        Concentration and relaxation of each; their places count if ``vials_placed``, otherwise they are looked for.
    eyes_mm
        Expected centres of the eyes in the sodium image's world.
    references
        Wanted among ``vials``, ``CSF``, ``vitreous``.
    estimators
        Wanted, of regions and of maps; ``none`` is always reported.
    groups
        Regions that are estimated as one, besides those of the atlas.
    refine
        Let the regional model refine the registration, where the PSF is known.
    fit_receive
        Fit the receive profile with the signals of whole structures, where the PSF is known, and take it off.
    air_point
        Make the mean of air a point of the vials' line, where the air has zero mean.
    registration_sd_mm
        Standard deviation of each rigid motion of the registration as given.
    weighted
        The image has no concentration: regions have their uncorrected signal and nothing else. Such a scan has no PSF,
        and no reference is wanted.

    Raises
    ------
    InputError
        If vials are wanted and described but cannot be used.
    """
    c = compartments
    of_atlas = [[column[i] for i in c.regions] for column in (c.names, c.hemispheres, c.structures, c.tissues)]
    notes = list(filter(None, [missing_note(groups, *of_atlas)]))
    wanted = allowed_estimators(scan, estimators, notes, weighted=weighted)
    maps = [name for name in MAP_NAMES if scan.psf is not None and name in estimators]
    given = scan
    if fit_receive:
        scan = _without_receive_profile(scan, compartments, relaxations, bool(vials) and "vials" in references, notes)
    receive_fitted, refined = scan is not given, False
    if refine and scan.psf is not None:
        found = refine_rigid(
            scan.image, scan.affine, scan.noise, compartments, scan.sodium_to_t1w, relaxations, scan.psf
        )
        if found.converged:
            scan = replace(scan, sodium_to_t1w=found.sodium_to_t1w)
            registration_sd_mm, refined = max(_REFINED_SD_MM, found.sd_mm), True
        else:
            notes.append("The regional model did not refine the registration: it found no better place near by.")
    signals = regional_signals(
        scan.image,
        scan.affine,
        scan.noise,
        compartments,
        scan.sodium_to_t1w,
        scan.acquisition,
        relaxations,
        scan.psf or nominal_psf(scan.acquisition, scan.affine),
        b1_plus=scan.b1_plus,
        b1_plus_sd=scan.b1_plus_sd,
        estimators=wanted,
        maps=maps,
        groups=groups,
        registration_sd_mm=registration_sd_mm,
        spokes=scan.spokes,
    )
    notes += signals.notes
    lines: dict[str, CalibrationLine] = {}
    measured = measure_vials(scan, vials, vials_placed, eyes_mm, notes) if "vials" in references else ()
    if measured:
        air = measure_air(scan, measured, notes) if air_point else None
        lines["vials"] = vial_line(scan, measured, air)
        notes += [f"{m.label} is not used: {m.reason}." for m in measured if not m.usable]
        if sum(m.usable for m in measured) == 1:
            notes.append("One vial only: its line goes through the origin, and nothing checks it.")
    if "CSF" in references:
        add_csf_line(lines, scan, signals, compartments, relaxations, notes)
    eyes: tuple[ReferenceSignal, ...] = ()
    if "vitreous" in references:
        eyes = measure_eyes(scan, relaxations["vitreous"], eyes_mm)
        add_vitreous_line(lines, scan, eyes, relaxations["vitreous"], notes)
    disagreeing = compare_references(signals, lines, notes)
    if not lines and not weighted:
        notes.append("There is no reference, so nothing is given in mmol/L.")
    tsc, stderr, corrected = _maps(scan, compartments, relaxations, lines, signals)
    table = regional_table(signals, lines)
    doubted = doubted_groups(table)
    if doubted:
        notes.append(
            f"Tissue fractions are doubtful ({', '.join(doubted)}): with tissue borders fitted to the sodium image "
            "(rows of the estimator joint) values are others, beyond the error of the fractions. Look at the "
            "segmentation."
        )
    return ScanResult(
        signals,
        measured,
        eyes,
        lines,
        table,
        tsc,
        stderr,
        scan.sodium_to_t1w,
        registration_sd_mm,
        tuple(notes),
        refined,
        corrected,
        disagreeing,
        receive_fitted,
    )


def allowed_estimators(
    scan: Scan, estimators: Sequence[str], notes: list[str], *, weighted: bool = False
) -> list[EstimatorName]:
    """Estimators that the scan allows; notes say why others are left out."""
    wanted: list[EstimatorName] = ["none"]
    if weighted:
        return wanted
    if scan.psf is not None:
        wanted += [n for n in get_args(EstimatorName) if n in estimators and n not in ("none", "kspace")]
    else:
        notes.append(
            "The point spread function is not known: no value is corrected for partial volume. Give ReadoutDuration, "
            "NominalResolution and KSpaceFilter (sidecar or --protocol), or --psf."
        )
    if "kspace" in estimators:
        missing = _no_kspace(scan)
        if missing:
            notes.append(f"There are no rows of the estimator kspace (--pvc): {missing}.")
        else:
            wanted.append("kspace")
    return wanted


def _no_kspace(scan: Scan) -> str | None:
    """Why a scan allows no estimate from k-space."""
    if scan.spokes is None:
        return "it needs raw data (ISMRMRD) of the series, not images of the scanner"
    if scan.psf is None or scan.psf.acquisition is None:
        return "it needs the point spread function of the acquisition (--psf auto)"
    if scan.psf.acquisition.kspace_filter != "none":
        return "it goes with an image without a window (--recon-filter none)"
    if not scan.spokes.alike:
        return "it needs straight spokes with the same radii"
    return None


def _without_receive_profile(
    scan: Scan, compartments: Compartments, relaxations: Mapping[Tissue, Relaxation], vials: bool, notes: list[str]
) -> Scan:
    if scan.psf is None:
        notes.append("The receive profile is not fitted: that needs the point spread function.")
        return scan
    found = fit_receive_profile(
        scan.image, scan.affine, scan.noise, compartments, scan.sodium_to_t1w, relaxations, scan.psf
    )
    if not found.converged:
        notes.append("The receive profile is not removed: its fit found no end.")
        return scan
    inside = found.values[found.fitted]
    notes.append(
        f"The receive profile was fitted to the image, from {inside.min():.2f} to {inside.max():.2f} over the head; a "
        "gradient of concentration over the whole brain is taken for field."
    )
    if vials:
        notes.append("The vials lie beyond the fitted profile, which is continued level to them: trust CSF more.")
    corrected, sd = divide_profile(scan.image, scan.noise.sd, found.values)
    spokes = scan.spokes and scan.spokes.without_profile(found.values)
    return replace(scan, image=corrected, noise=Noise(sd, scan.noise.spectrum), spokes=spokes)


def _maps(
    scan: Scan,
    compartments: Compartments,
    relaxations: Mapping[Tissue, Relaxation],
    lines: Mapping[str, CalibrationLine],
    signals: RegionalSignals,
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None, CorrectedMaps]:
    """Concentration of each voxel by the first reference, with the signal factor of the tissues that it holds.

    A corrected map of one tissue has the factor of that tissue.
    """
    if not lines:
        return None, None, {}
    shares = region_fractions(compartments, scan.sodium_to_t1w, scan.image.shape, scan.affine)
    kappa = np.ones(scan.image.shape) if scan.b1_plus is None else np.where(scan.b1_plus > 0.0, scan.b1_plus, 1.0)
    brain = [i for i, kind in enumerate(compartments.kinds) if kind == "region"]
    factor, total = np.zeros(scan.image.size), np.zeros(scan.image.size)
    for tissue in ("GM", "WM", "CSF"):
        members = [i for i in brain if compartments.tissues[i] == tissue]
        share = np.asarray(shares[members].sum(axis=0)).reshape(-1)
        factor += share * signal_factor(scan.acquisition, relaxations[tissue], kappa).reshape(-1)
        total += share
    rest = np.clip(1.0 - total, 0.0, 1.0)
    factor += rest * signal_factor(scan.acquisition, relaxations["extracerebral"], kappa).reshape(-1)
    mean_factor = (factor / np.maximum(total + rest, 1e-6)).reshape(scan.image.shape)
    spread = relaxation_sensitivity(scan.acquisition, relaxations["GM"]).dlnf
    line = next(iter(lines.values()))
    corrected: CorrectedMaps = {}
    for (name, alone), signal in signals.maps.items():
        own = signal_factor(scan.acquisition, relaxations[alone], kappa) if alone else mean_factor
        corrected[name, alone] = tsc_map(signal, own, line, 0.0)[0]
    return *tsc_map(scan.image, mean_factor, line, scan.noise.sd, spread), corrected
