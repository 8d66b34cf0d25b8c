import json

import pytest

from benchmarks.load.bulk import measure_bulk
from benchmarks.load.traffic import Traffic
from srgnn.vocabulary import Vocabulary
from tests.corpora import random_sessions, split_of

from .conftest import http


def traffic():
    vocabulary = Vocabulary([f"i{row}" for row in range(30)])
    return Traffic(split_of(random_sessions(1, 20, 30)), vocabulary, host="h", run="r", k=20, live=10)


def test_histories_are_counted(serving, shop):
    with serving(shop) as target:
        result = measure_bulk(target, traffic(), size=16, in_flight=2, seconds=0.3, warmup_seconds=0.1)
    assert (result.errors, result.degraded) == (0, 0)
    assert result.histories_per_second > 0
    assert all(len(json.loads(r.partition(b"\r\n\r\n")[2])["histories"]) == 16 for r in shop.requests)


@pytest.mark.parametrize("status", [422, 503])
def test_what_is_not_answered_is_an_error(serving, status):
    with serving(lambda request: http(b"{}", f"{status} No\r\nRetry-After: 1")) as target:
        result = measure_bulk(target, traffic(), size=4, in_flight=1, seconds=0.1, warmup_seconds=0)
    assert result.histories_per_second == 0
    assert result.error_reasons == {f"status {status}": result.errors}
    assert result.errors > 0
