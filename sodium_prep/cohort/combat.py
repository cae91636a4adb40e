"""ComBat: values of several sites on one scale, with named columns and a model that can be stored and used again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sodium_prep.cohort.values import STRATUM
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_WHERE: Final = "ComBat"
_CONVERGED: Final = 1e-4  # relative change at which neuroCombat stops
_CONSTANT: Final = 1e-10  # of the largest value: rounding
_FIT: Final = (*STRATUM, "estimator", "reference")


class ComBatFeature(BaseModel):
    """What ComBat knows of one column.

    Attributes
    ----------
    mean, sd
        Mean over all scans where every covariate is zero or its first level, and pooled residual standard deviation.
    slopes
        Covariate to level to effect; a number has the one level ``""``.
    shift, scale
        By site: additive effect in units of ``sd``, and factor of the standard deviation. A site without them is not
        harmonised in this column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: _Finite = 0.0
    sd: _Positive = 1.0
    slopes: dict[str, dict[str, _Finite]] = {}
    shift: dict[str, _Finite] = {}
    scale: dict[str, _Positive] = {}


class ComBatModel(BaseModel):
    """A fitted ComBat model. Everything goes by name, so the order of rows and columns cannot matter.

    Attributes
    ----------
    features
        By column of the values.
    sites
        Sites that were fitted, with their numbers of scans.
    small_sites
        Sites with too few scans, which stay as they are.
    covariates
        Covariates whose effect is kept, with their levels; numbers have none.
    notes
        What was left out of the fit, and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    features: dict[str, ComBatFeature]
    sites: dict[str, int]
    small_sites: dict[str, int] = {}
    covariates: dict[str, tuple[str, ...]] = {}
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The model as JSON text."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object = _WHERE) -> ComBatModel:
        """Read what :meth:`to_json` wrote; ``where`` is the file to name if it cannot be used."""
        try:
            model = cls.model_validate_json(text)
            wanted = {c: {*_columns(v)} for c, v in model.covariates.items()}
            for name, fit in model.features.items():
                own = {c: {*slopes} for c, slopes in fit.slopes.items()}
                if fit.shift.keys() != fit.scale.keys() or not fit.shift.keys() <= model.sites.keys():
                    raise ValueError(f"the sites of {name} do not agree")
                if fit.shift and own != wanted:
                    raise ValueError(f"the covariates of {name} do not agree")
        except ValueError as error:
            told = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
            raise InputError(where, f"is not a ComBat model ({told})", "Fit the model again") from None
        return model

    def apply(
        self,
        values: pd.DataFrame,
        site: pd.Series[Any],
        covariates: pd.DataFrame,
        *,
        unseen: Literal["refuse", "keep"] = "refuse",
    ) -> pd.DataFrame:
        """Harmonise scans, those of the fit or new ones of its sites.

        Parameters
        ----------
        values
            Scans by features, the features of the model in any order. Missing cells stay missing.
        site
            Site of each scan, with the index of ``values``.
        covariates
            The covariates of the model in any order, with the same index; further columns are not looked at.
        unseen
            Whether scans of a site that the model does not know are refused, or kept as they are.

        Returns
        -------
        As ``values``. Scans of sites too small to fit are as they came. Scans without a site or a covariate are
        missing, because where they belong is not known. ``attrs["notes"]`` says in words which these are.

        Raises
        ------
        InputError
            For an unseen site, an unknown level, a column too few or too many, or an infinite value.
        """
        import pandas as pd

        x, places = _checked(values, site, covariates)
        if odd := set(values.columns) ^ self.features.keys():
            problem = f"the values and the model do not have the same features ({_listed(odd)})"
            raise InputError(_WHERE, problem, "Give the features that the model was fitted to")
        small = np.array([p in self.small_sites for p in places], dtype=bool)
        strange = np.array([p != "" and p not in self.sites for p in places], dtype=bool) & ~small
        notes = []
        if strange.any():
            names, known = _listed({places[i] for i in np.flatnonzero(strange)}), _listed(self.sites)
            if unseen == "refuse":
                mend = "Fit the model again with scans of that site, or leave them out"
                raise InputError(_WHERE, f"the model does not know the site {names}; it knows {known}", mend)
            notes.append(f"{strange.sum()} scans of unknown sites ({names}) are as they came.")
        if small.any():
            notes.append(f"{small.sum()} scans of sites too small to fit are as they came.")
        rest = ~strange & ~small
        design, there = _encode(covariates[rest], self.covariates)
        lost = rest.copy()
        lost[rest] = ~there | (places[rest] == "")
        out = x.copy()
        for j, name in enumerate(values.columns):
            feature = self.features[name]
            if not feature.shift:
                continue
            slopes = [feature.slopes[c][level] for c, v in self.covariates.items() for level in _columns(v)]
            centre = np.full(len(x), feature.mean)
            centre[rest] += design @ np.array(slopes)
            for place, shift in feature.shift.items():
                here = rest & (places == place)
                z = (x[here, j] - centre[here]) / feature.sd - shift
                out[here, j] = centre[here] + feature.sd * z / np.sqrt(feature.scale[place])
            out[lost, j] = np.nan
        if lost.any() and any(feature.shift for feature in self.features.values()):
            notes.append(f"{lost.sum()} scans without a site or a covariate are left out.")
        frame = pd.DataFrame(out, values.index, values.columns)
        frame.attrs["notes"] = tuple(notes)
        return frame


def fit_combat(
    values: pd.DataFrame,
    site: pd.Series[Any],
    covariates: pd.DataFrame,
    *,
    keep: Sequence[str] | None = None,
    numbers: Sequence[str] = ("age",),
    smallest_site: int = 3,
) -> ComBatModel:
    """Fit location and scale of every site with empirical Bayes priors (Johnson et al., Biostatistics 2007;8:118).

    As Fortin et al. (NeuroImage 2018;167:104) use it, with the steps of neuroCombat 0.2.12.

    Parameters
    ----------
    values
        Scans by features. A missing cell is left out of its feature's fit.
    site
        Site of each scan, with the index of ``values``; empty text where it is not known.
    covariates
        Columns whose effect on the values is kept, with the same index; empty text or nan where missing.
    keep
        The columns of ``covariates`` to use; all by default.
    numbers
        Columns that are numbers even if they hold text; what cannot be read as one is missing. Columns of a numeric
        type are numbers in any case, all others are categories.
    smallest_site
        Fewest scans of a site that is fitted.

    Raises
    ------
    InputError
        If a covariate cannot be told from the sites, a value is infinite, or a column is missing.
    """
    x, places = _checked(values, site, covariates)
    names = list(covariates.columns) if keep is None else list(keep)
    if absent := [name for name in names if name not in covariates]:
        raise InputError(_WHERE, f"there is no covariate {_listed(absent)}", f"There are {_listed(covariates.columns)}")
    number = {n for n in names if n in numbers or covariates[n].dtype.kind in "fiu"}
    notes: list[str] = []
    any_level = {n: () if n in number else tuple(sorted({*_cells(covariates[n])} - {""})) for n in names}
    _, there = _encode(covariates, any_level)
    used = there & (places != "")
    if not used.all():
        notes.append(f"{(~used).sum()} scans without a site or a covariate are left out.")
    counts = Counter(places[used])
    small = {name: n for name, n in sorted(counts.items()) if n < smallest_site}
    for name, n in small.items():
        notes.append(f"The site {name} has fewer than {smallest_site} scans ({n}): its values stay as they are.")
    sites = {name: n for name, n in sorted(counts.items()) if n >= smallest_site}
    used &= np.array([p in sites for p in places], dtype=bool)
    levels: dict[str, tuple[str, ...]] = {}
    fits: dict[int, _Fit] = {}
    if len(sites) < 2:
        notes.append("There are not two sites to fit: the values stay as they are.")
    else:
        levels = _varying(covariates[used], any_level, notes)
        design, _ = _encode(covariates[used], levels)
        hot = np.array([[float(place == name) for name in sites] for place in places[used]])
        _refuse_confounding(hot, covariates[used], places[used], levels)
        fits = _location_scale(x[used], hot, design, smallest_site)
        _shrink(fits.values(), len(sites))
        notes += [
            f"{name} is constant or has too few values: it stays as it is."
            for j, name in enumerate(values.columns)
            if j not in fits
        ]
    features = {}
    for j, name in enumerate(values.columns):
        fit = fits.get(j)
        if fit is None:
            features[name] = ComBatFeature()
            continue
        own = {place: i for i, place in enumerate(sites) if np.isfinite(fit.shift[i])}
        if few := [place for place in sites if place not in own]:
            notes.append(f"{name} has too few values at {_listed(few)}: those stay as they are.")
        slopes = iter(fit.slopes.tolist())
        features[name] = ComBatFeature(
            mean=fit.mean,
            sd=fit.sd,
            slopes={c: {level: next(slopes) for level in _columns(v)} for c, v in levels.items()},
            shift={place: float(fit.shift[i]) for place, i in own.items()},
            scale={place: float(fit.scale[i]) for place, i in own.items()},
        )
    if len(fits) == 1:
        notes.append("There is one feature to fit: location and scale without empirical Bayes.")
    return ComBatModel(features=features, sites=sites, small_sites=small, covariates=levels, notes=tuple(notes))


@dataclass
class _Fit:
    """One feature: mean, pooled SD and slopes, and by site (nan if absent) the number of values, shift and variance."""

    mean: float
    sd: float
    slopes: Array
    n: Array
    shift: Array
    scale: Array


def _location_scale(x: Array, hot: Array, design: Array, smallest: int) -> dict[int, _Fit]:
    """Standardise each feature, and find mean and variance of each site; features that do not vary are left out."""
    out = {}
    for j in range(x.shape[1]):
        there = np.isfinite(x[:, j])
        own = hot[there].sum(axis=0) >= smallest
        there &= hot[:, own].any(axis=1)
        n = hot[there][:, own].sum(axis=0)
        full = np.hstack([hot[there][:, own], design[there]])
        if own.sum() < 2 or not _full_rank(full):
            continue
        y = x[there, j]
        beta = np.linalg.lstsq(full, y, rcond=None)[0]
        slopes = beta[own.sum() :]
        mean, sd = float(n @ beta[: own.sum()] / n.sum()), float(np.sqrt(np.mean((y - full @ beta) ** 2)))
        if sd <= _CONSTANT * np.abs(y).max():
            continue
        z = (y - mean - design[there] @ slopes) / sd
        found = [z[hot[there, i] > 0] for i in np.flatnonzero(own)]
        fit = _Fit(mean, sd, slopes, *(np.full(own.size, np.nan) for _ in range(3)))
        fit.n[own], fit.shift[own], fit.scale[own] = n, [f.mean() for f in found], [f.var(ddof=1) for f in found]
        out[j] = fit
    return out


def _shrink(fits: Collection[_Fit], sites: int) -> None:
    """Draw the shifts and variances of each site towards their means over the features, in place."""
    for i in range(sites):
        own = [fit for fit in fits if np.isfinite(fit.shift[i])]
        if own:
            shift, scale = _posterior(
                *(np.array([getattr(f, name)[i] for f in own]) for name in ("n", "shift", "scale"))
            )
            for j, fit in enumerate(own):
                fit.shift[i], fit.scale[i] = shift[j], scale[j]


def _posterior(n: Array, first: Array, variance: Array) -> tuple[Array, Array]:
    """Shift and variance of one site in each feature, given all of them (Johnson et al., section 3.2).

    Normal and inverse gamma priors by the method of moments, and their conditional means in turn until none changes,
    which neuroCombat tells by the signed relative change. One feature has no prior.
    """
    g, d = first, np.where(variance == 0.0, 1.0, variance)
    if g.size < 2:
        return g, d
    centre, spread, change = g.mean(), g.var(ddof=1), 1.0
    m, s2 = d.mean(), max(d.var(ddof=1), 1e-20 * d.mean() ** 2)
    a, b = (2.0 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    while change > _CONVERGED:
        new_g = (spread * n * first + d * centre) / (spread * n + d)
        new_d = (0.5 * ((n - 1.0) * variance + n * (first - new_g) ** 2) + b) / (n / 2.0 + a - 1.0)
        by = np.where(g == 0.0, np.finfo(float).tiny, g)
        change = max((np.abs(new_g - g) / by).max(), (np.abs(new_d - d) / d).max())
        g, d = new_g, new_d
    return g, d


def _checked(values: pd.DataFrame, site: pd.Series[Any], covariates: pd.DataFrame) -> tuple[Array, NDArray[Any]]:
    """The values as numbers, and the sites as text."""
    if not (values.index.equals(site.index) and values.index.equals(covariates.index)):
        raise InputError(_WHERE, "values, site and covariates are of different scans", "Give them the same index")
    if not values.columns.is_unique:
        raise InputError(_WHERE, "a feature is there more than once", "Give each feature a name of its own")
    x = values.to_numpy(dtype=float)
    if (bad := np.isinf(x)).any():
        row, column = np.argwhere(bad)[0]
        problem = f"{values.columns[column]} of {values.index[row]} is infinite"
        raise InputError(_WHERE, problem, "Mend that value, or leave it empty")
    return x, np.array(_cells(site), dtype=object)


def _cells(column: pd.Series[Any]) -> list[str]:
    return ["" if cell is None or cell != cell else str(cell) for cell in column]


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, names)))


def _columns(levels: tuple[str, ...]) -> tuple[str, ...]:
    """Levels that have a column of the design: all but the first, or the one of a number."""
    return levels[1:] or ("",)


def _encode(frame: pd.DataFrame, levels: Mapping[str, tuple[str, ...]]) -> tuple[Array, NDArray[np.bool_]]:
    """Columns of the linear model, (n, k), without intercept, and the rows that have every covariate, (n,)."""
    import pandas as pd

    there, blocks = np.ones(len(frame), dtype=bool), []
    for name, known in levels.items():
        if name not in frame:
            raise InputError(_WHERE, f"there is no covariate {name}", f"There are {_listed(frame.columns)}")
        if not known:
            number = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)
            there &= np.isfinite(number)
            blocks.append(np.nan_to_num(number, posinf=0.0, neginf=0.0)[:, None])
            continue
        cells = _cells(frame[name])
        if strange := set(cells) - {"", *known}:
            problem = f"the covariate {name} has the level {_listed(strange)} that the model does not know"
            raise InputError(_WHERE, problem, f"It knows {_listed(known)}")
        there &= np.array([cell != "" for cell in cells], dtype=bool)
        blocks += [np.array([[float(cell == level)] for cell in cells]).reshape(-1, 1) for level in known[1:]]
    return np.hstack([np.zeros((len(frame), 0)), *blocks]), there


def _varying(
    frame: pd.DataFrame, levels: Mapping[str, tuple[str, ...]], notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """Covariates that differ among the scans of the fit, with the levels that are there."""
    out = {}
    for name, known in levels.items():
        here = tuple(sorted({*_cells(frame[name])})) if known else ()
        if len(here) > 1 or (not known and np.ptp(_encode(frame, {name: ()})[0]) > 0):
            out[name] = here
        else:
            notes.append(f"{name} is the same in all scans of the fit and is not used.")
    return out


def _full_rank(design: Array) -> bool:
    largest = np.abs(design).max(axis=0)
    return bool(len(design) > design.shape[1] and largest.all()) and (
        np.linalg.matrix_rank(design / largest) == design.shape[1]
    )


def _refuse_confounding(
    hot: Array, frame: pd.DataFrame, places: NDArray[Any], levels: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuse covariates that cannot be told from the sites or from one another, with the first one's table."""
    earlier: list[str] = []
    for name in levels:
        with_it = {c: levels[c] for c in (*earlier, name)}
        if not _full_rank(np.hstack([hot, _encode(frame, with_it)[0]])):
            counts = Counter(zip(_cells(frame[name]), places, strict=True))
            shown = [f"{cell} at {place}: {n}" for (cell, place), n in sorted(counts.items())]
            table = "; ".join(shown[:12]) + ("; ..." if len(shown) > 12 else "")
            apart = "the site" + "".join(f" and {c}" for c in earlier)
            problem = f"{name} cannot be told from {apart} ({table})"
            raise InputError(_WHERE, problem, f"Leave {name} out, or add scans that tell them apart")
        earlier.append(name)


def harmonise(
    values: pd.DataFrame,
    *,
    keep: Sequence[str] = ("group", "age", "sex"),
    numbers: Sequence[str] = ("age",),
    smallest_site: int = 3,
) -> tuple[pd.DataFrame, dict[tuple[str, ...], ComBatModel]]:
    """Harmonise the concentrations of a long table; the regions of one stratum, estimator and reference together.

    Parameters
    ----------
    values
        One row per scan and region, with the columns of the table's key, ``site`` and ``tsc``.
    keep, numbers, smallest_site
        As in :func:`fit_combat`; columns that are not there or empty are not kept.

    Returns
    -------
    A copy with ``tsc`` harmonised, and the model of each stratum, estimator and reference.
    """
    import pandas as pd

    if "site" not in values:
        raise InputError(_WHERE, "there is no column site", "Add it to participants.tsv or sessions.tsv")
    out, models = values.copy(), {}
    for key, part in values.groupby(list(_FIT), sort=False):
        names = part["region"] + "_" + part["hemisphere"] + ("_" + part["index"]).where(part["index"] != "", "")
        wide = part.assign(feature=names).pivot(index="participant_id", columns="feature", values="tsc")
        people = part.drop_duplicates("participant_id").set_index("participant_id").loc[wide.index]
        kept = people[[name for name in keep if name in people and (people[name] != "").any()]]
        model = fit_combat(wide, people["site"], kept, numbers=numbers, smallest_site=smallest_site)
        done = model.apply(wide, people["site"], kept)
        rows = wide.index.get_indexer(pd.Index(part["participant_id"]))
        columns = wide.columns.get_indexer(pd.Index(names))
        out.loc[part.index, "tsc"] = done.to_numpy()[rows, columns]
        models[tuple(map(str, key))] = model
    return out, models
