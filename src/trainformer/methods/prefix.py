"""Prefix tuning: learned keys and values before those of each layer (Li and Liang 2021, arXiv:2101.00190)."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model, Rule
from trainformer.nn.surgery import add, faster, usual_head


class Prefix(Method):
    """Train keys and values that every token of every layer can also attend to; all else stays frozen but the head.

    Inputs: the attention of each layer. Gives: attention over `length` learned keys and values "H P K" and the tokens' own, in
    packed models, without a token more.

    When: one base serves many tasks, each with a small file and no matrix changed.
    Cost: 2 P D parameters a layer, a little attention; it stays in the bundle, and learns at 200 times the rate of the head.
    With: `lora`, `bitfit`, and every method that changes the loss.
    See: Li and Liang 2021, arXiv:2101.00190; in each layer: Liu et al. 2022, arXiv:2110.07602.
    Command: --method prefix --method ema
    """

    rate_factor: ClassVar[float] = 5.0
    stays: ClassVar[bool] = True
    moves_start: ClassVar[bool] = True
    length: int = Field(16, ge=1)
    """How many keys and values are learned in each layer."""

    rate: float = Field(40.0, gt=0)
    """Times the run's rate at which the keys and values learn."""

    def extend(self, model: Model) -> None:
        """Raises UserError for a model without attention that can take them, and for more than it reads tokens."""
        layers: list[Any] = model.body.attentions()
        if not layers:
            what = "this model has no attention that takes learned keys and values: only packed ones do."
            raise UserError(what, where="prefix", fix="Take lora or adapter.")
        most = getattr(layers[0].config, "max_position_embeddings", None) or self.length
        if self.length > most:
            what = f"{self.length} is more than the model reads tokens: {most}."
            raise UserError(what, where="prefix.length", fix="Some 5 to 50 are usual.")
        kept = nn.ModuleList(_KeysValues(self.length, layer.config) for layer in layers)
        add(model.body, "prefix", kept)
        for layer, each in zip(layers, kept, strict=True):
            # Not registered a second time: the layer's own weights keep their names.
            layer.__dict__["prefix"] = each.forward

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        faster(rules, ".added.prefix.", self.rate)
        usual_head(rules, self.rate_factor)


class _KeysValues(nn.Module):
    """Keys and values "H P K" of one layer, small and random at first."""

    def __init__(self, length: int, config: Any):
        super().__init__()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.keys = nn.Parameter(torch.randn(heads, length, width) * 0.02)
        self.values = nn.Parameter(torch.randn(heads, length, width) * 0.02)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.keys, self.values
