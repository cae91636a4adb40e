"""Factors between sites from volunteers, or a phantom, that were scanned at several of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.cohort.tsv import read_tsv
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

OVERALL: Final = "all"
SITE_COLUMNS: Final[dict[str, str]] = {
    "region": "Region, or all: the one factor for all of them",
    "hemisphere": "Side of the brain",
    "index": "Label of the region in the atlas",
    "site": "Site",
    "factor": "What the site measures over the mean of the sites, or over the reference site; values are divided by it",
    "factor_ci_low": "Low end of its 95 % interval",
    "factor_ci_high": "High end of its 95 % interval",
    "log_stderr": "Standard error of its natural logarithm",
    "n_subjects": "Volunteers, or tubes, of two sites or more",
    "n_scans": "Their scans",
    "dof": "Degrees of freedom of the standard error",
    "p_sites": "F test that all sites measure alike",
    "p_regions": "F test that one factor holds for all regions (Greenhouse and Geisser)",
    "applied": "Whether values are divided by this factor: that of the region where regions differ, otherwise the one",
}

_SCALE: Final = ("acquisition", "reconstruction", "atlas", "estimator", "reference")
_REGION: Final = ("region", "hemisphere", "index")


@dataclass(frozen=True)
class SiteEffects:
    """Least squares of logarithms on subjects and sites.

    Attributes
    ----------
    log_factor, stderr
        Of each site, (s,).
    dof
        Degrees of freedom of the residual.
    p
        F test that no site differs.
    """

    log_factor: Array
    stderr: Array
    dof: int
    p: float


def site_effects(logs: ArrayLike, subject: ArrayLike, site: ArrayLike, reference: int | None = None) -> SiteEffects:
    """Fit ``log(value) = subject + site + error``.

    Parameters
    ----------
    logs
        Natural logarithms, (n,).
    subject, site
        Number of the subject and of the site of each, (n,), from 0. The subjects must connect the sites.
    reference
        Site whose factor is 1; by default the geometric mean of all factors is.

    Returns
    -------
    Effects; standard errors and p are nan where no degree of freedom is left.
    """
    from scipy.stats import f

    y, people, places = np.asarray(logs, dtype=float), np.asarray(subject), np.asarray(site)
    count = int(places.max()) + 1
    hot, same = _hot(places), _hot(people)
    # What is left of sites and values when every subject's own mean is taken away.
    y, hot = (v - same @ ((same.T @ v).T / same.sum(axis=0)).T for v in (y, hot))
    inverse = np.linalg.pinv(hot.T @ hot, rcond=1e-10)  # its null space, all sites alike, is left at a mean of zero
    effect = inverse @ (hot.T @ y)
    shift = np.eye(count) if reference is None else np.eye(count) - np.eye(count)[reference]
    dof = y.size - same.shape[1] - (count - 1)
    explained, left = float(np.sum((hot @ effect) ** 2)), float(np.sum((y - hot @ effect) ** 2))
    effect, covariance = shift @ effect, shift @ inverse @ shift.T
    if dof < 1:
        return SiteEffects(effect, np.full(count, np.nan), dof, float("nan"))
    stderr = np.sqrt(left / dof * np.diag(covariance).clip(0.0))
    p = float(f.sf(explained / (count - 1) / (left / dof), count - 1, dof)) if left > 0 else float("nan")
    return SiteEffects(effect, stderr, dof, p)


def regions_differ(logs: ArrayLike, subject: ArrayLike, site: ArrayLike) -> float:
    """Test whether the factors of the sites are the same in all regions.

    All regions of a scan share its calibration, so each scan's own mean is taken away first, and the degrees of freedom
    are those that Greenhouse and Geisser (Psychometrika 1959;24:95) leave of correlated regions.

    Parameters
    ----------
    logs
        Natural logarithms, (n, r), finite.
    subject, site
        As for :func:`site_effects`.

    Returns
    -------
    p; nan with one region or without degrees of freedom.
    """
    from scipy.stats import f

    y = np.asarray(logs, dtype=float)
    y = y - y.mean(axis=1, keepdims=True)
    people, sites = (_hot(np.asarray(v)) for v in (subject, site))
    full = np.hstack([people, sites])
    dof, regions, more = len(y) - people.shape[1] - (sites.shape[1] - 1), y.shape[1] - 1, sites.shape[1] - 1
    if dof < 1 or regions < 1:
        return float("nan")
    without, left = (y - design @ np.linalg.lstsq(design, y, rcond=None)[0] for design in (people, full))
    error, spread = float(np.sum(left**2)), left.T @ left
    if error <= 0:
        return float("nan")
    sphericity = np.trace(spread) ** 2 / (regions * np.sum(spread**2))
    ratio = (float(np.sum(without**2)) - error) / more / (error / dof)
    return float(f.sf(ratio, sphericity * regions * more, sphericity * regions * dof))


def travelling_factors(
    values: pd.DataFrame,
    *,
    site: str = "site",
    participants: Collection[str] | None = None,
    reference_site: str | None = None,
    per_region: Literal["test", "always", "never"] = "test",
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Find the factor of every site from the participants who were scanned at several.

    Parameters
    ----------
    values
        Long table of one set of regions that do not overlap, such as the main regions of both hemispheres; all
        participants with their ``participant_id``, ``session_id`` and the site of the session. Values without a site
        and the region that is the reference itself are not looked at.
    site
        Column of the site.
    participants
        Who is looked at, by default everybody: name the volunteers if patients moved between sites while their disease
        went on.
    reference_site
        Site whose factor is 1; by default the geometric mean of the factors is.
    per_region
        Whether each region gets a factor of its own: where they differ at ``alpha``, always, or never.

    Returns
    -------
    :data:`SITE_COLUMNS` behind the columns of acquisition, reconstruction, atlas, estimator and reference, for each of
    them with values of two sites.

    Raises
    ------
    InputError
        If no chain of participants connects two sites, or there are too few of them for a standard error.
    """
    import pandas as pd

    if site not in values:
        raise InputError("sessions.tsv", f"has no column {site}", "Add it: the site of every session")
    good = np.isfinite(values["tsc"]) & (values["tsc"] > 0) & (values[site] != "")
    good &= values["region"] != values["reference"]
    if participants is not None:
        good &= values["participant_id"].isin(list(participants))
    rows: list[dict[str, Any]] = []
    for key, part in values[good].groupby(list(_SCALE), sort=False):
        if part[site].nunique() > 1:
            wide = part.pivot_table(
                index=["participant_id", "session_id", site], columns=list(_REGION), values="tsc", sort=False
            )
            scans = wide.index.to_frame(index=False)
            people, places = scans["participant_id"], scans[site]
            found = _factors(np.log(wide), people, places, list(wide.columns), reference_site, alpha, per_region)
            rows += [dict(zip(_SCALE, key, strict=True)) | row for row in found]
    return pd.DataFrame(rows, columns=[*_SCALE, *SITE_COLUMNS])


def read_phantom(path: Path) -> pd.DataFrame:
    """Read the measurements of a travelling phantom.

    The columns are ``site``, ``label`` (of the tube), ``concentration`` and ``measured`` (mmol/L); a tube may be
    measured several times.

    Raises
    ------
    InputError
        If a column is missing, a number is not above zero, or a tube changes its concentration.
    """
    import pandas as pd

    rows = read_tsv(path)
    if absent := [name for name in ("site", "label", "concentration", "measured") if not rows or name not in rows[0]]:
        raise InputError(path, f"lacks the columns {', '.join(absent)}", "Add them")
    frame = pd.DataFrame(rows)
    for name in ("concentration", "measured"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
        if (bad := ~(np.isfinite(frame[name]) & (frame[name] > 0))).any():
            line = int(np.flatnonzero(bad)[0])
            raise InputError(path, f"{name} of row {line + 1} is not a number above zero", "Give it in mmol/L")
    changed = frame.groupby("label")["concentration"].nunique() > 1
    if changed.any():
        problem = f"the tube {changed.index[changed][0]} has more than one concentration"
        raise InputError(path, problem, "A tube travels with what is in it: give another tube another label")
    return frame


def phantom_factors(phantom: pd.DataFrame, *, reference_site: str | None = None) -> pd.DataFrame:
    """Find the factor of every site from what :func:`read_phantom` read; one for all regions, in :data:`SITE_COLUMNS`.

    Every tube counts as a subject, so an error of its concentration, which all sites share, does not matter.

    Raises
    ------
    InputError
        As :func:`travelling_factors`, of tubes.
    """
    import pandas as pd

    logs = np.log((phantom["measured"] / phantom["concentration"]).to_numpy(dtype=float))[:, None]
    found = _factors(logs, phantom["label"], phantom["site"], [(OVERALL, "", "")], reference_site, 0.05, "never")
    return pd.DataFrame(found, columns=list(SITE_COLUMNS))


def _factors(
    table: ArrayLike,
    subjects: pd.Series[Any],
    sites: pd.Series[Any],
    regions: Sequence[tuple[str, str, str]],
    reference_site: str | None,
    alpha: float,
    per_region: str,
) -> list[dict[str, Any]]:
    """Rows of the one factor and, where there are several, of the regions; logs (n, r) with nan where missing."""
    logs = np.asarray(table, dtype=float)
    subject, place = subjects.to_numpy(dtype=object), sites.to_numpy(dtype=object)
    names = sorted({*place})
    if reference_site is not None and reference_site not in names:
        raise InputError("Sites", f"there is no site {reference_site}", f"The sites are: {', '.join(names)}")
    parts = _connected(subject, place)
    if len(parts) > 1:
        problem = f"nobody and nothing was measured on both sides of {' | '.join(', '.join(part) for part in parts)}"
        raise InputError("Sites", problem, "Scan a volunteer or a phantom at both, or analyse these sites apart")
    travels = np.array([len({*place[subject == one]}) > 1 for one in subject], dtype=bool)
    logs, subject, place = logs[travels], subject[travels], place[travels]
    whole = np.isfinite(logs).all(axis=0)
    if not whole.any():
        raise InputError("Sites", "no region was measured in all scans of the volunteers", "Leave out incomplete scans")
    who, at = (np.unique(v, return_inverse=True)[1] for v in (subject, place))
    p_regions = regions_differ(logs[:, whole], who, at)
    own = len(regions) > 1 and (per_region == "always" or (per_region == "test" and p_regions < alpha))
    fits = [((OVERALL, "", ""), logs[:, whole].mean(axis=1), not own)]
    if len(regions) > 1:
        fits += [(region, logs[:, i], own) for i, region in enumerate(regions)]
    reference = names.index(reference_site) if reference_site is not None else None
    rows = []
    for region, y, applied in fits:
        rows += _rows(region, y, subject, place, names, reference, applied, p_regions)
    return rows


def _rows(
    region: tuple[str, str, str],
    y: Array,
    subject: NDArray[Any],
    place: NDArray[Any],
    names: Sequence[str],
    reference: int | None,
    applied: bool,
    p_regions: float,
) -> list[dict[str, Any]]:
    from scipy.stats import t

    there = np.isfinite(y)
    there &= np.array([len({*place[there & (subject == one)]}) > 1 for one in subject], dtype=bool)
    label = dict(zip(_REGION, region, strict=True))
    unknown = dict.fromkeys(SITE_COLUMNS, float("nan"))
    people = int(np.unique(subject[there]).size)
    counts = {"n_subjects": people, "n_scans": int(there.sum()), "p_regions": p_regions, "applied": applied}
    who, at = np.unique(subject[there], return_inverse=True)[1], np.array([names.index(p) for p in place[there]])
    left = there.sum() - people - (len(names) - 1)
    if left < 1 and region[0] == OVERALL:
        problem = f"{there.sum()} measurements of {people} volunteers or tubes leave no standard error"
        raise InputError("Sites", problem, "Measure at least two of them at every site")
    if left < 1 or np.unique(at).size < len(names) or len(_connected(subject[there], place[there])) > 1:
        return [unknown | label | {"site": name, "dof": 0} | counts for name in names]
    found = site_effects(y[there], who, at, reference)
    half = float(t.ppf(0.975, found.dof)) * found.stderr
    return [
        label
        | {
            "site": name,
            "factor": float(np.exp(found.log_factor[i])),
            "factor_ci_low": float(np.exp(found.log_factor[i] - half[i])),
            "factor_ci_high": float(np.exp(found.log_factor[i] + half[i])),
            "log_stderr": float(found.stderr[i]),
            "dof": found.dof,
            "p_sites": found.p,
        }
        | counts
        for i, name in enumerate(names)
    ]


def _hot(labels: NDArray[Any]) -> Array:
    hot: Array = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return hot


def _connected(subjects: Iterable[Any], sites: Iterable[Any]) -> list[list[str]]:
    """Sets of sites that share subjects, directly or by a chain of them."""
    parts: list[set[str]] = []
    been: dict[Any, set[str]] = {}
    for who, place in zip(subjects, sites, strict=True):
        been.setdefault(who, set()).add(place)
    for places in been.values():
        joined = places.union(*(part for part in parts if part & places))
        parts = [part for part in parts if not part & places] + [joined]
    return sorted(sorted(part) for part in parts)


def apply_factors(values: pd.DataFrame, factors: pd.DataFrame, *, site: str = "site") -> pd.DataFrame:
    """Divide concentrations by the factor of their site, with its standard error in ``tsc_stderr``.

    Parameters
    ----------
    values
        Long table with ``tsc``, and ``tsc_stderr`` and ``tsc_stderr_within`` if there are any.
    factors
        Of :func:`travelling_factors` or :func:`phantom_factors`.

    Returns
    -------
    A copy. Values of the reference itself stay as they are, and so do those of an acquisition, reconstruction, atlas,
    estimator or reference that has no factors because there is one site. Values without a site become missing, and so
    do those of a region whose own factor is needed and was not found.

    Raises
    ------
    InputError
        If values come from a site without a factor.
    """
    scale = [name for name in _SCALE if name in factors]
    used = factors[factors["applied"].astype(bool)]
    one = used["region"] == OVERALL
    scaled = (values["region"] != values["reference"]).to_numpy()
    if scale:
        scaled = scaled & (_places(used, values, scale) >= 0)
    strange = scaled & (values[site] != "").to_numpy() & (_places(used, values, [*scale, site], [*scale, "site"]) < 0)
    if strange.any():
        names, known = (", ".join(sorted({*column})) for column in (values.loc[strange, site], used["site"]))
        problem = f"there is no factor for the site {names}; there are factors for {known}"
        raise InputError("Sites", problem, "Scan a volunteer or the phantom there too, or leave the site out")
    factor, log_stderr = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for table, more in ((used[one], []), (used[~one], list(_REGION))):
        at = _places(table, values, [*scale, *more, site], [*scale, *more, "site"])
        factor[at >= 0] = table["factor"].to_numpy()[at[at >= 0]]
        log_stderr[at >= 0] = table["log_stderr"].to_numpy()[at[at >= 0]]
    factor[~scaled], log_stderr[~scaled] = 1.0, 0.0
    out = values.assign(tsc=values["tsc"] / factor)
    if "tsc_stderr_within" in values:
        out["tsc_stderr_within"] = values["tsc_stderr_within"] / factor
    if "tsc_stderr" in values:
        out["tsc_stderr"] = np.hypot(values["tsc_stderr"] / factor, out["tsc"] * log_stderr)
    return out


def _places(
    table: pd.DataFrame, values: pd.DataFrame, columns: Sequence[str], named: Sequence[str] | None = None
) -> NDArray[np.intp]:
    """Row of ``table`` that each value belongs to, -1 where there is none."""
    import pandas as pd

    keys = pd.MultiIndex.from_frame(table[list(named or columns)])
    places: NDArray[np.intp] = keys.drop_duplicates().get_indexer(pd.MultiIndex.from_frame(values[list(columns)]))
    return places
