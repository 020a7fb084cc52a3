"""Real rows and a real encoder, where they lie beside the project: fine-tuning learns what it should."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def shared() -> Path:
    """The folder of real data and models that stands beside the project."""
    folder = Path(os.environ.get("TRAINFORMER_SHARED", Path(__file__).parents[3] / "shared"))
    if not (folder / "models" / "all-MiniLM-L6-v2").is_dir():
        pytest.skip(f"no real data at {folder}; TRAINFORMER_SHARED says where it is")
    return folder


@pytest.mark.slow
def test_two_hundred_sentences_of_films(shared: Path, cli: Cli, tmp_path: Path) -> None:
    """Far above the majority class, and the library's classifier opens the bundle to the same logits."""
    import torch
    import transformers

    model, source = shared / "models" / "all-MiniLM-L6-v2", shared / "data" / "en_sentiment"
    for name, count in (("train", 200), ("validation", 100), ("test", 200)):
        lines = (source / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
    parts = [w for n in ("validation", "test") for w in (f"--{n}", tmp_path / f"{n}.jsonl")]
    outcome = cli("train", "--data", tmp_path / "train.jsonl", *parts, "--text", "text", "--label", "label", "--model", model,
                  "--set", "train.epochs=3", "--out", tmp_path / "run")  # fmt: skip
    assert outcome.code == 0, outcome.err
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    majority = next(b for b in scores["baselines"] if b["name"] == "majority class")["test"]["accuracy"]
    assert scores["test"]["accuracy"] > max(0.70, majority + 0.1)
    bundle, text = tmp_path / "run" / "bundle", "A warm, funny and beautifully acted film."
    [answer] = cli("predict", bundle, text, "--logits").answers
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle)
    library = transformers.AutoModelForSequenceClassification.from_pretrained(bundle).eval()
    with torch.no_grad():
        logits = library(**tokenizer(text, return_tensors="pt")).logits[0]
    assert answer["label"] == "positive"
    assert torch.allclose(logits, torch.tensor(answer["logits"]), atol=1e-4)
