"""Against a service that answers what the test wants; times are only bounded from below, or are seconds away."""

import itertools
import json
import time

import numpy as np
import pytest

from benchmarks.load import measure as module
from benchmarks.load.measure import (
    BY_FALLBACK,
    BY_MODEL,
    DEGRADED,
    Plan,
    measure,
    outcome_of,
    percentiles,
    problem_with,
)
from benchmarks.load.traffic import Call, Session, Traffic
from srgnn.vocabulary import Vocabulary
from tests.corpora import random_sessions, split_of

from .conftest import http, packed, recommendation

VOCABULARY = Vocabulary([f"i{row}" for row in range(30)])
SPLIT = split_of(random_sessions(1, 20, 30))


def traffic(live=10):
    return Traffic(SPLIT, VOCABULARY, host="h", run="r", k=20, live=live)


def test_all_requests_are_sent_answered_and_checked(serving, shop):
    mix = {"click": 0.6, "read": 0.2, "stateless": 0.2}
    with serving(shop) as target:
        result = measure(target, traffic(), Plan(200, 0.5, 0.1, mix), lambda: {"service": time.process_time()})
    assert (result.errors, result.error_reasons, result.degraded, result.by_fallback) == (0, {}, 0, 0)
    assert result.requests == 100
    assert result.checked == len(shop.requests) == 120
    assert set(result.by_kind) == {"click", "read", "stateless"}
    assert set(result.cpu_cores) == {"client", "service"}
    for session_id, clicks in shop.sessions.items():
        number = int(session_id.removeprefix("r-")) % SPLIT.num_sessions
        whole = [VOCABULARY.ids[row] for row in SPLIT.session(number)]
        assert clicks == whole[: len(clicks)]


def test_a_stalled_service_delays_everything_that_was_due_meanwhile(serving, shop):
    """A closed loop, or a clock that starts when a request is sent, would report one slow request of many."""
    until = []

    def respond(request):
        until.append(time.monotonic() + 0.6)
        time.sleep(max(until[0] - time.monotonic(), 0))
        return shop(request)

    with serving(respond) as target:
        result = measure(target, traffic(live=1), Plan(100, 0.5))
    assert result.errors == 0
    assert result.latency_ms["p50"] >= 250
    assert result.latency_ms["max"] >= 500
    assert result.held_for_order > 0


def test_order_is_kept_where_a_session_is_due_faster_than_it_is_answered(serving, shop):
    with serving(shop) as target:
        result = measure(target, traffic(live=1), Plan(2000, 0.2))
    assert (result.errors, result.error_reasons) == (0, {})
    assert result.requests == result.checked == 400


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"{}", "503 Service Unavailable"), "status 503"),
        (b"", "connection closed by the service"),
        (b"nonsense\r\n\r\n", "not an HTTP/1.1 answer"),
        (2 * http(packed(recommendation())), "more than one answer"),
        (http(packed(recommendation())), "not of the expected form"),
    ],
)
def test_what_goes_wrong_is_counted_with_its_reason(serving, answer, reason):
    turn = itertools.count()
    with serving(lambda request: b"" if next(turn) > 200 else answer) as target:
        result = measure(target, traffic(), Plan(100, 0.2))
    assert result.errors == result.requests == 20
    assert result.achieved == 0
    assert any(reason in found for found in result.error_reasons)
    assert not result.holds


def test_refusals_under_overload_are_no_errors_and_no_answers(serving, shop):
    turn = itertools.count()
    busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"
    with serving(lambda request: busy if next(turn) % 2 else shop(request)) as target:
        result = measure(target, traffic(), Plan(100, 0.4))
    assert (result.errors, result.refused, result.requests) == (0, 20, 40)
    assert result.achieved <= 50
    assert 0 < result.refusal_after_sending_ms["p50"] <= result.refusal_ms["p50"]
    assert not result.holds


def test_answers_in_pieces_are_put_together(serving, shop):
    item = {"item_id": "x" * 200_000, "score": 3.0}

    def respond(request):
        body = json.loads(shop(request).partition(b"\r\n\r\n")[2])
        return http(packed({**body, "items": [item]}))

    with serving(respond) as target:
        result = measure(target, traffic(), Plan(50, 0.2))
    assert result.error_reasons == {}


def test_no_answer_counts_with_the_time_that_was_waited(serving, shop, monkeypatch):
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.2)

    def respond(request):
        time.sleep(1)
        return b""

    with serving(respond) as target:
        result = measure(target, traffic(), Plan(100, 0.1))
    assert result.error_reasons == {"no answer": 10}
    assert result.latency_ms["p50"] >= 200


def test_a_service_that_is_not_there_fails_every_request(serving, shop):
    with serving(shop) as target:
        pass
    result = measure(target, traffic(), Plan(100, 0.1))
    assert result.error_reasons == {"cannot connect: Connection refused": 10}


def test_more_requests_than_connections_wait_for_one(serving, shop):
    def respond(request):
        time.sleep(0.05)
        return shop(request)

    with serving(respond) as target:
        few = module.Target(target.host, target.port, connections=2, check_every=1)
        result = measure(few, traffic(), Plan(200, 0.2))
    assert result.errors == 0
    assert result.connections == 2
    assert result.waited_for_connection > 0


def test_degraded_answers_are_counted_and_not_held(serving):
    respond = lambda request: http(  # noqa: E731
        packed({"session_id": request.split()[1].split(b"/")[2].decode(), **recommendation(degraded="queue_full")})
    )
    with serving(respond) as target:
        result = measure(target, traffic(), Plan(100, 0.1))
    assert (result.errors, result.degraded, result.holds) == (0, 10, False)


def test_percentiles_are_values_that_were_measured():
    found = percentiles(np.arange(1, 1001) / 1.0)
    assert found == {"p50": 501, "p90": 901, "p99": 991, "p99.9": 1000, "max": 1000}


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [({}, BY_MODEL), ({"source": "popularity"}, BY_FALLBACK), ({"degraded": "deadline"}, DEGRADED)],
)
def test_outcome_is_found_without_parsing(fields, outcome):
    assert outcome_of(http(packed(recommendation(**fields)))) == outcome


def item(name, score):
    return {"item_id": name, "score": score}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, ""),
        ({"session_id": "other"}, "another session"),
        ({"items": []}, "0 items"),
        ({"items": [item("a", 1.0), item("a", 1.0)]}, "1 distinct"),
        ({"items": [item("a", 1.0), item("b", 2.0)]}, "not sorted"),
        ({"clicks": 4}, "other clicks"),
        ({"clicks": 4, "degraded": "store_unavailable"}, ""),
    ],
)
def test_a_full_check_finds_what_is_wrong(fields, problem):
    call = Call(0, "click", 0.0, b"", Session("s", iter(()), 0), position=3)
    body = packed({"session_id": "s", **recommendation(clicks=3), **fields})
    found = problem_with(call, body, 2, outcome_of(body))
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_full_check_finds_a_format_that_the_cheap_one_misreads():
    call = Call(0, "stateless", 0.0, b"", None, position=1)
    body = json.dumps({"recommendations": [recommendation()]}).encode()
    assert "formatted" in problem_with(call, body, 2, outcome_of(body))


def test_fewer_clicks_are_no_error_after_one_that_was_answered_without_the_store(serving, shop):
    def respond(request):
        answer = json.loads(shop(request).partition(b"\r\n\r\n")[2])
        lost = len(shop.requests) == 1
        if lost:
            shop.sessions[answer["session_id"]].clear()
        return http(packed({**answer, "degraded": "store_unavailable" if lost else None}))

    with serving(respond) as target:
        result = measure(target, traffic(live=1), Plan(100, 0.2))
    assert (result.error_reasons, result.degraded) == ({}, 1)
