"""The head of a sequence: pooled states through the library's own modules, windows pooled into their example."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.models.families import HEADS, UNIFORM_ATTENTION
from trainformer.nn.pool import Pooling, first_tokens, pool, pool_windows

SCALE = 1024.0
"""The mean counts this many times as much as the first token's residual; a power of two that half precision bears."""


class SequenceHead(nn.Module):
    """Pooled states -> outputs. `paths` are the library's names of its modules, in the order in which they run.

    With `averaged` the mean goes through what one more layer of uniform attention would do to it: LayerNorm of the mean
    with a trace of the first token. So the library's model computes the same with that layer added (`uniform_layer`).
    """

    def __init__(self, modules: dict[str, nn.Module], pooling: Pooling, windows: str, eps: float | None = None):
        super().__init__()
        self.paths = list(modules)
        self.steps = nn.ModuleList(modules.values())
        self.pooling, self.windows, self.eps = pooling, windows, eps

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Hidden states "T D" -> outputs "B C"."""
        part = batch.parts[0]
        outputs = self.classify(self.features(hidden[0], part.lengths))
        return pool_windows(outputs, part.owner, len(batch), "max" if self.windows == "max" else "mean")

    def features(self, hidden: Tensor, lengths: list[int]) -> Tensor:
        """What the last linear layer reads: "T D" -> "S D"."""
        return self.after_pooling(pool(hidden, lengths, self.pooling), first_tokens(hidden, lengths))

    def after_pooling(self, pooled: Tensor, first: Tensor) -> Tensor:
        """What the last linear layer reads, from the pooled state and the first token's of each sequence: "S D" -> "S D"."""
        if self.eps is not None:
            mixed = (SCALE * pooled + first).float()
            for _ in range(2):  # the added layer has two norms
                mixed = nn.functional.layer_norm(mixed, mixed.shape[-1:], eps=self.eps)
            pooled = mixed.to(pooled.dtype)
        state = pooled[:, None]
        for step in list(self.steps)[:-1]:
            state = step(state)
        return state

    def sequence_outputs(self, pooled: Tensor, first: Tensor) -> Tensor:
        """The outputs of each sequence, windows not yet joined: "S D" -> "S C"."""
        return self.classify(self.after_pooling(pooled, first))

    def classify(self, state: Tensor) -> Tensor:
        """The last module of the head: "S D" -> "S C"."""
        outputs: Tensor = self.steps[-1](state)
        return outputs

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the outputs."""
        return [m for m in self.modules() if isinstance(m, nn.Linear)][-1]


class EmbeddingHead(SequenceHead):
    """The pooled state of each sequence at length 1; an example's are end to end. It has no weights."""

    def __init__(self, pooling: Pooling):
        super().__init__({}, pooling, "mean")

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Hidden states "T D" -> embeddings "B nD" of the n sequences that each example has."""
        pooled = pool(hidden[0], batch.parts[0].lengths, self.pooling)
        return self.sequence_outputs(pooled, pooled).view(len(batch), -1)

    def sequence_outputs(self, pooled: Tensor, first: Tensor) -> Tensor:
        """The embedding of each sequence: "S D" -> "S D"."""
        return nn.functional.normalize(pooled.float(), dim=-1)


class First(nn.Module):
    """The first state of each sequence: "S L D" -> "S D"."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, 0]


def library_modules(library: nn.Module, family: str, base: str) -> dict[str, nn.Module]:
    """The modules of the library's head by their names there, a head of one module opened into its steps."""
    modules: dict[str, nn.Module] = {}
    for word in HEADS[family].format(base=base).split():
        inner = {"first": First(), "relu": nn.ReLU()}.get(word)
        modules[word] = inner if inner is not None else library.get_submodule(word)
    whole: Any = modules.get("classifier")
    if isinstance(whole, nn.Linear):
        return modules
    assert whole is not None, f"the head of {family} ends in its classifier"
    activation = nn.GELU() if family == "electra" else nn.Tanh()
    steps: dict[str, nn.Module] = {
        "first": First(),
        "dropout": whole.dropout,
        "classifier.dense": whole.dense,
        "activation": activation,
    }
    return steps | {"classifier.dropout": whole.dropout, "classifier.out_proj": whole.out_proj}


def own_modules(width: int, outputs: int, dropout: float) -> dict[str, nn.Module]:
    """The head of an encoder for which the library has none that we know."""
    return {"first": First(), "dropout": nn.Dropout(dropout), "classifier": nn.Linear(width, outputs)}


@torch.no_grad()
def start_anew(head: SequenceHead, spread: float, whole: bool) -> None:
    """Forgets what another head had learnt: its last layer or, if `whole`, all of it but the encoder's own pooler."""
    steps = [step for path, step in zip(head.paths, head.steps, strict=True) if not path.endswith(".pooler")]
    layers = [m for step in steps for m in step.modules() if isinstance(m, nn.Linear)]
    for layer in layers if whole else layers[-1:]:
        layer.weight.normal_(0.0, spread)
        if layer.bias is not None:
            layer.bias.zero_()
    if whole and "classifier.dense" in head.paths:
        start_as_identity(head)


def start_as_identity(head: SequenceHead) -> None:
    """A new tanh layer starts as the identity, so that the head begins at what the encoder already knows."""
    dense = [m for m in head.modules() if isinstance(m, nn.Linear)][:-1]
    if dense and any(type(m).__name__ in ("Tanh", "BertPooler", "ErniePooler") for m in head.modules()):
        nn.init.eye_(dense[0].weight)
        nn.init.zeros_(dense[0].bias)


@torch.no_grad()
def uniform_layer(library: nn.Module, family: str) -> dict[str, Tensor]:
    """The weights of one more layer, in which every token attends to all alike: mean pooling as weights.

    Zero queries and keys make attention uniform, an identity times SCALE makes the residual a trace, the feed-forward
    adds nothing; what the first token holds is then LayerNorm(SCALE * mean + first), exactly what SequenceHead computes.
    """
    layers, projections, norm, inner, last_norm = UNIFORM_ATTENTION[family]
    stack: Any = library.get_submodule(layers)
    layer = copy.deepcopy(stack[0])
    query, key, value, output = (layer.get_submodule(p) for p in projections.split())
    for linear in (query, key, value, output, *(layer.get_submodule(p) for p in inner.split())):
        linear.weight.zero_()
        linear.bias.zero_()
    nn.init.eye_(value.weight)
    output.weight.copy_(SCALE * torch.eye(len(output.weight)))
    for name in (norm, last_norm):
        layer.get_submodule(name).weight.fill_(1.0)
        layer.get_submodule(name).bias.zero_()
    return {f"{layers}.{len(stack)}.{k}": v.clone() for k, v in layer.state_dict().items()}
