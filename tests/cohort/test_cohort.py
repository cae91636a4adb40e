"""Group tables and comparisons on a synthetic study with a planted effect."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sodium_prep.atlas.groups import MAIN
from sodium_prep.atlas.tables import RESERVED_NAMES
from sodium_prep.bids.status import SessionStatus, write_status
from sodium_prep.cohort import compare_groups, gather, to_tsv, wide_table
from sodium_prep.cohort.model import MAIN_REGIONS
from sodium_prep.cohort.names import parse_entities
from sodium_prep.cohort.tables import DESCRIPTIONS, NUMBERS
from sodium_prep.cohort.tsv import read_tsv
from sodium_prep.cohort.values import measured_values
from sodium_prep.errors import InputError
from sodium_prep.regional.table import TABLE_COLUMNS


def main_values(cohort):
    values = measured_values(cohort, regions=MAIN_REGIONS)
    return values[(values["hemisphere"] == "both") & (values["index"] == "")]


TRUTH = {"Cortex": (58.0, 45.0), "WhiteMatter": (41.0, 36.0), "Hippocampus": (47.0, 44.0), "CSF": (88.0, 139.0)}
HEADER = "index\tname\themisphere\ttissue\testimator\treference\ttsc\ttsc_ci_low\ttsc_ci_high\tflag"


def write_tables(out, label, effect=1.0, seed=0, session=None, run=None, flag="n/a"):
    rng = np.random.default_rng(seed)
    folder = out / f"sub-{label}" / (f"ses-{session}" if session else "") / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [HEADER]
    for name, (raw, corrected) in TRUTH.items():
        for estimator, value in (("none", raw), ("labbe", corrected)):
            factor = effect if name == "Hippocampus" and estimator == "labbe" else 1.0
            tsc = value * factor * (1 + 0.04 * rng.normal())
            rows.append(f"n/a\t{name}\tboth\tGM\t{estimator}\tvials\t{tsc:.5f}\t{tsc - 2:.5f}\tn/a\t{flag}")
    rows.append(f"17\tNA\tL\tGM\tlabbe\tvials\tn/a\tn/a\tn/a\t{flag}")
    parts = [f"sub-{label}", f"ses-{session}" if session else "", "acq-sodium", f"run-{run}" if run else "", "seg-dk"]
    (folder / ("_".join(filter(None, parts)) + "_tsc.tsv")).write_text("\n".join(rows) + "\n")


@pytest.fixture
def study(tmp_path):
    """26 participants, +12.9 % in the hippocampus of group AD; one failed, one is only in the table."""
    bids, out = tmp_path / "bids", tmp_path / "out"
    (out / "logs").mkdir(parents=True)
    lines = ["participant_id\tage\tsex\tgroup\tsite"]
    for i in range(26):
        label = f"{i + 1:03d}"
        (bids / f"sub-{label}").mkdir(parents=True)
        group = "AD" if i < 14 else "NA"
        lines.append(f"sub-{label}\t{60 + i % 9}\t{'FM'[i % 2]}\t{group}\t{'AB'[i % 3 == 0]}")
        if i != 5:
            write_tables(out, label, 1.129 if group == "AD" else 1.0, seed=i)
    lines.append("sub-099\tn/a\tn/a\tAD\tA")
    (bids / "participants.tsv").write_text("\n".join(lines) + "\n")
    ends = [
        SessionStatus("006", None, "refused", 3, "sub-006_T1w.nii.gz: ends early. Copy it again."),
        SessionStatus("007", "a", "done", 0),
        SessionStatus("007", "b", "failed", 1, "out of luck."),
    ]
    write_status(out, ends)
    (out / "sub-001" / "anat" / "sub-001_acq-sodium_qc.json").write_text(json.dumps({"Verdict": "warn", "Metrics": {}}))
    return bids, out


def test_text_stays_text(study):
    cohort = gather(study[1], study[0])
    people = cohort.participants.set_index("participant_id")
    assert people.index[0] == "001"
    assert (people.loc["015", "group"], people.loc["099", "age"]) == ("NA", "")
    assert (people.loc["006", "state"], people.loc["006", "reason"]) == (
        "refused", "sub-006_T1w.nii.gz: ends early. Copy it again.",
    )  # fmt: skip
    assert (people.loc["007", "state"], people.loc["007", "reason"]) == ("done", "ses-b: out of luck.")
    assert people.loc["099", "state"] == "missing"
    assert people.loc["001", "qc"] == "warn"
    region = cohort.tsc[cohort.tsc["name"] == "NA"]
    assert len(region) == 25
    assert region["tsc"].isna().all()
    text = to_tsv(cohort.tsc)
    assert text.splitlines()[0].startswith("participant_id\tsession_id\tacquisition")
    assert "001\tn/a\tsodium\tn/a\tn/a\tdk\tn/a\tCortex" in text


def test_planted_effect_is_found_where_it_is_and_only_there(study):
    cohort = gather(study[1], study[0])
    table = compare_groups(measured_values(cohort)).table.set_index(["estimator", "region"])
    hit = table.loc[("labbe", "Hippocampus")]
    values = main_values(cohort)
    here = values[(values["estimator"] == "labbe") & (values["region"] == "Hippocampus")]
    first, second = (here.loc[here["group"] == g, "tsc"].astype(float) for g in ("AD", "NA"))
    oracle = stats.ttest_ind(second, first, equal_var=False)
    assert_allclose(hit["p"], oracle.pvalue, rtol=1e-9)
    assert (hit["n_1"], hit["n_2"], hit["n_adjusted"]) == (13, 12, 25)
    truth = 44.0 * (1 - 1.129)
    assert hit["difference_ci_low"] < truth < hit["difference_ci_high"] < 0
    assert hit["adjusted_ci_low"] < truth < hit["adjusted_ci_high"] < 0
    assert hit["adjusted_p_fdr"] < 0.001
    assert hit["covariates"] == "age, sex, site"
    others = table.drop(("labbe", "Hippocampus"))
    assert (others["p_fdr"] > 0.05).all()
    family = table.loc["labbe"]
    assert_allclose(family["p_fdr"], stats.false_discovery_control(family["p"]))


def test_groups_too_small_give_words_and_no_numbers(tmp_path):
    for i, label in enumerate(("1", "2", "3")):
        write_tables(tmp_path / "out", label, seed=i)
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\n1\ta\n2\tb\n3\tb\n")
    table = compare_groups(measured_values(gather(tmp_path / "out", tmp_path))).table
    assert set(table["state"]) == {"too few participants (fewer than 2 in a group)"}
    assert table[["difference", "p", "p_fdr", "hedges_g", "adjusted", "mean_1"]].isna().all(axis=None)


def test_the_reference_itself_is_not_compared(study):
    for path in study[1].glob("sub-*/anat/*_tsc.tsv"):
        path.write_text(path.read_text().replace("\tvials\t", "\tCSF\t"))
    table = compare_groups(measured_values(gather(study[1], study[0]))).table.set_index(["estimator", "region"])
    assert table.loc[("labbe", "CSF"), "state"].startswith("not compared")
    assert np.isnan(table.loc[("labbe", "CSF"), "p"])
    assert table.loc[("labbe", "Cortex"), "state"] == "compared"


def test_group_confounded_with_site_is_refused_with_the_counts(tmp_path):
    lines = ["participant_id\tgroup\tsite"]
    for i in range(8):
        write_tables(tmp_path / "out", str(i), seed=i)
        lines.append(f"sub-{i}\t{'ab'[i % 2]}\t{'XY'[i % 2]}")
    (tmp_path / "participants.tsv").write_text("\n".join(lines) + "\n")
    found = compare_groups(measured_values(gather(tmp_path / "out", tmp_path)))
    assert found.refusals == ("Group and site are confounded for a and b (a at X: 4, b at Y: 4): not compared.",)
    assert set(found.table["state"]) == {"group and site are confounded"}
    assert found.table["difference"].isna().all()


def test_runs_are_averaged_and_sessions_are_not_mixed(tmp_path):
    for run in (1, 2):
        write_tables(tmp_path, "01", seed=run, session="a", run=run)
    write_tables(tmp_path, "01", seed=9, session="b")
    cohort = gather(tmp_path)
    values = main_values(cohort)
    assert len(values) == 2 * len(MAIN_REGIONS) * 2
    long = cohort.tsc
    chosen = (long["name"] == "Cortex") & (long["estimator"] == "labbe") & (long["session_id"] == "a")
    mean = values[(values["region"] == "Cortex") & (values["estimator"] == "labbe") & (values["session_id"] == "a")]
    assert_allclose(mean["tsc"], long.loc[chosen, "tsc"].mean())
    wide = wide_table(cohort)
    assert len(wide) == 3
    assert_allclose(
        wide.loc[wide["run"] == "2", "Cortex_both_labbe_vials"], long.loc[chosen & (long["run"] == "2"), "tsc"]
    )


def test_bad_tables_are_refused_by_name(tmp_path):
    write_tables(tmp_path / "out", "01")
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-01\ta\n01\tb\n")
    with pytest.raises(InputError, match=r"participants\.tsv: lists participant 01 more than once"):
        gather(tmp_path / "out", tmp_path)
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-01\ta\tb\n")
    with pytest.raises(InputError, match="3 cells in line 2"):
        gather(tmp_path / "out", tmp_path)


def test_a_participant_with_a_bad_table_fails_and_the_others_are_gathered(tmp_path):
    for label in ("01", "02"):
        write_tables(tmp_path, label)
    bad = tmp_path / "sub-01" / "anat" / "sub-01_acq-sodium_seg-dk_tsc.tsv"
    row = "n/a\tCortex\tboth\tGM\tlabbe\tvials\t45\t44\t46\tok"
    for content, reason in (
        (row.replace("45", "4,5"), "column tsc holds '4,5'"),
        (f"{row}\n{row}", "has the region Cortex (both) twice by labbe, vials. Give each label"),
        (row.removesuffix("\tok"), "has 9 cells in line 2 where the header has 10"),
    ):
        bad.write_text(f"{HEADER}\n{content}\n")
        cohort = gather(tmp_path)
        assert set(cohort.tsc["participant_id"]) == {"02"}
        first = cohort.participants.set_index("participant_id").loc["01"]
        assert first["state"] == "failed"
        assert first["reason"].startswith(f"{bad}: {reason}")
        assert cohort.notes == ("Without results: 01.",)


def test_a_label_named_as_a_merged_region_is_not_taken_for_it(tmp_path):
    write_tables(tmp_path, "01")
    path = tmp_path / "sub-01" / "anat" / "sub-01_acq-sodium_seg-dk_tsc.tsv"
    with path.open("a") as file:
        file.write("24\tCSF\tboth\tCSF\tgtm\tvials\t1\t0\t2\tok\n")
    values = main_values(gather(tmp_path))
    assert set(values.loc[values["region"] == "CSF", "estimator"]) == {"none", "labbe"}


def test_main_regions_are_those_that_tables_merge():
    names = tuple(group.name for group in MAIN)
    assert names == MAIN_REGIONS
    assert set(names) <= set(RESERVED_NAMES)


def test_tsv_reading_keeps_quotes_and_empty_lines_harmless(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('a\tb\n"x\t001\n\nNone\tn/a\n')
    assert read_tsv(path) == [{"a": '"x', "b": "001"}, {"a": "None", "b": ""}]


def test_entities_of_a_name():
    found = parse_entities("sub-01_ses-02_acq-sodium_run-1_seg-dk_tsc.tsv")
    assert (found["participant_id"], found["session_id"], found["run"], found["reconstruction"]) == (
        "01",
        "02",
        "1",
        "",
    )


def test_every_column_of_the_regional_table_is_known_here():
    texts = {"name", "hemisphere", "tissue", "estimator", "reference", "flag"}
    assert set(TABLE_COLUMNS) == texts | set(NUMBERS)
    assert set(TABLE_COLUMNS) <= set(DESCRIPTIONS)
