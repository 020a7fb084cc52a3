"""What is taken from a checkpoint, what is refused, and whose head is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.models import pretrained
from trainformer.models.pretrained import Pretrained
from trainformer.tasks.text_classification import TextClassification


def change(folder: Path, **edits: Any) -> Path:
    """Rewrites weights by name: None removes one, a tensor puts one in its place."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | {name.replace("__", "."): t for name, t in edits.items()}
    save_file({n: t.contiguous() for n, t in tensors.items() if t is not None}, path, metadata={"format": "pt"})
    return folder


def configure(folder: Path, **edits: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edits))
    return folder


def test_missing_weights_of_the_encoder(checkpoint: Any, load: Any) -> None:
    folder = change(checkpoint("bert", "MaskedLM"), **{"bert__encoder__layer__1__output__dense__weight": None})
    with pytest.raises(UserError, match=r"1 weights of the encoder are missing: bert\.encoder\.layer\.1\.output\.dense\.weight"):
        load(folder)


def test_unexpected_weights_of_the_encoder(checkpoint: Any, load: Any) -> None:
    folder = change(checkpoint("bert"), **{f"encoder__layer__2__gate{i}": torch.zeros(2) for i in range(10)})
    with pytest.raises(UserError, match=r"10 weights of the encoder are unexpected: .*gate0.*gate7 and 2 more"):
        load(folder)


def test_weights_of_another_shape(checkpoint: Any, load: Any) -> None:
    folder = change(checkpoint("bert", "MaskedLM"), bert__embeddings__LayerNorm__weight=torch.ones(17))
    with pytest.raises(UserError, match=r"1 weights of the encoder are of another shape: bert\.embeddings\.LayerNorm\.weight"):
        load(folder)


def test_a_classifier_is_checked_too(checkpoint: Any, load: Any, task: TextClassification) -> None:
    folder = checkpoint("bert", "SequenceClassification", id2label=dict(enumerate(task.known)))
    with pytest.raises(UserError, match=r"of another shape: bert\.embeddings\.LayerNorm\.bias"):
        load(change(folder, bert__embeddings__LayerNorm__bias=torch.ones(17)))


def test_relative_positions_are_not_dropped(checkpoint: Any, load: Any) -> None:
    """The library no longer computes them for BERT: without them the model would be another one."""
    name = "encoder__layer__0__attention__self__distance_embedding__weight"
    with pytest.raises(UserError, match=r"unexpected: .*distance_embedding"):
        load(change(checkpoint("bert"), **{name: torch.zeros(127, 8)}))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert", "modernbert", "deberta-v2", "mpnet"])
@pytest.mark.parametrize("kind", ["MaskedLM", "TokenClassification", "QuestionAnswering"])
def test_other_heads_are_left_behind(family: str, kind: str, checkpoint: Any, load: Any) -> None:
    folder = checkpoint(family, kind, id2label=dict(enumerate(["start", "end", "neither"][: 2 if kind[0] == "Q" else 3])))
    model, _, said = load(folder)
    assert said[0] == "head: new, cls pooling"
    stored = load_file(folder / "model.safetensors")
    table = next(t for n, t in stored.items() if n.endswith("word_embeddings.weight") or n.endswith("tok_embeddings.weight"))
    assert torch.equal(model.body.embed().weight, table)
    last = model.head.last
    assert last.bias.abs().max() == 0 and not any(torch.equal(t, last.weight) for t in stored.values())


def test_a_pretraining_checkpoint_loads(checkpoint: Any, load: Any) -> None:
    model, _, said = load(checkpoint("bert", "PreTraining"))
    pooler = load_file(Path(checkpoint("bert", "PreTraining")) / "model.safetensors")["bert.pooler.dense.weight"]
    assert said == ["head: new, cls pooling"] and torch.equal(model.head.steps[0].dense.weight, pooler)


def test_a_bare_encoder_without_pooler_is_averaged(checkpoint: Any, load: Any) -> None:
    folder = checkpoint("bert")
    assert load(folder)[1].pooling == "cls"
    change(folder, pooler__dense__weight=None, pooler__dense__bias=None)
    model, settled, said = load(folder)
    assert settled.pooling == "mean" == model.head.pooling and said == ["head: new, mean pooling"]
    assert torch.equal(model.head.steps[0].dense.weight, torch.eye(16))


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "cls"),
        ({"pooling_mode_weightedmean_tokens": True}, "cls"),
    ],
)
def test_sentence_transformers_pooling(modes: dict[str, Any], expected: str, checkpoint: Any, load: Any) -> None:
    folder = checkpoint("bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    assert load(folder)[1].pooling == expected
    assert load(folder, pooling="max")[1].pooling == "max"


def test_pooling_reaches_the_library(checkpoint: Any, load: Any) -> None:
    """ModernBERT's own classifier can average: then its configuration says so, and the library opens the bundle."""
    folder = checkpoint("modernbert", classifier_pooling="cls")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    model, settled, _ = load(folder)
    assert settled.pooling == "mean" and settled.opens_in_library(model)


def test_hub_pooling_is_looked_up(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub model's pooling is asked for by name and revision; that it is not there, or not to be reached, is no error."""
    asked: list[Any] = []
    found = checkpoint("bert") / "pooling.json"
    found.write_text('{"pooling_mode_mean_tokens": true}')

    def cached_file(name: str, file: str, **how: Any) -> str | None:
        asked.append((name, file, how["revision"]))
        return str(found) if len(asked) == 1 else None

    monkeypatch.setattr(pretrained.transformers.utils, "cached_file", cached_file)
    backbone = Pretrained(name="someone/encoder", revision="v2")
    assert backbone._sentence_pooling() == "mean" and backbone._sentence_pooling() is None
    assert asked[0] == ("someone/encoder", "1_Pooling/config.json", "v2")


def test_half_precision_loads_as_single(checkpoint: Any, load: Any) -> None:
    folder = checkpoint("bert", half=True)
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float16}
    model, _, _ = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "electra", "albert", "modernbert", "deberta-v2", "xlm-roberta"]
)
def test_a_head_that_fits_is_kept(family: str, checkpoint: Any, load: Any, random_batches: Any) -> None:
    """In the order of the data's labels, whatever the checkpoint's order was."""
    folder = checkpoint(family, "SequenceClassification", id2label={0: "so-so", 1: "bad", 2: "good"})
    model, settled, said = load(folder)
    assert said[0] == "head: kept from the checkpoint, its labels are those of the data"
    batch: Batch = random_batches(1)[0]
    library = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = model.eval()(batch)
        for row, ids in zip(ours, batch.parts[0].ids.split(batch.parts[0].lengths), strict=True):
            so_so, bad, good = library(input_ids=ids[None]).logits[0]
            torch.testing.assert_close(row, torch.stack([bad, good, so_so]), atol=1e-5, rtol=0)
    assert settled.opens_in_library(model)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("labels", [["no", "perhaps", "yes"], ["no", "yes"]])
def test_a_head_of_other_labels_is_new(family: str, labels: list[str], checkpoint: Any, load: Any) -> None:
    model, _, said = load(checkpoint(family, "SequenceClassification", id2label=dict(enumerate(labels))))
    assert said[0] == "head: new, cls pooling, the checkpoint's labels are others"
    own = [m for path, m in zip(model.head.paths, model.head.steps, strict=True) if not path.endswith("bert.pooler")]
    for layer in (m for step in own for m in step.modules() if isinstance(m, torch.nn.Linear)):
        fresh = torch.equal(layer.weight, torch.eye(16)) or layer.weight.std() < 0.05
        assert fresh and (layer.bias is None or layer.bias.abs().max() == 0)


def test_a_head_that_would_read_something_else_is_new(checkpoint: Any, load: Any, task: TextClassification) -> None:
    folder = checkpoint("bert", "SequenceClassification", id2label=dict(enumerate(task.known)))
    assert load(folder, pooling="mean")[2] == ["head: new, mean pooling"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_is_refused(name: str, checkpoint: Any, load: Any) -> None:
    folder = checkpoint("bert")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=rf"pickle \({name}\), which may run code .*model\.safetensors"):
        load(folder)


def test_weights_that_are_gone_or_damaged(checkpoint: Any, load: Any) -> None:
    folder = checkpoint("bert")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="its weights cannot be read"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="its weights cannot be read"):
        load(folder)


def test_code_of_a_checkpoint_never_runs(checkpoint: Any, tmp_path: Path) -> None:
    folder = configure(checkpoint("bert"), model_type="mine", auto_map={"AutoConfig": "code.Mine", "AutoModel": "code.Model"})
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="no model of that name can be read"):
        Pretrained(name=str(folder)).config()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_what_is_no_encoder_is_refused(family: str, tmp_path: Path) -> None:
    transformers.AutoConfig.for_model(family).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"'{family}' is no encoder"):
        Pretrained(name=str(tmp_path)).config()


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has no config\.json"):
        Pretrained(name=str(tmp_path)).config()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no model of that name can be read"):
        Pretrained(name=str(tmp_path)).config()
