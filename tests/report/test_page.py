"""Pages: complete, self-contained, and safe against what metadata may hold."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from sodium_prep.report.layout import slice_columns
from sodium_prep.report.methods import build_methods
from sodium_prep.report.page import (
    SECTIONS,
    Cell,
    Comparison,
    DataTable,
    Facts,
    GroupReport,
    GroupSection,
    Heading,
    Notes,
    Paragraph,
    ParticipantReport,
    PrintedTable,
    RegionRow,
    ReportFigure,
    ScanReport,
    SummaryItem,
    TextList,
    render_group,
    render_participant,
)
from sodium_prep.report.qc import evaluate

EVIL = "<script>alert('x')</script>\"'><img src=http://evil.example/x onerror=alert(1)>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
NAN = float("nan")


class _Page(HTMLParser):
    """Elements, ids and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.attributes, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text += data


def _scan(label, text="x"):
    rows = [
        RegionRow("Cortex", "vials", {"none": (58.0, 56.0, 60.0), "labbe": (45.04, 41.0, 49.0)}),
        RegionRow("Cortex", "CSF", {"none": (NAN, NAN, NAN), "labbe": (44.0, NAN, NAN)}, flag=text),
    ]
    figures = [ReportFigure(key, text, text, SVG, alt=text, wide=key == "tsc") for key in SECTIONS if key != "psf"]
    qc = evaluate({"na_snr_wm": 5.0, "coverage": 1.0, text: 1.0})
    table = PrintedTable(text, text, [text, text], [[text, text]])
    return ScanReport(
        label, [SummaryItem(text, text)], qc, figures, rows, [text], {"psf": "no trajectory is known"},
        {"registration": [SummaryItem(text, text)]}, {"registration": table}, {"atlas": [text]}, [table],
    )  # fmt: skip


def _compared(text="x"):
    pair = [ReportFigure("template", text, text, SVG, alt=text, wide=True, label=f"{name} {text}") for name in "ab"]
    scan = ScanReport("ses-01", figures=[Comparison(*pair, slice_columns(4))])
    return render_participant(ParticipantReport("sub-01", "01", [scan, scan], build_methods({})))


def _report(*labels, text="x"):
    methods = build_methods({"recon": {"method": text, "trajectory": text}, "atlas": {"name": text}})
    return ParticipantReport(
        f"sub-01 {text}", text, [_scan(label, text) for label in labels], methods, [text], [text], f"a = {text}",
        [SummaryItem("Python", text)],
    )  # fmt: skip


def _group(text="x"):
    table = DataTable(text, [text, text], [[Cell(text, page="01"), Cell(text, 1.0)]] * 2, text)
    figure = ReportFigure("group", text, text, SVG, alt=text, points=[(0.25, 0.5, text)])
    blocks = [figure, table, TextList(text, text, "x.txt", [text, text]), Facts([SummaryItem(text, text)]),
              Notes([text]), Heading(text), Paragraph(text)]  # fmt: skip
    sections = [GroupSection("one", text, blocks, text), GroupSection("two", text, blocks)]
    return GroupReport(text, text, sections, build_methods({"comparison": {}}), text, [SummaryItem(text, text)])


def test_all_sections_are_there_once_per_scan_and_links_have_targets():
    page = _Page(render_participant(_report("ses-01", "ses-02")))
    for number in (1, 2):
        for key in ("summary", *SECTIONS, "qc"):
            assert page.ids.count(f"scan-{number}-{key}") == 1
    for key in ("norms", "methods", "references", "errors", "about"):
        assert page.ids.count(key) == 1
    targets = {value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#")}
    assert targets <= set(page.ids)
    assert "Not available: no trajectory is known." in page.text
    assert "45.0 [41.0, 49.0]" in page.text
    assert "44.0 [n/a]" in page.text


@pytest.mark.parametrize(
    "render",
    [
        lambda: render_participant(_report("ses-01", text=EVIL)),
        lambda: render_group(_group(EVIL)),
        lambda: _compared(EVIL),
    ],
)
def test_text_from_outside_is_escaped(render):
    text = render()
    page = _Page(text)
    assert page.tags.count("script") == text.count("<script>") == ("script-src" in text)
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert all(value.startswith("data:image/") for tag, name, value in page.attributes if (tag, name) == ("img", "src"))
    assert page.text.count("<script>alert('x')</script>") >= 5


@pytest.mark.parametrize(
    ("text", "scripts"), [(render_participant(_report("ses-01")), 0), (_compared(), 1), (render_group(_group()), 1)]
)
def test_page_asks_for_nothing_outside_itself(text, scripts):
    page = _Page(text)
    assert {"link", "iframe", "object", "base"} & set(page.tags) == set()
    assert page.tags.count("script") == scripts
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", text)
    assert not [
        v for t, n, v in page.attributes if n in ("src", "srcset", "data", "action") and not v.startswith("data:")
    ]
    assert all(t == "a" for t, n, v in page.attributes if n == "href")
    policy = next(v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert page.tags.count("h1") == 1
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))


@pytest.mark.parametrize("text", [_compared(), render_group(_group())])
def test_the_one_script_is_admitted_by_its_hash_and_nothing_else_is(text):
    page = _Page(text)
    assert page.tags.count("script") == 1
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    policy = next(v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert "script-src" not in render_participant(_report("ses-01"))


def test_a_comparison_can_be_read_without_script_and_used_by_keyboard():
    text = _compared()
    page = _Page(text)
    sliders = [dict(found) for found in _inputs(text)]
    assert [slider["type"] for slider in sliders] == ["range", "range"]
    assert all("a x" in slider["aria-label"] and "b x" in slider["aria-label"] for slider in sliders)
    assert len({slider["id"] for slider in sliders}) == 2
    # Without the script the slider stays hidden, and both pictures stand in the page, each under its name.
    assert text.count('<div class="control" hidden>') == 2
    assert page.tags.count("img") == 4
    assert len(re.findall(r'<div class="layer"><p><b>[ab] x</b></p><img alt="x"', text)) == 4
    # Only a page made live by the script lays them on one another.
    style = text[text.index("<style>") : text.index("</style>")]
    assert all(".live" in rule for rule in re.findall(r"[^{}]*\{[^{}]*clip-path[^{}]*\}", style))


def test_the_slider_uncovers_the_second_picture_column_by_column():
    """The shape is CSS; its points are read back here with the slider at a quarter."""
    text = _compared()
    shape = re.search(r'<img[^>]*style="--shape: polygon\(([^"]*)\)"', text).group(1)
    corners = re.findall(r"(?:calc\(([\d.]+)% \+ ([\d.]+)% \* var\(--at\)\)|([\d.]+)%) (100%|0)", shape)
    at = [float(a) + 0.25 * float(b) if a else float(c) for a, b, c, _ in corners]
    assert [y for *_, y in corners] == ["100%", "0", "0", "100%"] * 4
    for (left, right), x in zip(slice_columns(4).ends, (at[i : i + 4] for i in range(0, 16, 4)), strict=True):
        start = 100 * (left + 0.25 * (right - left))
        assert x == pytest.approx([start, start, 100 * right, 100 * right], abs=0.01)


def _inputs(text):
    found = []

    class Inputs(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "input":
                found.append(attrs)

    Inputs().feed(text)
    return found


def test_no_scan_no_metric_no_step_is_still_a_page():
    report = ParticipantReport("sub-02", "02", [ScanReport("ses-01")], build_methods({}), errors=["all went wrong"])
    page = _Page(render_participant(report))
    assert "all went wrong" in page.text
    assert "There are no regional values" in page.text
    assert report.verdict == "info"


def test_figure_for_a_section_that_does_not_exist_is_refused():
    scan = ScanReport("ses-01", figures=[ReportFigure("tcs", "", "", SVG)])
    with pytest.raises(ValueError, match="tcs"):
        render_participant(ParticipantReport("t", "01", [scan], build_methods({})))


def test_the_group_page_can_be_read_without_script():
    text = render_group(_group("Seven"))
    body = text[: text.index("<script>")]
    page = _Page(body)
    assert {"one", "two", "methods", "about", "one-list-3", "two-list-3"} <= set(page.ids)
    assert '<button type="button" hidden>' in body
    assert page.tags.count("button") == 2  # what sorts and filters is made by the script, so that nothing is dead
    labelled = {v for t, n, v in page.attributes if n == "aria-labelledby"}
    assert labelled <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_a_list_is_saved_as_it_is_read():
    lines = ['sub-01: fail (moved, "twice")', "sub-02: 50 % & more\t<b>", "sub-03 #Ü"]
    blocks = [TextList("Again", "Those.", "recheck.txt", lines)]
    report = GroupReport("t", "s", [GroupSection("quality", "Quality", blocks)], build_methods({}))
    page = _Page(render_group(report))
    (address,) = [v for t, n, v in page.attributes if (t, n) == ("a", "href") and v.startswith("data:")]
    kind, _, text = address.partition(",")
    assert kind == "data:text/plain;charset=utf-8"
    assert unquote(text) == "\n".join(lines) + "\n"
    assert "\n".join(lines) in page.text


@pytest.mark.parametrize(("label", "link"), [("001", "sub-001.html"), ("../x", ""), ("a b", ""), ("a\n", ""), ("", "")])
def test_only_labels_of_bids_become_links(label, link):
    assert Cell("x", page=label).link == link


def test_points_of_a_figure_reach_the_script_as_they_are():
    said = 'sub-1 "quoted" <i>, 5'
    figure = ReportFigure("group", "f", "c", SVG, points=[(0.1236, 1.0, said)])
    report = GroupReport("t", "s", [GroupSection("a", "A", [figure])], build_methods({}))
    page = _Page(render_group(report))
    (points,) = [v for t, n, v in page.attributes if n == "data-points"]
    assert json.loads(points) == [[123.6, 1000.0, said]]
