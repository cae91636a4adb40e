"""The group page: what it says of planted results, and figures that show their numbers where they are."""

import base64
import io
import re
import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sodium_prep.cohort import qc
from sodium_prep.cohort.tables import Cohort
from sodium_prep.report.group import group_report
from sodium_prep.report.group_effects import model_values
from sodium_prep.report.group_further import roc_points
from sodium_prep.report.group_plots import Dot, ForestRow, Scatter, Strip, forest, heat_map, scatters, strips
from sodium_prep.report.group_results import GroupResults
from sodium_prep.report.group_tables import frame_table
from sodium_prep.report.page import render_group

STRATUM = {"session_id": "", "acquisition": "sodium", "reconstruction": "", "atlas": "dk"}


def sizes(svg):
    width, height = (float(v) for v in re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
    return np.array([width, height])


def drawn_marks(svg):
    """Places of all marks in an SVG of matplotlib, as fractions of the picture."""
    found = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg)
    return np.array(found, dtype=float) / sizes(svg)


def off_by(drawn):
    """Distance of every named point from the nearest mark, in points of the picture."""
    marks, size = drawn_marks(drawn.svg), sizes(drawn.svg)
    places = np.array([(x, y) for x, y, _ in drawn.points])
    return np.linalg.norm((places[:, None] - marks[None]) * size, axis=2).min(axis=1)


def test_what_is_pointed_at_lies_where_it_is_drawn():
    rng = np.random.default_rng(0)
    cells = {g: [(f"{g}{i}", v, g) for i, v in enumerate(rng.normal(45, 3, 12))] for g in ("HC", "AD")}
    panels = [Strip(name, cells, {"AD": (46.0, 44.0, 48.0)}, 45.0) for name in ("raw", "corrected")]
    drawn = strips([panels], title="t", groups=["HC", "AD"])
    assert len(drawn.points) == 48
    assert off_by(drawn).max() < 0.1
    assert strips([panels], title="t", groups=["HC", "AD"]) == drawn
    dots = [Dot(x, 2.0 * x, "HC", f"p{x}") for x in (1.0, 2.0, 4.0, 30.0)]
    scattered = scatters([Scatter("a", dots)], title="t", groups=["HC", "AD"], x="h", y="v", log_x=True)
    assert off_by(scattered).max() < 0.1
    assert [text for *_, text in scattered.points] == ["p1.0 (HC): 2", "p2.0 (HC): 4", "p4.0 (HC): 8", "p30.0 (HC): 60"]
    effects = {"vials": {"raw": (0.5, 0.1, 0.9), "corrected": (1.0, 0.5, 1.5)}}
    effect = forest([ForestRow("Cortex", effects)], title="t", panels=["vials"], series=["raw", "corrected"])
    assert off_by(effect).max() < 0.1
    assert effect.points[1][2] == "Cortex, corrected: g = +1.00 [0.50, 1.50]"


def test_labels_of_any_kind_leave_a_figure_whole():
    odd = "$x^2$ <b> --> ]]> \x08 & _a"
    cells = {odd: [(odd, 1.0, odd), ("b", 2.0, odd)], "_hidden": [], "": []}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        drawn = strips([[Strip(odd, cells)]], title=odd, groups=list(cells))
    ElementTree.fromstring(drawn.svg)
    assert drawn.points[0][2] == f"{odd} ({odd}): 1"


def test_a_cell_of_the_heat_map_has_the_colour_of_its_value():
    from PIL import Image

    z = [[4.0, -4.0, 0.0], [np.nan, 9.0, -1.0]]
    drawn = heat_map(z, people=["a", "b"], groups=["AD", "HC"], regions=["r", "s", "t"], title="t")
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
        for text in re.findall(r"data:image/png;base64,\s*([^\"]+)", drawn.svg)
    ]
    (picture,) = [p for p in pictures if p.shape == (2, 3, 3)]
    colours = matplotlib.colormaps["PuOr_r"]
    wanted = [[colours(0.5 + v / 8)[:3] if v == v else (0xD5 / 255, 0xDA / 255, 0xE0 / 255) for v in row] for row in z]
    assert np.abs(picture / 255 - np.clip(wanted, 0, 1)).max() < 0.02
    assert sorted(text for *_, text in drawn.points)[0] == "a, r: z = +4.0"


def test_roc_area_is_that_of_all_pairs():
    rng = np.random.default_rng(1)
    values = np.round(rng.normal(0, 1, 60) + np.repeat([0.0, 0.8], 30), 1)  # rounded, so that there are ties
    case = np.repeat([False, True], 30)
    fpr, tpr = roc_points(values.tolist(), case.tolist())
    pairs = values[case][:, None] - values[~case][None]
    assert_allclose(np.trapezoid(tpr, fpr), (pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def comparison(region, estimator, reference, adjusted, p, first="control", second="AD", **more):
    row = STRATUM | {"region": region, "hemisphere": "both", "estimator": estimator, "reference": reference}
    row |= {"group_1": first, "group_2": second, "state": "compared", "n_1": 12, "n_2": 14, "mean_1": 40.0,
            "sd_1": 3.0, "mean_2": 45.0, "sd_2": 3.0, "covariates": "age, sex, site", "role": "tested"}  # fmt: skip
    for name in ("difference", "adjusted", "tissue_adjusted"):
        row |= {name: adjusted, f"{name}_ci_low": adjusted - 1.5, f"{name}_ci_high": adjusted + 1.5}
    row |= {"hedges_g": adjusted / 3, "hedges_g_ci_low": adjusted / 3 - 0.5, "hedges_g_ci_high": adjusted / 3 + 0.5}
    row |= dict.fromkeys(("p", "p_fdr", "adjusted_p", "adjusted_p_fdr", "tissue_adjusted_p_fdr"), p)
    return row | more


def test_the_models_value_is_the_first_mean_plus_the_difference_in_either_order():
    here = pd.DataFrame([STRATUM | {"region": "Cortex", "estimator": "labbe", "reference": "vials", "tsc": 1.0}])
    table = pd.DataFrame(
        [comparison("Cortex", "labbe", "vials", 5.0, 0.01), comparison("Cortex", "none", "vials", 9.0, 0.01)]
    )
    assert model_values(here, table, ["control", "AD"]) == (40.0, {"AD": (45.0, 43.5, 46.5)})
    turned = table.assign(group_1="AD", group_2="control", mean_1=45.0, mean_2=40.0)
    assert model_values(here, turned, ["control", "AD"]) == (40.0, {"AD": (35.0, 33.5, 36.5)})
    assert model_values(here, table, ["MCI", "HC"]) == (None, {})


def test_a_table_of_results_in_print():
    frame = pd.DataFrame({
        "region": ["Cortex", "CSF"], "state": ["estimated"] * 2, "r": [0.31, np.nan], "ci_low": [-0.104, np.nan],
        "ci_high": [0.62, np.nan], "p": [0.0002, np.nan], "n": [26, 25], "left_out": [np.nan, np.nan],
        "within_sd": [1.234, 123.4], "within_sd_ci_low": [1.0, 100.0], "within_sd_ci_high": [2.0, 200.0],
    })  # fmt: skip
    table = frame_table(frame, caption="What.")
    assert table.caption == "What. In all rows: state estimated."
    assert list(table.columns) == ["region", "r", "p", "n", "within SD"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["Cortex", "0.31 [\u22120.10, 0.62]", "<\u00a00.001", "26", "1.23 [1.00, 2.00]"],
        ["CSF", "n/a", "n/a", "25", "123 [100, 200]"],
    ]
    long = frame_table(pd.DataFrame({"region": [str(i) for i in range(1000)]}))
    assert len(long.rows) == 400
    assert "first 400 of 1000 rows" in long.caption


def people(rows):
    frame = pd.DataFrame(rows, dtype=object).fillna("")
    return Cohort(pd.DataFrame(columns=[*qc.SCAN, "name", "tsc"]), frame, pd.DataFrame(), ("A note.",))


@pytest.fixture(scope="module")
def planted():
    """26 participants at two sites, +12.5 % in the hippocampus of AD; CSF as reference turns it round."""
    rng = np.random.default_rng(3)
    rows, values = [], []
    for i in range(26):
        person = {"participant_id": f"{i:03d}", "group": "AD" if i < 14 else "control", "site": "AB"[i % 2],
                  "age": str(60 + i), "state": "done", "reason": "", "qc": "pass"}  # fmt: skip
        rows.append(person)
        for estimator, mean in (("none", 47.0), ("labbe", 40.0)):
            for reference in ("vials", "CSF"):
                value = mean * (1.125 if i < 14 else 1.0) + rng.normal(0, 2)
                values.append(STRATUM | person | {"region": "Hippocampus", "hemisphere": "both", "estimator": estimator,
                                                  "reference": reference, "tsc": value})  # fmt: skip
    rows.append(rows[0] | {"participant_id": "<b>", "state": "failed", "reason": "ends <early>", "group": "AD"})
    table = [comparison("Hippocampus", estimator, reference, effect, 0.001)
             for estimator in ("none", "labbe") for reference, effect in (("vials", 5.0), ("CSF", -2.4))]  # fmt: skip
    table += [
        comparison("Putamen", "labbe", reference, 0.2, 0.8, role="negative_control") for reference in ("vials", "CSF")
    ]
    metrics = pd.DataFrame(
        [[f"{i:03d}", "", "sodium", "", "", "snr", "SNR", "", 40.0 if i == 7 else 10.0 + i % 4, "pass", "warn < 8"]
         for i in range(26)],
        columns=[*qc.SCAN, "metric", "label", "unit", "value", "verdict", "threshold"],
    )  # fmt: skip
    cohort = people(rows)
    ratings = pd.DataFrame([["003", "", "", "fail", "KB", "moved"]],
                           columns=["participant_id", "session_id", "run", "verdict", "rater", "comment"])  # fmt: skip
    verdicts, _ = qc.final_verdicts(qc.scan_verdicts(metrics, cohort.tsc), ratings)
    return GroupResults(
        cohort=cohort, values=pd.DataFrame(values), comparisons=pd.DataFrame(table), control="control",
        qc=qc.cohort_qc(metrics, cohort), verdicts=verdicts, excluded=qc.failed_scans(verdicts),
        missing={"voxelwise": "it was not asked for"}, pages={"001", "003", "<b>"},
        methods={"comparison": {"covariates": ["age"]}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(planted):
    return group_report(planted)


def section(report, key):
    return next(s for s in report.sections if s.key == key)


def tables(report, key):
    return [block for block in section(report, key).blocks if block.kind == "table"]


def test_findings_are_told_with_size_certainty_and_what_stands_against_them(report):
    said = [line for block in section(report, "findings").blocks if block.kind == "notes" for line in block.lines]
    assert said[0] == (
        "AD minus control: 1 of 1 tested region differs: Hippocampus +5.0 mM [3.5, 6.5], +12.5 % (corrected (Labbé) "
        "values, reference vials, n = 14 and 12)."
    )
    assert any("Hippocampus +12.5 %* by vials, \u22126.0 %* by CSF" in line for line in said[1:])
    (table,) = tables(report, "findings")
    row = dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))
    assert row["Corrected, mM"] == "+5.0 [3.5, 6.5]"
    assert row["% by CSF"] == "\u22126.0\u00a0*"
    assert table.rows[1][0].text == "Putamen (negative control)"


def test_who_is_left_out_is_listed_with_the_reason(report):
    table = next(t for t in tables(report, "overview") if t.heading == "Not in the analysis")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["<b>", "all", "failed", "ends <early>"], ["003", "acq-sodium", "excluded by a rater", "moved"],
    ]  # fmt: skip
    counts = next(t for t in tables(report, "overview") if t.heading == "Group by site")
    assert [[cell.text for cell in row] for row in counts.rows] == [
        ["AD", "7", "7", "14"], ["control", "6", "6", "12"], ["all", "13", "13", "26"],
    ]  # fmt: skip


def test_scans_to_look_at_again_stand_in_a_list(report):
    # At site B seven of 13 scans have 11, five 13 and one 40: z = 29 / (3 sqrt(pi / 2)).
    (again,) = [block for block in section(report, "quality").blocks if block.kind == "list"]
    assert list(again.lines) == [
        "sub-003 acq-sodium: fail (rated by KB: moved)", "sub-007 acq-sodium: SNR 40 (z = +7.7)",
    ]  # fmt: skip


def test_sections_without_results_are_absent_or_say_why(report):
    keys = [s.key for s in report.sections]
    assert keys == [
        "overview",
        "findings",
        "regions",
        "effects",
        "sites",
        "age",
        "voxelwise",
        "quality",
        "participants",
    ]
    assert section(report, "voxelwise").blocks[0].text == "Not available: it was not asked for."


def test_the_page_is_whole_and_small(report):
    text = render_group(report)
    assert text == render_group(report)
    assert len(text) < 600_000
    assert 'href="sub-001.html"' in text
    assert "sub-<b>" not in text
    assert "<early>" not in text
    assert "sub-002.html" not in text


def test_two_participants_without_groups_make_a_page(planted):
    cohort = people([{"participant_id": label, "state": "done", "reason": "", "qc": "info"} for label in ("1", "2")])
    values = planted.values.iloc[:0].drop(columns=["group", "site", "age"])
    report = group_report(GroupResults(cohort=cohort, values=values))
    assert [s.key for s in report.sections] == ["overview", "findings", "regions", "participants"]
    assert "There are no groups to compare" in section(report, "findings").blocks[0].text
