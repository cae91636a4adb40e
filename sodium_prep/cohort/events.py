"""Time to an event: a table for survival programs, and hazard ratios of every main region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sodium_prep.cohort.columns import CATEGORIES, MEASURE, REGION, SCAN, correct_for_tests, numbers
from sodium_prep.cohort.columns import covariates as covariate_columns
from sodium_prep.cohort.model import MAIN_REGIONS
from sodium_prep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

EVENT_COLUMNS: Final[dict[str, str]] = {
    "participant_id": "Participant",
    "session_id": "Session of the values: the first one of the participant",
    "acquisition": "Entity acq of the sodium image",
    "reconstruction": "Entity rec of the sodium image",
    "atlas": "Atlas that the regions belong to",
    "time": "Time to the event, or to the last time without it, in the unit of participants.tsv",
    "event": "1: the event happened then; 0: it had not happened until then",
}
"""Columns of every table of events; group, covariates, and a column per region, estimator and reference follow."""
HAZARD_COLUMNS: Final[dict[str, str]] = {
    "covariates": "What is held constant",
    "state": "Whether it was estimated, or why not",
    "n": "Participants with value, time, event and all covariates",
    "events": "Events among them",
    "sd": "Standard deviation of the values, mmol/L",
    "hazard_ratio": "Factor of the hazard per standard deviation (Cox model, ties by Efron)",
    "ci_low": "Low end of its 95 % interval",
    "ci_high": "High end of its 95 % interval",
    "p": "Wald test of a ratio of 1",
    "p_fdr": "p corrected for the false discovery rate over the regions of one estimator and reference",
}
_WHERE: Final = "participants.tsv"


@dataclass(frozen=True)
class Events:
    """Who had the event and when.

    Attributes
    ----------
    table
        One row per participant and kind of scan, ready for R's ``survival`` and Python's ``lifelines``.
    left_out
        Participants with values but without time and event.
    """

    table: pd.DataFrame
    left_out: tuple[str, ...]


def _baseline(values: pd.DataFrame, time: str, event: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """First session's rows of those with time and event, checked, and who has neither."""
    frame = values[np.isfinite(values["tsc"])]
    order = ["participant_id", *SCAN, "session_id"]
    first = frame[order].drop_duplicates().sort_values(order).drop_duplicates(order[:-1])
    frame = frame.merge(first, on=order)
    times, happened = numbers(frame, time, _WHERE), numbers(frame, event, _WHERE)

    def refuse(wrong: Any, problem: str, column: str, mend: str) -> None:
        for _, row in frame[wrong].head(1).iterrows():
            raise InputError(_WHERE, f"has {problem} {row[column]!r} of {row['participant_id']}", mend)

    timed, told = np.isfinite(times), np.isfinite(happened)
    refuse(timed & (times < 0), f"the negative {time}", time, "Give the time from the first scan on")
    refuse(told & ~np.isin(happened, (0, 1)), f"the {event}", event, "Write 1 for the event, 0 without it")
    refuse(timed & ~told, f"no {event} for the {time}", time, "Give both, or n/a for both")
    refuse(told & ~timed, f"no {time} for the {event}", event, "Give both, or n/a for both")
    left_out = tuple(sorted(set(frame.loc[~timed, "participant_id"])))
    frame = frame.assign(**{"time": times, "event": happened})[timed]
    return frame.astype({"event": int}), left_out


def event_table(
    values: pd.DataFrame,
    *,
    time: str,
    event: str,
    group: str | None = "group",
    covariates: Sequence[str] = ("age", "sex", "site"),
    regions: Sequence[str] = MAIN_REGIONS,
) -> Events:
    """Participants with time, event, group, covariates and the TSC of regions at the first session.

    Parameters
    ----------
    values
        Values frame.
    time, event
        Columns with the time since the first scan, in any unit, and 1 or 0.
    group, covariates
        Columns to take along, where they are there.
    regions
        Regions, both hemispheres; their columns are called ``<region>_<estimator>_<reference>``.

    Raises
    ------
    InputError
        If a column is missing, a time negative, an event neither 0 nor 1, or one of both missing.
    """
    frame, left_out = _baseline(values, time, event)
    main = frame["region"].isin(regions) & (frame["hemisphere"] == "both") & (frame["index"] == "")
    frame = frame[main]
    own = [name for name in dict.fromkeys([*([group] if group else []), *covariates]) if name in frame]
    keys = [*EVENT_COLUMNS, *(name for name in own if name not in EVENT_COLUMNS)]
    label = frame["region"] + "_" + frame["estimator"] + "_" + frame["reference"]
    wide = frame.assign(label=label).pivot(index=keys, columns="label", values="tsc")
    table = wide[list(dict.fromkeys(label))].reset_index().rename_axis(columns=None)
    return Events(table, left_out)


def hazard_ratios(
    values: pd.DataFrame,
    *,
    time: str,
    event: str,
    covariates: Sequence[str] = ("age", "sex"),
    categories: Sequence[str] = CATEGORIES,
) -> pd.DataFrame:
    """Cox proportional hazards of every region at the first session: ratio per standard deviation.

    Parameters
    ----------
    values, time, event
        As in :func:`event_table`.
    covariates, categories
        Columns to hold constant, and which of them are categories.

    Returns
    -------
    Columns of the scan, the region, estimator, reference, and :data:`HAZARD_COLUMNS`. Fewer than ten events per
    column of the model are told in ``state``: such estimates are unstable (Peduzzi, J Clin Epidemiol 1995;48:1503).
    """
    import pandas as pd
    from scipy.stats import norm
    from statsmodels.duration.hazard_regression import PHReg

    frame, _ = _baseline(values, time, event)
    keys = [*SCAN, *REGION, *MEASURE]
    rows: list[dict[str, Any]] = []
    for labels, part in frame.groupby(keys, sort=False, dropna=False):
        used = part[covariate_columns(part, covariates, categories).complete]
        held = covariate_columns(used, covariates, categories)
        row: dict[str, Any] = dict(zip(keys, labels, strict=True))
        sd, events = float(used["tsc"].std()), int(used["event"].sum())
        row |= {"covariates": ", ".join(held.names), "n": len(used), "events": events, "sd": sd}
        rows.append(row)
        design = np.column_stack([used["tsc"] - used["tsc"].mean(), held.matrix])
        if row["region"] == row["reference"]:
            row["state"] = "not estimated: the reference itself, equal in all"
        elif not sd > 0 or events <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
            row["state"] = "not estimated: too few events, or covariates that cannot be told apart"
        else:
            design[:, 0] /= sd
            fit = PHReg(used["time"].to_numpy(), design, status=used["event"].to_numpy(), ties="efron").fit()
            slope, stderr = float(fit.params[0]), float(fit.bse[0])
            low, value, high = np.exp(slope + 1.959963984540054 * stderr * np.array([-1.0, 0.0, 1.0]))
            if not np.isfinite(high):
                row["state"] = "not estimated: the fit did not converge"
                continue
            few = events < 10 * design.shape[1]
            row |= {"state": "estimated" + ("; fewer than ten events per column" if few else "")}
            row |= {"hazard_ratio": value, "ci_low": low, "ci_high": high, "p": 2.0 * norm.sf(abs(slope) / stderr)}
    table = pd.DataFrame(rows, columns=[*keys, *HAZARD_COLUMNS])
    return correct_for_tests(table, [*SCAN, *MEASURE])
