"""Speed of prediction beside the transformers pipeline, on one bundle and rows of mixed lengths; a table of docs/benchmarks.md.

    python benchmarks/predict.py --shared DIR [--case minilm] [--repeats 5] [--table]

DIR holds data/ and models/. A bundle is trained on a few rows with the first token as its pooling, so that the library opens
it with the very same layers. Then one process asks `Bundle.predict` (sorted by length, order restored) and
`pipeline("text-classification", batch_size=32)` the same texts in turn, the other first in each repeat. Every label must be
the same. Both are float32; tokenising is inside for both. Disturbed repeats are thrown away as in benchmarks/train.py.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path

from beside import asked, measured, parser
from cases import Files
from measure import BERT_BASE, MINILM, Load, Results, gemm_peak, rows_of_table, run_child, spread, trainformer

CASES = {"minilm": ("MiniLM-L6", MINILM, 1024), "base": ("BERT-base shape", BERT_BASE, 192)}
LONG_SHARE = 0.25
TARGET = 2.0


def mixed(files: Files, count: int) -> list[str]:
    """Short texts, a quarter of long ones among them, in a random order."""
    long = round(count * LONG_SHARE)
    paths = (files.rows("test", count - long), files.rows("test", long, long=True))
    texts = [json.loads(line)["text"] for path in paths for line in path.open()]
    random.Random(0).shuffle(texts)
    return texts


def bundle(a: argparse.Namespace, files: Files, name: str) -> Path:
    """A bundle of a few steps, with the layers that the library opens."""
    run = files.folder / f"run-{name}"
    words = trainformer("train", "--data", files.rows("train", 64), "--validation", files.rows("validation", 64))
    words += ["--test", str(files.rows("test", 64)), "--model", str(files.model(CASES[name][1])), "--out", str(run)]
    for setting in ("train.epochs=1", "train.probe=false", "train.baselines=false", "model.pooling=cls"):
        words += ["--set", setting]
    if not (run / "bundle").is_dir():
        run_child(words, a.threads, TRAINFORMER_CACHE=str(files.folder))
    return run / "bundle"


class Both:
    """The two ways to ask, opened once."""

    def __init__(self, a: argparse.Namespace, files: Files, name: str):
        import torch
        from transformers import pipeline

        from trainformer import Bundle

        torch.set_num_threads(a.threads)
        folder = bundle(a, files, name)
        self.texts = mixed(files, round(CASES[name][2] * a.scale))
        self.numbers = gemm_peak("float32", a.threads) / 1e9
        ours = Bundle.open(folder)
        pipe = pipeline("text-classification", model=str(folder), tokenizer=str(folder), device="cpu")
        limit = dict(batch_size=32, truncation=True, max_length=ours.limit)
        self.ways: dict[str, Callable[[], list[dict]]] = {
            "ours": lambda: ours.predict(self.texts),
            "pipeline": lambda: pipe(self.texts, **limit),
        }
        for ask in self.ways.values():
            ask()

    def run(self, repeat: int) -> dict:
        """Seconds of each way and the ratio of one repeat; refuses answers that differ."""
        with Load() as load:
            seconds, answers = asked(self.ways, sorted(self.ways, reverse=bool(repeat % 2)))
        said = {way: [answer["label"] for answer in given] for way, given in answers.items()}
        differ = sum(x != y for x, y in zip(said["ours"], said["pipeline"], strict=True))
        if differ:
            raise SystemExit(f"{differ} of {len(self.texts)} labels differ: the two do not do the same.")
        return dict(seconds=seconds, rows=len(self.texts), peak_float32_gflops=self.numbers, others=load.share)


def table(a: argparse.Namespace, sizes: dict[str, int], results: Results) -> str:
    lines = []
    for name, rows in sizes.items():
        title = CASES[name][0]
        found = [each for each in (results.get(name, rows, repeat) for repeat in range(a.repeats)) if each]
        speeds = {way: [rows / each["seconds"][way] for each in found] for way in ("ours", "pipeline")}
        ratio = [each["seconds"]["pipeline"] / each["seconds"]["ours"] for each in found]
        few = "" if len(found) in (0, a.repeats) else f", {len(found)} of {a.repeats} repeats"
        cells = [spread(speeds["ours"], ",.1f"), spread(speeds["pipeline"], ",.1f"), spread(ratio, ".2f")]
        reached = f" {'reached' if statistics.median(ratio) >= TARGET else 'missed'}" if found else ""
        lines.append([f"{title}, {rows} rows{few}", *cells, f"{TARGET:g}x{reached}"])
    return rows_of_table("model | Trainformer, rows a second | pipeline, rows a second | ratio | aim", lines)


def main() -> None:
    a = parser(__doc__, "predict", CASES).parse_args()
    sizes = {name: round(CASES[name][2] * a.scale) for name in a.case or CASES}
    measured(a, "predict", sizes, lambda files, name: Both(a, files, name), lambda results: table(a, sizes, results))


if __name__ == "__main__":
    main()
