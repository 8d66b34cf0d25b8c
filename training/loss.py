"""Softmax cross-entropy over the catalogue, or a sample of it, without ever holding [B, V] for the backward pass."""

from typing import Any

import torch
from torch import Tensor

CHUNK_SCORES = 1 << 23
"""Scores held at once: 32 MiB in float32, and none of it outlives its chunk."""


class _CatalogueCrossEntropy(torch.autograd.Function):
    """The gradient is ``softmax - onehot``, so it is computed at once, chunk by chunk, and only multiplied later.

    Every chunk is computed in the same memory: fresh pages from the system cost a good part of the time.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, items: Tensor, targets: Tensor, dtype: torch.dtype, correction: Tensor | None
    ) -> Tensor:
        v, e = vectors.to(dtype), items.to(dtype)
        rows = min(len(v), max(1, CHUNK_SCORES // len(e)))
        memory, part = e.new_empty(rows, len(e)), torch.empty_like(e)
        grad_vectors, grad_items = torch.empty_like(v), torch.zeros_like(items)
        loss = vectors.new_zeros(())
        for start in range(0, len(v), rows):
            chunk, wanted = v[start : start + rows], targets[start : start + rows, None]
            gradient = torch.mm(chunk, e.T, out=memory[: len(chunk)])  # [rows, V] scores
            if correction is not None:
                own = gradient.gather(1, wanted)
                gradient.add_(correction).scatter_(1, wanted, own)
            torch.softmax(gradient, 1, out=gradient)
            chance = gradient.gather(1, wanted)
            loss -= chance.float().clamp_min(1e-38).log().sum()
            gradient.scatter_(1, wanted, chance - 1)
            torch.mm(gradient, e, out=grad_vectors[start : start + rows])
            grad_items += torch.mm(gradient.T, chunk, out=part)
        ctx.save_for_backward(grad_vectors.to(vectors.dtype).div_(len(v)), grad_items.div_(len(v)))
        return loss / len(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_vectors, grad_items = ctx.saved_tensors
        return grad_vectors.mul_(grads[0]), grad_items.mul_(grads[0]), None, None, None


def catalogue_cross_entropy(
    vectors: Tensor,
    items: Tensor,
    targets: Tensor,
    dtype: torch.dtype = torch.float32,
    correction: Tensor | None = None,
) -> Tensor:
    """Mean of ``-log softmax(vectors @ items.T)[target]``.

    vectors [B, d] and items [V, d] in float32, targets [B] int64, rows of ``items``; products run in ``dtype``, sums in
    float32. correction [V] is added to all scores but the targets' own: it makes a sample of the catalogue stand for
    all of it (:mod:`training.negatives`); -inf leaves an item out for all but its own examples.
    """
    loss: Tensor = _CatalogueCrossEntropy.apply(  # type: ignore[no-untyped-call]
        vectors, items, targets, dtype, None if correction is None else correction.to(dtype)
    )
    return loss
