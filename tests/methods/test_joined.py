"""Methods whose loss joins the rows of a step: mixup, supcon, simcse, group_dro, curriculum by loss."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.losses.contrastive import in_batch, supervised
from trainformer.methods.curriculum import Curriculum
from trainformer.methods.group_dro import GroupDro
from trainformer.methods.mixup import Mixup
from trainformer.methods.simcse import Simcse
from trainformer.methods.supcon import Supcon
from trainformer.metrics.decide import OneOf

LABELS = [0, 1, 0, 1, 0, 1]


class Scores(nn.Module):
    """Logits "B 2" of the state of each one-token example."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 2)

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return self.out(hidden[0])


@pytest.fixture
def model(bag: Model) -> Model:
    torch.manual_seed(0)
    bag.head = Scores()
    return bag


@pytest.fixture
def rows() -> Batch:
    return pack([Encoded((Part(torch.tensor([i % 3]), [1]),), torch.tensor([y]), row=i) for i, y in enumerate(LABELS)])


def facts(**more: Any) -> Facts:
    task: Any = SimpleNamespace(rule=OneOf(["a", "b"]))
    return Facts(task, steps=10, seed=0, rows=6, **more)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch), batch.target, reduction="none")


def prepared(method: Any, model: Model, **more: Any) -> Any:
    method.prepare(model, facts(**more))
    return method


def test_supcon_is_its_share_of_the_loss(model: Model, rows: Batch) -> None:
    found = prepared(Supcon(weight=0.4, temperature=0.2), model).wrap_loss(loss)(model, rows)
    expected = 0.6 * loss(model, rows) + 0.4 * supervised(model.body(rows)[0], rows.target, 0.2)
    assert torch.allclose(found, expected, atol=1e-6)


def test_supcon_needs_one_label_a_row(model: Model) -> None:
    with pytest.raises(UserError, match="it needs one label for each row"):
        Supcon().prepare(model, Facts(SimpleNamespace(), steps=1, seed=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [Supcon(), Simcse(), Mixup()])
def test_a_head_without_a_layer_is_refused(method: Any, bag: Model) -> None:
    with pytest.raises(UserError, match="no linear layer to read the states of"):
        method.prepare(bag, facts())


def test_simcse_adds_how_a_row_finds_itself_under_other_dropout(model: Model, rows: Batch) -> None:
    inner = model.head
    model.head = nn.ModuleDict({"dropout": nn.Dropout(0.5), "inner": inner})
    model.head.forward = lambda hidden, batch: inner((model.head["dropout"](hidden[0]),), batch)
    method = prepared(Simcse(weight=0.3, temperature=0.5), model.train())
    torch.manual_seed(3)
    found = method.wrap_loss(loss)(model, rows)
    torch.manual_seed(3)
    states = [nn.functional.dropout(model.body(rows)[0], 0.5) for _ in range(2)]
    plain = nn.functional.cross_entropy(inner.out(states[0]), rows.target, reduction="none")
    assert torch.allclose(found, plain + 0.3 * in_batch(*states, 0.5), atol=1e-6)


def test_mixup_mixes_states_and_keeps_each_rows_target(model: Model, rows: Batch) -> None:
    method = prepared(Mixup(alpha=0.5), model)
    found = method.wrap_loss(loss)(model, rows)
    share, partner = method._draw(rows)
    states = model.body(rows)[0]
    mixed = share * states + (1 - share) * states[partner]
    expected = nn.functional.cross_entropy(model.head.out(mixed), rows.target, reduction="none")
    assert torch.allclose(found, expected, atol=1e-6)
    method.after_step(model, 0)
    assert not torch.equal(share, method._draw(rows)[0])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_one_target_with_beta_of_alpha_plus_one_has_the_mean_of_two(alpha: float, model: Model, rows: Batch) -> None:
    """Both sides as integrals over s, by the midpoint rule: the classic sum of both targets, and ours, over both orders."""
    stats = pytest.importorskip("scipy.stats")
    i, j = 0, 1  # of different labels
    states = model.body(rows)[0].detach()
    grid = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000

    def at(share: Tensor, target: int) -> Tensor:
        logits = model.head.out((share[:, None] * states[i] + (1 - share[:, None]) * states[j]).float()).detach()
        return nn.functional.cross_entropy(logits, torch.full((len(share),), target), reduction="none").double()

    def mean(values: Tensor, *shape: float) -> float:
        cells = torch.from_numpy(stats.beta(*shape).cdf(torch.arange(20001).double().div(20000).numpy())).diff()
        return float((values * cells).sum())

    classic = mean(grid * at(grid, LABELS[i]) + (1 - grid) * at(grid, LABELS[j]), alpha, alpha)
    ours = (mean(at(grid, LABELS[i]), alpha + 1, alpha) + mean(at(1 - grid, LABELS[j]), alpha + 1, alpha)) / 2
    assert ours == pytest.approx(classic, rel=1e-4)


def test_the_share_is_drawn_from_its_distribution(model: Model, rows: Batch) -> None:
    """Beta(a + 1, a) has the mean (a + 1) / (2 a + 1): 6/7 for a = 0.2."""
    method = prepared(Mixup(alpha=0.2), model)
    shares = [method._share(row) for row in range(4000)]
    assert sum(shares) / 4000 == pytest.approx(6 / 7, abs=0.01)


def test_group_dro_weighs_groups_by_the_exponential_of_their_losses(model: Model, rows: Batch) -> None:
    method = prepared(GroupDro(eta=0.5, column="g"), model, column=lambda name: ["x", "x", "y", "y", "y", "z"])
    wrapped, plain = method.wrap_loss(loss), loss(model, rows)
    means = torch.stack([plain[:2].mean(), plain[2:5].mean(), plain[5]]).detach()
    q = torch.full((3,), 1 / 3)
    for step in range(2):
        q = q * torch.exp(0.5 * means)
        q = q / q.sum()
        for _ in range(2):  # a second gradient in the same step starts from the same weights
            assert float(wrapped(model, rows).mean().detach()) == pytest.approx(float((q * means).sum()), rel=1e-6)
        method.after_step(model, step)
        assert torch.allclose(method.state()["weights"], q.detach(), atol=1e-6)


def test_without_a_column_the_labels_are_the_groups(model: Model, rows: Batch) -> None:
    method = prepared(GroupDro(eta=1.0), model)
    plain = loss(model, rows).detach()
    means = torch.stack([plain[::2].mean(), plain[1::2].mean()])
    q = means.exp() / means.exp().sum()
    assert float(method.wrap_loss(loss)(model, rows).mean().detach()) == pytest.approx(float((q * means).sum()), rel=1e-6)


def test_one_group_alone_or_none_is_refused(model: Model) -> None:
    with pytest.raises(UserError, match="all training rows are of one group: 'x'"):
        prepared(GroupDro(column="g"), model, column=lambda name: ["x"] * 6)
    with pytest.raises(UserError, match="the task has no labels that could be groups"):
        GroupDro().prepare(model, Facts(SimpleNamespace(), steps=1, seed=0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pace", "expected"),
    [("linear", 0.2 + 0.8 * 0.5), ("root", math.sqrt(0.04 + 0.96 * 0.5)), ("geometric", math.sqrt(0.2)), ("step", 0.2)],
)
def test_paces_half_way(pace: str, expected: float, model: Model) -> None:
    """10 steps, over 0.8 of them: step 4 is half-way, from step 8 on all rows are read."""
    method = prepared(Curriculum(pace=pace, start=0.2, over=0.8), model, lengths=lambda: torch.arange(6))
    assert method.share(0) == pytest.approx(0.2) and method.share(4) == pytest.approx(expected)
    assert method.share(8) == method.share(9) == 1.0


def test_rows_come_from_the_easiest_share(model: Model) -> None:
    method = prepared(Curriculum(pace="step", start=0.5, over=0.5), model, lengths=lambda: torch.tensor([60, 10, 50, 20, 40, 30]))
    # ranks: row 0 has 5, row 1 has 0, 2: 4, 3: 1, 4: 3, 5: 2; half of each rank is a rank of the easiest three: rows 1, 3, 5
    assert method.pick([0, 1, 2, 3, 4, 5], step=0) == [5, 1, 5, 1, 3, 3]
    assert method.pick([0, 1, 2, 3, 4, 5], step=5) == [0, 1, 2, 3, 4, 5]


def test_a_column_says_how_hard_rows_are(model: Model) -> None:
    given = ["0.3", 2, 0.1, "7", 5.5, 1]
    method = prepared(Curriculum(by="column", column="hard", pace="step", start=0.01), model, column=lambda name: given)
    assert method.pick([0, 3, 5], step=0) == [2, 2, 2]
    with pytest.raises(UserError, match="'hard' is 'easy', not a number"):
        prepared(Curriculum(by="column", column="hard"), model, column=lambda name: ["easy"] * 6)
    with pytest.raises(UserError, match="go together"):
        prepared(Curriculum(by="column"), model)


def test_by_loss_only_the_easiest_rows_of_the_step_count(model: Model, rows: Batch) -> None:
    method = prepared(Curriculum(by="loss", pace="linear", start=0.3, over=1.0), model)
    plain = loss(model, rows)
    found = method.wrap_loss(loss)(model, rows)
    easiest = plain.sort().values[:2]  # ceil(0.3 * 6)
    assert float(found.mean().detach()) == pytest.approx(float(easiest.mean().detach()), rel=1e-6)
    assert int((found > 0).sum()) == 2 and method.couples() and method.pick([3, 1], 0) == [3, 1]
    assert not Curriculum().couples()
