"""Comparisons of groups in every region, under every estimator and reference."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.cohort.design import (
    Term,
    analysed,
    confounding_text,
    contrasts_of,
    covariate_terms,
    group_labels,
    group_numbers,
    people_of,
    site_design,
    stacked,
)
from sodium_prep.cohort.model import MAIN_REGIONS, TISSUE_COLUMNS, GroupModel
from sodium_prep.cohort.statistics import (
    GroupDesign,
    between_variance,
    difference_of,
    false_discovery,
    fit_linear,
    fit_robust,
    group_design,
    hedges_g,
    overall_test,
    welch,
)
from sodium_prep.cohort.values import STRATUM

if TYPE_CHECKING:
    import pandas as pd

MODELS: Final[dict[str, str]] = {
    "adjusted": "at equal covariates",
    "tissue_adjusted": "at equal covariates and tissue",
    "robust": "at equal covariates, by Huber's M estimator, if asked for",
    "weighted": "at equal covariates, weighted by the values' standard errors, if asked for",
}
"""Linear models of all groups together, and what each difference is."""


def _model_columns(name: str, what: str) -> dict[str, str]:
    errors = "" if name == "robust" else " (HC3)"
    return {
        name: f"Difference {what}, mmol/L",
        f"{name}_ci_low": f"Low end of its 95 % interval{errors}, mmol/L",
        f"{name}_ci_high": f"High end of its 95 % interval{errors}, mmol/L",
        f"{name}_percent": "The same in percent of the first group's mean in that model",
        f"{name}_p": f"Its test{errors}",
        f"{name}_p_fdr": f"{name}_p corrected for the false discovery rate within the family",
    }


COMPARISON_COLUMNS: Final[dict[str, str]] = {
    "region": "Region",
    "hemisphere": "Side: L, R or both",
    "role": "tested: of the family; negative_control: no difference is expected, and in no family",
    "group_1": "First group",
    "group_2": "Second group",
    "state": "Whether the comparison was made, or why not",
    "n_1": "Participants of the first group with a value",
    "n_2": "Participants of the second group with a value",
    "mean_1": "Mean of the first group, mmol/L",
    "sd_1": "Standard deviation of the first group, mmol/L",
    "mean_2": "Mean of the second group, mmol/L",
    "sd_2": "Standard deviation of the second group, mmol/L",
    "difference": "Second mean minus first, mmol/L",
    "difference_ci_low": "Low end of Welch's 95 % interval, mmol/L",
    "difference_ci_high": "High end of Welch's 95 % interval, mmol/L",
    "percent": "Difference in percent of the first mean",
    "p": "Welch's test",
    "p_fdr": "p corrected for the false discovery rate within the family",
    "hedges_g": "Difference in pooled standard deviations, without small-sample bias",
    "hedges_g_ci_low": "Low end of its 95 % interval",
    "hedges_g_ci_high": "High end of its 95 % interval",
    "covariates": "What the adjusted difference holds constant",
    "n_adjusted": "Participants of all groups in the adjusted model",
    "n_adjusted_1": "Those of the first group",
    "n_adjusted_2": "Those of the second group",
    **_model_columns("adjusted", MODELS["adjusted"]),
    "tissue_covariates": "What the tissue-adjusted difference holds constant besides",
    "n_tissue_adjusted": "Participants of all groups in the tissue-adjusted model",
    "n_tissue_adjusted_1": "Those of the first group",
    "n_tissue_adjusted_2": "Those of the second group",
    **_model_columns("tissue_adjusted", MODELS["tissue_adjusted"]),
    **_model_columns("robust", MODELS["robust"]),
    "n_weighted": "Participants of all groups in the weighted model: those whose value has a standard error",
    "weighted_sd": "Standard deviation between participants beyond their errors in the weighted model, mmol/L",
    **_model_columns("weighted", MODELS["weighted"]),
    "overall_f": "More than two groups: F of any difference between them in the adjusted model (HC3)",
    "overall_df_1": "Its degrees of freedom, groups",
    "overall_df_2": "Its degrees of freedom, error",
    "overall_p": "Its test",
    "overall_p_fdr": "overall_p corrected for the false discovery rate within the family",
    "reading": "What the models say together",
}
_TEXTS: Final = ("region", "hemisphere", "role", "group_1", "group_2", "state", "covariates", "tissue_covariates",
                 "reading")  # fmt: skip
_NUMBERS: Final = tuple(name for name in COMPARISON_COLUMNS if name not in _TEXTS)
_TESTS: Final = ("p", *(f"{name}_p" for name in MODELS), "overall_p")


@dataclass(frozen=True)
class Comparisons:
    """The table of comparisons, with the columns of the stratum, reference, estimator and :data:`COMPARISON_COLUMNS`.

    Attributes
    ----------
    table
        One row per stratum, reference, estimator, pair of groups, region and hemisphere.
    refusals
        What was not compared, and what stands in the way.
    """

    table: pd.DataFrame
    refusals: tuple[str, ...] = ()


def in_order(values: pd.DataFrame) -> pd.DataFrame:
    """Rows by stratum and reference, the references in the order of the regional tables: the primary one first."""
    rank = {name: i for i, name in enumerate(dict.fromkeys(values["reference"]))}
    by = [*STRATUM, "reference"]
    return values.sort_values(
        by, key=lambda column: column.map(rank) if column.name == "reference" else column, kind="stable",
        ignore_index=True,
    )  # fmt: skip


def compare_groups(values: pd.DataFrame, model: GroupModel | None = None) -> Comparisons:
    """Compare groups in every region, under every estimator and reference.

    Families of tests, within which the false discovery rate is controlled: the regions and hemispheres under test, for
    each stratum, estimator, reference, pair of groups and model.

    Parameters
    ----------
    values
        From :func:`sodium_prep.cohort.values.measured_values`.
    model
        The model; the default one if None.

    Raises
    ------
    InputError
        If the model names a group that nobody belongs to, or a covariate that is no category holds text.
    """
    import pandas as pd

    model = model or GroupModel()
    columns = [*STRATUM, "estimator", "reference", *COMPARISON_COLUMNS]
    values = analysed(values, model)
    labels = group_labels(values, model)
    pairs = contrasts_of(model, labels)
    chosen = _chosen(values, model)
    rows: list[dict[str, Any]] = []
    for _, part in in_order(chosen).groupby(list(STRATUM), sort=False):
        rows += _Stratum(part, model, labels, pairs).rows()
    table = pd.DataFrame(rows, columns=columns)
    if len(table):
        _set_readings(table, model.alpha)
    refused = table.loc[table["state"] == _CONFOUNDED, ["group_1", "group_2"]].drop_duplicates()
    people = people_of(values)
    refusals = [f"{confounding_text(people, model, a, b)}: not compared." for a, b in refused.to_numpy()]
    asked = [name for name in (*model.regions, *model.negative_controls) if name != "*"]
    if len(table) and (absent := [name for name in asked if name not in set(chosen["region"])]):
        refusals.append(f"The tables have no values of {', '.join(absent)}: not compared.")
    return Comparisons(table, tuple(refusals))


def regions_asked(values: pd.DataFrame, model: GroupModel, also: Collection[str] = ()) -> pd.Series[bool]:
    """The rows of the regions that a model names, and of others; no label of an atlas is a merged region."""
    merged = values["index"] == ""
    kept = merged | ~values["region"].isin(MAIN_REGIONS)
    if not model.regions:
        return kept & (merged | values["region"].isin(model.negative_controls))
    if "*" in model.regions:
        return kept
    return kept & values["region"].isin([*model.regions, *model.negative_controls, *also])


def _chosen(values: pd.DataFrame, model: GroupModel) -> pd.DataFrame:
    """The rows that the model compares."""
    kept = values["hemisphere"].isin(model.hemispheres) & regions_asked(values, model)
    for name, wanted in (("estimator", model.estimators), ("reference", model.references)):
        if wanted:
            kept &= values[name].isin(wanted)
    return values[kept]


_CONFOUNDED: Final = "group and site are confounded"


class _Stratum:
    """One stratum of values: participants are numbered once, and a design is made once for all who have a value."""

    def __init__(
        self, values: pd.DataFrame, model: GroupModel, labels: Sequence[str], pairs: Sequence[tuple[str, str]]
    ) -> None:
        self.values, self.model, self.n_groups = values, model, len(labels)
        self.pairs = {pair: (labels.index(pair[0]), labels.index(pair[1])) for pair in pairs}
        people = people_of(values)
        self.n = len(people)
        self.place = {label: i for i, label in enumerate(people["participant_id"])}
        self.number = group_numbers(people, model, labels)
        self.terms = covariate_terms(people, model.held_constant, model.categories)
        self.designs: dict[bytes, GroupDesign] = {}
        self.lost: dict[bytes, set[tuple[str, str]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, family by family."""
        order = {name: i for i, name in enumerate((*self.model.regions, *self.model.negative_controls))}
        found = []
        for keys, part in self.values.groupby([*STRATUM, "reference", "estimator"], sort=False):
            labels = dict(zip((*STRATUM, "reference", "estimator"), keys, strict=True))
            families: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in self.pairs}
            regions = [(str(r), str(h), here) for (r, h), here in part.groupby(["region", "hemisphere"], sort=False)]
            for region, side, here in sorted(regions, key=lambda one: order.get(one[0], 0)):
                role = "negative_control" if region in self.model.negative_controls else "tested"
                start = labels | {"region": region, "hemisphere": side, "role": role}
                for pair, row in self._compare(here, itself=labels["reference"] == region).items():
                    families[pair].append(start | row)
            for family in families.values():
                _correct(family)
                found += family
        return found

    def _compare(self, here: pd.DataFrame, *, itself: bool) -> dict[tuple[str, str], dict[str, Any]]:
        """Every pair of groups in one region, by one estimator and reference."""
        places = [self.place[label] for label in here["participant_id"]]
        columns = {"tsc": np.full(self.n, np.nan)}
        for name in ("tsc", "tsc_stderr_within", *self.model.tissue_covariates):
            if name in here:
                columns[name] = np.full(self.n, np.nan)
                columns[name][places] = here[name].to_numpy(dtype=float)
        y = columns["tsc"]
        models = {} if itself else self._models(columns)
        out = {}
        for pair, (a, b) in self.pairs.items():
            first, second = (y[(self.number == i) & np.isfinite(y)] for i in (a, b))
            row: dict[str, Any] = {name: 0 if name.startswith("n_") else float("nan") for name in _NUMBERS}
            row |= dict.fromkeys(("covariates", "tissue_covariates", "reading"), "")
            row |= {"group_1": pair[0], "group_2": pair[1], "n_1": first.size, "n_2": second.size}
            if itself:
                row["state"] = "not compared: the reference itself, equal in all"
            elif pair in self._confounded(np.isfinite(y)):
                row["state"] = _CONFOUNDED
            elif min(first.size, second.size) < 2:
                row["state"] = "too few participants (fewer than 2 in a group)"
            else:
                row |= {"state": "compared"} | _raw(first, second) | models[pair]
            out[pair] = row
        return out

    def _confounded(self, there: NDArray[np.bool_]) -> set[tuple[str, str]]:
        """Pairs whose difference is not determined with sites in the model, among those who have a value."""
        key = there.tobytes()
        if key not in self.lost:
            site = next((term for term in self.terms if term.name == "site"), None)
            design = site_design(np.where(there, self.number, -1), self.n_groups, site)
            self.lost[key] = {
                pair
                for pair, (a, b) in self.pairs.items()
                if design and not design.estimable(design.contrast({a: -1.0, b: 1.0}))
            }
        return self.lost[key]

    def _design(self, there: NDArray[np.bool_]) -> GroupDesign:
        """The design of groups and covariates for those who have a value."""
        key = there.tobytes()
        if key not in self.designs:
            self.designs[key] = self._make_design(there, self.terms)
        return self.designs[key]

    def _make_design(self, there: NDArray[np.bool_], terms: Sequence[Term]) -> GroupDesign:
        return group_design(np.where(there, self.number, -1), self.n_groups, stacked(terms, self.n))

    def _models(self, columns: Mapping[str, NDArray[np.float64]]) -> dict[tuple[str, str], dict[str, Any]]:
        """Columns of all linear models of one region, for every pair."""
        y = columns["tsc"]
        there = np.isfinite(y)
        tissue = [Term(name, columns[name][:, None]) for name in self.model.tissue_covariates if name in columns]
        tissue = [t for t in tissue if (t.there & there).any() and np.ptp(t.columns[t.there & there]) > 0]
        found = []
        if self.terms:
            design = self._design(there)
            possible = self._possible(design)
            found.append(self._text("covariates", design, self.terms, possible))
            if possible:
                fit = fit_linear(y[design.used], design.matrix)
                found.append(self._columns("adjusted", fit, design, possible))
                found.append(dict.fromkeys(possible, _overall(fit, design)))
                if self.model.robust:
                    robust = fit_robust(y[design.used], design.matrix)
                    found.append(self._columns("robust", robust, design, possible))
            if self.model.weights and "tsc_stderr_within" in columns:
                found += self._weighted(y, columns["tsc_stderr_within"], there)
        if tissue:
            design = self._make_design(there, [*self.terms, *tissue])
            possible = self._possible(design)
            found.append(self._text("tissue_covariates", design, tissue, possible))
            if possible:
                fit = fit_linear(y[design.used], design.matrix)
                found.append(self._columns("tissue_adjusted", fit, design, possible))
        out: dict[tuple[str, str], dict[str, Any]] = {
            pair: {"covariates": "none available", "tissue_covariates": "none available"} for pair in self.pairs
        }
        for one in found:
            for pair, cells in one.items():
                out[pair] |= cells
        return out

    def _weighted(
        self, y: NDArray[np.float64], errors: NDArray[np.float64], there: NDArray[np.bool_]
    ) -> list[dict[tuple[str, str], dict[str, Any]]]:
        """The adjusted model with the weight of a value by its own error and the scatter between participants."""
        design = self._design(there & (errors > 0))
        possible = self._possible(design)
        if not possible:
            return []
        variances = errors[design.used] ** 2
        between = between_variance(y[design.used], variances, design.matrix)
        fit = fit_linear(y[design.used], design.matrix, 1.0 / (between + variances))
        scatter: dict[str, Any] = {"weighted_sd": between**0.5}
        return [self._columns("weighted", fit, design, possible), {pair: scatter for pair in possible}]

    def _possible(self, design: GroupDesign) -> list[tuple[str, str]]:
        """The pairs whose difference the design determines, with something left for its error."""
        return [
            pair
            for pair, (a, b) in self.pairs.items()
            if design.dof > 0 and design.estimable(design.contrast({a: -1.0, b: 1.0}))
        ]

    def _text(
        self, name: str, design: GroupDesign, terms: Sequence[Term], possible: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """What a model holds constant, and for which pairs it cannot."""
        used = design.used
        held = [term.name for term in terms if used.any() and np.ptp(term.columns[used], axis=0).any()]
        names = ", ".join(held or [term.name for term in terms])
        return {pair: {name: names if pair in possible else f"{names}: not estimable"} for pair in self.pairs}

    def _columns(
        self, name: str, fit: Any, design: GroupDesign, possible: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """The difference of every pair in one fit, with who made it."""
        sizes = design.matrix[:, : self.n_groups].sum(axis=0).astype(int)
        out: dict[tuple[str, str], dict[str, Any]] = {}
        for pair in possible:
            a, b = self.pairs[pair]
            out[pair] = {
                key: int(n)
                for key, n in ((f"n_{name}", sizes.sum()), (f"n_{name}_1", sizes[a]), (f"n_{name}_2", sizes[b]))
                if key in COMPARISON_COLUMNS
            }
            found = difference_of(fit, design.contrast({a: -1.0, b: 1.0}))
            if found is not None:
                mean = design.contrast({a: 1.0})
                percent = 100.0 * found.value / float(mean @ fit.params) if design.estimable(mean) else float("nan")
                out[pair] |= {
                    name: found.value, f"{name}_ci_low": found.low, f"{name}_ci_high": found.high,
                    f"{name}_percent": percent, f"{name}_p": found.p,
                }  # fmt: skip
        return out


def _raw(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, Any]:
    """Means, Welch's interval and Hedges' g."""
    row: dict[str, Any] = {
        "mean_1": first.mean(), "mean_2": second.mean(), "sd_1": first.std(ddof=1), "sd_2": second.std(ddof=1),
    }  # fmt: skip
    if plain := welch(first, second):
        row |= {
            "difference": plain.value, "difference_ci_low": plain.low, "difference_ci_high": plain.high,
            "percent": 100.0 * plain.value / first.mean(), "p": plain.p,
        }  # fmt: skip
    if size := hedges_g(first, second):
        row |= dict(zip(("hedges_g", "hedges_g_ci_low", "hedges_g_ci_high"), size, strict=True))
    return row


def _overall(fit: Any, design: GroupDesign) -> dict[str, Any]:
    """Whether any of more than two groups differs, where all their differences are determined."""
    present = np.flatnonzero(design.matrix[:, : design.n_groups].any(axis=0))
    contrasts = [design.contrast({present[0]: -1.0, i: 1.0}) for i in present[1:]]
    if len(contrasts) < 2 or not all(design.estimable(contrast) for contrast in contrasts):
        return {}
    found = overall_test(fit, np.array(contrasts))
    return dict(zip(("overall_f", "overall_df_1", "overall_df_2", "overall_p"), found, strict=True)) if found else {}


def _correct(family: Sequence[dict[str, Any]]) -> None:
    """Set the corrected p values of one family; negative controls are not of it."""
    tested = [row for row in family if row["role"] == "tested"]
    for name in _TESTS:
        for row, q in zip(tested, false_discovery([row[name] for row in tested]), strict=True):
            row[f"{name}_fdr"] = float(q)


_WITHIN: Final = (*STRATUM, "region", "hemisphere", "group_1", "group_2")


def _set_readings(table: pd.DataFrame, alpha: float) -> None:
    """Fill the column ``reading``."""
    readings = [_reading(row, alpha) for row in table.to_dict("records")]
    places = {index: i for i, index in enumerate(table.index)}
    for _, part in table[table["state"] == "compared"].groupby([*_WITHIN, "reference"], sort=False):
        records = {places[i]: row for i, row in zip(part.index, part.to_dict("records"), strict=True)}
        plain = {i for i, row in records.items() if row["estimator"] == "none" and _differs(row, alpha)}
        corrected = [row for row in records.values() if row["estimator"] != "none"]
        if plain and corrected and not any(_differs(row, alpha) for row in corrected):
            for i in plain:
                readings[i] += "; only without partial volume correction"
    for _, part in table[table["state"] == "compared"].groupby([*_WITHIN, "estimator"], sort=False):
        if _opposed(part.to_dict("records"), alpha):
            for index in part.index:
                readings[places[index]] += "; the sign depends on the reference"
    table["reading"] = readings


def _main(row: Mapping[Any, Any]) -> str:
    """The model that counts: the adjusted one where there is one."""
    return "adjusted" if np.isfinite(row["adjusted_p"]) else "difference"


def _p(row: Mapping[Any, Any], name: str) -> float:
    """The p value of a model that decides: within its family, or alone for a negative control."""
    column = "p" if name == "difference" else f"{name}_p"
    return float(row[column if row["role"] == "negative_control" else f"{column}_fdr"])


def _differs(row: Mapping[Any, Any], alpha: float) -> bool:
    return _p(row, _main(row)) < alpha


def _reading(row: Mapping[Any, Any], alpha: float) -> str:
    """What the models of one row say together."""
    if row["state"] != "compared":
        return ""
    tissue = " and ".join(TISSUE_COLUMNS.get(name, name) for name in str(row["tissue_covariates"]).split(", "))
    known = np.isfinite(row["tissue_adjusted_p"])
    at_tissue = known and _p(row, "tissue_adjusted") < alpha
    if _differs(row, alpha):
        side = "higher" if row[_main(row)] > 0 else "lower"
        if not known:
            words = f"{side}; not known whether at equal tissue"
        elif at_tissue and row["tissue_adjusted"] * row[_main(row)] > 0:
            words = f"{side}, at equal {tissue} too"
        else:
            words = f"{side}, but not shown at equal {tissue}: may be atrophy or CSF"
    elif at_tissue:
        words = f"{'higher' if row['tissue_adjusted'] > 0 else 'lower'} only at equal {tissue}"
    elif _p(row, "difference") < alpha:
        words = f"differs only before adjustment for {row['covariates']}"
    else:
        return "no difference shown"
    if row["role"] == "negative_control":
        words += "; a negative control: think of calibration, coils or motion before disease"
    return words


def _opposed(rows: Sequence[Mapping[Any, Any]], alpha: float) -> bool:
    """Whether references disagree in the sign of a difference that one of them shows."""
    signs = {np.sign(row[_main(row)]) for row in rows}
    return {-1.0, 1.0} <= signs and any(_differs(row, alpha) for row in rows)
