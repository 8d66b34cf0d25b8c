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
from training import metrics
from training.baselines import fit_baselines
from training.evaluate import Evaluation, Setting, compare, evaluate, judge, latency_ms, repeated_targets
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
    return evaluate(recommender, split, **arguments).report


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
    ).report
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


# Paired differences


def evaluations(seed=0, sessions=40) -> dict[str, Evaluation]:
    """Ranks of two models, a and b, on sessions of 1 to 6 examples; b is a with other ranks in every third example."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), rng.integers(1, 7, sessions))
    rank = rng.integers(1, 40, len(session))
    other = np.where(np.arange(len(rank)) % 3, rank, rng.integers(1, 40, len(rank)))
    return {name: Evaluation(None, ranks, session) for name, ranks in (("a", rank), ("b", other))}  # type: ignore[arg-type]


def test_a_model_over_itself_is_exactly_nothing():
    found = evaluations()
    found["same"] = found["a"]._replace(rank=found["a"].rank.copy())
    [difference] = compare(found, [("a", "same")])
    assert set(difference.estimates) == {"recall@20", "mrr@20", "ndcg@20"}
    for estimate in difference.estimates.values():
        assert tuple(estimate) == (0.0, 0.0, 0.0)
        assert not estimate.excludes_zero


def test_differences_are_antisymmetric():
    there, back = compare(evaluations(), [("a", "b"), ("b", "a")])
    assert (there.model, there.over, back.model, back.over) == ("a", "b", "b", "a")
    for name, estimate in there.estimates.items():
        assert estimate.value != 0
        assert back.estimates[name] == pytest.approx((-estimate.value, -estimate.high, -estimate.low), abs=1e-12)


def test_differences_agree_with_resampling_whole_sessions_by_hand():
    found = evaluations()
    a, b, session = found["a"].rank, found["b"].rank, found["a"].session
    sessions = session.max() + 1
    times = metrics.resampled_sums(np.eye(sessions), 200, seed=7).astype(int)  # how often each session is drawn
    replicates = []
    for drawn in times:
        chosen = np.concatenate([np.flatnonzero(session == s) for s in np.repeat(np.arange(sessions), drawn)])
        replicates.append(metrics.mrr_at(a[chosen], 20) - metrics.mrr_at(b[chosen], 20))
    [difference] = compare(found, [("a", "b")], resamples=200, seed=7)
    value, low, high = difference.estimates["mrr@20"]
    assert value == pytest.approx(metrics.mrr_at(a, 20) - metrics.mrr_at(b, 20))
    assert (low, high) == pytest.approx(tuple(np.quantile(replicates, [0.025, 0.975])))


def test_a_model_that_is_better_in_every_session_excludes_zero():
    found = evaluations()
    found["better"] = found["a"]._replace(rank=np.ones_like(found["a"].rank))
    [difference] = compare(found, [("better", "a")])
    for estimate in difference.estimates.values():
        assert 0 < estimate.low <= estimate.value <= estimate.high
        assert estimate.excludes_zero


def test_pairing_makes_the_interval_narrower_than_that_of_one_model():
    found = evaluations(sessions=300)
    nearly = found["a"].rank.copy()
    nearly[::200] = 1
    found["nearly"] = found["a"]._replace(rank=nearly)
    none = found["a"]._replace(rank=np.full_like(nearly, 999))
    paired, alone = compare(found | {"none": none}, [("nearly", "a"), ("a", "none")])
    (_, low, high), (_, alone_low, alone_high) = paired.estimates["mrr@20"], alone.estimates["mrr@20"]
    assert high - low < (alone_high - alone_low) / 2


def test_nothing_to_compare_is_no_difference():
    assert compare(evaluations(), []) == []


def test_an_evaluation_keeps_what_a_comparison_needs(markov):
    found = evaluate(markov, TEST, item_counts=COUNTS, setting=SETTING, resamples=200, shown=False)
    assert len(found.rank) == len(found.session) == found.report.n
    assert metrics.recall_at(found.rank, 20) == pytest.approx(found.report.estimates["recall@20"].value)
