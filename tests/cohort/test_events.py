"""Time to event: the table, its checks, and a simulated hazard."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sodium_prep.cohort.events import EVENT_COLUMNS, HAZARD_COLUMNS, event_table, hazard_ratios
from sodium_prep.cohort.tsv import to_tsv
from sodium_prep.errors import InputError
from tests.cohort.frames import values_frame


def study(n=300, seed=0):
    """Hazard 0.2 exp(0.7 z) per year with z the standardised cortical TSC; followed for 5 years."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    z = (z - z.mean()) / z.std(ddof=1)
    age = rng.integers(50, 80, n)
    until = rng.exponential(1.0 / (0.2 * np.exp(0.7 * z + 0.05 * (age - 65))))
    people = {
        "years": [f"{min(t, 5.0):.6g}" for t in until], "died": (until < 5).astype(int).astype(str),
        "group": "ALS", "age": age.astype(str),
    }  # fmt: skip
    cortex = values_frame(np.arange(n), tsc=45 + 3 * z, **people)
    csf = values_frame(np.arange(n), region="CSF", tsc=140 + rng.normal(size=n), **people)
    return pd.concat([cortex, csf], ignore_index=True)


def test_hazard_ratio_of_a_simulated_hazard():
    table = hazard_ratios(study(), time="years", event="died", covariates=("age",)).set_index("region")
    row = table.loc["Cortex"]
    assert row["ci_low"] < np.exp(0.7) < row["ci_high"]
    assert row["ci_high"] / row["ci_low"] < 1.6
    assert_allclose(row["sd"], 3.0)
    assert row["state"] == "estimated"
    assert table.loc["CSF", "ci_low"] < 1 < table.loc["CSF", "ci_high"]
    assert_allclose(row["p_fdr"], min(2 * row["p"], table.loc["CSF", "p"]))
    assert [*table.columns[-len(HAZARD_COLUMNS) :]] == [*HAZARD_COLUMNS]
    few = study(12).assign(died=["1", "1", *["0"] * 10] * 2)
    assert set(hazard_ratios(few, time="years", event="died")["state"]) == {
        "not estimated: too few events, or covariates that cannot be told apart"
    }


def test_table_of_the_first_session_is_ready_for_survival_programs():
    frame = study(6)
    later = frame.assign(session_id="2", tsc=0.0)
    frame = pd.concat([later, frame.assign(session_id="1")], ignore_index=True)
    frame.loc[frame["participant_id"] == "003", ["years", "died"]] = ""
    found = event_table(frame, time="years", event="died")
    assert found.left_out == ("003",)
    own = ["group", "age", "Cortex_labbe_vials", "CSF_labbe_vials"]
    assert [*found.table.columns] == [*EVENT_COLUMNS, *own]
    assert found.table["participant_id"].tolist() == ["000", "001", "002", "004", "005"]
    assert set(found.table["session_id"]) == {"1"}
    assert (found.table["Cortex_labbe_vials"] > 30).all()
    first = dict(zip(*(line.split("\t") for line in to_tsv(found.table).splitlines()[:2]), strict=True))
    assert first["event"] in "01"
    assert first["participant_id"] == "000"


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("died", "2", "has the died '2' of 004. Write 1 for the event, 0 without it."),
        (
            "died",
            "yes",
            "holds 'yes' in column died. Write numbers, and n/a for missing ones.",
        ),
        ("years", "-0.5", "has the negative years '-0.5' of 004. Give the time from the first scan on."),
        ("died", "", "has no died for the years '0.5' of 004. Give both, or n/a for both."),
        ("years", "", "has no years for the died '0' of 004. Give both, or n/a for both."),
    ],
)
def test_impossible_events_are_refused(column, cell, told):
    frame = study(6)
    for name, text in (("years", "0.5"), ("died", "0"), (column, cell)):
        frame.loc[frame["participant_id"] == "004", name] = text
    with pytest.raises(InputError) as error:
        event_table(frame, time="years", event="died")
    assert str(error.value) == f"participants.tsv: {told}"
