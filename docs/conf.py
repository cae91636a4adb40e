"""Configuration of the documentation, with the small extensions it needs."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.utils.math.latex2mathml import tex2mathml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sodium_prep import __version__

project = "sodium_prep"
author = "sodium_prep developers"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "ignore-module-all": True}  # each thing where it is defined, once
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"sodium_prep {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False


class ParserDirective(Directive):
    """Options of an argparse parser: ``.. parser:: module`` documents what ``module.build_parser()`` makes."""

    required_arguments = 1

    def run(self):
        module = importlib.import_module(self.arguments[0])
        self.state.document.settings.record_dependencies.add(module.__file__)
        return self._parser(module.build_parser())

    def _parser(self, parser):
        # A fixed width and no colours, so that the page does not depend on the terminal that builds it.
        usage = argparse.HelpFormatter(parser.prog, width=88)
        usage.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
        text = usage.format_help().strip()
        found = [nodes.literal_block(text, text, language="text")]
        for group in parser._action_groups:
            actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
            commands = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
            plain = [action for action in actions if action not in commands]
            if plain:
                found.append(nodes.rubric("", (group.title or "").capitalize()))
                found.append(nodes.definition_list("", *map(self._option, plain)))
            for action in commands:
                helps = {choice.dest: choice.help for choice in action._choices_actions}
                for name, command in action.choices.items():
                    section = nodes.section("", nodes.title("", name), ids=[f"{parser.prog}-{name}"])
                    section += nodes.paragraph("", (helps.get(name) or "").capitalize() + ".")
                    section += self._parser(command)
                    found.append(section)
        return found

    @staticmethod
    def _option(action):
        value = action.metavar or (
            f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
        )
        if action.nargs == "+":
            value = f"{value} [{value} ...]"
        spelt = [name if action.nargs == 0 else f"{name} {value}" for name in action.option_strings]
        term = nodes.literal("", ", ".join(spelt) or str(value if action.choices else action.dest))
        text = (action.help or "").replace("%(prog)s", "sodium-prep")
        return nodes.definition_list_item("", nodes.term("", "", term), nodes.definition("", nodes.paragraph("", text)))


class ColumnsDirective(Directive):
    """Columns of a table from the data dictionary that the program writes: ``.. columns:: module NAME``."""

    required_arguments = 2

    def run(self):
        module = importlib.import_module(self.arguments[0])
        self.state.document.settings.record_dependencies.add(module.__file__)
        body = nodes.tbody()
        for name, described in getattr(module, self.arguments[1]).items():
            described = {"Description": described} if isinstance(described, str) else described
            meaning = nodes.entry("", nodes.paragraph("", described["Description"]))
            levels = described.get("Levels", {})
            if isinstance(levels, dict) and levels:
                items = [
                    nodes.list_item("", nodes.paragraph("", "", nodes.literal("", level), nodes.Text(f": {text}")))
                    for level, text in levels.items()
                ]
                meaning += nodes.bullet_list("", *items)
            unit = {"1": "", "mm^3": "mm³"}.get(described.get("Units", ""), described.get("Units", ""))
            body += nodes.row(
                "",
                nodes.entry("", nodes.paragraph("", "", nodes.literal("", name))),
                nodes.entry("", nodes.paragraph("", unit)),
                meaning,
            )
        titles = [nodes.entry("", nodes.paragraph("", text)) for text in ("column", "unit", "meaning")]
        widths = [nodes.colspec(colwidth=width) for width in (22, 10, 68)]
        return [nodes.table("", nodes.tgroup("", *widths, nodes.thead("", nodes.row("", *titles)), body, cols=3))]


class RelaxationDirective(Directive):
    """Table of the relaxation times that the program uses, from the program: ``.. relaxation::``."""

    def run(self):
        from sodium_prep.physics import relaxation

        self.state.document.settings.record_dependencies.add(relaxation.__file__.replace(".py", ".toml"))
        rows = {}
        for field in relaxation.measured_fields_t():
            for tissue in relaxation.TISSUES:
                rows.setdefault((tissue, relaxation.tissue_relaxation(tissue, field)), []).append(f"{field:g} T")
        body = nodes.tbody()
        for (tissue, times), fields in rows.items():
            fast = times.fraction_fast > 0.0
            cells = (
                tissue,
                ", ".join(fields),
                f"{1e3 * times.t1_s:g} ± {1e3 * times.t1_sd_s:g}",
                f"{1e3 * times.t2star_fast_s:g} ± {1e3 * times.t2star_fast_sd_s:g}" if fast else "–",
                f"{1e3 * times.t2star_slow_s:g} ± {1e3 * times.t2star_slow_sd_s:g}",
                f"{times.fraction_fast:g} ± {times.fraction_fast_sd:g}" if fast else "–",
                times.citation,
                times.t1_citation,
            )
            body += nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))
        titles = (
            "tissue",
            "field",
            "T1 / ms",
            "T2* fast / ms",
            "T2* slow / ms",
            "fraction fast",
            "source of T2*",
            "source of T1",
        )
        head = nodes.thead("", nodes.row("", *(nodes.entry("", nodes.paragraph("", title)) for title in titles)))
        widths = [nodes.colspec(colwidth=width) for width in (12, 8, 10, 12, 12, 10, 22, 14)]
        return [nodes.table("", nodes.tgroup("", *widths, head, body, cols=len(titles)))]


def _math_inline(translator, node):
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _math_block(translator, node):
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _make_cohort(app):
    """The figures of the cohort tutorial, by the program as it is, and the page that they come from."""
    sys.path.insert(0, str(Path(__file__).parent / "cohort"))
    figures = importlib.import_module("figures")
    app.cohort_page = figures.build(Path(__file__).parent / "images" / "cohort")


def _copy_cohort_page(app, error):
    if error is None:
        (Path(app.outdir) / "group.html").write_text(app.cohort_page, encoding="utf-8")


def setup(app):
    """Equations as MathML, which needs no script from elsewhere, and the directives that read the program."""
    app.connect("builder-inited", _make_cohort)
    app.connect("build-finished", _copy_cohort_page)
    app.add_html_math_renderer("mathml", (_math_inline, None), (_math_block, None))
    app.add_directive("parser", ParserDirective)
    app.add_directive("columns", ColumnsDirective)
    app.add_directive("relaxation", RelaxationDirective)
