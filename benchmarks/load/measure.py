"""One measurement: requests at a fixed rate whether or not the answers come (open loop).

Latency counts from when a request was due, so whatever holds it back (this client, a full pool, the click before it,
the service) is in it: no coordinated omission. A request without an answer counts with the time it waited.
"""

import gc
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from selectors import DefaultSelector
from typing import Any

import numpy as np
import numpy.typing as npt

from . import wire
from .alarm import Alarm
from .connections import Pool
from .traffic import KINDS, Call, Traffic, arrivals

DRAIN_SECONDS = 5.0
"""After the last request was due, answers are waited for so long; what comes later counts as an error."""
TICK_SECONDS = 0.001
"""The client wakes to send at most so often, since waking costs more than sending: up to 1,000/s every request leaves
when it is due, above that some leave up to this much late (which counts)."""
MAX_REQUESTS = 3_000_000
"""Of one measurement, warm-up included: its times are kept in memory, some 100 bytes a request."""
LAG_LIMIT_MS = 5.0
"""Where the client itself sends later than this (p99), the latencies tell as much about it as about the service."""
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}

UNANSWERED, BY_MODEL, BY_FALLBACK, DEGRADED, FAILED, REFUSED = range(6)

FloatArray = npt.NDArray[np.float64]
Cpu = Callable[[], Mapping[str, float]]
"""Processor seconds used so far, by process name."""


@dataclass(frozen=True)
class Target:
    """Where the service listens and how it is asked."""

    host: str
    port: int
    connections: int = 256
    k: int = 20
    check_every: int = 50
    """Every so many answers one is parsed and checked in full; the others are searched for what they must hold."""

    @property
    def authority(self) -> str:
        """For the Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Plan:
    """What to send."""

    rate: float
    seconds: float
    warmup_seconds: float = 0.0
    mix: Mapping[str, float] = field(default_factory=lambda: {"click": 1.0})
    poisson: bool = False
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """Figures of one measurement, its warm-up left out."""

    rate: float
    achieved: float
    """Answers a second that came while it was measured, without errors and refusals."""
    requests: int
    seconds: float
    latency_ms: dict[str, float]
    """Of all but refused requests."""
    by_kind: dict[str, dict[str, float]]
    errors: int
    error_reasons: dict[str, int]
    refused: int
    """503 with Retry-After: overload, told at once."""
    refusal_ms: dict[str, float]
    refusal_after_sending_ms: dict[str, float]
    """What the service took, where :attr:`refusal_ms` has the client's lag and its waits for order and connections."""
    degraded: int
    by_fallback: int
    """Answers that are not degraded and not from the model: an unknown or empty history."""
    checked: int
    """Answers parsed and checked in full, warm-up included."""
    send_lag_ms: dict[str, float]
    client_fell_behind: bool
    held_for_order: int
    waited_for_connection: int
    connections: int
    cpu_cores: dict[str, float]
    client_cpu_us: float
    """Processor time of this client, microseconds a request."""

    @property
    def holds(self) -> bool:
        """The service objective of the knee: p90 <= 50 ms, every answer a full one, 99 % of the rate achieved."""
        clean = not self.errors and not self.refused and not self.degraded
        return clean and self.latency_ms["p90"] <= 50 and self.achieved >= 0.99 * self.rate

    def to_json(self) -> dict[str, Any]:
        """All of it, and whether the objective holds."""
        return {**asdict(self), "holds": self.holds}


def measure(target: Target, traffic: Traffic, plan: Plan, cpu: Cpu = dict) -> Result:
    """Run ``plan``."""
    return OpenLoop(target, traffic, plan, cpu).run()


class OpenLoop:
    """State of one open-loop measurement; every list has one entry a request."""

    def __init__(self, target: Target, traffic: Traffic, plan: Plan, cpu: Cpu) -> None:
        self._target, self._traffic, self._plan, self._cpu = target, traffic, plan, cpu
        self._offsets = arrivals(
            plan.rate, plan.warmup_seconds + plan.seconds, poisson=plan.poisson, seed=plan.seed
        ).tolist()
        n = len(self._offsets)
        self._first = min(int(np.searchsorted(self._offsets, plan.warmup_seconds - 1e-9)), n - 1)
        draw = np.random.default_rng(plan.seed).choice(len(plan.mix), n, p=list(plan.mix.values()))
        self._kinds = [list(plan.mix)[i] for i in draw]
        self._latency, self._lag, self._outcome = [np.nan] * n, [0.0] * n, bytearray(n)
        self._refusals_seconds: list[float] = []
        self._next = self._finished = self._checked = self._held = 0
        self._reasons: Counter[str] = Counter()
        self._cpu_before: Mapping[str, float] = {}

    def run(self) -> Result:
        target, end = self._target, len(self._offsets)
        self._traffic.prepare(self._plan.mix)
        with DefaultSelector() as selector:
            address = target.host, target.port
            self._pool = Pool(selector, address, target.connections, self._answered, self._failed)
            self._alarm = Alarm(selector, self._tick)
            gc.collect()
            gc.disable()  # a collection would hold up what is due; nothing here makes many cycles
            try:
                self._begun = time.monotonic() + 0.05
                self._alarm.set(self._begun)
                deadline = self._begun + self._offsets[-1] + DRAIN_SECONDS
                while self._finished < end and time.monotonic() < deadline:
                    self._alarm.wait(0.1)
                used = {name: seconds - self._cpu_before.get(name, 0) for name, seconds in self._cpu_now().items()}
            finally:
                gc.enable()
                self._alarm.close()
                self._pool.close()
        self._give_up()
        return self._result(used)

    def _tick(self) -> None:
        """Send everything that is due."""
        now = time.monotonic()
        offsets, begun = self._offsets, self._begun
        i = first = self._next
        while i < len(offsets) and begun + offsets[i] <= now:
            if i == self._first:
                self._cpu_before = self._cpu_now()
            due = begun + offsets[i]
            self._lag[i] = now - due
            call = self._traffic.call(self._kinds[i], i, due)
            if self._traffic.start(call):
                self._pool.send(call)
            else:
                self._held += 1
            i += 1
        self._next = i
        self._alarm.set(begun + max(offsets[i], offsets[first] + TICK_SECONDS) if i < len(offsets) else None)

    def _answered(self, call: Call, answer: bytes, now: float) -> None:
        if wire.refused(answer):
            if call.index >= self._first:
                self._refusals_seconds.append(now - call.sent)
            return self._finish(call, REFUSED, now)
        if not answer.startswith(b"HTTP/1.1 200"):
            return self._failed(call, f"status {wire.status(answer)}")
        outcome = outcome_of(answer)
        if call.index % self._target.check_every == 0:
            self._checked += 1
            if problem := problem_with(call, wire.body(answer), self._target.k, outcome):
                return self._failed(call, problem)
        self._finish(call, outcome, now)
        return None

    def _failed(self, call: Call, reason: str) -> None:
        self._reasons[reason if len(self._reasons) < 20 else "other"] += call.index >= self._first
        self._finish(call, FAILED, time.monotonic())

    def _finish(self, call: Call, outcome: int, now: float) -> None:
        self._latency[call.index] = now - call.due
        self._outcome[call.index] = outcome
        self._finished += 1
        if held := self._traffic.finish(call, outcome in (BY_MODEL, BY_FALLBACK)):
            self._pool.send(held)

    def _give_up(self) -> None:
        """What has no answer by now waited at least so long."""
        now = time.monotonic()
        for i, outcome in enumerate(self._outcome):
            if outcome == UNANSWERED:
                self._latency[i] = now - self._begun - self._offsets[i]
                self._reasons["no answer"] += i >= self._first

    def _answers_while_measured(self) -> int:
        outcome = np.frombuffer(bytes(self._outcome), dtype=np.uint8)
        came = np.array(self._offsets) + np.array(self._latency) - self._offsets[self._first]
        while_measured = (came >= 0) & (came < self._plan.seconds)
        return int((while_measured & ~np.isin(outcome, (FAILED, UNANSWERED, REFUSED))).sum())

    def _cpu_now(self) -> dict[str, float]:
        return {"client": time.process_time(), **self._cpu()}

    def _result(self, used: Mapping[str, float]) -> Result:
        first = self._first
        latency, lag = 1000 * np.array(self._latency[first:]), 1000 * np.array(self._lag[first:])
        outcome = np.frombuffer(bytes(self._outcome[first:]), dtype=np.uint8)
        errors = int(np.isin(outcome, (FAILED, UNANSWERED)).sum())
        refused = outcome == REFUSED
        since = self._begun + self._offsets[first]
        elapsed = time.monotonic() - since
        kinds = np.array(self._kinds[first:])
        lags = percentiles(lag, {"p99": 99, "max": 100})
        return Result(
            rate=self._plan.rate,
            achieved=round(self._answers_while_measured() / self._plan.seconds, 2),
            requests=len(outcome),
            seconds=self._plan.seconds,
            latency_ms=percentiles(latency if refused.all() else latency[~refused]),
            by_kind={kind: percentiles(latency[kinds == kind]) for kind in KINDS if (kinds == kind).any()},
            errors=errors,
            error_reasons={reason: number for reason, number in self._reasons.most_common() if number},
            refused=int(refused.sum()),
            refusal_ms=percentiles(latency[refused]) if refused.any() else {},
            refusal_after_sending_ms=percentiles(1000 * np.array(self._refusals_seconds)) if refused.any() else {},
            degraded=int((outcome == DEGRADED).sum()),
            by_fallback=int((outcome == BY_FALLBACK).sum()),
            checked=self._checked,
            send_lag_ms=lags,
            client_fell_behind=lags["p99"] > LAG_LIMIT_MS,
            held_for_order=self._held,
            waited_for_connection=self._pool.waited,
            connections=self._pool.opened,
            cpu_cores={name: round(seconds / elapsed, 3) for name, seconds in used.items()},
            client_cpu_us=round(1e6 * used["client"] / len(outcome), 1),
        )


def percentiles(values: FloatArray, of: Mapping[str, float] = PERCENTILES) -> dict[str, float]:
    """Exact, from all values, each one that was really measured: at these sizes a histogram would only round them."""
    found = np.percentile(values, list(of.values()), method="higher")
    return {name: round(float(value), 3) for name, value in zip(of, found, strict=True)}


def outcome_of(answer: bytes) -> int:
    """What a 200 answer says about itself, without parsing it."""
    if b'"degraded":null' not in answer:
        return DEGRADED
    return BY_MODEL if b'"source":"model"' in answer else BY_FALLBACK


def problem_with(call: Call, body: bytes, k: int, outcome: int) -> str:
    """What is wrong with an answer, looked at in full; empty where nothing is."""
    try:
        answer: Any = json.loads(body)
        if call.kind == "stateless":
            [answer] = answer["recommendations"]
        elif call.session and answer["session_id"] != call.session.id:
            return "the answer is another session's"
        items, scores = [[item[key] for item in answer["items"]] for key in ("item_id", "score")]
        degraded, source, clicks = answer["degraded"], answer["source"], answer["clicks"]
    except (ValueError, KeyError, TypeError) as error:
        return f"the answer is not of the expected form: {type(error).__name__}"
    if outcome != (DEGRADED if degraded else BY_MODEL if source == "model" else BY_FALLBACK):
        return "the answer is formatted in a way this client does not read"
    if not items or len(items) > k or len(set(items)) != len(items):
        return f"the answer holds {len(items)} items, {len(set(items))} distinct; expected {k}"
    if scores != sorted(scores, reverse=True):
        return "the items are not sorted by score"
    lost = degraded or (call.session and call.session.uncertain)
    if not lost and (clicks < call.position if call.kind == "read" else clicks != call.position):
        return f"the answer counts other clicks than were sent ({call.kind})"
    return ""
