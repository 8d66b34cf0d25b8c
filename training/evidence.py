"""What stands beside a model that has been chosen, fitted on the sessions that chose it."""

from dataclasses import asdict, replace

import click
import numpy as np

from srgnn.blend import BlendScorer, BlendWeights
from srgnn.habits import NO_HABITS
from srgnn.loops import FloatArray
from srgnn.loops.habits import Habits
from srgnn.neighbours import Neighbours
from srgnn.scorer import SRGNNScorer

from . import trend
from .blend import announce, fit_blend
from .corpus import Corpus
from .examples import Examples
from .product import habits_of, neighbours_of, pace_of, trend_of
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
    examples = Examples(corpus.validation, run.recipe.rules)
    model = _chosen(run, corpus, trend_of(corpus.train, num_items))
    for name in wanted:
        voters, habits = _beside_chosen(run, corpus, name)
        weights = fit_blend(model, voters, examples, config.seed, habits)
        run.blend[name] = asdict(weights)
        run.blended[name] = figures(BlendScorer(model, voters, weights, habits), examples)
        announce(name, weights, run.selected, run.blended[name])


def learn_trend(run: Run, corpus: Corpus) -> None:
    """Items' trends by what earlier validation sessions tell, where later ones are answered better for it than by the
    formula. All other weights stay as they are."""
    seed, num_items = run.recipe.training.seed, run.model.num_items
    examples, last = Examples(corpus.validation, run.recipe.rules), [*run.blend][-1]
    earlier = int(np.searchsorted(examples.session, examples.session[int(trend.EARLIER_SHARE * len(examples))]))
    formula, paces = trend_of(corpus.train, num_items), pace_of(corpus.train, num_items)
    voters, habits = _beside_chosen(run, corpus, last)
    before = BlendScorer(_chosen(run, corpus, formula), voters, BlendWeights(**run.blend[last]), habits)
    choices = trend.lists(before, formula, examples)
    taught_by = choices.until(earlier)
    if min(len(taught_by.chosen), len(examples) - earlier) < trend.AT_LEAST:
        click.echo(f"trend: by the formula, {len(examples)} validation clicks are too few to learn it", err=True)
        return
    learnt = trend.learn(taught_by, paces, seed).of_items(paces)
    after = BlendScorer(_chosen(run, corpus, learnt), voters, replace(before.weights, trend=1.0), habits)
    run.judged = {"formula": figures(before, examples, earlier), "learnt": figures(after, examples, earlier)}
    better = sum(run.judged["learnt"].values()) > sum(run.judged["formula"].values())
    trend.announce(run.judged, better)
    if better:
        run.trend = {
            name: each.detach().clone() for name, each in trend.learn(choices, paces, seed).state_dict().items()
        }
        run.blend = {name: weights | {"trend": 1.0} for name, weights in run.blend.items()}


def _chosen(run: Run, corpus: Corpus, values: FloatArray) -> SRGNNScorer:
    """The model of the best epoch, with a trend [V] beside it."""
    run.model.load_state_dict(run.best)
    run.model.eval()
    servable = np.bincount(corpus.train.items, minlength=run.model.num_items) > 0
    return SRGNNScorer.of_model(run.model, servable, values)


def _beside_chosen(run: Run, corpus: Corpus, name: str) -> tuple[Neighbours, Habits]:
    """The evidence of a name in ``run.blend``."""
    num_items = run.model.num_items
    voters = neighbours_of(corpus.train, num_items) if name == "neighbours" else Neighbours.nobody(num_items)
    return voters, habits_of(corpus.train, run.recipe.rules) if run.recipe.training.habits else NO_HABITS
