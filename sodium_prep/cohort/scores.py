"""Sodium and clinical scores: correlations, and how well regions tell two groups apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.cohort.columns import CATEGORIES, MEASURE, REGION, Covariates, correct_for_tests, group_pairs, numbers
from sodium_prep.cohort.columns import covariates as covariate_columns
from sodium_prep.cohort.model import MAIN_REGIONS
from sodium_prep.cohort.values import STRATUM
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["pearson", "spearman"]

CORRELATION_COLUMNS: Final[dict[str, str]] = {
    "score": "Column of participants.tsv or sessions.tsv",
    "method": "pearson or spearman",
    "participants": "all; within groups: all, with the group held constant; or the label of one group",
    "covariates": "What is held constant; empty for the plain correlation",
    "state": "Whether it was estimated, or why not",
    "n": "Participants with value, score and all covariates",
    "left_out": "Participants with a value but without score or a covariate",
    "r": "Correlation, or partial correlation",
    "ci_low": "Low end of its 95 % interval",
    "ci_high": "High end of its 95 % interval",
    "interval": "How the interval was made",
    "p": "Test against zero (t distribution)",
    "p_fdr": "p corrected for the false discovery rate over the regions of one estimator, reference, score, method, "
    "set of participants and of covariates",
}
ROC_COLUMNS: Final[dict[str, str]] = {
    "regions": "Region, or regions combined by logistic regression",
    "group_1": "Controls",
    "group_2": "Those to be told from them",
    "covariates": "What is taken out of the values by a regression among the controls; empty for none",
    "state": "Whether it was estimated, or why not",
    "n_1": "Participants of the first group",
    "n_2": "Participants of the second group",
    "left_out": "Participants with a value but without another region's or a covariate",
    "folds": "Folds of the cross-validation",
    "repeats": "Repeats of the cross-validation with other folds",
    "auc": "Area under the curve, cross-validated: of participants whom the model has not seen",
    "auc_ci_low": "Low end of its 95 % bootstrap interval",
    "auc_ci_high": "High end of its 95 % bootstrap interval",
    "auc_in_sample": "Area for the very participants whom the model was fitted to: optimistic",
    "sensitivity": "Share of the second group found, threshold chosen without them (cross-validated)",
    "specificity": "Share of the first group left alone, threshold chosen without them (cross-validated)",
}
_FEWEST: Final = 5
"""Participants of a group below which nothing is cross-validated."""


def partial_correlation(
    x: ArrayLike,
    y: ArrayLike,
    held: NDArray[np.float64],
    *,
    method: Method = "pearson",
    bootstrap: int = 0,
    seed: int = 42,
) -> tuple[float, float, float, float]:
    """Correlation of what is left of two variables when others are held constant.

    Spearman's is Pearson's of ranks. The interval is Fisher's z with ``n - 3 - k`` degrees of freedom, times
    ``1 + r^2 / 2`` in variance for ranks (Bonett and Wright, Psychometrika 2000;65:23), or percentiles of resampled
    participants.

    Parameters
    ----------
    x, y
        Finite values (n,).
    held
        Centred columns to hold constant (n, any), without an intercept; k is their rank.
    method
        ``pearson`` or ``spearman``.
    bootstrap
        Samples of participants; 0 for Fisher's interval.
    seed
        Of the bootstrap.

    Returns
    -------
    r, low, high and p of the t test with ``n - 2 - k`` degrees of freedom; nan where there is nothing to correlate.
    """
    from scipy.stats import t

    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    n, k = a.size, _rank(held)
    r = _left_correlation(a, b, held, method)
    if n - 3 - k < 1 or not np.isfinite(r):
        return r, np.nan, np.nan, np.nan
    dof = n - 2 - k
    p = float(2.0 * t.sf(abs(r) * np.sqrt(dof / max(1.0 - r**2, 1e-300)), dof))
    if bootstrap:
        rng = np.random.default_rng(seed)
        samples = rng.integers(n, size=(bootstrap, n))
        drawn = [_left_correlation(a[rows], b[rows], held[rows], method) for rows in samples]
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        return r, float(low), float(high), p
    spread = 1.0 + r**2 / 2.0 if method == "spearman" else 1.0
    half = 1.959963984540054 * np.sqrt(spread / (n - 3 - k))
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    return r, float(np.tanh(z - half)), float(np.tanh(z + half)), p


def _rank(held: NDArray[np.float64]) -> int:
    if not held.size:
        return 0
    return int(np.linalg.matrix_rank(held / np.maximum(np.abs(held).max(axis=0), 1e-300)))


def _left_correlation(
    x: NDArray[np.float64], y: NDArray[np.float64], held: NDArray[np.float64], method: Method
) -> float:
    """Pearson's correlation of the residuals, of ranks on request; nan where one of them does not vary."""
    from scipy.stats import rankdata

    both = np.column_stack([x, y])
    if method == "spearman":
        both = rankdata(both, axis=0)
    design = np.column_stack([np.ones(x.size), held])
    left = both - design @ np.linalg.lstsq(design, both, rcond=None)[0]
    size = np.linalg.norm(left, axis=0)
    if (size <= 1e-9 * np.linalg.norm(both - both.mean(axis=0), axis=0)).any():
        return float("nan")
    return float(np.clip(left[:, 0] @ left[:, 1] / size.prod(), -1.0, 1.0))


def correlations(
    values: pd.DataFrame,
    *,
    scores: Sequence[str],
    group: str | None = "group",
    covariates: Sequence[str] = ("age", "sex"),
    categories: Sequence[str] = CATEGORIES,
    methods: Sequence[Method] = ("pearson", "spearman"),
    bootstrap: int = 0,
    seed: int = 42,
) -> pd.DataFrame:
    """Correlation of every region with every score, plain and with the covariates held constant.

    Among all participants, among all with the group held constant (a score on which groups differ correlates with
    whatever else differs between them), and within each group.

    Parameters
    ----------
    values
        Values frame; sessions are analysed apart.
    scores
        Columns with numbers, such as MMSE.
    group
        Column of the groups; None for none.
    covariates, categories
        Columns to hold constant, and which of them are categories.
    methods
        ``pearson``, ``spearman`` or both.
    bootstrap, seed
        As in :func:`partial_correlation`.

    Returns
    -------
    Columns of the stratum, the region, estimator, reference, and :data:`CORRELATION_COLUMNS`.

    Raises
    ------
    InputError
        If a score is missing or holds other text than numbers.
    """
    import pandas as pd

    keys = [*STRATUM, *REGION, *MEASURE]
    frame = values[np.isfinite(values["tsc"])]
    frame = frame.assign(**{f"score {name}": numbers(frame, name) for name in scores})
    rows: list[dict[str, Any]] = []
    for labels, part in frame.groupby(keys, sort=False, dropna=False):
        here = dict(zip(keys, labels, strict=True))
        sets: dict[str, tuple[pd.DataFrame, str | None]] = {"all": (part, None)}
        if group is not None and group in part:
            known = part[part[group] != ""]
            members = {str(label): (one, None) for label, one in known.groupby(group)}
            if len(members) > 1:
                sets |= {"within groups": (known, group), **members}
        for name, (people, constant) in sets.items():
            for score in scores:
                found = _correlations(people, score, covariates, categories, constant, methods, bootstrap, seed)
                rows += [here | {"participants": name, "score": score} | row for row in found]
    table = pd.DataFrame(rows, columns=[*keys, *CORRELATION_COLUMNS])
    table["partial"] = table["covariates"] != ""
    family = [*STRATUM, *MEASURE, "score", "method", "participants", "partial"]
    return correct_for_tests(table, family).drop(columns="partial")


def _correlations(
    people: pd.DataFrame,
    score: str,
    names: Sequence[str],
    categories: Sequence[str],
    constant: str | None,
    methods: Sequence[Method],
    bootstrap: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Plain and partial correlations of one region and score."""
    fixed = [constant] if constant else []
    there = people[np.isfinite(people[f"score {score}"])]
    partial = _complete(there, [*fixed, *names], [*fixed, *categories])
    choices = [_complete(there, fixed, fixed)]
    if set(partial[1].names) - set(fixed):
        choices.append(partial)
    for used, held in choices:
        shown = ", ".join(name for name in held.names if name != constant)
        row = {"covariates": shown, "n": len(used), "left_out": len(people) - len(used)}
        for method in methods:
            row["method"] = method
            if (used["reference"] == used["region"]).any():
                yield row | {"state": "not estimated: the reference itself, equal in all"}
                continue
            r, low, high, p = partial_correlation(
                used["tsc"], used[f"score {score}"], held.matrix, method=method, bootstrap=bootstrap, seed=seed
            )
            if not np.isfinite(p):
                few = len(used) - 3 - _rank(held.matrix) < 1
                yield row | {"state": "not estimated: " + ("too few participants" if few else "nothing varies")}
                continue
            interval = f"bootstrap of {bootstrap}, seed {seed}" if bootstrap else "Fisher z"
            yield row | {
                "state": "estimated", "r": r, "ci_low": low, "ci_high": high, "interval": interval, "p": p,
            }  # fmt: skip


def _complete(frame: pd.DataFrame, names: Sequence[str], categories: Sequence[str]) -> tuple[pd.DataFrame, Covariates]:
    """Rows with all covariates, and the covariates of these."""
    used = frame[covariate_columns(frame, names, categories).complete]
    return used, covariate_columns(used, names, categories)


@dataclass(frozen=True)
class Discrimination:
    """How well values tell two groups apart; see :data:`ROC_COLUMNS`."""

    auc: float
    auc_ci_low: float
    auc_ci_high: float
    auc_in_sample: float
    sensitivity: float
    specificity: float
    folds: int


def discrimination(
    x: NDArray[np.float64],
    second: ArrayLike,
    held: NDArray[np.float64] | None = None,
    *,
    folds: int = 5,
    repeats: int = 20,
    bootstrap: int = 2000,
    seed: int = 42,
) -> Discrimination:
    """Area under the ROC curve by stratified repeated cross-validation of a logistic regression.

    Everything that is learnt (regression on the covariates among controls, scale, coefficients, threshold) is learnt in
    the training part. Only participants of one fold are ranked against each other, since other folds have another
    model: ranks over all folds together would fall below 0.5 where there is nothing to find. The interval resamples
    participants, not models.

    Parameters
    ----------
    x
        Values (n, regions), finite.
    second
        Whether a participant is of the second group (n,).
    held
        Covariates (n, k) to take out by a regression among the controls, without an intercept.
    folds, repeats
        Of the cross-validation; there are at most as many folds as participants in the smaller group.
    bootstrap
        Samples of participants, each group by itself.
    seed
        Of folds and bootstrap.
    """
    from sklearn.model_selection import RepeatedStratifiedKFold

    case = np.asarray(second, dtype=bool)
    n_case, n_control = int(case.sum()), int((~case).sum())
    folds = min(folds, n_case, n_control)
    place = np.where(case, np.cumsum(case), np.cumsum(~case)) - 1
    wins, pairs = np.zeros((2, n_case, n_control))
    called = np.zeros(case.size)
    splits = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=seed)
    for train, test in splits.split(x, case):
        learnt = _fit_scores(x, case, held, train)
        called[test] += learnt[test] > _youden(learnt[train], case[train])
        cases, controls = test[case[test]], test[~case[test]]
        cells = np.ix_(place[cases], place[controls])
        wins[cells] += _wins(learnt[cases], learnt[controls])
        pairs[cells] += 1.0
    rng = np.random.default_rng(seed)
    of_cases = rng.multinomial(n_case, np.full(n_case, 1.0 / n_case), size=bootstrap)
    of_controls = rng.multinomial(n_control, np.full(n_control, 1.0 / n_control), size=bootstrap)
    drawn = ((of_cases @ wins) * of_controls).sum(axis=1) / ((of_cases @ pairs) * of_controls).sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    whole = _fit_scores(x, case, held, np.arange(case.size))
    return Discrimination(
        auc=float(wins.sum() / pairs.sum()),
        auc_ci_low=float(low),
        auc_ci_high=float(high),
        auc_in_sample=float(_wins(whole[case], whole[~case]).mean()),
        sensitivity=float(called[case].mean() / repeats),
        specificity=float(1.0 - called[~case].mean() / repeats),
        folds=folds,
    )


def _wins(cases: NDArray[np.float64], controls: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where a case's score lies above a control's, 0.5 where they are equal; (cases, controls)."""
    found: NDArray[np.float64] = 0.5 + 0.5 * np.sign(cases[:, None] - controls)
    return found


def _fit_scores(
    x: NDArray[np.float64], case: NDArray[np.bool_], held: NDArray[np.float64] | None, train: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scores (n,) of all by the model of those in training, higher in the second group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if held is not None:
        design = np.column_stack([np.ones(len(x)), held])
        controls = train[~case[train]]
        x = x - design @ np.linalg.lstsq(design[controls], x[controls], rcond=None)[0]
    if x.shape[1] == 1:  # logistic regression on one value ranks as the value does, up to the sign of its slope
        one = x[:, 0]
        ranked: NDArray[np.float64] = one * np.sign(one[train[case[train]]].mean() - one[train[~case[train]]].mean())
        return ranked
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[train], case[train])
    scores: NDArray[np.float64] = model.decision_function(x)
    return scores


def _youden(scores: NDArray[np.float64], case: NDArray[np.bool_]) -> float:
    """Threshold above which sensitivity plus specificity is largest, half way to the next score."""
    order = np.argsort(-scores, kind="stable")
    gain = np.cumsum(np.where(case[order], 1.0 / case.sum(), -1.0 / (~case).sum()))
    best = int(gain[:-1].argmax())
    return float(scores[order[best : best + 2]].mean())


def roc(
    values: pd.DataFrame,
    *,
    group: str = "group",
    control: str | None = None,
    covariates: Sequence[str] = (),
    categories: Sequence[str] = CATEGORIES,
    combine: Sequence[str] = MAIN_REGIONS,
    folds: int = 5,
    repeats: int = 20,
    bootstrap: int = 2000,
    seed: int = 42,
) -> pd.DataFrame:
    """How well every region, and the main regions together, tell groups apart.

    Parameters
    ----------
    values
        Values frame; sessions are analysed apart.
    group
        Column of the groups.
    control
        Group that the others are told from; None takes all pairs.
    covariates, categories
        Columns whose effect among the controls is taken out, and which of them are categories; rows without that come
        first.
    combine
        Regions that are combined, both hemispheres.
    folds, repeats, bootstrap, seed
        As in :func:`discrimination`.

    Returns
    -------
    Columns of the stratum, the region (``combination`` for several), estimator, reference, and :data:`ROC_COLUMNS`.

    Raises
    ------
    InputError
        If the column of groups is missing.
    """
    import pandas as pd

    if group not in values:
        raise InputError("participants.tsv", f"has no column {group}", "Add it, or name the column of the groups")
    frame = values[np.isfinite(values["tsc"]) & (values[group] != "")]
    groups = group_pairs(frame[group], control)
    keys = [*STRATUM, *MEASURE]
    rows: list[dict[str, Any]] = []
    for found, part in frame.groupby(keys, sort=False, dropna=False):
        here = dict(zip(keys, found, strict=True))
        sets = [(dict(zip(REGION, name, strict=True)), one) for name, one in part.groupby([*REGION], sort=False)]
        main = part["region"].isin(combine) & (part["hemisphere"] == "both") & (part["index"] == "")
        several = part[main & (part["region"] != here["reference"])]
        if several["region"].nunique() > 1:
            sets.append(({"index": "", "region": "combination", "hemisphere": "both"}, several))
        for region, one in sets:
            for pair in groups:
                for names in dict.fromkeys([(), tuple(covariates)]):
                    row = _discriminate(one, pair, group, names, categories, folds, repeats, bootstrap, seed)
                    rows.append(here | region | row)
    return pd.DataFrame(rows, columns=[*STRATUM, *REGION, *MEASURE, *ROC_COLUMNS])


def _discriminate(
    part: pd.DataFrame,
    pair: tuple[str, str],
    group: str,
    names: Sequence[str],
    categories: Sequence[str],
    folds: int,
    repeats: int,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    part = part[part[group].isin(pair)]
    people = part.drop_duplicates("participant_id").set_index("participant_id").sort_index()
    wide = part.pivot(index="participant_id", columns="region", values="tsc").sort_index()
    used, held = _complete(people[wide.notna().all(axis=1)], names, categories)
    case = (used[group] == pair[1]).to_numpy()
    row: dict[str, Any] = {
        "regions": " + ".join(map(str, wide.columns)), "group_1": pair[0], "group_2": pair[1],
        "covariates": ", ".join(held.names), "n_1": int((~case).sum()), "n_2": int(case.sum()),
        "left_out": len(people) - len(used),
    }  # fmt: skip
    if (part["reference"] == part["region"]).any():
        return row | {"state": "not estimated: the reference itself, equal in all"}
    if min(row["n_1"], row["n_2"]) < _FEWEST:
        return row | {"state": f"not estimated: fewer than {_FEWEST} participants in a group"}
    x = wide.loc[used.index].to_numpy(dtype=float)
    found = discrimination(
        x, case, held.matrix if held.names else None, folds=folds, repeats=repeats, bootstrap=bootstrap, seed=seed
    )
    return row | {"state": "estimated", "repeats": repeats, **vars(found)}
