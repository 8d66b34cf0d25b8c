"""Softmax cross-entropy over the catalogue, or a sample of it, without ever holding [B, V] for the backward pass."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_SCORES = 1 << 23
"""Scores held at once: 32 MiB in float32, and none of it outlives its chunk."""


class Taught(NamedTuple):
    """What T teachers think of the same examples and items."""

    vectors: Tensor
    """[T, B, d]."""
    items: Tensor
    """[T, V, d]."""
    share: float
    """Of the aim that is theirs, from 0 to 1; the rest is the next click's."""


class _CatalogueCrossEntropy(torch.autograd.Function):
    """The gradient is ``softmax - aim``, so it is computed at once, chunk by chunk, and only multiplied later.

    Every chunk is computed in the same memory: fresh pages from the system cost a good part of the time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        items: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        correction: Tensor | None,
        taught: Taught | None,
    ) -> Tensor:
        v, e = vectors.to(dtype), items.to(dtype)
        rows = min(len(v), max(1, CHUNK_SCORES // len(e)))
        memory, part = e.new_empty(rows, len(e)), torch.empty_like(e)
        grad_vectors, grad_items = torch.empty_like(v), torch.zeros_like(items)
        loss = vectors.new_zeros(())
        for start in range(0, len(v), rows):
            chunk, wanted = v[start : start + rows], targets[start : start + rows, None]
            gradient = _scores(chunk, e, wanted, correction, memory)  # [rows, V]
            if taught is None:
                torch.softmax(gradient, 1, out=gradient)
                chance = gradient.gather(1, wanted)
                loss -= _log(chance).sum()
                gradient.scatter_(1, wanted, chance - 1)
            else:
                aim = _aim(taught, slice(start, start + rows), wanted, correction)  # [rows, V]
                own, hoped = gradient.gather(1, wanted).float(), (aim * gradient).sum(1, dtype=torch.float32)
                torch.softmax(gradient, 1, out=gradient)
                log_total = own - _log(gradient.gather(1, wanted))  # log of the sum of exp of all scores
                loss += (log_total.squeeze(1) - hoped).sum()
                gradient -= aim
            torch.mm(gradient, e, out=grad_vectors[start : start + rows])
            grad_items += torch.mm(gradient.T, chunk, out=part)
        ctx.save_for_backward(grad_vectors.to(vectors.dtype).div_(len(v)), grad_items.div_(len(v)))
        return loss / len(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_vectors, grad_items = ctx.saved_tensors
        return grad_vectors.mul_(grads[0]), grad_items.mul_(grads[0]), None, None, None, None


def _scores(vectors: Tensor, items: Tensor, wanted: Tensor, correction: Tensor | None, memory: Tensor) -> Tensor:
    """[rows, V] in ``memory``, with the correction for all but the wanted [rows, 1]."""
    scores = torch.mm(vectors, items.T, out=memory[: len(vectors)])
    if correction is not None:
        own = scores.gather(1, wanted)
        scores.add_(correction).scatter_(1, wanted, own)
    return scores


def _aim(taught: Taught, part: slice, wanted: Tensor, correction: Tensor | None) -> Tensor:
    """The next click and the teachers' chances, by their shares: [rows, V], each row sums to 1."""
    aim = taught.items.new_zeros(len(wanted), taught.items.shape[1])
    memory = torch.empty_like(aim)
    for vectors, items in zip(taught.vectors[:, part], taught.items, strict=True):
        scores = _scores(vectors, items, wanted, correction, memory)
        aim.add_(torch.softmax(scores, 1, out=scores), alpha=taught.share / len(taught.vectors))
    return aim.scatter_add_(1, wanted, aim.new_full(wanted.shape, 1.0 - taught.share))


def _log(chance: Tensor) -> Tensor:
    return chance.float().clamp_min(1e-38).log()


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What large products run in. ``auto`` is bfloat16 where the device has it: emulated it is many times slower."""
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def catalogue_cross_entropy(
    vectors: Tensor,
    items: Tensor,
    targets: Tensor,
    dtype: torch.dtype = torch.float32,
    correction: Tensor | None = None,
    taught: Taught | None = None,
) -> Tensor:
    """Mean of ``-log softmax(vectors @ items.T)[target]``; with teachers, of ``-sum(aim * log softmax(...))``.

    vectors [B, d] and items [V, d] in float32, targets [B] int64, rows of ``items``; products run in ``dtype``, sums in
    float32. correction [V] is added to all scores but the targets' own: it makes a sample of the catalogue stand for
    all of it (:mod:`training.negatives`); -inf leaves an item out for all but its own examples.
    """
    if correction is not None:
        correction = correction.to(dtype)
    if taught is not None:
        taught = Taught(taught.vectors.to(dtype), taught.items.to(dtype), taught.share)
        if correction is not None:  # nothing times -inf is not nothing
            correction = correction.clamp_min(-1e4)
    loss: Tensor = _CatalogueCrossEntropy.apply(  # type: ignore[no-untyped-call]
        vectors, items, targets, dtype, correction, taught
    )
    return loss
