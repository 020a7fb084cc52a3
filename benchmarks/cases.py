"""The rows and models that the benchmarks of speed run on, written into a temporary folder from the shared data.

Short texts are the film sentences of `en_sentiment`. Long texts are made of them, since no long review is at hand: texts of
one label are joined, in the order of the file and again from its start, until they are as long as the next draw of a
log-normal with the median and spread of IMDB's reviews in word pieces (about 230 tokens; half of all between 150 and 360).
Speed asks for the lengths only.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from measure import BERT_BASE, HERE, MINILM, Shape
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
