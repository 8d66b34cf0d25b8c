import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srgnn import scan as module
from srgnn.scan import Float32Scan, Int8Scan, Quantised, choose_scan, int8_is_native, quantise


def make(num_items=300, width=8, sessions=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = 10 ** torch.empty(num_items, 1).uniform_(-3, 3, generator=generator)
    matrix = torch.randn(num_items, width, generator=generator) * lengths
    vectors = torch.randn(sessions, width, generator=generator, dtype=torch.float64) * 10.0 ** (seed % 7 - 3)
    return matrix, vectors


def rough_scores(scan, vectors, num_items, start=0):
    query = scan.query(vectors)
    out = torch.empty(len(vectors), num_items)
    scan.rough(query, start, out)
    return out.double(), query.error


@given(width=st.integers(2, 200), seed=st.integers(0, 1000))
def test_no_score_is_further_off_than_the_bound(width, seed):
    matrix, vectors = make(width=width, seed=seed)
    exact = vectors @ matrix.double().T
    for scan, unit in (
        (Float32Scan(matrix), 1.0),
        (Int8Scan(matrix, quantise(matrix)), vectors.abs().amax(dim=1, keepdim=True) / 127),
    ):
        rough, error = rough_scores(scan, vectors, len(matrix))
        assert bool(((rough - exact / unit).abs() <= error).all()), scan.name


def test_the_bound_is_tight_enough_to_be_of_use():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.nn.functional.normalize(torch.randn(1000, 100, generator=generator))
    vectors = torch.randn(10, 100, generator=generator, dtype=torch.float64)
    scan = Int8Scan(matrix, quantise(matrix))
    unit = vectors.abs().amax(dim=1, keepdim=True) / 127
    assert bool((scan.query(vectors).error * unit < 0.03 * vectors.norm(dim=1, keepdim=True)).all())


def test_a_part_of_the_catalogue_is_scored_as_in_the_whole():
    matrix, vectors = make()
    for scan in (Float32Scan(matrix), Int8Scan(matrix, quantise(matrix))):
        whole, error = rough_scores(scan, vectors, 300)
        part, _ = rough_scores(scan, vectors, 100, start=150)
        assert bool(((part - whole[:, 150:250]).abs() <= error).all())


def test_a_zero_vector_scores_zero():
    matrix, _ = make()
    zero = torch.zeros(1, 8, dtype=torch.float64)
    for scan in (Float32Scan(matrix), Int8Scan(matrix, quantise(matrix))):
        rough, error = rough_scores(scan, zero, 300)
        assert rough.abs().max() == 0
        assert error.isfinite().all()


def test_int8_is_chosen_where_the_processor_is_exact_and_the_matrix_is_there(monkeypatch):
    matrix, _ = make()
    monkeypatch.setattr(module, "int8_is_native", lambda: True)
    assert choose_scan(matrix, quantise(matrix)).name == "int8"
    assert choose_scan(matrix, None).name == "float32"
    assert choose_scan(matrix[:, :1], quantise(matrix[:, :1])).name == "float32"  # torch multiplies those wrongly
    monkeypatch.setattr(module, "int8_is_native", lambda: False)
    assert choose_scan(matrix, quantise(matrix)).name == "float32"


def test_int8_products_are_exact_where_they_are_used():
    if not int8_is_native():  # then nothing is claimed
        assert choose_scan(*make()[:1], None).name == "float32"
        return
    largest = torch.full((3, 100), 127, dtype=torch.int8)
    assert (torch._int_mm(largest, -largest.T) == -100 * 127 * 127).all()


def test_quantise_is_within_half_a_scale():
    matrix, _ = make()
    items, scales = quantise(matrix)
    assert items.dtype == torch.int8
    assert bool(((items.float() * scales - matrix).abs() <= 0.5001 * scales).all())
    assert quantise(torch.zeros(2, 3)).items.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("rows_at_once", [7, 1 << 16])
def test_a_matrix_belongs_to_its_own_quantised_form_only(rows_at_once, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    matrix, _ = make()
    quantised = quantise(matrix)
    assert quantised.belongs_to(matrix)
    other = quantised.items.clone()
    other[299, 7] += 2
    assert not Quantised(other, quantised.scales).belongs_to(matrix)
