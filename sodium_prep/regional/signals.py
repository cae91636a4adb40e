"""Signal of every region by every estimator, with each of its errors kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from sodium_prep.atlas.groups import MAIN, Group
from sodium_prep.errors import InputError
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import (
    ILL_DETERMINED,
    RegionalSystem,
    RegionFit,
    RegionMeans,
    fit_mask,
    gtm,
    joint_covariance,
    labbe,
    regional_means,
)
from sodium_prep.pvc.forward import VoxelKernel, push_compartments, region_fractions
from sodium_prep.pvc.fraction_errors import FractionErrors, fraction_errors
from sodium_prep.pvc.kspace import KspaceFit, Spokes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.sensitivity import (
    T2STAR_PARAMETERS,
    motion_covariance,
    motion_derivatives,
    transfer_derivatives,
    transfer_ratios,
    width_derivative,
)
from sodium_prep.quant.relaxation_error import relaxation_sensitivity, widening
from sodium_prep.regional.designs import Design, Region, build_designs, merged_design
from sodium_prep.regional.further import CorrectedMaps, Corrector, MapName, Weights
from sodium_prep.regional.kspace import Response, kspace_fits

Array = NDArray[np.float64]
EstimatorName = Literal["none", "gtm", "labbe", "joint", "kspace", "mg", "iy", "mlts"]

REGISTRATION_SD_MM: Final = 0.3
"""Standard deviation assumed of each shift, and of each rotation at 60 mm."""
_SDS: Final = {"t1_s": "t1_sd_s"} | T2STAR_PARAMETERS
_SLOPES: Final = (*_SDS, "b1_plus")
Parameter = tuple[str, str]
"""A quantity that scans share: (tissue, field of its relaxation or ``b1_plus``), or :data:`PSF_WIDTH`."""
PSF_WIDTH: Final[Parameter] = ("PSF", "width")


@dataclass(frozen=True)
class Signals:
    """Signals of all regions by one estimator.

    Attributes
    ----------
    values : (n,)
        NaN where there is none.
    noise_var, registration_var, fraction_var : (n,)
        Variances from image noise (widened by the misfit of the model), from misregistration, and from errors of the
        tissue fractions. For ``joint`` these are the errors that are not fitted; what the fit leaves of the others is
        in ``noise_var``.
    slopes
        Change of the values per unit of each shared parameter through the PSF, (n,) each.
    factors, log_slopes
        Signal factor of each region, and change of its logarithm per unit of each relaxation parameter.
    ill_determined : (n,) bool
        The other regions inflate the variance more than 30 times.
    covariance : (n, n)
        Of the values within a scan; its diagonal is the sum of the three variances.
    estimated : (n,) bool
        Regions that the estimator is for; all if None.
    """

    values: Array
    noise_var: Array
    registration_var: Array
    fraction_var: Array
    slopes: dict[Parameter, Array]
    factors: Array
    log_slopes: dict[Parameter, Array]
    ill_determined: NDArray[np.bool_]
    covariance: Array = field(repr=False)
    estimated: NDArray[np.bool_] | None = None

    def signal_sd(self, shared_sd: Mapping[Parameter, float], intercept: float) -> tuple[Array, Array]:
        """Standard deviations in units of signal: within a scan, and with relaxation and PSF, which scans share."""
        within = self.noise_var + self.registration_var + self.fraction_var
        shared = np.zeros_like(within)
        for parameter, sd in shared_sd.items():
            change = self.slopes.get(parameter, 0.0) - (self.values - intercept) * self.log_slopes.get(parameter, 0.0)
            shared = shared + (change * sd) ** 2
        return np.sqrt(within), np.sqrt(within + shared)


@dataclass(frozen=True)
class CsfReference:
    """Signal of CSF as a reference of its own, by least squares.

    Attributes
    ----------
    signal
        Of pure fluid.
    within_sd
        From noise and registration.
    factor
        Signal factor of CSF at the transmit field there.
    changes
        Of the signal by each relaxation parameter through PSF and signal factor together, for one standard deviation:
        what that parameter does to the slope of the line, in units of signal.
    covariance : (n,)
        With the least-squares signals of the regions, from noise and registration.
    """

    signal: float
    within_sd: float
    factor: float
    changes: dict[Parameter, float]
    covariance: Array = field(repr=False)

    @property
    def sd(self) -> float:
        """From noise, registration and relaxation."""
        return float(np.sqrt(self.within_sd**2 + sum(change**2 for change in self.changes.values())))


@dataclass(frozen=True)
class RegionalSignals:
    """Everything that the table is made of before the calibration.

    Attributes
    ----------
    regions
        One per row.
    by_estimator
        Signals in the order of ``regions``.
    means
        Uncorrected means and spreads.
    volumes_mm3 : (n,)
        Volume of each region in T1w space.
    composition
        Share of each tissue in the voxels of each region.
    spill_in, csf_signal : (n,)
        Part of the signal in the region's voxels that comes from elsewhere, and from CSF.
    shared_sd
        Standard deviation of each relaxation parameter, of the transmit field, and of the width of the PSF.
    csf_reference
        The ventricles merged, all CSF without any; None if the head has none.
    misfit, residual_sd, noise_sd, condition
        Of the least-squares fit of the atlas regions; the first three within the brain.
    residual : (X, Y, Z) float32
        Image minus model, NaN outside the fitted voxels.
    prediction : (X, Y, Z) float32
        The model.
    maps
        Voxel-wise corrected signal.
    notes
        Why an estimator or a map is missing.
    """

    regions: tuple[Region, ...]
    by_estimator: dict[EstimatorName, Signals]
    means: RegionMeans = field(repr=False)
    volumes_mm3: Array = field(repr=False)
    composition: dict[Tissue, Array] = field(repr=False)
    spill_in: Array = field(repr=False)
    csf_signal: Array = field(repr=False)
    shared_sd: dict[Parameter, float] = field(repr=False)
    csf_reference: CsfReference | None
    misfit: float
    residual_sd: float
    noise_sd: float
    condition: float
    residual: NDArray[np.float32] = field(repr=False)
    prediction: NDArray[np.float32] = field(repr=False)
    maps: CorrectedMaps = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scan:
    """What the steps below share."""

    compartments: Compartments
    designs: list[Design]
    regions: tuple[Region, ...]
    blurred: NDArray[np.float32]
    mask: NDArray[np.bool_]
    voxel_mm: Array
    acquisition: Acquisition
    relaxations: Mapping[Tissue, Relaxation]
    ratios: Mapping[tuple[Tissue, str], NDArray[np.float32]]
    widths_mm: Mapping[Tissue, float]
    errors: FractionErrors
    kappa: Array
    registration_sd_mm: float

    @property
    def centre(self) -> Array:
        """Voxel about which the head turns."""
        return np.asarray(np.mean(np.argwhere(self.mask), axis=0))

    def of_tissues(self, fine: Array) -> dict[Tissue, NDArray[np.float32]]:
        """Part of the predicted image that each tissue makes."""
        out: dict[Tissue, NDArray[np.float32]] = {}
        for tissue in sorted(set(self.compartments.tissues)):
            chosen = np.array([t == tissue for t in self.compartments.tissues])
            image = (fine * chosen).astype(np.float32) @ self.blurred
            out[tissue] = image.reshape(self.mask.shape)
        return out


def regional_signals(
    image: NDArray[np.floating],
    sodium_affine: Array,
    noise: Noise,
    compartments: Compartments,
    sodium_to_t1w: Array,
    acquisition: Acquisition,
    relaxations: Mapping[Tissue, Relaxation],
    psf: PsfModel,
    *,
    usable: NDArray[np.bool_] | None = None,
    b1_plus: NDArray[np.floating] | None = None,
    b1_plus_sd: float = 0.0,
    estimators: Sequence[EstimatorName] = ("none", "gtm", "labbe"),
    maps: Sequence[MapName] = (),
    groups: Sequence[Group] = MAIN,
    registration_sd_mm: float = REGISTRATION_SD_MM,
    blurred: NDArray[np.float32] | None = None,
    voxel_kernel: VoxelKernel = "point",
    spokes: Spokes | None = None,
) -> RegionalSignals:
    """Estimate the signal of every region of a sodium image.

    Parameters
    ----------
    image : (X, Y, Z)
        Native sodium image, real or floor-corrected, free of the receive profile.
    sodium_affine, sodium_to_t1w : (4, 4)
        Of the image, and the rigid transform of points to T1w space.
    noise
        Of the image.
    compartments
        Of the head, on the T1w grid.
    acquisition, relaxations, psf
        Physics of the signal and of its blurring.
    usable : (X, Y, Z) bool
        Where the image holds data; everywhere finite if not given.
    b1_plus : (X, Y, Z)
        Transmit field relative to nominal; nominal if not given.
    maps
        Voxel-wise maps that are wanted.
    b1_plus_sd
        Its standard uncertainty, common to all regions of a tissue.
    groups
        Regions that are estimated as one, besides those of the atlas.
    registration_sd_mm
        Standard deviation of each rigid motion that the registration leaves.
    blurred : (n_compartments, X * Y * Z)
        What :func:`sodium_prep.pvc.forward.push_compartments` gives, if it is known already.
    voxel_kernel
        See :func:`sodium_prep.pvc.forward.push_compartments`.
    spokes
        K-space of the image, for the estimator ``kspace``.
    """
    finite = np.isfinite(image)
    usable = finite if usable is None else usable & finite
    image = np.where(usable, image, 0.0)
    grid = (sodium_to_t1w, image.shape, sodium_affine)

    def push(compartments: Compartments) -> NDArray[np.float32]:
        return push_compartments(compartments, *grid, psf, relaxations, voxel_kernel=voxel_kernel)

    blurred = push(compartments) if blurred is None else blurred
    fractions = region_fractions(compartments, *grid)
    mask = fit_mask(blurred, compartments.names, compartments.kinds, usable)
    designs = build_designs(compartments, groups)
    regions = tuple(region for design in designs for region in design.regions)
    voxel_mm = np.linalg.norm(sodium_affine[:3, :3], axis=0)
    members = np.zeros((len(regions), len(compartments.names)))
    for row, region in enumerate(regions):
        members[row, list(region.members)] = 1.0
    volumes = members @ compartments.volumes_mm3
    in_voxels = volumes / float(np.prod(voxel_mm))
    means = regional_means(scipy.sparse.csr_matrix(members) @ fractions, image, usable, noise, in_voxels)
    kappa = np.ones(len(regions)) if b1_plus is None else means.weights @ np.asarray(b1_plus, float).reshape(-1)
    present = {tissue: relaxations[tissue] for tissue in sorted(set(compartments.tissues))}
    ratios = transfer_ratios((image.shape[0], image.shape[1], image.shape[2]), voxel_mm, psf, present)
    brain = np.asarray(fractions[compartments.regions].sum(axis=0)).reshape(image.shape) > 0.5
    system = labbe(blurred, image, mask, noise, compartments.kinds, brain)
    fits = [system.fit(design.membership) for design in designs]
    first = fits[0]
    fine = designs[0].membership @ np.nan_to_num(first.values)
    errors = fraction_errors(compartments, fine, mask, push)
    scan = _Scan(
        compartments, designs, regions, blurred, mask, voxel_mm, acquisition, present, ratios,
        {tissue: psf.width_mm(relaxation) for tissue, relaxation in present.items()}, errors,
        np.where(kappa > 0.0, kappa, 1.0), registration_sd_mm,
    )  # fmt: skip
    prediction = (fine.astype(np.float32) @ blurred).reshape(image.shape)
    composition = _composition(compartments, fractions, means)
    fluid = _csf_design(compartments)
    found: dict[EstimatorName, Signals] = {}
    corrector = Corrector(
        image, mask, compartments, regions, designs, blurred, fractions, first, voxel_mm, psf, relaxations
    )
    notes: list[str] = []
    for name in estimators:
        if name == "none":
            found[name] = _uncorrected(scan, means, prediction, composition)
        elif name == "labbe":
            found[name] = _corrected(scan, fits, [fit.misfit for fit in fits])
        elif name == "joint":
            with_errors = labbe(blurred, image, mask, noise, compartments.kinds, brain, errors.at_borders)
            joint = [with_errors.fit(design.membership) for design in designs]
            found[name] = _corrected(replace(scan, errors=errors.unseen), joint, [fit.misfit for fit in joint])
        elif name == "kspace":
            found[name] = _from_kspace(scan, spokes, system, prediction, sodium_to_t1w, voxel_kernel)
        elif name in ("mg", "iy", "mlts"):
            try:
                found[name] = _weighted(scan, corrector.weights(name), image, noise, first, fine)
            except InputError as error:
                notes.append(f"There are no values by {name}: {error.problem}.")
        else:
            matrix = gtm(blurred, fractions, image, mask, noise, compartments.kinds)
            found[name] = _corrected(scan, [matrix.fit(d.membership) for d in designs], [f.misfit for f in fits])
    sds = _shared_sds(acquisition, present, psf, b1_plus_sd)
    residual = np.where(mask, image - prediction, np.nan).astype(np.float32)
    return RegionalSignals(
        regions, found, means, volumes, composition, *_signal_sources(scan, means, fits), sds,
        None if fluid is None else _csf_reference(scan, system, fits, fluid, fractions, b1_plus, sds),
        first.misfit, first.residual_sd, first.noise_sd, first.condition, residual, prediction,
        _voxelwise(corrector, maps, notes), tuple(notes),
    )  # fmt: skip


def _shared_sds(
    acquisition: Acquisition, relaxations: Mapping[Tissue, Relaxation], psf: PsfModel, b1_plus_sd: float
) -> dict[Parameter, float]:
    """Standard deviation of each parameter that scans share."""
    out: dict[Parameter, float] = {PSF_WIDTH: psf.relative_width_sd}
    for tissue, relaxation in relaxations.items():
        wide = widening(acquisition, relaxation)
        out |= {(tissue, p): wide * float(getattr(relaxation, sd)) for p, sd in _SDS.items()}
        out[tissue, "b1_plus"] = b1_plus_sd
    return out


def _voxelwise(corrector: Corrector, wanted: Sequence[MapName], notes: list[str]) -> CorrectedMaps:
    out: CorrectedMaps = {}
    for name in wanted:
        try:
            out |= {(name, tissue): image for tissue, image in corrector.maps(name).items()}
        except InputError as error:
            notes.append(f"There is no map by {name}: {error.problem}.")
    return out


def _composition(
    compartments: Compartments, fractions: scipy.sparse.csr_matrix, means: RegionMeans
) -> dict[Tissue, Array]:
    out: dict[Tissue, Array] = {}
    for tissue in sorted(set(compartments.tissues)):
        chosen = np.array([t == tissue for t in compartments.tissues], np.float64)
        share = np.asarray(means.weights @ (fractions.T @ chosen))
        out[tissue] = np.where(means.n_voxels > 0, share, np.nan)
    return out


def _factor_slopes(scan: _Scan, tissues: Sequence[Tissue], kappa: Array) -> tuple[Array, dict[Parameter, Array]]:
    """Signal factor of regions of one tissue each, and the derivatives of its logarithm."""
    factors = np.ones(len(tissues))
    present = sorted(set(scan.compartments.tissues))
    slopes: dict[Parameter, Array] = {(t, p): np.zeros(len(tissues)) for t in present for p in _SLOPES}
    known: dict[tuple[Tissue, float], tuple[float, dict[str, float]]] = {}
    for row, (tissue, b1) in enumerate(zip(tissues, kappa.tolist(), strict=True)):
        if (tissue, b1) not in known:
            found = relaxation_sensitivity(scan.acquisition, scan.relaxations[tissue], b1_plus=b1)
            known[tissue, b1] = (found.factor, found.derivatives)
        factors[row], derivatives = known[tissue, b1]
        for p in _SLOPES:
            slopes[tissue, p][row] = derivatives[p]
    return factors, slopes


def _corrected(scan: _Scan, fits: Sequence[RegionFit], misfits: Sequence[float]) -> Signals:
    responses = [
        _responses(scan, design.membership @ np.nan_to_num(fit.values), fit)
        for design, fit in zip(scan.designs, fits, strict=True)
    ]
    noise = joint_covariance(fits, [design.columns for design in scan.designs])
    return _joined(scan, fits, misfits, responses, noise)


def _from_kspace(
    scan: _Scan,
    spokes: Spokes | None,
    system: RegionalSystem,
    prediction: NDArray[np.float32],
    sodium_to_t1w: Array,
    voxel_kernel: VoxelKernel,
) -> Signals:
    if spokes is None:
        raise ValueError("the estimator 'kspace' needs the k-space of the image")
    found = kspace_fits(
        spokes, system, prediction, scan.centre, scan.errors, scan.compartments, scan.designs, sodium_to_t1w,
        scan.acquisition, scan.relaxations, voxel_kernel=voxel_kernel,
    )  # fmt: skip
    return _joined(scan, found.fits, found.misfits, found.responses, found.covariance)


def _joined(
    scan: _Scan,
    fits: Sequence[RegionFit | KspaceFit],
    misfits: Sequence[float],
    responses: Sequence[Response],
    noise: Array,
) -> Signals:
    """Columns of all designs in the order of the regions; so is the covariance from noise."""

    def joined(parts: Iterable[Array]) -> Array:
        return np.concatenate([part[list(d.columns)] for part, d in zip(parts, scan.designs, strict=True)])

    factors, log_slopes = _factor_slopes(scan, [r.tissue for r in scan.regions], scan.kappa)
    wide = np.repeat(np.sqrt(np.maximum(misfits, 1.0)), [len(design.columns) for design in scan.designs])
    noise = noise * np.outer(wide, wide)
    moved = motion_covariance(joined(r.motion for r in responses), scan.registration_sd_mm)
    fractions = joined(r.fractions for r in responses) * scan.errors.sds
    wrong = fractions @ fractions.T
    slopes = {p: joined(r.slopes[p] for r in responses) for p in responses[0].slopes}
    return Signals(
        joined(fit.values for fit in fits), np.diag(noise), np.diag(moved), np.diag(wrong), slopes, factors,
        log_slopes, joined(fit.inflation for fit in fits) > ILL_DETERMINED, noise + moved + wrong,
    )  # fmt: skip


def _weighted(
    scan: _Scan, found: Weights, image: NDArray[np.floating], noise: Noise, fit: RegionFit, fine: Array
) -> Signals:
    """Values that are weighted sums over the fitted voxels, with the errors that their weights give."""
    factors, log_slopes = _factor_slopes(scan, [r.tissue for r in scan.regions], scan.kappa)
    values = found.response(image[scan.mask])[:, 0] + found.offsets
    random = noise.quadratic_form(found.rows, scan.mask) * max(1.0, fit.misfit)
    response = _responses(scan, fine, found)
    moved = motion_covariance(response.motion, scan.registration_sd_mm)
    fractions = response.fractions * scan.errors.sds
    wrong = fractions @ fractions.T
    absent = np.where(np.isfinite(values), 0.0, np.nan)
    return Signals(
        values, np.diag(random) + absent, np.diag(moved) + absent, np.diag(wrong) + absent, response.slopes, factors,
        log_slopes, found.inflation > ILL_DETERMINED, random + moved + wrong, found.estimated,
    )  # fmt: skip


def _responses(scan: _Scan, fine: Array, fit: RegionFit | Weights) -> Response:
    parts = scan.of_tissues(fine)
    first, second = motion_derivatives(np.sum(list(parts.values()), axis=0), scan.voxel_mm, scan.centre)
    width = width_derivative(parts, scan.widths_mm, scan.voxel_mm)
    images = [image[scan.mask] for image in (*first, *second, *transfer_derivatives(parts, scan.ratios), width)]
    change = fit.response(np.stack([*images, *scan.errors.images[:, scan.mask.reshape(-1)]]))
    slopes = {p: -change[:, 12 + i] for i, p in enumerate((*scan.ratios, PSF_WIDTH))}
    return Response(change[:, :12], change[:, len(images) :], slopes)


def _uncorrected(
    scan: _Scan, means: RegionMeans, prediction: NDArray[np.float32], composition: Mapping[Tissue, Array]
) -> Signals:
    """Means as they are; a region's factor is that of the mixture of tissues in its voxels."""
    n = len(scan.regions)
    first, second = (
        np.asarray(means.weights @ images.reshape(6, -1).T)
        for images in motion_derivatives(prediction, scan.voxel_mm, scan.centre)
    )
    moved = motion_covariance(np.hstack([first, second]), scan.registration_sd_mm)
    total = np.sum(list(composition.values()), axis=0)
    mixed: Array = np.zeros(n)
    slopes: dict[Parameter, Array] = {}
    for tissue, share in composition.items():
        factors, log_slopes = _factor_slopes(scan, [tissue] * n, scan.kappa)
        part = share / total * factors
        mixed = mixed + part
        slopes |= {p: part * slope for p, slope in log_slopes.items() if p[0] == tissue}
    log_mixed = {p: slope / mixed for p, slope in slopes.items()}
    return Signals(
        means.values, np.diag(means.covariance), np.diag(moved), np.zeros(n), {}, mixed, log_mixed, np.zeros(n, bool),
        means.covariance + moved,
    )  # fmt: skip


def _signal_sources(scan: _Scan, means: RegionMeans, fits: Sequence[RegionFit]) -> tuple[Array, Array]:
    """Parts of the modelled signal in the voxels of each region: from other compartments, and from CSF anywhere."""
    sent = np.asarray(means.weights @ scan.blurred.T)
    fluid = np.array([tissue == "CSF" for tissue in scan.compartments.tissues])
    spill, csf, row = *np.full((2, len(scan.regions)), np.nan), 0
    for design, fit in zip(scan.designs, fits, strict=True):
        fine = design.membership @ np.nan_to_num(fit.values)
        for region in design.regions:
            from_each = sent[row] * fine
            total = from_each.sum()
            if total > 0.0:
                spill[row] = 1.0 - from_each[list(region.members)].sum() / total
                csf[row] = from_each[fluid].sum() / total
            row += 1
    return spill, csf


def _csf_design(c: Compartments) -> Design | None:
    """The ventricles of the atlas as one region, all CSF if it has none."""
    fluid = [i for i in c.regions if c.structures[i] == "csf" and c.voxels[i].size]
    if not fluid:
        return None
    ventricles = [i for i in fluid if "vent" in c.names[i].lower()]
    return merged_design(c, Region(None, "CSFReference", "both", "CSF", tuple(ventricles or fluid)))


def _csf_reference(
    scan: _Scan,
    system: RegionalSystem,
    fits: Sequence[RegionFit],
    fluid: Design,
    fractions: scipy.sparse.csr_matrix,
    b1_plus: NDArray[np.floating] | None,
    sds: Mapping[Parameter, float],
) -> CsfReference:
    """The fluid as one more region beside all others, so that what they share is known."""
    region, kappa = fluid.regions[0], 1.0
    if b1_plus is not None:
        share = np.asarray(fractions[list(region.members)].sum(axis=0)).reshape(-1)
        kappa = float(share @ np.asarray(b1_plus, float).reshape(-1) / share.sum())
    every = replace(
        scan,
        designs=[*scan.designs, fluid],
        regions=(*scan.regions, region),
        kappa=np.append(scan.kappa, kappa if kappa > 0.0 else 1.0),
    )
    all_fits = [*fits, system.fit(fluid.membership)]
    joint = _corrected(every, all_fits, [fit.misfit for fit in all_fits])
    value = float(joint.values[-1])
    changes = {
        p: sd
        * float(
            (joint.slopes[p][-1] if p in joint.slopes else 0.0)
            - value * (joint.log_slopes[p][-1] if p in joint.log_slopes else 0.0)
        )
        for p, sd in sds.items()
    }
    return CsfReference(
        value,
        float(np.sqrt(joint.covariance[-1, -1])),
        float(joint.factors[-1]),
        changes,
        joint.covariance[:-1, -1],
    )
