from pathlib import Path

import pytest

from service import quality
from service.quality import Quality
from service.sessions.store import Answer, Session
from service.telemetry import Metrics
from srgnn.recommender import Recommendation, Recommender


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("tiny-1")


@pytest.fixture
def live(metrics: Metrics) -> Quality:
    return Quality(metrics)


def counted(metrics: Metrics, name: str, source: str | None = None) -> float | None:
    return metrics.registry.get_sample_value(f"srgnn_judged_{name}_total", {"source": source} if source else {})


def clicked(*items: str, answered: Answer | None) -> Session:
    return Session(items, len(items), new=True, answered=answered)


def recommendation(items: list[str]) -> Recommendation:
    return Recommendation(items, [0.0] * len(items), "model")


def test_a_next_click_in_the_answer_is_a_hit_by_its_place(live: Quality, metrics: Metrics) -> None:
    live.judge(clicked("1", "b", answered=Answer("model", ("a", "b"))))
    live.judge(clicked("1", "z", answered=Answer("model", ("a", "b"))))
    live.judge(clicked("1", "a", answered=Answer("transitions", ("a",))))
    assert [counted(metrics, name, "model") for name in ("answers", "hits", "reciprocal_ranks")] == [2, 1, 0.5]
    assert [counted(metrics, name, "transitions") for name in ("answers", "hits", "reciprocal_ranks")] == [1, 1, 1]


def test_without_a_known_answer_nothing_is_judged(live: Quality, metrics: Metrics) -> None:
    live.judge(clicked("1", "1", answered=None))
    assert counted(metrics, "answers", "model") == 0
    assert counted(metrics, "repeats") == 0


def test_an_empty_answer_is_a_miss(live: Quality, metrics: Metrics) -> None:
    live.judge(clicked("1", "2", answered=Answer("model", ())))
    assert (counted(metrics, "answers", "model"), counted(metrics, "hits", "model")) == (1, 0)


def test_a_click_on_an_item_of_the_session_is_a_repeat(live: Quality, metrics: Metrics) -> None:
    live.judge(clicked("1", "2", "1", answered=Answer("model", ("1",))))
    live.judge(clicked("1", "2", "3", answered=Answer("model", ("1",))))
    assert counted(metrics, "repeats") == 1


def test_a_source_that_is_none_of_ours_makes_no_new_series(live: Quality, metrics: Metrics) -> None:
    live.judge(clicked("1", "2", answered=Answer("somebody wrote into Redis", ("1",))))
    assert counted(metrics, "answers", "somebody wrote into Redis") is None


def test_only_the_first_twenty_items_are_judged(live: Quality, tiny_recommender: Recommender) -> None:
    items = list(tiny_recommender.vocabulary.ids[:30])
    assert live.answered(tiny_recommender, recommendation(items)) == Answer("model", tuple(items[:20]))


def test_coverage_is_the_share_of_items_recommended_lately(
    live: Quality, tiny_recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = list(tiny_recommender.vocabulary.ids)
    assert live.coverage() == 0
    live.answered(tiny_recommender, recommendation(ids[:10]))
    live.answered(tiny_recommender, recommendation(ids[5:12]))
    assert live.coverage() == 12 / 40
    now = quality._hour()
    monkeypatch.setattr(quality, "_hour", lambda: now + 1)
    live.answered(tiny_recommender, recommendation(ids[:1]))
    assert live.coverage() == 12 / 40
    monkeypatch.setattr(quality, "_hour", lambda: now + 2)
    assert live.coverage() == 1 / 40


def test_workers_that_share_a_directory_cover_together(
    metrics: Metrics, tiny_recommender: Recommender, tmp_path: Path
) -> None:
    one, other = Quality(metrics, tmp_path), Quality(metrics, tmp_path)
    ids = list(tiny_recommender.vocabulary.ids)
    one.answered(tiny_recommender, recommendation(ids[:10]))
    other.answered(tiny_recommender, recommendation(ids[10:20]))
    assert one.coverage() == other.coverage() == 0.5


def test_another_model_begins_anew(live: Quality, tiny_recommender: Recommender) -> None:
    ids = list(tiny_recommender.vocabulary.ids)
    live.answered(tiny_recommender, recommendation(ids))
    parts = (tiny_recommender.vocabulary, tiny_recommender.rules, tiny_recommender.scorer, tiny_recommender.fallback)
    live.answered(Recommender(*parts, version="tiny-2"), recommendation(ids[:4]))
    assert live.coverage() == pytest.approx(4 / 40)
