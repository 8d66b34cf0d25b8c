"""Load on the service: latency percentiles at fixed rates, the knee, and bulk throughput.

\b
python -m benchmarks.load --corpus corpus --artifact artifacts --rate 500 --rate 1000 --plot load.png
python -m benchmarks.load --corpus corpus --artifact artifacts --sweep --bulk
python -m benchmarks.load --corpus corpus --model markov --rate 1000
python -m benchmarks.load --corpus corpus --url http://localhost:8000 --mix click=0.8,read=0.1,stateless=0.1

Requests are sent at a constant rate whether or not answers come back (open loop), and latency counts from when a
request was due, so nothing is omitted when the service stalls. The corpus' test sessions are replayed, many at a time;
a click is never sent before the one before it in its session was answered. --bulk alone is a closed loop.

A Redis and the service run on this machine beside this client and end with it, unless --url or --redis-url names
others; settings of the service are SRGNN_... variables, as for `srgnn serve`. The last line on stdout is JSON.
"""

import importlib.util
import json
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import click

from srgnn.errors import InputError, SRGNNError
from tests.redis_server import RedisServer
from training.corpus import Corpus
from training.replay import read_key

from . import report, servers
from .bulk import BulkResult, measure_bulk
from .knee import find_knee
from .measure import MAX_REQUESTS, Plan, Result, Target, measure
from .traffic import Traffic, parse_mix

_POSITIVE = click.FloatRange(min=0, min_open=True)
_PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.option("--corpus", required=True, type=_PATH, help="Prepared corpus; its test sessions are replayed.")
@click.option("--artifact", type=_PATH, help="Artifact to serve, or the folder that holds LATEST.")
@click.option("--model", default="artifact", show_default=True, help="`artifact`, or a baseline to serve instead.")
@click.option("--url", help="A service that runs already, on this machine.")
@click.option("--key-file", type=click.File(), help="File that holds an API key for --url; - is stdin.")
@click.option("--redis-url", help="A Redis that runs already, on this machine, for the service started here.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Of the service.")
@click.option("--rate", "rates", multiple=True, type=_POSITIVE, help="Requests a second; repeatable. [default: 1000]")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Per rate.")
@click.option("--warmup-seconds", default=3.0, show_default=True, type=click.FloatRange(0, 600), help="Not counted.")
@click.option("--mix", default="click=1", show_default=True, help="Shares of click, read and stateless.")
@click.option("--poisson", is_flag=True, help="Random arrivals instead of even ones.")
@click.option("--sweep", is_flag=True, help="Find the knee: p90 <= 50 ms, no error, nothing degraded, rate achieved.")
@click.option("--sweep-from", default=500.0, show_default=True, type=_POSITIVE, help="First rate of the sweep.")
@click.option("--bulk", is_flag=True, help="Measure POST /recommendations with many histories (closed loop).")
@click.option("--bulk-size", default=256, show_default=True, type=click.IntRange(1), help="Histories a bulk request.")
@click.option("--in-flight", default=2, show_default=True, type=click.IntRange(1, 64), help="Bulk requests at a time.")
@click.option("--live", default=500, show_default=True, type=click.IntRange(1), help="Sessions open at a time.")
@click.option("--connections", default=256, show_default=True, type=click.IntRange(1, 10_000), help="At most.")
@click.option("--k", default=20, show_default=True, type=click.IntRange(1), help="Items asked for.")
@click.option("--seed", default=1, show_default=True, help="Of random arrivals, mix and histories.")
@click.option("--plot", type=_PATH, help="Write latency against rate as a picture (.png, .svg, .pdf).")
def main(**options: Any) -> None:
    chosen = Options(**options)
    chosen.check()
    corpus = Corpus.open(chosen.corpus)
    signal.signal(signal.SIGTERM, _interrupt)
    found: dict[str, Any] = {"benchmark": "load", **chosen.to_json(), **report.environment()}
    with _under_load(chosen) as system:
        bench = Bench(chosen, corpus, system)
        found |= {"ready_seconds": system.ready_seconds, **bench.run(), "memory_mb": system.usage.memory_mb()}
    click.echo(bench.summary(found))
    if chosen.plot and bench.rows:
        report.plot(bench.rows, chosen.plot, _title(found), found["knee"])
    click.echo(json.dumps(found, ensure_ascii=False, allow_nan=False))


def _interrupt(number: int, frame: object) -> None:
    """End as Ctrl-C does, so that what was started here ends too."""
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Options:
    """The command line."""

    corpus: Path
    artifact: Path | None
    model: str
    url: str | None
    key_file: TextIO | None
    redis_url: str | None
    workers: int
    rates: tuple[float, ...]
    seconds: float
    warmup_seconds: float
    mix: str
    poisson: bool
    sweep: bool
    sweep_from: float
    bulk: bool
    bulk_size: int
    in_flight: int
    live: int
    connections: int
    k: int
    seed: int
    plot: Path | None

    @property
    def asked_rates(self) -> tuple[float, ...]:
        return self.rates or (() if self.sweep or self.bulk else (1000.0,))

    def check(self) -> None:
        """Raise InputError on what does not go together, before anything is started."""
        parse_mix(self.mix)
        for option, url in (("--url", self.url), ("--redis-url", self.redis_url)):
            if url:
                servers.require_loopback(url, option)
        if self.url and (self.artifact or self.redis_url or self.workers > 1 or self.model != "artifact"):
            raise InputError("--url names a running service: leave out --artifact, --model, --redis-url and --workers")
        if not self.url and self.model == "artifact" and not self.artifact:
            raise InputError("nothing to serve: give --artifact, another --model, or the --url of a running service")
        if self.model != "artifact" and (self.artifact or self.workers > 1):
            raise InputError(
                f"--model {self.model} is fitted on the corpus, in one worker: no --artifact, no --workers"
            )
        if max([*self.asked_rates, 0]) * (self.seconds + self.warmup_seconds) > MAX_REQUESTS:
            raise InputError(f"more than {MAX_REQUESTS:,} requests in one measurement: lower --rate or --seconds")
        if self.plot and not self.plot.absolute().parent.is_dir():
            raise InputError(f"folder {self.plot.parent} of --plot does not exist: create it first")
        if self.plot and not importlib.util.find_spec("matplotlib"):
            raise InputError("--plot needs matplotlib: pip install -e '.[train]'")

    def to_json(self) -> dict[str, Any]:
        names = ("model", "workers", "seconds", "warmup_seconds", "poisson", "live", "connections", "k", "seed")
        paths = {"corpus": self.corpus.name, "url": self.url, "mix": parse_mix(self.mix)}
        return paths | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class System:
    """What is under load."""

    url: str
    ready_seconds: float | None
    usage: servers.Usage
    service: servers.Service | None = None


@contextmanager
def _under_load(options: Options) -> Iterator[System]:
    """The running service; what was started here ends with the block, the service before its Redis."""
    if options.url:
        url = options.url.rstrip("/")
        if not servers.is_ready(url):
            raise InputError(f"no service is ready at {url}: start it with `srgnn serve`, or correct --url")
        yield System(url, None, servers.Usage())
        return
    processes: dict[str, int] = {}
    with ExitStack() as stack:
        redis_url = options.redis_url
        if not redis_url:
            redis = stack.enter_context(RedisServer())
            redis_url, processes["redis"] = redis.url, redis.pid
        command = servers.service_command(options.model, options.artifact, options.corpus, options.workers)
        service = stack.enter_context(servers.running_service(command, redis_url))
        processes["service"] = service.process.pid
        click.echo(f"starting the service ({options.model}) on {service.url}", err=True)
        ready = round(service.wait_ready(), 2)
        click.echo(f"ready after {ready:.1f} s", err=True)
        yield System(service.url, ready, servers.Usage(**processes), service)


class Bench:
    """Runs what was asked for; ``rows`` are the results by rate."""

    def __init__(self, options: Options, corpus: Corpus, system: System) -> None:
        self.options, self.corpus, self.system = options, corpus, system
        where = urlsplit(system.url)
        self.target = Target(where.hostname or "", where.port or 80, options.connections, options.k)
        self.key = read_key(options.key_file) if options.key_file else ""
        self.rows: list[dict[str, Any]] = []
        self.bulk: BulkResult | None = None

    def run(self) -> dict[str, Any]:
        options = self.options
        for rate in options.asked_rates:
            self.measure(rate)
        knee = find_knee(lambda rate: self.measure(rate).holds, options.sweep_from) if options.sweep else None
        if options.bulk:
            click.echo(f"bulk: {options.bulk_size} histories a request", err=True)
            self.bulk = self.measure_bulk()
        return {"results": self.rows, "knee": knee and round(knee, 1), "bulk": self.bulk and self.bulk.to_json()}

    def measure(self, rate: float) -> Result:
        """One rate, and a line about it on stderr."""
        options = self.options
        plan = Plan(
            rate, options.seconds, options.warmup_seconds, parse_mix(options.mix), options.poisson, options.seed
        )
        click.echo(
            f"{rate:,.0f}/s: {options.warmup_seconds:g} s to warm up, {options.seconds:g} s to measure", err=True
        )
        before = servers.batch_totals(self.system.url, self.key)
        result = measure(self.target, self._traffic(), plan, self.system.usage.cpu_seconds)
        after = servers.batch_totals(self.system.url, self.key)
        passes = after[1] - before[1]
        self.rows.append(
            {**result.to_json(), "mean_batch": round((after[0] - before[0]) / passes, 3) if passes else None}
        )
        latency = " ".join(f"{name} {value:.2f}" for name, value in result.latency_ms.items())
        held = "held" if result.holds else "NOT held"
        note = f"; {extra}" if (extra := report.details(result)) else ""
        click.echo(f"{rate:,.0f}/s: {held}; {latency} ms{note}", err=True)
        if result.errors and self.system.service:
            click.echo(f"the service's log ends:\n{self.system.service.last_lines(3)}", err=True)
        return result

    def measure_bulk(self) -> BulkResult:
        options = self.options
        return measure_bulk(
            self.target,
            self._traffic(),
            size=options.bulk_size,
            in_flight=options.in_flight,
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
            cpu=self.system.usage.cpu_seconds,
        )

    def summary(self, found: dict[str, Any]) -> str:
        """The table, and a line for each figure beside it."""
        lines = []
        if self.rows:
            lines.append(report.table(self.rows))
        if self.options.sweep:
            lines.append(f"knee: {found['knee']:,.0f}/s" if found["knee"] else "knee: no rate was held")
        if self.bulk:
            lines.append(report.bulk_line(self.bulk))
        lines += [f"{name}: {memory:,.0f} MB" for name, memory in found["memory_mb"].items()]
        return "\n".join(lines)

    def _traffic(self) -> Traffic:
        """The same sessions in the same order for every measurement, under ids never used before."""
        options = self.options
        return Traffic(
            self.corpus.test,
            self.corpus.vocabulary,
            host=self.target.authority,
            run=f"load-{uuid.uuid4().hex[:12]}",
            k=options.k,
            live=options.live,
            seed=options.seed,
            key=self.key,
        )


def _title(found: dict[str, Any]) -> str:
    served = {"artifact": "SR-GNN"}.get(found["model"], found["model"])
    workers = f", {found['workers']} workers" if found["workers"] > 1 else ""
    return (
        f"{served}{workers} on {found['corpus']}: service, Redis and client on {found['cores']} cores ({found['cpu']})"
    )


if __name__ == "__main__":
    try:
        main()
    except SRGNNError as failure:
        sys.exit(f"error: {failure}")
