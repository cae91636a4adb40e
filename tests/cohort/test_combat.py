"""ComBat against neuroCombat 0.2.12, and what it does with every awkward table."""

import io
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest
from neuroCombat import neuroCombat
from numpy.testing import assert_allclose, assert_array_equal

from sodium_prep.cohort.combat import ComBatModel, fit_combat, harmonise
from sodium_prep.errors import InputError


def study(counts=(30, 25, 20), features=12, seed=0):
    """Sites with offsets 0, +4, -5 mM and noise x 1, 1.3, 0.8; ages in whole years, which neuroCombat rounds to."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.array(["A", "B", "C"])[: len(counts)], counts)
    n = site.size
    people = pd.DataFrame(
        {
            "age": rng.integers(50, 80, n).astype(str),
            "sex": rng.choice(["F", "M"], n),
            "group": rng.choice(["AD", "CN", "NA"], n),
        },
        index=[f"{i:03d}" for i in range(n)],
    )
    offset = pd.Series(site).map({"A": 0.0, "B": 4.0, "C": -5.0}).to_numpy()
    noise = pd.Series(site).map({"A": 1.0, "B": 1.3, "C": 0.8}).to_numpy()
    y = np.linspace(30, 60, features) + 0.1 * (people["age"].astype(float).to_numpy()[:, None] - 65)
    y = y + (offset[:, None] + 3.0 * noise[:, None] * rng.normal(size=(n, features)))
    values = pd.DataFrame(y, index=people.index, columns=[f"r{j}" for j in range(features)])
    return values, pd.Series(site, index=people.index), people


def reference(values, site, people):
    with redirect_stdout(io.StringIO()):
        return neuroCombat(
            values.to_numpy().T, people.assign(site=site), "site", ["sex", "group"], ["age"]
        )["data"].T  # fmt: skip


@pytest.mark.parametrize(("counts", "features"), [((30, 25, 20), 12), ((3, 5, 40), 3), ((6, 9), 150)])
def test_it_is_neurocombat_to_a_millionth(counts, features):
    values, site, people = study(counts, features)
    found = fit_combat(values, site, people).apply(values, site, people)
    assert_allclose(found, reference(values, site, people), rtol=0, atol=1e-6)
    assert np.abs(found - values).to_numpy().max() > 1.0


def test_a_column_that_is_constant_at_one_site_is_as_in_neurocombat():
    values, site, _ = study()
    values.loc[site == "B", "r4"] = 41.0
    with redirect_stdout(io.StringIO()):
        expected = neuroCombat(values.to_numpy().T, site.to_frame("site"), "site")["data"].T
    nothing = pd.DataFrame(index=values.index)
    found = fit_combat(values, site, nothing).apply(values, site, nothing)
    assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_stored_model_gives_the_same_numbers_in_any_order_of_rows_and_columns():
    values, site, people = study()
    model = fit_combat(values, site, people)
    expected = model.apply(values, site, people)
    order = np.random.default_rng(1).permutation(values.index)
    again = fit_combat(values.loc[order].iloc[:, ::-1], site[order], people.loc[order].iloc[:, ::-1])
    stored = ComBatModel.from_json(model.to_json())
    assert stored == model
    for one in (stored, again):
        found = one.apply(values.loc[order].iloc[:, ::-1], site[order], people.loc[order].iloc[:, ::-1])
        assert_allclose(found.loc[values.index, values.columns], expected, atol=1e-9)


def test_new_participants_of_a_known_site_lose_its_offset_and_keep_their_age_and_group():
    def sick(values, people):
        return values + 7.0 * (people["group"] == "AD").to_numpy()[:, None]

    values, site, people = study((400, 400, 400), features=20, seed=3)
    model = fit_combat(sick(values, people), site, people)
    new, new_site, new_people = study((300, 300, 300), features=20, seed=4)
    done = model.apply(sick(new, new_people), new_site, new_people).mean(axis=1)
    by = done.groupby([new_site, new_people["group"] == "AD"]).mean().unstack()
    assert_allclose(by[True] - by[False], 7.0, atol=0.4)
    assert np.ptp(by[False]) < 0.4 < 8.0 < np.ptp(new.mean(axis=1).groupby(new_site).mean())


def test_a_site_of_two_stays_as_it_came_and_does_not_touch_the_others():
    values, site, people = study((30, 25, 2))
    model = fit_combat(values, site, people)
    found = model.apply(values, site, people)
    rest = site != "C"
    assert_array_equal(found[~rest], values[~rest])
    without = fit_combat(values[rest], site[rest], people[rest])
    assert_array_equal(found[rest], without.apply(values[rest], site[rest], people[rest]))
    assert "The site C has fewer than 3 scans (2): its values stay as they are." in model.notes
    assert found.attrs["notes"] == ("2 scans of sites too small to fit are as they came.",)
    assert_array_equal(model.apply(values[~rest], site[~rest], people[~rest]), values[~rest])


def test_a_constant_column_passes_untouched_and_moves_no_other():
    values, site, people = study()
    with_it = values.assign(flat=41.0)
    model = fit_combat(with_it, site, people)
    found = model.apply(with_it, site, people)
    assert_array_equal(found["flat"], 41.0)
    assert_array_equal(found[values.columns], fit_combat(values, site, people).apply(values, site, people))
    assert any(note.startswith("flat is constant") for note in model.notes)


def test_columns_that_say_the_same_leave_nothing_to_shrink():
    values, site, people = study(features=1)
    twice = pd.DataFrame({"a": values["r0"], "b": values["r0"] * 2.0})
    found = fit_combat(twice, site, people).apply(twice, site, people)
    alone = fit_combat(values, site, people).apply(values, site, people)
    assert_allclose(found, np.column_stack([alone, 2.0 * alone]), rtol=1e-6)
    binary = values.round(0) * 0.0 + (site == "A").to_numpy()[:, None] + 1.0  # of one site exactly one value
    assert_array_equal(fit_combat(binary, site, people).apply(binary, site, people), binary)


def test_one_site_is_returned_unchanged():
    values, site, people = study((20,))
    model = fit_combat(values, site, people)
    assert_array_equal(model.apply(values, site, people), values)
    assert "There are not two sites to fit: the values stay as they are." in model.notes


def test_missing_cells_stay_missing_and_their_feature_is_fitted_to_the_others():
    values, site, people = study()
    holes = values.copy()
    holes.iloc[[0, 40], 2] = np.nan
    model = fit_combat(holes, site, people)
    found = model.apply(holes, site, people)
    assert_array_equal(found.isna(), holes.isna())
    whole = fit_combat(
        values.drop(values.index[[0, 40]]), site.drop(site.index[[0, 40]]), people.drop(people.index[[0, 40]])
    )
    assert_allclose(
        [model.features["r2"].mean, model.features["r2"].sd], [whole.features["r2"].mean, whole.features["r2"].sd]
    )
    full = fit_combat(values, site, people)
    assert model.features["r3"].mean == full.features["r3"].mean
    # the other features see the two cells through the priors alone
    assert (
        np.abs(found.drop(columns="r2") - full.apply(values, site, people).drop(columns="r2")).to_numpy().max() < 0.05
    )


def test_a_site_without_a_region_keeps_what_little_it_has():
    values, site, people = study()
    values.loc[site.index[site == "B"][2:], "r1"] = np.nan
    model = fit_combat(values, site, people)
    found = model.apply(values, site, people)
    assert_array_equal(found.loc[site == "B", "r1"], values.loc[site == "B", "r1"])
    assert (found.loc[site == "A", "r1"] != values.loc[site == "A", "r1"]).all()
    assert "r1 has too few values at B: those stay as they are." in model.notes


@pytest.mark.parametrize(("column", "cell"), [("age", "89+"), ("age", ""), ("sex", ""), ("site", "")])
def test_a_scan_without_a_covariate_is_left_out_and_told(column, cell):
    values, site, people = study()
    if column == "site":
        site.iloc[4] = cell
    else:
        people.iloc[4, people.columns.get_loc(column)] = cell
    model = fit_combat(values, site, people)
    found = model.apply(values, site, people)
    one = values.index[4]
    assert found.loc[one].isna().all()
    rest = values.index != one
    assert_array_equal(
        found[rest], fit_combat(values[rest], site[rest], people[rest]).apply(values[rest], site[rest], people[rest])
    )
    assert model.notes == found.attrs["notes"] == ("1 scans without a site or a covariate are left out.",)


def test_one_feature_is_shifted_and_scaled_to_the_pooled_mean_and_variance():
    values, site, people = study(features=1)
    model = fit_combat(values, site, people[[]])
    found = model.apply(values, site, people)["r0"].groupby(site)
    assert_allclose(found.mean(), values["r0"].mean())
    residual = values["r0"] - values["r0"].groupby(site).transform("mean")
    assert_allclose(found.var(ddof=1), (residual**2).mean())
    assert "There is one feature to fit: location and scale without empirical Bayes." in model.notes


def refused(call, *words):
    with pytest.raises(InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_harmonised_is_refused_with_one_line_that_names_it():
    values, site, people = study((30, 25, 20))
    model = fit_combat(values, site, people)
    same = people.assign(group=site.map({"A": "AD", "B": "CN", "C": "CN"}))
    refused(lambda: fit_combat(values, site, same), "group", "AD at A: 30; CN at B: 25; CN at C: 20")
    other = site.replace("C", "D")
    refused(lambda: model.apply(values, other, people), "site D", "it knows A, B, C")
    kept = model.apply(values, other, people, unseen="keep")
    assert_array_equal(kept[other == "D"], values[other == "D"])
    assert_array_equal(kept[other == "A"], model.apply(values, site, people)[site == "A"])
    infinite = values.copy()
    infinite.iloc[3, 5] = np.inf
    refused(lambda: fit_combat(infinite, site, people), "r5 of 003 is infinite")
    refused(lambda: model.apply(values, site, people.drop(columns="sex")), "no covariate sex")
    refused(lambda: model.apply(values, site, people.assign(sex="D")), "sex has the level D", "F, M")
    refused(lambda: model.apply(values.drop(columns="r3"), site, people), "r3")
    refused(lambda: model.apply(values.assign(new=1.0), site, people), "new")
    refused(lambda: fit_combat(values, site.iloc[::-1], people), "different scans")
    refused(lambda: fit_combat(values, site, people, keep=("APOE",)), "APOE")


@pytest.mark.parametrize(
    ("old", "new"), [('"sd":', '"SD":'), ('"A": ', '"Z": '), ("{", "["), ('"sex": {', '"six": {')]
)  # fmt: skip
def test_a_stored_model_that_was_tampered_with_is_refused(old, new):
    text = fit_combat(*study(features=2)).to_json()
    refused(lambda: ComBatModel.from_json(text.replace(old, new, 1), "model.json"), "model.json: is not a ComBat model")


def test_a_long_table_is_harmonised_within_each_estimator():
    values, site, people = study()
    rows = [
        {"participant_id": who, "region": region, "hemisphere": "both", "index": "", "tsc": values.loc[who, region] * f,
         "estimator": e, "reference": "vials", "session_id": "", "acquisition": "", "reconstruction": "", "atlas": "dk",
         "site": site[who], **people.loc[who]}
        for e, f in (("none", 1.0), ("gtm", 1.5)) for region in values for who in values.index
    ]  # fmt: skip
    long = pd.DataFrame(rows)
    found, models = harmonise(long)
    expected = fit_combat(values, site, people).apply(values, site, people)
    none = found[found["estimator"] == "none"].pivot(index="participant_id", columns="region", values="tsc")
    assert_allclose(none.loc[values.index, values.columns], expected)
    assert_allclose(
        found.loc[found["estimator"] == "gtm", "tsc"], 1.5 * found.loc[found["estimator"] == "none", "tsc"], rtol=1e-7
    )
    assert_array_equal(found.drop(columns="tsc"), long.drop(columns="tsc"))
    assert set(models) == {("", "", "", "dk", e, "vials") for e in ("none", "gtm")}
