"""Lists of histories, one request after the other (closed loop), as a batch job sends them."""

import time
from collections import Counter
from dataclasses import asdict, dataclass
from selectors import BaseSelector, DefaultSelector
from typing import Any

import numpy as np

from . import wire
from .connections import Pool
from .measure import Cpu, Target, percentiles
from .traffic import Call, Traffic

BULK_REQUESTS = 512
"""Different ones, one after the other: over few, what a service reads for them would stay in the processor's cache, as
it does in no real job."""


@dataclass(frozen=True)
class BulkResult:
    """Figures of a closed loop: a batch job sends its next request when an answer came, nothing is due before."""

    histories_per_request: int
    in_flight: int
    seconds: float
    histories_per_second: float
    latency_ms: dict[str, float]
    """Of a request."""
    errors: int
    error_reasons: dict[str, int]
    degraded: int
    """Histories."""
    cpu_cores: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def measure_bulk(
    target: Target,
    traffic: Traffic,
    *,
    size: int,
    in_flight: int,
    seconds: float,
    warmup_seconds: float,
    cpu: Cpu = dict,
) -> BulkResult:
    """POST /recommendations with ``size`` histories, ``in_flight`` requests at a time."""
    requests = traffic.bulk_requests(size, BULK_REQUESTS)
    return ClosedLoop(target, requests, size, in_flight, seconds, warmup_seconds, cpu).run()


class ClosedLoop:
    """State of one bulk measurement."""

    def __init__(
        self,
        target: Target,
        requests: list[bytes],
        size: int,
        in_flight: int,
        seconds: float,
        warmup_seconds: float,
        cpu: Cpu,
    ) -> None:
        self._target, self._requests, self._cpu = target, requests, cpu
        self._size, self._in_flight, self._seconds, self._warmup_seconds = size, in_flight, seconds, warmup_seconds
        self._sent = self._answers = self._degraded = 0
        self._reasons: Counter[str] = Counter()
        self._latency: list[float] = []
        self._counting = False

    def run(self) -> BulkResult:
        target = self._target
        with DefaultSelector() as selector:
            self._pool = Pool(selector, (target.host, target.port), self._in_flight, self._answered, self._failed)
            try:
                for _ in range(self._in_flight):
                    self._send()
                self._wait(selector, self._warmup_seconds)
                self._counting, started, before = True, time.monotonic(), self._cpu_now()
                self._wait(selector, self._seconds)
                elapsed, after = time.monotonic() - started, self._cpu_now()
            finally:
                self._pool.close()
        return BulkResult(
            histories_per_request=self._size,
            in_flight=self._in_flight,
            seconds=round(elapsed, 3),
            histories_per_second=round(self._answers * self._size / elapsed, 1),
            latency_ms=percentiles(1000 * np.array(self._latency or [elapsed])),
            errors=self._reasons.total(),
            error_reasons=dict(self._reasons.most_common()),
            degraded=self._degraded,
            cpu_cores={name: round((after[name] - before[name]) / elapsed, 3) for name in after},
        )

    def _wait(self, selector: BaseSelector, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, ready in selector.select(left):
                key.data(ready)

    def _send(self) -> None:
        request = self._requests[self._sent % len(self._requests)]
        self._pool.send(Call(self._sent, "bulk", time.monotonic(), request))
        self._sent += 1

    def _answered(self, call: Call, answer: bytes, now: float) -> None:
        if not answer.startswith(b"HTTP/1.1 200"):
            return self._failed(call, f"status {wire.status(answer)}")
        if answer.count(b'"source":') != self._size:
            return self._failed(call, "the answer does not hold one recommendation for each history")
        if self._counting:
            self._answers += 1
            self._latency.append(now - call.due)
            self._degraded += self._size - answer.count(b'"degraded":null')
        self._send()
        return None

    def _failed(self, call: Call, reason: str) -> None:
        self._reasons[reason if len(self._reasons) < 20 else "other"] += 1
        time.sleep(0.01)  # or a refusing service would be asked without pause
        self._send()

    def _cpu_now(self) -> dict[str, float]:
        return {**self._cpu(), "client": time.process_time()}
