"""The optimiser: which one, which parameters decay, and how fast each learns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainformer.core.config import TrainSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model, Rule
from trainformer.engine.optimizers.lion import Lion
from trainformer.engine.optimizers.muon import Muon
from trainformer.engine.optimizers.schedule_free import ScheduleFree
from trainformer.engine.schedules import rate as rate
from trainformer.nn.native import adamw as native


def rules(model: Model, methods: list[Method]) -> dict[str, Rule]:
    """How each trained parameter is treated: matrices decay; biases, norms and embeddings do not; methods have their say."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = {name: Rule(decay=p.ndim >= 2 and id(p) not in tables) for name, p in model.named_parameters() if p.requires_grad}
    for name, share in model.body.rates().items():
        if f"body.{name}" in found:
            found[f"body.{name}"].rate *= share
    for method in methods:
        method.groups(model, found)
    return found


@dataclass(frozen=True)
class Named:
    """An optimiser: how it is made, how many numbers it keeps for each weight, and its usual rate beside that of AdamW.

    `shards`: whether it does right by weights of which each process holds a part (train.shard).
    """

    make: Callable[[list[dict[str, Any]], TrainSettings], torch.optim.Optimizer]
    slots: int
    factor: float = 1.0
    shards: bool = False


def _adam(kind: Any) -> Callable[[list[dict[str, Any]], TrainSettings], torch.optim.Optimizer]:
    return lambda groups, s: kind(groups, lr=s.lr or 0.0, betas=s.betas, eps=s.eps, fused=True)


KNOWN = {
    "adamw": Named(_adam(torch.optim.AdamW), 2, shards=True),
    "adam": Named(_adam(torch.optim.Adam), 2, shards=True),
    "sgd": Named(lambda groups, s: torch.optim.SGD(groups, lr=s.lr or 0.0, momentum=s.momentum), 1, 200.0, shards=True),
    "adafactor": Named(lambda groups, s: torch.optim.Adafactor(groups, lr=s.lr or 0.0), 0, 20.0),
    "lion": Named(lambda groups, s: Lion(groups, s.lr or 0.0), 1, 0.2),
    "muon": Named(lambda groups, s: Muon(groups, s.lr or 0.0, s.betas, s.eps), 2),
    "schedule_free": Named(lambda groups, s: ScheduleFree(groups, s.lr or 0.0, s.betas, s.eps), 3),
}
"""Optimisers by name: AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), Adam (Kingma and Ba 2015, arXiv:1412.6980), SGD with
momentum, Adafactor (Shazeer and Stern 2018, arXiv:1804.04235; its rate is a share of the size of the weights), and our own."""


def build(model: Model, methods: list[Method], settings: TrainSettings, kernels: bool = False) -> torch.optim.Optimizer:
    """The optimiser, one group for each pair of rate and decay; `group["share"]` is its share of the rate.

    Raises UserError where both the optimiser and a method average the weights.
    """
    if settings.optimizer == "schedule_free":
        _refuse_two_averages(methods)
    by_rule: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    parameters = dict(model.named_parameters())
    for name, rule in rules(model, methods).items():
        matrix = rule.decay and parameters[name].ndim == 2 and name.startswith("body.")
        by_rule.setdefault((rule.rate, rule.decay, matrix), []).append(parameters[name])
    groups = [
        {"params": chosen, "share": rate, "weight_decay": settings.weight_decay if decay else 0.0, "matrices": matrix}
        for (rate, decay, matrix), chosen in by_rule.items()
    ]
    if kernels and settings.optimizer == "adamw" and all(native.fits(p) for listed in by_rule.values() for p in listed):
        return _adam(native.AdamW)(groups, settings)
    return KNOWN[settings.optimizer].make(groups, settings)


def _refuse_two_averages(methods: list[Method]) -> None:
    for method in methods:
        if type(method).swap is not Method.swap:
            name = type(method).key
            fix = "Name other methods (--method llrd), or another optimiser."
            raise UserError(f"'{name}' and schedule_free both average the weights.", where="train.optimizer", fix=fix)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"]


def clip(parameters: list[nn.Parameter], most: float, optimizer: torch.optim.Optimizer | None = None) -> torch.Tensor:
    """Scales the gradients down to a norm of at most `most` (0: any), and gives the norm that they had.

    On a CPU gradients that are short enough are not touched: the library multiplies them by 1. An optimiser of the kernels
    is told how much, and scales them as it reads them.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if isinstance(optimizer, native.AdamW):
        optimizer.shrink = min(1.0, most / (float(norm) + 1e-6)) if most else 1.0
    elif most and not (norm.device.type == "cpu" and norm <= most):
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm, foreach=True)
    return norm
