"""What stands beside a model that has been chosen, fitted on the sessions that chose it."""

from dataclasses import asdict

import click
import numpy as np

from srgnn.blend import BlendScorer
from srgnn.habits import NO_HABITS
from srgnn.neighbours import Neighbours
from srgnn.scorer import SRGNNScorer

from .blend import announce, fit_blend
from .corpus import Corpus
from .examples import Examples
from .product import habits_of, neighbours_of, trend_of
from .run import Run
from .validation import figures


def add_evidence(run: Run, corpus: Corpus) -> None:
    """Fit what evidence counts beside the chosen model, as far as the recipe has it, on the sessions that chose it.

    Without such sessions it is left out: a small log that the default recipe takes is no reason to stop.
    """
    config, num_items = run.recipe.training, run.model.num_items
    wanted = [name for name in ("habits", "neighbours") if getattr(config, name)]
    if not wanted:
        return
    if not corpus.validation.num_examples:
        click.echo(
            f"{' and '.join(wanted)} are left out: {corpus.path} has no validation sessions to say how much they "
            "count. Prepare it with a larger data.validation_share to have them",
            err=True,
        )
        return
    run.model.load_state_dict(run.best)
    run.model.eval()
    servable = np.bincount(corpus.train.items, minlength=num_items) > 0
    model = SRGNNScorer.of_model(run.model, servable, trend_of(corpus.train, num_items, config))
    examples = Examples(corpus.validation, run.recipe.rules)
    habits = habits_of(corpus.train, run.recipe.rules) if config.habits else NO_HABITS
    for name in wanted:
        voters = neighbours_of(corpus.train, num_items) if name == "neighbours" else Neighbours.nobody(num_items)
        weights = fit_blend(model, voters, examples, config.seed, habits)
        run.blend[name] = asdict(weights)
        run.blended[name] = figures(BlendScorer(model, voters, weights, habits), examples)
        announce(name, weights, run.selected, run.blended[name])
