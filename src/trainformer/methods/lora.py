"""LoRA: train a low-rank change to each matrix instead of the matrix (Hu et al. 2022, arXiv:2106.09685)."""

import re
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from trainformer.core.errors import MissingExtra, UserError, nearest
from trainformer.core.roles import Body, Method, Model


class Lora(Method):
    """Train a low-rank change to each matrix of the layers and the head; all else stays frozen.

    Inputs: the linear layers of the body. Gives: `W x + (alpha / rank) * B A x`, A "R D" random, B "D R" zero at first,
    in float32; folded into W to ship, so a bundle is a plain model. Cost: a few percent of the memory for gradients
    and optimiser; it wants about ten times the usual rate. Goes well with: every method.
    See: Hu et al. 2022, arXiv:2106.09685.
    """

    stays: ClassVar[bool] = False
    shards: ClassVar[bool] = True

    rank: int = Field(8, ge=1)
    """Rank of the change: more can learn more and costs more."""
    alpha: float = Field(16.0, gt=0)
    """Strength of the change: it is scaled by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on what goes into the change, 0..1."""
    targets: list[str] | None = None
    """Names, or ends of names, of the linear layers to change, as `query`; none: all of them in the layers."""

    def extend(self, model: Model) -> None:
        """Raises UserError for a target that is not there and for a rank that a layer has no room for."""
        peft = _peft()
        chosen = self._chosen(model.body)
        if not chosen:
            raise UserError("there is no linear layer to change.", where="lora.targets", fix="Leave targets out to take all.")
        for name, layer in chosen.items():
            room = min(layer.in_features, layer.out_features)
            if self.rank > room:
                what = f"rank {self.rank} is more than the layer '{name}' has: {room}."
                raise UserError(what, where="lora.rank", fix=f"Set it to {room} or less.")
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="|".join(re.escape(name) for name in chosen),
        )
        peft.inject_adapter_in_model(config, model.body)
        for parameter in model.body.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _chosen(self, body: Body) -> dict[str, nn.Linear]:
        """The layers to change, by their name in the body."""
        linear = {n: m for n, m in body.named_modules() if isinstance(m, nn.Linear)}
        if self.targets is None:
            inside = {id(m) for block in body.blocks()[1:] for m in block.modules()}
            return {n: m for n, m in linear.items() if id(m) in inside}
        for target in self.targets:
            if not any(_fits(name, target) for name in linear):
                ends = sorted({name.rpartition(".")[2] for name in linear})
                fix = f"{nearest(target, ends)} The model has: {', '.join(ends)}.".strip()
                raise UserError(f"no linear layer '{target}' to change.", where="lora.targets", fix=fix)
        return {n: m for n, m in linear.items() if any(_fits(n, t) for t in self.targets)}

    def fold(self, model: Model) -> None:
        """Adds each change to its matrix and takes the wrapping off: names are those of the plain model again."""
        layer_type: Any = _peft().tuners.lora.LoraLayer
        for name, layer in list(model.body.named_modules()):
            if isinstance(layer, layer_type):
                layer.merge(safe_merge=True)
                model.body.set_submodule(name, layer.base_layer)
        if hasattr(model.body, "peft_config"):
            del model.body.peft_config


def _fits(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise MissingExtra("peft", "peft") from error
    return peft
