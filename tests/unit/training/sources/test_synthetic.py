from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from srgnn.errors import ConfigError
from training.config import SyntheticConfig
from training.sources import synthetic
from training.sources.synthetic import ClickProcess

CONFIG = SyntheticConfig(sessions=4_000, items=300, groups=10, successors=5, seed=3)
K = 20


@pytest.fixture(scope="module")
def process():
    return ClickProcess.build(CONFIG)


@pytest.fixture(scope="module")
def sessions(process):
    clicks = process.simulate(CONFIG)
    return np.split(clicks.items, np.cumsum(clicks.lengths)[:-1])


def prefixes_of(sessions):
    pairs = [(session[:end], session[end]) for session in sessions for end in range(1, len(session))]
    histories, targets = zip(*pairs, strict=True)
    return list(histories), np.array(targets)


def recall(scores, targets, k=K):
    """Share of targets among the k best, ties against us."""
    rank = (scores >= scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
    return (rank <= k).mean()


def test_probabilities_of_every_history_sum_to_one(process, sessions):
    histories, _ = prefixes_of(sessions[:50])
    probabilities = process.next_probabilities(histories)
    assert probabilities.shape == (len(histories), CONFIG.items)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities > 0).all()


def test_probabilities_are_the_mixture_of_the_module_docstring(process):
    """Written out once by hand, item by item, for one history."""
    history = [7, 3, 7, 5]
    expected = np.zeros(CONFIG.items)
    for item in range(CONFIG.items):
        for successor, likelihood in zip(process.successors[5], process.likelihood, strict=True):
            expected[item] += 0.45 * likelihood * (successor == item)
        for successor, likelihood in zip(process.successors[7], process.likelihood, strict=True):
            expected[item] += 0.15 * likelihood * (successor == item)
        expected[item] += 0.20 * history.count(item) / 4
        group = process.group == process.group[5]
        expected[item] += 0.15 * process.popularity[item] * group[item] / process.popularity[group].sum()
        expected[item] += 0.05 * process.popularity[item]
    np.testing.assert_allclose(process.next_probabilities([np.array(history)])[0], expected)


def test_simulated_clicks_follow_the_known_probabilities(process):
    """Pearson's chi-square over the next click of 40,000 copies of one history."""
    history = np.array([4, 9, 4])
    copies = np.tile(history, (40_000, 1))
    draw = synthetic.GroupDraw(process.popularity, process.group)
    drawn = process._next_clicks(copies, draw, np.random.default_rng(0))
    expected = process.next_probabilities([history])[0] * len(drawn)
    chi_square = ((np.bincount(drawn, minlength=CONFIG.items) - expected) ** 2 / expected).sum()
    degrees = CONFIG.items - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_an_oracle_achieves_the_best_recall(process, sessions):
    histories, targets = prefixes_of(sessions)
    best = process.best_recall(sessions, K)
    error = np.sqrt(best * (1 - best) / len(targets))
    assert abs(recall(process.next_probabilities(histories), targets) - best) < 4 * error


def test_a_markov_chain_that_is_learnt_stays_below_the_best_recall(process, sessions):
    """Tested on sessions it has not seen, and even on those it has learnt from by half."""
    train, test = sessions[:3_000], sessions[3_000:]
    counts = np.zeros((CONFIG.items, CONFIG.items))
    for session in train:
        np.add.at(counts, (session[:-1], session[1:]), 1)
    counts += np.linspace(0, 1e-6, CONFIG.items)[::-1]  # popularity decides ties
    histories, targets = prefixes_of(test)
    best = process.best_recall(test, K)
    error = np.sqrt(best * (1 - best) / len(targets))
    learnt = recall(counts[[history[-1] for history in histories]], targets)
    assert 0.3 < learnt < best - 4 * error


def test_no_list_has_more_probability_than_the_best_one(process, sessions):
    histories, _ = prefixes_of(sessions[:20])
    probabilities = process.next_probabilities(histories)
    best = process.best_recall(sessions[:20], K)
    random = np.random.default_rng(0)
    for _ in range(20):
        lists = np.argsort(probabilities + random.normal(0, 1e-3, probabilities.shape), axis=1)[:, -K:]
        assert np.take_along_axis(probabilities, lists, axis=1).sum(axis=1).mean() <= best + 1e-12


def test_best_recall_does_not_depend_on_the_block_size(process, sessions, monkeypatch):
    whole = process.best_recall(sessions[:40], K)
    monkeypatch.setattr(synthetic, "CELLS_PER_BLOCK", 7 * CONFIG.items)
    assert process.best_recall(sessions[:40], K) == pytest.approx(whole)


def test_a_list_of_everything_finds_everything(process, sessions):
    assert process.best_recall(sessions[:5], CONFIG.items) == pytest.approx(1)
    assert process.best_recall(sessions[:5], CONFIG.items + 1) == pytest.approx(1)


def test_first_clicks_are_zipf(process, sessions):
    first = np.bincount([session[0] for session in sessions], minlength=CONFIG.items)
    expected = process.popularity * len(sessions)
    assert abs(((first - expected) ** 2 / expected).sum() - CONFIG.items) < 5 * np.sqrt(2 * CONFIG.items)
    assert process.popularity[0] / process.popularity[9] == pytest.approx(10**CONFIG.zipf_exponent)


def test_sessions_have_the_asked_length_and_order_in_time(process):
    clicks = process.simulate(CONFIG)
    assert clicks.lengths.min() == 2
    assert clicks.lengths.mean() == pytest.approx(CONFIG.mean_length, rel=0.1)
    first = np.concatenate([[0], np.cumsum(clicks.lengths)[:-1]])
    assert (np.diff(clicks.times[first]) >= 0).all()
    within = np.ones(len(clicks.times) - 1, bool)
    within[first[1:] - 1] = False
    assert (np.diff(clicks.times)[within] >= 0).all()


def test_clicks_repeat(sessions):
    repeats = [click in session[:at].tolist() for session in sessions for at, click in enumerate(session) if at]
    assert 0.15 < np.mean(repeats) < 0.5


def test_the_seed_decides_everything(process):
    again = ClickProcess.build(CONFIG)
    assert again.ids == process.ids
    np.testing.assert_array_equal(again.simulate(CONFIG).items, process.simulate(CONFIG).items)
    other = replace(CONFIG, seed=4)
    assert not np.array_equal(ClickProcess.build(other).successors, process.successors)


def test_ids_do_not_tell_popularity(process):
    rank = np.argsort([int(name.removeprefix("item-")) for name in process.ids])
    assert abs(np.corrcoef(rank, np.arange(CONFIG.items))[0, 1]) < 0.2
    assert Counter(len(name) for name in process.ids) == {8: CONFIG.items}


@pytest.mark.parametrize("shape", [(2, 1, 1), (5, 5, 3), (3, 2, 8)])
def test_small_worlds_work(shape):
    items, groups, successors = shape
    config = replace(CONFIG, sessions=20, items=items, groups=groups, successors=successors)
    process = ClickProcess.build(config)
    clicks = process.simulate(config)
    assert set(clicks.items) <= set(range(items))
    assert 0 < process.best_recall(np.split(clicks.items, np.cumsum(clicks.lengths)[:-1]), 1) <= 1


def test_more_groups_than_items_are_refused():
    with pytest.raises(ConfigError, match=r"synthetic\.groups = 4 with synthetic\.items = 3"):
        ClickProcess.build(replace(CONFIG, items=3, groups=4))


def test_an_input_is_refused(run, write_log):
    with pytest.raises(ConfigError, match=r"reads no input, found .*clicks\.csv: leave --input out"):
        run(write_log([]), recipe="demo")


def test_a_corpus_of_simulated_clicks_states_the_best_recall(run):
    settings = [
        "synthetic.sessions=2000",
        "synthetic.items=100",
        "synthetic.groups=5",
        "synthetic.successors=3",
    ]
    summary, corpus = run(recipe="demo", settings=settings)
    best = summary["best_achievable_recall@20"]
    assert corpus.manifest["best_achievable_recall@20"] == best
    assert summary["dropped_rows"] == 0
    process = ClickProcess.build(replace(SyntheticConfig(), sessions=2000, items=100, groups=5, successors=3))
    code = np.array([process.ids.index(item) for item in corpus.vocabulary.ids])
    histories, targets = prefixes_of([code[corpus.test.session(index)] for index in range(corpus.test.num_sessions)])
    oracle = recall(process.next_probabilities(histories), targets)
    assert abs(oracle - best) < 4 * np.sqrt(best * (1 - best) / len(targets))
