"""LoRA beside its formula and beside what the library computes itself."""

import sys

import pytest
import torch

from trainformer.core.batch import Batch
from trainformer.core.errors import MissingExtra, UserError
from trainformer.core.roles import Model
from trainformer.engine.optim import rules
from trainformer.methods.adalora import Adalora
from trainformer.methods.lora import Lora

pytest.importorskip("peft", reason="LoRA needs the extra 'peft'")


def trained(model: Model) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def disturb(model: Model) -> None:
    """As training would: B is zero at first, and with it the change."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()


def test_only_the_changes_and_the_head_are_trained(stack: Model, batch: Batch) -> None:
    before = stack(batch)
    Lora(rank=1).extend(stack)
    names = trained(stack)
    assert len(names) == 2 * 4 + 1 and "head.weight" in names
    assert all("lora_" in name for name in names if name != "head.weight")
    assert not any("pooler" in name for name in names), "only the layers, where targets are not given"
    assert torch.equal(stack.eval()(batch), before)


def test_the_head_learns_at_the_usual_rate(stack: Model) -> None:
    method = Lora(rank=1)
    method.extend(stack)
    found = {name: rule.rate for name, rule in rules(stack, [method, Adalora()]).items()}
    assert found.pop("head.weight") == pytest.approx(1 / Lora.rate_factor), "not twice, whoever asks"
    assert set(found.values()) == {1.0}


def test_folding_gives_the_librarys_own_outputs_and_the_plain_names(stack: Model, batch: Batch) -> None:
    plain = {name: value.clone() for name, value in stack.state_dict().items()}
    method = Lora(rank=2, alpha=6.0, dropout=0.5)
    method.extend(stack)
    disturb(stack)
    layer = stack.body.layers[1]["query"]
    change = 3.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # alpha / rank = 3
    library = stack.eval()(batch).detach()
    method.fold(stack)
    folded, name = stack.state_dict(), "body.layers.1.query.weight"
    assert list(folded) == list(plain)
    assert torch.allclose(folded[name], plain[name] + change, atol=1e-6) and not torch.allclose(folded[name], plain[name])
    assert torch.equal(folded["body.layers.1.query.bias"], plain["body.layers.1.query.bias"])
    assert torch.allclose(stack(batch), library, atol=1e-5)
    assert not hasattr(stack.body, "peft_config")


def test_changes_are_float32_where_the_model_is_not(stack: Model) -> None:
    stack.to(torch.bfloat16)
    Lora(rank=1).extend(stack)
    assert {p.dtype for n, p in stack.named_parameters() if "lora_" in n} == {torch.float32}
    assert stack.body.layers[0]["query"].base_layer.weight.dtype == torch.bfloat16


def test_targets_by_the_end_of_their_name(stack: Model) -> None:
    Lora(rank=1, targets=["query", "pooler"]).extend(stack)
    assert sum("lora_A" in name for name in trained(stack)) == 3
    assert not any("dense" in name for name in trained(stack))


def test_a_target_of_one_layer(stack: Model) -> None:
    Lora(rank=1, targets=["0.query"]).extend(stack)
    assert [n for n in trained(stack) if "lora_A" in n] == ["body.layers.0.query.lora_A.default.weight"]


def test_an_unknown_target_is_answered_with_the_names_there_are(stack: Model) -> None:
    with pytest.raises(UserError, match=r"'qery'.*Did you mean 'query'\? The model has: dense, pooler, query\."):
        Lora(rank=1, targets=["qery"]).extend(stack)


def test_no_target_at_all_is_refused(stack: Model) -> None:
    with pytest.raises(UserError, match="no linear layer"):
        Lora(rank=1, targets=[]).extend(stack)


def test_a_rank_beyond_the_layer_is_refused(stack: Model) -> None:
    with pytest.raises(UserError, match=r"rank 3 is more than the layer 'layers\.0\.query' has: 2\. Set it to 2 or less"):
        Lora(rank=3).extend(stack)


def test_without_the_library_it_says_what_to_install(stack: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"pip install 'trainformer\[peft\]'"):
        Lora(rank=1).extend(stack)
