from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from srgnn import scan as module
from srgnn.loops.layout import GROUP, LANES
from srgnn.loops.products import score_rows
from srgnn.scan import (
    NO_ROWS,
    CompiledInt8Scan,
    Float32Scan,
    Int8Scan,
    Quantised,
    choose_scan,
    int8_is_native,
    num_groups,
    quantise,
)

INT8 = [Int8Scan, CompiledInt8Scan] if int8_is_native() else [CompiledInt8Scan]


def make(num_items=300, width=20, sessions=5, seed=0):
    """Items and sessions of lengths that differ by six orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 10 ** torch.empty(num_items, 1).uniform_(-3, 3, generator=generator)
    matrix = torch.randn(num_items, width, generator=generator) * lengths
    vectors = torch.randn(sessions, width, generator=generator, dtype=torch.float64) * 10.0 ** (seed % 7 - 3)
    return matrix, vectors


def scans(matrix, unanswerable=NO_ROWS):
    quantised = quantise(matrix)
    made = [Float32Scan(matrix, unanswerable)]
    return made if matrix.shape[1] < LANES else [*made, *(scan(matrix, quantised, unanswerable) for scan in INT8)]


def unit(scan, vectors):
    """What one rough point is worth in each session: [b, 1]."""
    return vectors.abs().amax(dim=1, keepdim=True).clamp_min(1e-300) / 127 if scan.name != "float32" else 1.0


@njit
def scored(searched, asking, session, first, out):
    score_rows(searched, asking, session, first, out)


def rough(scan, query, sessions, groups):
    """Of single rows: float64 [sessions, rows of the groups]."""
    dtype = np.float32 if scan.name == "float32" else np.int32
    scores = np.empty((sessions, (groups.stop - groups.start) * GROUP), dtype)
    for session in range(sessions):
        scored(scan.searched, query.asking, session, groups.start * GROUP, scores[session : session + 1])
    return torch.from_numpy(scores).double()


def scores_and_errors(scan, vectors, num_items, groups=None):
    """Scores in each session's unit and their bound, both float64 [b, items of the groups]."""
    groups = groups or slice(0, num_groups(num_items))
    query = scan.query(vectors)
    scales = torch.from_numpy(scan.groups(groups).scales).repeat_interleave(GROUP)
    scores = rough(scan, query, len(vectors), groups) * scales
    error = torch.from_numpy(error_of(scan, query, groups)).repeat_interleave(GROUP, dim=1)
    kept = num_items - groups.start * GROUP
    return scores[:, :kept], error[:, :kept]


def error_of(scan, query, groups):
    """The bound, [b, G]."""
    on_longest, on_residual, _ = query.margins
    _, longest, residual = scan.groups(groups)
    return on_longest[:, None] * longest + on_residual[:, None] * residual


@given(num_items=st.integers(1, 300), width=st.integers(2, 200), seed=st.integers(0, 1000))
def test_no_score_is_further_off_than_the_bound(num_items, width, seed):
    matrix, vectors = make(num_items, width, seed=seed)
    for scan in scans(matrix):
        exact = vectors @ matrix.double().T / unit(scan, vectors)
        scores, error = scores_and_errors(scan, vectors, num_items)
        assert bool(((scores - exact).abs() <= error).all()), scan.name


@given(num_items=st.integers(1, 300), width=st.integers(2, 200), seed=st.integers(0, 1000), sessions=st.integers(1, 20))
def test_the_best_of_a_group_is_that_of_its_rows_within_the_bound(num_items, width, seed, sessions):
    matrix, vectors = make(num_items, width, sessions, seed)
    whole = slice(0, num_groups(num_items))
    unanswerable = np.arange(0, num_items, 3)
    answerable = torch.ones(whole.stop * GROUP, dtype=torch.bool)
    answerable[unanswerable] = answerable[num_items:] = False
    exact = torch.full((sessions, whole.stop * GROUP), -torch.inf, dtype=torch.float64)
    exact[:, :num_items] = vectors @ matrix.double().T
    exact[:, ~answerable] = -torch.inf
    for scan in scans(matrix, unanswerable):
        query, scales = scan.query(vectors), torch.from_numpy(scan.groups(whole).scales)
        found = torch.from_numpy(scan.bests(query, whole))
        wanted = exact.view(sessions, -1, GROUP).amax(dim=2) / unit(scan, vectors)
        nothing = wanted.isneginf()
        assert bool((found[nothing] <= scan.low).all()), scan.name
        off = (found * scales - wanted).abs() <= torch.from_numpy(error_of(scan, query, whole))
        assert bool((off | nothing).all()), scan.name
        assert bool((found[~nothing] > scan.low).all())


def test_the_bound_is_tight_enough_to_be_of_use():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.nn.functional.normalize(torch.randn(1000, 100, generator=generator))
    vectors = torch.randn(10, 100, generator=generator, dtype=torch.float64)
    for scan, share in zip(scans(matrix), (1e-4, 0.03, 0.03), strict=False):
        _, error = scores_and_errors(scan, vectors, 1000)
        assert bool((error * unit(scan, vectors) < share * vectors.norm(dim=1, keepdim=True)).all())


def test_an_item_of_unusual_length_loosens_the_bound_of_its_own_group_only():
    matrix, vectors = torch.ones(10 * GROUP, 16), torch.ones(1, 16, dtype=torch.float64)
    matrix[3 * GROUP] = 1000.0
    for scan in scans(matrix):
        error = error_of(scan, scan.query(vectors), slice(0, 10))[0]
        assert error[3] > 100 * error[2]
        assert bool((error[[0, 1, 2, 4, 5, 6, 7, 8, 9]] == error[0]).all())


def test_a_part_of_the_catalogue_is_scored_as_in_the_whole():
    matrix, vectors = make()
    for scan in scans(matrix):
        whole, error = scores_and_errors(scan, vectors, 300)
        for groups in (slice(0, 2), slice(4, 7), slice(9, 10)):
            rows = slice(groups.start * GROUP, min(groups.stop * GROUP, 300))
            part, part_error = scores_and_errors(scan, vectors, 300, groups)
            assert bool(((part - whole[:, rows]).abs() <= error[:, rows]).all())
            assert bool((part_error == error[:, rows]).all())


def test_scores_in_float32_are_in_memory_of_the_thread_which_it_uses_again():
    matrix, vectors = make()
    scan, whole = Float32Scan(matrix), slice(0, 300 // GROUP)  # what comes after may be anything
    first = scan.rough(scan.query(vectors), whole)
    kept = first.copy()
    with ThreadPoolExecutor(1) as other:
        others = other.submit(scan.rough, scan.query(-vectors), whole).result()
    assert not np.shares_memory(others, first)
    assert (first == kept).all()
    assert np.shares_memory(scan.rough(scan.query(vectors), whole), first)


def test_a_zero_vector_scores_zero():
    matrix, _ = make()
    for scan in scans(matrix):
        scores, error = scores_and_errors(scan, torch.zeros(1, 20, dtype=torch.float64), 300)
        assert scores.abs().max() == 0
        assert error.isfinite().all()


def test_int8_is_chosen_where_the_processor_is_exact_and_the_matrix_is_there(monkeypatch):
    matrix, _ = make()
    monkeypatch.setattr(module, "int8_is_native", lambda: True)
    assert choose_scan(matrix, quantise(matrix)).name == "int8"
    assert choose_scan(matrix, None).name == "float32"
    monkeypatch.setattr(module, "int8_is_native", lambda: False)
    assert choose_scan(matrix, quantise(matrix)).name == "int8-compiled"
    narrow = matrix[:, : LANES - 1].contiguous()
    assert choose_scan(narrow, quantise(narrow)).name == "float32"  # less than one vector of numbers


@pytest.mark.parametrize("num_items", [1, GROUP, GROUP + 1, 300])
@pytest.mark.parametrize("groups_at_once", [1, 3, 1 << 11])
def test_a_matrix_is_within_half_a_scale_of_its_own_quantised_form_only(num_items, groups_at_once, monkeypatch):
    monkeypatch.setattr(module, "GROUPS_AT_ONCE", groups_at_once)
    matrix, _ = make(num_items)
    items, scales = quantise(matrix)
    assert (items.dtype, tuple(items.shape)) == (torch.int8, (num_groups(num_items) * GROUP, 20))
    again = items.float() * scales.repeat_interleave(GROUP).unsqueeze(1)
    assert bool(
        ((again[:num_items] - matrix).abs() <= 0.5001 * scales.repeat_interleave(GROUP)[:num_items, None]).all()
    )
    assert not items[num_items:].any()
    assert Quantised(items, scales).belongs_to(matrix)
    other = items.clone()
    other[num_items - 1, 7] += 2 if other[num_items - 1, 7] < 100 else -2
    assert not Quantised(other, scales).belongs_to(matrix)


def test_zeros_stay_zeros():
    assert not quantise(torch.zeros(2, 3)).items.any()
