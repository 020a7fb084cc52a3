"""Prompt tuning: learned vectors in front of every text (Lester et al. 2021, arXiv:2104.08691)."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trainformer.core.batch import Batch, Packed
from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model, Rule
from trainformer.nn.surgery import add, faster

BETWEEN = "it moves the embeddings of a text's tokens, and the prompt stands between them"


class Prompt(Method):
    """Train vectors that stand in front of each text like words; all else stays frozen but the head.

    Inputs: the token embeddings. Gives: each sequence with `length` vectors after its first token; what the body says of them is
    dropped, so the head sees the text alone.

    When: the smallest file of all for a large model; small models learn little by it.
    Cost: `length` tokens more a sequence; they stay in the bundle and learn at twenty times the rate of the head; weak on small
    models.
    With: `lora`, `bitfit`.
    See: Lester et al. 2021, arXiv:2104.08691.
    """

    rate_factor: ClassVar[float] = 5.0
    stays: ClassVar[bool] = True
    moves_start: ClassVar[bool] = True
    clashes: ClassVar[dict[str, str]] = dict.fromkeys(["freelb", "neftune", "pgd", "smart", "vat"], BETWEEN)
    length: int = Field(16, ge=1)
    """How many vectors are learned; a text has so many tokens fewer."""

    def takes(self) -> int:
        return self.length

    rate: float = Field(20.0, gt=0)
    """Times the run's rate at which the vectors learn."""

    def extend(self, model: Model) -> None:
        """The vectors start as embeddings of random tokens. Raises UserError for more than a model reads tokens."""
        body = model.body
        table = body.embed()
        most = getattr(getattr(getattr(body, "encoder", None), "config", None), "max_position_embeddings", None)
        if most and self.length >= most:
            what = f"{self.length} leaves no room for a text: the model reads {most} tokens."
            raise UserError(what, where="prompt.length", fix="Some 5 to 50 are usual.")
        vectors = _Vectors(table, self.length)
        add(body, "prompt", vectors)
        body.register_forward_pre_hook(vectors.lengthen)
        body.register_forward_hook(vectors.shorten)
        table.register_forward_pre_hook(vectors.find)
        table.register_forward_hook(vectors.put)

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        faster(rules, ".added.prompt.", self.rate)


class _Vectors(nn.Module):
    """The vectors "P D", and the hooks that put them in and take their states out again.

    A place of a vector is marked by a token number beyond the vocabulary: V for the first, V + 1 for the second.
    """

    def __init__(self, table: nn.Embedding, length: int):
        super().__init__()
        self.vocabulary, self.length = table.num_embeddings, length
        drawn = torch.randint(self.vocabulary, (length,))
        self.vectors = nn.Parameter(table.weight.detach()[drawn].clone().float())
        self._places: Tensor | None = None

    def lengthen(self, body: nn.Module, inputs: tuple[Batch]) -> tuple[Batch]:
        batch = inputs[0]
        parts = tuple(self._longer(part) for part in batch.parts)
        return (Batch(parts, batch.target, batch.weight, batch.rows, batch.units, batch.at, batch.kind, batch.examples),)

    def _longer(self, part: Packed) -> Packed:
        marks = torch.arange(self.vocabulary, self.vocabulary + self.length, device=part.ids.device)
        ids = torch.cat([torch.cat([s[:1], marks, s[1:]]) for s in part.ids.split(part.lengths)])
        kinds = part.kinds
        if kinds is not None:
            kinds = torch.cat([torch.cat([s[:1].expand(self.length + 1), s[1:]]) for s in kinds.split(part.lengths)])
        return Packed(ids, [n + self.length for n in part.lengths], part.owner, kinds)

    def shorten(self, body: nn.Module, inputs: tuple[Batch], states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(s[p.ids < self.vocabulary] for p, s in zip(inputs[0].parts, states, strict=True))

    def find(self, table: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        ids = inputs[0]
        self._places = ids - self.vocabulary
        return (ids.where(ids < self.vocabulary, 0),)

    def put(self, table: nn.Module, inputs: Any, found: Tensor) -> Tensor:
        places, self._places = self._places, None
        assert places is not None, "find runs before put"
        wanted = self.vectors[places.clamp_min(0)].to(found.dtype)
        return torch.where((places >= 0)[..., None], wanted, found)
