"""Regional values and voxel-wise maps by the estimators that build on the least-squares fit of all compartments.

The fit says what other compartments put into a voxel; these estimators differ in what they make of the rest. Their
regional values are linear in the image, so every one is a row of weights over the voxels, and its errors follow from
that row as those of the fit follow from its operator. Averaging a map over a region would be another thing: it would
keep the mixture of tissues in its voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, get_args

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from sodium_prep.errors import InputError
from sodium_prep.physics.relaxation import Relaxation, Tissue
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.deconvolve import common_blur, richardson_lucy, van_cittert
from sodium_prep.pvc.estimators import RegionFit
from sodium_prep.pvc.maps import mueller_gaertner, multi_target, settled_yang, yang_map
from sodium_prep.pvc.noise import gram
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.trimmed import TrimmedRegression, trimmed_regression
from sodium_prep.regional.designs import Design, Region

Array = NDArray[np.float64]
FurtherName = Literal["mg", "iy", "mlts"]
MapName = Literal["mg", "rbv", "mtc", "iy", "rl", "vc", "mlts"]
MAP_NAMES: Final[tuple[MapName, ...]] = get_args(MapName)
"""Estimators that have a voxel-wise map."""
CorrectedMaps = dict[tuple[MapName, Tissue | None], NDArray[np.float32]]
"""Maps (X, Y, Z) by estimator, and by the tissue whose value they show or None for the mixture in each voxel."""

MAP_METHODS: Final[dict[str, tuple[str, str]]] = {
    "mg": (
        "the image without all that is not grey matter, over the blurred share of grey matter",
        "Mueller-Gaertner et al., J Cereb Blood Flow Metab 1992;12:571",
    ),
    "rbv": (
        "region-based voxel-wise correction with the signals of the least-squares fit",
        "Thomas et al., Eur J Nucl Med Mol Imaging 2011;38:1104",
    ),
    "mtc": (
        "multi-target correction with the signals of the least-squares fit",
        "Erlandsson et al., J Nucl Med 2006;47(S1):84P",
    ),
    "iy": ("iterative Yang correction", "Erlandsson et al., Phys Med Biol 2012;57:R119"),
    "rl": (
        "Richardson-Lucy deconvolution by the transfer function of grey matter, 10 iterations",
        "Richardson, J Opt Soc Am 1972;62:55; Lucy, Astron J 1974;79:745",
    ),
    "vc": (
        "reblurred Van Cittert deconvolution by the transfer function of grey matter",
        "Tohka and Reilhac, NeuroImage 2008;39:1570",
    ),
    "mlts": (
        "local regression on the blurred tissues by least trimmed squares",
        "Kim et al., NMR Biomed 2021, e4448, after Asllani et al., Magn Reson Med 2008;60:1362",
    ),
}
"""What each map is, and who it comes from."""
LEAST_TISSUE: Final = 0.2
"""Blurred share of a voxel below which the map of a tissue has no value there: noise would be amplified more than
five times."""
LEAST_TARGET: Final = 0.05
"""Blurred share below which the residual of a voxel is not taken for that of a compartment (``mtc``)."""
LEAST_SIGNAL: Final = 0.05
"""Predicted signal, relative to its median in the brain, below which there is nothing to divide by."""
LARGEST_LOBE: Final = 0.01
"""Negative lobes of the point spread function, relative to its peak, up to which Richardson-Lucy is run: it is made for
one without, and blows up with the -5 to -9 % of unfiltered radial data."""
_TISSUES: Final[tuple[Tissue, ...]] = ("GM", "WM", "CSF")


@dataclass(frozen=True)
class Weights:
    """Regional values as weighted sums over the fitted voxels.

    Attributes
    ----------
    rows : (r, m)
        One per region; zero where there is no value.
    offsets : (r,)
        Added to the sums; NaN where there is no value.
    estimated : (r,) bool
        Regions of a tissue that the estimator is for; the others have no row in the table.
    inflation : (r,)
        Variance relative to that of the region on its own (white noise).
    """

    rows: NDArray[np.float32] = field(repr=False)
    offsets: Array
    estimated: NDArray[np.bool_]
    inflation: Array

    def response(self, images: NDArray[np.floating]) -> Array:
        """Change of the values if these are added to the image; (k, m) -> (r, k)."""
        return gram(self.rows, np.atleast_2d(images))


@dataclass(frozen=True)
class Corrector:
    """What all these estimators start from.

    Attributes
    ----------
    image, mask : (X, Y, Z)
        Native sodium image, zero where it holds no data, and the voxels that were fitted.
    compartments, regions, designs
        As for :func:`sodium_prep.regional.signals.regional_signals`.
    blurred : (n, X * Y * Z), fractions : sparse (n, X * Y * Z)
        Compartments as the acquisition shows them, and their unblurred shares.
    fit
        Least squares of the first design.
    spacing_mm, psf, relaxations
        Of the acquisition.
    """

    image: NDArray[np.floating]
    mask: NDArray[np.bool_]
    compartments: Compartments
    regions: Sequence[Region]
    designs: Sequence[Design]
    blurred: NDArray[np.float32]
    fractions: scipy.sparse.csr_matrix
    fit: RegionFit
    spacing_mm: Array
    psf: PsfModel
    relaxations: Mapping[Tissue, Relaxation]

    @cached_property
    def _inside(self) -> NDArray[np.float32]:
        return self.blurred[:, self.mask.reshape(-1)]

    @cached_property
    def _shares(self) -> scipy.sparse.csr_matrix:
        return self.fractions[:, np.flatnonzero(self.mask.reshape(-1))].astype(np.float64)

    @property
    def _signal(self) -> Array:
        return np.asarray(self.image[self.mask], np.float64)

    @property
    def _values(self) -> Array:
        return np.asarray(self.designs[0].membership @ np.nan_to_num(self.fit.values))

    @property
    def _region_kind(self) -> NDArray[np.bool_]:
        return np.array([kind == "region" for kind in self.compartments.kinds])

    def _of(self, tissue: Tissue) -> NDArray[np.bool_]:
        """Compartments of healthy brain of one tissue; what a lesion consists of is not known."""
        c = self.compartments
        healthy = [t == tissue and s != "lesion" for t, s in zip(c.tissues, c.structures, strict=True)]
        return np.asarray(self._region_kind & healthy)

    def _brain(self) -> NDArray[np.bool_]:
        return np.asarray(self._shares[self._region_kind].sum(axis=0)).reshape(-1) > 0.5

    def weights(self, name: FurtherName) -> Weights:
        """Regional values of an estimator.

        Raises
        ------
        InputError
            If it has nothing to work on.
        """
        if name == "iy":
            rows, left = self._yang_rows(), ~self._region_kind
            estimated, offsets = np.ones(len(self.regions), bool), np.zeros(len(self.regions))
        elif name == "mg":
            grey = self._of("GM")
            left, estimated = ~grey, self._made_of(grey)
            share = self._members(estimated) @ self._shares
            total = share @ self._inside[grey].sum(axis=0, dtype=np.float64)
            rows, offsets = _scaled(share, total).toarray(), np.zeros(len(self.regions))
        else:
            found, left, estimated = self._trimmed
            rows, offsets = found.rows, found.offsets
        known = np.any(rows != 0.0, axis=1)
        if not known.any():
            raise InputError(name, "no region holds its tissue", "Use labbe")
        spilled = np.asarray(rows @ self._inside[left].T, np.float64)
        rows = rows - (spilled @ self._operator[left]).astype(np.float32) @ self._inside
        rows[~known] = 0.0
        alone = np.array([self._inside[list(region.members)].sum(axis=0) for region in self.regions])
        inflation = np.sum(rows**2, axis=1, dtype=float) * np.sum(alone**2, axis=1, dtype=float)
        return Weights(rows.astype(np.float32), np.where(known, offsets, np.nan), estimated, inflation)

    def maps(self, name: MapName) -> dict[Tissue | None, NDArray[np.float32]]:
        """Voxel-wise maps of an estimator, in units of signal.

        Returns
        -------
        By the tissue whose signal they show, None for the mixture that a voxel holds; NaN where there is no value.

        Raises
        ------
        InputError
            If a map cannot be had everywhere in the brain, or nowhere.
        """
        if name == "mg":
            grey = self._of("GM")
            share = self._inside[grey].sum(axis=0, dtype=np.float64)
            others = np.where(grey, 0.0, self._values) @ self._inside
            return {"GM": self._placed(name, mueller_gaertner(self._signal, others, share, LEAST_TISSUE))}
        if name == "mlts":
            maps: dict[Tissue | None, NDArray[np.float32]] = {}
            for tissue, values in zip(self._present, self._trimmed[0].values, strict=True):
                share = self._inside[self._of(tissue)].sum(axis=0, dtype=np.float64)
                if share.max() > LEAST_TISSUE:
                    maps[tissue] = self._placed(name, np.where(share > LEAST_TISSUE, values, np.nan))
            if not maps:
                raise InputError(name, "no voxel holds enough of a tissue", "Use labbe")
            return maps
        if name in ("rl", "vc"):
            return {None: self._checked(name, self._sharpened(name))}
        values = self._settled[0] if name == "iy" else self._values
        if name == "mtc":
            found = multi_target(self._signal, values, self._shares, self._inside, LEAST_TARGET)
        else:
            typical = float(np.median((values @ self._inside)[self._brain()]))
            found = yang_map(self._signal, values, self._shares, self._inside, LEAST_SIGNAL * typical)
        return {None: self._checked(name, found)}

    def _sharpened(self, name: Literal["rl", "vc"]) -> Array:
        """Deconvolution by the transfer function of grey matter, in the fitted voxels."""
        x, y, z = self.image.shape
        blur = common_blur((x, y, z), self.spacing_mm, self.psf, self.relaxations["GM"])
        if name == "vc":
            return van_cittert(self.image, blur)[self.mask]
        point = np.zeros((x, y, z))
        point[x // 2, y // 2, z // 2] = 1.0
        spread = blur(point)
        if (lobe := float(-spread.min() / spread.max())) > LARGEST_LOBE:
            problem = f"the point spread function has lobes of -{100 * lobe:.0f} %, with which it does not converge"
            raise InputError(name, problem, "Use --recon-filter hamming, or labbe")
        return richardson_lucy(self.image, blur)[self.mask]

    def _placed(self, name: str, values: Array) -> NDArray[np.float32]:
        """Values of the fitted voxels as an image."""
        if not np.isfinite(values).any():
            raise InputError(name, "no voxel holds enough of its tissue", "Use labbe")
        out = np.full(self.mask.shape, np.nan, np.float32)
        out[self.mask] = values
        return out

    def _checked(self, name: str, values: Array) -> NDArray[np.float32]:
        """The same for a map that must have a value all over the brain."""
        missing = int(np.sum(~np.isfinite(values) & self._brain()))
        if missing:
            raise InputError(name, f"the model predicts no signal in {missing} voxels of the brain", "Use labbe")
        return self._placed(name, values)

    @cached_property
    def _operator(self) -> Array:
        """From the sums of image times blurred compartment to the fitted signal of every compartment, (n, n)."""
        return np.asarray(self.designs[0].membership @ np.nan_to_num(self.fit.operator))

    def _members(self, chosen: NDArray[np.bool_]) -> scipy.sparse.csr_matrix:
        """Which compartments make up each region, (r, n), without the regions that are not chosen."""
        out = np.zeros((len(self.regions), len(self.compartments.names)))
        for row in np.flatnonzero(chosen):
            out[row, list(self.regions[row].members)] = 1.0
        return scipy.sparse.csr_matrix(out)

    def _made_of(self, compartments: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.array([bool(compartments[list(region.members)].all()) for region in self.regions])

    @cached_property
    def _free(self) -> NDArray[np.bool_]:
        """Compartments whose mean over voxels has a meaning: regions that are in the fitted voxels."""
        return self._region_kind & (np.asarray(self._shares.sum(axis=1)).reshape(-1) > 0.0)

    @cached_property
    def _settled(self) -> tuple[Array, scipy.sparse.csr_matrix]:
        """Signals by iterative Yang correction with its weighted regions; surroundings keep those of the fit.

        A patch of air or a thin shell has no mean to divide by, and the model is coarse there on purpose.
        """
        fixed = np.where(self._free, np.nan, self._values)
        try:
            return settled_yang(self._signal, self._shares, self._inside, fixed=fixed)
        except ValueError as error:
            raise InputError("iy", str(error), "Use labbe") from error

    def _yang_rows(self) -> NDArray[np.float32]:
        """Weights of the voxels in each region's value, in every design."""
        instruments = self._settled[1]
        matrix = np.asarray(instruments @ self._inside[self._free].T, np.float64)
        rows = []
        for design in self.designs:
            merge = design.membership[self._free]
            alive = np.flatnonzero(merge.any(axis=0))
            inverse = np.zeros((merge.shape[1], merge.shape[1]))
            inverse[np.ix_(alive, alive)] = np.linalg.inv(merge[:, alive].T @ matrix @ merge[:, alive])
            rows.append((inverse[list(design.columns)] @ merge.T) @ instruments)
        return np.concatenate(rows, dtype=np.float32)

    @property
    def _present(self) -> list[Tissue]:
        found = [tissue for tissue in _TISSUES if (self._of(tissue) & self._free).any()]
        if not found:
            raise InputError("mlts", "no region holds a tissue", "Use labbe")
        return found

    @cached_property
    def _trimmed(self) -> tuple[TrimmedRegression, NDArray[np.bool_], NDArray[np.bool_]]:
        """The regression, the compartments that are taken off the image first, and the regions with a row."""
        members = np.stack([self._of(tissue) for tissue in self._present])
        left = np.asarray(~members.any(axis=0))
        tissues = np.stack([self._inside[chosen].sum(axis=0, dtype=np.float64) for chosen in members])
        volumes = self.compartments.volumes_mm3
        means = np.array([np.average(self._values[chosen], weights=volumes[chosen]) for chosen in members])
        of_tissue = np.full(len(self.regions), -1)
        for number, chosen in enumerate(members):
            of_tissue[self._made_of(chosen)] = number
        shares = self._members(of_tissue >= 0) @ self._shares
        shares = shares.multiply(tissues[of_tissue] > LEAST_TISSUE).tocsr()
        weights = _scaled(shares, np.asarray(shares.sum(axis=1)).reshape(-1))
        rest = self._signal - np.where(left, self._values, 0.0) @ self._inside
        found = trimmed_regression(rest, tissues, self.mask, means, weights, of_tissue)
        return found, left, of_tissue >= 0


def _scaled(rows: scipy.sparse.csr_matrix, totals: Array) -> scipy.sparse.csr_matrix:
    """Sparse rows divided by their totals; rows without any are left empty."""
    return scipy.sparse.diags(1.0 / np.where(totals > 0.0, totals, np.inf)) @ rows
