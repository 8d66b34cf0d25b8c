"""What the report page says: a Report and the histories of its artifacts as sections of pictures and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from . import plots
from .history import Epoch, History
from .plots import Look, Row, Series
from .report import SEEN_MARK, SLICE_TITLES, Difference, Estimate, Report, cutoffs_of, percent, signed, strongest, title


class Cell(NamedTuple):
    """A cell of a table: what it says, what it adds in small letters, and the number of the look it names."""

    text: str
    note: str = ""
    look: int | None = None


class Table(NamedTuple):
    """The first cell of a row names it. Of one that is folded only the caption is seen until somebody asks."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


class Picture(NamedTuple):
    """A figure; ``numbers`` are what it shows, where no table of the section does."""

    title: str
    svg: Markup
    numbers: Table | None = None


class Section(NamedTuple):
    """What stands under one heading; ``legend`` names the looks in its pictures."""

    id: str
    title: str
    text: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    legend: Sequence[Cell] = ()


class _Slicing(NamedTuple):
    heading: str
    axis: str


_SLICINGS = {
    "prefix_length": _Slicing("Short and long sessions", "clicks before the target"),
    "popularity_decile": _Slicing("Popular and rare items", "popularity decile of the target"),
    "repetition": _Slicing("Repeat and explore", "target clicked before in its session"),
}
_PERCENTILES = ("p50", "p90", "p99")
_SEEN = f"{SEEN_MARK}\u00a0trained on these sessions"


class Sections:
    """The sections of one report; a model has the same name and look in all of them."""

    def __init__(self, report: Report, histories: Sequence[History]) -> None:
        self.report, self.histories = report, histories
        artifacts = [each.model for each in report.artifacts]
        self.looks: list[Look] = [*map(plots.artifact_look, range(len(artifacts))), plots.BASELINE]
        self._number = {model: number for number, model in enumerate(artifacts)}
        self._label = dict(zip(artifacts, short_names([one.artifact for one in histories]), strict=True))
        self._seen = {each.model for each in report.all if each.seen_in_training}
        k = cutoffs_of(report)[-1]
        self._metrics = [f"{name}@{k}" for name in ("recall", "mrr", "ndcg")]
        self._at = f"@{k}"
        self.best: Report = strongest(report.artifacts)[0]
        self._ranked = sorted(report.all, key=lambda each: -each.estimates[self._metrics[0]].value)
        # More lines than artifacts and one baseline, the one compared with or the strongest, cannot be told apart.
        compared = [report.baselines[each.over] for each in report.differences[:1] if each.over in report.baselines]
        self._drawn = [*report.artifacts, *(compared or strongest([*report.baselines.values()]))]

    def sections(self) -> Iterator[Section]:
        """All there are, in the order of the page."""
        yield self._accuracy()
        yield from self._comparisons()
        yield self._cutoffs()
        for name in self.report.slices:
            yield self._slices(name)
        yield self._lists()
        yield self._speed()
        if any(history.epochs for history in self.histories):
            yield self._training()
        yield self._recipes()

    def cards(self) -> Iterator[tuple[str, str, str]]:
        """(title, figure, small letters) of the best artifact."""
        over = next((each for each in self.report.differences if each.model == self.best.model), None)
        for metric in self._metrics:
            estimate = self.best.estimates[metric]
            small = f"95 % interval {between(estimate)}"
            if over:
                difference = verdict(over.estimates[metric])
                small = f"{difference.text} against {self._marked(over.over)} {difference.note}"
            yield title(metric), f"{percent(estimate.value)} %", small
        latency = self.best.latency_ms
        yield "One answer, p90", f"{latency['p90']:.1f} ms", f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"

    def warning(self) -> str:
        """What the mark of a model that has seen these sessions means; nothing where no model bears it."""
        if not self._seen:
            return ""
        return (
            f"{_SEEN}: it was refitted on train + validation, so its figures on this split are too good, and so is "
            "what it gains over other models."
        )

    def name(self, model: str) -> Cell:
        """The model's name beside its look; small letters where it has seen these sessions in training."""
        note = _SEEN if model in self._seen else ""
        return Cell(self._label.get(model, model), note, self._number.get(model, len(self.looks) - 1))

    def _marked(self, model: str) -> str:
        """The same where there is room for a mark only."""
        return f"{self.name(model).text}\u00a0{SEEN_MARK}" if model in self._seen else self.name(model).text

    def _row(self, model: str, estimate: Estimate) -> Row:
        """In a plot of whiskers; its axis is for the models that are drawn everywhere."""
        look, key = self.looks[self.name(model).look or 0], model in [each.model for each in self._drawn]
        return Row(self._marked(model), look, estimate, key)

    def _table(self, caption: str, head: Sequence[str], cells: Callable[[Report], Sequence[Cell]]) -> Table:
        """A row for every model, the best first."""
        rows = [[self.name(each.model), *cells(each)] for each in self._ranked]
        return Table(caption, ["model", *head], rows)

    def _accuracy(self) -> Section:
        pictures = []
        for metric in self._metrics[:2]:
            rows = [self._row(each.model, each.estimates[metric]) for each in self._ranked]
            svg = plots.whiskers(rows, x=f"{title(metric)}, %", text=percent)
            pictures.append(Picture(title(metric), figure(svg, f"{title(metric)} of every model with its interval")))
        table = self._table(
            "Percent, with 95 % intervals; the best Recall first",
            [title(metric) for metric in self._metrics],
            lambda each: [with_interval(each.estimates[metric]) for metric in self._metrics],
        )
        text = (
            f"Recall{self._at} is how often the next click is in the list; MRR{self._at} also asks how far up. "
            "Whiskers are 95 % intervals, arrows point to models that are far off."
        )
        return Section("models", "Models side by side", text, pictures, [table])

    def _comparisons(self) -> Iterator[Section]:
        report = self.report
        if report.differences:
            against = self._marked(report.differences[0].over)
            order = [each.model for each in self._ranked]
            text = (
                f"Percentage points more or less than {against}, on the same clicks in the same resampled sessions. "
                "What makes a session easy or hard for both models cancels out, so this tells more than two intervals "
                "beside each other. A hollow mark: the interval holds 0."
            )
            ranked = sorted(report.differences, key=lambda each: order.index(each.model))
            yield self._compared("comparison", f"Against {against}", text, ranked)
        if report.ladder and list(report.ladder) != list(report.differences):
            text = "Percentage points that each artifact adds to the one given before it, paired in the same way."
            yield self._compared("ladder", "Step by step", text, report.ladder)

    def _compared(self, id: str, heading: str, text: str, differences: Sequence[Difference]) -> Section:
        pictures, steps = [], len({each.over for each in differences}) > 1
        for metric in self._metrics[:2]:
            rows = [
                self._row(each.model, each.estimates[metric])._replace(hollow=not each.estimates[metric].excludes_zero)
                for each in differences
            ]
            svg = plots.whiskers(rows, x=f"{title(metric)}, percentage points", text=points, zero=True)
            pictures.append(Picture(title(metric), figure(svg, f"{heading}: differences in {title(metric)}")))
        cells = [
            [self._step(each) if steps else self.name(each.model), *(verdict(each.estimates[m]) for m in self._metrics)]
            for each in differences
        ]
        table = Table("Percentage points, with 95 % intervals", ["model", *map(title, self._metrics)], cells)
        return Section(id, heading, text, pictures, [table])

    def _step(self, difference: Difference) -> Cell:
        """The model's name with what it stands on."""
        name = self.name(difference.model)
        return name._replace(note=", ".join(filter(None, [f"over {self._marked(difference.over)}", name.note])))

    def _cutoffs(self) -> Section:
        ks, pictures = cutoffs_of(self.report), []
        for metric in ("recall", "mrr"):
            names, heading = [f"{metric}@{k}" for k in ks], title(f"{metric}@k")
            series = [self._series(each, ks, [each.estimates[name] for name in names]) for each in self._drawn]
            svg = plots.by_number(series, x="k, places in the list", y=f"{heading}, %", ticks=ks)
            numbers = self._table(f"{heading}, percent", [f"k = {k}" for k in ks], _estimates_at(names))
            pictures.append(Picture(heading, figure(svg, f"{heading} by the length of the list"), numbers))
        text = "How much a longer list finds."
        return Section("cutoffs", "Length of the list", text, pictures, legend=self._legend())

    def _series(self, report: Report, xs: Sequence[float], estimates: Sequence[Estimate]) -> Series:
        return Series(self.looks[self._number.get(report.model, -1)], xs, estimates)

    def _legend(self) -> list[Cell]:
        return [self.name(each.model) for each in self._drawn]

    def _slices(self, name: str) -> Section:
        slices, (heading, axis) = self.report.slices[name], _SLICINGS[name]
        labels, counts, pictures = [row.label for row in slices], [row.n for row in slices], []
        for metric in slices[0].estimates:
            found = {each.model: [row.estimates[metric] for row in each.slices[name]] for each in self._drawn}
            series = [self._series(each, range(len(slices)), found[each.model]) for each in self._drawn]
            svg = plots.by_label(series, labels, counts, x=axis, y=f"{title(metric)}, %")
            rows = [
                [Cell(row.label), Cell(f"{row.n:,}"), *(with_interval(each[i]) for each in found.values())]
                for i, row in enumerate(slices)
            ]
            numbers = Table(f"{title(metric)}, percent", [axis, "n", *map(self._marked, found)], rows)
            pictures.append(Picture(title(metric), figure(svg, f"{title(metric)} by {SLICE_TITLES[name]}"), numbers))
        text = f"By {SLICE_TITLES[name]}; n is the number of next clicks."
        return Section(name, heading, text, pictures, legend=self._legend())

    def _lists(self) -> Section:
        pictures = []
        for name, heading in (("coverage", "Coverage"), ("popularity_percentile", "Popularity percentile")):
            rows = [self._row(each.model, exactly(each.served[name + self._at])) for each in self._ranked]
            svg = plots.whiskers([row._replace(key=True) for row in rows], x=f"{heading}, %", text=percent)
            pictures.append(Picture(heading, figure(svg, f"{heading} of every model")))
        table = self._table(
            f"Lists of {self._at[1:]}: shares in percent, mean training clicks of its items, numbers of events",
            [
                "coverage",
                "popularity percentile",
                "top\u00a01\u00a0%",
                "mean clicks",
                "tied events",
                "unservable targets",
            ],
            self._list_figures,
        )
        text = (
            "Coverage is the share of the catalogue that stands in at least one list; the popularity percentile of a "
            "recommended item is the share that is clicked less than it; top 1 % is the share of places that the most "
            "clicked hundredth of the items takes."
        )
        return Section("lists", "What is recommended", text, pictures, [table])

    def _list_figures(self, report: Report) -> list[Cell]:
        shares = [report.served[name + self._at] for name in ("coverage", "popularity_percentile", "head_share")]
        counts = [report.served[f"average_popularity{self._at}"], report.tied_events, report.unservable_targets]
        return [*(Cell(percent(share)) for share in shares), *(Cell(f"{count:,.0f}") for count in counts)]

    def _speed(self) -> Section:
        latency, throughput = [], []
        for each in self._ranked:
            p50, p90, p99 = (each.latency_ms[name] for name in _PERCENTILES)
            latency.append(self._row(each.model, Estimate(p90, p50, p99))._replace(key=True))
            throughput.append(self._row(each.model, exactly(each.histories_per_second))._replace(key=True))
        one = plots.whiskers(
            latency, x="ms: p50 to p99, the mark is p90", text=lambda ms: f"{ms:.2f}", scale=1, log=True
        )
        many = plots.whiskers(throughput, x="histories a second", text=lambda rate: f"{rate:,.0f}", scale=1, log=True)
        pictures = [
            Picture("One history at a time", figure(one, "p50, p90 and p99 of one answer of every model, in ms")),
            Picture("In batches", figure(many, "Histories a second of every model, in batches")),
        ]
        table = self._table(
            "One history at a time in ms, and histories a second in batches",
            [*_PERCENTILES, "a second"],
            lambda each: [
                *(Cell(f"{each.latency_ms[name]:.2f}") for name in _PERCENTILES),
                Cell(f"{each.histories_per_second:,.0f}"),
            ],
        )
        text = (
            "From item ids to item ids in this process, without HTTP, on this machine and whatever else it was doing."
        )
        return Section("speed", "Speed", text, pictures, [table])

    def _training(self) -> Section:
        pictures = []
        for field, heading, scale in (("loss", "Loss", 1.0), ("recall", "Recall@20", 100.0), ("mrr", "MRR@20", 100.0)):
            series = [_curve(look, one, field) for look, one in zip(self.looks, self.histories, strict=False)]
            if any(one.xs for one in series):
                y = f"validation {heading}, %" if scale == 100 else "training loss"
                svg = plots.by_number(series, x="epoch", y=y, scale=scale, width_inches=plots.THIRD_INCHES)
                pictures.append(Picture(heading, figure(svg, f"{y} by epoch, the chosen epoch ringed")))
        # Epochs are chosen before a refit, so their figures are of weights that have not seen validation.
        models = [self.name(each.model)._replace(note="") for each in self.report.artifacts]
        rows = [
            [name._replace(note=f"epoch {epoch.number}"), *_epoch_cells(epoch, epoch.number == history.chosen)]
            for name, history in zip(models, self.histories, strict=True)
            for epoch in history.epochs
        ]
        table = Table(
            "Epoch by epoch", ["artifact", "loss", "Recall@20, %", "MRR@20, %", "seconds", ""], rows, folded=True
        )
        text = "Loss on the training clicks, Recall and MRR on the validation split. A ring marks the chosen epoch."
        return Section("training", "Training", text, pictures, [table], models)

    def _recipes(self) -> Section:
        recipes, tables = [history.recipe for history in self.histories], []
        if rows := list(_differing(recipes)):
            models = [self.name(each.model).text for each in self.report.artifacts]
            tables.append(Table("Settings that differ", ["setting", *models], rows))
        return Section("recipes", "Recipes and provenance", "What each artifact's manifest says of it.", tables=tables)


def _estimates_at(names: Sequence[str]) -> Callable[[Report], list[Cell]]:
    return lambda report: [with_interval(report.estimates[name]) for name in names]


def _curve(look: Look, history: History, field: str) -> Series:
    known = {epoch.number: getattr(epoch, field) for epoch in history.epochs if getattr(epoch, field) is not None}
    ringed = history.chosen if history.chosen in known else None
    return Series(look, list(known), [exactly(value) for value in known.values()], ringed)


def _epoch_cells(epoch: Epoch, chosen: bool) -> list[Cell]:
    shares = [Cell("" if value is None else percent(value)) for value in (epoch.recall, epoch.mrr)]
    seconds = Cell("" if epoch.seconds is None else f"{epoch.seconds:,.1f}")
    return [Cell(f"{epoch.loss:.4f}"), *shares, seconds, Cell("chosen" if chosen else "")]


def _differing(recipes: Sequence[Mapping[str, str]]) -> Iterator[list[Cell]]:
    """A row for every setting that is not the same in all recipes."""
    for name in dict.fromkeys(name for recipe in recipes for name in recipe):
        values = [recipe.get(name, "not set") for recipe in recipes]
        if len(set(values)) > 1:
            yield [Cell(name), *map(Cell, values)]


def short_names(artifacts: Sequence[str]) -> list[str]:
    """``diginetica-20261122-8bd0e71b`` as ``diginetica``, with the hash where several have that name."""
    parts = [name.rsplit("-", 2) for name in artifacts]
    recipes = [part[0] for part in parts]
    return [
        recipe if recipes.count(recipe) == 1 else f"{recipe} {part[-1]}"
        for recipe, part in zip(recipes, parts, strict=True)
    ]


def figure(svg: str, what: str) -> Markup:
    """A drawing that says what it shows to those who cannot see it; the numbers are in a table beside it."""
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(what)}" ', 1))


def exactly(value: float) -> Estimate:
    """A figure without an interval."""
    return Estimate(value, value, value)


def points(difference: float) -> str:
    """A difference in percentage points with a true minus sign."""
    return signed(difference).replace("-", "\u2212")


def between(estimate: Estimate, text: Callable[[float], str] = percent) -> str:
    """``[low, high]``, which no line break parts."""
    return f"[{text(estimate.low)},\u00a0{text(estimate.high)}]"


def with_interval(estimate: Estimate) -> Cell:
    """In percent, the interval in small letters."""
    return Cell(percent(estimate.value), between(estimate))


def verdict(difference: Estimate) -> Cell:
    """In percentage points, with the interval and what it says."""
    word = "\u25b2\u00a0more" if difference.value > 0 else "\u25bc\u00a0less"
    word = word if difference.excludes_zero else "\u25cb\u00a0holds\u00a00"
    return Cell(points(difference.value), f"{between(difference, points)} {word}")
