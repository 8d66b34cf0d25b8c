"""Small splits and corpora whose answers can be worked out by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srgnn.vocabulary import Vocabulary
from training.corpus import Corpus, Split, write_corpus


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
