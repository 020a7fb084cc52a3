"""Packed and padded are the same numbers, ours and the library's, and a text does not see its neighbours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Model
from trainformer.models.encoder import Encoder, filled
from trainformer.models.pretrained import Pretrained
from trainformer.tasks.text_classification import TextClassification

PACKED = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert", "modernbert"]
PADDED = ["mpnet", "deberta-v2"]
REAL = {"all-MiniLM-L6-v2": 30522, "e5-small-zh-en": 45205}


def body(model: Model) -> Encoder:
    assert isinstance(model.body, Encoder)
    return model.body


def set_packed(model: Model, packed: bool) -> None:
    body(model).packed = packed
    body(model).encoder.set_attn_implementation("packed" if packed else "sdpa")


def gradients(model: Model, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits "B C", and the gradient of a loss that weighs them unequally."""
    model.zero_grad()
    logits = model(batch)
    torch.autograd.backward((logits * torch.arange(1.0, 1 + logits.numel()).view_as(logits)).sum())
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=0)
    assert one[1].keys() == other[1].keys()
    largest = max(float(g.norm()) for g in one[1].values())
    for name, grad in one[1].items():
        # The bias of a key has no gradient but rounding: it is held against the whole.
        off = float((grad - other[1][name]).norm()) / max(float(grad.norm()), 1e-3 * largest)
        assert off < 1e-4, f"{name}: {off}"


@pytest.mark.parametrize("family", PACKED)
def test_packed_is_padded(family: str, checkpoint: Any, load: Any, random_batches: Any) -> None:
    model, _, _ = load(checkpoint(family))
    assert body(model).packed
    model.eval()  # no dropout, but gradients
    for batch in random_batches(50, typed=family in ("bert", "electra", "albert")):
        set_packed(model, True)
        packed = gradients(model, batch)
        set_packed(model, False)
        assert_same(packed, gradients(model, batch))


def library_states(folder: Path, batch: Batch, typed: bool) -> Tensor:
    """What the library's bare model gives for the same texts as a padded batch, without the padding: "T D"."""
    reference = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    part = batch.parts[0]
    texts = list(part.ids.split(part.lengths))
    inputs = {
        "input_ids": torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=reference.config.pad_token_id),
        "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones_like(t) for t in texts], batch_first=True),
    }
    if typed and part.kinds is not None:
        inputs["token_type_ids"] = torch.nn.utils.rnn.pad_sequence(list(part.kinds.split(part.lengths)), batch_first=True)
    hidden: Tensor = reference(**inputs).last_hidden_state
    return torch.cat([states[:n] for states, n in zip(hidden, part.lengths, strict=True)])


@torch.no_grad()
@pytest.mark.parametrize("family", PACKED + PADDED)
def test_the_library_gives_the_same_states(family: str, checkpoint: Any, load: Any, random_batches: Any) -> None:
    folder = checkpoint(family)
    model, _, said = load(folder)
    assert body(model).packed == (family not in PADDED)
    assert any("padded" in line for line in said) == (family in PADDED)
    typed = family in ("bert", "electra", "albert")
    batch = max(random_batches(10, typed=typed), key=len)
    ours = model.eval().body(batch)[0]
    torch.testing.assert_close(ours, library_states(folder, batch, typed), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("family", PACKED + PADDED)
def test_neighbours_do_not_matter(family: str, pooling: str, checkpoint: Any, load: Any, random_batches: Any) -> None:
    model, _, _ = load(checkpoint(family), pooling=pooling)
    model.eval()
    for batch in random_batches(5):
        together = model(batch)
        alone = torch.cat([model(pack([example])) for example in batch.examples])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", REAL)
def test_real_models_pack(name: str, shared: Path, load: Any, random_batches: Any) -> None:
    if not (shared / name).is_dir():
        pytest.skip(f"no {name}")
    model, _, _ = load(shared / name)
    assert body(model).packed
    model.eval()
    batch = max(random_batches(10, vocabulary=REAL[name], typed=True, longest=80), key=len)
    set_packed(model, True)
    packed = gradients(model, batch)
    set_packed(model, False)
    assert_same(packed, gradients(model, batch))
    with torch.no_grad():
        torch.testing.assert_close(model.body(batch)[0], library_states(shared / name, batch, typed=True), atol=1e-5, rtol=0)


def test_what_cannot_pack_is_refused(checkpoint: Any, load: Any) -> None:
    with pytest.raises(UserError, match="'mpnet' cannot be packed"):
        load(checkpoint("mpnet"), packing="packed")


def test_padding_can_be_asked_for(checkpoint: Any, load: Any, random_batches: Callable[..., list[Batch]]) -> None:
    model, _, _ = load(checkpoint("bert"), packing="padded")
    assert not body(model).packed
    assert model(random_batches(1)[0]).shape[1] == 3


def test_what_fills_up_a_batch_needs_no_place_of_its_own(tiny_model: Path) -> None:
    """A model of 64 places, whose batch is filled up with more tokens than that."""
    task = TextClassification.model_validate({"labels": ["a", "b"]})
    model, _, _ = Pretrained(name=str(tiny_model)).load(task)
    rows = [Encoded((Part(torch.randint(5, 9, (23,), dtype=torch.int32), [23]),), torch.zeros(1), i) for i in range(201)]
    batch = pack(rows)
    filler = filled(batch.parts[0]).lengths[-1]
    assert filler > 64
    with torch.no_grad():
        together, alone = model.eval()(batch), model(pack(rows[:1]))
    torch.testing.assert_close(together[:1], alone)
