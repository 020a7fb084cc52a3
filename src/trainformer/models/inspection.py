"""What a model costs, module by module: parameters, operations a token, memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainformer.core import registry
from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Body, Model, Task
from trainformer.models import stored
from trainformer.models.design import Design
from trainformer.models.presets import PRESETS
from trainformer.models.transformer import Attention, Stack, Transformer
from trainformer.models.vocabulary import VocabularyHead

PUBLISHED = {"bert": "encoder", "gpt2": "decoder", "modern": "decoder", "transformer": "encoder-decoder", "t5": "encoder-decoder"}
"""The form in which a preset's model was published, by the beginning of its name."""
WEIGHT, TRAINED = 4, 16
"""Bytes of a weight in float32; with its gradient and AdamW's two averages."""
MIB = 2**20


@dataclass(frozen=True)
class Module:
    """A module: its parameters, the operations (a product and a sum are two) of a forward pass for a token, and bytes.

    `cache_bytes`: keys and values that are kept for a token while a text is written.
    """

    name: str
    parameters: int
    flops: float
    weight_bytes: int
    training_bytes: int
    cache_bytes: int


def inspected(name: str, tokens: int, vocabulary: int, task: str | None = None) -> list[Module]:
    """The modules of a model in texts of so many tokens, the sum last. Raises UserError for a name that is no model's."""
    rows = list(_modules(*_parts(name, vocabulary, task), tokens))
    numbers = [[getattr(row, field) for row in rows] for field in Module.__dataclass_fields__ if field != "name"]
    return [*rows, Module("total", *(sum(each) for each in numbers))]


def _parts(name: str, vocabulary: int, task: str | None) -> tuple[Body, nn.Module]:
    """The body and the head; of a new model, or of a checkpoint, without weights."""
    folder = Path(name)
    if (folder / "trainformer.json").is_file():
        from trainformer.bundle import Bundle

        model: Model = Bundle.open(folder).model
        return model.body, model.head
    if name not in PRESETS and not folder.is_dir():
        raise UserError("no new model and no folder has that name.", where=name, fix=nearest(name, PRESETS))
    design = PRESETS[name].model_copy(update={"vocabulary": vocabulary, "form": _form(name, task)}) if name in PRESETS else (
        stored.design(folder))  # fmt: skip
    return _empty(design)


def _form(preset: str, task: str | None) -> Any:
    if task is None:
        return PUBLISHED[preset.partition("-")[0]]
    found: type[Task] = registry.find(Task, task)
    return found.writes or "encoder"


def _empty(design: Design) -> tuple[Body, nn.Module]:
    with torch.device("meta"):
        body = Transformer(design)
        return body, VocabularyHead(body)


def _modules(body: Body, head: nn.Module, tokens: int) -> Iterator[Module]:
    """Embeddings, each layer's blocks, the head; of a body that is not ours each layer as a whole."""
    if not isinstance(body, Transformer):
        for number, block in enumerate(body.blocks()):
            yield _measured("embeddings" if number == 0 else f"layer {number}", block, tokens)
        yield _measured("head", head, tokens)
        return
    loose = [body.table, body.places, body.kinds, body.embedding_norm]
    yield _sum("embeddings", [_measured("", m, tokens) for m in loose if m is not None])
    for side, stack in (("encoder", body.encoder), ("decoder", body.decoder)):
        if stack is not None:
            yield from _blocks(side, stack, tokens)
    tied = 2.0 * body.table.weight.numel() if isinstance(head, VocabularyHead) and head.out is None else 0.0
    yield _sum("head", [_measured("", head, tokens), Module("", 0, tied, 0, 0, 0)])


def _blocks(side: str, stack: Stack, tokens: int) -> Iterator[Module]:
    """The blocks of each layer, with their norms, and what a stack has besides."""
    for number, layer in enumerate(stack.layers, 1):
        blocks = {"attention": [layer.attention, layer.attention_norm], "cross-attention": [layer.cross, layer.cross_norm],
                  "feed-forward": [layer.feed_forward, layer.feed_forward_norm]}  # fmt: skip
        for block, modules in blocks.items():
            found = [_measured("", m, tokens) for m in modules if isinstance(m, nn.Module)]
            if found:
                yield _sum(f"{side} {number} {block}", found)
    rest = [_measured("", m, tokens) for m in (stack.norm, stack.relative) if m is not None]
    if any(m.parameters for m in rest):
        yield _sum(f"{side} norm and positions", rest)


def _sum(name: str, parts: list[Module]) -> Module:
    columns = [f for f in Module.__dataclass_fields__ if f != "name"]
    return Module(name, *(sum(getattr(part, f) for part in parts) for f in columns))


def _measured(name: str, module: nn.Module, tokens: int) -> Module:
    parameters = sum(p.numel() for p in module.parameters())
    flops = 2.0 * sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    attentions = [m for m in module.modules() if isinstance(m, Attention)]
    for each in attentions:
        seen, reach = ((tokens + 1) / 2, 1) if each.causal else (tokens, 2)
        near = seen if each.window is None else min(seen, reach * each.window)
        flops += 4 * near * each.heads * each.inner  # scores, and the mean of the values
    kept = sum(2 * WEIGHT * a.groups * a.inner for a in attentions if a.causal)
    return Module(name, parameters, flops, WEIGHT * parameters, TRAINED * parameters, kept)


def render(rows: list[Module], tokens: int) -> None:
    """A table, with a bar for each module's share of the parameters."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"a forward pass in texts of {tokens} tokens; an encoder's token is the source's", title_justify="left")
    for column in ("module", "parameters", "share", "Mflop a token", "weights MiB", "training MiB", "cache bytes a token"):
        table.add_column(column, justify="left" if column in ("module", "share") else "right", no_wrap=True)
    whole = rows[-1].parameters
    for row in rows:
        bar = "" if row is rows[-1] else "█" * max(1, round(20 * row.parameters / whole)) if row.parameters else ""
        table.add_row(row.name, f"{row.parameters:,}", bar, f"{row.flops / 1e6:.2f}", f"{row.weight_bytes / MIB:.1f}",
                      f"{row.training_bytes / MIB:.1f}", f"{row.cache_bytes:,}", end_section=row is rows[-2])  # fmt: skip
    Console(width=120).print(table)
