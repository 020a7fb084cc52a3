"""The rows and models that the benchmarks of speed run on, written into a temporary folder, and runs of the command on them.

Short texts are the film sentences of `en_sentiment`. Long texts are made of them, since no long review is at hand: texts of
one label are joined, in the order of the file and again from its start, until they are as long as the next draw of a
log-normal with the median and spread of IMDB's reviews in word pieces (about 230 tokens; half of all between 150 and 360).
Speed asks for the lengths only.
"""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from measure import BERT_BASE, HERE, MINILM, Child, Shape, run_child, trainformer
from tokenizers import Tokenizer

IMDB_MEDIAN_TOKENS, IMDB_SIGMA = 230, 0.65
MINILM_NAME = "all-MiniLM-L6-v2"
TEST_ROWS, VALIDATION_ROWS = 256, 64


@dataclass(frozen=True)
class Case:
    """What is trained on. `rows` are enough for 10 to 25 seconds on two slow cores."""

    title: str
    shape: Shape
    step_rows: int
    rows: int
    lr: float
    long: bool = False

    @property
    def limit(self) -> int:
        """Longest sequence in tokens: what texts are padded to by those who pad to a limit."""
        return 512 if self.long else 128


CASES = {
    "base16": Case("BERT-base shape, 16 short texts a step", BERT_BASE, 16, 384, 5e-5),
    "base64": Case("BERT-base shape, 64 short texts a step", BERT_BASE, 64, 512, 5e-5),
    "long": Case("BERT-base shape, 16 long texts a step", BERT_BASE, 16, 64, 5e-5, long=True),
    "minilm64": Case("MiniLM-L6, 64 short texts a step", MINILM, 64, 2048, 1e-4),
}


class Files:
    """Files of rows and folders of models, each written once."""

    def __init__(self, shared: Path, folder: Path):
        self.shared, self.folder = shared, folder
        self.minilm = shared / "models" / MINILM_NAME
        self.tokenizer = Tokenizer.from_file(str(self.minilm / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def rows(self, split: str, count: int, long: bool = False) -> Path:
        """The first `count` rows of a split; shorter only if the split is."""
        path = self.folder / f"{split}-{count}{'-long' if long else ''}.jsonl"
        if not path.exists():
            short = [json.loads(line) for line in (self.shared / "data/en_sentiment" / f"{split}.jsonl").open()]
            found = list(self._joined(short, count)) if long else short[:count]
            path.write_text("".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in found))
        return path

    def _joined(self, short: list[dict], count: int) -> Iterator[dict]:
        """Long rows, their labels in turn."""
        draw = random.Random(0)
        labels = sorted({row["label"] for row in short})
        by_label = {label: cycle([row["text"] for row in short if row["label"] == label]) for label in labels}
        for number in range(count):
            label, wanted = labels[number % len(labels)], draw.lognormvariate(0, IMDB_SIGMA) * IMDB_MEDIAN_TOKENS
            texts, tokens = [], 2
            while tokens < wanted:
                texts.append(next(by_label[label]))
                tokens += len(self.tokenizer.encode(texts[-1], add_special_tokens=False).ids)
            yield {"text": " ".join(texts or [next(by_label[label])]), "label": label}

    def lengths(self, path: Path, limit: int) -> list[int]:
        """Tokens of each row, special tokens included, at most `limit`."""
        texts = [json.loads(line)["text"] for line in path.open()]
        return [min(limit, len(e.ids)) for e in self.tokenizer.encode_batch(texts)]

    def model(self, shape: Shape) -> Path:
        """MiniLM as it is; of any other shape a random BERT with its tokenizer, saved as a classifier of two labels."""
        if shape == MINILM:
            return self.minilm
        path = self.folder / f"bert-{shape}"
        if not path.exists():
            words = [sys.executable, str(HERE / "random_bert.py"), str(self.minilm), str(shape), str(path)]
            subprocess.run(words, check=True)
        return path


@dataclass(frozen=True)
class Ours:
    """A run of the command `trainformer train`, and what its clock and log tell."""

    child: Child
    clock: dict[str, Any]
    log: list[dict[str, Any]]
    scores: dict[str, Any]
    profile: dict[str, Any]

    @property
    def tokens(self) -> int:
        """Real tokens that were trained on."""
        return sum(line.get("tokens", 0) for line in self.log)


def train_ours(files: Files, case: Case, train: Path, threads: int, **how: Any) -> Ours:
    """The default recipe for one epoch, probe and baselines off, evaluated at the end alone.

    `how` are settings of `train`, and `cache` (a folder), `profile` (steps in the profile). Words of None are left to the recipe.
    """
    settings = dict(epochs=1, step_rows=case.step_rows, lr=case.lr, precision="bfloat16", probe="false", baselines="false")
    with tempfile.TemporaryDirectory() as folder:
        run, config = Path(folder) / "run", Path(folder) / "config.yaml"
        clock = {"profile_steps": how.pop("profile", 0)}
        config.write_text(json.dumps({"callbacks": {"console": {}, "early_stopping": {}, "benchmarks.clock": clock}}))
        cache = str(how.pop("cache", folder))
        words = trainformer(
            "train", config, "--data", train, "--validation", files.rows("validation", VALIDATION_ROWS, case.long),
            "--test", files.rows("test", TEST_ROWS, case.long), "--model", files.model(case.shape),
            "--text", "text", "--label", "label", "--out", run, "--set", f"data.max_tokens={case.limit}",
        )  # fmt: skip
        for name, value in (settings | how).items():
            words += [] if value is None else ["--set", f"train.{name}={value}"]
        child = run_child(words, threads, TRAINFORMER_CACHE=cache)
        found = {name: json.loads((run / f"{name}.json").read_text()) for name in ("clock", "scores")}
        profile = run / "profile.json"
        log = [json.loads(line) for line in (run / "log.jsonl").open()]
        return Ours(child, found["clock"], log, found["scores"], json.loads(profile.read_text()) if profile.exists() else {})
