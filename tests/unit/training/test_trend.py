import numpy as np
import pytest
import torch

from srgnn.blend import BlendScorer, BlendWeights
from srgnn.neighbours import Neighbours
from srgnn.scorer import SRGNNScorer
from srgnn.sequence import SessionRules
from srgnn.trend import PRIOR_CLICKS, trend
from tests.conftest import TINY_ITEMS, tiny_fallback, tiny_model, tiny_trend
from tests.corpora import split_of
from training.examples import Examples
from training.trend import BEST, DECAYS, NEW, NUMBERS, LearntTrend, Lists, announce, learn, lists, pace

ITEMS = 60


def test_the_pace_of_an_item_is_its_clicks_how_late_they_came_and_since_when():
    split = split_of([[0, 1], [0, 2], [0, 3]])
    found = pace(split.items, split.offsets, 5)
    assert found.shape == (5, NUMBERS)
    assert found[:, 0].tolist() == np.log(np.array([3, 1, 1, 1, 0]) + PRIOR_CLICKS).tolist()
    assert found[:, -1] == pytest.approx(np.log(np.array([1, 1, 2 / 3, 1 / 3, 0]) + NEW))
    for column, decay in zip(found.T[1:-1], DECAYS, strict=True):
        assert (column == trend(split.items, split.offsets, 5, decay)).all()


def test_lists_are_the_scorer_s_best_without_its_trend():
    model = SRGNNScorer.of_model(tiny_model(), tiny_fallback().clicks > 0, tiny_trend())
    scorer = BlendScorer(model, Neighbours.nobody(TINY_ITEMS), BlendWeights(clicked=0.3, trend=0.7))
    examples = Examples(split_of([[1, 2, 3], [4, 5], [6, 7, 6, 8]]), SessionRules())
    found = lists(scorer, tiny_trend(), examples)
    plain = BlendScorer(model, scorer.neighbours, BlendWeights(clicked=0.3))
    kept = found.example.numpy()
    wanted = plain.top_k(examples.sequences(kept), TINY_ITEMS)
    for i, rows in enumerate(wanted.rows):
        of_row = dict(zip(rows.tolist(), wanted.scores[i].tolist(), strict=True))
        answerable = np.isfinite(found.scores[i].numpy())
        for row, score in zip(found.rows[i][answerable].tolist(), found.scores[i][answerable].tolist(), strict=True):
            assert score == pytest.approx(of_row[row], abs=1e-5)
    assert (found.rows[torch.arange(len(kept)), found.chosen].numpy() == examples.targets[kept]).all()
    assert set(range(len(examples))) - set(kept.tolist()) == {
        i for i, target in enumerate(examples.targets.tolist()) if tiny_fallback().clicks[target] == 0
    }


def test_of_many_examples_some_are_taken_from_first_to_last(monkeypatch):
    model = SRGNNScorer.of_model(tiny_model(), np.ones(TINY_ITEMS, bool), tiny_trend())
    scorer = BlendScorer(model, Neighbours.nobody(TINY_ITEMS), BlendWeights())
    examples = Examples(split_of([[1, 2]] * 9), SessionRules())
    assert lists(scorer, tiny_trend(), examples).example.tolist() == [*range(9)]
    monkeypatch.setattr("training.trend.MOST", 3)
    assert lists(scorer, tiny_trend(), examples).example.tolist() == [0, 4, 8]


def choices_of_items_that_many_clicked_lately(paces, examples=4_000):
    """What was clicked often is wanted where it is clicked of late, and shunned where it is not."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(paces), (examples, BEST))
    wanted = np.where(paces[:, 0] > 1, 3 * np.sign(paces[:, 1]), 0.0)
    scores = rng.normal(size=rows.shape)
    likely = np.exp(scores + wanted[rows])
    chosen = [rng.choice(BEST, p=each / each.sum()) for each in likely]
    return wanted, Lists(*map(torch.as_tensor, (rows, scores.astype(np.float32), chosen, range(examples))))


def test_it_learns_what_no_one_weight_of_a_formula_could_say():
    paces = np.random.default_rng(0).uniform(-2, 2, (ITEMS, NUMBERS))
    wanted, choices = choices_of_items_that_many_clicked_lately(paces)
    found = learn(choices, paces, seed=1).of_items(paces)
    late, often = paces[:, 1] > 0, wanted != 0
    assert found[often & late].mean() - found[often & ~late].mean() > 3
    assert abs(found[~often & late].mean() - found[~often & ~late].mean()) < 1


def test_the_same_seed_learns_the_same_and_the_random_numbers_of_a_training_go_on():
    paces = np.random.default_rng(0).uniform(-2, 2, (ITEMS, NUMBERS))
    _, choices = choices_of_items_that_many_clicked_lately(paces, 100)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = [learn(choices, paces, seed).of_items(paces) for seed in (1, 1, 2)]
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()
    assert torch.equal(torch.get_rng_state(), before)


def test_earlier_examples_are_those_before_a_place():
    example = torch.tensor([0, 2, 3, 7])
    choices = Lists(*(example.unsqueeze(1) for _ in range(2)), example, example)
    assert choices.until(3).example.tolist() == [0, 2]
    assert choices.until(4).rows.flatten().tolist() == [0, 2, 3]
    assert choices.until(0).chosen.tolist() == []


def test_beside_a_model_that_knows_nothing_it_stays_finite():
    net = LearntTrend()
    with torch.no_grad():
        net.unit.fill_(-1e-9)
    paces = np.random.default_rng(0).uniform(-2, 2, (ITEMS, NUMBERS))
    assert np.abs(net.of_items(paces)).max() < 1_000


def test_what_it_knows_can_be_kept_as_tensors():
    paces = np.random.default_rng(0).uniform(-2, 2, (ITEMS, NUMBERS))
    net = learn(choices_of_items_that_many_clicked_lately(paces, 100)[1], paces, 1)
    again = LearntTrend()
    again.load_state_dict(net.state_dict())
    assert (again.of_items(paces) == net.of_items(paces)).all()


def test_what_it_brought_is_said(capsys):
    announce({"formula": {"recall@20": 0.5}, "learnt": {"recall@20": 0.51}}, kept=True)
    announce({"formula": {"recall@20": 0.5}, "learnt": {"recall@20": 0.49}}, kept=False)
    lines = capsys.readouterr().err.splitlines()
    assert "recall@20 0.5000 -> 0.5100; kept" in lines[0]
    assert "0.5000 -> 0.4900; the formula stays" in lines[1]
