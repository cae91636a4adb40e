"""The values that a cohort is analysed on: one per scan, region, estimator and reference, with who was scanned."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import numpy as np

from sodium_prep.cohort.names import ENTITIES
from sodium_prep.cohort.tables import NUMBERS, Cohort, joined

if TYPE_CHECKING:
    import pandas as pd

STRATUM: Final[tuple[str, ...]] = ("session_id", "acquisition", "reconstruction", "atlas")
"""Values of different sessions, acquisitions, reconstructions or atlases are never mixed; runs are averaged."""

_ROW: Final = ("index", "region", "hemisphere", "estimator", "reference")
_AVERAGED: Final = tuple(name for name in NUMBERS if name not in ("index", "tsc_ci_low", "tsc_ci_high"))


def measured_values(
    cohort: Cohort,
    *,
    regions: Collection[str] = (),
    average_runs: bool = True,
) -> pd.DataFrame:
    """Values with a finite concentration, and what participants.tsv and sessions.tsv say of who was scanned.

    Parameters
    ----------
    cohort
        From :func:`sodium_prep.cohort.tables.gather`.
    regions
        Names to keep; all by default.
    average_runs
        One value for the runs of a session, otherwise one for each (column ``run``).

    Returns
    -------
    One row per participant, :data:`STRATUM`, ``index`` (text; empty for merged regions), ``region``, ``hemisphere``,
    ``estimator`` and ``reference``, in the order of the tables: the primary reference first. Numbers as in the regional
    tables; of runs averaged, their mean, and errors from it: ``tsc_stderr_within`` of independent runs, while what the
    regions of a scan share, such as the concentrations of the vials, is taken as common to the runs too. All else is
    text, empty where missing.
    """
    long = cohort.tsc
    chosen = np.isfinite(long["tsc"].to_numpy(dtype=float))
    if regions:
        chosen &= long["name"].isin(list(regions)).to_numpy()
    frame = long[chosen].rename(columns={"name": "region"}).reset_index(drop=True)
    frame["index"] = _as_text(frame["index"]) if "index" in frame else ""
    frame = _plain_text(frame)
    return _plain_text(joined(_averaged(frame) if average_runs else frame, cohort))


def _as_text(labels: pd.Series[float]) -> list[str]:
    return ["" if label != label else f"{label:.0f}" for label in labels]


def _plain_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Texts as themselves, where the gathered tables hold codes."""
    import pandas as pd

    coded = [name for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)]
    return frame.astype(dict.fromkeys(coded, object))


def _averaged(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs of a session as one value; a single run stays as it is."""
    keys = ["participant_id", *STRATUM, *_ROW]
    if not frame.duplicated(keys).any():
        return frame.drop(columns="run")
    numbers = [name for name in _AVERAGED if name in frame]
    errors = "tsc_stderr_within" in frame and "tsc_stderr" in frame
    if errors:
        within, total = frame["tsc_stderr_within"], frame["tsc_stderr"]
        frame = frame.assign(_within=within**2, _shared=(total**2 - within**2).clip(lower=0.0))
    groups = frame.groupby(keys, sort=False)
    out = groups[numbers].mean()
    if errors:
        within = groups["_within"].sum(min_count=1) / groups["_within"].count() ** 2
        out["tsc_stderr_within"] = np.sqrt(within)
        out["tsc_stderr"] = np.sqrt(within + groups["_shared"].mean())
    texts = [name for name in frame.columns if name not in (*keys, *NUMBERS, *ENTITIES.values(), "_within", "_shared")]
    for name in texts:
        out[name] = groups[name].agg(lambda cells: ", ".join(dict.fromkeys(filter(None, cells))))
    return out.reset_index()
