"""Signal of every region by every estimator, with each of its errors kept apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    RegionFit,
    RegionMeans,
    fit_mask,
    gtm,
    labbe,
    regional_means,
)
from sodium_prep.pvc.forward import VoxelKernel, push_compartments, region_fractions
from sodium_prep.pvc.fraction_errors import fraction_errors
from sodium_prep.pvc.joint import joint_model
from sodium_prep.pvc.kspace import Spokes
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.sensitivity import transfer_ratios
from sodium_prep.regional.designs import Region, build_designs
from sodium_prep.regional.estimates import (
    Model,
    Parameter,
    Signals,
    corrected,
    from_kspace,
    shared_sds,
    uncorrected,
    weighted,
)
from sodium_prep.regional.fluid import CsfReference, csf_design, csf_reference
from sodium_prep.regional.further import CorrectedMaps, Corrector, MapName

Array = NDArray[np.float64]
EstimatorName = Literal["none", "gtm", "labbe", "joint", "kspace", "mg", "iy", "mlts"]

REGISTRATION_SD_MM: Final = 0.3
"""Standard deviation assumed of each shift, and of each rotation at 60 mm."""


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
    brain = np.asarray(fractions[compartments.regions].sum(axis=0)).reshape(image.shape) > 0.5
    system = labbe(blurred, image, mask, noise, compartments.kinds, brain)
    fits = [system.fit(design.membership) for design in designs]
    first = fits[0]
    fine = designs[0].membership @ np.nan_to_num(first.values)
    model = Model(
        compartments, designs, regions, blurred, mask, voxel_mm, acquisition, present,
        transfer_ratios((image.shape[0], image.shape[1], image.shape[2]), voxel_mm, psf, present),
        {tissue: psf.width_mm(relaxation) for tissue, relaxation in present.items()},
        fraction_errors(compartments, fine, mask, push), np.where(kappa > 0.0, kappa, 1.0), registration_sd_mm,
    )  # fmt: skip
    prediction = (fine.astype(np.float32) @ blurred).reshape(image.shape)
    composition = _composition(compartments, fractions, means)
    fluid = csf_design(compartments)
    found: dict[EstimatorName, Signals] = {}
    corrector = Corrector(
        image, mask, compartments, regions, designs, blurred, fractions, first, voxel_mm, psf, relaxations
    )
    notes: list[str] = []
    for name in estimators:
        if name == "none":
            found[name] = uncorrected(model, means, prediction, composition)
        elif name == "labbe":
            found[name] = corrected(model, fits, [fit.misfit for fit in fits])
        elif name == "joint":
            to_native = np.linalg.solve(sodium_affine, np.linalg.solve(sodium_to_t1w, compartments.affine))
            found[name] = _joint(model, image, noise, brain, push, to_native)
        elif name == "kspace":
            found[name] = from_kspace(model, spokes, system, prediction, sodium_to_t1w, voxel_kernel)
        elif name in ("mg", "iy", "mlts"):
            try:
                found[name] = weighted(model, corrector.weights(name), image, noise, first, fine)
            except InputError as error:
                notes.append(f"There are no values by {name}: {error.problem}.")
        else:
            matrix = gtm(blurred, fractions, image, mask, noise, compartments.kinds)
            found[name] = corrected(model, [matrix.fit(d.membership) for d in designs], [f.misfit for f in fits])
    sds = shared_sds(acquisition, present, psf, b1_plus_sd)
    residual = np.where(mask, image - prediction, np.nan).astype(np.float32)
    return RegionalSignals(
        regions, found, means, volumes, composition, *_signal_sources(model, means, fits), sds,
        None if fluid is None else csf_reference(model, system, fits, fluid, fractions, b1_plus, sds),
        first.misfit, first.residual_sd, first.noise_sd, first.condition, residual, prediction,
        _voxelwise(corrector, maps, notes), tuple(notes),
    )  # fmt: skip


def _joint(
    model: Model,
    image: NDArray[np.floating],
    noise: Noise,
    brain: NDArray[np.bool_],
    push: Callable[[Compartments], NDArray[np.float32]],
    to_native: Array,
) -> Signals:
    """Signals and errors about the borders that fit the image best."""
    best = joint_model(
        model.compartments, model.blurred, model.errors, image, model.mask, noise, model.designs[0].membership, push,
        to_native, brain,
    )  # fmt: skip
    fits = [best.system.fit(design.membership) for design in model.designs]
    moved = replace(model, compartments=best.compartments, blurred=best.blurred, errors=best.errors.unseen)
    return corrected(moved, fits, [fit.misfit for fit in fits])


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


def _signal_sources(model: Model, means: RegionMeans, fits: Sequence[RegionFit]) -> tuple[Array, Array]:
    """Parts of the modelled signal in the voxels of each region: from other compartments, and from CSF anywhere."""
    sent = np.asarray(means.weights @ model.blurred.T)
    fluid = np.array([tissue == "CSF" for tissue in model.compartments.tissues])
    spill, csf, row = *np.full((2, len(model.regions)), np.nan), 0
    for design, fit in zip(model.designs, fits, strict=True):
        fine = design.membership @ np.nan_to_num(fit.values)
        for region in design.regions:
            from_each = sent[row] * fine
            total = from_each.sum()
            if total > 0.0:
                spill[row] = 1.0 - from_each[list(region.members)].sum() / total
                csf[row] = from_each[fluid].sum() / total
            row += 1
    return spill, csf
