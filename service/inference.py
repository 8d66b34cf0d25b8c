"""Concurrent requests through the model together: one batch at a time, a bounded queue, a deadline for each.

A batch is whatever queued while the previous one ran, so nobody waits for a batch to fill.

It runs in the model's :class:`srgnn.engine.Engine`, beside the event loop. Where there is none (a very large catalogue,
a baseline) or the batch is too much for it, a small one runs on the event loop itself and a larger one in a thread:
there, whatever it does between two compiled loops waits for the event loop to let go of the interpreter, and the event
loop for it (docs/log.md).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Literal, NamedTuple

from srgnn.catalogue import Top
from srgnn.engine import Engine
from srgnn.errors import EngineError
from srgnn.recommender import Asked, Recommendation, Recommender
from srgnn.threads import limit_threads

logger = logging.getLogger(__name__)

INLINE_SCORES = 1 << 18
"""Histories times items of the largest batch that runs on the event loop: at most 1 to 3 ms, for which others wait,
those too that are to be refused."""

Reason = Literal["queue_full", "deadline", "model_error"]


class Query(NamedTuple):
    """One history to recommend for; ``k`` is already known to be within bounds."""

    history: Sequence[str]
    k: int
    exclude: frozenset[str] = frozenset()
    exclude_seen: bool = False
    explain: bool = False

    @property
    def excluded(self) -> frozenset[str]:
        """All items that the answer must not hold."""
        return self.exclude.union(self.history) if self.exclude_seen else self.exclude


class Prediction(NamedTuple):
    """The answer to one query; ``attention`` is (item id, weight) per click where it was asked for."""

    recommendation: Recommendation
    attention: list[tuple[str, float]] | None = None
    batch_size: int = 0
    """Histories that went through the model together; none where it did not answer."""


class NotInferred(Exception):
    """The model gave no answer, for ``reason``; the caller falls back."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True, eq=False)
class _Job:
    """The queries of one request, answered together by the model that it began with."""

    recommender: Recommender
    queries: Sequence[Query]
    future: "asyncio.Future[list[Prediction]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher:
    """``async with Batcher(...)`` runs it; :meth:`predict` answers."""

    def __init__(
        self,
        *,
        queue_size: int,
        max_batch: int,
        torch_threads: int = 1,
        observe_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._queue_size = queue_size
        self._max_batch = max_batch
        self._observe_batch = observe_batch
        self._jobs: OrderedDict[_Job, None] = OrderedDict()  # a queue from whose middle a job can leave
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._handing_out: set[asyncio.Task[None]] = set()
        limit_threads(torch_threads)
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="inference", initializer=limit_threads, initargs=(torch_threads,)
        )

    @property
    def waiting(self) -> int:
        """Histories in the queue."""
        return self._waiting

    async def __aenter__(self) -> "Batcher":
        self._pump_task = asyncio.create_task(self._pump())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pump_task.cancel()
        await asyncio.wait({self._pump_task, *self._handing_out})
        for job in self._jobs:
            _fail(job, "deadline")
        self._thread.shutdown()

    async def predict(
        self, recommender: Recommender, queries: Sequence[Query], *, deadline_seconds: float
    ) -> list[Prediction]:
        """Answers in the order of ``queries``, each as if it were alone. Raises NotInferred."""
        if self._waiting + len(queries) > self._queue_size:
            raise NotInferred("queue_full")
        job = _Job(recommender, queries)
        self._jobs[job] = None
        self._waiting += len(queries)
        self._arrived.set()
        try:
            async with asyncio.timeout(deadline_seconds):
                return await job.future
        except TimeoutError:
            raise NotInferred("deadline") from None
        finally:
            self._leave(job)

    def _leave(self, job: _Job) -> None:
        """Take a job off the queue if it is still there: one given up on costs nothing."""
        if job in self._jobs:
            del self._jobs[job]
            self._waiting -= len(job.queries)

    async def _pump(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := self._next_batch():
                await self._run(batch)

    def _next_batch(self) -> list[_Job]:
        """The oldest jobs of one model, up to ``max_batch`` histories; a larger job goes alone."""
        batch: list[_Job] = []
        room = self._max_batch
        while self._jobs:
            job = next(iter(self._jobs))
            if batch and (len(job.queries) > room or job.recommender is not batch[0].recommender):
                break
            self._leave(job)
            batch.append(job)
            room -= len(job.queries)
        return batch

    async def _run(self, batch: list[_Job]) -> None:
        queries = [query for job in batch for query in job.queries]
        self._observe_batch(len(queries))
        try:
            predictions = await self._infer(batch[0].recommender, queries)
        except Exception:
            logger.exception("the model failed on a batch of %d histories", len(queries))
            for job in batch:
                _fail(job, "model_error")
            return
        handing_out = asyncio.create_task(_hand_out(batch, predictions))
        self._handing_out.add(handing_out)
        handing_out.add_done_callback(self._handing_out.discard)
        if not batch[0].recommender.engine:  # else it works on the next batch meanwhile
            await asyncio.wait({handing_out})

    async def _infer(self, recommender: Recommender, queries: Sequence[Query]) -> list[Prediction]:
        if recommender.engine:
            histories, most, exclude = together(queries)
            asked = recommender.ask(histories, most, exclude=exclude)
            if recommender.engine.takes(asked.sequences, most, asked.exclude):
                try:
                    found = recommender.tell(asked, await self._through(recommender.engine, asked))
                    return predictions(recommender, queries, found)
                except EngineError:
                    logger.exception("answers are found on the event loop from now on")
                    recommender.engine = None
        if len(queries) * len(recommender.vocabulary) > INLINE_SCORES:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, infer, recommender, queries)
        made = infer(recommender, queries)
        await asyncio.sleep(0)  # the loop reads what arrived meanwhile
        return made

    async def _through(self, engine: Engine, asked: Asked) -> Top | None:
        """Ask and let others run meanwhile."""
        if not asked.sequences:
            return None
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        engine.start(asked.sequences, asked.k, asked.exclude)
        loop.add_reader(engine.fileno(), answered.set)
        try:
            await answered.wait()
        finally:
            loop.remove_reader(engine.fileno())
            top = engine.finish()  # of one batch before the next, also where nobody waits for it any more
        return top


async def _hand_out(batch: Sequence[_Job], predictions: Sequence[Prediction]) -> None:
    """To each job the answers to its queries, and one at a time: what a request does with its answer takes 0.2 ms or
    more, and whoever is to be refused, or only now comes to ask, would wait for that of all others."""
    remaining = iter(predictions)
    for job in batch:
        answers = list(islice(remaining, len(job.queries)))
        if not job.future.done():
            job.future.set_result(answers)
            await asyncio.sleep(0)


def _fail(job: _Job, reason: Reason) -> None:
    if not job.future.done():
        job.future.set_exception(NotInferred(reason))


def infer(recommender: Recommender, queries: Sequence[Query]) -> list[Prediction]:
    """One batched call for queries that differ in everything; a shorter list is a prefix of a longer one."""
    histories, most, exclude = together(queries)
    return predictions(recommender, queries, recommender.recommend(histories, most, exclude=exclude))


def together(queries: Sequence[Query]) -> tuple[list[Sequence[str]], int, list[frozenset[str]] | None]:
    """What a recommender is asked for all of them: histories, k and exclusions."""
    excluded = [query.excluded for query in queries]
    histories = [query.history for query in queries]
    return histories, max(query.k for query in queries), excluded if any(excluded) else None


def predictions(
    recommender: Recommender, queries: Sequence[Query], found: Sequence[Recommendation]
) -> list[Prediction]:
    """The answer to each query, from what was ``found`` for all together."""
    return [
        Prediction(_first(best, query.k), recommender.explain(query.history) if query.explain else None, len(queries))
        for query, best in zip(queries, found, strict=True)
    ]


def _first(best: Recommendation, k: int) -> Recommendation:
    return best if len(best.item_ids) <= k else Recommendation(best.item_ids[:k], best.scores[:k], best.source)
