"""Groups compared voxel by voxel: permutation with TFCE or cluster mass, family-wise error, clusters and their regions.

The model of a voxel is ``y = Z b + g c + x d + e``: x tells the second group from the first, Z holds the intercept and
the participants' covariates, and g, where it is asked for, the share of a tissue in this voxel. The permutations are
Freedman and Lane's: residuals of the model without x are permuted and all of it is fitted again (Winkler et al.,
NeuroImage 2014;92:381). Without g that is nilearn's ``permuted_ols``; nilearn has no covariate that differs between
voxels, so with g it is done here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from sodium_prep.atlas.bundled import Atlas

Array = NDArray[np.float64]
Statistic = Literal["tfce", "mass"]

LEAST_PER_GROUP: Final = 5
"""Participants of a group; below, 5 % family-wise error can hardly be reached: 4 and 4 permute in 70 ways."""
_LEAST_DOF: Final = 3
_STEPS: Final = 100
_EXTENT, _HEIGHT = 0.5, 2.0
_LEAST_OWN: Final = 1e-6
_CHUNK: Final = 50
_SLAB: Final = 4096

CLUSTER_COLUMNS: Final[dict[str, str]] = {
    "cluster": "Number of the cluster, by p and size",
    "higher_in": "Group with the higher concentration",
    "peak_x": "Peak of the test statistic: to the right, mm",
    "peak_y": "Peak: to the front, mm",
    "peak_z": "Peak: upwards, mm",
    "size_mm3": "Volume of the cluster, mm^3",
    "peak_t": "t at the peak",
    "peak_effect": "Second group minus first at equal covariates, at the peak, mmol/L",
    "mean_effect": "The same, mean over the cluster, mmol/L",
    "p_fwe": "Smallest p in the cluster, corrected for all voxels",
    "peak_label": "Region of the atlas at the peak",
    "labels": "Regions that the cluster covers, with their shares of its volume",
}


@dataclass(frozen=True)
class Coverage:
    """Who and what is analysed.

    Attributes
    ----------
    participants : (n,) bool
        Those whose maps reach far enough.
    voxels : (V,) bool
        Those in which every one of these has a value.
    lost
        Voxels that the share asked for of every group has, but not everybody who is analysed.
    """

    participants: NDArray[np.bool_]
    voxels: NDArray[np.bool_]
    lost: int


def cover(values: NDArray[np.floating], groups: NDArray[Any], least: float = 0.9) -> Coverage:
    """Participants and voxels that can be analysed; nothing that is missing is ever filled.

    A participant who lacks more than ``1 - least`` of the voxels that half of all participants have is left out, so
    that one image that was placed badly does not cost all others a part of the brain. A voxel that one of those who
    are left lacks is dropped.

    Parameters
    ----------
    values : (n, V)
        nan where there is no value.
    groups : (n,)
        Label of each participant's group.
    """
    finite = np.isfinite(values)
    usual = finite.mean(axis=0) >= 0.5
    kept = finite[:, usual].mean(axis=1) >= least if usual.any() else np.zeros(len(values), dtype=bool)
    if not kept.any():
        return Coverage(kept, np.zeros(usual.shape, dtype=bool), 0)
    groups, finite = groups[kept], finite[kept]
    enough = np.all([finite[groups == one].mean(axis=0) >= least for one in np.unique(groups)], axis=0)
    whole = finite.all(axis=0)
    who: dict[str, Any] = {"axis": 0, "where": kept[:, None]}
    varies = values.max(initial=-np.inf, **who) > values.min(initial=np.inf, **who)
    return Coverage(kept, whole & varies, int((enough & ~whole).sum()))


def tfce(t: Array) -> Array:
    """Threshold-free cluster enhancement of a map (X, Y, Z), with its sign.

    The integral over the height h of ``extent(h)^0.5 h^2 dh`` in 100 steps up to the largest absolute t, where voxels
    neighbour by faces (Smith and Nichols, NeuroImage 2009;44:83, equation 1).
    """
    from scipy import ndimage

    out = np.zeros(t.shape)
    top = float(np.abs(t).max())
    heights = np.linspace(0.0, top, _STEPS + 1)[1:] if top > 0.0 else np.array([])
    for sign in (1.0, -1.0):
        signed = sign * t
        before = 0
        for height in heights[heights <= signed.max()]:
            where = signed >= height
            if (count := int(np.count_nonzero(where))) != before:
                own = ndimage.label(where)[0][where]
                weight, before = (np.bincount(own) ** _EXTENT)[own], count
            out[where] += sign * height**_HEIGHT * weight
    return np.asarray(out * top / _STEPS)


def cluster_mass(t: Array, threshold: float) -> Array:
    """Mass of the cluster that each voxel of a map (X, Y, Z) lies in, with its sign: the sum of ``|t| - threshold``.

    Neighbours are those that share a face (Bullmore et al., IEEE Trans Med Imaging 1999;18:32).
    """
    from scipy import ndimage

    out = np.zeros(t.shape)
    for sign in (1.0, -1.0):
        signed = sign * t
        labels, _ = ndimage.label(signed > threshold)
        where = labels > 0
        out[where] = sign * np.bincount(labels[where], weights=signed[where] - threshold)[labels[where]]
    return out


@dataclass(frozen=True)
class GroupTest:
    """Two groups compared in the voxels of a mask.

    Attributes
    ----------
    effect : (V,)
        Second group minus first at equal covariates, in the unit of the values; nan where the tissue alone tells the
        groups apart.
    t, enhanced, p : (V,)
        t statistic, its TFCE or mass of its cluster, and the p value of that corrected for all voxels, two-sided.
    null : (permutations,)
        Largest ``|enhanced|`` of every permutation.
    dof
        Degrees of freedom of t.
    """

    effect: Array
    t: Array
    enhanced: Array
    p: Array
    null: Array
    dof: int


def compare_voxels(
    values: NDArray[np.floating],
    second: NDArray[np.bool_],
    covariates: Array,
    mask: NDArray[np.bool_],
    *,
    tissue: NDArray[np.floating] | None = None,
    statistic: Statistic = "tfce",
    permutations: int = 1000,
    seed: int = 42,
    n_jobs: int = 1,
    cluster_p: float = 0.001,
) -> GroupTest:
    """Test whether two groups differ, in every voxel of a mask, with the family-wise error of all voxels together.

    The result is the same for any number of jobs.

    Parameters
    ----------
    values : (n, V)
        Finite, not the same in all participants; voxels in the order of ``mask``.
    second : (n,)
        Who is of the second group.
    covariates : (n, k)
        Columns held constant, without the intercept.
    mask : (X, Y, Z)
        V voxels, whose neighbourhood makes the clusters.
    tissue : (n, V)
        Share of a tissue, held constant in each voxel.
    cluster_p
        Uncorrected two-sided p that forms the clusters of ``mass``.

    Raises
    ------
    InputError
        If a group is too small, or the covariates tell the groups apart.
    """
    from joblib import Parallel, delayed
    from scipy import ndimage, stats

    box = ndimage.find_objects(mask.astype(np.int8))[0]
    inside = mask[box]
    fixed = np.column_stack([np.ones(len(second)), covariates])
    basis = _basis(fixed, second)
    dof = len(second) - basis.shape[1] - (tissue is not None) - 1
    if dof < _LEAST_DOF:
        problem = f"{len(second)} participants leave {dof} degrees of freedom"
        raise InputError("voxel-wise comparison", problem, "Take fewer covariates or more participants")
    threshold = float(stats.t.isf(cluster_p / 2, dof))

    def enhance(t: Array) -> Array:
        image = np.zeros(inside.shape)
        image[inside] = t
        return np.asarray((tfce(image) if statistic == "tfce" else cluster_mass(image, threshold))[inside])

    x = second.astype(np.float64)
    effect, t = np.empty(inside.sum()), np.empty(inside.sum())
    for part in _slabs(effect.size):
        one = _Slab(values[:, part], x, basis, None if tissue is None else tissue[:, part], dof)
        effect[part], t[part] = one.fit()
    enhanced = enhance(t)
    states = np.random.SeedSequence(seed).generate_state(-(-permutations // _CHUNK))
    counts = [min(_CHUNK, permutations - first) for first in range(0, permutations, _CHUNK)]
    given: tuple[Any, ...]
    draws = [(int(state), count) for state, count in zip(states, counts, strict=True)]
    if tissue is None:
        job, given = delayed(_null_of_nilearn), (values, x, covariates, inside, statistic, cluster_p)
    else:
        job, given = delayed(_null_with_tissue), (values, x, basis, tissue, dof, enhance)
    null = np.concatenate(Parallel(n_jobs=n_jobs)(job(*draw, *given) for draw in draws))
    # Equal permutations give equal statistics but for rounding.
    beyond = null.size - np.searchsorted(np.sort(null), np.abs(enhanced) * (1.0 - 1e-9))
    return GroupTest(effect, t, enhanced, (1.0 + beyond) / (1.0 + null.size), null, dof)


def _basis(fixed: Array, second: NDArray[np.bool_]) -> Array:
    """Orthonormal basis of the columns held constant, with which the groups must be able to differ."""
    sizes = int((~second).sum()), int(second.sum())
    if min(sizes) < LEAST_PER_GROUP:
        problem = f"the groups have {sizes[0]} and {sizes[1]} participants, fewer than {LEAST_PER_GROUP} in one"
        raise InputError("voxel-wise comparison", problem, "Add participants, or compare regions instead")
    u, s, _ = np.linalg.svd(fixed / np.abs(fixed).max(axis=0).clip(1e-300), full_matrices=False)
    basis = u[:, s > 1e-9 * s[0]]
    left = second - basis @ (basis.T @ second)
    if left @ left < 1e-9 * len(second):
        raise InputError(
            "voxel-wise comparison",
            "the covariates tell the groups apart, so that no effect of the group can be estimated",
            "Leave out the covariate or the site that holds one group only",
        )
    return np.asarray(basis)


def _slabs(n: int) -> Iterator[slice]:
    return (slice(first, first + _SLAB) for first in range(0, n, _SLAB))


class _Slab:
    """Some voxels, by Frisch and Waugh: everything cleared of what is held constant, in every voxel of its tissue."""

    def __init__(
        self, values: NDArray[np.floating], x: Array, basis: Array, tissue: NDArray[np.floating] | None, dof: int
    ) -> None:
        self.basis, self.dof = basis, dof
        x_left = self._cleared(x)
        e = self._cleared(values.astype(np.float64))
        self.u = np.zeros_like(e)
        if tissue is not None:
            g = self._cleared(tissue.astype(np.float64))
            length = np.sqrt((g**2).sum(axis=0))
            # Where the tissue is the same in all there is nothing to hold constant.
            self.u = g / np.where(length > _LEAST_OWN, length, np.inf)
        self.e = e - self.u * (self.u * e).sum(axis=0)
        self.r = x_left[:, None] - self.u * (x_left @ self.u)
        self.rr = (self.r**2).sum(axis=0)
        self.total = (self.e**2).sum(axis=0)
        self.good = (self.rr > _LEAST_OWN * (x_left @ x_left)) & (self.total > 0.0)

    def _cleared(self, y: Array) -> Array:
        return np.asarray(y - self.basis @ (self.basis.T @ y))

    def fit(self, order: NDArray[np.intp] | None = None) -> tuple[Array, Array]:
        """Effect and t, of the residuals in another order if one is given; nan and 0 where they cannot be told."""
        e = self.e if order is None else self.e[order]
        rr = np.where(self.good, self.rr, 1.0)
        effect = (self.r * e).sum(axis=0) / rr
        held = ((self.basis.T @ e) ** 2).sum(axis=0) + (self.u * e).sum(axis=0) ** 2
        rss = np.maximum(self.total - held - effect**2 * rr, 1e-12 * self.total)
        t = effect * np.sqrt(rr * self.dof / np.where(self.good, rss, 1.0))
        return np.where(self.good, effect, np.nan), np.where(self.good, t, 0.0)


def _orders(seed: int, n: int, count: int) -> Iterator[NDArray[np.intp]]:
    """Orders of the residuals; those that nilearn draws from the same seed."""
    first = np.random.RandomState(seed)
    draws = np.random.RandomState(first.randint(1, np.iinfo(np.int32).max - 1))
    order = np.arange(n)
    for _ in range(count):
        order = order[draws.permutation(n)]  # nilearn goes on from the last and moves the design, not the residuals
        yield np.argsort(order)


def _null_with_tissue(
    seed: int,
    count: int,
    values: NDArray[np.floating],
    x: Array,
    basis: Array,
    tissue: NDArray[np.floating],
    dof: int,
    enhance: Callable[[Array], Array],
) -> Array:
    orders = list(_orders(seed, len(x), count))
    t = np.empty((count, values.shape[1]))
    for part in _slabs(values.shape[1]):
        slab = _Slab(values[:, part], x, basis, tissue[:, part], dof)
        for number, order in enumerate(orders):
            t[number, part] = slab.fit(order)[1]
    return np.array([np.abs(enhance(one)).max() for one in t])


def _null_of_nilearn(
    seed: int,
    count: int,
    values: NDArray[np.floating],
    x: Array,
    covariates: Array,
    inside: NDArray[np.bool_],
    statistic: Statistic,
    cluster_p: float,
) -> Array:
    import nibabel as nib
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols

    image_class: Any = nib.Nifti1Image
    masker = NiftiMasker(image_class(inside.astype(np.uint8), np.eye(4)), standardize=None).fit()
    # An intercept among the confounds would make nilearn flip signs instead of permuting; its own does not.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Data array used to create a new image", UserWarning)  # of its cluster sizes
        warnings.filterwarnings("ignore", "The specified number of permutations is 1 ", UserWarning)
        found = permuted_ols(
            x[:, None], values, covariates if covariates.shape[1] else None, model_intercept=True, n_perm=count,
            random_state=seed, n_jobs=1, masker=masker, tfce=statistic == "tfce",
            threshold=cluster_p if statistic == "mass" else None, output_type="dict",
        )  # fmt: skip
    if statistic == "mass":
        return np.asarray(found["h0_max_mass"][0])
    # nilearn, as fslmaths, leaves out the step of the heights, a hundredth of each map's largest t: without it, maps
    # of different largest t cannot be compared.
    return np.asarray(found["h0_max_tfce"][0] * found["h0_max_t"][0] / _STEPS)


def cluster_table(
    test: GroupTest,
    mask: NDArray[np.bool_],
    affine: Array,
    groups: tuple[str, str],
    *,
    atlas: Atlas | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Connected voxels of one sign with a corrected p below ``alpha``, as rows of :data:`CLUSTER_COLUMNS`.

    Parameters
    ----------
    mask, affine
        (X, Y, Z) and voxel to RAS mm of what was tested.
    groups
        First and second group.
    atlas
        In the space of the maps; without it there are no names.
    """
    import pandas as pd
    from scipy import ndimage

    p, enhanced, t, effect = (place(one, mask) for one in (test.p, test.enhanced, test.t, test.effect))
    volume = abs(float(np.linalg.det(affine[:3, :3])))
    rows = []
    for name, sign in zip(groups, (-1.0, 1.0), strict=True):
        labels, count = ndimage.label((np.nan_to_num(p, nan=1.0) < alpha) & (sign * np.nan_to_num(enhanced) > 0.0))
        for number in range(1, count + 1):
            voxels = np.argwhere(labels == number)
            at = tuple(voxels.T)
            # All voxels of a cluster have one mass; then the largest t is the peak.
            peak = tuple(voxels[np.lexsort((np.abs(t[at]), np.abs(enhanced[at])))[-1]])
            world = affine[:3, :3] @ peak + affine[:3, 3]
            names = _region_names(voxels, affine, atlas)
            rows.append({
                "cluster": 0, "higher_in": name, "peak_x": world[0], "peak_y": world[1], "peak_z": world[2],
                "size_mm3": len(voxels) * volume, "peak_t": t[peak], "peak_effect": effect[peak],
                "mean_effect": np.nanmean(effect[at]), "p_fwe": p[at].min(),
                "peak_label": _region_names(np.array([peak]), affine, atlas)[0] if atlas else "",
                "labels": _shares(names),
            })  # fmt: skip
    table = pd.DataFrame(rows, columns=list(CLUSTER_COLUMNS))
    table = table.sort_values(["p_fwe", "size_mm3"], ascending=[True, False], kind="stable", ignore_index=True)
    return table.assign(cluster=np.arange(1, len(table) + 1))


def place(values: NDArray[Any], mask: NDArray[np.bool_]) -> Array:
    """Values of the voxels of a mask as an image, nan outside."""
    out = np.full(mask.shape, np.nan)
    out[mask] = values
    return out


def _region_names(voxels: NDArray[np.intp], affine: Array, atlas: Atlas | None) -> list[str]:
    """Region of the atlas at the centre of each voxel (m, 3)."""
    if atlas is None:
        return []
    index = np.linalg.solve(atlas.affine, affine @ np.column_stack([voxels, np.ones(len(voxels))]).T)[:3]
    index = np.rint(index).astype(int)
    inside = np.all((index >= 0) & (index < np.array(atlas.labels.shape)[:, None]), axis=0)
    found = np.where(inside, atlas.labels[tuple(np.where(inside, index, 0))], 0)
    names = dict(zip(atlas.table["index"], atlas.table["name"], strict=True))
    return [names.get(int(label), "no region") for label in found]


def _shares(names: list[str]) -> str:
    """Names with their shares, the largest first, from 5 % on."""
    found, counts = np.unique(names, return_counts=True) if names else (np.array([]), np.array([]))
    share = counts / max(len(names), 1)
    order = np.argsort(-share, kind="stable")
    return "; ".join(f"{found[i]} {share[i]:.0%}" for i in order if share[i] >= 0.05)
