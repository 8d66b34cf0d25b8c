import json
import re
from collections import Counter

import numpy as np
import pytest

from benchmarks.load.traffic import Traffic, arrivals, parse_mix
from srgnn.errors import InputError
from srgnn.vocabulary import Vocabulary
from tests.corpora import split_of

SESSIONS = [[0, 1, 2], [3], [4, 4], [2, 1]]
VOCABULARY = Vocabulary(["a", "b", "c", "d", "Müsli"])


def traffic(live=3):
    return Traffic(split_of(SESSIONS), VOCABULARY, host="h:1", run="r", k=20, live=live)


def body_of(request):
    return json.loads(request.partition(b"\r\n\r\n")[2])


def test_even_arrivals_are_evenly_spaced():
    np.testing.assert_allclose(arrivals(4, 1.5), [0, 0.25, 0.5, 0.75, 1, 1.25])
    assert len(arrivals(0.1, 1)) == 1


def test_random_arrivals_keep_the_mean_rate_and_the_order():
    due = arrivals(1000, 20, poisson=True)
    assert len(due) == 20_000
    assert due[0] == 0
    assert (np.diff(due) >= 0).all()
    assert due[-1] == pytest.approx(20, rel=0.05)
    assert np.std(np.diff(due)) == pytest.approx(0.001, rel=0.05)


def test_mix_is_read():
    assert parse_mix("click=0.8,read=0.1,stateless=0.1") == {"click": 0.8, "read": 0.1, "stateless": 0.1}


@pytest.mark.parametrize("text", ["", "clock=1", "click=x", "click=0.5", "click=1,click=0", "click=2,read=-1"])
def test_a_wrong_mix_is_refused(text):
    with pytest.raises(InputError, match="--mix"):
        parse_mix(text)


def test_every_session_is_sent_whole_and_in_order_again_and_again():
    source = traffic()
    sent = {}
    for index in range(40):
        call = source.call("click", index, 0.0)
        assert source.start(call)
        sent.setdefault(call.session.id, []).append(body_of(call.request)["item_id"])
        assert call.position == len(sent[call.session.id])
        source.finish(call, kept=True)
    assert list(sent) == [f"r-{number}" for number in range(len(sent))]
    for number, items in enumerate(sent.values()):
        whole = [VOCABULARY.ids[row] for row in SESSIONS[number % len(SESSIONS)]]
        assert items == whole[: len(items)]
        if number < len(sent) - 3:
            assert items == whole


def test_sessions_take_turns():
    source = traffic(live=3)
    first = [source.call("click", index, 0.0).session.id for index in range(6)]
    assert first == ["r-0", "r-1", "r-2", "r-0", "r-3", "r-2"]


def test_a_click_waits_for_the_answer_to_the_one_before_it():
    source = traffic(live=1)
    first, second, third = (source.call("click", index, 0.0) for index in range(3))
    assert {call.session.id for call in (first, second, third)} == {"r-0"}
    assert source.start(first)
    assert not source.start(second)
    assert not source.start(third)
    assert source.finish(first, kept=True) is second
    assert source.finish(second, kept=False) is third
    assert source.finish(third, kept=True) is None
    assert (first.session.kept, first.session.uncertain, first.session.busy) == (2, True, False)


def test_requests_are_what_the_service_expects():
    source = traffic()
    source.prepare({"stateless": 1.0})
    click = source.call("click", 0, 0.0)
    assert re.match(rb"POST /sessions/r-0/click HTTP/1.1\r\n", click.request)
    assert body_of(click.request) == {"item_id": "a", "k": 20}
    source.start(click)
    source.finish(click, kept=True)
    read = source.call("read", 1, 0.0)
    assert read.request.startswith(b"GET /sessions/r-0/recommendations?k=20 HTTP/1.1\r\n")
    assert read.position == 1
    stateless = source.call("stateless", 2, 0.0)
    assert stateless.request.startswith(b"POST /recommendations HTTP/1.1\r\n")
    [history] = body_of(stateless.request)["histories"]
    assert len(history) == stateless.position > 0


def test_nothing_is_read_before_a_session_has_an_answer():
    assert traffic().call("read", 0, 0.0).kind == "click"


def test_reads_go_round_the_sessions_that_are_known():
    source = traffic()
    for index in range(3):
        call = source.call("click", index, 0.0)
        source.start(call)
        source.finish(call, kept=True)
    read = Counter(source.call("read", index, 0.0).session.id for index in range(6))
    assert read == {"r-0": 2, "r-1": 2, "r-2": 2}


def test_bulk_requests_hold_so_many_prefixes_of_sessions():
    requests = traffic().bulk_requests(size=5, number=2)
    assert len(requests) == 2
    whole = [[VOCABULARY.ids[row] for row in rows] for rows in SESSIONS]
    for request in requests:
        histories = body_of(request)["histories"]
        assert len(histories) == 5
        assert all(any(each == session[: len(each)] for session in whole) for each in histories)
