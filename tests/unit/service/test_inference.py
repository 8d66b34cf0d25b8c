import asyncio
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from service import inference
from service.inference import Batcher, NotInferred, Prediction, Query, infer
from srgnn import artifact
from srgnn.engine import Engine
from srgnn.errors import EngineError
from srgnn.recommender import Recommendation, Recommender


class Recorded:
    """A recommender that can be held up, and remembers what it was asked."""

    def __init__(self, inner: Recommender, failing: bool = False) -> None:
        self.inner = inner
        self.vocabulary = inner.vocabulary
        self.engine = None
        self.failing = failing
        self.batches: list[list[Sequence[str]]] = []
        self.threads: set[str] = set()
        self.may_run = threading.Event()
        self.may_run.set()

    def recommend(self, histories, k=20, *, exclude=None, exclude_seen=False):  # type: ignore[no-untyped-def]
        self.batches.append(list(histories))
        self.threads.add(threading.current_thread().name)
        assert self.may_run.wait(10)
        if self.failing:
            raise RuntimeError("broken model")
        return self.inner.recommend(histories, k, exclude=exclude, exclude_seen=exclude_seen)

    def explain(self, history: Sequence[str]) -> list[tuple[str, float]]:
        return self.inner.explain(history)


class OfOne:
    """A batcher that is always asked for the same model; ``**options`` as for Batcher."""

    def __init__(self, recommender: object, **options: Any) -> None:
        self.recommender = cast(Recommender, recommender)
        self.inner = Batcher(**options)

    async def __aenter__(self) -> "OfOne":
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.inner.__aexit__(*error)

    @property
    def waiting(self) -> int:
        return self.inner.waiting

    async def predict(self, queries: Sequence[Query], *, deadline_seconds: float) -> list[Prediction]:
        return await self.inner.predict(self.recommender, queries, deadline_seconds=deadline_seconds)


def make(recommender: object, queue_size: int = 1000, max_batch: int = 128) -> OfOne:
    return OfOne(recommender, queue_size=queue_size, max_batch=max_batch)


def alone(recommender: Recommender, query: Query) -> Recommendation:
    [answer] = recommender.recommend([query.history], query.k, exclude=[query.exclude], exclude_seen=query.exclude_seen)
    return answer


def mixed_queries(ids: Sequence[str], count: int) -> list[Query]:
    """Every kind of difference that requests of one batch can have."""
    draw = random.Random(7)
    return [
        Query(
            history=draw.choices([*ids, "unknown"], k=draw.randint(0, 14)),
            k=draw.randint(1, 30),
            exclude=frozenset(draw.sample(ids, draw.randint(0, 8))),
            exclude_seen=draw.random() < 0.5,
            explain=draw.random() < 0.2,
        )
        for _ in range(count)
    ]


@pytest.fixture(autouse=True)
def in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model's batches would all run on the event loop; what is held up below must not hold up the test."""
    monkeypatch.setattr(inference, "INLINE_SCORES", 0)


@pytest.mark.parametrize(("inline_scores", "threads"), [(0, {"inference_0"}), (1 << 20, {"MainThread"})])
async def test_two_hundred_concurrent_mixed_requests_equal_single_answers(
    tiny_recommender: Recommender, monkeypatch: pytest.MonkeyPatch, inline_scores: int, threads: set[str]
) -> None:
    monkeypatch.setattr(inference, "INLINE_SCORES", inline_scores)
    recorded = Recorded(tiny_recommender)
    queries = mixed_queries(tiny_recommender.vocabulary.ids, 200)
    async with make(recorded, max_batch=64) as batcher:
        answers = await asyncio.gather(*(batcher.predict([query], deadline_seconds=30) for query in queries))
    for query, [prediction] in zip(queries, answers, strict=True):
        expected = alone(tiny_recommender, query)
        assert prediction.recommendation.item_ids == expected.item_ids
        assert prediction.recommendation.scores == pytest.approx(expected.scores, rel=1e-5)
        assert prediction.recommendation.source == expected.source
        assert prediction.attention == (tiny_recommender.explain(query.history) if query.explain else None)
    assert max(map(len, recorded.batches)) > 1, "requests really shared a forward pass"
    assert recorded.threads == threads


async def test_a_batch_too_large_for_the_event_loop_runs_in_the_thread(
    tiny_recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "INLINE_SCORES", 3 * len(tiny_recommender.vocabulary))
    for count, thread in ((3, "MainThread"), (4, "inference_0")):
        recorded = Recorded(tiny_recommender)
        async with make(recorded) as batcher:
            await batcher.predict([Query(["100"], 3)] * count, deadline_seconds=30)
        assert recorded.threads == {thread}


async def test_the_event_loop_goes_on_between_batches_that_run_on_it(
    tiny_recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "INLINE_SCORES", 1 << 20)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with make(tiny_recommender, max_batch=1) as batcher:
        task = asyncio.create_task(others())
        await asyncio.gather(*(batcher.predict([Query(["100"], 3)], deadline_seconds=30) for _ in range(20)))
        task.cancel()
    assert turns >= 20


@pytest.fixture
def with_engine(tiny_artifact: Path) -> Recommender:
    recommender = artifact.load(tiny_artifact).recommender
    recommender.engine = Engine.of(recommender.scorer)
    assert recommender.engine
    return recommender


async def test_answers_of_an_engine_are_those_of_the_model(
    with_engine: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [*mixed_queries(with_engine.vocabulary.ids, 200), Query([], 3), Query(["unknown"], 3)]
    expected = [alone(with_engine, query) for query in queries]
    monkeypatch.setattr(Recommender, "recommend", None)  # nothing goes the other way
    sizes: list[int] = []
    async with Batcher(queue_size=1000, max_batch=64, observe_batch=sizes.append) as batcher:
        answers = await asyncio.gather(
            *(batcher.predict(with_engine, [query], deadline_seconds=30) for query in queries)
        )
    assert max(sizes) > 1
    for query, wanted, [prediction] in zip(queries, expected, answers, strict=True):
        assert prediction.recommendation == wanted
        assert prediction.attention == (with_engine.explain(query.history) if query.explain else None)


async def test_the_event_loop_goes_on_while_an_engine_works(
    with_engine: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = with_engine.engine
    assert engine
    waiting, written = os.pipe()  # in place of the engine's own
    monkeypatch.setattr(engine, "fileno", lambda: waiting)
    async with Batcher(queue_size=1000, max_batch=64) as batcher:
        task = asyncio.create_task(batcher.predict(with_engine, [Query(["100"], 3)], deadline_seconds=30))
        await asyncio.sleep(0.05)
        assert not task.done()
        os.write(written, b"!")
        assert (await task)[0].recommendation == alone(with_engine, Query(["100"], 3))
    os.close(waiting)
    os.close(written)


@pytest.mark.parametrize("engine", [True, False])
async def test_the_event_loop_goes_on_between_the_answers_of_a_batch(with_engine: Recommender, engine: bool) -> None:
    if not engine:
        with_engine.engine = None
    turns, seen, sizes = 0, [], []

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def ask(batcher: Batcher) -> None:
        await batcher.predict(with_engine, [Query(["100"], 3)], deadline_seconds=30)
        seen.append(turns)

    async with Batcher(queue_size=1000, max_batch=64, observe_batch=sizes.append) as batcher:
        counting = asyncio.create_task(count_turns())
        await asyncio.gather(*(ask(batcher) for _ in range(20)))
        counting.cancel()
    assert sizes == [20]
    assert len(set(seen)) == 20


async def test_a_stop_hands_out_what_is_answered(with_engine: Recommender) -> None:
    async with Batcher(queue_size=1000, max_batch=64) as batcher:
        tasks = [
            asyncio.create_task(batcher.predict(with_engine, [Query(["100"], 3)], deadline_seconds=30))
            for _ in range(20)
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait_for(asyncio.gather(*tasks), timeout=5)


async def test_what_is_too_much_for_an_engine_goes_the_other_way(with_engine: Recommender) -> None:
    queries = mixed_queries(with_engine.vocabulary.ids, 300)
    async with Batcher(queue_size=1000, max_batch=64) as batcher:
        answers = await batcher.predict(with_engine, queries, deadline_seconds=30)
    assert [answer.recommendation.item_ids for answer in answers] == [
        alone(with_engine, query).item_ids for query in queries
    ]
    assert with_engine.engine


async def test_without_its_engine_a_model_still_answers(
    with_engine: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    engine = with_engine.engine
    assert engine
    with pytest.raises(EngineError):
        engine.top_k([np.array([10**6])], 1)
    async with Batcher(queue_size=1000, max_batch=64) as batcher:
        for _ in range(2):
            [prediction] = await batcher.predict(with_engine, [Query(["100"], 3)], deadline_seconds=30)
            assert prediction.recommendation == alone(with_engine, Query(["100"], 3))
    assert with_engine.engine is None
    assert caplog.text.count("answers are found on the event loop from now on") == 1


async def test_a_stop_waits_for_the_batch_that_an_engine_works_on(with_engine: Recommender) -> None:
    """Or its answer would be taken for that of the next batch, another service's with the same model."""
    async with Batcher(queue_size=1000, max_batch=64) as batcher:
        task = asyncio.create_task(batcher.predict(with_engine, [Query(["100"], 3)], deadline_seconds=30))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.wait([task], timeout=0.1)
    task.cancel()
    async with Batcher(queue_size=1000, max_batch=64) as batcher:
        [prediction] = await batcher.predict(with_engine, [Query(["101"], 3)], deadline_seconds=30)
    assert prediction.recommendation == alone(with_engine, Query(["101"], 3))


async def test_many_histories_of_one_request_come_back_in_order(tiny_recommender: Recommender) -> None:
    queries = mixed_queries(tiny_recommender.vocabulary.ids, 50)
    async with make(tiny_recommender, max_batch=8) as batcher:
        answers = await batcher.predict(queries, deadline_seconds=30)
    assert [answer.recommendation.item_ids for answer in answers] == [
        alone(tiny_recommender, query).item_ids for query in queries
    ]


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_a_batch_is_what_queued_while_the_last_one_ran(tiny_recommender: Recommender) -> None:
    recorded = Recorded(tiny_recommender)
    recorded.may_run.clear()
    async with make(recorded) as batcher:
        first = asyncio.create_task(batcher.predict([Query(["100"], 3)], deadline_seconds=30))
        await until(lambda: recorded.batches)
        later = [
            asyncio.create_task(batcher.predict([Query([str(101 + n)], 3)], deadline_seconds=30)) for n in range(5)
        ]
        await until(lambda: batcher.waiting == 5)
        recorded.may_run.set()
        await asyncio.gather(first, *later)
    assert recorded.batches == [[["100"]], [["101"], ["102"], ["103"], ["104"], ["105"]]]


async def test_a_batch_is_bounded_but_a_larger_request_still_goes(tiny_recommender: Recommender) -> None:
    recorded = Recorded(tiny_recommender)
    recorded.may_run.clear()
    sizes: list[int] = []
    batcher = OfOne(recorded, queue_size=100, max_batch=4, observe_batch=sizes.append)
    async with batcher:
        tasks = [asyncio.create_task(batcher.predict([Query([], 1)] * n, deadline_seconds=30)) for n in (1, 3, 2, 9, 1)]
        await until(lambda: recorded.batches)
        recorded.may_run.set()
        await asyncio.gather(*tasks)
    assert sum(sizes) == 16
    assert all(size <= 4 or size == 9 for size in sizes)


async def test_a_batch_never_mixes_models(tiny_recommender: Recommender) -> None:
    old, new = Recorded(tiny_recommender), Recorded(tiny_recommender)
    old.may_run.clear()
    async with Batcher(queue_size=100, max_batch=100) as batcher:
        first = asyncio.create_task(batcher.predict(cast(Recommender, old), [Query(["100"], 1)], deadline_seconds=30))
        await until(lambda: old.batches)
        rest = [
            asyncio.create_task(batcher.predict(cast(Recommender, model), [Query([str(n)], 1)], deadline_seconds=30))
            for n, model in enumerate((old, old, new, old, new, new))
        ]
        await until(lambda: batcher.waiting == 6)
        old.may_run.set()
        await asyncio.gather(first, *rest)
    assert old.batches == [[["100"]], [["0"], ["1"]], [["3"]]]
    assert new.batches == [[["2"]], [["4"], ["5"]]]


async def test_full_queue_is_told_at_once_and_frees_again(tiny_recommender: Recommender) -> None:
    recorded = Recorded(tiny_recommender)
    recorded.may_run.clear()
    async with make(recorded, queue_size=2) as batcher:
        running = asyncio.create_task(batcher.predict([Query(["100"], 3)], deadline_seconds=30))
        await until(lambda: recorded.batches)
        waiting = asyncio.create_task(batcher.predict([Query(["101"], 3)] * 2, deadline_seconds=30))
        await until(lambda: batcher.waiting == 2)
        with pytest.raises(NotInferred) as refused:
            await batcher.predict([Query(["102"], 3)], deadline_seconds=30)
        assert refused.value.reason == "queue_full"
        recorded.may_run.set()
        await asyncio.gather(running, waiting)
        assert await batcher.predict([Query(["102"], 3)], deadline_seconds=30)


async def test_passed_deadline_is_told_in_time_and_its_work_is_not_done(
    tiny_recommender: Recommender,
) -> None:
    recorded = Recorded(tiny_recommender)
    recorded.may_run.clear()
    async with make(recorded) as batcher:
        running = asyncio.create_task(batcher.predict([Query(["100"], 3)], deadline_seconds=30))
        await until(lambda: recorded.batches)
        with pytest.raises(NotInferred) as late:
            await batcher.predict([Query(["101"], 3)], deadline_seconds=0.02)
        assert late.value.reason == "deadline"
        assert batcher.waiting == 0
        recorded.may_run.set()
        await running
        await batcher.predict([Query(["102"], 3)], deadline_seconds=30)
    assert [["101"]] not in recorded.batches


async def test_cancelled_requests_cost_nothing(tiny_recommender: Recommender) -> None:
    recorded = Recorded(tiny_recommender)
    recorded.may_run.clear()
    async with make(recorded, queue_size=10) as batcher:
        running = asyncio.create_task(batcher.predict([Query(["100"], 3)], deadline_seconds=30))
        await until(lambda: recorded.batches)
        gone = [asyncio.create_task(batcher.predict([Query(["101"], 3)], deadline_seconds=30)) for _ in range(10)]
        await until(lambda: batcher.waiting == 10)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        assert batcher.waiting == 0
        recorded.may_run.set()
        await running
        assert await batcher.predict([Query(["102"], 3)], deadline_seconds=30)
    assert recorded.batches == [[["100"]], [["102"]]]


async def test_a_cancelled_request_in_a_running_batch_does_not_shift_the_others(
    tiny_recommender: Recommender,
) -> None:
    recorded = Recorded(tiny_recommender)
    recorded.may_run.clear()
    queries = [Query([item], 5) for item in tiny_recommender.vocabulary.ids[:6]]
    async with make(recorded) as batcher:
        first = asyncio.create_task(batcher.predict([Query([], 1)], deadline_seconds=30))
        await until(lambda: recorded.batches)
        tasks = [asyncio.create_task(batcher.predict([query], deadline_seconds=30)) for query in queries]
        await until(lambda: batcher.waiting == 6)
        recorded.may_run.set()
        await until(lambda: len(recorded.batches) == 2 or tasks[2].done())
        tasks[2].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await first
    for i, (query, answer) in enumerate(zip(queries, answers, strict=True)):
        if i != 2:
            assert isinstance(answer, list)
            assert answer[0].recommendation.item_ids == alone(tiny_recommender, query).item_ids


async def test_a_failing_model_is_told_to_every_request_and_the_next_batch_runs(
    tiny_recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = Recorded(tiny_recommender, failing=True)
    async with make(recorded) as batcher:
        results = await asyncio.gather(
            *(batcher.predict([Query([], 1)], deadline_seconds=30) for _ in range(3)), return_exceptions=True
        )
        assert [result.reason for result in results if isinstance(result, NotInferred)] == ["model_error"] * 3
        recorded.failing = False
        assert await batcher.predict([Query([], 1)], deadline_seconds=30)
    assert "broken model" in caplog.text


async def test_stopping_answers_those_who_wait(tiny_recommender: Recommender) -> None:
    recorded = Recorded(tiny_recommender)
    recorded.may_run.clear()
    batcher = make(recorded)
    await batcher.__aenter__()
    running = asyncio.create_task(batcher.predict([Query(["100"], 1)], deadline_seconds=0.2))
    await until(lambda: recorded.batches)
    waiting = asyncio.create_task(batcher.predict([Query(["101"], 1)], deadline_seconds=30))
    await until(lambda: batcher.waiting == 1)
    threading.Timer(0.05, recorded.may_run.set).start()
    await batcher.__aexit__(None, None, None)
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(result, NotInferred) for result in results)


def test_infer_gives_each_query_its_own_k_and_exclusions(tiny_recommender: Recommender) -> None:
    ids = tiny_recommender.vocabulary.ids
    queries = [
        Query(ids[:3], 4),
        Query(ids[:3], 2, exclude=frozenset(ids[5:20])),
        Query(ids[:3], 9, exclude_seen=True),
    ]
    first, second, third = (prediction.recommendation for prediction in infer(tiny_recommender, queries))
    assert [len(one.item_ids) for one in (first, second, third)] == [4, 2, 9]
    assert not set(second.item_ids) & set(ids[5:20])
    assert not set(third.item_ids) & set(ids[:3])


def test_prediction_has_no_attention_unless_asked(tiny_recommender: Recommender) -> None:
    [prediction] = infer(tiny_recommender, [Query(tiny_recommender.vocabulary.ids[:2], 1)])
    assert prediction == Prediction(prediction.recommendation, None, batch_size=1)
