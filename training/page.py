"""The page that ``srgnn evaluate --report`` writes: one HTML file with everything in it, no script, no network.

What it says comes from :mod:`.sections`, how that looks from ``templates``.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from srgnn import __version__
from srgnn.atomic import replaced_when_whole

from . import plots
from .corpus import Corpus
from .evaluate import LATENCY_SAMPLE, RESAMPLES
from .history import History
from .report import Report, percent
from .sections import Sections


def write(folder: Path, report: Report, histories: Sequence[History], corpus: Corpus) -> None:
    """Write ``folder/index.html``, whole or not at all."""
    html = render(report, histories, corpus, datetime.now(UTC))
    with replaced_when_whole(folder / "index.html") as partial:
        partial.write_text(html, encoding="utf-8")


def render(report: Report, histories: Sequence[History], corpus: Corpus, when: datetime) -> str:
    """The page as text; ``histories`` are of the report's artifacts, in their order."""
    told = Sections(report, histories)
    environment = Environment(
        loader=PackageLoader("training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=f"{corpus.manifest.get('recipe', corpus.path.name)}, {report.split} split",
        facts=list(_facts(report, corpus, when)),
        best=told.name(told.best.model),
        warning=told.warning(),
        cards=list(told.cards()),
        sections=list(told.sections()),
        looks=[Markup(plots.swatch(look)) for look in told.looks],
        histories=histories,
        counted_on=_spaced(report.counted_on),
        resamples=RESAMPLES,
        latency_sample=LATENCY_SAMPLE,
    )


def _facts(report: Report, corpus: Corpus, when: datetime) -> Iterator[tuple[str, str]]:
    yield "Corpus", str(corpus.path)
    yield "Fingerprint", corpus.fingerprint[:16]
    yield "Split", report.split
    yield "Protocol", report.protocol
    yield "Next clicks", f"{report.n:,}"
    yield "Sessions", f"{report.sessions:,}"
    yield "Items ranked", f"{len(corpus.vocabulary):,}, all for every click"
    yield "Ties", "count against the model"
    yield "Unservable targets", "count as misses"
    yield "Popularity from", _spaced(report.counted_on)
    if bound := corpus.manifest.get("best_achievable_recall@20"):
        yield "Best possible Recall@20", f"{percent(bound)} %, by the simulator"
    yield "Made", f"{when:%Y-%m-%d %H:%M} UTC"
    yield "Software", f"srgnn {__version__}, torch {torch.__version__}, numpy {np.__version__}"
    yield "Machine", f"{platform.machine()}, Python {sys.version.split()[0]}, torch threads: {torch.get_num_threads()}"


def _spaced(splits: str) -> str:
    return splits.replace("+", " + ")
