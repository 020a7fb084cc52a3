"""A tiny model, task and loop, which know the roles and nothing of any method: what the contract is tried on."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from trainformer.core import registry
from trainformer.core.batch import Batch, Encoded, Part, cut, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Body, Facts, Grad, Loss, Method, Model, Rule
from trainformer.engine.pieces import Loop as Around
from trainformer.engine.pieces import base_grad
from trainformer.methods.distil import Distil
from trainformer.metrics.decide import OneOf
from trainformer.models.encoder import Encoder
from trainformer.nn.packed_attention import packed_attention

VOCABULARY, WIDTH, CLASSES = 20, 16, 3


class TinyBody(Body):
    """Two residual layers over packed tokens."""

    def __init__(self, dropout: float):
        super().__init__()
        self.width = WIDTH
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH), nn.Dropout(dropout)) for _ in range(2)
        )

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        hidden = self.table(batch.parts[0].ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return (hidden,)

    def embed(self) -> nn.Embedding:
        return self.table

    def blocks(self) -> list[nn.Module]:
        return [self.table, *self.layers]


def bert(dropout: float) -> Body:
    """A packed BERT of two layers, for methods that ask for attention and feed-forward."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * WIDTH,
        max_position_embeddings=64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    transformers.AttentionInterface.register("packed", packed_attention)
    encoder = transformers.BertModel(config, add_pooling_layer=False)
    encoder.set_attn_implementation("packed")
    return Encoder(encoder, packed=True)


def extended(methods: list[Method], dropout: float, real: bool) -> tuple[Model, bool]:
    """A model with the methods in it: the tiny one or, where one of them refuses that, a BERT; and whether it is one."""
    for body in (bert,) if real else (TinyBody, bert):
        torch.manual_seed(0)
        model = Model(body(dropout), TinyHead())
        try:
            for method in methods:
                method.extend(model)
        except UserError:
            if body is bert:
                raise
        else:
            return model, body is bert
    raise AssertionError("unreachable")


class TinyHead(nn.Module):
    """Mean over the tokens of an example, then one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        owner = torch.repeat_interleave(batch.parts[0].owner, torch.tensor(batch.parts[0].lengths))
        total = torch.zeros(len(batch), WIDTH).index_add(0, owner, hidden[0].float())
        output: Tensor = self.out(total / torch.bincount(owner).unsqueeze(1))
        return output


def task_loss(output: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(output, batch.target, reduction="none")


def divergence(one: Tensor, other: Tensor) -> Tensor:
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1) / 2


class Loop:
    """The order in which an engine calls methods, with plain gradient descent."""

    def __init__(
        self, methods: list[Method], dropout: float = 0.0, weights: dict[str, Tensor] | None = None, real: bool = False,
        numbers: Any = nullcontext,
    ):  # fmt: skip
        self.methods = methods
        self.model, self.real = extended(methods, dropout, real)
        for module in self.model.modules():
            # Also the dropout that a method brings along: what is compared must not depend on draws.
            if isinstance(module, nn.Dropout) and dropout == 0:
                module.p = 0.0
        if weights is not None:
            self.model.load_state_dict(weights)
        rule = OneOf([str(label) for label in range(CLASSES)])
        task: Any = SimpleNamespace(loss=task_loss, divergence=divergence, couples=lambda kind: False, rule=rule)
        for method in methods:
            if isinstance(method, Distil):  # its teacher is a bundle; here it is one more tiny model
                method._teacher = Model(TinyBody(0.0), TinyHead())
        facts = Facts(task, steps=10, seed=0, rows=8, lengths=lambda: torch.arange(1, 9))
        for method in methods:
            method.prepare(self.model, facts)
        self.rules = {name: Rule() for name, p in self.model.named_parameters() if p.requires_grad}
        self.loss: Loss = lambda model, batch: task_loss(model(batch), batch)
        for method in methods:
            method.groups(self.model, self.rules)
            self.loss = method.wrap_loss(self.loss)
        joined = any(method.couples() for method in methods)
        self.inner = base_grad(self.model, self.loss, Around(numbers, lambda: self.done), lambda kind: joined)
        self.grad: Grad = self.inner
        for method in methods:
            self.grad = method.wrap_grad(self.grad, self.model)
        self.done = 0

    def step(self, batches: list[Batch]) -> float:
        torch.manual_seed(100 + self.done)
        self.model.train().zero_grad()
        loss = float(self.grad(batches))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * self.rules[name].rate * parameter.grad)
        self.done += 1
        for method in self.methods:
            method.after_step(self.model, self.done)
        return loss

    def swap(self) -> None:
        for method in self.methods:
            method.swap(self.model)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    @torch.no_grad()
    def plain(self, batch: Batch) -> float:
        """The task's own loss."""
        return float((task_loss(self.model.eval()(batch), batch) * batch.weight).mean())

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Tensor:
        output: Tensor = self.model.eval()(batch)
        return output


def make(names: list[str]) -> list[Method]:
    return [registry.build(Method, name, None) for name in names]


@pytest.fixture
def loop() -> Callable[..., Loop]:
    """`loop("ema", "fgm", dropout=0.1)`: a loop with methods by name, the last outermost; `real`: on a BERT."""
    return lambda *names, **settings: Loop(make(list(names)), **settings)


@pytest.fixture
def batch() -> Batch:
    """Eight examples of 1 to 8 tokens, of unequal weight."""
    draw = torch.Generator().manual_seed(1)
    items = []
    for row in range(8):
        ids = torch.randint(VOCABULARY, (row + 1,), generator=draw)
        target = torch.randint(CLASSES, (1,), generator=draw)
        items.append(Encoded((Part(ids, [row + 1]),), target, row, weight=0.5 + row / 7))
    return pack(items)


@pytest.fixture
def pieces(batch: Batch) -> list[Batch]:
    """The same examples in micro-batches of three, three and two."""
    return cut(batch, 3)
