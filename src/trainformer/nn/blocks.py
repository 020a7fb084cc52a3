"""Scores of a large vocabulary, some rows at a time: on a CPU the products in bfloat16 are compiled for each number of rows.

How many tokens are told differs from step to step, and to compile takes longer than to multiply.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad

from trainformer.nn.native.linear import autocast

ROWS = 256
"""Of a block; the last one is filled up to a multiple of a quarter of it."""


def by_blocks(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b, "U D" -> "U V"; by blocks where autocast would compute it in bfloat16 on a CPU, for a gradient."""
    if states.dim() != 2 or states.device.type != "cpu" or not autocast() or not torch.is_grad_enabled():
        return linear(states, weight, bias)
    output: Tensor = _Blocks.apply(states, weight, bias)
    return output


class ByBlocks(nn.Linear):
    """A linear layer that computes so."""

    def forward(self, input: Tensor) -> Tensor:
        return by_blocks(input, self.weight, self.bias)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        half, rows = weight.to(torch.bfloat16), states.to(torch.bfloat16)
        output = rows.new_empty(len(rows), len(weight))
        for block, place in _cut(rows, output):
            product = torch.mm(block, half.t()) if bias is None else torch.addmm(bias.to(torch.bfloat16), block, half.t())
            place.copy_(product[: len(place)])
        ctx.save_for_backward(rows, half)
        ctx.kind = states.dtype
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (rows, half), grad, (for_states, for_weight, for_bias) = ctx.saved_tensors, grads[0], ctx.needs_input_grad
        states = torch.empty(rows.shape, dtype=ctx.kind) if for_states else None
        weight, bias = (torch.zeros(shape) if wanted else None
                        for shape, wanted in ((half.shape, for_weight), (len(half), for_bias)))  # fmt: skip
        for first, (block, _) in enumerate(_cut(grad, grad)):
            own = slice(first * ROWS, first * ROWS + len(block))
            if states is not None:
                states[own] = torch.mm(block, half)[: len(states[own])]
            if weight is not None:
                weight += torch.mm(block.t(), pad(rows[own], (0, 0, 0, len(block) - len(rows[own]))))
            if bias is not None:
                bias += block.sum(0)
        return states, weight, bias


def _cut(rows: Tensor, places: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows, the last one filled up with 0, and the places of their own rows."""
    for block, place in zip(rows.split(ROWS), places.split(ROWS), strict=True):
        yield pad(block, (0, 0, 0, -len(block) % (ROWS // 4))), place
