import numpy as np
import torch

from srgnn.blend import BlendScorer, BlendWeights
from srgnn.habits import learn
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.neighbours import Neighbours
from srgnn.scorer import SRGNNScorer
from srgnn.sequence import SessionRules
from srgnn.session_index import SessionIndex
from tests.corpora import split_of
from training.blend import MODEL_AT_LEAST, fit_blend
from training.examples import Examples

ITEMS = 60
RULES = SessionRules(max_length=6)


def untrained():
    """A model that knows nothing, of a catalogue of which all may be answered."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SRGNN(SRGNNConfig(hidden_size=8, scoring="cosine"), ITEMS, RULES.max_length).eval()
    return SRGNNScorer.of_model(model, np.ones(ITEMS, bool))


def neighbours_of(split):
    return Neighbours(SessionIndex.build(np.asarray(split.items, dtype=np.int64), split.offsets, ITEMS))


def walks(seed, count):
    """Sessions in which each click is followed by the next item."""
    starts = np.random.default_rng(seed).integers(0, ITEMS, count).tolist()
    return split_of([[(start + i) % ITEMS for i in range(4)] for start in starts])


def test_votes_count_where_neighbours_know_better_than_the_model():
    model, neighbours = untrained(), neighbours_of(walks(0, 300))
    examples = Examples(walks(1, 100), RULES)
    weights = fit_blend(model, neighbours, examples, seed=1)
    assert weights.votes > 0
    assert weights.clicked + weights.last < weights.votes  # nobody comes back here
    indices = np.arange(len(examples))
    sequences, targets = examples.sequences(indices), examples.targets
    alone = (model.ranks(sequences, targets).rank <= 3).mean()
    blended = (BlendScorer(model, neighbours, weights).ranks(sequences, targets).rank <= 3).mean()
    assert alone < 0.2
    assert blended > 0.95


def test_clicks_count_where_visitors_come_back():
    sessions = [[row, (7 * row + 1) % ITEMS, row, (7 * row + 1) % ITEMS, row] for row in range(ITEMS)]
    weights = fit_blend(untrained(), neighbours_of(walks(0, 300)), Examples(split_of(sessions), RULES), seed=1)
    assert weights.clicked > 0
    assert weights.last < 0  # but never to what they look at


def test_a_useless_model_does_not_turn_the_others_around():
    model, neighbours = untrained(), neighbours_of(walks(0, 300))
    turned = SRGNNScorer.of_model(SRGNN(model.config, ITEMS, RULES.max_length).eval(), np.ones(ITEMS, bool))
    weights = fit_blend(turned, neighbours, Examples(walks(1, 100), RULES), seed=1)
    assert weights.votes > 0
    assert max(map(abs, vars(weights).values())) < 20 / MODEL_AT_LEAST


def test_the_same_seed_fits_the_same_weights():
    model, neighbours, examples = untrained(), neighbours_of(walks(0, 300)), Examples(walks(1, 100), RULES)
    assert fit_blend(model, neighbours, examples, seed=1) == fit_blend(model, neighbours, examples, seed=1)


def test_few_examples_move_the_weights_little():
    model, neighbours = untrained(), neighbours_of(walks(0, 300))
    few, many = (fit_blend(model, neighbours, Examples(walks(1, count), RULES), seed=1) for count in (1, 100))
    assert 0 < few.votes < many.votes


def test_without_an_example_that_tells_anything_neighbours_count_nothing():
    unservable = np.ones(ITEMS, bool)
    unservable[3] = False
    model = untrained()
    model = SRGNNScorer.of_model(SRGNN(model.config, ITEMS, RULES.max_length).eval(), unservable)
    weights = fit_blend(model, neighbours_of(walks(0, 50)), Examples(split_of([[1, 3]]), RULES), seed=1)
    assert weights == BlendWeights()


def test_habits_count_where_sessions_of_a_shape_go_on_alike():
    sessions = split_of([[row, row, other, other, third, third] for row, other, third in random_triples(0, 400)])
    examples = Examples(sessions, RULES)
    habits = learn(*examples.batch(np.arange(len(examples))))
    nobody = Neighbours.nobody(ITEMS)
    held_out = Examples(split_of([[a, a, b, b, c, c] for a, b, c in random_triples(1, 50)]), RULES)
    weights = fit_blend(untrained(), nobody, held_out, seed=1, habits=habits)
    assert weights.habit > 0.5
    assert weights.votes == 0
    scorer, indices = BlendScorer(untrained(), nobody, weights, habits), np.arange(len(held_out))
    first = scorer.ranks(held_out.sequences(indices), held_out.targets).rank == 1
    comes_back = held_out.positions % 2 == 1
    assert first[comes_back].all()
    assert first[~comes_back].mean() < 0.1  # by chance


def random_triples(seed, count):
    rng = np.random.default_rng(seed)
    return [rng.permutation(ITEMS)[:3].tolist() for _ in range(count)]
