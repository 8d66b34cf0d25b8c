"""Cost of one recommendation, in this process: as a whole and by its parts, for one history at a time and for many.

\b
python -m benchmarks.recommend --corpus corpus --artifact artifacts

Real test histories, all prefixes of sessions in random order, so that one finds little of the last in the cache. The
last line on stdout is JSON.
"""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.load import report
from benchmarks.training import fastest
from srgnn import artifact as artifacts
from srgnn.blend import BlendScorer, model_of
from srgnn.recommender import Recommender
from srgnn.threads import limit_threads
from training.corpus import Corpus
from training.examples import Examples

BATCHES = (1, 2, 4, 16, 64, 256)
_PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.option("--corpus", required=True, type=_PATH, help="Prepared corpus; its test sessions are asked for.")
@click.option("--artifact", required=True, type=_PATH, help="Artifact, or the folder that holds LATEST.")
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(1), help="Histories at once. [default: 1 to 256]"
)
@click.option("--histories", default=2048, show_default=True, type=click.IntRange(1), help="Asked for, in all.")
@click.option("--k", default=20, show_default=True, type=click.IntRange(1), help="Items asked for.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="The fastest counts.")
@click.option("--alone", is_flag=True, help="Without the evidence that the artifact holds beside its model.")
def main(
    corpus: Path, artifact: Path, batches: tuple[int, ...], histories: int, k: int, repeats: int, alone: bool
) -> None:
    limit_threads(1)
    recommender = artifacts.load(artifact, beside="nothing" if alone else "all").recommender
    asked = draw(Corpus.open(corpus), recommender, histories)
    rows = [costs(recommender, asked, batch, k, repeats) for batch in batches or BATCHES]
    names = list(rows[0])
    click.echo("microseconds a history")
    click.echo("".join(f"{name:>12}" for name in names))
    for row in rows:
        click.echo("".join(f"{row[name]:>12,.0f}" for name in names))
    found = {"benchmark": "recommend", "artifact": recommender.version, "search": recommender.scorer.search}
    click.echo(json.dumps({**found, "k": k, "histories": len(asked), **report.environment(), "us": rows}))


def draw(corpus: Corpus, recommender: Recommender, histories: int) -> list[list[str]]:
    examples = Examples(corpus.test, recommender.rules)
    chosen = np.random.default_rng(0).permutation(len(examples))[:histories]
    ids = recommender.vocabulary.ids
    return [[ids[row] for row in sequence.tolist()] for sequence in examples.sequences(chosen)]


def costs(recommender: Recommender, asked: list[list[str]], batch: int, k: int, repeats: int) -> dict[str, Any]:
    batches = [asked[start : start + batch] for start in range(0, len(asked), batch)]
    sequences = [[recommender.sequence(history) for history in histories] for histories in batches]
    scorer, model = recommender.scorer, model_of(recommender.scorer)
    vectors = [model.session_vectors(part) for part in sequences]
    parts = {
        "whole": lambda: [recommender.recommend(part, k) for part in batches],
        "vectors": lambda: [model.session_vectors(part) for part in sequences],
        "search": lambda: [model.catalogue.top_k(part, k) for part in vectors],
    }
    if isinstance(scorer, BlendScorer):
        parts["evidence"] = lambda: [scorer.bonuses(*pair) for pair in zip(sequences, vectors, strict=True)]
    return {"batch": batch, **{name: 1000 * fastest(run, repeats) / len(asked) for name, run in parts.items()}}


if __name__ == "__main__":
    main()
