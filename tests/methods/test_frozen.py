"""bitfit, head_only, freeze and gradual_unfreeze: which parameters are trained, by name and by count."""

from typing import Any

import pytest
import torch

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.methods.bitfit import Bitfit
from trainformer.methods.freeze import Freeze
from trainformer.methods.gradual_unfreeze import GradualUnfreeze
from trainformer.methods.head_only import HeadOnly
from trainformer.methods.lora import Lora


def trained(model: Model) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def graded(model: Model, batch: Batch) -> set[str]:
    """Names of the parameters that a backward pass reaches."""
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(batch), batch.target).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}


def test_bitfit_trains_the_biases_and_the_head(bert: Model) -> None:
    Bitfit().extend(bert)
    names = trained(bert)
    assert all(name.endswith(".bias") or name.startswith("head.") for name in names)
    # A layer has the biases of query, key, value, output, two norms (16 each), of the feed-forward (32 and 16).
    body = sum(p.numel() for n, p in bert.named_parameters() if p.requires_grad and n.startswith("body."))
    assert body == 3 * (6 * 16 + 32 + 16) + 16


def test_bitfit_of_chosen_modules(bert: Model) -> None:
    Bitfit(targets=["query", "intermediate.dense"]).extend(bert)
    assert len([n for n in trained(bert) if n.startswith("body.")]) == 6


def test_bitfit_beside_lora_trains_what_either_wants_in_both_orders(bert: Model) -> None:
    pytest.importorskip("peft")
    Bitfit().extend(bert)
    alone = {n for n in trained(bert) if n.startswith("body.")}
    Lora(rank=2).extend(bert)
    names = set(trained(bert))
    assert {n.replace(".base_layer", "") for n in names if "lora_" not in n and n.startswith("body.")} == alone
    assert sum("lora_A" in n for n in names) == 18


def test_bitfit_refuses_a_model_without_biases(bag: Model) -> None:
    with pytest.raises(UserError, match="no biases"):
        Bitfit().extend(bag)


def test_bitfit_answers_an_unknown_target_with_the_names(bert: Model) -> None:
    with pytest.raises(UserError, match=r"bitfit\.targets.*'kye'.*Did you mean 'key'\?.*LayerNorm, dense, key, query, value"):
        Bitfit(targets=["kye"]).extend(bert)


def test_head_only_trains_the_head(bert: Model, texts: Batch) -> None:
    HeadOnly().extend(bert)
    assert trained(bert) == ["head.steps.1.weight", "head.steps.1.bias"]
    assert graded(bert, texts) == set(trained(bert))


def test_freeze_takes_the_bottom_and_no_gradient_goes_there(bert: Model, texts: Batch) -> None:
    Freeze(layers=2).extend(bert)
    assert {n.rpartition("layer.")[2][:1] for n in trained(bert) if n.startswith("body.")} == {"2"}
    states: list[torch.Tensor] = []
    bert.body.blocks()[2].register_forward_hook(lambda m, i, o: states.append(o if isinstance(o, torch.Tensor) else o[0]))
    assert graded(bert.train(), texts) == set(trained(bert))
    assert not states[0].requires_grad, "no backward below the lowest trained layer"


def test_frozen_layers_run_without_dropout(bert: Model, texts: Batch) -> None:
    Freeze(layers=2).extend(bert)
    seen: list[torch.Tensor] = []
    bert.body.blocks()[2].register_forward_hook(lambda m, i, o: seen.append(o if isinstance(o, torch.Tensor) else o[0]))
    bert.train()
    one, other = bert(texts), bert(texts)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(one, other)


def test_freeze_takes_half_where_it_is_not_told(bert: Model) -> None:
    Freeze().extend(bert)  # 3 // 2 = 1
    assert {n.rpartition("layer.")[2][:1] for n in trained(bert) if n.startswith("body.")} == {"1", "2"}


def test_freeze_by_pattern(bert: Model) -> None:
    Freeze(names=["*.attention.*", "word_embeddings.weight"]).extend(bert)
    names = trained(bert)
    assert not any(".attention." in n or "word_embeddings" in n for n in names)
    assert any("position_embeddings" in n for n in names) and sum("intermediate" in n for n in names) == 6


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nothing_is_trained_in_what_freeze_keeps(bert: Model, order: tuple[int, int]) -> None:
    pytest.importorskip("peft")
    methods: list[Any] = [Freeze(layers=2), Lora(rank=2)]
    for i in order:
        methods[i].extend(bert)
    body = [n for n in trained(bert) if n.startswith("body.")]
    assert len(body) == 12 and all("layer.2." in n and "lora_" in n for n in body)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"layers": 4}, r"4 layers are more than the model has\. At most 3\."), ({"names": ["nothing.*"]}, r"'nothing\.\*'")],
)
def test_freeze_refuses_what_is_not_there(bert: Model, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Freeze(**settings).extend(bert)


def test_layers_join_from_the_top_at_equal_distances(bert: Model, texts: Batch, facts: Facts) -> None:
    method = GradualUnfreeze(until=0.5)
    method.prepare(bert, facts)  # 10 steps, 4 blocks: one joins each step, at 1, 2, 3, 4
    joined = []
    for step in range(6):
        grad = method.wrap_grad(lambda batches: (graded(bert, batches[0]), torch.tensor(0.0))[1], bert)
        grad([texts])
        reached = [any(p.grad is not None for p in block.parameters()) for block in bert.body.blocks()]
        joined.append(sum(reached))
        assert reached == sorted(reached), "the higher first"
        method.after_step(bert, step + 1)
    assert joined == [0, 1, 2, 3, 4, 4]
    assert len(trained(bert)) == len(list(bert.parameters())), "the optimiser knows all from the start"
