import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.errors import DataError
from srgnn.fallback import Fallback
from srgnn.recommender import Recommender
from srgnn.scorer import DenseScorer
from srgnn.sequence import SessionRules
from srgnn.vocabulary import Vocabulary
from tests.corpora import random_sessions, split_of
from training.baselines import fit_baselines
from training.evaluate import Setting, evaluate, judge, latency_ms, repeated_targets
from training.examples import Examples

ITEMS = 30
RULES = SessionRules(max_length=5)
VOCABULARY = Vocabulary([str(row) for row in range(ITEMS)])
TRAIN = split_of([*random_sessions(0, 80, ITEMS), list(range(ITEMS))])
TEST = split_of(random_sessions(1, 60, ITEMS))
SETTING = Setting("test", "srgnn", "train")
COUNTS = np.bincount(TRAIN.items, minlength=ITEMS)


class Successor(DenseScorer):
    """Scores row r by -|r - (last + step)|: knows a session that counts upwards."""

    def __init__(self, step: int) -> None:
        super().__init__(ITEMS)
        self.step = step

    def scores(self, sequences):
        wanted = np.array([sequence[-1] + self.step for sequence in sequences])
        return -np.abs(np.arange(ITEMS) - wanted[:, None]).astype(np.float32)


class Constant(DenseScorer):
    """Scores everything the same."""

    def scores(self, sequences):
        return np.zeros((len(sequences), ITEMS), np.float32)


def recommender_of(scorer) -> Recommender:
    fallback = Fallback.from_sessions(TRAIN.items, TRAIN.offsets, ITEMS)
    return Recommender(VOCABULARY, RULES, scorer, fallback, "v1")


def evaluated(recommender, split=TEST, **options):
    arguments = {"item_counts": COUNTS, "setting": SETTING, "resamples": 200, "shown": False, **options}
    return evaluate(recommender, split, **arguments)


@pytest.fixture(scope="module")
def markov() -> Recommender:
    return fit_baselines(VOCABULARY, RULES, TRAIN)["markov"]


def test_a_model_that_knows_the_next_click_scores_one():
    split = split_of([list(range(start, start + 5)) for start in range(20)])
    report = evaluated(recommender_of(Successor(1)), split)
    assert {estimate.value for estimate in report.estimates.values()} == {1.0}
    assert {estimate.low for estimate in report.estimates.values()} == {1.0}
    assert (report.n, report.sessions, report.tied_events) == (80, 20, 0)


def test_a_model_that_is_one_off_is_second_or_third():
    report = evaluated(recommender_of(Successor(0)), split_of([[10, 11], [20, 19]]))
    assert report.estimates["recall@1"].value == 0.0
    assert report.estimates["mrr@20"].value == pytest.approx(1 / 3)  # 9 and 11 tie after 10
    assert report.tied_events == 2


def test_a_constant_model_gets_nothing_for_its_ties():
    report = evaluated(recommender_of(Constant(ITEMS)))
    assert report.tied_events == report.n
    assert report.estimates["recall@20"].value == 0.0
    assert report.served["served_recall@20"] > 0.0


def test_targets_without_training_clicks_are_counted_apart_from_ties():
    train = split_of([list(range(ITEMS - 2))])
    report = evaluated(fit_baselines(VOCABULARY, RULES, train)["markov"], split_of([[1, ITEMS - 1]]))
    assert report.unservable_targets == 1
    assert report.tied_events == 0


def test_metrics_equal_the_plain_definition(markov):
    report = evaluated(markov)
    reciprocal, hits, n = 0.0, 0, 0
    for session in (TEST.session(i) for i in range(TEST.num_sessions)):
        for end in range(1, len(session)):
            scores = markov.scorer.scores([session[max(0, end - 5) : end]])[0]
            rank = int((scores >= scores[session[end]]).sum())
            hits, reciprocal, n = hits + (rank <= 10), reciprocal + (rank <= 10) / rank, n + 1
    assert report.n == n == TEST.num_examples
    assert report.estimates["recall@10"].value == pytest.approx(hits / n)
    assert report.estimates["mrr@10"].value == pytest.approx(reciprocal / n)


def test_intervals_enclose_their_value_and_are_reproducible(markov):
    report = evaluated(markov)
    for estimate in report.estimates.values():
        assert estimate.low <= estimate.value <= estimate.high
    recall = report.estimates["recall@5"]
    assert recall.low < recall.value < recall.high
    assert evaluated(markov).estimates == report.estimates
    assert evaluated(markov, seed=2).estimates["recall@5"] != recall


def test_batch_size_changes_nothing(markov):
    whole, pieces = evaluated(markov), evaluated(markov, batch_size=7)
    assert (whole.estimates, whole.served, whole.slices) == (pieces.estimates, pieces.served, pieces.slices)


def test_every_slicing_covers_every_example(markov):
    report = evaluated(markov)
    assert list(report.slices) == ["prefix_length", "popularity_decile", "repetition"]
    overall = report.estimates["recall@20"].value
    for rows in report.slices.values():
        assert sum(row.n for row in rows) == report.n
        weighted = sum(row.n * row.estimates["recall@20"].value for row in rows) / report.n
        assert weighted == pytest.approx(overall)


def test_served_figures_are_those_of_the_lists(markov):
    report = evaluated(markov)
    found = judge(markov, Examples(TEST, RULES), k=20, shown=False)
    assert found.shown.sum() == 20 * report.n
    assert report.served["coverage@20"] == (found.shown > 0).sum() / ITEMS
    assert report.served["average_popularity@20"] == pytest.approx(found.shown @ COUNTS / (20 * report.n))
    assert report.served["served_recall@20"] == (found.served_rank <= 20).mean()


def test_without_ties_the_served_lists_say_the_same_as_the_ranks(tiny_recommender):
    split = split_of(random_sessions(3, 20, 40))
    found = judge(tiny_recommender, Examples(split, tiny_recommender.rules), k=20, shown=False)
    assert not found.ties.any()
    assert np.array_equal(np.minimum(found.rank, 21), found.served_rank)


def test_a_catalogue_smaller_than_k_is_evaluated():
    vocabulary = Vocabulary(["a", "b", "c"])
    split = split_of([[0, 1, 2], [1, 2]])
    report = evaluate(
        fit_baselines(vocabulary, RULES, split)["markov"],
        split,
        item_counts=np.bincount(split.items),
        setting=SETTING,
        shown=False,
    )
    assert report.estimates["recall@20"].value == 1.0


def test_sessions_of_one_click_are_no_examples(markov):
    report = evaluated(markov, split_of([[1], [1, 2], [3]]))
    assert (report.n, report.sessions) == (1, 1)


def test_a_split_without_examples_is_refused(markov):
    with pytest.raises(DataError, match="test split holds no session of two clicks"):
        evaluated(markov, split_of([[1], [2]]))


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=6))
def test_repeated_targets_are_those_clicked_before_however_long_ago(sessions):
    split = split_of(sessions)
    expected = [session[i] in session[:i] for session in sessions for i in range(1, len(session))]
    assert repeated_targets(Examples(split, SessionRules(max_length=1)), split).tolist() == expected


def test_latency_is_measured_on_single_histories(markov):
    found = latency_ms(markov, [["1", "2"], ["3"]], 5)
    assert 0 < found["p50"] <= found["p90"] <= found["p99"]
