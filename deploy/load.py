"""A steady stream of clicks against a running service, which must answer every one.

    python3 deploy/load.py --url http://127.0.0.1:8080 --key-file key.txt --items items.txt --rate 40 --seconds 30

Needs nothing but Python. Each click carries an event id and a connection of its own (a kept one may be closed by nginx
just when a click is sent, whatever the replicas do); nothing is tried twice from here. SIGTERM ends it early. At
the end every session is read back: each click must be in it exactly once, or at most once where its answer said that
the store did not. The last line is one JSON object; the exit code is 1 if any request failed or any click is lost or
doubled.
"""

import argparse
import collections
import http.client
import json
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

CLIENTS = 8
CLICKS_IN_A_SESSION = 40
"""Fewer than the service keeps and remembers, so that reading a session back shows all of it."""

stopped = threading.Event()


class Client(threading.Thread):
    """Clicks at fixed times, late or not, and writes down what came of it."""

    def __init__(self, url: str, key: str, items: list[str], period: float, delay: float, end: float) -> None:
        super().__init__()
        self.headers = {"Content-Type": "application/json", "Connection": "close"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.items, self.period, self.delay, self.end = items, period, delay, end
        self.sent: collections.Counter[str] = collections.Counter()
        self.unsure: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.answers: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self.milliseconds: list[float] = []

    def run(self) -> None:
        """Click until the time is over."""
        due = time.monotonic() + self.delay
        number, session = 0, ""
        while due < self.end and not stopped.wait(max(0.0, due - time.monotonic())):
            if number % CLICKS_IN_A_SESSION == 0:
                session = f"load-{uuid.uuid4().hex}"
            self.click(session, self.items[number % len(self.items)], due)
            number, due = number + 1, due + self.period

    def click(self, session: str, item: str, due: float) -> None:
        """Send one click. Whether it was stored is unsure where the request failed or the store did not answer."""
        body = json.dumps({"item_id": item, "event_id": uuid.uuid4().hex, "k": 5})
        self.sent[session] += 1
        try:
            status, answer = self.request("POST", f"/sessions/{session}/click", body)
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            self.unsure[session] += 1
            return
        self.milliseconds.append((time.monotonic() - due) * 1000)
        if status != 200:
            self.failures.append(f"{status}: {answer}")
            self.unsure[session] += 1
        else:
            self.unsure[session] += answer["degraded"] == "store_unavailable"
            self.answers[answer["model"], answer["source"], answer["degraded"] or "no"] += 1

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, dict]:
        """One request."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request(method, path, body, self.headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def read_back(self, session: str) -> tuple[int, dict]:
        """What the service kept of a session; it may ask for patience while a new replica finds the store."""
        for _ in range(60):
            status, answer = self.request("GET", f"/sessions/{session}")
            if status != 503:
                break
            time.sleep(1)
        return status, answer

    def miscounted(self) -> list[str]:
        """Sessions that do not hold exactly the clicks sent, but for those unsure."""
        wrong = []
        for session, sent in self.sent.items():
            status, answer = self.read_back(session)
            if status != 200 or not sent - self.unsure[session] <= answer["clicks"] <= sent:
                wrong.append(f"{session}: sent {sent} clicks, the service says {status} {answer.get('clicks')}")
        return wrong


def main() -> None:
    """Run the load and judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key-file", type=Path, help="a file that holds an API key with scopes click and read")
    parser.add_argument("--items", type=Path, required=True, help="a file with one item id a line")
    parser.add_argument("--rate", type=float, default=40.0, help="clicks a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    key = options.key_file.read_text(encoding="utf-8").strip() if options.key_file else ""
    items = options.items.read_text(encoding="utf-8").splitlines()
    period, end = CLIENTS / options.rate, time.monotonic() + options.seconds
    clients = [
        Client(options.url, key, items[i::CLIENTS] or items, period, i * period / CLIENTS, end) for i in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    sys.exit(report(clients))


def report(clients: list[Client]) -> bool:
    """Print what happened; true where anything went wrong."""
    failures = [failure for client in clients for failure in client.failures]
    wrong = [session for client in clients for session in client.miscounted()]
    answers = sum((client.answers for client in clients), collections.Counter())
    latencies = sorted(ms for client in clients for ms in client.milliseconds)
    for line in [*failures, *wrong][:20]:
        print(line, file=sys.stderr)
    summary = {
        "clicks": sum(sum(client.sent.values()) for client in clients),
        "failed": len(failures),
        "sessions": sum(len(client.sent) for client in clients),
        "lost_or_doubled": len(wrong),
        "store_unavailable": sum(sum(client.unsure.values()) for client in clients) - len(failures),
        "degraded": sum(count for (_, _, reason), count in answers.items() if reason != "no"),
        "models": sorted({model for model, _, _ in answers}),
        "p50_ms": quantile(latencies, 0.5),
        "p99_ms": quantile(latencies, 0.99),
        "max_ms": quantile(latencies, 1.0),
    }
    print(json.dumps(summary))
    return bool(failures or wrong or not latencies)


def quantile(ordered: list[float], share: float) -> float | None:
    """The value below which ``share`` of them lie."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None


if __name__ == "__main__":
    main()
