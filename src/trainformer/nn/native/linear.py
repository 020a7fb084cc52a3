"""Linear layers whose weights are turned to bfloat16 once a step, and whose gradients are laid out as products want them."""

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainformer.nn.native.library import call


@dataclass(frozen=True)
class Half:
    """A weight in bfloat16, and of which state of the weight it is the copy.

    `source` holds on to the weight's memory: other numbers cannot come to lie at its address while the copy stands.
    """

    tensor: Tensor
    source: Tensor
    version: int


def half_of(weight: Tensor) -> Tensor:
    """A float32 weight in bfloat16: the copy beside it, if nothing has written to the weight since it was made.

    Every write is seen but those of which PyTorch itself keeps no count: through `.data`, and by fused optimisers, after
    whose steps copies are let go.
    """
    half = fresh_half(weight)
    if half is None:
        half = torch.empty(weight.shape, dtype=torch.bfloat16)
        call("to_half", weight.detach().contiguous(), half, weight.numel())
        _keep(weight, half)
    return half


def fresh_half(weight: Tensor) -> Tensor | None:
    """The copy that stands beside a weight and is up to date, if there is one."""
    kept: Half | None = getattr(weight, "_half", None)
    same = kept is not None and kept.version == weight._version and kept.source.data_ptr() == weight.data_ptr()
    return kept.tensor if kept is not None and same else None


def rewritten(weight: Tensor, half: Tensor | None) -> None:
    """Says that a kernel has written to a weight and, where there was one that was up to date, to its copy."""
    torch.autograd.graph.increment_version(weight)
    if half is not None:
        torch.autograd.graph.increment_version(half)
        _keep(weight, half)


def _keep(weight: Tensor, half: Tensor) -> None:
    if not half.is_inference():  # such a one could not take part in training
        # on the weight itself, so that it goes where the weight goes and ends with it
        weight._half = Half(half, weight.detach(), weight._version)  # type: ignore[attr-defined]


def forget(weights: Iterable[Tensor]) -> None:
    """Lets their copies go, where it is not known who has written to the weights."""
    for weight in weights:
        vars(weight).pop("_half", None)


class Linear(nn.Linear):
    """y = x W^T + b. Training under autocast in bfloat16 on a CPU it goes this way, else that of PyTorch."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and input.device.type == "cpu" and autocast() and self.weight.dtype == torch.float32):
            return super().forward(input)
        rows = input.reshape(-1, input.shape[-1]).to(torch.bfloat16).contiguous()
        output: Tensor = _Linear.apply(rows, self.weight, self.bias)
        return output.view(*input.shape[:-1], output.shape[-1])


def autocast() -> bool:
    """Whether this is autocast in bfloat16 on a CPU."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def speeds(module: nn.Module) -> bool:
    """Whether what a module computes now goes through kernels: it trains, in bfloat16, and has such a layer."""
    return module.training and autocast() and any(isinstance(m, Linear) for m in module.modules())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        half = half_of(weight)
        ctx.save_for_backward(input, half)
        if bias is None:
            return torch.mm(input, half.t())
        return torch.addmm(bias.to(torch.bfloat16), input, half.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, half = ctx.saved_tensors
        grad, (for_input, for_weight, for_bias) = grads[0].contiguous(), ctx.needs_input_grad
        weight = sums = None
        if for_weight or for_bias:
            turned, sums = _desk("turned", grad.shape[1], grad.shape[0]), torch.empty(grad.shape[1])
            call("turn_and_sum", grad, turned, sums, *grad.shape)
        if for_weight:
            short = torch.mm(turned, input, out=_desk("short", *half.shape))
            weight = torch.empty(half.shape)
            call("to_float", short, weight, short.numel())
        return torch.mm(grad, half) if for_input else None, weight, sums if for_bias else None


def _desk(name: str, *shape: int) -> Tensor:
    """Memory for a result that is read at once and then never again: the same for all layers, so it stays in the caches."""
    size = math.prod(shape)
    kept: Tensor | None = getattr(_desks, name, None)
    if kept is None or len(kept) < size:
        kept = torch.empty(size, dtype=torch.bfloat16)
        setattr(_desks, name, kept)
    return kept[:size].view(shape)


_desks = threading.local()


def quicken(model: nn.Module) -> int:
    """Makes every plain linear layer of a model this one; how many there are."""
    plain = [m for m in model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.float32]
    for module in plain:
        module.__class__ = Linear
    return len(plain)
