"""Sample sizes against published tables and statsmodels, and the command that prints them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from sodium_prep.cli.tools import build_parser
from sodium_prep.cohort.power import (
    POWER_COLUMNS,
    VARIANCE_COLUMNS,
    Effect,
    detectable_effect,
    power_table,
    repeated_sd_factor,
    residual_sd,
    sample_size,
    t_test_power,
)
from sodium_prep.cohort.tsv import to_tsv
from sodium_prep.errors import InputError, UsageError
from tests.cohort.frames import values_frame


@pytest.mark.parametrize(("d", "one", "twelve"), [(0.5, 64, 112), (0.8, 26, 46), (1.0, 17, 30), (1.5, 9, 15)])
def test_numbers_per_group_of_common_effects(d, one, twelve):
    # Cohen 1988, table 2.4.1, and statsmodels
    assert sample_size(d) == (one, one)
    assert sample_size(-d, tests=12) == (twelve, twelve)


def test_power_agrees_with_statsmodels_where_that_is_finite():
    oracle = TTestIndPower()
    for d in (0.1, 0.6, 2.0, 5.0):
        for n, ratio in ((3, 1.0), (10, 2.0), (40, 0.5)):
            for alpha in (0.05, 0.0005):
                expected = oracle.power(d, n, alpha, ratio)
                found = t_test_power(d, n, round(n * ratio), alpha)
                assert 0.0 < found <= 1.0 + 1e-12
                if np.isfinite(expected) and n * ratio == round(n * ratio):
                    assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("options", [{"ratio": 2.0}, {"ratio": 0.5, "power": 0.95}, {"tests": 100}])
@pytest.mark.parametrize("d", [0.3, 1.1, 8.0])
def test_the_number_is_the_smallest_that_does_and_the_effect_its_inverse(d, options):
    n_1, n_2 = sample_size(d, **options)
    alpha, goal = 0.05 / options.get("tests", 1), options.get("power", 0.8)
    assert t_test_power(d, n_1, n_2, alpha) >= goal
    fewer = max(2, int(np.ceil((n_1 - 1) * options.get("ratio", 1.0))))
    assert n_1 == 2 or t_test_power(d, n_1 - 1, fewer, alpha) < goal
    least = detectable_effect(n_1, n_2, power=goal, tests=options.get("tests", 1))
    assert least <= d
    assert_allclose(t_test_power(least, n_1, n_2, alpha), goal, atol=1e-9)


def test_repeat_scans_save_what_their_average_takes_off_the_variance():
    rng = np.random.default_rng(0)
    person, error = rng.normal(0, 2.0, 4000), rng.normal(0, 1.5, (3, 4000))
    share = 1.5**2 / (2.0**2 + 1.5**2)
    assert_allclose((person + error.mean(axis=0)).std() / np.hypot(2, 1.5), repeated_sd_factor(share, 3), rtol=0.02)
    table = power_table(
        pd.DataFrame({"mean": [40.0], "sd": [2.5]}),
        [Effect(10, "percent"), Effect(2, "mM"), Effect(0.8, "d")],
        error_share=share, scans=(1, 3), sizes=(20, 20),
    )  # fmt: skip
    assert [*table.columns] == ["mean", "sd", *POWER_COLUMNS]
    assert_allclose(table["d"], np.array([1.6, 0.8, 0.8, *np.array([1.6, 0.8, 0.8]) / repeated_sd_factor(share, 3)]))
    assert table.loc[1, ["n_1", "n_2"]].tolist() == [26, 26]
    assert table.loc[4, "n_1"] == sample_size(0.8 / repeated_sd_factor(share, 3))[0] < 26
    assert_allclose(table.loc[1, "power"], TTestIndPower().power(0.8, 20, 0.05, 1.0))
    assert_allclose(table["detectable_percent"], 100 * table["detectable"] / 40)


def study(n=60, seed=1):
    """SD 2.5 mM at equal age within a group; age and group add much more."""
    rng = np.random.default_rng(seed)
    age, ill = rng.integers(50, 80, n), np.arange(n) % 2 == 1
    tsc = 45 + 5 * ill + 0.4 * (age - 65) + 2.5 * stats.zscore(rng.normal(size=n))
    return values_frame(np.arange(n), tsc=tsc, age=age.astype(str), group=np.where(ill, "AD", "HC"))


def test_residual_sd_is_free_of_group_and_covariates():
    table = residual_sd(study(), control="HC")
    row = table.iloc[0]
    assert [*table.columns[-len(VARIANCE_COLUMNS) :]] == [*VARIANCE_COLUMNS]
    assert row["sd_ci_low"] < 2.5 < row["sd_ci_high"]
    assert row["sd"] < 3 < residual_sd(study(), group=None, covariates=()).iloc[0]["sd"]
    assert (row["n"], row["covariates"]) == (60, "age")
    assert_allclose(row["mean"], 45, atol=1.5)
    assert residual_sd(study().assign(reference="Cortex")).empty


def test_command_takes_the_studys_own_variance(tmp_path, capsys):
    frame = study().rename(columns={"region": "name"}).assign(run="", qc="pass")
    frame.loc[0, "qc"] = "fail"
    people = ["participant_id", "age", "group", "qc"]
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "group_participants.tsv").write_text(to_tsv(frame[people]))
    (tmp_path / "group" / "group_tsc.tsv").write_text(to_tsv(frame.drop(columns=people[1:])))
    parser = build_parser()

    def run(*options):
        args = parser.parse_args(["power", *map(str, options)])
        assert args.run(args) == 0
        return capsys.readouterr().out.splitlines()

    own = residual_sd(study().iloc[1:], control="HC").iloc[0]
    n = sample_size(0.129 * own["mean"] / own["sd"], tests=4)[0]
    lines = run(tmp_path, "--percent", 12.9, "--control", "HC", "--tests", 4)
    assert lines[1] == "Standard deviation within groups, at equal age"
    assert lines[-1].split()[-2:] == [str(n), str(n)]
    assert lines[-1].split()[:4] == ["sodium", "dk", "Cortex", "labbe"]
    assert run("--d", 0.8)[-1].split()[-2:] == ["26", "26"]
    assert run("--n", 14, 12, "--sd", 3)[-1].split() == ["3.00", "1", "1.15", "3.45"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--percent", "10"], "--sd: is missing. Give it, or the output folder of a study."),
        (["--percent", "10", "--sd", "3"], "--mean: is missing. Give it, or the output folder of a study."),
        (["--sd", "3"], "power: has nothing to find. Give --percent, --difference or --d, or --n."),
        (["--d", "0"], "effect d = 0: is no effect that can be found. Give one that is not zero."),
        (["--d", "1", "--power", "1"], "--power: is 1, outside (0.5, 1). Give a chance such as 0.8."),
        (["--d", "1", "--n", "1"], "--n: is 1. Give one or two numbers of at least 2."),
        (["{out}", "--d", "1"], "{out}/group/group_tsc.tsv: is not there. Run the group level first, or give --sd."),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_line(options, told, tmp_path):
    args = build_parser().parse_args(["power", *(option.format(out=tmp_path) for option in options)])
    with pytest.raises((UsageError, InputError)) as error:
        args.run(args)
    assert str(error.value) == told.format(out=tmp_path)
