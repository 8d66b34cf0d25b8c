"""evaluate(recommender, split) -> Report: full ranking of every next click, and what the served lists look
like. compare(): how much better one model is than another on the same clicks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from srgnn.errors import DataError
from srgnn.progress import progress
from srgnn.recommender import Recommender

from . import metrics
from .corpus import Split
from .examples import Examples
from .metrics import FloatArray, IntArray, Slicing
from .report import Difference, Estimate, Report, Slice

LATENCY_SAMPLE = 500
LATENCY_WARM_UP = 10
RESAMPLES = 1000
SEED = 1
SLICE_METRICS = ("recall", "mrr")


class Setting(NamedTuple):
    """What a report must say about where its numbers come from."""

    split: str
    protocol: str
    counted_on: str


@dataclass(frozen=True)
class Judgement:
    """One pass over N examples, in their order."""

    rank: IntArray
    """[N]: items scoring at least as high as the next click, itself included."""
    ties: IntArray
    """[N]: other items scoring exactly the same."""
    served_rank: IntArray
    """[N]: position of the next click in the served list, k + 1 where it is not in it."""
    shown: IntArray
    """[V]: how often each item stood in a served list."""
    list_seconds: float
    """Time spent on the served lists alone."""


class Evaluation(NamedTuple):
    """One model on N examples: what is told of it, and what a comparison with another needs."""

    report: Report
    rank: IntArray
    """[N], as in Judgement."""
    session: IntArray
    """[N]: the session of each example, the same for every model on one split."""


def evaluate(
    recommender: Recommender,
    split: Split,
    *,
    item_counts: IntArray,
    setting: Setting,
    model: str = "sr-gnn",
    ks: Sequence[int] = (1, 5, 10, 20),
    batch_size: int = 512,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    shown: bool = True,
) -> Evaluation:
    """Judge every prefix of every session of ``split``.

    ``item_counts`` [V] are training clicks: they define the servable catalogue and popularity. Served lists
    have max(ks) places. Raises DataError where the split holds no example.
    """
    examples = Examples(split, recommender.rules)
    if not len(examples):
        raise DataError(f"the {setting.split} split holds no session of two clicks or more: nothing to evaluate")
    k = min(max(ks), len(recommender.vocabulary))
    judgement = judge(recommender, examples, k=k, batch_size=batch_size, label=model, shown=shown)
    answerable = recommender.fallback.clicks[examples.targets] > 0
    slicings = _slicings(examples, split, item_counts)
    overall, slices = _estimates(judgement.rank, examples.session, slicings, ks, resamples, seed)
    report = Report(
        model=model,
        version=recommender.version,
        **setting._asdict(),
        n=len(examples),
        sessions=len(np.unique(examples.session)),
        tied_events=int((judgement.ties[answerable] > 0).sum()),
        unservable_targets=int((~answerable).sum()),
        estimates=overall,
        served=_served(judgement, item_counts, max(ks)),
        latency_ms=latency_ms(recommender, _sample_histories(recommender, examples, split, seed), k),
        histories_per_second=len(examples) / judgement.list_seconds,
        slices=slices,
    )
    return Evaluation(report, judgement.rank, examples.session)


def judge(
    recommender: Recommender,
    examples: Examples,
    *,
    k: int,
    batch_size: int = 512,
    label: str = "evaluate",
    shown: bool = True,
) -> Judgement:
    """Rank every target among all items, and serve a list of ``k`` for every prefix."""
    found, counts, list_seconds = [], np.zeros(len(recommender.vocabulary), np.int64), 0.0
    all_targets = examples.targets
    with progress(label, len(examples), shown=shown) as advance:
        for start in range(0, len(examples), batch_size):
            indices = np.arange(start, min(start + batch_size, len(examples)))
            sequences, targets = examples.sequences(indices), all_targets[indices]
            ranks = recommender.scorer.ranks(sequences, targets)
            started = time.perf_counter()
            rows = recommender.recommend_rows(sequences, k).rows
            list_seconds += time.perf_counter() - started
            counts += np.bincount(rows[rows >= 0], minlength=len(counts))
            found.append((ranks.rank, ranks.ties, metrics.list_ranks(rows, targets)))
            advance(len(indices))
    rank, ties, served_rank = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Judgement(rank, ties, served_rank, counts, list_seconds)


def compare(
    evaluations: Mapping[str, Evaluation],
    pairs: Sequence[tuple[str, str]],
    *,
    k: int = 20,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Difference]:
    """For each pair (model, over) the mean of what ``model`` gains more than ``over``, by paired bootstrap.

    Both models see the same resampled sessions, so what makes a session easy or hard for both cancels out: the interval
    of the difference is narrower than two intervals beside each other suggest. All evaluations are of one split.
    """
    if not pairs:
        return []
    session = next(iter(evaluations.values())).session
    every = np.ones(len(session), bool)

    def surplus(model: str, over: str) -> dict[str, FloatArray]:
        mine, theirs = evaluations[model].rank, evaluations[over].rank
        return {f"{name}@{k}": gain(mine, k) - gain(theirs, k) for name, gain in metrics.GAINS.items()}

    groups = (_Group(every, surplus(*pair)) for pair in pairs)
    found = estimate_groups(groups, session, resamples, seed)
    return [Difference(*pair, estimates) for pair, estimates in zip(pairs, found, strict=True)]


def latency_ms(recommender: Recommender, histories: Sequence[Sequence[str]], k: int) -> dict[str, float]:
    """Percentiles of one recommend() call with one history of raw ids, from ids to ids."""
    for history in histories[:LATENCY_WARM_UP]:
        recommender.recommend([history], k)
    milliseconds = []
    for history in histories:
        started = time.perf_counter()
        recommender.recommend([history], k)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return metrics.percentiles(np.array(milliseconds))


def _sample_histories(recommender: Recommender, examples: Examples, split: Split, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    size = min(LATENCY_SAMPLE, len(examples))
    chosen = rng.choice(len(examples), size=size, replace=False)
    ids = recommender.vocabulary.ids
    return [
        [ids[row] for row in split.session(int(examples.session[i]))[: int(examples.positions[i])].tolist()]
        for i in chosen
    ]


def _served(judgement: Judgement, item_counts: IntArray, k: int) -> dict[str, float]:
    figures = metrics.exposure(judgement.shown, item_counts)._asdict()
    figures["served_recall"] = metrics.recall_at(judgement.served_rank, k)
    figures["served_mrr"] = metrics.mrr_at(judgement.served_rank, k)
    return {f"{name}@{k}": value for name, value in figures.items()}


# Estimates: a value and its interval, for all examples and for every slice, from one set of resamples


class _Group(NamedTuple):
    """Examples [N] that belong together, and the per-example gains to average over them, by metric name."""

    member: npt.NDArray[np.bool_]
    gains: Mapping[str, FloatArray]


def _slicings(examples: Examples, split: Split, item_counts: IntArray) -> list[Slicing]:
    return [
        metrics.by_prefix_length(examples.positions),
        metrics.by_popularity_decile(examples.targets, item_counts),
        metrics.by_repetition(repeated_targets(examples, split)),
    ]


def repeated_targets(examples: Examples, split: Split) -> npt.NDArray[np.bool_]:
    """Whether the target was clicked earlier in its session, however long ago [N]."""
    items = np.asarray(split.items, dtype=np.int64)
    session = np.repeat(np.arange(split.num_sessions), np.diff(split.offsets))
    _, first, click = np.unique(session * (int(items.max()) + 1) + items, return_index=True, return_inverse=True)
    is_repeat = first[click] < np.arange(len(items))
    repeated: npt.NDArray[np.bool_] = is_repeat[split.offsets[examples.session] + examples.positions]
    return repeated


def _estimates(
    rank: IntArray,
    session: IntArray,
    slicings: Sequence[Slicing],
    ks: Sequence[int],
    resamples: int,
    seed: int,
) -> tuple[dict[str, Estimate], dict[str, list[Slice]]]:
    every = {f"{name}@{k}": gain(rank, k) for name, gain in metrics.GAINS.items() for k in ks}
    few = {f"{name}@{max(ks)}": every[f"{name}@{max(ks)}"] for name in SLICE_METRICS}
    parts = [(each, label, each.member == i) for each in slicings for i, label in enumerate(each.labels)]
    parts = [part for part in parts if part[2].any()]
    groups = [_Group(np.ones(len(rank), bool), every), *(_Group(member, few) for _, _, member in parts)]
    overall, *found = estimate_groups(groups, session, resamples, seed)
    slices: dict[str, list[Slice]] = {each.name: [] for each in slicings}
    for (each, label, member), estimates in zip(parts, found, strict=True):
        slices[each.name].append(Slice(label, int(member.sum()), estimates))
    return overall, slices


def estimate_groups(
    groups: Iterable[_Group], session: IntArray, resamples: int, seed: int
) -> list[dict[str, Estimate]]:
    """Mean gains of each group with 95 % intervals; all groups see the same resampled sessions."""
    _, number = np.unique(session, return_inverse=True)
    names, sums = [], []
    for group in groups:  # once, so that a generator's gains [N] are held for one group at a time
        names.append(list(group.gains))
        sums += [_sums(group.member, number), *_gain_sums(group, number)]
    columns = np.stack(sums, axis=1)  # [S, M]
    draws = iter(metrics.resampled_sums(columns, resamples, seed).T)
    totals = iter(columns.sum(axis=0))
    results = []
    for gains in names:
        count, drawn_count = next(totals), next(draws)
        results.append({name: _estimate(next(totals), count, next(draws), drawn_count) for name in gains})
    return results


def _gain_sums(group: _Group, number: IntArray) -> list[FloatArray]:
    return [_sums(gain * group.member, number) for gain in group.gains.values()]


def _sums(values: npt.ArrayLike, number: IntArray) -> FloatArray:
    return metrics.session_sums(np.asarray(values, dtype=np.float64), number)


def _estimate(total: float, count: float, drawn: FloatArray, drawn_count: FloatArray) -> Estimate:
    seen = drawn_count > 0  # a small slice can miss a resample altogether
    value = float(total / count)
    low, high = metrics.interval(drawn[seen] / drawn_count[seen])
    return Estimate(value, *((low, high) if seen.any() else (value, value)))
