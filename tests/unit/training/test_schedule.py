import pytest

from training.config import TrainingConfig
from training.schedule import batch_size, learning_rate


def rates(steps_per_epoch=10, **settings):
    config = TrainingConfig(learning_rate=1.0, **settings)
    return [learning_rate(config, step, steps_per_epoch) for step in range(config.epochs * steps_per_epoch)]


def test_step_is_the_published_schedule():
    found = rates(epochs=7, schedule="step", step_epochs=3, step_factor=0.1, warmup_share=0.0)
    assert found == pytest.approx([1.0] * 30 + [0.1] * 30 + [0.01] * 10)


def test_cosine_falls_from_the_top_to_almost_nothing():
    found = rates(epochs=10, schedule="cosine", warmup_share=0.0)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert 0 < found[-1] < 0.001
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_warm_up_rises_evenly_to_the_top(schedule):
    found = rates(epochs=10, schedule=schedule, warmup_share=0.1, step_epochs=5)
    assert found[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert max(found) == pytest.approx(1.0)


def test_constant_is_constant():
    assert set(rates(epochs=2, schedule="constant", warmup_share=0.0)) == {1.0}


@pytest.mark.parametrize(
    ("minimum_steps", "examples", "size"), [(0, 10, 512), (300, 10, 16), (300, 19_200, 64), (300, 10_000_000, 512)]
)
def test_a_batch_is_smaller_on_a_log_too_small_for_the_steps(minimum_steps, examples, size):
    assert batch_size(TrainingConfig(batch_size=512, minimum_steps=minimum_steps), examples) == size
