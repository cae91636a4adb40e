"""References of a scan: vials, cerebrospinal fluid and eyes, the lines that they give, and whether they agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sodium_prep.errors import InputError
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.physics.signal import signal_factor
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.forward import region_fractions
from sodium_prep.quant.calibration import CalibrationLine, disagreement, internal_reference_line
from sodium_prep.quant.detect import find_eyes, find_references, match_references
from sodium_prep.quant.geometry import ReferenceGeometry, voxel_centres
from sodium_prep.quant.noise import background_mask, measure_floor
from sodium_prep.quant.references import (
    INTERNAL_REFERENCES,
    ReferenceSignal,
    calibrate_references,
    measure_reference,
)
from sodium_prep.quant.relaxation_error import relaxation_sensitivity
from sodium_prep.regional.inputs import Scan
from sodium_prep.regional.signals import RegionalSignals
from sodium_prep.regional.table import csf_line

Array = NDArray[np.float64]

EYES_MM: Final = ((-33.0, 62.0, -38.0), (33.0, 62.0, -38.0))
"""About where the eyes lie in MNI152NLin6Asym space."""
DISAGREEMENT: Final = 2.5
"""Standard errors from which on references disagree: among three pairs, chance brings that in 4 % of all scans."""
_UNKNOWN_CONTENT: Final = Relaxation(0.05, 0.05)
_EYE_CORE_MM: Final = 6.0
_CORE_SHARE: Final = 0.95
_CORE_VOXELS: Final = 5


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


def measure_vials(
    scan: Scan, vials: Sequence[ReferenceGeometry], placed: bool, eyes_mm: Sequence[Array], notes: list[str]
) -> tuple[ReferenceSignal, ...]:
    """Signals of the vials, placed or found; nothing without any.

    Raises
    ------
    InputError
        If vials that have no place are not found, or cannot be told apart for sure.
    """
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


def measure_air(scan: Scan, measured: Sequence[ReferenceSignal], notes: list[str]) -> tuple[float, float] | None:
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


def vial_line(
    scan: Scan, measured: Sequence[ReferenceSignal], air: tuple[float, float] | None = None
) -> CalibrationLine:
    """Calibration line of the vials that can be used."""
    kappa = [1.0 if scan.b1_plus is None else _value_at(scan.b1_plus, scan.affine, m) for m in measured]
    return calibrate_references(
        measured, scan.acquisition, b1_plus=kappa, b1_plus_sd=scan.b1_plus_sd, air=air, where=scan.where
    )


def _value_at(volume: NDArray[np.float32], affine: Array, measured: ReferenceSignal) -> float:
    index = np.linalg.solve(affine, [*measured.geometry.centre_mm, 1.0])[:3]
    inside = np.clip(np.rint(index).astype(int), 0, np.asarray(volume.shape) - 1)
    value = float(volume[tuple(inside)])
    return value if value > 0.0 else 1.0


def add_csf_line(
    lines: dict[str, CalibrationLine],
    scan: Scan,
    signals: RegionalSignals,
    compartments: Compartments,
    relaxations: Mapping[Tissue, Relaxation],
    notes: list[str],
) -> None:
    """Add the line of cerebrospinal fluid, or a note why there is none."""
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


def measure_eyes(scan: Scan, vitreous: Relaxation, eyes_mm: Sequence[Array]) -> tuple[ReferenceSignal, ...]:
    """Signals of the vitreous bodies near where the eyes should be."""
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


def add_vitreous_line(
    lines: dict[str, CalibrationLine],
    scan: Scan,
    eyes: Sequence[ReferenceSignal],
    vitreous: Relaxation,
    notes: list[str],
) -> None:
    """Add the line of the vitreous humour, or a note why there is none."""
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


def compare_references(
    signals: RegionalSignals, lines: Mapping[str, CalibrationLine], notes: list[str]
) -> float | None:
    """Largest disagreement between references in standard errors, with a note for each that is beyond its error."""
    found = signals.by_estimator.get("labbe", signals.by_estimator["none"])
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
