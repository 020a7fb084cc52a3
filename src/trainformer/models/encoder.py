"""The body of a pretrained model: packed where its attention can be, padded inside where it cannot."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch, Packed
from trainformer.core.roles import Body
from trainformer.nn.layout import Layout

FILL_SHARE = 0.03
"""Largest share of tokens that are added to a batch to make its number a rounder one."""


class Encoder(Body):
    """An encoder of the transformers library that reads packed batches."""

    encoder: Any

    def __init__(self, encoder: Any, packed: bool):
        super().__init__()
        self.encoder: Any = encoder
        self.packed = packed
        self.width = int(encoder.config.hidden_size)
        self.takes = frozenset(inspect.signature(encoder.forward).parameters)
        embeddings = getattr(encoder, "embeddings", None)
        after_padding = hasattr(embeddings, "create_position_ids_from_input_ids")
        self.first_position = int(embeddings.padding_idx) + 1 if after_padding and embeddings is not None else 0
        self.pad = int(getattr(encoder.config, "pad_token_id", 0) or 0)

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        run = self._run_packed if self.packed else self._run_padded
        return tuple(run(part) for part in batch.parts)

    def _run_packed(self, part: Packed) -> Tensor:
        tokens, longest = len(part.ids), part.longest
        part = filled(part) if part.ids.device.type == "cpu" else part
        # What only fills up may be longer than the model has places: it begins again.
        places = torch.cat([torch.arange(n, device=part.ids.device) % longest for n in part.lengths]) + self.first_position
        inputs = {"input_ids": part.ids[None], "position_ids": places[None], "layout": Layout.of(part.lengths)}
        if "token_type_ids" in self.takes:
            inputs["token_type_ids"] = (torch.zeros_like(part.ids) if part.kinds is None else part.kinds)[None]
        hidden: Tensor = self.encoder(**inputs).last_hidden_state[0]
        return hidden[:tokens]

    def _run_padded(self, part: Packed) -> Tensor:
        """What the transformers library does with a padded batch; the padding is taken off again: "T D"."""
        inputs = padded(part, self.pad)
        given = {name: value for name, value in inputs.items() if name in self.takes}
        hidden: Tensor = self.encoder(**given).last_hidden_state[inputs["attention_mask"].bool()]
        return hidden

    def embed(self) -> nn.Embedding:
        table: nn.Embedding = self.encoder.get_input_embeddings()
        return table

    def blocks(self) -> list[nn.Module]:
        """Embeddings, then the layers from the bottom up; layers that share weights (ALBERT) are one block."""
        layers = max((m for m in self.encoder.modules() if isinstance(m, nn.ModuleList)), key=_stack_size)
        first = getattr(self.encoder, "embeddings", self.embed())
        return [first, *layers]

    def attentions(self) -> list[nn.Module]:
        """The modules that call the attention function; packed attention reads their `prefix()`, padded attention does not."""
        found = [m for block in self.blocks()[1:] for m in block.modules() if hasattr(m, "is_causal")]
        return found if self.packed else []


def padded(part: Packed, pad: int) -> dict[str, Tensor]:
    """The sequences as rows "S L" that are filled up with a token: ids, mask and token types, as the library calls them."""
    real = torch.arange(part.longest, device=part.ids.device) < torch.tensor(part.lengths, device=part.ids.device)[:, None]
    ids = part.ids.new_full(real.shape, pad).masked_scatter(real, part.ids)
    kinds = torch.zeros_like(part.ids) if part.kinds is None else part.kinds
    types = torch.zeros_like(ids).masked_scatter(real, kinds)
    return {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": types}


def filled(part: Packed, least: int = 0) -> Packed:
    """The part with one sequence more, whose states nobody reads, so that its number of tokens is a rounder one.

    It has at least so many tokens; with none to add there is none.

    On a CPU the products are compiled for each number of tokens: nearly every step would wait for new ones. At most 3 %
    is added, and a few dozen numbers are left.
    """
    tokens = len(part.ids) + least
    more = least + -tokens % (1 << max(0, int(FILL_SHARE * tokens).bit_length() - 1))
    if not more:
        return part
    kinds = None if part.kinds is None else torch.cat([part.kinds, part.kinds[:1].expand(more)])
    owner = torch.cat([part.owner, part.owner[-1:]])
    return Packed(torch.cat([part.ids, part.ids[:1].expand(more)]), [*part.lengths, more], owner, kinds)


def _stack_size(stack: nn.ModuleList) -> tuple[int, int]:
    """The stack of layers is the list of modules with the most parameters."""
    return sum(p.numel() for p in stack.parameters()), -len(stack)


@torch.no_grad()
def packs_exactly(encoder: Any) -> bool:
    """Whether the packed encoder gives the padded one's numbers, tried on two short random sequences."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, encoder.config.vocab_size, (12,), generator=generator)
    part = Packed(ids, [7, 5], torch.tensor([0, 1]))
    trained = encoder.training
    encoder.eval()
    encoder.set_attn_implementation("packed")
    packed = Encoder(encoder, packed=True)._run_packed(part)
    encoder.set_attn_implementation("sdpa" if encoder._supports_sdpa else "eager")
    padded = Encoder(encoder, packed=False)._run_padded(part)
    encoder.train(trained)
    largest = float(padded.abs().max())
    return math.isfinite(largest) and bool(torch.allclose(packed, padded, atol=1e-4 * largest, rtol=0))
