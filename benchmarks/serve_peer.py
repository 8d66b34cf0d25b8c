"""Serve a baseline exactly as `srgnn serve` serves SR-GNN: what a user would pick instead, behind the same HTTP.

python -m benchmarks.serve_peer --corpus corpus --baseline markov --redis-url redis://localhost:6379/0 --port 8000

The baseline is fitted at the start on train and validation clicks, under the default session rules. Settings are those
of `srgnn serve`.
"""

import sys
from pathlib import Path

import click

from service.cli import run_service
from service.settings import load_settings
from srgnn.errors import InputError, SRGNNError
from srgnn.recommender import Recommender
from srgnn.sequence import SessionRules
from training.baselines import BASELINES, fit_baselines
from training.corpus import Corpus, concatenate


def peer(corpus: Corpus, baseline: str) -> Recommender:
    """The named baseline over a corpus. Raises InputError on an unknown name."""
    if baseline not in BASELINES:
        raise InputError(f"no baseline {baseline!r}: expected one of {', '.join(BASELINES)}")
    known = concatenate(corpus.train, corpus.validation)
    return fit_baselines(corpus.vocabulary, SessionRules(), known)[baseline]


@click.command(help=__doc__)
@click.option("--corpus", required=True, type=click.Path(path_type=Path), help="Prepared corpus to fit it on.")
@click.option("--baseline", required=True, help=f"One of {', '.join(BASELINES)}.")
@click.option("--redis-url", help="Session store; without one, sessions live in this process.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
def main(corpus: Path, baseline: str, redis_url: str | None, host: str | None, port: int | None) -> None:
    settings = load_settings(redis_url=redis_url, host=host, port=port)
    run_service(settings, peer(Corpus.open(corpus), baseline))


if __name__ == "__main__":
    try:
        main()
    except SRGNNError as failure:
        sys.exit(f"error: {failure}")
