"""Results for people: a table, a picture, and what they were measured on."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .bulk import BulkResult
from .measure import LAG_LIMIT_MS, Result

PACKAGES = ("torch", "numpy", "uvicorn", "fastapi", "uvloop", "redis", "hiredis")
TARGETS_MS = {"p50": 3.0, "p90": 7.0, "p99": 20.0}
"""At 1,000 clicks/s by one worker."""
TARGET_RATE = 1000
OBJECTIVE_MS = 50.0
"""p90 up to which a rate counts as held."""
INK, PAPER = "#22262b", "#ffffff"
COLOURS = {"p50": "#2a9d8f", "p90": "#1d5fa8", "p99": "#e07a1f", "p99.9": "#b3262e"}


def environment() -> dict[str, Any]:
    """Commit, machine and versions; call it before the load begins, as it holds the load average."""
    return {
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a rate; ``rows`` are results as JSON with their ``mean_batch``. ``client us`` is processor time."""
    processes = [name for name in ("client", "service", "redis") if any(name in row["cpu_cores"] for row in rows)]
    head = ["rate/s", "achieved", "p50 ms", "p90", "p99", "p99.9", "max", "errors", "refused", "degraded", "batch"]
    lines = [[*head, *(f"{name} cores" for name in processes), "client us", "lag p99", ""]]
    for row in sorted(rows, key=lambda row: row["rate"]):
        latency = [f"{value:.2f}" for value in row["latency_ms"].values()]
        batch = f"{row['mean_batch']:.2f}" if row["mean_batch"] else "-"
        cores = [f"{row['cpu_cores'].get(name, 0):.2f}" for name in processes]
        counts = [f"{row[name]:,}" for name in ("errors", "refused", "degraded")]
        client = [f"{row['client_cpu_us']:.0f}", f"{row['send_lag_ms']['p99']:.2f}"]
        lines.append(
            [f"{row['rate']:,.0f}", f"{row['achieved']:,.1f}", *latency, *counts, batch, *cores, *client, _note(row)]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)) + f"  {line[-1]}"
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in aligned)


def _note(row: Mapping[str, Any]) -> str:
    notes = [] if row["holds"] else ["not held"]
    if row["client_fell_behind"]:
        notes.append(f"client fell behind (lag > {LAG_LIMIT_MS:g} ms)")
    return ", ".join(notes)


def details(result: Result) -> str:
    """What a table has no room for: kinds of call, errors, waiting; empty where there is nothing to say."""
    parts = [f"{kind} {_latency(found)}" for kind, found in result.by_kind.items() if len(result.by_kind) > 1]
    parts += [f"{number:,} x {reason}" for reason, number in result.error_reasons.items()]
    if result.refused:
        refusals = f"{_latency(result.refusal_ms)}, after sending {_latency(result.refusal_after_sending_ms)}"
        parts.append(f"{result.refused:,} refused {refusals}")
    for name in ("held_for_order", "waited_for_connection", "by_fallback"):
        if number := getattr(result, name):
            parts.append(f"{number:,} {name.replace('_', ' ')}")
    return "; ".join(parts)


def bulk_line(result: BulkResult) -> str:
    """The bulk measurement in one line."""
    return (
        f"POST /recommendations, {result.histories_per_request} histories each, closed loop with {result.in_flight} in "
        f"flight: {result.histories_per_second:,.0f} histories/s; a request {_latency(result.latency_ms)}; "
        f"{result.errors:,} errors, {result.degraded:,} degraded"
    )


def _latency(found: Mapping[str, float]) -> str:
    return " ".join(f"{name} {found[name]:.1f}" for name in ("p50", "p90", "p99")) + " ms"


def plot(rows: Sequence[Mapping[str, Any]], file: Path, title: str, knee: float | None) -> None:
    """Latency percentiles against rate, with the targets; rates that were not held are hollow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: row["rate"])
    figure = Figure(figsize=(9, 5.4), dpi=150, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, colour in COLOURS.items():
        _draw(axes, rows, name, colour)
    _draw_targets(axes, rows, knee)
    _dress(axes, rows, title)
    figure.tight_layout()
    _name_lines(axes, rows[-1])
    figure.savefig(file)


def _draw(axes: Any, rows: Sequence[Mapping[str, Any]], name: str, colour: str) -> None:
    rates, values = [row["rate"] for row in rows], [row["latency_ms"][name] for row in rows]
    axes.plot(rates, values, color=colour, linewidth=1.8, zorder=3)
    for row, rate, value in zip(rows, rates, values, strict=True):
        fill = colour if row["holds"] else PAPER
        axes.plot(rate, value, "o", color=colour, markerfacecolor=fill, markersize=5.5, zorder=4)


def _name_lines(axes: Any, last: Mapping[str, Any]) -> None:
    """At the lines' right ends, the lowest first, each far enough above the one below to be read."""
    lowest = float("-inf")
    for name, colour in COLOURS.items():
        end = last["rate"], last["latency_ms"][name]
        height = axes.transData.transform(end)[1] * 72 / axes.figure.dpi  # in points
        place = max(height, lowest)
        axes.annotate(
            name, end, (9, place - height), textcoords="offset points", color=colour, va="center", weight="bold"
        )
        lowest = place + 12


def _draw_targets(axes: Any, rows: Sequence[Mapping[str, Any]], knee: float | None) -> None:
    axes.axhline(OBJECTIVE_MS, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    axes.annotate(
        f"objective: p90 ≤ {OBJECTIVE_MS:g} ms", (0.01, OBJECTIVE_MS), (0, 4), xycoords=("axes fraction", "data"),
        textcoords="offset points", color=INK, fontsize=9,
    )  # fmt: skip
    if rows[0]["rate"] <= TARGET_RATE <= rows[-1]["rate"]:
        for name, limit in TARGETS_MS.items():
            axes.plot(TARGET_RATE, limit, "_", color=COLOURS[name], markersize=26, markeredgewidth=2.4, zorder=5)
    if knee:
        axes.axvline(knee, color=INK, linewidth=1, linestyle=":", zorder=2)
        axes.annotate(
            f"knee {knee:,.0f}/s", (knee, 1), (-5, -6), xycoords=("data", "axes fraction"), ha="right", va="top",
            textcoords="offset points", color=INK, fontsize=9, rotation=90,
        )  # fmt: skip


def _dress(axes: Any, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=12)
    axes.set_xlabel("requests a second, offered at a constant rate (open loop)", color=INK)
    axes.set_ylabel("latency from the scheduled time, ms", color=INK)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(left=0, right=1.12 * rows[-1]["rate"])
    lowest, highest = min(row["latency_ms"]["p50"] for row in rows), max(row["latency_ms"]["p99.9"] for row in rows)
    axes.set_ylim(min(lowest / 1.5, 1), max(1.6 * highest, 1.6 * OBJECTIVE_MS))
    axes.grid(axis="y", which="major", color="#d9dde2", linewidth=0.8)
    axes.grid(axis="y", which="minor", color="#eef0f3", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    foot = "hollow: an error, a degraded answer, p90 > 50 ms or rate missed"
    if rows[0]["rate"] <= TARGET_RATE <= rows[-1]["rate"]:
        limits = ", ".join(f"{name} < {limit:g} ms" for name, limit in TARGETS_MS.items())
        foot = f"{foot}      bars: targets at {TARGET_RATE:,}/s, {limits}"
    axes.annotate(foot, (0, -0.16), xycoords="axes fraction", fontsize=8, color="#5b6570", va="top")
