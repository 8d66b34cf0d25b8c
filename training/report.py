"""The result of one evaluation: Report <-> flat JSON <-> text table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_FIELDS = (
    "model",
    "version",
    "split",
    "protocol",
    "counted_on",
    "n",
    "sessions",
    "tied_events",
    "unservable_targets",
)
_RANK_METRICS = ("recall", "mrr", "ndcg")
_SEEN = "seen_in_training"
_INTERVAL = "_interval"
_EXCLUDES_ZERO = "_excludes_zero"
SEEN_MARK = "†"
"""Stands after the name of a model whose report is ``seen_in_training``."""
SLICE_TITLES = {
    "prefix_length": "number of clicks before the target",
    "popularity_decile": "popularity decile of the target (1 is the most clicked tenth of the catalogue)",
    "repetition": "whether the target was clicked before in its session",
}


class Estimate(NamedTuple):
    """A metric as a fraction, with its 95 % interval from a bootstrap over sessions."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0, which for a difference means: not by chance of the sessions."""
        return self.low > 0 or self.high < 0


class Difference(NamedTuple):
    """How much more ``model`` gains than ``over`` on the same clicks: paired estimates by metric."""

    model: str
    over: str
    estimates: Mapping[str, Estimate]


class Slice(NamedTuple):
    """Metrics of the n examples that share a label."""

    label: str
    n: int
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class Report:
    """What one model did on one split; every metric is a fraction in 0..1 unless its name says otherwise."""

    model: str
    version: str
    split: str
    protocol: str
    counted_on: str
    """Splits whose clicks define the servable catalogue, popularity and the baselines."""
    n: int
    """Examples: every prefix of every session, each with one next click."""
    sessions: int
    tied_events: int
    """Examples in which another item scored exactly as high as the target (counted against the model)."""
    unservable_targets: int
    """Examples whose target the model never saw in training: it is never answered and ranks last."""
    estimates: Mapping[str, Estimate]
    """Rank metrics by name, for example ``recall@20``."""
    served: Mapping[str, float]
    """Figures of the lists as served: ``coverage@20``, ``average_popularity@20`` (clicks),
    ``popularity_percentile@20``, ``head_share@20``, and ``served_recall@20`` and ``served_mrr@20``, which
    order ties by row as the service does: a replay over HTTP must find exactly these."""
    latency_ms: Mapping[str, float]
    """Percentiles of one recommend() call with one history: ``p50``, ``p90``, ``p99``."""
    histories_per_second: float
    """Throughput of recommend_rows() in batches."""
    seen_in_training: bool = False
    """Whether the model was trained on these sessions: its figures on them are too good."""
    slices: Mapping[str, Sequence[Slice]] = field(default_factory=dict)
    models: Mapping[str, Report] = field(default_factory=dict)
    """Further artifacts on the same clicks, in the order given; only the first one's report has them."""
    baselines: Mapping[str, Report] = field(default_factory=dict)
    differences: Sequence[Difference] = ()
    """Every other model over one, which is the same for all."""
    ladder: Sequence[Difference] = ()
    """Every artifact over the one given before it."""

    @property
    def marked_name(self) -> str:
        """The model's name, marked where the model has seen these sessions in training."""
        return f"{self.model} {SEEN_MARK}" if self.seen_in_training else self.model

    @property
    def artifacts(self) -> list[Report]:
        """This report and those of further artifacts, in the order given."""
        return [self, *self.models.values()]

    @property
    def all(self) -> list[Report]:
        """Those and the baselines' reports."""
        return [*self.artifacts, *self.baselines.values()]

    def to_json(self) -> dict[str, Any]:
        """The flat dictionary that ``srgnn evaluate`` prints."""
        flat: dict[str, Any] = {name: getattr(self, name) for name in (*_FIELDS, _SEEN)}
        flat |= _estimates_to_json(self.estimates)
        flat |= self.served
        flat["latency_ms"] = dict(self.latency_ms)
        flat["histories_per_second"] = self.histories_per_second
        flat["slices"] = {
            name: [{"label": row.label, "n": row.n} | _estimates_to_json(row.estimates) for row in rows]
            for name, rows in self.slices.items()
        }
        for kind in ("models", "baselines"):
            if reports := getattr(self, kind):
                flat[kind] = {name: report.to_json() for name, report in reports.items()}
        if self.differences:
            models = {each.model: _difference_to_json(each) for each in self.differences}
            flat["comparison"] = {"against": self.differences[0].over, "models": models}
        if self.ladder:
            flat["ladder"] = [
                {"model": each.model, "over": each.over} | _difference_to_json(each) for each in self.ladder
            ]
        return flat

    @classmethod
    def from_json(cls, flat: Mapping[str, Any]) -> Report:
        """Read what :meth:`to_json` wrote, before ``seen_in_training`` too; KeyError names what is missing."""
        estimates = _estimates_from_json(flat)
        return cls(
            **{name: flat[name] for name in _FIELDS},
            estimates=estimates,
            served={name: flat[name] for name in flat if "@" in name and _metric(name) not in estimates},
            latency_ms=flat["latency_ms"],
            histories_per_second=flat["histories_per_second"],
            seen_in_training=flat.get(_SEEN, False),
            slices={
                name: [Slice(row["label"], row["n"], _estimates_from_json(row)) for row in rows]
                for name, rows in flat["slices"].items()
            },
            models={name: cls.from_json(report) for name, report in flat.get("models", {}).items()},
            baselines={name: cls.from_json(report) for name, report in flat.get("baselines", {}).items()},
            differences=_differences_from_json(flat.get("comparison", {"models": {}})),
            ladder=[
                Difference(each["model"], each["over"], _estimates_from_json(each)) for each in flat.get("ladder", [])
            ],
        )


def _metric(name: str) -> str:
    return name.removesuffix(_INTERVAL)


def _estimates_to_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, estimate in estimates.items():
        flat[name] = estimate.value
        flat[name + _INTERVAL] = [estimate.low, estimate.high]
    return flat


def _difference_to_json(difference: Difference) -> dict[str, Any]:
    verdicts = {name + _EXCLUDES_ZERO: one.excludes_zero for name, one in difference.estimates.items()}
    return _estimates_to_json(difference.estimates) | verdicts


def _differences_from_json(flat: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(name, flat["against"], _estimates_from_json(estimates)) for name, estimates in flat["models"].items()
    ]


def _estimates_from_json(flat: Mapping[str, Any]) -> dict[str, Estimate]:
    names = [_metric(name) for name in flat if name.endswith(_INTERVAL)]
    return {name: Estimate(flat[name], *flat[name + _INTERVAL]) for name in names}


# Text


def to_table(report: Report) -> str:
    """The report beside further models and baselines, in percent.

    Slices show the first model and the strongest baseline only, for width; the others' slices, and all intervals of
    slices, are in the JSON.
    """
    reports, rivals = report.all, strongest([*report.baselines.values()])
    blocks = [_heading(report), _accuracy(reports), *_differences(report), _cutoffs(report)]
    blocks += [_lists(reports), _speed(reports)]
    blocks += [_slice_table(name, [report, *rivals]) for name in report.slices]
    return "\n\n".join(blocks)


def strongest(reports: Sequence[Report]) -> Sequence[Report]:
    """The one with the best Recall at the last cutoff, the first of equals; nothing of nothing."""
    return sorted(reports, key=lambda each: -each.estimates[f"recall@{cutoffs_of(each)[-1]}"].value)[:1]


def _heading(report: Report) -> str:
    seen = f"\n{SEEN_MARK}: trained on these sessions too, so its figures here are too good"
    return (
        f"{report.split} split, {report.protocol} protocol: {report.n:,} next clicks of {report.sessions:,} "
        "sessions, each ranked among all items\npercent, with 95 % intervals by bootstrap over sessions"
        f"{seen if any(each.seen_in_training for each in report.all) else ''}"
    )


def _accuracy(reports: Sequence[Report]) -> str:
    names = [f"{metric}@{cutoffs_of(reports[0])[-1]}" for metric in _RANK_METRICS]
    rows = [[each.marked_name, *(_with_interval(each.estimates[name]) for name in names)] for each in reports]
    return grid([["", *map(title, names)], *rows])


def _differences(report: Report) -> Iterator[str]:
    """Blocks of paired differences; none where nothing was compared."""
    models = {each.model: each.marked_name for each in report.all}
    if report.differences:
        yield _difference_table(f"over {models[report.differences[0].over]} (*: not 0)", report.differences, models)
    if report.ladder and list(report.ladder) != list(report.differences):
        yield _difference_table("over the artifact before it (*: not 0)", report.ladder, models)


def _difference_table(corner: str, differences: Sequence[Difference], models: Mapping[str, str]) -> str:
    """``models`` are the names to show, by the differences' names."""
    names = list(differences[0].estimates)
    rows = [
        [models[each.model], *(_signed_with_interval(each.estimates[name]) for name in names)] for each in differences
    ]
    return grid([[corner, *map(title, names)], *rows])


def _cutoffs(report: Report) -> str:
    cutoffs = cutoffs_of(report)
    rows = [
        [title(metric), *(percent(report.estimates[f"{metric}@{k}"].value) for k in cutoffs)]
        for metric in _RANK_METRICS
    ]
    return grid([[f"{report.marked_name} at", *map(str, cutoffs)], *rows])


def _lists(reports: Sequence[Report]) -> str:
    k = cutoffs_of(reports[0])[-1]
    header = ["items recommended", "coverage", "mean clicks", "popularity percentile", "share of top 1 %"]
    rows = [
        [
            each.marked_name,
            percent(each.served[f"coverage@{k}"]),
            f"{each.served[f'average_popularity@{k}']:,.0f}",
            percent(each.served[f"popularity_percentile@{k}"]),
            percent(each.served[f"head_share@{k}"]),
        ]
        for each in reports
    ]
    return grid([header, *rows])


def _speed(reports: Sequence[Report]) -> str:
    header = [
        "one history, ms",
        "p50",
        "p90",
        "p99",
        "batched, per second",
        "tied events",
        "unservable targets",
    ]
    rows = [
        [
            each.marked_name,
            *(f"{each.latency_ms[name]:.2f}" for name in ("p50", "p90", "p99")),
            f"{each.histories_per_second:,.0f}",
            f"{each.tied_events:,}",
            f"{each.unservable_targets:,}",
        ]
        for each in reports
    ]
    return grid([header, *rows])


def _slice_table(name: str, reports: Sequence[Report]) -> str:
    rows = reports[0].slices[name]
    metrics = list(rows[0].estimates)
    header = ["", "n", *(f"{each.marked_name} {title(metric)}" for each in reports for metric in metrics)]
    lines = [
        [
            row.label,
            f"{row.n:,}",
            *(percent(each.slices[name][i].estimates[metric].value) for each in reports for metric in metrics),
        ]
        for i, row in enumerate(rows)
    ]
    return f"by {SLICE_TITLES.get(name, name)}\n{grid([header, *lines])}"


def cutoffs_of(report: Report) -> list[int]:
    """The list lengths its metrics are at, ascending."""
    return sorted({int(name.partition("@")[2]) for name in report.estimates})


def title(name: str) -> str:
    """A metric's name as people write it: ``recall@20`` is Recall@20, ``mrr@20`` MRR@20."""
    metric, at, cutoff = name.partition("@")
    return (metric.capitalize() if metric == "recall" else metric.upper()) + at + cutoff


def percent(value: float) -> str:
    """A fraction in percent, to two places."""
    return f"{100 * value:.2f}"


def _with_interval(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def signed(points: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * points:+.2f}"


def _signed_with_interval(difference: Estimate) -> str:
    value, low, high = map(signed, difference)
    return f"{'* ' if difference.excludes_zero else ''}{value} [{low}, {high}]"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first one's text to the left and the others' to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()
