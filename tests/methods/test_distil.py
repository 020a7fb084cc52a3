"""The loss of distillation by its formula, and teachers that are refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainformer.bundle import Bundle
from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.losses.classification import symmetric_kl
from trainformer.methods.distil import Distil
from trainformer.tasks.text_classification import TextClassification


class Scores(nn.Module):
    """Logits "B 2" of the state of each example's first token."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 2)

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        starts = torch.tensor([0, *batch.parts[0].lengths[:-1]]).cumsum(0)
        return self.out(hidden[0][starts])


@pytest.fixture
def pair(stack: Model) -> tuple[Model, Model]:
    """A pupil and its teacher of the same shape."""
    torch.manual_seed(1)
    teacher = Model(type(stack.body)(), Scores())
    stack.head = Scores()
    return stack, teacher


@pytest.fixture
def rows() -> Batch:
    ids = [[0, 1], [2], [1, 1, 0]]
    return pack([Encoded((Part(torch.tensor(i), [len(i)]),), torch.tensor([n % 2]), row=n) for n, i in enumerate(ids)])


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch), batch.target, reduction="none")


def taught(method: Distil, pupil: Model, teacher: Model) -> Any:
    method._teacher = teacher
    task: Any = SimpleNamespace(divergence=symmetric_kl)
    method.prepare(pupil, Facts(task, steps=1, seed=0))
    return method.wrap_loss(loss)


def test_answers_by_the_formula(pair: tuple[Model, Model], rows: Batch) -> None:
    pupil, teacher = pair
    found = taught(Distil(weight=0.3, temperature=4.0), pupil, teacher)(pupil, rows)
    expected = 0.7 * loss(pupil, rows) + 0.3 * 16 * symmetric_kl(pupil(rows) / 4, teacher(rows) / 4)
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_states_by_the_formula(pair: tuple[Model, Model], rows: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer beside the teacher's, the mean over layers and the tokens of each row."""
    pupil, teacher = pair
    outputs: dict[int, list[Tensor]] = {}
    for key, model in enumerate(pair):
        hidden, outputs[key] = model.body.table(rows.parts[0].ids), []
        for layer in model.body.layers:
            hidden = layer["dense"](layer["query"](hidden))
            outputs[key].append(nn.functional.normalize(hidden, dim=-1))
    apart = torch.stack([(a - b).pow(2).sum(-1) for a, b in zip(*outputs.values(), strict=True)]).mean(0)
    expected = torch.stack([apart[0:2].mean(), apart[2], apart[3:6].mean()])
    for model in pair:
        for block in model.body.layers:
            block.forward = lambda hidden, block=block: block["dense"](block["query"](hidden))
    monkeypatch.setattr(type(pupil.body), "forward", _through_blocks)
    found = taught(Distil(weight=0.0, hidden=2.0), pupil, teacher)(pupil, rows)
    assert torch.allclose(found, loss(pupil, rows) + 2.0 * expected, atol=1e-5)


def _through_blocks(body: Any, batch: Batch) -> tuple[Tensor, ...]:
    """As the stack's own forward, each block called as a whole, as the library's layers are."""
    hidden = body.table(batch.parts[0].ids)
    for layer in body.layers:
        hidden = layer(hidden)
    return (hidden,)


def test_layers_stand_beside_those_of_the_same_height(stack: Model) -> None:
    from trainformer.nn.layers import beside

    deep = Model(type(stack.body)(), Scores())
    deep.body.layers.extend(type(stack.body)().layers)
    assert [list(deep.body.layers).index(theirs) for _, theirs in beside(stack, deep)] == [1, 3]


def test_no_teacher_and_other_teachers_are_refused(bag: Model, trained: Path) -> None:
    with pytest.raises(UserError, match=r"there is no teacher\. --set method\.distil\.teacher=RUN/bundle"):
        Distil().prepare(bag, Facts(TextClassification(labels=["bad", "good"]), steps=1, seed=0))
    teacher = str(trained / "bundle")
    own = Bundle.open(teacher).tokens.fingerprint
    with pytest.raises(UserError, match=r"the teacher learnt text_classification \['bad', 'good'\], and this model shall learn"):
        Distil(teacher=teacher).prepare(bag, Facts(TextClassification(labels=["x", "y"]), steps=1, seed=0, tokenizer=own))
    task = TextClassification(labels=["bad", "good"])
    with pytest.raises(UserError, match="the teacher has another tokenizer"):
        Distil(teacher=teacher).prepare(bag, Facts(task, steps=1, seed=0, tokenizer="another"))
    with pytest.raises(UserError, match="the states of this model are 2 wide, the teacher's 32"):
        Distil(teacher=teacher, hidden=1.0).prepare(bag, Facts(task, steps=1, seed=0, tokenizer=own))
    with pytest.raises(UserError, match="no such folder"):
        Distil(teacher="nowhere").prepare(bag, Facts(task, steps=1, seed=0))
