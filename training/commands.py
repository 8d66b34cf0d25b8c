"""The commands ``srgnn evaluate`` and ``srgnn replay``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import click
import httpx
import numpy as np

from srgnn.artifact import Artifact, load
from srgnn.atomic import replaced_when_whole
from srgnn.blend import Used
from srgnn.cli import emit
from srgnn.directory import HABITS, NEIGHBOURS
from srgnn.errors import DataError, InputError
from srgnn.recommender import Recommender
from srgnn.vocabulary import Vocabulary

from . import evaluate as evaluation
from .baselines import BASELINES, fit_baselines
from .corpus import Corpus, Split, concatenate
from .history import read_history
from .replay import read_key
from .replay import replay as replay_split
from .report import Report, strongest, to_table

_EXISTING = click.Path(exists=True, path_type=Path)
_SPLIT = click.Choice(["test", "validation"])


@click.command()
@click.argument("artifacts", type=_EXISTING, nargs=-1, required=True, metavar="ARTIFACT...")
@click.option("--corpus", type=_EXISTING, required=True, help="Prepared corpus the artifacts were trained on.")
@click.option("--split", type=_SPLIT, default="test", show_default=True, help="Sessions to judge.")
@click.option(
    "--baselines",
    is_flag=True,
    help="Judge simple methods beside the model: popularity, Markov, item-kNN, session-kNN.",
)
@click.option("--alone", is_flag=True, help="Judge an artifact with habits or neighbours also without them.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the JSON line here.")
@click.option(
    "--report",
    "page",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also write a page to look at, DIR/index.html, and the JSON as DIR/report.json.",
)
@click.option(
    "--against",
    metavar="NAME",
    help="Model that the others are compared with, as the table names it; by default the strongest baseline, or where "
    "there are none the first artifact.",
)
def evaluate(
    artifacts: Sequence[Path],
    corpus: Path,
    split: str,
    baselines: bool,
    alone: bool,
    json_file: Path | None,
    page: Path | None,
    against: str | None,
) -> None:
    """Judge ARTIFACTs on held-out sessions: Recall, MRR, NDCG, coverage, popularity, latency.

    ARTIFACT is an artifact or the folder that holds LATEST. Of several, the first is the report and the others come
    beside it; differences are paired: all models on the same resampled sessions. Choose settings on
    `--split validation`; the test split is for the number you publish.
    """
    if json_file is not None and not json_file.parent.is_dir():
        raise InputError(f"folder {json_file.parent} of --json does not exist: create it first")
    loaded, opened = [load(artifact) for artifact in artifacts], Corpus.open(corpus)
    models = _named(loaded)
    beside = _alone(models, loaded) if alone else {}
    check_against(against, [*models, *beside, *(BASELINES if baselines else ())])
    for each in loaded:
        check_vocabulary(each.recommender.vocabulary, opened.vocabulary, each.path, corpus)
    write = None if page is None else _page_writer(page, loaded, opened, alone=alone)
    for each in loaded:
        click.echo(f"evaluating {each.name} on the {split} split of {corpus}", err=True)
        _warn_if_trained_on(each.recommender, opened, split)
    report = evaluate_on(models, opened, split, beside=beside, baselines=baselines, against=against)
    result = {"artifact": loaded[0].name, "corpus": str(corpus), **report.to_json()}
    if json_file is not None:
        _write_json(json_file, result)
    if page is not None and write is not None:
        _write_json(page / "report.json", result)
        write(report)
        click.echo(f"the page is {page / 'index.html'}", err=True)
    click.echo(to_table(report))
    emit(result)


def _named(loaded: Sequence[Artifact]) -> dict[str, Recommender]:
    """Artifacts by the names that tables give them. Raises InputError where one is given twice."""
    if len(loaded) == 1:
        return {"sr-gnn": loaded[0].recommender}
    models = {each.name: each.recommender for each in loaded}
    if len(models) < len(loaded):
        raise InputError(f"an artifact is given twice: {', '.join(each.name for each in loaded)}. Give each once")
    return models


def _alone(models: Mapping[str, Recommender], loaded: Sequence[Artifact]) -> dict[str, Recommender]:
    """Those with evidence beside the model, with less of it. Raises InputError where there are none."""
    found = {
        f"{name} {less}": load(each.path, beside=used).recommender
        for name, each in zip(models, loaded, strict=True)
        for less, used in _with_less(each).items()
    }
    if not found:
        raise InputError(
            "--alone, but no artifact has habits or neighbours: leave it out, or train with training.habits=true"
        )
    return found


def _with_less(artifact: Artifact) -> dict[str, Used]:
    """What may be left of the evidence in an artifact, by the words that tables have for it."""
    there = {HABITS, NEIGHBOURS} & set(artifact.manifest["files"])
    less: dict[str, Used] = {"+ habits": "habits"} if len(there) == 2 else {}
    return less | ({"alone": "nothing"} if there else {})


def check_against(against: str | None, names: Sequence[str]) -> None:
    """Raise InputError unless ``against`` is one of several names."""
    if against is None:
        return
    if against not in names:
        raise InputError(f"--against {against!r} is not judged here: expected one of {', '.join(names)}")
    if len(names) == 1:
        raise InputError(f"--against {against!r} is the only model: add --baselines or another artifact")


def _page_writer(folder: Path, loaded: Sequence[Artifact], corpus: Corpus, *, alone: bool) -> Callable[[Report], None]:
    """Everything that can go wrong with a page goes wrong now, not after the evaluation."""
    from .page import write  # brings matplotlib, which no other evaluation needs

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--report {folder} cannot be made: {error.strerror}. Give a folder to write to") from error
    histories = [read_history(each) for each in loaded]
    if alone:  # the same training, drawn once
        less = [(history, name) for history, each in zip(histories, loaded, strict=True) for name in _with_less(each)]
        histories += [one._replace(artifact=f"{one.artifact} {name}", epochs=(), chosen=None) for one, name in less]
    return lambda report: write(folder, report, histories, corpus)


def _write_json(file: Path, result: Mapping[str, Any]) -> None:
    with replaced_when_whole(file) as partial:
        partial.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def evaluate_on(
    models: Mapping[str, Recommender],
    corpus: Corpus,
    split: str,
    *,
    beside: Mapping[str, Recommender] | None = None,
    baselines: bool = False,
    against: str | None = None,
) -> Report:
    """Report of the first model on one split, with further models and the baselines inside it, and how all compare.

    Those ``beside`` are no steps of the ladder from the first model to the last.
    What came before the split is what may be counted: train for validation, train and validation for test.
    A model that was not refitted on validation therefore meets baselines that know more recent clicks than
    it does.
    """
    known, counted_on = _before(corpus, split)
    setting = evaluation.Setting(split, str(corpus.manifest.get("protocol")), counted_on)
    counts = np.bincount(known.items, minlength=len(corpus.vocabulary)).astype(np.int64)
    judged: Split = getattr(corpus, split)
    first, *others = [*models, *(beside or {})]
    rivals = fit_baselines(models[first].vocabulary, models[first].rules, known) if baselines else {}
    recommenders = {**models, **(beside or {}), **rivals}
    found = {
        name: evaluation.evaluate(one, judged, item_counts=counts, setting=setting, model=name)
        for name, one in recommenders.items()
    }
    reports = {
        name: replace(
            one.report, seen_in_training=name not in rivals and _trained_on(recommenders[name], corpus, split)
        )
        for name, one in found.items()
    }
    against = against or (strongest([reports[name] for name in rivals]) or [reports[first]])[0].model
    return replace(
        reports[first],
        models={name: reports[name] for name in others},
        baselines={name: reports[name] for name in rivals},
        differences=evaluation.compare(found, [(name, against) for name in found if name != against]),
        ladder=evaluation.compare(found, [(later, earlier) for earlier, later in pairwise(models)]),
    )


def _before(corpus: Corpus, split: str) -> tuple[Split, str]:
    """Everything that happened before ``split``, and the splits it consists of."""
    if split == "test":
        return concatenate(corpus.train, corpus.validation), "train+validation"
    return corpus.train, "train"


def check_vocabulary(model: Vocabulary, corpus: Vocabulary, artifact: Path, folder: Path) -> None:
    """Raise DataError unless artifact and corpus give every row the same item."""
    if model == corpus:
        return
    row = next(
        (i for i, (ours, theirs) in enumerate(zip(model.ids, corpus.ids, strict=False)) if ours != theirs),
        min(len(model), len(corpus)),
    )
    found = [repr(ids[row]) if row < len(ids) else "nothing" for ids in (model.ids, corpus.ids)]
    raise DataError(
        f"artifact {artifact} and corpus {folder} differ in vocabulary: {len(model)} and {len(corpus)} "
        f"items; row {row} is {found[0]} in the artifact and {found[1]} in the corpus. Give the corpus "
        "the artifact was trained on, or train on this corpus"
    )


def _trained_on(recommender: Recommender, corpus: Corpus, split: str) -> bool:
    """Whether an artifact was refitted on the sessions of ``split``: it then counts more clicks than train has."""
    return split == "validation" and bool(recommender.fallback.clicks.sum() > corpus.train.num_clicks)


def _warn_if_trained_on(recommender: Recommender, corpus: Corpus, split: str) -> None:
    if _trained_on(recommender, corpus, split):
        click.echo(
            "warning: this artifact was refitted on train + validation, so it has seen these sessions; "
            "its numbers on them are too good",
            err=True,
        )


@click.command()
@click.option("--corpus", type=_EXISTING, required=True, help="Prepared corpus to take sessions from.")
@click.option("--url", required=True, help="Where the service listens, for example http://localhost:8000")
@click.option("--split", type=_SPLIT, default="test", show_default=True, help="Sessions to replay.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N sessions.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Sessions at once.")
@click.option("--key-file", type=click.File(), help="File that holds an API key with scope click; - is stdin.")
def replay(corpus: Path, url: str, split: str, limit: int | None, concurrency: int, key_file: TextIO | None) -> None:
    """Replay held-out sessions click by click against a running service and judge its answers."""
    opened = Corpus.open(corpus)
    headers = {"Authorization": f"Bearer {read_key(key_file)}"} if key_file else {}
    try:
        client = httpx.Client(base_url=url, timeout=30.0, headers=headers)
    except httpx.InvalidURL as error:
        raise InputError(f"--url {url!r} is not a URL ({error}): expected http://host:port") from error
    with client:
        sessions: Split = getattr(opened, split)
        result = replay_split(sessions, opened.vocabulary, client, limit=limit, concurrency=concurrency)
    for message in result.errors[:5]:
        click.echo(f"failed click: {message}", err=True)
    summary: dict[str, Any] = {"url": url, "split": split, **result.to_json()}
    click.echo(_summary(summary))
    emit(summary)


def _summary(found: dict[str, Any]) -> str:
    sources = ", ".join(f"{100 * share:.1f} % {name}" for name, share in found["sources"].items())
    latency = ", ".join(f"{name} {value:.1f}" for name, value in found["latency_ms"].items())
    return (
        f"{found['n']:,} clicks of {found['sessions']:,} {found['split']} sessions against {found['url']}\n"
        f"Recall@20 {100 * found['recall@20']:.2f} %, MRR@20 {100 * found['mrr@20']:.2f} %\n"
        f"latency in ms: {latency}; {found['clicks_per_second']:,.0f} clicks/s\n"
        f"answered by {sources or 'nothing'}; {found['degraded']:,} degraded, {found['errors']:,} failed"
    )
