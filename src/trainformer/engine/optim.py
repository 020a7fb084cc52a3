"""Optimiser and rate: which parameters decay, how fast each learns, and the rate of each step."""

import math

import torch
from torch import nn

from trainformer.core.config import TrainSettings
from trainformer.core.roles import Method, Model, Rule
from trainformer.nn.native.adamw import AdamW, norm_of, plain


def rules(model: Model, methods: list[Method]) -> dict[str, Rule]:
    """How each trained parameter is treated: matrices decay; biases, norms and embeddings do not; methods have their say."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = {name: Rule(decay=p.ndim >= 2 and id(p) not in tables) for name, p in model.named_parameters() if p.requires_grad}
    for method in methods:
        method.groups(model, found)
    return found


def build(model: Model, methods: list[Method], settings: TrainSettings, kernels: bool = False) -> torch.optim.Optimizer:
    """The optimiser, one group for each pair of rate and decay; `group["share"]` is its share of the rate."""
    by_rule: dict[tuple[float, bool], list[nn.Parameter]] = {}
    parameters = dict(model.named_parameters())
    for name, rule in rules(model, methods).items():
        by_rule.setdefault((rule.rate, rule.decay), []).append(parameters[name])
    groups = [
        {"params": chosen, "share": rate, "weight_decay": settings.weight_decay if decay else 0.0}
        for (rate, decay), chosen in by_rule.items()
    ]
    lr = settings.lr or 0.0
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)
    if kernels and settings.optimizer == "adamw" and all(plain(p) for p in parameters.values() if p.requires_grad):
        return AdamW(groups, lr=lr, betas=settings.betas, eps=settings.eps, fused=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, betas=settings.betas, eps=settings.eps, fused=True)


def rate(step: int, steps: int, settings: TrainSettings) -> float:
    """The learning rate of a step (from 0): linear warm-up, then linear, half a cosine, or constant."""
    warm = math.ceil(settings.warmup * steps)
    peak = settings.lr or 0.0
    if step < warm:
        return peak * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    if settings.schedule == "linear":
        return peak * (1 - done)
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"]


def clip(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], most: float) -> torch.Tensor:
    """Scales the gradients down to a norm of at most `most` (0: any), and gives the norm that they had.

    On a CPU gradients that are short enough are not touched: the library multiplies them by 1. Our own optimiser scales
    them as it reads them.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if isinstance(optimizer, AdamW):
        norm = norm_of(gradients)
        optimizer.shrink = min(1.0, most / (float(norm) + 1e-6)) if most else 1.0
        return norm
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if most and not (norm.device.type == "cpu" and norm <= most):
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm, foreach=True)
    return norm
