import json
import threading
from collections import defaultdict
from urllib.parse import unquote

import httpx
import numpy as np
import pytest

from srgnn.errors import DataError, InputError
from tests.corpora import random_sessions, split_of
from training.evaluate import judge
from training.examples import Examples
from training.replay import MAX_FAILED_IN_A_ROW, read_key, replay

SPLIT = split_of([[3], *random_sessions(5, 30, 40)])


class Service:
    """The answers of a service in the shape of its HTTP surface, session by session."""

    def __init__(self, recommender) -> None:
        self.recommender = recommender
        self.sessions = defaultdict(list)
        self.forgotten = []
        self.lock = threading.Lock()
        self.clicks = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.strip("/").split("/")
        if parts == ["livez"]:
            return httpx.Response(200, json={"status": "alive"})
        session = unquote(parts[1])
        if request.method == "DELETE":
            self.forgotten.append(session)
            return httpx.Response(204)
        body = json.loads(request.content)
        with self.lock:
            self.clicks += 1
            return self.answer(session, body)

    def answer(self, session, body) -> httpx.Response:
        self.sessions[session].append(body["item_id"])
        found = self.recommender.recommend([self.sessions[session]], body["k"])[0]
        items = [{"item_id": item, "score": score} for item, score in zip(found.item_ids, found.scores, strict=True)]
        return httpx.Response(
            200,
            json={
                "session_id": session,
                "items": items,
                "source": found.source,
                "degraded": None,
                "clicks": len(self.sessions[session]),
                "model": self.recommender.version,
            },
        )


def client_of(handler) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(handler), base_url="http://service")


def replayed(service, recommender, split=SPLIT, **options):
    with client_of(service) as client:
        return replay(split, recommender.vocabulary, client, shown=False, **options)


@pytest.fixture
def service(tiny_recommender) -> Service:
    return Service(tiny_recommender)


def test_replay_finds_what_offline_evaluation_finds(service, tiny_recommender):
    found = replayed(service, tiny_recommender, concurrency=4)
    examples = Examples(SPLIT, tiny_recommender.rules)
    offline = judge(tiny_recommender, examples, k=20, shown=False)
    assert np.array_equal(found.rank, offline.served_rank)
    assert np.array_equal(found.session, examples.session)
    assert np.array_equal(found.targets, examples.targets)
    sequences = examples.sequences(np.arange(len(examples)))
    assert np.array_equal(found.rows, tiny_recommender.recommend_rows(sequences, 20).rows)


def test_all_clicks_but_the_last_are_sent_in_order_under_one_id_a_session(service, tiny_recommender):
    replayed(service, tiny_recommender)
    ids = tiny_recommender.vocabulary.ids
    sent = sorted(service.sessions.values())
    every = [[ids[row] for row in SPLIT.session(i)] for i in range(SPLIT.num_sessions)]
    assert sent == sorted(items[:-1] for items in every if len(items) > 1)
    assert sorted(service.forgotten) == sorted(service.sessions)


def test_two_runs_share_no_session(service, tiny_recommender):
    replayed(service, tiny_recommender, limit=3)
    replayed(service, tiny_recommender, limit=3)
    assert len(service.sessions) == 6


def test_limit_counts_sessions_with_something_to_predict(service, tiny_recommender):
    found = replayed(service, tiny_recommender, limit=2)
    assert len(set(found.session.tolist())) == 2
    assert len(service.sessions) == 2


def test_summary_has_metrics_latency_and_sources(service, tiny_recommender):
    found = replayed(service, tiny_recommender)
    summary = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert summary["n"] == SPLIT.num_examples
    assert summary["recall@20"] == (found.rank <= 20).mean()
    assert summary["sources"] == {"model": 1.0}
    assert (summary["degraded"], summary["errors"], summary["models"]) == (0, 0, ["tiny-1"])
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]


def test_failed_click_is_a_miss_and_is_counted_with_its_reason(service, tiny_recommender):
    def every_third_fails(request):
        if request.method == "POST" and service.clicks % 3 == 2:
            service.clicks += 1
            return httpx.Response(503, json={"title": "Queue is full", "detail": "try again in 1 s"})
        return service(request)

    found = replayed(every_third_fails, tiny_recommender, concurrency=1)
    failed = (found.rows == -1).all(axis=1)
    assert len(found.errors) == failed.sum() > 0
    assert (found.rank[failed] == 21).all()
    assert set(found.errors) == {"503 Service Unavailable (Queue is full: try again in 1 s)"}


def test_degraded_answers_and_fallback_sources_are_counted(service, tiny_recommender):
    def degraded(request):
        response = service(request)
        if request.method != "POST":
            return response
        return httpx.Response(200, json={**response.json(), "degraded": "deadline", "source": "transitions"})

    summary = replayed(degraded, tiny_recommender).to_json()
    assert summary["degraded"] == summary["n"]
    assert summary["sources"] == {"transitions": 1.0}


def test_short_answer_and_strange_item_fill_no_place(service, tiny_recommender):
    def short(request):
        response = service(request)
        if request.method != "POST":
            return response
        items = [{"item_id": "not in the corpus", "score": 1.0}, *response.json()["items"][:1]]
        return httpx.Response(200, json={**response.json(), "items": items})

    found = replayed(short, tiny_recommender)
    assert (found.rows[:, 0] == -1).all()
    assert (found.rows[:, 1] >= 0).all()
    assert (found.rows[:, 2:] == -1).all()


def test_service_that_keeps_refusing_is_given_up_with_its_own_words(service, tiny_recommender):
    def refuses(request):
        if request.method == "POST":
            service.clicks += 1
            return httpx.Response(422, json={"title": "k is too large", "detail": "k is 20: at most 10"})
        return service(request)

    with pytest.raises(InputError, match="422 Unprocessable Entity \\(k is too large: k is 20: at most 10\\)"):
        replayed(refuses, tiny_recommender, concurrency=2)
    assert service.clicks < MAX_FAILED_IN_A_ROW + 200


def test_answer_of_another_form_is_a_failed_click(service, tiny_recommender):
    def other(request):
        return httpx.Response(200, text="<html>") if request.method == "POST" else service(request)

    with pytest.raises(InputError, match="answer is not of the expected form"):
        replayed(other, tiny_recommender)


def test_lost_connection_is_a_failed_click(service, tiny_recommender):
    def drops(request):
        if request.method == "POST":
            raise httpx.ReadTimeout("timed out", request=request)
        return service(request)

    with pytest.raises(InputError, match="ReadTimeout: timed out"):
        replayed(drops, tiny_recommender)


def test_service_out_of_reach_is_named_with_the_remedy(tiny_recommender, unused_tcp_port):
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with httpx.Client(base_url=url) as client, pytest.raises(InputError) as raised:
        replay(SPLIT, tiny_recommender.vocabulary, client, shown=False)
    assert url in str(raised.value)
    assert "srgnn serve" in str(raised.value)


def test_another_kind_of_server_is_refused(tiny_recommender):
    with pytest.raises(InputError, match="404 Not Found to GET /livez"):
        replayed(lambda request: httpx.Response(404, text="nothing here"), tiny_recommender)


def test_split_without_pairs_is_refused(service, tiny_recommender):
    with pytest.raises(DataError, match="nothing to replay"):
        replayed(service, tiny_recommender, split_of([[1], [2]]))


@pytest.mark.parametrize("content", ["", "two words", "schlüssel", "\n"])
def test_a_file_without_a_key_is_refused_and_not_shown(tmp_path, content):
    (tmp_path / "key").write_text(content)
    with (tmp_path / "key").open() as file, pytest.raises(InputError, match="expected one API key") as error:
        read_key(file)
    assert "schlüssel" not in str(error.value)


def test_a_key_is_read_without_its_line_end(tmp_path):
    (tmp_path / "key").write_text("srgnn_abc\n")
    with (tmp_path / "key").open() as file:
        assert read_key(file) == "srgnn_abc"
