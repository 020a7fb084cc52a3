"""A run that is killed, anywhere and again and again, ends with the bits of the run that was left alone."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import BertWordPieceTokenizer

from trainformer.studies.verify import differences

Killed = Callable[..., dict[str, Any]]
ENGINE = "trainformer.engine.engine:Engine"
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "accumulation": {"train": {"micro_tokens": 30}},
    "windows": {"task": {"name": "text_classification", "long_text": "window"}, "data": {"max_tokens": 12}},
    "all methods": {"method": ["llrd", "lora", "rdrop", "fgm", "ema"]},
    "sgd": {"train": {"optimizer": "sgd", "lr": 0.1}, "method": ["llrd"]},
}


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT of width 32 with a WordPiece tokenizer learnt from its words."""
    folder = tmp_path_factory.mktemp("wordpiece")
    backend = BertWordPieceTokenizer()
    backend.train_from_iterator(
        ["good fine lovely warm bright funny bad dull poor cold grim slow film story plot"] * 9, vocab_size=90
    )
    backend.save_model(str(folder))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def settings(wordpiece: Path, write: Any, rows: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`settings(method=["lora"])`: 3 epochs of 3 steps on 48 rows, a checkpoint after every second step too."""

    def make(**words: Any) -> dict[str, Any]:
        train = {"epochs": 3, "lr": 1e-3, "precision": "float32", "baselines": False, "checkpoint_steps": 2}
        files = {
            "train": write("train.jsonl", rows(48)),
            "validation": write("validation.jsonl", rows(16, seed=1)),
            "test_share": 0,
        }
        return {"model": {"name": str(wordpiece)}, "callbacks": {"console": {}, "early_stopping": {"patience": 9}}} | words | {
            "data": files | {"cache": str(tmp_path / "cache")} | words.get("data", {}), "train": train | words.get("train", {}),
        }  # fmt: skip

    return make


@pytest.fixture
def killed(settings: Any, tmp_path: Path) -> Killed:
    """`killed([0.5, ["module:name", 3]], method=[...])`: what differs from the run that was left alone."""

    def run(kills: list[Any], **words: Any) -> dict[str, Any]:
        spec = tmp_path / "spec.json"
        spec.write_text(json.dumps({"config": settings(**words), "folder": str(tmp_path), "kills": kills}))
        place = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("forks.py"), spec], env=place, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout.splitlines()[-1])
        names = ["again", *(f"killed-{i + 1}" for i in range(found["runs"]))]
        return found | {"wrong": [d for name in names for d in differences(tmp_path / "whole", tmp_path / name)]}

    return run


PLACES = {
    "before anything is written": ["trainformer.run:_begin", 1],
    "while the settings are written": ["os:fsync", 1],
    "before the baselines": ["trainformer.run:_baselines", 1],
    "before the first evaluation": [f"{ENGINE}._score", 1],
    "in the first save": ["trainformer.engine.checkpoint:save_best", 1],
    "in the first step": [f"{ENGINE}._step", 1],
    "in a step": [f"{ENGINE}._step", 3],
    "in an evaluation": ["trainformer.metrics.one_label:OneLabel.add", 1],
    "before a state is written": ["trainformer.engine.checkpoint:save", 1],
    "while a state is written": ["trainformer.engine.checkpoint:write_tensors", 2],
    "before a state is whole": ["trainformer.core.files:write_manifest", 1],
    "while an old state is removed": ["shutil:rmtree", 3],
    "in the last step": [f"{ENGINE}._step", 1, 8],
    "in the last evaluation": [f"{ENGINE}._score", 1, 9],
    "before the last save": [f"{ENGINE}.save", 1, 9],
    "after the last step": [f"{ENGINE}.ship", 1],
    "while calibrating": ["trainformer.trust.calibrate:fit", 1],
    "while the report is written": ["trainformer.trust.report:render", 1],
    "while the bundle is written": ["trainformer.bundle.writing:write_folder", 1],
    "before the scores": ["trainformer.run:write_json", 1],
}


def test_killed_at_each_place(killed: Killed) -> None:
    """One after the other, in one run that always goes on from where it was."""
    assert killed(list(PLACES.values())) == {"wrong": [], "missed": [], "runs": 1}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_killed_at_random_instants(killed: Killed, recipe: dict[str, Any]) -> None:
    """4 instants for each of the 5 recipes, of the life of a run: 20 kills."""
    draw = random.Random(str(recipe))
    assert killed([draw.uniform(0.05, 0.9) for _ in range(4)], **recipe)["wrong"] == []
