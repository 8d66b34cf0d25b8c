"""Metrics of next-item recommendation: pure functions on the rank of the one item that was clicked next.

Every example is one (prefix, next click). Its rank is the number of items that score at least as high as the
next click: 1 is best, and ties count against us. Shape letters: N examples, S sessions, R resamples, V items,
k list length.

Intervals resample *sessions*, not examples: the prefixes of one session share their clicks, so treating them
as independent would print intervals that are too narrow (cluster bootstrap, Field and Welsh 2007).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Gain = Callable[[IntArray, int], FloatArray]

HEAD_DIVISOR = 100
"""The short head is one item in so many of the servable catalogue, the most clicked ones (at least one)."""
PREFIX_LENGTHS = (1, 2, 3, 4, 5, 10, 20)
"""Lower ends of the prefix-length slices; the last one is open."""
_RESAMPLED_DRAWS = 1 << 22  # draws held at once by the bootstrap: 32 MB as int64, whatever S and R are


def hits(ranks: IntArray, k: int) -> FloatArray:
    """1 where the next click is among the first k, per example [N]."""
    return (ranks <= k).astype(np.float64)


def reciprocal_ranks(ranks: IntArray, k: int) -> FloatArray:
    """1 / rank, 0 past rank k, per example [N]."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def discounted_gains(ranks: IntArray, k: int) -> FloatArray:
    """1 / log2(rank + 1), 0 past rank k, per example [N]; with one relevant item the ideal gain is 1."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


GAINS: dict[str, Gain] = {"recall": hits, "mrr": reciprocal_ranks, "ndcg": discounted_gains}


def recall_at(ranks: IntArray, k: int) -> float:
    """Recall@k, which with one relevant item is HitRate@k and the literature's P@k."""
    return float(hits(ranks, k).mean())


def mrr_at(ranks: IntArray, k: int) -> float:
    """MRR@k."""
    return float(reciprocal_ranks(ranks, k).mean())


def ndcg_at(ranks: IntArray, k: int) -> float:
    """NDCG@k."""
    return float(discounted_gains(ranks, k).mean())


def list_ranks(rows: IntArray, targets: IntArray) -> IntArray:
    """Position (from 1) of each target [N] in its list of rows [N, k]; k + 1 where the list misses it."""
    found = rows == targets[:, None]
    ranks: IntArray = np.where(found.any(axis=1), found.argmax(axis=1) + 1, rows.shape[1] + 1)
    return ranks


# What is recommended, whether or not it is right


class Exposure(NamedTuple):
    """How the places of all recommended lists are spread over the catalogue.

    ``coverage``: share of the servable catalogue (items with training clicks) found in at least one list
    (Ge et al. 2010). ``average_popularity``: mean training clicks of a recommended item (ARP, Yin et al.
    2012). ``popularity_percentile``: mean share of the servable catalogue that is clicked less than the
    recommended item, ties counted half. ``head_share``: share of places held by the most clicked 1 %.
    """

    coverage: float
    average_popularity: float
    popularity_percentile: float
    head_share: float


def exposure(shown: IntArray, item_counts: IntArray) -> Exposure:
    """Exposure of lists in which item v stood ``shown[v]`` times [V], given its training clicks [V]."""
    places = max(int(shown.sum()), 1)
    servable = item_counts > 0
    covered = float((shown[servable] > 0).sum() / max(int(servable.sum()), 1))
    return Exposure(
        coverage=covered,
        average_popularity=float(shown @ item_counts / places),
        popularity_percentile=float(shown @ _percentiles(item_counts) / places),
        head_share=float(shown[_head(item_counts)].sum() / places),
    )


def popularity_order(item_counts: IntArray) -> IntArray:
    """Servable rows, most clicked first, ties by row."""
    order = np.argsort(-item_counts, kind="stable")
    return order[: int((item_counts > 0).sum())]


def _head(item_counts: IntArray) -> IntArray:
    order = popularity_order(item_counts)
    return order[: -(-len(order) // HEAD_DIVISOR)]


def _percentiles(item_counts: IntArray) -> FloatArray:
    servable = np.sort(item_counts[item_counts > 0])
    below = np.searchsorted(servable, item_counts, side="left")
    up_to = np.searchsorted(servable, item_counts, side="right")
    return (below + up_to) / (2.0 * max(len(servable), 1))


def percentiles(milliseconds: FloatArray) -> dict[str, float]:
    """p50, p90 and p99, to the microsecond."""
    values = np.percentile(milliseconds, [50, 90, 99])
    return {name: round(float(value), 3) for name, value in zip(("p50", "p90", "p99"), values, strict=True)}


# Slices: the same metrics where they differ


class Slicing(NamedTuple):
    """A partition of the examples: ``member`` [N] indexes ``labels``."""

    name: str
    labels: tuple[str, ...]
    member: IntArray


def by_prefix_length(lengths: IntArray) -> Slicing:
    """Slices by the number of clicks seen before the target [N]."""
    lows = np.array(PREFIX_LENGTHS)
    highs = [*(low - 1 for low in PREFIX_LENGTHS[1:]), None]
    labels = tuple(
        f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
        for low, high in zip(PREFIX_LENGTHS, highs, strict=True)
    )
    return Slicing("prefix_length", labels, np.searchsorted(lows, lengths, side="right") - 1)


def by_popularity_decile(targets: IntArray, item_counts: IntArray) -> Slicing:
    """Slices by the target's popularity: decile 1 holds the most clicked tenth of the servable catalogue.

    Targets without training clicks, which no model can have learned, form the slice ``unseen``.
    """
    order = popularity_order(item_counts)
    decile = np.full(len(item_counts), 10, np.int64)
    decile[order] = np.arange(len(order)) * 10 // max(len(order), 1)
    labels = (*(str(number) for number in range(1, 11)), "unseen")
    return Slicing("popularity_decile", labels, decile[targets])


def by_repetition(repeated: npt.NDArray[np.bool_]) -> Slicing:
    """Slices by whether the target was clicked before in its session [N]."""
    return Slicing("repetition", ("repeat", "explore"), np.where(repeated, 0, 1))


# Uncertainty


def session_sums(values: FloatArray, sessions: IntArray) -> FloatArray:
    """Sum of the values [N] within each session number 0..S-1 [S]."""
    return np.bincount(sessions, weights=values).astype(np.float64)


def resampled_sums(columns: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Column sums [R, M] of per-session ``columns`` [S, M] over R resamples of S sessions with replacement.

    Means are ratios of two columns. The same S, R and seed draw the same sessions, so two models judged on
    one split can be compared replicate by replicate (paired bootstrap). Memory does not grow with R x S.
    """
    num_sessions = len(columns)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, columns.shape[1]))
    chunk = max(1, _RESAMPLED_DRAWS // max(num_sessions, 1))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, num_sessions, size=(size, num_sessions))
        drawn += np.arange(size)[:, None] * num_sessions
        times = np.bincount(drawn.ravel(), minlength=size * num_sessions).reshape(size, num_sessions)
        sums[start : start + size] = times.astype(np.float64) @ columns
    return sums


def interval(replicates: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates [R]; replicates that drew no example (NaN) are left out."""
    tail = (1.0 - level) / 2.0
    kept = replicates[~np.isnan(replicates)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [tail, 1.0 - tail])
    return float(low), float(high)
