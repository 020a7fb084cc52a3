"""Baselines: the majority class is right as often as it occurs, TF-IDF learns words, a probe learns features."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from trainformer.core.config import parse
from trainformer.data import prepare
from trainformer.data.tokens import HubTokens
from trainformer.models.locate import default_model
from trainformer.trust.baselines import Baselines

pytestmark = pytest.mark.skipif(default_model() is None, reason="the default encoder is not installed (make setup)")


def prepared(tmp_path: Path, rows: list[dict[str, Any]], task: str) -> tuple[Any, Any]:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = {"train": str(tmp_path / "train.jsonl"), "cache": str(tmp_path / "cache"), "text": "text", "label": "label"}
    config = parse({"task": task, "data": data})
    found = prepare.read(config, {})
    prepare.learn(found, config.task)
    prepare.encode(found, config, HubTokens.load(str(default_model())), 64)
    return config.task, found


def rows(seed: int, label: Any) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    words = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge"]
    found = []
    for _ in range(300):
        chosen = draw.sample(words, 6)
        found.append({"text": " ".join(chosen), "label": label("cedar" in chosen)})
    return found


def test_words_tell_the_label(tmp_path: Path) -> None:
    task, found = prepared(tmp_path, rows(0, lambda there: "with" if there else "without"), "text_classification")
    scores = Baselines(task, found.slices["train"], seed=0).scores(found.slices["test"])
    seen, labels = ([e.target for e in found.slices[split].examples(task)] for split in ("train", "test"))
    common = max(sorted(set(seen)), key=seen.count)
    assert scores["majority class"]["accuracy"] == pytest.approx(labels.count(common) / len(labels))
    assert scores["TF-IDF + logistic regression"]["accuracy"] > 0.9


def test_a_number_has_its_mean_as_the_least_baseline(tmp_path: Path) -> None:
    task, found = prepared(tmp_path, rows(1, lambda there: 5.5 if there else 2.25), "regression")
    scores = Baselines(task, found.slices["train"], seed=0).scores(found.slices["test"])
    assert abs(scores["mean of training"]["r2"]) < 0.1
    assert scores["TF-IDF + ridge regression"]["r2"] > 0.8


def test_several_labels(tmp_path: Path) -> None:
    several = [
        r | {"label": [*r["label"], "land"] if "dune" in r["text"] else r["label"]} for r in rows(2, lambda t: ["wood"] * t)
    ]
    task, found = prepared(tmp_path, several, "multi_label")
    scores = Baselines(task, found.slices["train"], seed=0).scores(found.slices["test"])
    assert scores["TF-IDF + logistic regression"]["f1_micro"] > 0.9
