"""Small logs, splits and corpora whose answers can be worked out by hand."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from srgnn.vocabulary import Vocabulary
from training.corpus import Corpus, Split, write_corpus

DAY_S = 86_400
START_S = 1_700_000_000


def split_of(sessions: Sequence[Sequence[int]]) -> Split:
    """Sessions of catalogue rows, in order."""
    lengths = np.array([len(session) for session in sessions], dtype=np.int64)
    items = np.array([row for session in sessions for row in session], dtype=np.int32)
    times = np.repeat(np.arange(len(sessions)), lengths).astype(np.int64)
    return Split(items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), times)


def random_sessions(seed: int, count: int, num_items: int, longest: int = 12) -> list[list[int]]:
    """Sessions of 1 to ``longest`` clicks with repeats, low rows more often."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, longest + 1, count)
    return [(num_items * rng.random(size) ** 2).astype(int).tolist() for size in sizes]


def random_corpus(path: Path, vocabulary: Vocabulary) -> Corpus:
    """60 train, 20 validation and 30 test sessions over the vocabulary."""
    splits = [split_of(random_sessions(seed, count, len(vocabulary))) for seed, count in enumerate((60, 20, 30))]
    return write_corpus(path, vocabulary, *splits, {"protocol": "srgnn", "dataset": "random"})


def items_of(corpus: Corpus) -> list[list[list[str]]]:
    """Item ids of every session, by split."""
    ids = corpus.vocabulary.ids
    return [
        [[ids[row] for row in split.session(index)] for index in range(split.num_sessions)]
        for split in (corpus.train, corpus.validation, corpus.test)
    ]


def log_of(*sessions: Iterable[str]) -> list[tuple[str, str, int]]:
    """One session of items a day: session s00 is the first."""
    return [
        (f"s{day:02d}", item, START_S + day * DAY_S + click)
        for day, items in enumerate(sessions)
        for click, item in enumerate(items)
    ]


def chain_corpus(folder: Path, num_items: int, validated_from: int) -> Corpus:
    """200 sessions of five clicks, the last 20 for test: every item is followed by the next one, so one click says it
    all."""
    rng = np.random.default_rng(0)
    sessions = [[(start + i) % num_items for i in range(5)] for start in rng.integers(0, num_items, 200).tolist()]
    splits = [split_of(part) for part in (sessions[:validated_from], sessions[validated_from:180], sessions[180:])]
    vocabulary = Vocabulary([f"i{row}" for row in range(num_items)])
    return write_corpus(folder, vocabulary, *splits, {"protocol": "strict"})
