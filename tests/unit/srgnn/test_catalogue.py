import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srgnn import catalogue as module
from srgnn.catalogue import Catalogue
from srgnn.errors import InputError
from srgnn.loops.evidence import Pairs
from srgnn.scan import CompiledInt8Scan, Int8Scan, int8_is_native, quantise


def catalogue(matrix, servable, scan="float32"):
    """A catalogue searched in the given way, also where this processor would be slow at it."""
    made = Catalogue(matrix, servable)
    if scan != "float32":
        scan_type = Int8Scan if scan == "int8" else CompiledInt8Scan
        made.scan = scan_type(made.matrix, quantise(made.matrix), np.flatnonzero(~made.servable.numpy()))
    assert made.scan.name == scan
    return made


any_catalogue = given(
    num_items=st.integers(1, 300),
    k=st.integers(1, 40),
    seed=st.integers(0, 1000),
    copies=st.booleans(),
    width=st.sampled_from([20, 70]),
    sessions=st.sampled_from([1, 5, 17]),
)
every_scan = pytest.mark.parametrize("scan", ["float32", "int8-compiled", *(["int8"] if int8_is_native() else [])])


def exact_order(matrix, servable, vector, exclude=()):
    """Every servable row by (score falling, row rising), in float64, the slow way."""
    scores = (matrix.double() * vector).sum(1).tolist()
    rows = [row for row in range(len(matrix)) if servable[row] and row not in exclude]
    return sorted(rows, key=lambda row: (-scores[row], row)), scores


def make(num_items=300, width=20, sessions=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(num_items, width, generator=generator)
    vectors = torch.randn(sessions, width, generator=generator, dtype=torch.float64)
    servable = torch.rand(num_items, generator=generator) > 0.1
    return matrix, servable, vectors


@every_scan
@any_catalogue
@settings(max_examples=60)
def test_top_k_is_the_sorted_catalogue(scan, num_items, k, seed, copies, width, sessions):
    matrix, servable, vectors = make(num_items, width, sessions, seed)
    if copies:
        matrix[:] = matrix[: 1 + num_items // 7].repeat(8, 1)[:num_items]  # masses of exact ties
    k = min(k, num_items)
    exclude = [np.unique(np.arange(i, num_items, 3)) for i in range(len(vectors))]
    top = catalogue(matrix, servable, scan).top_k(vectors, k, exclude)
    for i, vector in enumerate(vectors):
        order, scores = exact_order(matrix, servable, vector, set(exclude[i].tolist()))
        wanted = order[:k]
        assert top.rows[i].tolist() == wanted + [-1] * (k - len(wanted))
        np.testing.assert_allclose(top.scores[i, : len(wanted)], [scores[row] for row in wanted], rtol=1e-5)
        assert np.isneginf(top.scores[i, len(wanted) :]).all()


def random_bonuses(num_items, sessions, seed):
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(num_items)[: rng.integers(0, num_items + 1)] for _ in range(sessions)]
    return [(rows, rng.choice([-1.0, 0.0, 0.5, 3.0], len(rows))) for rows in drawn]


def end_to_end(bonuses):
    rows, scores = zip(*bonuses, strict=True)
    return Pairs(
        np.repeat(np.arange(len(rows)), [len(part) for part in rows]), np.concatenate(rows), np.concatenate(scores)
    )


@every_scan
@any_catalogue
@settings(max_examples=60)
def test_a_bonus_is_part_of_the_score(scan, num_items, k, seed, copies, width, sessions):
    """In lists and in ranks, whatever is excluded, not servable or tied."""
    matrix, servable, vectors = make(num_items, width, sessions, seed)
    if copies:
        matrix[:] = matrix[: 1 + num_items // 7].repeat(8, 1)[:num_items]
    k = min(k, num_items)
    bonuses = random_bonuses(num_items, len(vectors), seed)
    exclude = [np.arange(i, num_items, 3) for i in range(len(vectors))]
    searched = catalogue(matrix, servable, scan)
    free, top = (searched.top_k(vectors, k, left_out, end_to_end(bonuses)) for left_out in (None, exclude))
    for i, vector in enumerate(vectors):
        scores = (matrix.double() * vector).sum(1).numpy()
        rows, added = bonuses[i]
        scores[rows] += added
        order = np.lexsort((np.arange(num_items), -scores))
        order = order[servable.numpy()[order]]
        assert free.rows[i].tolist() == [*order, *[-1] * k][:k]
        left = order[~np.isin(order, exclude[i])]
        assert top.rows[i].tolist() == [*left, *[-1] * k][:k]
        np.testing.assert_allclose(free.scores[i, : len(order)], scores[order[:k]], rtol=1e-5, atol=1e-6)

        targets = np.arange(num_items)
        found = searched.ranks(vectors[i].repeat(num_items, 1), targets, end_to_end([bonuses[i]] * num_items))
        answerable = scores[servable.numpy()]
        for row in order.tolist():
            assert found.rank[row] == (answerable >= scores[row]).sum()
            assert found.ties[row] == (answerable == scores[row]).sum() - 1
        assert (found.rank[~servable.numpy()] == num_items).all()


@given(num_items=st.integers(2, 300), seed=st.integers(0, 1000), copies=st.booleans())
@settings(max_examples=60)
def test_rank_counts_items_scoring_at_least_as_much(num_items, seed, copies):
    matrix, servable, vectors = make(num_items, seed=seed)
    if copies:
        matrix[:] = matrix[: 1 + num_items // 7].repeat(8, 1)[:num_items]
    targets = np.random.default_rng(seed).integers(0, num_items, len(vectors))
    ranks = Catalogue(matrix, servable).ranks(vectors, targets)
    for i, target in enumerate(targets.tolist()):
        _, scores = exact_order(matrix, servable, vectors[i])
        if servable[target]:
            rivals = [scores[row] for row in range(num_items) if servable[row]]
            assert ranks.rank[i] == sum(score >= scores[target] for score in rivals)
            assert ranks.ties[i] == sum(score == scores[target] for score in rivals) - 1
        else:
            assert ranks.rank[i] == num_items


@every_scan
def test_scores_too_close_for_the_scan_are_still_ordered(scan):
    matrix = torch.full((500, 16), 4.0)
    matrix[:, 0] = 1.0 + torch.arange(500) * 2.0**-23  # neighbours differ in the last bit
    vector = torch.full((1, 16), 1e3, dtype=torch.float64)
    top = catalogue(matrix, torch.ones(500), scan).top_k(vector, 10)
    assert top.rows[0].tolist() == list(range(499, 489, -1))


@every_scan
def test_every_scan_gives_the_same_bits(scan):
    matrix, servable, vectors = make(num_items=2000, width=32, sessions=50)
    wanted, found = catalogue(matrix, servable).top_k(vectors, 20), catalogue(matrix, servable, scan).top_k(vectors, 20)
    assert found.rows.tolist() == wanted.rows.tolist()
    assert found.scores.tolist() == wanted.scores.tolist()


@every_scan
def test_few_items_are_scored_exactly(scan, monkeypatch):
    matrix, servable, vectors = make(num_items=20_000, width=64, sessions=1)
    counts = []
    before = module.best_of_block

    def counting(*arguments):
        rows, scores, scored = before(*arguments)
        counts.append(scored)
        return rows, scores, scored

    monkeypatch.setattr(module, "best_of_block", counting)
    catalogue(matrix, servable, scan).top_k(vectors, 20)
    assert 20 <= sum(counts) < 400


@every_scan
@pytest.mark.parametrize("width", [20, 70])
def test_blocks_do_not_change_answers(scan, width, monkeypatch):
    matrix, servable, vectors = make(width=width, sessions=7)
    exclude = [np.array([i, 200 + i]) for i in range(7)]
    bonuses = end_to_end(random_bonuses(300, 7, seed=0))
    searched = catalogue(matrix, servable, scan)
    whole = searched.top_k(vectors, 5, exclude, bonuses)
    monkeypatch.setattr(module, "SESSIONS_AT_ONCE", 3)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 2 * 3 * searched.scan.at_once)  # two groups of three sessions
    assert len(list(searched._blocks(3))) == 5
    parts = searched.top_k(vectors, 5, exclude, bonuses)
    assert whole.rows.tolist() == parts.rows.tolist()
    assert whole.scores.tolist() == parts.scores.tolist()


def test_ranks_do_not_depend_on_blocks(monkeypatch):
    matrix, servable, vectors = make(sessions=7)
    targets = np.arange(7)
    whole = Catalogue(matrix, servable).ranks(vectors, targets)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 700)  # two sessions at a time
    parts = Catalogue(matrix, servable).ranks(vectors, targets)
    assert (whole.rank == parts.rank).all()
    assert (whole.ties == parts.ties).all()


@pytest.mark.parametrize("k", [0, -1, 301])
def test_k_out_of_bounds_is_refused(k):
    matrix, servable, vectors = make()
    with pytest.raises(InputError, match=f"k is {k}: the catalogue has 300 items"):
        Catalogue(matrix, servable).top_k(vectors, k)
