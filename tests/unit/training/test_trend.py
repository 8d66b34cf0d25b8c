import numpy as np
import pytest
import torch

from srgnn.trend import PRIOR_CLICKS, trend
from tests.corpora import split_of
from training.trend import AHEAD, DECAYS, FEWEST_SESSIONS, MOMENTS, NEW, NUMBERS, demand_of, learnt_trend, pace

ITEMS, SESSIONS = 200, 12_000


def test_the_pace_of_an_item_is_its_clicks_how_late_they_came_and_since_when():
    split = split_of([[0, 1], [0, 2], [0, 3]])
    found = pace(split.items, split.offsets, 5)
    assert found.shape == (5, NUMBERS)
    assert found[:, 0].tolist() == np.log(np.array([3, 1, 1, 1, 0]) + PRIOR_CLICKS).tolist()
    assert found[:, -1] == pytest.approx(np.log(np.array([1, 1, 2 / 3, 1 / 3, 0]) + NEW))
    for column, decay in zip(found.T[1:-1], DECAYS, strict=True):
        assert (column == trend(split.items, split.offsets, 5, decay)).all()


def fading(seed=0):
    """Sessions of two items. Each item comes out at some time, is clicked for a fortieth of the log, and never again:
    the formula, which looks back over a twentieth, goes on believing in it."""
    rng = np.random.default_rng(seed)
    now = np.arange(SESSIONS) / SESSIONS * ITEMS
    newest = np.minimum(now.astype(int), ITEMS - 1)
    items = newest[:, None] - rng.integers(0, ITEMS // 40, (SESSIONS, 2))
    return np.maximum(items, 0).ravel(), np.arange(0, 2 * SESSIONS + 1, 2)


def test_it_learns_that_items_of_yesterday_are_clicked_no_more():
    items, offsets = fading()
    learnt, formula = learnt_trend(items, offsets, ITEMS, 1), trend(items, offsets, ITEMS)
    fresh, faded = slice(ITEMS - 3, ITEMS), slice(ITEMS - 20, ITEMS - 10)
    assert learnt[fresh].mean() - learnt[faded].mean() > formula[fresh].mean() - formula[faded].mean() + 1


def test_where_clicks_come_as_ever_the_formula_is_hardly_changed():
    rng = np.random.default_rng(0)
    items, offsets = rng.integers(0, ITEMS, 2 * SESSIONS), np.arange(0, 2 * SESSIONS + 1, 2)
    learnt, formula = learnt_trend(items, offsets, ITEMS, 1), trend(items, offsets, ITEMS)
    assert np.abs(learnt - learnt.mean()).mean() <= np.abs(formula).mean() + 0.05


def test_it_looks_ahead_from_each_moment_and_knows_nothing_of_what_comes():
    items, offsets = fading()
    demand = demand_of(items, offsets, ITEMS, 0)
    now, end = int(MOMENTS[0] * SESSIONS), int((MOMENTS[0] + AHEAD) * SESSIONS)
    known = np.unique(items[: offsets[now]])
    first = slice(0, len(known))
    wanted = np.bincount(items[offsets[now] : offsets[end]], minlength=ITEMS)[known]
    paces = pace(items[: offsets[now]], offsets[: now + 1], ITEMS)[known].astype(np.float32)
    order = np.lexsort(paces.T)
    found = demand.pace[first].numpy()
    assert (found[np.lexsort(found.T)] == paces[order]).all()
    assert sorted(demand.clicks[first].tolist()) == sorted(wanted.tolist())
    assert demand.expected[first].exp().sum() == pytest.approx(wanted.sum(), rel=1e-4)
    assert len(demand.clicks) == sum(len(np.unique(items[: offsets[int(at * SESSIONS)]])) for at in MOMENTS)


def test_items_that_nobody_clicked_have_no_trend():
    items, offsets = fading()
    assert (learnt_trend(items, offsets, ITEMS + 3, 1)[ITEMS:] == 0).all()


def test_of_very_many_items_a_part_is_learnt_from(monkeypatch):
    monkeypatch.setattr("training.trend.MOST", 10 * len(MOMENTS))
    items, offsets = fading()
    assert demand_of(items, offsets, ITEMS, 0).pace.shape == (10 * len(MOMENTS), NUMBERS)
    assert np.isfinite(learnt_trend(items, offsets, ITEMS, 1)).all()


def test_a_log_of_few_sessions_keeps_the_formula():
    items, offsets = fading()
    few = offsets[:FEWEST_SESSIONS]
    assert (learnt_trend(items[: few[-1]], few, ITEMS, 1) == trend(items[: few[-1]], few, ITEMS)).all()


def test_the_same_seed_learns_the_same_and_the_random_numbers_of_a_training_go_on():
    items, offsets = fading()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = [learnt_trend(items, offsets, ITEMS, seed) for seed in (1, 1, 2)]
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()
    assert torch.equal(torch.get_rng_state(), before)
