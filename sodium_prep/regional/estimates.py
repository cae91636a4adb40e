"""From the fit of a design to signals of regions, with each of their errors kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import ILL_DETERMINED, RegionalSystem, RegionFit, RegionMeans, joint_covariance
from sodium_prep.pvc.forward import VoxelKernel
from sodium_prep.pvc.fraction_errors import FractionErrors
from sodium_prep.pvc.kspace import KspaceFit, Spokes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.sensitivity import (
    T2STAR_PARAMETERS,
    motion_covariance,
    motion_derivatives,
    transfer_derivatives,
    width_derivative,
)
from sodium_prep.quant.relaxation_error import relaxation_sensitivity, widening
from sodium_prep.regional.designs import Design, Region
from sodium_prep.regional.further import Weights
from sodium_prep.regional.kspace import Response, kspace_fits

Array = NDArray[np.float64]

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
class Model:
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


def shared_sds(
    acquisition: Acquisition, relaxations: Mapping[Tissue, Relaxation], psf: PsfModel, b1_plus_sd: float
) -> dict[Parameter, float]:
    """Standard deviation of each parameter that scans share."""
    out: dict[Parameter, float] = {PSF_WIDTH: psf.relative_width_sd}
    for tissue, relaxation in relaxations.items():
        wide = widening(acquisition, relaxation)
        out |= {(tissue, p): wide * float(getattr(relaxation, sd)) for p, sd in _SDS.items()}
        out[tissue, "b1_plus"] = b1_plus_sd
    return out


def _factor_slopes(model: Model, tissues: Sequence[Tissue], kappa: Array) -> tuple[Array, dict[Parameter, Array]]:
    """Signal factor of regions of one tissue each, and the derivatives of its logarithm."""
    factors = np.ones(len(tissues))
    present = sorted(set(model.compartments.tissues))
    slopes: dict[Parameter, Array] = {(t, p): np.zeros(len(tissues)) for t in present for p in _SLOPES}
    known: dict[tuple[Tissue, float], tuple[float, dict[str, float]]] = {}
    for row, (tissue, b1) in enumerate(zip(tissues, kappa.tolist(), strict=True)):
        if (tissue, b1) not in known:
            found = relaxation_sensitivity(model.acquisition, model.relaxations[tissue], b1_plus=b1)
            known[tissue, b1] = (found.factor, found.derivatives)
        factors[row], derivatives = known[tissue, b1]
        for p in _SLOPES:
            slopes[tissue, p][row] = derivatives[p]
    return factors, slopes


def corrected(model: Model, fits: Sequence[RegionFit], misfits: Sequence[float]) -> Signals:
    """Values of one fit per design, whose noise is widened by the misfit given for it."""
    responses = [
        _responses(model, design.membership @ np.nan_to_num(fit.values), fit)
        for design, fit in zip(model.designs, fits, strict=True)
    ]
    noise = joint_covariance(fits, [design.columns for design in model.designs])
    return _joined(model, fits, misfits, responses, noise)


def from_kspace(
    model: Model,
    spokes: Spokes | None,
    system: RegionalSystem,
    prediction: NDArray[np.float32],
    sodium_to_t1w: Array,
    voxel_kernel: VoxelKernel,
) -> Signals:
    """Values straight from k-space, judged by what they leave of the gridded image."""
    if spokes is None:
        raise ValueError("the estimator 'kspace' needs the k-space of the image")
    found = kspace_fits(
        spokes, system, prediction, model.centre, model.errors, model.compartments, model.designs, sodium_to_t1w,
        model.acquisition, model.relaxations, voxel_kernel=voxel_kernel,
    )  # fmt: skip
    return _joined(model, found.fits, found.misfits, found.responses, found.covariance)


def _joined(
    model: Model,
    fits: Sequence[RegionFit | KspaceFit],
    misfits: Sequence[float],
    responses: Sequence[Response],
    noise: Array,
) -> Signals:
    """Columns of all designs in the order of the regions; so is the covariance from noise."""

    def joined(parts: Iterable[Array]) -> Array:
        return np.concatenate([part[list(d.columns)] for part, d in zip(parts, model.designs, strict=True)])

    factors, log_slopes = _factor_slopes(model, [r.tissue for r in model.regions], model.kappa)
    wide = np.repeat(np.sqrt(np.maximum(misfits, 1.0)), [len(design.columns) for design in model.designs])
    noise = noise * np.outer(wide, wide)
    moved = motion_covariance(joined(r.motion for r in responses), model.registration_sd_mm)
    fractions = joined(r.fractions for r in responses) * model.errors.sds
    wrong = fractions @ fractions.T
    slopes = {p: joined(r.slopes[p] for r in responses) for p in responses[0].slopes}
    return Signals(
        joined(fit.values for fit in fits), np.diag(noise), np.diag(moved), np.diag(wrong), slopes, factors,
        log_slopes, joined(fit.inflation for fit in fits) > ILL_DETERMINED, noise + moved + wrong,
    )  # fmt: skip


def weighted(
    model: Model, found: Weights, image: NDArray[np.floating], noise: Noise, fit: RegionFit, fine: Array
) -> Signals:
    """Values that are weighted sums over the fitted voxels, with the errors that their weights give."""
    factors, log_slopes = _factor_slopes(model, [r.tissue for r in model.regions], model.kappa)
    values = found.response(image[model.mask])[:, 0] + found.offsets
    random = noise.quadratic_form(found.rows, model.mask) * max(1.0, fit.misfit)
    response = _responses(model, fine, found)
    moved = motion_covariance(response.motion, model.registration_sd_mm)
    fractions = response.fractions * model.errors.sds
    wrong = fractions @ fractions.T
    absent = np.where(np.isfinite(values), 0.0, np.nan)
    return Signals(
        values, np.diag(random) + absent, np.diag(moved) + absent, np.diag(wrong) + absent, response.slopes, factors,
        log_slopes, found.inflation > ILL_DETERMINED, random + moved + wrong, found.estimated,
    )  # fmt: skip


def _responses(model: Model, fine: Array, fit: RegionFit | Weights) -> Response:
    parts = model.of_tissues(fine)
    first, second = motion_derivatives(np.sum(list(parts.values()), axis=0), model.voxel_mm, model.centre)
    width = width_derivative(parts, model.widths_mm, model.voxel_mm)
    images = [image[model.mask] for image in (*first, *second, *transfer_derivatives(parts, model.ratios), width)]
    change = fit.response(np.stack([*images, *model.errors.images[:, model.mask.reshape(-1)]]))
    slopes = {p: -change[:, 12 + i] for i, p in enumerate((*model.ratios, PSF_WIDTH))}
    return Response(change[:, :12], change[:, len(images) :], slopes)


def uncorrected(
    model: Model, means: RegionMeans, prediction: NDArray[np.float32], composition: Mapping[Tissue, Array]
) -> Signals:
    """Means as they are; a region's factor is that of the mixture of tissues in its voxels."""
    n = len(model.regions)
    first, second = (
        np.asarray(means.weights @ images.reshape(6, -1).T)
        for images in motion_derivatives(prediction, model.voxel_mm, model.centre)
    )
    moved = motion_covariance(np.hstack([first, second]), model.registration_sd_mm)
    total = np.sum(list(composition.values()), axis=0)
    mixed: Array = np.zeros(n)
    slopes: dict[Parameter, Array] = {}
    for tissue, share in composition.items():
        factors, log_slopes = _factor_slopes(model, [tissue] * n, model.kappa)
        part = share / total * factors
        mixed = mixed + part
        slopes |= {p: part * slope for p, slope in log_slopes.items() if p[0] == tissue}
    log_mixed = {p: slope / mixed for p, slope in slopes.items()}
    return Signals(
        means.values, np.diag(means.covariance), np.diag(moved), np.zeros(n), {}, mixed, log_mixed, np.zeros(n, bool),
        means.covariance + moved,
    )  # fmt: skip
