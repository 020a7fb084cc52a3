"""What is added to the embeddings of a batch reaches packed and padded models alike."""

from typing import Any

import pytest
import torch

from trainformer.core.batch import Encoded, Part, cut, join, pack, shifted
from trainformer.models.encoder import filled
from trainformer.models.pretrained import Pretrained
from trainformer.tasks.text_classification import TextClassification


@pytest.fixture
def models(tiny_model: Any) -> list[Any]:
    """The same encoder, packed and padded."""
    task = TextClassification(labels=["bad", "good"])
    found = [Pretrained(name=str(tiny_model), packing=packing).load(task)[0].eval() for packing in ("packed", "padded")]
    found[1].load_state_dict(found[0].state_dict())
    return found


def test_a_shift_is_what_another_table_would_give(models: list[Any]) -> None:
    """The same vector for every token is the same as a table that is moved by it."""
    items = [Encoded((Part(torch.tensor([2, *range(6, 6 + n), 3]), [n + 2]),), torch.tensor([0]), n) for n in (5, 3, 1)]
    batch = pack(items)
    move = torch.linspace(-1, 1, 32)
    moved = shifted(batch, [move.expand(batch.tokens, 32)])
    plain = models[0](batch)
    outputs = [model(moved) for model in models]
    models[0].body.embed().weight.data += move
    expected = models[0](batch)
    assert not torch.allclose(plain, expected, atol=1e-2)
    assert all(torch.allclose(output, expected, atol=1e-5) for output in outputs)


def test_each_token_has_its_own_and_gradients_come_back(models: list[Any]) -> None:
    items = [Encoded((Part(torch.tensor([2, *range(6, 6 + n), 3]), [n + 2]),), torch.tensor([0]), n) for n in (5, 3, 1)]
    batch, found = pack(items), []
    for model in models:
        shift = torch.randn(batch.tokens, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        output = model(shifted(batch, [shift]))
        found.append((output.detach(), *torch.autograd.grad(output.pow(2).sum(), shift)))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5) and torch.allclose(found[0][1], found[1][1], atol=1e-4)
    assert not models[0].body.embed()._forward_hooks


def test_joining_keeps_the_shifts() -> None:
    items = [Encoded((Part(torch.tensor([5] * n), [n]),), torch.tensor([0]), n) for n in (3, 2, 1)]
    pieces = [shifted(p, [torch.full((p.tokens, 2), float(i))]) for i, p in enumerate(cut(pack(items), 3))]
    assert join(pieces).parts[0].shift[:, 0].tolist() == [0, 0, 0, 1, 1, 2]
    assert join(cut(pack(items), 2)).parts[0].shift is None


def test_a_packed_model_may_fill_up_its_number_of_tokens(models: list[Any]) -> None:
    """71 tokens become 72: what is added has no shift, and nobody reads it."""
    items = [Encoded((Part(torch.tensor([2, *[6 + n] * (33 + n), 3]), [35 + n]),), torch.tensor([0]), n) for n in range(2)]
    batch = pack(items)
    shift = torch.randn(71, 32, generator=torch.Generator().manual_seed(0))
    packed, padded = (model(shifted(batch, [shift])) for model in models)
    assert len(filled(batch.parts[0]).ids) == 72
    assert torch.allclose(packed, padded, atol=1e-5)
