"""What is exported answers as the bundle does, in the program that it is for; what cannot be is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from trainformer.bundle import Bundle
from trainformer.compress import check
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision

ort = pytest.importorskip("onnxruntime")

RARER = [pytest.param(family, marks=pytest.mark.slow) for family in ("distilbert", "electra", "albert", "mpnet")]
FAMILIES = ["bert", "roberta", "modernbert", "deberta-v2", *RARER]
TEXTS = ["w1 w2 w3", "w4", "w5 " * 90, "w6 w7 w8 w9 w1 w2 unknown", "w3 w2 w1"]


def plain_onnx(folder: Path, texts: list[Any]) -> torch.Tensor:
    """The graph asked as a stranger asks it: the library's tokenizer, padding and ONNX Runtime alone."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    limit = json.loads((folder / "labels.json").read_text())["max_tokens"]
    columns = list(zip(*texts, strict=True)) if isinstance(texts[0], tuple) else [texts]
    given = words(*map(list, columns), padding=True, truncation=True, max_length=limit, return_tensors="np")
    names = [each.name for each in session.get_inputs()]
    found = session.run(None, {name: given[name].astype("int64") for name in names})[0]
    return torch.from_numpy(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_answers_as_the_bundle(family: str, make: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(family), tmp_path / "onnx"
    done = cli("export", folder, "--to", "onnx", "--out", out)
    assert done.code == 0, done.err
    assert "checked on 64 texts: all labels are the same" in done.err
    before, after = Bundle.open(folder), Bundle.open(out)
    torch.testing.assert_close(after.logits(TEXTS), before.logits(TEXTS), atol=1e-4, rtol=0)
    torch.testing.assert_close(plain_onnx(out, TEXTS), before.logits(TEXTS), atol=1e-4, rtol=0)
    assert [a["label"] for a in after.predict(TEXTS)] == [b["label"] for b in before.predict(TEXTS)]
    assert after.predict(TEXTS)[2]["cut_tokens"] == before.predict(TEXTS)[2]["cut_tokens"] > 0


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_every_pooling(pooling: str, make: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(pooling=pooling), tmp_path / "onnx"
    assert cli("export", folder, "--to", "onnx", "--out", out).code == 0
    torch.testing.assert_close(Bundle.open(out).logits(TEXTS), Bundle.open(folder).logits(TEXTS), atol=1e-4, rtol=0)


def test_every_task(make: Any, cli: Any, tmp_path: Path) -> None:
    pairs = [(a, b) for a, b in zip(TEXTS, reversed(TEXTS), strict=True)]
    cases = [("multi_label", TEXTS), ("regression", TEXTS), ("text_pair", pairs), ("retrieval", pairs)]
    for name, asked in cases:
        folder, out = make("bert", name), tmp_path / f"onnx-{name}"
        done = cli("export", folder, "--to", "onnx", "--out", out)
        assert done.code == 0, done.err
        torch.testing.assert_close(Bundle.open(out).logits(asked), Bundle.open(folder).logits(asked), atol=1e-4, rtol=0)


def test_windows_are_joined_as_before(make: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(long_text="window", window_pool="max"), tmp_path / "onnx"
    assert cli("export", folder, "--to", "onnx", "--out", out).code == 0
    before, after = Bundle.open(folder), Bundle.open(out)
    assert before.predict(TEXTS)[2]["cut_tokens"] == 0
    torch.testing.assert_close(after.logits(TEXTS), before.logits(TEXTS), atol=1e-4, rtol=0)


def test_rows_of_a_file_are_what_it_is_checked_with(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    folder = make()
    for to in ("onnx", "hf"):
        done = cli("export", folder, "--to", to, "--data", rows(folder, 20), "--out", tmp_path / to)
        assert done.code == 0 and "checked on 20 texts: all labels are the same" in done.err


def test_the_decision_layer_and_the_facts_travel(make: Any, cli: Any, tmp_path: Path) -> None:
    decision = Decision(temperature=1.7, thresholds={"bad": 0.6}, abstain=0.4)
    folder, out = make(decision=decision), tmp_path / "onnx"
    assert cli("export", folder, "--to", "onnx", "--out", out).code == 0
    opened = Bundle.open(out)
    assert opened.decision == decision and opened.facts["fingerprint"] == "f" and opened.labels == ["bad", "good", "so-so"]
    assert json.loads((out / "labels.json").read_text())["decision"]["temperature"] == 1.7
    assert [a["label"] for a in opened.predict(TEXTS)] == [b["label"] for b in Bundle.open(folder).predict(TEXTS)]
    assert transformers.AutoConfig.from_pretrained(out).id2label == {0: "bad", 1: "good", 2: "so-so"}


def test_the_page_says_how_to_run_it_without_us(
    make: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "compress.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    assert "trainformer" not in code and "torch" not in code
    folder = make("roberta")  # its padding is not 0
    assert cli("export", folder, "--to", "onnx", "--out", tmp_path / "onnx").code == 0
    monkeypatch.chdir(tmp_path)
    code = code.replace('["a warm and funny film", "two slow hours"]', repr(TEXTS))
    exec(compile(code, "compress.md", "exec"), {})
    assert capsys.readouterr().out.strip() == str([a["label"] for a in Bundle.open(folder).predict(TEXTS)])


def test_the_axes_have_names(make: Any, cli: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    cli("export", make(), "--to", "onnx", "--opset", 20, "--out", tmp_path / "onnx")
    proto = onnx.load(str(tmp_path / "onnx" / "model.onnx"))
    assert [i.name for i in proto.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"]
    assert [o.name for o in proto.graph.output] == ["logits"]
    assert {o.domain: o.version for o in proto.opset_import}[""] == 20
    for word in (b"site-packages", b"stack_trace", str(tmp_path).encode()):
        assert word not in (tmp_path / "onnx" / "model.onnx").read_bytes(), "nothing of this machine is in it"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_library_answers_as_the_bundle(pooling: str, make: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(pooling=pooling, decision=Decision(temperature=2.0)), tmp_path / "hf"
    done = cli("export", folder, "--to", "hf", "--out", out)
    assert done.code == 0, done.err
    assert "checked on 64 texts" in done.err and "not in the library's model: the temperature; labels.json has them" in done.err
    words = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    given = words(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**given).logits, Bundle.open(folder).logits(TEXTS), atol=1e-5, rtol=0)
    assert model.config.id2label == {0: "bad", 1: "good", 2: "so-so"}


def test_an_embedding_model_gets_the_files_of_sentence_transformers(make: Any, cli: Any, tmp_path: Path) -> None:
    from trainformer.models.locate import sentence_pooling

    folder, out = make("bert", "retrieval", pooling="mean"), tmp_path / "hf"
    done = cli("export", folder, "--to", "hf", "--out", out)
    assert done.code == 0 and "for SentenceTransformer" in done.err, done.err
    modules = json.loads((out / "modules.json").read_text())
    assert [m["type"].rpartition(".")[2] for m in modules] == ["Transformer", "Pooling", "Normalize"]
    assert all((out / m["path"]).is_dir() for m in modules)
    assert sentence_pooling(out / "1_Pooling" / "config.json") == "mean"
    words, body = transformers.AutoTokenizer.from_pretrained(out), transformers.AutoModel.from_pretrained(out)
    given = words(TEXTS[:2], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = body(**given).last_hidden_state, given["attention_mask"][:, :, None]
    mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    ours = Bundle.open(folder).logits([(TEXTS[0], TEXTS[1])]).view(2, -1)
    torch.testing.assert_close(mean, ours, atol=1e-5, rtol=0)


def test_what_the_library_cannot_compute_is_refused(make: Any, cli: Any, tmp_path: Path) -> None:
    done = cli("export", make(pooling="max"), "--to", "hf", "--out", tmp_path / "hf")
    assert done.code == 2 and "no head of 'bert' with max pooling. Take --to onnx." in done.err
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("to", ["onnx", "hf", "openvino"])
def test_what_answers_otherwise_is_not_written(to: str, make: Any, cli: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A model that is moved by a thousandth between the two askings is found out."""
    if to == "openvino":
        pytest.importorskip("openvino", reason="no openvino here: pip install 'trainformer[openvino]'")
    from trainformer.compress import export

    found = check.require_same

    def moved(bundle: Bundle, *others: Any) -> str:
        with torch.no_grad():
            bundle.model.head.last.bias[0] += 0.01
        return found(bundle, *others)

    monkeypatch.setattr(export, "require_same", moved)
    done = cli("export", make(), "--to", to, "--out", tmp_path / "out")
    assert done.code == 2 and "answers otherwise: logits differ by up to 0.01" in done.err
    assert list(tmp_path.glob("*out*")) == []


def test_what_a_method_adds_is_refused(make: Any, tmp_path: Path) -> None:
    from trainformer.compress.graph import write_graph
    from trainformer.nn.surgery import add

    bundle = Bundle.open(make())
    add(bundle.model.body, "prefix", torch.nn.Linear(2, 2))
    bundle.facts["methods"] = {"prefix": {}}
    with pytest.raises(UserError, match="what prefix has added is computed beside the encoder"):
        write_graph(bundle, tmp_path)


def test_a_graph_is_not_exported_again(make: Any, cli: Any, tmp_path: Path) -> None:
    assert cli("export", make(), "--to", "onnx", "--out", tmp_path / "onnx").code == 0
    for to in ("onnx", "hf"):
        done = cli("export", tmp_path / "onnx", "--to", to, "--out", tmp_path / "again")
        assert done.code == 2 and "an ONNX graph already" in done.err and not (tmp_path / "again").exists()
    done = cli("export", make(), "--to", "onnx", "--out", tmp_path / "onnx")
    assert done.code == 2 and "nothing is written over" in done.err
