"""Mixed models: change per year over repeated sessions, and group differences over many sites."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.cohort.columns import CATEGORIES, MEASURE, REGION, SCAN, correct_for_tests, group_pairs, numbers
from sodium_prep.cohort.columns import covariates as covariate_columns
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_ESTIMATE: Final[dict[str, str]] = {
    "stderr": "Its standard error",
    "ci_low": "Low end of its 95 % interval",
    "ci_high": "High end of its 95 % interval",
    "dof": "Degrees of freedom of interval and test",
    "p": "Test against zero",
    "p_fdr": "p corrected for the false discovery rate over the regions of one estimator, reference and term",
}
CHANGE_COLUMNS: Final[dict[str, str]] = {
    "term": "change: per year, of group_2; difference in change: that of group_2 minus that of group_1",
    "group_1": "Group that the other is compared with",
    "group_2": "Group",
    "state": "Whether it was estimated and how the fit went, or why not",
    "model": "Random effects of the model",
    "covariates": "What the model holds constant",
    "n_participants": "Participants of the groups of the term",
    "n_followed": "Those with at least two sessions, who alone tell of change",
    "n_sessions": "Sessions of these participants",
    "left_out": "Sessions with a value but without time, group or a covariate",
    "estimate": "Change, or difference in change, mmol/L per year",
    **_ESTIMATE,
}
SITE_COLUMNS: Final[dict[str, str]] = {
    "group_1": "First group",
    "group_2": "Second group",
    "state": "Whether it was estimated and how the fit went, or why not",
    "model": "How the model takes the sites",
    "covariates": "What the model holds constant besides the site",
    "n_1": "Participants of the first group in the model",
    "n_2": "Participants of the second group in the model",
    "n_sites": "Sites",
    "left_out": "Participants with a value but without site or a covariate",
    "estimate": "Second group minus first, mmol/L",
    **_ESTIMATE,
    "site_sd": "Standard deviation between sites, where they are random, mmol/L",
}
_FEWEST: Final = 3
"""Participants of a group with two sessions below which no change is estimated."""
FEWEST_SITES: Final = 5
"""Sites below which their variance is not estimated."""
_LONGEST_YEARS: Final = 60.0


@dataclass(frozen=True)
class MixedFit:
    """Fixed effects of a mixed model.

    Attributes
    ----------
    estimate, covariance
        Coefficients (k,) and their covariance (k, k).
    model, state
        Random effects of the model, and how the fit went, in words.
    """

    estimate: NDArray[np.float64]
    covariance: NDArray[np.float64]
    model: str
    state: str


def fit_repeated(
    values: ArrayLike,
    design: NDArray[np.float64],
    participant: ArrayLike,
    years: ArrayLike,
    *,
    site: ArrayLike | None = None,
) -> MixedFit | None:
    """Linear mixed model of repeated sessions by restricted likelihood (Laird and Ware, Biometrics 1982;38:963).

    Participants have an intercept of their own, and a slope of their own where at least half of those with two sessions
    have three and the fit converges to it; otherwise the intercept alone, which ``state`` says.

    Parameters
    ----------
    values
        Shape (n,).
    design
        Fixed effects (n, k), of full rank.
    participant
        Labels (n,).
    years
        Time of the session (n,).
    site
        Labels (n,) of sites that are random intercepts too; each participant belongs to one site. Slopes are then
        independent of intercepts.

    Returns
    -------
    None where nothing converges.
    """
    y, t = np.asarray(values, dtype=float), np.asarray(years, dtype=float)
    _, person = np.unique(np.asarray(participant, dtype=str), return_inverse=True)
    sessions = np.bincount(person)
    scale = float(y.std()) or 1.0
    t = t - t.mean()
    notes = []
    enough = 2 * int((sessions >= 3).sum()) >= int((sessions >= 2).sum())
    if not enough:
        notes.append("no random slope: fewer than half have three sessions")
    for random_slope in (True, False) if enough else (False,):
        effects = [np.ones_like(t), t] if random_slope else [np.ones_like(t)]
        found = _fit(y / scale, design, person, effects, None if site is None else np.asarray(site, dtype=str))
        if found is None:
            notes.append("no random slope: its fit did not converge")
            continue
        estimate, covariance, _, singular = found
        if singular:
            notes.append("a random effect has no variance")
        words = "random intercept and slope" if random_slope else "random intercept"
        return MixedFit(
            scale * estimate,
            scale**2 * covariance,
            f"{words} of participants" + ("" if site is None else ", random intercept of sites"),
            "; ".join(["estimated", *notes]),
        )
    return None


def _fit(
    y: NDArray[np.float64],
    design: NDArray[np.float64],
    person: NDArray[np.int64],
    effects: Sequence[NDArray[np.float64]],
    site: NDArray[np.str_] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], bool] | None:
    """Fixed effects, their covariance, the random effects' variances, and whether one vanishes; None if not converged.

    With sites the first variance is theirs.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    if site is None:
        model = MixedLM(y, design, person, exog_re=np.column_stack(effects))
    else:
        labels = sorted(set(site))
        names = [f"effect {j}" for j in range(len(effects))]
        people = [np.unique(person[site == label]) for label in labels]
        columns = [[[str(i) for i in inside] for inside in people] for _ in effects]
        blocks = [
            [
                (person[site == label][:, None] == inside) * effect[site == label][:, None]
                for label, inside in zip(labels, people, strict=True)
            ]
            for effect in effects
        ]
        spec = VCSpec(names, columns, blocks)
        model = MixedLM(y, design, site, exog_re=np.ones((y.size, 1)), exog_vc=spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence and zero variances are told by the result
        try:
            # Where a variance comes near zero gradients fail and Powell's method still ends.
            fit = model.fit(reml=True, method=["bfgs", "powell"])
        except (np.linalg.LinAlgError, ValueError):
            return None
    k = design.shape[1]
    covariance = np.asarray(fit.cov_params())[:k, :k]
    between = np.atleast_2d(fit.cov_re)
    singular = bool(min([*np.linalg.eigvalsh(between), *np.atleast_1d(fit.vcomp)]) < 1e-6 * fit.scale)
    if not (fit.converged and np.isfinite(covariance).all() and (np.diag(covariance) > 0).all()):
        return None
    return np.asarray(fit.fe_params), covariance, np.array([*np.diag(between), *np.atleast_1d(fit.vcomp)]), singular


def change_per_year(
    values: pd.DataFrame,
    *,
    time: str,
    group: str | None = "group",
    control: str | None = None,
    covariates: Sequence[str] = ("age", "sex", "site"),
    categories: Sequence[str] = CATEGORIES,
    sites: str = "fixed",
) -> pd.DataFrame:
    """Change per year of every group, and its difference between groups, in every region.

    Time counts from the participant's own first session, so that differences between participants do not pass for
    change; group and ``age`` are those of that session. Degrees of freedom: participants with two sessions minus
    groups, with or without slopes of their own, since only these participants tell whether slopes differ.

    Parameters
    ----------
    values
        Values frame with all sessions.
    time
        Column of sessions.tsv with the time in years.
    group
        Column of the groups; None takes all participants as one.
    control
        Group that the others are compared with; None compares all pairs.
    covariates, categories
        Columns to hold constant, and which of them are categories.
    sites
        ``fixed``: the site is held constant where it is among the covariates; ``random``: it is a random intercept
        where there are at least five and nobody was at two, otherwise fixed.

    Returns
    -------
    Columns of the scan, the region, estimator, reference, and :data:`CHANGE_COLUMNS`.

    Raises
    ------
    InputError
        If the time is missing, not a number, or spans more than a life.
    """
    import pandas as pd

    keys = [*SCAN, *REGION, *MEASURE]
    frame = _with_time(values, time, group)
    rows: list[dict[str, Any]] = []
    for labels, part in frame.groupby(keys, sort=False, dropna=False):
        here = dict(zip(keys, labels, strict=True))
        rows += [here | row for row in _changes(part, control, covariates, categories, sites)]
    table = pd.DataFrame(rows, columns=[*keys, *CHANGE_COLUMNS])
    return correct_for_tests(table, [*SCAN, *MEASURE, "term"])


def _with_time(values: pd.DataFrame, time: str, group: str | None) -> pd.DataFrame:
    """Rows with a value, ``years`` since the first session, and ``label`` (the group) and ``age`` as they were then."""
    where = "sessions.tsv"
    frame: pd.DataFrame = values[np.isfinite(values["tsc"])].copy()
    frame["years"] = numbers(frame, time, where)
    if group is not None and group not in frame:
        raise InputError("participants.tsv", f"has no column {group}", "Add it, or name the column of the groups")
    frame["label"] = "all" if group is None else frame[group]
    frame["years"] -= frame.groupby("participant_id", sort=False)["years"].transform("min")
    if (longest := frame["years"].max()) > _LONGEST_YEARS:
        problem = f"has sessions {longest:g} apart in column {time}"
        raise InputError(where, problem, "Give the time in years")
    for name in {"label", "age"} & set(frame):
        known = frame[frame[name] != ""].sort_values("years", kind="stable")
        frame[name] = frame["participant_id"].map(known.groupby("participant_id")[name].first()).fillna("")
    return frame


def _followed(part: pd.DataFrame) -> dict[str, int]:
    """Participants with at least two sessions in each group."""
    times = part.groupby(["label", "participant_id"])["years"].nunique()
    return {str(label): int((one >= 2).sum()) for label, one in times.groupby("label")}


def _changes(
    part: pd.DataFrame, control: str | None, names: Sequence[str], categories: Sequence[str], sites: str
) -> Iterator[dict[str, Any]]:
    """Rows of one region."""
    if sites == "random":
        names, categories = [*names, "site"], [*categories, "site"]
    known = part[np.isfinite(part["years"]) & (part["label"] != "")]
    labels = sorted(set(known["label"]), key=lambda label: (label != control, label))
    complete = known[covariate_columns(known, names, categories).complete]
    followed = _followed(complete)
    kept = [label for label in labels if followed.get(label, 0) >= _FEWEST]
    used = complete[complete["label"].isin(kept)]
    fixed, site, note = _take_sites(used, names, sites)
    held = covariate_columns(used, fixed, categories)
    estimate = _fit_changes(used, kept, held.matrix, site)
    terms = [("change", "", label) for label in labels]
    terms += [("difference in change", first, second) for first, second in group_pairs(labels, control)]
    for term, first, second in terms:
        mine = used[used["label"].isin([first, second])]
        row: dict[str, Any] = {
            "term": term,
            "group_1": first,
            "group_2": second,
            "covariates": ", ".join(held.names),
            "n_participants": mine["participant_id"].nunique(),
            "n_followed": sum(followed[label] for label in (first, second) if label in kept),
            "n_sessions": len(mine),
            "left_out": len(part) - len(complete),
        }
        if few := [label for label in (first, second) if label and label not in kept]:
            state = f"not estimated: fewer than {_FEWEST} participants of {', '.join(few)} with two sessions"
            yield row | {"state": state}
        elif isinstance(estimate, str):
            yield row | {"state": f"not estimated: {estimate}"}
        else:
            fit, dof = estimate
            contrast = np.zeros(len(fit.estimate))
            contrast[len(kept) + kept.index(second)] = 1.0
            if first:
                contrast[len(kept) + kept.index(first)] = -1.0
            stderr = float(np.sqrt(contrast @ fit.covariance @ contrast))
            row |= {"model": fit.model, "state": "; ".join(filter(None, [fit.state, note]))}
            yield row | _estimated(float(contrast @ fit.estimate), stderr, dof)


def _take_sites(used: pd.DataFrame, names: Sequence[str], sites: str) -> tuple[list[str], Any, str]:
    """Covariates that are fixed, labels of sites that are random or None, and what there is to say about it."""
    if sites != "random" or "site" not in used:
        return list(names), None, ""
    others = [name for name in names if name != "site"]
    if used["site"].nunique() < FEWEST_SITES:
        return [*others, "site"], None, f"site fixed: fewer than {FEWEST_SITES} sites"
    if (used.groupby("participant_id")["site"].nunique() > 1).any():
        return [*others, "site"], None, "site fixed: some participants were at several"
    return others, used["site"], ""


def _fit_changes(
    used: pd.DataFrame, groups: Sequence[str], held: NDArray[np.float64], site: Any
) -> tuple[MixedFit, int] | str:
    """The fit and its degrees of freedom, or why there is none."""
    if not groups:
        return "no group is left"
    if (used["reference"] == used["region"]).any():
        return "the reference itself, equal in all"
    years = used["years"].to_numpy()
    member = np.column_stack([used["label"] == label for label in groups]).astype(float)
    slopes = member * years[:, None]
    design = np.column_stack([member, slopes, held])
    if np.linalg.matrix_rank(design / np.abs(design).max(axis=0)) < design.shape[1]:
        return "groups, time and covariates cannot be told apart"
    _, person = np.unique(used["participant_id"], return_inverse=True)
    counts = np.bincount(person)
    within = design - np.apply_along_axis(lambda x: np.bincount(person, x) / counts, 0, design)[person]
    varying = int((np.abs(within).max(axis=0) > 1e-9).sum())
    fit = fit_repeated(used["tsc"], design, used["participant_id"], years, site=site)
    if fit is None:
        return "the mixed model did not converge"
    dof = min(sum(_followed(used).values()) - len(groups), len(used) - len(counts) - varying)
    return (fit, dof) if dof > 0 else "as many parameters as sessions"


def _estimated(value: float, stderr: float, dof: int) -> dict[str, float]:
    from scipy.stats import t

    half = float(t.ppf(0.975, dof)) * stderr
    return {
        "estimate": value, "stderr": stderr, "ci_low": value - half, "ci_high": value + half, "dof": dof,
        "p": float(2.0 * t.sf(abs(value) / stderr, dof)),
    }  # fmt: skip


def site_differences(
    values: pd.DataFrame,
    *,
    group: str = "group",
    control: str | None = None,
    covariates: Sequence[str] = ("age", "sex"),
    categories: Sequence[str] = CATEGORIES,
    site: str = "site",
) -> pd.DataFrame:
    """Group differences in every region, with the site as a random intercept where there are at least five.

    A variance between fewer sites is hardly known, and intervals that take it as known are too short: the site is then
    a fixed effect. Random sites lend the comparison those that hold one group alone. Errors are taken as equal in all.

    Parameters
    ----------
    values
        Values frame; sessions are analysed apart.
    group
        Column of the groups.
    control
        Group that the others are compared with; None compares all pairs.
    covariates, categories
        Columns to hold constant, and which of them are categories.
    site
        Column of the sites.

    Returns
    -------
    Columns of the stratum, the region, estimator, reference, and :data:`SITE_COLUMNS`.

    Raises
    ------
    InputError
        If the column of groups or sites is missing.
    """
    import pandas as pd

    for name in (group, site):
        if name not in values:
            raise InputError("participants.tsv", f"has no column {name}", "Add it, or name the column that is there")
    keys = ["session_id", *SCAN, *REGION, *MEASURE]
    frame = values[np.isfinite(values["tsc"]) & (values[group] != "")]
    pairs = group_pairs(frame[group], control)
    fixed = [name for name in covariates if name not in (site, group)]
    rows: list[dict[str, Any]] = []
    for found, part in frame.groupby(keys, sort=False, dropna=False):
        for pair in pairs:
            row = _site_difference(part[part[group].isin(pair)], pair, group, fixed, categories, site)
            rows.append(dict(zip(keys, found, strict=True)) | row)
    table = pd.DataFrame(rows, columns=[*keys, *SITE_COLUMNS])
    return correct_for_tests(table, ["session_id", *SCAN, *MEASURE])


def _site_difference(
    part: pd.DataFrame,
    pair: tuple[str, str],
    group: str,
    names: Sequence[str],
    categories: Sequence[str],
    site: str,
) -> dict[str, Any]:
    known = part[part[site] != ""]
    used = known[covariate_columns(known, names, categories).complete]
    held = covariate_columns(used, names, categories)
    second = (used[group] == pair[1]).to_numpy(dtype=float)
    labels, where = np.unique(used[site].to_numpy(dtype=str), return_inverse=True)
    row: dict[str, Any] = {
        "group_1": pair[0], "group_2": pair[1], "covariates": ", ".join(held.names), "n_1": int((1 - second).sum()),
        "n_2": int(second.sum()), "n_sites": len(labels), "left_out": len(part) - len(used),
    }  # fmt: skip
    random = len(labels) >= FEWEST_SITES
    dummies = np.eye(len(labels))[where]
    design = np.column_stack([second, dummies, held.matrix])
    dof = len(used) - design.shape[1]
    if (used["reference"] == used["region"]).any():
        return row | {"state": "not estimated: the reference itself, equal in all"}
    if min(row["n_1"], row["n_2"]) < 2 or dof < 1:
        return row | {"state": "not estimated: too few participants"}
    if np.linalg.matrix_rank(design / np.maximum(np.abs(design).max(axis=0), 1e-300)) < design.shape[1]:
        return row | {"state": "not estimated: group, site and covariates cannot be told apart"}
    y = used["tsc"].to_numpy(dtype=float)
    if random:
        scale = float(y.std()) or 1.0
        fit = _fit(y / scale, np.column_stack([second, np.ones(y.size), held.matrix]), where, [np.ones(y.size)], None)
        if fit is not None:
            row |= {"model": "site random", "site_sd": scale * float(np.sqrt(fit[2][0])), "state": "estimated"}
            row["state"] += "; sites do not differ beyond the error" if fit[3] else ""
            return row | _estimated(scale * fit[0][0], scale * float(np.sqrt(fit[1][0, 0])), dof)
    solution, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = float(residual[0]) / dof * np.linalg.inv(design.T @ design)[0, 0]
    why = "the mixed model did not converge" if random else f"fewer than {FEWEST_SITES} sites"
    row |= {"model": "site fixed", "state": f"estimated; site fixed: {why}"}
    return row | _estimated(float(solution[0]), float(np.sqrt(variance)), dof)
