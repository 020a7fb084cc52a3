"""What a run leaves behind, and what the other verbs say of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from safetensors.torch import load_file

Cli = Callable[..., Any]


def test_the_folder_of_a_run(trained: Path) -> None:
    assert {"bundle", "log.jsonl", "config.yaml", "checkpoints", "report.html", "scores.json"} <= {
        p.name for p in trained.iterdir()
    }
    assert {p.name for p in (trained / "bundle").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "trainformer.json", "README.md",
        "report.html", "manifest.json", "reference.safetensors",
    }  # fmt: skip
    assert not [p for p in trained.rglob("*") if p.name.startswith(".")], "nothing half-written is left"


def test_the_log(trained: Path) -> None:
    """64 training rows in steps of 16: four steps, scored before the first and after the last."""
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [set(line) for line in steps] == [{"step", "epoch", "loss", "lr", "tokens", "seconds"}] * 4
    assert [(line["step"], line["epoch"]) for line in steps] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert all(line["loss"] > 0 and line["tokens"] > 16 and line["seconds"] > 0 for line in steps)
    scored = [line for line in lines if "validation" in line]
    assert [line["step"] for line in scored] == [0, 4]
    assert all({"accuracy", "f1_macro", "loss", "ece"} <= set(line["validation"]) for line in scored)


def test_the_best_epoch_ships(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "validation" in line]
    best = max(scored, key=lambda line: (line["validation"]["accuracy"], -line["step"]))
    assert [line["step"] for line in scored if line["best"]][-1] == best["step"]
    scores = json.loads((trained / "scores.json").read_text())
    assert scores["validation"]["accuracy"] == best["validation"]["accuracy"]


def test_its_settings_run_again_to_the_same_bits(trained: Path, cli: Cli, tmp_path: Path) -> None:
    outcome = cli("train", trained / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    one, other = (load_file(run / "bundle" / "model.safetensors") for run in (trained, tmp_path / "again"))
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
    assert (tmp_path / "again" / "config.yaml").read_text() == (trained / "config.yaml").read_text()


def test_the_schema_accepts_what_a_run_wrote_and_refuses_a_mistake(trained: Path, cli: Cli) -> None:
    schema = json.loads(cli("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    settings = yaml.safe_load((trained / "config.yaml").read_text())
    jsonschema.validate(settings, schema)
    for section, change in (("train", {"lr": -1}), ("train", {"epoch": 1}), ("data", {"max_tokens": 1}), ("trian", {})):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(settings | {section: settings.get(section, {}) | change}, schema)


def test_evaluate_ends_with_one_line_of_json(trained: Path, cli: Cli) -> None:
    data = trained.parent / "reviews.jsonl"
    outcome = cli("evaluate", trained / "bundle", "--data", data, "--json")
    scores = json.loads(outcome.out.splitlines()[-1])
    assert {"examples", "accuracy", "f1_macro", "loss", "ece"} <= set(scores)
    answers = cli("predict", trained / "bundle", "--data", data).answers
    truth = [json.loads(line)["label"] for line in data.read_text().splitlines()]
    right = sum(a["label"] == t for a, t in zip(answers, truth, strict=True))
    assert (scores["examples"], scores["accuracy"]) == (80, right / 80)
    shown = cli("evaluate", trained / "bundle", "--data", data).out
    assert f"accuracy  {right / 80:.4f}" in shown


def test_predict_in_three_ways(trained: Path, cli: Cli, tmp_path: Path) -> None:
    """As words, from a file, into a file: the same answers, in their order."""
    bundle, texts = trained / "bundle", ["a good film", "", "the very slow story was dull and cold " * 3, "ünknown"]
    said = cli("predict", bundle, *texts, "--logits").answers
    assert [set(a) for a in said] == [{"label", "score", "scores", "cut_tokens", "logits"}] * 4
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    outcome = cli("predict", bundle, "--data", tmp_path / "new.jsonl", "--out", tmp_path / "answers.jsonl", "--logits")
    assert (outcome.code, outcome.out) == (0, "")
    written = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [a["label"] for a in written] == [a["label"] for a in said]
    for one, other in zip(written, said, strict=True):
        assert one["logits"] == pytest.approx(other["logits"], abs=1e-5)
    alone = [cli("predict", bundle, t, "--logits").answers[0]["logits"] for t in texts]
    assert torch.allclose(torch.tensor(alone), torch.tensor([a["logits"] for a in said]), atol=1e-5), "neighbours do not matter"


def test_check(write: Any, rows: Any, cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    some = rows(40)
    data, test = write("rows.jsonl", some), write("test.jsonl", [*rows(9, seed=1), some[3]])
    words = ("check", "--data", data, "--test", test, "--model", tiny_model)
    outcome = cli(*words, "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 0 and found["errors"] == 0
    assert {name: part["rows"] for name, part in found["parts"].items()} == {"train": 36, "validation": 4, "test": 10}
    overlap = [f for f in found["findings"] if f["code"] == "overlap"]
    assert [(f["count"], f["where"]) for f in overlap] == [(1, [f"{test} line 10"])]
    assert found["forecast"]["training_tokens"] > 0
    assert cli(*words, "--strict", "--json").code == 2
    page = tmp_path / "check.html"
    assert cli(*words, "--html", page).code == 0
    text = page.read_text()
    assert "test.jsonl line 10" in text and 'src="' not in text and "<link" not in text, "one file, which asks no network"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "check.html", "rows.jsonl", "test.jsonl"], (
        "nothing else is written"
    )


def test_strict_training_refuses_warnings(write: Any, rows: Any, cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    data = write("rows.jsonl", rows(40))
    outcome = cli("train", "--data", data, "--model", tiny_model, "--out", tmp_path / "run", "--strict")
    assert outcome.code == 2 and outcome.err.splitlines()[-1].startswith("error: check: validation has 4 rows: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("tasks", {"text_classification", "multi_label", "regression", "text_pair"}),
        ("methods", {"llrd", "ema", "rdrop", "fgm", "lora"}),
        ("callbacks", {"console", "tensorboard", "wandb", "early_stopping"}),
        ("models", {"pretrained"}),
    ],
)
def test_list(cli: Cli, what: str, names: set[str]) -> None:
    lines = cli("list", what).out.splitlines()
    assert names <= {line.split()[0] for line in lines if line and not line.startswith(" ")}


def test_a_new_file_is_a_new_method(
    write: Any, rows: Any, cli: Cli, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file and no other edit: its name works as a flag, its settings are checked, and it takes part."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "halved.py").write_text(
        '"""Halves the loss."""\nfrom trainformer.core.roles import Method\n'
        'class Halved(Method):\n    """Half the loss."""\n    share: float = 0.5\n    """Share of the loss that is left."""\n'
        "    def wrap_loss(self, loss):\n        return lambda model, batch: self.share * loss(model, batch)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = write("rows.jsonl", rows(40))

    def first_loss(name: str, *words: str) -> float:
        sets = ("--set", "train.epochs=1", "--set", "train.precision=float32", "--set", "train.probe=false")
        outcome = cli("train", "--data", data, "--model", tiny_model, "--out", tmp_path / name, *sets, *words)
        assert outcome.code == 0, outcome.err
        return float(json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0])["loss"])

    plain, halved = first_loss("plain", "--method", "llrd"), first_loss("halved", "--method", "mine.halved")
    assert halved == pytest.approx(plain / 2, rel=1e-6)


def test_the_test_file_is_scored_once(write: Any, rows: Any, cli: Cli, tiny_model: Path, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The rows of the test file reach the model in one pass at the very end, after every choice."""
    from trainformer.engine.engine import Engine
    from trainformer.trust import calibrate

    passes: list[tuple[str, int]] = []
    evaluate, fit, decide = Engine.evaluate, Engine.fit, calibrate.fit
    monkeypatch.setattr(
        Engine, "evaluate", lambda self, rows, *a, **k: passes.append(("score", len(rows))) or evaluate(self, rows, *a, **k)
    )
    monkeypatch.setattr(Engine, "fit", lambda self: passes.append(("fit", 0)) or fit(self))
    monkeypatch.setattr(calibrate, "fit", lambda *a: passes.append(("decide", 0)) or decide(*a))
    data, validation, test = (write(f"{n}.jsonl", rows(n, seed=n)) for n in (40, 12, 14))
    outcome = cli("train", "--data", data, "--validation", validation, "--test", test, "--model", tiny_model,
                  "--out", tmp_path / "run", "--set", "train.epochs=3")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert passes.count(("score", 14)) == 1
    assert passes.index(("score", 14)) > passes.index(("decide", 0)) > passes.index(("fit", 0))


def test_nothing_of_the_test_rows_reaches_the_bundle(write: Any, rows: Any, cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    """Other test rows, same weights and same decision."""
    data, validation = write("rows.jsonl", rows(40)), write("validation.jsonl", rows(12, seed=1))
    for name, seed in (("one", 2), ("other", 3)):
        test = write(f"{name}.jsonl", [r | {"label": "good" if seed == 3 else r["label"]} for r in rows(14, seed=seed)])
        outcome = cli("train", "--data", data, "--validation", validation, "--test", test, "--model", tiny_model,
                      "--out", tmp_path / name, "--set", "train.epochs=2")  # fmt: skip
        assert outcome.code == 0, outcome.err
    one, other = tmp_path / "one" / "bundle", tmp_path / "other" / "bundle"
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    decisions = [json.loads((b / "trainformer.json").read_text())["decision"] for b in (one, other)]
    assert decisions[0] == decisions[1]


def test_resume_with_other_settings_is_refused(trained: Path, cli: Cli, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "scores.json").unlink()
    before = (run / "config.yaml").read_text()
    outcome = cli("train", run / "config.yaml", "--out", run, "--resume", "--set", "train.step_rows=8")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == (
        f"error: --out {run}: train.step_rows was 16 when the run began, and is 8 now. "
        "Go on with --resume and no settings, or start another run."
    )
    assert (run / "config.yaml").read_text() == before
