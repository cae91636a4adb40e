"""Anatomy and registrations on the page: what is there is shown, what is not is explained."""

import json

import numpy as np
import pytest

from sodium_prep.report.alignment import _moved_mask, alignment_figures, alignment_record
from sodium_prep.report.methods import build_methods
from sodium_prep.report.page import Comparison, ParticipantReport, render_participant
from sodium_prep.report.scan import scan_record, scan_report

AFFINE = np.array([[4.0, 0, 0, -90], [0, 4.0, 0, -90], [0, 0, 4.0, -90], [0, 0, 0, 1]])
RAN = {"registration": {"methods": ["ants", "greedy"]}, "normalisation": {"method": "ants"}, "regional": {}}
TURNED = np.array([[1.0, 0, 0, 3.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
FACTS = {
    "reg_opinions": [
        dict(zip(("name", "shift_mm", "turn_deg", "score", "chosen", "matrix"), values, strict=True))
        for values in (
            ("ants", 2.5, 11.72, 0.9312, True, np.eye(4).tolist()),
            ("greedy", 4.1, 12.6, 0.9127, False, TURNED.tolist()),
            ("proton", None, None, float("nan"), False, None),
        )
    ],
    "reg_disagreement_mm": 3.0, "reg_sd_mm": 0.21, "reg_flagged": True, "coil_proton": False,
    "template_similarity": 0.51, "template_similarity_affine": 0.37, "template_method": "ants",
    "template_attempts": ["affine from header: similarity 0.12"], "brain_notes": ["the head is cut off at the vertex"],
    "atlas": {"name": "mine", "version": "2", "licence": "CC0 <b>", "citation": "Doe 2020", "space": "MNI"},
    "lost_regions": ["ctx-lh-frontalpole"],
}  # fmt: skip
EXTRA = ("template_affine", "template_warped", "sodium_second", "lesion")


@pytest.fixture(scope="module")
def images():
    grid = np.moveaxis(np.indices((46, 46, 46)), 0, -1) @ AFFINE[:3, :3] + AFFINE[:3, 3]
    r = np.linalg.norm(grid, axis=-1)
    maps = {
        "t1w": 100.0 * (r < 80), "brain_mask": r < 70, "gm": (r > 55) & (r < 70), "wm": (r > 20) & (r <= 55),
        "csf": r <= 20, "labels": np.where(r < 70, 1 + (grid[..., 0] > 0), 0), "sodium_t1w": np.exp(-r / 60),
        "template_affine": 80.0 * (r < 66), "template_warped": 80.0 * (r < 70), "sodium_second": np.exp(-r / 50),
        "lesion": np.linalg.norm(grid - [30, 0, 0], axis=-1) < 12,
    }  # fmt: skip
    return {name: (data.astype(np.float32), AFFINE) for name, data in maps.items()}


def page_of(images, facts, ran=RAN):
    drawn = alignment_figures(images, facts)
    calibration = {"order": [], "lines": {}, "references": []}
    made = scan_record("acq-sodium", drawn, images, [], calibration, facts, ran, [], 3.0)
    record = json.loads(json.dumps(made, sort_keys=True))  # as after a file
    scan = scan_report(record, {name: figure.svg for name, figure in drawn.items()})
    return scan, render_participant(ParticipantReport("sub-01", "01", [scan], build_methods(record["report"]["ran"])))


def test_everything_that_was_given_is_on_the_page(images):
    scan, page = page_of(images, FACTS)
    pairs = [figure for figure in scan.figures if isinstance(figure, Comparison)]
    assert [(p.section, p.before.label, p.after.label) for p in pairs] == [
        ("registration", "Greedy (not taken)", "ANTs (taken)"),
        ("template", "affine registration", "deformable registration"),
    ]
    for pair in pairs:
        assert pair.before.svg != pair.after.svg
    assert [f.title for f in scan.figures if f.section == "atlas"] == [
        "Atlas regions on the anatomy",
        "Atlas regions on sodium",
    ]
    assert scan.tables["registration"].rows == [
        ["ANTs, mutual information", "2.50 mm", "11.7 °", "0.9312", "taken"],
        ["Greedy, normalised mutual information", "4.10 mm", "12.6 °", "0.9127", "not taken"],
        ["By way of the coil's proton image", "", "", "n/a", "failed"],
    ]
    facts = {item.name: item.value for items in scan.facts.values() for item in items}
    assert facts["Disagreement of the two programs"] == "3.00 mm"
    assert facts["Uncertainty (SD)"] == "0.21 mm"
    assert facts["Flagged"] == "yes"
    assert facts["Regions lost by warping"] == "ctx-lh-frontalpole"
    assert "CC0 &lt;b&gt;" in page
    assert "<b>" not in page.replace("<p><b>", "").split("<article", 1)[1]
    verdicts = {metric.name: (metric.value, metric.verdict) for metric in scan.qc}
    assert verdicts["reg_disagreement_mm"] == (3.0, "warn")
    assert verdicts["reg_flagged"] == (1.0, "warn")
    assert verdicts["template_gain"] == (pytest.approx(0.14), "pass")
    assert verdicts["lost_regions"] == (1.0, "warn")
    assert len(page) < 6_000_000


def test_what_is_absent_is_explained(images):
    bare = images | dict.fromkeys(EXTRA)
    scan, page = page_of(bare, {})
    assert "There is no second opinion to compare with: a second registration was not made." in page
    assert "Not available: no image of the template was made." in page
    assert not scan.tables
    assert "<script" not in page
    assert [m.name for m in scan.qc if m.name.startswith(("reg_", "template_", "lost_"))] == []
    # A name that is left out is the same as None.
    left_out = {name: image for name, image in images.items() if name not in EXTRA}
    given = alignment_record(left_out, {}, RAN | {"registration": None, "normalisation": None})
    assert given["remarks"]["registration"] == ["There is no second opinion to compare with: the transform was given."]
    assert "the template was not registered, as regions and transforms came with" in given["missing"]["template"]


def test_one_of_a_pair_stands_alone(images):
    scan, page = page_of(images | {"template_warped": None}, FACTS | {"template_method": "affine"})
    assert [type(f).__name__ for f in scan.figures if f.section == "template"] == ["ReportFigure"]
    assert "Only the affine registration is shown" in page
    assert "regions were placed by the affine one alone" in page


def test_the_outline_by_the_other_registration_lies_where_it_sees_the_brain(images):
    """The other one puts the sodium 3 mm further right, so that it sees the brain 3 mm further left in this picture."""
    mask = images["brain_mask"][0]
    moved = _moved_mask(mask, AFFINE, np.eye(4), TURNED)
    first = np.arange(mask.shape[0]) * 4.0 - 90.0
    centre = [float((m.sum(axis=(1, 2)) * first).sum() / m.sum()) for m in (mask, moved)]
    assert centre[1] - centre[0] == pytest.approx(-3.0, abs=0.01)
    np.testing.assert_allclose(_moved_mask(mask, AFFINE, TURNED, TURNED), mask, atol=1e-6)
