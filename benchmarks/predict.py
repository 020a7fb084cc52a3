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
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cases import Files
from measure import (
    BERT_BASE,
    HERE,
    MINILM,
    MOST_LOAD,
    Load,
    Results,
    described,
    gemm_peak,
    put_table,
    rows_of_table,
    run_child,
    spread,
    trainformer,
)

CASES = {"minilm": ("MiniLM-L6", MINILM, 1024), "base": ("BERT-base shape", BERT_BASE, 192)}
LONG_SHARE = 0.25
TARGET = 2.0


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--case", action="append", choices=list(CASES))
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--scale", type=float, default=1.0, help="times the rows of each case")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a repeat is thrown away")
    p.add_argument("--table", action="store_true", help="write the table from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "predict.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args()


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
        asked = pipeline("text-classification", model=str(folder), tokenizer=str(folder), device="cpu")
        limit = dict(batch_size=32, truncation=True, max_length=ours.limit)
        self.ways: dict[str, Callable[[], list[dict]]] = {
            "ours": lambda: ours.predict(self.texts),
            "pipeline": lambda: asked(self.texts, **limit),
        }
        for ask in self.ways.values():
            ask()

    def run(self, repeat: int) -> dict:
        """Seconds of each way and the ratio of one repeat; refuses answers that differ."""
        seconds, said = {}, {}
        with Load() as load:
            for way in sorted(self.ways, reverse=bool(repeat % 2)):
                start = time.perf_counter()
                answers = self.ways[way]()
                seconds[way] = time.perf_counter() - start
                said[way] = [answer["label"] for answer in answers]
        differ = sum(x != y for x, y in zip(said["ours"], said["pipeline"], strict=True))
        if differ:
            raise SystemExit(f"{differ} of {len(self.texts)} labels differ: the two do not do the same.")
        return dict(seconds=seconds, rows=len(self.texts), peak_float32_gflops=self.numbers, others=load.share)


def table(a: argparse.Namespace, results: Results, names: list[str]) -> str:
    lines = []
    for name in names:
        title, _, rows = CASES[name]
        rows = round(rows * a.scale)
        found = [each for each in (results.get(name, rows, repeat) for repeat in range(a.repeats)) if each]
        speeds = {way: [rows / each["seconds"][way] for each in found] for way in ("ours", "pipeline")}
        ratio = [each["seconds"]["pipeline"] / each["seconds"]["ours"] for each in found]
        few = "" if len(found) in (0, a.repeats) else f", {len(found)} of {a.repeats} repeats"
        cells = [spread(speeds["ours"], ",.1f"), spread(speeds["pipeline"], ",.1f"), spread(ratio, ".2f")]
        reached = f" {'reached' if statistics.median(ratio) >= TARGET else 'missed'}" if found else ""
        lines.append([f"{title}, {rows} rows{few}", *cells, f"{TARGET:g}x{reached}"])
    return rows_of_table("model | Trainformer, rows a second | pipeline, rows a second | ratio | aim", lines)


def main() -> None:
    a = arguments()
    a.shared = a.shared.resolve()
    results = Results(a.results, a.threads, a.most_load)
    names = a.case or list(CASES)
    with tempfile.TemporaryDirectory() as folder:
        files = Files(a.shared, Path(folder))
        for name in [] if a.table else names:
            missing = [r for r in range(a.repeats) if not results.get(name, round(CASES[name][2] * a.scale), r)]
            both = Both(a, files, name) if missing else None
            for repeat in missing:
                assert both is not None
                results.fill((name, len(both.texts), repeat), lambda b=both, r=repeat: b.run(r))
    text = f"{table(a, results, names)}\n\n{described(results.measured, results.thrown)}"
    print(text, file=sys.stdout)
    put_table("predict", text, a.docs)


if __name__ == "__main__":
    main()
