"""What a Transformer must be able to learn from nothing: to copy, to reverse, to sort; exactly, on texts that it has not seen."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from trainformer import train

WORDS = ["a", "the", "film", "story", "was", "and", "it", "plot"]
TASKS: dict[str, Callable[[list[str]], list[str]]] = {
    "copy": lambda words: words,
    "reverse": lambda words: words[::-1],
    "sort": lambda words: sorted(words, key=WORDS.index),
}


def rows(name: str, count: int, longest: int, seed: int) -> str:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words = draw.choices(WORDS, k=draw.randint(1, longest))
        found.append(json.dumps({"source": " ".join(words), "target": " ".join(TASKS[name](words))}) + "\n")
    return "".join(found)


def exact(name: str, tiny_model: Path, folder: Path, rows_wanted: int, longest: int) -> float:
    """Share of the test rows that are written exactly, none of them seen in training."""
    train_text = rows(name, rows_wanted, longest, 0)
    seen = set(train_text.splitlines())
    test_text = "".join(line + "\n" for line in rows(name, 1500, longest, 1).splitlines() if line not in seen)
    (folder / "train.jsonl").write_text(train_text)
    (folder / "test.jsonl").write_text(test_text)
    settings = {"data.cache": str(folder / "cache"), "train.lr": 2e-3, "train.step_rows": 64, "train.precision": "float32",
                "train.epochs": 30, "model.width": 64, "model.norm_place": "pre", "model.positions": "rotary",
                "model.dropout": 0.0, "model.embedding_dropout": 0.0, "task.label_smoothing": 0.0,
                "task.max_new_tokens": 20}  # fmt: skip
    run = train(folder / "train.jsonl", test=folder / "test.jsonl", out=folder / "run", task="seq2seq",
                model="transformer-tiny", tokenizer=str(tiny_model), text="source", text_b="target", set=settings)  # fmt: skip
    score: float = run.scores["test"]["exact_match"]
    return score


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_it_learns_exactly(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Texts of up to twelve words: 99.9 % of those never seen are written without a fault."""
    assert exact(name, tiny_model, tmp_path, 8000, 12) >= 0.999
