"""The pages: one HTML file each, readable offline, with every text from outside escaped.

A participant's page that compares two figures, and the group page, hold one short script of ours, which the page's
policy admits by its SHA-256 and without which all can still be read; any other page holds none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from sodium_prep.report.bibliography import BIBLIOGRAPHY
from sodium_prep.report.layout import SliceColumns
from sodium_prep.report.methods import MethodsText, Reference
from sodium_prep.report.norms import LITERATURE_NORMS, NORMS_CAUTION
from sodium_prep.report.plots import ESTIMATOR_NAMES
from sodium_prep.report.qc import QcMetric, Verdict, overall_verdict

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TEMPLATES: Final = Path(__file__).parent / "templates"

SECTIONS: Final[dict[str, str]] = {
    "tsc": "TSC",
    "calibration": "Calibration",
    "registration": "Registration",
    "tissues": "Tissues",
    "template": "Template",
    "atlas": "Atlas",
    "psf": "Resolution",
    "regions": "Regions",
    "residual": "Residual",
}
"""Sections of figures on a participant's page, in order: key and heading."""


@dataclass(frozen=True)
class SummaryItem:
    """One fact: name and value in print."""

    name: str
    value: str


@dataclass(frozen=True)
class ReportFigure:
    """A figure in a section of :data:`SECTIONS`; ``wide`` for slices, which scroll sideways on a telephone.

    ``label`` is what it is called beside a figure that it is compared with. ``points`` are places in the figure, as
    fractions of its width and of its height from the top, and what is said of each when it is pointed at.
    """

    section: str
    title: str
    caption: str
    svg: str
    alt: str = ""
    wide: bool = False
    label: str = ""
    points: Sequence[tuple[float, float, str]] = ()
    kind: ClassVar[str] = "figure"

    @property
    def points_json(self) -> str:
        """The points as a script reads them: thousandths of width and height, and what is said of each."""
        return json.dumps(
            [[round(1000 * x, 1), round(1000 * y, 1), text] for x, y, text in self.points],
            ensure_ascii=False,
            separators=(",", ":"),
        )


@dataclass(frozen=True)
class Comparison:
    """Two figures of one layout on one another, with a slider that shows left of it the first, right of it the second.

    Attributes
    ----------
    before, after
        Pictures that line up; without a script, and in print, they stand one below the other.
    columns
        Where the slices stand: the slider wipes every column, so that both pictures are seen in each slice, on a narrow
        screen too. From :func:`sodium_prep.report.layout.slice_columns`.
    """

    before: ReportFigure
    after: ReportFigure
    columns: SliceColumns = field(default_factory=SliceColumns)

    @property
    def section(self) -> str:
        """That of both figures."""
        return self.before.section


@dataclass(frozen=True)
class RegionRow:
    """One main region under one reference: estimator to (TSC, low, high) in mM, not finite where there is none."""

    region: str
    reference: str
    values: Mapping[str, tuple[float, float, float]]
    flag: str = ""


@dataclass(frozen=True)
class PrintedTable:
    """A table in print; the first cell of a row names it."""

    heading: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ScanReport:
    """One sodium scan: a session, or one of its acquisitions or runs.

    Attributes
    ----------
    missing
        Section to the reason why it has no figure.
    facts, tables, remarks
        Section to what stands in it beside its figures: facts, a table, sentences.
    clinical
        Tables under that of the main regions.
    """

    label: str
    summary: Sequence[SummaryItem] = ()
    qc: Sequence[QcMetric] = ()
    figures: Sequence[ReportFigure | Comparison] = ()
    regions: Sequence[RegionRow] = ()
    warnings: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Sequence[SummaryItem]] = field(default_factory=dict)
    tables: Mapping[str, PrintedTable] = field(default_factory=dict)
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    clinical: Sequence[PrintedTable] = ()

    @property
    def verdict(self) -> Verdict:
        """Worst verdict of the scan's metrics."""
        return overall_verdict(self.qc)

    @property
    def estimators(self) -> list[str]:
        """Estimators of the table of regions, in the order met."""
        return list(dict.fromkeys(e for row in self.regions for e in row.values))


@dataclass(frozen=True)
class ParticipantReport:
    """All that stands on one participant's page."""

    title: str
    participant: str
    scans: Sequence[ScanReport]
    methods: MethodsText
    warnings: Sequence[str] = ()
    errors: Sequence[str] = ()
    settings_toml: str = ""
    versions: Sequence[SummaryItem] = ()

    @property
    def verdict(self) -> Verdict:
        """Worst verdict of all scans."""
        return overall_verdict([metric for scan in self.scans for metric in scan.qc])


@dataclass(frozen=True)
class Cell:
    """One cell of a table that can be sorted.

    Attributes
    ----------
    text
        In print.
    order
        Number to sort by; without it, the text is sorted by.
    verdict
        Of the quality control: printed as a badge in place of the text.
    page
        Participant whose page the cell leads to.
    """

    text: str
    order: float | None = None
    verdict: str = ""
    page: str = ""

    @property
    def link(self) -> str:
        """Relative address of the page; empty for a label that is not one of BIDS."""
        return f"sub-{self.page}.html" if re.fullmatch("[A-Za-z0-9]+", self.page) else ""


@dataclass(frozen=True)
class DataTable:
    """A table that a reader may sort and filter; the first cell of a row names it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    heading: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class TextList:
    """Lines to copy or to keep as a text file."""

    heading: str
    caption: str
    file_name: str
    lines: Sequence[str]
    kind: ClassVar[str] = "list"

    @property
    def address(self) -> str:
        """The text as an address that a browser saves."""
        return "data:text/plain;charset=utf-8," + quote("\n".join(self.lines) + "\n", safe="")


@dataclass(frozen=True)
class Facts:
    """Short facts side by side."""

    items: Sequence[SummaryItem]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Notes:
    """Sentences that stand out; ``tone`` is pass, info, warn or fail."""

    lines: Sequence[str]
    tone: str = "warn"
    kind: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Heading:
    """Of what follows within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """Plain words."""

    text: str
    kind: ClassVar[str] = "paragraph"


Block = ReportFigure | DataTable | TextList | Facts | Notes | Heading | Paragraph


@dataclass(frozen=True)
class GroupSection:
    """A section of the group page.

    Attributes
    ----------
    key, heading
        Anchor and heading.
    blocks
        What stands in it, in order.
    label
        Its name among the contents, if the heading is too long for that.
    """

    key: str
    heading: str
    blocks: Sequence[Block]
    label: str = ""


@dataclass(frozen=True)
class GroupReport:
    """All that stands on the group page."""

    title: str
    subtitle: str
    sections: Sequence[GroupSection]
    methods: MethodsText
    model_toml: str = ""
    versions: Sequence[SummaryItem] = ()


def render_participant(report: ParticipantReport) -> str:
    """The participant's page as HTML text.

    Raises
    ------
    ValueError
        If a figure names a section that does not exist.
    """
    for scan in report.scans:
        if unknown := {f.section for f in scan.figures} - set(SECTIONS):
            raise ValueError(f"unknown sections {sorted(unknown)}; known: {', '.join(SECTIONS)}")
    anchors = [f"scan-{i + 1}" for i in range(len(report.scans))]
    compared = any(isinstance(figure, Comparison) for scan in report.scans for figure in scan.figures)
    script = (_TEMPLATES / "wipe.js").read_text(encoding="utf-8") if compared else ""
    return _render(
        "participant.html.j2", report, anchors=anchors, headings=list(SECTIONS.items()), script=_Script(script)
    )


def render_group(report: GroupReport) -> str:
    """The group page as HTML text."""
    return _render("group.html.j2", report, script=_Script((_TEMPLATES / "group.js").read_text(encoding="utf-8")))


def _render(template: str, report: ParticipantReport | GroupReport, **context: Any) -> str:
    norms, references = _with_norms(report.methods)
    return _environment().get_template(template).render(
        report=report, norms=norms, norms_caution=NORMS_CAUTION, references=references,
        estimator_names=_Names(ESTIMATOR_NAMES), **context,
    )  # fmt: skip


class _Script:
    """A script of ours and the source expression by which a content security policy admits it and no other."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return bool(self.text)

    def __html__(self) -> str:
        return self.text

    @property
    def source(self) -> str:
        """Such as ``'sha256-...'``."""
        return f"'sha256-{base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()}'"


class _Names(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return key


def _with_norms(methods: MethodsText) -> tuple[list[tuple[Any, int]], list[Reference]]:
    """The table of norms with reference numbers, and all references: those of the text, then those of the norms."""
    references = list(methods.references)
    rows = []
    for norm in LITERATURE_NORMS:
        number = next((r.number for r in references if r.key == norm.citation), 0)
        if not number:
            number = len(references) + 1
            source = BIBLIOGRAPHY[norm.citation]
            references.append(Reference(number, norm.citation, source.text, source.doi))
        rows.append((norm, number))
    return rows, references


def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    loader = FileSystemLoader(_TEMPLATES)
    env = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=ChainableUndefined
    )
    env.filters.update(data_uri=_data_uri, citations=_citations, interval=_interval, wipe=_wipe, edges=_edges)
    return env


def _data_uri(svg: str) -> str:
    # As an image, the browser runs no script of an SVG and its ids cannot clash with those of other figures.
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _wipe(columns: SliceColumns) -> str:
    """CSS shape of the second figure: in every column what lies right of the slider, ``--at`` from 0 to 1."""
    return _shape([(f"calc({a:.3%} + {b - a:.3%} * var(--at))", f"{b:.3%}") for a, b in columns.ends])


def _edges(columns: SliceColumns) -> str:
    """CSS shape of the slider's line in every column."""
    at = [f"{a:.3%} + {b - a:.3%} * var(--at)" for a, b in columns.ends]
    return _shape([(f"calc({x} - 0.75px)", f"calc({x} + 0.75px)") for x in at])


def _shape(bands: Sequence[tuple[str, str]]) -> str:
    """Upright bands as one polygon; the lines along its foot that join them enclose nothing."""
    return "polygon(" + ", ".join(f"{a} 100%, {a} 0, {b} 0, {b} 100%" for a, b in bands) + ")"


def _citations(text: str) -> Markup:
    from markupsafe import Markup, escape

    def link(match: re.Match[str]) -> str:
        return "[" + ", ".join(f'<a href="#ref-{n}">{n}</a>' for n in match.group(1).split(", ")) + "]"

    return Markup(re.sub(r"\[(\d+(?:, \d+)*)\]", link, str(escape(text))))


def _interval(value: tuple[float, float, float] | None) -> str:
    """Estimate with its interval, such as ``45.2 [41.0, 49.4]``."""
    if not value or not math.isfinite(value[0]):
        return "n/a"
    tsc, low, high = value
    bounds = f" [{low:.1f}, {high:.1f}]" if math.isfinite(low) and math.isfinite(high) else " [n/a]"
    return f"{tsc:.1f}{bounds}"
