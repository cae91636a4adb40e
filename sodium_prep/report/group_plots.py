"""Figures of the group page. Each returns SVG text and the places of its dots, which the page names when pointed at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.report.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE_IN: Final = 9.6
_NARROW_IN: Final = 5.4
_PALETTE: Final = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_SHAPES: Final = "os^Dv*PX"
_INK: Final = "#111111"
_MANY: Final = 1500
"""Dots of a figure above which they are drawn as pixels, which keeps the page small."""

Interval = tuple[float, float, float]
"""Value, low and high end."""


class Drawn(NamedTuple):
    """A figure: SVG text, and (x, y, text) of its dots, x and y as fractions of its width and height from the top."""

    svg: str
    points: tuple[tuple[float, float, str], ...] = ()


class Dot(NamedTuple):
    """One dot: place, group that colours it, and who it is."""

    x: float
    y: float
    group: str
    who: str


@dataclass(frozen=True)
class Strip:
    """A panel of columns of dots.

    Attributes
    ----------
    title
        Above the panel.
    columns
        Name of a column to its values: who, value, group that colours the dot.
    model
        Name of a column to the model's value there, drawn as a diamond with its interval.
    base
        Value that the model's are compared with, drawn as a dashed line; None for none.
    """

    title: str
    columns: Mapping[str, Sequence[tuple[str, float, str]]]
    model: Mapping[str, Interval] = field(default_factory=dict)
    base: float | None = None


@dataclass(frozen=True)
class Scatter:
    """A panel of dots.

    Attributes
    ----------
    title
        Above the panel.
    dots
        What is drawn.
    fitted
        Whether every group has its straight line.
    joined
        Whether the dots of one person are joined in the order of x.
    levels
        Horizontal lines: name to value.
    """

    title: str
    dots: Sequence[Dot]
    fitted: bool = False
    joined: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)


class ForestRow(NamedTuple):
    """A region of the forest plot: its effects by panel and series, and whether it is a negative control."""

    label: str
    effects: Mapping[str, Mapping[str, Interval]]
    control: bool = False


def strips(rows: Sequence[Sequence[Strip]], *, title: str, groups: Sequence[str], seed: int = 0) -> Drawn:
    """Dots, outline of their distribution from ten of them, and the model's value; panels of a row share their scale.

    Parameters
    ----------
    rows
        Panels, row by row.
    groups
        All groups, in the order of their colours.
    seed
        Of the sideways scatter of the dots.
    """
    rng = np.random.default_rng(seed)
    pairs = [row[i : i + 2] for row in rows for i in range(0, len(row), 2)]
    lines = [pairs[i : i + 2] for i in range(0, len(pairs), 2)]
    widest = max((sum(len(pair) for pair in line) for line in lines), default=1)
    many = sum(len(dots) for row in rows for panel in row for dots in panel.columns.values()) > _MANY
    with new_figure(_WIDE_IN if widest > 2 else _NARROW_IN, 0.75 + 2.6 * max(len(lines), 1)) as figure:
        marked: list[tuple[Axes, Dot]] = []
        for i, line in enumerate(lines):
            first: Axes | None = None
            for j, panel in enumerate(panel for pair in line for panel in pair):
                start = j % 2 == 0
                axes = figure.add_subplot(len(lines), widest, i * widest + j + 1, sharey=None if start else first)
                first = axes if start else first
                marked += [(axes, dot) for dot in _strip(axes, panel, groups, rng, many)]
                if start:
                    axes.set_ylabel("TSC (mM)")
                else:
                    axes.tick_params(labelleft=False)
        _headed(figure, title, groups)
        return _drawn(figure, marked)


def _strip(axes: Axes, panel: Strip, groups: Sequence[str], rng: np.random.Generator, many: bool) -> list[Dot]:
    dots = []
    for i, cells in enumerate(panel.columns.values()):
        values = np.array([value for _, value, _ in cells])
        if values.size >= 10 and np.ptp(values) > 0 and len({group for *_, group in cells}) == 1:
            outline: Any = axes.violinplot(values, [i], widths=0.8, showextrema=False, points=30)["bodies"]
            for body in outline:
                body.set(facecolor=GREY, alpha=0.16, linewidth=0)
        here = [Dot(i + rng.uniform(-0.18, 0.18), value, group, who) for who, value, group in cells]
        _mark(axes, here, groups, many)
        dots += here
    if panel.base is not None and np.isfinite(panel.base):
        axes.axhline(panel.base, color=_INK, linestyle="--", linewidth=0.9)
    for i, name in enumerate(panel.columns):
        if name in panel.model:
            value, low, high = panel.model[name]
            axes.errorbar([i + 0.34], [value], [[value - low], [high - value]], fmt="D", color=_INK, markersize=5,
                          capsize=3, elinewidth=1.4)  # fmt: skip
    labels = [f"{_short(name)}\nn = {len(cells)}" for name, cells in panel.columns.items()]
    crowded = len(labels) > 3
    axes.set_xticks(range(len(labels)), labels, fontsize=7.5 if crowded else 8.5, rotation=30 if crowded else 0)
    axes.set_xlim(-0.55, max(len(labels), 1) - 0.35)
    axes.grid(False, axis="x")
    axes.set_title(panel.title, fontsize=9)
    return dots


def _mark(axes: Axes, dots: Sequence[Dot], groups: Sequence[str], many: bool) -> None:
    for group in dict.fromkeys(dot.group for dot in dots):
        colour, shape = _look(group, groups)
        here = [dot for dot in dots if dot.group == group]
        axes.plot(
            [d.x for d in here], [d.y for d in here], shape, color=colour, markersize=2.6 if many else 4.3,
            alpha=0.5 if many else 0.7, markeredgewidth=0, rasterized=many,
        )  # fmt: skip


def _look(group: str, groups: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a group."""
    if group not in groups:
        return GREY, "o"
    place = list(groups).index(group)
    return _PALETTE[place % len(_PALETTE)], _SHAPES[place % len(_SHAPES)]


LARGEST_G: Final = 6.0
"""Effect size at which the axis ends."""


def forest(rows: Sequence[ForestRow], *, title: str, panels: Sequence[str], series: Sequence[str]) -> Drawn:
    """Effect sizes with their intervals: a row for each region, a panel for each reference, a mark for each series.

    The first of several series is drawn hollow, for values without correction; negative controls are grey squares. An
    effect beyond :data:`LARGEST_G` is an arrow at the edge with its number: one alone would press all others together.
    """
    step = 0.8 / max(len(series), 1)
    with new_figure(_WIDE_IN if len(panels) > 1 else _NARROW_IN, 1.15 + 0.34 * max(len(rows), 2)) as figure:
        grid = figure.subplots(1, max(len(panels), 1), sharex=True, sharey=True, squeeze=False)[0]
        marked: list[tuple[Axes, Dot]] = []
        reach = 1.0
        for axes, panel in zip(grid, panels, strict=False):
            axes.axvline(0.0, color=_INK, linewidth=0.9)
            for i, row in enumerate(rows):
                if i % 2:
                    axes.axhspan(i - 0.5, i + 0.5, color="#F5F7F9", linewidth=0, zorder=0)
                for j, name in enumerate(series):
                    value, low, high = row.effects.get(panel, {}).get(name, (np.nan,) * 3)
                    if not np.isfinite(value):
                        continue
                    at = i + (j - (len(series) - 1) / 2) * step
                    colour = GREY if row.control else _INK
                    hollow = name == series[0] and len(series) > 1
                    said = f"{row.label}, {name}: g = {value:+.2f} [{low:.2f}, {high:.2f}]"
                    if abs(value) > LARGEST_G:
                        edge, side = np.sign(value) * LARGEST_G, "left" if value < 0 else "right"
                        axes.plot([edge], [at], "<" if value < 0 else ">", color=colour, markersize=5, clip_on=False,
                                  markerfacecolor="white" if hollow else colour)  # fmt: skip
                        axes.annotate(f"{value:+.0f}", (edge, at), (5 if value < 0 else -5, 0), ha=side, va="center",
                                      textcoords="offset points", fontsize=7)  # fmt: skip
                        marked.append((axes, Dot(float(edge), at, name, said)))
                        reach = LARGEST_G
                        continue
                    reach = min(max(reach, abs(low), abs(high)), LARGEST_G)
                    axes.errorbar([value], [at], xerr=[[value - low], [high - value]], color=colour, capsize=2,
                                  fmt="s" if row.control else "o", markersize=5, elinewidth=1.3,
                                  markerfacecolor="white" if hollow else colour)  # fmt: skip
                    marked.append((axes, Dot(value, at, name, said)))
            axes.set_title(panel, fontsize=9)
            axes.set_xlabel("Hedges' g, 95 % interval")
            axes.grid(False, axis="y")
        names = [row.label + (" (negative control)" if row.control else "") for row in rows]
        grid[0].set_yticks(range(len(rows)), names)
        grid[0].set_ylim(len(rows) - 0.4, -0.6)
        grid[0].set_xlim(-1.05 * reach, 1.05 * reach)
        _headed(figure, title, series, hollow_first=len(series) > 1)
        return _drawn(figure, marked, lambda dot: dot.who)


def heat_map(
    z: ArrayLike,
    *,
    people: Sequence[str],
    groups: Sequence[str],
    regions: Sequence[str],
    title: str,
    limit: float = 4.0,
) -> Drawn:
    """Distances from the controls, participants by regions.

    Parameters
    ----------
    z
        Shape (participants, regions); not finite where there is none, drawn grey.
    people, groups
        Of each row; equal groups stand together.
    regions
        Of each column.
    limit
        Absolute z at which the colours end.
    """
    import matplotlib

    values = np.asarray(z, dtype=float).reshape(len(people), len(regions))
    n, m = values.shape
    named = n <= 60
    height = 1.7 + (0.19 * n if named else float(np.clip(0.022 * n, 6.0, 16.0)))
    with new_figure(min(max(3.4 + 0.5 * m, _NARROW_IN), 14.0), height) as figure:
        axes = figure.subplots()
        colours = matplotlib.colormaps["PuOr_r"].with_extremes(bad="#D5DAE0")
        # No line is drawn between cells and none is resampled: the picture has one pixel for each.
        picture = axes.imshow(values, cmap=colours, vmin=-limit, vmax=limit, aspect="auto",
                              interpolation="none")  # fmt: skip
        axes.set_xticks(range(m), list(regions), rotation=40, ha="right", rotation_mode="anchor", fontsize=8.5)
        axes.grid(False)
        starts = [i for i in range(n) if i == 0 or groups[i] != groups[i - 1]]
        for start, stop in zip(starts, [*starts[1:], n], strict=True):
            if start:
                axes.axhline(start - 0.5, color=_INK, linewidth=1.2)
            text = f"{_short(groups[start]) or 'no group'}\nn = {stop - start}"
            axes.annotate(text, (1.0, (start + stop - 1) / 2), xycoords=("axes fraction", "data"), xytext=(6, 0),
                          textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip
        axes.set_yticks(range(n) if named else [], list(people) if named else [], fontsize=8)
        for i, j in np.argwhere(np.abs(values) >= 1.96) if named else ():
            dark = abs(values[i, j]) > 0.6 * limit
            axes.text(j, i, f"{values[i, j]:+.1f}".replace("-", "\u2212"), ha="center", va="center", fontsize=7.5,
                      color="white" if dark else _INK)  # fmt: skip
        bar = figure.colorbar(
            picture, ax=axes, location="top", shrink=0.6, aspect=30, extend="both", pad=0.15 / height,
            fraction=0.2 / height,
        )  # fmt: skip
        bar.set_label("z")
        _headed(figure, title, ())
        cells = [
            (axes, Dot(j, i, groups[i], f"{people[i]}, {regions[j]}: z = {values[i, j]:+.1f}"))
            for i, j in np.argwhere(np.isfinite(values))
        ]
        return _drawn(figure, cells, lambda dot: dot.who)


def scatters(
    panels: Sequence[Scatter], *, title: str, groups: Sequence[str], x: str, y: str, log_x: bool = False
) -> Drawn:
    """Panels of dots, two beside one another, or three if there are many; ``x`` and ``y`` name the axes."""
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3) or 1
    rows = -(-len(panels) // columns) or 1
    many = sum(len(panel.dots) for panel in panels) > _MANY
    with new_figure(_WIDE_IN if columns > 1 else _NARROW_IN, 0.75 + 2.7 * rows) as figure:
        marked: list[tuple[Axes, Dot]] = []
        for k, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, k + 1)
            if log_x:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter("{x:g}")
            if panel.joined:
                _join(axes, panel.dots, groups, many)
            _mark(axes, panel.dots, groups, many)
            if panel.fitted:
                _fit(axes, panel.dots, groups)
            for name, value in panel.levels.items():
                axes.axhline(value, color=_INK, linestyle="--", linewidth=0.9)
                axes.annotate(f"{name} {value:+.1f}", (1.0, value), xycoords=("axes fraction", "data"), ha="right",
                              xytext=(0, 2), textcoords="offset points", fontsize=8)  # fmt: skip
            axes.set_title(panel.title, fontsize=9)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            marked += [(axes, dot) for dot in panel.dots]
        _headed(figure, title, groups)
        return _drawn(figure, marked)


def _join(axes: Axes, dots: Sequence[Dot], groups: Sequence[str], many: bool) -> None:
    people: dict[str, list[Dot]] = {}
    for dot in dots:
        people.setdefault(dot.who, []).append(dot)
    for own in people.values():
        own.sort(key=lambda dot: dot.x)
        axes.plot([d.x for d in own], [d.y for d in own], color=_look(own[0].group, groups)[0], linewidth=0.8,
                  alpha=0.3 if many else 0.5, rasterized=many)  # fmt: skip


def _fit(axes: Axes, dots: Sequence[Dot], groups: Sequence[str]) -> None:
    """Least-squares line of each group over its own range, where it has three places at least."""
    for group in dict.fromkeys(dot.group for dot in dots):
        at, values = np.array([(d.x, d.y) for d in dots if d.group == group]).T
        if np.unique(at).size >= 3:
            slope, start = np.polyfit(at - at.mean(), values, 1)
            ends = np.array([at.min(), at.max()])
            axes.plot(ends, start + slope * (ends - at.mean()), color=_look(group, groups)[0], linewidth=1.8)


def roc_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, title: str) -> Drawn:
    """Sensitivity against false positive rate; ``curves`` holds name to (false positive rate, sensitivity)."""
    with new_figure(_NARROW_IN, 5.2) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
        for i, (name, (fpr, tpr)) in enumerate(curves.items()):
            axes.plot(np.asarray(fpr), np.asarray(tpr), color=_PALETTE[i % len(_PALETTE)], label=name,
                      linestyle=("-", "--", "-.", ":")[i % 4])  # fmt: skip
        axes.set(xlabel="1 \u2212 specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        if curves:
            axes.legend(loc="lower right")
        _headed(figure, title, ())
        return Drawn(to_svg(figure))


def _short(name: str, limit: int = 18) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _headed(figure: Figure, title: str, groups: Sequence[str], hollow_first: bool = False) -> None:
    """Title and legend above, and the panels laid out below them."""
    from matplotlib.lines import Line2D

    height = float(figure.get_size_inches()[1])
    figure.text(0.01, 1 - 0.06 / height, title, va="top", fontsize=10.5, fontweight="bold")
    handles = []
    for i, name in enumerate(groups):
        colour, shape = (_INK, "o") if hollow_first else _look(name, groups)
        fill = "white" if hollow_first and i == 0 else colour
        handles.append(
            Line2D([], [], marker=shape, color=colour, markerfacecolor=fill, linestyle="", label=_short(name, 28))
        )
    if len(groups) > 1:
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1 - 0.26 / height),
                      ncols=min(len(handles), 6), handletextpad=0.2, columnspacing=1.2)  # fmt: skip
    taken = 0.56 if len(groups) > 1 else 0.3
    for _ in range(2):  # the ticks of the first layout are not those of the last
        figure.tight_layout(pad=0.6, rect=(0, 0, 1, 1 - taken / height))


def _drawn(figure: Figure, marked: Sequence[tuple[Axes, Dot]], say: Any = None) -> Drawn:
    """The figure with the places of its dots, once everything is laid out."""
    width, height = (float(v) for v in figure.get_size_inches() * figure.dpi)
    points = []
    for axes in dict.fromkeys(axes for axes, _ in marked):
        here = [dot for other, dot in marked if other is axes]
        place: NDArray[np.float64] = axes.transData.transform(np.array([(dot.x, dot.y) for dot in here]))
        points += [
            (float(x) / width, 1.0 - float(y) / height, say(dot) if say else _said(dot))
            for (x, y), dot in zip(place, here, strict=True)
        ]
    return Drawn(_smaller(to_svg(figure)), tuple(points))


def _smaller(svg: str) -> str:
    """The same picture in less text: lengths to a hundredth of a point, no indents.

    Control characters, which a label of a table may hold and XML may not, are left out.
    """
    svg = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "", svg)
    rounded = re.sub(r"(?:scale|matrix)\([^)]*\)|base64,[^\"]*|(\d+\.\d\d)\d+", lambda m: m[1] or m[0], svg)
    return re.sub(r"\n\s+", "\n", rounded)


def _said(dot: Dot) -> str:
    return f"{dot.who}{f' ({dot.group})' if dot.group else ''}: {dot.y:.4g}"
