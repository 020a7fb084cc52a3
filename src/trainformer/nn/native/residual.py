"""Dropout, residual and layer norm in one pass each way, for blocks that end as BERT's do."""

import ctypes
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainformer.nn.native.library import call
from trainformer.nn.native.linear import autocast

LEVELS = 2**16
PARTS = {"dense", "dropout", "LayerNorm"}


class Drop(ctypes.Structure):
    """`struct drop` of the kernels."""

    _fields_ = (
        *(("seed", ctypes.c_uint32 * 2), ("level", ctypes.c_uint32)),
        *(("scale", ctypes.c_float), ("eps", ctypes.c_float)),
    )


def drop(p: float, eps: float) -> Drop:
    """Dropout of a share p, rounded to a multiple of 1/65,536, by two numbers of PyTorch's generator."""
    level = min(round(p * LEVELS), LEVELS - 1)
    seed = torch.randint(2**32, (2,)).tolist() if level else [0, 0]
    return Drop((ctypes.c_uint32 * 2)(*seed), level, LEVELS / (LEVELS - level), eps)


class AddNorm(nn.Module):
    """LayerNorm(dropout(dense(x)) + residual): in training under autocast in bfloat16 on a CPU by a kernel.

    The residual comes and goes in bfloat16; the norm is computed in float32. Which elements fall follows from the seed
    alone, for any number of threads, and is drawn again in the backward pass.
    """

    dense: nn.Module
    dropout: nn.Dropout
    LayerNorm: nn.LayerNorm

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        if not (self.training and hidden_states.device.type == "cpu" and autocast()):
            plain: Tensor = super().forward(hidden_states, input_tensor)
            return plain
        y, norm = self.dense(hidden_states).to(torch.bfloat16).contiguous(), self.LayerNorm
        x = input_tensor.to(torch.bfloat16).contiguous()
        output: Tensor = _AddNorm.apply(y, x, norm.weight, norm.bias, drop(self.dropout.p, norm.eps))
        return output


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, drop: Drop) -> Tensor:
        width = y.shape[-1]
        rows = y.numel() // width
        total, output, stats = torch.empty_like(y), torch.empty_like(y), torch.empty(rows, 2)
        call("norm", y, x, weight.detach(), bias.detach(), total, output, stats, rows, width, ctypes.byref(drop))
        ctx.save_for_backward(total, stats, weight)
        ctx.drop = drop
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total, stats, weight = ctx.saved_tensors
        width = total.shape[-1]
        dy, dx, both = torch.empty_like(total), torch.empty_like(total), torch.empty(2, width)
        arrays = (grads[0].contiguous(), total, stats, weight.detach(), dy, dx, both)
        call("norm_backward", *arrays, len(stats), width, ctypes.byref(ctx.drop))
        return dy, dx, both[0], both[1], None


def quicken(model: nn.Module) -> int:
    """Makes every block of this form such a one, a subclass of what it was; how many there are."""
    found = [m for m in model.modules() if not isinstance(m, AddNorm) and _fits(m)]
    for module in found:
        module.__class__ = type(type(module).__name__, (AddNorm, type(module)), {})
    return len(found)


@torch.no_grad()
def _fits(block: nn.Module) -> bool:
    """Whether a block has these parts and, tried on random numbers, computes this and nothing else."""
    parts = dict(block.named_children())
    if set(parts) != PARTS or list(inspect.signature(block.forward).parameters) != ["hidden_states", "input_tensor"]:
        return False
    dense, norm = parts["dense"], parts["LayerNorm"]
    wide = getattr(dense, "in_features", None)
    if not (isinstance(parts["dropout"], nn.Dropout) and isinstance(norm, nn.LayerNorm) and isinstance(wide, int)):
        return False
    if norm.weight is None or norm.bias is None or norm.weight.dtype != torch.float32 or len(norm.normalized_shape) != 1:
        return False
    draw, trained = torch.Generator().manual_seed(0), block.training
    x, residual = (torch.randn(3, n, generator=draw) for n in (wide, norm.normalized_shape[0]))
    block.eval()
    found = block(x, residual)
    expected = norm(dense(x) + residual)
    block.train(trained)
    return bool(torch.equal(found, expected))
