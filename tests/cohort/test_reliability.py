"""Repeat scans against published examples, closed forms and simulated truth."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sodium_prep.cohort.reliability import (
    INTERSITE_COLUMNS,
    REPEATABILITY_COLUMNS,
    bland_altman,
    complete_repeats,
    intersite_cov,
    intraclass,
    repeatability,
    within_cov,
    within_sd,
)
from sodium_prep.errors import InputError

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
"""Table 2 of Psychol Bull 1979;86:420."""


def scans(matrix, repeat="run", session="", region="Cortex"):
    """Run-level table of participants x repeats; nan: not scanned."""
    rows = [
        {
            "participant_id": f"{i:03d}", "session_id": session, "acquisition": "sodium", "reconstruction": "",
            "run": "", "atlas": "dk", "index": float("nan"), "name": region, "hemisphere": "both",
            "estimator": "labbe", "reference": "vials", "tsc": value, repeat: str(j + 9),
        }
        for i, row in enumerate(matrix) for j, value in enumerate(row) if np.isfinite(value)
    ]  # fmt: skip
    return pd.DataFrame(rows[::-1])


def test_intraclass_correlations_of_the_published_example():
    agreement, consistency = intraclass(SHROUT_FLEISS)
    # Values: Shrout and Fleiss, table 4; intervals: pingouin 0.7 of the same table
    assert_allclose(agreement, [0.290, 0.02, 0.76], atol=5e-3)
    assert_allclose(consistency, [0.715, 0.34, 0.95], atol=5e-3)
    assert np.isnan(intraclass([[1.0, 1.0], [2.0, 2.0]])[0].value)


def test_bland_altman_of_a_standardised_sample_is_the_closed_form():
    z = np.random.default_rng(0).normal(size=17)
    z = (z - z.mean()) / z.std(ddof=1)
    first = np.linspace(30, 50, 17)
    found = bland_altman(first, first + 2.0 + 3.0 * z)
    # British Medical Journal's example (Bland and Altman, Lancet 1986;1:307): n 17, se of the limit sqrt(3 s^2 / n)
    assert_allclose(found.bias, [2.0, 2.0 - 2.1199 * 3 / np.sqrt(17), 2.0 + 2.1199 * 3 / np.sqrt(17)], rtol=1e-4)
    assert_allclose([found.limit_low.value, found.limit_high.value], [2 - 5.88, 2 + 5.88])
    half = found.limit_high.high - found.limit_high.value
    assert_allclose(half, 2.1199 * np.sqrt(3 * 9 / 17), rtol=0.02)
    assert_allclose(found.limit_low.value - found.limit_low.low, half)


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(1)
    hits = np.zeros(4)
    simulations = 400
    for _ in range(simulations):
        true = rng.normal(42, 3.0, (12, 1))
        x = true + rng.normal(0, 1.5, (12, 3))
        _, consistency = intraclass(x)
        sd = within_sd(x)
        relative = within_cov(40.0 * (1 + 0.04 * rng.normal(size=(11, 2))))
        limits = bland_altman(x[:, 0], x[:, 1])
        upper = 1.96 * np.sqrt(2) * 1.5
        hits += [
            consistency.low < 9 / (9 + 2.25) < consistency.high,
            sd.low < 1.5 < sd.high,
            relative.low < 0.04 < relative.high,
            limits.limit_high.low < upper < limits.limit_high.high,
        ]
    assert ((hits / simulations > 0.92) & (hits / simulations < 0.98)).all(), hits / simulations


def test_unbalanced_repeats_are_used_where_they_say_most():
    assert complete_repeats([[1, 2, 3], [4, 5, 6], [7]]).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert complete_repeats([[1, 2, 3], [4, 5], [6, 7]]).tolist() == [[1, 2], [4, 5], [6, 7]]
    assert complete_repeats([[1], [2]]).shape == (0, 0)


def test_table_of_runs_and_sessions():
    rng = np.random.default_rng(2)
    matrix = rng.normal(45, 3, (9, 1)) + rng.normal(0, 1.0, (9, 2)) + [0.0, 5.0]
    runs = scans(np.vstack([matrix, [40.0, np.nan]]), session="a")
    sessions = scans(matrix[:, ::-1], "session_id", region="CSF")
    table = repeatability(pd.concat([runs, sessions])).set_index("region")
    assert [*table.columns[-len(REPEATABILITY_COLUMNS) :]] == [*REPEATABILITY_COLUMNS]
    row = table.loc["Cortex"]
    assert (row["repeat"], row["n"], row["repeats"], row["left_out"]) == ("run", 9, 2, 1)
    difference = matrix[:, 1] - matrix[:, 0]
    assert_allclose(row["bias"], difference.mean())  # run 10 comes after run 9, whatever the order of rows or letters
    assert_allclose(row["within_sd"], np.sqrt((difference**2).mean() / 2))
    assert_allclose(row["mdc"], 1.96 * np.sqrt((difference**2).mean()))
    assert_allclose(row["mdc_percent"], 1.96 * np.sqrt(2) * row["cov"])
    assert row["icc_agreement"] < row["icc_consistency"]  # the shift of 5 mM is an error of agreement alone
    assert (table.loc["CSF", "repeat"], table.loc["CSF", "bias"]) == ("session_id", pytest.approx(-difference.mean()))
    few = repeatability(scans(matrix[:2])).iloc[0]
    assert few["state"].startswith("too few")
    assert np.isnan(few["cov"])
    assert repeatability(scans(matrix[:, :1])).empty


def test_variation_between_two_sites_as_in_eleven_volunteers():
    # Riemer et al. 2019: 11 volunteers at 2 sites, 3 / 3 / 6 % in white matter, grey matter and CSF
    rng = np.random.default_rng(3)
    truth = {"WhiteMatter": (41.8, 0.03), "Cortex": (52.1, 0.03), "CSF": (140.0, 0.06)}
    for mean, cov in truth.values():
        found = [within_cov(mean * (1 + cov * rng.normal(size=(11, 2)))).value for _ in range(300)]
        # 11 degrees of freedom: the squares scatter by sqrt(2 / 11)
        assert_allclose(np.mean(np.square(found)), cov**2, rtol=4 * np.sqrt(2 / 11 / 300))
    frame = pd.concat([
        scans(mean * (1 + cov * rng.normal(size=(11, 2)) + [0.0, 0.2]), "session_id", region=region)
        for region, (mean, cov) in truth.items()
    ]).rename(columns={"name": "region"})  # fmt: skip
    home = frame["session_id"] == "9"
    frame = frame.assign(site=np.where(home, "A", "B"), index="")
    only_home = frame[home].assign(participant_id="900")
    table = intersite_cov(pd.concat([frame, only_home])).set_index("region")
    assert [*table.columns[-len(INTERSITE_COLUMNS) :]] == [*INTERSITE_COLUMNS]
    assert (set(table["n"]), set(table["sites"]), set(table["left_out"])) == ({11}, {"A, B"}, {0})
    # an offset of 20 % between the sites adds 20 / sqrt(2) / 1.1 = 12.9 %
    assert_allclose(table["cov"], [np.hypot(100 * c, 12.9) for _, c in truth.values()], rtol=0.2)
    assert_allclose(np.abs(table["offset"]), 9.1, atol=2.0)
    with pytest.raises(InputError, match=r"sessions\.tsv: has no column site"):
        intersite_cov(frame.drop(columns="site"))
