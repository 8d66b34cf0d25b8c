"""How large a step is, and its learning rate, as pure functions: nothing to save, nothing to resume."""

import math

from .config import TrainingConfig

SMALLEST_BATCH = 16
"""Below it a step follows chance more than the clicks."""


def batch_size(config: TrainingConfig, num_examples: int) -> int:
    """Examples a step, of ``num_examples`` an epoch."""
    if not config.minimum_steps:
        return config.batch_size
    return min(config.batch_size, max(num_examples // config.minimum_steps, SMALLEST_BATCH))


def learning_rate(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """Rate of the update number ``step`` (from 0), counted over all epochs; ``config.epochs`` of them in all."""
    total = config.epochs * steps_per_epoch
    warmup = int(config.warmup_share * total)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "step":
        return config.learning_rate * config.step_factor ** (step // steps_per_epoch // config.step_epochs)
    if config.schedule == "cosine":
        done = (step - warmup) / max(total - warmup, 1)
        return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
    return config.learning_rate
