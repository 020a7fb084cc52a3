"""int8 forms of a bundle: all products of 8 bits first, then those that lose most left in float32, more of them each time."""

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from trainformer.bundle import Bundle
from trainformer.bundle.outputs import batches_of
from trainformer.bundle.reading import encode_all
from trainformer.compress.graph import write_graph
from trainformer.compress.int8 import Quantiser
from trainformer.compress.products import Group
from trainformer.compress.roundings import ByToken
from trainformer.core.batch import Example
from trainformer.core.roles import Backbone
from trainformer.models.encoder import Encoder, padded
from trainformer.models.onnx import GRAPH

Form = tuple[Backbone, Bundle, list[str]]
"""What writes it, what answers, and what was done to come by it."""
OPSET = 20
"""From here on GELU is one operator."""
SEEN_ROWS, ASKED_ROWS, BATCH_TOKENS = 512, 128, 2048
"""Rows whose activations are seen; rows that tell what a product loses."""
MOST_KEPT = 0.5
"""Largest share of the groups of products that is left in float32: beyond it there is little left to gain."""


def forms(
    bundle: Bundle, examples: list[Example], place: Path, say: Callable[[str], None], way: type[ByToken] = ByToken
) -> Iterator[Form]:
    """Forms in PLACE, each written over the one before it; products stay float32 only from the second form on."""
    write_graph(bundle, place, OPSET)
    quantiser = Quantiser(place / GRAPH, _inputs(bundle, examples[:SEEN_ROWS]), bundle.limit, way)
    every = quantiser.groups
    quantiser.write()
    yield *quantiser.opened(bundle), [_told([], quantiser)]
    say(f"which of {len(every)} groups of products lose most, on {len(examples[:ASKED_ROWS])} rows:")
    order = _worst_first(bundle, quantiser, examples[:ASKED_ROWS])
    count = 1
    while count <= MOST_KEPT * len(every):
        quantiser.write(order[:count])
        yield *quantiser.opened(bundle), [_told(order[:count], quantiser)]
        count *= 2


def _worst_first(bundle: Bundle, quantiser: Quantiser, examples: list[Example]) -> list[Group]:
    """The groups of products, first the one without whose rounding the outputs come nearest to those of float32."""
    right, _ = bundle.raw(examples)
    left: dict[Group, float] = {}
    for group in quantiser.groups:
        quantiser.write([group])
        found, _ = quantiser.opened(bundle)[1].raw(examples)
        left[group] = _distance(found, right)
    return sorted(left, key=lambda group: left[group])


def _distance(one: Tensor, other: Tensor) -> float:
    """Mean square of the differences, each row's own mean taken off: a number that is added to all logits says nothing."""
    apart = one - other
    return float((apart - apart.mean(dim=1, keepdim=True) if apart.shape[1] > 1 else apart).square().mean())


def _inputs(bundle: Bundle, examples: list[Example]) -> Iterator[dict[str, Tensor]]:
    """Examples as padded rows, as the graph reads them."""
    items = encode_all(bundle.task, bundle.tokens, bundle.limit, examples)
    body = bundle.model.body
    assert isinstance(body, Encoder)
    for batch in batches_of(items, BATCH_TOKENS, padded=True):
        for part in batch.parts:
            yield padded(part, body.pad)


def _told(kept: list[Group], quantiser: Quantiser) -> str:
    said = f"weights: int8 by column, word embeddings by row; {quantiser.told}"
    if not kept:
        return said
    names = [name for group in kept for name in group.names]
    total = sum(len(group.names) for group in quantiser.groups)
    return f"{said}; {len(names)} of {total} linear layers stay float32, those that lose most: {', '.join(names)}"
