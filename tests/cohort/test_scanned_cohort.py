"""26 digital heads that were scanned, reconstructed and quantified by the app: what the group level makes of them.

The tables are those of the tutorial (docs/cohort); the true differences are those of the phantom's concentrations.
"""

import zipfile
from pathlib import Path

import pytest

from sodium_prep.cohort.analysis import analyse
from sodium_prep.cohort.cautions import comparison_cautions
from sodium_prep.cohort.model import GroupModel
from sodium_prep.cohort.tables import gather

ARCHIVE = Path(__file__).parents[2] / "docs" / "cohort" / "cohort.zip"
TRUTH = {"Cortex": (45.29, 46.11), "WhiteMatter": (39.73, 35.81), "Hippocampus": (57.07, 51.19), "CSF": (168.84, 140.0)}
"""Mean true concentration of patients and controls, mM."""


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    root = tmp_path_factory.mktemp("scanned")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(root)
    model = GroupModel(control="control", negative_controls=("OccipitalLobe",))
    return analyse(gather(root / "out", root / "bids"), model)


@pytest.fixture(scope="module")
def by_row(analysis):
    return analysis.comparisons.set_index(["region", "estimator", "reference"])


@pytest.mark.parametrize("region", TRUTH)
def test_true_differences_are_recovered_by_vials(by_row, region):
    patients, controls = TRUTH[region]
    row = by_row.loc[(region, "labbe", "vials")]
    assert (row["n_1"], row["n_2"]) == (12, 14)
    assert row["percent"] == pytest.approx(100 * (patients / controls - 1), abs=0.3)
    assert row["mean_1"] == pytest.approx(controls, rel=0.025)
    if region != "CSF":  # it is the same in all of a group, so that its interval is that of the method's own scatter
        assert row["difference_ci_low"] < patients - controls < row["difference_ci_high"]


def test_uncorrected_values_take_fluid_for_tissue(by_row):
    for region in ("Cortex", "OccipitalLobe"):
        assert by_row.loc[(region, "none", "vials"), "percent"] > 7.0
        assert abs(by_row.loc[(region, "labbe", "vials"), "percent"]) < 2.5
    assert by_row.loc[("WhiteMatter", "none", "vials"), "percent"] < 0.7 * 10.95


def test_the_csf_reference_turns_the_effects_round_and_is_flagged(analysis, by_row):
    for region in ("WhiteMatter", "Hippocampus"):
        patients, controls = TRUTH[region]
        expected = 100 * (patients / controls * 140.0 / 168.84 - 1)
        assert by_row.loc[(region, "labbe", "CSF"), "percent"] == pytest.approx(expected, abs=0.5)
    told = " ".join(comparison_cautions(analysis.comparisons, estimator="labbe"))
    assert "CSF itself differs" in told
    assert "The references disagree" in told


def test_patients_stand_out_against_the_controls(analysis):
    z = analysis.zscores
    here = z[(z["region"] == "Hippocampus") & (z["estimator"] == "labbe") & (z["reference"] == "vials")]
    here = here[(here["hemisphere"] == "both") & (here["measure"] == "tsc")]
    group = here["participant_id"].map(
        analysis.values.drop_duplicates("participant_id").set_index("participant_id")["group"]
    )
    assert here.loc[group == "AD", "z"].mean() > 1.5
    assert abs(here.loc[group == "control", "z"].mean()) < 0.5
