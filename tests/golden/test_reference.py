"""The paper-faithful configuration is the published SR-GNN: scores, loss and every gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from srgnn.session_batch import session_batch
from tests.golden import reference

FILES = sorted(Path(__file__).parent.glob("*.npz"))


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def published(request):
    return reference.load(request.param)


def test_there_are_golden_files():
    assert {path.stem for path in FILES} >= {"srgnn_step1", "srgnn_step3", "srgnn_step1_global_only"}


def test_scores_loss_and_every_gradient_are_the_published_ones(published):
    scores = published.model(session_batch(published.sequences))
    loss = functional.cross_entropy(scores, torch.from_numpy(published.targets))
    loss.backward()

    assert relative_error(scores.detach().numpy(), published.scores) < 1e-5
    assert abs(loss.item() - published.loss) / published.loss < 1e-5
    parameters = dict(published.model.named_parameters())
    assert parameters.keys() == published.gradients.keys()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert relative_error(parameter.grad.numpy(), published.gradients[name]) < 1e-5, name
