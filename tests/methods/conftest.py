"""Models small enough to work out by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.roles import Body, Facts, Model
from trainformer.models.encoder import Encoder
from trainformer.models.heads import First, SequenceHead
from trainformer.nn.packed_attention import packed_attention


class Stack(Body):
    """An embedding "3 2" and three square layers without activation."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 2
        self.table = nn.Embedding(3, 2)
        self.layers = nn.ModuleList(nn.ModuleDict({"query": nn.Linear(2, 2), "dense": nn.Linear(2, 2)}) for _ in range(2))
        self.pooler = nn.Linear(2, 2)

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        hidden = self.table(batch.parts[0].ids)
        for layer in self.layers:
            hidden = layer["dense"](layer["query"](hidden))
        return (hidden,)

    def embed(self) -> nn.Embedding:
        return self.table

    def blocks(self) -> list[nn.Module]:
        return [self.table, *self.layers]


class Dot(nn.Module):
    """The product of each token's state with a weight "2"."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return hidden[0] @ self.weight


class Bag(Body):
    """Nothing but an embedding "3 2": the state of a token is its row."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 2
        self.table = nn.Embedding(3, 2)
        self.table.weight.data = torch.tensor([[1.0, 2.0], [5.0, 6.0], [7.0, 8.0]])

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        return (self.table(batch.parts[0].ids),)

    def embed(self) -> nn.Embedding:
        return self.table

    def blocks(self) -> list[nn.Module]:
        return [self.table]


@pytest.fixture
def stack() -> Model:
    torch.manual_seed(0)
    return Model(Stack(), Dot())


@pytest.fixture
def bag() -> Model:
    return Model(Bag(), Dot())


@pytest.fixture
def batch() -> Batch:
    """One example of one token, the id 0; its target is class 1."""
    return pack([Encoded((Part(torch.tensor([0]), [1]),), torch.tensor([1]), row=0)])


@pytest.fixture
def facts() -> Facts:
    task: Any = SimpleNamespace()
    return Facts(task, steps=10, seed=0)


def small_bert(layers: int = 3, **settings: Any) -> Model:
    """A packed BERT of width 16 with a linear head "3" on the mean."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    encoder = transformers.BertModel(config, add_pooling_layer=False)
    transformers.AttentionInterface.register("packed", packed_attention)
    if settings.get("packed", True):
        encoder.set_attn_implementation("packed")
    head = SequenceHead({"first": First(), "classifier": nn.Linear(16, 3)}, "mean", "mean")
    return Model(Encoder(encoder, packed=settings.get("packed", True)), head).eval()


@pytest.fixture
def bert() -> Model:
    return small_bert()


@pytest.fixture
def padded() -> Model:
    """The same, padded inside."""
    return small_bert(packed=False)


@pytest.fixture
def texts() -> Batch:
    """Four examples of 3, 3, 5 and 2 tokens."""
    draw = torch.Generator().manual_seed(3)
    sizes = [3, 3, 5, 2]
    ids = [torch.randint(1, 20, (n,), generator=draw) for n in sizes]
    return pack([Encoded((Part(x, [len(x)]),), torch.tensor([i % 3]), row=i) for i, x in enumerate(ids)])
