import builtins
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srgnn import ann
from srgnn.catalogue import Catalogue
from srgnn.errors import ArtifactError, ConfigError, InputError


def make(num_items=300, width=8, sessions=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(num_items, width, generator=generator)
    vectors = torch.randn(sessions, width, generator=generator, dtype=torch.float64)
    servable = torch.rand(num_items, generator=generator) > 0.1
    return matrix, servable, vectors


def built(matrix, servable, lists=6, probes=None):
    index = ann.build(matrix, servable.numpy(), lists, shown=False)
    index.probes = probes or lists
    return index


def indexed(matrix, servable, **settings):
    return Catalogue(matrix, servable, index=built(matrix, servable, **settings))


@given(width=st.integers(1, 9), k=st.integers(1, 40), seed=st.integers(0, 100), excluded=st.booleans())
@settings(max_examples=20)
def test_in_all_lists_the_answer_is_the_exact_one(width, k, seed, excluded):
    matrix, servable, vectors = make(width=width, seed=seed)
    exclude = [np.arange(i, 300, 1 + i) for i in range(len(vectors))] if excluded else None
    wanted = Catalogue(matrix, servable).top_k(vectors, k, exclude)
    found = indexed(matrix, servable).top_k(vectors, k, exclude)
    assert found.rows.tolist() == wanted.rows.tolist()
    assert found.scores.tolist() == wanted.scores.tolist()


def test_excluded_items_leave_their_places_to_others_inside_the_search(monkeypatch):
    monkeypatch.setattr(ann, "CANDIDATES", 20)
    matrix, _, vectors = make(num_items=2000)
    catalogue = indexed(matrix, torch.ones(2000, dtype=torch.bool), probes=6)
    best = catalogue.top_k(vectors, 20)
    rest = catalogue.top_k(vectors, 20, [rows for rows in best.rows])  # as many as are looked for at all
    assert (rest.rows >= 0).all()
    for first, second in zip(best.rows, rest.rows, strict=True):
        assert not set(first) & set(second)


def test_items_that_may_not_be_answered_are_not_in_the_index():
    matrix, servable, vectors = make()
    _, rows = built(matrix, servable).near(vectors, 20, None)
    assert servable[rows].all()
    assert len(np.unique(rows)) == servable.sum()


def test_few_lists_that_hold_too_few_are_not_the_last_word():
    matrix, servable, vectors = make()
    top = indexed(matrix, servable, lists=30, probes=1).top_k(vectors, 200)
    assert (top.rows >= 0).all()


def test_fewer_than_k_are_answered_only_where_no_more_may_be():
    matrix, servable, vectors = make()
    top = indexed(matrix, servable, probes=1).top_k(vectors[:1], 20, [np.arange(290)])
    assert sorted(top.rows[0].tolist()) == sorted([row for row in range(290, 300) if servable[row]] + [-1] * (
        20 - int(servable[290:].sum())
    ))  # fmt: skip


def test_an_answer_does_not_depend_on_its_batch():
    matrix, servable, vectors = make(num_items=3000, sessions=40)
    catalogue = indexed(matrix, servable, lists=40, probes=3)
    together = catalogue.top_k(vectors, 20)
    alone = [catalogue.top_k(vectors[i : i + 1], 20) for i in range(40)]
    assert together.rows.tolist() == [top.rows[0].tolist() for top in alone]
    assert together.scores.tolist() == [top.scores[0].tolist() for top in alone]


def test_ranks_stay_exact():
    matrix, servable, vectors = make(num_items=3000)
    targets = np.arange(5)
    wanted = Catalogue(matrix, servable).ranks(vectors, targets)
    found = indexed(matrix, servable, lists=40, probes=1).ranks(vectors, targets)
    assert found.rank.tolist() == wanted.rank.tolist()


def test_the_fewest_lists_that_find_enough_are_chosen():
    matrix, servable, vectors = make(num_items=3000, sessions=100)
    index = built(matrix, servable, lists=40)
    best = Catalogue(matrix, servable).top_k(vectors, 20).rows
    found = ann.choose_probes(index, vectors, best, 0.9)
    assert 0.9 <= found < 1
    assert found == ann._recall(index, vectors, best)
    index.probes -= 1
    assert ann._recall(index, vectors, best) < 0.9


def test_a_recall_that_all_lists_do_not_give_is_refused():
    matrix, servable, vectors = make()
    best = np.tile(np.flatnonzero(~servable.numpy())[:2], (len(vectors), 1))  # not in the index
    with pytest.raises(InputError, match=r"recall 0\.5 is not reached in all 6 lists \(found 0\.0000\)"):
        ann.choose_probes(built(matrix, servable), vectors, best, 0.5)


def test_an_index_is_read_as_it_was_written(tmp_path):
    matrix, servable, vectors = make(num_items=3000)
    index = built(matrix, servable, lists=40, probes=3)
    index.write(tmp_path / "index.faiss")
    read = ann.IVF.read(tmp_path / "index.faiss", servable.numpy(), 8)
    assert (read.lists, read.probes) == (40, 3)
    assert [pairs.tolist() for pairs in read.near(vectors, 20, None)] == [
        pairs.tolist() for pairs in index.near(vectors, 20, None)
    ]


def test_an_index_of_another_catalogue_is_refused(tmp_path):
    matrix, servable, _ = make()
    built(matrix, servable).write(tmp_path / "index.faiss")
    other = servable.clone()
    other[:2] = ~other[:2]
    for flags, width in ((servable, 9), (other, 8), (servable[:200], 8), (servable.roll(1), 8)):
        with pytest.raises(ArtifactError, match="not of this catalogue: build it again with `srgnn index`"):
            ann.IVF.read(tmp_path / "index.faiss", flags.numpy(), width)


def test_a_file_that_is_no_index_is_refused(tmp_path):
    (tmp_path / "index.faiss").write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="cannot be read"):
        ann.IVF.read(tmp_path / "index.faiss", np.ones(3, bool), 8)


def test_a_length_beyond_the_file_is_refused_before_memory_is_asked_for(tmp_path):
    matrix, servable, _ = make()
    built(matrix, torch.ones_like(servable), lists=1).write(tmp_path / "index.faiss")
    content = (tmp_path / "index.faiss").read_bytes()
    ids = content.index(struct.pack("<4q", 300, 0, 1, 2))  # their number, then they
    (tmp_path / "index.faiss").write_bytes(content[:ids] + struct.pack("<q", 1 << 27) + content[ids + 8 :])
    with pytest.raises(ArtifactError, match=r"BlockInvertedLists.* size < "):
        ann.IVF.read(tmp_path / "index.faiss", np.ones(300, bool), 8)


@pytest.mark.parametrize(
    ("name", "value"), [("nprobe", 7), ("nprobe", 0), ("bbs", 64), ("implem", 99), ("qbs2", 1 << 40)]
)
def test_an_index_that_cannot_be_searched_is_refused(tmp_path, name, value):
    matrix, servable, _ = make()
    index = built(matrix, servable)
    setattr(index._index, name, value)
    index.write(tmp_path / "index.faiss")
    with pytest.raises(ArtifactError, match=r"index\.faiss"):
        ann.IVF.read(tmp_path / "index.faiss", servable.numpy(), 8)


def test_lists_are_the_square_root_of_the_items():
    matrix, _, _ = make()
    assert ann.build(matrix, np.ones(300, bool), shown=False).lists == 17


@pytest.mark.parametrize(("num_items", "lists"), [(10, 1), (300, 301)])
def test_a_catalogue_too_small_for_an_index_is_refused(num_items, lists):
    matrix, _, _ = make(num_items)
    with pytest.raises(InputError, match="a catalogue this small needs none"):
        ann.build(matrix, np.ones(num_items, bool), lists, shown=False)


def test_without_faiss_the_remedy_is_told(monkeypatch, tmp_path):
    original = builtins.__import__

    def without_faiss(name, *args, **kwargs):
        if name == "faiss":
            raise ModuleNotFoundError("No module named 'faiss'", name="faiss")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(ConfigError, match=r"pip install 'srgnn\[ann\]'"):
        ann.IVF.read(tmp_path / "index.faiss", np.ones(3, bool), 8)
