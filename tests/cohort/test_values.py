"""The values that a cohort is analysed on, from tables whose content is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sodium_prep.cohort.tables import gather, joined
from sodium_prep.cohort.tsv import to_tsv
from sodium_prep.cohort.values import measured_values
from sodium_prep.errors import InputError

HEADER = "index\tname\themisphere\ttissue\testimator\treference\ttsc\ttsc_stderr_within\ttsc_stderr\tcsf_fraction\tflag"


def write(out, label, session, run, rows):
    folder = out / f"sub-{label}" / f"ses-{session}" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"sub-{label}_ses-{session}_acq-na_run-{run}_seg-dk_tsc.tsv").write_text(
        "\n".join([HEADER, *rows]) + "\n"
    )


@pytest.fixture
def study(tmp_path):
    out, bids = tmp_path / "out", tmp_path / "bids"
    for run, tsc, flag in ((1, 44.0, "n/a"), (2, 46.0, "low SNR")):
        rows = [
            f"n/a\tCortex\tboth\tGM\tlabbe\tvials\t{tsc}\t1.0\t{5**0.5}\t0.1\t{flag}",
            "24\tCortex\tL\tGM\tlabbe\tvials\t50\tn/a\tn/a\t0.2\tn/a",
            "25\tPons\tboth\tWM\tlabbe\tvials\tn/a\tn/a\tn/a\tn/a\tn/a",
        ]
        write(out, "01", "a", run, rows)
    write(out, "02", "a", 1, ["n/a\tCortex\tboth\tGM\tlabbe\tvials\t40\t1\t2\t0.3\tn/a"])
    for label in ("01", "02"):
        (bids / f"sub-{label}").mkdir(parents=True)
    (bids / "participants.tsv").write_text("participant_id\tgroup\tage\ttsc\nsub-01\tNA\t70\tx\nsub-02\tNone\t71\ty\n")
    table = "session_id\tage\tyears\nses-a\t70.5\t001\nses-b\tn/a\t1\n"
    (bids / "sub-01" / "sub-01_sessions.tsv").write_text(table)
    return out, bids


def test_runs_are_averaged_with_errors_that_know_what_runs_share(study):
    values = measured_values(gather(*study))
    assert len(values) == 3  # Pons has no value
    one = values[(values["participant_id"] == "01") & (values["index"] == "")].iloc[0]
    # Within: two independent runs of 1 mM. Shared: sqrt(5 - 1) = 2 mM, which averaging does not lessen.
    assert_allclose([one["tsc"], one["tsc_stderr_within"], one["tsc_stderr"]], [45.0, 0.5**0.5, 4.5**0.5])
    assert (one["flag"], one["region"], one["csf_fraction"]) == ("low SNR", "Cortex", 0.1)
    left = values[values["index"] == "24"].iloc[0]
    assert np.isnan(left["tsc_stderr_within"])


def test_participants_and_sessions_are_joined_as_text(study):
    values = measured_values(gather(*study)).set_index(["participant_id", "index"])
    first, second = values.loc[("01", "")], values.loc[("02", "")]
    # The session's own age goes before the participant's; NA and None are labels, 001 is not 1.
    assert (first["group"], first["age"], first["years"]) == ("NA", "70.5", "001")
    assert (second["group"], second["age"], second["years"]) == ("None", "71", "")
    # A column of participants.tsv that bears the name of a measurement does not replace it.
    assert (first["tsc"], first["participants_tsc"]) == (45.0, "x")
    assert all(isinstance(cell, str) for cell in values["group"])


def test_runs_apart_and_selections(study):
    cohort = gather(*study)
    apart = measured_values(cohort, average_runs=False, regions=["Cortex"])
    assert sorted(apart["run"]) == ["1", "1", "1", "2", "2"]
    assert measured_values(cohort, regions=["Thalamus"]).empty


def test_the_long_table_is_joined_and_says_what_is_missing(study):
    cohort = gather(*study)
    lines = [line.split("\t") for line in to_tsv(joined(cohort.tsc, cohort)).splitlines()]
    table = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [row["years"] for row in table] == ["001"] * 6 + ["n/a"]
    assert (table[0]["tsc"], table[2]["tsc"], table[6]["tsc"]) == ("44", "n/a", "40")


def test_a_session_listed_twice_and_two_tables_of_one_scan_are_told(study):
    out, bids = study
    path = bids / "sub-01" / "sub-01_sessions.tsv"
    path.write_text(path.read_text() + "ses-a\t1\t2\n")
    with pytest.raises(InputError, match=r"sub-01_sessions\.tsv: lists session a more than once"):
        gather(out, bids)
    table = next(out.glob("sub-02/ses-a/anat/*_tsc.tsv"))
    table.with_name(table.name.replace("_seg", "_desc-old_seg")).write_text(table.read_text())
    people = gather(out).participants.set_index("participant_id")
    assert "is of the same scan and atlas as" in people.loc["02", "reason"]
