import numpy as np
import pytest
import torch
from torch.nn import functional

from training.loss import catalogue_cross_entropy
from training.negatives import Negatives


def clicks_of(num_items, seed=0):
    clicks = np.random.default_rng(seed).integers(1, 50, num_items)
    clicks[-20:] = 0
    return clicks


def test_targets_are_candidates_and_rows_are_distinct():
    clicks = clicks_of(500)
    targets = np.array([7, 3, 3, 250])
    rows, correction, where = Negatives(clicks, 60).draw(targets, np.random.default_rng(1))
    assert rows[where].tolist() == targets.tolist()
    assert (np.diff(rows) > 0).all()
    assert len(correction) == len(rows) <= 63
    assert correction.dtype == np.float32


def test_items_without_clicks_are_never_drawn():
    clicks = np.array([0, 3, 0, 1, 0])
    negatives = Negatives(clicks, 1000)
    rows = negatives.draw(np.array([1]), np.random.default_rng(0)).rows
    assert rows.tolist() == [1, 3]


def test_a_draw_at_the_very_end_stays_in_the_catalogue():
    class Last:
        def random(self, size):
            return np.full(size, np.nextafter(1.0, 0.0))

    assert Negatives(np.array([5, 1, 0]), 4).draw(np.array([0]), Last()).rows.tolist() == [0, 1]


def test_a_target_that_was_not_drawn_is_no_negative_of_others():
    rows, correction, where = Negatives(np.array([1, 10**12, 1]), 3).draw(np.array([0, 1]), np.random.default_rng(0))
    assert rows.tolist() == [0, 1]
    assert np.isneginf(correction[where[0]])
    assert np.isfinite(correction[where[1]])


def test_the_same_generator_draws_the_same_candidates():
    negatives, targets = Negatives(clicks_of(300), 40), np.array([5])
    first, again = (negatives.draw(targets, np.random.default_rng([1, 2, 3])) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


def test_the_sampled_sum_has_the_full_sum_as_its_mean():
    """exp(score + correction), summed over the draws, estimates the sum of exp(score) over all items with clicks."""
    clicks, rng = clicks_of(200), np.random.default_rng(2)
    scores = rng.normal(size=200)
    wanted = np.exp(scores[clicks > 0]).sum()
    negatives, found = Negatives(clicks, 50), []
    for _ in range(4000):
        rows, correction, _ = negatives.draw(np.array([0]), rng)
        found.append(np.exp(scores[rows] + correction).sum())
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - wanted) < 4 * error
    assert error < 0.01 * wanted


def test_with_many_draws_the_loss_is_that_of_the_whole_catalogue():
    torch.manual_seed(0)
    clicks = np.random.default_rng(3).integers(1, 50, 100)
    vectors, items = torch.randn(20, 8), torch.randn(100, 8)
    targets = np.random.default_rng(4).integers(0, 100, 20)
    full = functional.cross_entropy(vectors @ items.T, torch.from_numpy(targets))
    rows, correction, where = Negatives(clicks, 400_000).draw(targets, np.random.default_rng(5))
    sampled = catalogue_cross_entropy(
        vectors, items[rows], torch.from_numpy(where), correction=torch.from_numpy(correction)
    )
    assert sampled.item() == pytest.approx(full.item(), rel=0.005)
