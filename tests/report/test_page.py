"""Pages: complete, self-contained, and safe against what metadata may hold."""

import re
from html.parser import HTMLParser

import pytest

from sodium_prep.report.methods import build_methods
from sodium_prep.report.page import (
    SECTIONS,
    ComparisonTable,
    GroupReport,
    ParticipantReport,
    ParticipantRow,
    RegionRow,
    ReportFigure,
    ScanReport,
    SummaryItem,
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
    return ScanReport(label, [SummaryItem(text, text)], qc, figures, rows, [text], {"psf": "no trajectory is known"})


def _report(*labels, text="x"):
    methods = build_methods({"recon": {"method": text, "trajectory": text}, "atlas": {"name": text}})
    return ParticipantReport(
        f"sub-01 {text}", text, [_scan(label, text) for label in labels], methods, [text], [text], f"a = {text}",
        [SummaryItem("Python", text)],
    )  # fmt: skip


def _group(text="x"):
    return GroupReport(
        text, [text], [ParticipantRow([text], text, "warn", text)], build_methods({"comparison": {}}),
        [ReportFigure("group", text, text, SVG)], [ComparisonTable(text, text, [text, text], [[text, text]])], text,
        [SummaryItem(text, text)], [text],
    )  # fmt: skip


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
    "render", [lambda: render_participant(_report("ses-01", text=EVIL)), lambda: render_group(_group(EVIL))]
)
def test_text_from_outside_is_escaped(render):
    text = render()
    page = _Page(text)
    assert "script" not in page.tags
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert all(value.startswith("data:image/") for tag, name, value in page.attributes if (tag, name) == ("img", "src"))
    assert page.text.count("<script>alert('x')</script>") >= 5


@pytest.mark.parametrize("text", [render_participant(_report("ses-01")), render_group(_group())])
def test_page_asks_for_nothing_outside_itself(text):
    page = _Page(text)
    assert {"link", "script", "iframe", "object", "base"} & set(page.tags) == set()
    assert not re.search(r"url\(|@import", text)
    policy = next(v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert page.tags.count("h1") == 1
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))


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
