import pytest
import torch
from torch.nn import functional

from training import loss as module
from training.loss import Taught, catalogue_cross_entropy, compute_dtype


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    vectors = torch.randn(50, 8, requires_grad=True)
    items = torch.randn(300, 8, requires_grad=True)
    return vectors, items, torch.randint(0, 300, (50,))


@pytest.mark.parametrize("chunk_scores", [1, 300 * 7, 1 << 23])
def test_loss_and_gradients_are_those_of_cross_entropy(tensors, chunk_scores, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SCORES", chunk_scores)
    vectors, items, targets = tensors
    wanted = functional.cross_entropy(vectors @ items.T, targets)
    gradients = torch.autograd.grad(3 * wanted, (vectors, items))
    found = catalogue_cross_entropy(vectors, items, targets)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(torch.autograd.grad(3 * found, (vectors, items)), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("chunk_scores", [1, 300 * 7, 1 << 23])
def test_a_correction_moves_all_scores_but_the_targets_own(tensors, chunk_scores, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SCORES", chunk_scores)
    vectors, items, targets = tensors
    correction = torch.randn(300)
    correction[targets[0]] = -torch.inf
    scores = vectors @ items.T
    own = functional.one_hot(targets, 300).bool()
    wanted = functional.cross_entropy(torch.where(own, scores, scores + correction), targets)
    gradients = torch.autograd.grad(wanted, (vectors, items))
    found = catalogue_cross_entropy(vectors, items, targets, correction=correction)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(torch.autograd.grad(found, (vectors, items)), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("chunk_scores", [1, 300 * 7, 1 << 23])
@pytest.mark.parametrize("corrected", [True, False])
def test_teachers_share_the_aim_with_the_next_click(tensors, chunk_scores, corrected, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SCORES", chunk_scores)
    vectors, items, targets = tensors
    taught = Taught(torch.randn(2, 50, 6), torch.randn(2, 300, 6), 0.7)
    own, correction = functional.one_hot(targets, 300).bool(), torch.zeros(300)
    if corrected:
        correction = torch.randn(300)
        correction[targets[0]] = -torch.inf  # a target that was not drawn

    def chances(scores):
        return torch.where(own, scores, scores + correction).softmax(-1)

    theirs = chances(taught.vectors @ taught.items.transpose(1, 2)).mean(0)
    aim = 0.3 * own + 0.7 * theirs
    wanted = -(aim * chances(vectors @ items.T).clamp_min(1e-38).log()).sum(1).mean()
    gradients = torch.autograd.grad(3 * wanted, (vectors, items))
    found = catalogue_cross_entropy(
        vectors, items, targets, correction=correction if corrected else None, taught=taught
    )
    torch.testing.assert_close(found, wanted)
    for ours, expected in zip(torch.autograd.grad(3 * found, (vectors, items)), gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


def test_a_teacher_without_a_share_changes_nothing(tensors):
    vectors, items, targets = tensors
    alone = catalogue_cross_entropy(vectors, items, targets)
    taught = Taught(torch.randn(1, 50, 6), torch.randn(1, 300, 6), 0.0)
    torch.testing.assert_close(catalogue_cross_entropy(vectors, items, targets, taught=taught), alone)


def test_bfloat16_stays_close(tensors):
    vectors, items, targets = tensors
    exact = catalogue_cross_entropy(vectors, items, targets)
    rough = catalogue_cross_entropy(vectors, items, targets, torch.bfloat16)
    assert rough.dtype == torch.float32
    assert abs(rough - exact) / exact < 0.01
    ours = torch.autograd.grad(rough, items)[0].flatten()
    theirs = torch.autograd.grad(exact, items)[0].flatten()
    assert functional.cosine_similarity(ours, theirs, dim=0) > 0.999


def test_a_hopeless_target_has_a_finite_loss():
    vectors, items = torch.tensor([[200.0]]), torch.tensor([[1.0], [-1.0]])
    assert catalogue_cross_entropy(vectors, items, torch.tensor([1])).isfinite()


def test_auto_precision_is_float32_without_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert compute_dtype("auto", torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert compute_dtype("auto", torch.device("cpu")) == torch.bfloat16
    assert compute_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
