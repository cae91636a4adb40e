"""Normative scores: how unusual a participant's values are among the controls, and ratios of lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.cohort.values import STRATUM
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

NORMATIVE_COLUMNS: Final[dict[str, str]] = {
    "participant_id": "Participant",
    "region": "Region",
    "hemisphere": "Side of the brain; L for the asymmetry of a pair",
    "index": "Label of the region in the atlas",
    "estimator": "Partial volume correction",
    "reference": "What the concentration was calibrated by",
    "measure": "tsc, mmol/L, or asymmetry, 200 (L - R) / (L + R) in percent",
    "value": "The value itself",
    "expected": "What a control of the same age, sex and site has on average",
    "z": "How far the value lies from that: standard normal in controls, however few they are",
    "n_controls": "Controls that the value is compared with, never the participant",
    "z_csf": "z of the CSF in the region's signal; of a pair, that of the side farther from 0",
    "lateralisation": "Of an asymmetry beyond the limit: the side that is higher than in controls",
    "state": "scored; extrapolated: age outside the controls'; excluded: unusual CSF; not scored",
    "reason": "Why a value is not plainly scored",
}

LESION_COLUMNS: Final[dict[str, str]] = {
    "participant_id": "Participant",
    "region": "Lesion, its rim, or a tissue of either",
    "hemisphere": "Side of the brain",
    "estimator": "Partial volume correction",
    "reference": "What the concentration was calibrated by",
    "tsc": "Concentration in the lesion, mmol/L",
    "tsc_stderr": "Its standard error, mmol/L",
    "volume_mm3": "Volume, mm^3",
    "mirror_ratio": "Concentration over that of what lies opposite",
    "mirror_ratio_stderr": "Its standard error",
    "excess_percent": "How much higher than opposite, percent",
    "onset": "Time since onset, in the unit of the data set's column; n/a where it is no number",
}

_FEATURE: Final = ("region", "hemisphere", "index", "estimator", "reference")
_FEW: Final = 10
_CONSTANT: Final = 1e-9  # of the largest value: rounding
_ESTIMABLE: Final = 1e-6


@dataclass(frozen=True)
class NormativeScores:
    """The table of :data:`NORMATIVE_COLUMNS` behind the columns of a stratum, and what its reader must know."""

    table: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """Arrays (n, f): z, expected value, and the number of controls behind them; nan and 0 where there is none."""

    z: Array
    expected: Array
    n_controls: NDArray[np.int64]


def normative_z(values: ArrayLike, design: ArrayLike, control: ArrayLike) -> Scores:
    """Scores of every value against the regression of the controls on their covariates.

    A value's distance from what the controls predict, over the standard error of that prediction, has Student's t
    distribution; z is the normal quantile of equal probability (the tolerance that Crawford and Howell, Clin
    Neuropsychol 1998;12:482, give to a single case, here with covariates). A control is compared with the others: the
    externally studentised residual, which needs no second fit (Cook and Weisberg, Residuals and Influence in
    Regression, 1982, section 2.2.1).

    Parameters
    ----------
    values
        (n, f), nan where missing.
    design
        (n, k) with the intercept, nan in the rows of whom a covariate is missing. It may have more columns than can be
        estimated: who needs such a column gets no score.
    control
        Who is a control, (n,).

    Returns
    -------
    Scores, within ±37. No score where the controls leave no degree of freedom or do not differ.
    """
    y, x = np.asarray(values, dtype=float), np.asarray(design, dtype=float)
    known = np.isfinite(x).all(axis=1)
    norm = np.asarray(control, dtype=bool) & known
    out = Scores(np.full(y.shape, np.nan), np.full(y.shape, np.nan), np.zeros(y.shape, dtype=np.int64))
    patterns, of = np.unique(np.isfinite(y[norm]), axis=1, return_inverse=True)
    for i in range(patterns.shape[1]):
        columns = np.flatnonzero(of.ravel() == i)
        rows = np.flatnonzero(norm)[patterns[:, i]]
        _score_alike(y, np.where(known[:, None], x, 0.0), known, rows, columns, out)
    return out


def _score_alike(
    y: Array, x: Array, known: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64], out: Scores
) -> None:
    """Score columns whose values come from the same controls."""
    from scipy.special import ndtri, stdtr

    if rows.size == 0:
        return
    inverse = np.linalg.pinv(x[rows], rcond=1e-10)
    rank = round(float(np.trace(inverse @ x[rows])))
    size = np.linalg.norm(x, axis=1)
    reachable = known & (np.linalg.norm(x - (x @ inverse) @ x[rows], axis=1) <= _ESTIMABLE * size)
    expected = x @ (inverse @ y[np.ix_(rows, columns)])
    spread = np.sum((x @ inverse) ** 2, axis=1)  # x0' (X'X)^-1 x0, the leverage of a control
    distance = y[:, columns] - expected
    squares = np.sum(distance[rows] ** 2, axis=0)
    nothing = rows.size * (_CONSTANT * np.abs(y[np.ix_(rows, columns)]).max(axis=0)) ** 2
    dof = np.full(len(y), rows.size - rank)
    residual, others = np.broadcast_to(squares, distance.shape).copy(), np.full(len(y), rows.size)
    widen = 1.0 + spread
    if rows.size - rank - 1 > 0:
        left = 1.0 - spread[rows]
        reachable[rows] &= left > _ESTIMABLE
        left = np.where(left > _ESTIMABLE, left, 1.0)
        distance[rows] /= left[:, None]  # what the fit without this control leaves
        residual[rows] -= distance[rows] ** 2 * left[:, None]
        expected[rows] = y[np.ix_(rows, columns)] - distance[rows]
        widen[rows] = 1.0 / left
    else:
        reachable[rows] = False
    dof[rows] -= 1
    others[rows] -= 1
    good = reachable[:, None] & (dof > 0)[:, None] & (residual > nothing) & np.isfinite(distance)
    variance = np.where(good, residual, 1.0) / np.maximum(dof, 1)[:, None] * widen[:, None]
    t = distance / np.sqrt(variance)
    p = np.maximum(stdtr(dof[:, None].astype(float), -np.abs(t)), np.finfo(float).tiny)
    at = np.ix_(np.arange(len(y)), columns)
    out.z[at] = np.where(good, -np.sign(distance) * ndtri(p), np.nan)
    out.expected[at] = np.where(good, expected, np.nan)
    out.n_controls[at] = np.where(good, others[:, None], 0)


def normative_scores(
    values: pd.DataFrame,
    *,
    control: str,
    group: str = "group",
    covariates: Sequence[str] = ("age", "sex", "site"),
    numbers: Sequence[str] = ("age",),
    limit: float = 1.96,
) -> NormativeScores:
    """Score the concentrations and asymmetries of all participants against the controls of the same stratum.

    Parameters
    ----------
    values
        One row per participant, stratum, region, hemisphere, estimator and reference.
    control, group
        Label of the controls, and the column that holds it.
    covariates, numbers
        What the controls are regressed on, and which of these are numbers; the others are categories. Columns that
        are not there are told and not used.
    limit
        Of two sides. A region whose share of CSF signal (``csf_signal_fraction``; ``csf_fraction`` where the controls
        have none) has a z beyond it is excluded (Ridley et al., NeuroImage 2017;157:173), unless it is CSF itself; an
        asymmetry beyond it is lateralised.

    Raises
    ------
    InputError
        If there is no such column or nobody is a control.
    """
    import pandas as pd

    if group not in values:
        raise InputError("Normative scores", f"there is no column {group}", "Name the column that holds the groups")
    if not (values[group] == control).any():
        there = ", ".join(sorted({str(label) for label in values[group]} - {""})) or "none"
        raise InputError("Normative scores", f"no participant has {group} {control}", f"The labels are: {there}")
    used = [name for name in covariates if name in values and (values[name] != "").any()]
    notes = [f"There is no {name}: the scores are not adjusted for it." for name in covariates if name not in used]
    fractions = [name for name in ("csf_signal_fraction", "csf_fraction") if name in values]
    if not fractions:
        notes.append("The tables have no share of CSF: no region is excluded for it.")
    parts = []
    for key, part in values.groupby(list(STRATUM), sort=False):
        scored, told = _score_stratum(part, group, control, used, numbers, fractions, limit)
        label = " ".join(filter(None, map(str, key)))
        notes += [f"{label}: {note}" for note in told]
        parts.append(scored)
    return NormativeScores(pd.concat(parts, ignore_index=True), tuple(notes))


def _score_stratum(
    part: pd.DataFrame,
    group: str,
    control: str,
    covariates: Sequence[str],
    numbers: Sequence[str],
    fractions: Sequence[str],
    limit: float,
) -> tuple[pd.DataFrame, list[str]]:
    import pandas as pd

    people = part.drop_duplicates("participant_id")
    row = pd.Index(people["participant_id"]).get_indexer(pd.Index(part["participant_id"]))
    column = part.groupby(list(_FEATURE), sort=False, dropna=False).ngroup().to_numpy()
    norm = (people[group] == control).to_numpy()
    design, outside, why = _design(people, norm, covariates, numbers)
    notes = []
    if (few := int((norm & np.isfinite(design).all(axis=1)).sum())) < _FEW:
        notes.append(
            f"{few} controls, fewer than {_FEW}: the scores allow for it, but one odd control moves all of them."
        )
    if lost := int((norm & ~np.isfinite(design).all(axis=1)).sum()):
        notes.append(f"{lost} controls without a covariate are left out of the norm.")

    def wide(name: str) -> Array:
        out = np.full((len(people), int(column.max()) + 1), np.nan)
        out[row, column] = part[name].to_numpy(dtype=float)
        return out

    fluid = np.full((len(people), int(column.max()) + 1), np.nan)
    for name in fractions:
        share = wide(name)
        unknown = ~np.isfinite(fluid[norm]).any(axis=0)
        fluid[:, unknown] = share[:, unknown]
    z_csf = normative_z(fluid, design, norm).z[row, column]
    z_csf[(part["region"] == "CSF") | (part["tissue"] == "CSF" if "tissue" in part else False)] = np.nan
    tables = []
    for measure, z_fluid in (("tsc", z_csf), ("asymmetry", _of_pair(part, z_csf))):
        if measure not in part:
            continue
        scores = normative_z(wide(measure), design, norm)
        table = part[["participant_id", *STRATUM, *_FEATURE]].assign(
            measure=measure,
            value=part[measure].to_numpy(dtype=float),
            expected=scores.expected[row, column],
            z=scores.z[row, column],
            n_controls=scores.n_controls[row, column],
            z_csf=z_fluid,
            lateralisation="",
        )
        if measure == "asymmetry":
            pairs = ((part["hemisphere"] == "L") & np.isfinite(table["value"])).to_numpy()
        else:
            pairs = np.ones(len(part), dtype=bool)
        tables.append(_stated(table[pairs], outside[row][pairs], why[row][pairs], limit))
    return pd.concat(tables), notes


def _stated(table: pd.DataFrame, outside: NDArray[Any], why: NDArray[Any], limit: float) -> pd.DataFrame:
    """Add state, reason and lateralisation; ``outside`` and ``why`` are words on each row's participant."""
    z, z_csf = table["z"].to_numpy(), table["z_csf"].to_numpy()
    state, reason = np.full(len(table), "scored", dtype=object), np.full(len(table), "", dtype=object)
    far = outside != ""
    state[far], reason[far] = "extrapolated", outside[far]
    wet = np.abs(z_csf) >= limit
    state[wet] = "excluded"
    for i in np.flatnonzero(wet):
        reason[i] = "; ".join(filter(None, (reason[i], f"unusual share of CSF (z {z_csf[i]:.1f})")))
    none = ~np.isfinite(z)
    state[none], reason[none] = "not scored", "too few controls, or they do not differ"
    for there, text in (
        ((why != "") & none, why),
        ((table["region"] == table["reference"]).to_numpy() & none, "the reference itself"),
        (~np.isfinite(table["value"].to_numpy()), "no value"),
    ):
        reason[there] = text[there] if isinstance(text, np.ndarray) else text
    side = np.full(len(table), "", dtype=object)
    clear = (table["measure"] == "asymmetry").to_numpy() & (np.abs(z) >= limit) & (state != "excluded")
    side[clear] = np.where(z[clear] > 0, "left", "right")
    return table.assign(lateralisation=side, state=state, reason=reason)


def _of_pair(part: pd.DataFrame, z: Array) -> Array:
    """The z of the side of a pair that lies farther from zero; of a row without a partner, its own."""
    import pandas as pd

    keys = [part[name].to_numpy() for name in ("participant_id", "region", "estimator", "reference")]
    sides = pd.Series(np.where(part["hemisphere"].isin(["L", "R"]), z, np.nan)).groupby(keys)
    high, low = sides.transform("max").to_numpy(), sides.transform("min").to_numpy()
    return np.where(np.isnan(high), z, np.where(high >= -low, high, low))


def _design(
    people: pd.DataFrame, norm: NDArray[np.bool_], covariates: Sequence[str], numbers: Sequence[str]
) -> tuple[Array, NDArray[Any], NDArray[Any]]:
    """Columns of the regression, whose number lies outside the controls', and why somebody cannot be scored."""
    import pandas as pd

    columns: list[Array] = [np.ones(len(people))]
    outside, why = (np.full(len(people), "", dtype=object) for _ in range(2))
    for name in covariates:
        if name in numbers:
            number = pd.to_numeric(people[name], errors="coerce").to_numpy(dtype=float)
            there = np.isfinite(number)
            number = np.where(there, number, np.nan)
            own = number[norm & there]
            columns.append((number - own.mean()) / (own.std() or 1.0) if own.size else number)
            for i in np.flatnonzero((number < own.min()) | (number > own.max())) if own.size else ():
                outside[i] = f"{name} {number[i]:g} outside the controls' {own.min():g} to {own.max():g}"
        else:
            cells = np.array(["" if cell != cell else str(cell) for cell in people[name]], dtype=object)
            there = cells != ""
            for level in sorted({*cells[there]}):
                columns.append(np.where(there, (cells == level).astype(float), np.nan))
                if not (norm & (cells == level)).any():
                    why[(cells == level) & (why == "")] = f"no control with {name} {level}"
                elif (norm & (cells == level)).sum() == 1:
                    why[norm & (cells == level) & (why == "")] = f"the only control with {name} {level}"
        why[~there] = f"{name} is missing"
    return np.column_stack(columns), outside, why


def lesion_ratios(values: pd.DataFrame, *, onset: str | None = None) -> pd.DataFrame:
    """Concentration of lesions over that of what lies opposite, with the time since onset.

    Parameters
    ----------
    values
        As for :func:`normative_scores`, with ``mirror_ratio`` in the rows of lesions.
    onset
        Column with the time since onset as a number; its unit stays as it is.

    Returns
    -------
    Columns of a stratum and those of :data:`LESION_COLUMNS` that there are data for, by time since onset; empty if
    nobody has a lesion.

    Raises
    ------
    InputError
        If there is no such column.
    """
    import pandas as pd

    if onset is not None and onset not in values:
        raise InputError("Lesions", f"there is no column {onset}", "Name the column with the time since onset")
    ratio = values["mirror_ratio"].to_numpy(dtype=float) if "mirror_ratio" in values else np.full(len(values), np.nan)
    rows = values[np.isfinite(ratio)]
    out: pd.DataFrame = rows[[n for n in (*LESION_COLUMNS, *STRATUM) if n in rows and n != "onset"]].assign(
        excess_percent=100.0 * (ratio[np.isfinite(ratio)] - 1.0),
        onset=pd.to_numeric(rows[onset], errors="coerce").astype(float) if onset else float("nan"),
    )
    order = ["participant_id", *STRATUM, *(n for n in LESION_COLUMNS if n != "participant_id")]
    by = ["onset", "participant_id"]
    return out[[n for n in order if n in out]].sort_values(by, kind="stable", ignore_index=True)
