"""One sodium scan from its image to the table: references, calibration lines, regional signals, maps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.atlas.groups import MAIN, Group, missing_note
from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.physics.signal import signal_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.forward import region_fractions
from sodium_prep.pvc.kspace import Spokes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.receive_fit import fit_receive_profile
from sodium_prep.pvc.refine import refine_rigid
from sodium_prep.quant.calibration import CalibrationLine, disagreement, internal_reference_line
from sodium_prep.quant.detect import find_eyes, find_references, match_references
from sodium_prep.quant.geometry import Mtf, ReferenceGeometry, voxel_centres
from sodium_prep.quant.noise import background_mask, measure_floor
from sodium_prep.quant.receive import divide_profile
from sodium_prep.quant.references import (
    INTERNAL_REFERENCES,
    ReferenceSignal,
    calibrate_references,
    measure_reference,
)
from sodium_prep.quant.relaxation_error import relaxation_sensitivity
from sodium_prep.quant.tscmap import tsc_map
from sodium_prep.regional.further import MAP_NAMES, CorrectedMaps
from sodium_prep.regional.signals import (
    REGISTRATION_SD_MM,
    EstimatorName,
    RegionalSignals,
    regional_signals,
)
from sodium_prep.regional.table import csf_line, regional_table

Array = NDArray[np.float64]

EYES_MM: Final = ((-33.0, 62.0, -38.0), (33.0, 62.0, -38.0))
"""About where the eyes lie in MNI152NLin6Asym space."""
_REFINED_SD_MM: Final = 0.15
"""What a refined registration leaves, at the least, with fractions that are estimates themselves."""
DISAGREEMENT: Final = 2.5
"""Standard errors from which on references disagree: among three pairs, chance brings that in 4 % of all scans."""
_UNKNOWN_CONTENT: Final = Relaxation(0.05, 0.05)
_EYE_CORE_MM: Final = 6.0
_CORE_SHARE: Final = 0.95
_CORE_VOXELS: Final = 5


@dataclass(frozen=True)
class Scan:
    """A sodium image with what is known of it.

    Attributes
    ----------
    image : (X, Y, Z)
        Free of noise floor and receive profile.
    affine, sodium_to_t1w : (4, 4)
        Voxel to world, and map of points to T1w space, RAS mm.
    noise
        Of the image.
    acquisition
        Physics of the signal.
    psf
        None where it is not known; then nothing is corrected for partial volume.
    head : (X, Y, Z) bool
        The head on the sodium grid; references are looked for outside.
    clipped : (X, Y, Z) bool
        Saturated voxels of the image as stored.
    b1_plus : (X, Y, Z) or None
        Transmit field relative to nominal.
    b1_plus_sd
        Its standard uncertainty.
    where
        The file, for messages.
    spokes
        K-space of the image, for estimates from it.
    """

    image: NDArray[np.float32]
    affine: Array
    sodium_to_t1w: Array
    noise: Noise
    acquisition: Acquisition
    psf: PsfModel | None
    head: NDArray[np.bool_]
    clipped: NDArray[np.bool_]
    b1_plus: NDArray[np.float32] | None = None
    b1_plus_sd: float = 0.0
    where: str = "sodium image"
    spokes: Spokes | None = None

    def mtf(self, relaxation: Relaxation) -> Mtf:
        """Transfer function for contents of given relaxation, at k vectors in world axes."""
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        psf = self.psf or nominal_psf(self.acquisition, self.affine)
        return lambda k: psf.mtf(np.asarray(k) @ axes, relaxation)


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


def nominal_psf(acquisition: Acquisition, affine: Array) -> PsfModel:
    """The sharpest PSF that a centre-out acquisition with this voxel size can have: no decay, no window.

    Used where the true one is not known and hardly matters: to find reference objects larger than the PSF.
    """
    x, y, z = (float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    sharp = replace(
        acquisition, trajectory="3DPR", readout_duration_s=0.0, nominal_resolution_mm=(x, y, z), kspace_filter="none"
    )
    return PsfModel("acquisition", sharp)


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

    Raises
    ------
    InputError
        If vials are wanted and described but cannot be used.
    """
    c = compartments
    of_atlas = [[column[i] for i in c.regions] for column in (c.names, c.hemispheres, c.structures, c.tissues)]
    notes = list(filter(None, [missing_note(groups, *of_atlas)]))
    wanted = allowed_estimators(scan, estimators, notes)
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
    measured = _measure_vials(scan, vials, vials_placed, eyes_mm, notes) if "vials" in references else ()
    if measured:
        air = _air(scan, measured, notes) if air_point else None
        lines["vials"] = _vial_line(scan, measured, air)
        notes += [f"{m.label} is not used: {m.reason}." for m in measured if not m.usable]
        if sum(m.usable for m in measured) == 1:
            notes.append("One vial only: its line goes through the origin, and nothing checks it.")
    if "CSF" in references:
        _add_csf_line(lines, scan, signals, compartments, relaxations, notes)
    eyes: tuple[ReferenceSignal, ...] = ()
    if "vitreous" in references:
        eyes = _measure_eyes(scan, relaxations["vitreous"], eyes_mm)
        _add_vitreous_line(lines, scan, eyes, relaxations["vitreous"], notes)
    disagreeing = _compare(signals, lines, notes)
    if not lines:
        notes.append("There is no reference, so nothing is given in mmol/L.")
    tsc, stderr, corrected = _maps(scan, compartments, relaxations, lines, signals)
    table = regional_table(signals, lines)
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


def allowed_estimators(scan: Scan, estimators: Sequence[str], notes: list[str]) -> list[EstimatorName]:
    """Estimators that the scan allows; notes say why others are left out."""
    wanted: list[EstimatorName] = ["none"]
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


def _compare(signals: RegionalSignals, lines: Mapping[str, CalibrationLine], notes: list[str]) -> float | None:
    """Largest disagreement between references in standard errors, with a note for each that is beyond its error."""
    found = next(reversed(signals.by_estimator.values()))
    cortex = next(
        i for i, r in enumerate(signals.regions) if (r.index, r.name, r.hemisphere) == (None, "Cortex", "both")
    )
    largest = []
    for one, other in itertools.combinations(lines, 2):
        relative, errors = disagreement(float(found.values[cortex]), lines[other], lines[one])
        largest.append(errors)
        if errors > DISAGREEMENT:
            notes.append(
                f"The references disagree: {other} gives {abs(relative):.0%} {'more' if relative > 0 else 'less'} than "
                f"{one}, which is {errors:.1f} of their standard errors."
            )
    return max(largest, default=None)


def expected_eyes(
    labels: NDArray[np.int32], affine: Array, template_labels: NDArray[np.int32], template_affine: Array
) -> list[Array]:
    """Where the eyes should be in a subject's space, by the affine that the centres of all labels agree on best.

    Parameters
    ----------
    labels, affine
        Atlas labels on the subject's grid.
    template_labels, template_affine
        The same labels in the space of :data:`EYES_MM`.
    """
    common = np.intersect1d(np.unique(labels[labels > 0]), np.unique(template_labels[template_labels > 0]))
    if common.size < 8:
        return []
    source, target = (
        np.asarray(ndimage.center_of_mass(volume > 0, volume, common)) @ matrix[:3, :3].T + matrix[:3, 3]
        for volume, matrix in ((template_labels, template_affine), (labels, affine))
    )
    solution = np.linalg.lstsq(np.c_[source, np.ones(len(source))], target, rcond=None)[0]
    return [np.asarray([*eye, 1.0] @ solution, dtype=np.float64) for eye in EYES_MM]


def _measure_vials(
    scan: Scan, vials: Sequence[ReferenceGeometry], placed: bool, eyes_mm: Sequence[Array], notes: list[str]
) -> tuple[ReferenceSignal, ...]:
    if not vials:
        return ()
    if placed:
        return tuple(_measure(scan, vial) for vial in vials)
    found = find_references(scan.image, scan.affine, scan.head, len(vials), eyes_mm=_points(eyes_mm))
    notes.append(f"The vials have no place in the sidecar: {found.statement}.")
    if len(found.objects) < len(vials):
        raise InputError(
            scan.where,
            f"{len(found.objects)} of {len(vials)} vials were found beside the head",
            "Give CentreRAS and Radius in SodiumReferences, or use --reference CSF",
        )
    places = [one.geometry for one in found.objects[: len(vials)]]
    # Their size is only an estimate, and half a millimetre of radius costs 5 % of signal: it is fitted.
    signals = [_measure(scan, place, (0.6 * place.radius_mm, 1.5 * place.radius_mm)) for place in places]
    matched, sure, statement = match_references(signals, vials)
    if not (sure and found.confident):
        raise InputError(
            scan.where,
            f"the vials cannot be told apart or found for sure ({found.statement}; {statement})",
            "Give CentreRAS and Radius in SodiumReferences, or use --reference CSF",
        )
    notes.append(f"The vials were {statement}.")
    return tuple(matched)


def _points(points_mm: Sequence[Array]) -> list[tuple[float, float, float]]:
    return [(float(x), float(y), float(z)) for x, y, z in points_mm]


def _measure(
    scan: Scan, vial: ReferenceGeometry, radius_range_mm: tuple[float, float] | None = None
) -> ReferenceSignal:
    return measure_reference(
        scan.image,
        scan.affine,
        vial,
        scan.mtf(vial.relaxation or _UNKNOWN_CONTENT),
        np.nan_to_num(scan.noise.sd, nan=0.0),
        noise_psd=scan.noise.spectrum,
        exclude=scan.head,
        clipped=scan.clipped,
        radius_range_mm=radius_range_mm,
    )


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


def _air(scan: Scan, measured: Sequence[ReferenceSignal], notes: list[str]) -> tuple[float, float] | None:
    """Mean of air with its standard error, if it is the floor that lies under the vials too."""
    try:
        air = background_mask(scan.image, scan.affine, scan.head, where=scan.where)
    except InputError as error:
        notes.append(f"Air is no reference: {error.problem}.")
        return None
    if measure_floor(scan.image, air).law != "zero-mean":
        notes.append("Air is no reference: its floor is not there underneath the vials. That needs a real image.")
        return None
    weights = np.full((1, int(air.sum())), 1.0 / air.sum(), np.float32)
    sd = float(np.sqrt(scan.noise.quadratic_form(weights, air)[0, 0]))
    # The mean of all air says less of one vial's place than its noise does: so much do surroundings differ.
    left = [m.background for m in measured if m.usable]
    notes.append("Air is a point of the calibration line.")
    return float(scan.image[air].mean(dtype=np.float64)), float(np.hypot(sd, np.std(left) if left else 0.0))


def _vial_line(
    scan: Scan, measured: Sequence[ReferenceSignal], air: tuple[float, float] | None = None
) -> CalibrationLine:
    kappa = [1.0 if scan.b1_plus is None else _value_at(scan.b1_plus, scan.affine, m) for m in measured]
    return calibrate_references(
        measured, scan.acquisition, b1_plus=kappa, b1_plus_sd=scan.b1_plus_sd, air=air, where=scan.where
    )


def _value_at(volume: NDArray[np.float32], affine: Array, measured: ReferenceSignal) -> float:
    index = np.linalg.solve(affine, [*measured.geometry.centre_mm, 1.0])[:3]
    inside = np.clip(np.rint(index).astype(int), 0, np.asarray(volume.shape) - 1)
    value = float(volume[tuple(inside)])
    return value if value > 0.0 else 1.0


def _add_csf_line(
    lines: dict[str, CalibrationLine],
    scan: Scan,
    signals: RegionalSignals,
    compartments: Compartments,
    relaxations: Mapping[Tissue, Relaxation],
    notes: list[str],
) -> None:
    known = INTERNAL_REFERENCES["CSF"]
    try:
        if scan.psf is not None:
            lines["CSF"] = csf_line(signals, known.concentration_mM, known.concentration_sd_mM)
            return
        signal, sd = _ventricle_core(scan, compartments)
        factor = float(signal_factor(scan.acquisition, relaxations["CSF"]))
        lines["CSF"] = internal_reference_line(signal, sd, factor, known.concentration_mM, known.concentration_sd_mM)
        notes.append(
            "The CSF reference is the mean of voxels deep in the ventricles, not corrected for partial volume."
        )
    except InputError as error:
        notes.append(f"CSF is no reference here: {error.problem}.")


def _ventricle_core(scan: Scan, compartments: Compartments) -> tuple[float, float]:
    """Mean signal of the voxels that hold hardly anything but ventricle, and its standard error."""
    ventricles = [
        i for i in compartments.regions if compartments.structures[i] == "csf" and compartments.indices[i] >= 0
    ]
    share = region_fractions(compartments, scan.sodium_to_t1w, scan.image.shape, scan.affine)[ventricles].sum(axis=0)
    core = scan.image.reshape(-1)[np.asarray(share).reshape(-1) > _CORE_SHARE]
    if core.size < _CORE_VOXELS:
        raise InputError("ventricles", f"only {core.size} voxels lie deep in the ventricles", "Use another reference")
    return float(core.mean()), float(core.std(ddof=1) / np.sqrt(core.size))


def _measure_eyes(scan: Scan, vitreous: Relaxation, eyes_mm: Sequence[Array]) -> tuple[ReferenceSignal, ...]:
    if not len(eyes_mm):
        return ()
    known = INTERNAL_REFERENCES["vitreous"]
    base = ReferenceGeometry(
        "vitreous",
        (0.0, 0.0, 0.0),
        11.0,
        concentration_mM=known.concentration_mM,
        concentration_sd_mM=known.concentration_sd_mM,
        relaxation=vitreous,
    )
    found = tuple(
        find_eyes(
            scan.image,
            scan.affine,
            _points(eyes_mm),
            scan.mtf(vitreous),
            np.nan_to_num(scan.noise.sd, nan=0.0),
            reference=base,
        )
    )
    return found if scan.psf is not None else tuple(_core_signal(scan, eye) for eye in found)


def _core_signal(scan: Scan, eye: ReferenceSignal) -> ReferenceSignal:
    """Mean of the middle of an eye, for images whose PSF is not known; its edge would need one."""
    if eye.flag in ("cut", "clipped"):
        return eye
    distance = np.linalg.norm(voxel_centres(scan.image.shape, scan.affine) - eye.geometry.centre_mm, axis=-1)
    core = scan.image[distance < _EYE_CORE_MM]
    if core.size < _CORE_VOXELS:
        return eye
    sd = float(core.std(ddof=1) / np.sqrt(core.size))
    return replace(eye, signal=float(core.mean()), signal_sd=sd, flag="ok", reason="")


def _add_vitreous_line(
    lines: dict[str, CalibrationLine],
    scan: Scan,
    eyes: Sequence[ReferenceSignal],
    vitreous: Relaxation,
    notes: list[str],
) -> None:
    usable = [eye for eye in eyes if eye.usable]
    if not usable:
        told = "; ".join(f"{eye.label}: {eye.reason}" for eye in eyes) or "no place is known to look at"
        notes.append(f"The vitreous is no reference here ({told}).")
        return
    values = np.array([eye.signal for eye in usable])
    sd = float(np.hypot(np.sqrt(np.sum([eye.signal_sd**2 for eye in usable])) / len(usable), 0.5 * np.ptp(values)))
    known = INTERNAL_REFERENCES["vitreous"]
    kappa = 1.0 if scan.b1_plus is None else float(np.mean([_value_at(scan.b1_plus, scan.affine, e) for e in usable]))
    found = relaxation_sensitivity(scan.acquisition, vitreous, b1_plus=kappa, b1_plus_sd=scan.b1_plus_sd)
    spread = float(np.hypot(known.concentration_sd_mM, known.concentration_mM * found.dlnf))
    lines["vitreous"] = internal_reference_line(float(values.mean()), sd, found.factor, known.concentration_mM, spread)


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


def mask_on_grid(
    mask: NDArray[np.bool_], affine: Array, sodium_to_t1w: Array, shape: tuple[int, ...], sodium_affine: Array
) -> NDArray[np.bool_]:
    """A T1w mask on the sodium grid, by the nearest voxel.

    Parameters
    ----------
    mask, affine
        On the T1w grid.
    sodium_to_t1w
        Map of points.
    shape, sodium_affine
        Of the sodium image.
    """
    to_voxel = np.linalg.inv(affine) @ sodium_to_t1w @ sodium_affine
    return np.asarray(
        ndimage.affine_transform(mask.astype(np.uint8), to_voxel[:3, :3], to_voxel[:3, 3], shape, order=0) > 0
    )
