"""What a finished training leaves: the artifact, with where it came from."""

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric

from srgnn import __version__, artifact
from srgnn.blend import NOTHING_BESIDE, Beside, BlendWeights
from srgnn.fallback import Fallback
from srgnn.habits import learn
from srgnn.loops import FloatArray
from srgnn.loops.habits import Habits
from srgnn.neighbours import VOTERS, Neighbours
from srgnn.sequence import SessionRules
from srgnn.session_index import SessionIndex
from srgnn.trend import trend

from .config import TrainingConfig
from .corpus import Corpus, Split, concatenate
from .examples import Examples
from .loss import compute_dtype
from .run import Run
from .trend import learnt_trend

HABIT_EXAMPLES = 1_000_000
"""That habits are learnt from, at most."""


def save_artifact(run: Run, corpus: Corpus, output: Path) -> Path:
    """Write the best weights of ``run`` as an artifact under ``output``; its path."""
    run.model.load_state_dict(run.best)
    refit = run.recipe.training.refit
    seen = concatenate(corpus.train, corpus.validation) if refit else corpus.train
    fallback = Fallback.from_sessions(np.asarray(seen.items), np.asarray(seen.offsets), run.model.num_items)
    return artifact.save(
        output,
        dataset=run.recipe.name,
        model=run.model,
        rules=run.recipe.rules,
        vocabulary=corpus.vocabulary,
        fallback=fallback,
        probe_histories=_probe_histories(corpus),
        provenance=_provenance(run, corpus),
        metrics={
            "validation": run.selected,
            "epoch": run.best_epoch,
            "history": run.history,
            **{f"validation_with_{name}": figures for name, figures in run.blended.items()},
        },
        beside=_beside(run, seen),
        trend=trend_of(seen, run.model.num_items, run.recipe.training) if run.blend else None,
    )


def _beside(run: Run, seen: Split) -> Beside:
    """All evidence that weights were fitted for, of the sessions that were ``seen``."""
    found = NOTHING_BESIDE
    if "habits" in run.blend:
        weights = BlendWeights(**run.blend["habits"])
        found = found._replace(habits=habits_of(seen, run.recipe.rules), habit_weights=weights)
    if "neighbours" in run.blend:
        weights = BlendWeights(**run.blend["neighbours"])
        found = found._replace(neighbours=neighbours_of(seen, run.model.num_items), weights=weights)
    return found


def _probe_histories(corpus: Corpus) -> list[list[str]]:
    split = corpus.validation if corpus.validation.num_sessions else corpus.train
    chosen = np.linspace(0, split.num_sessions - 1, artifact.PROBES - 1).astype(int)
    return [[corpus.vocabulary.ids[row] for row in split.session(i).tolist()] for i in chosen.tolist()]


def _provenance(run: Run, corpus: Corpus) -> dict[str, Any]:
    recipe, about = run.recipe.as_dict(), {k: v for k, v in corpus.manifest.items() if k not in ("files", "settings")}
    # What shaped the clicks is what the corpus says: its settings may not be those of this recipe.
    shaped = {name: corpus.manifest.get("settings", {}).get(name) for name in ("data", "columns", "synthetic")}
    return {
        "recipe": recipe | shaped,
        "corpus": {"fingerprint": corpus.fingerprint, **about},
        "trained_on": ["train", "validation"] if run.recipe.training.refit else ["train"],
        "seconds": round(run.seconds, 1),
        "device": torch.cuda.get_device_name() if run.device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "precision": str(compute_dtype(run.recipe.training.precision, run.device)).removeprefix("torch."),
        "software": {
            "srgnn": __version__,
            "torch": torch.__version__,
            "torch_geometric": torch_geometric.__version__,
            "python": sys.version.split()[0],
        },
    }


def neighbours_of(split: Split, num_items: int) -> Neighbours:
    """The sessions of ``split``, as those that vote."""
    items = np.asarray(split.items, dtype=np.int64)
    return Neighbours(SessionIndex.build(items, np.asarray(split.offsets), num_items), VOTERS)


def trend_of(split: Split, num_items: int, config: TrainingConfig) -> FloatArray:
    """[V]: as the recipe wants it."""
    items, offsets = np.asarray(split.items, dtype=np.int64), np.asarray(split.offsets)
    if config.learn_trend:
        return learnt_trend(items, offsets, num_items, config.seed)
    return trend(items, offsets, num_items)


def habits_of(split: Split, rules: SessionRules) -> Habits:
    """Of the latest examples of ``split``."""
    examples = Examples(split, rules)
    first = max(0, len(examples) - HABIT_EXAMPLES)
    return learn(*examples.batch(np.arange(first, len(examples))))
