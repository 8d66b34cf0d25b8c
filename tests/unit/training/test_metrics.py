import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training import metrics

RANKS = np.array([1, 2, 5, 21, 400])


def test_recall_is_the_share_of_ranks_up_to_k():
    assert [metrics.recall_at(RANKS, k) for k in (1, 2, 5, 20, 21)] == [0.2, 0.4, 0.6, 0.6, 0.8]


def test_mrr_counts_nothing_past_k():
    assert metrics.mrr_at(RANKS, 20) == pytest.approx((1 + 1 / 2 + 1 / 5) / 5)
    assert metrics.mrr_at(RANKS, 2) == pytest.approx((1 + 1 / 2) / 5)


def test_ndcg_discounts_by_the_logarithm_of_the_rank():
    assert metrics.ndcg_at(np.array([1]), 20) == 1.0
    assert metrics.ndcg_at(np.array([3]), 20) == pytest.approx(0.5)
    assert metrics.ndcg_at(np.array([21]), 20) == 0.0


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_metrics_agree_with_torchmetrics(k):
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

    rng = np.random.default_rng(k)
    scores = rng.permuted(np.tile(np.linspace(0.01, 0.99, 60), (200, 1)), axis=1)
    targets = rng.integers(0, 60, 200)
    wanted = np.zeros_like(scores, dtype=bool)
    wanted[np.arange(200), targets] = True
    ranks = (scores >= scores[wanted][:, None]).sum(axis=1)

    def theirs(metric):
        queries = torch.arange(200).repeat_interleave(60)
        return float(metric(torch.from_numpy(scores).flatten(), torch.from_numpy(wanted).flatten(), queries))

    assert metrics.recall_at(ranks, k) == pytest.approx(theirs(RetrievalHitRate(top_k=k)))
    assert metrics.mrr_at(ranks, k) == pytest.approx(theirs(RetrievalMRR(top_k=k)))
    assert metrics.ndcg_at(ranks, k) == pytest.approx(theirs(RetrievalNormalizedDCG(top_k=k)), rel=1e-5)


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(1, 30))
def test_metrics_keep_their_order_and_grow_with_k(ranks, k):
    array = np.array(ranks)
    for metric in (metrics.recall_at, metrics.mrr_at, metrics.ndcg_at):
        assert 0.0 <= metric(array, k) <= metric(array, k + 1) <= 1.0
    assert metrics.mrr_at(array, k) <= metrics.ndcg_at(array, k) <= metrics.recall_at(array, k)


def test_list_ranks_are_positions_and_k_plus_one_for_a_miss():
    rows = np.array([[4, 7, 9], [4, 7, 9], [4, 7, -1]])
    assert metrics.list_ranks(rows, np.array([9, 4, 5])).tolist() == [3, 1, 4]


def test_coverage_counts_only_items_with_training_clicks():
    shown, clicks = np.array([5, 1, 0, 0, 3]), np.array([9, 3, 2, 1, 0])
    assert metrics.exposure(shown, clicks).coverage == 0.5


def test_popularity_of_what_is_recommended():
    clicks = np.array([30, 20, 10, 0])
    always_first = metrics.exposure(np.array([8, 0, 0, 0]), clicks)
    assert always_first.average_popularity == 30.0
    assert always_first.popularity_percentile == pytest.approx(5 / 6)
    assert always_first.head_share == 1.0

    evenly = metrics.exposure(np.array([2, 2, 2, 0]), clicks)
    assert evenly.average_popularity == 20.0
    assert evenly.popularity_percentile == pytest.approx(0.5)
    assert evenly.head_share == pytest.approx(1 / 3)


def test_head_is_the_most_clicked_hundredth_of_the_servable_catalogue():
    clicks = np.arange(1, 301)
    shown = np.zeros(300, np.int64)
    shown[[299, 298, 297, 296]] = 1
    assert metrics.exposure(shown, clicks).head_share == 0.75


def test_prefix_length_slices_have_every_example_once():
    slicing = metrics.by_prefix_length(np.array([1, 2, 4, 5, 9, 10, 19, 20, 300]))
    assert [slicing.labels[index] for index in slicing.member] == [
        "1", "2", "4", "5-9", "5-9", "10-19", "10-19", "20+", "20+",
    ]  # fmt: skip


def test_popularity_deciles_are_tenths_of_the_servable_catalogue():
    clicks = np.array([0, *range(20, 0, -1)])
    slicing = metrics.by_popularity_decile(np.array([1, 2, 3, 20, 0]), clicks)
    assert [slicing.labels[index] for index in slicing.member] == ["1", "1", "2", "10", "unseen"]


def test_repetition_slices():
    slicing = metrics.by_repetition(np.array([True, False]))
    assert [slicing.labels[index] for index in slicing.member] == ["repeat", "explore"]


def test_session_sums_group_examples_of_a_session():
    assert metrics.session_sums(np.array([1.0, 2.0, 4.0]), np.array([0, 1, 0])).tolist() == [5.0, 2.0]


def test_resampling_is_seeded_and_draws_every_session_as_often_on_average():
    columns = np.eye(50)
    first = metrics.resampled_sums(columns, 400, seed=3)
    assert (first.sum(axis=1) == 50).all()
    assert first.mean(axis=0) == pytest.approx(np.ones(50), abs=0.3)
    assert np.array_equal(first, metrics.resampled_sums(columns, 400, seed=3))
    assert not np.array_equal(first, metrics.resampled_sums(columns, 400, seed=4))


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    columns = np.random.default_rng(0).random((30, 2))
    whole = metrics.resampled_sums(columns, 100, seed=1)
    monkeypatch.setattr(metrics, "_RESAMPLED_DRAWS", 70)
    assert np.allclose(whole, metrics.resampled_sums(columns, 100, seed=1))


def test_interval_has_the_width_of_the_normal_approximation():
    outcomes = (np.random.default_rng(1).random(4000) < 0.3).astype(float)
    replicates = metrics.resampled_sums(outcomes[:, None], 2000, seed=2)[:, 0] / 4000
    low, high = metrics.interval(replicates)
    assert low < outcomes.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 4000), rel=0.1)


def test_correlated_examples_of_a_session_widen_the_interval():
    session_outcome = (np.random.default_rng(1).random(500) < 0.3).astype(float)
    examples, sessions = np.repeat(session_outcome, 8), np.repeat(np.arange(500), 8)

    def width(groups):
        counts = metrics.session_sums(np.ones(4000), groups)
        columns = np.stack([metrics.session_sums(examples, groups), counts], axis=1)
        sums = metrics.resampled_sums(columns, 1000, seed=5)
        low, high = metrics.interval(sums[:, 0] / sums[:, 1])
        return high - low

    assert width(sessions) > 2 * width(np.arange(4000))


def test_interval_of_nothing_is_not_a_number():
    assert np.isnan(metrics.interval(np.array([np.nan]))).all()


def test_a_thousand_resamples_of_sixteen_thousand_sessions_take_seconds():
    columns = np.random.default_rng(0).random((15_963, 13))
    started = time.perf_counter()
    metrics.resampled_sums(columns, 1000, seed=0)
    assert time.perf_counter() - started < 20
