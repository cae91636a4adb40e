"""Cautions on planted comparisons: each trap is named, and where there is none nothing is said."""

import pandas as pd

from sodium_prep.cohort.cautions import comparison_cautions

SURE, UNSURE = 0.001, 0.5


def row(region, reference="vials", effect=5.0, p=UNSURE, estimator="labbe", tissue_p=None, role="tested", n=(30, 30)):
    return {
        "group_1": "control", "group_2": "AD", "region": region, "hemisphere": "both", "estimator": estimator,
        "reference": reference, "state": "compared", "role": role, "n_1": n[0], "n_2": n[1], "mean_1": 50.0,
        "difference": 9.0, "p": 0.9, "p_fdr": 0.9, "adjusted": effect, "adjusted_p": p, "adjusted_p_fdr": p,
        "tissue_adjusted_p_fdr": p if tissue_p is None else tissue_p,
    }  # fmt: skip


def cautions(*rows):
    return comparison_cautions(pd.DataFrame(rows), estimator="labbe")


def test_nothing_is_said_of_effects_that_agree():
    rows = [row("Hippocampus", reference, 6.0, SURE) for reference in ("vials", "vitreous")]
    raw = [row("Hippocampus", reference, 4.0, SURE, "none") for reference in ("vials", "vitreous")]
    assert cautions(*rows, *raw, row("Putamen", p=UNSURE, role="negative_control"), row("Cortex", effect=0.1)) == []


def test_the_trap_of_a_csf_reference():
    """Mohamed's cohort: CSF +20.6 %, so that a true +12.9 % of hippocampus reads (1.129 / 1.206 - 1) = -6.4 %."""
    found = cautions(
        row("CSF", "vials", 10.3, SURE), row("Hippocampus", "vials", 6.45, SURE), row("Hippocampus", "CSF", -3.2, SURE),
        row("Putamen", "CSF", -8.5, SURE, role="negative_control"), row("Cortex", "CSF", -8.5, SURE, tissue_p=UNSURE),
    )  # fmt: skip
    assert len(found) == 2
    assert "CSF itself differs" in found[0]
    assert "+20.6 % by vials" in found[0]
    assert "Hippocampus +12.9 %* by vials, \N{MINUS SIGN}6.4 %* by CSF" in found[1]


def test_references_of_which_only_one_finds_something():
    (found,) = cautions(row("Cortex", "vials", 5.0, SURE), row("Cortex", "vitreous", 2.0, UNSURE))
    assert "Cortex +10.0 %* by vials, +4.0 % by vitreous" in found


def test_a_negative_control_that_differs():
    (found,) = cautions(row("Putamen", effect=-3.0, p=0.02, role="negative_control"))
    assert "Putamen \N{MINUS SIGN}6.0 % by vials (p = 0.02)" in found


def test_effects_that_tissue_explains():
    (found,) = cautions(row("Hippocampus", p=SURE, tissue_p=UNSURE), row("Cortex", p=SURE))
    assert "No longer different at equal tissue (AD minus control): Hippocampus by vials." in found
    (found,) = cautions(row("Hippocampus", p=SURE, estimator="none"), row("Hippocampus", p=UNSURE))
    assert "before the partial volume correction only (AD minus control): Hippocampus by vials" in found


def test_few_participants():
    (found,) = cautions(row("Cortex", n=(14, 9)))
    assert "rests on 9 and 14 participants" in found


def test_comparisons_that_were_not_made_say_nothing():
    assert cautions(row("Cortex", p=SURE) | {"state": "group and site are confounded"}) == []
