"""Design checks on participants whose design is known."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from statsmodels.stats.outliers_influence import variance_inflation_factor

from sodium_prep.cohort.design import check_design, covariate_terms, resolve_model
from sodium_prep.cohort.model import GroupModel
from sodium_prep.errors import InputError


def people(cells, **columns):
    """Participants by (group, site): n."""
    rows = [(group, site) for (group, site), n in cells.items() for _ in range(n)]
    frame = pd.DataFrame(rows, columns=["group", "site"])
    frame.insert(0, "participant_id", [f"{i:03d}" for i in range(len(frame))])
    return frame.assign(**columns)


def state(checks, name):
    return checks.table.set_index("check").loc[name, ["state", "text"]].tolist()


def test_a_group_that_is_a_site_stops_with_the_counts():
    checks = check_design(people({("AD", "Bonn"): 14, ("HC", "Köln"): 12}), GroupModel())
    assert checks.group_site.to_dict() == {"Bonn": {"AD": 14, "HC": 0}, "Köln": {"AD": 0, "HC": 12}}
    with pytest.raises(InputError, match=r"confounded for HC and AD \(AD at Bonn: 14, HC at Köln: 12\)") as caught:
        checks.refuse()
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    for model in (GroupModel(covariates=("age",)), GroupModel(harmonisation="none")):
        check_design(people({("AD", "Bonn"): 14, ("HC", "Köln"): 12}), model).refuse()  # the site is not in the model


def test_disjoint_sites_can_be_told_apart_by_way_of_a_third_group():
    cells = {("AD", "A"): 9, ("HC", "B"): 9, ("MCI", "A"): 6, ("MCI", "B"): 6}
    checks = check_design(people(cells), GroupModel(contrasts=(("HC", "AD"),)))
    checks.refuse()
    kind, text = state(checks, "AD minus HC")
    assert kind == "warn"
    assert "no site has both groups" in text
    # By hand: HC - MCI(B) and MCI(A) - AD, with variances 1/9 + 1/6 each, over 1/9 + 1/9.
    assert_allclose(checks.table.set_index("check").loc["AD minus HC", "value"], (1 / 9 + 1 / 6) / (1 / 9))


def test_only_a_contrast_that_was_asked_for_stops_the_others():
    cells = {("AD", "A"): 9, ("HC", "A"): 9, ("HC", "B"): 9, ("ALS", "C"): 9}
    checks = check_design(people(cells), GroupModel())
    checks.refuse()
    assert state(checks, "ALS minus HC")[0] == "warn"
    assert state(checks, "AD minus HC")[0] == "ok"
    with pytest.raises(InputError, match="ALS at C: 9"):
        check_design(people(cells), GroupModel(contrasts=(("HC", "AD"), ("HC", "ALS")))).refuse()


def test_what_is_hardly_told_apart_warns():
    checks = check_design(people({("AD", "A"): 20, ("HC", "A"): 1, ("HC", "B"): 20}), GroupModel())
    checks.refuse()
    kind, text = state(checks, "AD minus HC")
    assert kind == "warn"
    assert "rests on one participant" in text
    assert "HC at A: 1" in state(checks, "groups at sites")[1]
    cells = {("AD", "A"): 40, ("HC", "A"): 2, ("HC", "B"): 40, ("AD", "B"): 1}
    near = check_design(people(cells), GroupModel()).table.set_index("check")
    # Two groups: the inflation of the contrast is the variance inflation factor of the group.
    assert near.loc["AD minus HC", "value"] == pytest.approx(near.loc["VIF of group", "value"])
    assert near.loc["AD minus HC", "value"] > 5
    ages = [str(60 + 10 * (g == "AD") + i % 3 * 0.1) for i, g in enumerate(people(cells)["group"])]
    tight = check_design(people(cells, age=ages), GroupModel()).table.set_index("check")
    assert tight.loc["VIF of group", "state"] == tight.loc["AD minus HC", "state"] == "warn"
    assert tight.loc["age, AD minus HC", "state"] == "warn"


def test_inflation_factors_are_statsmodels_and_fox_and_monettes():
    rng = np.random.default_rng(3)
    frame = people({("a", "X"): 9, ("a", "Y"): 5, ("a", "Z"): 3, ("b", "X"): 2, ("b", "Y"): 6, ("b", "Z"): 9})
    age = rng.normal(60, 5, len(frame)) + 4.0 * (frame["group"] == "b")
    frame["age"] = [f"{value:.3f}" for value in age]
    table = check_design(frame, GroupModel()).table.set_index("check")
    sites = pd.get_dummies(frame["site"], drop_first=True).to_numpy(dtype=float)
    design = sm.add_constant(np.column_stack([frame["group"] == "b", frame["age"].astype(float), sites]).astype(float))
    assert_allclose(table.loc["VIF of group", "value"], variance_inflation_factor(design, 1))
    assert_allclose(table.loc["VIF of age", "value"], variance_inflation_factor(design, 2))
    r = np.corrcoef(design[:, 1:], rowvar=False)
    generalised = np.linalg.det(r[:2, :2]) * np.linalg.det(r[2:, 2:]) / np.linalg.det(r)
    assert_allclose(table.loc["VIF of site", "value"], generalised**0.5)
    assert table.loc["rank", "value"] == 5


def test_missing_covariates_are_counted_and_named():
    frame = people({("AD", "A"): 6, ("HC", "A"): 6, ("", "A"): 1}, sex="F")
    frame["age"] = ["89+", "", *map(str, range(60, 71))]
    checks = check_design(frame, GroupModel())
    assert state(checks, "age") == ["warn", "2 without age, left out of adjusted models: 000, 001"]
    assert state(checks, "sex")[0] == "warn"  # the same in all
    assert state(checks, "groups") == ["ok", "AD: 6, HC: 6"]
    assert state(checks, "no group")[0] == "warn"
    frame["age"] = "60"
    assert (
        state(check_design(frame.drop(columns="site"), GroupModel()), "site")[1] == "no column site: not held constant"
    )


def test_nobody_to_compare_is_said():
    checks = check_design(people({("", "A"): 6}), GroupModel())
    checks.refuse()
    assert state(checks, "groups")[0] == "warn"
    with pytest.raises(InputError, match=r"nobody with results in the group XX.*Groups in column group: AD, HC"):
        check_design(people({("AD", "A"): 6, ("HC", "A"): 6}), GroupModel(contrasts=(("HC", "XX"),)))


def test_a_model_is_resolved_for_those_who_are_there():
    frame = people({("AD", "A"): 6, ("hc", "A"): 6})
    found = resolve_model(GroupModel(), frame)
    assert (found.control, found.covariates) == ("hc", ("site",))
    with pytest.raises(InputError, match="has no column education"):
        resolve_model(GroupModel(covariates=("education",)), frame)


def test_numbers_and_categories_are_what_the_model_says():
    frame = pd.DataFrame({"scanner": ["1", "2", "3", ""], "age": ["60", "89+", "70", "60"], "school": list("HLLH")})
    scanner, age = covariate_terms(frame, ("scanner", "age"), ("scanner",))
    assert_allclose(scanner.columns, [[0, 0], [1, 0], [0, 1], [np.nan, np.nan]])
    assert_allclose(age.columns[:, 0], [60, np.nan, 70, 60])
    with pytest.raises(InputError, match=r"'H' in column school.*categories of the model"):
        covariate_terms(frame, ("school",), ("scanner",))
