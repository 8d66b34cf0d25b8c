"""Figures of the report page: SVG that takes its colours and letters from the page it stands in.

matplotlib draws in stand-in colours, which become CSS variables: one drawing serves light, dark and paper. Every figure
is narrow, so that it can be read on a telephone; a wide screen shows several in a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from hashlib import sha256
from io import StringIO
from typing import Any, NamedTuple, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from .report import Estimate

WIDTH_INCHES = 4.3
"""Of a figure with one neighbour."""
THIRD_INCHES = 3.0
"""Of one with two."""
SERIES = 6
"""Colours that the page's style has for artifacts: ``--series-0`` and so on."""
_NAMES = ("ink", "muted", "grid", "surface", "other", *(f"series-{i}" for i in range(SERIES)))
_STAND_INS = {name: f"#fe{i:02x}01" for i, name in enumerate(_NAMES)}
INK, MUTED, GRID, SURFACE, OTHER, *_SERIES = _STAND_INS.values()
_MARKERS = "osD^vPX"  # one more than colours, so that a colour and a marker meet again only after 42 artifacts
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "srgnn",
    "text.parse_math": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "lines.solid_capstyle": "butt",
}

P = ParamSpec("P")


class Look(NamedTuple):
    """How a model looks in every figure; never told apart by colour alone."""

    colour: str
    marker: str
    dashes: str = "-"


class Row(NamedTuple):
    """A labelled estimate. A hollow one is not told from 0; the axis is chosen for those that are ``key``."""

    label: str
    look: Look
    estimate: Estimate
    key: bool = True
    hollow: bool = False


class Series(NamedTuple):
    """Estimates of one model at the places ``xs``; ``ringed`` is a place to point out."""

    look: Look
    xs: Sequence[float]
    estimates: Sequence[Estimate]
    ringed: float | None = None


BASELINE = Look(OTHER, "h", "--")


def artifact_look(number: int) -> Look:
    """The look of the artifact of that number, from 0."""
    return Look(_SERIES[number % SERIES], _MARKERS[number % len(_MARKERS)])


def _drawing(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Lets a function that draws a figure return its SVG."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        with mpl.rc_context(_STYLE):
            return _svg(draw(*args, **kwargs))

    return drawn


@_drawing
def swatch(look: Look) -> Figure:
    """A look alone, for legends and tables."""
    figure = Figure((0.36, 0.16))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.plot([0, 1, 2], [0, 0, 0], color=look.colour, marker=look.marker, linestyle=look.dashes, markevery=[1])
    axes.set(xlim=(-0.05, 2.05), ylim=(-1, 1))
    return figure


@_drawing
def whiskers(
    rows: Sequence[Row],
    *,
    x: str,
    text: Callable[[float], str],
    scale: float = 100.0,
    zero: bool = False,
    log: bool = False,
) -> Figure:
    """Dots with whiskers, one a row, the first on top; an arrow stands for a dot far from all key ones.

    ``text`` writes a value beside its row, ``scale`` brings it to the axis, ``zero`` draws a line there.
    """
    figure = Figure((WIDTH_INCHES, 0.6 + 0.26 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    left, right = (scale * limit for limit in _limits(rows, zero))
    for y, row in enumerate(rows):
        _whisker(axes, row, y, scale, left, right)
        axes.text(1.03, y, text(row.estimate.value), transform=axes.get_yaxis_transform(), va="center", ha="left")
    if zero:
        axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=x)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if log:
        _logarithmic(axes, left, right)
    else:
        axes.set_xlim(left - 0.04 * (right - left), right + 0.04 * (right - left))
    axes.grid(axis="x")
    return figure


def _whisker(axes: Axes, row: Row, y: int, scale: float, left: float, right: float) -> None:
    value, low, high = (scale * one for one in row.estimate)
    colour, marker, _ = row.look
    if value < left or value > right:
        axes.plot([min(max(value, left), right)], [y], color=colour, marker="<" if value < left else ">")
        return
    axes.plot([low, high], [y, y], color=colour)
    face = SURFACE if row.hollow else colour
    axes.plot([value], [y], color=colour, marker=marker, markerfacecolor=face, markeredgewidth=1.3)


def _limits(rows: Sequence[Row], zero: bool) -> tuple[float, float]:
    """What the axis shows: all rows, but what is far from the key ones only as far as they are not pressed together."""
    every = [row.estimate for row in rows] + [Estimate(0.0, 0.0, 0.0)] * zero
    key = [row.estimate for row in rows if row.key] + [Estimate(0.0, 0.0, 0.0)] * zero
    low, high = min(one.low for one in key), max(one.high for one in key)
    room = max(0.6 * (high - low), 2 * max(one.high - one.low for one in key))
    least, most = min(one.low for one in every), max(one.high for one in every)
    left, right = max(low - room, least), min(high + room, most)
    return (left, right) if left < right else (left - 0.01, right + 0.01)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 40 * low else (1.0,)))
    axes.xaxis.set_major_formatter(lambda value, _: short(int(value)) if value >= 1000 else f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


@_drawing
def by_label(series: Sequence[Series], labels: Sequence[str], counts: Sequence[int], *, x: str, y: str) -> Figure:
    """Estimates in percent where ``xs`` index labels, and below them how many examples each label has."""
    figure = Figure((WIDTH_INCHES, 3.2), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    for number, one in enumerate(series):
        beside = 0.14 * (number - (len(series) - 1) / 2)
        _line(above, one._replace(xs=[place + beside for place in one.xs]), joined=False)
    above.set(ylabel=y, xlim=(-0.6, len(labels) - 0.4))
    above.grid(axis="y")
    below.bar(range(len(counts)), counts, color=GRID, width=0.7)
    for place, count in enumerate(counts):
        below.text(place, count, short(count), ha="center", va="bottom", fontsize=8.0, color=MUTED)
    below.set(xlabel=x, ylabel="n", ylim=(0, 1.5 * max(counts)), yticks=[])
    below.set_xticks(range(len(labels)), labels)
    below.spines["left"].set_visible(False)
    return figure


@_drawing
def by_number(
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    ticks: Sequence[int] | None = None,
    scale: float = 100.0,
    width_inches: float = WIDTH_INCHES,
) -> Figure:
    """Estimates over a whole number, joined by a line."""
    figure = Figure((width_inches, 2.7), layout="constrained")
    axes = figure.add_subplot()
    for one in series:
        _line(axes, one, joined=True, scale=scale)
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if ticks:
        axes.set_xticks(ticks)
    axes.grid(axis="y")
    return figure


def _line(axes: Axes, series: Series, *, joined: bool, scale: float = 100.0) -> None:
    colour, marker, dashes = series.look
    values = [scale * one.value for one in series.estimates]
    for place, one in zip(series.xs, series.estimates, strict=True):
        axes.plot([place, place], [scale * one.low, scale * one.high], color=colour)
    axes.plot(series.xs, values, color=colour, marker=marker, linestyle=dashes if joined else "none")
    if series.ringed is not None:
        there = values[list(series.xs).index(series.ringed)]
        axes.plot([series.ringed], [there], color=INK, marker="o", markersize=12, fillstyle="none")


def short(count: int) -> str:
    """A count in four characters: 950, 3k, 9.5k, 12k, 1.2M."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f}".removesuffix(".0") + unit
    return str(count)


def _svg(figure: Figure) -> str:
    """The figure as an element of a page: no prolog, no style of its own, no size, CSS colours, its own ids."""
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL
    )
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg)
    used = set(re.findall(r'#([\w.]+)[")]', svg))
    own = sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r' id="([\w.]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{own}-", svg)
    for name, colour in _STAND_INS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
