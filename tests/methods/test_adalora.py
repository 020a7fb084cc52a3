"""AdaLoRA on a small BERT: ranks are really moved, and its layers are those of the library."""

from typing import Any

import pytest
import torch

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.engine.optim import rules
from trainformer.methods.adalora import Adalora
from trainformer.nn.peft_layers import triplets

pytest.importorskip("peft", reason="AdaLoRA needs the extra 'peft'")


def learn(model: Model, method: Adalora, batch: Batch, steps: int) -> None:
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr=0.01)

    def grad(batches: list[Batch]) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(model(batches[0]), batches[0].target)
        loss.backward()
        return loss.detach()

    wrapped = method.wrap_grad(grad, model)
    for step in range(steps):
        wrapped([batch])
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(model, step + 1)


def test_ranks_move_and_the_budget_is_kept(bert: Model, texts: Batch, facts: Facts) -> None:
    method = Adalora(rank=2, initial=4, every=1, begin=0.1, end=0.6)
    method.extend(bert)
    method.prepare(bert, Facts(facts.task, steps=40, seed=0))
    before = {n: p.clone() for n, p in bert.named_parameters() if not p.requires_grad}
    learn(bert, method, texts, 40)
    ranks = method.told()["ranks"]
    first, last = [r[0] for r in ranks.values()], [r[-1] for r in ranks.values()]
    assert len(ranks) == 18 and set(first) == {4}
    assert sum(last) == 18 * 2 and len(set(last)) > 1, "equal in sum, not in each layer"
    real = [int((m.lora_E["default"] != 0).sum()) for m in bert.modules() if hasattr(m, "lora_E")]
    assert real == last
    after = dict(bert.named_parameters())
    assert all(torch.equal(after[n], p) for n, p in before.items())
    total = [sum(r) for r in zip(*ranks.values(), strict=True)]
    assert total == sorted(total, reverse=True)


def test_the_change_is_none_at_first_and_its_directions_have_length_one(bert: Model, texts: Batch) -> None:
    before = bert.eval()(texts)
    Adalora(rank=2, initial=4).extend(bert)
    assert torch.equal(bert.eval()(texts), before)
    for triplet in triplets(bert.body):
        for directions in (triplet.a, triplet.b.T):
            assert torch.allclose(directions @ directions.T, torch.eye(4), atol=1e-5)


def test_the_singular_values_learn_at_a_rate_of_their_own(bert: Model) -> None:
    method = Adalora(rank=2, initial=4, rate=7.0)
    method.extend(bert)
    found = {name: rule.rate for name, rule in rules(bert, [method]).items()}
    ends = [name for name in found if ".lora_E." in name]
    assert len(ends) == 18 and {found[n] for n in ends} == {7.0}
    assert {found[n] for n in found if n not in ends and n.startswith("body.")} == {1.0}


def test_folding_adds_the_formula(bert: Model, texts: Batch, facts: Facts) -> None:
    plain = {n: p.clone() for n, p in bert.named_parameters()}
    method = Adalora(rank=2, initial=4, alpha=8.0)
    method.extend(bert)
    method.prepare(bert, facts)
    learn(bert, method, texts, 5)
    layer: Any = bert.body.blocks()[2].attention.self.query
    a, e, b = (getattr(layer, f"lora_{x}")["default"].detach() for x in "AEB")
    scored = bert.eval()(texts)
    method.fold(bert)
    name = "body.encoder.encoder.layer.1.attention.self.query.weight"
    change = dict(bert.named_parameters())[name] - plain[name]
    assert list(dict(bert.named_parameters())) == list(plain)
    assert float(change.detach().abs().max()) > 0 and torch.allclose(change, 2.0 * b @ (e * a), atol=1e-5)  # alpha / initial
    assert torch.allclose(bert(texts), scored, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"begin": 0.6, "end": 0.6}, r"adalora\.end: there is no time to cut ranks"),
        ({"rank": 8, "initial": 4}, r"adalora\.initial: 4 is less than the rank that shall be left, 8"),
        ({"rank": 12}, r"adalora\.rank: rank 18 is more than the layer '.*' has: 16"),
        ({"targets": ["qurey"]}, r"adalora\.targets: .*'qurey'.*Did you mean 'query'"),
    ],
)
def test_what_cannot_be_is_refused(bert: Model, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Adalora(**settings).extend(bert)
