import pytest
import torch

from srgnn.errors import ConfigError
from srgnn.model import SRGNN, SRGNNConfig
from training import checkpoint
from training.config import load_recipe
from training.run import Run, restore, save_checkpoint

RECIPE = load_recipe("demo", ["model.hidden_size=4"])
ITEMS = 6


def make(seed=0, recipe=RECIPE, corpus_id="corpus"):
    torch.manual_seed(seed)
    model = SRGNN(SRGNNConfig(hidden_size=4), ITEMS, max_length=3)
    embedding, *others = model.parameters()
    optimizers = [torch.optim.SparseAdam([embedding]), torch.optim.AdamW(others)]
    return Run(recipe, model, optimizers, corpus_id)


def step(run):
    """With random gradients, those of the embedding sparse."""
    embedding, *others = run.model.parameters()
    embedding.grad = torch.randn(ITEMS, 4).to_sparse(1)
    for parameter in others:
        parameter.grad = torch.randn_like(parameter)
    for optimizer in run.optimizers:
        optimizer.step()


def test_a_restored_run_goes_on_as_the_saved_one_would(tmp_path):
    run, again = make(), make(seed=1)
    step(run)
    run.stage, run.epoch, run.step, run.loss_sum, run.seconds = "refit", 2, 7, 1.5, 3.25
    run.history, run.best = [{"epoch": 1, "score": 0.5}], {"embedding": torch.ones(2)}
    run.blend, run.blended = {"neighbours": {"votes": 0.5}}, {"neighbours": {"recall@20": 0.25}}
    run.teachers, run.seconds_before = [{"embedding": torch.zeros(1)}, {"embedding": torch.ones(1)}], 2.5
    save_checkpoint(run, tmp_path)
    restore(again, checkpoint.load(tmp_path))
    assert (again.stage, again.epoch, again.step, again.loss_sum, again.seconds) == ("refit", 2, 7, 1.5, 3.25)
    assert (again.history, again.blend, again.blended) == (run.history, run.blend, run.blended)
    assert again.best["embedding"].tolist() == [1, 1]
    assert [teacher["embedding"].item() for teacher in again.teachers] == [0, 1]
    assert again.seconds_before == 2.5
    drawn = torch.get_rng_state()
    step(run)
    torch.set_rng_state(drawn)
    step(again)
    for one, other in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_model_is_a_teacher_until_there_are_enough():
    run = make(recipe=load_recipe("demo", ["model.hidden_size=4", "training.teachers=1", "training.seed=5"]))
    assert (run.teaching, run.seed) == (True, 1005)
    run.teachers.append({})
    assert (run.teaching, run.seed) == (False, 5)


def test_the_best_epoch_has_the_best_score_and_is_the_last_one_without():
    run = make()
    assert run.best_epoch == 0
    run.history = [{"epoch": 1, "score": 0.4}, {"epoch": 2, "score": 0.6}, {"epoch": 3, "score": 0.5}]
    assert run.best_epoch == 2
    run.history = [{"epoch": 1}, {"epoch": 2}]
    assert run.best_epoch == 2


def test_another_corpus_or_recipe_is_refused_by_name(tmp_path):
    save_checkpoint(make(), tmp_path)
    saved = checkpoint.load(tmp_path)
    with pytest.raises(ConfigError, match="another corpus"):
        restore(make(corpus_id="other"), saved)
    other = load_recipe("demo", ["model.hidden_size=4", "training.learning_rate=0.5"])
    with pytest.raises(ConfigError, match=r"training\.learning_rate was .* and is now 0\.5"):
        restore(make(recipe=other), saved)
