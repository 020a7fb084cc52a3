"""File -> command line -> bundle -> prediction: each format of rows, each task, each way with long texts and with weights."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from safetensors.torch import load_file

Cli = Callable[..., Any]
QUICK = ("--set", "train.epochs=1", "--set", "train.precision=float32")


@pytest.fixture
def train(cli: Cli, tiny_model: Path, tmp_path: Path) -> Cli:
    """`train(data, ...)`: the bundle of a quick run."""

    def run(data: Any, *words: Any, name: str = "run") -> Path:
        outcome = cli("train", "--data", data, "--model", tiny_model, "--out", tmp_path / name, *QUICK, *words)
        assert outcome.code == 0, outcome.err
        return tmp_path / name / "bundle"

    return run


def delimited(rows: list[dict[str, Any]], delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def test_every_format_gives_the_same_model(train: Cli, write: Any, rows: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import datasets
    import pandas

    from trainformer import train as in_python

    some = rows(40)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(some), tmp_path / "rows.parquet")
    files = {
        "jsonl": write("rows.jsonl", some),
        "csv": write("rows.csv", b"\xef\xbb\xbf" + delimited(some, ",").encode()),
        "tsv": write("rows.tsv", delimited(some, "\t")),
        "parquet": tmp_path / "rows.parquet",
    }
    bundles = {name: train(file, name=name) for name, file in files.items()}
    model = json.loads((bundles["jsonl"].parent / "baselines.json").read_text())
    assert [b["name"] for b in model] == ["majority class", "TF-IDF + logistic regression", "linear probe"]
    tiny = config(bundles["jsonl"].parent)["model"]["name"]
    settings = {"train.epochs": 1, "train.precision": "float32"}
    for name, table in (("pandas", pandas.DataFrame(some)), ("datasets", datasets.Dataset.from_list(some))):
        bundles[name] = in_python(table, out=tmp_path / name, model=tiny, set=settings).folder / "bundle"
    expected = load_file(bundles.pop("jsonl") / "model.safetensors")
    for name, bundle in bundles.items():
        found = load_file(bundle / "model.safetensors")
        assert found.keys() == expected.keys()
        assert all(found[key].equal(expected[key]) for key in expected), f"{name}: other weights than from JSON lines"


def config(run: Path) -> Any:
    import yaml

    return yaml.safe_load((run / "config.yaml").read_text())


def test_three_lines_of_python(rows: Any, write: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINFORMER_CACHE", str(tmp_path / "cache"))
    from trainformer import Bundle, train

    run = train(write("rows.jsonl", rows(40)), out=tmp_path / "run", model=str(tiny_model), set={"train.epochs": 1})
    [answer] = Bundle.open(tmp_path / "run" / "bundle").predict("a good film")
    assert run.bundle.predict(["a good film"]) == [answer]
    assert answer["label"] in ("good", "bad") and answer["cut_tokens"] == 0
    assert sum(answer["scores"].values()) == pytest.approx(1)
    assert answer["score"] == max(answer["scores"].values())
    assert run.scores["test"]["examples"] == 4


def test_parts_given_apart(train: Cli, write: Any, rows: Any) -> None:
    data, validation, test = (write(f"{n}.jsonl", rows(n, seed=n)) for n in (40, 12, 14))
    bundle = train(data, "--validation", validation, "--test", test)
    scores = json.loads((bundle.parent / "scores.json").read_text())
    assert (scores["validation"]["examples"], scores["test"]["examples"]) == (12, 14)
    facts = json.loads((bundle / "trainformer.json").read_text())
    assert sorted(facts["fingerprint"]) == sorted([data, validation, test])


def test_other_column_names(train: Cli, cli: Cli, write: Any, rows: Any) -> None:
    renamed = [{"id": i, "wording": r["text"], "verdict": r["label"], "note": "x"} for i, r in enumerate(rows(40))]
    data = write("rows.jsonl", renamed)
    bundle = train(data, "--text", "wording", "--label", "verdict")
    assert json.loads(cli("evaluate", bundle, "--data", data, "--json").out)["examples"] == 40
    moved = write("moved.jsonl", rows(6))
    assert (
        json.loads(cli("evaluate", bundle, "--data", moved, "--text", "text", "--label", "label", "--json").out)["examples"] == 6
    )


def test_many_labels(train: Cli, cli: Cli, write: Any, rows: Any) -> None:
    tagged = [{"text": r["text"], "label": [r["label"], "long"] if len(r["text"]) > 40 else [r["label"]]} for r in rows(60)]
    bundle = train(write("rows.jsonl", tagged), "--task", "multi_label")
    [answer] = cli("predict", bundle, "a good film", "--logits").answers
    assert set(answer["scores"]) == {"bad", "good", "long"} and len(answer["logits"]) == 3
    split = write("split.jsonl", [{"text": r["text"], "label": "; ".join(r["label"])} for r in tagged])
    bundle = train(split, "--task", "multi_label", "--set", "task.separator=;", name="split")
    [same] = cli("predict", bundle, "a good film", "--logits").answers
    assert same == answer, "a list and a string with a separator are the same labels"


def test_a_number(train: Cli, cli: Cli, write: Any, rows: Any) -> None:
    scored = [{"text": r["text"], "label": len(r["text"]) / 10} for r in rows(60)]
    data = write("rows.jsonl", scored)
    bundle = train(data, "--task", "regression")
    answers = cli("predict", bundle, "--data", data).answers
    assert all(isinstance(a["label"], float) for a in answers), answers[0]
    scores = json.loads(cli("evaluate", bundle, "--data", data, "--json").out)
    mean = sum(r["label"] for r in scored) / 60
    total = sum((r["label"] - mean) ** 2 for r in scored)
    errors = sum((a["label"] - r["label"]) ** 2 for a, r in zip(answers, scored, strict=True))
    assert scores["r2"] == pytest.approx(1 - errors / total, abs=1e-5)


@pytest.mark.parametrize("kind", ["classification", "similarity"])
def test_pairs(train: Cli, cli: Cli, write: Any, rows: Any, kind: str) -> None:
    one, other = rows(60), rows(60, seed=1)[::-1]
    same = [int(a["label"] == b["label"]) for a, b in zip(one, other, strict=True)]
    for i in range(0, 60, 3):
        other[i] = one[i] | {"text": one[i]["text"] + " so"}
        same[i] = 1
    label = [float(s) for s in same] if kind == "similarity" else ["same" if s else "other" for s in same]
    pairs = [{"one": a["text"], "two": b["text"], "label": x} for a, b, x in zip(one, other, label, strict=True)]
    bundle = train(write("rows.jsonl", pairs), "--text", "one", "--text-b", "two", "--set", f"task.kind={kind}")
    [answer] = cli("predict", bundle, "a good film", "a fine film").answers
    if kind == "similarity":
        assert 0 <= answer["label"] <= 1
    else:
        assert set(answer["scores"]) == {"other", "same"}
    outcome = cli("predict", bundle, "a good film")
    assert outcome.err == "error: predict: this bundle reads pairs; 1 texts are given. Give two by two.\n"


def test_long_texts(train: Cli, cli: Cli, write: Any, rows: Any) -> None:
    """300 words; the model reads 64 tokens, two of which are special."""
    long = [{"text": f"{r['text']} " + "the film " * 140 + r["text"], "label": r["label"]} for r in rows(24)]
    data, text = write("rows.jsonl", long), long[0]["text"]
    words = len(text.split())
    for policy, cut in (("truncate", words - 62), ("head_tail", words - 62), ("window", 0)):
        bundle = train(data, "--set", f"task.long_text={policy}", name=policy)
        [answer] = cli("predict", bundle, text).answers
        assert answer["cut_tokens"] == cut, policy


def test_weights_reach_the_loss(train: Cli, write: Any, rows: Any) -> None:
    """Each way of weighing trains other weights than the plain loss; weights that are all the same train the same."""
    some = [r | {"heavy": 1 + i % 3, "even": 2.5} for i, r in enumerate(rows(40)) if i % 4 != 3]
    data = write("rows.jsonl", some)

    def weights(name: str, *sets: str) -> dict[str, Any]:
        words = [w for s in ("train.probe=false", *sets) for w in ("--set", s)]
        return load_file(train(data, *words, name=name) / "model.safetensors")

    plain = weights("plain")
    for name, setting in (
        ("balanced", "task.class_weights=balanced"),
        ("given", 'task.class_weights={"good": 3}'),
        ("focal", "task.focal_gamma=2"),
        ("smooth", "task.label_smoothing=0.1"),
        ("heavy", "data.weight=heavy"),
    ):
        other = weights(name, setting)
        assert not all(plain[key].equal(other[key]) for key in plain), f"{name} changed nothing"
    even = weights("even", "data.weight=even")
    assert all(plain[key].equal(even[key]) for key in plain)


@pytest.mark.parametrize("method", ["llrd", "ema", "rdrop", "fgm", "lora"])
def test_every_method(train: Cli, cli: Cli, write: Any, rows: Any, method: str) -> None:
    """Also the name of the weights that ship: a bundle is a plain model."""
    data = write("rows.jsonl", rows(40))
    bundle = train(data, "--method", method)
    assert set(config(bundle.parent)["method"]) == {method}
    assert not [name for name in load_file(bundle / "model.safetensors") if "lora" in name]
    scores = json.loads(cli("evaluate", bundle, "--data", data, "--json").out)
    shipped = json.loads((bundle.parent / "scores.json").read_text())
    assert scores["examples"] == 40 and 0 <= shipped["test"]["accuracy"] <= 1


def test_all_methods_at_once(train: Cli, cli: Cli, write: Any, rows: Any) -> None:
    names = ["llrd", "lora", "rdrop", "fgm", "ema"]
    bundle = train(write("rows.jsonl", rows(40)), *(w for n in names for w in ("--method", n)))
    assert list(config(bundle.parent)["method"]) == names, "their order is kept: it is their nesting"
    assert cli("predict", bundle, "a good film").code == 0
