"""Drawn cohorts: the truth that they are drawn with, and the way through files and back."""

import pytest
from numpy.testing import assert_allclose

from sodium_prep.cohort.tables import gather
from sodium_prep.cohort.values import measured_values
from sodium_prep.errors import UsageError
from sodium_prep.phantom.cohort import COHORT_REGIONS, CohortDesign, CohortSite, draw_cohort, write_cohort

STILL = {"subject_sd": 0.0, "region_sd": 0.0, "tissue_sd": 0.0, "calibration_sd": 0.0, "age_per_decade": 0.0}


def means(cohort, estimator, reference="vials"):
    values = measured_values(cohort)
    here = values[(values["hemisphere"] == "both") & (values["estimator"] == estimator)]
    return here[here["reference"] == reference].groupby(["group", "region"])["tsc"].mean()


def test_planted_concentrations_come_back_and_fluid_hides_them_without_correction():
    design = CohortDesign({"control": 60, "AD": 60}, {"AD": {"Hippocampus": 0.129}}, {"AD": 0.2}, **STILL)
    cohort = draw_cohort(design, seed=1)
    found = means(cohort, "labbe")
    for name, region in COHORT_REGIONS.items():
        truth = region.concentration_mM
        assert_allclose(found["control", name], truth, atol=4 * region.noise_mM / 60**0.5)
        assert_allclose(
            found["AD", name], truth * (1.129 if name == "Hippocampus" else 1.0), atol=4 * region.noise_mM / 60**0.5
        )
    raw = means(cohort, "none")
    # By hand: 0.2 more of its 0.142 CSF, in place of what is its own: 0.0284 (140 - 45) mM.
    assert_allclose(raw["AD", "Cortex"] - raw["control", "Cortex"], 0.0284 * 95.0, atol=0.2)


def test_a_reference_that_rises_turns_the_effect_round():
    effects = {"AD": {"Hippocampus": 0.129, "CSF": 0.206}}
    found = means(draw_cohort(CohortDesign({"control": 60, "AD": 60}, effects, **STILL), seed=2), "labbe", "CSF")
    assert_allclose(found["AD", "Hippocampus"] / found["control", "Hippocampus"], 1.129 / 1.206, atol=0.01)


def test_sites_shares_and_visits_are_as_asked_for():
    sites = (CohortSite("A"), CohortSite("B", offset_mM=4.0))
    design = CohortDesign(
        {"control": 10, "AD": 10}, sites=sites, site_shares={"AD": (0.8, 0.2)}, sessions=3, years_between=0.5,
        change_per_year={"AD": {"Cortex": 0.1}}, **STILL,
    )  # fmt: skip
    cohort = draw_cohort(design, seed=3)
    people = cohort.participants
    assert people.groupby(["group", "site"]).size().to_dict() == {
        ("control", "A"): 5, ("control", "B"): 5, ("AD", "A"): 8, ("AD", "B"): 2,
    }  # fmt: skip
    values = measured_values(cohort)
    here = values[(values["region"] == "Cortex") & (values["hemisphere"] == "both") & (values["reference"] == "vials")]
    here = here[here["estimator"] == "labbe"]
    assert_allclose(here[here["site"] == "B"]["tsc"].mean() - 49.0, 0.5, atol=1.5)  # two of AD change
    slope = here[(here["group"] == "AD") & (here["site"] == "A")].groupby("years")["tsc"].mean()
    assert_allclose(slope["1"] - slope["0"], 4.5, atol=3.0)


def test_a_cohort_survives_its_files(tmp_path):
    cohort = draw_cohort(CohortDesign({"control": 3, "AD": 2}, sessions=2), seed=4)
    write_cohort(cohort, tmp_path / "bids", tmp_path / "out")
    again = gather(tmp_path / "out", tmp_path / "bids")
    keys = ["participant_id", "session_id", "region", "hemisphere", "estimator", "reference"]
    first, second = (measured_values(one).set_index(keys).sort_index() for one in (cohort, again))
    assert_allclose(first["tsc"], second["tsc"], rtol=1e-5)
    assert (first[["age", "group", "MMSE", "years"]] == second[["age", "group", "MMSE", "years"]]).all(axis=None)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="there is no region 'Hippo'"):
        draw_cohort(CohortDesign(effects={"AD": {"Hippo": 0.1}}))
    with pytest.raises(UsageError, match="there is no group 'PD'"):
        draw_cohort(CohortDesign(effects={"PD": {"Cortex": 0.1}}))
    with pytest.raises(UsageError, match="--atrophy: there is no group 'PD'"):
        draw_cohort(CohortDesign(atrophy={"PD": 0.1}))
