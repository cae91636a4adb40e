"""One model in, every table out: what is asked for is there, and what is not there says why."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sodium_prep.cohort.analysis import analyse
from sodium_prep.cohort.model import GroupModel
from sodium_prep.errors import InputError
from sodium_prep.phantom.cohort import CohortDesign, CohortSite, draw_cohort

OFFSETS = {"A": 0.0, "B": 4.0, "C": -5.0, "D": 2.0, "E": -1.0, "F": 1.0}
LEAN = {"estimators": ("labbe",), "references": ("vials",), "regions": ("Hippocampus", "WhiteMatter")}


@pytest.fixture(scope="module")
def cohort():
    sites = [CohortSite(name, offset) for name, offset in OFFSETS.items()]
    return draw_cohort(CohortDesign({"control": 30, "AD": 30}, {"AD": {"Hippocampus": 0.129}}, sites=sites), seed=1)


def test_many_sites_are_a_random_intercept_too(cohort):
    done = analyse(cohort, GroupModel(**LEAN))
    mixed = done.random_sites.set_index("region").loc["Hippocampus"]
    fixed = done.comparisons.set_index("region").loc["Hippocampus"]
    assert (mixed["model"], mixed["n_sites"]) == ("site random", 6)
    assert mixed["ci_low"] < 0.129 * 50 < mixed["ci_high"]
    assert mixed["estimate"] == pytest.approx(fixed["adjusted"], abs=mixed["stderr"] / 2)
    assert mixed["site_sd"] == pytest.approx(np.std(list(OFFSETS.values()), ddof=1), abs=1.0)


def test_values_are_divided_by_the_factors_of_a_travelling_phantom(cohort, tmp_path):
    factors = dict(zip(OFFSETS, (1.0, 1.1, 0.9, 1.05, 0.98, 1.0), strict=True))
    lines = ["site\tlabel\tconcentration\tmeasured"]
    for site, factor in factors.items():
        lines += [f"{site}\ttube{c}\t{c}\t{c * factor * (1 + wrong):.6f}" for c, wrong in ((40, 0.001), (80, -0.001))]
    path = tmp_path / "phantom.tsv"
    path.write_text("\n".join(lines) + "\n")
    plain = analyse(cohort, GroupModel(**LEAN)).values
    done = analyse(cohort, GroupModel(**LEAN, harmonisation="travelling", travelling=path))
    mean = np.exp(np.mean(np.log(list(factors.values()))))
    for site, factor in factors.items():
        here = done.values["site"] == site
        assert_allclose(done.values.loc[here, "tsc"], plain.loc[here, "tsc"] * mean / factor, rtol=2e-3)
    assert (done.values["tsc_stderr"] > plain["tsc_stderr"] / 1.2).all()


def test_times_to_an_event_are_exported_with_hazards(cohort):
    people = cohort.participants.assign(months=[str(6 + i % 30) for i in range(60)], converted=["1", "0", "0"] * 20)
    done = analyse(replace(cohort, participants=people), GroupModel(**LEAN, event="converted", event_time="months"))
    assert len(done.events) == 60
    assert "Hippocampus_labbe_vials" in done.events
    assert set(done.hazards["region"]) >= {"Hippocampus"}


def test_visits_give_change_and_repeatability():
    design = CohortDesign(sessions=2, change_per_year={"AD": {"Hippocampus": 0.05}}, repeat_sd=0.01)
    done = analyse(draw_cohort(design, seed=3), GroupModel(**LEAN, time="years"))
    rows = done.change[done.change["region"] == "Hippocampus"].set_index(["term", "group_2"])
    row = rows.loc[("difference in change", "AD")]
    assert row["ci_low"] < 0.05 * 50.0 < row["ci_high"]
    assert (row["n_participants"], row["n_sessions"]) == (26, 52)
    assert set(done.repeatability["repeat"]) == {"session_id"}
    assert set(done.comparisons["session_id"]) == {"01", "02"}


def test_what_is_not_there_says_why(cohort):
    people = cohort.participants.assign(group=cohort.participants["group"].replace("control", "b"))
    done = analyse(replace(cohort, participants=people), GroupModel(**LEAN))
    assert any("No region was named" in line for line in done.cautions)
    assert done.zscores is None
    assert "name it in the model file" in done.missing["zscores"]
    assert done.change is done.roc is done.lesions is done.repeatability is None
    with pytest.raises(InputError, match="ALSFRS"):
        analyse(cohort, GroupModel(**LEAN, scores=("ALSFRS",)))


def test_groups_that_are_sites_are_told_apart_by_nothing():
    sites = [CohortSite("A"), CohortSite("B", 4.0)]
    design = CohortDesign({"control": 8, "AD": 8}, sites=sites, site_shares={"control": (1, 0), "AD": (0, 1)})
    done = analyse(draw_cohort(design, seed=2), GroupModel(**LEAN, roc=True))
    assert done.checks.stops
    assert done.comparisons is done.roc is done.random_sites is None
