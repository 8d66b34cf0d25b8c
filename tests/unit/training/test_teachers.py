import numpy as np
import torch

from srgnn.model import SRGNN, SRGNNConfig
from srgnn.session_batch import session_batch
from training.teachers import Teachers, teacher_seed


def test_what_teachers_say_is_what_they_score_without_dropout_or_gradients():
    torch.manual_seed(0)
    config = SRGNNConfig(hidden_size=4, dropout=0.5, scoring="cosine")
    models = [SRGNN(config, 6, max_length=3) for _ in range(2)]
    batch, rows = session_batch([np.array([0, 1]), np.array([5])]), torch.tensor([1, 4])
    taught = Teachers(models, 0.7).of(batch, rows)
    assert taught.share == 0.7
    assert not taught.vectors.requires_grad
    for model, vectors, items in zip(models, taught.vectors, taught.items, strict=True):
        torch.testing.assert_close(vectors @ items.T, model.eval()(batch)[:, rows])
    everything = Teachers(models, 0.7).of(batch, None)
    assert everything.items.shape == (2, 6, 4)


def test_neighbouring_seeds_share_no_teacher():
    seeds = [teacher_seed(seed, number) for seed in range(100) for number in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1000
