"""Masked language models of each family: the library's own logits at the hidden tokens, before and after they were stored."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Model
from trainformer.data.tokens import quiet
from trainformer.models.fill_head import FILLS, LOW
from trainformer.models.pretrained import Pretrained
from trainformer.nn.ties import later_names
from trainformer.tasks.masked_lm import MaskedLm

FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert", "modernbert", "mpnet", "deberta-v2"]
JUDGED = {"bert": "next", "albert": "order"}


def met(**settings: Any) -> MaskedLm:
    task = MaskedLm(**settings)
    tokens: Any = SimpleNamespace(mask=4, special_ids=frozenset(range(5)), vocabulary=65)
    task.meet(tokens)
    return task


def batch(sentences: bool = False) -> Batch:
    """Three texts of 9, 4 and 1 tokens with units at some of them; with `sentences` also at each first token."""
    draw = torch.Generator().manual_seed(0)
    items = []
    for row, (length, places) in enumerate([(9, [1, 5, 8]), (4, [2]), (2, [1])]):
        at = torch.tensor([0, *places] if sentences else places)
        target = torch.randint(2 if sentences else 65, (len(at),), generator=draw)
        ids = torch.randint(5, 65, (length,), generator=draw)
        items.append(Encoded((Part(ids, [length]),), target, row, units=len(at), at=at))
    return pack(items)


def library_logits(model: Any, given: Batch) -> torch.Tensor:
    """What the library gives for each text alone, at the places of the units."""
    part, found = given.parts[0], []
    for start, length in zip(part.starts, part.lengths, strict=False):
        with torch.no_grad():
            output = model.eval()(input_ids=part.ids[None, start : start + length])
        logits = output.logits if hasattr(output, "logits") else output.prediction_logits
        inside = [int(a) - start for a in given.at if start <= int(a) < start + length]  # type: ignore[union-attr]
        found.append(logits[0, inside])
    return torch.cat(found)


def ours(folder: Path, task: MaskedLm) -> tuple[Model, Pretrained, list[str]]:
    torch.manual_seed(0)
    return Pretrained(name=str(folder)).load(task)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_librarys_from_checkpoint_to_bundle(family: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder, task, given = checkpoint(family, "MaskedLM"), met(), batch()
    with quiet():
        reference = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    expected = library_logits(reference, given)
    model, backbone, said = ours(folder, task)
    assert said[0] == "head: kept from the checkpoint, it scores the vocabulary" and backbone.opens_in_library(model)
    with torch.no_grad():
        found = model.eval()(given)
    assert found.shape == (5, 65) and torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in reference.parameters())
    assert not set(later_names(model)) & set(model.state_dict())
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})  # strictly
    (tmp_path / "out").mkdir()
    backbone.save(model, tmp_path / "out", task)
    with quiet():
        again, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.allclose(library_logits(again, given), found, atol=1e-5 * float(found.abs().max()), rtol=0)
    with torch.no_grad():
        assert torch.allclose(backbone.open(tmp_path / "out", task)(given), found, atol=1e-6)


def test_every_family_with_a_head_is_known() -> None:
    assert set(FAMILIES) <= set(FILLS)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_tied_table_learns_from_both_ends_and_stays_tied(family: str, checkpoint: Callable[..., Path]) -> None:
    model, _, _ = ours(checkpoint(family, "MaskedLM"), met())
    ties = later_names(model)
    assert any("word_embeddings" in first for first in ties.values())
    model(batch()).sum().backward()
    table = model.body.embed().weight
    assert table.grad is not None and bool((table.grad.abs().sum(1) > 0).all()), "each token is scored"


def test_a_bare_encoder_gets_a_new_head_that_is_tied(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder, task = checkpoint("bert"), met()
    model, backbone, said = ours(folder, task)
    assert said[0] == "head: new, it scores the vocabulary" and later_names(model)
    (tmp_path / "out").mkdir()
    backbone.save(model, tmp_path / "out", task)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert "cls.predictions.transform.dense.weight" in stored and "cls.predictions.decoder.weight" not in stored


def test_how_a_sentence_encoder_pools_is_not_forgotten(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder, task = checkpoint("bert"), met()
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}')
    model, backbone, _ = ours(folder, task)
    (tmp_path / "out").mkdir()
    backbone.save(model, tmp_path / "out", task)
    assert Pretrained(name=str(tmp_path / "out"))._sentence_pooling() == "mean"


@pytest.mark.parametrize("family", sorted(JUDGED))
def test_sentences_are_judged_as_the_library_does(family: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder, task, given = checkpoint(family, "PreTraining"), met(sentences=JUDGED[family]), batch(sentences=True)
    with quiet():
        reference = transformers.AutoModelForPreTraining.from_pretrained(folder).eval()
    model, backbone, said = ours(folder, task)
    assert said[0].startswith("head: kept")
    with torch.no_grad():
        found = model.eval()(given)
        part = given.parts[0]
        texts = [part.ids[None, a : a + n] for a, n in zip(part.starts, part.lengths, strict=False)]
        outputs = [reference(input_ids=text) for text in texts]
    name = "seq_relationship_logits" if family == "bert" else "sop_logits"
    verdicts = torch.cat([getattr(o, name) for o in outputs])
    first = torch.tensor(given.units[:-1])
    assert torch.allclose(found[first, :2], verdicts, atol=1e-5) and bool((found[first, 2:] == LOW).all())
    told = torch.tensor([i for i in range(len(found)) if i not in first.tolist()])
    expected = library_logits(reference, given)[told]
    assert torch.allclose(found[told], expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    two = torch.nn.functional.cross_entropy(verdicts, given.target[first], reduction="none")
    assert torch.allclose(task.loss(found, given)[first], two, atol=1e-5)
    assert bool(torch.isfinite(task.divergence(found, found.flip(0))).all())
    (tmp_path / "out").mkdir()
    backbone.save(model, tmp_path / "out", task)
    with quiet():
        again = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.allclose(getattr(again(input_ids=texts[0]), name), verdicts[:1], atol=1e-5)
        assert torch.allclose(backbone.open(tmp_path / "out", task)(given), found, atol=1e-6)


def test_a_family_without_such_a_head_is_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"'roberta' has no head that judges sentences. Use task.sentences=none"):
        ours(checkpoint("roberta", "MaskedLM"), met(sentences="next"))
