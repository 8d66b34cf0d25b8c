"""Several results of `srgnn evaluate --json`, of windows or of seeds -> mean and spread of every metric.

Each result counts once, however many next clicks it was judged on. Differences to a baseline are taken within each
result, where both met the same clicks, so they vary less than the figures themselves.
"""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from srgnn.errors import DataError

from .report import SEEN_MARK, Report, grid, percent, title

_SETTING = ("split", "protocol", "counted_on")
_METRIC = re.compile(r"(recall|mrr|ndcg|coverage)@\d+")

Metrics = Mapping[str, float]
"""Fractions by name, such as ``recall@20``."""


class Result(NamedTuple):
    """What is read of one file; `models` holds the artifact's metrics under `model`, and the baselines'."""

    file: str
    artifact: str
    corpus: str
    setting: Mapping[str, str]
    model: str
    models: Mapping[str, Metrics]
    seen_in_training: bool = False
    """Whether the artifact was trained on these sessions too."""


class Spread(NamedTuple):
    """n values in four figures; `std` is the sample's (over n - 1), and unknown for a single value."""

    mean: float
    std: float | None
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std, min(values), max(values))


class Difference(NamedTuple):
    """The model's metric less a baseline's, and in how many results it is above 0."""

    spread: Spread
    higher_in: int


@dataclass(frozen=True)
class Summary:
    """What n results say together: of the model first, then of every baseline that all of them hold."""

    results: Sequence[Result]
    model: str
    models: Mapping[str, Mapping[str, Spread]]
    differences: Mapping[str, Mapping[str, Difference]]
    left_out: Sequence[str]
    """Baselines that some results lack."""

    @property
    def artifacts(self) -> int:
        """How many different ones were judged."""
        return len({each.artifact for each in self.results})

    @property
    def corpora(self) -> int:
        """On how many different ones."""
        return len({each.corpus for each in self.results})

    @property
    def seen_in_training(self) -> int:
        """How many results are of artifacts that were trained on these sessions too."""
        return sum(each.seen_in_training for each in self.results)

    def to_json(self) -> dict[str, Any]:
        """The dictionary that `srgnn summarize` prints; metrics are fractions."""
        return {
            "n": len(self.results),
            "artifacts": self.artifacts,
            "corpora": self.corpora,
            "seen_in_training": self.seen_in_training,
            **self.results[0].setting,
            "model": self.model,
            "models": {
                name: {metric: spread._asdict() for metric, spread in spreads.items()}
                for name, spreads in self.models.items()
            },
            "differences": {
                name: {metric: {**one.spread._asdict(), "higher_in": one.higher_in} for metric, one in each.items()}
                for name, each in self.differences.items()
            },
            "left_out": list(self.left_out),
            "files": [each.file for each in self.results],
        }


def summarize(results: Sequence[Result]) -> Summary:
    """Mean and spread over one result or more. Raises DataError where they do not belong together."""
    for each in results[1:]:
        _require_alike(results[0], each)
    _require_different(results)
    names = {each.model for each in results}
    model = names.pop() if len(names) == 1 else "model"
    baselines = [name for name in results[0].models if name != results[0].model]
    shared = [name for name in baselines if all(name in each.models for each in results)]
    own = [each.models[each.model] for each in results]
    others = {name: [each.models[name] for each in results] for name in shared}
    found = {name for each in results for name in each.models if name != each.model}
    return Summary(
        results,
        model,
        {model: _spreads(own), **{name: _spreads(each) for name, each in others.items()}},
        {name: _differences(own, each) for name, each in others.items()},
        sorted(found - set(shared)),
    )


def _spreads(found: Sequence[Metrics]) -> dict[str, Spread]:
    return {metric: Spread.of([each[metric] for each in found]) for metric in found[0]}


def _differences(model: Sequence[Metrics], baseline: Sequence[Metrics]) -> dict[str, Difference]:
    pairs = list(zip(model, baseline, strict=True))
    values = {metric: [ours[metric] - theirs[metric] for ours, theirs in pairs] for metric in model[0]}
    return {metric: Difference(Spread.of(each), sum(one > 0 for one in each)) for metric, each in values.items()}


# --- reading ---


def read_result(file: Path) -> Result:
    """What `srgnn evaluate --json FILE` wrote. Raises DataError for anything else."""
    try:
        flat = json.loads(file.read_text(encoding="utf-8"))
        report = Report.from_json(flat)
        own = {report.model: _metrics(report)}
        models = own | {name: _metrics(each) for name, each in report.baselines.items()}
        setting = {name: str(getattr(report, name)) for name in _SETTING}
        about = (str(file), str(flat["artifact"]), str(flat["corpus"]))
        return Result(*about, setting, report.model, models, report.seen_in_training)
    except KeyError as error:
        raise DataError(f"{file} lacks {error}: {_EXPECTED}") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file} cannot be read ({error}): {_EXPECTED}") from error


_EXPECTED = "expected a file that `srgnn evaluate --json FILE` wrote"


def _metrics(report: Report) -> dict[str, float]:
    figures = {name: estimate.value for name, estimate in report.estimates.items()} | dict(report.served)
    found = {name: float(value) for name, value in figures.items() if _METRIC.fullmatch(name)}
    strange = [f"{name} = {value}" for name, value in found.items() if not 0 <= value <= 1]
    if strange or not found:
        raise ValueError(f"found {strange[0]}, no fraction" if strange else "found no metric")
    return found


def _require_alike(first: Result, other: Result) -> None:
    for name, value in first.setting.items():
        if other.setting[name] != value:
            raise DataError(
                f"{first.file} and {other.file} do not belong together: {name} is '{value}' in the one and "
                f"'{other.setting[name]}' in the other; give results of one kind"
            )
    metrics = set(first.models[first.model])
    for model, found in [*first.models.items(), *other.models.items()]:
        if set(found) != metrics:
            raise DataError(
                f"{first.file} and {other.file} do not belong together: they differ in "
                f"{', '.join(sorted(metrics ^ set(found)))} ({model}); evaluate both with the same version of srgnn"
            )


def _require_different(results: Iterable[Result]) -> None:
    """The same result twice would make the spread too small."""
    seen: dict[tuple[str, str], Result] = {}
    for each in results:
        earlier = seen.setdefault((each.artifact, each.corpus), each)
        if earlier is not each:
            raise DataError(
                f"{earlier.file} and {each.file} are both of artifact {each.artifact} on corpus {each.corpus}: "
                "give one of them"
            )


# --- text ---


def to_table(summary: Summary) -> str:
    """Every model's figures at the last cutoff, in percent; the model's own at all of them."""
    metrics = list(summary.models[summary.model])
    last = max(map(_cutoff, metrics))
    blocks = [_heading(summary)]
    blocks += [_metric_table(summary, name) for name in metrics if _cutoff(name) == last]
    return "\n\n".join([*blocks, _cutoff_table(summary)])


def _heading(summary: Summary) -> str:
    count, setting = len(summary.results), summary.results[0].setting
    times = f"{summary.seen_in_training} of {count}"
    seen = f"\n{SEEN_MARK}: trained on these sessions too in {times}, so its figures here are too good"
    return (
        f"{count} result{'s' * (count > 1)}, {setting['split']} split, {setting['protocol']} protocol; different "
        f"artifacts: {summary.artifacts}, corpora: {summary.corpora}\npercent; std is the sample's, over n - 1"
        f"{seen if summary.seen_in_training else ''}"
    )


def _metric_table(summary: Summary, metric: str) -> str:
    header = [_title(metric), "mean", "std", "min", "max"]
    rows = [[name, *_cells(spreads[metric])] for name, spreads in summary.models.items()]
    rows[0][0] += f" {SEEN_MARK}" if summary.seen_in_training else ""
    if not summary.differences:
        return grid([header, *rows])
    differences = [each[metric] for each in summary.differences.values()]
    header += [f"{summary.model} - it", "std", "higher in"]
    rows[0] += ["", "", ""]
    for row, one in zip(rows[1:], differences, strict=True):
        row += [
            f"{100 * one.spread.mean:+.2f}",
            _std(one.spread),
            f"{one.higher_in} of {len(summary.results)}",
        ]
    return grid([header, *rows])


def _cutoff_table(summary: Summary) -> str:
    """The model's mean and std at every cutoff."""
    spreads = summary.models[summary.model]
    cutoffs = sorted(set(map(_cutoff, spreads)))
    names = dict.fromkeys(metric.partition("@")[0] for metric in spreads)
    rows = [[_title(name), *(_mean_and_std(spreads.get(f"{name}@{k}")) for k in cutoffs)] for name in names]
    return grid([[f"{summary.model} at", *map(str, cutoffs)], *rows])


def _cells(spread: Spread) -> list[str]:
    return [percent(spread.mean), _std(spread), percent(spread.min), percent(spread.max)]


def _mean_and_std(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return percent(spread.mean) if spread.std is None else f"{percent(spread.mean)} ± {percent(spread.std)}"


def _std(spread: Spread) -> str:
    return "-" if spread.std is None else percent(spread.std)


def _title(metric: str) -> str:
    return metric.capitalize() if metric.startswith("coverage") else title(metric)


def _cutoff(metric: str) -> int:
    return int(metric.partition("@")[2])
