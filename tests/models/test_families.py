"""Settings that reach every family: dropout everywhere, and how long a text may be."""

from typing import Any

import pytest
import torch
from torch import nn

from trainformer.core.batch import Encoded, Part, pack
from trainformer.models.pretrained import Pretrained

FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert", "modernbert", "mpnet", "deberta-v2"]


def dropouts(model: nn.Module) -> dict[str, float]:
    """The share that each dropout of a model drops, by name; attention functions read `attention_dropout` as a number."""
    found = {name: float(m.p) for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    numbers = {f"{n}.attention_dropout": m.attention_dropout for n, m in model.named_modules() if hasattr(m, "attention_dropout")}
    return found | {n: float(p) for n, p in numbers.items() if isinstance(p, float)}


def of_attention(name: str, family: str) -> bool:
    """MPNet calls the dropout after attention what DistilBERT calls the one inside."""
    inside = (".self.dropout", ".attention_dropout", ".out_drop", ".attn.dropout")
    return name.endswith(inside) or (family == "distilbert" and name.endswith(".attention.dropout"))


@pytest.mark.parametrize("pooling", [None, "max"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_reaches_body_and_head(family: str, pooling: str | None, checkpoint: Any, load: Any) -> None:
    model, _, _ = load(checkpoint(family), dropout=0.37, attention_dropout=0.21, pooling=pooling)
    found = dropouts(model)
    assert {p for name, p in found.items() if not of_attention(name, family)} == {0.37}
    assert {p for name, p in found.items() if of_attention(name, family)} == {0.21}
    assert any(name.startswith("head") for name in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_dropout_is_none_at_all(family: str, checkpoint: Any, load: Any, random_batches: Any) -> None:
    model, _, _ = load(checkpoint(family), dropout=0.0)
    batch = random_batches(1)[0]
    assert torch.equal(model.train()(batch), model(batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_checkpoint_s_own_dropout_stays(family: str, checkpoint: Any, load: Any) -> None:
    """... but for that of attention, which is off unless it is asked for."""
    model, _, _ = load(checkpoint(family))
    found = dropouts(model)
    assert {p for name, p in found.items() if of_attention(name, family)} <= {0.0}
    assert {p for name, p in found.items() if not of_attention(name, family)} <= {0.0, 0.1, 0.2}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_limit_is_what_the_model_reads(family: str, checkpoint: Any, load: Any) -> None:
    """The tables have 64 places, RoBERTa's kind two more that no text stands on."""
    folder = checkpoint(family)
    model, settled, _ = load(folder)
    assert settled.limit() == 64

    def run(length: int) -> torch.Tensor:
        ids = torch.full((length,), 7)
        output: torch.Tensor = model.eval()(pack([Encoded((Part(ids, [length]),), torch.tensor([0]), 0)]))
        return output

    assert run(64).isfinite().all()
    if family not in ("modernbert", "deberta-v2"):  # their positions have no table
        with pytest.raises((IndexError, RuntimeError)):
            run(65)


def test_roberta_has_512_of_514(checkpoint: Any) -> None:
    for family, places, limit in (("roberta", 514, 512), ("bert", 512, 512), ("modernbert", 8192, 8192), ("mpnet", 514, 512)):
        assert Pretrained(name=str(checkpoint(family, max_position_embeddings=places))).limit() == limit
