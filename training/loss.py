"""Softmax cross-entropy over the whole catalogue without ever holding [B, V] for the backward pass."""

from typing import Any

import torch
from torch import Tensor

CHUNK_SCORES = 1 << 23
"""Scores held at once: 16 MiB in bfloat16, so that the passes over them stay in cache."""


class _CatalogueCrossEntropy(torch.autograd.Function):
    """The gradient is ``softmax - onehot``, so it is computed at once, chunk by chunk, and only multiplied later."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, items: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        v, e = vectors.to(dtype), items.to(dtype)
        rows = max(1, CHUNK_SCORES // len(e))
        grad_vectors = torch.empty_like(vectors)
        grad_items = torch.zeros_like(items)
        loss = vectors.new_zeros(())
        for start in range(0, len(v), rows):
            chunk, wanted = v[start : start + rows], targets[start : start + rows, None]
            gradient = torch.softmax(chunk @ e.T, dim=1)  # [rows, V]
            chance = gradient.gather(1, wanted)
            loss -= chance.float().clamp_min(1e-38).log().sum()
            gradient.scatter_(1, wanted, chance - 1)
            grad_vectors[start : start + rows] = gradient @ e
            grad_items.add_(gradient.T @ chunk, alpha=1.0 / len(v))
        ctx.save_for_backward(grad_vectors.div_(len(v)), grad_items)
        return loss / len(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_vectors, grad_items = ctx.saved_tensors
        return grad_vectors.mul_(grads[0]), grad_items.mul_(grads[0]), None, None


def catalogue_cross_entropy(
    vectors: Tensor, items: Tensor, targets: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Mean of ``-log softmax(vectors @ items.T)[target]``.

    vectors [B, d] and items [V, d] in float32, targets [B] int64; the products run in ``dtype``, sums in float32.
    """
    loss: Tensor = _CatalogueCrossEntropy.apply(vectors, items, targets, dtype)  # type: ignore[no-untyped-call]
    return loss
