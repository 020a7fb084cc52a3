"""A smaller bundle is smaller, answers through the same verbs, and is not written if it loses too much."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from trainformer.bundle import Bundle, reference, states
from trainformer.bundle.reference import Reference
from trainformer.compress import gate, prune
from trainformer.compress.smaller import Wanted
from trainformer.core.errors import UserError
from trainformer.core.files import write_manifest
from trainformer.core.roles import Decision

pytest.importorskip("onnxruntime")

TEXTS = ["w1 w2 w3", "w4", "w5 " * 90, "w6 w7 w8 w9 w1 w2 unknown", "w3 w2 w1"]


def test_int8_is_a_bundle(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(decision=Decision(temperature=1.5, abstain=0.3)), tmp_path / "int8"
    data = rows(folder, 150)
    done = cli("compress", folder, "--to", "int8", "--data", data, "--max-loss", 10, "--out", out)
    assert done.code == 0, done.err
    report = json.loads((out / "compress.json").read_text())
    before, after = Bundle.open(folder), Bundle.open(out)
    assert after.decision.abstain == 0.3 and after.decision.temperature != 1.5, "the temperature is fitted anew"
    assert report["key"] == "accuracy" and report["rows"] == 150
    assert report["before"]["accuracy"] == before.evaluate(data)["accuracy"]
    assert report["after"]["accuracy"] == pytest.approx(after.evaluate(data)["accuracy"])
    assert report["equal_labels"] > 0.9
    time = report["time"]
    assert time["after"]["model_bytes"] == (out / "model.onnx").stat().st_size < time["before"]["model_bytes"]
    assert all(time[side][name] > 0 for side in ("before", "after") for name in ("p50_ms", "p95_ms", "texts_a_second"))
    assert "## Compressed" in (out / "README.md").read_text() and (out / "README.md").read_text().startswith("# A model")
    answers = cli("predict", out, *TEXTS).answers
    assert [a["label"] for a in answers] == [a["label"] for a in after.predict(TEXTS)]
    evaluated = json.loads(cli("evaluate", out, "--data", data, "--json").out)
    assert evaluated["accuracy"] == pytest.approx(report["after"]["accuracy"])


def test_what_the_training_data_looked_like_travels(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    """Lengths, labels and scores as they were; mean states of the smaller model itself, and none of a graph."""
    folder = make()
    data, bundle = rows(folder), Bundle.open(folder)
    made = Reference(np.arange(3.0, 9), np.zeros(6), np.array([0.5, 1.0]), np.empty(0), np.ones((4, 32)), {"bad": 2})
    reference.write(folder, made)
    write_manifest(folder)
    for out, words in (("int8", ("--to", "int8")), ("small", ("--layers", 2))):
        done = cli("compress", folder, *words, "--data", data, "--max-loss", 100, "--out", tmp_path / out)
        assert done.code == 0, done.err
    assert cli("export", folder, "--to", "onnx", "--out", tmp_path / "graph").code == 0
    for out in ("int8", "small", "graph"):
        found = reference.read(tmp_path / out)
        assert found is not None and found.labels == {"bad": 2}
        assert found.lengths.tolist() == made.lengths.tolist() and found.scores.tolist() == [0.5, 1.0]
        assert len(found.embeddings) == (60 if out == "small" else 0)
    small = Bundle.open(tmp_path / "small")
    texts = [json.loads(line)["text"] for line in data.read_text().splitlines()]
    with states.watched(small.model, [7]) as seen:
        small.predict(texts)
    found = reference.read(tmp_path / "small")
    assert found is not None and np.abs(found.embeddings[7] - seen.found[7].numpy()).max() < 5e-3, "half precision"
    with states.watched(bundle.model, [7]) as seen:
        bundle.predict(texts)
    assert np.abs(found.embeddings[7] - seen.found[7].numpy()).max() > 5e-2


def test_products_and_word_embeddings_are_integers(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = make()
    assert cli("compress", folder, "--to", "int8", "--data", rows(folder), "--max-loss", 50, "--out", tmp_path / "q").code == 0
    proto = onnx.load(str(tmp_path / "q" / "model.onnx"))
    tensors = {t.name: t for t in proto.graph.initializer}
    products = [n for n in proto.graph.node if n.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 3 * 6, "six linear layers in each of three layers"
    assert all(tensors[n.input[1]].data_type == onnx.TensorProto.INT8 for n in products)
    table = next(t for t in proto.graph.initializer if list(t.dims) == [1504, 32])
    assert table.data_type == onnx.TensorProto.INT8
    scale = onnx.numpy_helper.to_array(next(t for t in proto.graph.initializer if list(t.dims) == [1504, 1]))
    weight = Bundle.open(folder).model.body.embed().weight.detach().numpy()
    assert abs(onnx.numpy_helper.to_array(table) * scale - weight).max() <= scale.max() / 2 + 1e-7
    large = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2 and min(t.dims) > 8]
    assert sum(t.dims[0] * t.dims[1] for t in large) < 0.2 * sum(p.numel() for p in Bundle.open(folder).model.parameters())


def test_what_loses_too_much_is_not_written(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make("roberta", pooling="mean"), tmp_path / "small"
    done = cli("compress", folder, "--layers", 1, "--prune", 0.9, "--data", rows(folder), "--out", out)
    assert done.code == 2 and not out.exists() and list(tmp_path.glob(".*")) == []
    assert "--max-loss 0.4: too much is lost on 60 rows: " in done.err and "accuracy by" in done.err and "F1 of '" in done.err


def test_the_gate_counts_points() -> None:
    """90 % to 89.5 % is half a point; one class may not fall either."""
    classes = [{"label": "bad", "support": 9, "before": 0.9, "after": 0.88}]
    held = gate.Held("accuracy", {"accuracy": 0.9, "examples": 200}, {"accuracy": 0.895}, classes, 0.99, 0.1)
    assert [(name, round(points, 6)) for name, _, _, points in held.losses] == [("F1 of 'bad'", 2.0), ("accuracy", 0.5)]
    gate.require(held, 2.0)
    with pytest.raises(UserError, match=r"on 200 rows: F1 of 'bad' by 2.00 points \(90.00 to 88.00\). Nothing"):
        gate.require(held, 0.5)
    with pytest.raises(UserError, match=r"accuracy by 0\.50 points"):
        gate.require(held, 0.4)
    broken = gate.Held("accuracy", {"accuracy": 0.9, "examples": 2}, {"accuracy": float("nan")}, [], None, 0.0)
    with pytest.raises(UserError, match="too much is lost"):
        gate.require(broken, 100.0)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_pruned_bundle_opens_in_the_library(family: str, pooling: str, make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(family, pooling=pooling), tmp_path / "small"
    chosen = ["--layers", 2, "--prune", 0.25, "--max-loss", 100]
    done = cli("compress", folder, *chosen, "--data", rows(folder), "--out", out)
    assert done.code == 0, done.err
    opened = Bundle.open(out)
    assert len(opened.model.body.blocks()) == 1 + 2
    inner = prune.Layers(opened.model)
    assert {tuple(layer.get_submodule(inner.widened).weight.shape) for layer in inner.stack} == {(48, 32)}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    words = transformers.AutoTokenizer.from_pretrained(out)
    given = words(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**given).logits, opened.logits(TEXTS), atol=1e-5, rtol=0)


def test_what_weighs_nothing_goes_first_and_changes_nothing(make: Any) -> None:
    """Columns and heads whose outputs nobody reads, and a layer that changes nothing, are the ones taken out."""
    bundle = Bundle.open(make())
    layers = prune.Layers(bundle.model)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in layers.stack:
            layer.get_submodule(layers.narrowed).weight[:, torch.randperm(64, generator=draw)[:20]] = 0
            layer.get_submodule(layers.joined).weight[:, 8:16] = 0
    before = bundle.logits(TEXTS)

    def run() -> object:
        return bundle.logits(TEXTS)

    assert prune.prune_columns(bundle.model, 20 / 64, run) == 44
    torch.testing.assert_close(bundle.logits(TEXTS), before, atol=1e-5, rtol=0)
    assert prune.prune_heads(bundle.model, 0.25, run) == 3
    torch.testing.assert_close(bundle.logits(TEXTS), before, atol=1e-5, rtol=0)
    shapes = {tuple(layer.get_submodule(name).weight.shape) for layer in layers.stack for name in layers.heads}
    assert shapes == {(24, 32)}


def test_the_layer_that_changes_least_goes(make: Any) -> None:
    bundle = Bundle.open(make())
    layers = prune.Layers(bundle.model)
    with torch.no_grad():
        for name in (layers.joined, layers.narrowed):
            layers.stack[1].get_submodule(name).weight.mul_(0.01)
            layers.stack[1].get_submodule(name).bias.zero_()
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            layers.stack[1].get_submodule(norm).weight.fill_(1.0)
            layers.stack[1].get_submodule(norm).bias.zero_()
    assert prune.keep_layers(bundle.model, 2, lambda: bundle.logits(TEXTS)) == [0, 2]
    with pytest.raises(UserError, match="the model has 2 layers, 3 cannot be kept"):
        prune.keep_layers(bundle.model, 3, lambda: None)


def test_pruned_heads_live_in_a_graph(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(), tmp_path / "small"
    words = ["--prune-heads", 0.5, "--prune", 0.5, "--to", "int8", "--max-loss", 100]
    done = cli("compress", folder, *words, "--data", rows(folder), "--out", out)
    assert done.code == 0 and "attention heads kept in each layer: 2" in done.err, done.err
    assert len(Bundle.open(out).predict(TEXTS)) == 5
    for name, shape in (("query", [32, 16]), ("intermediate", [32, 32])):
        onnx = pytest.importorskip("onnx")
        shapes = [list(t.dims) for t in onnx.load(str(out / "model.onnx")).graph.initializer]
        assert shape in shapes, name


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        (Wanted(), "nothing is asked for"),
        (Wanted(prune=1.0), "--prune: it is 1"),
        (Wanted(prune=0.0), "A share between 0 and 1"),
        (Wanted(prune_heads=0.5), "no model with fewer heads"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted: Wanted, word: str) -> None:
    with pytest.raises(UserError, match=word):
        wanted.check()


def test_other_mistakes(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    folder = make()
    data = rows(folder, 10)
    (tmp_path / "there").mkdir()
    assert "nothing is written over" in cli("compress", folder, "--to", "int8", "--data", data, "--out", tmp_path / "there").err
    albert = make("albert")
    done = cli("compress", albert, "--layers", 1, "--data", rows(albert, 10), "--out", tmp_path / "x")
    assert done.code == 2 and "the parts of 'albert' are not known by name" in done.err
    cli("export", folder, "--to", "onnx", "--out", tmp_path / "onnx")
    done = cli("compress", tmp_path / "onnx", "--to", "int8", "--data", data, "--out", tmp_path / "y")
    assert done.code == 2 and "an ONNX graph already" in done.err
    done = cli("train", "--data", data, "--set", "model.kind=onnx", "--out", tmp_path / "run")
    assert done.code == 2 and "an ONNX graph cannot be trained" in done.err


def test_a_temperature_that_cannot_be_fitted_stays(make: Any) -> None:
    """Where all rows are right the optimum is full certainty; what was fitted before is kept if it is the likelier."""
    task = Bundle.open(make()).task
    output, target = torch.tensor([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0]]), torch.tensor([0, 1])
    assert gate.refitted(task, output, target, Decision(temperature=0.5))[0].temperature == 0.5
    assert gate.refitted(task, output, target, Decision(temperature=2.0))[0].temperature == 1.0
