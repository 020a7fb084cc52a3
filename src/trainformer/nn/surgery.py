"""What parameter-efficient methods share: which parameters are trained, what was added to a body, where its layers lie."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Body, Rule

ADDED = "added"
"""Where a body keeps the modules that methods add, by the method's name: none of its own weights is renamed."""


@dataclass
class _Choice:
    """Which parameters of a body the methods train, by identity: the union of what each wants, without what one bars."""

    only: bool = False
    wanted: set[int] = field(default_factory=set)
    barred: set[int] = field(default_factory=set)


def _choice(body: Body) -> _Choice:
    choice: _Choice = body.__dict__.setdefault("_choice", _Choice())
    return choice


def train_only(body: Body, wanted: Iterable[nn.Parameter]) -> None:
    """Freezes the body but for these and what other methods want; the order of the methods does not matter."""
    choice = _choice(body)
    choice.only = True
    choice.wanted |= {id(p) for p in wanted}
    _apply(body, choice)


def never_train(body: Body, barred: Iterable[nn.Parameter]) -> None:
    """Freezes these, whatever other methods want."""
    choice = _choice(body)
    choice.barred |= {id(p) for p in barred}
    _apply(body, choice)


def is_barred(body: Body, parameter: nn.Parameter) -> bool:
    """Whether a method has said that this parameter is never trained."""
    return id(parameter) in _choice(body).barred


def _apply(body: Body, choice: _Choice) -> None:
    for parameter in body.parameters():
        if id(parameter) in choice.barred:
            parameter.requires_grad_(False)
        elif choice.only:
            parameter.requires_grad_(id(parameter) in choice.wanted)


def add(body: Body, name: str, module: nn.Module) -> None:
    """Keeps a method's own modules in the body, trained, under `added.NAME`."""
    if not hasattr(body, ADDED):
        body.add_module(ADDED, nn.ModuleDict())
    body.get_submodule(ADDED).add_module(name, module)
    train_only(body, module.parameters())


def own_parameters(body: Body) -> dict[str, nn.Parameter]:
    """The parameters that the body had before any method added its own, and what wraps them; by name."""
    marks = (".lora_", ".ia3_", ".ranknum.")
    named = body.named_parameters()
    return {n: p for n, p in named if not n.startswith(f"{ADDED}.") and not any(mark in n for mark in marks)}


def faster(rules: dict[str, Rule], mark: str, times: float) -> None:
    """Lets the parameters of the body that have a mark in their names learn at so many times the rate of the others."""
    for name, rule in rules.items():
        if name.startswith("body.") and mark in name:
            rule.rate *= times


def usual_head(rules: dict[str, Rule], times: float) -> None:
    """Leaves the head at the usual rate where a method asks for so many times that rate for what it adds.

    The head starts fitted (a linear probe, or a layer that is the identity), and at a high rate it would leave that start.
    """
    for name, rule in rules.items():
        if name.startswith("head."):
            rule.rate = min(rule.rate, 1 / times)


def linears(body: Body) -> dict[str, Any]:
    """The linear layers of the body itself by name, each with what wraps it; what methods added is left out."""
    found: dict[str, Any] = {}
    for name, module in body.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and not name.startswith(ADDED) and (isinstance(module, nn.Linear) or hasattr(module, "base_layer")):
            found[name] = module
    return found


def layer_linears(body: Body) -> dict[str, Any]:
    """Those of the layers alone: neither embeddings nor a pooler."""
    inside = {id(m) for block in body.blocks()[1:] for m in block.modules()}
    return {n: m for n, m in linears(body).items() if id(m) in inside}


def endings(body: Body, where: str) -> list[tuple[str, str]]:
    """For each layer the names of the linear layers that end its attention and its feed-forward.

    Raises UserError where a layer has no such pair.
    """
    every, pairs = linears(body), []
    for block in body.blocks()[1:]:
        own = {id(m) for m in block.modules()}
        sizes = [(n, m.in_features, m.out_features) for n, m in every.items() if id(m) in own]
        last = next((n for n, i, o in reversed(sizes) if o == body.width < i), None)
        square = [n for n, i, o in sizes if i == o == body.width]
        if last is None or not square:
            what = "this model has no layers of attention and feed-forward that could be changed."
            raise UserError(what, where=where, fix="Take lora, or a model of the BERT kind.")
        pairs.append((square[-1], last))
    return pairs


def matching(names: Iterable[str], targets: list[str], where: str) -> list[str]:
    """The names that equal a target, end in it, or fit it as a pattern with `*`.

    Raises UserError for a target that fits none, listing the ends that exist.
    """
    listed = list(names)
    for target in targets:
        if not any(_fits(n, target) for n in listed):
            ends = sorted({n.rpartition(".")[2] for n in listed})
            fix = f"{nearest(target, ends)} The model has: {', '.join(ends)}.".strip()
            raise UserError(f"nothing in the model is called '{target}'.", where=where, fix=fix)
    return [n for n in listed if any(_fits(n, t) for t in targets)]


def _fits(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}") or fnmatchcase(name, target)
