"""The layers of the `peft` library inside our bodies: put in, folded, and taken off again. The one file that imports it."""

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainformer.core.errors import MissingExtra, UserError
from trainformer.core.roles import Body
from trainformer.nn.rank_budget import Triplet
from trainformer.nn.surgery import is_barred, layer_linears, linears, matching, never_train, train_only


def peft_library() -> Any:
    """The library. Raises MissingExtra where it is not installed."""
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise MissingExtra("peft", "peft") from error
    return peft


def targets_of(body: Body, targets: list[str] | None, where: str) -> list[str]:
    """Names of the linear layers to change: those that fit `targets`, or all of the layers that no method has frozen."""
    peft_library()
    if targets is not None:
        chosen = matching(linears(body), targets, where)
    else:
        chosen = [n for n, m in layer_linears(body).items() if not is_barred(body, _base(m).weight)]
    if not chosen:
        raise UserError("there is no linear layer to change.", where=where, fix="Leave targets out to take all.")
    return chosen


def require_room(body: Body, names: Iterable[str], rank: int, where: str) -> None:
    """Raises UserError for a rank that a layer has no room for."""
    every = linears(body)
    for name in names:
        layer = _base(every[name])
        room = min(layer.in_features, layer.out_features)
        if rank > room:
            what = f"rank {rank} is more than the layer '{name}' has: {room}."
            raise UserError(what, where=where, fix=f"Set it to {room} or less.")


def triplets(body: Body) -> list[Triplet]:
    """The changes of AdaLoRA by the names of their layers."""
    layers = [(n, m) for n, m in wrapped(body) if "default" in getattr(m, "lora_E", {})]
    return [Triplet(n, m.lora_A["default"], m.lora_E["default"], m.lora_B["default"]) for n, m in layers]


def inject(body: Body, kind: str, names: Iterable[str], **settings: Any) -> None:
    """Wraps linear layers in those of `peft.<kind>`, in float32; what they bring is trained, all else in the body frozen.

    Hooks of a layer (a bottleneck after it) move to what wraps it: they read the changed output, folded or not.
    """
    peft = peft_library()
    before = {id(p) for p in body.parameters()}
    config = getattr(peft, kind)(target_modules=pattern(names), **settings)
    peft.inject_adapter_in_model(config, body)
    coming = [p for p in body.parameters() if id(p) not in before]
    for parameter in coming:
        parameter.data = parameter.data.float()
    train_only(body, [p for p in coming if p.requires_grad])
    for _, layer in wrapped(body):
        _move_hooks(layer.base_layer, layer)
        if is_barred(body, layer.get_base_layer().weight):
            never_train(body, layer.parameters())


def wrapped(body: Body) -> list[tuple[str, Any]]:
    """The layers that `inject` made, by name."""
    kind = peft_library().tuners.tuners_utils.BaseTunerLayer
    return [(n, m) for n, m in body.named_modules() if isinstance(m, kind)]


@torch.no_grad()
def fold(body: Body) -> None:
    """Adds each change to its matrix and takes the wrapping off: names are those of the plain model again."""
    for name, layer in wrapped(body):
        layer.merge(safe_merge=True)
        _move_hooks(layer, layer.base_layer)
        body.set_submodule(name, layer.base_layer)
    if hasattr(body, "peft_config"):
        del body.peft_config


def unwrap(body: Body) -> None:
    """Takes the wrapping off without adding the changes: the base as it was."""
    for name, layer in wrapped(body):
        body.set_submodule(name, layer.base_layer)


def config_of(body: Any) -> dict[str, Any]:
    """The peft configuration of what is in a body, as plain values."""
    values: dict[str, Any] = body.peft_config["default"].to_dict()
    kind = values["peft_type"]
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in values.items()}
    return plain | {"peft_type": getattr(kind, "value", kind)}


def fitting(expression: str, names: Iterable[str]) -> list[str]:
    """The names that a regular expression of a body's layers fits, with or without the body's own first word."""
    return [n for n in names if re.fullmatch(expression, n) or re.fullmatch(expression, f"encoder.{n}")]


def _base(layer: Any) -> Any:
    return getattr(layer, "base_layer", layer)


def pattern(names: Iterable[str]) -> str:
    """A regular expression for exactly these names."""
    return "|".join(re.escape(name) for name in names)


def _move_hooks(source: nn.Module, to: nn.Module) -> None:
    to._forward_hooks, source._forward_hooks = source._forward_hooks, OrderedDict()
    to._forward_hooks_with_kwargs, source._forward_hooks_with_kwargs = source._forward_hooks_with_kwargs, OrderedDict()
    to._forward_hooks_always_called, source._forward_hooks_always_called = source._forward_hooks_always_called, OrderedDict()
