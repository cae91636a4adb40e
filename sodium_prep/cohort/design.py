"""What a design can tell, checked before anything is fitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.cohort.columns import numbers
from sodium_prep.cohort.model import GroupModel, find_control
from sodium_prep.cohort.statistics import GroupDesign, centred_design, group_design, welch
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CHECK_COLUMNS: Final[dict[str, str]] = {
    "check": "What was looked at",
    "state": "ok, warn, or stop: nothing is compared",
    "value": "The number that was judged, if there is one",
    "text": "What was found",
}
INFLATED: Final = 10.0
"""Variance inflation above which a term can hardly be told from the others."""
FEW: Final = 3
"""Participants of a group, or of a group at a site, below which there are too few."""
AGE_APART: Final = 0.5
"""Standard deviations between groups' ages that call for care however few there are to test it."""
_SHOWN: Final = 10


@dataclass(frozen=True)
class Term:
    """A covariate and its columns in a linear model, (n, k), nan where it is missing."""

    name: str
    columns: NDArray[np.float64]

    @property
    def there(self) -> NDArray[np.bool_]:
        """Who has it, (n,)."""
        return np.array(np.isfinite(self.columns).all(axis=1), dtype=bool)


@dataclass(frozen=True)
class DesignChecks:
    """What the checks found.

    Attributes
    ----------
    table
        Columns of :data:`CHECK_COLUMNS`.
    group_site
        Participants of every group (row) at every site (column); empty without sites.
    """

    table: pd.DataFrame
    group_site: pd.DataFrame

    @property
    def stops(self) -> list[str]:
        """What stands in the way."""
        return self.table.loc[self.table["state"] == "stop", "text"].tolist()

    def refuse(self) -> None:
        """Refuse a design that cannot answer what is asked.

        Raises
        ------
        InputError
            If a check says stop.
        """
        if self.stops:
            mend = (
                "Compare other groups (contrasts of the model), or take site out of its covariates if a difference of "
                "sites may count as one of groups"
            )
            raise InputError("participants.tsv", "; ".join(self.stops), mend)


def analysed(values: pd.DataFrame, model: GroupModel) -> pd.DataFrame:
    """The rows of those who belong to a group."""
    return values[values[model.group].fillna("") != ""] if model.group in values else values.iloc[:0]


def people_of(values: pd.DataFrame) -> pd.DataFrame:
    """One row for each participant: the first of his."""
    return values.drop_duplicates("participant_id", ignore_index=True)


def resolve_model(model: GroupModel, people: pd.DataFrame) -> GroupModel:
    """The model with the control and the covariates that it comes to for these participants.

    Raises
    ------
    InputError
        If it names a group that nobody belongs to, or a covariate that was asked for is not there.
    """
    labels = group_labels(people, model)
    if "covariates" in model.model_fields_set and (absent := [c for c in model.covariates if c not in people]):
        mend = "Mend the name in the model, or add the column"
        raise InputError("participants.tsv", f"has no column {absent[0]}, a covariate of the model", mend)
    contrasts_of(model, labels)
    held = tuple(name for name in model.covariates if name in people)
    return model.model_copy(update={"control": model.control or find_control(labels), "covariates": held})


def group_labels(people: pd.DataFrame, model: GroupModel) -> list[str]:
    """The groups, sorted."""
    return sorted(set(people[model.group].fillna("")) - {""}) if model.group in people else []


def contrasts_of(model: GroupModel, labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of groups to compare, second minus first.

    Raises
    ------
    InputError
        If the model names a group that nobody belongs to.
    """
    named = [model.control] if model.control is not None else []
    for label in (*named, *(label for pair in model.contrasts for label in pair)):
        if label not in labels:
            problem = f"has nobody with results in the group {label}, which the model names"
            mend = f"Groups in column {model.group}: {', '.join(labels) or 'none'}"
            raise InputError("participants.tsv", problem, mend)
    if model.contrasts:
        return model.contrasts
    control = model.control or find_control(labels)
    if control is not None:
        return tuple((control, label) for label in labels if label != control)
    return tuple(combinations(labels, 2))


def covariate_terms(people: pd.DataFrame, names: Sequence[str], categories: Sequence[str]) -> list[Term]:
    """The covariates that are there and vary, as columns of a linear model.

    Parameters
    ----------
    people
        One row per participant, texts; an empty one is missing.
    names, categories
        Covariates, and which of them are categories.

    Raises
    ------
    InputError
        If a covariate that is no category holds text.
    """
    terms = []
    for name in names:
        if name not in people:
            continue
        if name in categories:
            cells = people[name].fillna("").to_numpy(dtype=object)
            levels = sorted(set(cells) - {""})[1:]
            columns = np.array([cells == level for level in levels], dtype=float).reshape(len(levels), len(cells)).T
            columns[cells == ""] = np.nan
        else:
            columns = _numbers(people, name)[:, None]
        term = Term(name, columns)
        if columns.size and term.there.any() and (np.ptp(columns[term.there], axis=0) > 0).any():
            terms.append(term)
    return terms


def _numbers(people: pd.DataFrame, name: str) -> NDArray[np.float64]:
    try:
        return numbers(people, name)
    except InputError as error:
        mend = "Write numbers, and n/a for missing ones, or list the column in categories of the model"
        raise InputError(error.where, error.problem, mend) from error


def stacked(terms: Sequence[Term], n: int) -> NDArray[np.float64]:
    """The columns of all terms, (n, k)."""
    return np.concatenate([np.zeros((n, 0)), *(term.columns for term in terms)], axis=1)


def group_numbers(people: pd.DataFrame, model: GroupModel, labels: Sequence[str]) -> NDArray[np.int_]:
    """Place of everybody's group among the labels, (n,); -1 for none."""
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place.get(label, -1) for label in people[model.group]], dtype=int)


def site_design(number: NDArray[np.int_], n_groups: int, site: Term | None) -> GroupDesign | None:
    """The design of groups and sites alone; None where there are no two sites to tell from groups."""
    if site is None:
        return None
    used = (number >= 0) & site.there
    return GroupDesign(centred_design(number[used], n_groups, site.columns[used]), used, n_groups)


def confounding_text(people: pd.DataFrame, model: GroupModel, first: str, second: str) -> str:
    """That two groups cannot be told from their sites, with the counts."""
    counts = Counter(zip(people[model.group], people["site"], strict=True))
    shown = ", ".join(f"{g} at {site}: {n}" for (g, site), n in sorted(counts.items()) if g in (first, second) and site)
    return f"Group and site are confounded for {first} and {second} ({shown})"


def check_design(people: pd.DataFrame, model: GroupModel) -> DesignChecks:
    """Check what a model can tell about these participants, before any fit.

    Parameters
    ----------
    people
        One row per participant, texts: ``participant_id`` and the columns of participants.tsv.
    model
        The model, resolved or not.

    Raises
    ------
    InputError
        If the model names a group that nobody belongs to, or a covariate that is no category holds text.
    """
    import pandas as pd

    labels = group_labels(people, model)
    pairs = contrasts_of(model, labels)
    group_site = pd.DataFrame()
    if labels and "site" in model.held_constant and "site" in people:
        there = people[(people[model.group].fillna("") != "") & (people["site"].fillna("") != "")]
        group_site = pd.crosstab(there[model.group], there["site"])
    if len(labels) < 2:
        text = f"no two groups in column {model.group}: there is nothing to compare"
        rows = [_row("groups", "warn", len(labels), text)]
    else:
        terms = covariate_terms(people, model.held_constant, model.categories)
        number = group_numbers(people, model, labels)
        rows = [
            *_sizes(number, labels, group_site),
            *(_covariate(people, name, terms, number) for name in model.held_constant),
            *_inflations(terms, number, len(labels)),
            *_contrasts(people, model, terms, labels, pairs, group_site),
            *(_age(term, number, labels, pair, model.alpha) for term in terms if term.name == "age" for pair in pairs),
        ]
    return DesignChecks(pd.DataFrame(rows, columns=list(CHECK_COLUMNS)), group_site)


def _row(check: str, state: str, value: float, text: str) -> dict[str, Any]:
    return {"check": check, "state": state, "value": float(value), "text": text}


def _sizes(number: NDArray[np.int_], labels: Sequence[str], group_site: pd.DataFrame) -> list[dict[str, Any]]:
    """How many there are in each group, and in each group at each site."""
    sizes = np.bincount(number[number >= 0], minlength=len(labels))
    shown = ", ".join(f"{label}: {size}" for label, size in zip(labels, sizes, strict=True))
    rows = [_row("groups", "warn" if sizes.min() < FEW else "ok", sizes.min(), shown)]
    if none := int((number < 0).sum()):
        rows.append(_row("no group", "warn", none, f"{none} in no group: left out"))
    if group_site.size:
        counts = group_site.to_numpy(dtype=int)
        few = [
            f"{group_site.index[i]} at {group_site.columns[j]}: {counts[i, j]}"
            for i, j in np.argwhere((counts > 0) & (counts < FEW))
        ]
        text = f"fewer than {FEW} participants: {', '.join(few)}" if few else "none with few participants"
        rows.append(_row("groups at sites", "warn" if few else "ok", len(few), text))
    return rows


def _covariate(people: pd.DataFrame, name: str, terms: Sequence[Term], number: NDArray[np.int_]) -> dict[str, Any]:
    """Whether a covariate is there, and who lacks it."""
    if name not in people:
        return _row(name, "warn", np.nan, f"no column {name}: not held constant")
    term = next((term for term in terms if term.name == name), None)
    if term is None:
        return _row(name, "warn", np.nan, f"{name} is the same in all who have it: not held constant")
    who = [str(label) for label in people.loc[~term.there & (number >= 0), "participant_id"]]
    if not who:
        return _row(name, "ok", 0, "nobody lacks it")
    shown = ", ".join(who[:_SHOWN]) + (f" and {len(who) - _SHOWN} more" if len(who) > _SHOWN else "")
    return _row(name, "warn", len(who), f"{len(who)} without {name}, left out of adjusted models: {shown}")


def _inflations(terms: Sequence[Term], number: NDArray[np.int_], n_groups: int) -> list[dict[str, Any]]:
    """Rank of the design, and how far every term can be told from the others.

    The variance inflation factor of a term of several columns is the generalised one to the power of one over their
    number (Fox and Monette, J Am Stat Assoc 1992;87:178), which has the scale of the usual factor.
    """
    there = (number >= 0) & np.logical_and.reduce([np.ones(number.size, bool), *(term.there for term in terms)])
    groups = (number[there, None] == np.arange(1, n_groups)).astype(float)
    blocks = {"group": groups, **{term.name: term.columns[there] for term in terms}}
    blocks = {name: block[:, np.ptp(block, axis=0) > 0] for name, block in blocks.items()} if there.any() else {}
    blocks = {name: block for name, block in blocks.items() if block.size}
    if not blocks:
        return [_row("rank", "warn", 0, "nobody has all covariates")]
    full = np.column_stack(list(blocks.values()))
    rank, wanted = int(np.linalg.matrix_rank((full - full.mean(axis=0)) / full.std(axis=0))), full.shape[1]
    rows = [_row("rank", "ok" if rank == wanted else "warn", rank + 1, f"{rank + 1} of {wanted + 1} columns")]
    for name in blocks if len(blocks) > 1 else ():
        factor = _inflation(blocks[name], np.column_stack([b for other, b in blocks.items() if other != name]))
        text = f"variance inflation factor {factor:.3g}"
        rows.append(_row(f"VIF of {name}", "warn" if factor > INFLATED else "ok", factor, text))
    return rows


def _inflation(own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The determinant of what a term's columns hold, over that of what is left of them without the others."""
    own, others = (block - block.mean(axis=0) for block in (own, others))
    left = own - others @ np.linalg.pinv(others) @ own
    if np.linalg.matrix_rank(left, tol=1e-8 * float(np.linalg.norm(own))) < own.shape[1]:
        return float("inf")
    return float((np.linalg.det(own.T @ own) / np.linalg.det(left.T @ left)) ** (1.0 / own.shape[1]))


def _contrasts(
    people: pd.DataFrame, model: GroupModel, terms: Sequence[Term], labels: Sequence[str],
    pairs: Sequence[tuple[str, str]], group_site: pd.DataFrame,
) -> list[dict[str, Any]]:  # fmt: skip
    """Whether every contrast can be told from sites and covariates, and how far they inflate its variance."""
    number = group_numbers(people, model, labels)
    by_site = site_design(number, len(labels), next((term for term in terms if term.name == "site"), None))
    design = group_design(number, len(labels), stacked(terms, len(people)))
    places = {pair: tuple(labels.index(label) for label in pair) for pair in pairs}
    lost = [p for p, (a, b) in places.items() if by_site and not by_site.estimable(by_site.contrast({a: -1, b: 1}))]
    rows = []
    for pair, (a, b) in places.items():
        name = f"{pair[1]} minus {pair[0]}"
        contrast = design.contrast({a: -1.0, b: 1.0})
        # Of pairs that nobody named, those that can be told apart are still compared.
        if pair in lost:
            state = "stop" if model.contrasts or len(lost) == len(pairs) else "warn"
            rows.append(_row(name, state, np.inf, confounding_text(people, model, *pair)))
            continue
        shared = _shared(group_site, pair)
        if not design.estimable(contrast) or design.dof < 1:
            text = "it rests on one participant" if shared == 1 else "the covariates cannot be told from the groups"
            rows.append(_row(name, "warn", np.inf, f"no adjusted difference: {text}"))
            continue
        sizes = design.matrix[:, [a, b]].sum(axis=0)
        factor = float(contrast @ np.linalg.pinv(design.matrix.T @ design.matrix) @ contrast / (1.0 / sizes).sum())
        text = f"covariates inflate its variance {factor:.3g} times"
        if shared == 0:
            text += "; no site has both groups, so it rests on what other groups tell of the sites"
        elif shared == 1:
            text += "; only one participant of a group is at a site of the other"
        rows.append(_row(name, "warn" if factor > INFLATED or shared in (0, 1) else "ok", factor, text))
    return rows


def _shared(group_site: pd.DataFrame, pair: tuple[str, str]) -> int | None:
    """Participants of the one group at sites of the other, the smaller number; None where there are no two sites."""
    if group_site.shape[1] < 2 or not set(pair) <= set(group_site.index):
        return None
    first, second = (group_site.loc[label].to_numpy() for label in pair)
    return int(min(first[second > 0].sum(), second[first > 0].sum()))


def _age(
    term: Term, number: NDArray[np.int_], labels: Sequence[str], pair: tuple[str, str], alpha: float
) -> dict[str, Any]:
    """Whether two groups are of different age: by Welch's test, and in standard deviations."""
    ages = [term.columns[(number == labels.index(label)) & term.there, 0] for label in pair]
    name = f"age, {pair[1]} minus {pair[0]}"
    found = welch(*ages)
    if found is None:
        return _row(name, "warn", np.nan, "too few ages, or all the same")
    apart = found.value / float(np.sqrt((ages[0].var(ddof=1) + ages[1].var(ddof=1)) / 2))
    text = f"{found.value:+.1f} years ({apart:+.2f} standard deviations, p = {found.p:.2g})"
    return _row(name, "warn" if found.p < alpha or abs(apart) > AGE_APART else "ok", apart, text)
