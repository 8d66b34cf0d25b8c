"""Faults one after the other, in random order, under clicks: `srgnn serve` with several workers and a real Redis.

Whatever fails, every click is answered, truly, and stored once. A killed worker takes the clicks with it that it had
accepted; a killed Redis those that its append-only file, synced every second as in deploy/redis.conf, did not hold.
Prints a table of what each fault cost, and memory; ends with one JSON line, and with exit code 1 where a promise was
broken.
"""

import asyncio
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil

from srgnn import directory
from srgnn.errors import SRGNNError
from srgnn.vocabulary import Vocabulary
from tests.redis_server import RedisServer
from tests.tcp_proxy import FAULTS, HEALTHY, ProxyProcess

from .faults import Figures, measure
from .load import report, servers

LOSS_SECONDS = 2.0
"""Redis syncs once a second, and may be late by another."""
WORKER_SECONDS = 120
"""Longest a replacement may take to start."""
Switch = Callable[[], object]
OTHERS = ("Redis hung", "Redis killed", "worker killed")


@click.command(help=__doc__)
@click.option("--artifact", required=True, type=click.Path(path_type=Path), help="Artifact, or the folder with LATEST.")
@click.option(
    "--seconds", default=600.0, show_default=True, type=click.FloatRange(0), help="At least one round a fault."
)
@click.option(
    "--fault-seconds", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Each; as long before."
)
@click.option("--fault", "faults", multiple=True, type=click.Choice([*FAULTS, *OTHERS]), help="[default: all]")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64))
@click.option("--rate", default=100.0, show_default=True, type=click.FloatRange(1), help="Clicks a second.")
@click.option("--seed", default=1, show_default=True, help="Of the order of faults.")
def main(
    artifact: Path, seconds: float, fault_seconds: float, faults: tuple[str, ...], workers: int, rate: float, seed: int
) -> None:
    found: dict[str, Any] = {"benchmark": "soak", "workers": workers, "rate": rate, **report.environment()}
    items = Vocabulary.read(directory.resolve(artifact) / "vocabulary.txt").ids
    with _system(artifact, workers, faults or (*FAULTS, *OTHERS)) as system:
        for name in _rounds(list(system.switches), seconds, random.Random(seed)):
            system.run(name, items, fault_seconds, rate)
    rows = [summary([each for each in system.figures if each.fault == name]) for name in system.switches]
    click.echo(table(rows))
    half = (len(system.memory_mb) + 1) // 2
    most = [max(system.memory_mb[:half]), max(system.memory_mb[-half:])]  # a worker begun anew holds less for a while
    click.echo(f"memory of all processes (PSS), at most: {most[0]:,.0f} MB in the first half, {most[1]:,.0f} MB after")
    problems = [problem for each in system.figures for problem in broken_promises(each)]
    click.echo(
        json.dumps(found | {"results": rows, "memory_mb": system.memory_mb, "most_memory_mb": most, "broken": problems})
    )
    sys.exit(1 if problems else 0)


@dataclass
class System:
    """The running service, how to switch each fault on and off, and what was found."""

    service: servers.Service
    workers: int
    switches: dict[str, tuple[Switch, Switch]]
    figures: list[Figures] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    """After each round."""

    def run(self, name: str, items: Sequence[str], seconds: float, rate: float) -> None:
        """One round, and a line about it on stderr."""
        begin, end = self.switches[name]
        found = asyncio.run(measure(self.service.url, items, name, begin, end, seconds=seconds, per_second=rate))
        self.figures.append(found)
        self.memory_mb.append(servers.Usage(service=self.service.process.pid).memory_mb()["service"])
        counts = f"{found.clicks} clicks, {found.not_answered} not answered, {found.degraded} degraded"
        click.echo(
            f"{name}: {counts}; recovered in {found.recovery_seconds:.1f} s; {self.memory_mb[-1]:,.0f} MB", err=True
        )


@contextmanager
def _system(artifact: Path, workers: int, faults: Sequence[str]) -> Iterator[System]:
    with (
        tempfile.TemporaryDirectory(prefix="srgnn-soak-") as folder,
        RedisServer(Path(folder), "everysec") as redis,
        ProxyProcess(redis.port) as proxy,
    ):
        command = servers.service_command("artifact", artifact, Path(), workers)
        with servers.running_service(command, f"redis://127.0.0.1:{proxy.port}/0") as service:
            service.wait_ready()
            switches: dict[str, tuple[Switch, Switch]] = {
                name: (lambda fault=fault: proxy.switch(fault), lambda: proxy.switch(HEALTHY))  # type: ignore[misc]
                for name, fault in FAULTS.items()
            }
            switches["Redis hung"] = redis.hang, redis.resume
            switches["Redis killed"] = redis.stop, redis.start
            switches["worker killed"] = lambda: _kill_worker(service), lambda: None
            yield System(service, workers, {name: switches[name] for name in faults})


def _kill_worker(service: servers.Service) -> None:
    """Kill -9 one of them; there is a tracker beside them that Python keeps for whoever spawns."""
    children = psutil.Process(service.process.pid).children()
    random.choice([child for child in children if "spawn_main" in " ".join(child.cmdline())]).kill()


def _rounds(names: list[str], seconds: float, order: random.Random) -> Iterator[str]:
    """All once, in random order, and again until the time is up."""
    deadline, done = time.monotonic() + seconds, 0
    while done < len(names) or time.monotonic() < deadline:
        if done % len(names) == 0:
            order.shuffle(names)
        yield names[done % len(names)]
        done += 1


def broken_promises(figures: Figures) -> list[str]:
    """What should not have been, in words."""
    found = list(figures.broken)
    if figures.not_answered and figures.fault != "worker killed":
        found.append(f"{figures.not_answered} clicks were not answered")
    if figures.lost and not (figures.fault == "Redis killed" and figures.lost_seconds <= LOSS_SECONDS):
        found.append(f"{figures.lost} clicks are lost that were acknowledged up to {figures.lost_seconds} s before")
    return [f"{figures.fault}: {problem}" for problem in found]


def summary(rounds: Sequence[Figures]) -> dict[str, Any]:
    """A row of the table: all rounds of one fault together, the longest recovery."""
    added = sorted(value for each in rounds for value in each.added_ms)
    clicks = sum(each.clicks for each in rounds)
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        "fault": rounds[0].fault,
        "rounds": len(rounds),
        "clicks": clicks,
        "not_answered": sum(each.not_answered for each in rounds),
        "degraded": round(sum(each.degraded for each in rounds) / clicks, 4),
        "lost": sum(each.lost for each in rounds),
        "added_ms": {name: round(added[max(0, math.ceil(p * len(added)) - 1)], 1) for name, p in places.items()},
        "recovery_seconds": max(each.recovery_seconds for each in rounds),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown, so that it can go into a document as it is."""
    head = ["fault", "clicks", "not answered", "degraded", "lost", "added ms p50", "p99", "max", "recovery s"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for row in rows:
        counts = [f"{row[name]:,}" for name in ("clicks", "not_answered")]
        added = [f"{value:.1f}" for value in row["added_ms"].values()]
        lines.append([row["fault"], *counts, f"{row['degraded']:.1%}", f"{row['lost']}", *added])
        lines[-1].append(f"{row['recovery_seconds']:.2f}")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    try:
        main()
    except SRGNNError as failure:
        sys.exit(f"error: {failure}")
