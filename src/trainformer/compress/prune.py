"""Parts of a model taken out: whole layers, feed-forward columns, attention heads. The matrices really become smaller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Model
from trainformer.models.encoder import Encoder
from trainformer.models.families import UNIFORM_ATTENTION

Run = Callable[[], object]
"""Runs the model over the rows that tell what matters in it."""


class Layers:
    """The layers of an encoder of the BERT kind, and where the parts of a layer lie."""

    def __init__(self, model: Model):
        assert isinstance(model.body, Encoder)
        self.encoder: Any = model.body.encoder
        family = self.encoder.config.model_type
        if family not in UNIFORM_ATTENTION:
            fix = f"{nearest(family, UNIFORM_ATTENTION)} It can still become int8.".strip()
            raise UserError(f"the parts of '{family}' are not known by name.", where="--layers, --prune", fix=fix)
        self.path, projections, _, inner, _ = UNIFORM_ATTENTION[family]
        *self.heads, self.joined = projections.split()
        self.widened, self.narrowed = inner.split()

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def stack(self) -> Any:
        return self.encoder.get_submodule(self.path)

    def keep(self, kept: list[int]) -> None:
        """Leaves out all layers but these, in their order."""
        outer, _, name = self.path.rpartition(".")
        self.encoder.get_submodule(outer).add_module(name, nn.ModuleList(self.stack[i] for i in kept))
        self.encoder.config.num_hidden_layers = len(kept)


def keep_layers(model: Model, count: int, run: Run) -> list[int]:
    """Keeps the layers that change what passes through them most, by cosine (Men et al. 2024, arXiv:2403.03853); their numbers.

    Raises UserError if there are not so many.
    """
    layers = Layers(model)
    if not 1 <= count <= len(layers):
        raise UserError(f"the model has {len(layers)} layers, {count} cannot be kept.", where="--layers")
    found = [_Mean() for _ in layers.stack]

    def saw(place: int) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, named: Any, output: Any) -> None:
            before = given[0] if given else named["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            found[place].add(1 - torch.cosine_similarity(before, after, dim=-1).reshape(-1, 1))

        return hook

    handles = [layer.register_forward_hook(saw(i), with_kwargs=True) for i, layer in enumerate(layers.stack)]
    with _removed(handles):
        run()
    influence = [float(each.value()) for each in found]
    kept = sorted(sorted(range(len(layers)), key=lambda i: -influence[i])[:count])
    layers.keep(kept)
    return kept


def prune_columns(model: Model, share: float, run: Run) -> int:
    """Takes a share of the feed-forward columns out of each layer, the same number in all; how many stay.

    What goes has the least |activation| x |weights that read it| (Sun et al. 2023, arXiv:2306.11695, by column).
    """
    layers = Layers(model)
    weighed = _weigh(layers, layers.narrowed, run)
    stays = max(1, len(weighed[0]) - int(share * len(weighed[0])))
    for layer, weight in zip(layers.stack, weighed, strict=True):
        _narrow(layer, [layers.widened], layers.narrowed, weight.topk(stays).indices.sort().values)
    config = layers.encoder.config
    setattr(config, "hidden_dim" if hasattr(config, "hidden_dim") else "intermediate_size", stays)
    return stays


def prune_heads(model: Model, share: float, run: Run) -> int:
    """Takes a share of the attention heads out of each layer, the same number in all; how many stay (Michel et al. 2019,
    arXiv:1905.10650). The library's configuration has no word for it: such a model lives on as a graph alone.
    """
    layers = Layers(model)
    weighed = _weigh(layers, layers.joined, run)
    heads = int(layers.encoder.config.num_attention_heads)
    stays = max(1, heads - int(share * heads))
    for layer, weight in zip(layers.stack, weighed, strict=True):
        chosen = weight.square().view(heads, -1).sum(1).topk(stays).indices.sort().values
        columns = torch.arange(len(weight)).view(heads, -1)[chosen].flatten()
        _narrow(layer, layers.heads, layers.joined, columns)
    return stays


class _Mean:
    """The mean over rows "N D" that are given piece by piece."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.rows = 0

    def add(self, values: Tensor) -> None:
        self.total = self.total + values.double().sum(0)
        self.rows += len(values)

    def value(self) -> Tensor:
        return torch.as_tensor(self.total) / max(1, self.rows)


def _weigh(layers: Layers, name: str, run: Run) -> list[Tensor]:
    """For each layer how much each column that a linear layer reads weighs in what it gives."""
    readers = [layer.get_submodule(name) for layer in layers.stack]
    seen = [_Mean() for _ in readers]
    handles = [
        reader.register_forward_pre_hook(lambda _, given, at=place: at.add(given[0].reshape(-1, given[0].shape[-1]).square()))
        for reader, place in zip(readers, seen, strict=True)
    ]
    with _removed(handles):
        run()
    sizes = [place.value().sqrt() for place in seen]
    return [size * reader.weight.detach().double().norm(dim=0) for reader, size in zip(readers, sizes, strict=True)]


def _narrow(layer: nn.Module, givers: list[str], reader: str, kept: Tensor) -> None:
    """Keeps these outputs of some linear layers and these inputs of the one that reads them."""
    for name in givers:
        old: Any = layer.get_submodule(name)
        _put(layer, name, old.weight[kept], old.bias[kept])
    last: Any = layer.get_submodule(reader)
    _put(layer, reader, last.weight[:, kept], last.bias)


def _put(layer: nn.Module, name: str, weight: Tensor, bias: Tensor) -> None:
    new = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        new.weight.copy_(weight)
        new.bias.copy_(bias)
    outer, _, last = name.rpartition(".")
    layer.get_submodule(outer).add_module(last, new)


@contextmanager
def _removed(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
